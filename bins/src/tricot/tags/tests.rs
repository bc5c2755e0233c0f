use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use proptest::prelude::*;

use super::*;

fn read(tag: &str) -> (Tag, Vec<TagWarning>) {
    match parse(tag) {
        Parsed::Tag(tag, warnings) => (tag, warnings),
        other => panic!("{tag}: {other:?}"),
    }
}

fn frontend(tag: &str) -> (Frontend, Vec<TagWarning>) {
    match read(tag) {
        (Tag::Frontend(frontend), warnings) => (frontend, warnings),
        other => panic!("{tag}: {other:?}"),
    }
}

/// What is said about a tag that is refused.
fn refused(tag: &str) -> String {
    match parse(tag) {
        Parsed::Refused(error) => error.to_string(),
        other => panic!("{tag}: {other:?}"),
    }
}

fn warned(tag: &str) -> Vec<String> {
    read(tag).1.iter().map(ToString::to_string).collect()
}

#[test]
fn frontends_are_read_as_documented() {
    for (tag, host, path, priority, backend) in [
        ("tricot app.example.com", "app.example.com", "", 100, Backend::Http),
        ("tricot app.example.com 10", "app.example.com", "", 10, Backend::Http),
        ("tricot app.example.com/sub", "app.example.com", "/sub", 100, Backend::Http),
        ("tricot app.example.com/sub 10", "app.example.com", "/sub", 10, Backend::Http),
        ("tricot-https app.example.com", "app.example.com", "", 100, Backend::Https),
        ("tricot-https app.example.com/a/b 4294967295", "app.example.com", "/a/b", u32::MAX, Backend::Https),
        ("tricot *.garage.example.com", "*.garage.example.com", "", 100, Backend::Http),
        ("tricot * 1", "*", "", 1, Backend::Http),
        ("tricot */api", "*", "/api", 100, Backend::Http),
        ("tricot app-*.x.org", "app-*.x.org", "", 100, Backend::Http),
        ("  tricot \t app.example.com/ \t 0  ", "app.example.com", "", 0, Backend::Http),
        ("tricot APP.Example.COM.", "app.example.com", "", 100, Backend::Http),
        ("tricot *.Example.COM./X", "*.example.com", "/X", 100, Backend::Http),
        ("tricot bücher.example", "xn--bcher-kva.example", "", 100, Backend::Http),
        ("tricot *.BÜCHER。example", "*.xn--bcher-kva.example", "", 100, Backend::Http),
        ("tricot localhost", "localhost", "", 100, Backend::Http),
        ("tricot my_app.example.com", "my_app.example.com", "", 100, Backend::Http),
        ("tricot 127.0.0.1", "127.0.0.1", "", 100, Backend::Http),
        ("tricot ::1", "[::1]", "", 100, Backend::Http),
        ("tricot [0:0::1]/x", "[::1]", "/x", 100, Backend::Http),
        ("tricot a.b/c//d/%20;x=1", "a.b", "/c//d/%20;x=1", 100, Backend::Http),
    ] {
        let (read, warnings) = frontend(tag);

        assert_eq!(read.host.to_string(), host, "{tag}");
        assert_eq!(&*read.path, path, "{tag}");
        assert_eq!((read.priority, read.backend), (priority, backend), "{tag}");
        assert_eq!(warnings, [], "{tag}");
    }
}

#[test]
fn what_is_meant_for_others_is_ignored() {
    for tag in [
        "",
        " ",
        "d53-cname x",
        "(diplonat (tcp_port 80))",
        "http",
        "urlprefix-a.b/",
        "Tricot",
        "tricots",
        "tricorne a.b",
        "tri a.b",
        "apricot a.b",
        "tricot.example.com",
    ] {
        assert_eq!(parse(tag), Parsed::Ignored, "{tag}");
        assert!(!is_meant(tag), "{tag}");
    }
}

#[test]
fn what_is_nearly_a_word_of_ours_is_said_to_be_none() {
    for (tag, meant) in [
        ("Tricot a.b", "tricot"),
        ("TRICOT-HTTPS a", "tricot-https"),
        ("tricots a.b", "tricot"),
        ("tricto a.b", "tricot"),
        ("trico a.b", "tricot"),
        ("rticot a.b", "tricot"),
        ("tricit a.b", "tricot"),
        ("\ntricot a", "tricot"),
        ("tricot:a.b", "tricot"),
        ("tricot=a.b", "tricot"),
        ("tricot/a.b", "tricot"),
        ("tricot_https a.b", "tricot-https"),
        ("trico-site-lb", "tricot-site-lb"),
        ("tricott-x a.b", "tricot"),
    ] {
        assert!(refused(tag).ends_with(&format!(" is not known to tricot; is {meant} meant?")), "{tag}");
        assert!(is_meant(tag), "{tag}");
    }
}

