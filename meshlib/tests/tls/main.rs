//! TLS on both sides, against rustls and, where it is installed, against OpenSSL.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

mod accept;
mod certificates;
mod connect;
mod fallback;
mod openssl;
mod rig;
