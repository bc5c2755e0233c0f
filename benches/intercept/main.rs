//! What interception costs, per connection.
//!
//! Runs the built `tproxy-poc` in network namespaces, in each mode and with each way of replies, beside no interception and
//! plain `REDIRECT` without the client's address. All are measured in turns of one run: a connection at a time that sends
//! a few bytes, gets them back and ends. Needs root, `ip`, `iptables` and `setpriv`.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

mod setting;

use setting::Setting;
use setting::Took;
use setting::WAYS;

const HELP: &str = "\
usage: intercept [--rounds N] [--connections N] [--program PATH]

  --rounds N        turns, of which the median counts [5]
  --connections N   connections per turn and way [3000]
  --program PATH    the tproxy-poc to measure [the one beside this program]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("intercept: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    rounds: usize,
    connections: u32,
    program: PathBuf,
}

fn run() -> io::Result<()> {
    let Some(options) = options()? else {
        println!("{HELP}");
        return Ok(());
    };
    let settings = WAYS
        .into_iter()
        .map(|(name, way)| Setting::new(name, way, &options.program))
        .collect::<io::Result<Vec<_>>>()?;
    let mut rounds: Vec<Vec<Took>> = settings.iter().map(|_| Vec::new()).collect();
    for round in 0..=options.rounds {
        for (setting, took) in settings.iter().zip(&mut rounds) {
            let one = setting.run(options.connections)?;
            // The first turn warms caches up.
            if round > 0 {
                took.push(one);
            }
        }
    }
    println!("{} rounds of {} connections, one at a time; medians", options.rounds, options.connections);
    println!("{:<20} {:>9} {:>10} {:>12} {:>14}", "", "us each", "/ direct", "/ REDIRECT", "proxy CPU us");
    let each: Vec<_> = rounds.iter().map(|took| median(took.iter().map(|took| took.each))).collect();
    for ((setting, took), each_one) in settings.iter().zip(&rounds).zip(&each) {
        // Ratios of one turn, so that what the machine does beside hits both.
        let against = |other: usize| {
            let ratios = took.iter().zip(&rounds[other]);
            let ratios =
                ratios.map(|(a, b)| Duration::from_secs_f64(a.each.as_secs_f64() / b.each.as_secs_f64()));
            median(ratios).as_secs_f64()
        };
        let cpu = median(took.iter().map(|took| took.proxy));
        println!(
            "{:<20} {:>9.1} {:>10.2} {:>12.2} {:>14.1}",
            setting.name,
            each_one.as_secs_f64() * 1e6,
            against(0),
            against(1),
            cpu.as_secs_f64() * 1e6
        );
    }
    Ok(())
}

fn median(values: impl Iterator<Item = Duration>) -> Duration {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// `None`: help is wanted.
fn options() -> io::Result<Option<Options>> {
    let beside = env::current_exe()?.with_file_name("tproxy-poc");
    let mut options = Options { rounds: 5, connections: 3000, program: beside };
    let mistake = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    let mut args = env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| mistake(format!("{name} needs a value")))?;
        let number = || {
            value
                .parse()
                .ok()
                .filter(|n: &u32| *n > 0)
                .ok_or_else(|| mistake(format!("{name} wants a number")))
        };
        match name.as_str() {
            "--rounds" => options.rounds = number()? as usize,
            "--connections" => options.connections = number()?,
            "--program" => options.program = value.into(),
            _ => return Err(mistake(format!("there is no {name}; --help shows what there is"))),
        }
    }
    Ok(Some(options))
}
