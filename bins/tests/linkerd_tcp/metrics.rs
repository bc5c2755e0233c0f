//! Metrics: the names of the originals, from the start, with values that are true.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo;
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process::Program;
use crate::talk;
use crate::talk::ask;
use crate::talk::closed_after;
use crate::talk::dead;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::metric_is;
use crate::talk::metrics;
use crate::talk::sum;
use crate::talk::until;

/// Types and names with labels, each once; ports and bounds of buckets, which differ, are blotted out.
async fn names(program: &Program) -> BTreeSet<String> {
    let page = ask(program.admin(), "GET", "/metrics").await.unwrap().body;
    let mut names = BTreeSet::new();
    for line in page.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            names.insert(format!("# {line}"));
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let mut name = name.to_owned();
            for addr in program.servers() {
                name = name.replace(&addr.to_string(), "ADDR");
            }
            if let Some((before, rest)) = name.split_once(r#"le=""#) {
                name = format!("{before}le=\"*{}", &rest[rest.find('"').unwrap()..]);
            }
            names.insert(name);
        }
    }
    // What the process says about itself depends on the machine.
    names.retain(|name| {
        let name = name.trim_start_matches("# ");
        !name.starts_with("process_") && !name.contains("build_info")
    });
    names
}

/// Compares with a file; with `UPDATE_GOLDEN` set it writes the file instead.
#[track_caller]
fn golden(file: &str, names: &BTreeSet<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/linkerd-tcp").join(file);
    let found: String = names.iter().map(|name| format!("{name}\n")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    let expected: BTreeSet<String> = expected.lines().map(str::to_owned).collect();
    let missing: Vec<_> = expected.difference(names).collect();
    let surplus: Vec<_> = names.difference(&expected).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}\nnew: {surplus:#?}");
}

/// Whether these names with these labels are there.
#[track_caller]
fn has_all(names: &BTreeSet<String>, wanted: &[(&str, &str)]) {
    for (list, labels) in wanted {
        for name in list.split_whitespace() {
            let name = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") };
            assert!(names.contains(&name), "{name} is not in {names:#?}");
        }
    }
}

fn tls_files() -> (tempfile::TempDir, TestCa) {
    let (dir, ca) = (tempdir().unwrap(), TestCa::new());
    ca.issue(["proxy"]).write_to(&dir).unwrap();
    (dir, ca)
}

const TLS: &str = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";

fn first_generation(namerd: &str) -> String {
    let server =
        "kind: io.l5d.tls, addr: '127.0.0.1:0', defaultIdentity: {certs: [cert.pem], privateKey: key.pem}";
    talk::proxies(namerd, "").replace("kind: io.l5d.tcp, addr: '127.0.0.1:0'", server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_the_second_generation_are_there_from_the_start() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    let (dir, ca) = tls_files();
    let program = Program::start_in(dir, &talk::routers(&namerd.url(), TLS, ""), &[]);
    let from_start = names(&program).await;
    let (rt, dst, srv) =
        (r#"rt="default""#, r#"dst="/svc/web", rt="default""#, r#"rt="default", srv_addr="ADDR""#);
    let resolver = r#"namespace="default", rt="default""#;
    has_all(
        &from_start,
        &[
            ("l5d:resolver:success_count l5d:resolver:failure_count", resolver),
            ("l5d:resolver:request_latency_ms_count", resolver),
            ("l5d:route_create l5d:route_error l5d:route_found l5d:route_time_us_count", rt),
            ("l5d:srv:accepts l5d:srv:closes l5d:srv:failures l5d:srv:active l5d:srv:waiters", srv),
            ("l5d:srv:stream:rx_bytes l5d:srv:stream:tx_bytes l5d:srv:connect:latency_us_count", srv),
            ("l5d:srv:stream:duration_ms_count l5d:srv:stream:connection_rx_bytes_count", srv),
            ("l5d:srv:stream:connection_tx_bytes_count l5d:srv:tls:handshake_us_count", srv),
            ("l5d:balancer:unavailable l5d:balancer:connection:attempts", dst),
            ("l5d:balancer:connection:connects l5d:balancer:endpoint:available", dst),
            ("l5d:balancer:endpoint:failed l5d:balancer:endpoint:retired", dst),
            ("l5d:balancer:connection:pending l5d:balancer:connection:open l5d:balancer:waiters", dst),
            ("l5d:balancer:poll_time_us_count l5d:balancer:connection:latency_us_count", dst),
            ("l5d:balancer:connection:duration_ms_count", dst),
        ],
    );
    for cause in ["timeout", "other"] {
        let labels = format!("cause=\"{cause}\", {srv}");
        has_all(&from_start, &[("l5d:srv:connect:failure l5d:srv:stream:failure", &labels)]);
    }
    for cause in ["timeout", "refused", "other"] {
        has_all(&from_start, &[("l5d:balancer:connection:failure", &format!("cause=\"{cause}\", {dst}"))]);
    }

    let tls = ca.client_tls("proxy");
    let io = TcpStream::connect(program.addr()).await.unwrap();
    let mut io = TlsConnector::from(tls.config).connect(tls.server_name, io).await.unwrap();
    meshlib::test_util::echo_to_end(&mut io, b"hello").await.unwrap();
    metric_is(program.admin(), "l5d:srv:closes", "", 1.0).await;
    metric_is(program.admin(), "l5d:resolver:success_count", "", 1.0).await;
    let after = names(&program).await;
    assert!(from_start.is_subset(&after), "{:#?}", from_start.difference(&after));
    golden("metrics-routers.txt", &after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_the_first_generation_are_there_from_the_start() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    let (dir, ca) = tls_files();
    let program = Program::start_in(dir, &first_generation(&namerd.url()), &[]);
    let page = ask(program.admin(), "GET", "/metrics").await.unwrap().body;
    let first = page.lines().find(|line| !line.starts_with('#')).unwrap();
    let series: f64 = first.strip_prefix("metrics_count ").expect("it comes first").parse().unwrap();
    assert!(series > 20.0, "{series}");

    let from_start = names(&program).await;
    let (proxy, srv) = (r#"proxy="default""#, r#"proxy="default", srv="ADDR""#);
    has_all(
        &from_start,
        &[
            ("connects handshake_failures", srv),
            ("success_count failure_count conns_established conns_active conns_pending", proxy),
            ("endpoints_ready endpoints_unready endpoints_retired", proxy),
            ("namerd_success_count namerd_failure_count", r#"service="namerd""#),
            ("namerd_request_latency_ms", r#"stat="count", service="namerd""#),
            ("poll_time_us connect_latency_us", &format!("stat=\"count\", {proxy}")),
            ("connection_ready_ms connection_active_ms", &format!("stat=\"count\", {proxy}")),
        ],
    );
    for direction in ["tx", "rx"] {
        let labels = format!("direction=\"{direction}\", {proxy}");
        has_all(&from_start, &[("bytes_total allocs_count", &labels)]);
        has_all(&from_start, &[("bytes", &format!("stat=\"count\", {labels}"))]);
    }

    let tls = ca.client_tls("proxy");
    let io = TcpStream::connect(program.addr()).await.unwrap();
    let mut io = TlsConnector::from(tls.config).connect(tls.server_name, io).await.unwrap();
    meshlib::test_util::echo_to_end(&mut io, b"hello").await.unwrap();
    metric_is(program.admin(), "success_count", "", 1.0).await;
    metric_is(program.admin(), "namerd_success_count", "", 1.0).await;
    let after = names(&program).await;
    assert!(from_start.is_subset(&after), "{:#?}", from_start.difference(&after));
    for stat in ["count", "mean", "min", "max", "stddev", "p50", "p90", "p95", "p99", "p999", "p9999"] {
        has_all(&after, &[("connection_active_ms", &format!("stat=\"{stat}\", {proxy}"))]);
    }
    golden("metrics-proxies.txt", &after);
}

/// An endpoint that answers twice as much as it is asked.
async fn twice() -> (tokio::task::JoinHandle<()>, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = tokio::spawn(async move {
        loop {
            let (mut io, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut asked = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut io, &mut asked).await?;
                io.write_all(&asked).await?;
                io.write_all(&asked).await?;
                io.shutdown().await
            });
        }
    });
    (serve, addr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_match_what_was_sent_and_gauges_return_to_zero() {
    let (serve, addr) = twice().await;
    let namerd = talk::namerd(&[addr]).await;
    let first = Program::start(&talk::proxies(&namerd.url(), ""));
    let second = Program::start(&talk::routers(&namerd.url(), "", ""));
    for program in [&first, &second] {
        for n in 1..=10_usize {
            let mut io = TcpStream::connect(program.addr()).await.unwrap();
            let answer = meshlib::test_util::echo_to_end(&mut io, &vec![7; 1000 * n]).await.unwrap();
            assert_eq!(answer.len(), 2000 * n);
        }
    }
    metric_is(first.admin(), "success_count", "", 10.0).await;
    metric_is(second.admin(), "l5d:srv:closes", "", 10.0).await;

    let found = metrics(first.admin()).await;
    let is = |found: &BTreeMap<String, f64>, name: &str, labels: &str, value: f64| {
        assert_eq!(sum(found, name, labels), value, "{name}{{{labels}}}");
    };
    is(&found, "connects", "", 10.0);
    is(&found, "failure_count", "", 0.0);
    is(&found, "bytes_total", r#"direction="tx""#, 55_000.0);
    is(&found, "bytes_total", r#"direction="rx""#, 110_000.0);
    is(&found, "bytes", r#"stat="count", direction="tx""#, 10.0);
    is(&found, "bytes", r#"stat="mean", direction="tx""#, 5_500.0);
    is(&found, "bytes", r#"stat="max", direction="rx""#, 20_000.0);
    is(&found, "bytes", r#"stat="min", direction="rx""#, 2_000.0);
    let median = sum(&found, "bytes", r#"stat="p50", direction="tx""#);
    assert!((4_500.0..=6_600.0).contains(&median), "{median}");
    let high = sum(&found, "bytes", r#"stat="p99", direction="tx""#);
    assert!((9_000.0..=10_000.0).contains(&high), "{high}");
    is(&found, "connect_latency_us", r#"stat="count""#, 10.0);
    is(&found, "endpoints_ready", "", 1.0);
    for gauge in
        ["conns_active", "conns_pending", "conns_established", "endpoints_unready", "endpoints_retired"]
    {
        is(&found, gauge, "", 0.0);
    }

    let found = metrics(second.admin()).await;
    is(&found, "l5d:srv:accepts", "", 10.0);
    is(&found, "l5d:srv:failures", "", 0.0);
    is(&found, "l5d:srv:stream:rx_bytes", "", 55_000.0);
    is(&found, "l5d:srv:stream:tx_bytes", "", 110_000.0);
    is(&found, "l5d:srv:stream:connection_rx_bytes_sum", "", 55_000.0);
    is(&found, "l5d:srv:stream:connection_rx_bytes_min", "", 1_000.0);
    is(&found, "l5d:srv:stream:connection_tx_bytes_max", "", 20_000.0);
    is(&found, "l5d:srv:stream:connection_tx_bytes_count", "", 10.0);
    is(&found, "l5d:srv:stream:connection_tx_bytes_bucket", r#"le="+Inf""#, 10.0);
    is(&found, "l5d:route_create", "", 1.0);
    is(&found, "l5d:route_found", "", 10.0);
    is(&found, "l5d:balancer:connection:attempts", "", 10.0);
    is(&found, "l5d:balancer:connection:connects", "", 10.0);
    is(&found, "l5d:balancer:endpoint:available", "", 1.0);
    let of_tls = |name: &String| name.contains("handshake");
    assert!(!found.keys().any(of_tls), "without TLS there are no handshakes");
    for gauge in [
        "srv:active",
        "srv:waiters",
        "balancer:connection:open",
        "balancer:connection:pending",
        "balancer:waiters",
    ] {
        is(&found, &format!("l5d:{gauge}"), "", 0.0);
    }
    serve.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gauges_follow_what_lives() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    let first = Program::start(&talk::proxies(&namerd.url(), ""));
    let second = Program::start(&talk::routers(&namerd.url(), "", ""));
    let mut held = Vec::new();
    for program in [&first, &second] {
        for _ in 0..3 {
            let mut io = TcpStream::connect(program.addr()).await.unwrap();
            echo(&mut io, b"x").await.unwrap();
            held.push(io);
        }
    }
    metric_is(first.admin(), "conns_active", "", 3.0).await;
    metric_is(second.admin(), "l5d:srv:active", "", 3.0).await;
    metric_is(second.admin(), "l5d:srv:waiters", "", 0.0).await;
    metric_is(second.admin(), "l5d:balancer:connection:open", "", 3.0).await;

    held.clear();

    metric_is(first.admin(), "conns_active", "", 0.0).await;
    metric_is(second.admin(), "l5d:srv:active", "", 0.0).await;
    metric_is(second.admin(), "l5d:balancer:connection:open", "", 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_counted_by_their_cause() {
    let (_reserved, addr) = dead();
    let program = Program::start(&fixed(&[addr], "connectTimeoutMs: 300", ""));
    for _ in 0..2 {
        closed_after(program.addr()).await;
    }
    metric_is(program.admin(), "l5d:srv:failures", "", 2.0).await;
    let found = metrics(program.admin()).await;
    assert_eq!(sum(&found, "l5d:srv:connect:failure", r#"cause="timeout""#), 2.0);
    let attempts = sum(&found, "l5d:balancer:connection:attempts", "");
    assert!(attempts > 2.0, "{attempts}");
    // Each client's time may have ended in the middle of an attempt, which has no outcome then.
    let refused = sum(&found, "l5d:balancer:connection:failure", r#"cause="refused""#);
    assert!(refused <= attempts && refused >= attempts - 2.0, "{refused} of {attempts}");
    assert_eq!(sum(&found, "l5d:balancer:connection:pending", ""), 0.0);
    assert_eq!(sum(&found, "l5d:balancer:waiters", ""), 0.0);
    assert_eq!(sum(&found, "l5d:srv:closes", ""), 0.0);

    // A client that leaves while it waits.
    let waits = TcpStream::connect(program.addr()).await.unwrap();
    metric_is(program.admin(), "l5d:srv:waiters", "", 1.0).await;
    waits.set_zero_linger().unwrap();
    drop(waits);
    metric_is(program.admin(), "l5d:srv:waiters", "", 0.0).await;
    metric_is(program.admin(), "l5d:srv:active", "", 0.0).await;
    metric_is(program.admin(), "l5d:srv:connect:failure", r#"cause="other""#, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_destinations_of_their_own_have_labels_of_their_own() {
    let backend = Echo::start().await;
    let namerd = talk::namerd(&[backend.addr()]).await;
    talk::set(&namerd, &[backend.addr()]);
    namerd.set("default", "/svc/other", meshlib_namerd::api::Addr::bound([backend.addr()])).unwrap();
    let config = talk::routers(&namerd.url(), "", "").replace(
        "      - port: 0\n        dstName: /svc/web\n",
        "      - {port: 0, dstName: /svc/web}\n      - {port: 0, dstName: /svc/web}\n      - {port: 0, dstName: /svc/other}\n",
    );
    let program = Program::start(&config);
    let servers = program.servers();
    for (n, addr) in servers.iter().enumerate() {
        for _ in 0..=n {
            exchange(*addr).await.unwrap();
        }
    }
    until("all have ended", async || sum(&metrics(program.admin()).await, "l5d:srv:closes", "") == 6.0).await;

    let found = metrics(program.admin()).await;
    for (n, addr) in servers.iter().enumerate() {
        let labels = format!("srv_addr=\"{addr}\"");
        assert_eq!(sum(&found, "l5d:srv:accepts", &labels), n as f64 + 1.0);
    }
    assert_eq!(sum(&found, "l5d:balancer:connection:connects", r#"dst="/svc/web""#), 3.0);
    assert_eq!(sum(&found, "l5d:balancer:connection:connects", r#"dst="/svc/other""#), 3.0);
    assert_eq!(sum(&found, "l5d:balancer:endpoint:available", r#"dst="/svc/web""#), 1.0);
    assert_eq!(sum(&found, "l5d:route_create", ""), 2.0);
}
