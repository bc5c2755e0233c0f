//! Services by their tags, nodes, and more services than connections.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use futures::stream::BoxStream;
use meshlib::test_util::Consul as Agent;
use meshlib::test_util::ConsulOptions;
use meshlib::test_util::or_skip;
use meshlib_consul::Consul;
use meshlib_consul::Services;
use meshlib_consul::Status;
use meshlib_consul::Token;
use meshlib_consul::watch::Degraded;
use tokio::time;
use tokio::time::Instant;

use crate::rig::LONG;
use crate::rig::agent;
use crate::rig::client;
use crate::rig::config;
use crate::rig::find;
use crate::rig::is_silent;

const SOON: Duration = Duration::from_secs(10);

fn exposed(_: &str, tags: &[std::sync::Arc<str>]) -> bool {
    tags.iter().any(|tag| tag.starts_with("tricot "))
}

fn names(services: &Services) -> Vec<&str> {
    services.all.keys().map(|name| &**name).collect()
}

#[tokio::test]
async fn services_come_and_go_with_their_tags() {
    let Some((agent, consul)) = agent().await else { return };
    agent.service("n2", "web", "web-1", 8001, &["tricot a.example"]).await;
    agent.service("n2", "db", "db-1", 5432, &["primary"]).await;
    let mut services = consul.services(exposed);

    let first = find(&mut services, SOON, |_| true).await;
    assert_eq!(names(&first), ["web"]);
    assert!(first.complete);
    assert_eq!(first.changed, ["web".into()]);
    agent.service("n3", "web", "web-2", 8002, &["tricot a.example"]).await;
    let grown = find(&mut services, SOON, |services| services.all["web"].len() == 2).await;
    assert_eq!(grown.changed, ["web".into()]);
    assert!(
        std::sync::Arc::ptr_eq(&grown.all["web"][0], &first.all["web"][0]),
        "what is as it was is shared"
    );
    agent.service("n2", "db", "db-1", 5432, &["tricot db.example"]).await;
    let _ = find(&mut services, SOON, |services| names(services) == ["db", "web"]).await;
    agent.check("n2", "db-1", "c", "critical").await;
    let _ = find(&mut services, SOON, |services| services.all["db"][0].status == Status::Critical).await;
    agent.service("n2", "db", "db-1", 5432, &[]).await;
    let _ = find(&mut services, SOON, |services| names(services) == ["web"]).await;
    agent.deregister(r#"{"Node": "n2"}"#).await;
    agent.deregister(r#"{"Node": "n3"}"#).await;
    let last = find(&mut services, SOON, |services| services.all.is_empty()).await;
    assert!(last.degraded.is_none(), "{last:?}");
    assert!(is_silent(&mut services, Duration::from_secs(1)).await);
}

#[tokio::test]
async fn nobody_exposed_is_a_level_too() {
    let Some((_agent, consul)) = agent().await else { return };

    let first = find(&mut consul.services(exposed), SOON, |_| true).await;

    assert!(first.all.is_empty() && first.complete && first.degraded.is_none());
}

#[tokio::test]
async fn an_agent_that_is_not_there_yet_is_waited_for_and_nothing_is_called_complete() {
    let Some((mut agent, consul)) = agent().await else { return };
    agent.kill();
    let mut services = consul.services(exposed);

    let first = find(&mut services, LONG, |_| true).await;
    assert!(first.all.is_empty() && !first.complete && first.degraded.is_some(), "{first:?}");
    agent.restart().await;

    let known = find(&mut services, LONG, |services| services.complete).await;
    assert!(known.degraded.is_none());
}

#[tokio::test]
async fn a_restarted_agent_is_followed_and_what_it_has_forgotten_goes_later() {
    let Some((mut agent, consul)) = agent().await else { return };
    for n in 0..20 {
        agent.service("n2", &format!("web{n}"), &format!("w{n}"), 8000 + n, &["tricot x"]).await;
    }
    // Consul itself is there whenever it answers: never are all of them lost.
    let mut services = consul.services(|name, tags| name == "consul" || exposed(name, tags));
    let _ = find(&mut services, LONG, |services| services.all.len() == 21).await;

    agent.kill();
    let failing = find(&mut services, SOON, |services| services.degraded.is_some()).await;
    assert_eq!(failing.all.len(), 21);
    agent.restart().await;
    agent.service("n2", "web3", "w3", 9003, &["tricot x"]).await;

    let began = Instant::now();
    let is_new = |services: &Services| services.all["web3"].iter().any(|instance| instance.port == 9003);
    let new = find(&mut services, LONG, is_new).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(new.all.len(), 21);

    let is_all =
        |services: &Services| names(services) == ["consul", "web3"] && services.all["web3"].len() == 1;
    let last = find(&mut services, LONG, is_all).await;
    assert_eq!(last.all["web3"][0].port, 9003);
    assert!(began.elapsed() > Duration::from_secs(5), "nobody could have registered again by then");
}

#[tokio::test]
async fn a_catalog_that_is_lost_as_a_whole_is_kept_for_longer() {
    let Some((mut agent, consul)) = agent().await else { return };
    for n in 0..20 {
        agent.service("n2", &format!("web{n}"), &format!("w{n}"), 8000 + n, &["tricot x"]).await;
    }
    let mut services = consul.services(exposed);
    let _ = find(&mut services, LONG, |services| services.all.len() == 20).await;

    agent.kill();
    let _ = find(&mut services, SOON, |services| services.degraded.is_some()).await;
    agent.restart().await;
    let missing = |services: &Services| match services.degraded {
        Some(Degraded::Forgotten { services, .. }) => services,
        _ => 0,
    };
    let forgotten = find(&mut services, LONG, |services| missing(services) == 20).await;
    let Some(Degraded::Forgotten { until, .. }) = forgotten.degraded else { return };
    let left = until.duration_since(std::time::SystemTime::now()).unwrap();
    assert!((240..=300).contains(&left.as_secs()), "{left:?}");
    let lost = lost_any(&mut services, 20);
    assert_eq!(time::timeout(Duration::from_secs(14), lost).await.ok(), None);

    agent.service("n2", "web3", "w3", 9003, &["tricot x"]).await;
    let is_back = |services: &Services| services.all["web3"].iter().any(|instance| instance.port == 9003);
    let back = find(&mut services, SOON, |services| is_back(services) && missing(services) == 19).await;
    assert_eq!(back.all.len(), 20);
    let lost = lost_any(&mut services, 20);
    assert_eq!(time::timeout(Duration::from_secs(14), lost).await.ok(), None, "they keep their time");

    for n in 0..20 {
        agent.service("n2", &format!("web{n}"), &format!("w{n}"), 9000 + n, &["tricot x"]).await;
    }
    let all = find(&mut services, SOON, |services| services.degraded.is_none()).await;
    assert_eq!(all.all.len(), 20);
    agent.deregister(r#"{"Node": "n2", "ServiceID": "w7"}"#).await;
    let took = find(&mut services, LONG, |services| services.all.len() == 19);
    let _ = time::timeout(Duration::from_secs(20), took).await.expect("losses are believed again");
}

/// Follows until there are fewer than so many.
async fn lost_any(services: &mut BoxStream<'static, Services>, all: usize) -> usize {
    loop {
        let services = services.next().await.expect("a stream without an end");
        if services.all.len() < all {
            return services.all.len();
        }
    }
}

/// Follows until what is asked for is so; says what was missing on the way, of services that do not go.
async fn lost(
    services: &mut BoxStream<'static, Services>,
    all: usize,
    mut until: impl FnMut(&Services) -> bool,
) -> Option<String> {
    loop {
        let level = find(services, LONG, |_| true).await;
        let instances: usize = level.all.values().map(|instances| instances.len()).sum();
        if level.all.len() < all || instances < 2 * all {
            return Some(format!(
                "{} services, {instances} instances, {:?}",
                level.all.len(),
                level.degraded
            ));
        }
        if until(&level) {
            return None;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_an_agent_reads_its_log() {
    const SERVICES: usize = 400;
    let options = ConsulOptions::default().with_disk();
    let Some(mut agent) = or_skip(Agent::start(options).await) else { return };
    let consul = client(&agent);
    let register = async |n: usize| {
        let (service, id) = (format!("web{}", n % SERVICES), format!("w{n}"));
        agent.service("n2", &service, &id, 8001, &["tricot x"]).await;
    };
    stream::iter(0..2 * SERVICES).for_each_concurrent(32, register).await;
    let mut services = consul.services(exposed);
    let is_all = |services: &Services| {
        services.all.len() == SERVICES && services.all.values().all(|instances| instances.len() == 2)
    };
    let _ = find(&mut services, LONG, is_all).await;

    agent.kill();
    let failing = lost(&mut services, SERVICES, |services| services.degraded.is_some()).await;
    assert_eq!(failing, None);
    agent.restart().await;
    agent.service("n3", "new", "new", 8002, &["tricot x"]).await;
    agent.service("n4", "new", "new", 8002, &["tricot x"]).await;
    let has_new = |services: &Services| services.all.get("new").is_some_and(|new| new.len() == 2);
    assert_eq!(lost(&mut services, SERVICES, has_new).await, None);
    let doubted = lost(&mut services, SERVICES, |_| false);
    assert_eq!(time::timeout(Duration::from_secs(13), doubted).await.ok().flatten(), None);

    agent.deregister(r#"{"Node": "n3"}"#).await;
    agent.deregister(r#"{"Node": "n4"}"#).await;
    agent.deregister(r#"{"Node": "n2", "ServiceID": "w7"}"#).await;
    agent.deregister(r#"{"Node": "n2", "ServiceID": "w407"}"#).await;
    let began = Instant::now();
    let _ = find(&mut services, LONG, |services| services.all.len() == SERVICES - 1).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// The body that a policy is made of.
fn rules(rules: &str) -> String {
    format!(r#"{{"Name": "reader", "Rules": "{}"}}"#, rules.replace('"', "\\\""))
}

/// Makes a policy and a token with its rights: the policy's id, and the token.
async fn reader(agent: &Agent, may: &str) -> (String, String) {
    agent.put("/v1/acl/policy", &rules(may)).await;
    let id = |body: &str, key: &str| {
        let at = body.find(&format!("\"{key}\"")).expect("the key is there");
        body[at + key.len() + 2..].split('"').nth(1).unwrap().to_owned()
    };
    let policy = id(&agent.get("/v1/acl/policy/name/reader").await.body, "ID");
    let token = agent.put("/v1/acl/token", r#"{"Policies": [{"Name": "reader"}]}"#).await;
    (policy, id(&token, "SecretID"))
}

#[tokio::test]
async fn a_token_that_loses_its_rights_empties_nothing() {
    let root = "11111111-1111-1111-1111-111111111111";
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default().with_acl(root)).await) else { return };
    let all = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let (policy, secret) = reader(&agent, all).await;
    agent.service("n2", "web", "web-1", 8001, &["tricot a"]).await;
    // Short waits, since a change of rights wakes nobody.
    let config = config(&agent).with_token(Token::new(secret)).with_wait(Duration::from_secs(2));
    let consul = Consul::new(config).unwrap();
    let mut services = consul.services(exposed);
    let _ = find(&mut services, LONG, |services| names(services) == ["web"]).await;
    let mut web = consul.service("web").instances();
    let _ = find(&mut web, LONG, |level| matches!(&level.value, Some(Some(all)) if all.len() == 1)).await;

    agent.put(&format!("/v1/acl/policy/{policy}"), &rules(r#"key_prefix "" { policy = "read" }"#)).await;

    let suspicious = find(&mut services, LONG, Services::is_suspicious_empty).await;
    assert_eq!(names(&suspicious), ["web"], "what was known stays");
    let kept = find(&mut web, LONG, |level| level.degraded.is_some()).await;
    assert!(kept.value.flatten().is_some_and(|all| all.len() == 1));
    agent.service("n2", "web", "web-2", 8002, &["tricot a"]).await;
    agent.put(&format!("/v1/acl/policy/{policy}"), &rules(all)).await;
    let healed = find(&mut services, LONG, |services| services.degraded.is_none()).await;
    assert_eq!(names(&healed), ["web"]);
    let _ = find(&mut web, LONG, |level| matches!(&level.value, Some(Some(all)) if all.len() == 2)).await;
}

#[tokio::test]
async fn a_token_that_never_had_rights_has_seen_no_catalog() {
    let root = "11111111-1111-1111-1111-111111111111";
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default().with_acl(root)).await) else { return };
    let (policy, secret) = reader(&agent, r#"key_prefix "" { policy = "read" }"#).await;
    agent.service("n2", "web", "web-1", 8001, &["tricot a"]).await;
    let consul = Consul::new(config(&agent).with_token(Token::new(secret))).unwrap();
    let mut services = consul.services(exposed);
    let mut web = consul.service("web").instances();

    let first = find(&mut services, LONG, |_| true).await;
    assert!(first.is_suspicious_empty() && !first.complete, "{first:?}");
    let level = find(&mut web, LONG, |_| true).await;
    assert!(level.value.is_none() && matches!(level.degraded, Some(Degraded::SuspiciousEmpty)), "{level:?}");

    // Nothing wakes those that wait when rights are given, and they wait for a minute.
    let all = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    agent.put(&format!("/v1/acl/policy/{policy}"), &rules(all)).await;
    let next = find(&mut services, LONG, |services| services.degraded.is_none()).await;
    let next =
        if next.complete { next } else { find(&mut services, LONG, |services| services.complete).await };
    assert_eq!(names(&next), ["web"]);
    let _ = find(&mut web, LONG, |level| matches!(&level.value, Some(Some(all)) if all.len() == 1)).await;
}

#[tokio::test]
async fn a_token_that_may_not_read_nodes_has_seen_no_catalog() {
    let root = "11111111-1111-1111-1111-111111111111";
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default().with_acl(root)).await) else { return };
    let (_, secret) = reader(&agent, r#"service_prefix "" { policy = "read" }"#).await;
    agent.service("n2", "web", "web-1", 8001, &["tricot a"]).await;
    let consul = Consul::new(config(&agent).with_token(Token::new(secret))).unwrap();

    let first = find(&mut consul.services(exposed), LONG, |_| true).await;

    assert!(first.is_suspicious_empty() && !first.complete && first.all.is_empty(), "{first:?}");
}

#[tokio::test]
async fn a_token_that_is_unknown_is_an_error_that_names_no_secret() {
    let root = "11111111-1111-1111-1111-111111111111";
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default().with_acl(root)).await) else { return };
    let consul = Consul::new(config(&agent).with_token(Token::new("no-such-token"))).unwrap();

    let denied = find(&mut consul.services(exposed), LONG, |_| true).await;

    let text = format!("{denied:?}");
    assert!(text.contains("ACL not found") && !text.contains("no-such-token"), "{text}");
}

#[tokio::test]
async fn more_services_than_connections_are_all_followed() {
    let Some((agent, consul)) = agent().await else { return };
    for n in 0..250 {
        agent.service("n2", &format!("web{n}"), &format!("w{n}"), 8000 + n, &["tricot x"]).await;
    }
    let mut services = consul.services(exposed);
    let all = find(&mut services, LONG, |services| services.all.len() == 250).await;
    assert!(all.degraded.is_none(), "{:?}", all.degraded);

    // A change of tags, of a check, of what neither shows, and a name that goes.
    agent.service("n2", "web7", "w7", 8007, &["tricot x", "more"]).await;
    let _ = find(&mut services, SOON, |services| services.all["web7"][0].tags.len() == 2).await;
    agent
        .register(
            r#"{"Node": "n2", "Address": "127.0.0.1", "SkipNodeUpdate": true, "Service": {"Service": "solo",
                "ID": "solo", "Port": 1, "Tags": ["tricot x"]}, "Check": {"CheckID": "solo", "Name": "solo", "ServiceID":
                "solo", "Status": "passing"}}"#,
        )
        .await;
    let _ = find(&mut services, SOON, |services| services.all.contains_key("solo")).await;
    agent.check("n2", "solo", "solo", "critical").await;
    let _ = find(&mut services, SOON, |services| services.all["solo"][0].status == Status::Critical).await;
    agent.check("n2", "", "node", "warning").await;
    let _ = find(&mut services, SOON, |services| services.all["web9"][0].status == Status::Warning).await;
    agent.service("n2", "web8", "w8", 9999, &["tricot x"]).await;
    let _ = find(&mut services, LONG, |services| services.all["web8"][0].port == 9999).await;
    assert!(connections(&agent) < 200, "{}", connections(&agent));
    for n in 0..200 {
        agent.service("n2", &format!("web{n}"), &format!("w{n}"), 8000 + n, &[]).await;
    }
    let _ = find(&mut services, LONG, |services| services.all.len() == 51).await;
    agent.service("n2", "web249", "w249", 9999, &["tricot x"]).await;
    let _ = find(&mut services, SOON, |services| services.all["web249"][0].port == 9999).await;
}

/// Connections to the agent's HTTP port that are open now, by the kernel's table.
fn connections(agent: &Agent) -> usize {
    let port = format!(":{:04X} ", agent.addr().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // The agent's side of each that is established.
    table
        .lines()
        .filter(|line| {
            line.split_once(": ").is_some_and(|(_, rest)| rest[8..14] == port && &rest[28..30] == "01")
        })
        .count()
}

#[tokio::test]
async fn a_node_is_followed() {
    let options = ConsulOptions::default().with_node("edge7").with_node_meta("site", "north");
    let Some(agent) = or_skip(Agent::start(options).await) else { return };
    let consul = client(&agent);
    let own = consul.agent().await.unwrap();
    assert_eq!((&*own.node, &*own.datacenter), ("edge7", "dc1"));
    assert_eq!(consul.datacenters().await.unwrap(), ["dc1".into()]);

    let mut node = consul.node(own.node);
    let level = find(&mut node, SOON, |level| level.value.is_some()).await;
    assert_eq!(level.value.unwrap().unwrap().site.as_deref(), Some("north"));
    let mut late = consul.node("late");
    let level = find(&mut late, SOON, |level| level.value.is_some()).await;
    assert_eq!(level.value, Some(None));
    agent.register(r#"{"Node": "late", "Address": "10.0.0.1", "NodeMeta": {"site": "south"}}"#).await;
    let level = find(&mut late, SOON, |level| matches!(level.value, Some(Some(_)))).await;
    assert_eq!(level.value.unwrap().unwrap().site.as_deref(), Some("south"));
}

#[tokio::test]
async fn names_are_followed_with_their_tags() {
    let Some((agent, consul)) = agent().await else { return };
    let mut all = consul.service_names();
    let _ = find(&mut all, SOON, |level| level.value.as_ref().is_some_and(|names| names.len() == 1)).await;

    agent.service("n2", "web", "web-1", 8001, &["a", "b"]).await;

    let level =
        find(&mut all, SOON, |level| level.value.as_ref().is_some_and(|names| names.len() == 2)).await;
    assert_eq!(level.value.unwrap()["web"][..], ["a".into(), "b".into()]);
}

#[tokio::test]
async fn another_token_counts_at_once() {
    let root = "b1gs33d0-0000-4000-8000-000000000001";
    let Some(agent) = or_skip(Agent::start(ConsulOptions::default().with_acl(root)).await) else { return };
    agent.service("n1", "web", "web-1", 8080, &["edge"]).await;
    // Nobody's token at first. An answer without a change takes a minute.
    let consul = Consul::new(config(&agent)).unwrap();
    let mut names = consul.service_names();
    find(&mut names, LONG, |level| level.value.as_ref().is_some_and(|names| !names.contains_key("web")))
        .await;

    consul.set_token(&Token::new(root)).unwrap();

    let soon = Duration::from_secs(20);
    find(&mut names, soon, |level| level.value.as_ref().is_some_and(|names| names.contains_key("web"))).await;
}
