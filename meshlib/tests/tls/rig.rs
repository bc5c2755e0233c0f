//! A TLS server and a TLS client made of the layers under test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use meshlib::Conn;
use meshlib::Drain;
use meshlib::Endpoint;
use meshlib::Error;
use meshlib::Io;
use meshlib::Server;
use meshlib::Session;
use meshlib::TcpConnector;
use meshlib::TlsLayer;
use meshlib::To;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::tls::Always;
use meshlib::tls::ClientTls;
use meshlib::tls::TlsError;
use meshlib::tls::TlsPolicy;
use tokio::io::AsyncWriteExt;
use tokio::time;
use tower::Layer;
use tower::ServiceExt;

/// What must happen at all must happen within this.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A server that sends back what it gets, after a policy has had its say.
pub(crate) struct Accepting {
    pub(crate) addr: SocketAddr,
    log: Arc<Log>,
}

/// What became of the connections, in order.
#[derive(Debug, Default)]
struct Log {
    sessions: Mutex<Vec<Session>>,
    failures: Mutex<Vec<String>>,
}

impl Observer for Log {
    fn on(&self, event: &Event<'_>) {
        if let Event::Ended { error: Some(error), .. } = event {
            self.failures.lock().unwrap().push(error.chain().to_string());
        }
    }
}

impl Accepting {
    pub(crate) async fn start(policy: impl TlsPolicy) -> Self {
        Self::layered(TlsLayer::new(policy)).await
    }

    pub(crate) async fn layered(layer: TlsLayer) -> Self {
        let log = Arc::<Log>::default();
        let send_back = {
            let log = Arc::clone(&log);
            tower::service_fn(move |conn: Conn| {
                log.sessions.lock().unwrap().push(conn.session);
                async move {
                    let (mut input, mut output) = tokio::io::split(conn.io);
                    // The client may be gone at any time.
                    let _ = tokio::io::copy(&mut input, &mut output).await;
                    let _ = output.shutdown().await;
                    Ok::<_, Error>(())
                }
            })
        };
        let server = Server::bind("127.0.0.1:0").await.unwrap().observe(log.clone());
        let addr = server.local_addr();
        tokio::spawn(server.serve(layer.layer(send_back), Drain::new()));
        Self { addr, log }
    }

    /// The facts about the latest connection that was let through.
    pub(crate) fn session(&self) -> Session {
        self.log.sessions.lock().unwrap().last().expect("a connection was let through").clone()
    }

    /// The first failure, in one line.
    pub(crate) async fn failure(&self) -> String {
        let failure = async {
            loop {
                if let Some(failure) = self.log.failures.lock().unwrap().first() {
                    return failure.clone();
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, failure).await.expect("it fails soon")
    }
}

/// Connects to an address as a policy says.
pub(crate) async fn connect(addr: SocketAddr, policy: impl TlsPolicy) -> Result<Io, Error> {
    let connect = TlsLayer::new(policy).layer(TcpConnector::default());
    time::timeout(SOON, connect.oneshot(To::new(Endpoint::new(addr), Session::default())))
        .await
        .expect("it connects or fails soon")
}

/// Connects to an address in TLS.
pub(crate) async fn connect_tls(addr: SocketAddr, tls: ClientTls) -> Result<Io, Error> {
    connect(addr, Always::new(tls)).await
}

/// The reason for which no TLS came about.
pub(crate) fn tls_error(outcome: Result<Io, Error>) -> TlsError {
    match outcome {
        Err(Error::Tls { source, .. }) => *source,
        other => panic!("{other:?}"),
    }
}
