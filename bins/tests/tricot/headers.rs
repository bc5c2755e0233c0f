//! What is changed on the way to an instance and back, and what is not passed on at all.

use std::process::Command;
use std::process::Output;
use std::time::Duration;

use meshlib::test_util::CertOptions;
use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;

use crate::ask::Client;
use crate::process::Tricot;
use crate::site::Site;
use crate::site::SiteOptions;

const HOST: &str = "app.example.com";
const TAG: &str = "tricot app.example.com";

/// A proxy in front of one instance with these tags.
async fn serving(options: SiteOptions, tags: &[&str], variables: &[(&str, &str)]) -> Option<Served> {
    let consul = or_skip(Consul::start(ConsulOptions::default()).await)?;
    let site = Site::start_with(options).await;
    consul.service("n1", "web", "web-1", site.port(), tags).await;
    let tricot = Tricot::start_with(&consul, variables).await;
    let client = Client::lenient(tricot.https);
    Some(Served { consul, site, tricot, client })
}

struct Served {
    consul: Consul,
    site: Site,
    tricot: Tricot,
    client: Client,
}

impl Served {
    /// Asks with `curl`, whatever certificate there is.
    async fn curl(&self, args: &[&str]) -> Option<Output> {
        let port = self.tricot.https.port();
        let mut command = Command::new("curl");
        command
            .args(["-sk", "--max-time", "20", "--resolve", &format!("{HOST}:{port}:127.0.0.1")])
            .args(args)
            .arg(format!("https://{HOST}:{port}/"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        if output.is_err() {
            eprintln!("skipped: no curl on PATH");
        }
        output.ok()
    }
}

fn page(fields: &str, body: &str) -> SiteOptions {
    SiteOptions { fields: fields.into(), body: body.into(), ..SiteOptions::default() }
}

#[tokio::test]
async fn a_header_of_a_tag_replaces_and_the_next_of_its_name_is_added() {
    let site = page("X-Frame-Options: old\r\nX-Frame-Options: older\r\nX-Own: kept\r\n", "one");
    let tags = [
        TAG,
        "tricot-add-header X-Frame-Options  same origin;  and more ",
        "tricot-add-header X-List a",
        "tricot-add-header X-List b",
        "tricot-add-header Transfer-Encoding gzip",
    ];
    let Some(served) = serving(site, &tags, &[]).await else { return };

    let answer = served.client.get(HOST, "/").await.unwrap();

    assert_eq!(answer.all("x-frame-options"), ["same origin;  and more"]);
    assert_eq!(answer.all("x-list"), ["a", "b"]);
    assert_eq!(answer.all("x-own"), ["kept"]);
    assert_eq!(answer.all("transfer-encoding"), [""; 0]);
    assert_eq!(answer.text(), "one");
}

#[tokio::test]
async fn headers_of_tags_are_on_failures_of_the_site_and_not_on_pages_of_the_proxy() {
    let site = SiteOptions { status: "500 Oops".into(), ..page("", "broken") };
    let tags = [TAG, "tricot-add-header X-Tag yes"];
    let Some(served) = serving(site, &tags, &[]).await else { return };

    let broken = served.client.get(HOST, "/").await.unwrap();
    assert_eq!((broken.status, broken.field("x-tag")), (500, Some("yes")));

    served.consul.check("n1", "web-1", "c", "critical").await;
    crate::process::until("503", async || served.client.status(HOST, "/").await == Some(503)).await;
    assert_eq!(served.client.get(HOST, "/").await.unwrap().field("x-tag"), None);
}

#[tokio::test]
async fn an_instance_may_speak_tls_with_any_certificate_and_hears_the_host() {
    let ca = TestCa::new();
    let expired = ca.issue_with(["some.other.name"], &CertOptions::default().expired());
    for config in [ca.server_config(["some.other.name"]), expired.server_config()] {
        let site = SiteOptions { tls: Some(config), ..page("", "secret") };
        let tags = ["tricot-https app.example.com"];
        let Some(served) = serving(site, &tags, &[]).await else { return };

        let answer = served.client.get(HOST, "/").await.unwrap();

        assert_eq!((answer.status, answer.text().as_str()), (200, "secret"));
        assert_eq!(served.site.last().server_name.as_deref(), Some(HOST));
    }
}

#[tokio::test]
async fn a_redirect_of_a_tag_keeps_the_rest_of_the_path_and_the_query() {
    let tags = [
        TAG,
        "tricot-add-redirect old.example.com/a new.example.com/b 301",
        "tricot-add-redirect bare.example.com www.example.com",
        "tricot-add-redirect odd.example.com www.example.com/x 999",
        "tricot-add-redirect kept.example.com www.example.com 308",
    ];
    let public = [("TRICOT_HTTPS_PUBLIC_PORT", "443")];
    let Some(served) = serving(page("", "one"), &tags, &public).await else { return };
    let ask = async |host: &str, path: &str| {
        let answer = served.client.get(host, path).await.unwrap();
        (answer.status, answer.field("location").unwrap_or_default().to_owned())
    };

    assert_eq!(
        ask("old.example.com", "/a/c%20d?e=f").await,
        (301, "https://new.example.com/b/c%20d?e=f".into())
    );
    assert_eq!(ask("old.example.com", "/a").await, (301, "https://new.example.com/b".into()));
    assert_eq!(ask("old.example.com", "/other").await.0, 404);
    assert_eq!(ask("bare.example.com", "/x?y").await, (302, "https://www.example.com/x?y".into()));
    assert_eq!(ask("bare.example.com", "/").await, (302, "https://www.example.com/".into()));
    assert_eq!(ask("odd.example.com", "/y").await, (302, "https://www.example.com/x/y".into()));
    assert_eq!(ask("kept.example.com", "/y").await, (308, "https://www.example.com/y".into()));
    assert_eq!(served.site.count(), 0);
}

#[tokio::test]
async fn a_redirect_of_a_tag_leads_to_its_port_or_to_the_public_one() {
    let tags = [
        TAG,
        "tricot-add-redirect none.example.com www.example.com/b",
        "tricot-add-redirect own.example.com www.example.com:4443/b",
        "tricot-add-redirect usual.example.com www.example.com:443",
        "tricot-add-redirect same.example.com same.example.com:4443",
    ];
    let public = [("TRICOT_HTTPS_PUBLIC_PORT", "8443")];
    let Some(served) = serving(page("", "one"), &tags, &public).await else { return };
    let ask = async |host: &str| {
        let answer = served.client.get(host, "/x?y").await.unwrap();
        answer.field("location").unwrap_or_default().to_owned()
    };

    assert_eq!(ask("none.example.com").await, "https://www.example.com:8443/b/x?y");
    assert_eq!(ask("own.example.com").await, "https://www.example.com:4443/b/x?y");
    assert_eq!(ask("usual.example.com").await, "https://www.example.com/x?y");
    assert_eq!(ask("same.example.com").await, "https://same.example.com:4443/x?y");
}

#[tokio::test]
async fn answers_are_compressed_only_when_told_to() {
    let body = "all work and no play makes a dull page\n".repeat(100);
    let html = page("Content-Type: text/html; charset=utf-8\r\nETag: \"v1\"\r\n", &body);
    let Some(on) = serving(html.clone(), &[TAG], &[("TRICOT_ENABLE_COMPRESSION", "true")]).await else {
        return;
    };
    let Some(off) = serving(html, &[TAG], &[]).await else { return };
    let Some(compressed) = on.curl(&["--compressed", "-D", "-"]).await else { return };
    let Some(plain) = off.curl(&["--compressed", "-D", "-"]).await else { return };

    let text = String::from_utf8_lossy(&compressed.stdout).to_lowercase();
    assert!(text.contains("content-encoding: ") && text.ends_with(&body), "{text}");
    assert!(text.contains("vary: accept-encoding") && text.contains("etag: w/\"v1\""), "{text}");
    let text = String::from_utf8_lossy(&plain.stdout).to_lowercase();
    assert!(!text.contains("content-encoding: ") && text.ends_with(&body), "{text}");

    for (accepted, coding) in [("gzip", "gzip"), ("br", "br"), ("gzip;q=0.5, br, zstd", "zstd")] {
        let ask = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {accepted}\r\n\r\n");
        let answer = on.client.send(HOST, &ask).await.unwrap();
        assert_eq!(answer.field("content-encoding"), Some(coding));
        assert_eq!(answer.field("content-length"), None);
        assert!(answer.body.len() < body.len() / 4, "{}", answer.body.len());
    }
    let untouched = on.client.get(HOST, "/").await.unwrap();
    assert_eq!((untouched.field("content-encoding"), untouched.text()), (None, body));
    assert_eq!(untouched.field("vary").map(str::to_lowercase).as_deref(), Some("accept-encoding"));
}

#[tokio::test]
async fn what_is_not_worth_it_is_not_compressed() {
    let body = "x".repeat(4000);
    for (fields, body) in [
        ("Content-Type: image/png\r\n", body.as_str()),
        ("Content-Type: text/html\r\n", "short"),
        ("Content-Type: text/html\r\nCache-Control: no-transform\r\n", &body),
        ("Content-Type: text/html\r\nContent-Encoding: odd\r\n", &body),
    ] {
        let on = [("TRICOT_ENABLE_COMPRESSION", "yes")];
        let Some(served) = serving(page(fields, body), &[TAG], &on).await else { return };
        let ask = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip, br\r\n\r\n");

        let answer = served.client.send(HOST, &ask).await.unwrap();

        assert_eq!(answer.text(), body, "{fields}");
    }
}

#[tokio::test]
async fn a_host_is_asked_for_only_on_a_connection_for_it() {
    let Some(served) = serving(page("", "one"), &[TAG, "tricot other.example.com"], &[]).await else {
        return;
    };
    let ask = async |name: &str, host: &str| {
        served.client.connect(name).await.unwrap().get(host, "/").await.unwrap().status
    };

    assert_eq!(ask(HOST, HOST).await, 200);
    assert_eq!(ask(HOST, "APP.example.com.:443").await, 200);
    assert_eq!(ask(HOST, "other.example.com").await, 421);
    assert_eq!(ask("unknown.example.com", HOST).await, 421);
    assert_eq!(served.site.count(), 2);
}

#[tokio::test]
async fn methods_for_proxies_are_refused() {
    let Some(served) = serving(page("", "one"), &[TAG], &[]).await else { return };
    let ask = async |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = served.client.send(HOST, &request).await.unwrap();
        (answer.status, answer.field("allow").unwrap_or_default().to_owned())
    };

    let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_eq!(ask("TRACE /").await, (405, allowed.into()));
    assert_eq!(ask(&format!("CONNECT {HOST}:443")).await, (405, allowed.into()));
    assert_eq!(served.site.count(), 0);
    assert_eq!(ask("PROPFIND /").await, (200, String::new()));
}

#[tokio::test]
async fn an_instance_learns_about_the_client_what_the_proxy_knows() {
    let Some(served) = serving(page("", "one"), &[TAG], &[]).await else { return };
    let request = format!(
        "GET /p?q HTTP/1.1\r\nHost: {HOST}:8443\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: evil.example\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\n\r\n"
    );

    assert_eq!(served.client.send(HOST, &request).await.unwrap().status, 200);

    let seen = served.site.last();
    assert!(seen.head.starts_with("GET /p?q HTTP/1.1\r\n"), "{}", seen.head);
    let host = format!("{HOST}:8443");
    for (name, value) in [
        ("host", &[host.as_str()][..]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &[&host]),
        ("x-real-ip", &["127.0.0.1"]),
        ("forwarded", &[]),
        ("x-hop", &[]),
        ("keep-alive", &[]),
    ] {
        assert_eq!(seen.all(name), value, "{name} in {}", seen.head);
    }
}

#[tokio::test]
async fn a_trusted_proxy_before_this_one_is_believed() {
    let variables = [("TRICOT_TRUSTED_PROXIES", "127.0.0.0/8"), ("TRICOT_FORWARDED", "rfc7239")];
    let Some(served) = serving(page("", "one"), &[TAG], &variables).await else { return };
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n");

    served.client.send(HOST, &request).await.unwrap();

    let seen = served.site.last();
    assert_eq!(seen.all("x-forwarded-for"), ["9.9.9.9, 127.0.0.1"]);
    let forwarded = seen.all("forwarded").join(", ");
    assert!(forwarded.contains("proto=https"), "{}", seen.head);
}

#[tokio::test]
async fn cookies_of_http_2_reach_an_instance_as_one() {
    let Some(served) = serving(page("Connection: keep-alive\r\n", "one"), &[TAG], &[]).await else { return };
    let args = ["--http2", "-H", "Cookie: a=1", "-H", "Cookie: b=2", "-w", " over %{http_version}"];

    let Some(output) = served.curl(&args).await else { return };

    assert_eq!(String::from_utf8_lossy(&output.stdout), "one over 2");
    assert_eq!(served.site.last().all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn a_site_that_does_not_begin_to_answer_is_given_up() {
    let Some(served) = serving(page("", "one"), &[TAG], &[("TRICOT_RESPONSE_TIMEOUT", "200ms")]).await else {
        return;
    };
    served.site.hold(true);
    let began = tokio::time::Instant::now();

    assert_eq!(served.client.status(HOST, "/").await, Some(504));

    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
