//! Every suite and group against OpenSSL, as client and as server. Skipped with a message where it is not installed.

use std::ffi::OsStr;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use meshlib::test_util::CertOptions;
use meshlib::test_util::KeyKind;
use meshlib::test_util::TestCa;
use meshlib::test_util::TestCert;
use meshlib::tls::Terminate;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::task;
use tokio::time;

use crate::rig::Accepting;
use crate::rig::SOON;
use crate::rig::connect_tls;

/// One handshake: the options that make OpenSSL do just this, the server's key, and what must come of it.
struct Case {
    options: &'static [&'static str],
    key: KeyKind,
    version: &'static str,
    suite: &'static str,
}

const fn tls12(options: &'static [&'static str], key: KeyKind, suite: &'static str) -> Case {
    Case { options, key, version: "TLSv1.2", suite }
}

const fn tls13(options: &'static [&'static str], suite: &'static str) -> Case {
    Case { options, key: KeyKind::P256, version: "TLSv1.3", suite }
}

/// The nine suites, and the groups on top.
const CASES: [Case; 13] = [
    tls12(
        &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
        KeyKind::Rsa2048,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    tls12(
        &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"],
        KeyKind::Rsa2048,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
    tls12(
        &["-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"],
        KeyKind::Rsa2048,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    tls12(
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        KeyKind::P256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    tls12(
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
        KeyKind::P256,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ),
    tls12(
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        KeyKind::P256,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    tls13(&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], "TLS13_AES_128_GCM_SHA256"),
    tls13(&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], "TLS13_AES_256_GCM_SHA384"),
    tls13(&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "TLS13_CHACHA20_POLY1305_SHA256"),
    tls13(&["-tls1_3", "-groups", "X25519"], ""),
    tls13(&["-tls1_3", "-groups", "P-256"], ""),
    tls13(&["-tls1_3", "-groups", "P-384"], ""),
    tls12(&["-tls1_2", "-groups", "P-384"], KeyKind::P384, ""),
];

/// Refused by us, whatever OpenSSL may think of them.
const REFUSED: [&[&str]; 4] = [
    &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"],
    &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
    &["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
];

fn installed() -> bool {
    let found = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: no openssl on PATH");
    }
    found
}

/// An OpenSSL that is stopped when it is no longer looked at.
struct Openssl(Child);

impl Openssl {
    fn start<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Self {
        let mut command = Command::new("openssl");
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn issue(ca: &TestCa, key: KeyKind) -> TestCert {
    ca.issue_with(["localhost"], &CertOptions::default().with_key(key))
}

/// Lets OpenSSL say hello to a server and returns what it hears.
async fn s_client(addr: SocketAddr, ca: &Path, options: &[&str]) -> String {
    let addr = addr.to_string();
    let ca = ca.to_str().unwrap();
    let mut args: Vec<String> = ["s_client", "-quiet", "-connect", &addr, "-servername", "localhost"]
        .into_iter()
        .chain(["-CAfile", ca, "-verify_return_error", "-verify_hostname", "localhost"])
        .map(str::to_owned)
        .collect();
    args.extend(options.iter().map(|&option| option.to_owned()));
    let heard = task::spawn_blocking(move || {
        let mut openssl = Openssl::start(args);
        // It ends by itself if there is no handshake; then nothing is heard.
        let _ = openssl.0.stdin.as_mut().unwrap().write_all(b"hello\n");
        let mut heard = String::new();
        let _ = BufReader::new(openssl.0.stdout.take().unwrap()).read_line(&mut heard);
        heard
    });
    time::timeout(SOON, heard).await.expect("it is answered soon").unwrap()
}

#[tokio::test]
async fn as_the_server_every_suite_and_group_is_spoken() {
    if !installed() {
        return;
    }
    let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();

    for case in CASES {
        let server = Accepting::start(Terminate::new(issue(&ca, case.key).server_config())).await;

        assert_eq!(s_client(server.addr, &ca_file, case.options).await, "hello\n", "{:?}", case.options);

        let tls = server.session().tls.unwrap();
        assert_eq!(tls.version, case.version, "{:?}", case.options);
        assert!(case.suite.is_empty() || tls.suite == case.suite, "{:?}: {}", case.options, tls.suite);
    }
}

#[tokio::test]
async fn as_the_server_what_is_unsafe_is_refused() {
    if !installed() {
        return;
    }
    let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();

    for options in REFUSED {
        let server = Accepting::start(Terminate::new(issue(&ca, KeyKind::Rsa2048).server_config())).await;
        assert_eq!(s_client(server.addr, &ca_file, options).await, "", "{options:?}");
    }
}

/// Lets OpenSSL serve: it sends each line back, reversed.
async fn s_server(dir: &Path, cert: &TestCert, options: &[&str]) -> (Openssl, SocketAddr) {
    let (chain, key) = cert.write_to(dir).unwrap();
    let mut args: Vec<String> =
        ["s_server", "-accept", "127.0.0.1:0", "-rev", "-cert"].map(str::to_owned).into();
    args.extend([chain.display().to_string(), "-key".to_owned(), key.display().to_string()]);
    args.extend(options.iter().map(|&option| option.to_owned()));
    let started = task::spawn_blocking(move || {
        let mut openssl = Openssl::start(args);
        let mut output = BufReader::new(openssl.0.stdout.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some(addr) = line.strip_prefix("ACCEPT ") {
                let addr = addr.trim().parse().unwrap();
                // Read on, so that it never waits for its reader.
                std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
                return (openssl, addr);
            }
        }
    });
    time::timeout(SOON, started).await.expect("it starts soon").unwrap()
}

#[tokio::test]
async fn as_the_client_every_suite_and_group_is_spoken() {
    if !installed() {
        return;
    }
    let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());

    for case in CASES {
        let (_openssl, addr) = s_server(dir.path(), &issue(&ca, case.key), case.options).await;

        let mut io = connect_tls(addr, ca.client_tls("localhost"))
            .await
            .unwrap_or_else(|error| panic!("{:?}: {}", case.options, error.chain()));
        io.write_all(b"hello\n").await.unwrap();
        let mut answer = [0; 6];
        time::timeout(SOON, io.read_exact(&mut answer)).await.expect("it answers soon").unwrap();

        assert_eq!(&answer, b"olleh\n", "{:?}", case.options);
    }
}

#[tokio::test]
async fn as_the_client_what_is_unsafe_is_refused() {
    if !installed() {
        return;
    }
    let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());

    for options in REFUSED {
        let (_openssl, addr) = s_server(dir.path(), &issue(&ca, KeyKind::Rsa2048), options).await;
        assert!(connect_tls(addr, ca.client_tls("localhost")).await.is_err(), "{options:?}");
    }
}
