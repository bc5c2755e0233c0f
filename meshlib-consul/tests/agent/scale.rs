//! Many services.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use meshlib::test_util::Consul as Agent;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::TestCa;
use meshlib::test_util::or_skip;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use meshlib_consul::Status;
use meshlib_consul::TlsOptions;

use crate::rig::LONG;
use crate::rig::agent;
use crate::rig::find;

async fn register(agent: &Agent, n: usize) {
    let body = format!(
        r#"{{"Node": "n{}", "Address": "10.0.0.1", "SkipNodeUpdate": true, "Service": {{"Service": "web{n}", "ID": "w{n}",
            "Port": 8001, "Tags": ["tricot {n}.example"]}}, "Check": {{"CheckID": "c{n}", "Name": "c", "ServiceID": "w{n}",
            "Status": "passing"}}}}"#,
        n % 50
    );
    agent.register(&body).await;
}

#[tokio::test]
async fn many_services_are_soon_known_and_one_that_changes_is_soon_told() {
    const SERVICES: usize = 1000;
    let Some((agent, consul)) = agent().await else { return };
    stream::iter(0..SERVICES).for_each_concurrent(16, |n| register(&agent, n)).await;
    let mut services = consul.services(|_, tags| !tags.is_empty());

    let first = find(&mut services, Duration::from_secs(10), |_| true).await;
    assert_eq!(first.all.len(), SERVICES, "{:?}", first.degraded);
    agent.check("n7", "w7", "c7", "critical").await;
    let changed = find(&mut services, LONG, |_| true).await;

    assert_eq!(changed.changed, ["web7".into()]);
}

/// Over HTTP/2, where both sides speak it, each has its own watch; else they are swept.
#[tokio::test]
async fn many_services_are_followed_through_tls() {
    const SERVICES: usize = 300;
    let ca = TestCa::new();
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default().with_tls(&ca)).await) else { return };
    let file = agent.dir().join("trusted.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let config = Config::new(format!("https://{}", agent.https_addr()));
    let consul = Consul::new(config.with_tls(TlsOptions::new().with_ca_file(file))).unwrap();
    stream::iter(0..SERVICES).for_each_concurrent(16, |n| register(&agent, n)).await;

    let mut services = consul.services(|_, tags| !tags.is_empty());
    let _ = find(&mut services, LONG, |services| services.all.len() == SERVICES).await;
    agent.check("n7", "w7", "c7", "critical").await;

    let _ = find(&mut services, LONG, |services| services.all["web7"][0].status == Status::Critical).await;
}
