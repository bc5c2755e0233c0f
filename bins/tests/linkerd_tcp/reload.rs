//! New certificates while the program runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo;
use meshlib::test_util::echo_to_end;
use meshlib::tls::rustls::ClientConfig;
use rustix::process::Signal;
use tempfile::tempdir;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::Program;
use crate::process::SOON;
use crate::talk::ask;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::until;

const TLS: &str = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";

/// A full handshake.
async fn connect(ca: &TestCa, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let tls = ca.client_tls("proxy");
    // A resumed session would show the certificate of long ago.
    let mut config = ClientConfig::clone(&tls.config);
    config.resumption = meshlib::tls::rustls::client::Resumption::disabled();
    let io = TcpStream::connect(addr).await?;
    time::timeout(SOON, TlsConnector::from(Arc::new(config)).connect(tls.server_name, io)).await?
}

/// The certificate that the proxy shows.
async fn shown(ca: &TestCa, addr: SocketAddr) -> Vec<u8> {
    let io = connect(ca, addr).await.unwrap();
    io.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Puts a new certificate in place, both files at once as far as that can be, and returns it.
fn renew(ca: &TestCa, dir: &Path) -> Vec<u8> {
    let cert = ca.issue(["proxy"]);
    for (name, pem) in [("cert.pem", cert.chain_pem()), ("key.pem", cert.key_pem())] {
        fs::write(dir.join("new"), pem).unwrap();
        fs::rename(dir.join("new"), dir.join(name)).unwrap();
    }
    cert.certificate().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handshake_fails_while_certificates_are_renewed() {
    let ca = Arc::new(TestCa::new());
    let backend = Echo::start().await;
    let dir = tempdir().unwrap();
    ca.issue(["proxy"]).write_to(&dir).unwrap();
    let program = Program::start_in(dir, &fixed(&[backend.addr()], TLS, ""), &[]);
    let addr = program.addr();
    let mut lasting = connect(&ca, addr).await.unwrap();
    echo(&mut lasting, b"before").await.unwrap();

    let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (stopped, counted, of_load) = (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&ca));
    let load = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            let mut io = connect(&of_load, addr).await?;
            echo_to_end(&mut io, b"hello").await?;
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Ok::<_, std::io::Error>(())
    });
    // By the signal, at once.
    for _ in 0..5 {
        let renewed = renew(&ca, program.dir.path());
        program.signal(Signal::HUP);
        until("the new certificate is shown", async || shown(&ca, addr).await == renewed).await;
    }
    // By itself, soon.
    let renewed = renew(&ca, program.dir.path());
    until("the new certificate is shown", async || shown(&ca, addr).await == renewed).await;
    let so_far = served.load(Ordering::SeqCst);
    until("handshakes go on", async || served.load(Ordering::SeqCst) > so_far + 10).await;
    stop.store(true, Ordering::SeqCst);

    load.await.unwrap().unwrap();
    assert_eq!(echo(&mut lasting, b"after").await.unwrap(), b"after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_keeps_the_old_certificate_and_a_good_one_replaces_it() {
    let ca = TestCa::new();
    let backend = Echo::start().await;
    let dir = tempdir().unwrap();
    let first = ca.issue(["proxy"]);
    first.write_to(&dir).unwrap();
    let program = Program::start_in(dir, &fixed(&[backend.addr()], TLS, ""), &[]);
    let addr = program.addr();
    let path = program.dir.path();
    let other = ca.issue(["proxy"]);
    let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    let complaints =
        || program.stderr().count(r#""level":"ERROR""#) + program.stderr().count(r#""level":"WARN""#);

    for (name, text) in [("cert.pem", "nonsense"), ("cert.pem", other.chain_pem().as_str()), ("key.pem", "")]
    {
        let before = complaints();
        write(name, text);
        program.signal(Signal::HUP);
        until("it complains", async || complaints() > before).await;
        assert_eq!(shown(&ca, addr).await, first.certificate().to_vec(), "{name} is {text:?}");
    }
    fs::remove_file(path.join("key.pem")).unwrap();
    program.signal(Signal::HUP);
    assert_eq!(shown(&ca, addr).await, first.certificate().to_vec());

    write("key.pem", &other.key_pem());
    program.signal(Signal::HUP);
    until("the new certificate is shown", async || shown(&ca, addr).await == other.certificate().to_vec())
        .await;
}

/// Without it a renewal that went wrong is noticed when the old certificate has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_loaded_are_seen_until_they_can() {
    let ca = TestCa::new();
    let backend = Echo::start().await;
    let dir = tempdir().unwrap();
    ca.issue(["proxy"]).write_to(&dir).unwrap();
    let program = Program::start_in(dir, &fixed(&[backend.addr()], TLS, ""), &[]);
    let admin = program.admin();
    let loaded =
        async |wanted| metric_is(admin, "tls_last_reload_successful", "role=\"server\"", wanted).await;
    let page = async |path| ask(admin, "GET", path).await.unwrap().body;
    loaded(1.0).await;

    fs::write(program.dir.path().join("cert.pem"), "nonsense").unwrap();

    loaded(0.0).await;
    for path in ["/certs.json", "/state.json"] {
        let page = page(path).await;
        assert!(page.contains("cannot be loaded") && page.contains("cert.pem"), "{page}");
    }
    renew(&ca, program.dir.path());
    loaded(1.0).await;
    assert!(!page("/state.json").await.contains("cannot be loaded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_authorities_are_believed_by_new_connections() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let backend = Echo::start_tls(new.server_config(["backend"])).await;
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), old.pem()).unwrap();
    let client = "tls: {dnsName: backend, trustCerts: [ca.pem]}";
    let program = Program::start_in(dir, &fixed(&[backend.addr()], "connectTimeoutMs: 300", client), &[]);
    assert!(exchange(program.addr()).await.is_err());

    fs::write(program.dir.path().join("ca.pem"), new.pem()).unwrap();
    program.signal(Signal::HUP);

    until("the endpoint is believed", async || exchange(program.addr()).await.is_ok()).await;
}
