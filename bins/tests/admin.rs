//! The admin server, asked in the same way in each program that has one.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use meshlib::test_util::free_ports;
use serde_json::Value;
use tempfile::TempDir;

use crate::child::Running;
use crate::child::eventually;
use crate::lines::SOON;

fn free() -> SocketAddr {
    let [port] = free_ports();
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A program that serves admin requests where it was told to with `--admin`.
struct Program {
    name: &'static str,
    running: Running,
    admin: SocketAddr,
    _dir: Arc<TempDir>,
}

impl Program {
    /// All programs, with arguments that need no server and no privilege.
    fn all() -> Vec<Self> {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let config = dir.path().join("config.yml");
        let text = "{proxies: [{servers: [{kind: io.l5d.tcp, addr: '127.0.0.1:0'}], \
                    namerd: {addr: '127.0.0.1:1', path: /svc/web}}]}";
        std::fs::write(&config, text).expect("a file");
        let addr = SocketAddr::from(([0, 0, 0, 0], free().port())).to_string();
        let config = config.to_str().expect("a path").to_owned();
        let programs: [(&str, &str, &[&str]); 3] = [
            ("linkerd-tcp", env!("CARGO_BIN_EXE_linkerd-tcp"), &[&config]),
            (
                "tproxy-poc",
                env!("CARGO_BIN_EXE_tproxy-poc"),
                &["--mode=nat", "--rules=none", "--source=none", "--server=127.0.0.1:1", "--addr", &addr],
            ),
            (
                "tricot",
                env!("CARGO_BIN_EXE_tricot"),
                &[
                    "--letsencrypt-email=admin@example.com",
                    "--consul-host=http://127.0.0.1:1",
                    "--http-bind-addr=127.0.0.1:0",
                    "--https-bind-addr=127.0.0.1:0",
                ],
            ),
        ];
        let started = programs.into_iter().map(|(name, path, own)| {
            let admin = free();
            let mut command = Command::new(path);
            command.args(own).args(["--admin", &admin.to_string()]).stdin(Stdio::null());
            let running = Running::spawn(&mut command);
            eventually("it listens", || TcpStream::connect(admin).is_ok());
            Self { name, running, admin, _dir: Arc::clone(&dir) }
        });
        started.collect()
    }

    /// Status, head and body of an answer.
    fn ask(&self, method: &str, path: &str, fields: &str) -> (u16, String, String) {
        let mut io = TcpStream::connect(self.admin).expect("it listens");
        io.set_read_timeout(Some(SOON)).expect("a deadline");
        let host = self.admin;
        write!(io, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n")
            .expect("it reads");
        let mut answer = String::new();
        io.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), head.to_ascii_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", path, "");
        (status, body)
    }
}

#[test]
fn every_program_has_the_same_first_pages() {
    for program in Program::all() {
        let name = program.name;
        assert_eq!(program.get("/live"), (200, "live\n".into()), "{name}");
        let (status, body) = program.get("/ready");
        // Neither namerd nor Consul is there.
        let why = match name {
            "linkerd-tcp" => "default: /svc/web is not resolved yet\n",
            "tricot" => "nothing is known from Consul yet\n",
            _ => "ready\n",
        };
        assert_eq!((status, &*body), (if why == "ready\n" { 200 } else { 503 }, why), "{name}");

        let (status, head, text) = program.ask("GET", "/metrics", "");
        assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{name}: {head}");
        let line = text.lines().find(|line| line.starts_with("build_info{")).expect("what it is built from");
        for label in ["commit=\"", "rustc=\"1.", &format!("tool=\"{name}\""), "version=\""] {
            assert!(line.contains(label) && line.ends_with("} 1"), "{line} lacks {label}");
        }
        for family in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(text.contains(&format!("\n{family} ")), "{name} lacks {family}");
        }
        let (_, head, text) = program.ask("GET", "/metrics", "Accept: application/openmetrics-text\r\n");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{name}: {head}");
        assert!(text.ends_with("# EOF\n"), "{name}");

        // As Prometheus asks for it.
        let url = format!("http://{}/metrics", program.admin);
        let zipped = Command::new("curl").args(["-sS", "-m", "20", "-D", "-", "--compressed", &url]).output();
        let zipped = String::from_utf8(zipped.expect("curl").stdout).expect("text");
        assert!(zipped.to_ascii_lowercase().contains("content-encoding: gzip"), "{name}: {zipped}");
        assert!(zipped.contains("\nprocess_open_fds "), "{name}: {zipped}");
    }
}

#[test]
fn a_web_page_from_elsewhere_changes_nothing() {
    for program in Program::all() {
        for page in ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
            let (status, _, _) = program.ask("POST", "/shutdown", page);
            // The others have nothing that could be changed.
            assert_eq!(status, if program.name == "linkerd-tcp" { 403 } else { 404 }, "{}", program.name);
        }
        assert_eq!(program.get("/live").0, 200, "{}", program.name);
    }
}

