//! `meshctl stat`.

use std::net::TcpListener;

use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::text;
use serde_json::Value;

use crate::child::Running;
use crate::program;
use crate::program::Program;
use crate::program::STATE;
use crate::program::assert_golden;

#[test]
fn a_table_shows_the_program_and_each_endpoint() {
    let program = Program::usual();

    let stat = program.run(&["stat"]);

    assert_eq!((stat.code, &*stat.stderr), (Some(0), ""));
    assert_golden("stat.txt", &stat.stdout);
}

#[test]
fn a_wide_table_shows_certificates_too() {
    let program = Program::usual();

    let stat = program.run(&["stat", "-o", "wide"]);

    assert_eq!((stat.code, &*stat.stderr), (Some(0), ""));
    assert_golden("stat-wide.txt", &stat.stdout);
}

#[test]
fn json_is_the_document_of_the_program_with_all_that_is_in_it() {
    let document = STATE.replacen("\"tool\"", "\"newer\": {\"b\": 1.50, \"a\": []}, \"tool\"", 1);
    let program = Program::start(Router::new().get("/state.json", {
        let document = document.clone();
        move |_| json(document.clone())
    }));

    let stat = program.run(&["stat", "-o", "json"]);

    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!((stat.code, value(&stat.stdout)), (Some(0), value(&document)));
    assert!(
        stat.stdout.starts_with("{\n  \"newer\": {\n    \"b\": 1.50,\n    \"a\": []\n  },\n"),
        "{stat:?}"
    );
}

#[test]
fn fields_that_are_new_or_not_known_do_no_harm() {
    let mut state: Value = serde_json::from_str(STATE).unwrap();
    state["newer"] = "x".into();
    state["traffic"]["newer"] = 1.into();
    for field in ["rate", "success", "tls", "p50_ms", "p95_ms", "p99_ms"] {
        state["traffic"].as_object_mut().unwrap().remove(field);
    }
    for endpoint in state["destinations"][0]["endpoints"].as_array_mut().unwrap() {
        let endpoint = endpoint.as_object_mut().unwrap();
        for field in ["node", "why", "rate", "answer_time_ms", "tls"] {
            endpoint.remove(field);
        }
        endpoint.insert("newer".into(), Value::Null);
    }
    let program = Program::start(Router::new().get("/state.json", move |_| json(state.to_string())));

    let stat = program.run(&["stat", "-o", "wide"]);

    assert_eq!(stat.code, Some(0), "{stat:?}");
    assert!(stat.stdout.contains("  - connections/s  success -  p50 -"), "{}", stat.stdout);
    assert!(stat.stdout.contains("10.1.0.11:8080"), "{}", stat.stdout);
}

#[test]
fn a_program_without_destinations_says_so() {
    let mut state: Value = serde_json::from_str(STATE).unwrap();
    state["destinations"] = Value::Array(Vec::new());
    (state["left_off"], state["unready"], state["reload"]["error"]) =
        (0.into(), Value::Array(Vec::new()), Value::Null);
    state["problems"] = Value::Array(vec!["all 2 rules are gone".into()]);
    let program = Program::start(Router::new().get("/state.json", move |_| json(state.to_string())));

    let stat = program.run(&["stat"]);

    let lines: Vec<_> = stat.stdout.lines().collect();
    assert!(lines[0].contains("  ready  "), "{lines:?}");
    assert_eq!(lines[1..], ["problem: all 2 rules are gone", "", "no destinations"]);
}

#[test]
fn a_program_without_destinations_of_its_own_says_where_connections_go() {
    let mut state: Value = serde_json::from_str(STATE).unwrap();
    (state["destinations"], state["left_off"]) = (Value::Array(Vec::new()), 0.into());
    state["towards"] = "port 3000 of \u{1b}[2Jit".into();
    let program = Program::start(Router::new().get("/state.json", move |_| json(state.to_string())));

    let stat = program.run(&["stat"]);

    let last = "no destinations of its own: each connection goes to port 3000 of ?[2Jit";
    assert_eq!(stat.stdout.lines().last(), Some(last), "{stat:?}");
}

#[test]
fn the_address_is_taken_from_an_argument_or_a_variable_in_each_of_its_forms() {
    let program = Program::usual();
    let port = program.addr().port();
    let forms = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}/"),
    ];
    for form in forms {
        let before = program::run(&["--admin", &form, "stat"]);
        let behind = program::run(&["stat", "--admin", &form]);
        let variable = Running::spawn(program::command(&["stat"]).env("MESHCTL_ADMIN", &form)).ended();
        for stat in [before, behind, variable] {
            assert!(stat.code == Some(0) && stat.stdout.contains("10.1.0.11:8080"), "{form}: {stat:?}");
        }
    }
}

#[test]
fn an_address_of_ipv6_is_asked() {
    let Ok(free) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    let addr = free.local_addr().unwrap();
    drop(free);
    let program = Program::at(addr, program::usual());

    let stat = program.run(&["stat"]);

    assert!(stat.code == Some(0) && stat.stdout.contains("linkerd-tcp"), "{stat:?}");
}

#[test]
fn what_is_no_address_is_misuse() {
    for addr in ["localhost", "https://localhost:1", "http://localhost:1/x", ":1", ""] {
        let stat = program::run(&["--admin", addr, "stat"]);
        assert!(stat.code == Some(2) && stat.stderr.contains("--admin"), "{addr}: {stat:?}");
    }
    let without = program::run(&[]);
    assert!(without.code == Some(2) && without.stderr.contains("meshctl stat"), "{without:?}");
    assert_eq!(program::run(&["stat", "--timeout", "0"]).code, Some(2));
}

#[test]
fn a_program_that_is_not_there_is_a_failure_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap().to_string();
    drop(free);

    let stat = program::run(&["--admin", &addr, "stat"]);

    assert_eq!((stat.code, &*stat.stdout), (Some(1), ""));
    assert!(stat.stderr.starts_with(&format!("meshctl: cannot ask {addr}: ")), "{stat:?}");
    assert_eq!(stat.stderr.lines().count(), 1, "{stat:?}");
}

#[test]
fn what_is_no_program_of_ours_is_said_to_be_something_else() {
    let without = Program::start(Router::new());
    let stat = without.run(&["stat"]);
    assert!(
        stat.code == Some(1) && stat.stderr.contains("answers 404 to /state.json: it has no such page"),
        "{stat:?}"
    );

    for page in ["<html>", "[]", "{}"] {
        let other = Program::start(Router::new().get("/state.json", move |_| text(page)));
        let stat = other.run(&["stat"]);
        let problem = "has something else at /state.json than was expected";
        assert!(stat.code == Some(1) && stat.stderr.contains(problem), "{page}: {stat:?}");
    }
}
