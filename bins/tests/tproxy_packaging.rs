//! The manifests and the Makefile of `tproxy-poc`: what users rely on, and that nothing is granted needlessly.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

fn packaging() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "packaging/tproxy"].iter().collect()
}

/// The only document of a manifest, which must be a Deployment.
fn manifest(name: &str) -> Value {
    let text = fs::read_to_string(packaging().join("k8s").join(name)).unwrap();
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(documents.len(), 1, "{name}");
    let document = documents.remove(0);
    assert_eq!(
        (&document["apiVersion"], &document["kind"]),
        (&json!("apps/v1"), &json!("Deployment")),
        "{name}"
    );
    document
}

/// The containers of one kind: names in order, and each of them.
fn containers<'a>(manifest: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let containers = manifest["spec"]["template"]["spec"][kind].as_array().unwrap();
    containers.iter().map(|container| (container["name"].as_str().unwrap(), container)).collect()
}

/// Every container of a manifest, those that run first included.
fn all_containers(manifest: &Value) -> Vec<(&str, &Value)> {
    let kinds = ["initContainers", "containers"];
    let present = kinds.into_iter().filter(|kind| manifest["spec"]["template"]["spec"].get(kind).is_some());
    present.flat_map(|kind| containers(manifest, kind)).collect()
}

const MODES: [&str; 2] = ["nat", "tproxy"];
const MANIFESTS: [&str; 3] = ["deploy-nat.yaml", "deploy-tproxy.yaml", "deploy-curl.yaml"];

#[test]
fn names_labels_and_images_are_the_known_ones() {
    for mode in MODES {
        let manifest = manifest(&format!("deploy-{mode}.yaml"));

        assert_eq!(manifest["metadata"]["name"], "tproxy-poc");
        assert_eq!(manifest["spec"]["selector"]["matchLabels"], json!({"app": "poc"}));
        assert_eq!(manifest["spec"]["template"]["metadata"]["labels"], json!({"app": "poc"}));
        let image = |(name, container): &(&str, &Value)| (String::from(*name), container["image"].clone());
        let images: Vec<_> = all_containers(&manifest).iter().map(image).collect();
        let [proxy, server] = [json!("tproxy-poc:latest"), json!("echo-server:latest")];
        let expected = [("tproxy-init", proxy.clone()), ("tproxy", proxy), ("server", server)];
        assert_eq!(images, expected.map(|(name, image)| (name.to_owned(), image)));
    }
}

#[test]
fn rules_and_proxy_agree() {
    for mode in MODES {
        let manifest = manifest(&format!("deploy-{mode}.yaml"));
        let args = |kind, name| {
            let containers = containers(&manifest, kind);
            let container = containers.iter().find(|container| container.0 == name).unwrap().1;
            container["args"].clone()
        };
        let mode = format!("--mode={mode}");

        assert_eq!(
            args("initContainers", "tproxy-init"),
            json!(["rules", "apply", mode, "--skip-ports=9990"])
        );
        let proxy = json!([mode, "--rules=none", "--skip-ports=9990", "--metrics=0.0.0.0:9990"]);
        assert_eq!(args("containers", "tproxy"), proxy);
    }
}

