//! The pages and the files that `tricot` comes with: what they name must be there.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

const FILES: [&str; 9] = [
    "docs/tricot.md",
    "README.md",
    "bins/packaging/tricot/Dockerfile",
    "bins/packaging/tricot/tricot.env",
    "bins/packaging/tricot/tricot.service",
    "bins/packaging/tricot/tricot-http.socket",
    "bins/packaging/tricot/tricot-https.socket",
    "bins/packaging/tricot/tricot.nomad.hcl",
    "bins/packaging/tricot/try",
];

fn project() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The words of a text that begin with `prefix` and go on with characters that pass.
fn words(text: &str, prefix: &str, passes: impl Fn(char) -> bool) -> BTreeSet<String> {
    let found = text.match_indices(prefix).map(|(at, _)| {
        let word: String = text[at..].chars().take_while(|c| passes(*c)).collect();
        word
    });
    found.collect()
}

#[test]
fn every_variable_that_is_named_is_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_tricot")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let known = words(&help, "TRICOT_", is_of_name);
    assert!(known.len() >= 40, "{known:?}");

    for file in FILES {
        for named in words(&read(file), "TRICOT_", is_of_name) {
            assert!(known.contains(&named), "{file} names {named}");
        }
    }
}

#[test]
fn every_metric_that_is_named_is_in_the_source() {
    let folder = project().join("bins/src/tricot");
    let sources =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let source: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';

    for named in words(&read("docs/tricot.md"), "tricot_", is_of_name) {
        assert!(source.contains(&format!("\"{named}\"")), "{named}");
    }
}

/// `try` with the program under test.
fn try_it(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(project().join("bins/packaging/tricot/try"));
    command.args(args).env("TRICOT", env!("CARGO_BIN_EXE_tricot"));
    let output = command.output().unwrap_or_else(|error| panic!("try: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_trial_says_how_it_is_used() {
    for (args, status) in [(&["--help"][..], 0), (&["--what"], 2), (&["--ports", "80"], 2), (&["a", "b"], 2)]
    {
        let (code, text) = try_it(args);

        assert_eq!(code, Some(status), "{args:?}: {text}");
        assert!(text.contains("usage: try"), "{text}");
    }
}

#[test]
fn a_trial_starts_nothing_beside_a_port_that_is_taken() {
    for tool in ["bash", "curl", "openssl", "python3"] {
        if Command::new(tool).arg("--help").output().is_err() {
            eprintln!("skipped: no {tool} on PATH");
            return;
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let (code, text) = try_it(&["--ports", &port]);

    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("port {port} (consul) cannot be used")), "{text}");
    assert!(text.contains("--ports") && !text.contains("starting"), "{text}");
}

/// Comments that begin with the name of a variable are settings, too.
#[test]
fn the_sample_of_settings_passes_a_check() {
    let sample = read("bins/packaging/tricot/tricot.env");
    let is_setting = |line: &&str| line.split_once('=').is_some_and(|(name, _)| !name.contains(' '));
    let all = sample.lines().map(|line| line.trim_start_matches('#')).filter(is_setting);
    let variables: Vec<_> = all.filter_map(|line| line.split_once('=')).collect();
    assert!(variables.len() > 5, "{variables:?}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_tricot"));
    let output = command.arg("--check").env_clear().envs(variables).output().unwrap();

    assert!(output.status.success(), "{output:?}");
}

/// The value of a setting of the job, in seconds.
fn seconds(job: &str, name: &str) -> u32 {
    let mut values = job.lines().filter_map(|line| line.trim().strip_prefix(name)?.split('"').nth(1));
    values.next().and_then(|value| value.strip_suffix('s')?.parse().ok()).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn the_job_gives_requests_their_grace_and_shows_metrics_to_no_stranger() {
    let job = read("bins/packaging/tricot/tricot.nomad.hcl");

    let (grace, kill) = (seconds(&job, "TRICOT_SHUTDOWN_GRACE"), seconds(&job, "kill_timeout"));
    // Nomad's client allows 30 s unless told otherwise, and locks are given back after the grace.
    assert!(grace + 5 <= kill && kill <= 30, "{grace} {kill}");
    let setting = |name: &str| job.lines().find(|line| line.trim().starts_with(name)).unwrap();
    assert!(setting("TRICOT_METRICS_BIND_ADDR").contains("${NOMAD_IP_metrics}"));
    assert!(!setting("image ").contains(":latest"));
}

#[test]
fn the_service_gets_no_capability_but_the_one_it_needs() {
    let unit = read("bins/packaging/tricot/tricot.service");
    let of = |key: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };

    assert_eq!(of("CapabilityBoundingSet"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(of("AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(of("Type"), ["notify"]);
    // What is misused stays so; whatever else happens is tried for ever.
    assert_eq!(of("RestartPreventExitStatus"), ["2"]);
    assert_eq!(of("StartLimitIntervalSec"), ["0"]);
    assert!(read("bins/packaging/tricot/tricot.env").contains("-p DynamicUser=yes"));
    for name in ["http", "https"] {
        let socket = read(&format!("bins/packaging/tricot/tricot-{name}.socket"));
        assert!(socket.contains(&format!("FileDescriptorName={name}\n")), "{name}");
    }
}
