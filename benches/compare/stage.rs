//! Everything a sample needs that outlives it: backends, certificates, a folder, the machine's limits.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use benches::limits;
use tokio::runtime;
use tokio::time::{Duration, Instant, timeout_at};

use crate::backend::Backend;
use crate::catalog::Catalog;
use crate::host::{LOAD_CORE, PROXY_CORE, Policy};
use crate::load;
use crate::peer::{Job, Kind, Peer};
use crate::procfs::Measured;
use crate::proxy::{self, Proxy};
use crate::talk::Conversation;
use crate::tls::{Identity, Sessions};
use crate::wire::MESSAGE;
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
    catalog: OnceCell<Catalog>,
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
            catalog: OnceCell::new(),
            descriptors,
            dir,
        })
    }

    /// Consul, started when first wanted.
    fn catalog(&self) -> io::Result<&Catalog> {
        if let Some(catalog) = self.catalog.get() {
            return Ok(catalog);
        }
        let catalog = Catalog::start(&self.identity)?;
        Ok(self.catalog.get_or_init(|| catalog))
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
            let addr = match (profile.is_http(), profile.client_tls()) {
                (false, false) => self.direct.plain,
                (false, true) => self.direct.tls,
                (true, false) => self.direct.http,
                (true, true) => self.direct.https,
            };
            return Ok(Target { addr, measured: Measured::Thread(self.direct.tid), proxy: None });
        }
        let backends = match (profile, server) {
            (Profile::Originate, Server::Right) => vec![self.backend.tls],
            (Profile::Originate, Server::Untrusted) => vec![self.backend.untrusted],
            (Profile::Tcp | Profile::Terminate, _) => vec![self.backend.plain],
            (Profile::Balance, _) => self.backend.slow.clone(),
            (Profile::Http | Profile::Https, _) => vec![self.backend.http],
            (Profile::HttpsBalance, _) => self.backend.slow_http.clone(),
        };
        let catalog = if peer.wants_catalog(profile) {
            let catalog = self.catalog()?;
            catalog.publish(&backends);
            Some(catalog.addr())
        } else {
            None
        };
        let job = Job {
            profile,
            listen: proxy::free_addr()?,
            admin: proxy::free_addr()?,
            backends: &backends,
            catalog,
            identity: &self.identity,
            dir: &self.dir,
            descriptors: self.descriptors,
        };
        let proxy = Proxy::start(peer, &job, policy)?;
        if profile.is_http() {
            self.wait_for_answers(&job, &proxy)?;
        }
        let measured = Measured::Processes(proxy.pids()?);
        Ok(Target { addr: job.listen, measured, proxy: Some(proxy) })
    }
}

impl Stage {
    /// Waits until a proxy that listens also knows its servers.
    fn wait_for_answers(&self, job: &Job<'_>, proxy: &Proxy) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = job.profile.client_tls().then(|| self.identity.client(Sessions::Forget)).transpose()?;
        let ask = async || {
            let wire = load::connect(job.listen, tls.as_ref()).await?;
            Conversation::new(wire, job.profile.talk(MESSAGE)).ask().await
        };
        runtime.block_on(async {
            let deadline = Instant::now() + ANSWERS_WITHIN;
            loop {
                let Err(error) = timeout_at(deadline, ask()).await? else {
                    return Ok(());
                };
                if Instant::now() > deadline {
                    return Err(io::Error::other(format!("no answer: {error}; {}", proxy.last_words())));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Descriptors kept for listeners, logs and pipes.
const SPARE_DESCRIPTORS: u64 = 600;
/// How long a proxy may take from listening to its first answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
