//! Which answers may be compressed, and what their headers say then.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body::Body as _;

use super::CompressOptions;
use crate::http::Body;

/// Whether an answer may be compressed if its client likes.
pub(super) fn is_eligible(response: &Response<Body>, options: &CompressOptions) -> bool {
    let headers = response.headers();
    let has_whole_body = response.status().is_success()
        && !matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
        )
        && !headers.contains_key(header::CONTENT_RANGE);
    has_whole_body
        && has_listed_type(headers, options)
        && is_plain(headers)
        && !is_fixed(headers)
        && length(response).is_none_or(|length| length >= options.min_bytes)
}

/// Says that answers differ by what their clients accept.
pub(super) fn vary(headers: &mut HeaderMap) {
    if !lists(headers, &header::VARY, |name| name == "*" || name.eq_ignore_ascii_case("accept-encoding")) {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Takes back what was said about the very bytes of a body.
pub(super) fn forget_identity(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    // Ranges count bytes of what is sent, which is made anew, and differently, each time.
    headers.remove(header::ACCEPT_RANGES);
    // RFC 9530 section 1.3, RFC 3230, RFC 1864: they are about encoded bytes.
    for name in ["content-digest", "repr-digest", "digest", "content-md5"] {
        headers.remove(name);
    }
    // RFC 9110 section 8.8.3.3: a strong tag would be the same for different bytes. The same bytes may still be meant.
    if let Some(etag) = headers.get(header::ETAG)
        && !etag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

fn has_listed_type(headers: &HeaderMap, options: &CompressOptions) -> bool {
    let Some(content_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    // Events are small, and whoever waits for one waits for it now.
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    !essence.eq_ignore_ascii_case("text/event-stream") && options.types.contains(content_type)
}

fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).into_iter().all(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .all(|coding| coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case("identity"))
        })
    })
}

/// RFC 9111 section 5.2.2.6: an intermediary must leave such content as it is.
fn is_fixed(headers: &HeaderMap) -> bool {
    lists(headers, &header::CACHE_CONTROL, |directive| directive.eq_ignore_ascii_case("no-transform"))
}

/// The length of the body if it is known.
fn length(response: &Response<Body>) -> Option<u64> {
    // What is answered to a HEAD has no body, but says how long it would be.
    let told =
        response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    told.or_else(|| response.body().size_hint().exact())
}

/// Whether a list in a header has an item like this.
fn lists(headers: &HeaderMap, name: &HeaderName, is_wanted: impl Fn(&str) -> bool) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| is_wanted(item.trim()))
}
