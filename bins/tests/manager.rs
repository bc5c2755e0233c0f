//! What a service manager hears from each program, and from those that it does not get to hear.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::ClockId;
use rustix::time::clock_gettime;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::child::Running;
use crate::lines::SOON;

/// The programs with arguments that need no server and no privilege, and what they say that they serve.
fn programs(dir: &TempDir) -> Vec<(Command, String)> {
    let config = dir.path().join("config.yml");
    let text = "{admin: {addr: '127.0.0.1:0'}, proxies: [{servers: [{kind: io.l5d.tcp, addr: '127.0.0.1:0'}], \
                namerd: {addr: '127.0.0.1:1', path: /svc/web}}]}";
    std::fs::write(&config, text).expect("a file");
    let mut linkerd_tcp = Command::new(env!("CARGO_BIN_EXE_linkerd-tcp"));
    linkerd_tcp.arg(config);
    // It wants to know its port, since rules lead there.
    let free = TcpListener::bind("0.0.0.0:0").and_then(|free| free.local_addr()).expect("a port").to_string();
    let mut tproxy_poc = Command::new(env!("CARGO_BIN_EXE_tproxy-poc"));
    tproxy_poc.args(["--mode", "nat", "--rules", "none", "--source", "none", "--addr", &free]);
    tproxy_poc.args(["--server", "127.0.0.1:1"]);
    let mut echo_server = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    echo_server.args(["--addr", "127.0.0.1:0", "--addr", "[::1]:0"]);
    let mut tricot = Command::new(env!("CARGO_BIN_EXE_tricot"));
    tricot.args(["--letsencrypt-email", "admin@example.com", "--consul-host", "http://127.0.0.1:1"]);
    tricot.args(["--http-bind-addr", "127.0.0.1:0", "--https-bind-addr", "127.0.0.1:0"]);
    // Ports of their own are not known before.
    vec![
        (linkerd_tcp, "serving 1 proxy, 1 server".into()),
        (tproxy_poc, format!("serving at {free}")),
        (echo_server, "serving at 127.0.0.1:PORT, [::1]:PORT".into()),
        (tricot, "serving HTTPS at 127.0.0.1:PORT".into()),
    ]
}

/// A service manager with one service.
struct Manager {
    socket: UnixDatagram,
    service: Running,
}

impl Manager {
    fn start(dir: &TempDir, command: &mut Command, variables: &[(&str, &str)]) -> Self {
        let path = dir.path().join("notify");
        // That of the service before.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a deadline");
        command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC").envs(variables.iter().copied());
        Self { socket, service: Running::spawn(command.stdin(Stdio::null())) }
    }

    /// The next message, unless none comes in time or the service has ended.
    fn hears(&mut self, within: Duration) -> Option<String> {
        let until = Instant::now() + within;
        let mut buffer = [0; 4096];
        while Instant::now() < until {
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Some(String::from_utf8_lossy(&buffer[..len]).into_owned()),
                Err(error) => {
                    let kinds =
                        [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut, io::ErrorKind::Interrupted];
                    assert!(kinds.contains(&error.kind()), "{error}");
                }
            }
            if !self.service.is_alive() {
                // What it said at the very end.
                let len = self.socket.recv(&mut buffer).ok()?;
                return Some(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
        }
        None
    }
}

#[test]
fn it_hears_when_a_program_is_ready_and_when_it_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    for (mut command, serving) in programs(&dir) {
        // All that may be told have the same argument for it.
        let grace = if serving.contains("[::1]") { "10s" } else { "7s" };
        if grace == "7s" {
            command.args(["--drain", "7"]);
        }
        let mut manager = Manager::start(&dir, &mut command, &[]);

        let ready = manager.hears(SOON).expect("it is ready");
        let mut parts = serving.split("PORT");
        let mut rest = ready.strip_prefix("READY=1\nSTATUS=").expect("what it serves");
        rest = rest.strip_prefix(parts.next().unwrap()).expect(&serving);
        for part in parts {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix(part).expect(&serving);
        }
        assert_eq!(rest, "\n", "{ready}");
        manager.service.signal(Signal::HUP);
        if ["serving 1 proxy", "serving HTTPS"].iter().any(|it| serving.starts_with(it)) {
            let before = clock_gettime(ClockId::Monotonic).tv_sec;
            let reloading = manager.hears(SOON).expect("it loads what there is to be loaded");
            let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("what it does");
            let at = micros.trim_end().parse::<i64>().unwrap() / 1_000_000;
            assert!((before - 1..=before + 20).contains(&at), "{reloading}");
            assert_eq!(manager.hears(SOON), Some(ready), "{command:?}");
        }
        // Nobody asked to be told that it lives, and orders to go on end nothing.
        manager.service.signal(Signal::USR1);
        assert_eq!(manager.hears(Duration::from_millis(300)), None, "{command:?}");

        manager.service.signal(Signal::QUIT);
        let stopping = format!("STOPPING=1\nSTATUS=draining for up to {grace}\n");
        assert_eq!(manager.hears(SOON), Some(stopping), "{command:?}");
        assert_eq!(manager.hears(SOON), None);
        assert!(manager.service.wait().success(), "{command:?}");
    }
}

