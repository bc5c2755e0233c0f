//! `meshctl ready`.

use http::StatusCode;
use meshlib::http::admin::Router;
use meshlib::http::admin::text;

use crate::program::Program;

/// A program that gives these reasons.
fn program(reasons: &'static [&'static str]) -> Program {
    Program::start(Router::new().get("/ready", |_| {
        if reasons.is_empty() {
            return text("ready\n");
        }
        let mut answer = text(reasons.join("\n") + "\n");
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer
    }))
}

#[test]
fn a_program_that_wants_traffic_is_ready() {
    let ready = program(&[]).run(&["ready"]);

    assert_eq!((ready.code, &*ready.stdout, &*ready.stderr), (Some(0), "ready\n", ""));
}

#[test]
fn a_program_that_wants_none_says_why() {
    let ready = program(&["default: /svc/web is not resolved yet", "the program is ending"]).run(&[
        "ready",
        "--timeout",
        "5s",
    ]);

    assert_eq!((ready.code, &*ready.stdout), (Some(1), ""));
    let said = "meshctl: not ready: default: /svc/web is not resolved yet\n\
                meshctl: not ready: the program is ending\n";
    assert_eq!(ready.stderr, said);
}

#[test]
fn what_says_something_else_is_not_ready() {
    let ready = Program::start(Router::new().get("/ready", |_| text("Well, hello!\n"))).run(&["ready"]);

    assert_eq!((ready.code, &*ready.stdout), (Some(1), ""));
    assert!(ready.stderr.contains("has something else at /ready than was expected"), "{ready:?}");
}

#[test]
fn what_has_no_such_page_is_not_ready() {
    let ready = Program::start(Router::new()).run(&["ready"]);

    assert!(ready.code == Some(1) && ready.stderr.contains("answers 404 to /ready"), "{ready:?}");
}
