//! A server that answers like namerd, out of fixed tables.
//!
//! It is for tests, demonstrations and programs that want to direct clients of namerd without one: `resolve`, `bind`
//! and `addr` with and without watch, and dtabs that can be read and written. Of the dtab language it knows plain
//! prefixes: `/svc => /other;` lets `/svc/web` be what `/other/web` is set to, later entries first.
//!
//! It answers as the original does, also where that is unkind: a request without `path` gets 500, and one for a pending
//! name gets no answer until there is one. Beyond that it can misbehave on demand, see [`Fault`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use meshlib_namerd::api::{Addr, Address};
//! use meshlib_namerd::server::{Fault, NamerdServer};
//!
//! let namerd = NamerdServer::bind("127.0.0.1:0").await?;
//! let canary = Address::new("127.0.0.1:8082".parse()?).with_weight(0.1);
//! namerd.set("default", "/svc/web", Addr::bound([Address::new("127.0.0.1:8081".parse()?), canary]))?;
//! println!("curl '{}/api/1/resolve/default?path=/svc/web&watch=true'", namerd.url());
//!
//! // Every watch sees the change; the next two requests are refused.
//! namerd.set("default", "/svc/web", Addr::Neg)?;
//! namerd.fault_next(2, Fault::Status(503));
//! # Ok(())
//! # }
//! ```

mod connection;
mod dtab;
mod dtabs;
mod fault;
mod lines;
mod naming;
mod record;
mod routes;
mod shared;
mod tables;
mod wire;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use meshlib::Drain;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Server;
use meshlib::dtab::path::ParseError;
use meshlib::dtab::path::Path;
use tokio::net::TcpSocket;
use tokio::net::ToSocketAddrs;
use tokio::net::lookup_host;
use tokio::task::JoinHandle;

use shared::Shared;

pub use dtab::DtabError;
pub use fault::Fault;
pub use fault::Step;
pub use record::Recorded;
pub use tables::Name;

/// A namerd whose names are set by its owner. Dropping it closes its connections.
///
/// Its tables live as long as it does, whether it listens or not. Names, dtabs and faults are set at once, and open
/// watches follow; one that is slower than the changes gets the latest and not all of them.
pub struct NamerdServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    running: Mutex<Option<Running>>,
    /// Bound and not listening, so that the port is not given to others while the server is stopped.
    reserved: Mutex<Option<TcpSocket>>,
}

struct Running {
    drain: Drain,
    task: JoinHandle<()>,
}

impl NamerdServer {
    /// Listens at the first of the addresses that can be had; port 0 is any free one. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let server = Self::reserve(addr).await?;
        server.start().await?;
        Ok(server)
    }

    /// Takes an address without listening, so that connections are refused until [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub async fn reserve(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in lookup_host(addr).await? {
            let reserved = match reserve(addr) {
                Ok(reserved) => reserved,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            return Ok(Self {
                shared: Arc::new(Shared::new()),
                addr: reserved.local_addr()?,
                running: Mutex::new(None),
                reserved: Mutex::new(Some(reserved)),
            });
        }
        Err(last)
    }

    /// Begins to listen. Nothing happens if it does already.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub async fn start(&self) -> io::Result<()> {
        if self.running().is_some() {
            return Ok(());
        }
        if !cfg!(target_os = "linux") {
            // Elsewhere no two sockets may have the address, even if only one of them listens.
            self.reserved.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let listener = Listener::bind(self.addr, &ListenOptions::default()).await?;
        let drain = Drain::new();
        let serve = Server::from_listener(listener).serve(connection::service(&self.shared), drain.clone());
        // Ends with the drain, which `stop` and dropping the server force.
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "namerd's listening socket broke");
            }
        });
        *self.running() = Some(Running { drain, task });
        Ok(())
    }

    /// Closes all connections and stops listening, until [`start`](Self::start). Names, dtabs and faults stay.
    ///
    /// On Linux the port stays taken meanwhile; elsewhere another process may get it.
    pub async fn stop(&self) {
        let running = self.running().take();
        if let Some(Running { drain, task }) = running {
            drain.force();
            // It ends without a result, and a panic in it was reported by the runtime.
            let _ = task.await;
        }
    }

    /// Closes all connections and listens again on the same port.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        self.start().await
    }

    /// Where it listens, or will.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What clients are configured with: `http://127.0.0.1:4180`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Sets what a path is in a namespace: addresses, a tree, or a namer that throws.
    ///
    /// A path that is an id (`/#/io.l5d.fs/web`) gives all leaves of that id in the namespace their addresses.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the path is none.
    pub fn set(&self, namespace: &str, path: &str, name: impl Into<Name>) -> Result<(), ParseError> {
        let path = Path::parse(path)?;
        let name = name.into();
        self.shared.change(|tables| tables.set_name(namespace, path, Some(name)));
        Ok(())
    }

    /// Forgets a path, so that it no longer binds.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the path is none.
    pub fn remove(&self, namespace: &str, path: &str) -> Result<(), ParseError> {
        let path = Path::parse(path)?;
        self.shared.change(|tables| tables.set_name(namespace, path, None));
        Ok(())
    }

    /// Creates or replaces a namespace's dtab, as a PUT does.
    ///
    /// # Errors
    ///
    /// [`DtabError`] if the text is no list of `/prefix => /path;`.
    pub fn set_dtab(&self, namespace: &str, text: &str) -> Result<(), DtabError> {
        let entries = dtab::parse(text)?;
        self.shared.change(|tables| tables.dtabs_mut().put(namespace, entries));
        Ok(())
    }

    /// Deletes a namespace's dtab. False if there is none.
    pub fn remove_dtab(&self, namespace: &str) -> bool {
        self.shared.change(|tables| tables.dtabs_mut().delete(namespace))
    }

    /// A namespace's dtab in printed form.
    pub fn dtab(&self, namespace: &str) -> Option<String> {
        self.shared.read(|tables| {
            let (entries, _) = tables.dtabs().get(namespace)?;
            Some(dtab::print(entries))
        })
    }

    /// Misbehaves for all requests that name a path, until it is told otherwise with `None`.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the path is none.
    pub fn fault(
        &self,
        namespace: &str,
        path: &str,
        fault: impl Into<Option<Fault>>,
    ) -> Result<(), ParseError> {
        let path = Path::parse(path)?;
        let fault = fault.into();
        self.shared.change(|tables| tables.faults().set(namespace, path, fault));
        Ok(())
    }

    /// Misbehaves for the next requests of any path, before anything set by [`fault`](Self::fault). Several calls queue.
    pub fn fault_next(&self, requests: usize, fault: Fault) {
        self.shared.change(|tables| tables.faults().push(requests, fault));
    }

    /// The latest requests, oldest first, at most 100,000.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log().requests()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.log().clear();
    }

    /// Waits until so many requests have come since the start or [`clear_requests`](Self::clear_requests).
    pub async fn requested(&self, requests: usize) {
        self.shared.log().reached(requests).await;
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.shared.watches()
    }

    /// Closes all connections, whatever they are doing, and goes on listening.
    pub fn close_connections(&self) {
        self.shared.cut(wire::Cut::Close);
    }

    /// Resets all connections, whatever they are doing, and goes on listening.
    pub fn reset_connections(&self) {
        self.shared.cut(wire::Cut::Reset);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NamerdServer {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            running.drain.force();
        }
    }
}

impl fmt::Debug for NamerdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamerdServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

fn reserve(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Both this socket and the listening one must agree to share the address.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}
