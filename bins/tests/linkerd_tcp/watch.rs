//! Watches that end, and what they would have told.

use std::time::Duration;

use meshlib::test_util::Echo;
use meshlib_namerd::api::Addr;
use meshlib_namerd::server::Fault;
use meshlib_namerd::server::NamerdServer;
use meshlib_namerd::server::Step;
use tokio::time::Instant;

use crate::process::Program;
use crate::talk;
use crate::talk::NAME;
use crate::talk::exchange;
use crate::talk::routers;
use crate::talk::set;
use crate::talk::until;

/// A program that polls so seldom that a change can only come by a watch.
fn watching(namerd: &NamerdServer) -> Program {
    Program::start(&routers(&namerd.url(), "", "").replace("periodSecs: 20", "periodSecs: 3600"))
}

/// Sets one endpoint and waits until it is used.
async fn moved(namerd: &NamerdServer, program: &Program, to: &Echo) {
    let before = to.accepted();
    set(namerd, &[to.addr()]);
    until("the new endpoint is used", async || {
        exchange(program.addr()).await.unwrap();
        to.accepted() > before
    })
    .await;
}

/// Each time a change comes while nobody watches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_lost_between_a_watch_and_the_next() {
    let backends = [Echo::start().await, Echo::start().await];
    let namerd = talk::namerd(&[backends[0].addr()]).await;
    let program = watching(&namerd);
    exchange(program.addr()).await.unwrap();

    for round in 1..=4 {
        until("the watch is open", async || namerd.watches() == 1).await;
        if round % 2 == 0 {
            namerd.close_connections()
        } else {
            namerd.reset_connections()
        }
        moved(&namerd, &program, &backends[round % 2]).await;
    }
}

/// A proper end of the answer is no trouble, and no reason to ask in a tight loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_ends_well_is_opened_again_after_a_pause() {
    let (old, new) = (Echo::start().await, Echo::start().await);
    let namerd = talk::namerd(&[old.addr()]).await;
    let body = format!("{}\n", Addr::bound([old.addr()]).to_json());
    let whole = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    namerd.fault("default", NAME, Fault::Raw(vec![Step::Send(whole.into())])).unwrap();
    let began = Instant::now();
    let program = watching(&namerd);
    exchange(program.addr()).await.unwrap();
    let watches = || namerd.requests().iter().filter(|request| request.target.contains("watch=true")).count();

    until("it is watched again and again", async || watches() >= 4).await;
    // Three pauses of a second, of each of which half may be left out.
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    namerd.fault("default", NAME, None).unwrap();

    moved(&namerd, &program, &new).await;
}
