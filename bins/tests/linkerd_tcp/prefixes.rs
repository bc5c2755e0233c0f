//! Client sections for prefixes of destinations.

use meshlib::test_util::Echo;
use meshlib::test_util::TestCa;
use tempfile::tempdir;

use crate::process::Program;
use crate::talk::exchange;

/// Two servers, for `/svc/web` and `/svc/db`, and client sections in this order.
fn config(web: &Echo, db: &Echo, sections: &str) -> String {
    let addr = |echo: &Echo| format!("[{{ip: 127.0.0.1, port: {}}}]", echo.addr().port());
    format!(
        "admin: {{port: 0}}
routers:
  - label: default
    servers:
      - {{port: 0, dstName: /svc/web}}
      - {{port: 0, dstName: /svc/db}}
    interpreter: {{kind: io.l5d.static, addrs: {{/svc/web: {}, /svc/db: {}}}}}
    client: {{kind: io.l5d.static, configs: [{sections}]}}
",
        addr(web),
        addr(db)
    )
}

/// A field of what is in force for a destination, as it is logged.
fn setting(program: &Program, dst: &str, field: &str) -> serde_json::Value {
    let dst_is = |line: &str| line.contains("client settings") && line.contains(&format!("\"{dst}\""));
    let line = program.stderr().wait_for("the settings", dst_is);
    let mut line: serde_json::Value = serde_json::from_str(&line).unwrap();
    line[field].take()
}

/// Only what speaks TLS gets TLS, so the connections show which section applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_section_applies_to_the_destinations_below_its_prefix() {
    let ca = TestCa::new();
    let tls = Echo::start_tls(ca.server_config(["backend"])).await;
    let plain = Echo::start().await;
    for (prefix, encrypted) in
        [("/svc/web", [true, false]), ("/svc/web/", [true, false]), ("/*/db", [false, true])]
    {
        let dir = tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let section =
            |prefix| format!("{{prefix: '{prefix}', tls: {{dnsName: backend, trustCerts: [ca.pem]}}}}");
        // The prefix of a label is none.
        let sections =
            [section(prefix), section("/svc/we"), section("/svc/web/x"), section("/sv")].join(", ");
        let [web, db] = encrypted.map(|encrypted| if encrypted { &tls } else { &plain });
        let program = Program::start_in(dir, &config(web, db, &sections), &[]);

        for addr in program.servers() {
            exchange(addr).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_sections_override_earlier_ones_field_by_field() {
    let (web, db) = (Echo::start().await, Echo::start().await);
    let sections = "{prefix: /, connectTimeoutMs: 100, maxWaiters: 1, minConnections: 1}, \
        {prefix: /svc/web, connectTimeoutMs: 2000, maxWaiters: 2, failFast: {maxConsecutiveFailures: 7}}, \
        {prefix: /svc, maxWaiters: 3, loadBalancer: {kind: ewma}}";

    let program = Program::start(&config(&web, &db, sections));

    for (dst, timeout, failures) in
        [("/svc/web", "2s", "max_failures: 7"), ("/svc/db", "100ms", "max_failures: 5")]
    {
        assert_eq!(setting(&program, dst, "connect_timeout"), timeout);
        assert_eq!(setting(&program, dst, "max_waiters"), 3, "the last one counts, not the longest");
        assert_eq!(setting(&program, dst, "min_connections"), 1);
        assert_eq!(setting(&program, dst, "load_balancer"), "Ewma");
        let fail_fast = setting(&program, dst, "fail_fast").to_string();
        assert!(fail_fast.contains(failures), "{fail_fast}");
    }
    for addr in program.servers() {
        exchange(addr).await.unwrap();
    }
}
