//! The project's own linkerd-tcp: one worker, names from the configuration itself.

use std::io;

use serde_json::{Value, json};

use super::Job;
use crate::tls::NAME;
use crate::workload::Profile;

/// Writes the configuration. YAML readers accept JSON.
pub(super) fn configure(job: &Job<'_>) -> io::Result<Vec<String>> {
    let mut server = json!({"port": job.listen.port(), "ip": job.listen.ip(), "dstName": "/svc/web"});
    if job.profile == Profile::Terminate {
        let identity = json!({"certs": [job.identity.cert_file], "privateKey": job.identity.key_file});
        server["tls"] = json!({"defaultIdentity": identity});
    }
    // Between equal servers the balancer does not matter; between unequal ones the documented choice is
    // `ewma`.
    let balancer = if job.profile == Profile::Balance { "ewma" } else { "p2c" };
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
    Ok(["--workers", "1", &file].map(String::from).into())
}
