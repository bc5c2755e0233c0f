use std::collections::VecDeque;
use std::future;
use std::sync::Arc;
use std::sync::Mutex;

use futures::SinkExt;
use futures::channel::mpsc;
use futures::stream;
use h2::Ping;
use h2::RecvStream;
use h2::client::SendRequest;
use http::Request;
use http::Response;
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::*;
use crate::drain::Drain;
use crate::http::HttpServer;
use crate::http::ServerOptions;
use crate::io::Io;
use crate::session::Conn;
use crate::session::Session;

const WITHIN: Duration = Duration::from_secs(10);
const LARGE: usize = 1 << 20;
/// What the documentation asks of a client within that time.
const NEXT: usize = 32 * 1024;

/// A client whose requests get these bodies one after the other. It gives each stream so much credit before it reads, and
/// never ceases to send pings.
async fn client(bodies: impl IntoIterator<Item = Body>, credit: u32) -> SendRequest<Bytes> {
    let bodies = Arc::new(Mutex::new(VecDeque::from_iter(bodies)));
    let service = tower::service_fn(move |_: Request<Body>| {
        let body = bodies.lock().unwrap().pop_front().unwrap();
        future::ready(Ok(Response::new(body)))
    });
    let (near, far) = tokio::io::duplex(1024);
    let session = Session { alpn: Some(b"h2".as_slice().into()), ..Session::default() };
    let conn = Conn::new(Io::new(near), session, Drain::new().draining());
    let options = ServerOptions::default().with_write_within(WITHIN);
    tokio::spawn(HttpServer::with_options(service, options).oneshot(conn));

    let mut builder = h2::client::Builder::new();
    let (requests, mut connection) = builder.initial_window_size(credit).handshake(far).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    tokio::spawn(async move {
        while pings.ping(Ping::opaque()).await.is_ok() {
            time::sleep(WITHIN / 10).await;
        }
    });
    requests
}

async fn get(requests: &mut SendRequest<Bytes>) -> RecvStream {
    let request = Request::get("http://x/").body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    answer.await.unwrap().into_body()
}

/// Takes what comes next; zero at the end.
async fn take(stream: &mut RecvStream) -> usize {
    let Some(data) = stream.data().await else { return 0 };
    let n = data.unwrap().len();
    stream.flow_control().release_capacity(n).unwrap();
    n
}

/// Takes everything.
async fn take_all(stream: &mut RecvStream) -> usize {
    let mut taken = 0;
    loop {
        match take(stream).await {
            0 => return taken,
            n => taken += n,
        }
    }
}

/// Chunks of an endpoint that sends as fast as they are taken.
fn chunks(n: usize, size: usize) -> Body {
    let chunk = Bytes::from(vec![b'x'; size]);
    Body::from_stream(stream::iter((0..n).map(move |_| Ok(chunk.clone()))))
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_taken_ends_and_the_others_go_on() {
    for credit in [0, 1, 1000] {
        for untaken in [Body::from(vec![b'x'; LARGE]), chunks(2, LARGE), chunks(usize::MAX, 100)] {
            let (held, freed) = oneshot::channel::<()>();
            let (mut endpoint, other) = mpsc::channel(1);
            let bodies = [Body::from_stream(other), untaken.holding(held), chunks(1, 100)];
            let mut requests = client(bodies, credit).await;
            let mut other = get(&mut requests).await;
            let mut untaken = get(&mut requests).await;
            let began = Instant::now();

            time::timeout(2 * WITHIN, freed).await.expect("it is dropped").unwrap_err();

            assert_eq!(began.elapsed().as_secs(), WITHIN.as_secs());
            let error = loop {
                if let Err(error) = untaken.data().await.expect("it does not just end") {
                    break error;
                }
            };
            assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
            endpoint.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
            drop(endpoint);
            if credit > 0 {
                assert_eq!(take_all(&mut other).await, 1);
                assert_eq!(take_all(&mut get(&mut requests).await).await, 100);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_may_pause_for_longer() {
    let (mut endpoint, body) = mpsc::channel(1);
    let mut requests = client([Body::from_stream(body)], 1000).await;
    let mut answer = get(&mut requests).await;

    for _ in 0..3 {
        // More than there is credit for: the stream waits for the client first.
        endpoint.send(Ok(Bytes::from(vec![b'x'; 8 * NEXT]))).await.unwrap();
        let mut taken = 0;
        while taken < 8 * NEXT {
            taken += take(&mut answer).await;
        }
        time::sleep(3 * WITHIN).await;
    }
    drop(endpoint);

    assert_eq!(take(&mut answer).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_taken_slowly_is_taken_whole() {
    for body in [Body::from(vec![b'x'; 2 * LARGE]), chunks(2, LARGE), chunks(2 * LARGE / 1024, 1024)] {
        let mut requests = client([body], 64 * 1024).await;
        let mut answer = get(&mut requests).await;
        let began = Instant::now();

        let (mut taken, mut pause_at) = (0, 0);
        loop {
            match take(&mut answer).await {
                0 => break,
                n => taken += n,
            }
            if taken > pause_at {
                time::sleep(WITHIN / 2).await;
                pause_at = taken + NEXT;
            }
        }

        assert_eq!(taken, 2 * LARGE);
        assert!(began.elapsed() > 10 * WITHIN, "{:?}", began.elapsed());
    }
}
