//! What namerd says about names and addresses, as JSON.
//!
//! | Type | Answers |
//! |---|---|
//! | [`Addr`] | of `resolve` and `addr`: the addresses of one name |
//! | [`Tree`] | of `bind`: the names that a path is bound to, by weight and preference |
//!
//! Writing is exact: compact, `type` first, absent values left out. Reading is tolerant, because one odd address must
//! not take the others out of service: what cannot be used is left out and counted in [`Skipped`].
//!
//! ```
//! use meshlib_namerd::api::{Addr, Address, Skipped};
//!
//! let addr = Addr::bound([Address::new("10.0.0.5:6379".parse()?).with_weight(0.5)]);
//! let json = addr.to_json();
//! let meta = r#"{"endpoint_addr_weight":0.5}"#;
//! assert_eq!(
//!     json,
//!     format!(r#"{{"type":"bound","addrs":[{{"ip":"10.0.0.5","port":6379,"meta":{meta}}}],"meta":{{}}}}"#)
//! );
//! assert_eq!(Addr::from_json(json.as_bytes(), &mut Skipped::default())?, addr);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addr;
mod address;
mod decode;
mod meta;
mod tree;

pub use addr::Addr;
pub use address::Address;
pub use decode::DecodeError;
pub use decode::Skipped;
pub use meta::Meta;
pub use tree::Bound;
pub use tree::Branch;
pub use tree::MAX_DEPTH;
pub use tree::Tree;
