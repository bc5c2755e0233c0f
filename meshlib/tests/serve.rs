//! `Server`: limits, errors, and closing down.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshlib::Conn;
use meshlib::Drain;
use meshlib::Error;
use meshlib::ListenOptions;
use meshlib::Listener;
use meshlib::Refusal;
use meshlib::Server;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::test_util::echo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time;
use tokio::time::Instant;
use tower::Service;

/// What must happen at all must happen within this.
const SOON: Duration = Duration::from_secs(10);

/// Sends back what comes, until the client ends.
fn send_back() -> impl Service<Conn, Response = (), Error = Error, Future: Send> + Clone + Send + 'static {
    tower::service_fn(|conn: Conn| async move {
        let (mut input, mut output) = tokio::io::split(conn.io);
        // The client may be gone at any time.
        let _ = tokio::io::copy(&mut input, &mut output).await;
        Ok(())
    })
}

async fn start(server: Server, drain: &Drain) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let addr = server.local_addr();
    (addr, tokio::spawn(server.serve(send_back(), drain.clone())))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}, but not soon"))
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    ended: AtomicUsize,
    failed: AtomicUsize,
    forced: AtomicUsize,
}

impl Observer for Counts {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { session } => {
                assert!(session.peer.is_some() && session.local.is_some());
                self.accepted.fetch_add(1, Ordering::SeqCst);
            }
            Event::Ended { error, forced } => {
                self.ended.fetch_add(1, Ordering::SeqCst);
                self.failed.fetch_add(usize::from(error.is_some()), Ordering::SeqCst);
                self.forced.fetch_add(usize::from(*forced), Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let drain = Drain::new();
    let server = Server::bind("127.0.0.1:0").await.unwrap().max_connections(2);
    let (addr, _serving) = start(server, &drain).await;
    let mut first = TcpStream::connect(addr).await.unwrap();
    let mut second = TcpStream::connect(addr).await.unwrap();
    echo(&mut first, b"1").await.unwrap();
    echo(&mut second, b"2").await.unwrap();

    // The kernel takes it, the server does not.
    let mut third = TcpStream::connect(addr).await.unwrap();
    let early = time::timeout(Duration::from_millis(200), echo(&mut third, b"3")).await;
    assert!(early.is_err(), "beyond the limit nobody is served");

    drop(first);
    // Its byte is on the way already.
    let mut answer = [0; 1];
    soon("it is served", third.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"3");
}

#[tokio::test]
async fn a_service_that_panics_ends_its_connection_only() {
    let (drain, counts) = (Drain::new(), Arc::<Counts>::default());
    let server = Server::bind("127.0.0.1:0").await.unwrap().observe(counts.clone());
    let addr = server.local_addr();
    let service = tower::service_fn(|mut conn: Conn| async move {
        let byte = conn.io.read_u8().await.unwrap();
        assert_ne!(byte, b'!', "as the test wants it");
        conn.io.write_u8(byte).await.unwrap();
        Ok::<_, Error>(())
    });
    let serving = tokio::spawn(server.serve(service, drain.clone()));

    let mut unlucky = TcpStream::connect(addr).await.unwrap();
    unlucky.write_all(b"!").await.unwrap();
    assert_eq!(soon("it is closed", unlucky.read(&mut [0; 1])).await.unwrap_or(0), 0);
    let mut lucky = TcpStream::connect(addr).await.unwrap();
    lucky.write_all(b"?").await.unwrap();
    assert_eq!(soon("it is served", lucky.read_u8()).await.unwrap(), b'?');
    drain.finish(SOON).await;
    soon("it ends", serving).await.unwrap().unwrap();

    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    assert_eq!((count(&counts.accepted), count(&counts.ended)), (2, 2));
    assert_eq!((count(&counts.failed), count(&counts.forced)), (0, 1));
}

#[tokio::test]
async fn the_oldest_connection_is_evicted_for_the_newest() {
    let (drain, counts) = (Drain::new(), Arc::<Counts>::default());
    let server = Server::bind("127.0.0.1:0").await.unwrap().evict_beyond(2).observe(counts.clone());
    let (addr, serving) = start(server, &drain).await;
    let mut first = TcpStream::connect(addr).await.unwrap();
    echo(&mut first, b"1").await.unwrap();
    let mut second = TcpStream::connect(addr).await.unwrap();
    echo(&mut second, b"2").await.unwrap();

    let mut third = TcpStream::connect(addr).await.unwrap();
    soon("it is served", echo(&mut third, b"3")).await.unwrap();

    assert_eq!(soon("it is closed", first.read(&mut [0; 1])).await.unwrap(), 0);
    // Whoever ends by themselves makes room, too.
    drop(third);
    soon("it has ended", async {
        while counts.ended.load(Ordering::SeqCst) < 2 {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut fourth = TcpStream::connect(addr).await.unwrap();
    soon("it is served", echo(&mut fourth, b"4")).await.unwrap();
    assert_eq!(echo(&mut second, b"still here").await.unwrap(), b"still here");

    // Nobody is evicted because the server closes down.
    drain.start();
    // A connection would be taken, and another evicted for it.
    soon("it listens no more", async {
        while TcpListener::bind(addr).await.is_err() {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(fourth);
    assert_eq!(echo(&mut second, b"still here").await.unwrap(), b"still here");
    drop(second);
    soon("serving ends", serving).await.unwrap().unwrap();
    assert_eq!(counts.failed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn fifty_connections_are_drained_and_the_rest_forced() {
    const CONNECTIONS: usize = 50;
    let (drain, counts) = (Drain::new(), Arc::<Counts>::default());
    let server = Server::bind("127.0.0.1:0").await.unwrap().observe(counts.clone());
    let (addr, serving) = start(server, &drain).await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(addr).await.unwrap();
        echo(&mut client, b"before").await.unwrap();
        clients.push(client);
    }

    let (began, grace) = (Instant::now(), Duration::from_millis(500));
    let finishing = tokio::spawn({
        let drain = drain.clone();
        async move { drain.finish(grace).await }
    });
    drain.started().await;

    // Half of them stop after their exchange and end clean.
    let goes_on = clients.split_off(CONNECTIONS / 2);
    for mut client in clients {
        assert_eq!(echo(&mut client, b"during").await.unwrap(), b"during");
    }
    // The others go on until they are cut off.
    let mut cut = tokio::task::JoinSet::new();
    for mut client in goes_on {
        cut.spawn(async move {
            while echo(&mut client, b"on and on").await.is_ok() {
                time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    assert!(!soon("it finishes", finishing).await.unwrap(), "half had to be forced");
    let took = began.elapsed();
    assert!((grace..grace + Duration::from_secs(1)).contains(&took), "{took:?}");
    soon("serving ends", serving).await.unwrap().unwrap();
    soon("all are cut off", cut.join_all()).await;
    assert!(TcpStream::connect(addr).await.is_err());
    assert_eq!(counts.accepted.load(Ordering::SeqCst), CONNECTIONS);
    assert_eq!(counts.ended.load(Ordering::SeqCst), CONNECTIONS);
    assert_eq!(counts.forced.load(Ordering::SeqCst), CONNECTIONS / 2);
}

#[tokio::test]
async fn a_second_push_ends_the_grace() {
    let drain = Drain::new();
    let (addr, serving) = start(Server::bind("127.0.0.1:0").await.unwrap(), &drain).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    echo(&mut client, b"hi").await.unwrap();
    let finishing = tokio::spawn({
        let drain = drain.clone();
        async move { drain.finish(Duration::from_secs(600)).await }
    });
    drain.started().await;

    drain.force();

    assert!(!soon("it finishes", finishing).await.unwrap());
    soon("serving ends", serving).await.unwrap().unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_drain_with_nobody_there_ends_at_once() {
    let drain = Drain::new();
    let (_, serving) = start(Server::bind("[::1]:0").await.unwrap(), &drain).await;

    assert!(soon("it finishes", drain.finish(Duration::from_secs(600))).await);
    soon("serving ends", serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_fails_or_panics_ends_nobody_elses() {
    let (drain, counts) = (Drain::new(), Arc::<Counts>::default());
    let server = Server::bind("127.0.0.1:0").await.unwrap().observe(counts.clone());
    let addr = server.local_addr();
    let service = tower::service_fn(|mut conn: Conn| async move {
        match conn.io.read_u8().await {
            Ok(b'f') => Err(Error::Refused(Refusal::Limit)),
            Ok(b'p') => panic!("a bug of a service"),
            Ok(byte) => {
                use tokio::io::AsyncWriteExt;
                let _ = conn.io.write_u8(byte).await;
                Ok(())
            }
            Err(_) => Ok(()),
        }
    });
    tokio::spawn(server.serve(service, drain.clone()));

    for word in [b"f", b"p"] {
        let mut client = TcpStream::connect(addr).await.unwrap();
        assert!(echo(&mut client, word).await.is_err());
    }
    let mut client = TcpStream::connect(addr).await.unwrap();
    assert_eq!(echo(&mut client, b"x").await.unwrap(), b"x");
    drop(client);

    assert!(soon("it finishes", drain.finish(SOON)).await);
    assert_eq!(counts.failed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_address_can_be_taken_again_at_once_and_shared_on_request() {
    let options = ListenOptions::default().with_reuse_port(true);
    let first = Listener::bind("127.0.0.1:0", &options).await.unwrap();
    let addr = first.local_addr();
    let second = Listener::bind(addr, &options).await.unwrap();
    assert_eq!(second.local_addr(), addr);
    let taken = Listener::bind(addr, &ListenOptions::default()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    assert!(taken.to_string().starts_with(&format!("cannot listen at {addr}: ")), "{taken}");

    let mut client = TcpStream::connect(addr).await.unwrap();
    let (accepted, session) = tokio::select! {
        accepted = first.accept() => accepted.unwrap(),
        accepted = second.accept() => accepted.unwrap(),
    };
    assert_eq!(session.peer, Some(client.local_addr().unwrap()));
    assert_eq!(session.local, Some(addr));
    // The server closes first, so that the address stays behind in TIME_WAIT.
    drop(accepted);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    drop((client, first, second));

    Listener::bind(addr, &ListenOptions::default()).await.unwrap();
}

#[tokio::test]
async fn servers_can_share_a_limit() {
    let (drain, limit) = (Drain::new(), Arc::new(tokio::sync::Semaphore::new(1)));
    // Beside a limit of their own.
    let bind = async || {
        let server = Server::bind("127.0.0.1:0").await.unwrap().max_connections(5);
        server.share_limit(Arc::clone(&limit))
    };
    let (one, _serving_one) = start(bind().await, &drain).await;
    let mut first = TcpStream::connect(one).await.unwrap();
    echo(&mut first, b"1").await.unwrap();
    let (two, _serving_two) = start(bind().await, &drain).await;

    let mut second = TcpStream::connect(two).await.unwrap();
    let early = time::timeout(Duration::from_millis(200), echo(&mut second, b"2")).await;
    assert!(early.is_err(), "the other server has used the limit up");

    drop(first);
    let mut answer = [0; 1];
    soon("it is served", second.read_exact(&mut answer)).await.unwrap();
}

#[tokio::test]
async fn everybody_in_the_queue_is_taken_when_the_drain_starts() {
    const CLIENTS: usize = 300;
    let listener = Listener::bind("127.0.0.1:0", &ListenOptions::default()).await.unwrap();
    let addr = listener.local_addr();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(TcpStream::connect(addr).await.unwrap());
    }
    let (drain, counts) = (Drain::new(), Arc::new(Counts::default()));
    drain.start();

    let server = Server::from_listener(listener).observe(Arc::clone(&counts) as Arc<dyn Observer>);
    let serving = tokio::spawn(server.serve(send_back(), drain.clone()));
    for client in &mut clients {
        soon("it is served", echo(client, b"x")).await.expect("nobody is reset");
    }

    drop(clients);
    soon("it ends", serving).await.unwrap().unwrap();
    assert_eq!(counts.accepted.load(Ordering::Relaxed), CLIENTS);
}

#[tokio::test]
async fn a_broken_listener_is_reported_at_once_and_its_connections_go_on() {
    let drain = Drain::new();
    let socket = Listener::open("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let same = socket.try_clone().unwrap();
    let server = Server::from_listener(Listener::from_std(socket).unwrap());
    let (addr, serving) = start(server, &drain).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    echo(&mut client, b"before").await.unwrap();

    socket2::SockRef::from(&same).shutdown(std::net::Shutdown::Both).unwrap();

    soon("it is reported", serving).await.unwrap().unwrap_err();
    assert_eq!(echo(&mut client, b"after").await.unwrap(), b"after");
    let finishing = tokio::spawn(async move { drain.finish(SOON).await });
    assert_eq!(echo(&mut client, b"during").await.unwrap(), b"during");
    drop(client);
    assert!(soon("it finishes", finishing).await.unwrap(), "nobody was forced");
}
