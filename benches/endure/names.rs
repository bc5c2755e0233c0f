//! A name server with one name.

use std::io;
use std::net::SocketAddr;

use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::server::Fault;
use meshlib_namerd::server::NamerdServer;

use crate::config::PATH;

/// A name server that knows [`PATH`].
#[derive(Debug)]
pub(crate) struct Names(NamerdServer);

impl Names {
    /// Starts it with these endpoints.
    pub(crate) async fn start(endpoints: impl IntoIterator<Item = SocketAddr>) -> io::Result<Self> {
        let names = Self(NamerdServer::bind("127.0.0.1:0").await?);
        names.set(endpoints)?;
        Ok(names)
    }

    /// What the program is configured with.
    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// Replaces all endpoints, whether it listens or not.
    pub(crate) fn set(&self, endpoints: impl IntoIterator<Item = SocketAddr>) -> io::Result<()> {
        let addr = Addr::bound(endpoints.into_iter().map(Address::new));
        self.0.set("default", PATH, addr).map_err(io::Error::other)
    }

    /// Closes its connections and refuses new ones.
    pub(crate) async fn stop(&self) {
        self.0.stop().await;
    }

    /// Listens again at the same port.
    pub(crate) async fn start_again(&self) -> io::Result<()> {
        self.0.start().await
    }

    /// Closes its connections, and accepts new ones without a word of answer.
    pub(crate) fn fall_silent(&self) -> io::Result<()> {
        self.0.fault("default", PATH, Fault::Hold).map_err(io::Error::other)?;
        self.0.reset_connections();
        Ok(())
    }

    /// Closes its connections, and answers all questions with 503.
    pub(crate) fn be_unavailable(&self) -> io::Result<()> {
        self.0.fault("default", PATH, Fault::Status(503)).map_err(io::Error::other)?;
        self.0.close_connections();
        Ok(())
    }

    /// Answers again.
    pub(crate) fn speak(&self) -> io::Result<()> {
        self.0.fault("default", PATH, None).map_err(io::Error::other)
    }

    /// How many watches are open.
    pub(crate) fn watches(&self) -> usize {
        self.0.watches()
    }
}
