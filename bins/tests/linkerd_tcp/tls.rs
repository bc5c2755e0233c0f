//! TLS towards clients, as `openssl` sees it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use meshlib::test_util::CertOptions;
use meshlib::test_util::Echo;
use meshlib::test_util::KeyKind;
use meshlib::test_util::TestCa;
use tempfile::TempDir;
use tempfile::tempdir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use crate::process::Ended;
use crate::process::Program;
use crate::process::SOON;
use crate::process::converse;
use crate::process::has;
use crate::process::run;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::until;

/// A proxy that speaks TLS with a key of each kind, for names of their own.
struct Tls {
    program: Program,
    backend: Echo,
}

impl Tls {
    async fn start(more: &str) -> Self {
        let backend = Echo::start().await;
        let (dir, _) = certificates();
        let tls = format!(
            "tls:
  defaultIdentity: {{certs: [default.pem], privateKey: default.key}}
  identities:
    rsa.example: {{certs: [rsa.pem], privateKey: rsa.key}}
    '*.wild.example': {{certs: [wild.pem], privateKey: wild.key}}
    Exact.wild.example: {{certs: [exact.pem], privateKey: exact.key}}
{more}"
        );
        let program = Program::start_in(dir, &fixed(&[backend.addr()], &tls, ""), &[]);
        Self { program, backend }
    }

    /// Connects with `openssl s_client`, sends a line and waits for it to come back.
    fn client(&self, args: &[&str]) -> Ended {
        s_client(&self.program, self.program.addr(), args)
    }

    /// What a client learns about a connection that works.
    #[track_caller]
    fn agreed(&self, args: &[&str], texts: &[&str]) {
        let ended = self.client(args);
        assert!(ended.stdout.contains("hello"), "{args:?}: nothing comes back: {ended:?}");
        for text in texts {
            assert!(ended.stdout.contains(text), "{args:?}: {text:?} is not in {ended:?}");
        }
    }

    /// A client that is refused, with this alert in its error.
    #[track_caller]
    fn refused(&self, args: &[&str], alert: &str) {
        let before = self.backend.accepted();
        let ended = self.client(args);
        assert!(!ended.stdout.contains("hello"), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(alert), "{args:?}: {alert:?} is not in {ended:?}");
        assert_eq!(self.backend.accepted(), before, "no endpoint is connected before the handshake");
    }
}

/// Connects with `openssl s_client` from the program's directory, sends a line, and says goodbye when the line has come back.
pub(crate) fn s_client(program: &Program, addr: SocketAddr, args: &[&str]) -> Ended {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &addr.to_string(), "-CAfile", "ca.pem"]);
    openssl.args(args).current_dir(program.dir.path());
    converse(&mut openssl, "hello")
}

/// A directory with certificates and keys, each in a file named after its kind.
pub(crate) fn certificates() -> (TempDir, TestCa) {
    let (ca, dir) = (TestCa::new(), tempdir().unwrap());
    fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let issue = |file: &str, name: &str, kind: KeyKind| {
        let cert = ca.issue_with([name], &CertOptions::default().with_key(kind));
        fs::write(dir.path().join(format!("{file}.pem")), cert.chain_pem()).unwrap();
        // The older form is the one that the original wanted.
        let key = if kind == KeyKind::Rsa2048 { cert.old_key_pem().unwrap() } else { cert.key_pem() };
        fs::write(dir.path().join(format!("{file}.key")), key).unwrap();
    };
    issue("default", "default.example", KeyKind::P256);
    issue("rsa", "rsa.example", KeyKind::Rsa2048);
    issue("wild", "*.wild.example", KeyKind::P384);
    issue("exact", "exact.wild.example", KeyKind::Ed25519);
    (dir, ca)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_agrees_on_each_of_the_nine_suites() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("").await;
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        tls.agreed(&["-tls1_3", "-ciphersuites", suite], &["New, TLSv1.3", &format!("Cipher is {suite}")]);
    }
    for (name, kind) in [("default.example", "ECDSA"), ("rsa.example", "RSA")] {
        for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            let suite = format!("ECDHE-{kind}-{cipher}");
            let args = ["-tls1_2", "-cipher", &suite, "-servername", name];
            tls.agreed(
                &args,
                &["New, TLSv1.2", &format!("Cipher is {suite}"), "Extended master secret: yes"],
            );
        }
    }
}

