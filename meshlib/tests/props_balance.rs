//! What holds for any history of a balancer, and how balancers fare with a slow replica.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use meshlib::BalanceLayer;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Session;
use meshlib::Static;
use meshlib::To;
use meshlib::balance::Balancer;
use meshlib::balance::Hints;
use meshlib::balance::LeastLoaded;
use meshlib::balance::PeakEwma;
use meshlib::balance::ReplicaSet;
use meshlib::balance::RoundRobin;
use meshlib::balance::Tiered;
use meshlib::balance::WeightClasses;
use meshlib::io::Transport;
use meshlib::test_util::Scripted;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokio::time;
use tokio::time::Instant;
use tower::Layer;
use tower::ServiceExt;

fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn in_memory(_: To<Session>) -> impl Future<Output = Result<Io, Error>> + Send {
    futures::future::ready(Ok(Io::new(tokio::io::duplex(1).0)))
}

/// One thing that happens to a balancer.
#[derive(Clone, Debug)]
enum Step {
    /// Discovery finds these ports, with weights in tenths.
    Found(Vec<(u16, u8)>),
    Connect,
    /// The oldest connection is closed.
    Close,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let found = prop::collection::vec((0..6_u16, 0..20_u8), 0..8).prop_map(Step::Found);
    let step = prop_oneof![
        2 => found,
        10 => Just(Step::Connect),
        4 => Just(Step::Close),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/props_balance.txt"))),
        ..ProptestConfig::default()
    })]

    /// Counts of work in flight are those of the connections that live, whatever happened to the set meanwhile.
    #[test]
    fn load_is_what_lives(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (resolver, updates) = Scripted::new();
            let connect = BalanceLayer::new(resolver, "web").layer(tower::service_fn(in_memory));
            updates.endpoints([]);
            connect.ready().await;
            let (mut held, mut known) = (Vec::<(SocketAddr, Io)>::new(), HashMap::<SocketAddr, f64>::new());

            for step in steps {
                match step {
                    Step::Found(found) => {
                        known.clear();
                        for &(port, tenths) in &found {
                            *known.entry(addr(port)).or_default() += f64::from(tenths) / 10.0;
                        }
                        updates.weighted(found.iter().map(|&(port, tenths)| (addr(port), f64::from(tenths) / 10.0)));
                        for _ in 0..5 {
                            tokio::task::yield_now().await;
                        }
                    }
                    Step::Connect => {
                        let before: HashMap<_, _> = picked(&connect.view().state().unwrap().replicas);
                        // No step waits for anything, so one poll is enough.
                        let outcome = connect.clone().oneshot(Session::default()).now_or_never().unwrap();
                        prop_assert_eq!(outcome.is_ok(), !known.is_empty());
                        if let Ok(io) = outcome {
                            let after = picked(&connect.view().state().unwrap().replicas);
                            let chosen = after.iter().find(|(addr, n)| before[*addr] != **n).unwrap();
                            held.push((*chosen.0, io));
                        }
                    }
                    Step::Close if !held.is_empty() => drop(held.remove(0)),
                    Step::Close => {}
                    Step::Reset => held.clear(),
                }

                let state = connect.view().state().unwrap();
                prop_assert_eq!(state.replicas.replicas().len(), known.len());
                for replica in state.replicas.replicas() {
                    let addr = replica.endpoint().addr;
                    let living = held.iter().filter(|(held, _)| *held == addr).count();
                    prop_assert_eq!(replica.in_flight() as usize, living);
                    prop_assert_eq!(replica.connecting(), 0);
                    prop_assert!((replica.endpoint().weight.get() - known[&addr]).abs() < 1e-9);
                }
                let mut retired: Vec<_> =
                    held.iter().map(|(addr, _)| *addr).filter(|addr| !known.contains_key(addr)).collect();
                retired.sort();
                retired.dedup();
                prop_assert_eq!(state.retired, retired.len());
            }
            Ok(())
        })?;
    }

    /// Every balancer picks something that is in the set and not excluded, as long as there is such a thing.
    #[test]
    fn a_pick_is_in_the_set_and_not_excluded(
        weights in prop::collection::vec(0.0..10.0_f64, 0..12),
        excluded in prop::collection::vec(0..12_u16, 0..14),
    ) {
        let endpoints = weights.iter().zip(0..).map(|(&weight, port)| {
            Endpoint::new(addr(port)).with_weight(meshlib::Weight::new(weight).unwrap())
        });
        let set = ReplicaSet::from_endpoints(endpoints);
        let exclude: Vec<_> = excluded.iter().map(|&port| Endpoint::new(addr(port)).key()).collect();
        let possible = (0..weights.len() as u16).any(|port| !excluded.contains(&port));
        let balancers: [Box<dyn Balancer>; 5] = [
            Box::new(LeastLoaded::new()),
            Box::new(PeakEwma::new()),
            Box::new(RoundRobin::new()),
            Box::new(Tiered::new(LeastLoaded::new(), |endpoint| u32::from(endpoint.addr.port() % 3))),
            Box::new(WeightClasses::new(LeastLoaded::new())),
        ];

        for balancer in balancers {
            let picker = balancer.prepare(&set);
            for _ in 0..20 {
                let hints = Hints::excluding(&exclude);
                let pick = picker.pick(&hints).map(|replica| replica.endpoint().addr.port());
                prop_assert_eq!(pick.is_some(), possible);
                prop_assert!(pick.is_none_or(|port| !excluded.contains(&port)));
            }
        }
    }
}

