//! What was asked.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use tokio::sync::watch;
use tokio::time::Instant;

/// A request as it came.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// When its head had been read.
    pub at: Instant,
    /// The number of its connection, counted from 0.
    pub connection: u64,
    /// The method.
    pub method: Method,
    /// The target as it was sent, nothing decoded.
    pub target: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The head byte for byte, the empty line included.
    pub head: Bytes,
}

impl Recorded {
    /// Copies what is kept: the fields of a request are slices of the buffer that it was read into, 8 KiB each.
    pub(super) fn new<B>(at: Instant, connection: u64, request: &Request<B>, head: Bytes) -> Self {
        let fields = request.headers().iter();
        let fields = fields.filter_map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            Some((name.clone(), value))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        Self {
            at,
            connection,
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers,
            head,
        }
    }
}

/// The latest requests, and how many there were.
#[derive(Debug)]
pub(super) struct Log {
    requests: Mutex<VecDeque<Recorded>>,
    count: watch::Sender<usize>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { requests: Mutex::default(), count: watch::Sender::new(0) }
    }

    pub(super) fn add(&self, request: Recorded) {
        {
            let mut requests = self.lock();
            if requests.len() == MAX_RECORDED {
                requests.pop_front();
            }
            requests.push_back(request);
        }
        self.count.send_modify(|count| *count += 1);
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        self.lock().iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
        self.count.send_replace(0);
    }

    pub(super) async fn reached(&self, requests: usize) {
        let mut count = self.count.subscribe();
        // The sender lives as long as this.
        let _ = count.wait_for(|count| *count >= requests).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Recorded>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests that are kept. A server that runs for long must not fill the memory with them.
const MAX_RECORDED: usize = 100_000;