/// As nearly as without a cluster: the arguments and the capabilities of each container, in the order of a pod's start.
#[cfg(all(target_os = "linux", feature = "tproxy-poc", feature = "echo-server"))]
#[test]
fn a_pod_of_each_manifest_serves_and_its_server_sees_the_client() {
    use meshlib::test_util::netns::Family;
    use meshlib::test_util::netns::Pod;
    use meshlib::test_util::or_skip;
    use std::net::TcpStream;

    for mode in MODES {
        let Some(net) = or_skip(Pod::new()) else { return };
        let manifest = manifest(&format!("deploy-{mode}.yaml"));
        let container = |kind, name| {
            let all = containers(&manifest, kind);
            let container = all.iter().find(|container| container.0 == name).unwrap().1;
            let security = &container["securityContext"];
            let added = security["capabilities"]["add"].as_array();
            let added = added
                .into_iter()
                .flatten()
                .map(|name| format!(",+{}", name.as_str().unwrap().to_lowercase()));
            let bounding = format!("-all{}", added.collect::<String>());
            let mut setpriv = vec!["--bounding-set".to_owned(), bounding, "--no-new-privs".to_owned()];
            if security["runAsNonRoot"] == true {
                setpriv.extend(["--reuid", "65532", "--regid", "65532", "--clear-groups"].map(str::to_owned));
            }
            let program = match container["image"].as_str().unwrap() {
                "tproxy-poc:latest" => env!("CARGO_BIN_EXE_tproxy-poc"),
                _ => env!("CARGO_BIN_EXE_echo-server"),
            };
            let setpriv: Vec<_> = setpriv.iter().map(String::as_str).collect();
            let args = container["args"].as_array().cloned().unwrap_or_default();
            let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect();
            net.pod.command_with(&setpriv, program).args(args)
        };

        let init = container("initContainers", "tproxy-init").output().unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let mut proxy = container("containers", "tproxy").spawn().unwrap();
        let mut server = container("containers", "server").spawn().unwrap();

        let at = |port| (Pod::pod_ip(Family::V4), port);
        let connect = move |port| net.client.run(move || TcpStream::connect(at(port)));
        assert!(until(|| ask(connect(9990), "GET /ready HTTP/1.0\r\n\r\n")).contains(" 200 "));
        let answer = until(|| ask(connect(3000), "GET / HTTP/1.0\r\n\r\n"));
        assert!(answer.contains("x-peer-addr: 10.77.0.2:") && answer.ends_with("Well, hello!"), "{answer}");
        for child in [&mut proxy, &mut server] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// What is answered, as soon as something is.
#[cfg(all(target_os = "linux", feature = "tproxy-poc", feature = "echo-server"))]
fn until(mut ask: impl FnMut() -> std::io::Result<String>) -> String {
    let mut last = None;
    for _ in 0..2000 {
        match ask() {
            Ok(answer) if !answer.is_empty() => return answer,
            other => last = Some(other),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no answer: {last:?}")
}

#[cfg(all(target_os = "linux", feature = "tproxy-poc", feature = "echo-server"))]
fn ask(stream: std::io::Result<std::net::TcpStream>, request: &str) -> std::io::Result<String> {
    use std::io::Read;
    use std::io::Write;

    let mut stream = stream?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn probes_ask_at_the_port_that_is_not_intercepted() {
    for mode in MODES {
        let manifest = manifest(&format!("deploy-{mode}.yaml"));
        let proxy = containers(&manifest, "containers")[0].1;

        assert_eq!(proxy["readinessProbe"]["httpGet"], json!({"path": "/ready", "port": 9990}));
        assert_eq!(proxy["livenessProbe"]["httpGet"], json!({"path": "/live", "port": 9990}));
    }
}

#[test]
fn each_container_has_only_the_capabilities_it_needs() {
    for name in MANIFESTS {
        for (container, spec) in all_containers(&manifest(name)) {
            let security = &spec["securityContext"];
            let expected = match container {
                "tproxy-init" => json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}),
                "tproxy" => json!({"drop": ["ALL"], "add": ["NET_RAW"]}),
                _ => json!({"drop": ["ALL"]}),
            };
            assert_eq!(security["capabilities"], expected, "{name}: {container}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}: {container}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}: {container}");
            assert_eq!(security.get("privileged"), None, "{name}: {container}");
            // Without escalation, a capability is given to root only.
            if security["capabilities"].get("add").is_some() {
                assert_eq!(security["runAsUser"], 0, "{name}: {container}");
            } else {
                assert_eq!(security["runAsNonRoot"], true, "{name}: {container}");
            }
        }
    }
}

#[test]
fn pods_are_modest() {
    for name in MANIFESTS {
        let manifest = manifest(name);
        let pod = &manifest["spec"]["template"]["spec"];

        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!((pod.get("hostNetwork"), pod.get("hostPID")), (None, None), "{name}");
        for (container, spec) in all_containers(&manifest) {
            assert_eq!(spec["imagePullPolicy"], "IfNotPresent", "{name}: {container}");
            for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                assert!(spec["resources"].pointer(amount).is_some(), "{name}: {container}: {amount}");
            }
        }
    }
}

#[test]
fn the_client_is_outside_the_mesh() {
    let manifest = manifest("deploy-curl.yaml");

    assert_eq!(manifest["metadata"]["name"], "curl");
    assert_eq!(manifest["spec"]["selector"]["matchLabels"], json!({"app": "curl"}));
    assert_eq!(manifest["spec"]["template"]["metadata"], json!({"labels": {"app": "curl"}}));
    let (name, curl) = containers(&manifest, "containers")[0];
    assert_eq!((name, &curl["image"]), ("curl", &json!("curlimages/curl")));
    assert_eq!(curl["command"], json!(["sleep", "3650d"]));
}

/// What `make` would run for a target, or nothing where there is no `make`.
fn commands(builder: &str, settings: &[&str], target: &str) -> Option<String> {
    let mut make = Command::new("make");
    make.arg("-n").args(settings).arg(format!("BUILDER={builder}")).arg(target).current_dir(packaging());
    for name in ["TPROXY_IMAGE", "ECHO_IMAGE", "CLUSTER_NAME", "BASE", "MAKEFLAGS"] {
        make.env_remove(name);
    }
    let output = match make.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: no make on PATH");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(output.status.success(), "{target}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_makefile_has_the_known_targets() {
    for (target, expected) in [
        ("tproxy-poc", &["BUILDER=docker ", "/image-of tproxy-poc tproxy-poc:latest"][..]),
        ("server", &["BUILDER=docker ", "/image-of echo-server echo-server:latest"]),
        ("tproxy-image", &["k3d image import tproxy-poc:latest -c dev"]),
        ("load-image", &["import tproxy-poc:latest -c dev", "import echo-server:latest -c dev"]),
        ("tproxy", &["image-of tproxy-poc tproxy-poc:latest", "import tproxy-poc:latest -c dev"]),
        (
            "all",
            &[
                "tproxy-poc tproxy-poc:latest",
                "echo-server echo-server:latest",
                "import echo-server:latest -c dev",
            ],
        ),
        (
            "kind-load",
            &["kind load docker-image tproxy-poc:latest --name dev", "echo-server:latest --name dev"],
        ),
        ("test-netns", &["cargo test", "--test tproxy_poc"]),
    ] {
        let Some(commands) = commands("docker", &[], target) else { return };
        for text in expected {
            assert!(commands.contains(text), "{target}: {text:?} is not in {commands}");
        }
    }
}

#[test]
fn tags_and_cluster_can_be_chosen() {
    let settings = ["TPROXY_IMAGE=v0.2", "ECHO_IMAGE=v0.3", "CLUSTER_NAME=foo"];

    for (target, expected) in [
        ("tproxy-poc", "image-of tproxy-poc tproxy-poc:v0.2"),
        ("server", "image-of echo-server echo-server:v0.3"),
        ("load-image", "k3d image import tproxy-poc:v0.2 -c foo"),
        ("kind-load", "kind load docker-image echo-server:v0.3 --name foo"),
    ] {
        let Some(commands) = commands("docker", &settings, target) else { return };
        assert!(commands.contains(expected), "{target}: {expected:?} is not in {commands}");
    }
}

#[test]
fn without_docker_archives_are_made_and_loaded() {
    for (target, expected) in [
        ("tproxy-poc", "image-of tproxy-poc tproxy-poc:latest /"),
        ("load-image", "/images/echo-server.tar -c dev"),
        ("kind-load", "kind load image-archive "),
    ] {
        let Some(commands) = commands("buildah", &[], target) else { return };
        assert!(commands.contains(expected), "{target}: {expected:?} is not in {commands}");
    }
}
