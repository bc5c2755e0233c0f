//! Certificates that are renewed.

use std::time::Duration;

use tokio::time;
use tokio::time::Instant;

use crate::rig::FIRST;
use crate::rig::Rig;
use crate::rig::SECOND;
use crate::rig::SOON;
use crate::rig::lifetime_secs;

/// Short enough to watch half of it, long enough for orders on a busy machine.
const LIFETIME: u64 = 24;

#[tokio::test]
async fn one_node_renews_at_half_of_the_life_and_no_handshake_fails() {
    let Some(rig) = Rig::with(|options| options.with_lifetime_secs(LIFETIME)).await else { return };
    let roots = rig.pebble.issuing_roots().await;
    let nodes = [rig.node().await, rig.node_with(SECOND, rig.options()).await];
    for node in &nodes {
        node.manager.want(["app.example.test"]).unwrap();
    }
    let first = nodes[0].proven("app.example.test", &roots).await;
    let began = Instant::now();
    nodes[1].proven("app.example.test", &roots).await;
    assert!(
        (LIFETIME as i64 - 1..=LIFETIME as i64).contains(&lifetime_secs(&first)),
        "{}",
        lifetime_secs(&first)
    );

    let mut handshakes = 0;
    let renewed = loop {
        let [a, b] = [
            nodes[0].proves("app.example.test", &roots).await.expect("no handshake fails"),
            nodes[1].proves("app.example.test", &roots).await.expect("no handshake fails"),
        ];
        handshakes += 2;
        if a == b && a != first {
            break began.elapsed();
        }
        assert!(began.elapsed() < SOON, "both switch");
        time::sleep(Duration::from_millis(20)).await;
    };

    let half = Duration::from_secs(LIFETIME / 2);
    assert!(renewed > half.mul_f64(0.85) && renewed < half.mul_f64(1.4), "{renewed:?}");
    assert!(handshakes > 100, "{handshakes}");
    assert_eq!(rig.pebble.orders(), 2, "one node renewed, once");
}

#[tokio::test]
async fn an_authority_that_is_away_at_renewal_is_waited_for() {
    let Some(mut rig) = Rig::with(|options| options.with_lifetime_secs(LIFETIME)).await else { return };
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();
    let roots = rig.pebble.issuing_roots().await;
    let first = node.proven("app.example.test", &roots).await;

    rig.pebble.kill();
    node.orders.failure("app.example.test").await;
    assert_eq!(node.proves("app.example.test", &roots).await.unwrap(), first, "the old one is served on");
    rig.pebble.restart().await;

    let roots = rig.pebble.issuing_roots().await;
    let renewed = async {
        while node.proves("app.example.test", &roots).await.is_none() {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(SOON, renewed)
        .await
        .expect("it is renewed, with an account that the authority did not know");
}

#[tokio::test]
async fn the_authority_is_asked_about_long_lived_certificates_and_told_what_is_replaced() {
    let Some(rig) = Rig::with(|options| options.with_renewal_info()).await else { return };
    let clock = crate::clock::Set::now();
    let node = rig.node_with(FIRST, rig.options().with_clock(clock.clone())).await;
    let roots = rig.pebble.issuing_roots().await;
    node.manager.want(["app.example.test"]).unwrap();
    let first = node.proven("app.example.test", &roots).await;
    let asked = async {
        while !rig.pebble.said().contains("/draft-ietf-acme-ari-03/renewalInfo/") {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(SOON, asked).await.unwrap_or_else(|_| panic!("{}", rig.pebble.said()));

    // Beyond whatever it may have suggested.
    clock.advance(Duration::from_secs(80 * 24 * 3600));
    node.manager.wake();

    let renewed = async {
        loop {
            let leaf = node.shows("app.example.test").await;
            if leaf != first {
                return;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(SOON, renewed).await.expect("it is renewed");
    assert!(rig.pebble.said().contains("is a replacement of"), "{}", rig.pebble.said());
    // By this clock the new one is due as well; it is not ordered again all the same.
    node.stop().await;
    assert_eq!(rig.pebble.orders(), 2);
}
