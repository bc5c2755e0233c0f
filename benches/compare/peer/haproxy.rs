//! HAProxy: one thread, no log, defaults otherwise.

use std::io;

use super::{Job, Launch};
use crate::tls::NAME;
use crate::workload::Profile;

/// Whether plain TCP may be spliced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Splice {
    /// As installed.
    Off,
    /// Always, both ways. Its automatic mode leaves some bulk connections on copies.
    On,
}

/// Writes the configuration.
pub(super) fn configure(job: &Job<'_>, splice: Splice) -> io::Result<Launch> {
    let bind = match job.profile {
        Profile::Terminate => {
            format!("ssl crt {} ssl-min-ver TLSv1.3", job.identity.both_file.display())
        }
        Profile::Https | Profile::HttpsBalance => {
            format!("ssl crt {} ssl-min-ver TLSv1.3 alpn h2,http/1.1", job.identity.both_file.display())
        }
        _ => String::new(),
    };
    let server = match job.profile {
        Profile::Originate => format!(
            "ssl verify required ca-file {} sni str({NAME}) verifyhost {NAME} ssl-min-ver TLSv1.3",
            job.identity.ca_file.display()
        ),
        _ => String::new(),
    };
    let options = match splice {
        Splice::On => "    option splice-request\n    option splice-response",
        // As all others: a kept connection serves the first request of a client, too.
        Splice::Off if job.profile.is_http() => "    http-reuse always",
        Splice::Off => "",
    };
    let mut text = format!(
        "global
    nbthread 1
defaults
    mode {}
    balance leastconn
    timeout connect 10s
    timeout client 10m
    timeout server 10m
{}
listen bench
    bind {} backlog 4096 {bind}
",
        if job.profile.is_http() { "http" } else { "tcp" },
        options,
        job.listen
    );
    if job.profile.is_http() {
        // What servers are told about the client, in place of what it says itself.
        text.push_str(
            "    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Real-IP %[src]
",
        );
        let proto = if job.profile.client_tls() { "https" } else { "http" };
        text.push_str(&format!("    http-request set-header X-Forwarded-Proto {proto}\n"));
    }
    for (i, backend) in job.backends.iter().enumerate() {
        text.push_str(&format!("    server s{i} {backend} {server}\n"));
    }
    let file = job.write("haproxy.cfg", &text)?;
    Ok(Launch::args(["-db", "-q", "-f", &file]))
}
