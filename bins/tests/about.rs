//! What every program says of itself, asked in the same way of each.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

const PROGRAMS: [(&str, &str); 4] = [
    ("linkerd-tcp", env!("CARGO_BIN_EXE_linkerd-tcp")),
    ("tproxy-poc", env!("CARGO_BIN_EXE_tproxy-poc")),
    ("echo-server", env!("CARGO_BIN_EXE_echo-server")),
    ("tricot", env!("CARGO_BIN_EXE_tricot")),
];

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

fn run(path: &str, args: &[&str]) -> Output {
    // Variables that are set for a program have nothing to do with what it says of itself.
    Command::new(path)
        .args(args)
        .env("TRICOT_WORKERS", "3")
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .expect("it can be run")
}

fn printed(path: &str, args: &[&str]) -> String {
    let output = run(path, args);
    assert!(output.status.success() && output.stderr.is_empty(), "{path} {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a program prints that is given this text.
fn through(program: &str, args: &[&str], text: &str) -> Output {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn the_version_is_one_line_and_with_verbose_it_is_all_that_a_report_needs() {
    for (name, path) in PROGRAMS {
        let line = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(printed(path, &["--version"]), line);
        assert_eq!(printed(path, &["-V"]), line);

        let long = printed(path, &["--version", "--verbose"]);
        let mut lines = long.lines();
        assert_eq!(lines.next(), Some(line.trim_end()));
        let words: Vec<_> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        let value = |of: &str| words.iter().find(|words| words[0] == of).map(|words| words[1..].join(" "));
        assert!(value("compiler").is_some_and(|text| text.starts_with("rustc 1.")), "{long}");
        assert!(value("target").is_some_and(|text| text.contains("linux")), "{long}");
        assert!(value("features").is_some_and(|text| text.contains(name)), "{long}");
        assert!(value("commit").is_some() && value("TLS").is_some(), "{long}");
        assert_eq!(printed(path, &["--verbose", "-V"]), long);

        let alone = run(path, &["--verbose"]);
        assert!(!alone.status.success() && alone.stdout.is_empty(), "{alone:?}");
    }
}

#[test]
fn completions_for_five_shells_know_every_option_of_the_help() {
    for (name, path) in PROGRAMS {
        let help = printed(path, &["--help"]);
        let options: Vec<_> = help
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("--"))
            .map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
            .filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
            .collect();
        assert!(options.len() > 5, "{help}");
        for shell in SHELLS {
            let script = printed(path, &["--completions", shell]);
            for option in ["completions", "man", "log-format"].iter().chain(&options) {
                assert!(script.contains(option), "{shell} does not know --{option} of {name}");
            }
        }
        let none = run(path, &["--completions", "cmd"]);
        assert!(!none.status.success() && none.stdout.is_empty(), "{none:?}");
    }
}

#[test]
fn what_stands_behind_the_options_is_not_wrapped() {
    // As wide as the help is where there is no terminal.
    for (name, path) in PROGRAMS {
        let help = printed(path, &["--help"]);
        let (_, behind) = help.split_once("\nSignals:\n").unwrap_or_else(|| panic!("{name}: {help}"));
        let is_title = |line: &str| line.ends_with(':') && line.starts_with(|c: char| c.is_ascii_uppercase());
        for line in behind.lines().filter(|line| !line.is_empty() && !is_title(line)) {
            assert!(line.starts_with("  ") && line.len() <= 100, "{name}: {line}");
        }
    }
}

#[test]
fn bash_completes_with_what_is_printed() {
    for (name, path) in PROGRAMS {
        let script = printed(path, &["--completions", "bash"]);
        // What bash does when the tabulator is pressed behind `--log-f`.
        let ask = format!(
            "{script}\nCOMP_WORDS=({name} --log-f) COMP_CWORD=1\n\
             function=$(complete -p {name} | grep -o -- '-F [^ ]*')\n\
             ${{function#-F }} {name} --log-f {name}\necho \"${{COMPREPLY[*]}}\"\n"
        );
        let output = through("bash", &["--norc", "-s"], &ask);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--log-format", "{name}: {output:?}");
    }
}

/// What a terminal shows of it: bold letters are printed, stepped back over, and printed again.
fn plain(printed: &[u8]) -> String {
    let mut shown = Vec::new();
    for byte in printed {
        if *byte == 8 {
            shown.pop();
        } else {
            shown.push(*byte);
        }
    }
    String::from_utf8_lossy(&shown).into_owned()
}

/// `UPDATE_DOCS=1` writes them anew.
#[test]
fn pages_of_the_manual_in_the_documentation_are_those_of_the_programs() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man");
    for (name, path) in PROGRAMS {
        let (page, file) = (printed(path, &["--man"]), dir.join(format!("{name}.8")));
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(&dir).expect("a directory");
            fs::write(&file, &page).expect("a file");
        }
        let written = fs::read_to_string(&file).unwrap_or_default();
        assert!(written == page, "{} is out of date: run this test with UPDATE_DOCS=1", file.display());
    }
}

#[test]
fn pages_of_the_manual_render_without_a_warning() {
    for (name, path) in PROGRAMS {
        let page = printed(path, &["--man"]);

        let output = through("groff", &["-man", "-Tascii", "-ww", "-Wbreak"], &page);

        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        let text = plain(&output.stdout);
        for part in [name, "SYNOPSIS", "DESCRIPTION", "--completions", "SIGNALS", "RUST_LOG", "EXAMPLE"] {
            assert!(text.contains(part), "{name} lacks {part}: {text}");
        }
        assert_eq!(text.contains("TRICOT_METRICS_BIND_ADDR"), name == "tricot", "{text}");
    }
}
