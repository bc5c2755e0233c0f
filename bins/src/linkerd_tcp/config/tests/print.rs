//! What is printed is a configuration of the same language that means the same.

use super::*;
use crate::kit::load::yaml;

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
        router.client = crate::linkerd_tcp::config::model::ClientRules::new(1, Vec::new());
    }
    // Whether the usual address is written down makes no difference to routers.
    (config.admin.explicit_addr, config.admin.place) = (true, None);
    without_places(&config)
}

fn agree(config: &Config) {
    let printed = again(config);
    assert_eq!(without_clients(&printed), without_clients(config));
    for (new, old) in printed.routers.iter().zip(&config.routers) {
        for server in &old.servers {
            let (new, old) =
                (new.client.for_destination(&server.dst), old.client.for_destination(&server.dst));
            assert_eq!(format!("{new:?}").split("place").next(), format!("{old:?}").split("place").next());
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
    agree(&good(&format!(
        "{{admin: {{addr: '[::1]:1', metricsIntervalSecs: 7}}, bufferSize: 2048, workers: 3, proxies: [{{\
         label: 'a: #1', maxWaiters: 4, client: {{tls: {tls}, loadBalancer: {{kind: ewma}}}}, \
         namerd: {{url: 'https://n.example/x', path: /svc/web, namespace: b, intervalSecs: 9, watch: always, mode: bind, \
         requestTimeoutMs: 8, tls: {namerd}}}, \
         servers: [{{kind: io.l5d.tcp, addr: '[::1]:2', {limits}}}, \
         {{kind: io.l5d.tls, addr: '0.0.0.0:3', {limits}, {terminated}}}]}}]}}"
    )));
    agree(&good(&format!(
        "{{admin: {{ip: '::1', port: 1, metricsIntervalSecs: 7, graceSecs: 0}}, bufferSizeBytes: 2048, workers: 3, \
         routers: [{{label: 'yes', interpreter: {{kind: io.l5d.namerd.http, baseUrl: 'https://n.example', namespace: b, \
         periodSecs: 9, watch: never, mode: bind, requestTimeoutMs: 8, tls: {namerd}}}, \
         client: {{kind: io.l5d.static, configs: [{{prefix: /, tls: {tls}, connectTimeoutMs: 5}}, \
         {{prefix: '/svc/*', maxWaiters: 6, minConnections: 2, failFast: {{maxConsecutiveFailures: 2, failurePenaltySecs: 1}}, \
         loadBalancer: {{kind: ewma}}}}]}}, \
         servers: [{{port: 4, ip: '::', dstName: '/svc/{{sni}}', tls: {{{terminated}}}, connectTimeoutMs: 1, \
         connectionLifetimeSecs: 2, connectionLifetimeJitterSecs: 1, maxConcurrency: 9, {limits}}}]}}, \
         {{label: '0', interpreter: {{kind: io.l5d.static, addrs: {{/svc/a: [{{ip: '::1', port: 1, weight: 0.25}}], /svc/b: []}}}}, \
         client: {{kind: io.l5d.global, minConnections: 2}}, servers: [{{port: 5, dstName: /svc/a}}]}}]}}"
    )));
}
