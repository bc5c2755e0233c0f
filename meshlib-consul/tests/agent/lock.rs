//! Locks: who gets them, and how their loss is noticed.

use std::time::Duration;

use meshlib::store::LockOptions;
use meshlib_consul::Consistency;
use tokio::time;
use tokio::time::Instant;

use crate::rig::LONG;
use crate::rig::agent;
use crate::rig::client;

fn options(holder: &str) -> LockOptions {
    LockOptions::new(holder).with_ttl(Duration::from_secs(10))
}

#[tokio::test]
async fn of_two_clients_one_wins_and_release_wakes_the_other_at_once() {
    let Some((agent, one)) = agent().await else { return };
    let other = client(&agent);
    let lock = one.try_lock("lock", &options("one")).await.unwrap().unwrap();
    assert!(other.try_lock("lock", &options("other")).await.unwrap().is_none());
    let waiting = tokio::spawn(async move { other.lock("lock", &options("other")).await.unwrap() });
    time::sleep(Duration::from_secs(1)).await;

    let began = Instant::now();
    lock.release().await;
    let next = time::timeout(LONG, waiting).await.unwrap().unwrap();

    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let pair = one.kv_get("lock", Consistency::Leader).await.unwrap().unwrap();
    assert_eq!((&pair.value[..], pair.session.as_deref()), (&b"other"[..], Some(next.token())));
}

#[tokio::test]
async fn a_lock_outlives_its_time_while_it_is_renewed() {
    let Some((agent, one)) = agent().await else { return };
    let lock = one.try_lock("lock", &options("one")).await.unwrap().unwrap();

    // Twice the time to live, after which Consul ends a session that nobody renews.
    let lost = time::timeout(Duration::from_secs(22), lock.lost()).await;

    assert!(lost.is_err() && !lock.is_lost());
    assert!(client(&agent).try_lock("lock", &options("two")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_session_that_is_gone_loses_the_lock() {
    let Some((agent, one)) = agent().await else { return };
    let lock = one.try_lock("lock", &options("one")).await.unwrap().unwrap();

    agent.put(&format!("/v1/session/destroy/{}", lock.token()), "").await;

    time::timeout(Duration::from_secs(5), lock.lost()).await.expect("the loss is noticed");
}

#[tokio::test]
async fn a_node_that_is_gone_loses_its_locks() {
    let Some((agent, one)) = agent().await else { return };
    let lock = one.try_lock("lock", &options("one")).await.unwrap().unwrap();

    agent.deregister(r#"{"Node": "edge1"}"#).await;

    time::timeout(Duration::from_secs(5), lock.lost()).await.expect("the loss is noticed");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_loses_the_lock_before_it_may_be_anothers() {
    let Some((agent, one)) = agent().await else { return };
    let lock = one.try_lock("lock", &options("one")).await.unwrap().unwrap();
    let began = Instant::now();

    agent.pause();
    time::timeout(LONG, lock.lost()).await.expect("the loss is noticed");
    agent.resume();

    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_lock_of_a_dead_holder_goes_to_who_waits() {
    let Some((agent, other)) = agent().await else { return };
    // A holder that died: a session nobody renews.
    let session = agent
        .put(
            "/v1/session/create",
            r#"{"TTL": "10s", "LockDelay": "1s", "Behavior": "delete", "NodeChecks": []}"#,
        )
        .await;
    let id = session.split('"').nth(3).unwrap().to_owned();
    assert!(agent.put(&format!("/v1/kv/lock?acquire={id}"), "dead").await.contains("true"));
    let began = Instant::now();

    let lock = time::timeout(Duration::from_secs(50), other.lock("lock", &options("other"))).await;

    assert!(!lock.unwrap().unwrap().is_lost());
    assert!(began.elapsed() < Duration::from_secs(35), "{:?}", began.elapsed());
}
