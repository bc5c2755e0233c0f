//! The list of workloads: what each makes the proxy do, and what is measured.

use crate::host::Policy;
use crate::talk::Talk;
use crate::wire::MESSAGE;

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Name on the command line and in the report.
    pub(crate) name: &'static str,
    /// One line of explanation.
    pub(crate) about: &'static str,
    /// What the proxy is configured for.
    pub(crate) profile: Profile,
    /// What the load does.
    pub(crate) load: Load,
}

/// The job a proxy is configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Profile {
    /// TCP to one server.
    Tcp,
    /// TLS from the client, TCP to one server.
    Terminate,
    /// TCP from the client, verified TLS to one server.
    Originate,
    /// TCP to the ten slow servers, balanced.
    Balance,
    /// HTTP/1.1 to one server.
    Http,
    /// HTTP/1.1 or HTTP/2 with TLS from the client, HTTP/1.1 to one server.
    Https,
    /// The same to the ten slow servers, balanced.
    HttpsBalance,
}

/// What the load generator does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Bytes from client to server.
    BulkUp { connections: usize },
    /// Bytes from server to client.
    BulkDown { connections: usize },
    /// Connect, one exchange, close, again.
    Connect { workers: usize },
    /// Messages at a fixed rate on kept connections.
    OpenLoop { connections: usize, per_second: f64 },
    /// Messages as fast as answers come, on kept connections.
    Messages { connections: usize },
    /// The same with answers of `size` bytes; HTTP only.
    Bodies { connections: usize, size: usize },
    /// HTTP/2 requests as fast as answers come, on kept connections, made by `h2load`.
    Streams { connections: usize, streams: usize },
    /// TLS handshake, one exchange, close, again.
    Handshakes { workers: usize, resume: bool },
    /// Connections that do one exchange and then nothing.
    Idle,
    /// Requests at random instants to the slow servers: a connection for each message, a kept one for HTTP.
    Arrivals { per_second: f64 },
}

/// One measured number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) name: &'static str,
    /// Which direction is good.
    pub(crate) better: Better,
}

/// Which direction of a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Shown only, without a ratio.
    Neither,
}

impl Load {
    /// The figures of a sample, in order.
    pub(crate) fn figures(self) -> &'static [Figure] {
        match self {
            Self::BulkUp { .. } | Self::BulkDown { .. } => BULK,
            Self::Connect { .. } | Self::Messages { .. } | Self::Bodies { .. } | Self::Streams { .. } => RATE,
            Self::Handshakes { .. } => HANDSHAKES,
            Self::OpenLoop { .. } => LATENCY,
            Self::Idle => MEMORY,
            Self::Arrivals { .. } => ARRIVALS,
        }
    }

    /// How the sample is scheduled.
    pub(crate) fn policy(self) -> Policy {
        match self {
            Self::OpenLoop { .. } | Self::Arrivals { .. } => Policy::Latency,
            _ => Policy::Throughput,
        }
    }
}

impl Profile {
    /// Whether the client speaks TLS.
    pub(crate) fn client_tls(self) -> bool {
        matches!(self, Self::Terminate | Self::Https | Self::HttpsBalance)
    }

    /// Whether the proxy speaks HTTP.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::HttpsBalance)
    }

    /// What clients say, with answers of `size` bytes where that can be chosen.
    pub(crate) fn talk(self, size: usize) -> Talk {
        if self.is_http() { Talk::Http(size) } else { Talk::Messages }
    }
}

impl Workload {
    /// What clients say.
    pub(crate) fn talk(&self) -> Talk {
        let size = match self.load {
            Load::Bodies { size, .. } => size,
            _ => MESSAGE,
        };
        self.profile.talk(size)
    }
}