/// The client's order decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_says_which_suite_is_best() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("").await;
    let (chacha, aes) = ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256");
    tls.agreed(&["-tls1_2", "-cipher", &format!("{chacha}:{aes}")], &[&format!("Cipher is {chacha}")]);
    tls.agreed(&["-tls1_2", "-cipher", &format!("{aes}:{chacha}")], &[&format!("Cipher is {aes}")]);
    let (chacha, aes) = ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256");
    tls.agreed(&["-ciphersuites", &format!("{chacha}:{aes}")], &[&format!("Cipher is {chacha}")]);
    tls.agreed(&["-ciphersuites", &format!("{aes}:{chacha}")], &[&format!("Cipher is {aes}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_agrees_on_each_group() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("").await;
    let groups = [
        ("X25519", "X25519, 253 bits"),
        ("P-256", "ECDH, prime256v1, 256 bits"),
        ("P-384", "ECDH, secp384r1, 384 bits"),
    ];
    for version in ["-tls1_2", "-tls1_3"] {
        for (group, key) in groups {
            // In TLS 1.2 openssl wants keys in certificates to be of the groups, too, unless they are of RSA.
            let args = [version, "-groups", group, "-servername", "rsa.example"];
            tls.agreed(&args, &[&format!("Server Temp Key: {key}")]);
        }
    }
    for group in ["P-521", "X448", "ffdhe2048"] {
        tls.refused(&["-groups", group], "handshake failure");
    }
    let groups = run(Command::new("openssl").args(["list", "-kem-algorithms"]), b"").stdout;
    if groups.contains("X25519MLKEM768") {
        tls.agreed(&["-tls1_3", "-groups", "X25519MLKEM768"], &["X25519MLKEM768"]);
    } else {
        eprintln!("skipped: this openssl knows no X25519MLKEM768");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_and_suites_are_refused() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("").await;
    for version in ["-tls1", "-tls1_1"] {
        tls.refused(&[version, "-cipher", "ALL:@SECLEVEL=0"], "alert");
    }
    for cipher in [
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "AES128-GCM-SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
    ] {
        let cipher = format!("{cipher}:@SECLEVEL=0");
        tls.refused(&["-tls1_2", "-cipher", &cipher, "-servername", "rsa.example"], "handshake failure");
        tls.refused(&["-tls1_2", "-cipher", &cipher], "handshake failure");
    }
    metric_is(tls.program.admin(), "l5d:srv:accepts", "", 10.0).await;
    metric_is(tls.program.admin(), "l5d:srv:failures", "", 10.0).await;
    metric_is(tls.program.admin(), "l5d:srv:connect:failure", r#"cause="other""#, 10.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_follows_the_name() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("").await;
    let names = [
        ("rsa.example", "rsa.example"),
        ("RSA.Example", "rsa.example"),
        ("a.wild.example", "*.wild.example"),
        ("exact.wild.example", "exact.wild.example"),
        ("a.b.wild.example", "default.example"),
        ("wild.example", "default.example"),
        ("unknown.example", "default.example"),
    ];
    for (asked, found) in names {
        tls.agreed(&["-servername", asked], &[&format!("subject=CN = {found}"), "Verify return code: 0"]);
    }
    tls.agreed(&["-noservername"], &["subject=CN = default.example"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_default_an_unknown_name_is_refused() {
    if !has("openssl") {
        return;
    }
    let backend = Echo::start().await;
    let (dir, _) = certificates();
    let config = "tls: {identities: {rsa.example: {certs: [rsa.pem], privateKey: rsa.key}}}";
    let program = Program::start_in(dir, &fixed(&[backend.addr()], config, ""), &[]);
    let tls = Tls { program, backend };

    tls.agreed(&["-servername", "rsa.example"], &["subject=CN = rsa.example"]);
    for version in ["-tls1_2", "-tls1_3"] {
        tls.refused(&[version, "-servername", "unknown.example"], "alert number 112");
        tls.refused(&[version, "-noservername"], "alert number 112");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_chooses_the_protocol_and_no_overlap_is_no_error() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("  alpnProtocols: [h2, http/1.1]").await;
    for version in ["-tls1_2", "-tls1_3"] {
        tls.agreed(&[version, "-alpn", "http/1.1,h2"], &["ALPN protocol: h2"]);
        tls.agreed(&[version, "-alpn", "http/1.1"], &["ALPN protocol: http/1.1"]);
        tls.agreed(&[version, "-alpn", "h3,http/1.1"], &["ALPN protocol: http/1.1"]);
        tls.agreed(&[version, "-alpn", "redis"], &["No ALPN negotiated"]);
        tls.agreed(&[version], &["No ALPN negotiated"]);
    }
    let tls = Tls::start("").await;
    tls.agreed(&["-alpn", "h2"], &["No ALPN negotiated"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_speaks_no_tls_is_closed_and_others_are_served() {
    let tls = Tls::start("").await;
    let addr = tls.program.addr();
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\x16\x03\x01\x00\x05nonsense", b"\x80\x2e\x01\x00\x02"]
    {
        let mut io = TcpStream::connect(addr).await.unwrap();
        io.write_all(bytes).await.unwrap();
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // At most an alert comes, and none of it is plain text.
        let _ = time::timeout(SOON, io.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(answer.len() <= 7 && answer.first().is_none_or(|first| *first == 21), "{answer:?}");
    }
    assert_eq!(tls.backend.accepted(), 0);
    assert!(exchange(addr).await.is_err());
    if has("openssl") {
        tls.agreed(&[], &[]);
    }
}

/// Handshakes do not wait for each other, and those that never end are ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_do_not_hold_up_others_and_are_cut_off() {
    if !has("openssl") {
        return;
    }
    let backend = Echo::start().await;
    let (dir, _) = certificates();
    let config =
        "handshakeTimeoutMs: 1500\ntls: {defaultIdentity: {certs: [default.pem], privateKey: default.key}}";
    let program = Program::start_in(dir, &fixed(&[backend.addr()], config, ""), &[]);
    let addr = program.addr();
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut io = TcpStream::connect(addr).await.unwrap();
        if n % 2 == 0 {
            io.write_all(b"\x16\x03\x01").await.unwrap();
        }
        silent.push(io);
    }
    let tls = Tls { program, backend };

    tls.agreed(&[], &[]);

    for mut io in silent {
        let _ = time::timeout(Duration::from_secs(5), io.read(&mut [0; 16])).await.expect("it is cut off");
    }
    metric_is(tls.program.admin(), "l5d:srv:active", "", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_resumed_also_after_a_reload() {
    if !has("openssl") {
        return;
    }
    let tls = Tls::start("").await;
    for version in ["-tls1_2", "-tls1_3"] {
        let file = format!("session{version}");
        tls.agreed(&[version, "-sess_out", &file], &["New, "]);
        tls.agreed(&[version, "-sess_in", &file], &["Reused, "]);
        let reloads = tls.program.stderr().count("was loaded again");
        tls.program.signal(rustix::process::Signal::HUP);
        until("it reloads", async || tls.program.stderr().count("was loaded again") > reloads).await;
        tls.agreed(&[version, "-sess_in", &file], &["Reused, "]);
    }
    // Five times in a row, over tickets that are used once each.
    let again = tls.client(&["-tls1_2", "-reconnect"]);
    assert_eq!(again.stdout.matches("Reused, TLSv1.2").count(), 5, "{again:?}");
}
