//! The Consul agent that tells our HTTPS edge where the servers are, and holds its certificate.

use std::io;
use std::net::SocketAddr;

use meshlib::test_util::{Consul, ConsulOptions};
use serde_json::json;
use tokio::runtime::{self, Runtime};

use crate::tls::{Identity, NAME};

/// A running agent, on the load core like all that is not measured.
#[derive(Debug)]
pub(crate) struct Catalog {
    consul: Consul,
    runtime: Runtime,
}

impl Catalog {
    /// Starts an agent of its own and stores the certificate.
    pub(crate) fn start(identity: &Identity) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let consul = runtime.block_on(Consul::start(ConsulOptions::default())).map_err(io::Error::other)?;
        let certificate = json!({
            "hostname": NAME,
            // Far from the half of its life, at which it would be renewed.
            "date": "2026-01-01",
            "valid_days": 36_500,
            "cert_pem": std::fs::read_to_string(&identity.cert_file)?,
            "key_pem": std::fs::read_to_string(&identity.key_file)?,
        });
        runtime.block_on(consul.put(&format!("/v1/kv/tricot/certs/{NAME}"), &certificate.to_string()));
        Ok(Self { consul, runtime })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.consul.addr()
    }

    /// Makes `servers` the only ones of [`NAME`].
    pub(crate) fn publish(&self, servers: &[SocketAddr]) {
        self.runtime.block_on(async {
            self.consul.deregister(&json!({"Node": NODE}).to_string()).await;
            for (place, server) in servers.iter().enumerate() {
                let tags = [&*format!("tricot {NAME}")];
                self.consul.service(NODE, "web", &format!("web-{place}"), server.port(), &tags).await;
            }
        });
    }
}

/// The node of the servers.
const NODE: &str = "servers";
