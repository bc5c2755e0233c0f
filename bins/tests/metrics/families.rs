//! What the pages say: names by the rules, values that can be, and no more series for more clients.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::SystemTime;

use crate::exposition::Family;
use crate::exposition::Kind;
use crate::programs::Pages;
use crate::programs::Run;
use crate::programs::runs;

/// How the names of families begin that the rules for names are for. Others are those of the original `linkerd-tcp`.
const OWN: [&str; 8] =
    ["build_info", "config_", "endpoints", "linkerd_tcp_", "process_", "tls_", "tproxy_", "tricot_"];
/// Those of the original that begin like one of these.
const ORIGINAL: [&str; 3] = ["endpoints_ready", "endpoints_retired", "endpoints_unready"];

fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.starts_with(own)) && !ORIGINAL.contains(&name)
}

/// Runs a check on every page of every run.
fn each(check: impl Fn(&Run, &Pages)) {
    for run in runs() {
        check(run, &run.first);
        check(run, &run.last);
    }
}

#[test]
fn both_formats_say_the_same() {
    each(|run, pages| {
        assert_eq!(pages.text.len(), pages.open.len(), "{}", run.name);
        for text in &pages.text {
            let name = &text.name;
            let expected = match (text.kind, name.strip_suffix("_total")) {
                // OpenMetrics 1.0, "Counter": what is called otherwise is none.
                (Kind::Counter, None) => (name.as_str(), Kind::Untyped),
                // The original has a family `bytes` as well.
                (Kind::Counter, Some("bytes")) => ("bytes_total", Kind::Untyped),
                (kind, base) => (base.unwrap_or(name), kind),
            };
            let open = pages.open.iter().find(|open| open.name == expected.0);
            let open = open.unwrap_or_else(|| panic!("{}: no {}", run.name, expected.0));
            assert_eq!((open.kind, &open.help), (expected.1, &text.help), "{}: {name}", run.name);
            let series = |family: &Family| -> BTreeSet<String> {
                let lines = family.samples.iter().filter(|sample| sample.label("le").is_none());
                lines.map(|sample| sample.series()).collect()
            };
            // Of what was never observed the older format has less.
            assert!(series(text).is_subset(&series(open)), "{}: {name}", run.name);
            // Which requests Consul is sent depends on the time, and the pages were asked for one after the other.
            if text.kind != Kind::Histogram && !name.starts_with("tricot_consul_") {
                assert_eq!(series(text), series(open), "{}: {name}", run.name);
            }
        }
    });
}

#[test]
fn names_and_help_follow_the_rules() {
    each(|run, pages| {
        for family in &pages.text {
            let (name, help) = (family.name.as_str(), family.help.as_str());
            assert!(
                help.ends_with('.') && help.starts_with(char::is_uppercase),
                "{}: {name}: {help}",
                run.name
            );
            for sample in &family.samples {
                let is_snake = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                assert!(sample.labels.iter().all(|(key, _)| is_snake(key)), "{}: {sample:?}", run.name);
            }
            if !is_own(name) {
                assert!(run.name.starts_with("linkerd-tcp"), "{}: {name} has no prefix", run.name);
                continue;
            }
            assert_eq!(family.kind == Kind::Counter, name.ends_with("_total"), "{}: {name}", run.name);
            for end in
                ["_ms", "_us", "_millis", "_kb", "_count", "_sum", "_bucket", "_created", "_info_total"]
            {
                assert!(!name.ends_with(end), "{}: {name} ends in {end}", run.name);
            }
            if family.kind == Kind::Histogram {
                assert!(
                    name.ends_with("_seconds") || name.ends_with("_bytes"),
                    "{}: {name} has no unit",
                    run.name
                );
            }
        }
    });
}

/// Values come from the program, its configuration or discovery, and never from clients.
#[test]
fn more_clients_make_no_more_series() {
    for run in runs() {
        let series = |pages: &Pages| -> BTreeSet<String> {
            // As above.
            let lasting = pages.text.iter().filter(|family| !family.name.starts_with("tricot_consul_"));
            lasting.flat_map(|family| &family.samples).map(|sample| sample.series()).collect()
        };
        let (first, last) = (series(&run.first), series(&run.last));
        let more: Vec<_> = last.difference(&first).collect();
        assert!(more.is_empty(), "{}: {more:#?}", run.name);
    }
}

