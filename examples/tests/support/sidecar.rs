//! The sidecar needs a network of its own.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use meshlib::test_util::TestCa;
use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;
use meshlib::test_util::or_skip;
use meshlib::tls::rustls::ServerConfig;
use meshlib::tls::rustls::ServerConnection;
use meshlib::tls::rustls::StreamOwned;
use meshlib::tproxy::Intercept;
use meshlib::tproxy::rules::Rules;
use meshlib::tproxy::rules::Tool;
use tempfile::TempDir;

use crate::program::built;

#[test]
fn sidecar_encrypts_and_keeps_the_clients_address() {
    let Some(net) = or_skip(Pod::new()) else { return };
    let ca = TestCa::new();
    let config = ca.server_config(["localhost"]);
    let dir = TempDir::new().unwrap();
    let roots = dir.path().join("roots.pem");
    fs::write(&roots, ca.pem()).unwrap();
    for command in
        Rules::new(Intercept::Tproxy).with_listener("[::]:5000".parse().unwrap()).apply(Tool::Iptables)
    {
        net.pod.sh(&command.to_string());
    }
    let sidecar = built("sidecar").to_str().unwrap();
    let mut sidecar = net
        .pod
        .command(sidecar)
        .args(["[::]:5000", "localhost"])
        .env("SSL_CERT_FILE", &roots)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(sidecar.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "listening at [::]:5000\n");

    for family in Family::BOTH {
        let addr = (Pod::pod_ip(family), 3000);
        let listener = net.pod.run(move || TcpListener::bind(addr)).unwrap();
        let config = Arc::clone(&config);
        let server = thread::spawn(move || greet(&listener, config));

        let mut client = net.client.run(move || TcpStream::connect(addr)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"in the clear\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();

        assert_eq!(answer, format!("{} said in the clear", Pod::client_ip(family)));
        server.join().unwrap();
    }
    sidecar.kill().unwrap();
    sidecar.wait().unwrap();
}

/// Speaks TLS with one client and tells it who it is.
fn greet(listener: &TcpListener, config: Arc<ServerConfig>) {
    let (stream, peer) = listener.accept().unwrap();
    let mut tls = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
    let mut line = String::new();
    tls.read_line(&mut line).unwrap();
    let tls = tls.get_mut();
    write!(tls, "{} said {}", peer.ip(), line.trim_end()).unwrap();
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    // A socket that is closed with something unread is reset, and the client's goodbye may still be on its way.
    let _ = tls.read_to_end(&mut Vec::new());
}
