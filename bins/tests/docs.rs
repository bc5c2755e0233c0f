//! The pages: what they show is taken by the programs, runs, and is there.
//!
//! What stands behind the three backticks of a block says what is done with it:
//!
//! | Block | Is |
//! |---|---|
//! | `yaml linkerd-tcp` | a configuration of linkerd-tcp, and passes `--check`; another block of YAML must not look like one |
//! | `sh run` | run by bash, and succeeds within [`QUICK`] |
//! | `text log` | lines of a log, without their time: each message is in the source |
//!
//! A block that runs has a folder of its own. Where it says 127.0.0.1 it gets another address of 127.0.0.0/8, made of the number
//! of this process and of the block, so that its ports are taken by nobody else; `meshctl` is told so by its variable.

#![expect(clippy::unwrap_used, reason = "what helps tests panics like tests")]

#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "every suite uses a part of it")]
#[path = "support/lines.rs"]
mod lines;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::SystemTime;

use meshlib::test_util::CertOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;
use meshlib::test_util::require_programs;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process_group;

use crate::child::Running;

/// How long a quick start may take, on a machine that is busy with other things.
const QUICK: Duration = Duration::from_secs(20);

/// Sections of the page for bad nights to which alerts lead.
const ALERTED: [&str; 13] = [
    "no-endpoint",
    "ejected-endpoint",
    "slow-endpoint",
    "success",
    "certificate",
    "reload",
    "restarts",
    "consul",
    "discovery",
    "orders",
    "descriptors",
    "loops",
    "rules",
];

fn project() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page with its path below the project.
struct Page {
    name: String,
    text: String,
}

/// The README and every page in `docs`.
fn pages() -> Vec<Page> {
    let docs = fs::read_dir(project().join("docs")).unwrap();
    let names = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    names.push("README.md".into());
    names.sort();
    let page = |name: String| Page { text: read(&project().join(&name)), name };
    names.into_iter().map(page).collect()
}

/// A block of code.
struct Block {
    /// Page and line.
    place: String,
    /// What stands behind the backticks.
    info: String,
    text: String,
}

impl Page {
    /// The blocks of code, and the page without them. A block in a list is taken without its indentation.
    fn parts(&self) -> (Vec<Block>, String) {
        let (mut blocks, mut rest) = (Vec::<Block>::new(), String::new());
        let mut indentation = None;
        for (number, line) in self.text.lines().enumerate() {
            let bare = line.trim_start();
            match (indentation, bare.strip_prefix("```")) {
                (None, Some(info)) => {
                    indentation = Some(line.len() - bare.len());
                    let place = format!("{}:{}", self.name, number + 1);
                    blocks.push(Block { place, info: info.trim().into(), text: String::new() });
                }
                (None, None) => rest.extend([line, "\n"]),
                (Some(_), Some("")) => indentation = None,
                (Some(columns), _) => {
                    let line = line.get(columns..).unwrap_or_default();
                    blocks.last_mut().expect("one is open").text.extend([line, "\n"]);
                }
            }
        }
        assert_eq!(indentation, None, "a block of {} has no end", self.name);
        (blocks, rest)
    }
}

/// The blocks of all pages with this word behind their backticks.
fn blocks(info: &str) -> Vec<Block> {
    let all = pages().into_iter().flat_map(|page| page.parts().0);
    all.filter(|block| block.info == info).collect()
}

/// Makes the files that a configuration names: `x.key` is a key, and `x.pem` its certificate; without a key beside it `x.pem`
/// is an authority.
fn write_files(text: &str, folder: &Path) {
    let ca = TestCa::new();
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_' || c == '/';
    let named: BTreeSet<_> = text.split(|c| !is_of_name(c)).collect();
    for file in named.iter().filter_map(|word| word.strip_suffix(".pem")) {
        let key = format!("{file}.key");
        if named.contains(&*key) {
            // Longer than what is warned of.
            let now = SystemTime::now();
            let days = |n: u64| Duration::from_secs(n * 24 * 3600);
            let options = CertOptions::default().with_validity(now - days(1), now + days(90));
            let cert = ca.issue_with([format!("{file}.example.com")], &options);
            fs::write(folder.join(key), cert.key_pem()).unwrap();
            fs::write(folder.join(file).with_extension("pem"), cert.chain_pem()).unwrap();
        } else {
            fs::write(folder.join(file).with_extension("pem"), ca.pem()).unwrap();
        }
    }
}

