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
//! # Features
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `aws-lc-rs` | yes | TLS towards namerd, with that provider |
//! | `server` | no | a namerd-compatible server for tests and demonstrations |

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
