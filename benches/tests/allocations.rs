//! A pick allocates nothing, and neither does a whole call of a balancer whose first choice works.
//!
//! The counting allocator counts per thread, so tests beside each other do not disturb the counts.

use std::net::SocketAddr;

use allocation_counter::measure;
use futures::FutureExt;
use meshlib::balance::Balancer;
use meshlib::balance::Hints;
use meshlib::balance::LeastLoaded;
use meshlib::balance::PeakEwma;
use meshlib::balance::ReplicaSet;
use meshlib::balance::RoundRobin;
use meshlib::balance::WeightClasses;
use meshlib::{BalanceLayer, Endpoint, Error, Session, Static, To, Weight};
use tower::Layer;
use tower::Service;
use tower::load::CompleteOnResponse;

const PICKS: usize = 10_000;

fn endpoints(size: u16) -> impl Iterator<Item = Endpoint> {
    (1..=size).map(|port| {
        let weight = Weight::new(if port % 10 == 0 { 0.1 } else { 1.0 }).expect("a finite weight");
        Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port))).with_weight(weight)
    })
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn a_pick_allocates_nothing() {
    let balancers: [(&str, Box<dyn Balancer>); 4] = [
        ("least-loaded", Box::new(LeastLoaded::new())),
        ("peak-ewma", Box::new(PeakEwma::new())),
        ("round-robin", Box::new(RoundRobin::new())),
        ("weight-classes", Box::new(WeightClasses::new(LeastLoaded::new()))),
    ];
    let tried = [endpoints(1).next().unwrap().key()];
    for size in [1, 10, 100, 1000] {
        let set = ReplicaSet::from_endpoints(endpoints(size));
        for (name, balancer) in &balancers {
            let picker = balancer.prepare(&set);
            for hints in [Hints::default(), Hints::excluding(&tried)] {
                let picks = || (0..PICKS).filter(|_| picker.pick(&hints).is_some()).count();
                // The first use of a thread's random numbers makes their state.
                picks();

                let counted = measure(|| {
                    picks();
                });

                assert_eq!(counted.count_total, 0, "{name} among {size}");
            }
        }
    }
}

#[tokio::test]
async fn a_call_allocates_nothing() {
    let addrs = endpoints(100).map(|endpoint| endpoint.addr);
    let connector = tower::service_fn(|_: To<Session>| std::future::ready(Ok::<_, Error>(())));
    let layer = BalanceLayer::new(Static::new(addrs), "web").tracking(CompleteOnResponse::default());
    let mut balance = layer.layer(connector);
    balance.ready().await;
    let mut calls = || {
        for _ in 0..PICKS {
            assert!(matches!(balance.call(Session::default()).now_or_never(), Some(Ok(()))));
        }
    };
    calls();

    let counted = measure(calls);

    assert_eq!(counted.count_total, 0);
}
