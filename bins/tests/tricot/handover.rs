//! A new process takes over from an old one while clients connect.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;

use meshlib::test_util::Consul;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::time;
use tokio::time::Instant;

use crate::ask::Client;
use crate::load::Connections;
use crate::load::Load;
use crate::process::LOOK;
use crate::process::PROGRAM;
use crate::process::Tricot;
use crate::process::command;
use crate::process::until;
use crate::site::Site;

const HOST: &str = "app.example.com";

/// Sockets that outlive the processes that serve them.
struct Sockets {
    http: TcpListener,
    https: TcpListener,
    metrics: TcpListener,
}

impl Sockets {
    fn open() -> Self {
        let [http, https, metrics] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        Self { http, https, metrics }
    }

    fn https(&self) -> SocketAddr {
        self.https.local_addr().unwrap()
    }

    /// Starts a process that gets them as a service manager would pass them, and waits until it has a table.
    async fn serve(&self, consul: &Consul, n: usize) -> Passed {
        let log = consul.dir().join(format!("tricot-{n}.log"));
        let stdio = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        // The three that a child inherits become the three behind them.
        let shell = r#"exec 3<&0 4<&1 5<&2 </dev/null >"$LOG" 2>&1; LISTEN_PID=$$ exec "$PROGRAM""#;
        let usual = command(consul.addr());
        let mut command = std::process::Command::new("sh");
        let variables = usual.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let child = command
            .args(["-c", shell])
            .env_clear()
            .envs(variables)
            .env("PROGRAM", PROGRAM)
            .env("LOG", &log)
            .env("LISTEN_FDS", "3")
            .env("LISTEN_FDNAMES", "http:https:metrics")
            .stdin(stdio(&self.http))
            .stdout(stdio(&self.https))
            .stderr(stdio(&self.metrics))
            .spawn()
            .unwrap();
        let passed = Passed { child, log };
        until("a first table", async || passed.said().contains(" rules")).await;
        passed
    }
}

/// A process that was passed its sockets.
struct Passed {
    child: Child,
    log: PathBuf,
}

impl Passed {
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Tells it to end, and waits until it has.
    async fn leave(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let late = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.said());
                return;
            }
            assert!(Instant::now() < late, "it still runs: {}", self.said());
            time::sleep(LOOK).await;
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn site() -> Option<(Consul, Site)> {
    let consul = or_skip(Consul::start(ConsulOptions::default()).await)?;
    let site = Site::start("one").await;
    consul.service("n1", "web", "web-1", site.port(), &["tricot app.example.com"]).await;
    Some((consul, site))
}

/// How often processes change in the test of passed sockets: 5 times, or as `TRICOT_TEST_HANDOVERS` says.
fn handovers() -> usize {
    std::env::var("TRICOT_TEST_HANDOVERS").map_or(5, |n| n.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passed_sockets_change_hands_without_a_lost_connection() {
    let Some((consul, _site)) = site().await else { return };
    let sockets = Sockets::open();
    let mut serving = sockets.serve(&consul, 0).await;
    let client = Client::lenient(sockets.https());
    let load = Load::start(&client, HOST, 4, Connections::New);
    load.more(20).await;

    for n in 1..=handovers() {
        let next = sockets.serve(&consul, n).await;
        std::mem::replace(&mut serving, next).leave().await;
        load.more(20).await;
    }

    let tally = load.stop().await;
    println!("{} connections over {} changes of process", tally.ok(), handovers());
    tally.assert_all_ok();
    serving.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_port_changes_hands_with_hardly_a_lost_connection() {
    let Some((consul, _site)) = site().await else { return };
    let mut serving = Tricot::start(&consul).await;
    let client = Client::lenient(serving.https);
    let (http, https) = (serving.http.to_string(), serving.https.to_string());
    let same = [("TRICOT_HTTP_BIND_ADDR", http.as_str()), ("TRICOT_HTTPS_BIND_ADDR", https.as_str())];
    let load = Load::start(&client, HOST, 4, Connections::New);
    load.more(20).await;

    for _ in 0..5 {
        let next = Tricot::start_with(&consul, &same).await;
        let mut old = std::mem::replace(&mut serving, next);
        old.signal(Signal::TERM);
        assert!(old.exit(Duration::from_secs(40)).await.success());
        load.more(20).await;
    }

    let tally = load.stop().await;
    let lost = tally.errors.len();
    println!(
        "{lost} connections lost and {} answered over 5 changes of process: {:?}",
        tally.ok(),
        tally.errors
    );
    assert_eq!(tally.answers.len(), 1, "{tally:?}");
    // What the kernel has queued for a socket is lost when the socket is closed.
    assert!(lost <= 20, "{tally:?}");
}