#[test]
fn every_word_is_known() {
    for word in WORDS {
        assert!(
            !matches!(parse(word), Parsed::Ignored | Parsed::Refused(TagError::UnknownWord { .. })),
            "{word}"
        );
        assert!(is_meant(word) && is_meant(&format!("  {word} a.b")), "{word}");
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    for (tag, text) in [
        ("tricot", "a host is missing, such as app.example.com"),
        ("tricot-https  ", "a host is missing, such as app.example.com"),
        ("tricot /path", "a host is missing, such as app.example.com"),
        ("tricot :80", "a host is missing, such as app.example.com"),
        ("tricot .", "a host is missing, such as app.example.com"),
        ("tricot http://a.b/c", "a host is wanted without http://, such as app.example.com"),
        ("tricot a,b", "host \"a,b\" has a character in it that no host has: ','"),
        ("tricot a:b", "host \"a:b\" has a character in it that no host has: ':'"),
        ("tricot *.::1", "host \"::1\" has a character in it that no host has: ':'"),
        ("tricot a@b*", "host \"a@b*\" has a character in it that no host has: '@'"),
        (
            "tricot a..b",
            "host \"a..b\" has an empty part, one of more than 63 characters, or more than 253 characters in all",
        ),
        ("tricot b\u{fc}*.x", "host \"b\u{fc}*.x\" has a character in it that no host has: 'ü'"),
        (
            "tricot a\u{ad}\u{378}.b",
            "host \"a\\u{ad}\\u{378}.b\" cannot be written in ASCII, as DNS needs it",
        ),
        ("tricot [ab.c", "host \"[ab.c\" has a [ that is never closed, or nothing between [ and ]"),
        ("tricot-lb", "\"tricot-lb\" is not known to tricot"),
        ("tricot-add-header", "a header needs a name and a value, such as X-Frame-Options DENY"),
        ("tricot-add-header X-A \t", "a header needs a name and a value, such as X-Frame-Options DENY"),
        ("tricot-add-header X:A b", "\"X:A\" is no name of a header"),
        ("tricot-add-header X-A b\u{7f}", "the value of header x-a has a character in it that none may have"),
        ("tricot-add-header X-A b\nc", "the value of header x-a has a character in it that none may have"),
        ("tricot-add-redirect", "a host is missing, such as app.example.com"),
        ("tricot-add-redirect a.b", "the host to redirect to is missing"),
        ("tricot-add-redirect *.b c", "a redirect needs one host on either side, and \"*.b\" is a pattern"),
        ("tricot-add-redirect a *", "a redirect needs one host on either side, and \"*\" is a pattern"),
        ("tricot-add-redirect a.b a.b/c", "the redirect leads to where it comes from"),
        ("tricot-add-redirect a.b/c A.b/c/d 301", "the redirect leads to where it comes from"),
        (
            "tricot-add-redirect a.b c.d:0",
            "\"0\" is no port to redirect to, which is a number from 1 to 65535",
        ),
        (
            "tricot-add-redirect a.b c.d:65536/x",
            "\"65536\" is no port to redirect to, which is a number from 1 to 65535",
        ),
        ("tricot-add-redirect a.b c.d:", "\"\" is no port to redirect to, which is a number from 1 to 65535"),
        (
            "tricot-add-redirect a.b https://c.d:8443/x",
            "a host is wanted without https://, such as app.example.com",
        ),
        ("tricot-on-demand-tls-ask", "a URL is wanted that begins with http:// or https://"),
        ("tricot-on-demand-tls-ask /check", "a URL is wanted that begins with http:// or https://"),
        ("tricot-on-demand-tls-ask a.b:80/check", "a URL is wanted that begins with http:// or https://"),
        ("tricot-on-demand-tls-ask ftp://a.b/", "a URL is wanted that begins with http:// or https://"),
    ] {
        assert_eq!(refused(tag), text, "{tag}");
    }
    for name in [
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Proxy-Authorization",
        "Content-Length",
    ] {
        let text = format!("header {} is set by the proxy itself", name.to_lowercase());
        assert_eq!(refused(&format!("tricot-add-header {name} x")), text);
    }
}

#[test]
fn what_is_used_with_a_reservation_says_which() {
    for (tag, host_and_path, text) in [
        (
            "tricot a.b:80/c",
            "a.b/c",
            "port \"80\" of host \"a.b\" is left out: the proxy listens where it listens",
        ),
        ("tricot a.b.:", "a.b", "port \"\" of host \"a.b.\" is left out: the proxy listens where it listens"),
        (
            "tricot [::1]:80",
            "[::1]",
            "port \"80\" of host \"[::1]\" is left out: the proxy listens where it listens",
        ),
        ("tricot a.b/c?d=e/f", "a.b/c", "paths are compared without \"?d=e/f\""),
        ("tricot a.b/é", "a.b/é", "no request has the path \"/é\": 'é' would be percent-encoded"),
        (
            "tricot a.b ten",
            "a.b",
            "\"ten\" is no priority, which is a number from 0 to 4294967295; 100 is used",
        ),
        (
            "tricot a.b +5",
            "a.b",
            "\"+5\" is no priority, which is a number from 0 to 4294967295; 100 is used",
        ),
        (
            "tricot a.b 4294967296",
            "a.b",
            "\"4294967296\" is no priority, which is a number from 0 to 4294967295; 100 is used",
        ),
        ("tricot a.b 100 and more", "a.b", "\"and more\" at the end is ignored"),
    ] {
        assert_eq!(frontend(tag).0.to_string(), host_and_path, "{tag}");
        assert_eq!(warned(tag), [text], "{tag}");
    }
    assert_eq!(warned("tricot-site-lb yes"), ["\"yes\" at the end is ignored"]);
    assert_eq!(warned("tricot-on-demand-tls-ask http://a/ b"), ["\"b\" at the end is ignored"]);
    assert_eq!(
        warned("tricot-add-redirect a b 300"),
        ["\"300\" is no status of a redirect, which is 301, 302, 303, 307 or 308; 302 is used"]
    );
    assert_eq!(warned("tricot a:1/?b c d").len(), 4);
}

#[test]
fn the_value_of_a_header_is_the_rest_of_the_tag() {
    for (tag, name, value) in [
        ("tricot-add-header Access-Control-Allow-Origin *", "access-control-allow-origin", "*"),
        (
            "tricot-add-header Strict-Transport-Security max-age=1; includeSubDomains",
            "strict-transport-security",
            "max-age=1; includeSubDomains",
        ),
        ("tricot-add-header\tX-A \t a  b \t", "x-a", "a  b"),
        ("tricot-add-header X-A é", "x-a", "é"),
    ] {
        let (Tag::AddHeader(header), warnings) = read(tag) else { panic!("{tag}") };

        assert_eq!((header.name.as_str(), header.value.as_bytes()), (name, value.as_bytes()), "{tag}");
        assert_eq!(warnings, [], "{tag}");
    }
}

#[test]
fn redirects_have_two_places_and_a_status() {
    for (end, status) in [
        ("", StatusCode::FOUND),
        (" 301", StatusCode::MOVED_PERMANENTLY),
        (" 302", StatusCode::FOUND),
        (" 303", StatusCode::SEE_OTHER),
        (" 307", StatusCode::TEMPORARY_REDIRECT),
        (" 308", StatusCode::PERMANENT_REDIRECT),
    ] {
        let tag = format!("tricot-add-redirect Old.example.com/a new.example.com/b{end}");
        let (Tag::Redirect(redirect), warnings) = read(&tag) else { panic!("{tag}") };

        assert_eq!((redirect.from_host.as_str(), &*redirect.from_path), ("old.example.com", "/a"));
        assert_eq!((redirect.to_host.as_str(), &*redirect.to_path), ("new.example.com", "/b"));
        assert_eq!(redirect.status, status);
        assert_eq!(warnings, []);
    }
    assert!(matches!(read("tricot-add-redirect a.b/c a.b/d").0, Tag::Redirect(_)));
}

#[test]
fn the_target_of_a_redirect_may_have_a_port() {
    for (target, host, port, path) in [
        ("c.d", "c.d", None, ""),
        ("c.d:8443", "c.d", Some(8443), ""),
        ("c.d:443/x:1", "c.d", Some(443), "/x:1"),
        ("[::1]:8443/", "[::1]", Some(8443), ""),
        ("[::1]", "[::1]", None, ""),
        // The source itself, but at another server.
        ("a.b:8443", "a.b", Some(8443), ""),
    ] {
        let (Tag::Redirect(redirect), warnings) = read(&format!("tricot-add-redirect a.b {target}")) else {
            panic!("{target}")
        };

        assert_eq!((redirect.to_host.as_str(), &*redirect.to_path), (host, path), "{target}");
        assert_eq!(redirect.to_port, port, "{target}");
        assert_eq!(warnings, [], "{target}");
    }
    assert_eq!(
        warned("tricot-add-redirect a.b:1 c.d"),
        ["port \"1\" of host \"a.b\" is left out: the proxy listens where it listens"]
    );
}

#[test]
fn who_is_asked_is_a_url() {
    for url in ["http://127.0.0.1:3903/check", "https://ask.example.com/?k=v", "http://[::1]/"] {
        assert_eq!(
            read(&format!("tricot-on-demand-tls-ask {url}")),
            (Tag::Ask(url.parse().unwrap()), vec![])
        );
    }
}

#[test]
fn patterns_match_the_hosts_that_they_mean() {
    for (tag, yes, no) in [
        ("tricot a.b", &["a.b"][..], &["A.b", "a.b.", "x.a.b", "b", ""][..]),
        ("tricot *.a.b", &["x.a.b", "x.y.a.b"], &["a.b", ".a.b", "xa.b", "x.a.b.c"]),
        ("tricot *", &["a", "[::1]", "a.b"], &[]),
        ("tricot ?.a.b", &["x.a.b"], &["xy.a.b", ".a.b"]),
        ("tricot [ab]*.c", &["a.c", "b.x.c"], &["x.c", ".c"]),
        ("tricot *.*.c", &["a.b.c"], &["b.c"]),
    ] {
        let host = frontend(tag).0.host;
        for name in yes {
            assert!(host.matches(name), "{tag} {name}");
        }
        for name in no {
            assert!(!host.matches(name), "{tag} {name}");
        }
    }
}

#[test]
fn only_some_hosts_can_have_a_public_certificate() {
    for host in
        ["a.b", "app.example.com", "xn--bcher-kva.example", "1.2.example", "a-b.c", "b\u{fc}cher.example"]
    {
        assert!(Host::new(host).unwrap().is_public_name(), "{host}");
    }
    for host in [
        "localhost",
        "10.0.0.1",
        "::1",
        "[fe80::1]",
        "a_b.example.com",
        "-a.b",
        "a-.b",
        "a.b-",
        "10.1",
        "a.1",
    ] {
        assert!(!Host::new(host).unwrap().is_public_name(), "{host}");
    }
    for tag in ["tricot *", "tricot *.a.b", "tricot a?.b"] {
        assert!(!frontend(tag).0.host.is_public_name(), "{tag}");
    }
    assert!(frontend("tricot a.b").0.host.is_public_name());
}

#[test]
fn lengths_are_those_of_dns() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(Host::new(&longest).is_ok());
    assert!(Host::new(&format!("{longest}.")).is_ok());
    for host in
        [format!("{longest}a"), format!("a{label}.b"), "a.b..".into(), ".a".into(), "é".repeat(100_000)]
    {
        assert!(matches!(Host::new(&host), Err(TagError::Length { .. })), "{host}");
    }
    let long = format!("tricot a{}", "*".repeat(600));
    assert!(matches!(parse(&long), Parsed::Refused(TagError::Length { .. })));
    assert!(matches!(parse("tricot a*.b.."), Parsed::Refused(TagError::Length { .. })));
    assert!(refused(&long).chars().count() < 400);
}

