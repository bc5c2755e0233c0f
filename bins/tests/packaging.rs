//! Packages, units and manifests: what they name is there, nothing is granted needlessly, and a package can be made.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use meshlib::test_util::or_skip;
use meshlib::test_util::require_programs;
use serde_json::Value;
use serde_json::json;

const LINKERD_TCP: &str = env!("CARGO_BIN_EXE_linkerd-tcp");
const TPROXY_POC: &str = env!("CARGO_BIN_EXE_tproxy-poc");
const TRICOT: &str = env!("CARGO_BIN_EXE_tricot");

/// The units of services, each with its program and the capabilities that it may have.
const SERVICES: [(&str, &str, &str); 3] = [
    ("linkerd-tcp/linkerd-tcp.service", LINKERD_TCP, "CAP_NET_BIND_SERVICE"),
    ("tproxy/tproxy-poc.service", TPROXY_POC, "CAP_NET_ADMIN CAP_NET_RAW"),
    ("tricot/tricot.service", TRICOT, "CAP_NET_BIND_SERVICE"),
];

/// What every unit of a service must say.
const HARDENING: [&str; 24] = [
    "Type=notify",
    "NotifyAccess=main",
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
    "LimitCORE=0",
    "MemoryDenyWriteExecute=yes",
    "LockPersonality=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
];

fn packaging() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "packaging"].iter().collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(packaging().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The values of a key of a unit, in their order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints that must do well.
fn said(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_of_word(c));
    let options = words.filter(|word| word.len() > 2 && word.starts_with("--"));
    options.map(|word| word.trim_end_matches('-').to_owned()).filter(|word| word.len() > 2).collect()
}

#[test]
fn every_argument_and_variable_that_is_named_is_one() {
    let files = [
        ("linkerd-tcp/linkerd-tcp.service", LINKERD_TCP),
        ("linkerd-tcp/linkerd-tcp.yml", LINKERD_TCP),
        ("linkerd-tcp/linkerd-tcp.socket", LINKERD_TCP),
        ("linkerd-tcp/linkerd-tcp.nomad.hcl", LINKERD_TCP),
        ("linkerd-tcp/k8s.yaml", LINKERD_TCP),
        ("tproxy/tproxy-poc.service", TPROXY_POC),
        ("tproxy/tproxy-poc.default", TPROXY_POC),
        ("tproxy/k8s/deploy-nat.yaml", TPROXY_POC),
        ("tproxy/k8s/deploy-tproxy.yaml", TPROXY_POC),
        ("tricot/tricot.service", TRICOT),
        ("tricot/tricot.nomad.hcl", TRICOT),
    ];
    // Those of systemctl.
    let of_others = BTreeSet::from(["--now".to_owned()]);
    let mut found = 0;
    for (file, program) in files {
        let help = said(Command::new(program).arg("--help"));
        let known = options(&help);
        let text = read(file);

        let named = options(&text);

        found += named.len();
        for option in named.difference(&of_others) {
            assert!(known.contains(option), "{file} names {option}");
        }
        assert!(!text.contains("RUST_LOG") || help.contains("RUST_LOG"), "{file}");
    }
    assert!(found > 15, "{found}");
    let unit = read("tproxy/tproxy-poc.service");
    assert!(
        unit.contains("$TPROXY_POC_ARGS") && read("tproxy/tproxy-poc.default").contains("\nTPROXY_POC_ARGS=")
    );
}

#[test]
fn the_configuration_of_the_package_passes_a_check_and_is_for_this_machine_only() {
    let config = packaging().join("linkerd-tcp/linkerd-tcp.yml");

    let said = said(Command::new(LINKERD_TCP).args(["--check", "--strict"]).arg(&config));

    assert!(said.ends_with("OK, 1 router, 1 server\n"), "{said}");
    let config: Value = serde_saphyr::from_str(&fs::read_to_string(config).unwrap()).unwrap();
    let router = &config["routers"][0];
    for address in [&config["admin"], &router["servers"][0]] {
        assert_eq!(address["ip"], "127.0.0.1");
        assert!(address["port"].as_u64().unwrap() > 1023, "{address}");
    }
    // The unit may not kill what the file allows.
    let unit = read("linkerd-tcp/linkerd-tcp.service");
    let stop = values(&unit, "TimeoutStopSec")[0].trim_end_matches('s').parse::<u64>().unwrap();
    assert!(config["admin"]["graceSecs"].as_u64().unwrap() < stop);
    assert_eq!(values(&unit, "ExecStartPre"), ["/usr/bin/linkerd-tcp --check /etc/meshlib/linkerd-tcp.yml"]);
    let check = "/usr/bin/linkerd-tcp --check /etc/meshlib/linkerd-tcp.yml";
    assert_eq!(values(&unit, "ExecReload"), [check, "/bin/kill -HUP $MAINPID"]);
    // A socket belongs to the label of a router.
    assert_eq!(
        values(&read("linkerd-tcp/linkerd-tcp.socket"), "FileDescriptorName"),
        [router["label"].as_str().unwrap()]
    );
}