#[test]
fn what_is_counted_never_goes_down() {
    for run in runs() {
        for family in run.last.text.iter().filter(|family| family.kind == Kind::Counter) {
            let before = run.first.family(&family.name).expect("it stays");
            for sample in &before.samples {
                let after = family.samples.iter().find(|after| after.series() == sample.series());
                assert!(after.is_some_and(|after| after.value >= sample.value), "{}: {sample:?}", run.name);
            }
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn what_every_program_says_of_itself_is_true() {
    each(|run, pages| {
        let tool = run.name.split(' ').next().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(pages.sum("build_info", &[("tool", tool), ("version", version)]), 1.0, "{}", run.name);
        let value = |name| pages.sum(name, &[]);
        let lately = now() - Duration::from_secs(600).as_secs_f64()..now() + 1.0;
        assert_eq!(value("config_last_reload_successful"), 1.0, "{}", run.name);
        assert!(lately.contains(&value("config_last_reload_success_timestamp_seconds")), "{}", run.name);
        if cfg!(target_os = "linux") {
            assert!(lately.contains(&value("process_start_time_seconds")), "{}", run.name);
            assert!((3.0..value("process_max_fds")).contains(&value("process_open_fds")), "{}", run.name);
            let mapped = value("process_virtual_memory_bytes");
            assert!((1e6..mapped).contains(&value("process_resident_memory_bytes")), "{}", run.name);
            assert!((0.0..600.0).contains(&value("process_cpu_seconds_total")), "{}", run.name);
        }
    });
}

fn run(name: &str) -> &'static Run {
    runs().iter().find(|run| run.name == name).expect("it runs")
}

#[test]
fn linkerd_tcp_counts_what_was_sent_through() {
    for name in ["linkerd-tcp with `routers`", "linkerd-tcp with `proxies`"] {
        let last = &run(name).last;
        let is = |metric: &str, labels: &[(&str, &str)], value: f64| {
            assert_eq!(last.sum(metric, labels), value, "{name}: {metric}{labels:?}");
        };
        let odd = r#"a"b\c"#;
        let connections = "linkerd_tcp_connections_total";
        is(connections, &[("router", "asked"), ("result", "ok"), ("tls", "true")], 6.0);
        is(connections, &[("router", "asked"), ("result", "failed"), ("tls", "true")], 2.0);
        is(connections, &[("router", odd), ("result", "ok"), ("tls", "false")], 6.0);
        is(connections, &[("router", "broken"), ("result", "failed")], 2.0);
        is("linkerd_tcp_connection_ready_seconds_count", &[("router", odd)], 6.0);
        is("linkerd_tcp_connections_active", &[], 0.0);
        is("endpoints", &[("router", odd), ("state", "ready"), ("dst", "/svc/web")], 1.0);
        is("endpoints", &[("router", "asked"), ("state", "ready")], 1.0);
        is("endpoints", &[("router", "broken")], 1.0);
        is("endpoints", &[("state", "draining")], 0.0);
        let ends = last.sum("tls_certificate_not_after_timestamp_seconds", &[("subject", "proxy")]);
        assert!(ends > now(), "{name}: {ends}");
    }
}

#[test]
fn tproxy_poc_counts_what_was_sent_through() {
    let last = &run("tproxy-poc").last;
    let is = |metric: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(last.sum(metric, labels), value, "{metric}{labels:?}");
    };

    is("tproxy_connections_total", &[("mode", "nat"), ("result", "ok")], 3.0);
    is("tproxy_connections_total", &[("result", "failed")], 2.0);
    is("tproxy_connections_total", &[], 5.0);
    is("tproxy_upstream_errors_total", &[("errno", "111")], 2.0);
    is("tproxy_bytes_total", &[("direction", "upstream")], 15.0);
    is("tproxy_bytes_total", &[("direction", "downstream")], 15.0);
    is("tproxy_loops_refused_total", &[], 0.0);
    is("tproxy_active", &[], 0.0);
    is("tproxy_rules_intact", &[], 1.0);
}

#[test]
fn tricot_counts_what_was_sent_through() {
    let run = run("tricot");
    let is = |metric: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(run.last.sum(metric, labels), value, "{metric}{labels:?}");
    };
    is("tricot_connections", &[], 0.0);
    if !run.is_whole {
        return is("tricot_consul_last_contact_seconds", &[], -1.0);
    }

    let web = [("host", "app.example.com"), ("service", "web"), ("code", "200")];
    is("tricot_requests_total", &[web[0], web[1], web[2], ("method", "GET")], 2.0);
    is("tricot_requests_total", &[web[0], web[1], web[2], ("method", "other")], 2.0);
    is("tricot_requests_total", &[("host", "gone.example.com"), ("service", "gone"), ("code", "502")], 2.0);
    is("tricot_requests_total", &[("host", ""), ("service", "")], 2.0);
    is("tricot_request_duration_seconds_count", &[("service", "web")], 4.0);
    is("tricot_requests_in_flight", &[], 0.0);
    is("tricot_no_route_total", &[], 2.0);
    is("tricot_redirects_total", &[], 2.0);
    is("tricot_rules", &[], 2.0);
    is("tricot_certificates", &[("state", "valid")], 2.0);
    is("tricot_certificates", &[], 2.0);
    is("tricot_acme_orders_total", &[("result", "ok")], 2.0);
    is("tricot_tls_handshakes_total", &[("result", "ok"), ("alpn", "none")], 8.0);
    is("tricot_backends", &[("service", "web"), ("state", "usable")], 1.0);
    let failed = run.last.sum("tricot_backend_errors_total", &[("service", "gone"), ("node", "n1")]);
    assert!(failed >= 2.0, "{failed}");
    let contact = run.last.sum("tricot_consul_last_contact_seconds", &[]);
    assert!((0.0..90.0).contains(&contact), "{contact}");
    let ends = run.last.family("tricot_certificate_not_after_seconds").expect("certificates");
    assert!(ends.samples.len() == 2 && ends.samples.iter().all(|sample| sample.value > now()), "{ends:?}");
}
