//! Generation A: `proxies`, the language of linkerd-tcp up to 0.0.3.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use super::buffer_size;
use super::client::ClientRule;
use super::client::ClientRules;
use super::language;
use super::model::Admin;
use super::model::Config;
use super::model::Generation;
use super::model::ResolverConfig;
use super::model::Router;
use super::model::Server;
use super::resolver;
use super::resolver::Base;
use super::routers;
use super::server;
use super::server::Limits;
use super::tls;
use super::unique::Unique;
use crate::kit::load::fields::Fields;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;

const KIND_TCP: &str = "io.l5d.tcp";
const KIND_TLS: &str = "io.l5d.tls";

/// Reads a whole file of generation A.
pub(super) fn config(reader: &mut Reader<'_>, root: &Item<'_>) -> Option<Config> {
    let fields = reader.fields(root, &language::PROXIES)?;
    let mut unique = Unique::default();
    let admin = admin(reader, &mut unique, fields.get("admin"));
    if let Some(item) = fields.get("metricsIntervalSecs")
        && reader.integer(item, 0..=u64::MAX).is_some()
    {
        reader.warning(item, "this field has no effect; `admin.metricsIntervalSecs` has");
    }
    let buffer = fields.get("bufferSize").and_then(|item| buffer_size(reader, item));
    let workers = fields.get("workers").and_then(|item| reader.count(item, 1));

    let items = reader.required(&fields, "proxies").and_then(|item| reader.list(item)).unwrap_or_default();
    let read = items.iter().map(|item| proxy(reader, &mut unique, item)).collect::<Vec<_>>();
    Some(Config {
        place: reader.place(root),
        generation: Generation::Proxies,
        admin: admin?,
        buffer_size: buffer.unwrap_or(super::USUAL_BUFFER),
        workers,
        routers: labelled(&unique, read.into_iter().collect::<Option<_>>()?),
    })
}

fn admin(reader: &mut Reader<'_>, unique: &mut Unique, item: Option<&Item<'_>>) -> Option<Admin> {
    let mut admin = Admin {
        addr: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 9989),
        metrics_interval: Duration::from_secs(10),
        grace: Duration::from_secs(10),
        explicit_addr: false,
        place: None,
    };
    let Some(item) = item else { return Some(admin) };
    let fields = reader.fields(item, &language::PROXIES_ADMIN)?;
    admin.place = Some(reader.place(item));
    if let Some(item) = fields.get("addr") {
        admin.explicit_addr = true;
        admin.place = Some(reader.place(item));
        if let Some(addr) = server::socket_addr(reader, item) {
            unique.addr(reader, item, addr);
            admin.addr = addr;
        }
    }
    if let Some(interval) = fields.get("metricsIntervalSecs").and_then(|item| reader.secs(item, 1)) {
        admin.metrics_interval = interval;
    }
    Some(admin)
}

/// A proxy whose label may still have to be made up.
struct Unlabelled(Option<String>, Router);

fn proxy(reader: &mut Reader<'_>, unique: &mut Unique, item: &Item<'_>) -> Option<Unlabelled> {
    let fields = reader.fields(item, &language::PROXY)?;
    let label = fields.get("label").and_then(|item| {
        let label = reader.string(item)?;
        unique.label(reader, item, label);
        Some(label.to_string())
    });
    let namerd = reader.required(&fields, "namerd").and_then(|item| namerd(reader, item));
    let client = fields.get("client").and_then(|item| client(reader, item)).unwrap_or_default();
    let waiters = fields.get("maxWaiters").and_then(|item| reader.count(item, 0)).unwrap_or(8);
    let servers = reader.required(&fields, "servers").and_then(|item| reader.list(item));
    let servers: Vec<_> = servers?.iter().map(|item| proxy_server(reader, unique, item)).collect();

    let (dst, resolver) = namerd?;
    let servers: Option<Vec<_>> = servers.into_iter().collect();
    let servers = servers?.into_iter().map(|server| Server { dst: dst.clone(), ..server }).collect();
    // With 0 the original let one connection of each server wait, so that 0 never meant none.
    let client = ClientRules::new(waiters.max(1), vec![client]);
    Some(Unlabelled(label, Router { label: String::new(), servers, resolver, client }))
}

/// Labels are optional, because 0.0.1 had none. Made-up ones avoid those in the file, wherever they are.
fn labelled(unique: &Unique, proxies: Vec<Unlabelled>) -> Vec<Router> {
    let mut made = Vec::new();
    let mut routers = Vec::new();
    for Unlabelled(label, router) in proxies {
        let label = label.unwrap_or_else(|| {
            let label = unique.make_label(&made);
            made.push(label.clone());
            label
        });
        routers.push(Router { label, ..router });
    }
    routers
}

/// Reads `namerd`: the path that all servers of the proxy serve, and where to resolve it.
fn namerd(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<(String, ResolverConfig)> {
    let fields = reader.fields(item, &language::PROXY_NAMERD)?;
    let path = reader.required(&fields, "path").and_then(|item| server::logical_path(reader, item));
    let base = match (fields.get("addr"), fields.get("url")) {
        (Some(item), None) => reader.parsed(item, Base::parse_authority).map(|base| (item, base)),
        (None, Some(item)) => reader.parsed(item, Base::parse_url).map(|base| (item, base)),
        (Some(_), Some(item)) => {
            reader.problem(item, "both `addr` and `url` are present; expected exactly one of them");
            None
        }
        (None, None) => {
            reader.problem_in(&fields, "missing field `addr` or `url`; expected exactly one of them");
            None
        }
    };
    let resolver = resolver::namerd(reader, &fields, base, ("intervalSecs", Duration::from_secs(60)));
    Some((path?, resolver?))
}

fn client(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<ClientRule> {
    let fields = reader.fields(item, &language::PROXY_CLIENT)?;
    let tls = fields.get("tls").and_then(|item| tls::client(reader, item));
    let load_balancer = routers::load_balancer(reader, &fields);
    Some(ClientRule { tls, load_balancer, ..ClientRule::default() })
}

/// Reads a server; its destination is the path of the proxy and is put in later.
fn proxy_server(reader: &mut Reader<'_>, unique: &mut Unique, item: &Item<'_>) -> Option<Server> {
    match reader.kind(item, &[KIND_TCP, KIND_TLS])? {
        KIND_TLS => {
            let fields = reader.fields(item, &language::PROXY_TLS)?;
            let tls = tls::server(reader, item, &fields);
            let server = listener(reader, unique, &fields);
            Some(Server { tls: Some(tls?), ..server? })
        }
        _ => {
            let fields = reader.fields(item, &language::PROXY_TCP)?;
            listener(reader, unique, &fields)
        }
    }
}

fn listener(reader: &mut Reader<'_>, unique: &mut Unique, fields: &Fields<'_>) -> Option<Server> {
    let limits = Limits::read(reader, fields);
    let item = reader.required(fields, "addr")?;
    let addr = server::socket_addr(reader, item)?;
    unique.addr(reader, item, addr);
    Some(Server {
        addr,
        dst: String::new(),
        tls: None,
        connect_timeout: None,
        connection_lifetime: None,
        lifetime_jitter: Duration::ZERO,
        max_connections: None,
        idle_timeout: limits.idle,
        handshake_timeout: limits.handshake,
        half_close_timeout: limits.half_close,
        place: reader.place(item),
    })
}
