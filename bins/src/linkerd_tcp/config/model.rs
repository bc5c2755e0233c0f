//! What a configuration says, whichever language it was written in.
//!
//! All values are checked; files are only named and not opened. Where a default is said to be absent (`None`),
//! nothing was configured and the program decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::kit::load::Place;
use crate::kit::load::fields::FileRef;

pub use super::client::Client;
pub use super::client::ClientRules;
pub use super::client::FailFast;
pub use super::client::LoadBalancer;
use super::path;

/// The two languages of the configuration file. They also decide the names of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Generation {
    /// Generation A, up to version 0.0.3: the file has `proxies`.
    Proxies,
    /// Generation B, from version 0.1.0: the file has `routers`.
    Routers,
}

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The language the file was written in.
    pub generation: Generation,
    /// The admin server.
    pub admin: Admin,
    /// Size of a transfer buffer in bytes, 1024 to 16 MiB. Default 65536: there is one per worker, and with the
    /// 8192 (A) or 16384 (B) of the original bulk transfers take twice the time.
    pub buffer_size: usize,
    /// Number of worker threads, at least 1. Default absent: one for each processor.
    pub workers: Option<usize>,
    /// The routers, each with its own servers and its own resolver. May be empty.
    pub routers: Vec<Router>,
    /// The whole file.
    pub place: Place,
}

/// The admin server of the process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Admin {
    /// Where it listens. Default `0.0.0.0:9989` (A) or `127.0.0.1:9989` (B). Port 0 is any free port.
    pub addr: SocketAddr,
    /// Window of minima, maxima and percentiles. Default 10 s (A) or 60 s (B).
    pub metrics_interval: Duration,
    /// How long live streams may go on after a shutdown was asked for. Default 10 s.
    pub grace: Duration,
    /// Whether the file gives the address (A: `addr`, B: `ip` or `port`) instead of leaving it to the default.
    pub explicit_addr: bool,
    /// Where the file gives the address, or the admin section, if it does.
    pub place: Option<Place>,
}

impl Config {
    /// One line about what it makes.
    pub fn summary(&self) -> String {
        let servers: usize = self.routers.iter().map(|router| router.servers.len()).sum();
        let kind = match self.generation {
            Generation::Proxies => plural(self.routers.len() as u64, "proxy", "proxies"),
            Generation::Routers => plural(self.routers.len() as u64, "router", "routers"),
        };
        format!("{kind}, {}", plural(servers as u64, "server", "servers"))
    }

    /// Serves admin requests elsewhere than the file says. Whoever says so has chosen the address as if it were in the
    /// file.
    ///
    /// # Errors
    ///
    /// If a server of the file listens there.
    pub fn move_admin(&mut self, addr: SocketAddr) -> Result<(), String> {
        let mut servers = self.routers.iter().flat_map(|router| &router.servers);
        if addr.port() != 0 && servers.any(|server| server.addr == addr) {
            return Err(format!("--admin {addr} is the address of a server"));
        }
        let admin = &mut self.admin;
        (admin.addr, admin.explicit_addr, admin.place) = (addr, true, None);
        Ok(())
    }
}

/// A number of things.
pub(in super::super) fn plural(n: impl Into<u64>, one: &str, many: &str) -> String {
    let n = n.into();
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Servers that share a resolver and the settings of their clients: a proxy (A) or a router (B).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Router {
    /// Name in metrics and logs, unique in the file. In A absent labels become `default`, `default-2` and so on.
    pub label: String,
    /// The listening sockets. May be empty.
    pub servers: Vec<Server>,
    /// Where endpoints come from.
    pub resolver: ResolverConfig,
    /// How to connect to endpoints.
    pub client: ClientRules,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Server {
    /// The address to listen on. Port 0 is any free port. B: the default IP is `127.0.0.1`.
    pub addr: SocketAddr,
    /// The path whose endpoints serve the connections, such as `/svc/web`. It may contain `{sni}` if `tls` is set.
    pub dst: String,
    /// TLS towards clients. Default absent: plain TCP.
    pub tls: Option<ServerTls>,
    /// From accept to both sides ready (`connectTimeoutMs`). Default absent.
    pub connect_timeout: Option<Duration>,
    /// Hard limit of the streaming phase (`connectionLifetimeSecs`). Default absent: no limit.
    pub connection_lifetime: Option<Duration>,
    /// How much longer than that a stream may last at most, drawn for each (`connectionLifetimeJitterSecs`). Default 0.
    pub lifetime_jitter: Duration,
    /// Live connections at which accepting stops (`maxConcurrency`), at least 1. Default absent (A: no limit) or
    /// 100000 (B).
    pub max_connections: Option<usize>,
    /// How long neither side may send before a stream is closed (`idleTimeoutMs`). Default absent: no limit.
    pub idle_timeout: Option<Duration>,
    /// How long the TLS handshake of a client may take (`handshakeTimeoutMs`). Default 10 s.
    pub handshake_timeout: Duration,
    /// How long one direction may go on alone after the other ended (`halfCloseTimeoutMs`). Default absent: no
    /// limit.
    pub half_close_timeout: Option<Duration>,
    /// Where the file gives the address.
    pub place: Place,
}

impl Server {
    /// Whether the destination depends on the server name of the client's TLS handshake.
    pub fn is_routed_by_sni(&self) -> bool {
        self.dst.contains(path::SNI)
    }
}

/// TLS towards clients. There is always at least one identity.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerTls {
    /// Protocols in order of preference (`alpnProtocols`). Default none.
    pub alpn: Vec<String>,
    /// The identity for unknown and absent server names. Default absent: such handshakes fail.
    pub default_identity: Option<Identity>,
    /// Identities by server name in lower case; `*.` may stand for the first label. Each name occurs once.
    pub identities: Vec<(String, Identity)>,
    /// Certificates asked of clients. Default absent: none.
    pub client_auth: Option<ClientAuth>,
    /// Where the file asks for TLS.
    pub place: Place,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// PEM files that form the chain in this order, leaf first. At least one.
    pub certs: Vec<FileRef>,
    /// PEM file with exactly one key.
    pub private_key: FileRef,
}

/// Which certificates clients may present.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientAuth {
    /// PEM files whose certificates are trusted to sign those of clients. At least one.
    pub trust_certs: Vec<FileRef>,
    /// Whether a client without certificate is refused. Default true.
    pub required: bool,
}

