//! The page for those who use nothing but a keyboard.

use serde_json::Value;
use serde_json::json;

use crate::devtools::Key;
use crate::devtools::Page;
use crate::devtools::is_there;
use crate::made::Made;
use crate::made::certificate;
use crate::made::days;
use crate::made::destination;
use crate::made::endpoint;
use crate::made::now_ms;
use crate::stage::Stage;
use crate::stage::renewed;

/// Where the focus comes by, from the top to the bottom.
const STOPS: [&str; 9] = [
    "#main",
    "summary",
    "Endpoints of web /svc/web",
    "Endpoints of api /svc/api",
    "Certificates",
    "metrics",
    "state.json",
    "config.json",
    "ready",
];
const LEGEND_IS_OPEN: &str = "document.getElementById('legend').open";
const SCROLLED: &str = "document.activeElement.scrollLeft";

fn busy() -> Made {
    let endpoints = |n| (1..4).map(|m| endpoint(&format!("10.0.{n}.{m}:8080"), "ready")).collect();
    let destinations =
        vec![destination("web", "/svc/web", endpoints(0)), destination("api", "/svc/api", endpoints(1))];
    let certificates =
        ["a", "b"].map(|name| certificate(&format!("{name}.example.com"), now_ms() + days(50))).into();
    Made { destinations, certificates, each: 10, ..Made::calm() }
}

/// The same after something has come before each of its parts.
fn later() -> Made {
    let mut made = busy();
    made.destinations.insert(0, destination("web", "/svc/first", vec![endpoint("10.0.9.1:8080", "ready")]));
    made.certificates.insert(0, certificate("0.example.com", now_ms() + days(3)));
    made.unready = vec!["web: /svc/web is not resolved yet".into()];
    (made.reload.successful, made.reload.error) = (false, Some("proxy.yml:3: unknown field `adr`".into()));
    made.left_off = 7;
    made
}

/// The same in another order.
fn swapped() -> Made {
    let mut made = busy();
    made.destinations.reverse();
    made
}

fn open(stage: &Stage, width: u32) -> Page {
    let mut page = stage.open(width);
    page.evaluate(include_str!("keyboard.js"));
    page
}

/// Where the focus is. It must be seen.
fn focus(page: &mut Page) -> String {
    let mut found = page.evaluate("focus()");
    assert_eq!(found[1], json!([]), "{found}");
    serde_json::from_value(found[0].take()).expect("a name")
}

