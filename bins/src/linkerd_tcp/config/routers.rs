//! Generation B: `routers`, the language of linkerd-tcp from 0.1.0 on.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use super::buffer_size;
use super::client::ClientRule;
use super::client::ClientRules;
use super::client::LoadBalancer;
use super::language;
use super::model::Admin;
use super::model::Config;
use super::model::Generation;
use super::model::ResolverConfig;
use super::model::Router;
use super::model::Server;
use super::path;
use super::path::Prefix;
use super::resolver;
use super::resolver::Base;
use super::server;
use super::server::Limits;
use super::tls;
use super::unique::Unique;
use crate::kit::load::fields::Fields;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;

const KIND_GLOBAL: &str = "io.l5d.global";
const KIND_STATIC: &str = "io.l5d.static";
const KIND_NAMERD: &str = "io.l5d.namerd.http";

/// The limit of live connections of a server that names none.
const MAX_CONCURRENCY: usize = 100_000;

/// The limit of waiting connections of a client that names none.
const MAX_WAITERS: usize = 1_000_000;

/// Reads a whole file of generation B.
pub(super) fn config(reader: &mut Reader<'_>, root: &Item<'_>) -> Option<Config> {
    let fields = reader.fields(root, &language::ROUTERS)?;
    let mut unique = Unique::default();
    let admin = admin(reader, &mut unique, fields.get("admin"));
    let buffer = fields.get("bufferSizeBytes").and_then(|item| buffer_size(reader, item));
    let workers = fields.get("workers").and_then(|item| reader.count(item, 1));

    let items = reader.required(&fields, "routers").and_then(|item| reader.list(item)).unwrap_or_default();
    let routers: Vec<_> = items.iter().map(|item| router(reader, &mut unique, item)).collect();
    Some(Config {
        place: reader.place(root),
        generation: Generation::Routers,
        admin: admin?,
        buffer_size: buffer.unwrap_or(super::USUAL_BUFFER),
        workers,
        routers: routers.into_iter().collect::<Option<_>>()?,
    })
}

fn admin(reader: &mut Reader<'_>, unique: &mut Unique, item: Option<&Item<'_>>) -> Option<Admin> {
    let mut admin = Admin {
        addr: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9989),
        metrics_interval: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        explicit_addr: false,
        place: None,
    };
    let Some(item) = item else { return Some(admin) };
    let fields = reader.fields(item, &language::ROUTERS_ADMIN)?;
    admin.place = Some(reader.place(item));
    let port = fields.get("port").and_then(|item| Some((item, server::port(reader, item)?)));
    let ip = fields.get("ip").and_then(|item| Some((item, server::ip_addr(reader, item)?)));
    if let Some((_, ip)) = ip {
        admin.addr.set_ip(ip);
    }
    if let Some((_, port)) = port {
        admin.addr.set_port(port);
    }
    let written = port.map(|(item, _)| item).or_else(|| ip.map(|(item, _)| item));
    if let Some(item) = written {
        admin.explicit_addr = true;
        admin.place = Some(reader.place(item));
        unique.addr(reader, item, admin.addr);
    }
    if let Some(interval) = fields.get("metricsIntervalSecs").and_then(|item| reader.secs(item, 1)) {
        admin.metrics_interval = interval;
    }
    if let Some(grace) = fields.get("graceSecs").and_then(|item| reader.secs(item, 0)) {
        admin.grace = grace;
    }
    Some(admin)
}

