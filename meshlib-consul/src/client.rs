//! Asking Consul.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Version;
use http::header::ACCEPT_ENCODING;
use http::header::CONTENT_ENCODING;
use http::header::HOST;
use http::header::USER_AGENT;
use meshlib::Error;
use meshlib::http::Body;
use meshlib::http::HttpError;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Ask;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Token;
use crate::doubt::Doubt;
use crate::error::ConsulError;
use crate::error::reason;
use crate::hub::Hub;
use crate::lanes::Lanes;
use crate::leader::Leader;
use crate::secure::Follow;
use crate::secure::Secure;
use crate::stats::Counts;
use crate::transport::Address;
use crate::transport::Place;
use crate::transport::Wire;

/// The largest answer that is read, as it comes and after it was decompressed.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Failures in a row after which the next address is asked.
const MOVE_ON: u32 = 3;
/// Requests at a time over HTTP/2: as many as 32 connections of 250 streams carry.
const MULTIPLEXED: usize = 8000;
/// Places that are kept for what does not wait for a change.
const QUICK: usize = 16;
/// A connection that the agent closes so soon, before it has answered anything, is one too many.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// A client of Consul.
///
/// A clone is the same client: it shares connections, watches and limits. What it follows is followed by tasks of the
/// runtime it is used in, which end when nobody listens.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use meshlib_consul::{Config, Consul};
///
/// let consul = Consul::new(Config::new("http://127.0.0.1:8500"))?;
/// consul.kv_put("greeting", "hello".into(), Default::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Consul {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    servers: Box<[Server]>,
    current: Mutex<Current>,
    /// Replaced when it is renewed: read with each request.
    pub(crate) token: watch::Sender<Option<HeaderValue>>,
    /// For what waits for changes.
    pub(crate) watches: Arc<Lanes>,
    /// For everything else.
    quick: Arc<Lanes>,
    pub(crate) leader: Leader,
    pub(crate) hub: Hub,
    pub(crate) doubt: Arc<Doubt>,
    pub(crate) counts: Counts,
    following: OnceLock<Vec<AbortHandle>>,
}

struct Server {
    address: Address,
    host: HeaderValue,
    wire: Wire,
    follow: Option<Follow>,
}

/// The address that is asked.
#[derive(Default)]
struct Current {
    index: usize,
    failures: u32,
    /// Whether it has ever answered.
    reached: bool,
}

