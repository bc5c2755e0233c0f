//! Every field in every spelling, and what its absence means.

use std::time::Duration;

use super::super::model::*;
use super::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A proxy with the given fields of `namerd`, and further fields of the proxy.
fn proxy(namerd: &str, more: &str) -> String {
    format!("proxies: [{{label: a, servers: [], namerd: {{{namerd}}}{more}}}]")
}

/// A router with one server that has further fields, and further fields of the router.
fn router(server: &str, more: &str) -> String {
    format!(
        "routers: [{{label: a, servers: [{{port: 1, dstName: /svc/a{server}}}], \
         interpreter: {{kind: io.l5d.namerd.http, baseUrl: 'http://[::1]:4180'}}{more}}}]"
    )
}

fn namerd(config: &Config) -> &Namerd {
    match &config.routers[0].resolver {
        ResolverConfig::Namerd(namerd) => namerd,
        ResolverConfig::Static(_) => panic!("not namerd"),
    }
}

fn server(text: &str) -> Server {
    good(text).routers.remove(0).servers.remove(0)
}

fn client(text: &str, path: &str) -> Client {
    parse(text, "f").unwrap().0.routers[0].client.for_destination(path)
}

#[test]
fn defaults_of_proxies() {
    let text =
        "proxies:\n- servers: [{kind: io.l5d.tcp, addr: '[::]:0'}]\n  namerd: {addr: '[::1]:4180', path: /a}";
    let config = good(text);

    assert_eq!(config.generation, Generation::Proxies);
    assert_eq!(config.admin.addr, "0.0.0.0:9989".parse().unwrap());
    assert_eq!((config.admin.metrics_interval, config.admin.grace), (secs(10), secs(10)));
    assert!(!config.admin.explicit_addr);
    assert_eq!((config.buffer_size, config.workers), (65536, None));
    let router = &config.routers[0];
    assert_eq!(router.label, "default");
    let server = &router.servers[0];
    assert_eq!((server.addr, server.dst.as_str()), ("[::]:0".parse().unwrap(), "/a"));
    assert_eq!((server.connect_timeout, server.connection_lifetime), (None, None));
    assert_eq!((server.max_connections, server.idle_timeout, server.half_close_timeout), (None, None, None));
    assert_eq!((server.handshake_timeout, &server.tls), (secs(10), &None));
    let namerd = namerd(&config);
    assert_eq!((namerd.base_url.as_str(), namerd.namespace.as_str()), ("http://[::1]:4180", "default"));
    assert_eq!((namerd.period, namerd.watch, namerd.mode), (secs(60), Watch::Auto, ResolveMode::Resolve));
    assert_eq!((namerd.request_timeout, &namerd.tls), (None, &None));
    let client = router.client.for_destination("/a");
    assert_eq!((client.max_waiters, client.min_connections, client.connect_timeout), (8, 0, None));
    assert_eq!((client.fail_fast.max_failures, client.fail_fast.penalty), (5, secs(60)));
    assert_eq!((client.load_balancer, client.tls), (LoadBalancer::P2c, None));
}

#[test]
fn defaults_of_routers() {
    let config = good(&router("", ""));

    assert_eq!(config.generation, Generation::Routers);
    assert_eq!(config.admin.addr, "127.0.0.1:9989".parse().unwrap());
    assert_eq!((config.admin.metrics_interval, config.admin.grace), (secs(60), secs(10)));
    assert!(!config.admin.explicit_addr);
    assert_eq!((config.buffer_size, config.workers), (65536, None));
    let router = &config.routers[0];
    let server = &router.servers[0];
    assert_eq!((server.addr, server.dst.as_str()), ("127.0.0.1:1".parse().unwrap(), "/svc/a"));
    assert_eq!((server.connect_timeout, server.connection_lifetime), (None, None));
    assert_eq!((server.max_connections, server.idle_timeout), (Some(100_000), None));
    assert_eq!((server.handshake_timeout, server.half_close_timeout), (secs(10), None));
    let namerd = namerd(&config);
    assert_eq!((namerd.namespace.as_str(), namerd.period), ("default", secs(20)));
    let client = router.client.for_destination("/svc/a");
    assert_eq!((client.max_waiters, client.min_connections, client.connect_timeout), (1_000_000, 0, None));
    assert_eq!((client.fail_fast.max_failures, client.fail_fast.penalty), (5, secs(60)));
}

