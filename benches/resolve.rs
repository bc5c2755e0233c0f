//! What news from discovery cost.
//!
//! `snapshot/*` is one update from the resolver's stream to the moment a balancer picks from it: statistics are carried
//! over, the draws are prepared, the former set is dropped. `prepare/*` is the balancer's part alone. All of it runs
//! once per update and off the requests' path.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use futures::channel::mpsc;
use meshlib::balance::Balancer;
use meshlib::balance::LeastLoaded;
use meshlib::balance::ReplicaSet;
use meshlib::balance::RoundRobin;
use meshlib::balance::WeightClasses;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::resolve::ResolveError;
use meshlib::{BalanceLayer, Endpoint, Resolution, Update, Weight};
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Address;
use meshlib_namerd::api::Meta;
use meshlib_namerd::api::Skipped;
use tokio::task;
use tokio::time::Instant;
use tower::Layer;

const SIZES: [u32; 3] = [10, 1_000, 10_000];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        .configure_from_args();
    snapshot(&mut criterion);
    prepare(&mut criterion);
    namerd(&mut criterion);
    criterion.final_summary();
}

fn snapshot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    for size in SIZES {
        group.throughput(Throughput::Elements(u64::from(size)));
        let first = Update::endpoints(endpoints(0, size));
        let same = Update::endpoints(endpoints(0, size));
        let others = Update::endpoints(endpoints(size, size));
        for (name, second) in [("same-endpoints", same), ("other-endpoints", others)] {
            let updates = [first.clone(), second];
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let (say, said) = mpsc::unbounded::<Result<Update, ResolveError>>();
                let said = std::sync::Mutex::new(Some(said));
                let resolver = move |_: &str| match said.lock().ok().and_then(|mut said| said.take()) {
                    Some(said) => Resolution::new(said),
                    None => Resolution::new(futures::stream::empty()),
                };
                let seen = Arc::new(Seen::default());
                let layer =
                    BalanceLayer::new(resolver, "bench").observe(Arc::clone(&seen) as Arc<dyn Observer>);
                let balance = layer.layer(());
                runtime.block_on(async {
                    balance.start();
                });
                bencher.iter_custom(|rounds| {
                    runtime.block_on(async {
                        let since = Instant::now();
                        for round in 0..rounds as usize {
                            let before = seen.0.load(Ordering::Relaxed);
                            let update = updates[round % 2].clone();
                            say.unbounded_send(Ok(update)).expect("the balancer listens while it lives");
                            while seen.0.load(Ordering::Relaxed) == before {
                                task::yield_now().await;
                            }
                        }
                        since.elapsed()
                    })
                });
            });
        }
    }
}

fn prepare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prepare");
    let balancers: [(&str, Box<dyn Balancer>); 3] = [
        ("least-loaded", Box::new(LeastLoaded::new())),
        ("round-robin", Box::new(RoundRobin::new())),
        ("weight-classes", Box::new(WeightClasses::new(LeastLoaded::new()))),
    ];
    for size in [10, 1_000] {
        let set = ReplicaSet::from_endpoints(endpoints(0, size));
        for (name, balancer) in &balancers {
            group.bench_function(BenchmarkId::new(*name, size), |bencher| {
                bencher.iter(|| black_box(balancer.prepare(&set)));
            });
        }
    }
}

fn namerd(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("namerd");
    let facts = || Meta::new().with_text(Meta::NODE_NAME, "node-17").with_number(Meta::WEIGHT, 0.5);
    let addresses = endpoints(0, 1_000).map(|endpoint| Address::new(endpoint.addr).with_meta(facts()));
    let answer = Addr::bound(addresses).to_json();
    group.throughput(Throughput::Bytes(answer.len() as u64));
    group.bench_function("decode/1000", |bencher| {
        bencher.iter(|| decode(black_box(answer.as_bytes())));
    });
    let addr = decode(answer.as_bytes());
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("endpoints/1000", |bencher| bencher.iter(|| black_box(&addr).endpoints()));
}

fn decode(json: &[u8]) -> Addr {
    let mut skipped = Skipped::default();
    let addr = Addr::from_json(json, &mut skipped).expect("an answer as namerd writes it");
    assert!(skipped.is_empty(), "every address can be used");
    addr
}

/// Addresses from the given one on, of which every tenth has a tenth of the weight.
fn endpoints(from: u32, size: u32) -> impl Iterator<Item = Endpoint> {
    let light = Weight::new(0.1).expect("a finite weight");
    (from..from + size).map(move |index| {
        let addr = Ipv4Addr::from_bits(0x0a00_0001 + index);
        Endpoint::new((addr, 8080).into()).with_weight(if index % 10 == 9 { light } else { Weight::ONE })
    })
}

/// Counts updates that are in force.
#[derive(Debug, Default)]
struct Seen(AtomicUsize);

impl Observer for Seen {
    fn on(&self, event: &Event<'_>) {
        if let Event::Resolved { .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
