//! The page in a real browser.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bins::kit::admin::Admin;
use bins::kit::admin::AdminSocket;
use bins::kit::dashboard;
use bins::kit::state::Watching;
use futures::FutureExt;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::CONTENT_SECURITY_POLICY;
use meshlib::http::Body;
use meshlib::http::admin;
use meshlib::http::admin::Router;
use tower::ServiceExt;

use crate::chromium::Seen;
use crate::chromium::browse;
use crate::chromium::is_there;
use crate::made::Made;
use crate::made::destination;
use crate::made::endpoint;

fn serve(pages: Router) -> (SocketAddr, Admin) {
    let socket = AdminSocket::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    (socket.addr(), socket.serve(pages).expect("it serves"))
}

/// A dashboard whose second endpoint dies after the first page.
fn dying() -> Router {
    let mut dead = endpoint("10.0.0.2:8080", "ejected");
    dead.closed_for_ms = 12_000;
    let later = vec![
        // One more, before the other.
        destination("api", "/svc/api", vec![endpoint("10.0.1.1:8080", "ready")]),
        destination("web", "/svc/web", vec![endpoint("10.0.0.1:8080", "ready"), dead]),
    ];
    let made = Made { later: Some(later), ..Made::calm() };
    dashboard::pages(Router::new(), Watching::new("linkerd-tcp", made))
}

/// The same with what a test does in between. `changed` gets each page and the number of those before it.
fn between(
    inner: Router,
    changed: impl Fn(usize, String) -> Response<Body> + Send + Sync + 'static,
) -> Router {
    let asked = AtomicUsize::new(0);
    let whole = |router: &Router, path: &'static str| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = router.clone().oneshot(request).now_or_never().expect("at once").expect("an answer");
        let (head, body) = answer.into_parts();
        let body = body.collect(1 << 24).now_or_never().expect("at once").expect("a body");
        (head, String::from_utf8(body.to_vec()).expect("text"))
    };
    let files = inner.clone();
    let file = move |path| {
        let files = files.clone();
        move |_: &Request<Body>| {
            let (head, body) = whole(&files, path);
            Response::from_parts(head, Body::from(body))
        }
    };
    Router::new()
        .get("/dashboard.css", file("/dashboard.css"))
        .get("/dashboard.js", file("/dashboard.js"))
        .get("/probe.js", |_| admin::typed("text/javascript", include_str!("probe.js")))
        .get("/dashboard", move |_| {
            let (head, body) = whole(&inner, "/dashboard");
            let mut answer = changed(asked.fetch_add(1, Relaxed), body);
            // Those of the test go before.
            for (name, value) in &head.headers {
                answer.headers_mut().append(name, value.clone());
            }
            answer
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_changes_the_page_and_leaves_the_reader_alone() {
    if !is_there() {
        return;
    }
    let pages = between(dying(), |_, page| {
        Response::new(Body::from(page.replace("</head>", "<script src=\"probe.js\"></script></head>")))
    });
    let (at, _admin) = serve(pages);

    let Seen { page, console } = browse(at, &["--window-size=390,844"]).await;

    assert!(console.is_empty(), "{console:#?}");
    assert!(page.contains("ejected for 12 s") && page.contains("/svc/api"), "{page}");
    assert!(page.contains("<p id=\"link\" role=\"status\">live</p>"), "{page}");
    let probe = page.split("data-probe=\"").nth(1).and_then(|rest| rest.split('"').next());
    assert_eq!(probe, Some("focus,true left,40 open,true wide,false width,390"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_complete_without_script() {
    if !is_there() {
        return;
    }
    // The browser's own part of this runs on scripts, so they are forbidden by the page and not on the command line.
    let (at, _admin) = serve(between(dying(), |_, page| {
        let mut answer = Response::new(Body::from(page));
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        answer
    }));

    let Seen { page, .. } = browse(at, &[]).await;

    assert!(page.contains("<p id=\"link\" role=\"status\"></p>"), "{page}");
    for part in [
        "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
        "Ready",
        "10.0.0.2:8080",
        "Connections per second",
        "proxy.yml",
        "/svc/web",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_told_and_what_was_known_stays() {
    if !is_there() {
        return;
    }
    let pages = between(dying(), |before, page| {
        let mut answer = Response::new(Body::from(page));
        if before > 0 {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    });
    let (at, _admin) = serve(pages);

    let Seen { page, .. } = browse(at, &[]).await;

    assert!(page.contains("<body class=\"lost\">"), "{page}");
    let since = page.split("not answering since ").nth(1).and_then(|rest| rest.split('<').next());
    let since = since.unwrap_or_else(|| panic!("no word of it in {page}"));
    assert!(since.len() == "12:34:56 UTC".len() && since.ends_with(" UTC"), "{since}");
    assert!(page.contains("10.0.0.2:8080") && !page.contains("ejected for"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_silence_the_page_is_alive_again() {
    if !is_there() {
        return;
    }
    let pages = between(dying(), |before, page| {
        let mut answer = Response::new(Body::from(page));
        if before == 1 {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    });
    let (at, _admin) = serve(pages);

    let Seen { page, .. } = browse(at, &[]).await;

    assert!(page.contains("<p id=\"link\" role=\"status\">live</p>"), "{page}");
    assert!(!page.contains("class=\"lost\"") && page.contains("ejected for 12 s"), "{page}");
}
