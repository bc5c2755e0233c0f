//! Sockets that a service manager passes.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::process::Stdio;

use meshlib::test_util::Echo;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::PROGRAM;
use crate::process::Program;
use crate::process::SOON;
use crate::talk::exchange;
use crate::talk::fixed;

/// Starts the program with one socket, of this name.
fn start(socket: &TcpListener, name: &str, backend: SocketAddr) -> Program {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("config.yml"), fixed(&[backend], "", "")).unwrap();
    // The one that a child inherits becomes the first behind the usual three.
    let shell = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ exec "$0" config.yml --workers 2 "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", shell, PROGRAM]).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    Program::spawn(dir, command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_one_process_ends_and_the_next_begins() {
    let backend = Echo::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();

    for _ in 0..5 {
        // Nobody takes it yet.
        let waiting = tokio::spawn(exchange(addr));
        let mut program = start(&socket, "default", backend.addr());
        assert_eq!(program.addr(), addr, "the address of the configuration does not count");
        waiting.await.unwrap().unwrap();
        exchange(addr).await.unwrap();

        program.signal(Signal::TERM);
        assert_eq!(program.exit(SOON).await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_requests_may_come_by_a_passed_socket() {
    let backend = Echo::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();

    // As a unit is called that does not name its socket.
    let program = start(&socket, "linkerd-tcp-admin.socket", backend.addr());

    assert_eq!(program.admin(), socket.local_addr().unwrap());
    assert_eq!(crate::talk::ask(program.admin(), "GET", "/live").await.unwrap().status, 200);
    exchange(program.addr()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_nobody_asked_for_is_named_and_changes_nothing() {
    let backend = Echo::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();

    let program = start(&socket, "elsewhere", backend.addr());

    let said = program.stderr().wait_for("the socket", |line| line.contains("nobody asked for"));
    assert!(said.contains("WARN") && said.contains(r#""name":"elsewhere""#), "{said}");
    assert_ne!(program.addr(), socket.local_addr().unwrap());
    exchange(program.addr()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_socket_stays_whatever_becomes_of_the_address_in_the_file() {
    let backend = Echo::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let program = start(&socket, "default", backend.addr());
    exchange(addr).await.unwrap();

    let config = fixed(&[backend.addr()], "", "").replace("      - port: 0", "      - port: 1");
    std::fs::write(program.dir.path().join("config.yml"), config).unwrap();
    program.signal(Signal::HUP);
    program.stderr().wait_for("the new one", |line| line.contains("the configuration was loaded again"));

    // Nobody else takes what waits in its queue.
    exchange(addr).await.unwrap();
}
