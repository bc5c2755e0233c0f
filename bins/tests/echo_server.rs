//! The built `echo-server`, from outside.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;
#[path = "echo_server/process.rs"]
mod process;

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use process::Program;
use process::connect;
use process::run;
use rustix::process::Signal;

const LOOPBACK: [&str; 2] = ["--addr", "127.0.0.1:0"];

/// All that comes until the server ends the connection.
fn rest(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// Says something and returns all that comes back.
fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut client = connect(addr);
    client.write_all(request).unwrap();
    rest(client)
}

#[test]
fn whoever_says_something_is_greeted() {
    let program = Program::start(&LOOPBACK, 1);

    assert_eq!(exchange(program.addr(), b"hi"), "Well, hello!");
    assert_eq!(exchange(program.addr(), b"\xff\xfe\x00\x80 no text\r\n"), "Well, hello!");
    program.line_with("Read 2 bytes");
    let line = program.line_with("Read 14 bytes");
    assert!(line.contains(r"data=\xff\xfe\x00\x80 no text\r\n"), "{line}");
}

#[test]
fn a_connection_is_logged_with_both_its_addresses_unless_told_otherwise() {
    let program = Program::start_unset(&LOOPBACK);
    let mut client = program.connect();
    let accept = client.local_addr().unwrap();
    client.write_all(b"hi").unwrap();
    assert_eq!(rest(client), "Well, hello!");

    let line = program.line_with("Connection accepted");
    let end = format!("INFO echo_server: Connection accepted srv={} accept={accept}", program.addr());
    assert!(line.ends_with(&end), "{line}");
    // What clients say is nobody's business by default: the next line is about the next client.
    exchange(program.addr(), b"bye");
    let line = program.line_with("");
    assert!(line.contains("Connection accepted"), "{line}");
}

#[test]
fn log_lines_may_be_json() {
    let program = Program::start(&["--addr=127.0.0.1:0", "--log-format=json"], 1);
    exchange(program.addr(), b"hi");

    let line = program.line_with("Connection accepted");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["target"], "echo_server");
    assert_eq!(line["srv"], program.addr().to_string());
}

#[test]
fn http_is_answered_as_http() {
    let program = Program::start(&LOOPBACK, 1);
    let mut client = program.connect();
    let peer = client.local_addr().unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let answer = rest(client);

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(&format!("\r\nx-peer-addr: {peer}\r\n")), "{answer}");
    assert!(answer.ends_with("\r\n\r\nWell, hello!"), "{answer}");
}

#[test]
fn curl_understands_it() {
    let program = Program::start(&LOOPBACK, 1);
    let url = format!("http://{}/any/where", program.addr());
    let curl = |args: &[&str]| Command::new("curl").args(["-sSf", "-m", "20", &url]).args(args).output();
    let output = match curl(&["-i"]) {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: no curl on PATH");
            return;
        }
        Err(error) => panic!("{error}"),
    };

    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && answer.ends_with("\r\n\r\nWell, hello!"), "{answer}");
    assert!(answer.contains("x-peer-addr: 127.0.0.1:"), "{answer}");

    let content = "a".repeat(100_000);
    let output = curl(&["-d", &content]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"Well, hello!");

    let output = curl(&["-I"]).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A close with unread bytes would be a reset, which throws away what the client has not read yet.
#[test]
fn the_greeting_arrives_though_more_is_sent_than_is_read() {
    let program = Program::start(&LOOPBACK, 1);

    for _ in 0..20 {
        assert_eq!(exchange(program.addr(), &[b'a'; 200_000]), "Well, hello!");
    }
}

#[test]
fn who_says_nothing_ends_only_its_own_connection() {
    let mut program = Program::start(&LOOPBACK, 1);
    let silent = program.connect();
    silent.shutdown(Shutdown::Write).unwrap();

    assert_eq!(rest(silent), "");
    program.line_with("Received 0 bytes, closing");
    assert_eq!(exchange(program.addr(), b"hi"), "Well, hello!");
    assert!(program.is_alive());
}

#[test]
fn who_waits_is_told_nothing_and_holds_nobody_up() {
    let program = Program::start(&LOOPBACK, 1);
    let mut waiting: Vec<_> = (0..100).map(|_| program.connect()).collect();

    assert_eq!(exchange(program.addr(), b"hi"), "Well, hello!");
    let first = &mut waiting[0];
    first.set_nonblocking(true).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    first.set_nonblocking(false).unwrap();
    for mut client in waiting {
        client.write_all(b"at last").unwrap();
        assert_eq!(rest(client), "Well, hello!");
    }
}

