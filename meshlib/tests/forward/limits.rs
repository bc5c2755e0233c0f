//! Limits on silence and on the whole, and the time that answers take. In memory, where the clock can be stopped.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use meshlib::Error;
use meshlib::ForwardOptions;
use meshlib::Io;
use meshlib::Phase;
use meshlib::Transferred;
use meshlib::forward;
use meshlib::io::PeerStats;
use meshlib::test_util::echo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn relay(options: ForwardOptions) -> (DuplexStream, DuplexStream, JoinHandle<Result<Transferred, Error>>) {
    let (mut ours, client) = tokio::io::duplex(4096);
    let (mut upstream, server) = tokio::io::duplex(4096);
    let relay = tokio::spawn(async move { forward(&mut ours, &mut upstream, &options).await });
    (client, server, relay)
}

fn assert_timeout(outcome: Result<Transferred, Error>, expected: Phase, limit: Duration) {
    match outcome {
        Err(Error::Timeout { phase, after }) if phase == expected => assert_eq!(after, limit),
        other => panic!("{other:?} is not a timeout of {expected:?}"),
    }
}

async fn send_back(mut server: DuplexStream) {
    let mut buf = [0; 100];
    while let Ok(n @ 1..) = server.read(&mut buf).await {
        if server.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection_and_words_prolong_it() {
    let (mut client, server, relay) = relay(ForwardOptions::default().with_idle_timeout(Some(10 * SECOND)));
    tokio::spawn(send_back(server));

    for _ in 0..5 {
        time::sleep(9 * SECOND).await;
        assert_eq!(echo(&mut client, b"still here").await.unwrap(), b"still here");
    }
    let silent_since = Instant::now();

    assert_timeout(relay.await.unwrap(), Phase::Idle, 10 * SECOND);
    let silent = silent_since.elapsed();
    assert!((9 * SECOND..=11 * SECOND).contains(&silent), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn words_in_one_direction_are_enough() {
    let (mut client, mut server, relay) =
        relay(ForwardOptions::default().with_idle_timeout(Some(10 * SECOND)));

    for _ in 0..5 {
        time::sleep(9 * SECOND).await;
        server.write_all(b"news").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
    }

    assert!(!relay.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_second_direction_has_a_limit_of_its_own() {
    let options = ForwardOptions::default().with_half_close_timeout(Some(3 * SECOND));
    let (mut client, mut server, relay) = relay(options);
    let began = Instant::now();

    time::sleep(60 * SECOND).await;
    client.shutdown().await.unwrap();
    time::sleep(2 * SECOND).await;
    server.write_all(b"answer").await.unwrap();
    client.read_exact(&mut [0; 6]).await.unwrap();

    assert_timeout(relay.await.unwrap(), Phase::HalfClosed, 3 * SECOND);
    let took = began.elapsed();
    assert!((65 * SECOND..66 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_second_direction_may_be_silent_for_its_whole_limit() {
    let options = ForwardOptions::default().with_half_close_timeout(Some(30 * SECOND));
    let (mut client, mut server, relay) = relay(options);

    // Silent for longer than the limit before the first direction ends: that must not count.
    time::sleep(60 * SECOND).await;
    client.shutdown().await.unwrap();
    time::sleep(29 * SECOND).await;
    server.write_all(b"slow answer").await.unwrap();
    server.shutdown().await.unwrap();

    let done = relay.await.unwrap().unwrap();
    assert_eq!(done.downstream, 11);
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_ends_even_a_busy_connection() {
    let (mut client, server, relay) = relay(ForwardOptions::default().with_lifetime(Some(5 * SECOND)));
    tokio::spawn(send_back(server));
    let began = Instant::now();

    while !relay.is_finished() {
        let _ = echo(&mut client, b"busy").await;
        time::sleep(SECOND / 10).await;
    }

    assert_timeout(relay.await.unwrap(), Phase::Lifetime, 5 * SECOND);
    let took = began.elapsed();
    assert!((5 * SECOND..=6 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_limits_a_silent_connection_lasts() {
    let (mut client, server, relay) = relay(ForwardOptions::default());
    tokio::spawn(send_back(server));

    time::sleep(100_000 * SECOND).await;

    assert_eq!(echo(&mut client, b"still here").await.unwrap(), b"still here");
    assert!(!relay.is_finished());
}

/// The times that were recorded, of `one_in` answers one.
struct Times {
    recorded: Mutex<Vec<Duration>>,
    one_in: u32,
}

impl Times {
    fn of_one_in(one_in: u32) -> Arc<Self> {
        Arc::new(Self { recorded: Mutex::default(), one_in })
    }

    fn seconds(&self) -> Vec<u64> {
        self.recorded.lock().unwrap().iter().map(Duration::as_secs).collect()
    }
}

impl PeerStats for Times {
    fn answered(&self, took: Duration) {
        self.recorded.lock().unwrap().push(took);
    }

    fn one_in(&self) -> u32 {
        self.one_in
    }
}

#[tokio::test(start_paused = true)]
async fn each_answer_is_timed_from_its_question() {
    let (mut ours, mut client) = tokio::io::duplex(4096);
    let (upstream, mut server) = tokio::io::duplex(4096);
    let times = Times::of_one_in(1);
    let mut upstream = Io::new(upstream);
    upstream.set_peer_stats(Some(Arc::clone(&times) as Arc<dyn PeerStats>));
    tokio::spawn(async move { forward(&mut ours, &mut upstream, &ForwardOptions::default()).await });

    for answer_after in [1, 20, 3] {
        client.write_all(b"ques").await.unwrap();
        server.read_exact(&mut [0; 4]).await.unwrap();
        time::sleep(SECOND).await;
        // A question in two parts is one question, asked when it began.
        client.write_all(b"tion").await.unwrap();
        server.read_exact(&mut [0; 4]).await.unwrap();
        time::sleep(answer_after * SECOND).await;
        server.write_all(b"an").await.unwrap();
        client.read_exact(&mut [0; 2]).await.unwrap();
        time::sleep(SECOND).await;
        // Nor is the rest of an answer another answer.
        server.write_all(b"swer").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
    }

    assert_eq!(times.seconds(), [2, 21, 4]);
}

#[tokio::test(start_paused = true)]
async fn of_many_answers_as_many_are_timed_as_are_wanted() {
    let (mut ours, mut client) = tokio::io::duplex(4096);
    let (upstream, mut server) = tokio::io::duplex(4096);
    let times = Times::of_one_in(3);
    let mut upstream = Io::new(upstream);
    upstream.set_peer_stats(Some(Arc::clone(&times) as Arc<dyn PeerStats>));
    tokio::spawn(async move { forward(&mut ours, &mut upstream, &ForwardOptions::default()).await });

    for answer_after in 1..=8 {
        client.write_all(b"q").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        time::sleep(answer_after * SECOND).await;
        server.write_all(b"a").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    }

    assert_eq!(times.seconds(), [1, 4, 7]);
}
