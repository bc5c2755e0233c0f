//! The project's own programs: linkerd-tcp, tricot, and for plain HTTP a proxy of the library alone; one worker each.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Job, Launch};
use crate::tls::NAME;
use crate::workload::Profile;

/// The program for a job, in the folder that cargo builds into.
pub(super) fn program(profile: Profile) -> &'static str {
    match profile {
        Profile::Http => "embedded",
        Profile::Https | Profile::HttpsBalance => "tricot",
        Profile::Tcp | Profile::Terminate | Profile::Originate | Profile::Balance => "linkerd-tcp",
    }
}

/// Writes the configuration.
pub(super) fn configure(job: &Job<'_>) -> io::Result<Launch> {
    match job.profile {
        Profile::Http => Ok(embedded(job)),
        Profile::Https | Profile::HttpsBalance => tricot(job),
        Profile::Tcp | Profile::Terminate | Profile::Originate | Profile::Balance => linkerd_tcp(job),
    }
}

fn embedded(job: &Job<'_>) -> Launch {
    let addrs = std::iter::once(&job.listen).chain(job.backends);
    Launch { args: addrs.map(SocketAddr::to_string).collect(), env: Vec::new() }
}

fn tricot(job: &Job<'_>) -> io::Result<Launch> {
    let catalog = job.catalog.ok_or_else(|| io::Error::other("it needs Consul"))?;
    let env = [
        ("TRICOT_LETSENCRYPT_EMAIL", "bench@bench.example".to_owned()),
        ("TRICOT_NODE_NAME", "bench".to_owned()),
        ("TRICOT_CONSUL_HOST", format!("http://{catalog}")),
        ("TRICOT_HTTP_BIND_ADDR", job.admin.to_string()),
        ("TRICOT_HTTPS_BIND_ADDR", job.listen.to_string()),
        // As for all.
        ("TRICOT_ACCESS_LOG", "off".to_owned()),
        ("TRICOT_LB", balancer(job.profile).to_owned()),
    ];
    Ok(Launch { args: Vec::new(), env: env.into() })
}

/// YAML readers accept JSON.
fn linkerd_tcp(job: &Job<'_>) -> io::Result<Launch> {
    let mut server = json!({"port": job.listen.port(), "ip": job.listen.ip(), "dstName": "/svc/web"});
    if job.profile == Profile::Terminate {
        let identity = json!({"certs": [job.identity.cert_file], "privateKey": job.identity.key_file});
        server["tls"] = json!({"defaultIdentity": identity});
    }
    let balancer = balancer(job.profile);
    let mut client = json!({"kind": "io.l5d.global", "loadBalancer": {"kind": balancer}});
    if job.profile == Profile::Originate {
        client["tls"] = json!({"dnsName": NAME, "trustCerts": [job.identity.ca_file]});
    }
    let addrs: Vec<Value> =
        job.backends.iter().map(|backend| json!({"ip": backend.ip(), "port": backend.port()})).collect();
    let text = json!({
        "admin": {"ip": job.admin.ip(), "port": job.admin.port()},
        "routers": [{
            "label": "bench",
            "servers": [server],
            "interpreter": {"kind": "io.l5d.static", "addrs": {"/svc/web": addrs}},
            "client": client,
        }],
    });
    let file = job.write("linkerd-tcp.yaml", &format!("{text:#}\n"))?;
    Ok(Launch { args: ["--workers", "1", &file].map(String::from).into(), env: Vec::new() })
}

/// Between equal servers the balancer does not matter; between unequal ones the documented choice is `ewma`.
fn balancer(profile: Profile) -> &'static str {
    if matches!(profile, Profile::Balance | Profile::HttpsBalance) { "ewma" } else { "p2c" }
}
