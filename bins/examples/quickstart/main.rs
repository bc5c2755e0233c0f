//! `linkerd-tcp` at work, in one process and with nothing to install.
//!
//! ```text
//! cargo run --example quickstart             # tells the story, then goes on for you to play with
//! cargo run --example quickstart -- --once   # ends with the story: 0 if all that it claims was true, else 1
//! ```
//!
//! The proxy is the real one: a configuration text is parsed, prepared, bound and run as by the program. Only
//! what surrounds it is small: a name server that answers like namerd, and four backends that send back what
//! they get. All ports are free ones of 127.0.0.1.

mod backend;
mod page;
mod stage;
mod story;
mod traffic;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use page::Page;
use stage::Stage;
use tokio::runtime::Builder;
use tokio::time;

/// How long the story may take. It takes about four seconds; if it takes this long, something hangs.
const STORY: Duration = Duration::from_secs(60);

const USAGE: &str = "\
Shows linkerd-tcp at work: spreading by weight, a backend that dies, a change at the name server.

Usage: quickstart [--once]

Options:
      --once  End after the story: 0 if all that it claims was true, else 1 [default: go on until Ctrl-C]
  -h, --help  Print this

Environment:
  RUST_LOG    what to log to stderr, such as linkerd_tcp=info [default: errors only]
  NO_COLOR    if set, the output has no colour; it has none either if stdout is no terminal
";

/// What to do when the story has been told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    End,
    GoOn,
}

fn main() -> ExitCode {
    let mut then = Then::GoOn;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--once" => then = Then::End,
            "-h" | "--help" => {
                print!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("quickstart: {other:?} is no option\n\n{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    bins::kit::log::start(&bins::kit::log::LogOptions::new("linkerd_tcp"));
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("quickstart: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(then));
    // After an error the proxy may still run; a runtime that is dropped would wait for its threads.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(then: Then) -> Result<ExitCode, Box<dyn Error>> {
    let mut page = Page::new();
    let mut stage = Stage::set().await?;
    let drain = stage.drain();
    let told = tokio::select! {
        told = time::timeout(STORY, story::tell(&mut page, &mut stage)) => told,
        // A signal, or the proxy has broken. How it ended is told below.
        () = drain.started() => {
            stage.end().await?;
            return Err("interrupted before the story was told".into());
        }
    };
    told.map_err(|_| format!("the story was not told within {STORY:?}"))??;

    if then == Then::GoOn {
        story::try_next(&page, &stage);
        stage.until_told_to_end().await;
        page.line("");
        page.line("Draining: open connections may go on for up to 10 s. Ctrl-C cuts them.");
    }
    stage.end().await?;
    let untrue = page.untrue();
    for claim in untrue {
        eprintln!("quickstart: not true: {claim}");
    }
    Ok(if untrue.is_empty() {
        page.line("");
        page.line("The proxy has drained and ended. All that was claimed was true.");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
