//! Everything a sample needs that outlives it: backends, certificates, a folder, the machine's limits.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use benches::limits;

use crate::backend::Backend;
use crate::host::{LOAD_CORE, PROXY_CORE, Policy};
use crate::peer::{Job, Kind, Peer};
use crate::procfs::Measured;
use crate::proxy::{self, Proxy};
use crate::tls::Identity;
use crate::workload::Profile;

/// The stage of one run.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The backend on the load core.
    pub(crate) backend: Backend,
    /// The same on the proxy's core, for "direct".
    pub(crate) direct: Backend,
    /// Certificates.
    pub(crate) identity: Arc<Identity>,
    /// Connections of the idle workloads.
    pub(crate) idle_connections: usize,
    descriptors: u64,
    dir: PathBuf,
}

/// What the load talks to in one sample.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where to connect.
    pub(crate) addr: SocketAddr,
    /// Whose processor time counts.
    pub(crate) measured: Measured,
    /// The proxy, unless there is none.
    pub(crate) proxy: Option<Proxy>,
}

/// Which server a proxy forwards to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The one that the workload wants.
    Right,
    /// One with a certificate that must be refused.
    Untrusted,
}

impl Stage {
    /// Makes certificates and starts the backends.
    pub(crate) fn set(idle_connections: usize) -> io::Result<Self> {
        let descriptors = limits::raise_descriptors();
        // Load and backend share this process and hold both ends; so does each proxy.
        let most = (descriptors.saturating_sub(SPARE_DESCRIPTORS) / 2) as usize;
        let dir = std::env::temp_dir().join(format!("compare-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let identity = Arc::new(Identity::create(&dir, "right")?);
        let untrusted = Identity::create(&dir, "other")?;
        Ok(Self {
            backend: Backend::start(LOAD_CORE, identity.server()?, untrusted.server()?)?,
            direct: Backend::start(PROXY_CORE, identity.server()?, untrusted.server()?)?,
            identity,
            idle_connections: idle_connections.min(most),
            descriptors,
            dir,
        })
    }

    /// The limit of descriptors.
    pub(crate) fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// The backend that serves `peer`.
    pub(crate) fn backend_of(&self, peer: &Peer) -> &Backend {
        if peer.kind == Kind::Direct { &self.direct } else { &self.backend }
    }

    /// Starts `peer` for `profile`.
    pub(crate) fn start(
        &self,
        peer: &Peer,
        profile: Profile,
        server: Server,
        policy: Policy,
    ) -> io::Result<Target> {
        if peer.kind == Kind::Direct {
            let addr = if profile.client_tls() { self.direct.tls } else { self.direct.plain };
            return Ok(Target { addr, measured: Measured::Thread(self.direct.tid), proxy: None });
        }
        let one = match (profile, server) {
            (Profile::Originate, Server::Right) => self.backend.tls,
            (Profile::Originate, Server::Untrusted) => self.backend.untrusted,
            _ => self.backend.plain,
        };
        let backends = if profile == Profile::Balance { self.backend.slow.clone() } else { vec![one] };
        let job = Job {
            profile,
            listen: proxy::free_addr()?,
            admin: proxy::free_addr()?,
            backends: &backends,
            identity: &self.identity,
            dir: &self.dir,
            descriptors: self.descriptors,
        };
        let proxy = Proxy::start(peer, &job, policy)?;
        let measured = Measured::Processes(proxy.pids()?);
        Ok(Target { addr: job.listen, measured, proxy: Some(proxy) })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Descriptors kept for listeners, logs and pipes.
const SPARE_DESCRIPTORS: u64 = 600;