#[test]
fn null_is_absent() {
    let full = "proxies:\n- label:\n  client: ~\n  maxWaiters: null\n  servers: []\n  namerd: {addr: 'a:1', url: , path: /a}\nadmin:\nworkers:\n";
    let config = parse(full, "f").unwrap().0;

    assert_eq!(config.routers[0].label, "default");
    assert_eq!(config.workers, None);
    assert!(good("routers: []\nadmin:").routers.is_empty());
}

#[test]
fn no_routers_run_only_the_admin_server() {
    assert!(good("proxies: []").routers.is_empty());
    assert!(good("{\"routers\": []}").routers.is_empty());
}

#[test]
fn text_before_the_document_does_not_count() {
    for text in
        ["\u{feff}proxies: []", "\n\n  \tproxies: []", " \r\n {\"proxies\": []}", "---\nproxies: []\n...\n"]
    {
        assert!(good(text).routers.is_empty(), "{text:?}");
    }
}

#[test]
fn process_of_proxies() {
    let config =
        good("proxies: []\nbufferSize: 65536\nworkers: 2\nadmin: {addr: '[::1]:0', metricsIntervalSecs: 3}");

    assert_eq!((config.buffer_size, config.workers), (65536, Some(2)));
    assert_eq!(config.admin.addr, "[::1]:0".parse().unwrap());
    assert_eq!((config.admin.metrics_interval, config.admin.explicit_addr), (secs(3), true));
}

#[test]
fn process_of_routers() {
    let config = good(
        "routers: []\nbufferSizeBytes: 1024\nworkers: 1\n\
         admin: {ip: '::1', port: 0, metricsIntervalSecs: 3, graceSecs: 0}",
    );

    assert_eq!((config.buffer_size, config.workers), (1024, Some(1)));
    assert_eq!(config.admin.addr, "[::1]:0".parse().unwrap());
    assert_eq!((config.admin.metrics_interval, config.admin.grace), (secs(3), secs(0)));
    assert!(config.admin.explicit_addr);
    let only = |text: &str| good(&format!("routers: []\nadmin: {{{text}}}")).admin;
    assert_eq!(only("port: 80").addr, "127.0.0.1:80".parse().unwrap());
    assert_eq!(only("ip: 1.2.3.4").addr, "1.2.3.4:9989".parse().unwrap());
    assert!(only("ip: 1.2.3.4").explicit_addr && only("port: 80").explicit_addr);
    assert!(!only("graceSecs: 1").explicit_addr);
}

#[test]
fn fields_that_work_with_a_warning() {
    for (text, warning) in [
        (
            "metricsIntervalSecs: 5\nproxies: []",
            "f:1:22: metricsIntervalSecs: warning: this field has no effect; `admin.metricsIntervalSecs` has",
        ),
        (
            "proxies: []\nbufferSize: 0",
            "f:2:13: bufferSize: warning: a buffer of 0 bytes; the useful range is 1024 to 16777216, 1024 is used",
        ),
        (
            "routers: []\nbufferSizeBytes: 99999999",
            "f:2:18: bufferSizeBytes: warning: a buffer of 99999999 bytes; the useful range is 1024 to 16777216, \
             16777216 is used",
        ),
        (
            &router("", ",\n client: {kind: io.l5d.static, configs: [{prefix: /svc/b}]}"),
            "f:2:51: routers[0].client.configs[0].prefix: warning: this prefix matches the destination of no server \
             of the router",
        ),
        (
            "routers:\n- label: a\n  servers: [{port: 1, dstName: /b}]\n  interpreter: {kind: io.l5d.static, addrs: {/a: []}}",
            "f:3:13: routers[0].servers[0]: warning: no endpoints: `interpreter.addrs` has no \"/b\"",
        ),
        (
            "proxies:\n- label: a\n  servers: [{kind: io.l5d.tcp, addr: '0.0.0.0:1'}, {kind: io.l5d.tcp, addr: '10.0.0.1:1'}]\n  namerd: {addr: '127.0.0.1:1', path: /a}",
            "f:3:77: proxies[0].servers[1].addr: warning: 10.0.0.1:1 and 0.0.0.0:1 of `proxies[0].servers[0].addr` in line 3 \
             overlap: only passed sockets may be both",
        ),
        (
            "routers:\n- label: a\n  servers: [{port: 1, ip: 0.0.0.0, dstName: /b}]\n  \
             interpreter: {kind: io.l5d.static, addrs: {/b: [{ip: 10.0.0.1, port: 1}, {ip: 127.0.0.1, port: 1}]}}",
            "f:3:13: routers[0].servers[0]: warning: the endpoint 127.0.0.1:1 is this server: connections would go round in \
             circles",
        ),
    ] {
        let (_, warnings) = parse(text, "f").unwrap();
        assert_eq!(warnings.len(), 1, "{text}");
        assert_eq!(warnings[0].to_string().lines().next(), Some(warning));
    }
}

