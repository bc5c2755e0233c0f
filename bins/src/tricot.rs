//! `tricot`: an HTTPS edge proxy that takes its routes from the tags of Consul's services.
//!
//! | Part | What it is |
//! |---|---|
//! | [`tags`] | what the tags of an instance say |

pub mod tags;
