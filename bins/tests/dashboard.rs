//! The dashboard: what a page says of a state, and what a browser makes of it.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[path = "dashboard/browser.rs"]
mod browser;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[path = "dashboard/contrast.rs"]
mod contrast;
#[path = "support/devtools.rs"]
mod devtools;
#[path = "dashboard/keyboard.rs"]
mod keyboard;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "dashboard/made.rs"]
mod made;
#[path = "support/optional.rs"]
mod optional;
#[path = "dashboard/real.rs"]
mod real;
#[path = "dashboard/stage.rs"]
mod stage;

use bins::kit::dashboard;
use bins::kit::state::INTERVAL;
use bins::kit::state::Watching;
use http::Request;
use http::Response;
use meshlib::http::Body;
use meshlib::http::admin::Router;
use tokio::time;
use tower::ServiceExt;

use crate::made::Made;
use crate::made::certificate;
use crate::made::days;
use crate::made::destination;
use crate::made::endpoint;
use crate::made::now_ms;

/// Most bytes of a page, a style sheet and a script together, with a configuration of usual size.
const MOST: usize = 60_000;
const HOSTILE: &str = "\"><script>alert(1)</script>&'";

async fn ask(router: &Router, path: &str) -> (Response<()>, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = router.clone().oneshot(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect(1 << 24).await.expect("a body");
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).expect("text"))
}

fn router(made: Made) -> Router {
    dashboard::pages(Router::new(), Watching::new("linkerd-tcp", made))
}

async fn page(made: Made) -> String {
    ask(&router(made), "/dashboard").await.1
}

/// The page without what differs only in how it is laid out.
fn flat(page: &str) -> String {
    page.replace('\n', "")
}

#[tokio::test]
async fn the_page_says_what_runs_and_how_it_is() {
    let page = flat(&page(Made::calm()).await);

    for part in [
        "<html lang=\"en\"",
        "<title>linkerd-tcp: ready</title>",
        "<h1>linkerd-tcp</h1>",
        env!("CARGO_PKG_VERSION"),
        "<p class=\"badge good\">Ready</p>",
        "<dt>Up for</dt><dd>less than 1 s",
        "<dd>proxy.yml <small>loaded 12 min ago, <time datetime=\"20",
        "<a href=\"metrics\">",
        "<a href=\"state.json\">",
        "<a href=\"ready\">",
        "<a class=\"skip\" href=\"#main\">",
        "<main id=\"main\"",
        "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(!page.contains("Certificates") && !page.contains("could not be loaded"), "{page}");
    // Nothing of it needs what the policy forbids.
    assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains("javascript:"), "{page}");
}

#[tokio::test]
async fn what_is_wrong_is_said_at_the_top() {
    let mut made = Made::calm();
    made.unready = vec!["web: /svc/web is not resolved yet".into()];
    made.reload.successful = false;
    made.reload.error = Some("proxy.yml:3: unknown field `adr`".into());

    let page = flat(&page(made).await);

    assert!(page.contains("<title>linkerd-tcp: not ready</title>"), "{page}");
    assert!(page.contains("<p>Not ready</p><ul><li>web: /svc/web is not resolved yet</li></ul>"), "{page}");
    assert!(page.contains("could not be loaded; the one before stays in force."), "{page}");
    assert!(page.contains("<pre>proxy.yml:3: unknown field `adr`</pre>"), "{page}");
}

