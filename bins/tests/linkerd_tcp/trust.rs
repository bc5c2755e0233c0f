//! TLS towards endpoints, and who is believed on either side.

use std::fs;
use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use meshlib::test_util::CertOptions;
use meshlib::test_util::Echo;
use meshlib::test_util::KeyKind;
use meshlib::test_util::TestCa;
use meshlib::test_util::TestCert;
use meshlib::test_util::echo_to_end;
use meshlib::tls::rustls;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tempfile::tempdir;
use tokio::net::TcpStream;

use crate::process::Program;
use crate::process::has;
use crate::process::program;
use crate::talk;
use crate::talk::closed_after;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::metrics;
use crate::talk::sum;
use crate::tls::s_client;

/// A proxy that speaks TLS to an endpoint and believes what is in these files.
fn proxy(endpoint: SocketAddr, trusted: &[(&str, String)], tls: &str) -> Program {
    let dir = tempdir().unwrap();
    for (name, pem) in trusted {
        fs::write(dir.path().join(name), pem).unwrap();
    }
    Program::start_in(dir, &fixed(&[endpoint], "connectTimeoutMs: 700", &format!("tls: {{{tls}}}")), &[])
}

/// Clients of an endpoint that is not believed are closed when their time is over, and no byte of theirs is sent in plain
/// text.
async fn is_refused(program: Program) {
    let after = closed_after(program.addr()).await;
    assert!(after >= Duration::from_millis(690), "tried until the end, {after:?}");
    metric_is(program.admin(), "l5d:srv:connect:failure", r#"cause="timeout""#, 1.0).await;
    let metrics = metrics(program.admin()).await;
    assert!(sum(&metrics, "l5d:balancer:connection:failure", r#"cause="other""#) >= 1.0);
    assert_eq!(sum(&metrics, "l5d:balancer:connection:connects", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_must_prove_its_name_to_the_right_authority_in_time() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let trust = [("ca.pem", ca.pem())];
    let tls = "dnsName: backend.example, trustCerts: [ca.pem]";
    let serve = async |cert: TestCert| Echo::start_tls(cert.server_config()).await;

    let right = serve(ca.issue(["backend.example"])).await;
    exchange(proxy(right.addr(), &trust, tls).addr()).await.unwrap();

    let wrong_name = serve(ca.issue(["other.example"])).await;
    is_refused(proxy(wrong_name.addr(), &trust, tls)).await;
    let wrong_ca = serve(other.issue(["backend.example"])).await;
    is_refused(proxy(wrong_ca.addr(), &trust, tls)).await;
    let expired = serve(ca.issue_with(["backend.example"], &CertOptions::default().expired())).await;
    is_refused(proxy(expired.addr(), &trust, tls)).await;
    // An endpoint without TLS is not spoken to in plain text.
    let plain = Echo::start().await;
    is_refused(proxy(plain.addr(), &trust, tls)).await;
    // Without authorities the machine's own are asked, and none of them knows this one.
    is_refused(proxy(right.addr(), &[], "dnsName: backend.example")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_a_name_too() {
    let ca = TestCa::new();
    let trust = [("ca.pem", ca.pem())];
    let backend = Echo::start_tls(ca.server_config(["127.0.0.1"])).await;

    exchange(proxy(backend.addr(), &trust, "dnsName: 127.0.0.1, trustCerts: [ca.pem]").addr()).await.unwrap();
    is_refused(proxy(backend.addr(), &trust, "dnsName: 127.0.0.2, trustCerts: [ca.pem]")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_of_several_files_and_of_one_bundle_add_up() {
    let (one, two, three) = (TestCa::new(), TestCa::new(), TestCa::new());
    let files = [("bundle.pem", one.pem() + &two.pem()), ("third.pem", three.pem())];
    for ca in [&one, &two, &three] {
        let backend = Echo::start_tls(ca.server_config(["backend"])).await;
        let program = proxy(backend.addr(), &files, "dnsName: backend, trustCerts: [bundle.pem, third.pem]");

        exchange(program.addr()).await.unwrap();
    }
}

/// An `openssl s_server` that echoes lines backwards. Killed when dropped.
struct SServer {
    child: Child,
    addr: SocketAddr,
}

impl SServer {
    async fn start(dir: &std::path::Path, args: &[&str]) -> Self {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key", "key.pem", "-rev"]);
        openssl.args(args).current_dir(dir).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        let mut child = openssl.spawn().unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT ") {
            line.clear();
            assert_ne!(std::io::BufRead::read_line(&mut stdout, &mut line).unwrap(), 0, "it listens");
        }
        // What else it says is not wanted, and must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self { child, addr: line.trim().strip_prefix("ACCEPT ").unwrap().parse().unwrap() }
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_as_an_endpoint_agrees_on_every_suite_and_group() {
    if !has("openssl") {
        return;
    }
    let ca = TestCa::new();
    let suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
    let mut cases: Vec<(KeyKind, Vec<String>)> = Vec::new();
    for suite in suites {
        cases.push((KeyKind::P256, vec!["-tls1_3".into(), "-ciphersuites".into(), suite.into()]));
    }
    for (kind, name) in [(KeyKind::P256, "ECDSA"), (KeyKind::Rsa2048, "RSA")] {
        for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            cases.push((kind, vec!["-tls1_2".into(), "-cipher".into(), format!("ECDHE-{name}-{cipher}")]));
        }
    }
    for group in ["X25519", "P-256", "P-384"] {
        cases.push((KeyKind::P384, vec!["-groups".into(), group.into()]));
    }

    for (kind, args) in cases {
        let dir = tempdir().unwrap();
        let cert = ca.issue_with(["backend"], &CertOptions::default().with_key(kind));
        cert.write_to(&dir).unwrap();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let server = SServer::start(dir.path(), &args).await;
        let program = proxy(server.addr, &[("ca.pem", ca.pem())], "dnsName: backend, trustCerts: [ca.pem]");

        let mut io = TcpStream::connect(program.addr()).await.unwrap();
        let answer = tokio::time::timeout(crate::process::SOON, echo_to_end(&mut io, b"olleh\n"));
        assert_eq!(answer.await.expect("in time").unwrap(), b"hello\n", "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_speak_only_old_versions_are_refused() {
    if !has("openssl") {
        return;
    }
    let ca = TestCa::new();
    let dir = tempdir().unwrap();
    ca.issue(["backend"]).write_to(&dir).unwrap();
    let trust = [("ca.pem", ca.pem())];
    for args in [
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"],
    ] {
        let server = SServer::start(dir.path(), &args).await;
        is_refused(proxy(server.addr, &trust, "dnsName: backend, trustCerts: [ca.pem]")).await;
    }
    // What is allowed in general may be too little for somebody.
    let server = SServer::start(dir.path(), &["-tls1_2"]).await;
    let tls = "dnsName: backend, trustCerts: [ca.pem], minVersion: '1.3'";
    is_refused(proxy(server.addr, &trust, tls)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_have_to_show_a_certificate() {
    if !has("openssl") {
        return;
    }
    let (ca, other) = (TestCa::new(), TestCa::new());
    let backend = Echo::start().await;
    for required in [true, false] {
        let dir = tempdir().unwrap();
        ca.issue(["proxy"]).write_to(&dir).unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for (name, ca) in [("good", &ca), ("bad", &other)] {
            let cert = ca.issue(["client"]);
            fs::write(dir.path().join(format!("{name}.pem")), cert.chain_pem()).unwrap();
            fs::write(dir.path().join(format!("{name}.key")), cert.key_pem()).unwrap();
        }
        let auth = format!("clientAuth: {{trustCerts: [ca.pem], required: {required}}}");
        let tls = format!("tls: {{defaultIdentity: {{certs: [cert.pem], privateKey: key.pem}}, {auth}}}");
        let program = Program::start_in(dir, &fixed(&[backend.addr()], &tls, ""), &[]);
        let served = |args: &[&str]| s_client(&program, program.addr(), args).stdout.contains("hello");

        for version in ["-tls1_2", "-tls1_3"] {
            assert!(served(&[version, "-cert", "good.pem", "-key", "good.key"]), "{version}");
            assert!(!served(&[version, "-cert", "bad.pem", "-key", "bad.key"]), "{version}");
            assert_eq!(served(&[version]), !required, "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_may_want_a_certificate_and_a_protocol() {
    let ca = TestCa::new();
    let mut roots = RootCertStore::empty();
    roots.extend(ca.roots().roots);
    let provider = meshlib::tls::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let cert = ca.issue(["backend"]);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![cert.certificate()], cert.key_der())
        .unwrap();
    // rustls refuses a client that offers protocols of which it knows none.
    config.alpn_protocols = vec![b"redis".to_vec()];
    let backend = Echo::start_tls(config.into()).await;
    let client = ca.issue(["proxy"]);
    let files = [("ca.pem", ca.pem()), ("cert.pem", client.chain_pem()), ("key.pem", client.key_pem())];
    let common = "dnsName: backend, trustCerts: [ca.pem]";
    let with = format!("{common}, clientAuth: {{certs: [cert.pem], privateKey: key.pem}}");

    exchange(proxy(backend.addr(), &files, &with).addr()).await.unwrap();
    exchange(proxy(backend.addr(), &files, &format!("{with}, alpnProtocols: [redis]")).addr()).await.unwrap();
    let wrong = proxy(backend.addr(), &files, &format!("{with}, alpnProtocols: [h2]"));
    assert!(exchange(wrong.addr()).await.is_err());
    let without = proxy(backend.addr(), &files, common);
    assert!(exchange(without.addr()).await.is_err());
}

/// What is asked of namerd may be asked in TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_server_may_speak_tls() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    // Another linkerd-tcp puts TLS in front of it.
    let ca = TestCa::new();
    let dir = tempdir().unwrap();
    ca.issue(["namerd"]).write_to(&dir).unwrap();
    let tls = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";
    let front = Program::start_in(dir, &fixed(&[namerd.addr()], tls, ""), &[]);
    let url = format!("https://127.0.0.1:{}", front.addr().port());
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let config = talk::routers(&url, "", "")
        .replace("periodSecs: 20", "periodSecs: 20, tls: {dnsName: namerd, trustCerts: [ca.pem]}");
    let program = Program::start_in(dir, &config, &[]);

    exchange(program.addr()).await.unwrap();
}

/// What `openssl x509 -signkey` makes of a request without extensions.
#[test]
fn a_certificate_of_an_old_version_is_named_as_such() {
    if !has("openssl") {
        return;
    }
    let dir = tempdir().unwrap();
    let openssl = |args: &str| {
        let mut openssl = Command::new("openssl");
        let made = openssl.args(args.split(' ')).current_dir(&dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8_lossy(&made.stdout).into_owned()
    };
    openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out r.pem -subj /CN=a.example",
    );
    openssl("x509 -req -in r.pem -signkey key.pem -days 2 -out old.pem");
    if !openssl("x509 -in old.pem -noout -text").contains("Version: 1 ") {
        eprintln!("skipped: this openssl makes none of version 1");
        return;
    }
    let config = fixed(&[], "tls: {defaultIdentity: {certs: [old.pem], privateKey: key.pem}}", "");
    fs::write(dir.path().join("c.yml"), config).unwrap();

    let checked = program(dir.path(), &["--check", "c.yml"], "");

    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    let said =
        "defaultIdentity.certs[0]: the certificate in old.pem cannot be used: it is of X.509 version 1";
    assert!(checked.stderr.contains(said), "{}", checked.stderr);
}