fn picked(set: &ReplicaSet) -> HashMap<SocketAddr, u64> {
    set.replicas().iter().map(|replica| (replica.endpoint().addr, replica.picked())).collect()
}

/// What a simulated load of requests came to.
struct Outcome {
    /// Share of the first replica.
    first: f64,
    p99: Duration,
}

const REQUESTS: usize = 40_000;
const REPLICAS: u16 = 10;
/// Mean service time of a replica that is well.
const SERVICE: Duration = Duration::from_millis(10);

/// Requests that arrive at random, replicas that serve one at a time for exponentially distributed times, in virtual time.
///
/// The replicas are loaded to 60 % of what they can all do together. `slowness` is how much longer the first one takes.
async fn simulate(balancer: impl Balancer, slowness: f64, seed: u64) -> Outcome {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut exponential = move |mean: f64| -(1.0 - random.f64()).ln() * mean;
    let capacity = (f64::from(REPLICAS) - 1.0 + 1.0 / slowness) / SERVICE.as_secs_f64();
    let gap = 1.0 / (0.6 * capacity);
    let chosen = tower::service_fn(|to: To<Session>| {
        // Lets the caller, which is on the same thread, see which one it got.
        LAST.set(to.endpoint.addr.port());
        in_memory(to)
    });
    let connect =
        BalanceLayer::new(Static::new((0..REPLICAS).map(addr)), "web").balancer(balancer).layer(chosen);
    connect.ready().await;

    let (began, mut arrival) = (Instant::now(), 0.0);
    let mut free_at = [0.0_f64; REPLICAS as usize];
    let mut first = 0;
    let taken = Arc::<Mutex<Vec<f64>>>::default();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        arrival += exponential(gap);
        time::sleep_until(began + Duration::from_secs_f64(arrival)).await;
        let io = connect.clone().oneshot(Session::default()).await.unwrap();
        let index = usize::from(LAST.get());
        first += usize::from(index == 0);
        let service = exponential(SERVICE.as_secs_f64()) * if index == 0 { slowness } else { 1.0 };
        let done = free_at[index].max(arrival) + service;
        free_at[index] = done;
        let (taken, took) = (Arc::clone(&taken), done - arrival);
        running.spawn(async move {
            time::sleep_until(began + Duration::from_secs_f64(done)).await;
            if let Some(times) = io.peer_stats() {
                times.answered(Duration::from_secs_f64(took));
            }
            taken.lock().unwrap().push(took);
        });
        while running.try_join_next().is_some() {}
    }
    running.join_all().await;

    let mut taken = Arc::into_inner(taken).unwrap().into_inner().unwrap();
    taken.sort_by(f64::total_cmp);
    let p99 = Duration::from_secs_f64(taken[taken.len() * 99 / 100]);
    Outcome { first: first as f64 / REQUESTS as f64, p99 }
}

thread_local! {
    /// The replica of the latest connection.
    static LAST: std::cell::Cell<u16> = const { std::cell::Cell::new(0) };
}

const SEED: u64 = 7;

#[tokio::test(start_paused = true)]
async fn least_loaded_gives_a_slow_replica_little() {
    let well = simulate(LeastLoaded::new(), 1.0, SEED).await;
    let slow = simulate(LeastLoaded::new(), 10.0, SEED).await;

    let ratio = slow.p99.as_secs_f64() / well.p99.as_secs_f64();
    println!(
        "seed {SEED}: share {:.2} %, p99 {:?} instead of {:?}: {ratio:.2}",
        slow.first * 100.0,
        slow.p99,
        well.p99
    );
    assert!((well.first - 0.1).abs() < 0.01, "{}", well.first);
    assert!(slow.first <= 0.025, "{}", slow.first);
    assert!(ratio <= 4.0, "{ratio}");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_keeps_the_slowest_answers_fast() {
    let well = simulate(PeakEwma::new(), 1.0, SEED).await;
    let slow = simulate(PeakEwma::new(), 10.0, SEED).await;

    let ratio = slow.p99.as_secs_f64() / well.p99.as_secs_f64();
    println!(
        "seed {SEED}: share {:.2} %, p99 {:?} instead of {:?}: {ratio:.2}",
        slow.first * 100.0,
        slow.p99,
        well.p99
    );
    assert!(slow.first <= 0.025, "{}", slow.first);
    assert!(ratio <= 1.5, "{ratio}");
}
