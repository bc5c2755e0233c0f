//! Names in requests, and tower's discovery on either side.

use std::convert::Infallible;
use std::future::Ready;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures::stream;
use meshlib::BalanceLayer;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Refusal;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Session;
use meshlib::Update;
use meshlib::balance;
use meshlib::balance::BalanceBy;
use meshlib::balance::Changes;
use meshlib::balance::Waiting;
use meshlib::connect::BoxConnector;
use meshlib::test_util::Scripted;
use tokio::time;
use tower::Layer;
use tower::Service;
use tower::ServiceExt;
use tower::discover::Change;
use tower::load::Load;

use crate::memory::Memory;
use crate::memory::addr;

fn by_server_name(session: &Session) -> Result<String, Error> {
    let name = session.server_name.as_deref();
    name.map(str::to_owned).ok_or(Error::Refused(Refusal::NoDestination))
}

/// Each name has one endpoint, whose port is the length of the name.
fn by_length(name: String) -> Resolution {
    let endpoint = Endpoint::new(addr(name.len() as u16));
    Resolution::new(stream::iter([Ok(Update::endpoints([endpoint]))]))
}

#[tokio::test]
async fn each_request_goes_to_the_endpoints_of_its_name() {
    let network = Memory::default();
    let connect = BalanceLayer::by(by_length, by_server_name).layer(network.connector());

    for name in ["a", "bb", "bb"] {
        connect.clone().oneshot(Session::default().with_server_name(name)).await.unwrap();
    }
    let nameless = connect.oneshot(Session::default()).await;

    assert_eq!((network.count(addr(1)), network.count(addr(2))), (1, 2));
    assert!(matches!(nameless, Err(Error::Refused(Refusal::NoDestination))));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_once_and_forgotten_when_it_is_not_used() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::by(resolver, by_server_name).layer(Memory::default().connector());
    updates.endpoints([addr(1)]);
    for name in ["a", "b", "a"] {
        connect.clone().oneshot(Session::default().with_server_name(name)).await.unwrap();
    }
    assert_eq!(updates.subscribers(), 2);

    for _ in 0..12 {
        time::sleep(Duration::from_secs(60)).await;
        connect.clone().oneshot(Session::default().with_server_name("a")).await.unwrap();
    }

    assert_eq!(updates.subscribers(), 1, "only the one in use is left");
}

/// Counts the names that are resolved, by what discovery knows of them: `web...` has an endpoint, `slow...` is never
/// answered, and nothing else exists.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Resolver<String> for Counting {
    fn resolve(&self, name: String) -> Resolution {
        self.0.fetch_add(1, Ordering::SeqCst);
        if name.starts_with("slow") {
            return Resolution::new(stream::pending());
        }
        let found = name.starts_with("web").then(|| Update::endpoints([Endpoint::new(addr(80))]));
        Resolution::fixed(found.unwrap_or(Update::NotFound))
    }
}

/// A balancer with room for so many names, in which nobody waits for long.
struct Room {
    resolver: Counting,
    connect: BalanceBy<BoxConnector, String, ByServerName>,
}

type ByServerName = fn(&Session) -> Result<String, Error>;

impl Room {
    fn of(most: usize) -> Self {
        let resolver = Counting::default();
        let name: ByServerName = by_server_name;
        let connect = BalanceLayer::by(resolver.clone(), name)
            .max_names(most)
            .layer(Memory::default().connector())
            .with_waiting(Waiting::new(usize::MAX, Duration::from_millis(1)).with_absent(Duration::ZERO));
        Self { resolver, connect }
    }

    async fn ask(&self, name: &str) -> Result<Io, Error> {
        self.connect.clone().oneshot(Session::default().with_server_name(name)).await
    }

