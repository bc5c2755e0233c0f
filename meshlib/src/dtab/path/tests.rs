use super::*;

use proptest::prelude::*;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn printed(text: &str) -> String {
    path(text).to_string()
}

fn refusal(text: &str) -> String {
    Path::parse(text).unwrap_err().to_string()
}

fn captured(pattern: &str, text: &str, template: &str) -> Option<String> {
    Pattern::new(pattern).captures(&path(text)).map(|captures| captures.substitute(template))
}

#[test]
fn paths_print_in_their_canonical_form() {
    for (text, expected) in [
        ("/", "/"),
        (" /a/b ", "/a/b"),
        ("/$/inet/127.1/80", "/$/inet/127.1/80"),
        ("/#/io.l5d.fs/web_1:%-", "/#/io.l5d.fs/web_1:%-"),
        ("/a#b", "/a#b"),
        ("/a #b", "/a"),
        ("/ # c\n # d", "/"),
        ("# c\n/a", "/a"),
        ("\u{1c}\u{3000}/a\u{2028}\x0b", "/a"),
        (r"/a\x62", "/ab"),
        (r"/a\x20b", r"/\x61\x20\x62"),
        (r"/\xFf/c", r"/\xff/c"),
        (r"/\x2f", r"/\x2f"),
    ] {
        assert_eq!(printed(text), expected, "{text:?}");
    }
}

#[test]
fn refusals_name_the_place_in_the_known_form() {
    for (text, expected) in [
        ("invalid", "'/' expected but 'i' found at '[i]nvalid'"),
        ("", "'/' expected but end of input found at '[]'"),
        ("/a/", "label char expected but end of input found at '/a/[]'"),
        ("/a//b", "label char expected but '/' found at '/a/[/]b'"),
        ("//a", "end of input expected but '/' found at '/[/]a'"),
        ("/a^b", "end of input expected but '^' found at '/a[^]b'"),
        ("/a b", "end of input expected but 'b' found at '/a [b]'"),
        ("/*", "end of input expected but '*' found at '/[*]'"),
        ("/a/*", "label char expected but '*' found at '/a/[*]'"),
        ("/é", "end of input expected but 'é' found at '/[é]'"),
        ("/a\u{a0}", "end of input expected but '\u{a0}' found at '/a[\u{a0}]'"),
        ("/\u{85}", "end of input expected but '\u{85}' found at '/[\u{85}]'"),
        (r"/a\n", r"'x' expected but 'n' found at '/a\[n]'"),
        (r"/a\x", r"hex char expected but end of input found at '/a\x[]'"),
        (r"/a\x4g", r"hex char expected but 'g' found at '/a\x4[g]'"),
    ] {
        assert_eq!(refusal(text), expected, "{text:?}");
    }
}

#[test]
fn refusals_have_offset_line_and_column() {
    let error = Path::parse("# é\n é").unwrap_err();

    assert!(matches!(error, ParseError::Unexpected { offset: 6, line: 2, column: 2, found: Some('é'), .. }));
}

#[test]
fn text_above_the_limit_is_refused() {
    let longest = format!("/{}", "a".repeat(MAX_TEXT - 1));

    assert_eq!(path(&longest).to_string(), longest);
    assert_eq!(refusal(&(longest + " ")), "text of 1048577 bytes is longer than 1048576");
}

#[test]
fn labels_are_the_bytes_meant() {
    let path = path(r"/a\x62/\x00c");

    let bytes: Vec<_> = path.labels().map(Label::to_bytes).collect();

    assert_eq!(bytes, [&b"ab"[..], b"\0c"]);
    assert_eq!(path.len(), 2);
    assert_eq!(Path::from_labels(bytes), Some(path));
    assert_eq!(Path::from_labels(["a", ""]), None);
}

#[test]
fn prefixes_of_paths_are_whole_labels() {
    assert!(path("/s/foo").starts_with(&path("/s")));
    assert!(path("/s/foo").starts_with(&path("/s/foo")));
    assert!(path("/s").starts_with(&path("/")));
    assert!(!path("/s/foobar").starts_with(&path("/s/foo")));
    assert!(!path("/s").starts_with(&path("/s/foo")));
    assert_eq!(path("/a/b/c").strip_prefix(&path("/a")), Some(path("/b/c")));
    assert_eq!(path("/a/b").strip_prefix(&path("/b")), None);
}