#[test]
fn it_hears_why_a_configuration_was_not_loaded_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut command, serving) = programs(&dir).swap_remove(0);
    let mut manager = Manager::start(&dir, &mut command, &[]);
    let ready = manager.hears(SOON).expect("it is ready");
    let config = dir.path().join("config.yml");
    let good = std::fs::read_to_string(&config).unwrap();

    std::fs::write(&config, good.replace("proxies", "proxys")).unwrap();
    manager.service.signal(Signal::HUP);
    assert!(manager.hears(SOON).is_some_and(|told| told.starts_with("RELOADING=1\n")));
    let told = manager.hears(SOON).expect("it is ready as before");
    let place = format!("READY=1\nSTATUS={serving}; not reloaded: {}:1:1: ", config.display());
    assert!(told.starts_with(&place) && told.contains("did you mean `proxies`?"), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");

    std::fs::write(&config, good).unwrap();
    manager.service.signal(Signal::HUP);
    assert!(manager.hears(SOON).is_some_and(|told| told.starts_with("RELOADING=1\n")));
    assert_eq!(manager.hears(SOON), Some(ready));
}

#[test]
fn it_hears_that_a_program_lives_as_often_as_it_wants_to() {
    let dir = tempfile::tempdir().expect("a directory");
    for (mut command, _) in programs(&dir) {
        let mut manager = Manager::start(&dir, &mut command, &[("WATCHDOG_USEC", "600000")]);
        assert!(manager.hears(SOON).is_some_and(|ready| ready.starts_with("READY=1\n")));

        let began = Instant::now();
        for _ in 0..6 {
            assert_eq!(manager.hears(SOON).as_deref(), Some("WATCHDOG=1\n"), "{command:?}");
        }
        let each = began.elapsed() / 6;
        assert!(each < Duration::from_millis(600), "{command:?}: once in {each:?}");
        // A program that stands still does not say that it lives.
        manager.service.signal(Signal::STOP);
        while manager.hears(Duration::from_millis(600)).is_some() {}
        assert_eq!(manager.hears(Duration::from_millis(600)), None);
        manager.service.signal(Signal::CONT);
        assert_eq!(manager.hears(SOON).as_deref(), Some("WATCHDOG=1\n"), "{command:?}");
    }
}

#[test]
fn it_hears_nothing_from_a_program_that_cannot_serve() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let mut echo_server = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    echo_server.args(["--addr", &addr]);
    let mut tricot = Command::new(env!("CARGO_BIN_EXE_tricot"));
    tricot.args(["--letsencrypt-email", "admin@example.com", "--consul-ca-cert", "/nonexistent/ca.pem"]);
    tricot.args(["--consul-host", "https://127.0.0.1:1"]);
    tricot.args(["--http-bind-addr", "127.0.0.1:0", "--https-bind-addr", "127.0.0.1:0"]);
    for mut command in [echo_server, tricot] {
        let mut manager = Manager::start(&dir, &mut command, &[]);

        assert_eq!(manager.hears(SOON), None, "{command:?}");
        assert_eq!(manager.service.wait().code(), Some(1), "{command:?}");
    }
}
