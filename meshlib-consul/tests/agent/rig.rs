//! What the tests have in common.

use std::fmt;
use std::time::Duration;

use futures::Stream;
use futures::StreamExt;
use meshlib::Update;
use meshlib::test_util::Consul as Agent;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use tokio::time;

/// Longer than anything takes on a machine that is busy with other tests.
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// An agent and a client of it.
pub(crate) async fn agent() -> Option<(Agent, Consul)> {
    let agent = or_skip(Agent::start(ConsulOptions::default()).await)?;
    let consul = client(&agent);
    Some((agent, consul))
}

pub(crate) fn config(agent: &Agent) -> Config {
    Config::new(format!("http://{}", agent.addr()))
}

pub(crate) fn client(agent: &Agent) -> Consul {
    Consul::new(config(agent)).unwrap()
}

/// The first item that passes, within a limit.
pub(crate) async fn find<S>(stream: &mut S, within: Duration, passes: impl Fn(&S::Item) -> bool) -> S::Item
where
    S: Stream<Item: fmt::Debug> + Unpin,
{
    let mut last = None;
    let found = time::timeout(within, async {
        loop {
            let item = stream.next().await.expect("a stream without an end");
            if passes(&item) {
                return item;
            }
            last = Some(item);
        }
    });
    found.await.unwrap_or_else(|_| panic!("nothing within {within:?}; last: {last:?}"))
}

/// Whether nothing comes for a while.
pub(crate) async fn is_silent<S: Stream + Unpin>(stream: &mut S, during: Duration) -> bool {
    time::timeout(during, stream.next()).await.is_err()
}

/// The ports of an update, in order, with their weights.
pub(crate) fn weighted(update: &Update) -> Vec<(u16, f64)> {
    let Update::Endpoints(endpoints) = update else { panic!("no endpoints: {update:?}") };
    let mut all: Vec<_> =
        endpoints.iter().map(|endpoint| (endpoint.addr.port(), endpoint.weight.get())).collect();
    all.sort_by_key(|(port, _)| *port);
    all
}