#[test]
fn the_arguments_of_the_sample_pass_a_check_and_leave_ssh_alone() {
    let sample = read("tproxy/tproxy-poc.default");
    let args = sample.lines().find_map(|line| line.strip_prefix("TPROXY_POC_ARGS=")).unwrap();
    let args: Vec<_> = args.trim_matches('"').split_whitespace().collect();

    said(Command::new(TPROXY_POC).args(&args).arg("--check"));

    let ports = args.iter().position(|arg| *arg == "--ports").map(|at| args[at + 1]);
    assert_eq!(ports, Some("8080"));
}

#[test]
fn every_service_is_hardened_watched_and_told_of() {
    for (file, program, capabilities) in SERVICES {
        let unit = read(file);
        let lines: BTreeSet<_> = unit.lines().collect();

        for line in HARDENING {
            assert!(lines.contains(line), "{file}: {line}");
        }
        for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert_eq!(values(&unit, key), [capabilities], "{file}");
        }
        assert_eq!(values(&unit, "StartLimitIntervalSec"), ["0"], "{file}");
        for key in ["WatchdogSec", "TimeoutStopSec", "Restart", "RestartSec", "Documentation", "UMask"] {
            assert_eq!(values(&unit, key).len(), 1, "{file}: {key}");
        }
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        assert!(values(&unit, "Documentation")[0].starts_with(&format!("man:{name}(8) https://")), "{file}");
        assert!(values(&unit, "ExecStart")[0].starts_with(&format!("/usr/bin/{name}")), "{file}");
    }
}

/// The documents of the manifest, by kind.
fn manifest(kind: &str) -> Value {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read("linkerd-tcp/k8s.yaml")).unwrap();
    assert_eq!(documents.len(), 3);
    documents.into_iter().find(|document| document["kind"] == kind).unwrap()
}

/// Checks a configuration that is part of something else.
fn check(text: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yml");
    fs::write(&path, text).unwrap();
    said(Command::new(LINKERD_TCP).arg("--check").arg(&path));
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn the_manifest_fits_together() {
    let (map, deployment, service) = (manifest("ConfigMap"), manifest("Deployment"), manifest("Service"));
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];

    let config = check(map["data"]["linkerd-tcp.yml"].as_str().unwrap());

    let ports = json!([{"name": "web", "containerPort": 7474}, {"name": "admin", "containerPort": 9989}]);
    assert_eq!(container["ports"], ports);
    assert_eq!(config["proxies"][0]["servers"][0]["addr"], "0.0.0.0:7474");
    // Probes reach the default, and it is the one that takes /shutdown from the pod only.
    assert_eq!(config.get("admin"), None);
    assert_eq!(container["args"][1], "/etc/meshlib/linkerd-tcp.yml");
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/meshlib");
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], map["metadata"]["name"]);
    assert_eq!(pod["metadata"]["labels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(pod["metadata"]["labels"], service["spec"]["selector"]);
    assert_eq!(service["spec"]["ports"], json!([{"name": "web", "port": 7474, "targetPort": "web"}]));
    assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/ready", "port": "admin"}));
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/live", "port": "admin"}));
    let drain = container["args"][0].as_str().unwrap();
    let drain = drain.strip_prefix("--drain=").unwrap().strip_suffix('s').unwrap().parse::<u64>().unwrap();
    let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(drain + sleep < pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap());
}

#[test]
fn a_pod_of_the_manifest_may_do_nothing_but_serve() {
    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], security);
    assert!(!container["image"].as_str().unwrap().ends_with(":latest"));
    for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
        assert!(container["resources"].pointer(amount).is_some(), "{amount}");
    }
}

