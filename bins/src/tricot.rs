//! `tricot`: an HTTPS edge proxy that takes its routes from the tags of Consul's services.
//!
//! | Part | What it is |
//! |---|---|
//! | [`args`] | the command line and the variables |
//! | [`tags`] | what the tags of an instance say |

pub mod args;
pub mod tags;
