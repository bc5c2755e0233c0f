//! `/dashboard`: a program's state for people, beside the numbers of `/metrics`.
//!
//! The page is made here as a whole, so that it says all it has to say without a script, and nothing is fetched from
//! elsewhere. The script asks for the same page every second and changes what differs.

use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::header;
use meshlib::http::Body;
use meshlib::http::admin::Router;
use meshlib::http::admin::typed;

use crate::kit::state::Watching;

mod cards;
mod certificates;
mod chart;
mod destinations;
mod html;
mod page;
mod words;

/// Most endpoints on the page. More would take longer to look through than `/state.json` with a tool.
const MOST: usize = 500;

const STYLE: &str = include_str!("dashboard/dashboard.css");
const SCRIPT: &str = include_str!("dashboard/dashboard.js");

/// Nothing but what is served beside the page. What runs or is shown in spite of the escaping of names has nowhere to
/// send anything.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the dashboard to an admin server's pages: `/dashboard` with its style sheet and its script.
#[must_use]
pub fn pages(router: Router, watching: Watching) -> Router {
    router
        .get("/dashboard", move |_| {
            let page = page::page(&watching.state(MOST), &watching.history());
            answer("text/html; charset=utf-8", page, "no-store")
        })
        .get("/dashboard.css", |_| answer("text/css; charset=utf-8", STYLE, KEPT))
        .get("/dashboard.js", |_| answer("text/javascript; charset=utf-8", SCRIPT, KEPT))
}

/// The page asks for style and script by what is in them, so another build's are not taken for these.
const KEPT: &str = "max-age=86400";

fn answer(content_type: &str, body: impl Into<String>, cache: &'static str) -> Response<Body> {
    let mut answer = typed(content_type, body);
    let fields: [(HeaderName, &'static str); 4] = [
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    answer.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}
