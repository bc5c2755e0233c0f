//! What an authority says about when to renew, in a directory that offers little else.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use http::Request;
use http::Response;
use meshlib::Drain;
use meshlib::Error;
use meshlib::Server;
use meshlib::TlsLayer;
use meshlib::http::Body;
use meshlib::http::HttpServer;
use meshlib::store::KvStore;
use meshlib::store::MemoryStore;
use meshlib::store::When;
use meshlib::test_util::CertOptions;
use meshlib::test_util::TestCa;
use meshlib::tls;
use meshlib::tls::acme::AcmeOptions;
use meshlib::tls::acme::NameState;
use tokio::time;
use tower::Layer;

use crate::clock;
use crate::rig::FIRST;
use crate::rig::Node;
use crate::rig::until;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority that says when to renew, and takes no orders.
struct Suggesting {
    ca: TestCa,
    port: u16,
    script: Arc<Script>,
}

/// The answer to questions about renewals: status, `Retry-After`, body.
type Answer = (u16, Option<&'static str>, String);

struct Script {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
    /// What was asked about last.
    path: Mutex<String>,
}

impl Suggesting {
    async fn start(answer: Answer) -> Self {
        let ca = TestCa::new();
        let script =
            Arc::new(Script { answer: answer.into(), asked: AtomicUsize::new(0), path: Mutex::default() });
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().port();
        let service = tower::service_fn({
            let script = Arc::clone(&script);
            move |request: Request<Body>| {
                let response = script.answer(port, request.uri().path());
                async move { Ok::<_, Error>(response) }
            }
        });
        let policy = tls::Terminate::new(ca.server_config(["127.0.0.1"]));
        tokio::spawn(server.serve(TlsLayer::new(policy).layer(HttpServer::new(service)), Drain::new()));
        Self { ca, port, script }
    }

    fn says(&self, answer: Answer) {
        *self.script.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }

    /// A node with a certificate of 90 days that is a day old, at an hour that the test sets.
    async fn node(&self, clock: &Arc<clock::Set>) -> Node {
        let store = MemoryStore::new();
        let begin = SystemTime::now() - DAY;
        let options = CertOptions::default().with_validity(begin, begin + 90 * DAY);
        let cert = self.ca.issue_with(["app.example.test"], &options);
        let json = serde_json::json!({
            "hostname": "app.example.test", "date": "2026-01-01", "valid_days": 90,
            "key_pem": cert.key_pem(), "cert_pem": cert.chain_pem(),
        });
        let options = AcmeOptions::new(self.ca.client_config())
            .with_directory(format!("https://127.0.0.1:{}/dir", self.port))
            .with_clock(clock.clone());
        let any: (IpAddr, u16) = (FIRST, 0);
        let key = format!("certs@{}/app.example.test", mark(&options.directory));
        store.put(&key, json.to_string().into(), When::Always).await.unwrap();
        let node = Node::start(Arc::new(store), any, any, options).await;
        node.manager.want(["app.example.test"]).unwrap();
        node
    }
}

impl Script {
    fn answer(&self, port: u16, path: &str) -> Response<Body> {
        if path == "/dir" {
            let url = |name: &str| format!("https://127.0.0.1:{port}/{name}");
            let directory = serde_json::json!({
                "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
                "renewalInfo": url("renewal"),
            });
            return Response::new(Body::from(directory.to_string()));
        }
        let Some(id) = path.strip_prefix("/renewal/") else {
            return Response::builder().status(404).body(Body::from("{}")).unwrap();
        };
        *self.path.lock().unwrap() = id.to_owned();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (status, retry_after, body) = self.answer.lock().unwrap().clone();
        let mut response = Response::builder().status(status);
        if let Some(wait) = retry_after {
            response = response.header("retry-after", wait);
        }
        response.body(Body::from(body)).unwrap()
    }
}

/// By what the keys of a directory are told from those of others: the first 16 digits of SHA-256.
fn mark(directory: &str) -> String {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let hash = suite.common.hash_provider.hash(directory.as_bytes());
    hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn window(start: &str, end: &str) -> String {
    serde_json::json!({"suggestedWindow": {"start": start, "end": end}}).to_string()
}

const PAST: (&str, &str) = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
const FUTURE: (&str, &str) = ("2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z");

async fn asked(authority: &Suggesting, times: usize) {
    until(|| (authority.asked() >= times).then_some(())).await;
}

/// What comes of an answer, after it was given.
async fn outcome(node: &Node) -> (NameState, usize) {
    time::sleep(Duration::from_millis(300)).await;
    (node.view("app.example.test").state, node.orders.len())
}

#[tokio::test]
async fn a_window_in_the_past_means_now() {
    let authority = Suggesting::start((200, Some("21600"), window(PAST.0, PAST.1))).await;
    let node = authority.node(&clock::Set::now()).await;

    // It takes no orders, so this one fails; that it was placed is what counts.
    node.orders.failure("app.example.test").await;

    assert_eq!(authority.asked(), 1);
    let id = authority.script.path.lock().unwrap().clone();
    let (issuer, serial) = id.split_once('.').unwrap();
    assert!(!issuer.is_empty() && !serial.is_empty() && !id.contains('='));
}

#[tokio::test]
async fn other_answers_change_nothing() {
    let answers = [
        (200, Some("21600"), window(FUTURE.0, FUTURE.1)),
        (200, Some("21600"), window(PAST.1, PAST.0)),
        (200, None, "not JSON".to_owned()),
        (200, None, window("yesterday", "tomorrow")),
        (404, None, "{}".to_owned()),
        (403, Some("soon"), String::new()),
    ];
    for answer in answers {
        let about = format!("{answer:?}");
        let authority = Suggesting::start(answer).await;
        let node = authority.node(&clock::Set::now()).await;
        asked(&authority, 1).await;

        assert_eq!(outcome(&node).await, (NameState::Valid, 0), "{about}");
        assert_eq!(authority.asked(), 1, "{about}");
    }
}

#[tokio::test]
async fn it_is_asked_again_when_it_says_so() {
    let authority = Suggesting::start((200, Some("7200"), window(FUTURE.0, FUTURE.1))).await;
    let clock = clock::Set::now();
    let node = authority.node(&clock).await;
    asked(&authority, 1).await;
    assert_eq!(outcome(&node).await, (NameState::Valid, 0));
    authority.says((200, Some("0"), window(PAST.0, PAST.1)));

    clock.advance(Duration::from_secs(7000));
    node.manager.wake();
    assert_eq!(outcome(&node).await, (NameState::Valid, 0));
    assert_eq!(authority.asked(), 1);
    clock.advance(Duration::from_secs(300));
    node.manager.wake();

    node.orders.failure("app.example.test").await;
    assert_eq!(authority.asked(), 2);
}

#[tokio::test]
async fn without_a_suggestion_half_of_the_life_counts() {
    let authority = Suggesting::start((404, None, String::new())).await;
    let clock = clock::Set::now();
    let node = authority.node(&clock).await;
    asked(&authority, 1).await;

    clock.advance(40 * DAY);
    node.manager.wake();
    assert_eq!(outcome(&node).await, (NameState::Valid, 0));
    clock.advance(7 * DAY);
    node.manager.wake();

    node.orders.failure("app.example.test").await;
}
