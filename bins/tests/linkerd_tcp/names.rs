//! Destinations with the client's server name in them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::TestCa;
use meshlib::tls::rustls::ClientConfig;
use tempfile::tempdir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::process::Program;
use crate::process::SOON;
use crate::talk::metric_is;
use crate::talk::routers_with;

/// A proxy with an endpoint for each of two names, which greets with the name.
struct ByName {
    program: Program,
    ca: TestCa,
    backends: [Echo; 2],
}

const NAMES: [&str; 2] = ["one.example", "two.example"];

impl ByName {
    async fn start() -> Self {
        let [one, two] = NAMES.map(|name| EchoOptions::default().with_greeting(name).start());
        let backends = [one.await.unwrap(), two.await.unwrap()];
        let (ca, dir) = (TestCa::new(), tempdir().unwrap());
        ca.issue(["one.example", "two.example", "three.example"]).write_to(dir.path()).unwrap();
        let addrs = NAMES.iter().zip(&backends).map(|(name, backend)| {
            format!("'/svc/{name}': [{{ip: 127.0.0.1, port: {}}}]", backend.addr().port())
        });
        let addrs = addrs.collect::<Vec<_>>().join(", ");
        let config = routers_with(
            &format!("{{kind: io.l5d.static, addrs: {{{addrs}}}}}"),
            "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}",
            "",
        );
        let config = config.replace("dstName: /svc/web", "dstName: '/svc/{sni}'");
        Self { program: Program::start_in(dir, &config, &[]), ca, backends }
    }

    /// What a client that asks for a name is told until the end, and how long that took.
    async fn told(&self, name: &str, sni: bool) -> (String, Duration) {
        let tls = self.ca.client_tls(name);
        let mut config = ClientConfig::clone(&tls.config);
        config.enable_sni = sni;
        let began = Instant::now();
        let work = async {
            let io = TcpStream::connect(self.addr()).await.unwrap();
            let mut io = TlsConnector::from(Arc::new(config)).connect(tls.server_name, io).await.unwrap();
            let mut greeting = vec![0; NAMES[0].len()];
            // A close and a reset are the same here.
            let n = io.read(&mut greeting).await.unwrap_or_default();
            String::from_utf8_lossy(&greeting[..n]).into_owned()
        };
        let told = time::timeout(SOON, work).await.expect("it is answered or closed");
        (told, began.elapsed())
    }

    fn addr(&self) -> SocketAddr {
        self.program.addr()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_reach_the_endpoints_of_the_name_that_they_ask_for() {
    let proxy = ByName::start().await;

    for name in NAMES.into_iter().chain(NAMES) {
        assert_eq!(proxy.told(name, true).await.0, name);
    }
    assert_eq!(proxy.told("ONE.example", true).await.0, "one.example", "names have no case");

    assert_eq!(proxy.backends.each_ref().map(Echo::accepted), [3, 2]);
    metric_is(proxy.program.admin(), "l5d:srv:connect:failure", "", 0.0).await;
}

/// Discovery says that there is nothing to wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_an_unknown_name_is_closed_after_a_second() {
    let proxy = ByName::start().await;

    let (told, after) = proxy.told("three.example", true).await;

    assert_eq!(told, "");
    assert!(after >= Duration::from_millis(990), "{after:?}");
    metric_is(proxy.program.admin(), "l5d:srv:failures", "", 1.0).await;
    assert_eq!(proxy.told("one.example", true).await.0, "one.example", "others are served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_for_no_name_is_closed() {
    let proxy = ByName::start().await;

    assert_eq!(proxy.told("one.example", false).await.0, "");

    metric_is(proxy.program.admin(), "l5d:srv:failures", "", 1.0).await;
    assert_eq!(proxy.backends.each_ref().map(Echo::accepted), [0, 0]);
}