fn router(reader: &mut Reader<'_>, unique: &mut Unique, item: &Item<'_>) -> Option<Router> {
    let fields = reader.fields(item, &language::ROUTER)?;
    let label = reader.required(&fields, "label").and_then(|item| {
        let label = reader.string(item)?;
        unique.label(reader, item, label);
        Some(label.to_string())
    });
    let resolver = reader.required(&fields, "interpreter").and_then(|item| interpreter(reader, item));
    let items = reader.required(&fields, "servers").and_then(|item| reader.list(item));
    let servers = items.map(|items| {
        let servers: Vec<_> =
            items.iter().map(|item| (item.clone(), router_server(reader, unique, item))).collect();
        servers
    });
    let rules = fields.get("client").map_or_else(|| Some(Vec::new()), |item| client(reader, item));

    if let (Some(ResolverConfig::Static(addrs)), Some(servers)) = (&resolver, &servers) {
        for (item, server) in servers.iter().filter_map(|(item, server)| Some((item, server.as_ref()?))) {
            if server.is_routed_by_sni() {
                continue;
            }
            let endpoints = addrs.get(&server.dst);
            if endpoints.is_none() {
                reader.warning(item, format!("no endpoints: `interpreter.addrs` has no {:?}", server.dst));
            }
            if let Some(own) = endpoints.into_iter().flatten().find(|it| leads_to(it.addr, server.addr)) {
                let text = format!(
                    "the endpoint {} is this server: connections would go round in circles",
                    own.addr
                );
                reader.warning(item, text);
            }
        }
    }
    let servers: Vec<Server> = servers?.into_iter().map(|(_, server)| server).collect::<Option<_>>()?;
    let rules = rules?;
    judge_prefixes(reader, &rules, &servers);
    Some(Router { label: label?, servers, resolver: resolver?, client: ClientRules::new(MAX_WAITERS, rules) })
}

/// Whether who connects to an endpoint comes to a listener of this process.
fn leads_to(endpoint: SocketAddr, listener: SocketAddr) -> bool {
    let (ip, at) = (endpoint.ip().to_canonical(), listener.ip().to_canonical());
    endpoint.port() == listener.port() && (ip == at || at.is_unspecified() && ip.is_loopback())
}

/// A rule that no destination can match is probably misspelt, and one for some of the names that clients may ask for
/// would be without effect: all of them share their settings.
fn judge_prefixes(reader: &mut Reader<'_>, rules: &[ClientRule], servers: &[Server]) {
    for rule in rules {
        let Some((prefix, place)) = &rule.prefix else { continue };
        if let Some(server) = servers.iter().find(|server| prefix.matches_some_names(&server.dst)) {
            let problem = format!(
                "matches some of the names that {:?} stands for, and all of them share their settings; expected a prefix \
                 for all, such as /",
                server.dst
            );
            reader.problem_at(place.clone(), problem);
        } else if !servers.iter().any(|server| rule.applies_to(&server.dst)) {
            reader
                .warning_at(place.clone(), "this prefix matches the destination of no server of the router");
        }
    }
}

fn router_server(reader: &mut Reader<'_>, unique: &mut Unique, item: &Item<'_>) -> Option<Server> {
    let fields = reader.fields(item, &language::SERVER)?;
    let ip = fields.get("ip").map(|item| server::ip_addr(reader, item));
    let tls = fields.get("tls").map(|item| {
        let fields = reader.fields(item, &language::SERVER_TLS)?;
        tls::server(reader, item, &fields)
    });
    let dst = reader.required(&fields, "dstName").and_then(|item| {
        let check = |text: &str| path::check_destination(text).map(|()| text.to_string());
        let dst = reader.parsed(item, check)?;
        if dst.contains(path::SNI) && tls.is_none() {
            reader.problem(item, "`{sni}` on a server without TLS; expected a fixed path, or `tls`");
        }
        Some(dst)
    });
    let connect_timeout = fields.get("connectTimeoutMs").and_then(|item| reader.millis(item, 1));
    let lifetime = fields.get("connectionLifetimeSecs").and_then(|item| reader.secs(item, 1));
    let jitter = fields.get("connectionLifetimeJitterSecs").and_then(|item| {
        if lifetime.is_none() {
            reader.problem(item, "has no effect without `connectionLifetimeSecs`");
        }
        reader.secs(item, 0)
    });
    let max_connections = fields.get("maxConcurrency").and_then(|item| reader.count(item, 1));
    let limits = Limits::read(reader, &fields);

    let item = reader.required(&fields, "port")?;
    let port = server::port(reader, item)?;
    let ip = ip.unwrap_or(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)))?;
    let addr = SocketAddr::new(ip, port);
    unique.addr(reader, item, addr);
    Some(Server {
        addr,
        dst: dst?,
        tls: tls.map_or(Some(None), |read| read.map(Some))?,
        connect_timeout,
        connection_lifetime: lifetime,
        lifetime_jitter: jitter.unwrap_or_default(),
        max_connections: Some(max_connections.unwrap_or(MAX_CONCURRENCY)),
        idle_timeout: limits.idle,
        handshake_timeout: limits.handshake,
        half_close_timeout: limits.half_close,
        place: reader.place(item),
    })
}

