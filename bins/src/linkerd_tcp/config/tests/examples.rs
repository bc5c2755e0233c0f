//! The documented examples start, and mean the same as YAML and as JSON.

use std::time::Duration;

use super::super::model::ResolverConfig;
use super::*;

macro_rules! example {
    ($name:literal) => {
        [
            include_str!(concat!("../../../../tests/data/linkerd-tcp/", $name, ".yml")),
            include_str!(concat!("../../../../tests/data/linkerd-tcp/", $name, ".json")),
        ]
    };
}

/// Parses both forms and gives the first.
fn both([yaml, json]: [&str; 2]) -> Config {
    let config = parse(yaml, "yml").unwrap().0;
    assert_eq!(without_places(&config), without_places(&parse(json, "json").unwrap().0));
    // The whole file on one line is JSON as programs write it.
    let line: String = json.lines().map(str::trim).collect();
    assert_eq!(without_places(&config), without_places(&parse(&line, "json").unwrap().0));
    config
}

fn base_url(config: &Config) -> &str {
    match &config.routers[0].resolver {
        ResolverConfig::Namerd(namerd) => &namerd.base_url,
        ResolverConfig::Static(_) => panic!("not namerd"),
    }
}

#[test]
fn proxies_with_tls_on_both_sides() {
    let config = both(example!("a-tls"));

    let router = &config.routers[0];
    assert_eq!(router.servers.len(), 2);
    assert_eq!(router.servers[0].tls, None);
    let tls = router.servers[1].tls.as_ref().unwrap();
    assert!(tls.identities.is_empty());
    assert_eq!(tls.default_identity.as_ref().unwrap().certs.len(), 2);
    let client = router.client.for_destination("/svc/google").tls.unwrap();
    assert_eq!(client.dns_name, "www.google.com");
    let trusted: Vec<_> = client.trust_certs.iter().flatten().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(trusted, ["../ca/intermediate/chain.pem", "/usr/local/etc/openssl/cert.pem"]);
}

#[test]
fn proxies_with_a_url() {
    let config = both(example!("a-url"));

    assert_eq!(base_url(&config), "http://127.0.0.1:4180");
    assert!(config.admin.explicit_addr);
    let ResolverConfig::Namerd(namerd) = &config.routers[0].resolver else { panic!("not namerd") };
    assert_eq!(namerd.period, Duration::from_secs(5));
}

#[test]
fn routers_with_a_global_client() {
    let config = both(example!("b-global"));

    let router = &config.routers[0];
    assert_eq!(router.servers[0].connect_timeout, Some(Duration::from_millis(500)));
    assert_eq!(router.servers[0].connection_lifetime, Some(Duration::from_secs(60)));
    let client = router.client.for_destination("/svc/default");
    assert_eq!(client.min_connections, 3);
    assert_eq!(client.connect_timeout, Some(Duration::from_millis(500)));
}

#[test]
fn routers_with_static_clients() {
    let config = both(example!("b-static"));

    let router = &config.routers[0];
    assert_eq!(router.servers.len(), 2);
    assert!(router.client.for_destination("/svc/google").tls.is_some());
    assert_eq!(router.client.for_destination("/svc/yahoo").tls, None);
}

#[test]
fn routers_with_a_host_name() {
    let config = both(example!("b-host-name"));

    assert_eq!(base_url(&config), "http://namerd:4180");
    let (_, warnings) = parse(example!("b-host-name")[0], "b.yml").unwrap();
    assert_eq!(
        warnings[0].to_string(),
        "b.yml:13:16: routers[0].interpreter.baseUrl: warning: discovery over plain HTTP: whoever can change the \
         answers can divert connections\n  |       baseUrl: http://namerd:4180\n  |                ^"
    );
}

#[test]
fn the_example_of_the_repository() {
    let config = good(include_str!("../../../../../example.yml"));

    assert_eq!(config.routers[0].servers[0].addr, "127.0.0.1:7474".parse().unwrap());
    assert_eq!(base_url(&config), "http://127.0.0.1:4180");
}

#[test]
fn a_file_is_found_again_after_parsing() {
    let config = parse(example!("a-tls")[0], "a.yml").unwrap().0;

    let tls = config.routers[0].servers[1].tls.as_ref().unwrap();
    let key = &tls.default_identity.as_ref().unwrap().private_key;
    assert_eq!(
        key.problem("no such file").to_string(),
        "a.yml:10:23: proxies[0].servers[1].defaultIdentity.privateKey: no such file\n  |           privateKey: \
         private.pem\n  |                       ^"
    );
    assert_eq!(tls.place.to_string(), "a.yml:7:9: proxies[0].servers[1]");
}
