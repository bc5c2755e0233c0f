//! What the program is told: its configuration as JSON, which readers of YAML accept.

use std::net::SocketAddr;

use benches::tls::Identity;
use benches::tls::NAME;
use serde_json::Value;
use serde_json::json;

/// The name that every server asks for.
pub(crate) const PATH: &str = "/svc/web";

/// A configuration with this grace and no router yet.
pub(crate) fn empty(grace_secs: u64) -> Value {
    json!({"admin": {"port": 0, "graceSecs": grace_secs}, "routers": []})
}

/// Adds a router with one server.
///
/// `server` and `client` are what they have beyond the address and the kind. The server listens everywhere, so
/// that clients have all of 127.0.0.0/8 to spread their connections over.
pub(crate) fn add_router(config: &mut Value, server: Value, interpreter: Value, client: Value) {
    let with = |mut base: Value, more: Value| {
        if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
            base.extend(more);
        }
        base
    };
    if let Some(routers) = config["routers"].as_array_mut() {
        routers.push(json!({
            "label": format!("r{}", routers.len()),
            "servers": [with(json!({"ip": "0.0.0.0", "port": 0, "dstName": PATH}), server)],
            "interpreter": interpreter,
            "client": with(json!({"kind": "io.l5d.global"}), client),
        }));
    }
}

/// Endpoints that never change.
pub(crate) fn fixed(endpoints: &[SocketAddr]) -> Value {
    let addrs: Vec<_> = endpoints.iter().map(|addr| json!({"ip": addr.ip(), "port": addr.port()})).collect();
    json!({"kind": "io.l5d.static", "addrs": {PATH: addrs}})
}

/// Endpoints from a name server.
pub(crate) fn namerd(url: &str) -> Value {
    json!({"kind": "io.l5d.namerd.http", "baseUrl": url, "namespace": "default", "periodSecs": 20})
}

/// TLS towards clients.
pub(crate) fn server_tls(identity: &Identity) -> Value {
    json!({"tls": {"defaultIdentity": {"certs": [identity.cert_file], "privateKey": identity.key_file}}})
}

/// TLS towards endpoints.
pub(crate) fn client_tls(identity: &Identity) -> Value {
    json!({"tls": {"dnsName": NAME, "trustCerts": [identity.ca_file]}})
}