#[test]
fn a_registration_is_what_all_tags_say() {
    let registration = Registration::from_tags([
        "http",
        "tricot a.b",
        "tricot A.b. 100",
        "tricot a.b",
        "tricot a.b 10",
        "tricot-https a.b",
        "tricot-add-header X-A 1",
        "tricot-global-lb",
        "tricot-site-lb",
        "tricot-add-redirect c.d a.b",
        "tricot-add-redirect c.d a.b 302",
        "tricot-on-demand-tls-ask http://one/",
        "tricot-on-demand-tls-ask http://two/",
        "tricot-oops x",
        "tricot-oops x",
        "tricot c.d:1 x",
    ]);

    let frontends: Vec<_> = registration.frontends.iter().map(ToString::to_string).collect();
    assert_eq!(frontends, ["a.b", "a.b 10", "a.b", "c.d"]);
    assert_eq!(registration.redirects.len(), 1);
    assert_eq!(registration.spread, Spread::Global);
    assert_eq!(registration.ask.as_ref().map(ToString::to_string).as_deref(), Some("http://one/"));
    let problems: Vec<_> = registration.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "tag \"tricot-on-demand-tls-ask http://two/\" is ignored: another tag says already whom to ask",
            "tag \"tricot-oops x\" is ignored: \"tricot-oops\" is not known to tricot",
            "tag \"tricot c.d:1 x\": port \"1\" of host \"c.d\" is left out: the proxy listens where it listens",
            "tag \"tricot c.d:1 x\": \"x\" is no priority, which is a number from 0 to 4294967295; 100 is used",
        ]
    );
    assert!(!registration.is_empty());
}

