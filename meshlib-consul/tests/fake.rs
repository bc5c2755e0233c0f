//! Answers that no good agent gives: each is survived, and the last good value kept.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use meshlib::Resolver;
use meshlib::Update;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use meshlib_consul::ConsulError;
use meshlib_consul::watch::Degraded;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time;

const LONG: Duration = Duration::from_secs(30);

/// What is done with a request.
#[derive(Clone)]
enum Reply {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, and the end of the connection.
    Cut(Vec<u8>),
    /// A body that never ends.
    Endless,
    /// Nothing.
    Silence,
}

/// A server that answers requests by a list, and the ones after its end not at all. Requests for the leader are answered
/// apart from the list.
struct Fake {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<std::collections::VecDeque<_>>()));
        let log = Arc::clone(&asked);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&replies), Arc::clone(&log)));
            }
        });
        Self { addr, asked }
    }

    fn config(&self) -> Config {
        Config::new(format!("http://{}", self.addr)).with_wait(Duration::from_secs(1))
    }

    fn consul(&self) -> Consul {
        Consul::new(self.config()).unwrap()
    }

    /// The indices that were sent, in order; nothing for a request without.
    fn indices(&self) -> Vec<Option<u64>> {
        let index = |line: &String| {
            let (_, index) = line.split_once("index=")?;
            index.split(['&', ' ']).next()?.parse().ok()
        };
        self.asked.lock().unwrap().iter().map(index).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    replies: Arc<Mutex<std::collections::VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut buf = Vec::new();
    loop {
        while !buf.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buf).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8(std::mem::take(&mut buf)).unwrap();
        assert!(head.contains("accept-encoding: gzip"), "{head}");
        let line = head.lines().next().unwrap().to_owned();
        if line.contains("/v1/status/leader") {
            if stream.write_all(&ok("", br#""127.0.0.1:8300""#)).await.is_err() {
                return;
            }
            continue;
        }
        asked.lock().unwrap().push(line);
        let reply = replies.lock().unwrap().pop_front();
        match reply.unwrap_or(Reply::Silence) {
            Reply::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Cut(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-consul-index: 11\r\n\r\n").await;
                let zeros = vec![b' '; 1 << 20];
                while stream.write_all(&zeros).await.is_ok() {}
                return;
            }
            Reply::Silence => {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ok(fields: &str, body: &[u8]) -> Vec<u8> {
    answer("200 OK", fields, body)
}

/// The value of the key `k` at an index.
fn pair(index: &str, value: &str) -> Vec<u8> {
    // `a` and `b` in base64.
    let value = if value == "a" { "YQ==" } else { "Yg==" };
    let body = format!(r#"[{{"Key":"k","Value":"{value}","ModifyIndex":1}}]"#);
    ok(&format!("x-consul-index: {index}\r\n"), body.as_bytes())
}

/// What was told of the key `k` until it became `b`: values and what went wrong.
async fn told(fake: &Fake) -> Vec<String> {
    let mut levels = fake.consul().kv_watch("k").unwrap();
    let mut all = Vec::new();
    loop {
        let level =
            time::timeout(LONG, levels.next()).await.unwrap_or_else(|_| panic!("stuck after {all:?}"));
        let level = level.unwrap();
        let value = level.value.flatten().map(|pair| String::from_utf8(pair.value.to_vec()).unwrap());
        let value = value.unwrap_or_default();
        let is_last = value == "b";
        all.push(match level.degraded {
            Some(Degraded::Failing(error)) => format!("{value} {}", kind(&error)),
            Some(other) => format!("{value} {other:?}"),
            None => value,
        });
        if is_last {
            return all;
        }
    }
}

fn kind(error: &ConsulError) -> &'static str {
    match error {
        ConsulError::Unreachable { .. } => "unreachable",
        ConsulError::Timeout { .. } => "timeout",
        ConsulError::Denied { .. } => "denied",
        ConsulError::Status { .. } => "status",
        ConsulError::Decode { .. } => "decode",
        ConsulError::TooLarge { .. } => "too large",
        ConsulError::NoIndex { .. } => "no index",
        _ => "other",
    }
}

/// The key is `a`, then comes something odd, then it is `b`.
async fn between(odd: Reply) -> (Vec<String>, Vec<Option<u64>>) {
    let fake = Fake::start([Reply::Bytes(pair("10", "a")), odd, Reply::Bytes(pair("12", "b"))]).await;
    let told = told(&fake).await;
    (told, fake.indices())
}

#[tokio::test]
async fn what_fails_keeps_the_value_and_starts_over() {
    let body = br#"[{"Key":"k","Value":"Yg==","ModifyIndex":1}]"#;
    let odd = [
        (answer("500 Internal Server Error", "x-consul-index: 1\r\n", b"No cluster leader"), "status"),
        (answer("301 Moved Permanently", "location: /elsewhere\r\nx-consul-index: 1\r\n", b""), "status"),
        (answer("400 Bad Request", "", b"Invalid index"), "status"),
        (ok("", body), "no index"),
        (ok("x-consul-index: many\r\n", body), "no index"),
        (ok("x-consul-index: -1\r\n", body), "no index"),
        (ok("x-consul-index: 11\r\n", br#"{"no": "list"}"#), "decode"),
        (ok("x-consul-index: 11\r\n", br#"[{"Key":"k","#), "decode"),
        (ok("x-consul-index: 11\r\ncontent-encoding: gzip\r\n", body), "decode"),
    ];

    for (bytes, kind) in odd {
        let (told, indices) = between(Reply::Bytes(bytes.clone())).await;

        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(told, ["a".to_owned(), format!("a {kind}"), "b".to_owned()], "{text}");
        assert_eq!(indices, [None, Some(10), None], "{text}");
    }
}

#[tokio::test]
async fn half_a_body_is_no_answer() {
    let mut half = pair("11", "b");
    half.truncate(half.len() - 5);

    let (told, indices) = between(Reply::Cut(half)).await;

    assert_eq!(told, ["a", "a unreachable", "b"]);
    assert_eq!(indices, [None, Some(10), None]);
}

#[tokio::test]
async fn a_body_without_an_end_is_left() {
    let (told, _) = between(Reply::Endless).await;

    assert_eq!(told, ["a", "a too large", "b"]);
}

#[tokio::test]
async fn no_answer_at_all_is_noticed() {
    let (told, indices) = between(Reply::Silence).await;

    assert_eq!(told, ["a", "a timeout", "b"]);
    assert_eq!(indices, [None, Some(10), None]);
}

#[tokio::test]
async fn an_index_that_goes_back_is_followed_from_the_start() {
    let replies = [pair("10", "a"), pair("3", "a"), pair("3", "a"), pair("4", "b")].map(Reply::Bytes);
    let fake = Fake::start(replies).await;

    assert_eq!(told(&fake).await, ["a", "b"]);

    assert_eq!(fake.indices(), [None, Some(10), None, Some(3)]);
}

#[tokio::test]
async fn an_index_of_zero_is_waited_on_as_one() {
    let fake = Fake::start([pair("0", "a"), pair("2", "b")].map(Reply::Bytes)).await;

    assert_eq!(told(&fake).await, ["a", "b"]);

    assert_eq!(fake.indices(), [None, Some(1)]);
}

#[tokio::test]
async fn too_many_connections_are_no_failure_of_consul() {
    let busy = Reply::Bytes(answer("429 Too Many Requests", "", b"limit"));

    let (told, indices) = between(busy).await;

    assert_eq!(told, ["a", "b"], "nothing is degraded");
    assert_eq!(indices, [None, Some(10), None]);
}

#[tokio::test]
async fn a_server_without_a_leader_is_believed_and_said_to_be_degraded() {
    let body = br#"[{"Key":"k","Value":"YQ==","ModifyIndex":1}]"#;
    let blind = ok("x-consul-index: 10\r\nx-consul-knownleader: false\r\n", body);
    let late =
        ok("x-consul-index: 11\r\nx-consul-knownleader: true\r\nx-consul-lastcontact: 42850\r\n", body);
    let fake = Fake::start([blind, late, pair("12", "b")].map(Reply::Bytes)).await;

    let told = told(&fake).await;

    assert_eq!(told, ["a NoLeader", "a Lagging(42.85s)", "b"]);
    assert_eq!(fake.indices(), [None, Some(10), Some(11)]);
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let body = br#"[{"Key":"k","Value":"Yg==","ModifyIndex":1}]"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).unwrap();
    let gzip = ok("x-consul-index: 10\r\ncontent-encoding: gzip\r\n", &gzip.finish().unwrap());
    let fake = Fake::start([Reply::Bytes(gzip)]).await;

    assert_eq!(told(&fake).await, ["b"]);
}

#[tokio::test]
async fn a_compressed_answer_that_grows_beyond_all_bounds_is_left() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..65 {
        gzip.write_all(&blanks).unwrap();
    }
    let bomb = ok("x-consul-index: 11\r\ncontent-encoding: gzip\r\n", &gzip.finish().unwrap());
    assert!(bomb.len() < 1 << 20);

    let (told, _) = between(Reply::Bytes(bomb)).await;

    assert_eq!(told, ["a", "a too large", "b"]);
}

#[tokio::test]
async fn a_key_that_is_missing_is_an_answer() {
    let missing = answer("404 Not Found", "x-consul-index: 10\r\n", b"");
    let fake = Fake::start([missing, pair("11", "b")].map(Reply::Bytes)).await;

    assert_eq!(told(&fake).await, ["", "b"]);

    assert_eq!(fake.indices(), [None, Some(10)]);
}

#[tokio::test]
async fn nulls_and_ports_that_are_none_cost_their_entries_only() {
    let entry = |id: &str, port: u32| {
        format!(
            r#"{{"Node":{{"Node":"n","Address":"10.0.0.1","Meta":null,"TaggedAddresses":null}},"Service":{{"ID":"{id}",
                "Service":"web","Port":{port},"Tags":null,"Meta":null}},"Checks":null}}"#
        )
    };
    let body = format!("[{},{},null,{{\"Node\":7}}]", entry("a", 70_000), entry("b", 8001));
    let null = ok("x-consul-index: 11\r\n", b"null");
    let fake =
        Fake::start([Reply::Bytes(ok("x-consul-index: 10\r\n", body.as_bytes())), Reply::Bytes(null)]).await;

    let mut web = fake.consul().service("web").resolve(());

    let first = time::timeout(LONG, web.next()).await.unwrap().unwrap().unwrap();
    let Update::Endpoints(endpoints) = first else { panic!("{first:?}") };
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.addr.port()).collect::<Vec<_>>(), [8001]);
}

/// The agent closes a connection that is one too many without a word.
#[tokio::test]
async fn a_connection_that_is_closed_at_once_is_one_too_many() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (open, most) = (Arc::new(()), 8);
    let counted = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if Arc::strong_count(&counted) > most {
                continue;
            }
            let held = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut buf = Vec::new();
                while stream.read_buf(&mut buf).await.is_ok_and(|n| n > 0) {
                    if buf.ends_with(b"\r\n\r\n") {
                        let waits = String::from_utf8_lossy(&buf).contains("index=");
                        time::sleep(Duration::from_millis(if waits { 1000 } else { 1 })).await;
                        buf.clear();
                        if stream.write_all(&pair("10", "a")).await.is_err() {
                            break;
                        }
                    }
                }
                drop(held);
            });
        }
    });
    let config = Config::new(format!("http://{addr}")).with_wait(Duration::from_secs(1));
    let consul = Consul::new(config).unwrap();
    let watches = (0..30).map(|n| {
        let mut levels = consul.kv_watch(&format!("k{n}")).unwrap();
        async move {
            loop {
                let level = levels.next().await.unwrap();
                assert!(level.degraded.is_none(), "{:?}", level.degraded);
                if level.value.is_some() {
                    return;
                }
            }
        }
    });

    time::timeout(LONG, futures::future::join_all(watches)).await.expect("all get their turn");
}