fn walk(page: &mut Page, key: Key, stops: usize) -> Vec<String> {
    (0..stops)
        .map(|_| {
            page.press(key);
            focus(page)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_reached_in_order_and_left_again_while_the_page_changes() {
    if !is_there() {
        return;
    }
    let stage = Stage::new([busy()]);
    for width in [390, 1_280] {
        let mut page = open(&stage, width);
        assert_eq!(page.evaluate("useful().map(said)"), json!(STOPS));
        assert_eq!(page.evaluate("document.querySelector('.skip').getBoundingClientRect().right <= 0"), true);

        for stop in STOPS {
            page.press(Key::Tab);
            assert_eq!(focus(&mut page), stop);
            renewed(&mut page);
            assert_eq!(focus(&mut page), stop, "after a renewal");
        }
        // And out of it.
        page.press(Key::Tab);
        assert_eq!(focus(&mut page), "");

        let mut back = walk(&mut page, Key::ShiftTab, STOPS.len());
        back.reverse();
        assert_eq!(back, STOPS);
        page.press(Key::ShiftTab);
        assert_eq!(focus(&mut page), "");
        assert_eq!(page.console(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_link_leads_past_the_header() {
    if !is_there() {
        return;
    }
    let stage = Stage::new([busy()]);
    let mut page = open(&stage, 390);
    page.press(Key::Tab);

    page.press(Key::Enter);

    let is_main = "document.activeElement.id === 'main' && location.hash === '#main'";
    page.until("the content has the focus", is_main);
    renewed(&mut page);
    assert_eq!(page.evaluate(is_main), true);
    page.press(Key::Tab);
    assert_eq!(focus(&mut page), STOPS[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_legend_is_unfolded_and_folded_and_stays_so() {
    if !is_there() {
        return;
    }
    let stage = Stage::new([busy()]);
    let mut page = open(&stage, 390);
    walk(&mut page, Key::Tab, 2);

    for (key, is_open) in [(Key::Enter, true), (Key::Space, false), (Key::Space, true), (Key::Enter, false)] {
        page.press(key);

        page.until("the legend", format_args!("{LEGEND_IS_OPEN} === {is_open}"));
        renewed(&mut page);
        assert_eq!((page.evaluate(LEGEND_IS_OPEN), &*focus(&mut page)), (Value::from(is_open), "summary"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_wide_is_scrolled_by_arrows_and_stays_so() {
    if !is_there() {
        return;
    }
    let stage = Stage::new([busy()]);
    let mut page = open(&stage, 390);
    walk(&mut page, Key::Tab, 2);

    for stop in &STOPS[2..5] {
        page.press(Key::Tab);
        assert_eq!(focus(&mut page), *stop);
        assert_eq!(page.evaluate(SCROLLED), 0);

        for _ in 0..3 {
            page.press(Key::Right);
        }
        // Where it comes to rest is its own business.
        page.until("it is scrolled", format_args!("{SCROLLED} >= 60"));
        page.until("it rests", format_args!("new Promise((done) => {{ const was = {SCROLLED}; setTimeout(() => done(was === {SCROLLED}), 200); }})"));
        let scrolled = page.evaluate(SCROLLED);
        renewed(&mut page);
        assert_eq!((page.evaluate(SCROLLED), &*focus(&mut page)), (scrolled, *stop));

        for _ in 0..10 {
            page.press(Key::Left);
        }
        page.until("it is scrolled back", format_args!("{SCROLLED} === 0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_keeps_focus_selection_scroll_position_and_whether_it_is_unfolded() {
    if !is_there() {
        return;
    }
    let stage = Stage::new([busy(), later(), swapped()]);
    let mut page = open(&stage, 390);
    page.press(Key::Tab);
    for stop in &STOPS[1..5] {
        page.press(Key::Tab);
        page.evaluate(
            "document.getElementById('legend').open = true;
             for (const box of document.querySelectorAll('.box')) box.scrollLeft = 40;
             getSelection().selectAllChildren(document.querySelectorAll('.box')[1].querySelector('tbody th'));",
        );

        for (shown, order) in [(1, "first,web,api"), (0, "web,api"), (2, "api,web"), (0, "web,api")] {
            stage.show(shown);
            let names =
                "[...document.querySelectorAll('.dst')].map((it) => it.textContent.split('/').at(-1))";
            page.until("it moves", format_args!("{names}.join() === '{order}'"));

            // It may have been moved out of sight; where the page is scrolled to is up to its reader.
            assert_eq!(page.evaluate("focus()[0]"), *stop, "{order}");
            assert_eq!(page.evaluate(LEGEND_IS_OPEN), true);
            assert_eq!(page.evaluate("useful().filter((it) => it.scrollLeft === 40).length"), 3);
            // Unless it changes places with another.
            if shown == 1 {
                assert_eq!(page.evaluate("getSelection().toString()"), "10.0.1.1:8080");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_lost_program_covers_nothing() {
    if !is_there() {
        return;
    }
    let stage = Stage::new([busy()]);
    let mut page = open(&stage, 390);
    page.resize(390, 300);
    stage.fall_silent();
    page.until("it is lost", "document.body.className === 'lost'");

    assert_eq!(walk(&mut page, Key::Tab, STOPS.len()), STOPS);
    let mut back = walk(&mut page, Key::ShiftTab, STOPS.len() - 1);
    back.reverse();
    assert_eq!(back, STOPS[..STOPS.len() - 1]);
}