#[test]
fn absent_labels_are_made_up() {
    let one = |label: &str| format!("- {{servers: [], namerd: {{addr: '127.0.0.1:1', path: /a}}{label}}}\n");
    let text = format!("proxies:\n{}{}{}{}", one(""), one(", label: default-2"), one(""), one(""));

    let labels: Vec<_> = good(&text).routers.into_iter().map(|router| router.label).collect();
    assert_eq!(labels, ["default", "default-2", "default-3", "default-4"]);
}

#[test]
fn addresses_of_namerd() {
    for (fields, base) in [
        ("addr: 127.0.0.1:4180", "http://127.0.0.1:4180"),
        ("addr: '[::1]:4180'", "http://[::1]:4180"),
        ("addr: '[fe80::1%2]:4180'", "http://[fe80::1]:4180"),
        ("addr: namerd.local:80", "http://namerd.local:80"),
        ("addr: 'namerd:80', tls: {}", "https://namerd:80"),
        ("url: 'http://127.0.0.1:4180'", "http://127.0.0.1:4180"),
        ("url: 'http://127.0.0.1:4180/'", "http://127.0.0.1:4180"),
        ("url: 'HTTP://h/a/b//'", "http://h/a/b"),
        ("url: 'https://h', tls: {trustCerts: [a]}", "https://h"),
        ("url: 'https://[::1]'", "https://[::1]"),
    ] {
        let text = proxy(&format!("path: /a, {fields}"), "");
        let config = parse(&text, "f").unwrap_or_else(|error| panic!("{error}")).0;
        assert_eq!(namerd(&config).base_url, base);
    }
}

#[test]
fn fields_of_namerd() {
    let more = "namespace: a/b, watch: never, requestTimeoutMs: 7, mode: bind, \
                tls: {dnsName: n, trustCerts: [c], minVersion: 1.3, clientAuth: {certs: [x], privateKey: y}}";
    let a = good(&proxy(&format!("path: /a, url: 'https://h', intervalSecs: 1, {more}"), ""));
    let b = good(&format!(
        "routers: [{{label: a, servers: [], interpreter: {{kind: io.l5d.namerd.http, baseUrl: 'https://h', \
         periodSecs: 1, {more}}}}}]"
    ));

    for config in [a, b] {
        let namerd = namerd(&config);
        assert_eq!((namerd.namespace.as_str(), namerd.period), ("a/b", secs(1)));
        assert_eq!((namerd.watch, namerd.mode), (Watch::Never, ResolveMode::Bind));
        assert_eq!(namerd.request_timeout, Some(millis(7)));
        let tls = namerd.tls.as_ref().unwrap();
        assert_eq!((tls.dns_name.as_deref(), tls.min_version), (Some("n"), TlsVersion::V13));
        assert!(tls.trust_certs.is_some() && tls.client_auth.is_some());
    }
}

#[test]
fn static_endpoints() {
    let config = good(
        "routers: [{label: a, servers: [], interpreter: {kind: io.l5d.static, addrs: {\
         /svc/x: [{ip: 127.0.0.1, port: 1}, {ip: '::1', port: 2, weight: 0.5}, {ip: '::1', port: 3, weight: 2}], \
         /svc/y: []}}}]",
    );

    let ResolverConfig::Static(addrs) = &config.routers[0].resolver else { panic!("not static") };
    let found: Vec<_> = addrs["/svc/x"].iter().map(|e| (e.addr.to_string(), e.weight)).collect();
    let expected = [("127.0.0.1:1", 1.0), ("[::1]:2", 0.5), ("[::1]:3", 2.0)];
    assert_eq!(found, expected.map(|(addr, weight)| (addr.to_string(), weight)));
    assert!(addrs["/svc/y"].is_empty());
}