#[test]
fn paths_are_taken_apart_and_joined() {
    assert_eq!(path("/a/b/c").skip(1), path("/b/c"));
    assert_eq!(path("/a").skip(5), Path::default());
    assert_eq!(path("/a").skip(0), path("/a"));
    assert_eq!(path("/a").concat(&path("/b/c")), path("/a/b/c"));
    assert_eq!(path("/").concat(&path("/a")), path("/a").concat(&path("/")));
    assert!(path("/").is_empty());
}

#[test]
fn asterisk_in_a_prefix_is_any_label() {
    let prefix: Prefix = "/svc/*/web".parse().unwrap();

    assert!(prefix.matches(&path("/svc/x/web")));
    assert_eq!(prefix.strip(&path("/svc/x/web/rest")), Some(path("/rest")));
    assert!(!prefix.matches(&path("/svc/x")));
    assert!(!prefix.matches(&path("/svc/x/Web")));
    assert_eq!(Prefix::default().strip(&path("/a")), Some(path("/a")));
    assert!(Prefix::default().matches(&path("/")));
}

#[test]
fn asterisk_in_a_prefix_is_a_whole_label() {
    let refusal = |text| Prefix::parse(text).unwrap_err().to_string();

    assert_eq!(refusal("/a/*b"), "end of input expected but 'b' found at '/a/*[b]'");
    assert_eq!(refusal("/a/**"), "end of input expected but '*' found at '/a/*[*]'");
    assert_eq!(refusal("/a/b*"), "end of input expected but '*' found at '/a/b[*]'");
    let escaped = Prefix::parse(r"/\x2a").unwrap();
    assert!(!escaped.matches(&path("/a")));
    assert_eq!(escaped.to_string(), r"/\x2a");
    assert_eq!(Prefix::from(&path(r"/a/\x2a")), Prefix::parse(r"/a/\x2a").unwrap());
}

#[test]
fn pattern_matches_the_start_of_a_path() {
    for (pattern, text, expected) in [
        ("/", "/", true),
        ("", "/a", true),
        ("/a", "/a/b", true),
        ("a/b/", "/a/b", true),
        ("/a/b", "/a", false),
        ("/*", "/", false),
        ("/*/b", "/a/b", true),
        ("/A", "/a", false),
        ("/a//b", "/a/b", false),
        ("/a.c", "/abc", false),
        ("/{x}.com", "/foo.com.org", false),
        ("/{x", "/x", false),
        (r"/\x2f", r"/\x2f", true),
    ] {
        let pattern = Pattern::new(pattern);
        assert_eq!(pattern.matches_prefix(&path(text)), expected, "{pattern} on {text}");
        assert_eq!(pattern.captures(&path(text)).is_some(), expected, "{pattern} on {text}");
    }
}

#[test]
fn captures_are_greedy_from_the_left() {
    for (pattern, text, expected) in [
        ("/{x}_{y}", "/p_q_r", "p_q|r"),
        ("/{x}{y}", "/pq", "pq|"),
        ("/{x}a{y}", "/a", "|"),
        ("/{x}/{y}.com", "/p/q.com/z", "p|q"),
        ("/a{x}b{y}c", "/aabbcc", "ab|c"),
        ("/{x}/{x}-{y}", "/p/q-r", "q|r"),
        ("/{y}{x}{y}", "/p", "|"),
        (r"/{x}\x20{y}", r"/a\x20b", r"\x61|\x62"),
    ] {
        let found = captured(pattern, text, "{x}|{y}");
        assert_eq!(found.as_deref().unwrap_or("none"), expected, "{pattern} on {text}");
    }
    assert_eq!(captured("/{x}ab{y}ba", "/aba", ""), None);
}

#[test]
fn substitution_leaves_unknown_names_alone() {
    let found = captured("/{x}/{y.Z_1}", "/p/q", "{y.Z_1}.{z}.{{x}}.{}.{x");

    assert_eq!(found.as_deref(), Some("q.{z}.{p}.{}.{x"));
}

#[test]
fn mark_of_configured_namers_is_optional_for_bound_names() {
    let matches =
        |pattern, id| Pattern::new(pattern).bound_captures(&path(id)).map(|found| found.substitute("{s}"));

    for (pattern, id) in [
        ("/ns/*/{s}", "/ns/prod/web"),
        ("/ns/*/{s}", "/#/ns/prod/web"),
        ("/#/ns/*/{s}", "/ns/prod/web"),
        ("/#/ns/*/{s}", "/#/ns/prod/web"),
    ] {
        assert_eq!(matches(pattern, id).as_deref(), Some("web"), "{pattern} on {id}");
    }
    assert_eq!(matches("/#/ns/{s}", "/#/other/web"), None);
    assert_eq!(matches("/ns/{s}", "/%/ns/web"), None);
}

