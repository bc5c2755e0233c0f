//! Three servers: elections, and no quorum.

use std::time::Duration;

use futures::StreamExt;
use meshlib::store::KvStore;
use meshlib::store::Read;
use meshlib::store::When;
use meshlib::test_util::Consul as Agent;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use meshlib_consul::Consul;
use meshlib_consul::ConsulKv;
use meshlib_consul::watch::Degraded;
use tokio::time;

use crate::rig::LONG;
use crate::rig::config;
use crate::rig::find;

/// The place of the leader among the servers.
async fn leader(agents: &[Agent]) -> usize {
    let raft = agents[0].get("/v1/operator/raft/configuration").await.body;
    let server = raft
        .split('{')
        .find(|server| server.contains("\"Leader\":true") || server.contains("\"Leader\": true"));
    let server = server.unwrap_or_else(|| panic!("no leader: {raft}"));
    (0..agents.len()).find(|n| server.contains(&format!("edge1{}", n + 1))).unwrap()
}

#[tokio::test]
async fn an_election_disturbs_nobody_and_without_a_quorum_what_is_known_stays() {
    let Some(agents) = or_skip(Agent::cluster(ConsulOptions::default()).await) else { return };
    let mut agents = Vec::from(agents);
    let lost = leader(&agents).await;
    agents[lost].service("n2", "web", "web-1", 8001, &[]).await;
    agents[lost].put("/v1/kv/challenge/x", "token").await;
    let mut first = agents.remove(lost);
    let asked = agents.remove(0);
    let mut other = agents.remove(0);
    let consul = Consul::new(config(&asked).with_wait(Duration::from_secs(2))).unwrap();
    let mut web = consul.service("web").instances();
    let is_one = |level: &meshlib_consul::watch::Level<Option<meshlib_consul::Instances>>| {
        level.value.as_ref().is_some_and(|all| all.as_ref().is_some_and(|all| all.len() == 1))
    };
    let _ = find(&mut web, LONG, is_one).await;

    first.kill();
    // An answer of the time without a leader may say so; a failure must not be told.
    let quiet = async {
        while let Some(level) = web.next().await {
            assert!(!matches!(level.degraded, Some(Degraded::Failing(_))), "{level:?}");
            assert!(is_one(&level), "{level:?}");
        }
    };
    assert!(time::timeout(Duration::from_secs(8), quiet).await.is_err());

    other.kill();
    let degraded = find(&mut web, LONG, |level| level.degraded.is_some()).await;
    assert!(is_one(&degraded), "{degraded:?}");
    assert!(!matches!(degraded.degraded, Some(Degraded::Failing(_))), "{degraded:?}");
    let store = ConsulKv::new(consul, "challenge/");
    let read = store.get("x", Read::Stale).await.unwrap().unwrap();
    assert_eq!(read.value, "token", "challenges are answered all the time");
    assert!(store.put("y", "1".into(), When::Always).await.is_err());

    other.start_again();
    first.start_again();
    let healed = find(&mut web, LONG, |level| level.degraded.is_none()).await;
    assert!(is_one(&healed), "{healed:?}");
}