#[tokio::test]
async fn names_from_elsewhere_are_only_text() {
    let mut made = Made::calm();
    let mut hostile = endpoint(HOSTILE, HOSTILE);
    (hostile.node, hostile.why, hostile.tls) =
        (Some(HOSTILE.into()), Some(HOSTILE.into()), Some(HOSTILE.into()));
    let mut to = destination(HOSTILE, HOSTILE, vec![hostile]);
    (to.listens, to.answer) = (vec![HOSTILE.into()], HOSTILE.into());
    made.destinations = vec![to];
    let mut shown = certificate(HOSTILE, now_ms());
    (shown.issuer, shown.file, shown.error) =
        (Some(HOSTILE.into()), Some(HOSTILE.into()), Some(HOSTILE.into()));
    (shown.role, shown.state) = (HOSTILE.into(), HOSTILE.into());
    made.certificates = vec![shown];
    made.unready = vec![HOSTILE.into()];
    made.reload.successful = false;
    (made.reload.source, made.reload.error) = (Some(HOSTILE.into()), Some(HOSTILE.into()));

    let page = page(made).await;

    assert_eq!(page.matches("<script").count(), 1, "only its own: {page}");
    assert!(!page.contains("alert(1)<") && !page.contains("\"\">"), "{page}");
    // Each of those above, and the label of the table.
    assert!(
        page.matches("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;").count() >= 18,
        "{page}"
    );
}

