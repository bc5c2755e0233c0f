//! Caddy: one processor, no log, its own certificates and admin interface off.

use std::io;

use serde_json::json;

use super::{Job, Launch};
use crate::tls::NAME;

/// Writes the configuration.
pub(super) fn configure(job: &Job<'_>) -> io::Result<Launch> {
    let servers: Vec<_> = job.backends.iter().map(|backend| json!({"dial": backend.to_string()})).collect();
    let proxy = json!({
        "handler": "reverse_proxy",
        "upstreams": servers,
        // It tells servers more about the client by itself.
        "headers": {"request": {"set": {"X-Real-IP": ["{http.request.remote.host}"]}}},
        "load_balancing": {"selection_policy": {"policy": "least_conn"}},
        // The default of 32 would make it connect for half of the requests.
        "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 1024}},
    });
    let mut server = json!({
        "listen": [job.listen.to_string()],
        "routes": [{"handle": [proxy]}],
        "automatic_https": {"disable": true},
    });
    let mut apps = json!({});
    if job.profile.client_tls() {
        server["tls_connection_policies"] = json!([{"protocol_min": "tls1.3", "default_sni": NAME}]);
        apps["tls"] = json!({"certificates": {"load_files": [{
            "certificate": job.identity.cert_file, "key": job.identity.key_file,
        }]}});
    }
    apps["http"] = json!({"servers": {"bench": server}});
    let text = json!({
        "admin": {"disabled": true},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": apps,
    });
    let file = job.write("caddy.json", &text.to_string())?;
    let env = [
        ("GOMAXPROCS", "1".to_owned()),
        ("HOME", job.dir.display().to_string()),
        ("XDG_DATA_HOME", job.dir.display().to_string()),
        ("XDG_CONFIG_HOME", job.dir.display().to_string()),
    ];
    Ok(Launch { args: ["run", "--config", &file].map(String::from).into(), env: env.into() })
}
