//! nginx with its stream module: one worker, no access log, defaults otherwise.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Job;
use crate::tls::NAME;
use crate::workload::Profile;

/// Writes the configuration.
pub(super) fn configure(job: &Job<'_>, program: &Path) -> io::Result<Vec<String>> {
    let module = match dynamic_module(program) {
        Stream::Dynamic(path) => format!("load_module {};", path.display()),
        _ => String::new(),
    };
    let (listen, tls) = match job.profile {
        Profile::Terminate => (
            "ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
                job.identity.cert_file.display(),
                job.identity.key_file.display()
            ),
        ),
        Profile::Originate => (
            "",
            format!(
                "proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_server_name on;
         proxy_ssl_name {NAME}; proxy_ssl_trusted_certificate {};",
                job.identity.ca_file.display()
            ),
        ),
        _ => ("", String::new()),
    };
    let servers: String =
        job.backends.iter().map(|backend| format!("        server {backend} max_fails=0;\n")).collect();
    let text = format!(
        "{module}
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {dir}/nginx.pid;
error_log stderr error;
events {{ worker_connections {descriptors}; }}
stream {{
    upstream bench {{
        least_conn;
{servers}    }}
    server {{
        listen {listen_on} {listen} backlog=4096;
        proxy_pass bench;
        {tls}
    }}
}}
",
        descriptors = job.descriptors,
        dir = job.dir.display(),
        listen_on = job.listen,
    );
    let file = job.write("nginx.conf", &text)?;
    let dir = job.dir.display().to_string();
    Ok(["-e", "stderr", "-p", &dir, "-c", &file].map(String::from).into())
}

/// Says why this nginx cannot forward TCP.
pub(super) fn stream_support(program: &Path) -> Result<(), String> {
    match dynamic_module(program) {
        Stream::BuiltIn | Stream::Dynamic(_) => Ok(()),
        Stream::Missing => Err("its stream module is not installed (libnginx-mod-stream)".into()),
    }
}

/// How the stream module comes.
enum Stream {
    BuiltIn,
    Dynamic(PathBuf),
    Missing,
}

fn dynamic_module(program: &Path) -> Stream {
    let Ok(output) = Command::new(program).arg("-V").output() else {
        return Stream::Missing;
    };
    let options = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut options = options.split_whitespace();
    if options.clone().any(|option| option == "--with-stream") {
        return Stream::BuiltIn;
    }
    let dir = options.find_map(|option| option.strip_prefix("--modules-path="));
    let path = Path::new(dir.unwrap_or("/usr/lib/nginx/modules")).join("ngx_stream_module.so");
    if path.is_file() { Stream::Dynamic(path) } else { Stream::Missing }
}