#[test]
fn those_beyond_the_limit_wait_until_others_have_ended() {
    let program = Program::start(&["--addr=127.0.0.1:0", "--addr=127.0.0.1:0", "--max-connections=2"], 2);
    let [held, other] = [program.connect(), connect(program.addrs[1])];
    program.line_with("Connection accepted");
    program.line_with("Connection accepted");
    let mut third = program.connect();
    third.write_all(b"hi").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);

    drop(other);

    third.set_read_timeout(Some(process::SOON)).unwrap();
    assert_eq!(rest(third), "Well, hello!");
    drop(held);
}

#[test]
fn a_dual_stack_listener_greets_both_families() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let program = Program::start(&["--addr", "[::]:0"], 1);
    let port = program.addr().port();

    assert_eq!(exchange(([127, 0, 0, 1], port).into(), b"hi"), "Well, hello!");
    let line = program.line_with("Connection accepted");
    assert!(line.contains(&format!(" srv=127.0.0.1:{port} accept=127.0.0.1:")), "{line}");
    let v6 = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port);
    assert_eq!(exchange(v6, b"hi"), "Well, hello!");
    let line = program.line_with("Connection accepted");
    assert!(line.contains(&format!(" srv=[::1]:{port} accept=[::1]:")), "{line}");
}

#[test]
fn several_addresses_are_listened_at() {
    let program = Program::start(&["--addr=127.0.0.1:0", "--addr=127.0.0.1:0"], 2);

    for addr in &program.addrs {
        assert_eq!(exchange(*addr, b"hi"), "Well, hello!");
    }
}

#[test]
fn a_signal_ends_it_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = Program::start(&LOOPBACK, 1);
        exchange(program.addr(), b"hi");

        program.signal(signal);

        assert_eq!(program.exit(), Some(0));
    }
}

/// A client that has not spoken yet is let go, and one that speaks in time is greeted.
#[test]
fn a_signal_lets_clients_finish() {
    let mut program = Program::start(&LOOPBACK, 1);
    let [silent, mut speaks] = [program.connect(), program.connect()];
    program.line_with("Connection accepted");
    program.line_with("Connection accepted");
    speaks.write_all(b"hi").unwrap();

    program.signal(Signal::TERM);

    assert_eq!(rest(speaks), "Well, hello!");
    assert_eq!(rest(silent), "");
    assert_eq!(program.exit(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once_with_1() {
    let mut program = Program::start(&LOOPBACK, 1);
    let mut client = program.connect();
    // It has been answered and does not close, so that the server waits for it.
    client.write_all(b"hi").unwrap();
    program.line_with("Read 2 bytes");

    program.signal(Signal::TERM);
    program.line_with("draining");
    program.signal(Signal::TERM);

    assert_eq!(program.exit(), Some(1));
}

#[test]
fn help_and_version_are_printed_on_stdout() {
    for flag in ["-h", "--help"] {
        let help = run(&[flag]);
        assert!(help.status.success() && help.stderr.is_empty(), "{help:?}");
        let help = String::from_utf8(help.stdout).unwrap();
        for text in ["Usage: echo-server", "--addr", "0.0.0.0:3000", "--max-connections", "RUST_LOG"] {
            assert!(help.contains(text), "{text:?} is not in {help}");
        }
    }
    for flag in ["-V", "--version"] {
        let version = run(&[flag]);
        assert!(version.status.success(), "{version:?}");
        assert_eq!(version.stdout, format!("echo-server {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    }
}

#[test]
fn misuse_is_explained_on_stderr_with_2() {
    for args in [
        &["--nonsense"][..],
        &["extra"],
        &["--addr", "nowhere"],
        &["--addr"],
        &["--max-connections", "0"],
        &["--log-format", "xml"],
    ] {
        let misused = run(args);
        assert_eq!(misused.status.code(), Some(2), "{args:?}: {misused:?}");
        assert!(misused.stdout.is_empty() && !misused.stderr.is_empty(), "{args:?}: {misused:?}");
    }
}

#[test]
fn an_address_in_use_is_named_with_1() {
    let program = Program::start(&LOOPBACK, 1);
    let addr = program.addr().to_string();

    let second = run(&["--addr", &addr]);

    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let stderr = String::from_utf8(second.stderr).unwrap();
    assert!(stderr.contains(&format!("cannot listen on {addr}")), "{stderr}");
}
