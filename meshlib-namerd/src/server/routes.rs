//! From requests to answers.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header::ACCEPT;
use http::header::CONTENT_TYPE;
use http::header::ETAG;
use http::header::IF_MATCH;
use meshlib::dtab::path::Path;
use meshlib::http::Body;

use super::dtab;
use super::dtab::Dentry;
use super::dtabs;
use super::dtabs::Change;
use super::dtabs::Expected;
use super::lines;
use super::lines::Answer;
use super::lines::Pace;
use super::naming::Door;
use super::naming::Question;
use super::naming::plain;
use super::shared::Shared;
use super::wire::Control;

/// Answers one request.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    control: &Control,
    request: Request<Body>,
) -> Response<Body> {
    let target = request.uri().clone();
    let Some(target_path) = target.path().strip_prefix("/api/1/") else {
        return plain(StatusCode::NOT_FOUND);
    };
    let query = Query(target.query().unwrap_or_default());
    if matches!(target_path, "dtabs" | "dtabs/") {
        return list(shared, request.method(), query);
    }
    // All that follows the kind of question is the namespace, slashes included and nothing decoded.
    let Some((kind, namespace)) = target_path.split_once('/').filter(|(_, rest)| !rest.is_empty()) else {
        return plain(StatusCode::NOT_FOUND);
    };
    let door = match kind {
        "resolve" => Door::Resolve,
        "bind" => Door::Bind,
        "addr" => Door::Addr,
        "dtabs" if !namespace.contains('/') => {
            return one_dtab(shared, control, namespace, query, request).await;
        }
        _ => return plain(StatusCode::NOT_FOUND),
    };
    let Some(path) = query.get("path") else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let path = match Path::parse(&path) {
        Ok(path) => path,
        Err(error) => return said(StatusCode::BAD_REQUEST, format!("Invalid path: {path} / {error}")),
    };
    let Ok(extra) = dtab::parse(&query.get("dtab").unwrap_or_default()) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let question = Question { door, namespace: namespace.to_owned(), path, extra, watch: query.is_watch() };
    question.answer(shared, control).await
}

/// The names of all dtabs.
fn list(shared: &Arc<Shared>, method: &Method, query: Query<'_>) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let names = |tables: &super::tables::Tables| {
        // A list of texts can always be written.
        serde_json::to_string(&tables.dtabs().list()).unwrap_or_default()
    };
    let body = if query.is_watch() {
        lines::watch(shared, Pace::Single, move |tables| Answer::line(names(tables)))
    } else {
        Body::from(shared.read(names) + "\n")
    };
    typed(JSON, body)
}

/// Reads or changes the dtab of one namespace.
async fn one_dtab(
    shared: &Arc<Shared>,
    control: &Control,
    namespace: &str,
    query: Query<'_>,
    request: Request<Body>,
) -> Response<Body> {
    let method = request.method().clone();
    match method {
        Method::GET | Method::HEAD => read_dtab(shared, namespace, query, &request),
        Method::PUT | Method::POST => {
            let entries = match entries(control, &method, request).await {
                Ok(entries) => entries,
                Err(refused) => return refused,
            };
            let (entries, expected) = entries;
            changed(shared.change(|tables| match method {
                Method::POST => tables.dtabs_mut().create(namespace, entries),
                _ => tables.dtabs_mut().update(namespace, entries, expected),
            }))
        }
        Method::DELETE => {
            let deleted = shared.change(|tables| tables.dtabs_mut().delete(namespace));
            changed(if deleted { Change::Made } else { Change::Missing })
        }
        _ => plain(StatusCode::NOT_FOUND),
    }
}

