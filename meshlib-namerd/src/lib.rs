//! Endpoints from [namerd](https://linkerd.io/1/advanced/namerd/), by its HTTP control API.
//!
//! [`Namerd`] is a [`Resolver`](meshlib::Resolver): it follows the addresses of a logical name, by asking at an interval
//! and by watching in between, so that a change takes effect at once. Whatever goes wrong, the last good set stays.
//!
//! # Examples
//!
//! ```
//! use meshlib::{BalanceLayer, TcpConnector};
//! use meshlib_namerd::Namerd;
//! use tower::Layer;
//!
//! # fn main() -> Result<(), meshlib_namerd::InvalidUrl> {
//! let namerd = Namerd::new("http://127.0.0.1:4180")?.namespace("default");
//! let connect = BalanceLayer::new(namerd, "/svc/web").layer(TcpConnector::default());
//! # drop(connect);
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! | Part | What it is |
//! |---|---|
//! | [`Namerd`] | where namerd is and how it is asked: a resolver of logical names |
//! | [`Mode`], [`Watch`], [`OnNegative`] | what it asks for, whether it watches, what a name that is not bound means |
//! | [`api`] | what namerd answers, for clients of one's own |
//! | [`watch`] | values out of the endless answers that namerd watches with |
//! | `server` | a server that answers like namerd (feature `server`) |
//!
//! # Features
//!
//! | Feature | Default | Adds | Draws in |
//! |---|---|---|---|
//! | `aws-lc-rs` | yes | TLS towards namerd, with that provider | meshlib's feature of that name |
//! | `server` | no | a namerd-compatible server for tests and demonstrations | |
//!
//! # More
//!
//! [linkerd-tcp's configuration] is made of this resolver; the [examples] have whole programs to put it in.
//! [`meshlib`] has the layers that endpoints go to.
//!
//! [linkerd-tcp's configuration]: https://github.com/meshlib/meshlib/blob/main/docs/linkerd-tcp-config.md
//! [examples]: https://github.com/meshlib/meshlib/tree/main/examples

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod api;
pub mod watch;

#[cfg(feature = "server")]
pub mod server;

mod bind;
mod client;
mod follow;
mod resolve;

pub use client::InvalidUrl;
pub use client::Mode;
pub use client::Namerd;
pub use client::OnNegative;
pub use client::Watch;

/// The README's examples are built like all others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
