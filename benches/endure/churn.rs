//! Every second all addresses of a name are replaced, under load.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use benches::counters;
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

/// How long, how many.
#[derive(Debug)]
pub(crate) struct Options {
    seconds: usize,
    addresses: usize,
    rates: Rates,
}

impl Options {
    /// Reads the options of this run.
    pub(crate) fn read(args: &mut Args) -> io::Result<Self> {
        let kept = args.number("kept", 50)?;
        let rates = Rates { requests: 10 * kept, kept, connects: args.number("connects", 500)? };
        Ok(Self { seconds: args.number("seconds", 60)?, addresses: args.number("addresses", 1000)?, rates })
    }
}

/// Loads the program while its endpoints change.
pub(crate) async fn run(setup: &Setup, options: &Options) -> io::Result<()> {
    // Listening everywhere, it has all of 127.0.0.0/8 as its addresses.
    let backend = Backend::start(Ipv4Addr::UNSPECIFIED.into())?;
    let port = backend.addr.port();
    let addresses = |round: usize| {
        let first = round * options.addresses;
        (first..first + options.addresses).map(move |n| address(n, port))
    };
    let names = Names::start(addresses(0)).await?;
    let mut config = config::empty(1);
    config::add_router(&mut config, json!({}), config::namerd(&names.url()), json!({}));
    let program = Program::start(setup, &config)?;

    let tally = Arc::new(Tally::new());
    let end = Instant::now() + Duration::from_secs(options.seconds as u64);
    let load = tokio::spawn(load::drive(program.addr(), options.rates, Arc::clone(&tally), end));
    // A short run has a short beginning.
    let settled = 10.min(options.seconds.div_ceil(3));
    let mut before = 0;
    let mut seconds = time::interval(Duration::from_secs(1));
    for second in 0..options.seconds {
        seconds.tick().await;
        if second == settled {
            before = program.memory()?;
            println!("after {second:3} s: {}; {}", megabytes(before), tally.line());
        }
        names.set(addresses(second))?;
    }
    load.await.map_err(io::Error::other)??;
    let after = program.memory()?;
    println!("after {:3} s: {}; {}", options.seconds, megabytes(after), tally.line());
    println!(
        "{} sets of {} addresses, {} watches open, {} connections at the backend",
        options.seconds,
        options.addresses,
        names.watches(),
        counters::read(&backend.ends.accepted)
    );
    tally.holds()?;
    if names.watches() == 0 {
        return Err(io::Error::other("the program did not watch the name"));
    }
    memory::is_flat(before, after)
}

/// One of sixteen million loopback addresses, none of which ends with 0 or 255.
fn address(n: usize, port: u16) -> SocketAddr {
    let part = |shift: usize| (n / shift % 254 + 1) as u8;
    SocketAddr::from(([127, part(254 * 254), part(254), part(1)], port))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_address_comes_twice() {
        let addresses: HashSet<_> = (0..100_000).map(|n| address(n, 1)).collect();

        assert_eq!(addresses.len(), 100_000);
    }
}
