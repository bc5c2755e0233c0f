//! `meshctl stat --watch`.

use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use rustix::process::Signal;
use serde_json::Value;

use crate::child::Running;
use crate::program;
use crate::program::Program;
use crate::program::STATE;
use crate::terminal::OnTerminal;

/// A program that is looked at, with fewer endpoints each time.
fn shrinking() -> Program {
    let looks = Arc::new(AtomicUsize::new(0));
    Program::start(Router::new().get("/state.json", move |_| {
        let mut state: Value = serde_json::from_str(STATE).unwrap();
        let look = looks.fetch_add(1, Ordering::Relaxed);
        state["version"] = format!("look-{look}").into();
        state["destinations"][0]["endpoints"]
            .as_array_mut()
            .unwrap()
            .truncate(4_usize.saturating_sub(look).max(1));
        json(state.to_string())
    }))
}

#[test]
fn without_a_terminal_blocks_follow_each_other_until_int() {
    let program = shrinking();
    let mut watch = Running::spawn(&mut program.command(&["stat", "--watch=200ms"]));

    watch.stdout().wait_for("the third look", |line| line.contains("look-2"));
    watch.signal(Signal::INT);

    let ended = watch.wait();
    let printed = watch.stdout().rest();
    assert_eq!(ended.code(), Some(0), "{printed}");
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
    let heads: Vec<_> = printed.split("\n\n").filter(|part| part.contains("look-")).collect();
    assert!(heads.len() >= 3, "{printed}");
}

#[test]
fn documents_follow_each_other_too() {
    let program = shrinking();
    let mut watch = Running::spawn(&mut program.command(&["stat", "-o", "json", "--watch=200ms"]));

    watch.stdout().wait_for("the second look", |line| line.contains("look-1"));
    watch.signal(Signal::TERM);

    assert_eq!(watch.wait().code(), Some(0));
    let printed = watch.stdout().rest();
    let documents = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    assert!(documents.filter(|document| document.as_ref().unwrap()["tool"] == "linkerd-tcp").count() >= 2);
}

#[test]
fn a_reader_that_has_enough_ends_it() {
    let program = shrinking();
    let mut command = program.command(&["stat", "--watch=100ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();

    let output = child.wait_with_output().unwrap();

    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn on_a_terminal_each_look_is_drawn_over_the_one_before() {
    let program = shrinking();
    let mut watch = OnTerminal::start(&program.command(&["stat", "--watch=200ms"]), 150, 30);

    watch.sees("10.1.0.14:8080");
    let screen = watch.sees("look-4");
    assert!(screen.lines[0].starts_with("linkerd-tcp look-") && !screen.is_other, "{screen:#?}");
    let screen =
        watch.waits("one endpoint", |screen| !screen.text().contains("10.1.0.12") && !screen.is_held);
    assert_eq!(screen.text().matches("look-").count(), 1, "{screen:#?}");
    assert!(screen.text().contains("10.1.0.11") && screen.has_cursor, "{screen:#?}");

    // What the terminal makes of Ctrl-C is INT.
    watch.press("\x03");
    assert_eq!(watch.ended().code(), Some(0));
    assert!(watch.is_as_before());
}

#[test]
fn what_does_not_fit_on_the_terminal_is_left_out() {
    let program = Program::usual();
    let mut watch = OnTerminal::start(&program.command(&["stat", "--watch"]), 40, 8);

    let screen = watch.sees("more lines");
    watch.signal(Signal::TERM);

    assert_eq!(screen.lines[0], "linkerd-tcp 0.1.0  up 3d0h  NOT READY  3");
    assert!(screen.lines[6].starts_with("... and ") && screen.lines[7].is_empty(), "{screen:#?}");
    assert_eq!(watch.ended().code(), Some(0));
}

#[test]
fn what_is_known_stays_while_the_program_does_not_answer() {
    let program = Program::usual();
    let addr = program.addr();
    let watch = OnTerminal::start(&program.command(&["stat", "--watch=200ms"]), 150, 30);
    watch.sees("10.1.0.11:8080");

    drop(program);
    let screen = watch.sees("unanswered for");
    assert!(screen.text().contains("10.1.0.11:8080"), "{screen:#?}");

    let _program = Program::at(addr, program::usual());
    watch.waits("an answer", |screen| {
        !screen.text().contains("unanswered") && screen.text().contains("10.1.0.11")
    });
}

#[test]
fn without_a_first_answer_it_ends() {
    let program = Program::start(Router::new());

    let watch = program.run(&["stat", "--watch"]);

    assert_eq!((watch.code, &*watch.stdout), (Some(1), ""));
    assert!(watch.stderr.contains("answers 404"), "{watch:?}");
}
