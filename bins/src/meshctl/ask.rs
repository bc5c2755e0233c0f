//! Asking a program.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::header;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::TcpConnector;
use meshlib::To;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::http::HttpClient;
use meshlib::http::HttpError;
use serde::de::DeserializeOwned;
use tokio::net;
use tokio::time;
use tower::Layer;
use tower::ServiceExt;

use super::address::AdminAddr;
use super::clean;

/// Most bytes of an answer: a program with a hundred thousand endpoints says as much.
const LARGEST: usize = 64 * 1024 * 1024;
/// Most lines of an answer that are shown where something else was wanted.
const LINES: usize = 20;

/// Said of what answers with pages for people, or has text where ours have none.
const OTHER: &str = "this does not look like an admin address of linkerd-tcp, tproxy-poc or tricot";

/// Asks one program, on a connection that is kept.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: HttpClient<TcpConnector>,
    admin: AdminAddr,
    within: Duration,
}

/// What a program has answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What no program of ours answers to what is asked here.
    pub(super) is_html: bool,
    body: Bytes,
}

/// Why there is no answer that could be used. The texts are harmless to terminals.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The host has no address.
    #[error("cannot find {admin}")]
    Name { admin: AdminAddr, source: io::Error },
    /// The program does not answer.
    #[error("cannot ask {admin}")]
    Unanswered { admin: AdminAddr, source: Box<Error> },
    /// It takes too long.
    #[error("no answer from {admin} within {within:?}")]
    Late { admin: AdminAddr, within: Duration },
    /// The answer is too large or breaks off.
    #[error("no whole answer from {admin}")]
    Partial { admin: AdminAddr, source: HttpError },
    /// It has no such page, or says that something is wrong.
    #[error("{admin} answers {} to {path}{said}", status.as_u16())]
    Status { admin: AdminAddr, path: &'static str, status: StatusCode, said: String },
    /// The page is something else than it should be.
    #[error("{admin} has something else at {path} than was expected: {problem}")]
    Foreign { admin: AdminAddr, path: &'static str, problem: String },
}

impl Answer {
    /// The text, line by line, harmless to terminals and without empty lines.
    pub(super) fn lines(&self) -> Vec<String> {
        clean::lines(&String::from_utf8_lossy(&self.body), LINES)
    }
}

impl Client {
    /// Asks the program at an address, which has so long for each answer.
    pub(super) fn new(admin: AdminAddr, within: Duration) -> Self {
        Self { http: ClientLayer::new().layer(TcpConnector::default()), admin, within }
    }

    /// Where the program is.
    #[cfg(feature = "tui")]
    pub(super) fn admin(&self) -> &AdminAddr {
        &self.admin
    }

    /// Asks for a page, with a method, and with what follows its path.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &'static str,
        query: &str,
    ) -> Result<Answer, AskError> {
        let asked = self.ask_for_ever(&method, path, query);
        let answer = time::timeout(self.within, asked).await;
        answer.unwrap_or_else(|_| Err(AskError::Late { admin: self.admin.clone(), within: self.within }))
    }

    /// The text of a page.
    ///
    /// # Errors
    ///
    /// If there is no such page, or no answer.
    pub(super) async fn text(&self, path: &'static str) -> Result<String, AskError> {
        let answer = self.ask(Method::GET, path, "").await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(path, &answer));
        }
        String::from_utf8(answer.body.into()).map_err(|error| self.foreign(path, &error))
    }

    /// What a page says, with strings that are harmless to terminals.
    ///
    /// # Errors
    ///
    /// If there is no such page, it says something else, or there is no answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, AskError> {
        let text = self.text(path).await?;
        let mut value = serde_json::from_str(&text).map_err(|error| self.foreign(path, &error))?;
        clean::document(&mut value);
        serde_json::from_value(value).map_err(|error| self.foreign(path, &error))
    }

    /// Makes sure that it is a program of ours that answers.
    ///
    /// # Errors
    ///
    /// If it is none, or there is no answer.
    pub(super) async fn is_ours(&self) -> Result<(), AskError> {
        let page = "/live";
        self.text(page).await.and_then(|text| self.says(page, "live", &[text.trim().to_owned()]))
    }

    /// Makes sure that a page of one line says what programs of ours say there.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub(super) fn says(&self, path: &'static str, expected: &str, lines: &[String]) -> Result<(), AskError> {
        match lines {
            [line] if line == expected => Ok(()),
            _ => Err(AskError::Foreign { admin: self.admin.clone(), path, problem: OTHER.into() }),
        }
    }

    /// The error for an answer that is not what was asked for.
    pub(super) fn refused(&self, path: &'static str, answer: &Answer) -> AskError {
        let (status, mut lines) = (answer.status, answer.lines());
        // Only of a filter there may be more to say than a line.
        if (status, path) != (StatusCode::BAD_REQUEST, "/log-level") {
            lines.truncate(1);
        }
        let said = match &*lines.join("\n") {
            _ if answer.is_html => format!(": {OTHER}"),
            "" if status == StatusCode::NOT_FOUND => {
                ": it has no such page, or is not the admin address of such a program".into()
            }
            said if status == StatusCode::NOT_FOUND => format!(": {OTHER}: {said}"),
            "" if status == StatusCode::FORBIDDEN => ": it is for clients on the same machine only".into(),
            "" => String::new(),
            said => format!(": {said}"),
        };
        AskError::Status { admin: self.admin.clone(), path, status, said }
    }

    /// The error for an answer that cannot be understood.
    pub(super) fn foreign(&self, path: &'static str, problem: &dyn std::error::Error) -> AskError {
        let problem = clean::line(&problem.to_string());
        AskError::Foreign { admin: self.admin.clone(), path, problem }
    }

    async fn ask_for_ever(
        &self,
        method: &Method,
        path: &'static str,
        query: &str,
    ) -> Result<Answer, AskError> {
        let admin = || self.admin.clone();
        let none = |source| AskError::Name { admin: admin(), source };
        let addrs = net::lookup_host((self.admin.host(), self.admin.port())).await.map_err(none)?;
        let mut last = none(io::ErrorKind::NotFound.into());
        for addr in addrs {
            let to = || To::new(Endpoint::new(addr), self.request(method, path, query));
            let mut answered = self.http.clone().oneshot(to()).await;
            if matches!(&answered, Err(Error::Http(error)) if error.is_retryable()) {
                // The connection had been kept, and was closed meanwhile.
                answered = self.http.clone().oneshot(to()).await;
            }
            match answered {
                Ok(answer) => {
                    let (status, kind) = (answer.status(), answer.headers().get(header::CONTENT_TYPE));
                    let is_html = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
                    let body = answer.into_body().collect(LARGEST).await;
                    let body = body.map_err(|source| AskError::Partial { admin: admin(), source })?;
                    let is_html = is_html || body.trim_ascii_start().starts_with(b"<");
                    return Ok(Answer { status, is_html, body });
                }
                Err(error) => last = AskError::Unanswered { admin: admin(), source: Box::new(error) },
            }
        }
        Err(last)
    }

    fn request(&self, method: &Method, path: &'static str, query: &str) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        request.method_mut().clone_from(method);
        // Paths are ours, queries are encoded, and an admin address is a valid authority.
        *request.uri_mut() = format!("{path}{query}").parse().expect("a valid path");
        let host = HeaderValue::from_str(&self.admin.to_string()).expect("a valid authority");
        request.headers_mut().insert(header::HOST, host);
        request
    }
}
