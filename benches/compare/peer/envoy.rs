//! Envoy: one worker, static configuration, no admin interface, no access log.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Job, Launch};
use crate::tls::NAME;
use crate::workload::Profile;

/// Writes the configuration.
pub(super) fn configure(job: &Job<'_>) -> io::Result<Launch> {
    let mut chain = json!({"filters": [if job.profile.is_http() { http_filter() } else { tcp_filter() }]});
    if job.profile.client_tls() {
        let protocols: &[&str] = if job.profile.is_http() { &["h2", "http/1.1"] } else { &[] };
        chain["transport_socket"] = tls_socket(
            "DownstreamTlsContext",
            json!({"common_tls_context": {
                "tls_params": only_1_3(),
                "alpn_protocols": protocols,
                "tls_certificates": [{
                    "certificate_chain": {"filename": job.identity.cert_file},
                    "private_key": {"filename": job.identity.key_file},
                }],
            }}),
        );
    }
    let endpoints: Vec<Value> =
        job.backends.iter().map(|backend| json!({"endpoint": {"address": address(*backend)}})).collect();
    let mut cluster = json!({
        "name": "bench",
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": "bench", "endpoints": [{"lb_endpoints": endpoints}]},
        // The default stops at 1,024 connections, which the idle workloads exceed.
        "circuit_breakers": {"thresholds": [{
            "max_connections": 1_000_000, "max_pending_requests": 1_000_000, "max_requests": 1_000_000,
        }]},
    });
    if job.profile == Profile::Originate {
        cluster["transport_socket"] = tls_socket(
            "UpstreamTlsContext",
            json!({
                "sni": NAME,
                "common_tls_context": {
                    "tls_params": only_1_3(),
                    "validation_context": {
                        "trusted_ca": {"filename": job.identity.ca_file},
                        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
                    },
                },
            }),
        );
    }
    let listener = json!({
        "name": "bench", "address": address(job.listen), "filter_chains": [chain], "tcp_backlog_size": 4096,
    });
    let text = json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}}).to_string();
    let file = job.write("envoy.json", &text)?;
    let args =
        ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--config-path", &file];
    Ok(Launch::args(args))
}

fn tcp_filter() -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench",
            "cluster": "bench",
        },
    })
}

fn http_filter() -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let host = json!({
        "name": "bench",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "bench"}}],
        "request_headers_to_add": [
            told("X-Forwarded-Host", "%REQ(:AUTHORITY)%"),
            told("X-Real-IP", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ],
    });
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "http_filters": [router],
            // What servers are told about the client, in place of what it says itself. The protocol is told anyway.
            "use_remote_address": true,
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [host]},
        },
    })
}

fn told(key: &str, value: &str) -> Value {
    json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
}

fn address(addr: SocketAddr) -> Value {
    json!({"socket_address": {"address": addr.ip(), "port_value": addr.port()}})
}

fn only_1_3() -> Value {
    json!({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"})
}

fn tls_socket(context: &str, mut config: Value) -> Value {
    config["@type"] =
        format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}").into();
    json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}
