//! A backend that can die and come back at the same port.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib_namerd::api::Address;
use tokio::net::TcpSocket;

/// Says its name to everybody who connects and then sends back what it gets.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) weight: f64,
    /// `None` while it is dead.
    server: Option<Echo>,
    /// Bound and never listening: nobody else is given the port while the backend is dead.
    _reserved: TcpSocket,
}

/// What a backend says before its name.
pub(crate) const GREETING: &str = "hello from ";

impl Backend {
    pub(crate) async fn start(name: &'static str, weight: f64) -> io::Result<Self> {
        let reserved = TcpSocket::new_v4()?;
        // Both this socket and the listening one must agree to share the address.
        reserved.set_reuseaddr(true)?;
        reserved.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = reserved.local_addr()?;
        let mut backend = Self { name, addr, weight, server: None, _reserved: reserved };
        backend.revive().await?;
        Ok(backend)
    }

    /// Closes its port and all its connections.
    pub(crate) async fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Listens again. It has forgotten how many connections it had.
    pub(crate) async fn revive(&mut self) -> io::Result<()> {
        let options = EchoOptions::default().with_addr(self.addr);
        self.server = Some(options.with_greeting(format!("{GREETING}{}\n", self.name)).start().await?);
        Ok(())
    }

    /// How many connections it has accepted since it listens.
    pub(crate) fn accepted(&self) -> usize {
        self.server.as_ref().map_or(0, Echo::accepted)
    }

    /// What the name server says about it.
    pub(crate) fn address(&self) -> Address {
        Address::new(self.addr).with_weight(self.weight)
    }
}
