//! `tproxy-poc` without rules, so that it needs no privilege: clients connect to its own address.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::Command;
use std::process::Stdio;

use meshlib::test_util::Echo;
use meshlib::test_util::echo_to_end;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use super::Pages;
use super::Run;
use super::nonsense;
use super::settles;
use crate::child::Running;
use crate::process::until;

pub(super) async fn run() -> Run {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (addr, admin) = (free(), free());
    let backend = Echo::start().await;
    let server = backend.addr();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tproxy-poc"));
    command
        .args(["--mode=nat", "--rules=none", "--source=none"])
        .args(["--server", &server.to_string()])
        // Redirection cannot lead to a loopback address.
        .args(["--addr", &SocketAddr::from(([0, 0, 0, 0], addr.port())).to_string()])
        .args(["--admin", &admin.to_string()])
        .stdin(Stdio::null());
    let _running = Running::spawn(&mut command);
    until("it listens", async || TcpStream::connect(admin).await.is_ok()).await;
    for _ in 0..3 {
        let mut io = TcpStream::connect(addr).await.unwrap();
        assert_eq!(echo_to_end(&mut io, b"hello").await.unwrap(), b"hello");
    }
    settles(admin, "tproxy_connections_total", &[("result", "ok")], 3.0).await;
    backend.stop().await;
    // Nobody else can listen there now.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind(server).unwrap();
    let mut pages = Vec::new();
    for round in 1..=2 {
        nonsense(addr).await;
        settles(admin, "tproxy_connections_total", &[("result", "failed")], f64::from(round)).await;
        settles(admin, "tproxy_active", &[], 0.0).await;
        pages.push(Pages::fetch(admin).await);
    }
    let [first, last] = pages.try_into().ok().expect("two rounds");
    Run { name: "tproxy-poc", first, last, is_whole: true }
}
