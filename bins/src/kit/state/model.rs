//! The document that `/state.json` gives. Its field names are promises: what reads it may be older or newer, and knows
//! nothing of a field that is absent.

use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

/// A program at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// What it is called; always there.
    pub tool: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// What it was built from.
    #[serde(default)]
    pub commit: String,
    /// When this was, in milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// When it started, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: u64,
    /// How long it has run.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Why no traffic should be sent here; empty if it should.
    #[serde(default)]
    pub unready: Vec<String>,
    /// What else is wrong, a line for each; traffic is welcome nevertheless.
    #[serde(default)]
    pub problems: Vec<String>,
    /// How the configuration was loaded.
    #[serde(default)]
    pub reload: Reload,
    /// What goes through it.
    #[serde(default)]
    pub traffic: Traffic,
    /// Where it goes.
    #[serde(default)]
    pub destinations: Vec<Destination>,
    /// Where it goes in a program that has no destinations of its own, in words: each connection goes there. Absent in others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub towards: Option<String>,
    /// How many endpoints are not shown.
    #[serde(default)]
    pub left_off: usize,
    /// The certificates that it shows or uses.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
}

/// How a configuration was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Reload {
    /// Where it came from: a file, or nothing for arguments and variables.
    pub source: Option<String>,
    /// Whether the last attempt to load it was successful.
    pub successful: bool,
    /// When it was last loaded successfully, in milliseconds since 1970.
    pub success_ms: u64,
    /// What was wrong at the last attempt, with file and line.
    pub error: Option<String>,
    /// When that was, in milliseconds since 1970; 0 if nothing was wrong.
    pub failed_ms: u64,
}

/// What goes through a program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Traffic {
    /// What is counted: `connections` or `requests`.
    pub unit: String,
    /// How many have ended since the start.
    pub ended: u64,
    /// How many of them ended badly.
    pub failed: u64,
    /// How many go on now.
    pub in_flight: u64,
    /// The recent past.
    #[serde(flatten)]
    pub recent: Point,
}

/// A few seconds of a program's life. What cannot be known, since nothing happened, is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Point {
    /// How long ago the interval ended, in milliseconds.
    pub ago_ms: u64,
    /// How many ended, per second.
    pub rate: Option<f64>,
    /// The share that ended well, from 0 to 1.
    pub success: Option<f64>,
    /// The share over TLS, from 0 to 1.
    pub tls: Option<f64>,
    /// The median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95 of 100 were as fast as this, in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99 of 100 were as fast as this, in milliseconds.
    pub p99_ms: Option<f64>,
}

/// A name with the endpoints behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Destination {
    /// The label of the proxy or router, or the rule.
    pub router: String,
    /// The name that is resolved.
    pub dst: String,
    /// Where clients come in; empty where all come in at one place.
    pub listens: Vec<String>,
    /// What discovery has said: `pending`, `neg` or `bound`.
    pub answer: String,
    /// How long ago it said so.
    pub age_ms: u64,
    /// Clients that wait for an endpoint.
    pub waiters: usize,
    /// Endpoints that have left while connections to them live.
    pub retired: usize,
    /// The endpoints, and what is known but not used.
    pub endpoints: Vec<EndpointState>,
    /// Whether none of all its endpoints can be connected to; nothing where there are none. Not shown.
    #[serde(skip)]
    pub is_down: Option<bool>,
    /// Why discovery fails, if it does. Not shown.
    #[serde(skip)]
    pub failing: Option<Arc<str>>,
}

/// An endpoint and how it does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EndpointState {
    /// Its address.
    pub addr: String,
    /// Its share relative to others.
    pub weight: f64,
    /// Where it runs, if discovery says so.
    pub node: Option<String>,
    /// `ready`, `cooling_down` (for a moment after a failure), `ejected`, `probation` (that time is over, and nobody has
    /// tried it since) or `unused`.
    pub state: String,
    /// Why it is in this state, if there is more to say.
    pub why: Option<String>,
    /// For how long it will be left alone.
    pub closed_for_ms: u64,
    /// Connections or requests on their way.
    pub in_flight: u32,
    /// Connections that are being opened. Always 0 for tricot, which knows when requests are answered and not which of them
    /// had to open a connection.
    pub connecting: u32,
    /// How often it was chosen.
    pub picked: u64,
    /// How often it failed.
    pub failed: u64,
    /// How often it broke a connection that was in use, or an answer that had begun.
    pub broken: u64,
    /// How often it was asked and sent no byte, for 10 s or more or until whoever asked went away.
    pub unanswered: u64,
    /// How often it was chosen per second, lately.
    pub rate: Option<f64>,
    /// How long it takes to answer, in milliseconds: from asking to the first byte, an average that rises at once and falls
    /// slowly.
    pub answer_time_ms: Option<f64>,
    /// The name that its certificate must carry, if TLS is spoken to it.
    pub tls: Option<String>,
}

/// A certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Certificate {
    /// The names it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// What it is for: `server`, `client`, `authority`.
    pub role: String,
    /// The file it is in.
    pub file: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub not_after_ms: Option<u64>,
    /// `valid`, `expired`, or what is being done about it.
    pub state: String,
    /// What went wrong, if something did.
    pub error: Option<String>,
}
