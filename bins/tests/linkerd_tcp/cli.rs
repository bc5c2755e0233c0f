//! The command line: what it says, where, and with which exit status.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::net::TcpListener;
use std::process::Command;
use std::process::Stdio;

use meshlib::test_util::CertOptions;
use meshlib::test_util::TestCa;
use tempfile::tempdir;

use crate::process::Ended;
use crate::process::PROGRAM;
use crate::process::Program;
use crate::process::data;
use crate::process::has;
use crate::process::program;
use crate::process::run;
use crate::talk::ask;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::routers;

/// Nothing on stdout, one line on stderr that holds all of these.
#[track_caller]
fn refused(ended: &Ended, texts: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    for text in texts {
        assert!(ended.stderr.contains(text), "{text:?} is not in {:?}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{:?}", ended.stderr);
}

#[test]
fn help_and_version_are_printed_on_stdout() {
    let dir = tempdir().unwrap();
    for flag in ["-h", "--help"] {
        let help = program(dir.path(), &[flag], "");
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        for text in ["linkerd-tcp", "Usage:", "PATH", "Config file path", "--help", "--version"] {
            assert!(help.stdout.contains(text), "{text:?} is not in {}", help.stdout);
        }
    }
    for flag in ["-V", "--version"] {
        let version = program(dir.path(), &[flag], "");
        assert_eq!((version.code, version.stderr.as_str()), (Some(0), ""));
        let number = version.stdout.strip_prefix("linkerd-tcp ").unwrap().trim_end();
        assert_eq!(number.split('.').count(), 3, "{number}");
    }
}

#[test]
fn misuse_is_explained_on_stderr() {
    let dir = tempdir().unwrap();
    refused(&program(dir.path(), &[], ""), &["PATH", "Usage: linkerd-tcp"]);
    refused(&program(dir.path(), &["a.yml", "b.yml"], ""), &["b.yml", "Usage: linkerd-tcp"]);
    refused(&program(dir.path(), &["--nonsense", "a.yml"], ""), &["--nonsense", "Usage: linkerd-tcp"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let dir = tempdir().unwrap();
    let missing = program(dir.path(), &["missing.yml"], "");
    refused(&missing, &["missing.yml", "No such file"]);
    assert_eq!(missing.stderr.trim_end().lines().count(), 1, "{missing:?}");
    refused(&program(dir.path(), &["."], ""), &[".: ", "directory"]);
}

#[test]
fn a_bad_configuration_is_refused_with_file_line_and_field() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("bad.yml");
    let refuses = |text: &str, texts: &[&str]| {
        fs::write(&path, text).unwrap();
        refused(&program(dir.path(), &["bad.yml"], ""), texts);
        refused(&program(dir.path(), &["--check", "bad.yml"], ""), texts);
    };

    refuses("proxies: []\nrouters: []\n", &["bad.yml:", "`proxies`", "`routers`"]);
    refuses("proxies: []\nfoo: 1\n", &["bad.yml:2:1: foo:", "unknown field `foo`", "`admin`"]);
    let config = fixed(&[], "port: 1", "");
    refuses(&config, &["bad.yml:7:9: routers[0].servers[0].port", "duplicate"]);
    let config = fixed(&[], "", "").replace("port: 0\n", "port: \"7474\"\n");
    refuses(&config, &["bad.yml:5:15: routers[0].servers[0].port"]);
    let config = fixed(&[], "", "").replace("dstName: /svc/web", "connectTimeoutMs: 1");
    refuses(&config, &["bad.yml:5:9: routers[0].servers[0]", "dstName"]);
    let config = fixed(&[], "", "").replace("kind: io.l5d.global", "kind: io.l5d.other");
    refuses(&config, &["routers[0].client.kind", "io.l5d.global"]);
    let config = routers("http://127.0.0.1:1", "", "").replace("periodSecs: 20", "periodSecs: 0");
    refuses(&config, &["routers[0].interpreter.periodSecs"]);
}

/// The servers come before the mistake in the file, and their ports are taken: had one been bound, the message would be
/// about that.
#[test]
fn nothing_is_bound_for_a_bad_configuration() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempdir().unwrap();
    let config = fixed(&[], "", "nonsense: 1").replace("port: 0", &format!("port: {port}"));

    let ended = program(dir.path(), &["-"], &config);

    refused(&ended, &["stdin:", "nonsense"]);
    assert!(!ended.stderr.contains("listen"), "{ended:?}");
}

#[test]
fn bad_certificates_and_keys_are_refused_with_their_path() {
    let dir = tempdir().unwrap();
    let (one, other) = (TestCa::new(), TestCa::new());
    let (one, other) = (one.issue(["a"]), other.issue(["a"]));
    fs::write(dir.path().join("cert.pem"), one.chain_pem()).unwrap();
    fs::write(dir.path().join("key.pem"), one.key_pem()).unwrap();
    fs::write(dir.path().join("other.pem"), other.key_pem()).unwrap();
    fs::write(dir.path().join("two.pem"), one.key_pem() + &one.key_pem()).unwrap();
    fs::write(dir.path().join("empty.pem"), "").unwrap();
    let with = |cert: &str, key: &str| {
        let tls = format!("tls: {{defaultIdentity: {{certs: [{cert}], privateKey: {key}}}}}");
        program(dir.path(), &["--check", "-"], &fixed(&[], &tls, ""))
    };

    assert_eq!(with("cert.pem", "key.pem").code, Some(0));
    refused(
        &with("missing.pem", "key.pem"),
        &["stdin:7:", "tls.defaultIdentity.certs[0]", "missing.pem", "No such"],
    );
    refused(&with("cert.pem", "missing.pem"), &["stdin:7:", "privateKey", "missing.pem", "No such"]);
    refused(&with("empty.pem", "key.pem"), &["stdin:7:", "empty.pem"]);
    refused(&with("cert.pem", "empty.pem"), &["stdin:7:", "empty.pem"]);
    refused(&with("cert.pem", "two.pem"), &["stdin:7:", "two.pem"]);
    refused(
        &with("cert.pem", "other.pem"),
        &["stdin:7:", "other.pem is not the key of the certificate in cert.pem"],
    );
    refused(
        &with("missing.pem", "gone.pem"),
        &["certs[0]", "read missing.pem", "privateKey", "read gone.pem"],
    );
    let client = |files: &str| {
        let tls = format!("tls: {{dnsName: a, trustCerts: {files}}}");
        program(dir.path(), &["--check", "-"], &fixed(&[], "", &tls))
    };
    assert_eq!(client("[cert.pem]").code, Some(0));
    refused(&client("[missing.pem]"), &["stdin:", "trustCerts[0]", "missing.pem"]);
    refused(&client("[empty.pem]"), &["stdin:", "trustCerts[0]", "empty.pem"]);
    refused(&client("[]"), &["stdin:", "trustCerts"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_in_use_is_refused_with_one_and_with_two_workers() {
    let backend = meshlib::test_util::Echo::start().await;
    for workers in ["1", "2"] {
        let config = fixed(&[backend.addr()], "", "");
        let first = Program::start_in(tempdir().unwrap(), &config, &["--workers", workers]);
        let port = first.addr().port();
        let again = config.replace("- port: 0", &format!("- port: {port}"));

        for other in ["1", "2"] {
            let second = program(first.dir.path(), &["--workers", other, "-"], &again);
            refused(&second, &["stdin:5:", "routers[0].servers[0]", &format!("127.0.0.1:{port}"), "in use"]);
        }
        let admin = first.admin().port();
        let again = config.replace("{port: 0,", &format!("{{port: {admin},"));
        let second = program(first.dir.path(), &["-"], &again);
        refused(&second, &["stdin:1:", "admin", &format!("127.0.0.1:{admin}"), "in use"]);

        exchange(first.addr()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_languages_are_read_from_stdin_as_yaml_and_as_json() {
    let backend = meshlib::test_util::Echo::start().await;
    let namerd = crate::talk::namerd(&[backend.addr()]).await;
    let json = serde_json::json!({
        "admin": {"port": 0},
        "routers": [{
            "label": "default",
            "servers": [{"port": 0, "dstName": "/svc/web", "connectTimeoutMs": null}],
            "interpreter": {
                "kind": "io.l5d.namerd.http", "baseUrl": namerd.url(), "namespace": "default", "periodSecs": 9
            },
        }],
    });
    let yaml = crate::talk::proxies(&namerd.url(), "");
    for text in [format!("\n\t  {json}"), yaml] {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("stdin"), text).unwrap();
        let input = fs::File::open(dir.path().join("stdin")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("-").stdin(input);
        let program = Program::spawn(dir, command);

        exchange(program.addr()).await.unwrap();
    }
}

#[test]
fn a_check_says_what_there_is_and_opens_no_socket() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempdir().unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = fixed(&[], "", "").replace("- port: 0", &format!("- port: {port}"));
    fs::write(dir.path().join("c.yml"), config).unwrap();

    let ended = program(dir.path(), &["--check", "c.yml"], "");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert!(ended.stdout.starts_with("c.yml: OK, 1 router, 1 server"), "{ended:?}");

    if has("strace") {
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=socket,bind,listen", "-o", "trace", PROGRAM, "--check", "c.yml"]);
        let ended = run(command.current_dir(dir.path()), b"");
        if ended.stderr.contains("Operation not permitted") {
            eprintln!("skipped: strace may not trace here");
            return;
        }
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let trace = fs::read_to_string(dir.path().join("trace")).unwrap();
        assert!(trace.contains("exited with 0"), "{trace}");
        assert!(!trace.contains("socket(") && !trace.contains("bind("), "{trace}");
    }
}

#[test]
fn the_documented_configurations_pass_a_check_where_they_name_no_files() {
    for name in ["a-url", "b-global", "b-host-name"] {
        for form in ["yml", "json"] {
            let file = data().join(format!("{name}.{form}"));
            let ended = program(&data(), &["--check", file.to_str().unwrap()], "");
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_proxies_or_routers_there_is_an_admin_server_only() {
    for config in ["admin: {addr: '127.0.0.1:0'}\nproxies: []\n", "admin: {port: 0}\nrouters: []\n"] {
        let program = Program::start(config);

        assert!(program.servers().is_empty());
        assert_eq!(ask(program.admin(), "GET", "/metrics").await.unwrap().status, 200);
    }
}

/// Scripts wait for this line; the second generation logs its address instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_generation_prints_its_admin_address_on_stdout() {
    let program = Program::start("admin: {addr: '127.0.0.1:0'}\nproxies: []\n");
    let line = program.stdout().wait_for("the admin address", |line| line.starts_with("Listening on"));
    assert_eq!(line, format!("Listening on http://{}.", program.admin()));

    let program = Program::start("admin: {port: 0}\nrouters: []\n");
    ask(program.admin(), "GET", "/live").await.unwrap();
    assert!(program.stdout().all().is_empty());
}

#[test]
fn errors_are_logged_and_nothing_else_unless_asked_for() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("c.yml"), "admin: {addr: '127.0.0.1:0'}\nproxies: []\n").unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("c.yml").current_dir(dir.path()).env_remove("RUST_LOG");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();

    let ended = child.wait_with_output().unwrap();

    assert!(line.starts_with("Listening on http://127.0.0.1:"), "{line}");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn certificates_that_end_soon_are_warned_of() {
    let (ca, dir) = (TestCa::new(), tempdir().unwrap());
    let day = std::time::Duration::from_secs(24 * 3600);
    let now = std::time::SystemTime::now();
    let tls = "tls: {defaultIdentity: {certs: [cert.pem], privateKey: key.pem}}";
    fs::write(dir.path().join("config.yml"), fixed(&[], tls, "")).unwrap();
    let lasting = CertOptions::default().with_validity(now - day, now + 15 * day);
    let ending = CertOptions::default().with_validity(now - day, now + 3 * day + day / 2);
    for (options, said) in [
        (lasting, ""),
        (ending, "warning: this certificate ends in 3 days\n"),
        (CertOptions::default().expired(), "warning: this certificate has ended: clients refuse it\n"),
    ] {
        ca.issue_with(["proxy"], &options).write_to(&dir).unwrap();

        let checked = program(dir.path(), &["--check", "config.yml"], "");
        assert_eq!(checked.code, Some(0), "{checked:?}");
        assert!(checked.stderr.contains(said) && checked.stderr.is_empty() == said.is_empty(), "{checked:?}");
        assert!(said.is_empty() || checked.stderr.starts_with("config.yml:7:"), "{checked:?}");
        let strict = program(dir.path(), &["--check", "--strict", "config.yml"], "");
        assert_eq!(strict.code, Some(if said.is_empty() { 0 } else { 1 }), "{strict:?}");
    }
}

#[test]
fn authorities_of_namerd_that_have_no_end_are_refused() {
    let dir = tempdir().unwrap();
    let namerd = "{kind: io.l5d.namerd.http, baseUrl: 'https://127.0.0.1:1', tls: {trustCerts: [/dev/zero]}}";

    let checked = program(dir.path(), &["--check", "-"], &crate::talk::routers_with(namerd, "", ""));

    refused(&checked, &["stdin:", "/dev/zero"]);
}