#[test]
fn every_configuration_passes_a_check() {
    let configurations = blocks("yaml linkerd-tcp");
    assert!(configurations.len() >= 6, "{}", configurations.len());

    for block in configurations {
        let folder = tempfile::tempdir().unwrap();
        write_files(&block.text, folder.path());
        fs::write(folder.path().join("page.yml"), &block.text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_linkerd-tcp"));
        let output = command.args(["--check", "--strict", "page.yml"]).current_dir(&folder).output().unwrap();

        assert!(output.status.success(), "{}: {output:?}", block.place);
    }
}

#[test]
fn what_looks_like_a_configuration_is_marked_as_one() {
    for block in blocks("yaml") {
        let is_ours = |line: &str| ["proxies:", "routers:"].iter().any(|key| line.starts_with(key));
        assert!(!block.text.lines().any(is_ours), "{}: say `yaml linkerd-tcp`", block.place);
    }
}

/// Processes that a block has left behind. Killed when dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // There may be none.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

#[tokio::test]
async fn every_quick_start_runs() {
    if or_skip(require_programs(&["bash", "curl", "openssl", "python3"])).is_none() {
        return;
    }
    let starts = blocks("sh run");
    assert!(starts.len() >= 3, "{}", starts.len());
    let programs = Path::new(env!("CARGO_BIN_EXE_linkerd-tcp")).parent().expect("a folder");
    let path = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths([programs.to_owned()].into_iter().chain(env::split_paths(&path))).expect("a path");

    for (number, block) in starts.into_iter().enumerate() {
        let pid = std::process::id();
        let own = format!("127.{}.{}.{}", 1 + pid / 256 % 254, pid % 256, 1 + number % 254);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("bash");
        // A shell that nobody types into ends at the first command that fails only if it is told to.
        command.args(["-ec", &block.text.replace("127.0.0.1", &own)]).process_group(0);
        command.stdin(Stdio::null()).current_dir(&folder).env("PATH", &path).env_remove("RUST_LOG");
        command.env("MESHCTL_ADMIN", format!("{own}:9989")).env("no_proxy", "*").env_remove("NOTIFY_SOCKET");

        let mut shell = Running::spawn(&mut command);
        let group = Group(Pid::from_raw(shell.pid().cast_signed()).expect("a process id"));
        let status = shell.exit(QUICK).await;

        drop(group);
        let ended = shell.ended();
        assert!(status.success(), "{}: {status} {ended:?}", block.place);
    }
}

/// The anchors of a page, as hosts of code make them: of headings and of `<a id="..">`.
fn anchors(rest: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut seen = BTreeMap::<String, usize>::new();
    for line in rest.lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let text = heading.trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let again = seen.entry(slug.clone()).or_default();
            anchors.insert(if *again == 0 { slug } else { format!("{slug}-{again}") });
            *again += 1;
        }
        let ids = line.split("<a id=\"").skip(1).filter_map(|text| text.split('"').next());
        anchors.extend(ids.map(str::to_owned));
    }
    anchors
}

/// The targets of the links of a page.
fn links(rest: &str) -> Vec<String> {
    // What is in backticks is no link.
    let plain: String = rest.split('`').step_by(2).collect();
    let targets = plain.match_indices("](").filter_map(|(at, _)| plain[at + 2..].split(')').next());
    targets.map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    for page in pages() {
        let rest = page.parts().1;
        let folder = project().join(&page.name).parent().unwrap().to_owned();
        for link in links(&rest).iter().filter(|link| !link.contains("://")) {
            found += 1;
            let (file, anchor) = link.split_once('#').map_or((&**link, None), |(file, id)| (file, Some(id)));
            let target = if file.is_empty() { project().join(&page.name) } else { folder.join(file) };
            assert!(target.exists(), "{} links to {link}, which is not there", page.name);
            if let Some(anchor) = anchor {
                let text = read(&target);
                let (_, rest) = Page { name: link.clone(), text }.parts();
                assert!(anchors(&rest).contains(anchor), "{} links to {link}: no such heading", page.name);
            }
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn every_alert_finds_its_section() {
    let text = read(&project().join("docs/bad-night.md"));
    let (_, rest) = Page { name: "docs/bad-night.md".into(), text }.parts();
    let anchors = anchors(&rest);

    for section in ALERTED {
        assert!(anchors.contains(section), "{section} is none of {anchors:?}");
    }
}

/// All source files below a folder, one after the other, with texts that go over several lines made into one.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut parts = read(&path).split("\\\n").map(str::to_owned).collect::<Vec<_>>().into_iter();
            all.push_str(&parts.next().unwrap_or_default());
            parts.for_each(|part| all.push_str(part.trim_start()));
        }
    }
}

/// The message of a line of a log: between the target and the first field.
fn message(line: &str) -> &str {
    let (_, text) = line.split_once(": ").unwrap_or_else(|| panic!("no target in {line}"));
    let field = text.match_indices('=').find_map(|(at, _)| {
        let (start, name) = match text[..at].rsplit_once(' ') {
            Some((before, name)) => (before.len(), name),
            None => (0, &text[..at]),
        };
        name.chars().all(|c| c.is_ascii_lowercase() || c == '_').then_some(start)
    });
    &text[..field.unwrap_or(text.len())]
}

#[test]
fn every_line_of_a_log_is_one_that_a_program_writes() {
    let mut source = String::new();
    for folder in ["bins/src", "meshlib/src", "meshlib-consul/src", "meshlib-namerd/src"] {
        sources(&project().join(folder), &mut source);
    }
    let mut found = 0;
    for block in blocks("text log") {
        for line in block.text.lines() {
            found += 1;
            let level = line.split(' ').next().unwrap();
            assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{}: {line}", block.place);
            let message = message(line);
            // What is put in front of a colon may be a value.
            let fixed = message.rsplit_once(": ").map_or(message, |(_, end)| end);
            let written = fixed.replace('"', "\\\"");
            assert!(!fixed.is_empty(), "{}: {line}", block.place);
            let ends = [format!("{written}\""), format!("{written} {{")];
            assert!(
                ends.iter().any(|end| source.contains(end)),
                "{}: {fixed:?} is written nowhere",
                block.place
            );
        }
    }
    assert!(found > 30, "{found}");
}

#[test]
fn every_variable_of_tricot_that_is_named_is_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_tricot")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let names = |text: &str| {
        let found = text.match_indices("TRICOT_").map(|(at, _)| {
            let name: String = text[at..].chars().take_while(|c| is_of_name(*c)).collect();
            name
        });
        found.filter(|name| name != "TRICOT_").collect::<BTreeSet<_>>()
    };
    let known = names(&help);

    for page in pages() {
        for name in names(&page.text) {
            assert!(known.contains(&name), "{} names {name}", page.name);
        }
    }
}
