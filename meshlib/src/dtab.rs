//! The naming language: paths, and patterns over them.
//!
//! A logical name is a [`path::Path`]; [`path::Prefix`] is the left-hand side of a rewrite rule and
//! [`path::Pattern`] what configurations match bound names with.
//!
//! # Examples
//!
//! ```
//! use meshlib::dtab::path::{Path, Prefix};
//!
//! let name: Path = "/svc/web/api".parse()?;
//! let rule = Prefix::parse("/svc/*")?;
//! assert_eq!(rule.strip(&name).ok_or("no match")?.as_str(), "/api");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod path;
