//! Measures linkerd-tcp and tricot against the proxies that are installed, on the same loopback work.
//!
//! `README.md` beside this package says how to run it and how to read the ratios. In short:
//!
//! ```text
//! core 0: load generator, backend          core 1: one proxy with one worker
//!
//!   load ──────────────────────────────────► proxy
//!   backend ◄─────────────────────────────── proxy
//! ```
//!
//! Every sample starts a fresh proxy, warms it up, and reads counters at the two edges of a window. Rounds
//! are interleaved, and the table shows medians.

use std::fs;
use std::io;
use std::process::ExitCode;

use benches::{counters, histogram, http, procfs, talk, tls, wire};
use serde_json::json;

use crate::cli::{Command, Options};
use crate::peer::Field;
use crate::report::Measured;
use crate::stage::Stage;
use crate::verify::Verified;

mod backend;
mod catalog;
mod cli;
mod clock;
mod host;
mod load;
mod peer;
mod proxy;
mod report;
mod rounds;
mod sample;
mod stage;
mod verify;
mod workload;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match cli::parse(&args) {
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            Ok(())
        }
        Ok(Command::List) => {
            list();
            Ok(())
        }
        Ok(Command::Run(options)) => run(&options, &args),
        Err(mistake) => Err(mistake),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("compare: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    println!("Workloads");
    for workload in workload::ALL {
        let figures: Vec<_> = workload.load.figures().iter().map(|figure| figure.name).collect();
        println!("  {:14} {} ({})", workload.name, workload.about, figures.join(", "));
    }
    println!("Peers");
    let field = peer::find(&[], &[]).unwrap_or_default();
    for peer in &field.peers {
        println!("  {:14} {}", peer.name, peer.version);
    }
    for (name, reason) in &field.missing {
        println!("  {name:14} missing: {reason}");
    }
}

fn run(options: &Options, args: &[String]) -> Result<(), String> {
    let workloads = workload::select(&options.workloads)?;
    let field = peer::find(&options.ours, &options.peers)?;
    if field.peers.is_empty() {
        let reasons: Vec<_> =
            field.missing.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        return Err(format!("nobody to measure; {}", reasons.join("; ")));
    }
    let mut notes = if options.inside_namespace {
        host::prepare_namespace().map_err(|error| format!("network namespace: {error}"))?
    } else {
        vec![host::enter_namespace(args)]
    };
    if host::can_prioritise() {
        host::be_urgent();
    } else {
        notes.push("priorities not raised (needs root)".into());
    }
    // The measuring thread mostly sleeps; it shares the load core, never the proxy's.
    host::pin(host::LOAD_CORE).map_err(|error| format!("core {}: {error}", host::LOAD_CORE))?;

    let stage = Stage::set(options.idle_connections).map_err(|error| error.to_string())?;
    print!("{}", header(options, &field, &stage, &notes));
    let mut verified = Verified::default();
    let mut all = Vec::new();
    for workload in workloads {
        let measured = rounds::measure(&stage, workload, &field, &mut verified, options);
        println!("{}", measured.table());
        all.push(measured);
        // Written after each workload, so that an interrupted run leaves what it has.
        if let Some(path) = &options.json {
            write_json(path, options, &field, &notes, &all)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    print!("{}", report::summary(&all));
    Ok(())
}

fn header(options: &Options, field: &Field, stage: &Stage, notes: &[String]) -> String {
    let mut text = format!(
        "{} rounds of {:.1} s; proxy alone on core {}, load and backend on core {}; \
         {} descriptors, {} idle connections\n",
        options.rounds,
        options.window.as_secs_f64(),
        host::PROXY_CORE,
        host::LOAD_CORE,
        stage.descriptors(),
        stage.idle_connections,
    );
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for peer in &field.peers {
        text.push_str(&format!("{}: {}\n", peer.name, peer.version));
    }
    for (name, reason) in &field.missing {
        text.push_str(&format!("{name}: left out: {reason}\n"));
    }
    text.push('\n');
    text
}

fn write_json(
    path: &std::path::Path,
    options: &Options,
    field: &Field,
    notes: &[String],
    all: &[Measured],
) -> io::Result<()> {
    let peers: Vec<_> =
        field.peers.iter().map(|peer| json!({"name": peer.name, "version": peer.version})).collect();
    let missing: Vec<_> =
        field.missing.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect();
    let value = json!({
        "rounds": options.rounds,
        "seconds": options.window.as_secs_f64(),
        "notes": notes,
        "peers": peers,
        "missing": missing,
        "workloads": all.iter().map(Measured::json).collect::<Vec<_>>(),
    });
    fs::write(path, format!("{value:#}\n"))
}
