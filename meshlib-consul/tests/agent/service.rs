//! Endpoints of services: what changes them, what does not, and what an agent does that comes and goes.

use std::time::Duration;

use futures::StreamExt;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Update;
use meshlib::resolve::ResolveError;
use meshlib::test_util::Consul as Agent;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use meshlib_consul::Status;
use tokio::time::Instant;

use crate::rig::LONG;
use crate::rig::agent;
use crate::rig::client;
use crate::rig::find;
use crate::rig::is_silent;
use crate::rig::weighted;

/// Within this a change arrives. It takes milliseconds where the machine is not busy with other tests.
const SOON: Duration = Duration::from_secs(10);

async fn expect(resolution: &mut Resolution, endpoints: &[(u16, f64)]) {
    let passes = |item: &Result<Update, ResolveError>| matches!(item, Ok(update @ Update::Endpoints(_)) if weighted(update) == endpoints);
    let _ = find(resolution, SOON, passes).await;
}

async fn weigh(agent: &Agent, id: &str, port: u16, passing: u32, warning: u32) {
    agent
        .register(&format!(
            r#"{{"Node": "n2", "Address": "127.0.0.1", "SkipNodeUpdate": true, "Service": {{"Service": "web",
                "ID": "{id}", "Port": {port}, "Weights": {{"Passing": {passing}, "Warning": {warning}}}}}}}"#
        ))
        .await;
}

#[tokio::test]
async fn each_change_arrives() {
    let Some((agent, consul)) = agent().await else { return };
    weigh(&agent, "web-1", 8001, 5, 2).await;
    let mut web = consul.service("web").resolve(());
    expect(&mut web, &[(8001, 5.0)]).await;

    agent.service("n2", "web", "web-2", 8002, &["a"]).await;
    expect(&mut web, &[(8001, 5.0), (8002, 1.0)]).await;
    agent.check("n2", "web-1", "c1", "warning").await;
    expect(&mut web, &[(8001, 2.0), (8002, 1.0)]).await;
    agent.check("n2", "web-1", "c1", "critical").await;
    expect(&mut web, &[(8002, 1.0)]).await;
    agent.check("n2", "web-1", "c1", "passing").await;
    expect(&mut web, &[(8001, 5.0), (8002, 1.0)]).await;
    agent.check("n2", "", "node", "critical").await;
    expect(&mut web, &[]).await;
    agent.check("n2", "", "node", "passing").await;
    expect(&mut web, &[(8001, 5.0), (8002, 1.0)]).await;
    weigh(&agent, "web-1", 8009, 7, 2).await;
    expect(&mut web, &[(8002, 1.0), (8009, 7.0)]).await;
    agent.deregister(r#"{"Node": "n2", "ServiceID": "web-1"}"#).await;
    expect(&mut web, &[(8002, 1.0)]).await;
    agent.deregister(r#"{"Node": "n2", "ServiceID": "web-2"}"#).await;
    let _ = find(&mut web, SOON, |item| matches!(item, Ok(Update::NotFound))).await;
    agent.service("n2", "web", "web-3", 8003, &[]).await;
    expect(&mut web, &[(8003, 1.0)]).await;
}

#[tokio::test]
async fn what_is_of_no_interest_says_nothing() {
    let Some((agent, consul)) = agent().await else { return };
    agent.service("n2", "web", "web-1", 8001, &[]).await;
    let mut web = consul.service("web").resolve(());
    expect(&mut web, &[(8001, 1.0)]).await;

    agent.service("n2", "web", "web-1", 8001, &[]).await;
    agent.service("n2", "other", "other-1", 9001, &[]).await;
    agent.put("/v1/kv/a", "1").await;
    for output in ["one", "two"] {
        let check = format!(
            r#"{{"Node": "n2", "Address": "127.0.0.1", "SkipNodeUpdate": true, "Check": {{"CheckID": "c", "Name": "c",
                "ServiceID": "web-1", "Status": "passing", "Output": "{output}"}}}}"#
        );
        agent.register(&check).await;
    }

    assert!(is_silent(&mut web, Duration::from_secs(2)).await);
}

#[tokio::test]
async fn an_entry_that_makes_no_sense_costs_nobody_else() {
    let Some((agent, consul)) = agent().await else { return };
    agent
        .register(
            r#"{"Node": "n3", "Address": "127.0.0.1", "Service": {"Service": "a b/c", "ID": "bad", "Port": 70000}}"#,
        )
        .await;
    agent.service("n2", "a b/c", "good", 8001, &[]).await;

    let mut odd = consul.service("a b/c").resolve(());

    expect(&mut odd, &[(8001, 1.0)]).await;
}

#[tokio::test]
async fn an_instance_may_have_a_host_name() {
    let Some((agent, consul)) = agent().await else { return };
    agent
        .register(
            r#"{"Node": "n3", "Address": "localhost", "Service": {"Service": "web", "ID": "w", "Port": 8001}}"#,
        )
        .await;

    let mut web = consul.service("web").resolve(());

    let Ok(update) = find(&mut web, SOON, Result::is_ok).await else { unreachable!("just looked for") };
    let Update::Endpoints(endpoints) = update else { panic!("{update:?}") };
    assert!(endpoints.iter().any(|endpoint| endpoint.addr == ([127, 0, 0, 1], 8001).into()), "{endpoints:?}");
}

