//! The addresses of a host name.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use tokio::time;

use super::Resolution;
use super::ResolveError;
use super::Resolver;
use super::Update;
use crate::backoff::Backoff;
use crate::endpoint::Endpoint;

/// Pause after the first failed look-up; it doubles up to the interval between good ones.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Resolves `host:port` to the addresses of the host, again and again.
///
/// A failed look-up keeps what was found before. So does a host that does not exist, which the system's resolver does not
/// tell from a failure: put a limit on how long callers wait.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use meshlib::resolve::{Dns, Resolver};
///
/// let resolution = Dns::every(Duration::from_secs(30)).resolve("db.example:5432");
/// # drop(resolution);
/// ```
#[derive(Clone)]
pub struct Dns {
    lookup: Arc<dyn Lookup>,
}

/// One way to ask.
trait Lookup: Send + Sync {
    /// The addresses, and how long until they should be asked for again.
    fn lookup(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<(Vec<SocketAddr>, Duration)>>;
    /// The longest pause after failures.
    fn longest(&self) -> Duration;
}

impl Dns {
    /// Asks the operating system, at the given interval (at least 100 ms).
    pub fn every(interval: Duration) -> Self {
        Self { lookup: Arc::new(System { interval: interval.max(FIRST_RETRY) }) }
    }

    /// Asks the name servers of `/etc/resolv.conf` directly, again when the answer's time to live has passed (at least
    /// 1 s, at most `longest`).
    ///
    /// # Errors
    ///
    /// If the system's configuration cannot be read.
    #[cfg(feature = "dns")]
    pub fn by_ttl(longest: Duration) -> io::Result<Self> {
        Ok(Self { lookup: Arc::new(ttl::Hickory::new(longest)?) })
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

impl<T: AsRef<str>> Resolver<T> for Dns {
    fn resolve(&self, target: T) -> Resolution {
        let name: Arc<str> = target.as_ref().into();
        let Some((host, port)) = split(&name) else {
            return Resolution::new(stream::iter([Err(ResolveError::Name { name })]));
        };
        let state = State {
            lookup: Arc::clone(&self.lookup),
            host: host.into(),
            port,
            pause: Duration::ZERO,
            backoff: Backoff::new(FIRST_RETRY, self.lookup.longest()),
        };
        Resolution::new(stream::unfold(state, |mut state| async move {
            time::sleep(state.pause).await;
            let item = state.ask().await;
            Some((item, state))
        }))
    }
}

struct State {
    lookup: Arc<dyn Lookup>,
    host: Arc<str>,
    port: u16,
    pause: Duration,
    backoff: Backoff,
}

impl State {
    async fn ask(&mut self) -> Result<Update, ResolveError> {
        match self.lookup.lookup(&self.host, self.port).await {
            Ok((addrs, again)) => {
                self.backoff.reset();
                self.pause = again;
                // Sorted and without repetitions, so that equal answers are equal updates.
                let addrs: BTreeSet<_> = addrs.into_iter().collect();
                Ok(Update::endpoints(addrs.into_iter().map(Endpoint::new)))
            }
            Err(error) => {
                self.pause = self.backoff.next_delay();
                Err(ResolveError::unreachable(format!("for {}", self.host), error))
            }
        }
    }
}

/// `host:port`, `1.2.3.4:port` or `[v6]:port`.
fn split(name: &str) -> Option<(&str, u16)> {
    let (host, port) = name.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(host).zip(port.parse().ok())
}

struct System {
    interval: Duration,
}

impl Lookup for System {
    fn lookup(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<(Vec<SocketAddr>, Duration)>> {
        let (host, interval) = (host.to_owned(), self.interval);
        Box::pin(async move { Ok((tokio::net::lookup_host((host, port)).await?.collect(), interval)) })
    }

    fn longest(&self) -> Duration {
        self.interval
    }
}

#[cfg(feature = "dns")]
mod ttl {
    use hickory_resolver::TokioResolver;
    use tokio::time::Instant;

    use super::*;

    /// A record that says "do not keep me" is still kept this long.
    const SHORTEST: Duration = Duration::from_secs(1);

    pub(super) struct Hickory {
        resolver: TokioResolver,
        longest: Duration,
    }

    impl Hickory {
        pub(super) fn new(longest: Duration) -> io::Result<Self> {
            let mut builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
            // The stream of updates is the cache.
            builder.options_mut().cache_size = 0;
            Ok(Self { resolver: builder.build().map_err(io::Error::other)?, longest: longest.max(SHORTEST) })
        }
    }

    impl Lookup for Hickory {
        fn lookup(
            &self,
            host: &str,
            port: u16,
        ) -> BoxFuture<'static, io::Result<(Vec<SocketAddr>, Duration)>> {
            let (resolver, host, longest) = (self.resolver.clone(), host.to_owned(), self.longest);
            Box::pin(async move {
                let answer = match resolver.lookup_ip(host).await {
                    Ok(answer) => answer,
                    Err(error) if error.is_no_records_found() => return Ok((Vec::new(), longest)),
                    Err(error) => return Err(io::Error::other(error)),
                };
                let until = Instant::from_std(answer.valid_until());
                let again = until.saturating_duration_since(Instant::now()).clamp(SHORTEST, longest);
                Ok((answer.iter().map(|ip| SocketAddr::new(ip, port)).collect(), again))
            })
        }

        fn longest(&self) -> Duration {
            self.longest
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn a_name_is_a_host_and_a_port() {
        assert_eq!(split("web:80"), Some(("web", 80)));
        assert_eq!(split("[::1]:80"), Some(("::1", 80)));
        assert_eq!(split("web"), None);
        assert_eq!(split(":80"), None);
        assert_eq!(split("web:http"), None);
    }

    #[tokio::test]
    async fn localhost_has_an_address() {
        let mut resolution = Dns::every(Duration::from_secs(60)).resolve("localhost:80");

        let Some(Ok(Update::Endpoints(endpoints))) = resolution.next().await else { panic!("no endpoints") };
        assert!(
            endpoints.iter().all(|endpoint| endpoint.addr.ip().is_loopback() && endpoint.addr.port() == 80)
        );
        assert!(!endpoints.is_empty());
    }
}
