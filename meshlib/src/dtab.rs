//! The naming language: paths, and patterns over them.
//!
//! A logical name is a [`path::Path`]; [`path::Prefix`] is the left-hand side of a rewrite rule and
//! [`path::Pattern`] what configurations match bound names with.

pub mod path;
