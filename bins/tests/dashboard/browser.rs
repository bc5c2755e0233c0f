//! The page in a real browser.

use serde_json::json;

use crate::HOSTILE;
use crate::devtools::is_there;
use crate::made::Made;
use crate::made::certificate;
use crate::made::days;
use crate::made::destination;
use crate::made::endpoint;
use crate::made::now_ms;
use crate::stage::Stage;

const IS_LIVE: &str = "document.getElementById('link').textContent === 'live'";
const TEXT: &str = "document.body.textContent";

/// A program, and the same after its second endpoint has died and another destination has come before.
fn dying() -> [Made; 2] {
    let mut dead = endpoint("10.0.0.2:8080", "ejected");
    dead.closed_for_ms = 12_000;
    let destinations = vec![
        destination("api", "/svc/api", vec![endpoint("10.0.1.1:8080", "ready")]),
        destination("web", "/svc/web", vec![endpoint("10.0.0.1:8080", "ready"), dead]),
    ];
    [Made::calm(), Made { destinations, unready: vec!["web is down".into()], ..Made::calm() }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_changes_what_differs_and_nothing_else() {
    if !is_there() {
        return;
    }
    let stage = Stage::new(dying());
    let mut page = stage.open(390);
    page.evaluate("kept = [...document.querySelectorAll('h1, h2, .card, footer a')]");

    stage.show(1);

    let says = |text: &str| format!("{TEXT}.includes('{text}')");
    page.until("the dead endpoint", says("ejected for 12 s"));
    for text in ["/svc/api", "web is down", "3 endpoints: 2 ready, 1 ejected"] {
        assert_eq!(page.evaluate(says(text)), true, "{text}");
    }
    assert_eq!(page.evaluate("document.title"), "linkerd-tcp: not ready");
    assert_eq!(page.evaluate(IS_LIVE), true);
    assert_eq!(page.evaluate("kept.length === 12 && kept.every((it) => it.isConnected)"), true);
    assert_eq!(page.console(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_told_what_was_known_stays_and_then_the_page_is_alive_again() {
    if !is_there() {
        return;
    }
    let stage = Stage::new(dying());
    let mut page = stage.open(390);
    page.until("it is alive", IS_LIVE);

    stage.fall_silent();

    page.until("it is lost", "document.body.className === 'lost'");
    let link = page.evaluate("document.getElementById('link').textContent");
    let since = link.as_str().and_then(|link| link.strip_prefix("not answering since "));
    assert!(since.is_some_and(|it| it.len() == "12:34:56 UTC".len() && it.ends_with(" UTC")), "{link}");
    let text = page.evaluate(TEXT).to_string();
    assert!(text.contains("10.0.0.2:8080") && !text.contains("ejected for"), "{text}");
    // It is said wherever one is.
    page.evaluate("scrollTo(0, document.body.scrollHeight)");
    let shown = "(({ top, bottom }) => scrollY > 0 && top >= 0 && bottom <= innerHeight)\
                 (document.getElementById('link').getBoundingClientRect())";
    page.until("it is said at the bottom, too", shown);

    stage.show(1);

    page.until("it is alive again", IS_LIVE);
    assert_eq!(page.evaluate("document.body.className"), "");
    assert_eq!(page.evaluate(format_args!("{TEXT}.includes('ejected for 12 s')")), true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_fits_in_light_and_dark_and_in_narrow_windows() {
    if !is_there() {
        return;
    }
    let long = HOSTILE.replace(' ', "").repeat(20);
    let mut wide = endpoint(&long, "ejected");
    (wide.node, wide.why, wide.tls) = (Some(long.clone()), Some(long.clone()), Some(long.clone()));
    let mut to = destination(&long, &long, vec![wide]);
    to.listens = vec![long.clone()];
    let mut made = Made { destinations: vec![to], ..Made::calm() };
    let mut shown = certificate(&long, now_ms() + days(3));
    (shown.issuer, shown.file, shown.error) = (Some(long.clone()), Some(long.clone()), Some(long.clone()));
    made.certificates = vec![shown];
    (made.reload.successful, made.reload.source, made.reload.error) =
        (false, Some(long.clone()), Some(long.clone()));
    made.unready = vec![long];
    let stage = Stage::new([Made::calm(), made]);

    for shown in 0..2 {
        stage.show(shown);
        let mut page = stage.open(390);
        page.evaluate("document.getElementById('legend').open = true");
        for width in [320, 390, 1_280] {
            page.resize(width, 844);
            for scheme in ["light", "dark"] {
                page.prefer(scheme);
                // A scroll bar may take some of the width.
                let found = page.evaluate(
                    "(({ scrollWidth, clientWidth }) => [innerWidth, scrollWidth - clientWidth])\
                     (document.documentElement)",
                );
                assert_eq!(found, json!([width, 0]), "page {shown}, {scheme}");
            }
        }
        let [light, dark] = ["light", "dark"].map(|scheme| {
            page.prefer(scheme);
            ["body", ".card"].map(|of| {
                page.evaluate(format_args!(
                    "getComputedStyle(document.querySelector('{of}')).backgroundColor"
                ))
            })
        });
        assert!(light[0] != dark[0] && light[1] != dark[1], "{light:?} {dark:?}");
        assert_eq!(page.console(), [""; 0]);
    }
}
