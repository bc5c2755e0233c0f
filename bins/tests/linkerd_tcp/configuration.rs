//! A new configuration while the program runs: all of it, or nothing.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo;
use meshlib::test_util::free_ports;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::server::NamerdServer;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::process::Program;
use crate::process::SOON;
use crate::talk::ask;
use crate::talk::exchange;
use crate::talk::greeted;
use crate::talk::metric_is;
use crate::talk::metrics;
use crate::talk::until;

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    let [port] = free_ports();
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A configuration with a router for each server: its label, its address, its endpoint, and more fields of the server.
fn routers(servers: &[(&str, SocketAddr, SocketAddr, &str)]) -> String {
    let mut text = "admin: {port: 0, graceSecs: 2}\nrouters:\n".to_owned();
    for (label, addr, endpoint, more) in servers {
        let (ip, port) = (endpoint.ip(), endpoint.port());
        write!(
            text,
            "  - label: {label}\n    servers: [{{port: {}, dstName: /svc/{label}{more}}}]\n    interpreter: \
             {{kind: io.l5d.static, addrs: {{/svc/{label}: [{{ip: '{ip}', port: {port}}}]}}}}\n",
            addr.port()
        )
        .unwrap();
    }
    text
}

impl Program {
    /// Writes another configuration and has it loaded, and waits for what is said about it.
    fn load(&self, config: &str) -> String {
        fs::write(self.dir.path().join("config.yml"), config).unwrap();
        self.load_again()
    }

    fn load_again(&self) -> String {
        let before = self.stderr().all().len();
        self.signal(Signal::HUP);
        let said = |line: &&String| line.contains("loaded again") && !line.contains("HUP");
        crate::child::eventually("it has tried", || self.stderr().all()[before..].iter().any(|it| said(&it)));
        self.stderr().all()[before..].iter().find(said).unwrap().clone()
    }
}

async fn state(program: &Program) -> Value {
    serde_json::from_str(&ask(program.admin(), "GET", "/state.json").await.unwrap().body).unwrap()
}

