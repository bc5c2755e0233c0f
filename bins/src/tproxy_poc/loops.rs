//! Connections of the proxy to itself.
//!
//! Rules that are ours never bring a connection of the proxy back to it. Those of others may: then a client comes from the
//! very address and goes to the very place that a connection of the proxy has.

use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use meshlib::tproxy::is_local;

/// The proxy's listeners and, where the rules are not its own, its connections to servers.
#[derive(Debug)]
pub(super) struct Loops {
    listeners: Vec<SocketAddr>,
    live: Option<Arc<Live>>,
}

impl Loops {
    pub(super) fn new(listeners: Vec<SocketAddr>, rules_are_ours: bool) -> Self {
        Self { listeners, live: (!rules_are_ours).then(Arc::default) }
    }

    /// Whether going on to an address would reach the proxy itself.
    pub(super) fn is_self(&self, addr: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| {
            let ip = listener.ip();
            listener.port() == addr.port() && (ip == addr.ip() || ip.is_unspecified() && is_local(addr))
        })
    }

    /// Whether a client's connection is one of the proxy's own.
    pub(super) fn is_own(&self, peer: SocketAddr, dialled: SocketAddr) -> bool {
        self.live.as_ref().is_some_and(|live| live.contains(peer, dialled))
    }

    /// Remembers a connection to a server for as long as what is returned lives.
    pub(super) fn track(&self, local: SocketAddr, remote: SocketAddr) -> Option<Tracked> {
        let live = Arc::clone(self.live.as_ref()?);
        let key = live.key(local, remote);
        live.slot(key).store(key, Ordering::Relaxed);
        Some(Tracked { live, key })
    }
}

/// A connection that is remembered.
#[derive(Debug)]
pub(super) struct Tracked {
    live: Arc<Live>,
    key: u64,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // A later connection may have its place by now, and keeps it.
        let _ = self.live.slot(self.key).compare_exchange(self.key, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Connections by their hash, each in the one place that its hash has. Of two with one place the later is remembered:
/// a loop is found when it is young or not at all, and nothing else is ever taken for one. No lock, no growth.
///
/// The order of other memory does not matter: nothing is read because of what is found here.
#[derive(Debug)]
struct Live {
    places: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Live {
    fn default() -> Self {
        const PLACES: usize = 1 << 14;
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }
}

impl Live {
    fn contains(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let key = self.key(local, remote);
        self.slot(key).load(Ordering::Relaxed) == key
    }

    fn key(&self, local: SocketAddr, remote: SocketAddr) -> u64 {
        // Zero is an empty place.
        self.hasher.hash_one((local, remote)).max(1)
    }

    fn slot(&self, key: u64) -> &AtomicU64 {
        &self.places[key as usize % self.places.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_is_known_as_long_as_it_lives() {
        let loops = Loops::new(Vec::new(), false);
        let (client, server) = (addr("10.0.0.1:1"), addr("10.0.0.2:80"));

        let tracked = loops.track(client, server);

        assert!(loops.is_own(client, server));
        assert!(!loops.is_own(client, addr("10.0.0.2:81")));
        assert!(!loops.is_own(addr("10.0.0.1:2"), server));
        drop(tracked);
        assert!(!loops.is_own(client, server));
    }

    #[test]
    fn with_rules_of_ours_nothing_is_remembered() {
        let loops = Loops::new(Vec::new(), true);

        assert!(loops.track(addr("10.0.0.1:1"), addr("10.0.0.2:80")).is_none());
    }

    #[test]
    fn the_proxy_knows_its_own_addresses() {
        let any = Loops::new(vec![addr("0.0.0.0:5000")], true);
        let one = Loops::new(vec![addr("192.0.2.1:5000")], true);

        assert!(any.is_self(addr("127.0.0.1:5000")));
        assert!(!any.is_self(addr("127.0.0.1:5001")));
        assert!(!any.is_self(addr("192.0.2.1:5000")), "a server elsewhere may have the same port");
        assert!(one.is_self(addr("192.0.2.1:5000")));
        assert!(!one.is_self(addr("127.0.0.1:5000")));
    }
}