    fn resolved(&self) -> usize {
        self.resolver.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn invented_names_keep_nobody_out() {
    let room = Room::of(100);
    room.ask("web").await.unwrap();

    for n in 0..1_000 {
        room.ask(&format!("invented{n}")).await.unwrap_err();
        room.ask(&format!("slow{n}")).await.unwrap_err();
        room.ask("web").await.unwrap();
        time::advance(Duration::from_millis(1)).await;
    }

    room.ask("web-too").await.unwrap();
    assert_eq!(room.resolved(), 2_002, "the name in use stayed all the time");
}

#[tokio::test(start_paused = true)]
async fn names_with_connections_stay_and_then_the_longest_idle_go_first() {
    let room = Room::of(10);
    let live = room.ask("web0").await.unwrap();
    for n in 1..10 {
        time::advance(Duration::from_secs(1)).await;
        room.ask(&format!("web{n}")).await.unwrap();
    }

    room.ask("web10").await.unwrap();
    assert_eq!(room.resolved(), 11);

    for n in [0, 2, 3, 4, 5, 6, 7, 8, 9, 10] {
        room.ask(&format!("web{n}")).await.unwrap();
    }
    assert_eq!(room.resolved(), 11, "all of these are still known");
    room.ask("web1").await.unwrap();
    assert_eq!(room.resolved(), 12);
    drop(live);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_refused_only_if_all_others_have_connections() {
    let room = Room::of(2);
    let first = room.ask("web1").await.unwrap();
    let _second = room.ask("web2").await.unwrap();

    assert!(matches!(room.ask("web3").await, Err(Error::Refused(Refusal::Limit))));
    drop(first);
    room.ask("web3").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_with_connections_is_not_forgotten() {
    let room = Room::of(10);
    let live = room.ask("web").await.unwrap();

    time::sleep(Duration::from_secs(800)).await;
    room.ask("web").await.unwrap();
    assert_eq!(room.resolved(), 1);

    drop(live);
    time::sleep(Duration::from_secs(800)).await;
    room.ask("web").await.unwrap();
    assert_eq!(room.resolved(), 2);
}

#[tokio::test]
async fn services_of_a_tower_discovery_can_be_balanced() {
    let service = |n: u16| tower::service_fn(move |_: Session| async move { Ok::<_, Error>(answer(n)) });
    let key = |port| Endpoint::new(addr(port)).key();
    let discover = stream::iter([
        Ok::<_, Infallible>(Change::Insert(key(1), service(1))),
        Ok(Change::Insert(key(2), service(2))),
    ]);
    let balance = balance::from_discover("web", discover);

    for _ in 0..20 {
        balance.clone().oneshot(Session::default()).await.unwrap();
    }

    let view = balance.view().state().unwrap();
    assert_eq!(view.replicas.replicas().len(), 2);
    let picked: u64 = view.replicas.replicas().iter().map(balance::Replica::picked).sum();
    assert_eq!(picked, 20);
}

fn answer(n: u16) -> Io {
    Io::new(tokio::io::duplex(usize::from(n)).0)
}

/// Answers with its number and is never busy.
struct Numbered(u16);

impl Service<()> for Numbered {
    type Response = u16;
    type Error = Infallible;
    type Future = Ready<Result<u16, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

impl Load for Numbered {
    type Metric = f64;

    fn load(&self) -> f64 {
        0.0
    }
}

#[tokio::test]
async fn towers_balancer_works_on_a_resolution() {
    let (resolver, updates) = Scripted::new();
    let changes = Changes::new(resolver.resolve("web"), |endpoint: &Endpoint| Numbered(endpoint.addr.port()));
    let mut balance = tower::balance::p2c::Balance::new(changes);
    updates.endpoints([1, 2].map(addr));

    let mut seen = [0; 4];
    for _ in 0..100 {
        let port: u16 = balance.ready().await.unwrap().call(()).await.unwrap();
        seen[usize::from(port)] += 1;
    }
    assert!(seen[1] > 10 && seen[2] > 10, "{seen:?}");

    updates.endpoints([3].map(addr));
    for _ in 0..20 {
        let port: u16 = balance.ready().await.unwrap().call(()).await.unwrap();
        seen[usize::from(port)] += 1;
    }
    assert_eq!(seen[3], 20);
}