#[test]
fn tls_servers_of_proxies_in_all_spellings() {
    let identities = [
        ("alpnProtocols", "defaultIdentity", "certs", "privateKey"),
        ("alpn_protocols", "default_identity", "certPaths", "privateKeyPath"),
    ];
    for (alpn, default, certs, key) in identities {
        let server = server(&format!(
            "proxies:\n- namerd: {{addr: '127.0.0.1:1', path: /a}}\n  servers:\n  - kind: io.l5d.tls\n    addr: '[::]:443'\n    \
             {alpn}: [h2, http/1.1]\n    {default}: {{{certs}: [a, b], {key}: c}}\n    \
             identities: {{Www.Example.com: {{{certs}: [d], {key}: e}}, '*.x.org': {{certs: [f], privateKey: g}}}}\n    \
             clientAuth: {{trustCerts: [t], required: false}}\n    \
             idleTimeoutMs: 1\n    handshakeTimeoutMs: 2\n    halfCloseTimeoutMs: 3\n"
        ));

        let tls = server.tls.as_ref().unwrap();
        assert_eq!(tls.alpn, ["h2", "http/1.1"]);
        let identity = tls.default_identity.as_ref().unwrap();
        assert_eq!(identity.certs[1].path.to_str(), Some("b"));
        assert_eq!(identity.private_key.path.to_str(), Some("c"));
        let names: Vec<_> = tls.identities.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["www.example.com", "*.x.org"]);
        assert!(!tls.client_auth.as_ref().unwrap().required);
        assert_eq!(server.idle_timeout, Some(millis(1)));
        assert_eq!(server.handshake_timeout, millis(2));
        assert_eq!(server.half_close_timeout, Some(millis(3)));
    }
}

#[test]
fn servers_of_routers() {
    let server = server(
        "routers: [{label: a, interpreter: {kind: io.l5d.static, addrs: {}}, servers: [{port: 0, ip: '::', \
         dstPath: '/svc/{sni}', connectTimeoutMs: 1, connectionLifetimeSecs: 2, connectionLifetimeJitterSecs: 1, maxConcurrency: 3, \
         idleTimeoutMs: 4, handshakeTimeoutMs: 5, halfCloseTimeoutMs: 6, tls: {alpnProtocols: [h2], \
         identities: {a.b: {certs: [c], privateKey: d}}, clientAuth: {trustCerts: [t]}}}]}]",
    );

    assert_eq!(server.addr, "[::]:0".parse().unwrap());
    assert!(server.is_routed_by_sni());
    assert_eq!(server.connect_timeout, Some(millis(1)));
    assert_eq!((server.connection_lifetime, server.lifetime_jitter), (Some(secs(2)), secs(1)));
    assert_eq!(server.max_connections, Some(3));
    assert_eq!(server.idle_timeout, Some(millis(4)));
    assert_eq!(server.handshake_timeout, millis(5));
    assert_eq!(server.half_close_timeout, Some(millis(6)));
    let tls = server.tls.unwrap();
    assert_eq!((tls.alpn.len(), tls.default_identity, tls.identities.len()), (1, None, 1));
    assert!(tls.client_auth.unwrap().required);
}

#[test]
fn identities_in_all_combinations() {
    let id = "{certs: [a], privateKey: b}";
    for fields in [
        format!("defaultIdentity: {id}"),
        format!("identities: {{a.b: {id}}}"),
        format!("defaultIdentity: {id}, identities: {{a.b: {id}}}"),
        format!("defaultIdentity: {id}, identities: {{}}"),
    ] {
        assert!(server(&router(&format!(", tls: {{{fields}}}"), "")).tls.is_some(), "{fields}");
    }
}

