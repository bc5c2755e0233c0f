//! What `--check` says, and that it touches nothing.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;

use std::net::TcpListener;
use std::process::Command;
use std::process::Stdio;

use crate::child::Ended;
use crate::child::Running;

fn run(path: &str, args: &[&str]) -> Ended {
    Running::spawn(Command::new(path).args(args).stdin(Stdio::null())).ended()
}

#[test]
fn what_would_not_start_for_want_of_a_port_or_a_server_passes() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yml");
    let text = format!(
        "{{admin: {{addr: '127.0.0.1:0'}}, proxies: [{{servers: [{{kind: io.l5d.tcp, addr: '127.0.0.1:{port}'}}], \
         namerd: {{addr: '127.0.0.1:1', path: /svc/web}}}}]}}"
    );
    std::fs::write(&config, text).unwrap();
    let (config, any) = (config.to_str().unwrap(), format!("0.0.0.0:{port}"));
    let (http, https) = ("--http-bind-addr=127.0.0.1:0", format!("--https-bind-addr={any}"));
    let programs: [(&str, &[&str], &str); 3] = [
        (env!("CARGO_BIN_EXE_linkerd-tcp"), &[config], "OK, 1 proxy, 1 server\n"),
        (
            env!("CARGO_BIN_EXE_tproxy-poc"),
            &["--mode=nat", "--rules=none", "--source=none", "--addr", &any],
            "the arguments are right\n",
        ),
        (
            env!("CARGO_BIN_EXE_tricot"),
            &["--letsencrypt-email=admin@example.com", "--consul-host=http://127.0.0.1:1", http, &https],
            "the arguments and variables are right\n",
        ),
    ];
    for (path, args, said) in programs {
        let checked = run(path, &[args, &["--check"]].concat());
        assert!(checked.code == Some(0) && checked.stdout.ends_with(said), "{checked:?}");
        assert_eq!((checked.stdout.lines().count(), &*checked.stderr), (1, ""), "{path}");

        let started = run(path, args);
        assert!(started.code == Some(1) && started.stderr.contains("in use"), "{path}: {started:?}");
    }
}

#[test]
fn what_is_no_good_is_refused_in_the_words_that_a_start_has() {
    let programs: [(&str, &[&str], [i32; 2], &str); 3] = [
        (env!("CARGO_BIN_EXE_linkerd-tcp"), &["/nonexistent.yml"], [1, 1], "/nonexistent.yml: cannot read"),
        (env!("CARGO_BIN_EXE_tproxy-poc"), &["--mode=nat", "--addr=127.0.0.1:5000"], [2, 2], "--addr"),
        (
            env!("CARGO_BIN_EXE_tricot"),
            &["--letsencrypt-email=admin@example.com", "--acme-ca-cert=/nonexistent.pem"],
            // A file may be there a moment later: a service manager tries again unless it is told 2.
            [2, 1],
            "tricot: TRICOT_ACME_CA_CERT: cannot read /nonexistent.pem",
        ),
    ];
    for (path, args, [refused, failed], said) in programs {
        let checked = run(path, &[args, &["--check"]].concat());
        assert!(checked.code == Some(refused) && checked.stderr.contains(said), "{checked:?}");
        assert_eq!(checked.stdout, "", "{path}");

        let started = run(path, args);
        assert_eq!((started.code, started.stderr), (Some(failed), checked.stderr), "{path}");
    }
}

#[test]
fn a_check_does_nothing_else() {
    let path = env!("CARGO_BIN_EXE_tproxy-poc");

    let ended = run(path, &["--mode=nat", "--check", "rules", "remove"]);

    assert!(ended.code == Some(2) && ended.stderr.contains("no subcommand"), "{ended:?}");
}

/// Usual mistakes, each with what is said about it, to the letter. `UPDATE_GOLDEN=1` writes them anew: read what has changed.
#[test]
fn mistakes_are_told_with_what_is_wanted_and_all_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let ca = meshlib::test_util::TestCa::new();
    let (one, other) = (ca.issue(["one"]), ca.issue(["other"]));
    std::fs::write(dir.path().join("cert.pem"), one.chain_pem()).unwrap();
    std::fs::write(dir.path().join("other.pem"), other.key_pem()).unwrap();
    for (name, path) in
        [("tproxy-poc", env!("CARGO_BIN_EXE_tproxy-poc")), ("tricot", env!("CARGO_BIN_EXE_tricot"))]
    {
        let file = format!("{}/tests/data/misuse/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let expected = std::fs::read_to_string(&file).unwrap();
        let cases: Vec<&str> =
            expected.split("=== ").skip(1).map(|case| case.lines().next().unwrap()).collect();
        assert!(cases.len() > 10);
        let mut found = String::new();
        for case in cases {
            let mut command = Command::new(path);
            command.args(case.split(' ')).arg("--check").current_dir(dir.path()).stdin(Stdio::null());
            let ended = Running::spawn(&mut command).ended();
            assert!(ended.code == Some(2) && ended.stdout.is_empty(), "{case}: {ended:?}");
            found.push_str(&format!("=== {case}\n{}", ended.stderr));
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap();
        assert!(found == expected, "{name} says otherwise than {file}:\n{found}");
    }
}
