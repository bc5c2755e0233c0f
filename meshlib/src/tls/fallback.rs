//! What opportunistic handshakes have taught about endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::Instant;

use super::Fallback;
use super::TlsError;
use crate::endpoint::Endpoint;
use crate::endpoint::Metadata;

/// How long plaintext is used without trying TLS after a failure, doubled up to the second value.
const FORGET: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Most endpoints that are remembered; if more than this are in use all is learned anew.
const MOST: usize = 10_000;

/// Remembers endpoints by address and name, for as long as they come with the same metadata.
#[derive(Debug, Default)]
pub(super) struct Memory {
    lessons: Mutex<HashMap<(SocketAddr, ServerName<'static>), Lesson>>,
}

#[derive(Debug)]
struct Lesson {
    metadata: Weak<Metadata>,
    /// TLS has worked.
    spoke_tls: bool,
    failures: u32,
    plaintext_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    TryTls,
    Plaintext,
}

impl Memory {
    pub(super) fn plan(&self, endpoint: &Endpoint, name: &ServerName<'static>, fallback: Fallback) -> Plan {
        self.with(endpoint, name, |lesson| {
            let bound = fallback == Fallback::Sticky && lesson.spoke_tls;
            match lesson.plaintext_until {
                Some(until) if !bound && Instant::now() < until => Plan::Plaintext,
                _ => Plan::TryTls,
            }
        })
    }

    pub(super) fn succeeded(&self, endpoint: &Endpoint, name: &ServerName<'static>) {
        self.with(endpoint, name, |lesson| {
            lesson.spoke_tls = true;
            lesson.failures = 0;
            lesson.plaintext_until = None;
        });
    }

    /// Whether this failure may lead to plaintext, which is then used for a while.
    pub(super) fn failed(
        &self,
        endpoint: &Endpoint,
        name: &ServerName<'static>,
        fallback: Fallback,
        error: &TlsError,
    ) -> bool {
        self.with(endpoint, name, |lesson| {
            let allowed = match fallback {
                Fallback::Any => true,
                Fallback::Sticky => !lesson.spoke_tls,
                Fallback::NotTls => matches!(error, TlsError::NotTls),
            };
            if allowed {
                let pause = FORGET.0.saturating_mul(1_u32.checked_shl(lesson.failures).unwrap_or(u32::MAX));
                lesson.failures = lesson.failures.saturating_add(1);
                lesson.plaintext_until = Some(Instant::now() + pause.min(FORGET.1));
            }
            allowed
        })
    }

    fn with<T>(
        &self,
        endpoint: &Endpoint,
        name: &ServerName<'static>,
        f: impl FnOnce(&mut Lesson) -> T,
    ) -> T {
        let mut lessons = self.lessons.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.addr, name.clone());
        if lessons.len() >= MOST && !lessons.contains_key(&key) {
            lessons.retain(|_, lesson| lesson.metadata.strong_count() > 0);
            if lessons.len() >= MOST {
                lessons.clear();
            }
        }
        let fresh = || Lesson {
            metadata: Arc::downgrade(&endpoint.metadata),
            spoke_tls: false,
            failures: 0,
            plaintext_until: None,
        };
        let lesson = lessons.entry(key).or_insert_with(fresh);
        // Other metadata means another registration: what the one before did says nothing about it.
        if lesson.metadata.as_ptr() != Arc::as_ptr(&endpoint.metadata) {
            *lesson = fresh();
        }
        f(lesson)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (Memory, Endpoint, ServerName<'static>) {
        let endpoint = Endpoint::new(([127, 0, 0, 1], 1).into());
        (Memory::default(), endpoint, ServerName::try_from("web").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_remembered_for_a_while() {
        let (memory, endpoint, name) = setup();

        assert!(memory.failed(&endpoint, &name, Fallback::Any, &TlsError::Closed));
        assert_eq!(memory.plan(&endpoint, &name, Fallback::Any), Plan::Plaintext);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(memory.plan(&endpoint, &name, Fallback::Any), Plan::TryTls);

        assert!(memory.failed(&endpoint, &name, Fallback::Any, &TlsError::Closed));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(memory.plan(&endpoint, &name, Fallback::Any), Plan::Plaintext, "it doubles");

        let again = Endpoint::new(endpoint.addr);
        assert_eq!(memory.plan(&again, &name, Fallback::Any), Plan::TryTls, "another registration");
    }

    #[tokio::test]
    async fn success_binds_where_it_is_sticky() {
        let (memory, endpoint, name) = setup();

        memory.succeeded(&endpoint, &name);

        assert!(!memory.failed(&endpoint, &name, Fallback::Sticky, &TlsError::Closed));
        assert!(memory.failed(&endpoint, &name, Fallback::Any, &TlsError::Closed));
    }

    #[tokio::test]
    async fn not_tls_is_about_the_protocol_only() {
        let (memory, endpoint, name) = setup();

        assert!(!memory.failed(&endpoint, &name, Fallback::NotTls, &TlsError::Closed));
        assert!(memory.failed(&endpoint, &name, Fallback::NotTls, &TlsError::NotTls));
    }
}
