//! nginx with its stream module: one worker, no access log, defaults otherwise.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Job, Launch};
use crate::tls::NAME;
use crate::workload::Profile;

/// Writes the configuration.
pub(super) fn configure(job: &Job<'_>, program: &Path) -> io::Result<Launch> {
    let module = match dynamic_module(program) {
        Stream::Dynamic(path) if !job.profile.is_http() => format!("load_module {};", path.display()),
        _ => String::new(),
    };
    let (listen, tls) = match job.profile {
        Profile::Terminate | Profile::Https | Profile::HttpsBalance => (
            // Releases since 1.25.1 would rather have a directive of its own, and take this one.
            if job.profile.is_http() { "ssl http2" } else { "ssl" },
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
    let (block, keep, pass) = if job.profile.is_http() {
        (format!("http {{\n    {}", http_settings(job)), "        keepalive 1024;\n", HTTP_PASS)
    } else {
        ("stream {".to_owned(), "", "proxy_pass bench;")
    };
    let text = format!(
        "{module}
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {dir}/nginx.pid;
error_log stderr error;
events {{ worker_connections {descriptors}; }}
{block}
    upstream bench {{
        least_conn;
{servers}{keep}    }}
    server {{
        listen {listen_on} {listen} backlog=4096;
        {pass}
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
    Ok(Launch::args(["-e", "stderr", "-p", &dir, "-c", &file]))
}

/// No log, no end to a kept connection, temporary files where they may be.
fn http_settings(job: &Job<'_>) -> String {
    let mut text = "access_log off;\n    keepalive_requests 1000000000;\n".to_owned();
    for place in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text.push_str(&format!("    {place}_temp_path {}/nginx-{place};\n", job.dir.display()));
    }
    text
}

/// How HTTP goes to the servers: over kept connections, with the client's host and what servers are told about it.
const HTTP_PASS: &str = "location / {
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Real-IP $remote_addr;
        }";

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
