//! Connections to one address of Consul.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::uri::Authority;
use http::uri::Scheme;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Resolver;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::To;
use meshlib::Update;
use meshlib::connect::SocketOptions;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib::io::Transport;
use meshlib::resolve::Dns;
use meshlib::tls::TlsPolicy;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::UnixStream;
use tower::Layer;
use tower::ServiceExt;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::config::Config;
use crate::config::ConfigError;

/// Silence after which the kernel asks whether an agent still lives.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that are not acknowledged for so long break a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// An address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// For people, and for the `Host` header.
    pub(crate) authority: Arc<str>,
    /// In front of Consul's own paths; without a slash at its end.
    pub(crate) prefix: String,
    pub(crate) place: Place,
    pub(crate) secure: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host(String, u16),
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.contains('@') {
            return Err(ConfigError::User);
        }
        let invalid = || ConfigError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(invalid());
            }
            let place = Place::Unix(path.into());
            return Ok(Self { authority: text.into(), prefix: String::new(), place, secure: false });
        }
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(invalid()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let authority = uri.authority().map(Authority::as_str).ok_or_else(invalid)?;
        let port = match uri.port_u16() {
            Some(port) => port,
            None if authority.len() > host.len() => return Err(invalid()),
            None if secure => 8501,
            None => 8500,
        };
        if uri.query().is_some() {
            return Err(invalid());
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            authority: format!("{host}:{port}").into(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            place: Place::Host(bare.to_owned(), port),
            secure,
        })
    }

    /// The value of the `Host` header.
    pub(crate) fn host(&self) -> Result<HeaderValue, ConfigError> {
        let host = match self.place {
            Place::Host(..) => &*self.authority,
            Place::Unix(_) => "localhost",
        };
        HeaderValue::from_str(host).map_err(|_| ConfigError::Address(self.authority.to_string()))
    }

    /// What stands for the place where an address must be an IP address.
    fn endpoint(&self) -> SocketAddr {
        match &self.place {
            Place::Host(host, port) => {
                SocketAddr::new(host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), *port)
            }
            Place::Unix(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// Sends requests to one address, over connections that are kept.
#[derive(Clone)]
pub(crate) struct Wire {
    service: BoxCloneSyncService<To<Request<Body>>, Response<Body>, Error>,
    endpoint: Endpoint,
}

impl Wire {
    pub(crate) fn new(address: &Address, config: &Config, tls: Option<Arc<dyn TlsPolicy>>) -> Self {
        let layer = ClientLayer::new();
        let layer = match tls {
            Some(tls) => layer.tls(tls),
            None => layer,
        };
        let limit = TimeoutLayer::connect(config.connect_timeout);
        let service = match &address.place {
            Place::Unix(path) => {
                let path: Arc<std::path::Path> = path.as_path().into();
                let connector = service_fn(move |to: To<Session>| unix(Arc::clone(&path), to));
                BoxCloneSyncService::new(layer.layer(limit.layer(connector)))
            }
            Place::Host(host, port) => {
                let name: Arc<str> = match host.parse::<IpAddr>() {
                    Ok(ip) => SocketAddr::new(ip, *port).to_string().into(),
                    Err(_) => format!("{host}:{port}").into(),
                };
                let options = SocketOptions::default()
                    .with_keepalive(Some(KEEPALIVE))
                    .with_user_timeout(Some(USER_TIMEOUT));
                let (tcp, dns) = (TcpConnector::new(options), config.dns.clone());
                let connector = service_fn(move |to: To<Session>| {
                    connect(tcp.clone(), dns.clone(), Arc::clone(&name), to.request)
                });
                BoxCloneSyncService::new(layer.layer(limit.layer(connector)))
            }
        };
        Self { service, endpoint: Endpoint::new(address.endpoint()) }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        self.service.clone().oneshot(To::new(self.endpoint.clone(), request)).await
    }
}

/// Connects to the first address of a host that takes the connection.
async fn connect(tcp: TcpConnector, dns: Dns, name: Arc<str>, session: Session) -> Result<Io, Error> {
    let endpoints = match name.parse::<SocketAddr>() {
        Ok(addr) => vec![Endpoint::new(addr)],
        Err(_) => match dns.resolve(Arc::clone(&name)).next().await {
            Some(Ok(Update::Endpoints(endpoints))) => endpoints.to_vec(),
            Some(Err(source)) => return Err(Error::Resolve { name, source: Box::new(source) }),
            _ => Vec::new(),
        },
    };
    let mut last = Error::Unavailable { name, reason: meshlib::Unavailable::Empty };
    for endpoint in endpoints {
        match tcp.clone().oneshot(To::new(endpoint, session.clone())).await {
            Ok(io) => return Ok(io),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn unix(path: Arc<std::path::Path>, to: To<Session>) -> Result<Io, Error> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| Error::Connect { addr: to.endpoint.addr, source })?;
    Ok(Io::new(Unix(stream)))
}

/// A connection through a socket in the file system.
struct Unix(UnixStream);

impl Transport for Unix {}

impl AsyncRead for Unix {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unix {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::parse("https://[::1]:8501/consul/").unwrap();
        assert_eq!(&*address.authority, "[::1]:8501");
        assert_eq!((address.prefix.as_str(), address.secure), ("/consul", true));
        assert_eq!(address.place, Place::Host("::1".into(), 8501));
        assert_eq!(Address::parse("http://consul").unwrap().place, Place::Host("consul".into(), 8500));
        assert_eq!(Address::parse("unix:///run/c.sock").unwrap().place, Place::Unix("/run/c.sock".into()));
        for bad in ["consul:8500", "ftp://consul", "http://consul:x", "unix://run", "http://c/?a=b", ""] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_with_a_user_is_refused_without_its_password() {
        let error = Address::parse("http://user:secret@consul").unwrap_err();

        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
