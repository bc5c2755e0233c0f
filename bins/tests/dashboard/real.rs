//! The page of a program that serves.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::free_ports;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::child::Running;
use crate::child::eventually;
use crate::devtools::Page;
use crate::devtools::is_there;
use crate::made::now_ms;

fn free() -> SocketAddr {
    let [port] = free_ports();
    (Ipv4Addr::LOCALHOST, port).into()
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
    lives: Echo,
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
        Self { addr, admin, lives, dies, _dir: dir, _program: program }
    }
}

/// How many have ended well or badly, by the metrics.
fn ended(admin: SocketAddr) -> u64 {
    sum(&get(admin, "/metrics"), "linkerd_tcp_connections_total", "router=\"web\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_those_of_the_metrics_and_a_dead_endpoint_is_soon_seen() {
    let Served { addr, admin, dies, lives: _lives, _dir, _program } = Served::start().await;
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

/// Connections that come one after the other until it is stopped or dropped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<[u64; 2]>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        // Ends when it is told to.
        let thread = thread::spawn(move || {
            let (mut made, mut failed) = (0, 0);
            while !stopped.load(SeqCst) {
                made += 1;
                failed += u64::from(!exchange(addr));
                // The browser needs a processor, too.
                thread::sleep(Duration::from_millis(1));
            }
            [made, failed]
        });
        Self { stop, thread: Some(thread) }
    }

    /// How many there were, and how many of them went wrong.
    fn stop(mut self) -> [u64; 2] {
        self.stop.store(true, SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("it does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// The row of an endpoint and how many have ended, both as the page has it, and how often it was asked for anew.
const SHOWN: &str = "
    row = (addr) => [...document.querySelectorAll('tbody tr')].find((it) => it.cells[0].textContent === addr);
    ended = () => {
      const label = [...document.querySelectorAll('dt')].find((it) => it.textContent === 'Ended');
      return Number(label.nextElementSibling.textContent.replaceAll(',', ''));
    };
    asked = () => performance.getEntriesByType('resource').filter((it) => it.name.endsWith('/dashboard')).length;";

fn browse(admin: SocketAddr) -> Page {
    let mut page = Page::open();
    page.go(format_args!("http://{admin}/dashboard"));
    page.evaluate(SHOWN);
    page
}

/// It has nothing to complain about, and it says nothing to anybody else.
fn is_content(page: &mut Page, admin: SocketAddr) {
    assert_eq!(page.console(), [""; 0]);
    assert_eq!(page.requests_elsewhere(admin), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_complete_and_renewed_without_script() {
    if !is_there() {
        return;
    }
    let Served { addr, admin, dies, lives, _dir, _program } = Served::start().await;
    assert!((0..50).all(|_| exchange(addr)));
    eventually("all are counted", || ended(admin) == 50);
    let mut page = Page::open();
    page.forbid_scripts();

    page.go(format_args!("http://{admin}/dashboard"));

    let texts = |of: &str| format!("[...document.querySelectorAll('{of}')].map((it) => it.textContent)");
    assert_eq!(
        page.evaluate(texts("h3")),
        json!(["Connections per second", "Success rate", "Latency", "Over TLS", "In flight"])
    );
    assert_eq!(page.evaluate(texts("svg[role=img] ~ .range")).as_array().map(Vec::len), Some(4));
    assert_eq!(
        page.evaluate(texts("tbody tr th, tbody tr .state")),
        json!([lives.addr().to_string(), "ready", dies.addr().to_string(), "ready"])
    );
    for (of, text) in [(".badge", "Ready"), ("caption .dst", "/svc/web"), ("#link", ""), (".totals dd", "50")]
    {
        assert_eq!(page.evaluate(texts(of))[0], text, "{of}");
    }
    assert_eq!(page.evaluate(texts("footer a")).as_array().map(Vec::len), Some(4));
    assert!((0..10).all(|_| exchange(addr)));
    page.until("it is renewed", format_args!("{}[0] === '60'", texts(".totals dd")));
    is_content(&mut page, admin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_what_the_metrics_say_under_load() {
    if !is_there() {
        return;
    }
    let Served { addr, admin, dies: _dies, lives: _lives, _dir, _program } = Served::start().await;
    let load = Load::start(addr);
    let mut page = browse(admin);

    for _ in 0..3 {
        let before = ended(admin);
        // An answer may have been on its way. With the next the number is there, before another is asked for.
        page.evaluate("late = false; most = asked() + 2");
        let shown = format!("ended() >= {before}");
        page.until(
            "it is shown with the next answer",
            format_args!("late ||= asked() > most && !({shown}); !late && {shown}"),
        );
        let shown = page.evaluate("ended()").as_u64().expect("a number");
        let after = ended(admin);
        assert!(0 < before && before <= shown && shown <= after, "{before} {shown} {after}");
    }

    let [made, failed] = load.stop();
    assert_eq!(failed, 0);
    eventually("all are counted", || ended(admin) == made);
    page.until("all are shown", format_args!("ended() === {made}"));
    is_content(&mut page, admin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_a_dead_endpoint_within_two_seconds_under_load() {
    if !is_there() {
        return;
    }
    let Served { addr, admin, dies, lives: _lives, _dir, _program } = Served::start().await;
    let load = Load::start(addr);
    let mut page = browse(admin);
    page.evaluate(format_args!(
        "state = () => row('{}').cells[1].textContent;
         seen = 0;
         new MutationObserver(() => seen ||= state().startsWith('ejected for') && Date.now())
           .observe(document.getElementById('main'), {{ subtree: true, childList: true, characterData: true }});",
        dies.addr()
    ));
    assert_eq!(page.evaluate("state()"), "ready");

    let killed = now_ms();
    drop(dies);

    // A page that had been loaded anew would not know of it.
    page.until("it is seen", "seen > 0");
    let after = page.evaluate("seen").as_u64().expect("a time").saturating_sub(killed);
    assert!(after <= 2_000, "{after} ms");
    println!("seen after {after} ms");
    // What an endpoint has accepted ends with it; of this client it is one connection at most.
    let [made, failed] = load.stop();
    assert!(failed <= 1 && made > 10, "{failed} of {made}");
    is_content(&mut page, admin);
}