/// Connections one after the other from several clients, none of which may fail.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Load {
    fn start(addrs: &[SocketAddr]) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = addrs.iter().flat_map(|addr| [*addr; 3]).map(|addr| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    exchange(addr).await?;
                    served.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        });
        Self { clients: clients.collect(), stop, served }
    }

    /// Waits until so many more were served.
    async fn goes_on(&self, more: usize) {
        let so_far = self.served.load(Ordering::SeqCst);
        until("connections go on", async || self.served.load(Ordering::SeqCst) >= so_far + more).await;
    }

    async fn ends(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_fails_while_configurations_come_and_go() {
    let (one, other) = (Echo::start().await, Echo::start().await);
    let (stays, changes, comes) = (free(), free(), free());
    let first = routers(&[("stays", stays, one.addr(), ""), ("changes", changes, one.addr(), "")]);
    let program = Program::start(&first);
    let load = Load::start(&[stays, changes]);
    load.goes_on(20).await;

    for n in 0..6 {
        // Another endpoint, then another limit, then another name: each of them is another server at the same address.
        let (label, endpoint, more) = match n % 3 {
            0 => ("changes", other.addr(), ""),
            1 => ("changes", other.addr(), ", maxConcurrency: 77"),
            _ => ("renamed", one.addr(), ""),
        };
        let said = program.load(&routers(&[
            ("comes", comes, one.addr(), ""),
            ("stays", stays, one.addr(), ""),
            (label, changes, endpoint, more),
        ]));
        assert!(said.contains("serving 3 routers, 3 servers"), "{said}");
        exchange(comes).await.unwrap();
        load.goes_on(20).await;
        let said = program.load(&first);
        assert!(said.contains("serving 2 routers, 2 servers"), "{said}");
        load.goes_on(20).await;
        until("nobody listens there any more", async || TcpStream::connect(comes).await.is_err()).await;
    }

    load.ends().await;
    assert!(other.accepted() > 0);
    metric_is(program.admin(), "config_last_reload_successful", "", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_changes_nothing_and_is_told_with_its_place() {
    let backend = Echo::start().await;
    let (addr, comes, taken) = (free(), free(), TcpListener::bind("127.0.0.1:0").unwrap());
    let good = routers(&[("web", addr, backend.addr(), "")]);
    let program = Program::start(&good);
    let load = Load::start(&[addr]);
    let both = |second: SocketAddr, more: &str| {
        routers(&[
            ("web", addr, backend.addr(), ", maxConcurrency: 7"),
            ("more", second, backend.addr(), more),
        ])
    };
    let bad = [
        (good.replace("dstName", "dstNam"), "config.yml:4:", "did you mean `dstName`?"),
        ("routers: [".to_owned(), "config.yml:", ""),
        (
            both(comes, ", tls: {defaultIdentity: {certs: [none.pem], privateKey: none.pem}}"),
            "config.yml:7:",
            "none.pem",
        ),
        (both(taken.local_addr().unwrap(), ""), "config.yml:7:", "cannot listen at"),
        ("proxies: []".to_owned(), "config.yml", "another language than before"),
    ];
    for (config, place, why) in bad {
        load.goes_on(10).await;
        let said = program.load(&config);
        assert!(said.contains("ERROR") && said.contains(place) && said.contains(why), "{config}\n{said}");
        metric_is(program.admin(), "config_last_reload_successful", "", 0.0).await;
        let reload = state(&program).await["reload"].clone();
        assert!(
            reload["error"].as_str().is_some_and(|error| error.contains(place) && error.contains(why)),
            "{reload}"
        );
        assert_eq!(reload["successful"], false);
        assert!(TcpStream::connect(comes).await.is_err(), "half of it is in force");
        let config = ask(program.admin(), "GET", "/config.json").await.unwrap().body;
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["routers"].as_array().map(Vec::len), Some(1), "{config}");
        // What is bad has 7.
        assert_eq!(config["routers"][0]["servers"][0]["maxConcurrency"], 100_000, "{config}");
        load.goes_on(10).await;
    }

    program.load(&both(comes, ""));
    exchange(comes).await.unwrap();
    metric_is(program.admin(), "config_last_reload_successful", "", 1.0).await;
    assert_eq!(state(&program).await["reload"]["error"], Value::Null);
    load.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_as_they_began_and_end_with_the_program() {
    let backend = Echo::start().await;
    let (goes, changes) = (free(), free());
    let mut program = Program::start(&routers(&[
        ("goes", goes, backend.addr(), ""),
        ("changes", changes, backend.addr(), ""),
    ]));
    let mut streams = Vec::new();
    for addr in [goes, changes] {
        let mut io = TcpStream::connect(addr).await.unwrap();
        echo(&mut io, b"before").await.unwrap();
        streams.push(io);
    }

    program.load(&routers(&[("changes", changes, backend.addr(), ", idleTimeoutMs: 60000")]));

    until("nobody listens", async || TcpStream::connect(goes).await.is_err()).await;
    for io in &mut streams {
        assert_eq!(echo(io, b"after").await.unwrap(), b"after");
    }
    // What is gone is not in the metrics, and what was replaced is counted on.
    let now = metrics(program.admin()).await;
    assert!(!now.keys().any(|name| name.contains("\"goes\"")), "{now:#?}");
    metric_is(program.admin(), "l5d:srv:active", "changes", 1.0).await;
    metric_is(program.admin(), "l5d:srv:waiters", "changes", 0.0).await;
    // The drain waits for them, cuts them, and then it ends.
    program.signal(Signal::TERM);
    assert_eq!(program.exit(SOON).await.code(), Some(0));
    for io in &mut streams {
        assert!(echo(io, b"x").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_remembered_where_nothing_has_changed() {
    let (kept, new) = (Echo::start().await, Echo::start().await);
    let (one, other) = (free(), free());
    let config = |endpoint: SocketAddr| {
        format!("# a line more\n{}", routers(&[("kept", one, kept.addr(), ""), ("new", other, endpoint, "")]))
    };
    let program = Program::start(&config(kept.addr())[14..]);
    for addr in [one, other] {
        exchange(addr).await.unwrap();
    }

    program.load(&config(new.addr()));
    exchange(other).await.unwrap();

    let state = state(&program).await;
    let picked = |n: usize| state["destinations"][n]["endpoints"][0]["picked"].as_u64();
    assert_eq!((picked(0), picked(1)), (Some(1), Some(1)), "{state:#}");
    assert_eq!(state["destinations"][1]["endpoints"][0]["addr"], new.addr().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_another_start_is_said() {
    let backend = Echo::start().await;
    let config = routers(&[("web", free(), backend.addr(), "")]);
    let program = Program::start(&config);

    program.load(&config.replace("graceSecs: 2", "graceSecs: 3, metricsIntervalSecs: 7"));

    let said = program.stderr().wait_for("the warning", |line| line.contains("after the next start"));
    assert!(said.contains("admin.graceSecs") && said.contains("admin.metricsIntervalSecs"), "{said}");
}

/// Certificates that are no good keep the old ones, also when the configuration is loaded for another reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_certificate_keeps_the_whole_configuration() {
    let (ca, backend) = (TestCa::new(), Echo::start().await);
    let dir = tempfile::tempdir().unwrap();
    ca.issue(["proxy"]).write_to(&dir).unwrap();
    let (tls, comes) = (free(), free());
    let with_tls = ", tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";
    let config = routers(&[("tls", tls, backend.addr(), with_tls)]);
    let program = Program::start_in(dir, &config, &[]);
    let file = program.dir.path().join("key.pem");
    let key = fs::read(&file).unwrap();
    let more = routers(&[("tls", tls, backend.addr(), with_tls), ("more", comes, backend.addr(), "")]);

    fs::write(&file, "nonsense").unwrap();
    let said = program.load(&more);
    assert!(said.contains("config.yml:4:") && said.contains("key.pem"), "{said}");
    assert!(TcpStream::connect(comes).await.is_err());

    fs::write(&file, key).unwrap();
    program.load_again();
    exchange(comes).await.unwrap();
    let shown: Value =
        serde_json::from_str(&ask(program.admin(), "GET", "/certs.json").await.unwrap().body).unwrap();
    assert_eq!(shown[0]["names"][0], "proxy", "{shown}");
    assert_eq!((&shown[0]["state"], &shown[0]["file"]), (&"valid".into(), &"cert.pem".into()), "{shown}");
    let now = metrics(program.admin()).await;
    let expiry = now["tls_certificate_not_after_timestamp_seconds{subject=\"proxy\"}"];
    assert_eq!(shown[0]["not_after_ms"].as_f64(), Some(expiry * 1000.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_may_be_given_another_path() {
    let mut servers = Vec::new();
    for name in ["one", "two"] {
        servers.push(EchoOptions::default().with_greeting(name).start().await.unwrap());
    }
    let namerd = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    for (path, server) in ["/svc/one", "/svc/two"].into_iter().zip(&servers) {
        namerd.set("default", path, Addr::bound([Address::new(server.addr())])).unwrap();
    }
    let (addr, url) = (free(), namerd.url());
    let config = |path: &str| {
        format!(
            "{{admin: {{addr: '127.0.0.1:0'}}, proxies: [{{servers: [{{kind: io.l5d.tcp, addr: '{addr}'}}], \
             namerd: {{url: '{url}', path: {path}}}}}]}}"
        )
    };
    let program = Program::start(&config("/svc/one"));
    assert_eq!(greeted(addr, 3).await.unwrap().1, "one");

    program.load(&config("/svc/two"));

    assert_eq!(greeted(addr, 3).await.unwrap().1, "two");
}

/// Between two HUPs and in what is shown: what waits for the next start is not in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_off_stays_so_and_is_said_each_time() {
    let backend = Echo::start().await;
    let config = routers(&[("web", free(), backend.addr(), "")]);
    let program = Program::start(&format!("workers: 1\n{config}"));

    for n in 1..=2 {
        program.load(&format!("workers: 2\n{config}"));
        crate::child::eventually("it is said", || program.stderr().count("after the next start") == n);
    }
    let shown = ask(program.admin(), "GET", "/config.json").await.unwrap().body;
    assert!(shown.contains("\"workers\": 1"), "{shown}");
    program.load(&format!("workers: 1\n{config}"));
    assert_eq!(program.stderr().count("after the next start"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_known_at_once_when_only_the_way_to_endpoints_changes() {
    let backend = Echo::start().await;
    let namerd = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    namerd.set("default", "/svc/web", Addr::bound([Address::new(backend.addr())])).unwrap();
    let (addr, url) = (free(), namerd.url());
    let config = |more: &str, buffer: usize| {
        format!(
            "{{admin: {{port: 0}}, bufferSizeBytes: {buffer}, routers: [{{label: web, servers: [{{port: {}, dstName: /svc/web}}], \
             interpreter: {{kind: io.l5d.namerd.http, baseUrl: '{url}'}}, client: {{kind: io.l5d.global{more}}}}}]}}",
            addr.port()
        )
    };
    let program = Program::start(&config("", 65_536));
    exchange(addr).await.unwrap();
    drop(namerd);

    for (more, buffer) in
        [("", 8192), (", maxWaiters: 7", 8192), (", failFast: {maxConsecutiveFailures: 1}", 4096)]
    {
        program.load(&config(more, buffer));
        assert_eq!(ask(program.admin(), "GET", "/ready").await.unwrap().status, 200, "{more}");
        exchange(addr).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_connections_counts_those_from_before() {
    let (backend, addr) = (Echo::start().await, free());
    let program = Program::start(&routers(&[("web", addr, backend.addr(), ", maxConcurrency: 2")]));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut io = TcpStream::connect(addr).await.unwrap();
        echo(&mut io, b"x").await.unwrap();
        streams.push(io);
    }

    program.load(&routers(&[("web", addr, backend.addr(), ", maxConcurrency: 2, idleTimeoutMs: 60000")]));

    let mut third = TcpStream::connect(addr).await.unwrap();
    let answered = tokio::time::timeout(std::time::Duration::from_millis(300), echo(&mut third, b"y"));
    assert!(answered.await.is_err(), "two are there already");
    drop(streams.pop());
    let mut fourth = TcpStream::connect(addr).await.unwrap();
    // The third comes first.
    drop(third);
    assert_eq!(echo(&mut fourth, b"z").await.unwrap(), b"z");
}

/// A file that has no end, such as a pipe that nobody writes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_does_not_wait_for_a_configuration_that_is_being_loaded() {
    let (backend, addr) = (Echo::start().await, free());
    let mut program = Program::start(&routers(&[("web", addr, backend.addr(), "")]));
    let file = program.dir.path().join("config.yml");
    fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());

    program.signal(Signal::HUP);
    program.stderr().wait_for("the signal", |line| line.contains("HUP: loading"));
    exchange(addr).await.unwrap();
    program.signal(Signal::TERM);

    assert_eq!(program.exit(SOON).await.code(), Some(0));
}

/// What a server of long ago held is gone, although a stream from then goes on: its spare connections among it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_were_replaced_keep_no_connections_ready() {
    let (backend, addr) = (Echo::start().await, free());
    let config = |idle: u32| {
        let text = routers(&[("web", addr, backend.addr(), &format!(", idleTimeoutMs: {idle}"))]);
        text + &format!("    client: {{kind: io.l5d.global, minConnections: 3, maxWaiters: {idle}}}\n")
    };
    let program = Program::start(&config(50_000));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    echo(&mut stream, b"x").await.unwrap();

    for idle in 60_000..60_005 {
        program.load(&config(idle));
        exchange(addr).await.unwrap();
    }

    // Three that wait, and the one of the stream.
    until("those of old are gone", async || backend.open() <= 4).await;
    assert_eq!(echo(&mut stream, b"y").await.unwrap(), b"y");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_endpoints_are_shown_are_among_those_that_end() {
    let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());
    ca.issue(["me.example"]).write_to(&dir).unwrap();
    fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let tls = "tls: {dnsName: web.example, trustCerts: [ca.pem], clientAuth: {certs: [cert.pem], privateKey: key.pem}}";

    let program = Program::start_in(dir, &crate::talk::fixed(&[], "", tls), &[]);

    let certificates = async || ask(program.admin(), "GET", "/certs.json").await.unwrap().body;
    until("the file was read", async || certificates().await.contains("me.example")).await;
    let shown: Value = serde_json::from_str(&certificates().await).unwrap();
    assert_eq!(
        (&shown[0]["role"], &shown[0]["names"][0]),
        (&"client".into(), &"me.example".into()),
        "{shown}"
    );
    metric_is(program.admin(), "config_last_reload_successful", "", 1.0).await;
    let now = metrics(program.admin()).await;
    assert!(
        now.contains_key("tls_certificate_not_after_timestamp_seconds{subject=\"me.example\"}"),
        "{now:#?}"
    );
}
