//! HAProxy: one thread, no log, defaults otherwise.

use std::io;

use super::Job;
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
pub(super) fn configure(job: &Job<'_>, splice: Splice) -> io::Result<Vec<String>> {
    let bind = match job.profile {
        Profile::Terminate => {
            format!("ssl crt {} ssl-min-ver TLSv1.3", job.identity.both_file.display())
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
    let mut text = format!(
        "global
    nbthread 1
defaults
    mode tcp
    balance leastconn
    timeout connect 10s
    timeout client 10m
    timeout server 10m
{}
listen bench
    bind {} backlog 4096 {bind}
",
        if splice == Splice::On { "    option splice-request\n    option splice-response" } else { "" },
        job.listen
    );
    for (i, backend) in job.backends.iter().enumerate() {
        text.push_str(&format!("    server s{i} {backend} {server}\n"));
    }
    let file = job.write("haproxy.cfg", &text)?;
    Ok(["-db", "-q", "-f", &file].map(String::from).into())
}