#[test]
fn every_program_shows_what_it_knows_of_itself() {
    for program in Program::all() {
        let name = program.name;
        let json = |path: &str| -> Value {
            let (status, head, body) = program.ask("GET", path, "");
            assert!(status == 200 && head.contains("content-type: application/json"), "{name}{path}: {head}");
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{name}{path}: {error}: {body}"))
        };
        let state = json("/state.json");
        assert_eq!(
            (&state["tool"], &state["reload"]["successful"]),
            (&name.into(), &true.into()),
            "{state:#}"
        );
        assert_eq!((&state["traffic"]["ended"], &state["left_off"]), (&0.into(), &0.into()), "{state:#}");
        let is_ready = program.get("/ready").0 == 200;
        assert_eq!(state["unready"].as_array().unwrap().is_empty(), is_ready, "{state:#}");
        assert_eq!(
            json("/names.json")["destinations"].as_array().unwrap().len(),
            usize::from(name == "linkerd-tcp")
        );
        let towards = (name == "tproxy-poc").then_some("port 1 of 127.0.0.1");
        assert_eq!(state.get("towards").and_then(Value::as_str), towards, "{state:#}");
        for path in ["/history.json", "/certs.json"] {
            assert!(json(path).is_array(), "{name}{path}");
        }
        let config = json("/config.json");
        let own = match name {
            "linkerd-tcp" => &config["proxies"][0]["namerd"]["url"],
            "tproxy-poc" => &config["server"],
            _ => &config["consul-host"],
        };
        assert!(own.as_str().is_some_and(|own| own.contains("127.0.0.1:1")), "{name}: {config:#}");
        let (status, _, metrics) = program.ask("GET", "/metrics", "");
        assert!(status == 200 && metrics.contains("\nconfig_last_reload_successful 1\n"), "{name}");
        assert!(metrics.contains("\nconfig_last_reload_success_timestamp_seconds 1"), "{name}");
    }
}

#[test]
fn people_are_led_to_the_dashboard_and_tools_are_not() {
    for program in Program::all() {
        let name = program.name;
        let (status, head, _) = program.ask("GET", "/", "Accept: text/html,*/*;q=0.8\r\n");
        assert!(status == 303 && head.contains("location: dashboard\r\n"), "{name}: {head}");
        assert_eq!(program.get("/").0, if name == "tricot" { 200 } else { 404 }, "{name}");

        let (status, head, page) = program.ask("GET", "/dashboard", "");
        assert!(
            status == 200 && head.contains("content-security-policy: default-src 'none';"),
            "{name}: {head}"
        );
        assert!(page.contains(&format!("<h1>{name}</h1>")), "{name}: {page}");
        for path in ["/dashboard.css", "/dashboard.js"] {
            assert_eq!(program.get(path).0, 200, "{name}{path}");
        }
    }
}

#[test]
fn what_is_logged_can_be_changed_from_this_machine_by_no_web_page() {
    for program in Program::all() {
        let name = program.name;
        let target = name.replace('-', "_");
        let before = program.get("/log-level").1;
        assert!(before.starts_with(&format!("{target}=")), "{name}: {before}");

        let path = format!("/log-level?filter={target}%3Dtrace%2Cfoo%3Dwarn");
        for (method, fields, status) in [
            ("GET", "", 200),
            ("PUT", "Origin: http://evil.example\r\n", 403),
            ("PUT", "Sec-Fetch-Site: cross-site\r\n", 403),
        ] {
            assert_eq!(program.ask(method, &path, fields).0, status, "{name}");
            assert_eq!(program.get("/log-level").1, before, "{name}");
        }
        let (status, _, said) = program.ask("PUT", "/log-level?filter=a%3Db%3Dc", "");
        assert!(status == 400 && said.contains("a=b=c"), "{name}: {said}");
        assert_eq!(program.ask("PUT", "/log-level", "").0, 400, "{name}");
        assert_eq!(program.get("/log-level").1, before, "{name}");

        let (status, _, said) = program.ask("PUT", &path, "");
        assert_eq!((status, said), (200, format!("{target}=trace,foo=warn\n")), "{name}");
        // The usual level of linkerd-tcp shows no such line.
        let told = || {
            let count = |lines: &lines::Lines| lines.count("another choice of what is logged");
            count(program.running.stdout()) + count(program.running.stderr())
        };
        eventually("it logs what has changed", || told() == 1);
        assert_eq!(program.ask("PUT", "/log-level?filter=error", "").0, 200, "{name}");
        assert_eq!(program.ask("PUT", "/log-level?filter=error", "").0, 200, "{name}");
        assert_eq!(told(), 1, "{name}");

        let (_, _, said) = program.ask("POST", "/log-level?filter=", "");
        assert_eq!(said, before, "{name}");
    }
}
