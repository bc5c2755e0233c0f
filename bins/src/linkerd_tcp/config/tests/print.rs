//! What is printed is a configuration of the same language that means the same.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::kit::load::language::Table;
use crate::kit::load::language::Takes;
use crate::kit::load::yaml;
use crate::linkerd_tcp::config::Generation;
use crate::linkerd_tcp::config::languages;
use crate::linkerd_tcp::config::model::Client;
use crate::linkerd_tcp::config::model::ClientRules;
use crate::linkerd_tcp::config::model::ResolverConfig;

/// A configuration that was printed and read again.
fn again(config: &Config) -> Config {
    let text = yaml(&config.to_value());
    let (printed, _) = parse(&text, "printed").unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(printed.to_value(), config.to_value(), "{text}");
    printed
}

/// Everything but the rules for clients, whose defaults are written down when they are printed.
fn without_clients(config: &Config) -> String {
    let mut config = config.clone();
    for router in &mut config.routers {
        router.client = ClientRules::new(1, Vec::new());
        if let ResolverConfig::Namerd(namerd) = &mut router.resolver {
            namerd.request_timeout = Some(namerd.patience());
        }
    }
    // Whether the usual address is written down makes no difference to routers.
    (config.admin.explicit_addr, config.admin.place) = (true, None);
    without_places(&config)
}

/// What is in force for a destination.
fn in_force(client: &Client) -> String {
    let client = Client { connect_timeout: Some(client.attempt()), ..client.clone() };
    unplaced(&format!("{client:#?}"))
}

fn agree(config: &Config) {
    let printed = again(config);
    assert_eq!(without_clients(&printed), without_clients(config));
    for (new, old) in printed.routers.iter().zip(&config.routers) {
        for server in &old.servers {
            let (new, old) =
                (new.client.for_destination(&server.dst), old.client.for_destination(&server.dst));
            assert_eq!(in_force(&new), in_force(&old));
        }
    }
}

/// The fields of a language, as far as a printed configuration has the mappings that they are in.
#[derive(Default)]
struct Fields {
    /// Those that are there.
    printed: BTreeSet<String>,
    /// Those that are not, with their defaults.
    missing: BTreeMap<String, &'static str>,
}

impl Fields {
    /// Of a configuration when it is printed.
    fn of(text: &str) -> Self {
        let config = parse(text, "f").unwrap_or_else(|error| panic!("{error}")).0;
        let [proxies, routers] = languages();
        let mut fields = Self::default();
        fields.add(
            if config.generation == Generation::Proxies { proxies } else { routers },
            &config.to_value(),
        );
        fields
    }

    fn add(&mut self, table: &'static Table, printed: &Value) {
        for field in table.fields() {
            let name = format!("{}: {}", table.name, field.name);
            if let Some(value) = printed.get(field.name) {
                self.printed.insert(name);
                self.add_inner(&field.takes, value);
            } else {
                self.missing.insert(name, field.default);
            }
        }
    }

    fn add_inner(&mut self, takes: &'static Takes, printed: &Value) {
        match takes {
            Takes::One(table) => self.add(table, printed),
            Takes::Either(tables) => {
                let is_of_kind = |table: &Table| {
                    let kind = table.field("kind").map(|field| &field.takes);
                    matches!(kind, Some(Takes::Choice(kinds)) if kinds.iter().any(|it| printed["kind"] == **it))
                };
                let table = tables.iter().find(|table| is_of_kind(table));
                self.add(table.unwrap_or_else(|| panic!("{printed}")), printed);
            }
            Takes::Many(_, inner) => {
                printed.as_array().unwrap().iter().for_each(|value| self.add_inner(inner, value));
            }
            Takes::Map(_, inner) => {
                printed.as_object().unwrap().values().for_each(|value| self.add_inner(inner, value));
            }
            _ => {}
        }
    }
}

#[test]
fn every_default_that_has_a_value_is_printed() {
    // What is not a value is described in words.
    let has_value = |default: &str| default.starts_with(|c: char| c == '`' || c.is_ascii_digit());
    let server = "{port: 1, dstName: /a}";
    let namerd = "interpreter: {kind: io.l5d.namerd.http, baseUrl: 'http://[::1]:1'}";
    let identity = "{certs: [c.pem], privateKey: k.pem}";
    for text in [
        "proxies: [{servers: [{kind: io.l5d.tcp, addr: '[::1]:2'}], namerd: {addr: '[::1]:1', path: /a}}]"
            .to_owned(),
        format!(
            "proxies: [{{servers: [{{kind: io.l5d.tls, addr: '[::1]:2', defaultIdentity: {identity}, \
             clientAuth: {{trustCerts: [a.pem]}}}}], client: {{tls: {{dnsName: a.example}}}}, \
             namerd: {{url: 'https://a.example', path: /a, tls: {{}}}}}}]"
        ),
        format!("routers: [{{label: a, {namerd}, servers: [{server}]}}]"),
        format!(
            "routers: [{{label: a, {namerd}, servers: [{server}], client: {{kind: io.l5d.global, tls: {{dnsName: a}}}}}}]"
        ),
    ] {
        let mut missing = Fields::of(&text).missing;
        missing.retain(|_, default| has_value(default));
        // The usual address of proxies is open to less when it is not written down, and there is no jitter of no lifetime.
        for name in ["admin of proxies: addr", "server of a router: connectionLifetimeJitterSecs"] {
            missing.remove(name);
        }
        assert!(missing.is_empty(), "{missing:?} of {text}");
    }
    // Rules with prefixes are changes of the first, which is for all.
    for configs in [
        "[]",
        "[{prefix: /a, maxWaiters: 1}]",
        "[{prefix: /, failFast: {failurePenaltySecs: 1}}, {prefix: /a}]",
    ] {
        let client = format!("client: {{kind: io.l5d.static, configs: {configs}}}");
        let text = format!("routers: [{{label: a, {namerd}, servers: [{server}], {client}}}]");
        let config = good(&text);
        agree(&config);
        let printed = config.to_value();
        let first = printed["routers"][0]["client"].clone();
        let first = if first["kind"] == "io.l5d.static" { first["configs"][0].clone() } else { first };
        for field in ["connectTimeoutMs", "maxWaiters", "minConnections", "loadBalancer"] {
            assert!(!first[field].is_null(), "{field}: {printed:#}");
        }
        for field in ["maxConsecutiveFailures", "failurePenaltySecs"] {
            assert!(!first["failFast"][field].is_null(), "{field}: {printed:#}");
        }
    }
}

