//! The documented configurations, unchanged, each in network and mount namespaces of its own: they name fixed ports and
//! files under system paths.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib::test_util::echo_to_end;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::server::NamerdServer;
use tempfile::tempdir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process::PROGRAM;
use crate::process::Program;
use crate::process::data;
use crate::process::has;
use crate::process::run;
use crate::talk::ask;
use crate::talk::until;

/// Tells the test in the namespaces from the one that makes them.
const INSIDE: &str = "LINKERD_TCP_TEST_INSIDE";

/// True in namespaces of the test's own, with a loopback interface that is up. Elsewhere it makes these namespaces, runs
/// the test in them, and is false.
fn isolated(test: &str) -> bool {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return true;
    }
    if !has("unshare") || !has("ip") {
        return false;
    }
    if run(Command::new("unshare").args(["--net", "--mount", "true"]), b"").code != Some(0) {
        eprintln!("skipped: no permission for network and mount namespaces");
        return false;
    }
    let script = format!("ip link set lo up && ip addr add {ELSEWHERE}/32 dev lo && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", &script, "sh"]);
    command.arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, test);
    let ended = run(&mut command, b"");
    eprint!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(0), "in the namespaces");
    assert!(ended.stdout.contains("1 passed"), "{}", ended.stdout);
    false
}

/// An address of the machine that is not a loopback address.
const ELSEWHERE: &str = "192.0.2.1";

/// Writes what the configurations expect to find, and returns a directory to start in.
fn files(work: &TestCa, backend: [&TestCa; 2]) -> tempfile::TempDir {
    let root = tempdir().unwrap();
    let dir = tempfile::TempDir::new_in(root.path()).unwrap();
    // The directory beside the working directory lives as long as the namespace's own temporary files.
    let root = root.keep();
    fs::create_dir_all(root.join("ca/intermediate")).unwrap();
    fs::write(root.join("ca/intermediate/chain.pem"), backend[0].pem()).unwrap();
    let cert = work.issue(["proxy.example"]);
    fs::write(dir.path().join("cert.pem"), cert.chain_pem()).unwrap();
    fs::write(dir.path().join("private.pem"), cert.key_pem()).unwrap();

    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/usr/local/etc"]), b"");
    assert_eq!(mounted.code, Some(0), "{mounted:?}");
    fs::create_dir_all("/usr/local/etc/openssl").unwrap();
    fs::write("/usr/local/etc/openssl/cert.pem", backend[1].pem()).unwrap();
    fs::write(root.join("hosts"), "127.0.0.1 localhost namerd\n::1 localhost\n").unwrap();
    let mounted = run(Command::new("mount").arg("--bind").arg(root.join("hosts")).arg("/etc/hosts"), b"");
    assert_eq!(mounted.code, Some(0), "{mounted:?}");
    dir
}

/// What an example serves.
struct Example {
    name: &'static str,
    path: &'static str,
    plain: &'static [u16],
    tls: &'static [u16],
    backends_speak_tls: bool,
}

