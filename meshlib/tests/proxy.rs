//! `TcpProxy` behind a `Server`: what becomes of a client before it has a server, and after.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as loudly as the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Conn;
use meshlib::Drain;
use meshlib::Error;
use meshlib::ForwardOptions;
use meshlib::Io;
use meshlib::Phase;
use meshlib::Server;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TcpProxy;
use meshlib::Transferred;
use meshlib::balance::Balance;
use meshlib::balance::Waiting;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::Scripted;
use meshlib::test_util::Updates;
use meshlib::test_util::echo;
use meshlib::test_util::echo_to_end;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time;
use tokio::time::Instant;
use tower::Layer;
use tower::Service;

/// What must happen at all must happen within this.
const SOON: Duration = Duration::from_secs(10);

/// Keeps how connections ended.
#[derive(Debug, Default)]
struct Log {
    ended: Mutex<Vec<String>>,
    closed: Mutex<Vec<Transferred>>,
}

impl Observer for Log {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Ended { error, .. } => {
                let text = error.map_or_else(|| "ok".to_owned(), |error| error.chain().to_string());
                self.ended.lock().unwrap().push(text);
            }
            Event::Closed { transferred, .. } => self.closed.lock().unwrap().push(*transferred),
            _ => {}
        }
    }
}

impl Log {
    async fn first_end(&self) -> String {
        let end = async {
            loop {
                if let Some(end) = self.ended.lock().unwrap().first() {
                    return end.clone();
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, end).await.expect("it ends soon")
    }
}

struct Rig {
    addr: SocketAddr,
    updates: Updates,
    balance: Balance<TcpConnector>,
    log: Arc<Log>,
    drain: Drain,
}

/// A proxy whose clients wait for discovery, which has said nothing yet.
async fn rig(connect_within: Option<Duration>) -> Rig {
    let (resolver, updates) = Scripted::new();
    let balance = BalanceLayer::new(resolver, "web")
        .wait(Waiting::new(100, Duration::from_secs(600)))
        .layer(TcpConnector::default());
    let (log, drain) = (Arc::<Log>::default(), Drain::new());
    let proxy = TcpProxy::new(balance.clone()).connect_within(connect_within).observe(log.clone());
    let server = Server::bind("127.0.0.1:0").await.unwrap().observe(log.clone());
    let addr = server.local_addr();
    tokio::spawn(server.serve(proxy, drain.clone()));
    Rig { addr, updates, balance, log, drain }
}

impl Rig {
    fn waiters(&self) -> usize {
        self.balance.view().state().unwrap().waiters
    }

    async fn wait_for_waiters(&self, n: usize) {
        let wait = async {
            while self.waiters() != n {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, wait)
            .await
            .unwrap_or_else(|_| panic!("{} waiters instead of {n}", self.waiters()));
    }
}

#[tokio::test]
async fn bytes_go_through_and_are_counted() {
    let rig = rig(None).await;
    let backend = EchoOptions::default().with_greeting("hello").start().await.unwrap();
    rig.updates.endpoints([backend.addr()]);

    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    assert_eq!(echo_to_end(&mut client, b" you").await.unwrap(), b"hello you");

    assert_eq!(rig.log.first_end().await, "ok");
    let closed = rig.log.closed.lock().unwrap()[0];
    assert_eq!((closed.upstream, closed.downstream), (4, 9));
    assert_eq!(rig.balance.view().state().unwrap().replicas.replicas()[0].in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_resets_while_it_waits_is_forgotten() {
    let rig = rig(None).await;
    let client = TcpStream::connect(rig.addr).await.unwrap();
    rig.wait_for_waiters(1).await;

    client.set_zero_linger().unwrap();
    drop(client);

    rig.wait_for_waiters(0).await;
    assert!(rig.log.first_end().await.contains("client connection failed"));
}

#[tokio::test]
async fn a_client_that_has_sent_something_and_resets_is_forgotten_too() {
    let rig = rig(None).await;
    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    client.write_all(b"question").await.unwrap();
    rig.wait_for_waiters(1).await;

    client.set_zero_linger().unwrap();
    drop(client);

    rig.wait_for_waiters(0).await;
}

#[tokio::test]
async fn a_client_that_closes_while_it_waits_is_forgotten_a_little_later() {
    let rig = rig(None).await;
    let client = TcpStream::connect(rig.addr).await.unwrap();
    rig.wait_for_waiters(1).await;

    drop(client);

    rig.wait_for_waiters(0).await;
}

#[tokio::test]
async fn a_client_may_close_its_side_before_it_has_a_server() {
    let rig = rig(None).await;
    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    rig.wait_for_waiters(1).await;

    let backend = Echo::start().await;
    rig.updates.endpoints([backend.addr()]);

    let mut answer = Vec::new();
    time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("it is answered soon").unwrap();
    assert_eq!(answer, b"question");
}

#[tokio::test]
async fn a_client_without_a_server_is_closed_in_time_and_told_nothing() {
    let limit = Duration::from_millis(300);
    let rig = rig(Some(limit)).await;
    let began = Instant::now();

    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();

    let took = began.elapsed();
    assert!(answer.is_empty());
    // Late only by what a busy machine makes of 50 ms.
    assert!((limit..limit + Duration::from_millis(250)).contains(&took), "{took:?}");
    assert_eq!(rig.waiters(), 0);
}

/// Never connects.
fn nowhere() -> impl Service<Session, Response = Io, Error = Error, Future: Send> + Clone + Send + 'static {
    tower::service_fn(|_: Session| std::future::pending::<Result<Io, Error>>())
}

/// Connects to one server, once.
fn once(
    server: DuplexStream,
) -> impl Service<Session, Response = Io, Error = Error, Future: Send> + Clone + Send + 'static {
    let server = Arc::new(Mutex::new(Some(Io::new(server))));
    tower::service_fn(move |_: Session| {
        let io = server.lock().unwrap().take().expect("connected once");
        async { Ok::<_, Error>(io) }
    })
}

/// Keeps when servers spoke first, and that they did not.
#[derive(Debug, Default)]
struct Spoken(Mutex<Vec<Option<u64>>>);

impl Observer for Spoken {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::FirstByte { took } => self.0.lock().unwrap().push(Some(took.as_secs())),
            Event::Unanswered => self.0.lock().unwrap().push(None),
            _ => {}
        }
    }

    fn wants_progress(&self) -> bool {
        true
    }
}

/// What is told of a conversation in which client and server speak at these seconds, and which ends at the last.
async fn told(client_speaks: &[u64], server_speaks: &[u64], ends: u64) -> Vec<Option<u64>> {
    let ((ours, client), (upstream, server)) = (tokio::io::duplex(16), tokio::io::duplex(16));
    let spoken = Arc::<Spoken>::default();
    let mut proxy = TcpProxy::new(once(upstream)).observe(spoken.clone());
    let conn = Conn::new(Io::new(ours), Session::default(), Drain::new().draining());
    let began = Instant::now();
    let side = async |mut io: DuplexStream, speaks: &[u64]| {
        for at in speaks {
            time::sleep_until(began + Duration::from_secs(*at)).await;
            io.write_all(b"!").await.unwrap();
        }
        time::sleep_until(began + Duration::from_secs(ends)).await;
    };

    let (result, (), ()) =
        tokio::join!(proxy.call(conn), side(client, client_speaks), side(server, server_speaks));

    result.unwrap();
    std::mem::take(&mut *spoken.0.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn it_is_told_when_a_server_speaks_first_and_that_it_does_not() {
    assert_eq!(told(&[2, 3], &[5, 6], 60).await, [Some(3)], "from the client's first byte");
    assert_eq!(told(&[], &[5], 60).await, [Some(5)], "a server that begins");
    assert_eq!(told(&[40], &[5], 60).await, [Some(5)], "and is answered late");
    assert_eq!(told(&[2], &[30], 60).await, [None, Some(28)], "a late answer");
    assert_eq!(told(&[2, 8, 16, 24, 32], &[35], 60).await, [Some(33)], "the client had not asked all");
    assert_eq!(told(&[2], &[], 4).await, [None], "the end before it");
    assert_eq!(told(&[2], &[], 2).await, [], "an end that leaves no time for it");
    assert_eq!(told(&[2], &[], 60).await, [None], "once");
    assert_eq!(told(&[], &[], 60).await, [], "nothing was asked");
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_from_when_the_client_was_accepted() {
    let limit = Duration::from_secs(10);
    let mut proxy = TcpProxy::new(nowhere()).connect_within(Some(limit));
    let session = Session::default();
    // A handshake took this long.
    time::sleep(Duration::from_secs(7)).await;
    let (ours, _client) = tokio::io::duplex(16);

    let began = Instant::now();
    let outcome = proxy.call(Conn::new(Io::new(ours), session, Drain::new().draining())).await;

    assert!(matches!(outcome, Err(Error::Timeout { phase: Phase::Connect, after }) if after == limit));
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_forwarding_ends_both_sides() {
    let (ours, mut client) = tokio::io::duplex(16);
    let (upstream, mut server) = tokio::io::duplex(16);
    let connect = once(upstream);
    let options = ForwardOptions::default().with_idle_timeout(Some(Duration::from_secs(5)));
    let mut proxy = TcpProxy::new(connect).forward(options);

    let outcome = proxy.call(Conn::new(Io::new(ours), Session::default(), Drain::new().draining())).await;

    assert!(matches!(outcome, Err(Error::Timeout { phase: Phase::Idle, .. })));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_lets_clients_finish_and_refuses_new_ones() {
    let rig = rig(None).await;
    let backend = Echo::start().await;
    rig.updates.endpoints([backend.addr()]);
    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    echo(&mut client, b"before").await.unwrap();

    let finishing = tokio::spawn({
        let drain = rig.drain.clone();
        async move { drain.finish(SOON).await }
    });
    let refused = async {
        while TcpStream::connect(rig.addr).await.is_ok() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(SOON, refused).await.expect("new clients are refused");

    assert_eq!(echo(&mut client, b"during").await.unwrap(), b"during");
    drop(client);
    assert!(finishing.await.unwrap(), "nothing had to be forced");
}
