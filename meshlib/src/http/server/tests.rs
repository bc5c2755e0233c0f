use std::io;

use http::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time;
use tokio::time::Instant;

use tower::ServiceExt;

use super::*;
use crate::drain::Drain;
use crate::error::Fault;
use crate::io::Io;
use crate::session::Session;

const WITHIN: Duration = Duration::from_secs(10);
const LARGE: usize = 1 << 20;

/// A connection to a server with this service.
fn client<S>(service: S) -> (DuplexStream, JoinHandle<Result<(), Error>>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let (near, far) = tokio::io::duplex(1024);
    let conn = Conn::new(Io::new(near), Session::default(), Drain::new().draining());
    let options = ServerOptions::default().with_write_within(WITHIN);
    (far, tokio::spawn(HttpServer::with_options(service, options).oneshot(conn)))
}

fn large() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Error,
    Future = impl Future<Output = Result<Response<Body>, Error>> + Send,
> + Clone
+ Send {
    tower::service_fn(async |_| Ok(Response::new(Body::from(vec![b'x'; LARGE]))))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_off() {
    let (mut client, serving) = client(large());
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let began = Instant::now();

    let error = serving.await.unwrap().unwrap_err();

    assert_eq!(began.elapsed().as_secs(), WITHIN.as_secs());
    assert_eq!(error.fault(), Fault::Client);
    assert!(error.chain().to_string().contains("no byte was taken"), "{}", error.chain());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_it_all() {
    let (mut client, serving) = client(large());
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();

    let mut taken = 0;
    loop {
        time::sleep(WITHIN / 2).await;
        match client.read(&mut [0; 16 * 1024]).await.unwrap() {
            0 => break,
            n => taken += n,
        }
    }

    assert!(taken > LARGE, "{taken}");
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_has_no_deadline() {
    let (written_tx, mut written) = tokio::sync::mpsc::channel(1);
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let written = written_tx.clone();
        tokio::spawn(async move {
            let mut io = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            written.send(io.write_all(&[b'x'; 8192]).await).await.unwrap();
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "own".parse().unwrap());
        std::future::ready(Ok(response))
    });
    let (mut client, serving) = client(service);
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: own\r\n\r\n";
    client.write_all(request).await.unwrap();
    serving.await.unwrap().unwrap();

    time::sleep(10 * WITHIN).await;
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();

    assert!(rest.ends_with(&[b'x'; 8192]));
    let written: io::Result<()> = written.recv().await.unwrap();
    written.unwrap();
}