fn read_dtab(
    shared: &Arc<Shared>,
    namespace: &str,
    query: Query<'_>,
    request: &Request<Body>,
) -> Response<Body> {
    let accepted = request.headers().get_all(ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let media = accepted.find_map(Media::named).unwrap_or(Media::Json);
    if query.is_watch() && request.method() == Method::GET {
        let namespace = namespace.to_owned();
        let lines = lines::watch(shared, Pace::Single, move |tables| match tables.dtabs().get(&namespace) {
            Some((entries, _)) => Answer::line(media.print(entries)),
            None => Answer::Pending,
        });
        return typed(media.value(), lines);
    }
    let found = shared.read(|tables| {
        let (entries, version) = tables.dtabs().get(namespace)?;
        Some((media.print(entries) + "\n", dtabs::etag(version)))
    });
    let Some((body, etag)) = found else {
        return plain(StatusCode::NOT_FOUND);
    };
    let mut response = typed(media.value(), Body::from(body));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// Reads the entries that a request brings, and for which version they are meant.
async fn entries(
    control: &Control,
    method: &Method,
    request: Request<Body>,
) -> Result<(Vec<Dentry>, Expected), Response<Body>> {
    let refused = |why: String| said(StatusCode::BAD_REQUEST, why);
    let (parts, body) = request.into_parts();
    let field = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let kind = field(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    let expected = match field(IF_MATCH).filter(|_| method == Method::PUT) {
        None => Some(Expected::Anything),
        Some(version) => dtabs::expected(version.trim()),
    };

    let body = body.collect(MAX_DTAB).await;
    control.skip_body();
    let media = Media::named(&kind).ok_or_else(|| refused(format!("Invalid Content-Type \"{kind}\". ")))?;
    let body = body.map_err(|error| refused(error.to_string()))?;
    let entries = match media {
        Media::Json => dtab::parse_json(&body),
        Media::Dtab | Media::Text => dtab::parse(&String::from_utf8_lossy(&body)),
    };
    let entries = entries.map_err(|error| refused(format!("Invalid dtab: {error}")))?;
    let expected = expected.ok_or_else(|| refused("If-Match is not base64".to_owned()))?;
    Ok((entries, expected))
}

fn changed(change: Change) -> Response<Body> {
    plain(match change {
        Change::Made => StatusCode::NO_CONTENT,
        Change::Exists => StatusCode::CONFLICT,
        Change::Missing => StatusCode::NOT_FOUND,
        Change::Mismatch => StatusCode::PRECONDITION_FAILED,
    })
}

fn typed(kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn said(status: StatusCode, why: String) -> Response<Body> {
    let mut response = Response::new(Body::from(why));
    *response.status_mut() = status;
    response
}

/// The forms in which dtabs travel.
#[derive(Clone, Copy)]
enum Media {
    Json,
    Dtab,
    Text,
}

impl Media {
    /// A media type, whatever its parameters.
    fn named(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or_default().trim() {
            "application/json" => Some(Self::Json),
            "application/dtab" => Some(Self::Dtab),
            "text/plain" => Some(Self::Text),
            _ => None,
        }
    }

    fn value(self) -> HeaderValue {
        match self {
            Self::Json => JSON,
            Self::Dtab => HeaderValue::from_static("application/dtab"),
            Self::Text => HeaderValue::from_static("text/plain"),
        }
    }

    fn print(self, entries: &[Dentry]) -> String {
        match self {
            Self::Json => dtab::print_json(entries),
            Self::Dtab | Self::Text => dtab::print(entries),
        }
    }
}

/// The parameters of a request.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// The first value of a key, decoded.
    fn get(self, key: &str) -> Option<Cow<'a, str>> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(name, _)| decoded(name) == key)?;
        Some(decoded(value))
    }

    fn is_watch(self) -> bool {
        let watch = self.get("watch").unwrap_or_default();
        ["true", "t", "1"].iter().any(|yes| watch.eq_ignore_ascii_case(yes))
    }
}

/// A part of a query without its escapes; `+` is a blank. What is no escape stands for itself.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    loop {
        left = match left {
            [] => return Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(digit(*high) << 4 | digit(*low));
                rest
            }
            [b'+', rest @ ..] => {
                bytes.push(b' ');
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// The value of a hexadecimal digit.
fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Most bytes of a dtab.
const MAX_DTAB: usize = 1024 * 1024;
