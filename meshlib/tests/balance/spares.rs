//! Connections kept ready.

use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::connect::SpareLayer;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time;
use tower::Layer;
use tower::ServiceExt;

/// What must happen at all must happen within this.
const SOON: Duration = Duration::from_secs(10);

/// As TLS does: its last words come before the end and hide it.
#[tokio::test]
async fn a_spare_that_was_closed_after_some_words_is_given_to_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balance = BalanceLayer::new(Static::new([listener.local_addr().unwrap()]), "web")
        .layer(TcpConnector::default());
    let spares = SpareLayer::new(1).layer(balance);
    spares.start();
    let (mut first, _) = time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    while spares.ready() == 0 {
        time::sleep(Duration::from_millis(1)).await;
    }

    first.write_all(b"bye").await.unwrap();
    drop(first);
    time::sleep(Duration::from_millis(50)).await;
    let mut client = tokio::spawn(spares.clone().oneshot(Session::default()));
    let (mut second, _) = time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    second.write_all(b"hello").await.unwrap();

    let mut io = time::timeout(SOON, &mut client).await.unwrap().unwrap().unwrap();
    let mut words = [0; 5];
    assert!(time::timeout(SOON, io.read_exact(&mut words)).await.unwrap().is_ok(), "it is open");
    assert_eq!(&words, b"hello");
}

#[tokio::test]
async fn a_spare_that_has_become_too_old_is_closed_and_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balance = BalanceLayer::new(Static::new([listener.local_addr().unwrap()]), "web")
        .layer(TcpConnector::default());
    let spares = SpareLayer::new(1).max_age(Duration::from_millis(100)).layer(balance);
    spares.start();
    let (mut old, _) = time::timeout(SOON, listener.accept()).await.unwrap().unwrap();

    let closed = time::timeout(SOON, old.read(&mut [0])).await.expect("it is closed");

    assert_eq!(closed.unwrap(), 0);
    time::timeout(SOON, listener.accept()).await.expect("another takes its place").unwrap();
}
