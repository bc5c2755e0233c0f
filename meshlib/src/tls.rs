//! Encryption on either side of a connection.
//!
//! A [`TlsPolicy`] decides: for each endpoint how to speak to it, for each accepted connection whether to be its TLS
//! server, to pass its bytes on as they are, or to refuse it. [`TlsLayer`] carries the decisions out; it goes around a
//! connector or around the service of a server.
//!
//! | Start here | For |
//! |---|---|
//! | [`Always`] with a [`ClientTls`] | TLS to every endpoint |
//! | [`Terminate`] with a [`CertResolver`] | being the TLS server of every client |
//! | [`TlsPolicy`] | everything else: pass through by name, TLS where the endpoint has an identity, ... |
//! | [`pem`] | certificates and keys from files |
//! | [`Reloading`] | following the files |
//! | [`identity`] | whom to believe |
//! | `acme` | certificates from an ACME authority (feature `acme`) |
//!
//! The rustls that is used is [`rustls`]; its configurations are yours to build, or
//! [`server_config`] and [`client_config`] do.
//!
//! # Examples
//!
//! A policy that passes TLS for one name through and refuses the rest. The session has the name in lower case, the hello
//! as the client wrote it:
//!
//! ```
//! use std::time::Duration;
//! use meshlib::Session;
//! use meshlib::io::sniff::Sniffed;
//! use meshlib::tls::{AcceptTls, Hello, Inspect, TlsPolicy};
//!
//! struct OnlyDocs;
//!
//! impl TlsPolicy for OnlyDocs {
//!     fn inspect(&self, _: &Session) -> Inspect {
//!         Inspect::FirstBytes { within: Duration::from_secs(5) }
//!     }
//!
//!     fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
//!         match (&hello.protocol, hello.session.server_name.as_deref()) {
//!             (Sniffed::Tls { .. }, Some("docs.example")) => AcceptTls::Forward,
//!             _ => AcceptTls::Refuse,
//!         }
//!     }
//! }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::rustls::AlertDescription;
use ::rustls::ClientConfig;
use ::rustls::ServerConfig;
use ::rustls::pki_types::ServerName;
use futures::future::BoxFuture;
use tower::Layer;

use crate::io::sniff::Sniffed;
use crate::session::Session;
use crate::session::To;

mod accept;
#[cfg(feature = "acme")]
pub mod acme;
mod certs;
mod config;
mod connect;
mod date;
mod error;
mod fallback;
pub mod identity;
pub mod pem;
mod reload;

pub use ::rustls;
pub use certs::CertResolver;
pub use certs::CertResolverBuilder;
pub use config::client_config;
#[cfg(all(feature = "http", any(feature = "aws-lc-rs", feature = "ring")))]
pub use config::http_server_config;
#[cfg(feature = "native-roots")]
pub use config::native_roots;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use config::provider;
pub use config::server_config;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub use config::tickets;
pub use error::TlsError;
pub use reload::Reloading;

/// Decides how connections are encrypted.
///
/// Decisions are made at once, from what is at hand: certificates, trust and names are kept current by others.
pub trait TlsPolicy: Send + Sync + 'static {
    /// How to speak to this endpoint. Default: in plaintext.
    fn connect(&self, to: &To<Session>) -> ConnectTls {
        let _ = to;
        ConnectTls::Plaintext
    }

    /// What must be known about an accepted connection before [`accept`](Self::accept) is asked. Default: nothing.
    fn inspect(&self, session: &Session) -> Inspect {
        let _ = session;
        Inspect::Nothing
    }

    /// What to do with an accepted connection. Default: pass its bytes on as they are.
    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        let _ = hello;
        AcceptTls::Forward
    }
}

impl<P: TlsPolicy + ?Sized> TlsPolicy for Arc<P> {
    fn connect(&self, to: &To<Session>) -> ConnectTls {
        (**self).connect(to)
    }

    fn inspect(&self, session: &Session) -> Inspect {
        (**self).inspect(session)
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        (**self).accept(hello)
    }
}

/// How to speak to an endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectTls {
    /// As it is.
    Plaintext,
    /// In TLS or not at all.
    Required(ClientTls),
    /// In TLS if the endpoint can, else in plaintext.
    Opportunistic {
        /// How to be its client.
        tls: ClientTls,
        /// Which failures may lead to plaintext.
        fallback: Fallback,
        /// How long TLS may take before it counts as failed.
        within: Duration,
    },
    /// Not at all.
    Refuse,
}

/// Which failures of an opportunistic handshake may lead to plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fallback {
    /// Any.
    Any,
    /// Any, until TLS has once succeeded with this endpoint and name; from then on none.
    Sticky,
    /// Only that the endpoint does not speak TLS.
    NotTls,
}

/// What must be known about an accepted connection before it is decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspect {
    /// Nothing. Leaves protocols alone in which the server speaks first.
    Nothing,
    /// What the client's first bytes say. A client that says nothing within the time counts as unknown.
    FirstBytes {
        /// How long to wait for them.
        within: Duration,
    },
}