#[test]
fn flags_say_how_far_requests_are_spread() {
    for (tags, spread) in [
        (&[][..], Spread::Nearest),
        (&["tricot-site-lb"][..], Spread::Site),
        (&["tricot-global-lb"], Spread::Global),
        (&["tricot-global-lb", "tricot-site-lb"], Spread::Global),
        (&["tricot-site-lb", "tricot-global-lb"], Spread::Global),
    ] {
        let registration = Registration::from_tags(tags);

        assert_eq!(registration.spread, spread, "{tags:?}");
        assert!(registration.is_empty());
    }
}

#[test]
fn the_first_header_of_a_name_replaces_and_others_follow() {
    let registration = Registration::from_tags([
        "tricot-add-header Set-Cookie a=1",
        "tricot-add-header X-Own new",
        "tricot-add-header set-cookie b=2",
        "tricot-add-header SET-COOKIE a=1",
    ]);
    let mut answer = HeaderMap::new();
    for (name, value) in
        [("set-cookie", "old=1"), ("set-cookie", "old=2"), ("x-own", "old"), ("x-other", "kept")]
    {
        answer.append(name, HeaderValue::from_static(value));
    }

    registration.add_headers(&mut answer);

    let cookies: Vec<_> = answer.get_all("set-cookie").into_iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(answer.get_all("x-own").into_iter().collect::<Vec<_>>(), ["new"]);
    assert_eq!(answer["x-other"], "kept");
}