#[test]
fn clients_of_proxies_in_all_spellings() {
    for (name, certs) in [("dnsName", "trustCerts"), ("name", "trustCertPaths")] {
        let more = format!(
            ", maxWaiters: 0, client: {{loadBalancer: {{kind: ewma}}, tls: {{{name}: a.b., {certs}: [c], \
             alpnProtocols: [h2], minVersion: '1.2', clientAuth: {{certs: [x], privateKey: y}}}}}}"
        );
        let client = client(&proxy("addr: '127.0.0.1:1', path: /a", &more), "/a");

        assert_eq!((client.max_waiters, client.load_balancer), (1, LoadBalancer::Ewma));
        let tls = client.tls.unwrap();
        assert_eq!((tls.dns_name.as_str(), tls.min_version), ("a.b", TlsVersion::V12));
        assert_eq!((tls.trust_certs.unwrap().len(), tls.alpn), (1, vec!["h2".to_string()]));
        assert!(tls.client_auth.is_some());
    }
    let client = client(&proxy("addr: '127.0.0.1:1', path: /a", ", client: {tls: {dnsName: '::1'}}"), "/a");
    let tls = client.tls.unwrap();
    assert_eq!((tls.dns_name.as_str(), tls.trust_certs), ("::1", None));
}

#[test]
fn a_global_client_applies_everywhere() {
    let more = ", client: {kind: io.l5d.global, tls: {dnsName: a}, connectTimeoutMs: 1, maxWaiters: 2, \
                minConnections: 3, failFast: {maxConsecutiveFailures: 4, failurePenaltySecs: 5}, \
                loadBalancer: {kind: p2c}}";
    let client = client(&router("", more), "/svc/a");

    assert_eq!(client.tls.unwrap().dns_name, "a");
    assert_eq!((client.connect_timeout, client.max_waiters), (Some(millis(1)), 2));
    assert_eq!((client.min_connections, client.load_balancer), (3, LoadBalancer::P2c));
    assert_eq!((client.fail_fast.max_failures, client.fail_fast.penalty), (4, secs(5)));
}

#[test]
fn static_clients_are_merged_field_by_field_in_the_order_of_the_file() {
    let more = ", client: {kind: io.l5d.static, configs: [\
        {prefix: /svc/, tls: {dnsName: all}, connectTimeoutMs: 1, failFast: {maxConsecutiveFailures: 9}}, \
        {prefix: '/*/a', maxWaiters: 2, minConnections: 7, failFast: {failurePenaltySecs: 3}}, \
        {prefix: /svc/a, connectTimeoutMs: 4, loadBalancer: {kind: ewma}}, \
        {prefix: /, minConnections: 5}, \
        {prefix: /svc/a/b/c, tls: {dnsName: longer}}]}";
    let text = router("", more);

    let a = client(&text, "/svc/a");
    assert_eq!(a.tls.unwrap().dns_name, "all");
    assert_eq!((a.connect_timeout, a.max_waiters, a.min_connections), (Some(millis(4)), 2, 5));
    assert_eq!((a.fail_fast.max_failures, a.fail_fast.penalty), (9, secs(3)));
    assert_eq!(a.load_balancer, LoadBalancer::Ewma);
    let b = client(&text, "/svc/b");
    assert_eq!((b.connect_timeout, b.max_waiters, b.min_connections), (Some(millis(1)), 1_000_000, 5));
    let other = client(&text, "/svcx");
    assert_eq!((other.tls, other.min_connections), (None, 5));
}

#[test]
fn anchors_and_merge_keys_are_understood() {
    let text = "proxies:\n\
        - {label: a, servers: [], namerd: &n {addr: '127.0.0.1:1', path: /a}}\n\
        - {label: b, servers: [], namerd: *n}\n\
        - {label: c, servers: [], namerd: {<<: *n, path: /b, intervalSecs: 3}}\n";
    let config = good(text);

    let periods = config.routers.iter().map(|router| match &router.resolver {
        ResolverConfig::Namerd(namerd) => namerd.period,
        ResolverConfig::Static(_) => panic!("not namerd"),
    });
    assert_eq!(periods.collect::<Vec<_>>(), [secs(60), secs(60), secs(3)]);
}

#[test]
fn huge_times_do_not_overflow_a_clock() {
    let server = server(&router(", connectionLifetimeSecs: 18446744073709551615", ""));

    let limit = server.connection_lifetime.unwrap();
    assert!(limit >= secs(20 * 365 * 24 * 3600));
    assert!(tokio::time::Instant::now().checked_add(limit).is_some());
}
