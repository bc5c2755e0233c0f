//! A network in memory, for counts in the thousands and for stopped clocks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use meshlib::Error;
use meshlib::Io;
use meshlib::Session;
use meshlib::To;
use meshlib::connect::BoxConnector;

/// Connects to anything at once and remembers where to.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    picked: Arc<Mutex<Vec<SocketAddr>>>,
    open: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn connector(&self) -> BoxConnector {
        let this = self.clone();
        BoxConnector::new(tower::service_fn(move |to: To<Session>| {
            this.picked.lock().unwrap().push(to.endpoint.addr);
            this.open.fetch_add(1, Ordering::SeqCst);
            let mut io = Io::new(tokio::io::duplex(16).0);
            io.hold(Open(Arc::clone(&this.open)));
            async { Ok::<_, Error>(io) }
        }))
    }

    /// How many connections went to an address.
    pub(crate) fn count(&self, addr: SocketAddr) -> usize {
        self.picked.lock().unwrap().iter().filter(|picked| **picked == addr).count()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The address of an endpoint that exists in memory only.
pub(crate) fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}
