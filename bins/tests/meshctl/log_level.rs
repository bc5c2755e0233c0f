//! `meshctl log-level`.

use http::Method;
use http::StatusCode;
use meshlib::http::admin::Access;
use meshlib::http::admin::Router;
use meshlib::http::admin::status;
use meshlib::http::admin::text;

use crate::program::Program;

/// A program that says what it was asked for.
fn program() -> Program {
    let pages = Router::new().get("/log-level", |_| text("linkerd_tcp=info\n"));
    Program::start(pages.page("/log-level", Method::PUT, Access::Anybody, |request| {
        let query = request.uri().query().unwrap_or_default();
        let mut answer = text(format!("{query}\nlength {:?}\n", request.headers().get("content-length")));
        if query == "filter=loud" {
            answer = text("loud: no such level\n");
            *answer.status_mut() = StatusCode::BAD_REQUEST;
        }
        answer
    }))
}

#[test]
fn what_is_no_program_of_ours_is_not_asked_for_anything() {
    let hello = |_: &_| text("Well, hello!\n");
    let other = Program::of_others(Router::new().get("/live", hello).page(
        "/log-level",
        Method::PUT,
        Access::Anybody,
        hello,
    ));

    let changed = other.run(&["log-level", "debug"]);

    assert_eq!((changed.code, &*changed.stdout), (Some(1), ""));
    assert!(changed.stderr.contains("has something else at /live than was expected"), "{changed:?}");
}

#[test]
fn a_filter_that_is_too_long_is_misuse() {
    let long = "a".repeat(70_000);
    let misused = program().run(&["log-level", &long]);

    assert_eq!((misused.code, &*misused.stdout), (Some(2), ""));
    assert!(misused.stderr.contains("more than 4096 bytes"), "{misused:?}");
}

#[test]
fn without_a_filter_the_one_in_force_is_shown() {
    let shown = program().run(&["log-level"]);

    assert_eq!((shown.code, &*shown.stdout, &*shown.stderr), (Some(0), "linkerd_tcp=info\n", ""));
}

#[test]
fn a_filter_is_put_and_the_answer_is_shown() {
    let changed = program().run(&["log-level", "tricot=debug,a::b[x=\"&# é\"]"]);

    assert_eq!((changed.code, &*changed.stderr), (Some(0), ""));
    let query = "filter=tricot%3Ddebug%2Ca%3A%3Ab%5Bx%3D%22%26%23+%C3%A9%22%5D\n";
    assert!(changed.stdout.starts_with(query), "{changed:?}");
}

#[test]
fn a_filter_that_is_refused_is_a_failure_with_the_reason() {
    let refused = program().run(&["log-level", "loud"]);

    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(refused.stderr.contains("answers 400 to /log-level: loud: no such level"), "{refused:?}");
}

#[test]
fn a_program_that_cannot_change_it_says_so() {
    let program = Program::start(Router::new().get("/log-level", |_| text("info\n")));

    let refused = program.run(&["log-level", "debug"]);

    assert!(refused.code == Some(1) && refused.stderr.contains("answers 405 to /log-level"), "{refused:?}");
}

#[test]
fn a_program_that_lets_nobody_change_it_from_elsewhere_says_so() {
    let pages =
        Router::new().page("/log-level", Method::PUT, Access::Anybody, |_| status(StatusCode::FORBIDDEN));

    let refused = Program::start(pages).run(&["log-level", "debug"]);

    assert!(refused.code == Some(1) && refused.stderr.contains("on the same machine only"), "{refused:?}");
}