/// The workloads that `wanted` names, in the order of [`ALL`]. A name also stands for all that begin with it
/// and a hyphen: `tcp`, `slow-tcp`.
pub(crate) fn select(wanted: &[String]) -> Result<Vec<Workload>, String> {
    let named = |workload: &Workload, want: &str| {
        workload.name.strip_prefix(want).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if let Some(unknown) = wanted.iter().find(|want| !ALL.iter().any(|workload| named(workload, want))) {
        return Err(format!("no workload is called {unknown}; --list shows them"));
    }
    Ok(ALL
        .iter()
        .filter(|workload| wanted.is_empty() || wanted.iter().any(|want| named(workload, want)))
        .copied()
        .collect())
}

/// All workloads.
pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "tcp-up1",
        about: "bulk over 1 connection, client to server",
        profile: Profile::Tcp,
        load: Load::BulkUp { connections: 1 },
    },
    Workload {
        name: "tcp-up16",
        about: "bulk over 16 connections, client to server",
        profile: Profile::Tcp,
        load: Load::BulkUp { connections: 16 },
    },
    Workload {
        name: "tcp-down16",
        about: "bulk over 16 connections, server to client",
        profile: Profile::Tcp,
        load: Load::BulkDown { connections: 16 },
    },
    Workload {
        name: "tcp-connect",
        about: "connect, 64 B there and back, close; 32 at a time",
        profile: Profile::Tcp,
        load: Load::Connect { workers: 32 },
    },
    Workload {
        name: "tcp-rtt",
        about: "64 B there and back over 100 kept connections, 5,000/s offered",
        profile: Profile::Tcp,
        load: Load::OpenLoop { connections: 100, per_second: 5000.0 },
    },
    Workload {
        name: "tcp-msg",
        about: "64 B there and back over 100 kept connections, as fast as answers come",
        profile: Profile::Tcp,
        load: Load::Messages { connections: 100 },
    },
    Workload {
        name: "tls-down",
        about: "TLS 1.3 termination, bulk over 16 connections, proxy seals",
        profile: Profile::Terminate,
        load: Load::BulkDown { connections: 16 },
    },
    Workload {
        name: "tls-up",
        about: "TLS 1.3 termination, bulk over 16 connections, proxy opens",
        profile: Profile::Terminate,
        load: Load::BulkUp { connections: 16 },
    },
    Workload {
        name: "tls-orig",
        about: "TLS 1.3 origination with verification, bulk over 16 connections, proxy seals",
        profile: Profile::Originate,
        load: Load::BulkUp { connections: 16 },
    },
    Workload {
        name: "tls-msg",
        about: "64 B there and back over 100 kept TLS connections, as fast as answers come",
        profile: Profile::Terminate,
        load: Load::Messages { connections: 100 },
    },
    Workload {
        name: "tls-full",
        about: "full TLS 1.3 handshake (X25519, P-256), 64 B there and back, close; 16 at a time",
        profile: Profile::Terminate,
        load: Load::Handshakes { workers: 16, resume: false },
    },
    Workload {
        name: "tls-resume",
        about: "the same with resumption by ticket",
        profile: Profile::Terminate,
        load: Load::Handshakes { workers: 16, resume: true },
    },
    Workload {
        name: "idle-tcp",
        about: "memory with idle connections that did one exchange",
        profile: Profile::Tcp,
        load: Load::Idle,
    },
    Workload {
        name: "idle-tls",
        about: "the same with TLS 1.3 termination",
        profile: Profile::Terminate,
        load: Load::Idle,
    },
    Workload {
        name: "slow-tcp-low",
        about: "ten servers of 2 ms, one of them 20 ms, one request at a time each; 400/s",
        profile: Profile::Balance,
        load: Load::Arrivals { per_second: 400.0 },
    },
    Workload {
        name: "slow-tcp-high",
        about: "the same at 2,500/s, 55 % of what they can do",
        profile: Profile::Balance,
        load: Load::Arrivals { per_second: 2500.0 },
    },
    Workload {
        name: "http-max",
        about: "HTTP/1.1 over 64 kept connections, bodies of 64 B, closed loop",
        profile: Profile::Http,
        load: Load::Messages { connections: 64 },
    },
    Workload {
        name: "http-large",
        about: "the same with bodies of 100 kB",
        profile: Profile::Http,
        load: Load::Bodies { connections: 64, size: 100_000 },
    },
    Workload {
        name: "http-rtt",
        about: "HTTP/1.1 over 100 kept connections, 5,000/s offered",
        profile: Profile::Http,
        load: Load::OpenLoop { connections: 100, per_second: 5000.0 },
    },
    Workload {
        name: "https-max",
        about: "http-max with TLS from the client",
        profile: Profile::Https,
        load: Load::Messages { connections: 64 },
    },
    Workload {
        name: "https-large",
        about: "http-large with TLS from the client",
        profile: Profile::Https,
        load: Load::Bodies { connections: 64, size: 100_000 },
    },
    Workload {
        name: "https-rtt",
        about: "http-rtt with TLS from the client",
        profile: Profile::Https,
        load: Load::OpenLoop { connections: 100, per_second: 5000.0 },
    },
    Workload {
        name: "https-connect",
        about: "full handshake, one request, close; 16 at a time",
        profile: Profile::Https,
        load: Load::Handshakes { workers: 16, resume: false },
    },
    Workload {
        name: "h2-max",
        about: "HTTP/2 with TLS from the client, 8 connections of 16 streams, bodies of 64 B, closed loop",
        profile: Profile::Https,
        load: Load::Streams { connections: 8, streams: 16 },
    },
    Workload {
        name: "idle-http",
        about: "idle connections after one HTTP/1.1 request each",
        profile: Profile::Http,
        load: Load::Idle,
    },
    Workload {
        name: "idle-https",
        about: "the same with TLS from the client",
        profile: Profile::Https,
        load: Load::Idle,
    },
    Workload {
        name: "slow-https-low",
        about: "HTTPS over kept connections to ten servers of 2 ms, one of them 20 ms; 400/s",
        profile: Profile::HttpsBalance,
        load: Load::Arrivals { per_second: 400.0 },
    },
    Workload {
        name: "slow-https-high",
        about: "the same at 2,500/s, 55 % of what they can do",
        profile: Profile::HttpsBalance,
        load: Load::Arrivals { per_second: 2500.0 },
    },
];