#[tokio::test]
async fn every_endpoint_is_a_row_that_can_be_read_without_colours() {
    let mut made = Made::calm();
    let mut cooling = endpoint("10.0.0.2:8080", "cooling_down");
    cooling.closed_for_ms = 2_300;
    let mut ejected = endpoint("10.0.0.3:8080", "ejected");
    (ejected.closed_for_ms, ejected.node) = (12_000, Some("node-7".into()));
    let mut unused = endpoint("[fd00::4]:8080", "unused");
    (unused.why, unused.tls, unused.answer_time_ms) = (Some("weight is zero".into()), None, None);
    let mut to =
        destination("web", "/svc/web", vec![endpoint("10.0.0.1:8080", "ready"), cooling, ejected, unused]);
    (to.waiters, to.retired) = (2, 1);
    made.destinations = vec![to];

    let page = flat(&page(made).await);

    for part in [
        "<strong>web</strong> <strong class=\"dst\">/svc/web</strong>",
        "found 12 s ago",
        "listens at 127.0.0.1:7474",
        "2 clients wait<",
        "1 endpoint left with connections open",
        "<tr class=\"ready\"><th scope=\"row\">10.0.0.1:8080</th><td class=\"state\">ready</td><td class=\"n\">1</td>\
         <td class=\"n\">7</td><td class=\"n\">\u{2014}</td><td class=\"n\">4.2 ms</td><td class=\"n\">1,234,567</td>\
         <td class=\"n\">3</td><td>web.example.com</td></tr>",
        "<td class=\"state\">cooling down for 3 s</td>",
        "10.0.0.3:8080 <small>node-7</small></th><td class=\"state\">ejected for 12 s</td>",
        "<td class=\"state\">unused: weight is zero</td>",
        "4 endpoints: 1 ready, 1 cooling down, 1 ejected, 1 unused",
        "All 4</th><td class=\"n\">28</td>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
}

#[tokio::test]
async fn names_without_endpoints_say_why() {
    let mut made = Made::calm();
    let mut pending = destination("web", "/svc/later", Vec::new());
    (pending.answer, pending.age_ms) = ("pending".into(), 3_000);
    let mut neg = destination("web", "/svc/nowhere", Vec::new());
    neg.answer = "neg".into();
    let mut sni = destination("web", "/svc/{sni}", Vec::new());
    sni.answer = "sni".into();
    made.destinations = vec![pending, neg, sni];

    let page = page(made).await;

    assert!(page.contains("waits for discovery, since 3 s"), "{page}");
    assert!(page.contains("does not exist, since 12 s"), "{page}");
    assert!(page.contains("depends on the name that a client asks for"), "{page}");
    assert_eq!(page.matches("No endpoints<").count(), 2, "{page}");
}

#[tokio::test]
async fn tables_are_named_and_their_headers_have_a_scope() {
    let mut made = Made::calm();
    // The same name twice must not be the same id twice.
    made.destinations.push(made.destinations[0].clone());
    made.certificates = vec![certificate("web.example.com", now_ms())];

    let page = page(made).await;

    assert_eq!(page.matches("<table").count(), 3);
    assert_eq!(page.matches("<caption").count(), 3);
    assert_eq!(page.matches("role=\"region\" tabindex=\"0\"").count(), 3);
    let headers: Vec<_> = page.split("<th").skip(1).filter(|it| !it.starts_with("ead")).collect();
    assert!(headers.iter().all(|header| header.starts_with(" scope=")), "{headers:?}");
    let mut ids: Vec<_> =
        page.split(" id=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(id, _)| id).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "{ids:?}");
    let pictures = page.matches("<svg ").count();
    assert_eq!((pictures, page.matches("role=\"img\"").count()), (5, 5));
}

#[tokio::test]
async fn certificates_say_how_long_they_last() {
    let mut made = Made::calm();
    let mut failed = certificate("late.example.com", now_ms() - days(3));
    (failed.state, failed.error) = ("expired".into(), Some("the authority does not answer".into()));
    made.certificates = vec![
        certificate("web.example.com", now_ms() + days(53) + 60_000),
        certificate("soon.example.com", now_ms() + days(20) + 60_000),
        failed,
    ];

    let page = flat(&page(made).await);

    for part in [
        "<tr class=\"ready\"><th scope=\"row\">web.example.com</th>",
        "aria-label=\"ends in 53 days; the whole bar is 90 days\"",
        "height=\"6\" width=\"53\"",
        "<tr class=\"cooling\"><th scope=\"row\">soon.example.com</th>",
        "in 20 days",
        "<tr class=\"ejected\"><th scope=\"row\">late.example.com</th>",
        "3 days ago",
        "expired<small class=\"red\">the authority does not answer</small>",
        "Example Authority",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
}

#[tokio::test]
async fn what_is_not_known_is_not_made_up() {
    let page = flat(&page(Made::calm()).await);

    assert!(page.contains("<h3>Success rate</h3><p class=\"large\">\u{2014}</p>"), "{page}");
    assert!(page.contains("Success rate over the last ten minutes: nothing is known yet"), "{page}");
    assert!(page.contains("<dt>p99</dt><dd>\u{2014}</dd>"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_are_lines_with_words() {
    let router = router(Made { each: 1_000, ..Made::calm() });
    time::sleep(INTERVAL * 200).await;

    let (_, page) = ask(&router, "/dashboard").await;

    let page = flat(&page);
    for part in [
        "<h3>Connections per second</h3><p class=\"large\">200</p>",
        "aria-label=\"Connections per second over the last ten minutes: now 200, lowest 200, highest 200\"",
        "<h3>Success rate</h3><p class=\"large\">99.00 %</p>",
        "<dt>Latency p50</dt><dd>1.0 ms</dd>",
        "<h3>Over TLS</h3><p class=\"large\">50.0 %</p>",
        "<h3>In flight</h3><p class=\"large\">1,234</p>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    // Two lines for each of the four, and each with its whole history.
    let line = page.split("class=\"stroke\" d=\"").nth(1).and_then(|rest| rest.split('"').next());
    assert_eq!(line.map(|line| line.matches(['M', 'L']).count()), Some(bins::kit::state::LOOKS));
}

#[tokio::test(start_paused = true)]
async fn page_style_and_script_are_small() {
    let mut made = Made { each: 1_234, ..Made::calm() };
    let endpoints = |n| (0..10).map(|m| endpoint(&format!("10.0.{n}.{m}:8080"), "ready")).collect();
    made.destinations = (0..5).map(|n| destination("web", &format!("/svc/web-{n}"), endpoints(n))).collect();
    made.certificates = (0..5).map(|n| certificate(&format!("{n}.example.com"), now_ms())).collect();
    let router = router(made);
    time::sleep(INTERVAL * 200).await;

    let mut all = 0;
    for (path, most) in [("/dashboard", MOST), ("/dashboard.css", 15_000), ("/dashboard.js", 3_500)] {
        let (_, body) = ask(&router, path).await;
        assert!(body.len() <= most, "{path} has {} bytes", body.len());
        println!("{path}: {} bytes", body.len());
        all += body.len();
    }

    assert!(all < MOST, "{all} bytes");
}

#[tokio::test]
async fn every_text_can_be_told_from_its_ground() {
    contrast::check(&ask(&router(Made::calm()), "/dashboard.css").await.1);
}

#[tokio::test]
async fn a_program_with_very_many_names_has_a_page_of_some_size() {
    let mut made = Made { left_off: 7, ..Made::calm() };
    made.destinations = (0..5_000).map(|n| destination(&format!("rule-{n}"), "host", Vec::new())).collect();
    made.certificates =
        (0..5_000).map(|n| certificate(&format!("host-{n}.example"), now_ms() + days(90) - n)).collect();
    made.certificates[17].error = Some("the authority refuses it".to_owned());

    let page = page(made).await;

    assert!(page.len() < 400_000, "{}", page.len());
    assert_eq!(page.matches("<table").count(), 201);
    assert!(
        page.contains("4,800 destinations are not shown")
            && page.contains("4,800 certificates that end later")
    );
    for shown in ["host-17.example", "host-4999.example"] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains("host-1000.example"));
    // The script gives the focus back to what has moved by its id.
    let main = page.split_once("<main").expect("a main part").1.split_once("</main>").expect("its end").0;
    let tags = main.split('<').map(|rest| rest.split('>').next().unwrap_or_default());
    let reached = tags
        .filter(|tag| tag.starts_with("a ") || tag.starts_with("summary") || tag.contains(" tabindex=\"0\""));
    let (named, nameless): (Vec<_>, Vec<_>) = reached.partition(|tag| tag.contains(" id=\""));
    assert_eq!((named.len(), nameless), (205, vec![]));
}

#[tokio::test]
async fn what_is_left_off_is_told() {
    let page = flat(&page(Made { left_off: 1_412, ..Made::calm() }).await);

    assert!(
        page.contains("1,412 endpoints are not shown here: <a id=\"more-endpoints\" href=\"state.json\">"),
        "{page}"
    );
    assert!(page.contains("Those shown: 2</th>"), "{page}");
}

#[tokio::test]
async fn a_program_without_destinations_of_its_own_says_where_connections_go() {
    let towards = Some("port 3000 of <b>".to_owned());
    let of_clients = flat(&page(Made { destinations: Vec::new(), towards, ..Made::calm() }).await);
    let none = flat(&page(Made { destinations: Vec::new(), ..Made::calm() }).await);

    let said = "This program has none of its own: each connection goes to port 3000 of &lt;b&gt;.</p>";
    assert!(of_clients.contains(said) && !of_clients.contains("0 endpoints"), "{of_clients}");
    assert!(none.contains("There are none.") && none.contains("0 endpoints"), "{none}");
}

#[tokio::test]
async fn answers_forbid_whatever_they_do_not_need() {
    let router = router(Made::calm());
    let (_, page) = ask(&router, "/dashboard").await;
    let named = |name: &str| {
        let at = page.find(name).unwrap_or_else(|| panic!("no {name}"));
        format!("/{}", page[at..].split('"').next().expect("an end"))
    };
    let (style, script) = (named("dashboard.css?v="), named("dashboard.js?v="));

    for (path, content_type, cache) in [
        ("/dashboard", "text/html; charset=utf-8", "no-store"),
        (&style, "text/css; charset=utf-8", "max-age=86400"),
        (&script, "text/javascript; charset=utf-8", "max-age=86400"),
    ] {
        let (answer, body) = ask(&router, path).await;
        assert!(answer.status() == 200 && !body.is_empty(), "{path}");
        let field = |name| answer.headers()[name].to_str().expect("text");
        assert_eq!((field("content-type"), field("cache-control")), (content_type, cache));
        assert_eq!((field("x-content-type-options"), field("referrer-policy")), ("nosniff", "no-referrer"));
        assert_eq!(
            field("content-security-policy"),
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
    }
}
