//! Numbers that every program has, and the page they are on.

use std::io::Write;

use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use meshlib::http::Body;
use meshlib::http::admin::typed;
use meshlib::observe::prometheus::Format;
use meshlib::observe::prometheus::Registry;
use meshlib::observe::prometheus::build_info;
use meshlib::observe::prometheus::content_type;
use meshlib::observe::prometheus::process_metrics;

/// Registers those about the process, and what the tool was built from.
pub fn of_process(registry: &Registry, tool: &str) {
    process_metrics(registry);
    let rustc = env!("BUILT_RUSTC");
    // `rustc 1.90.0 (1159e78c4 2025-09-14)`
    let rustc = rustc.split_whitespace().nth(1).unwrap_or(rustc);
    let more = [("commit", env!("BUILT_COMMIT")), ("rustc", rustc), ("tool", tool)];
    build_info(registry, env!("CARGO_PKG_VERSION"), &more);
}

/// All of them, in the format and the coding that the request asks for.
pub fn page(registry: &Registry, request: &Request<Body>) -> Response<Body> {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::from_accept(accept);
    let text = registry.render(format);
    let zipped = wants_gzip(request.headers()).then(|| gzip(text.as_bytes())).flatten();
    let mut answer = typed(content_type(format), text);
    let vary = HeaderValue::from_static("accept, accept-encoding");
    answer.headers_mut().insert(header::VARY, vary);
    if let Some(zipped) = zipped {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        *answer.body_mut() = Body::from(zipped);
    }
    answer
}

/// Whether gzip is named, and not with a weight of zero (RFC 9110 section 12.5.3).
fn wants_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
        let weight = weight.trim().trim_start_matches(['q', 'Q']).trim_start().trim_start_matches('=').trim();
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse().is_ok_and(|weight: f32| weight > 0.0)
    })
}

fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_wanted_when_it_is_named() {
        let wants = |value: &'static str| {
            wants_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };

        for yes in ["gzip", "deflate, GZIP", "br;q=1.0, gzip;q=0.5", "gzip ; q=1"] {
            assert!(wants(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.000", "gzip;q=x", "*"] {
            assert!(!wants(no), "{no}");
        }
        assert!(!wants_gzip(&HeaderMap::new()));
    }
}
