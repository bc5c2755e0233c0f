//! A dashboard that changes when a test wants it to.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use bins::kit::admin::Admin;
use bins::kit::admin::AdminSocket;
use futures::FutureExt;
use http::Request;
use http::StatusCode;
use meshlib::http::Body;
use meshlib::http::admin;
use meshlib::http::admin::Router;
use tower::ServiceExt;

use crate::devtools::Page;
use crate::made::Made;

/// No page.
const SILENCE: usize = usize::MAX;

/// Serves one of several pages.
pub(crate) struct Stage {
    at: SocketAddr,
    shown: Arc<AtomicUsize>,
    _admin: Admin,
}

impl Stage {
    /// Serves the first of these.
    pub(crate) fn new(pages: impl IntoIterator<Item = Made>) -> Self {
        let routers: Arc<[Router]> = pages.into_iter().map(crate::router).collect();
        let shown = Arc::<AtomicUsize>::default();
        let from = |path: &'static str| {
            let (routers, now) = (Arc::clone(&routers), Arc::clone(&shown));
            move |_: &Request<Body>| match routers.get(now.load(SeqCst)) {
                Some(router) => {
                    let request = Request::get(path).body(Body::empty()).expect("a request");
                    router.clone().oneshot(request).now_or_never().expect("at once").expect("an answer")
                }
                None => admin::status(StatusCode::SERVICE_UNAVAILABLE),
            }
        };
        let pages = ["/dashboard", "/dashboard.css", "/dashboard.js"];
        let pages = pages.into_iter().fold(Router::new(), |pages, path| pages.get(path, from(path)));
        let socket = AdminSocket::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        Self { at: socket.addr(), shown, _admin: socket.serve(pages).expect("it serves") }
    }

    /// Opens it in a browser whose window is so wide.
    pub(crate) fn open(&self, width: u32) -> Page {
        let mut page = Page::open();
        page.resize(width, 844);
        page.go(self.url());
        page
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/dashboard", self.at)
    }

    /// Shows another page from now on.
    pub(crate) fn show(&self, page: usize) {
        self.shown.store(page, SeqCst);
    }

    /// Answers no more.
    pub(crate) fn fall_silent(&self) {
        self.show(SILENCE);
    }
}

/// Waits until a browser's page has been changed into one as it is served.
pub(crate) fn renewed(page: &mut Page) {
    // The server knows nothing of this, so it goes with the next change.
    page.evaluate("document.getElementById('main').dataset.old = ''");
    page.until("the page is renewed", "!('old' in document.getElementById('main').dataset)");
}
