//! Connections, restarts, records, and many watches.

use std::process::Stdio;
use std::sync::Arc;

use meshlib_namerd::server::Name;
use meshlib_namerd::server::NamerdServer;

use super::NEG;
use super::WATCH;
use super::WEB;
use super::one;
use super::one_line;
use super::raw::Raw;
use super::raw::ask;
use super::raw::soon;
use super::server;

#[tokio::test]
async fn requests_are_recorded_as_they_came() {
    let namerd = server().await;
    let mut raw = Raw::connect(&namerd).await;
    raw.send("GET /api/1/resolve/default?path=%2Fsvc%2fweb HTTP/1.1\r\nHost: a:4180\r\nX-One: 1\r\n\r\n")
        .await;
    raw.answer().await;
    ask(&namerd, WEB).await;

    let requests = namerd.requests();

    let [first, second] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(first.target, "/api/1/resolve/default?path=%2Fsvc%2fweb");
    assert_eq!(
        first.head,
        "GET /api/1/resolve/default?path=%2Fsvc%2fweb HTTP/1.1\r\nHost: a:4180\r\nX-One: 1\r\n\r\n"
    );
    assert_eq!(first.method, "GET");
    assert_eq!(first.headers["host"], "a:4180");
    assert!(first.at <= second.at);
    assert_ne!(first.connection, second.connection);
    namerd.clear_requests();
    assert!(namerd.requests().is_empty());
}

#[tokio::test]
async fn it_listens_late_and_restarts_on_its_port() {
    let namerd = NamerdServer::reserve("127.0.0.1:0").await.unwrap();
    namerd.set("default", "/svc/web", one(1)).unwrap();
    let refused = || async { tokio::net::TcpStream::connect(namerd.addr()).await.unwrap_err().kind() };
    assert_eq!(refused().await, std::io::ErrorKind::ConnectionRefused);

    namerd.start().await.unwrap();
    let mut raw = Raw::connect(&namerd).await;
    raw.get(WATCH).await;
    raw.until("\r\n\r\n").await;
    assert_eq!(raw.chunk().await, one_line(1));
    assert_eq!((namerd.connections(), namerd.watches()), (1, 1));
    namerd.stop().await;
    assert_eq!(raw.rest().await.0, "");
    assert_eq!(refused().await, std::io::ErrorKind::ConnectionRefused);
    assert_eq!((namerd.connections(), namerd.watches()), (0, 0));

    namerd.restart().await.unwrap();
    assert_eq!(ask(&namerd, WEB).await.1, one_line(1));
}

#[tokio::test]
async fn dropping_it_closes_its_connections() {
    let namerd = server().await;
    let mut raw = Raw::connect(&namerd).await;
    raw.get(WATCH).await;
    raw.until("\r\n\r\n").await;
    assert_eq!(raw.chunk().await, NEG);

    drop(namerd);

    assert_eq!(raw.rest().await.0, "");
}

#[tokio::test]
async fn a_watch_ends_with_its_client() {
    let namerd = server().await;
    let mut raw = Raw::connect(&namerd).await;
    raw.get(WATCH).await;
    raw.until("\r\n\r\n").await;
    assert_eq!(namerd.watches(), 1);

    drop(raw);

    while namerd.watches() + namerd.connections() > 0 {
        soon(tokio::task::yield_now()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_watches_see_a_change() {
    let namerd = Arc::new(server().await);
    namerd.set("default", "/svc/web", one(1)).unwrap();
    let watches = (0..500).map(|_| {
        let namerd = Arc::clone(&namerd);
        tokio::spawn(async move {
            let mut raw = Raw::connect(&namerd).await;
            raw.get(WATCH).await;
            raw.until("\r\n\r\n").await;
            assert_eq!(raw.chunk().await, one_line(1));
            raw
        })
    });
    let mut watches = soon(futures::future::try_join_all(watches)).await.unwrap();
    assert_eq!(namerd.watches(), 500);

    namerd.set("default", "/svc/web", one(2)).unwrap();

    for raw in &mut watches {
        assert_eq!(raw.chunk().await, one_line(2));
    }
}

#[tokio::test]
async fn curl_reads_answers_and_watches() {
    let namerd = server().await;
    namerd.set("default", "/svc/web", one(1)).unwrap();
    let curl = |args: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "--noproxy", "*", "--max-time", "10"]).args(args);
        curl.stdout(Stdio::piped()).spawn()
    };
    let url = namerd.url();
    let Ok(plain) = curl(&["-i", &format!("{url}{WEB}")]) else {
        println!("skipped: no curl");
        return;
    };
    let plain = tokio::task::spawn_blocking(|| plain.wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8(plain.stdout).unwrap();
    assert!(text.ends_with(&format!("\r\n\r\n{}", one_line(1))), "{text}");

    namerd.clear_requests();
    let watch = curl(&["-N", &format!("{url}{WATCH}")]).unwrap();
    namerd.requested(1).await;
    while namerd.watches() == 0 {
        soon(tokio::task::yield_now()).await;
    }
    namerd.set("default", "/svc/web", Name::Throws("over".into())).unwrap();
    let watch = tokio::task::spawn_blocking(|| watch.wait_with_output()).await.unwrap().unwrap();
    assert!(watch.status.success());
    assert!(watch.stdout.ends_with(b"over\n"));
}