#[test]
fn headers_without_end_are_refused() {
    let tags = (0..40_000).map(|n| format!("tricot-add-header x-{n} y"));

    let registration = Registration::from_tags(tags);

    assert_eq!(registration.headers.len(), 100);
    assert_eq!(registration.problems.len(), 39_900);
    assert!(
        registration.problems[0].to_string().ends_with("is ignored: an instance adds at most 100 headers")
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", word in prop::sample::select(vec![
        "", "tricot ", "tricot-https ", "tricot-add-header ", "tricot-add-redirect ", "tricot-on-demand-tls-ask ",
    ])) {
        let tag = format!("{word}{text}");
        match parse(&tag) {
            Parsed::Tag(_, warnings) => {
                for warning in warnings {
                    prop_assert!(!warning.to_string().is_empty());
                }
            }
            Parsed::Refused(error) => prop_assert!(!error.to_string().is_empty()),
            Parsed::Ignored => {}
        }
        Registration::from_tags([&tag, &tag]);
    }

    #[test]
    fn what_is_printed_reads_the_same(
        host in "(\\*\\.)?[a-z0-9_.*?\\[\\]-]{1,12}(\\.[a-z]{1,3})?",
        path in "(/[a-zA-Z0-9%/.-]{0,8})?",
        priority in any::<u32>(),
    ) {
        if let Parsed::Tag(Tag::Frontend(frontend), _) = parse(&format!("tricot {host}{path} {priority}")) {
            let again = parse(&format!("tricot {frontend}"));
            prop_assert_eq!(again, Parsed::Tag(Tag::Frontend(frontend), vec![]));
        }
    }

    #[test]
    fn a_host_is_in_one_spelling(text in "[\\PC]{1,20}") {
        if let Ok(host) = Host::new(&text) {
            prop_assert_eq!(Host::new(host.as_str()), Ok(host.clone()));
            prop_assert!(host.as_str().is_ascii());
            prop_assert_eq!(host.as_str().to_ascii_lowercase(), host.as_str());
        }
    }
}