fn interpreter(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ResolverConfig> {
    match reader.kind(item, &[KIND_NAMERD, KIND_STATIC])? {
        KIND_STATIC => {
            let fields = reader.fields(item, &language::INTERPRETER_STATIC)?;
            resolver::fixed(reader, &fields)
        }
        _ => {
            let fields = reader.fields(item, &language::INTERPRETER_NAMERD)?;
            let base = reader.required(&fields, "baseUrl").and_then(|item| {
                let base = reader.parsed(item, Base::parse_url)?;
                Some((item, base))
            });
            resolver::namerd(reader, &fields, base, ("periodSecs", Duration::from_secs(20)))
        }
    }
}

/// Reads `client`: one rule for all destinations, or a list of rules with prefixes.
fn client(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<Vec<ClientRule>> {
    match reader.kind(item, &[KIND_GLOBAL, KIND_STATIC])? {
        KIND_STATIC => {
            let fields = reader.fields(item, &language::CLIENT_STATIC)?;
            let items = reader.required(&fields, "configs").and_then(|item| reader.list(item))?;
            let rules: Vec<_> = items.iter().map(|item| prefixed_rule(reader, item)).collect();
            rules.into_iter().collect()
        }
        _ => {
            let fields = reader.fields(item, &language::CLIENT_GLOBAL)?;
            Some(vec![rule(reader, &fields)])
        }
    }
}

fn prefixed_rule(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ClientRule> {
    let fields = reader.fields(item, &language::CLIENT_CONFIG)?;
    let prefix = reader.required(&fields, "prefix").and_then(|item| {
        let prefix = reader.parsed(item, Prefix::parse)?;
        Some((prefix, reader.place(item)))
    });
    let rule = rule(reader, &fields);
    Some(ClientRule { prefix: Some(prefix?), ..rule })
}

fn rule(reader: &mut Reader<'_>, fields: &Fields<'_>) -> ClientRule {
    let tls = fields.get("tls").and_then(|item| tls::client(reader, item));
    let connect_timeout = fields.get("connectTimeoutMs").and_then(|item| reader.millis(item, 1));
    // A queue of no places would refuse every connection, and in the original 0 did not.
    let max_waiters = fields.get("maxWaiters").and_then(|item| reader.count(item, 0)).map(|n| n.max(1));
    let min_connections = fields.get("minConnections").and_then(|item| reader.count(item, 0));
    let fail_fast = fields.get("failFast").and_then(|item| reader.fields(item, &language::FAIL_FAST));
    let (mut max_failures, mut penalty) = (None, None);
    if let Some(fields) = fail_fast {
        max_failures = fields.get("maxConsecutiveFailures").and_then(|item| reader.count(item, 0));
        penalty = fields.get("failurePenaltySecs").and_then(|item| reader.secs(item, 0));
    }
    ClientRule {
        prefix: None,
        tls,
        connect_timeout,
        max_waiters,
        min_connections,
        // An endpoint cannot fail before its first failure; the original started with 0 as well.
        max_failures: max_failures.map(|n| n.max(1)),
        penalty,
        load_balancer: load_balancer(reader, fields),
    }
}

/// Reads `loadBalancer`, which clients of both generations may have.
pub(super) fn load_balancer(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<LoadBalancer> {
    let item = fields.get("loadBalancer")?;
    let fields = reader.fields(item, &language::BALANCER)?;
    let kind = reader.required(&fields, "kind")?;
    reader.choice(kind, &[("p2c", LoadBalancer::P2c), ("ewma", LoadBalancer::Ewma)])
}
