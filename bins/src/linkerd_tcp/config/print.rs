//! A configuration in the language it was written in, with every default filled in.

use std::path::Path;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::client::Client;
use super::client::ClientRule;
use super::client::FailFast;
use super::model::Admin;
use super::model::ClientTls;
use super::model::Config;
use super::model::Generation;
use super::model::Identity;
use super::model::LoadBalancer;
use super::model::Namerd;
use super::model::ResolveMode;
use super::model::ResolverConfig;
use super::model::ResolverTls;
use super::model::Router;
use super::model::Server;
use super::model::ServerTls;
use super::model::TlsVersion;
use super::model::Watch;
use crate::kit::load::fields::FileRef;

impl Config {
    /// The configuration as it is in force, in the language of its file. Reading it again gives the same one; what the
    /// language has no word for, since it came from an argument, is left out. There are no secrets in it: keys are named by
    /// their files.
    pub fn to_value(&self) -> Value {
        let generation = self.generation;
        let routers: Vec<Value> = self.routers.iter().map(|router| router.to_value(generation)).collect();
        let (buffer, list) = match generation {
            Generation::Proxies => ("bufferSize", "proxies"),
            Generation::Routers => ("bufferSizeBytes", "routers"),
        };
        object([
            ("admin", admin(&self.admin, generation)),
            (buffer, self.buffer_size.into()),
            ("workers", self.workers.into()),
            (list, routers.into()),
        ])
    }
}

impl Router {
    /// The part of the file that is about it, in a language.
    pub fn to_value(&self, generation: Generation) -> Value {
        let servers = self.servers.iter().map(|server| server.to_value(generation));
        let servers: Value = servers.collect::<Vec<_>>().into();
        match generation {
            Generation::Proxies => {
                // All servers of a proxy have the same.
                let path = self.servers.first().map_or("/", |server| &*server.dst);
                let client = self.client.for_destination(path);
                object([
                    ("label", self.label.as_str().into()),
                    ("servers", servers),
                    ("namerd", resolver(&self.resolver, Some(path))),
                    (
                        "client",
                        object([
                            ("tls", client.tls.as_ref().map(client_tls).into()),
                            ("loadBalancer", balancer(client.load_balancer)),
                        ]),
                    ),
                    ("maxWaiters", client.max_waiters.into()),
                ])
            }
            Generation::Routers => object([
                ("label", self.label.as_str().into()),
                ("servers", servers),
                ("interpreter", resolver(&self.resolver, None)),
                ("client", client_rules(self)),
            ]),
        }
    }
}

impl Server {
    /// The part of the file that is about it, in a language. In that of proxies its destination is elsewhere.
    pub fn to_value(&self, generation: Generation) -> Value {
        match generation {
            Generation::Proxies => proxy_server(self),
            Generation::Routers => router_server(self),
        }
    }
}

/// An object without the fields that are absent.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn admin(admin: &Admin, generation: Generation) -> Value {
    let interval = admin.metrics_interval.as_secs();
    match generation {
        // An address that is written down is served to whoever reaches it; the usual one is not.
        Generation::Proxies => object([
            ("addr", admin.explicit_addr.then(|| admin.addr.to_string()).into()),
            ("metricsIntervalSecs", interval.into()),
        ]),
        Generation::Routers => object([
            ("ip", admin.addr.ip().to_string().into()),
            ("port", admin.addr.port().into()),
            ("metricsIntervalSecs", interval.into()),
            ("graceSecs", admin.grace.as_secs().into()),
        ]),
    }
}

fn millis(time: Option<Duration>) -> Value {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).into()
}

fn with(value: Value, more: Value) -> Value {
    match (value, more) {
        (Value::Object(mut fields), Value::Object(more)) => {
            fields.extend(more);
            Value::Object(fields)
        }
        (value, _) => value,
    }
}

fn limits(server: &Server) -> Value {
    object([
        ("idleTimeoutMs", millis(server.idle_timeout)),
        ("halfCloseTimeoutMs", millis(server.half_close_timeout)),
    ])
}

fn proxy_server(server: &Server) -> Value {
    let kind = if server.tls.is_some() { "io.l5d.tls" } else { "io.l5d.tcp" };
    let fields = object([
        ("kind", kind.into()),
        ("addr", server.addr.to_string().into()),
        ("handshakeTimeoutMs", millis(Some(server.handshake_timeout))),
    ]);
    let fields = with(fields, limits(server));
    match &server.tls {
        Some(tls) => with(fields, server_tls(tls)),
        None => fields,
    }
}

fn router_server(server: &Server) -> Value {
    let lifetime = server.connection_lifetime;
    let jitter = lifetime.map(|_| server.lifetime_jitter.as_secs());
    let fields = object([
        ("ip", server.addr.ip().to_string().into()),
        ("port", server.addr.port().into()),
        ("dstName", server.dst.as_str().into()),
        ("tls", server.tls.as_ref().map(server_tls).into()),
        ("connectTimeoutMs", millis(server.connect_timeout)),
        ("connectionLifetimeSecs", lifetime.map(|lifetime| lifetime.as_secs()).into()),
        ("connectionLifetimeJitterSecs", jitter.into()),
        ("maxConcurrency", server.max_connections.into()),
        ("handshakeTimeoutMs", millis(Some(server.handshake_timeout))),
    ]);
    with(fields, limits(server))
}

fn file(file: &FileRef) -> Value {
    AsRef::<Path>::as_ref(file).to_string_lossy().into()
}

fn files(all: &[FileRef]) -> Value {
    all.iter().map(file).collect::<Vec<_>>().into()
}