/// What to do with an accepted connection.
#[non_exhaustive]
pub enum AcceptTls {
    /// Be its TLS server.
    Terminate(Arc<ServerConfig>),
    /// Pass its bytes on as they are, be they TLS or not.
    Forward,
    /// Close it.
    Refuse,
    /// Close it with a fatal TLS alert that says why, for example `AlertDescription::UnrecognisedName`.
    Alert(AlertDescription),
    /// The answer must be fetched first. It comes under the handshake's deadline; a second `Later` counts as `Refuse`.
    Later(BoxFuture<'static, Self>),
}

impl fmt::Debug for AcceptTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminate(_) => f.write_str("Terminate"),
            Self::Forward => f.write_str("Forward"),
            Self::Refuse => f.write_str("Refuse"),
            Self::Alert(alert) => f.debug_tuple("Alert").field(alert).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// What is known of an accepted connection when it is decided on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Hello<'a> {
    /// The facts. The server name of the client's hello is among them already, in lower case, if the first bytes were
    /// asked for.
    pub session: &'a Session,
    /// What its first bytes say; [`Sniffed::Unknown`] if that was not [asked for](TlsPolicy::inspect).
    pub protocol: Sniffed<'a>,
}

impl<'a> Hello<'a> {
    /// Puts the parts together.
    pub fn new(session: &'a Session, protocol: Sniffed<'a>) -> Self {
        Self { session, protocol }
    }
}

/// How to be somebody's TLS client. [`client_config`] shows how to be one with a certificate.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientTls {
    /// Whom to trust, what to offer.
    pub config: Arc<ClientConfig>,
    /// The name to ask for and to find in the certificate. An IP address is looked for as such and not asked for.
    pub server_name: ServerName<'static>,
}

impl ClientTls {
    /// With a configuration of one's own.
    pub fn new(config: Arc<ClientConfig>, server_name: ServerName<'static>) -> Self {
        Self { config, server_name }
    }

    /// Trusts the operating system's certificate authorities.
    ///
    /// # Errors
    ///
    /// If the name is not one, or the system has no certificate authority that can be read.
    #[cfg(all(feature = "native-roots", any(feature = "aws-lc-rs", feature = "ring")))]
    pub fn from_native_roots(server_name: &str) -> Result<Self, TlsError> {
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::Name { name: server_name.to_owned() })?;
        let config = client_config(provider(), native_roots()?)?;
        Ok(Self::new(Arc::new(config), server_name))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Speaks TLS to every endpoint.
#[derive(Clone, Debug)]
pub struct Always {
    tls: ClientTls,
}

impl Always {
    /// With the same configuration and name for each.
    pub fn new(tls: ClientTls) -> Self {
        Self { tls }
    }
}

impl TlsPolicy for Always {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        ConnectTls::Required(self.tls.clone())
    }
}

/// Is the TLS server of every client.
///
/// Plaintext gets an alert. To choose by the client's hello, implement [`TlsPolicy::accept`].
#[derive(Clone)]
pub struct Terminate {
    config: Arc<ServerConfig>,
}

impl Terminate {
    /// With the same configuration for each.
    pub fn new(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self { config: config.into() }
    }
}

impl fmt::Debug for Terminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminate").finish_non_exhaustive()
    }
}

impl TlsPolicy for Terminate {
    fn accept(&self, _: &Hello<'_>) -> AcceptTls {
        AcceptTls::Terminate(Arc::clone(&self.config))
    }
}

/// One policy for the outbound side, another for the inbound side.
#[derive(Clone, Debug)]
pub struct Either<C, A> {
    connect: C,
    accept: A,
}

impl<C, A> Either<C, A> {
    /// Asks `connect` about endpoints and `accept` about accepted connections.
    pub fn new(connect: C, accept: A) -> Self {
        Self { connect, accept }
    }
}

impl<C: TlsPolicy, A: TlsPolicy> TlsPolicy for Either<C, A> {
    fn connect(&self, to: &To<Session>) -> ConnectTls {
        self.connect.connect(to)
    }

    fn inspect(&self, session: &Session) -> Inspect {
        self.accept.inspect(session)
    }

    fn accept(&self, hello: &Hello<'_>) -> AcceptTls {
        self.accept.accept(hello)
    }
}

/// Carries out a [`TlsPolicy`], around a connector or around a service of accepted connections.
#[derive(Clone)]
#[must_use = "layers do nothing unless applied"]
pub struct TlsLayer {
    policy: Arc<dyn TlsPolicy>,
    within: Duration,
    observer: Arc<dyn crate::observe::Observer>,
    memory: Arc<fallback::Memory>,
}

/// How long a handshake may take unless set: enough for one retransmitted flight on a slow path.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl TlsLayer {
    /// Carries out a policy; a handshake may take 10 s.
    pub fn new(policy: impl TlsPolicy) -> Self {
        Self { policy: Arc::new(policy), within: HANDSHAKE, observer: Arc::new(()), memory: Arc::default() }
    }

    /// Sets how long a handshake may take, the client's first bytes included. Default 10 s.
    pub fn handshake_within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Reports handshakes. Default: to nobody.
    pub fn observe(mut self, observer: Arc<dyn crate::observe::Observer>) -> Self {
        self.observer = observer;
        self
    }
}

impl fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLayer").field("within", &self.within).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for TlsLayer {
    type Service = Tls<S>;

    fn layer(&self, inner: S) -> Tls<S> {
        Tls { inner, layer: self.clone() }
    }
}

/// A service whose connections are encrypted as a policy says; made by [`TlsLayer`].
#[derive(Clone, Debug)]
pub struct Tls<S> {
    inner: S,
    layer: TlsLayer,
}

#[cfg(feature = "http")]
impl<S> Tls<S> {
    /// What decides.
    pub(crate) fn policy(&self) -> &dyn TlsPolicy {
        &*self.layer.policy
    }
}
