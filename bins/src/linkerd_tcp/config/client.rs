//! The settings of connections to endpoints, and which destination gets which.

use std::time::Duration;

use super::model::ClientTls;
use super::path::Prefix;
use crate::kit::load::Place;

/// How to connect to the endpoints of one destination.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Client {
    /// TLS towards the endpoints. Default absent: plain TCP.
    pub tls: Option<ClientTls>,
    /// One attempt: TCP connect and TLS handshake (`connectTimeoutMs`). Default absent: see [`Client::attempt`].
    pub connect_timeout: Option<Duration>,
    /// Connections that may wait for an endpoint, at least 1. Default 8 (A: when full, accepting stops) or 1000000
    /// (B: when full, new ones are closed).
    pub max_waiters: usize,
    /// Spare connections kept ready for the destination. Default 0.
    pub min_connections: usize,
    /// When to leave out an endpoint that fails.
    pub fail_fast: FailFast,
    /// How an endpoint is chosen. Default [`LoadBalancer::P2c`].
    pub load_balancer: LoadBalancer,
}

impl Client {
    /// How long one attempt may take: [`Client::connect_timeout`], else 5 s.
    pub fn attempt(&self) -> Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(5))
    }
}

/// When to leave out an endpoint that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailFast {
    /// Failed attempts in a row, at least 1 (`maxConsecutiveFailures`). Default 5.
    pub max_failures: usize,
    /// For how long it is left out at first (`failurePenaltySecs`). Default 60 s.
    pub penalty: Duration,
}

impl Default for FailFast {
    fn default() -> Self {
        Self { max_failures: 5, penalty: Duration::from_secs(60) }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadBalancer {
    /// The less loaded of two drawn by weight; the default.
    #[default]
    P2c,
    /// The one of two with the lower average time to the first byte of an answer.
    Ewma,
}

/// The client settings of a router: defaults, and rules that override single fields of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientRules {
    defaults: Client,
    rules: Vec<ClientRule>,
}

/// What one client section of the file says. Absent fields leave the value as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClientRule {
    /// The prefix and where it is written. `None` applies to every destination.
    pub(super) prefix: Option<(Prefix, Place)>,
    pub(super) tls: Option<ClientTls>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) max_waiters: Option<usize>,
    pub(super) min_connections: Option<usize>,
    pub(super) max_failures: Option<usize>,
    pub(super) penalty: Option<Duration>,
    pub(super) load_balancer: Option<LoadBalancer>,
}

impl ClientRules {
    /// Rules in the order of the file, over the defaults of the language.
    pub(super) fn new(max_waiters: usize, rules: Vec<ClientRule>) -> Self {
        let defaults = Client {
            tls: None,
            connect_timeout: None,
            max_waiters,
            min_connections: 0,
            fail_fast: FailFast::default(),
            load_balancer: LoadBalancer::default(),
        };
        Self { defaults, rules }
    }

    /// The settings for a destination: every rule whose prefix matches is applied in the order of the file, and a
    /// later one overrides the fields that it has.
    pub fn for_destination(&self, path: &str) -> Client {
        let mut client = self.defaults.clone();
        for rule in self.rules.iter().filter(|rule| rule.applies_to(path)) {
            rule.apply(&mut client);
        }
        client
    }

    /// The rules in the order of the file.
    pub(super) fn rules(&self) -> &[ClientRule] {
        &self.rules
    }

    /// The defaults as the first rule changes them if it is for every destination, and the rules after that.
    pub(super) fn usual(&self) -> (Client, &[ClientRule]) {
        let mut usual = self.defaults.clone();
        match &self.rules[..] {
            [first, others @ ..] if first.is_for_all() => {
                first.apply(&mut usual);
                (usual, others)
            }
            rules => (usual, rules),
        }
    }
}

impl ClientRule {
    pub(super) fn applies_to(&self, path: &str) -> bool {
        self.prefix.as_ref().is_none_or(|(prefix, _)| prefix.matches(path))
    }

    fn is_for_all(&self) -> bool {
        self.prefix.as_ref().is_none_or(|(prefix, _)| prefix.is_everything())
    }

    fn apply(&self, client: &mut Client) {
        if let Some(tls) = &self.tls {
            client.tls = Some(tls.clone());
        }
        if self.connect_timeout.is_some() {
            client.connect_timeout = self.connect_timeout;
        }
        client.max_waiters = self.max_waiters.unwrap_or(client.max_waiters);
        client.min_connections = self.min_connections.unwrap_or(client.min_connections);
        client.fail_fast.max_failures = self.max_failures.unwrap_or(client.fail_fast.max_failures);
        client.fail_fast.penalty = self.penalty.unwrap_or(client.fail_fast.penalty);
        client.load_balancer = self.load_balancer.unwrap_or(client.load_balancer);
    }
}
