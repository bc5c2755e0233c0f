//! A steady load for a long time, while endpoints and the name server come and go.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use benches::procfs::Measured;
use serde_json::json;
use tokio::time;
use tokio::time::Instant;

use crate::args::Args;
use crate::backend::Backend;
use crate::config;
use crate::load;
use crate::load::Rates;
use crate::load::Tally;
use crate::memory;
use crate::memory::megabytes;
use crate::names::Names;
use crate::program::Program;
use crate::setup::Setup;

/// How long, how much.
#[derive(Debug)]
pub(crate) struct Options {
    seconds: u64,
    rates: Rates,
}

impl Options {
    /// Reads the options of this run.
    pub(crate) fn read(args: &mut Args) -> io::Result<Self> {
        let rates = Rates {
            requests: args.number("rate", 5000)?,
            kept: args.number("kept", 200)?,
            connects: args.number("connects", 200)?,
        };
        Ok(Self { seconds: args.number("minutes", 30)? as u64 * 60, rates })
    }
}

/// Loads the program while everything around it changes.
pub(crate) async fn run(setup: &Setup, options: &Options) -> io::Result<()> {
    let mut endpoints = Endpoints::start()?;
    let names = Names::start(endpoints.addrs()).await?;
    let mut config = config::empty(1);
    config::add_router(&mut config, json!({}), config::namerd(&names.url()), json!({}));
    let program = Program::start(setup, &config)?;

    let tally = Arc::new(Tally::new());
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let load = tokio::spawn(load::drive(program.addr(), options.rates, Arc::clone(&tally), end));
    // A short run has a short beginning.
    let settled = 120.min(options.seconds / 3);
    let mut before = 0;
    let mut outages = Outages::default();
    let mut seconds = time::interval(Duration::from_secs(1));
    seconds.tick().await;
    for second in 1..=options.seconds {
        seconds.tick().await;
        if second % REPLACE_EVERY == 0 {
            endpoints.replace_some()?;
            names.set(endpoints.addrs())?;
        }
        match second % OUTAGE_EVERY {
            OUTAGE_BEGINS => outages.begin(&names).await?,
            OUTAGE_ENDS => outages.end(&names).await?,
            _ => {}
        }
        if second == settled {
            before = program.memory()?;
        }
        if second % 60 == 0 || second == settled {
            report(second, &program, &tally, &endpoints)?;
        }
    }
    load.await.map_err(io::Error::other)??;
    let after = program.memory()?;
    let cpu = Measured::Processes(vec![std::process::id()]).cpu()?;
    println!(
        "{} outages of the name server, {} endpoints; the load used {:.0} % of a core",
        outages.count,
        endpoints.made,
        100.0 * cpu.as_secs_f64() / options.seconds as f64
    );
    tally.holds()?;
    memory::is_flat(before, after)
}

fn report(second: u64, program: &Program, tally: &Tally, endpoints: &Endpoints) -> io::Result<()> {
    println!(
        "{:3}:{:02} {}, {} descriptors; {}; {} endpoints left",
        second / 60,
        second % 60,
        megabytes(program.memory()?),
        program.descriptors()?,
        tally.line(),
        endpoints.made - ENDPOINTS
    );
    Ok(())
}

/// The endpoints of the name, and those that have left it.
#[derive(Debug)]
struct Endpoints {
    current: VecDeque<Backend>,
    left: VecDeque<Backend>,
    made: usize,
}

impl Endpoints {
    fn start() -> io::Result<Self> {
        let mut endpoints = Self { current: VecDeque::new(), left: VecDeque::new(), made: 0 };
        for _ in 0..ENDPOINTS {
            endpoints.add()?;
        }
        Ok(endpoints)
    }

    /// Replaces the oldest. Of those that leave, every other one stops listening with the next replacement, the
    /// rest much later. Their connections go on in any case.
    fn replace_some(&mut self) -> io::Result<()> {
        let just_left = self.left.len().saturating_sub(REPLACED)..self.left.len();
        for place in just_left.rev().step_by(2) {
            self.left.remove(place);
        }
        while self.left.len() > LEFT_LISTENING {
            self.left.pop_front();
        }
        for _ in 0..REPLACED {
            self.left.extend(self.current.pop_front());
            self.add()?;
        }
        Ok(())
    }

    fn add(&mut self) -> io::Result<()> {
        // An address of its own, so that none is ever used again by another one.
        let n = self.made;
        let ip = Ipv4Addr::new(127, 1 + (n / 62_500) as u8, (n / 250 % 250) as u8, (n % 250 + 2) as u8);
        self.current.push_back(Backend::start(ip.into())?);
        self.made += 1;
        Ok(())
    }

    fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.current.iter().map(|backend| backend.addr)
    }
}

/// The ways in which the name server fails, by turns.
#[derive(Debug, Default)]
struct Outages {
    count: usize,
}

impl Outages {
    async fn begin(&mut self, names: &Names) -> io::Result<()> {
        self.count += 1;
        match self.count % 3 {
            0 => names.be_unavailable()?,
            1 => names.stop().await,
            _ => names.fall_silent()?,
        }
        Ok(())
    }

    async fn end(&self, names: &Names) -> io::Result<()> {
        names.speak()?;
        names.start_again().await
    }
}

const ENDPOINTS: usize = 40;
/// How many endpoints are replaced at a time.
const REPLACED: usize = 10;
/// How many of those that left go on listening.
const LEFT_LISTENING: usize = 60;
/// In seconds. An outage is shorter than it takes to replace all endpoints: the program must live on what it knows.
const REPLACE_EVERY: u64 = 5;
const OUTAGE_EVERY: u64 = 30;
const OUTAGE_BEGINS: u64 = 16;
const OUTAGE_ENDS: u64 = 23;
