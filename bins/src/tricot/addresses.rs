//! The addresses of instances that are registered with a host name.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshlib_consul::Instance;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;

/// How often it is looked whether there is something to ask again, and how long it counts that a name was not found.
pub(super) const REFRESH: Duration = Duration::from_secs(10);
/// How long addresses count.
const RESOLVED_FOR: Duration = Duration::from_secs(60);
/// How long finding them may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// What was found of each name.
#[derive(Default)]
pub(super) struct Addresses {
    known: HashMap<Arc<str>, Known>,
    asking: HashSet<Arc<str>>,
    lookups: JoinSet<LookedUp>,
    /// Names that the last table has used.
    used: HashSet<Arc<str>>,
}

/// A name, and its addresses or why there are none.
type LookedUp = (Arc<str>, Result<Vec<IpAddr>, String>);

/// What is known of a name.
struct Known {
    /// The last that were found.
    ips: Vec<IpAddr>,
    /// When it may be asked for again.
    again: Instant,
    /// Whether the last look-up has failed.
    failed: bool,
}

impl Addresses {
    /// A table is made: names that it does not use are forgotten after it.
    pub(super) fn begin(&mut self) {
        self.used.clear();
    }

    /// Where an instance can be reached, as far as that is known.
    pub(super) fn of(&mut self, instance: &Instance) -> Vec<SocketAddr> {
        if let Some(addr) = instance.addr() {
            return vec![addr];
        }
        self.named(&instance.address, instance.port)
    }

    fn named(&mut self, host: &Arc<str>, port: u16) -> Vec<SocketAddr> {
        if self.used.insert(Arc::clone(host)) && !self.known.contains_key(host) {
            self.ask(host);
        }
        let known = self.known.get(host).map(|known| known.ips.as_slice()).unwrap_or_default();
        known.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
    }

    fn ask(&mut self, host: &Arc<str>) {
        if !self.asking.insert(Arc::clone(host)) {
            return;
        }
        let host = Arc::clone(host);
        self.lookups.spawn(async move {
            let found = time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host.to_string(), 0))).await;
            let ips = match found {
                Ok(Ok(addrs)) => {
                    let ips: BTreeSet<IpAddr> = addrs.map(|addr| addr.ip()).collect();
                    Ok(ips.into_iter().collect())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {RESOLVE_WITHIN:?}")),
            };
            (host, ips)
        });
    }

    /// Waits until an address is other than it was.
    pub(super) async fn found(&mut self) {
        loop {
            let Some(done) = self.lookups.join_next().await else { return std::future::pending().await };
            let Ok((host, answer)) = done else { continue };
            self.asking.remove(&host);
            let now = Instant::now();
            let unknown = || Known { ips: Vec::new(), again: now, failed: false };
            let known = self.known.entry(Arc::clone(&host)).or_insert_with(unknown);
            match answer {
                Ok(ips) => {
                    let changed = known.ips != ips;
                    *known = Known { ips, again: now + RESOLVED_FOR, failed: false };
                    if changed {
                        return;
                    }
                }
                Err(error) => {
                    known.again = now + REFRESH;
                    if std::mem::replace(&mut known.failed, true) {
                        tracing::debug!(target: "tricot", %host, error, "the address of an instance is still not found");
                    } else {
                        tracing::warn!(target: "tricot", %host, error, "cannot find the address of an instance");
                    }
                }
            }
        }
    }

    /// Asks again for what is old or was not found, and forgets what no instance has. To be called every [`REFRESH`].
    pub(super) fn refresh(&mut self) {
        let Self { known, used, .. } = self;
        known.retain(|host, _| used.contains(host));
        let now = Instant::now();
        let due = self.known.iter().filter(|(_, known)| known.again <= now);
        let due: Vec<Arc<str>> = due.map(|(host, _)| Arc::clone(host)).collect();
        due.iter().for_each(|host| self.ask(host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_that_no_instance_has_are_forgotten() {
        let mut addresses = Addresses::default();
        let ip = IpAddr::from([10, 0, 0, 1]);
        for name in ["one.test", "other.test"] {
            let known = Known { ips: vec![ip], again: Instant::now() + RESOLVED_FOR, failed: false };
            addresses.known.insert(name.into(), known);
        }

        addresses.begin();
        assert_eq!(addresses.named(&"one.test".into(), 80), [SocketAddr::new(ip, 80)]);
        addresses.named(&"other.test".into(), 80);
        addresses.refresh();
        assert_eq!((addresses.known.len(), addresses.asking.len()), (2, 0));
        addresses.begin();
        addresses.named(&"other.test".into(), 80);
        addresses.refresh();

        assert_eq!(addresses.known.keys().map(|name| &**name).collect::<Vec<_>>(), ["other.test"]);
        time::advance(RESOLVED_FOR).await;
        addresses.refresh();
        assert_eq!(addresses.asking.len(), 1, "the one that is left is asked again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_not_found_is_asked_again_a_while_later() {
        let mut addresses = Addresses::default();
        addresses.begin();
        addresses.named(&"one.test".into(), 80);
        addresses.lookups.abort_all();
        addresses.lookups = JoinSet::new();
        addresses.lookups.spawn(async { ("one.test".into(), Err("no such host".into())) });

        assert!(
            time::timeout(Duration::from_millis(1), addresses.found()).await.is_err(),
            "nothing has changed"
        );
        addresses.begin();
        addresses.named(&"one.test".into(), 80);
        addresses.refresh();
        assert!(addresses.asking.is_empty(), "not with every table");
        time::advance(REFRESH).await;
        addresses.refresh();

        assert_eq!(addresses.asking.len(), 1);
    }
}
