//! All commands with the real `linkerd-tcp`.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use crate::child::Running;
use crate::child::eventually;
use crate::program;

#[test]
fn a_real_program_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yml");
    // Nobody is at the address of the name server.
    let text = "{proxies: [{servers: [{kind: io.l5d.tcp, addr: '127.0.0.1:0'}], \
                namerd: {addr: '127.0.0.1:1', path: /svc/web}}]}";
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkerd-tcp"));
    command.arg(&config).args(["--admin", "127.0.0.1:0"]).stdin(Stdio::null());
    let linkerd_tcp = Running::spawn(command.env("RUST_LOG", "linkerd_tcp=info"));
    let line = linkerd_tcp.stderr().wait_for("its admin address", |line| line.contains("admin requests"));
    let admin = line.split_whitespace().find_map(|word| word.strip_prefix("addr=")).unwrap().to_owned();
    eventually("it listens", || TcpStream::connect(&admin).is_ok());
    let meshctl = |args: &[&str]| program::run(&[&["--admin", &admin], args].concat());

    eventually("it has asked in vain", || meshctl(&["stat"]).stdout.contains("discovery fails"));
    let stat = meshctl(&["stat"]);
    assert_eq!((stat.code, &*stat.stderr), (Some(0), ""));
    let lines: Vec<_> = stat.stdout.lines().collect();
    let head = format!("linkerd-tcp {}  up ", env!("CARGO_PKG_VERSION"));
    assert!(lines[0].starts_with(&head) && lines[0].contains("  NOT READY  "), "{stat:?}");
    assert_eq!(lines[1], "not ready: default: /svc/web is not resolved yet");
    let problem =
        "problem: default /svc/web: discovery fails, what was known stays: discovery service 127.0.0.1:1";
    assert!(lines[2].starts_with(problem), "{stat:?}");
    let row: Vec<_> = lines[5].split_whitespace().collect();
    assert_eq!(row[..4], ["default", "/svc/web", "-", "pending"]);

    let json = meshctl(&["stat", "-o", "json"]);
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["destinations"][0]["dst"], "/svc/web");

    let ready = meshctl(&["ready"]);
    let reason = "meshctl: not ready: default: /svc/web is not resolved yet\n";
    assert_eq!((ready.code, &*ready.stderr), (Some(1), reason));

    let shown = meshctl(&["log-level"]);
    assert_eq!((shown.code, &*shown.stdout), (Some(0), "linkerd_tcp=info\n"));
    let changed = meshctl(&["log-level", "linkerd_tcp=debug,process=info"]);
    assert_eq!((changed.code, &*changed.stdout), (Some(0), "linkerd_tcp=debug,process=info\n"));
    let refused = meshctl(&["log-level", "linkerd_tcp=loud"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("\"linkerd_tcp=loud\" is not understood"),
        "{refused:?}"
    );

    if cfg!(feature = "tui") {
        let top = meshctl(&["top", "--once"]);
        assert!(top.code == Some(0) && top.stdout.contains("/svc/web"), "{top:?}");
    }
}