#[test]
fn patterns_that_cannot_match_are_known() {
    for (pattern, expected) in
        [("/", true), ("/a/{x}-b/*", true), ("/a//b", false), ("/{x", false), ("/a*", false), ("/{}", false)]
    {
        assert_eq!(Pattern::new(pattern).can_match(), expected, "{pattern}");
    }
}

fn paths() -> impl Strategy<Value = Path> {
    let label = prop_oneof![
        "[a-z#$%.*]{1,4}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(label, 0..5).prop_map(|labels| Path::from_labels(labels).unwrap())
}

/// Text that comes close to the language.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), r"([ \n#/*]|\\x[0-9a-g]{2}|[a-c{}:]){0,12}"]
}

/// The greedy, anchored match by trying everything, leftmost capture longest first.
fn matches_slowly(pieces: &[(bool, &str)], label: &str) -> Option<Vec<String>> {
    match pieces {
        [] => label.is_empty().then(Vec::new),
        [(false, text), rest @ ..] => matches_slowly(rest, label.strip_prefix(text)?),
        [(true, _), rest @ ..] => (0..=label.len()).rev().find_map(|n| {
            let mut values = matches_slowly(rest, &label[n..])?;
            values.insert(0, label[..n].to_owned());
            Some(values)
        }),
    }
}

proptest! {
    #[test]
    fn parsing_a_printed_path_gives_the_path(x in paths()) {
        prop_assert_eq!(&Path::parse(&x.to_string()).unwrap(), &x);
        prop_assert_eq!(Path::from_labels(x.labels().map(Label::to_bytes)), Some(x));
    }

    #[test]
    fn any_text_is_read_or_refused(text in texts()) {
        match Path::parse(&text) {
            Ok(x) => prop_assert_eq!(Path::parse(x.as_str()).unwrap(), x),
            Err(error) => prop_assert!(error.to_string().contains(" found at '")),
        }
        if let Ok(prefix) = Prefix::parse(&text) {
            prop_assert_eq!(Prefix::parse(&prefix.to_string()).unwrap(), prefix);
        }
    }

    #[test]
    fn joined_paths_come_apart_again(a in paths(), b in paths()) {
        let whole = a.concat(&b);
        prop_assert!(whole.starts_with(&a));
        prop_assert_eq!(whole.strip_prefix(&a), Some(b.clone()));
        prop_assert_eq!(&whole.skip(a.len()), &b);
        prop_assert_eq!(Prefix::from(&a).strip(&whole), Some(b));
        prop_assert_eq!(whole.len(), whole.labels().count());
    }

    #[test]
    fn any_pattern_on_any_path_agrees_with_itself(pattern in texts(), x in paths()) {
        let pattern = Pattern::new(pattern);
        let found = pattern.captures(&x);
        prop_assert_eq!(found.is_some(), pattern.matches_prefix(&x));
        prop_assert!(found.is_none() || pattern.can_match());
        // An expression of captures alone gives back what it matched.
        if let Some(found) = found.filter(|_| !pattern.as_str().contains('*')) {
            let segments = found.substitute(pattern.as_str().trim_matches('/'));
            let labels: Vec<_> = x.labels().map(Label::as_str).take(segments.split('/').count()).collect();
            let unique = pattern.as_str().matches('{').count() <= 1;
            prop_assert!(!unique || segments.is_empty() || segments == labels.join("/"));
        }
    }

    #[test]
    fn captures_agree_with_trying_everything(
        pieces in prop::collection::vec(prop_oneof![Just(None), "[ab]{1,2}".prop_map(Some)], 1..6),
        label in "[ab]{1,8}",
    ) {
        let numbered: Vec<_> = pieces.iter().enumerate()
            .map(|(nth, piece)| (piece.is_none(), piece.clone().unwrap_or_else(|| format!("n{nth}")))).collect();
        let pattern: String = numbered.iter()
            .map(|(capture, text)| if *capture { format!("{{{text}}}") } else { text.clone() }).collect();
        let borrowed: Vec<_> = numbered.iter().map(|(capture, text)| (*capture, text.as_str())).collect();

        let pattern = Pattern::new(pattern);
        let x = Path::from_labels([&label]).unwrap();
        let found = pattern.captures(&x).map(|found| {
            let names = borrowed.iter().filter(|(capture, _)| *capture);
            names.map(|(_, name)| found.get(name).unwrap().to_owned()).collect::<Vec<_>>()
        });

        prop_assert_eq!(found, matches_slowly(&borrowed, &label));
    }
}
