//! The command line, signals, and the end.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Client;
use crate::ask::Conn;
use crate::ask::page;
use crate::ask::plain;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until;
use crate::site::Site;

const HOST: &str = "app.example.com";
const MANY: usize = 200;

/// A proxy in front of one instance.
async fn serving(variables: &[(&str, &str)]) -> Option<(Consul, Site, Tricot, Client)> {
    let consul = or_skip(Consul::start(ConsulOptions::default()).await)?;
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &["tricot app.example.com"]).await;
    let tricot = Tricot::start_with(&consul, variables).await;
    let client = Client::lenient(tricot.https);
    Some((consul, site, tricot, client))
}

/// Connections that have had an answer already.
async fn warm(client: &Client, n: usize) -> Vec<Conn> {
    let mut conns = Vec::new();
    for _ in 0..n {
        let mut conn = client.connect(HOST).await.unwrap();
        assert_eq!(conn.get(HOST, "/").await.unwrap().status, 200);
        conns.push(conn);
    }
    conns
}

async fn ask_all(conns: &mut [Conn]) {
    for conn in conns {
        conn.write(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    }
}

/// How many of the connections get an answer, and why the others do not.
async fn answered(conns: Vec<Conn>) -> (usize, Vec<String>) {
    let mut lost = Vec::new();
    let all = conns.len();
    for (n, mut conn) in conns.into_iter().enumerate() {
        match conn.answer(true).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => lost.push(format!("{n}: {answer:?}")),
            Err(error) => lost.push(format!("{n}: {error}")),
        }
    }
    (all - lost.len(), lost)
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let nobody = ([127, 0, 0, 1], 1).into();
    command(nobody).args(args).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = run(&["--help"], &[]);
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8_lossy(&help.stdout);
    for variable in
        ["TRICOT_LETSENCRYPT_EMAIL", "TRICOT_CONSUL_HOST", "TRICOT_HTTP_BIND_ADDR", "TRICOT_LOCK_TTL"]
    {
        assert!(text.contains(variable), "{variable} in {text}");
    }

    let version = run(&["--version"], &[]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("tricot "), "{version:?}");
}

