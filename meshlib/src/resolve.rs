//! Turning a name into a live set of endpoints.
//!
//! A [`Resolver`] answers with a stream of [`Update`]s. Each update is the whole current set, so losing or merging some
//! is harmless. What an error means is simple: the last good set stays in force.
//!
//! | Resolver | Source |
//! |---|---|
//! | [`Static`] | a list |
//! | [`Dns`] | the addresses of a host name, refreshed |
//! | [`Dir`] | a directory with one file per name, watched |
//! | a closure | whatever it likes |
//!
//! [`Keep`] wraps any of them: it retries with growing pauses and lets many subscribers share one stream.
//!
//! # Examples
//!
//! A resolver of one's own is a closure from the name to a stream:
//!
//! ```
//! use futures::stream;
//! use meshlib::{Endpoint, Resolution, Resolver, Update};
//!
//! let ports = |name: &'static str| match name {
//!     // Known once and for all.
//!     "web" => Resolution::fixed(Update::endpoints([Endpoint::new(([127, 0, 0, 1], 8001).into())])),
//!     // Moves to the next port every second.
//!     "moving" => Resolution::new(stream::unfold(8100, |port| async move {
//!         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//!         let endpoint = Endpoint::new(([127, 0, 0, 1], port).into());
//!         Some((Ok(Update::endpoints([endpoint])), port + 1))
//!     })),
//!     _ => Resolution::fixed(Update::NotFound),
//! };
//! let resolution = ports.resolve("web");
//! # drop(resolution);
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures::Stream;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::endpoint::Endpoint;

mod dns;
mod file;
mod fixed;
mod keep;

pub use dns::Dns;
pub use file::Dir;
pub use fixed::Static;
pub use keep::Keep;

/// Turns a name into a live set of endpoints. A closure from the name to a [`Resolution`] is one, too.
///
/// # Examples
///
/// Reads addresses from a file every second, for names that are paths:
///
/// ```
/// use std::path::PathBuf;
/// use std::time::Duration;
///
/// use futures::stream;
/// use meshlib::resolve::ResolveError;
/// use meshlib::{Endpoint, Resolution, Resolver, Update};
///
/// struct Lines {
///     every: Duration,
/// }
///
/// impl Resolver<PathBuf> for Lines {
///     fn resolve(&self, path: PathBuf) -> Resolution {
///         let ticks = tokio::time::interval(self.every);
///         Resolution::new(stream::unfold((path, ticks), |(path, mut ticks)| async move {
///             ticks.tick().await;
///             Some((read(&path).await, (path, ticks)))
///         }))
///     }
/// }
///
/// async fn read(path: &PathBuf) -> Result<Update, ResolveError> {
///     let text = tokio::fs::read_to_string(path).await.map_err(ResolveError::other)?;
///     let addrs = text.lines().map(str::parse).collect::<Result<Vec<_>, _>>();
///     let addrs = addrs.map_err(ResolveError::other)?;
///     Ok(Update::endpoints(addrs.into_iter().map(Endpoint::new)))
/// }
/// ```
pub trait Resolver<T>: Send + Sync + 'static {
    /// Starts a resolution. Cheap, never fails, does no I/O before the stream is polled.
    fn resolve(&self, target: T) -> Resolution;
}

impl<T, R: Resolver<T> + ?Sized> Resolver<T> for Arc<R> {
    fn resolve(&self, target: T) -> Resolution {
        (**self).resolve(target)
    }
}

impl<T, F> Resolver<T> for F
where
    F: Fn(T) -> Resolution + Send + Sync + 'static,
{
    fn resolve(&self, target: T) -> Resolution {
        self(target)
    }
}

/// What is known about a name, as a stream of [`Update`]s or of failed attempts.
///
/// Nothing yet means that nothing is known. An error is a failed attempt; what was known stays true, and the stream goes
/// on. The end of the stream means that what was said last is final, be it an error: [`Keep`] starts such a stream again.
/// An update that says the same again is harmless: it costs what preparing the balancer for the set costs.
#[must_use = "streams do nothing unless polled"]
pub struct Resolution(BoxStream<'static, Result<Update, ResolveError>>);

impl Resolution {
    /// Boxes a stream. It is polled by a task of the balancer, whether there are requests or not.
    pub fn new(stream: impl Stream<Item = Result<Update, ResolveError>> + Send + 'static) -> Self {
        Self(stream.boxed())
    }

    /// What is known and will not change.
    pub fn fixed(update: Update) -> Self {
        Self::new(futures::stream::iter([Ok(update)]))
    }
}

impl Stream for Resolution {
    type Item = Result<Update, ResolveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolution").finish_non_exhaustive()
    }
}

/// What a resolver found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// The complete current set, possibly empty.
    Endpoints(Arc<[Endpoint]>),
    /// The name does not exist, says who must know: callers fail at once instead of waiting.
    NotFound,
}

impl Update {
    /// The complete current set.
    pub fn endpoints(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self::Endpoints(endpoints.into_iter().collect())
    }
}

/// Why an attempt to resolve failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The discovery service could not be reached, or broke off.
    #[error("discovery service {authority} unreachable")]
    Unreachable {
        /// Whom we asked.
        authority: Arc<str>,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// It answered with something other than success.
    #[error("discovery service answered {status} for {name}")]
    Status {
        /// What we asked for.
        name: Arc<str>,
        /// The status code.
        status: u16,
    },
    /// Its answer could not be understood.
    #[error("unexpected answer for {name}")]
    Decode {
        /// What we asked for.
        name: Arc<str>,
        /// What is wrong with the answer.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("discovery service {authority} did not answer within {after:?}")]
    Timeout {
        /// Whom we asked.
        authority: Arc<str>,
        /// The limit.
        after: std::time::Duration,
    },
    /// It says that it cannot answer now.
    #[error("discovery service has no answer for {name}: {reason}")]
    Undecided {
        /// What we asked for.
        name: Arc<str>,
        /// In its own words.
        reason: String,
    },
    /// The name cannot be asked for.
    #[error("{name} is not a name this resolver understands")]
    Name {
        /// The name.
        name: Arc<str>,
    },
    /// Something else.
    #[error(transparent)]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl ResolveError {
    /// An I/O error on the way to a discovery service.
    pub fn unreachable(authority: impl Into<Arc<str>>, source: io::Error) -> Self {
        Self::Unreachable { authority: authority.into(), source: Arc::new(source) }
    }

    /// An error that no other variant fits, such as that of a file.
    pub fn other(error: impl Into<tower::BoxError>) -> Self {
        Self::Other(Arc::from(error.into()))
    }
}
