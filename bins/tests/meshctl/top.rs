//! `meshctl top`.

use rustix::process::Signal;
use serde_json::Value;

use crate::program;
use crate::program::HISTORY;
use crate::program::Program;
use crate::program::STATE;
use crate::program::assert_golden;
use crate::terminal::OnTerminal;

fn top(program: &Program, args: &[&str]) -> OnTerminal {
    let command = program.command(&[&["top", "--every", "200ms"], args].concat());
    let top = OnTerminal::start(&command, 120, 30);
    top.sees("q: quit");
    top
}

/// Asserts that a terminal is as it was before the program.
fn assert_restored(top: &OnTerminal, by: &str) {
    let screen = top.waits("the usual screen", |screen| !screen.is_other);
    assert!(screen.has_cursor && !screen.is_held && top.is_as_before(), "{by}: {screen:#?}");
    assert_eq!(screen.text().trim(), "", "{by}");
}

#[test]
fn one_picture_is_printed_where_there_is_no_terminal() {
    let program = Program::usual();
    let addr = program.addr().to_string();

    for (name, args) in [
        ("top.txt", &["top", "--once"][..]),
        ("top-small.txt", &["top", "--once", "--size", "60x12", "--sort", "name", "--filter", "web"][..]),
    ] {
        let once = program.run(args);
        assert_eq!((once.code, &*once.stderr), (Some(0), ""));
        assert_golden(name, &once.stdout.replace(&addr, "ADMIN"));
    }
    let without = program.run(&["top"]);
    assert!(without.code == Some(2) && without.stderr.contains("top --once"), "{without:?}");
}

#[test]
fn both_documents_are_printed_for_scripts() {
    let once = Program::usual().run(&["top", "--once", "-o", "json"]);

    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let printed = value(&once.stdout);
    assert_eq!((&printed["state"], &printed["history"]), (&value(STATE), &value(HISTORY)));
}

#[test]
fn keys_change_what_is_shown() {
    let program = Program::usual();
    let mut top = top(&program, &[]);

    let screen = top.sees("10.1.0.11:8080");
    assert!(screen.is_other && !screen.has_cursor && screen.colours > 0, "{screen:#?}");
    top.press("f");
    let screen = top.sees("sorted by failures");
    let first = screen.lines.iter().position(|line| line.contains("2001:db8::13"));
    let second = screen.lines.iter().position(|line| line.contains("10.1.0.12"));
    assert!(first < second, "{screen:#?}");
    top.press("?");
    top.sees("any key: back");
    top.press("x");
    top.sees("10.1.0.11:8080");
    top.press("/BILL\r");
    let screen = top.waits("one row", |screen| !screen.text().contains("10.1.0.11"));
    assert!(screen.text().contains("/svc/billing"), "{screen:#?}");
    top.press("/\x1b");
    top.sees("10.1.0.11:8080");
    top.press("p");
    top.sees("PAUSED");

    top.press("q");
    assert_eq!(top.ended().code(), Some(0));
    assert_restored(&top, "q");
}

#[test]
fn every_end_but_kill_gives_the_terminal_back() {
    let program = Program::usual();
    for key in ["\x1b", "\x03"] {
        let mut top = top(&program, &[]);
        top.press(key);
        assert_eq!(top.ended().code(), Some(0), "{key:?}");
        assert_restored(&top, key);
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut top = top(&program, &[]);
        assert!(!top.is_as_before());
        top.signal(signal);
        assert_eq!(top.ended().code(), Some(0), "{signal:?}");
        assert_restored(&top, &format!("{signal:?}"));
    }
}

#[test]
fn what_is_known_stays_while_the_program_does_not_answer() {
    let program = Program::usual();
    let addr = program.addr();
    let mut top = top(&program, &[]);

    drop(program);
    let screen = top.sees("unanswered for");
    assert!(screen.text().contains("10.1.0.11:8080"), "{screen:#?}");

    let _program = Program::at(addr, program::usual());
    top.waits("an answer", |screen| {
        !screen.text().contains("unanswered") && screen.text().contains("10.1.0.11")
    });
    top.press("q");
    assert_eq!(top.ended().code(), Some(0));
    assert_restored(&top, "q");
}

#[test]
fn without_colour_all_is_said_in_words() {
    let program = Program::usual();
    let mut command = program.command(&["top"]);
    command.env("NO_COLOR", "1");
    let top = OnTerminal::start(&command, 120, 30);

    let screen = top.sees("q: quit");

    assert_eq!(screen.colours, 0, "{:?}", top.printed());
    for word in ["NOT READY", "ready", "cooling_down(2s)", "ejected(1m15s)", "unused", "pending"] {
        assert!(screen.text().contains(word), "{word}: {screen:#?}");
    }
}

#[test]
fn without_a_first_answer_the_terminal_is_not_touched() {
    let program = Program::usual();
    let command = program.command(&["top", "--timeout", "2s"]);
    drop(program);

    let mut top = OnTerminal::start(&command, 80, 24);

    assert_eq!(top.ended().code(), Some(1));
    let screen = top.sees("cannot ask");
    assert!(!top.printed().contains("1049") && top.is_as_before(), "{screen:#?}");
}
