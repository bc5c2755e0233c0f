//! Connections kept ready (`minConnections`).

use std::io;
use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time;

use crate::process::Program;
use crate::talk::exchange;
use crate::talk::fixed;
use crate::talk::greeted;
use crate::talk::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spares_are_there_from_the_start_and_replaced_when_taken() {
    let backends = [Echo::start().await, Echo::start().await];
    let addrs = backends.each_ref().map(Echo::addr);
    let program = Program::start(&fixed(&addrs, "", "minConnections: 4"));
    let open = async || backends.iter().map(Echo::open).sum::<usize>();
    until("four spares", async || open().await == 4).await;

    for _ in 0..20 {
        exchange(program.addr()).await.unwrap();
    }

    until("four spares again", async || open().await == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_came_early_reaches_the_client_once() {
    let backend = EchoOptions::default().with_greeting("220 ready").start().await.unwrap();
    let program = Program::start(&fixed(&[backend.addr()], "", "minConnections: 2"));
    until("two spares", async || backend.open() == 2).await;

    for _ in 0..6 {
        let (mut io, greeting) = greeted(program.addr(), 9).await.unwrap();
        assert_eq!(greeting, "220 ready");
        io.write_all(b"quit").await.unwrap();
        io.shutdown().await.unwrap();
        let mut rest = String::new();
        io.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "quit");
    }
}

/// An endpoint that closes what is idle, and answers what is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_that_its_endpoint_closed_is_not_given_to_a_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let backend = tokio::spawn(async move {
        let mut closed = 0;
        loop {
            let (mut io, _) = listener.accept().await.unwrap();
            closed += 1;
            tokio::spawn(async move {
                let mut buf = [0; 16];
                // Every other one dies young, some of them in anger.
                let patience = Duration::from_millis(if closed % 2 == 0 { 30 } else { 60_000 });
                match time::timeout(patience, io.read(&mut buf)).await {
                    Err(_) if closed % 4 == 0 => io.set_zero_linger(),
                    Err(_) => Ok(()),
                    Ok(read) => {
                        let n = read?;
                        io.write_all(&buf[..n]).await?;
                        io.shutdown().await?;
                        while io.read(&mut buf).await? > 0 {}
                        Ok::<_, io::Error>(())
                    }
                }
            });
        }
    });
    let program = Program::start(&fixed(&[addr], "", "minConnections: 4"));

    for _ in 0..30 {
        time::sleep(Duration::from_millis(40)).await;
        exchange(program.addr()).await.unwrap();
    }
    backend.abort();
}
