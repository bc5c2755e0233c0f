//! The page of a program that serves.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshlib::test_util::Echo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time;
use tokio::time::Instant;

use crate::child::Running;
use crate::child::eventually;
use crate::chromium::browse;
use crate::chromium::is_there;

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port")
}

fn get(admin: SocketAddr, path: &str) -> String {
    let work = || -> io::Result<String> {
        let mut io = TcpStream::connect(admin)?;
        io.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(io, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        io.read_to_string(&mut answer)?;
        Ok(answer)
    };
    work().expect("an answer")
}

/// What stands behind a label on the page.
fn behind(page: &str, label: &str) -> String {
    let rest =
        page.split_once(&format!("<dt>{label}</dt><dd>")).unwrap_or_else(|| panic!("no {label} in {page}")).1;
    rest.split('<').next().expect("a text").to_owned()
}

fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number") as u64).sum()
}

/// Connects, says something, hears it again, and waits for the end. True if it went well.
fn exchange(addr: SocketAddr) -> bool {
    let work = || -> io::Result<bool> {
        let mut io = TcpStream::connect(addr)?;
        io.set_read_timeout(Some(Duration::from_secs(20)))?;
        io.write_all(b"hello")?;
        io.shutdown(std::net::Shutdown::Write)?;
        let mut heard = Vec::new();
        io.read_to_end(&mut heard)?;
        Ok(heard == b"hello")
    };
    work().unwrap_or(false)
}

/// A program with two endpoints, of which a test may end the second.
struct Served {
    addr: SocketAddr,
    admin: SocketAddr,
    _lives: Echo,
    dies: Echo,
    _dir: TempDir,
    _program: Running,
}

impl Served {
    async fn start() -> Self {
        let (lives, dies) = (Echo::start().await, Echo::start().await);
        let (addr, admin) = (free(), free());
        let dir = tempfile::tempdir().expect("a directory");
        let endpoint = |echo: &Echo| format!("{{ip: 127.0.0.1, port: {}}}", echo.addr().port());
        let config = format!(
            "{{admin: {{port: {}}}, routers: [{{label: web, servers: [{{port: {}, dstName: /svc/web}}], \
             interpreter: {{kind: io.l5d.static, addrs: {{/svc/web: [{}, {}]}}}}, \
             client: {{kind: io.l5d.global, failFast: {{maxConsecutiveFailures: 1}}}}}}]}}",
            admin.port(),
            addr.port(),
            endpoint(&lives),
            endpoint(&dies)
        );
        std::fs::write(dir.path().join("config.yml"), config).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_linkerd-tcp"));
        command.arg("config.yml").current_dir(dir.path()).stdin(Stdio::null());
        let program = Running::spawn(&mut command);
        eventually("it listens", || TcpStream::connect(admin).is_ok());
        Self { addr, admin, _lives: lives, dies, _dir: dir, _program: program }
    }
}

/// How many have ended well or badly, by the metrics.
fn ended(admin: SocketAddr) -> u64 {
    sum(&get(admin, "/metrics"), "linkerd_tcp_connections_total", "router=\"web\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_those_of_the_metrics_and_a_dead_endpoint_is_soon_seen() {
    let Served { addr, admin, dies, _lives, _dir, _program } = Served::start().await;
    spawn_blocking(move || {
        for _ in 0..50 {
            assert!(exchange(addr));
        }
        // The last connection may not have been counted yet.
        eventually("all are counted", || {
            sum(&get(admin, "/metrics"), "linkerd_tcp_connections_total", "result=\"ok\"") == 50
        });
        let page = get(admin, "/dashboard");
        assert_eq!((&*behind(&page, "Ended"), &*behind(&page, "Failed")), ("50", "0"));
        let state = get(admin, "/state.json");
        let state: Value =
            serde_json::from_str(state.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
        let endpoints = state["destinations"][0]["endpoints"].as_array().expect("endpoints");
        let picked: u64 = endpoints.iter().filter_map(|it| it["picked"].as_u64()).sum();
        assert_eq!((picked, &state["traffic"]["ended"]), (50, &Value::from(50)), "{state:#}");

        let dead = dies.addr();
        drop(dies);
        // Somebody must try it for it to be known.
        while !get(admin, "/metrics").contains("state=\"ejected\"} 1") {
            // One that it had accepted may end with it.
            exchange(addr);
        }
        assert!(exchange(addr), "another endpoint serves");
        let since = Instant::now();
        let row = |page: &str| {
            let row = page.split_once(&format!("{dead}</th>")).expect("a row").1;
            row.split("</tr>").next().expect("its end").to_owned()
        };
        while !row(&get(admin, "/dashboard")).contains("ejected for") {
            assert!(since.elapsed() < Duration::from_secs(2), "{}", row(&get(admin, "/dashboard")));
        }
        let state = get(admin, "/state.json");
        assert!(state.contains("refused") && row(&get(admin, "/dashboard")).contains("refused"), "{state}");
    })
    .await
    .expect("it held");
}

/// While connections come and go: what the page shows was true between before and after, and it says nothing to anybody
/// else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_a_program_under_load() {
    if !is_there() {
        return;
    }
    let Served { addr, admin, dies, _lives, _dir, _program } = Served::start().await;
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let load = spawn_blocking(move || {
        let mut failed = 0;
        while !stopped.load(Ordering::SeqCst) {
            failed += u32::from(!exchange(addr));
        }
        failed
    });
    let number = |page: &str| behind(page, "Ended").replace(',', "").parse::<u64>().expect("a number");

    let before = ended(admin);
    // Nothing has another address than what is served here.
    let nobody_else = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";
    let seen = browse(admin, &[nobody_else]).await;

    assert_eq!(seen.console, [""; 0]);
    let shown = number(&seen.page);
    assert!((before..=ended(admin)).contains(&shown), "{shown}");
    assert!(shown > 0 && seen.page.contains("2 ready") && seen.page.contains(">live<"), "{}", seen.page);

    let dead = dies.addr();
    drop(dies);
    while !get(admin, "/metrics").contains("state=\"ejected\"} 1") {
        time::sleep(Duration::from_millis(5)).await;
    }
    let seen = browse(admin, &[nobody_else]).await;

    assert_eq!(seen.console, [""; 0]);
    let row = seen.page.split_once(&format!("{dead}</th>")).expect("a row").1;
    assert!(row.split("</tr>").next().is_some_and(|row| row.contains("ejected for")), "{row}");
    stop.store(true, Ordering::SeqCst);
    // What an endpoint has accepted ends with it; of this client it is one connection at most.
    let failed = load.await.expect("it does not panic");
    assert!(failed <= 1, "{failed}");
}