fn identity(identity: &Identity) -> Value {
    json!({ "certs": files(&identity.certs), "privateKey": file(&identity.private_key) })
}

fn server_tls(tls: &ServerTls) -> Value {
    let identities: Map<_, _> =
        tls.identities.iter().map(|(name, it)| (name.clone(), identity(it))).collect();
    let auth = tls.client_auth.as_ref();
    let auth = auth.map(|auth| json!({ "trustCerts": files(&auth.trust_certs), "required": auth.required }));
    object([
        ("alpnProtocols", tls.alpn.clone().into()),
        ("defaultIdentity", tls.default_identity.as_ref().map(identity).into()),
        ("identities", identities.into()),
        ("clientAuth", auth.into()),
    ])
}

fn version(version: TlsVersion) -> Value {
    match version {
        TlsVersion::V12 => "1.2",
        TlsVersion::V13 => "1.3",
    }
    .into()
}

fn client_tls(tls: &ClientTls) -> Value {
    object([
        ("dnsName", tls.dns_name.as_str().into()),
        ("trustCerts", tls.trust_certs.as_deref().map(files).into()),
        ("clientAuth", tls.client_auth.as_ref().map(identity).into()),
        ("alpnProtocols", tls.alpn.clone().into()),
        ("minVersion", version(tls.min_version)),
    ])
}

fn resolver_tls(tls: &ResolverTls) -> Value {
    object([
        ("dnsName", tls.dns_name.as_deref().into()),
        ("trustCerts", tls.trust_certs.as_deref().map(files).into()),
        ("clientAuth", tls.client_auth.as_ref().map(identity).into()),
        ("minVersion", version(tls.min_version)),
    ])
}

/// `namerd` of a proxy with its path, or `interpreter` of a router.
fn resolver(config: &ResolverConfig, path: Option<&str>) -> Value {
    let namerd: &Namerd = match config {
        ResolverConfig::Namerd(namerd) => namerd,
        ResolverConfig::Static(names) => {
            let endpoint = |it: &super::model::StaticEndpoint| json!({ "ip": it.addr.ip().to_string(), "port": it.addr.port(), "weight": it.weight });
            let endpoints =
                names.iter().map(|(name, all)| (name.clone(), all.iter().map(endpoint).collect()));
            return json!({ "kind": "io.l5d.static", "addrs": endpoints.collect::<Map<_, _>>() });
        }
    };
    let (url, period) = if path.is_some() { ("url", "intervalSecs") } else { ("baseUrl", "periodSecs") };
    let kind = path.is_none().then_some("io.l5d.namerd.http");
    let watch = match namerd.watch {
        Watch::Auto => "auto",
        Watch::Always => "always",
        Watch::Never => "never",
    };
    let mode = match namerd.mode {
        ResolveMode::Resolve => "resolve",
        ResolveMode::Bind => "bind",
    };
    object([
        ("kind", kind.into()),
        (url, namerd.base_url.as_str().into()),
        ("path", path.into()),
        ("namespace", namerd.namespace.as_str().into()),
        (period, namerd.period.as_secs().into()),
        ("watch", watch.into()),
        ("requestTimeoutMs", millis(Some(namerd.patience()))),
        ("tls", namerd.tls.as_ref().map(resolver_tls).into()),
        ("mode", mode.into()),
    ])
}

fn balancer(kind: LoadBalancer) -> Value {
    let kind = match kind {
        LoadBalancer::P2c => "p2c",
        LoadBalancer::Ewma => "ewma",
    };
    json!({ "kind": kind })
}

/// What applies to all destinations with the defaults filled in, and rules with prefixes as they stand in the file. Where
/// there are any, the former is the first of them.
fn client_rules(router: &Router) -> Value {
    let (usual, others) = router.client.usual();
    if router.client.rules().iter().all(|rule| rule.prefix.is_none()) {
        return with(object([("kind", "io.l5d.global".into())]), client(&usual));
    }
    let usual = with(object([("prefix", "/".into())]), client(&usual));
    let configs: Vec<Value> = std::iter::once(usual).chain(others.iter().map(rule)).collect();
    json!({ "kind": "io.l5d.static", "configs": configs })
}

fn client(client: &Client) -> Value {
    let FailFast { max_failures, penalty } = client.fail_fast;
    object([
        ("tls", client.tls.as_ref().map(client_tls).into()),
        ("connectTimeoutMs", millis(Some(client.attempt()))),
        ("maxWaiters", client.max_waiters.into()),
        ("minConnections", client.min_connections.into()),
        ("failFast", fail_fast(Some(max_failures), Some(penalty))),
        ("loadBalancer", balancer(client.load_balancer)),
    ])
}

fn fail_fast(failures: Option<usize>, penalty: Option<Duration>) -> Value {
    if failures.is_none() && penalty.is_none() {
        return Value::Null;
    }
    object([
        ("maxConsecutiveFailures", failures.into()),
        ("failurePenaltySecs", penalty.map(|time| time.as_secs()).into()),
    ])
}

fn rule(rule: &ClientRule) -> Value {
    object([
        ("prefix", rule.prefix.as_ref().map(|(prefix, _)| prefix.to_string()).into()),
        ("tls", rule.tls.as_ref().map(client_tls).into()),
        ("connectTimeoutMs", millis(rule.connect_timeout)),
        ("maxWaiters", rule.max_waiters.into()),
        ("minConnections", rule.min_connections.into()),
        ("failFast", fail_fast(rule.max_failures, rule.penalty)),
        ("loadBalancer", rule.load_balancer.map(balancer).into()),
    ])
}
