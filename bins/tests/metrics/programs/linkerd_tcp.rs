//! `linkerd-tcp` in both languages, with and without TLS, and with an endpoint that is not there.

use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo_to_end;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::server::NamerdServer;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Pages;
use super::Run;
use super::nonsense;
use super::settles;
use crate::child::Running;

/// How many clients of each kind there are at a time.
const CLIENTS: u32 = 3;
/// A name that needs escapes in a label.
const ODD: &str = r#"a"b\c"#;

struct Program {
    running: Running,
    ca: TestCa,
    _dir: TempDir,
}

impl Program {
    fn start(config: &str) -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new());
        ca.issue(["proxy"]).write_to(&dir).unwrap();
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_linkerd-tcp"));
        command
            .args(["config.yml", "--log-format", "json"])
            .env("RUST_LOG", "linkerd_tcp=info")
            .current_dir(dir.path())
            .stdin(Stdio::null());
        let running = Running::spawn(&mut command);
        running.stderr().wait_for("its admin address", |line| line.contains("listening for admin requests"));
        Self { running, ca, _dir: dir }
    }

    /// Where it listens: its servers in the order of the configuration, and for admin requests.
    fn addrs(&self) -> Vec<SocketAddr> {
        let addr = |line: &String| line.split_once(r#""addr":""#)?.1.split_once('"')?.0.parse().ok();
        let lines = self.running.stderr().all().into_iter().filter(|line| line.contains(r#""listening"#));
        lines.map(|line| addr(&line).unwrap()).collect()
    }

    async fn run(self, name: &'static str) -> Run {
        let addrs = self.addrs();
        let [tls, plain, broken, admin] = addrs[..] else { panic!("four addresses, not {addrs:?}") };
        let mut pages = Vec::new();
        for round in 1..=2 {
            for _ in 0..CLIENTS {
                let io = TcpStream::connect(tls).await.unwrap();
                let client = self.ca.client_tls("proxy");
                let mut io = TlsConnector::from(client.config).connect(client.server_name, io).await.unwrap();
                assert_eq!(echo_to_end(&mut io, b"hello").await.unwrap(), b"hello");
                let mut io = TcpStream::connect(plain).await.unwrap();
                assert_eq!(echo_to_end(&mut io, b"hello").await.unwrap(), b"hello");
            }
            nonsense(tls).await;
            // A client that leaves before there is an endpoint.
            drop(TcpStream::connect(broken).await.unwrap());
            for (result, n) in [("ok", 2 * CLIENTS), ("failed", 2)] {
                let ended = "linkerd_tcp_connections_total";
                settles(admin, ended, &[("result", result)], f64::from(round * n)).await;
            }
            pages.push(Pages::fetch(admin).await);
        }
        let [first, last] = pages.try_into().ok().expect("two rounds");
        Run { name, first, last, is_whole: true }
    }
}

/// A name server that knows the name.
async fn namerd(endpoint: SocketAddr) -> NamerdServer {
    let namerd = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    namerd.set("default", "/svc/web", Addr::bound([Address::new(endpoint)])).unwrap();
    namerd
}

pub(super) async fn routers() -> Run {
    let backend = Echo::start().await;
    let namerd = namerd(backend.addr()).await;
    let (url, port) = (namerd.url(), backend.addr().port());
    let config = format!(
        "admin: {{port: 0}}
routers:
  - label: asked
    servers:
      - {{port: 0, dstName: /svc/web, tls: {{defaultIdentity: {{certs: [cert.pem], privateKey: key.pem}}}}}}
    interpreter: {{kind: io.l5d.namerd.http, baseUrl: '{url}', namespace: default, periodSecs: 20}}
    client: {{kind: io.l5d.global}}
  - label: '{ODD}'
    servers: [{{port: 0, dstName: /svc/web}}]
    interpreter: {{kind: io.l5d.static, addrs: {{/svc/web: [{{ip: 127.0.0.1, port: {port}, weight: 1.0}}]}}}}
    client: {{kind: io.l5d.global}}
  - label: broken
    servers: [{{port: 0, dstName: /svc/web}}]
    interpreter: {{kind: io.l5d.static, addrs: {{/svc/web: [{{ip: 127.0.0.1, port: 1, weight: 1.0}}]}}}}
    client: {{kind: io.l5d.global}}
"
    );
    Program::start(&config).run("linkerd-tcp with `routers`").await
}

pub(super) async fn proxies() -> Run {
    let backend = Echo::start().await;
    let namerd = namerd(backend.addr()).await;
    let nothing = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    nothing.set("default", "/svc/web", Addr::bound([Address::new(([127, 0, 0, 1], 1).into())])).unwrap();
    let (url, nothing) = (namerd.url(), nothing.url());
    let tls = "defaultIdentity: {certs: [cert.pem], privateKey: key.pem}";
    let config = format!(
        "admin: {{addr: '127.0.0.1:0'}}
proxies:
  - label: asked
    servers: [{{kind: io.l5d.tls, addr: '127.0.0.1:0', {tls}}}]
    namerd: {{url: '{url}', path: /svc/web, intervalSecs: 20}}
  - label: '{ODD}'
    servers: [{{kind: io.l5d.tcp, addr: '127.0.0.1:0'}}]
    namerd: {{url: '{url}', path: /svc/web, intervalSecs: 20}}
  - label: broken
    servers: [{{kind: io.l5d.tcp, addr: '127.0.0.1:0'}}]
    namerd: {{url: '{nothing}', path: /svc/web, intervalSecs: 20}}
"
    );
    Program::start(&config).run("linkerd-tcp with `proxies`").await
}
