//! What is no program of ours, or one that passes on what somebody else has named.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;

use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::text;
use serde_json::Value;

use crate::program;
use crate::program::HISTORY;
use crate::program::Program;
use crate::program::STATE;

/// Clears the screen, sets the title, turns text round, forges a line.
const NASTY: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}1m\u{202e}\nready\r\t\u{7f}";

/// Adds to each text of a document.
fn with_nasty(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(NASTY),
        Value::Array(values) => values.iter_mut().for_each(with_nasty),
        Value::Object(fields) => fields.values_mut().for_each(with_nasty),
        _ => {}
    }
}

#[test]
fn no_text_of_a_program_is_a_command_for_the_terminal() {
    let mut state: Value = serde_json::from_str(STATE).unwrap();
    with_nasty(&mut state);
    let lines =
        ["stat", "stat -o wide", "stat -o json", "top --once", "top --once -o json", "ready", "log-level"];
    let program = Program::start(
        Router::new()
            .get("/state.json", move |_| json(state.to_string()))
            .get("/history.json", |_| json(HISTORY))
            .get("/log-level", |_| text(NASTY))
            .get("/ready", |_| {
                let mut answer = text(NASTY);
                *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                answer
            }),
    );
    for line in lines.iter().filter(|line| cfg!(feature = "tui") || !line.starts_with("top")) {
        let args: Vec<_> = line.split(' ').collect();
        let ended = program.run(&args);
        let printed = format!("{}{}", ended.stdout, ended.stderr);
        let is_harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(printed.len() > 10 && !printed.contains(is_harmful), "{line}: {printed:?}");
    }
    // A line feed in a name makes no line. Those of the excerpt from a configuration are told from others.
    let whole = |program: &Program| {
        let shown = program.run(&["stat"]).stdout;
        shown.lines().filter(|line| !line.starts_with("  ")).map(str::len).filter(|len| *len > 0).count()
    };
    assert_eq!(whole(&program), whole(&Program::usual()));
}

#[test]
fn of_the_pages_of_another_server_one_line_is_shown_at_most() {
    let page = |status: u16, kind: &'static str, body: &'static str| {
        let mut answer = text(body);
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        answer
    };
    let other = "this does not look like an admin address of linkerd-tcp, tproxy-poc or tricot";
    let html = "<!DOCTYPE html>\n<html>\n<head><title>nginx</title></head>\n</html>\n";
    for (status, kind, body, said) in [
        (404, "text/html; charset=utf-8", html, format!("{other}\n")),
        (502, "text/html", "a\nb\n", format!("{other}\n")),
        (503, "text/plain", html, format!("{other}\n")),
        (404, "text/plain", "404 page not found\nat all\n", format!("{other}: 404 page not found\n")),
        (502, "text/plain", "no upstream\nat all\n", "no upstream\n".to_owned()),
    ] {
        let mut pages = Router::new();
        for path in ["/state.json", "/ready", "/log-level"] {
            pages = pages.get(path, move |_| page(status, kind, body));
        }
        let program = Program::start(pages);
        for (command, path) in [("stat", "/state.json"), ("ready", "/ready"), ("log-level", "/log-level")] {
            let ended = program.run(&[command]);
            assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{command}");
            let addr = program.addr();
            assert_eq!(ended.stderr, format!("meshctl: {addr} answers {status} to {path}: {said}"));
        }
    }

    // Not every server says with its status that it is another one.
    let program = Program::start(Router::new().get("/log-level", move |_| page(200, "text/html", html)));
    let ended = program.run(&["log-level"]);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    assert!(ended.stderr.ends_with(&format!("answers 200 to /log-level: {other}\n")), "{ended:?}");
}

/// Makes all numbers as large as their fields can be, which are told apart by what is in them.
fn with_huge(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => *value = 1e308.into(),
        Value::Number(_) => *value = u32::MAX.into(),
        Value::Array(values) => values.iter_mut().for_each(with_huge),
        Value::Object(fields) => {
            fields.values_mut().for_each(with_huge);
            for (name, value) in fields.iter_mut().filter(|(name, _)| name.ends_with("_ms")) {
                let is_float = name.starts_with('p') || name == "answer_time_ms";
                *value = if is_float { 1e308.into() } else { u64::MAX.into() };
            }
        }
        _ => {}
    }
}

#[test]
fn huge_numbers_do_no_harm() {
    let huge = |text| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        with_huge(&mut value);
        value.to_string()
    };
    let (state, history) = (huge(STATE), huge(HISTORY));
    let program = Program::start(
        Router::new()
            .get("/state.json", move |_| json(state.clone()))
            .get("/history.json", move |_| json(history.clone())),
    );
    for line in ["stat", "stat -o wide", "top --once", "top --once --size 1x1", "top --once --size 1000x1000"]
    {
        if line.starts_with("top") && !cfg!(feature = "tui") {
            continue;
        }
        let ended = program.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{line}");
    }
}

/// A server that does with each connection what the test wants.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    // Ends with the process.
    thread::spawn(move || {
        for io in listener.incoming() {
            serve(io.unwrap());
        }
    });
    addr
}

#[test]
fn a_program_that_says_nothing_is_waited_for_as_long_as_was_said() {
    let addr = server(|io| {
        thread::spawn(move || {
            let mut io = io;
            let _ = io.read_to_end(&mut Vec::new());
        });
    });
    for command in ["stat", "ready", "log-level"] {
        let ended = program::run(&["--admin", &addr, "--timeout", "200ms", command]);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{command}");
        assert_eq!(ended.stderr, format!("meshctl: no answer from {addr} within 200ms\n"));
    }
}

#[test]
fn an_answer_that_breaks_off_is_a_failure() {
    let addr = server(|mut io| {
        let _ = io.read(&mut [0; 1024]);
        let _ = io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"tool\":");
    });

    let stat = program::run(&["--admin", &addr, "stat"]);

    assert!(stat.code == Some(1) && stat.stderr.contains("no whole answer"), "{stat:?}");
}

#[test]
fn an_answer_without_end_is_not_kept() {
    let addr = server(|mut io| {
        let _ = io.read(&mut [0; 1024]);
        let _ = io.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        let block = [b' '; 64 * 1024];
        while io.write_all(&block).is_ok() {}
    });

    let stat = program::run(&["--admin", &addr, "--timeout", "20s", "stat"]);

    assert!(stat.code == Some(1) && stat.stderr.contains("larger than 67108864 bytes"), "{stat:?}");
}

#[test]
fn what_speaks_no_http_is_a_failure() {
    let addr = server(|mut io| {
        let _ = io.write_all(b"SSH-2.0-OpenSSH_9.2\x1b[2J\r\n");
        let _ = io.read(&mut [0; 1024]);
    });

    let stat = program::run(&["--admin", &addr, "stat"]);

    assert!(stat.code == Some(1) && stat.stderr.lines().count() == 1, "{stat:?}");
    assert!(!stat.stderr.trim_end().contains(char::is_control), "{stat:?}");
}
