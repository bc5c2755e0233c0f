//! What happens, for metrics and logs.
//!
//! An [`Observer`] is told about connections, attempts and resolutions as they happen, never about bytes. It is given
//! where it matters ([`Server::observe`](crate::Server::observe), [`BalanceLayer::observe`](crate::BalanceLayer::observe),
//! ...), so two servers of one process may report to different places.
//!
//! # Examples
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use meshlib::observe::{Event, Observer};
//!
//! #[derive(Debug, Default)]
//! struct Accepted(AtomicU64);
//!
//! impl Observer for Accepted {
//!     fn on(&self, event: &Event<'_>) {
//!         if let Event::Accepted { .. } = event {
//!             self.0.fetch_add(1, Ordering::Relaxed);
//!         }
//!     }
//! }
//! ```

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::error::Side;
use crate::forward::Transferred;
use crate::resolve::ResolveError;
use crate::session::Session;

#[cfg(feature = "prometheus")]
pub mod prometheus;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection was accepted.
    Accepted {
        /// The facts about it.
        session: &'a Session,
    },
    /// A TLS handshake ended.
    Handshake {
        /// Whom it was with.
        side: Side,
        /// How long it took.
        took: Duration,
        /// Why it failed, if it did.
        error: Option<&'a Error>,
    },
    /// An opportunistic handshake failed and plaintext is used instead.
    TlsFallback {
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// Why, in one word: see [`TlsError::reason`](crate::tls::TlsError::reason).
        reason: &'static str,
    },
    /// Discovery said something.
    Resolved {
        /// The name it was asked for.
        name: &'a str,
        /// How many endpoints there are now, or why that is not known.
        result: Result<usize, &'a ResolveError>,
    },
    /// An endpoint was picked for a request, which is sent there now.
    Attempt {
        /// The balanced name.
        name: &'a str,
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// How long the request had waited for an endpoint.
        waited: Duration,
        /// Which attempt of the request this is, from 1 up.
        attempt: u32,
    },
    /// An attempt ended: there is an answer or a connection, or there is not. Each [`Attempt`](Self::Attempt) is followed
    /// by this or by [`Abandoned`](Self::Abandoned).
    Attempted {
        /// The balanced name.
        name: &'a str,
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// How long it took.
        took: Duration,
        /// Why it failed, if it did.
        error: Option<&'a Error>,
    },
    /// Whoever asked for an attempt went away before it ended.
    Abandoned {
        /// The balanced name.
        name: &'a str,
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// How long it had taken.
        took: Duration,
    },
    /// An endpoint failed so often that it is left alone.
    Ejected {
        /// The balanced name.
        name: &'a str,
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// For how long.
        after: Duration,
    },
    /// An endpoint that had failed works again.
    Restored {
        /// The balanced name.
        name: &'a str,
        /// The endpoint.
        endpoint: &'a Endpoint,
    },
    /// Both sides of a connection are there; bytes flow from now on.
    Opened {
        /// The facts about the client's side.
        session: &'a Session,
    },
    /// The server has sent its first byte.
    FirstByte {
        /// How long that took from the client's first byte on, or from [`Opened`](Self::Opened) where the server began.
        took: Duration,
    },
    /// The client has asked, and the server has sent no byte until the connection ended well, a second later or more. If somebody
    /// [wants progress](Observer::wants_progress) this is told while it lasts, too, when both have been silent for 10 to 20 s;
    /// [`FirstByte`](Self::FirstByte) may come after it then. Told once.
    Unanswered,
    /// A client got no server.
    NotOpened {
        /// Why.
        error: &'a Error,
    },
    /// A discovery service was asked and has answered, or has not.
    Asked {
        /// The name it was asked for.
        name: &'a str,
        /// How long it took.
        took: Duration,
        /// Why the answer cannot be used, if it cannot.
        error: Option<&'a ResolveError>,
    },
    /// What was forwarded since the last report, while a connection lasts. Sent every 10 s to those who
    /// [want it](Observer::wants_progress).
    Progress {
        /// Bytes since the last report.
        transferred: Transferred,
    },
    /// Bytes flow no more.
    Closed {
        /// What was forwarded in all. The sum of all reports of [`Progress`](Self::Progress) is a part of it.
        transferred: Transferred,
        /// The part of it that was not reported as progress.
        unreported: Transferred,
        /// How long bytes could flow.
        lasted: Duration,
        /// What ended it, if it was not the peers.
        error: Option<&'a Error>,
        /// Whether it was cut off, as [`Ended::forced`](Self::Ended).
        forced: bool,
    },
    /// An order for a certificate ended.
    CertOrdered {
        /// The name it is for.
        name: &'a str,
        /// How long it took, or why it came to nothing, in one word: the authority's own (`rateLimited`, `connection`), or
        /// `unreachable`, `timeout`, `store`, `lock_lost`, ...
        result: Result<Duration, &'a str>,
    },
    /// The service of an accepted connection is done with it.
    Ended {
        /// Why it failed, if it did.
        error: Option<&'a Error>,
        /// Whether it was cut off before it had ended: the time to drain was over, or its service panicked.
        forced: bool,
    },
}

/// Is told what happens.
///
/// Called on the connection's own task: must be quick, must not block.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Something happened.
    fn on(&self, event: &Event<'_>);

    /// Whether connections that last should be reported on every 10 s. Default: no.
    fn wants_progress(&self) -> bool {
        false
    }
}

/// Nobody is told.
impl Observer for () {
    fn on(&self, _: &Event<'_>) {}
}

/// Both are told.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn on(&self, event: &Event<'_>) {
        self.0.on(event);
        self.1.on(event);
    }

    fn wants_progress(&self) -> bool {
        self.0.wants_progress() || self.1.wants_progress()
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on(&self, event: &Event<'_>) {
        (**self).on(event);
    }

    fn wants_progress(&self) -> bool {
        (**self).wants_progress()
    }
}