#[tokio::test]
async fn states_and_tags_can_be_chosen() {
    let Some((agent, consul)) = agent().await else { return };
    agent.service("n2", "web", "web-1", 8001, &["a"]).await;
    agent.service("n2", "web", "web-2", 8002, &["b"]).await;
    agent.check("n2", "web-2", "c", "critical").await;

    let mut tagged = consul.service("web").tag("a").resolve(());
    expect(&mut tagged, &[(8001, 1.0)]).await;
    let mut critical = consul.service("web").statuses([Status::Critical]).resolve(());
    expect(&mut critical, &[(8002, 1.0)]).await;
    let mut all = consul.service("web").instances();
    let level = find(&mut all, SOON, |level| level.value.is_some()).await;
    let instances = level.value.unwrap().unwrap();
    assert_eq!(instances.len(), 2);
    assert_eq!(instances[1].status, Status::Critical);
}

#[tokio::test]
async fn another_datacenter_that_is_not_there_is_not_found() {
    let Some((_agent, consul)) = agent().await else { return };

    let mut web = consul.service("web").datacenter("nowhere").resolve(());

    let _ = find(&mut web, SOON, |item| matches!(item, Ok(Update::NotFound))).await;
}

#[tokio::test]
async fn a_restarted_agent_is_followed_and_the_last_set_kept_until_some_time_later() {
    let Some((mut agent, consul)) = agent().await else { return };
    // The index of the new agent is lower: waiting for more than the old one would be waiting in vain.
    for n in 0..50 {
        agent.put(&format!("/v1/kv/{n}"), "x").await;
    }
    agent.service("n2", "web", "web-1", 8001, &[]).await;
    let mut web = consul.service("web").resolve(());
    expect(&mut web, &[(8001, 1.0)]).await;

    agent.kill();
    let failed = find(&mut web, SOON, |_| true).await;
    assert!(matches!(failed, Err(ResolveError::Other(_) | ResolveError::Unreachable { .. })), "{failed:?}");
    agent.restart().await;
    let began = Instant::now();
    agent.service("n2", "web", "web-9", 8009, &[]).await;

    let passes = |set: &'static [(u16, f64)]| move |item: &Result<Update, ResolveError>| matches!(item, Ok(update @ Update::Endpoints(_)) if weighted(update) == set);
    let _ = find(&mut web, LONG, passes(&[(8001, 1.0), (8009, 1.0)])).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let _ = find(&mut web, LONG, passes(&[(8009, 1.0)])).await;
    assert!(began.elapsed() > Duration::from_secs(5), "nobody could have registered again by then");
    agent.service("n2", "web", "web-8", 8008, &[]).await;
    expect(&mut web, &[(8008, 1.0), (8009, 1.0)]).await;
}

#[tokio::test]
async fn the_next_address_is_asked_when_one_is_dead() {
    let Some((first, _)) = agent().await else { return };
    let Some((second, _)) = agent().await else { return };
    let (mut first, port) = (first, 8001);
    for agent in [&first, &second] {
        agent.service("n2", "web", "web-1", port, &[]).await;
    }
    let config =
        Config::new(format!("http://{}", first.addr())).with_address(format!("http://{}", second.addr()));
    let mut web = Consul::new(config).unwrap().service("web").resolve(());
    expect(&mut web, &[(8001, 1.0)]).await;

    first.kill();
    second.service("n2", "web", "web-2", 8002, &[]).await;

    let passes = |item: &Result<Update, ResolveError>| matches!(item, Ok(update @ Update::Endpoints(_)) if weighted(update).len() == 2);
    let _ = find(&mut web, LONG, passes).await;
}

#[tokio::test]
async fn one_watch_serves_all_and_ends_with_them() {
    let Some((agent, _)) = agent().await else { return };
    agent.service("n2", "web", "web-1", 8001, &[]).await;
    let consul = client(&agent);
    let mut streams: Vec<_> = (0..20).map(|_| consul.service("web").resolve(())).collect();

    for stream in &mut streams {
        expect(stream, &[(8001, 1.0)]).await;
    }
    drop(streams);

    let mut again = consul.service("web").resolve(());
    assert!(matches!(again.next().await, Some(Ok(Update::Endpoints(_)))));
}

#[tokio::test]
async fn the_agents_own_cache_can_be_asked() {
    let Some((agent, _)) = agent().await else { return };
    agent.service("n2", "web", "web-1", 8001, &[]).await;
    let consul = Consul::new(crate::rig::config(&agent).with_cached(true)).unwrap();
    let mut web = consul.service("web").resolve(());
    expect(&mut web, &[(8001, 1.0)]).await;

    agent.service("n2", "web", "web-2", 8002, &[]).await;

    expect(&mut web, &[(8001, 1.0), (8002, 1.0)]).await;
}

#[tokio::test]
async fn more_resolvers_than_connections_are_all_told() {
    let Some((agent, consul)) = agent().await else { return };
    for n in 0..250 {
        agent.service("n2", &format!("web{n}"), &format!("w{n}"), 8000 + n, &[]).await;
    }
    let mut resolutions: Vec<_> = (0..250).map(|n| consul.service(format!("web{n}")).resolve(())).collect();

    let each = resolutions.iter_mut().enumerate().map(|(n, resolution)| async move {
        let port = 8000 + u16::try_from(n).unwrap();
        let passes = move |item: &Result<Update, ResolveError>| {
            matches!(item, Ok(update @ Update::Endpoints(_)) if weighted(update) == [(port, 1.0)])
        };
        find(resolution, LONG, passes).await
    });
    futures::future::join_all(each).await.into_iter().for_each(|update| assert!(update.is_ok()));

    for n in [3, 200] {
        agent.check("n2", &format!("w{n}"), "c", "critical").await;
        let passes = |item: &Result<Update, ResolveError>| matches!(item, Ok(Update::Endpoints(endpoints)) if endpoints.is_empty());
        let _ = find(&mut resolutions[n], LONG, passes).await;
    }
}
