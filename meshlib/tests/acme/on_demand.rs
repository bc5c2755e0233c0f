//! Names that are wanted because somebody asked for them.

use std::time::Duration;

use meshlib::tls::acme::AcmeError;
use tokio::time;

use crate::rig::FIRST;
use crate::rig::Rig;
use crate::rig::SOON;

#[tokio::test]
async fn a_requested_name_gets_a_certificate() {
    let Some(rig) = Rig::start().await else { return };
    let node = rig.node().await;
    node.manager.want(["app.example.test"]).unwrap();

    node.manager.request("Tenant1.example.test").unwrap();
    node.manager.request("tenant1.example.test").unwrap();
    node.manager.want(["other.example.test"]).unwrap();

    let roots = rig.pebble.issuing_roots().await;
    node.proven("tenant1.example.test", &roots).await;
    node.proven("other.example.test", &roots).await;
    assert_eq!(node.orders.of("tenant1.example.test"), [Ok(())]);
}

#[tokio::test]
async fn a_flood_of_requests_makes_few_orders() {
    let Some(rig) = Rig::start().await else { return };
    let options = rig.options().with_max_requested(100).with_orders(5, Duration::from_secs(600));
    let node = rig.node_with(FIRST, options).await;

    let requests = (0..1000).map(|n| node.manager.request(&format!("x{n}.example{n}.test")));
    let refused = requests.filter(|request| *request == Err(AcmeError::TooMany { most: 100 })).count();
    assert_eq!(refused, 900);
    let ordered = async {
        while node.orders.len() < 5 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(SOON, ordered).await.expect("some are ordered");

    // Strangers' names cost a self-signed certificate each, and no order.
    for n in 0..50 {
        node.shows(&format!("stranger{n}.example.test")).await;
    }
    assert_eq!(node.manager.view().len(), 100);
    assert_eq!(rig.pebble.orders(), 5);
}
