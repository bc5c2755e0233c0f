//! Shows that linkerd-tcp endures: long transfers, every way a connection can end, endpoints and name servers that
//! come and go, draining, and clients that say nothing.
//!
//! Each run starts the program as a child process with a configuration of its own, does its work against it, prints
//! what it measured, and fails if something did not hold that must. `README.md` of this package lists the runs.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::limits;
use tokio::runtime;

use crate::args::Args;
use crate::setup::Setup;

mod args;
mod backend;
mod churn;
mod config;
mod drain;
mod endings;
mod load;
mod memory;
mod names;
mod program;
mod setup;
mod silent;
mod soak;
mod transfer;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let run = args.next().unwrap_or_else(|| "--help".into());
    if matches!(run.as_str(), "--help" | "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    // Clients and backends are all in this process, the other ends in the child, which inherits the limit.
    limits::raise_descriptors();
    match Args::parse(args).and_then(|args| start(&run, args)) {
        Ok(()) => {
            println!("{run}: holds");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("endure: {run}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(run: &str, mut args: Args) -> io::Result<()> {
    let program = args.take("program", PathBuf::from("target/release/linkerd-tcp"))?;
    let setup = || Setup::new(program);
    match run {
        "transfer" => {
            let options = transfer::Options::read(&mut args)?;
            args.finish()?;
            on_all_cores(transfer::run(&setup()?, &options))
        }
        "endings" => {
            let options = endings::Options::read(&mut args)?;
            args.finish()?;
            on_all_cores(endings::run(&setup()?, &options))
        }
        "churn" => {
            let options = churn::Options::read(&mut args)?;
            args.finish()?;
            on_one_core(churn::run(&setup()?, &options))
        }
        "soak" => {
            let options = soak::Options::read(&mut args)?;
            args.finish()?;
            on_one_core(soak::run(&setup()?, &options))
        }
        "drain" => {
            let options = drain::Options::read(&mut args)?;
            args.finish()?;
            on_all_cores(drain::run(&setup()?, &options))
        }
        "silent" => {
            let options = silent::Options::read(&mut args)?;
            args.finish()?;
            on_one_core(silent::run(&setup()?, &options))
        }
        _ => Err(io::Error::other("there is no such run; --help lists them")),
    }
}

fn on_all_cores(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// The program gets the other cores.
fn on_one_core(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

const HELP: &str = "\
Shows that linkerd-tcp endures.

Usage: endure RUN [--program PATH] [options]

  transfer   bytes each way through every mix of plain and TLS, compared
             --megabytes 400  --seed N
  endings    many connections for each way to end, then no descriptor more than before
             --connections 100000  --concurrency 64  --kinds a,b
  churn      all addresses of a name replaced every second, under load
             --seconds 60  --addresses 1000  --connects 500  --kept 50
  soak       steady load while endpoints and the name server come and go
             --minutes 30  --rate 5000  --kept 200  --connects 200
  drain      SIGTERM with connections that end in time and others that do not; a second signal
             --connections 500  --grace 5
  silent     TLS handshakes beside connections that say nothing
             --connections 1000  --rounds 5  --seconds 3

The program is target/release/linkerd-tcp unless PATH says otherwise. Exit 0 means that all that must hold held.
";