/// What Consul answered, whatever the status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The index of the state that was read.
    pub(crate) fn index(&self) -> Option<u64> {
        self.header("x-consul-index")?.parse().ok()
    }

    /// Whether the server that answered knew a leader.
    pub(crate) fn knows_leader(&self) -> bool {
        self.header("x-consul-knownleader") != Some("false")
    }

    /// How long it had not heard of it.
    pub(crate) fn lag(&self) -> Duration {
        let millis = self.header("x-consul-lastcontact").and_then(|value| value.parse().ok());
        Duration::from_millis(millis.unwrap_or_default())
    }

    /// Whether the token hid results; servers before 1.11 do not say.
    pub(crate) fn is_filtered(&self) -> Option<bool> {
        self.header("x-consul-results-filtered-by-acls").map(|value| value == "true")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A token as it is sent.
fn header(token: &Token) -> Result<HeaderValue, ConfigError> {
    let mut value = HeaderValue::from_str(token.secret()).map_err(|_| ConfigError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Consul {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    ///
    /// If an address is none, the token cannot be sent, or the files for TLS are no good.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let token = config.token.as_ref().map(header).transpose()?;
        let servers: Result<Vec<_>, _> =
            config.addresses.iter().map(|text| Server::new(text, &config)).collect();
        let servers = servers?;
        if servers.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        let most = config.max_requests.max(10);
        let quick = QUICK.min(most / 2);
        let shared = Shared {
            servers: servers.into(),
            current: Mutex::default(),
            token: watch::Sender::new(token),
            watches: Lanes::new(most - quick),
            quick: Lanes::new(quick),
            leader: Leader::default(),
            hub: Hub::default(),
            doubt: Arc::default(),
            counts: Counts::default(),
            following: OnceLock::new(),
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Shows another token from now on. What is followed already is asked for again at once.
    ///
    /// # Errors
    ///
    /// If the token cannot be sent. The one before stays in use.
    pub fn set_token(&self, token: &Token) -> Result<(), ConfigError> {
        let token = header(token)?;
        self.shared.token.send_replace(Some(token));
        Ok(())
    }

    /// Lets everything that is followed be asked for again at once.
    pub(crate) fn ask_anew(&self) {
        self.shared.token.send_modify(|_| ());
    }

    /// Sends a request and waits at most as long as its kind may take. Any status is an answer.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, ConsulError> {
        let _lane = self.shared.quick.enter().await;
        self.shared.exchange(&ask).await
    }

    /// The same for an answer that waits for a change; the caller holds a lane.
    pub(crate) async fn wait(&self, ask: Ask) -> Result<Answer, ConsulError> {
        let started = Instant::now();
        match self.shared.exchange(&ask).await {
            Err(error) if self.shared.is_refusal(&error, started) => Err(ConsulError::Busy),
            result => result,
        }
    }

    /// Sends a request that only 200 is an answer to.
    pub(crate) async fn ask_ok(&self, ask: Ask) -> Result<Answer, ConsulError> {
        let what = Arc::clone(&ask.what);
        let answer = self.ask(ask).await?;
        if answer.status == 200 { Ok(answer) } else { Err(failure(&what, &answer)) }
    }
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.shared.servers.iter().map(|server| &server.address.authority).collect();
        f.debug_struct("Consul").field("addresses", &addresses).finish_non_exhaustive()
    }
}

/// What a status other than success means.
pub(crate) fn failure(what: &Arc<str>, answer: &Answer) -> ConsulError {
    let (what, reason) = (Arc::clone(what), reason(&answer.body));
    match answer.status {
        403 => ConsulError::Denied { what, reason },
        429 => ConsulError::Busy,
        status => ConsulError::Status { what, status, reason },
    }
}

impl Server {
    fn new(text: &str, config: &Config) -> Result<Self, ConfigError> {
        let address = Address::parse(text)?;
        let secure = match (&address.place, address.secure) {
            (Place::Host(host, _), true) => Some(Secure::new(&config.tls, host)?),
            _ => None,
        };
        let (policy, follow) = match secure {
            Some(secure) => (Some(secure.policy), secure.follow),
            None => (None, None),
        };
        let wire = Wire::new(&address, config, policy);
        Ok(Self { host: address.host()?, address, wire, follow })
    }
}

impl Shared {
    async fn exchange(&self, ask: &Ask) -> Result<Answer, ConsulError> {
        self.follow_files();
        let index = self.current().index;
        let server = &self.servers[index];
        let limit = match ask.within {
            Some(limit) => limit,
            None if ask.method == Method::GET => self.config.read_timeout,
            None => self.config.write_timeout,
        };
        let started = Instant::now();
        let result = time::timeout(limit, self.send(server, ask)).await;
        let result = result.unwrap_or_else(|_| {
            Err(ConsulError::Timeout { authority: Arc::clone(&server.address.authority), after: limit })
        });
        match &result {
            Ok(_) => self.reached(index),
            Err(error) if self.is_refusal(error, started) => {}
            Err(ConsulError::Unreachable { .. } | ConsulError::Timeout { .. }) => {
                self.doubt.trouble();
                self.missed(index);
            }
            Err(_) => {}
        }
        self.counts.asked(&ask.uri, &result);
        match &result {
            Ok(answer) => {
                let (status, index) = (answer.status, answer.index());
                tracing::debug!(method = %ask.method, what = %ask.what, status, index, took = ?started.elapsed(), "asked consul");
            }
            Err(error) => tracing::debug!(method = %ask.method, what = %ask.what, %error, "asked consul"),
        }
        result
    }

    /// Whether the agent seems to have closed the connection of a request because there are too many.
    fn is_refusal(&self, error: &ConsulError, started: Instant) -> bool {
        match error {
            ConsulError::Unreachable { source, .. } => {
                is_cut_short(source) && started.elapsed() < REFUSED_WITHIN && self.watches.is_shared()
            }
            _ => false,
        }
    }

    async fn send(&self, server: &Server, ask: &Ask) -> Result<Answer, ConsulError> {
        let unreachable = |error: Error| ConsulError::Unreachable {
            authority: Arc::clone(&server.address.authority),
            source: Arc::new(error),
        };
        let mut request = Request::new(match ask.body.is_empty() {
            true => Body::empty(),
            false => Body::from(ask.body.clone()),
        });
        *request.method_mut() = ask.method.clone();
        let uri = format!("{}{}", server.address.prefix, ask.uri);
        *request.uri_mut() = uri.parse().map_err(|error| ConsulError::decode(&ask.what, error))?;
        let headers = request.headers_mut();
        headers.insert(HOST, server.host.clone());
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("meshlib-consul/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(token) = self.token.borrow().clone() {
            headers.insert("x-consul-token", token);
        }
        let (head, body) = server.wire.send(request).await.map_err(unreachable)?.into_parts();
        if head.version == Version::HTTP_2 {
            self.watches.widen(MULTIPLEXED);
        }
        let too_large = || ConsulError::TooLarge { what: Arc::clone(&ask.what), limit: MAX_BODY };
        let body = body.collect(MAX_BODY).await.map_err(|error| match error {
            HttpError::TooLarge { .. } => too_large(),
            error => unreachable(Error::Http(Box::new(error))),
        })?;
        let body = match head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            Some(b"gzip") => gunzip(&body, MAX_BODY)
                .map_err(|error| ConsulError::decode(&ask.what, error))?
                .ok_or_else(too_large)?,
            _ => body,
        };
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn reached(&self, index: usize) {
        let mut current = self.current();
        if current.index == index {
            (current.failures, current.reached) = (0, true);
        }
    }

    fn missed(&self, index: usize) {
        let mut current = self.current();
        if current.index != index {
            return;
        }
        current.failures += 1;
        if current.failures >= MOVE_ON || !current.reached {
            *current =
                Current { index: (index + 1) % self.servers.len(), failures: 0, reached: current.reached };
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts, with the first request, the tasks that follow the files of TLS. They end with the client.
    fn follow_files(&self) {
        self.following.get_or_init(|| {
            let follows = self.servers.iter().filter_map(|server| server.follow.as_ref());
            follows.map(|follow| tokio::spawn(follow()).abort_handle()).collect()
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in self.following.get().into_iter().flatten() {
            task.abort();
        }
    }
}

/// Whether the connection was closed before a byte of the answer.
fn is_cut_short(error: &Error) -> bool {
    match error {
        Error::Http(error) => match &**error {
            HttpError::Unsent(_) => true,
            error @ HttpError::Exchange { .. } => error.is_closed(),
            _ => false,
        },
        _ => false,
    }
}

/// The bytes that were compressed; nothing if there are more than `limit`, which few compressed bytes can become.
fn gunzip(compressed: &[u8], limit: usize) -> std::io::Result<Option<Bytes>> {
    let mut body = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    flate2::read::MultiGzDecoder::new(compressed).take(most.saturating_add(1)).read_to_end(&mut body)?;
    Ok((body.len() <= limit).then(|| body.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_compressed_is_bounded_by_what_it_becomes() {
        let bomb = gzip(&vec![0; 100_000]);

        assert_eq!(gunzip(&gzip(b"hello"), 5).unwrap().unwrap(), "hello");
        assert_eq!(gunzip(&bomb, 99_999).unwrap(), None);
        assert!(gunzip(&bomb[..bomb.len() - 1], 1_000_000).is_err(), "cut short");
        assert!(gunzip(b"hello", 10).is_err());
    }

    #[test]
    fn a_client_shows_no_token() {
        let config = Config::default().with_token(Token::new("s3cret"));

        let consul = Consul::new(config).unwrap();

        assert!(!format!("{consul:?}").contains("s3cret"));
    }
}