/// TLS towards endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTls {
    /// The DNS name or IP address that the certificate of an endpoint must carry, without trailing dot.
    pub dns_name: String,
    /// PEM files whose certificates are trusted, at least one. Default absent: the roots of the operating system.
    pub trust_certs: Option<Vec<FileRef>>,
    /// The identity to present to endpoints (`clientAuth`). Default absent.
    pub client_auth: Option<Identity>,
    /// Protocols to offer. Default none: no offer.
    pub alpn: Vec<String>,
    /// The oldest version of TLS to accept. Default 1.2.
    pub min_version: TlsVersion,
    /// Where the file asks for TLS.
    pub place: Place,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, the default.
    #[default]
    V12,
    /// TLS 1.3.
    V13,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each router, and a box would be in everybody's way"
)]
pub enum ResolverConfig {
    /// From namerd (A: `namerd`, B: `io.l5d.namerd.http`).
    Namerd(Namerd),
    /// From the file itself (B: `io.l5d.static`): the endpoints of each path.
    Static(BTreeMap<String, Vec<StaticEndpoint>>),
}

/// How to ask namerd.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Namerd {
    /// The URL in front of `/api/1/..`: `http` or `https`, host, perhaps a port and a path; no trailing `/`.
    pub base_url: String,
    /// The dtab namespace. Default `default`.
    pub namespace: String,
    /// Time between two polls, at least 1 s. Default 60 s (A) or 20 s (B).
    pub period: Duration,
    /// Whether to watch for changes between polls. Default [`Watch::Auto`].
    pub watch: Watch,
    /// How long an answer may take. Default absent: see [`Namerd::patience`].
    pub request_timeout: Option<Duration>,
    /// TLS towards namerd. Default absent; with an `https` URL the name is the host of the URL and the roots are
    /// those of the operating system.
    pub tls: Option<ResolverTls>,
    /// Which calls resolve a name. Default [`ResolveMode::Resolve`].
    pub mode: ResolveMode,
    /// Where the file gives the address.
    pub place: Place,
}

impl Namerd {
    /// How long an answer may take: [`Namerd::request_timeout`], else 10 s or `period`, whichever is longer.
    pub fn patience(&self) -> Duration {
        self.request_timeout.unwrap_or_else(|| self.period.max(Duration::from_secs(10)))
    }
}

/// TLS towards namerd. The URL is always `https` then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolverTls {
    /// The name that the certificate of namerd must carry. Default absent: the host of the URL.
    pub dns_name: Option<String>,
    /// PEM files whose certificates are trusted, at least one. Default absent: the roots of the operating system.
    pub trust_certs: Option<Vec<FileRef>>,
    /// The identity to present. Default absent.
    pub client_auth: Option<Identity>,
    /// The oldest version of TLS to accept. Default 1.2.
    pub min_version: TlsVersion,
}

/// Whether to keep a watch open beside the polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watch {
    /// As long as namerd supports it; the default.
    #[default]
    Auto,
    /// Reopened whatever namerd answers.
    Always,
    /// Only poll.
    Never,
}

/// Which calls of namerd resolve a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResolveMode {
    /// `resolve`: namerd flattens the name tree; the default.
    #[default]
    Resolve,
    /// `bind` and `addr`: weights and alternatives of the name tree are applied for each connection.
    Bind,
}

/// An endpoint written in the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StaticEndpoint {
    /// Its address; the port is not 0.
    pub addr: SocketAddr,
    /// Its share relative to others: finite, not negative. Default 1.0.
    pub weight: f64,
}