#[test]
fn every_example_means_the_same_when_it_is_printed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/linkerd-tcp");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yml") {
            continue;
        }
        agree(&parse(&std::fs::read_to_string(&path).unwrap(), "f").unwrap().0);
        files += 1;
    }
    assert!(files >= 5, "{files}");
}

#[test]
fn every_field_is_printed() {
    let tls = "{dnsName: a.example, trustCerts: [ca.pem], clientAuth: {certs: [c.pem], privateKey: k.pem}, \
               alpnProtocols: [h2], minVersion: '1.3'}";
    let namerd = "{dnsName: n, trustCerts: [ca.pem], clientAuth: {certs: [c.pem], privateKey: k.pem}, minVersion: '1.3'}";
    let identity = "{certs: [c.pem, d.pem], privateKey: 'k:#.pem'}";
    let terminated = format!(
        "alpnProtocols: [h2, http/1.1], defaultIdentity: {identity}, identities: {{'*.a.example': {identity}}}, \
         clientAuth: {{trustCerts: [ca.pem], required: false}}"
    );
    let limits = "idleTimeoutMs: 1, handshakeTimeoutMs: 2, halfCloseTimeoutMs: 3";
    let proxies = format!(
        "{{admin: {{addr: '[::1]:1', metricsIntervalSecs: 7}}, bufferSize: 2048, workers: 3, proxies: [{{\
         label: 'a: #1', maxWaiters: 4, client: {{tls: {tls}, loadBalancer: {{kind: ewma}}}}, \
         namerd: {{url: 'https://n.example/x', path: /svc/web, namespace: b, intervalSecs: 9, watch: always, mode: bind, \
         requestTimeoutMs: 8, tls: {namerd}}}, \
         servers: [{{kind: io.l5d.tcp, addr: '[::1]:2', {limits}}}, \
         {{kind: io.l5d.tls, addr: '0.0.0.0:3', {limits}, {terminated}}}]}}]}}"
    );
    let routers = format!(
        "{{admin: {{ip: '::1', port: 1, metricsIntervalSecs: 7, graceSecs: 0}}, bufferSizeBytes: 2048, workers: 3, \
         routers: [{{label: 'yes', interpreter: {{kind: io.l5d.namerd.http, baseUrl: 'https://n.example', namespace: b, \
         periodSecs: 9, watch: never, mode: bind, requestTimeoutMs: 8, tls: {namerd}}}, \
         client: {{kind: io.l5d.static, configs: [{{prefix: /, tls: {tls}, connectTimeoutMs: 5}}, \
         {{prefix: '/svc/*', maxWaiters: 6, minConnections: 2, failFast: {{maxConsecutiveFailures: 2, failurePenaltySecs: 1}}, \
         loadBalancer: {{kind: ewma}}}}]}}, \
         servers: [{{port: 4, ip: '::', dstName: '/svc/{{sni}}', tls: {{{terminated}}}, connectTimeoutMs: 1, \
         connectionLifetimeSecs: 2, connectionLifetimeJitterSecs: 1, maxConcurrency: 9, {limits}}}]}}, \
         {{label: '0', interpreter: {{kind: io.l5d.static, addrs: {{/svc/a: [{{ip: '::1', port: 1, weight: 0.25}}], /svc/b: []}}}}, \
         client: {{kind: io.l5d.global, minConnections: 2, tls: {tls}}}, servers: [{{port: 5, dstName: /svc/a}}]}}]}}"
    );
    for text in [proxies, routers] {
        agree(&good(&text));
        let Fields { printed, mut missing } = Fields::of(&text);
        missing.retain(|name, _| !printed.contains(name));
        // The one has no effect, and `url` says the same as the other.
        for name in ["file with proxies: metricsIntervalSecs", "namerd of a proxy: addr"] {
            missing.remove(name);
        }
        assert!(missing.is_empty(), "{missing:?} of {text}");
    }
}