/// Starts an example in each of its forms and sends real traffic through each of its servers.
async fn serves(example: &Example) {
    let (own, backend_cas) = (TestCa::new(), [TestCa::new(), TestCa::new()]);
    let mut backends = Vec::new();
    for ca in &backend_cas {
        backends.push(if example.backends_speak_tls {
            Echo::start_tls(ca.server_config(["www.google.com"])).await
        } else {
            Echo::start().await
        });
    }
    let namerd = NamerdServer::bind("127.0.0.1:4180").await.unwrap();
    let addrs = backends.iter().map(|echo| Address::new(echo.addr()));
    namerd.set("default", example.path, Addr::bound(addrs)).unwrap();
    let tls = own.client_tls("proxy.example");
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let mut dir = files(&own, [&backend_cas[0], &backend_cas[1]]);

    for form in ["example.yml", "example.json", "-", "- (JSON)"] {
        let kind = if form.contains("json") || form.contains("JSON") { "json" } else { "yml" };
        let source = data().join(format!("{}.{kind}", example.name));
        let mut command = Command::new(PROGRAM);
        if form.starts_with('-') {
            command.arg("-").stdin(fs::File::open(source).unwrap());
        } else {
            fs::copy(source, dir.path().join(form)).unwrap();
            command.arg(form).stdin(Stdio::null());
        }
        let program = Program::spawn(dir, command);

        let before: Vec<usize> = backends.iter().map(Echo::accepted).collect();
        for port in example.plain {
            // Of two idle backends each is as likely as the other: with ten, one in 512 runs would use one alone.
            for _ in 0..40 {
                let mut io = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
                assert_eq!(echo_to_end(&mut io, b"plain").await.unwrap(), b"plain", "{form}");
            }
        }
        for port in example.tls {
            for _ in 0..10 {
                let io = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
                let mut io = connector.connect(tls.server_name.clone(), io).await.unwrap();
                assert_eq!(echo_to_end(&mut io, b"in TLS").await.unwrap(), b"in TLS", "{form}");
            }
        }
        for (backend, before) in backends.iter().zip(before) {
            assert!(backend.accepted() > before, "every backend was used by {form}");
        }
        let admin: SocketAddr = "127.0.0.1:9989".parse().unwrap();
        until("it is ready", async || ask(admin, "GET", "/ready").await.unwrap().status == 200).await;
        let metrics = ask(admin, "GET", "/metrics").await.unwrap();
        assert!(metrics.body.lines().count() > 20, "{metrics:?}");
        dir = program.into_dir();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_example_of_the_first_generation_serves() {
    if isolated("examples::the_readme_example_of_the_first_generation_serves") {
        serves(&Example {
            name: "a-tls",
            path: "/svc/google",
            plain: &[7474],
            tls: &[7575],
            backends_speak_tls: true,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_a_url_serves() {
    if isolated("examples::the_example_with_a_url_serves") {
        serves(&Example {
            name: "a-url",
            path: "/svc/default",
            plain: &[7474],
            tls: &[],
            backends_speak_tls: false,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_a_global_client_serves() {
    if isolated("examples::the_example_with_a_global_client_serves") {
        serves(&Example {
            name: "b-global",
            path: "/svc/default",
            plain: &[7474],
            tls: &[],
            backends_speak_tls: false,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_a_static_client_serves() {
    if isolated("examples::the_example_with_a_static_client_serves") {
        serves(&Example {
            name: "b-static",
            path: "/svc/google",
            plain: &[7474],
            tls: &[7575],
            backends_speak_tls: true,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_a_host_name_serves() {
    if isolated("examples::the_example_with_a_host_name_serves") {
        serves(&Example {
            name: "b-host-name",
            path: "/svc/redis",
            plain: &[7474],
            tls: &[],
            backends_speak_tls: false,
        })
        .await;
    }
}

/// Without `admin.addr` the first generation shows its metrics to everybody and obeys only those on its own machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_may_look_at_the_first_generation_and_not_stop_it() {
    if !isolated("examples::others_may_look_at_the_first_generation_and_not_stop_it") {
        return;
    }
    let elsewhere: SocketAddr = format!("{ELSEWHERE}:9989").parse().unwrap();
    let mut program = Program::start("proxies: []\n");
    // Who connects to an address of this machine comes from that address.
    assert_eq!(ask(elsewhere, "GET", "/metrics").await.unwrap().status, 200);
    assert_eq!(ask(elsewhere, "POST", "/shutdown").await.unwrap().status, 403);
    assert_eq!(ask(elsewhere, "POST", "/abort").await.unwrap().status, 403);
    assert!(program.is_alive());
    assert_eq!(ask(program.admin(), "POST", "/shutdown").await.unwrap().status, 200);
    assert_eq!(program.exit(crate::process::SOON).await.code(), Some(0));

    // Whoever writes the address down means it.
    let mut program = Program::start("admin: {addr: '0.0.0.0:9989'}\nproxies: []\n");
    assert_eq!(ask(elsewhere, "POST", "/shutdown").await.unwrap().status, 200);
    assert_eq!(program.exit(crate::process::SOON).await.code(), Some(0));

    // The second generation listens at the loopback address.
    let _program = Program::start("routers: []\n");
    assert!(ask(elsewhere, "GET", "/metrics").await.is_err());
}