const fn figure(name: &'static str, better: Better) -> Figure {
    Figure { name, better }
}

const BULK: &[Figure] = &[figure("GB/s", Better::Higher), figure("CPU-s/GB", Better::Lower)];
const RATE: &[Figure] = &[figure("per s", Better::Higher), figure("CPU us", Better::Lower)];
const HANDSHAKES: &[Figure] =
    &[figure("per s", Better::Higher), figure("CPU us", Better::Lower), figure("resumed %", Better::Neither)];
const LATENCY: &[Figure] = &[
    figure("p50 us", Better::Lower),
    figure("p99 us", Better::Lower),
    figure("p99.9 us", Better::Lower),
    figure("CPU us", Better::Lower),
];
const MEMORY: &[Figure] = &[figure("RSS MB", Better::Lower), figure("KB each", Better::Lower)];
const ARRIVALS: &[Figure] = &[
    figure("p50 ms", Better::Lower),
    figure("p99 ms", Better::Lower),
    figure("p99.9 ms", Better::Lower),
    figure("mean ms", Better::Lower),
    figure("slow one %", Better::Neither),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        select(&wanted).unwrap().iter().map(|workload| workload.name).collect()
    }

    #[test]
    fn prefix_selects_a_family() {
        assert_eq!(names(&["slow-tcp"]), ["slow-tcp-low", "slow-tcp-high"]);
        assert_eq!(names(&["idle"]), ["idle-tcp", "idle-tls", "idle-http", "idle-https"]);
    }

    #[test]
    fn exact_name_selects_one() {
        assert_eq!(names(&["tls-up", "tcp-up1"]), ["tcp-up1", "tls-up"]);
        assert_eq!(names(&[]).len(), ALL.len());
    }

    #[test]
    fn unknown_name_is_an_error() {
        assert!(select(&["tcp-u".to_owned()]).unwrap_err().contains("tcp-u"));
    }
}
