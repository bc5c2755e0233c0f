//! What it costs to choose an endpoint.
//!
//! `pick/*` is the decision alone, prepared as a balancer prepares it. `call/*` is everything that a balancer adds to a
//! request: the decision, the counts, the future. tower's balancer has no decision apart from a call, so its row in
//! `pick` is `poll_ready` and `call` with the answer thrown away; its services count requests as `LeastLoaded` does.

use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::hint::black_box;
use std::net::SocketAddr;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use criterion::BenchmarkId;
use criterion::Criterion;
use futures::FutureExt;
use meshlib::balance::Balance;
use meshlib::balance::Balancer;
use meshlib::balance::Hints;
use meshlib::balance::InFlight;
use meshlib::balance::LeastLoaded;
use meshlib::balance::PeakEwma;
use meshlib::balance::ReplicaSet;
use meshlib::balance::RoundRobin;
use meshlib::balance::WeightClasses;
use meshlib::{BalanceLayer, Endpoint, Error, Resolution, Session, To, Update, Weight};
use tokio::runtime::Runtime;
use tower::Layer;
use tower::Service;
use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::load::CompleteOnResponse;
use tower::load::PendingRequests;
use tower::load::TrackCompletion;

const SIZES: [u16; 4] = [1, 10, 100, 1000];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    pick(&mut criterion);
    call(&mut criterion);
    criterion.final_summary();
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    let runtime = runtime();
    let balancers: [(&str, Box<dyn Balancer>); 4] = [
        ("least-loaded", Box::new(LeastLoaded::new())),
        ("peak-ewma", Box::new(PeakEwma::new())),
        ("round-robin", Box::new(RoundRobin::new())),
        ("weight-classes", Box::new(WeightClasses::new(LeastLoaded::new()))),
    ];
    for size in SIZES {
        let idle = ReplicaSet::from_endpoints(endpoints(size));
        let (busy, _work) = busy(&runtime, size);
        for (name, balancer) in &balancers {
            for (state, set) in [("idle", &idle), ("busy", &busy)] {
                let picker = balancer.prepare(set);
                group.bench_function(BenchmarkId::new(format!("{name}-{state}"), size), |bencher| {
                    bencher.iter(|| black_box(picker.pick(&Hints::default())).is_some());
                });
            }
        }
        let mut tower = tower_p2c(size);
        group.bench_function(BenchmarkId::new("tower-p2c-idle", size), |bencher| {
            let mut cx = Context::from_waker(Waker::noop());
            bencher.iter(|| {
                let ready = tower.poll_ready(&mut cx).is_ready();
                assert!(ready, "its services are always ready");
                drop(black_box(tower.call(Session::default())));
            });
        });
    }
}

fn call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    let runtime = runtime();
    for size in SIZES {
        for (name, balancer) in [
            ("least-loaded", Box::new(LeastLoaded::new()) as Box<dyn Balancer>),
            ("peak-ewma", Box::new(PeakEwma::new())),
        ] {
            let mut balance = balance(&runtime, size, balancer, CompleteOnResponse::default());
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let answer = balance.call(Session::default()).now_or_never();
                    assert!(matches!(answer, Some(Ok(()))), "its connector answers at once");
                });
            });
        }
        let mut tower = tower_p2c(size);
        group.bench_function(BenchmarkId::new("tower-p2c", size), |bencher| {
            let mut cx = Context::from_waker(Waker::noop());
            bencher.iter(|| {
                let ready = tower.poll_ready(&mut cx).is_ready();
                assert!(ready, "its services are always ready");
                let answer = tower.call(Session::default()).now_or_never();
                assert!(matches!(answer, Some(Ok(()))), "its services answer at once");
            });
        });
    }
}

/// Addresses of which every tenth has a tenth of the weight.
fn endpoints(size: u16) -> impl Iterator<Item = Endpoint> {
    let light = Weight::new(0.1).expect("a finite weight");
    (1..=size).map(move |port| {
        let weight = if port % 10 == 0 { light } else { Weight::ONE };
        Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port))).with_weight(weight)
    })
}

/// Replicas at work: four pieces of it in flight for each on average, and answers that took 1 to 50 ms.
fn busy(runtime: &Runtime, size: u16) -> (ReplicaSet, Vec<InFlight>) {
    let mut balance = balance(runtime, size, Box::new(PeakEwma::new()), Keep);
    let mut random = fastrand::Rng::with_seed(7);
    let work = (0..4 * u32::from(size))
        .map(|_| {
            let work = balance.call(Session::default()).now_or_never();
            let work = work.expect("its connector answers at once").expect("and never fails");
            work.peer_stats().answered(Duration::from_micros(random.u64(1_000..50_000)));
            work
        })
        .collect();
    (balance.view().state().expect("it is alive").replicas, work)
}

/// Hands the work out instead of ending it with the answer.
#[derive(Clone)]
struct Keep;

impl TrackCompletion<InFlight, ()> for Keep {
    type Output = InFlight;

    fn track_completion(&self, work: InFlight, (): ()) -> InFlight {
        work
    }
}

/// A connector that has connected already.
#[derive(Clone)]
struct Instantly;

impl Service<To<Session>> for Instantly {
    type Response = ();
    type Error = Error;
    type Future = Ready<Result<(), Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To<Session>) -> Self::Future {
        black_box(to);
        ready(Ok(()))
    }
}

/// The same for tower, whose balancer does not say which endpoint it means: each has a service of its own.
struct One(Endpoint);

impl Service<Session> for One {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, session: Session) -> Self::Future {
        black_box(To::new(self.0.clone(), session));
        ready(Ok(()))
    }
}

/// A balancer that knows its endpoints.
fn balance<K: Clone>(
    runtime: &Runtime,
    size: u16,
    balancer: Box<dyn Balancer>,
    tracking: K,
) -> Balance<Instantly, K> {
    let resolver =
        move |_: &str| Resolution::new(futures::stream::iter([Ok(Update::endpoints(endpoints(size)))]));
    let balance = BalanceLayer::new(resolver, "bench").balancer(balancer).tracking(tracking).layer(Instantly);
    runtime.block_on(balance.ready());
    balance
}

fn tower_p2c(size: u16) -> impl Service<Session, Response = (), Future: Send> {
    let services =
        endpoints(size).map(|endpoint| PendingRequests::new(One(endpoint), CompleteOnResponse::default()));
    p2c::Balance::new(ServiceList::new::<Session>(services.collect::<Vec<_>>()))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O")
}