#[test]
fn a_check_starts_nothing() {
    let right = run(&["--check"], &[]);
    assert_eq!(right.status.code(), Some(0), "{right:?}");

    let wrong = run(&["--check"], &[("TRICOT_LOCK_TTL", "1s")]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn a_check_reads_the_files_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (missing, bad, good) = (dir.path().join("none"), dir.path().join("bad"), dir.path().join("good"));
    std::fs::write(&bad, "no certificate").unwrap();
    std::fs::write(&good, TestCa::new().pem()).unwrap();
    let check = |variables: &[(&str, &Path)]| {
        let variables: Vec<_> =
            variables.iter().map(|(name, path)| (*name, path.to_str().unwrap())).collect();
        let output = run(&["--check", "--consul-host=https://127.0.0.1:1"], &variables);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };

    for path in [&missing, &bad] {
        for variable in ["TRICOT_ACME_CA_CERT", "TRICOT_CONSUL_CA_CERT"] {
            let (status, text) = check(&[(variable, path)]);
            assert_eq!(status, Some(2), "{variable}: {text}");
            assert!(text.contains(path.to_str().unwrap()), "{variable}: {text}");
        }
    }
    for (variable, path) in [
        ("TRICOT_CERT_CACHE_DIR", bad.clone()),
        ("TRICOT_CERT_CACHE_DIR", bad.join("x")),
        ("TRICOT_CONFIG_DUMP", missing.join("rules.json")),
        ("TRICOT_CONFIG_DUMP", dir.path().to_owned()),
    ] {
        let (status, text) = check(&[(variable, &path)]);
        assert!(status == Some(2) && text.contains(variable), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    }
    let (own, other) = (TestCa::new().issue(["client"]), TestCa::new().issue(["client"]));
    let (cert, key, other_key) = (dir.path().join("cert"), dir.path().join("key"), dir.path().join("other"));
    std::fs::write(&cert, own.chain_pem()).unwrap();
    std::fs::write(&key, own.key_pem()).unwrap();
    std::fs::write(&other_key, other.key_pem()).unwrap();
    for (wrong_cert, wrong_key, named) in [
        (&cert, &other_key, "TRICOT_CONSUL_CLIENT_KEY"),
        (&key, &key, "TRICOT_CONSUL_CLIENT_CERT"),
        (&cert, &cert, "TRICOT_CONSUL_CLIENT_KEY"),
        (&cert, &missing, "TRICOT_CONSUL_CLIENT_KEY"),
    ] {
        let client =
            [("TRICOT_CONSUL_CLIENT_CERT", &**wrong_cert), ("TRICOT_CONSUL_CLIENT_KEY", &**wrong_key)];
        let (status, text) = check(&client);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(named) && text.contains(wrong_key.to_str().unwrap()), "{named}: {text}");
        assert!(!text.contains("KeyMismatch"), "{text}");
    }
    let (cache, dump) = (dir.path().join("new/cache"), dir.path().join("rules.json"));
    let all = [
        ("TRICOT_ACME_CA_CERT", &*good),
        ("TRICOT_CONSUL_CA_CERT", &good),
        ("TRICOT_CONSUL_CLIENT_CERT", &cert),
        ("TRICOT_CONSUL_CLIENT_KEY", &key),
        ("TRICOT_CERT_CACHE_DIR", &cache),
        ("TRICOT_CONFIG_DUMP", &dump),
    ];
    assert_eq!(check(&all), (Some(0), String::new()));
    assert!(!dir.path().join("new").exists() && !dump.exists());
}

#[test]
fn what_has_no_effect_does_not_pass_a_check() {
    for (variable, value, text) in [
        ("TRICOT_METRIC_BIND_ADDR", "127.0.0.1:1", "is TRICOT_METRICS_BIND_ADDR meant?"),
        ("RUST_LOG", "tricot=inf", "RUST_LOG: \"tricot=inf\" is ignored"),
        ("RUST_LOG", "tricot==x,,", "RUST_LOG: \"tricot==x\" is ignored"),
    ] {
        let output = run(&["--check"], &[(variable, value)]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}: {stderr}");
        assert_eq!(stderr.matches(text).count(), 1, "{stderr}");
    }
}

#[tokio::test]
async fn what_has_no_effect_is_said_at_the_start_and_the_log_goes_on() {
    let nobody = ([127, 0, 0, 1], 1).into();
    let mut with = command(nobody);
    with.env("TRICOT_METRIC_BIND_ADDR", "127.0.0.1:1").env("RUST_LOG", "tricot=inf");
    let tricot = Tricot::spawn(&mut with);

    tricot.logs("TRICOT_METRIC_BIND_ADDR is no variable of tricot").await;
    tricot.stderr().wait_for("the bad directive", |line| line.contains("tricot=inf"));
}

#[tokio::test]
async fn a_hup_says_what_it_was_good_for() {
    let nobody = ([127, 0, 0, 1], 1).into();
    let tricot = Tricot::spawn(&mut command(nobody));

    tricot.signal(Signal::HUP);

    tricot.logs("HUP: no file with a token for Consul is set").await;
}

#[test]
fn the_form_of_the_log_has_a_variable() {
    let output = run(&["--check"], &[("TRICOT_LOG_FORMAT", "json"), ("TRICOT_CONSUL_KV_PREFIX", "edge")]);

    assert!(String::from_utf8_lossy(&output.stdout).starts_with(r#"{"timestamp":"#), "{output:?}");
}

#[test]
fn what_is_wrong_is_named_and_the_status_is_2() {
    for (variable, value) in [
        ("TRICOT_LETSENCRYPT_EMAIL", "no address"),
        ("TRICOT_CONSUL_HOST", "http://127.0.0.1:8500/v1"),
        ("TRICOT_CONSUL_CLIENT_CERT", "cert.pem"),
        ("TRICOT_HTTP_BIND_ADDR", "nowhere"),
        ("TRICOT_HTTPS_BIND_ADDR", "127.0.0.1"),
        ("TRICOT_ENABLE_COMPRESSION", "perhaps"),
        ("TRICOT_HEALTH", "critical"),
        ("TRICOT_LB", "best"),
        ("TRICOT_TRUSTED_PROXIES", "300.0.0.0/8"),
        ("TRICOT_SHUTDOWN_GRACE", "soon"),
        ("TRICOT_ACME_CHALLENGES", "dns-01"),
        ("TRICOT_ACME_EAB_KID", "without-key"),
    ] {
        let output = run(&[], &[(variable, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}: {text}");
        assert!(text.contains(variable), "{variable} in {text}");
    }
    let unknown = run(&["--no-such-flag"], &[]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("Usage"), "{unknown:?}");
    let missing =
        command(([127, 0, 0, 1], 1).into()).env_remove("TRICOT_LETSENCRYPT_EMAIL").output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("TRICOT_LETSENCRYPT_EMAIL"));
}

#[test]
fn an_address_that_is_taken_is_named_and_the_status_is_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();

    for variable in ["TRICOT_HTTP_BIND_ADDR", "TRICOT_HTTPS_BIND_ADDR", "TRICOT_METRICS_BIND_ADDR"] {
        let output = run(&[], &[(variable, &addr)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&addr), "{text}");
    }
}

#[test]
fn a_token_s_file_that_is_no_good_is_1_so_that_a_start_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (missing, empty) = (dir.path().join("none"), dir.path().join("empty"));
    std::fs::write(&empty, "\n").unwrap();

    for variable in ["TRICOT_CONSUL_TOKEN_FILE", "CONSUL_HTTP_TOKEN_FILE"] {
        for (path, why) in [(&missing, "cannot read"), (&empty, "the token is empty")] {
            let variables = [(variable, path.to_str().unwrap())];
            for (args, status) in [(&[][..], 1), (&["--check"], 2)] {
                let output = run(args, &variables);
                let text = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
                assert!(text.starts_with(&format!("tricot: {variable}: {why}")), "{args:?}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_their_way_are_answered_after_a_signal() {
    let Some((_consul, site, mut tricot, client)) = serving(&[]).await else { return };
    let mut conns = warm(&client, MANY).await;
    site.hold(true);
    let before = site.count();
    ask_all(&mut conns).await;
    until("all requests at the instance", async || site.count() == before + MANY).await;

    tricot.signal(Signal::TERM);
    tricot.logs("draining").await;
    assert_eq!(page(tricot.metrics, "/healthz").await.status, 503);
    until("closed ports", async || TcpStream::connect(tricot.https).await.is_err()).await;
    assert!(TcpStream::connect(tricot.http).await.is_err());
    site.hold(false);

    let (ok, lost) = answered(conns).await;
    assert_eq!(ok, MANY, "{lost:#?}");
    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_had_arrived_are_answered_after_a_signal() {
    let Some((_consul, _site, mut tricot, client)) = serving(&[]).await else { return };
    let mut conns = warm(&client, MANY).await;

    // Bytes and signal find it together.
    tricot.signal(Signal::STOP);
    ask_all(&mut conns).await;
    tricot.signal(Signal::TERM);
    tricot.signal(Signal::CONT);

    let (ok, lost) = answered(conns).await;
    assert_eq!(ok, MANY, "{lost:#?}");
    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn a_request_of_http_2_is_answered_after_a_signal() {
    let Some((_consul, site, mut tricot, _client)) = serving(&[]).await else { return };
    site.hold(true);
    let port = tricot.https.port();
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--http2", "--max-time", "20", "--resolve", &format!("{HOST}:{port}:127.0.0.1")])
        .args(["-w", " over %{http_version}", &format!("https://{HOST}:{port}/")]);
    let Ok(curl) = curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        eprintln!("skipped: no curl on PATH");
        return;
    };
    let asked = tokio::task::spawn_blocking(move || curl.wait_with_output());
    until("the request at the instance", async || site.count() == 1).await;

    tricot.signal(Signal::TERM);
    tricot.logs("draining").await;
    site.hold(false);

    let output = asked.await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one over 2");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_in_the_queue_are_served_after_a_signal() {
    let Some((_consul, _site, mut tricot, client)) = serving(&[]).await else { return };
    // The other end of each is in the kernel until the program goes on.
    tricot.signal(Signal::STOP);
    let mut queued = JoinSet::new();
    for _ in 0..50 {
        let tcp = TcpStream::connect(tricot.https).await.unwrap();
        let client = client.clone();
        queued.spawn(async move { client.handshake(tcp, HOST).await?.get(HOST, "/").await });
    }

    tricot.signal(Signal::TERM);
    tricot.signal(Signal::CONT);

    let answers = queued.join_all().await;
    let lost: Vec<_> =
        answers.iter().filter(|answer| !matches!(answer, Ok(page) if page.status == 200)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:#?}", lost.len(), answers.len());
    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let Some((_consul, site, mut tricot, client)) = serving(&[]).await else { return };
    let mut conns = warm(&client, 1).await;
    site.hold(true);
    ask_all(&mut conns).await;
    until("the request at the instance", async || site.count() == 2).await;

    tricot.signal(Signal::TERM);
    tricot.logs("draining").await;
    let began = Instant::now();
    tricot.signal(Signal::INT);

    let status = tricot.exit(Duration::from_secs(7)).await;
    println!("a second signal ended it after {:?}", began.elapsed());
    assert_eq!(status.code(), Some(1));
    assert!(tricot.stderr().rest().contains("second signal"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_second_signal_waits_for_no_order() {
    let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
    consul.service("n1", "web", "web-1", 9, &["tricot app.example.com"]).await;
    // An authority that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = format!("https://{}/dir", silent.local_addr().unwrap());
    let mut tricot = Tricot::start_with(&consul, &[("TRICOT_ACME_DIRECTORY", &directory)]).await;
    let asked = tokio::task::spawn_blocking(move || silent.accept().map(|asked| (silent, asked)));
    let held = asked.await.unwrap().unwrap();

    tricot.signal(Signal::TERM);
    tricot.logs("draining").await;
    let began = Instant::now();
    tricot.signal(Signal::TERM);

    assert_eq!(tricot.exit(Duration::from_secs(20)).await.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(held);
}

#[tokio::test]
async fn a_request_that_outlives_the_grace_is_cut() {
    let Some((_consul, site, mut tricot, client)) = serving(&[("TRICOT_SHUTDOWN_GRACE", "1s")]).await else {
        return;
    };
    let mut conns = warm(&client, 1).await;
    site.hold(true);
    ask_all(&mut conns).await;
    until("the request at the instance", async || site.count() == 2).await;

    let began = Instant::now();
    tricot.signal(Signal::INT);
    let (ok, _) = answered(conns).await;

    assert_eq!(ok, 0);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
    let log = tricot.log().rest();
    let line = log.lines().find(|line| line.contains(r#""complete":false"#)).unwrap();
    assert!(log.lines().last().unwrap().contains(r#""message":"stopped","cut":1"#), "{log}");
    assert!(line.contains(r#""status":499"#) && line.contains(r#""service":"web""#), "{line}");
    assert!(line.contains(r#""cut_by":"shutdown""#), "{line}");
}

#[tokio::test]
async fn connections_to_consul_that_end_with_it_are_no_outage() {
    let Some((_consul, _site, mut tricot, _client)) = serving(&[]).await else { return };
    // Each worker asks Consul over a connection that it has opened itself.
    for n in 0..20 {
        let request = format!("GET /.well-known/acme-challenge/none-{n} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        assert_eq!(plain(tricot.http, &request).await.unwrap().status, 404);
    }

    tricot.signal(Signal::TERM);

    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
    let log = tricot.log().rest();
    let (_, draining) = log.split_once(r#""message":"draining""#).unwrap();
    assert!(!draining.contains("cannot be relied on") && !draining.contains("shutdown"), "{draining}");
}

#[tokio::test]
async fn without_work_it_ends_soon() {
    let Some((_consul, _site, mut tricot, client)) = serving(&[]).await else { return };
    let idle = warm(&client, 3).await;

    let began = Instant::now();
    tricot.signal(Signal::TERM);

    assert_eq!(tricot.exit(Duration::from_secs(10)).await.code(), Some(0));
    println!("it ended {:?} after the signal", began.elapsed());
    assert!(tricot.log().rest().contains(r#""message":"stopped","cut":0"#));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(idle);
}

#[tokio::test]
async fn it_starts_without_consul_and_ends_without_it() {
    let nobody = ([127, 0, 0, 1], 1).into();
    let mut tricot = Tricot::spawn(&mut command(nobody));
    let client = Client::lenient(tricot.https);
    assert_eq!(client.status(HOST, "/").await, Some(503));

    tricot.signal(Signal::TERM);

    let status = time::timeout(Duration::from_secs(15), tricot.exit(Duration::from_secs(15))).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