#[test]
fn the_job_is_one_that_the_program_understands() {
    let job = read("linkerd-tcp/linkerd-tcp.nomad.hcl");
    let config = job.split_once("<<EOF\n").unwrap().1.split_once("\nEOF\n").unwrap().0;

    let config = check(config);

    let server = &config["routers"][0]["servers"][0];
    assert!(job.contains(&format!("port \"web\"   {{ static = {} }}", server["port"])));
    let number = |before: &str| -> u64 {
        let rest = job.split_once(before).unwrap().1;
        rest.split_once("s\"").unwrap().0.parse().unwrap()
    };
    // Nomad's client allows 30 s unless told otherwise.
    let kill = number("kill_timeout = \"");
    assert!(number("--drain=") < kill && kill <= 30, "{kill}");
    assert!(!job.contains(":latest\"") && job.contains("cap_drop        = [\"ALL\"]"));
}

/// A package of the programs under test, in a folder of its own.
struct Package {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Package {
    /// Nothing, if this is not Debian.
    fn build(tool: &str) -> Option<Self> {
        or_skip(require_programs(&["dpkg", "dpkg-deb", "gzip"]))?;
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(packaging().join("deb/build"));
        command.arg(tool).arg(dir.path());
        command.env("BINARY_DIR", Path::new(LINKERD_TCP).parent().unwrap());
        // Programs that were not optimised are large.
        command.env("DPKG_DEB_COMPRESSOR_TYPE", "none").env("SOURCE_DATE_EPOCH", "1700000000");
        for name in ["DEB_REVISION", "DEBFULLNAME", "DEBEMAIL"] {
            command.env_remove(name);
        }

        let file = PathBuf::from(said(&mut command).trim());

        let name = file.file_name().unwrap().to_str().unwrap();
        let version = format!("{tool}_{}-1_", env!("CARGO_PKG_VERSION"));
        assert!(name.starts_with(&version) && name.ends_with(".deb"), "{name}");
        Some(Self { dir, file })
    }

    /// Its files, each with mode and owner, by name.
    fn files(&self) -> Vec<String> {
        let list = said(Command::new("dpkg-deb").arg("--contents").arg(&self.file));
        let lines = list.lines().filter(|line| !line.starts_with('d')).map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            format!("{} {} {}", words[0], words[1], words[5])
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort_unstable_by(|one, other| one.split(' ').next_back().cmp(&other.split(' ').next_back()));
        lines
    }

    fn field(&self, name: &str) -> String {
        said(Command::new("dpkg-deb").arg("--field").arg(&self.file).arg(name)).trim().to_owned()
    }

    /// Unpacks it with its control files.
    fn unpack(&self) -> PathBuf {
        let root = self.dir.path().join("root");
        said(Command::new("dpkg-deb").arg("--raw-extract").arg(&self.file).arg(&root));
        root
    }
}

/// Follows the links of all pages in a folder, and says how many lead to other files: all of them are there.
fn links(folder: &Path) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for target in targets.filter(|it| !it.starts_with('#') && !it.starts_with("http")) {
            let file = target.split('#').next().unwrap();
            assert!(folder.join(file).is_file(), "{} links to {target}", path.display());
            found += 1;
        }
    }
    found
}

