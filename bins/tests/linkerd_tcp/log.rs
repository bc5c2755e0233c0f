//! What is logged for operators at `RUST_LOG=linkerd_tcp=info`.

use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;

use meshlib::test_util::CertOptions;
use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use meshlib_namerd::api::Addr;
use meshlib_namerd::server::Fault;
use meshlib_namerd::server::NamerdServer;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::tempdir;

use crate::child::Running;
use crate::process::PROGRAM;
use crate::process::Program;
use crate::talk;
use crate::talk::NAME;
use crate::talk::ask;
use crate::talk::dead;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_and_the_admin_address_are_named() {
    let program = Program::start(&fixed(&[], "", ""));

    let line = program.stderr().wait_for("the listener", |line| line.contains("listening"));
    assert!(line.contains(&program.addr().to_string()) && line.contains(NAME), "{line}");
    let admin = program.admin().to_string();
    program.stderr().wait_for("the admin address", |line| line.contains(&admin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_cannot_be_connected_is_named_with_the_cause() {
    let (_reserved, addr) = dead();
    let lives = Echo::start().await;
    let namerd = talk::namerd(&[addr, lives.addr()]).await;
    for config in [talk::routers(&namerd.url(), "", ""), talk::proxies(&namerd.url(), "")] {
        let program = Program::start(&config);
        let refusals = || {
            let lines = program.stderr().all();
            let is_whole =
                |line: &&String| line.contains(r#""router":"#) && line.contains(r#""dst":"/svc/web""#);
            let mut lines = lines.iter().filter(|line| line.contains("cannot connect\"")).filter(is_whole);
            lines.any(|line| line.contains(&format!("\"{addr}\"")) && line.contains("refused"))
        };

        // The endpoint that refuses is tried sooner or later, and once is enough.
        until("it is tried and named", async || {
            exchange(program.addr()).await.unwrap();
            refusals()
        })
        .await;
    }
}

/// Of several lines each would be an entry of its own in a journal.
#[test]
fn a_configuration_that_is_not_loaded_again_is_told_in_one_line() {
    let dir = tempdir().unwrap();
    let write = |more| {
        let text = format!("admin: {{addr: '127.0.0.1:0'}}\nproxies: []\n{more}");
        fs::write(dir.path().join("c.yml"), text).unwrap();
    };
    write("");
    let mut command = Command::new(PROGRAM);
    command.arg("c.yml").current_dir(dir.path()).env("RUST_LOG", "linkerd_tcp=info").env("NO_COLOR", "1");
    let program = Running::spawn(&mut command);
    program.stderr().wait_for("its admin address", |line| line.contains("listening for admin requests"));

    write("worker: 1\nbuffer: 2\n");
    program.signal(Signal::HUP);
    let said = program.stderr().wait_for("the failure", |line| line.contains("was not loaded again"));
    assert!(said.contains("error=c.yml:3:1: ") && said.contains("; c.yml:4:1: "), "{said}");
    // A line that comes after all that there was to say.
    write("bufferSize: 1\n");
    program.signal(Signal::HUP);
    let said = program.stderr().wait_for("the warning", |line| line.contains("1024 to"));
    assert!(said.contains("WARN") && said.contains("c.yml:3:"), "{said}");
    program.stderr().wait_for("the success", |line| line.contains("the configuration was loaded again"));
    assert_eq!(program.stderr().count("  |"), 0, "{:#?}", program.stderr().all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_ended_is_told_and_is_a_problem() {
    let (ca, dir) = (TestCa::new(), tempdir().unwrap());
    let ended = CertOptions::default().expired();
    ca.issue_with(["proxy.example"], &ended).write_to(&dir).unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    let ending = CertOptions::default().with_validity(now - day, now + 3 * day);
    let soon = ca.issue_with(["soon.example"], &ending);
    fs::write(dir.path().join("soon.pem"), soon.chain_pem()).unwrap();
    fs::write(dir.path().join("soon.key"), soon.key_pem()).unwrap();
    let tls = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}, \
               identities: {soon.example: {certs: [soon.pem], privateKey: soon.key}}}";

    let program = Program::start_in(dir, &fixed(&[], tls, ""), &[]);

    let said = program.stderr().wait_for("the end", |line| line.contains("a certificate has ended"));
    assert!(said.contains("ERROR") && said.contains("proxy.example") && said.contains("cert.pem"), "{said}");
    let (_, date) = said.split_once(r#""ended":"20"#).unwrap();
    let said = program.stderr().wait_for("the other", |line| line.contains("a certificate ends soon"));
    assert!(said.contains("WARN") && said.contains("soon.example") && said.contains("soon.pem"), "{said}");
    let state = ask(program.admin(), "GET", "/state.json").await.unwrap().body;
    let state: Value = serde_json::from_str(&state).unwrap();
    let problem = state["problems"][0].as_str().unwrap();
    assert!(problem.contains("proxy.example") && problem.contains(&date[..18]), "{problem}");
    assert_eq!(state["problems"].as_array().unwrap().len(), 1);
}

/// Each change of outcome once, however often it is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolution_that_fails_is_named_with_the_cause() {
    let namerd = NamerdServer::reserve("127.0.0.1:0").await.unwrap();
    let program = Program::start(&talk::routers(&namerd.url(), "", ""));
    program.stderr().wait_for("the failure", |line| line.contains(NAME) && line.contains("refused"));

    namerd.fault("default", NAME, Fault::Status(503)).unwrap();
    namerd.start().await.unwrap();
    program.stderr().wait_for("the status", |line| line.contains(NAME) && line.contains("503"));
    namerd.requested(10).await;
    assert!(program.stderr().count("503") <= 3, "{:#?}", program.stderr().all());

    namerd.set("default", NAME, Addr::failed("no such host")).unwrap();
    namerd.fault("default", NAME, None).unwrap();
    program.stderr().wait_for("the answer", |line| line.contains(NAME) && line.contains("no such host"));
}

/// Lines for people have a time, a level and a target, and no colour unless on a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_for_people() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("c.yml"), "admin: {addr: '127.0.0.1:0'}\nproxies: []\n").unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("c.yml").current_dir(dir.path()).env("RUST_LOG", "linkerd_tcp=info");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();

    assert!(line.starts_with("20") && line.contains("INFO process: "), "{line}");
    assert!(!line.contains('\x1b'), "{line:?}");
}

/// What is logged from the start to the end.
async fn logged(rust_log: &str) -> String {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("c.yml"), "admin: {addr: '127.0.0.1:0'}\nproxies: []\n").unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("c.yml").current_dir(dir.path()).env("RUST_LOG", rust_log);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let admin = line.trim().strip_prefix("Listening on http://").unwrap().trim_end_matches('.');
    assert_eq!(ask(admin.parse().unwrap(), "POST", "/shutdown").await.unwrap().status, 200);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_chosen_by_target_and_level() {
    for all in
        ["info", "linkerd_tcp=info", "linkerd_tcp::app=info", "warn,linkerd_tcp::app=debug", "linkerd_tcp"]
    {
        let lines = logged(all).await;
        assert!(lines.contains("INFO linkerd_tcp::app: asked to shut down"), "{all}: {lines}");
    }
    for nothing in [
        "",
        "off",
        "error",
        "linkerd_tcp::admin=info",
        "linkerd_tcp=warn",
        "hyper=trace",
        "info,linkerd_tcp=error",
    ] {
        let lines = logged(nothing).await;
        assert_eq!(lines, "", "{nothing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_said_and_left_out() {
    let lines = logged("linkerd_tcp=info/shut").await;
    assert!(lines.contains("RUST_LOG: the part behind `/` is ignored: \"shut\""), "{lines}");
    assert!(lines.contains("asked to shut down"), "{lines}");

    let lines = logged("linkerd_tcp=loud,linkerd_tcp::app=info").await;
    assert!(lines.contains("RUST_LOG: \"linkerd_tcp=loud\" is ignored"), "{lines}");
    assert!(lines.contains("asked to shut down"), "{lines}");
}