/// Tries a package: its files, those of them that are the administrator's, the units that its scripts are about.
fn holds(tool: &str, files: &[&str], configs: &[&str], units: &str) -> Option<(Package, PathBuf)> {
    let package = Package::build(tool)?;

    assert_eq!(package.files(), files);
    let root = package.unpack();
    // There is no such file if there are none.
    let named = fs::read_to_string(root.join("DEBIAN/conffiles")).unwrap_or_default();
    assert_eq!(named.lines().collect::<Vec<_>>(), configs);
    for script in ["postinst", "prerm", "postrm"] {
        let script = root.join("DEBIAN").join(script);
        assert_eq!(script.exists(), !units.is_empty());
        if units.is_empty() {
            continue;
        }
        said(Command::new("sh").arg("-n").arg(&script));
        assert!(fs::read_to_string(&script).unwrap().contains(&format!("\nunits=\"{units}\"\n")));
    }
    let version = said(Command::new(root.join("usr/bin").join(tool)).arg("--version"));
    assert_eq!(version, format!("{tool} {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(package.field("Package"), tool);
    // Debian 12 is the oldest that is thought of.
    let depends = package.field("Depends");
    let libc = depends
        .split_once("libc6 (>= 2.")
        .unwrap_or_else(|| panic!("{depends}"))
        .1
        .split_once(')')
        .unwrap()
        .0;
    assert!((17..=41).contains(&libc.parse::<u32>().unwrap()), "{depends}");
    // `dpkg-deb` says nothing of a field that is not there.
    assert_eq!(package.field("Suggests"), if tool == "meshctl" { "" } else { "meshctl" });
    assert!(links(&root.join("usr/share/doc").join(tool)) > 3, "the pages of {tool} lead to each other");
    let sums = fs::read_to_string(root.join("DEBIAN/md5sums")).unwrap();
    assert_eq!(sums.lines().count(), files.len() - configs.len());
    Some((package, root))
}

#[test]
fn a_package_of_linkerd_tcp_has_all_that_belongs_to_it() {
    let files = [
        "-rw-r--r-- root/root ./etc/meshlib/linkerd-tcp.yml",
        "-rwxr-xr-x root/root ./usr/bin/linkerd-tcp",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/linkerd-tcp.service",
        "-rw-r--r-- root/root ./usr/share/bash-completion/completions/linkerd-tcp",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/README.Debian",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/bad-night.md",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/changelog.Debian.gz",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/copyright",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/examples/alerts.yml",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/examples/linkerd-tcp.json",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/examples/linkerd-tcp.socket",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/examples/meshlib.json",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/linkerd-tcp-config.md",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/linkerd-tcp.md",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/metrics.md",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/migrating.md",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/operating.md",
        "-rw-r--r-- root/root ./usr/share/doc/linkerd-tcp/packages.md",
        "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/linkerd-tcp.fish",
        "-rw-r--r-- root/root ./usr/share/man/man5/linkerd-tcp.yml.5.gz",
        "-rw-r--r-- root/root ./usr/share/man/man8/linkerd-tcp.8.gz",
        "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_linkerd-tcp",
    ];
    let configs = ["/etc/meshlib/linkerd-tcp.yml"];

    let Some((package, root)) = holds("linkerd-tcp", &files, &configs, "linkerd-tcp.service") else { return };

    let config = root.join("etc/meshlib/linkerd-tcp.yml");
    said(Command::new(root.join("usr/bin/linkerd-tcp")).arg("--check").arg(config));
    let page = said(Command::new("gzip").arg("-dc").arg(root.join("usr/share/man/man8/linkerd-tcp.8.gz")));
    assert_eq!(page, said(Command::new(LINKERD_TCP).arg("--man")));
    let again = Package::build("linkerd-tcp").unwrap();
    assert!(
        fs::read(&package.file).unwrap() == fs::read(&again.file).unwrap(),
        "another package of the same"
    );
}

#[test]
fn a_package_of_tproxy_poc_has_the_server_with_it() {
    let files = [
        "-rw-r--r-- root/root ./etc/default/tproxy-poc",
        "-rwxr-xr-x root/root ./usr/bin/echo-server",
        "-rwxr-xr-x root/root ./usr/bin/tproxy-poc",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/tproxy-poc.service",
        "-rw-r--r-- root/root ./usr/share/bash-completion/completions/echo-server",
        "-rw-r--r-- root/root ./usr/share/bash-completion/completions/tproxy-poc",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/README.Debian",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/bad-night.md",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/changelog.Debian.gz",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/copyright",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/examples/alerts.yml",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/examples/meshlib.json",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/metrics.md",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/operating.md",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/packages.md",
        "-rw-r--r-- root/root ./usr/share/doc/tproxy-poc/tproxy.md",
        "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/echo-server.fish",
        "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/tproxy-poc.fish",
        "-rw-r--r-- root/root ./usr/share/man/man8/echo-server.8.gz",
        "-rw-r--r-- root/root ./usr/share/man/man8/tproxy-poc.8.gz",
        "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_echo-server",
        "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_tproxy-poc",
    ];

    let held = holds("tproxy-poc", &files, &["/etc/default/tproxy-poc"], "tproxy-poc.service");

    let Some((package, root)) = held else { return };
    assert!(
        package.field("Depends").ends_with("iproute2, iptables | nftables, netbase, libgcc-s1"),
        "{}",
        package.field("Depends")
    );
    let version = said(Command::new(root.join("usr/bin/echo-server")).arg("--version"));
    assert_eq!(version, format!("echo-server {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_package_of_tricot_keeps_its_settings_from_others() {
    let files = [
        "-rw-r----- root/root ./etc/tricot/tricot.env",
        "-rwxr-xr-x root/root ./usr/bin/tricot",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/tricot-http.socket",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/tricot-https.socket",
        "-rw-r--r-- root/root ./usr/lib/systemd/system/tricot.service",
        "-rw-r--r-- root/root ./usr/share/bash-completion/completions/tricot",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/README.Debian",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/bad-night.md",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/changelog.Debian.gz",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/copyright",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/examples/alerts.yml",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/examples/meshlib.json",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/examples/tricot.nomad.hcl",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/metrics.md",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/migrating.md",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/operating.md",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/packages.md",
        "-rw-r--r-- root/root ./usr/share/doc/tricot/tricot.md",
        "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/tricot.fish",
        "-rw-r--r-- root/root ./usr/share/man/man8/tricot.8.gz",
        "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_tricot",
    ];
    let units = "tricot.service tricot-http.socket tricot-https.socket";

    let held = holds("tricot", &files, &["/etc/tricot/tricot.env"], units);

    let Some((package, root)) = held else { return };
    assert_eq!(package.field("Recommends"), "ca-certificates");
    let readme = fs::read_to_string(root.join("usr/share/doc/tricot/README.Debian")).unwrap();
    assert!(readme.contains(&format!("systemctl enable --now {units}\n")), "{readme}");
}

#[test]
fn a_package_of_meshctl_has_nothing_to_be_started() {
    let files = [
        "-rwxr-xr-x root/root ./usr/bin/meshctl",
        "-rw-r--r-- root/root ./usr/share/bash-completion/completions/meshctl",
        "-rw-r--r-- root/root ./usr/share/doc/meshctl/bad-night.md",
        "-rw-r--r-- root/root ./usr/share/doc/meshctl/changelog.Debian.gz",
        "-rw-r--r-- root/root ./usr/share/doc/meshctl/copyright",
        "-rw-r--r-- root/root ./usr/share/doc/meshctl/meshctl.md",
        "-rw-r--r-- root/root ./usr/share/doc/meshctl/operating.md",
        "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/meshctl.fish",
        "-rw-r--r-- root/root ./usr/share/man/man1/meshctl.1.gz",
        "-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_meshctl",
    ];

    let held = holds("meshctl", &files, &[], "");

    let Some((_, root)) = held else { return };
    let page = said(Command::new("gzip").arg("-dc").arg(root.join("usr/share/man/man1/meshctl.1.gz")));
    assert_eq!(page, said(Command::new(env!("CARGO_BIN_EXE_meshctl")).arg("--man")));
}

#[test]
fn scripts_say_how_they_are_used() {
    for (script, misuse, status) in [
        ("deb/build", &["what"][..], 2),
        ("deb/build", &[], 2),
        ("image-of", &["what", "what:1"], 2),
        ("image-of", &["tricot"], 2),
        ("smoke", &["tricot"], 2),
        ("base-image", &[], 2),
        ("base-image", &["a:1", "b", "c"], 2),
        ("programs", &["what"], 2),
        ("check", &["what", "."], 2),
        ("check", &["images"], 2),
        ("servers/private-docker", &[], 2),
        ("servers/private-docker", &["--what"], 2),
        ("tricot/image", &[], 1),
        ("../../dockerize", &[], 1),
    ] {
        let output = output(Command::new(packaging().join(script)).args(misuse));

        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{script}: {text}");
        assert!(text.starts_with("usage: "), "{script}: {text}");
    }
    for script in
        ["deb/build", "image-of", "smoke", "base-image", "programs", "check", "servers/private-docker"]
    {
        assert!(
            said(Command::new(packaging().join(script)).arg("--help")).starts_with("usage: "),
            "{script}"
        );
    }
    for script in ["get-consul", "get-docker", "get-pebble"] {
        let output = output(&mut Command::new(packaging().join("servers").join(script)));

        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.trim_end().split(" CACHE_DIR").next(), Some(&*format!("{script}: usage: {script}")));
    }
}

#[test]
fn nothing_is_run_where_no_private_engine_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("was-run");

    // Whoever is not root is told that instead.
    let mut command = Command::new(packaging().join("servers/private-docker"));
    let output = output(command.arg("touch").arg(&mark).env("MESHLIB_DOCKER", dir.path()));

    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("private-docker: "), "{output:?}");
    assert!(!mark.exists());
}
