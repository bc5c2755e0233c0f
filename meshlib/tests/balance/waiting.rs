//! Callers that wait: for discovery, for an endpoint, in turn, bounded, and not for ever.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream;
use meshlib::BalanceLayer;
use meshlib::Error;
use meshlib::Phase;
use meshlib::Resolution;
use meshlib::Session;
use meshlib::Static;
use meshlib::Unavailable;
use meshlib::backoff::Backoff;
use meshlib::balance;
use meshlib::balance::Accrual;
use meshlib::balance::Attempts;
use meshlib::balance::Hints;
use meshlib::balance::ReplicaSet;
use meshlib::balance::Waiting;
use meshlib::resolve::ResolveError;
use meshlib::test_util::Flaky;
use meshlib::test_util::Scripted;
use tokio::task::JoinSet;
use tokio::time;
use tokio::time::Instant;
use tower::Layer;
use tower::ServiceExt;

use crate::memory::Memory;
use crate::memory::addr;

const SECOND: Duration = Duration::from_secs(1);

fn reason(error: &Error) -> Unavailable {
    match error {
        Error::Unavailable { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn callers_wait_for_the_first_answer_of_discovery() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());
    let caller = tokio::spawn(connect.clone().oneshot(Session::default()));

    time::sleep(60 * SECOND).await;
    assert!(!caller.is_finished());
    updates.endpoints([addr(1)]);

    caller.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_of_discovery_are_waited_out_and_keep_the_set() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());
    let caller = tokio::spawn(connect.clone().oneshot(Session::default()));

    updates.error("down");
    time::sleep(SECOND).await;
    assert!(!caller.is_finished());
    updates.endpoints([addr(1)]);
    caller.await.unwrap().unwrap();
    updates.error("down again");
    time::sleep(SECOND).await;

    connect.oneshot(Session::default()).await.expect("the last good set stays in force");
}

#[tokio::test]
async fn a_resolution_that_ends_in_failure_says_why() {
    let failing = |_: &str| {
        let error = ResolveError::other("no such zone");
        Resolution::new(stream::iter([Err(error)]))
    };
    let connect = BalanceLayer::new(failing, "web").layer(Memory::default().connector());

    let error = connect.oneshot(Session::default()).await.unwrap_err();

    assert_eq!(error.chain().to_string(), "cannot resolve web: no such zone");
}

#[tokio::test(start_paused = true)]
async fn without_waiting_the_lack_of_endpoints_is_an_error_at_once() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());

    updates.not_found();
    let error = connect.clone().oneshot(Session::default()).await.unwrap_err();
    assert_eq!(reason(&error), Unavailable::NotFound);

    updates.endpoints([]);
    time::sleep(SECOND).await;
    let error = connect.clone().oneshot(Session::default()).await.unwrap_err();
    assert_eq!(reason(&error), Unavailable::Empty);
}

#[tokio::test(start_paused = true)]
async fn a_resolution_that_ends_without_an_answer_is_an_error() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web").layer(Memory::default().connector());
    let caller = tokio::spawn(connect.oneshot(Session::default()));
    time::sleep(SECOND).await;

    drop(updates);

    assert_eq!(reason(&caller.await.unwrap().unwrap_err()), Unavailable::Unresolved);
}

#[tokio::test(start_paused = true)]
async fn an_absent_name_may_have_a_limit_of_its_own() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web")
        .wait(Waiting::new(10, 10 * SECOND).with_absent(SECOND))
        .layer(Memory::default().connector());
    updates.endpoints([]);
    connect.ready().await;

    let began = Instant::now();
    let error = connect.clone().oneshot(Session::default()).await.unwrap_err();
    assert_eq!(reason(&error), Unavailable::Empty);
    assert_eq!(began.elapsed().as_secs(), 1);

    let caller = tokio::spawn(connect.oneshot(Session::default()));
    time::sleep(SECOND / 2).await;
    updates.endpoints([addr(1)]);
    caller.await.unwrap().expect("it is used as soon as it is there");
}

/// Everything is down, and tried again every second at most.
fn all_down(
    waiting: Waiting,
) -> (Flaky<meshlib::BoxConnector>, balance::Balance<Flaky<meshlib::BoxConnector>>) {
    let network = Flaky::new(Memory::default().connector());
    [1, 2].map(addr).into_iter().for_each(|addr| network.fail(addr));
    let cool_down = Backoff::new(Duration::from_millis(10), SECOND);
    let connect = BalanceLayer::new(Static::new([1, 2].map(addr)), "web")
        .attempts(Attempts::unlimited())
        .accrual(Accrual::default().with_cool_down(Some(cool_down)))
        .wait(waiting)
        .layer(network.clone());
    (network, connect)
}

#[tokio::test(start_paused = true)]
async fn when_all_are_down_callers_wait_up_to_their_limit() {
    let (network, connect) = all_down(Waiting::new(1000, 10 * SECOND));
    let began = Instant::now();

    let callers = (0..20).map(|_| connect.clone().oneshot(Session::default()));
    for outcome in futures::future::join_all(callers).await {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Timeout { phase: Phase::Wait, .. }), "{error:?}");
    }

    let took = began.elapsed();
    assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
    // Two endpoints, each tried at most every half second once the pauses have grown, and 20 first attempts.
    let attempts = network.attempts().len();
    assert!(attempts < 100, "{attempts} attempts in ten seconds");
    assert_eq!(connect.view().state().unwrap().waiters, 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_turn() {
    let (resolver, updates) = Scripted::new();
    updates.endpoints([]);
    let connect = BalanceLayer::new(resolver, "web")
        .wait(Waiting::new(1000, 60 * SECOND))
        .layer(Memory::default().connector());
    let served = Arc::<Mutex<Vec<usize>>>::default();
    let mut callers = JoinSet::new();
    for n in 0..20 {
        let (connect, served) = (connect.clone(), Arc::clone(&served));
        callers.spawn(async move {
            let io = connect.oneshot(Session::default()).await.unwrap();
            served.lock().unwrap().push(n);
            io
        });
        time::sleep(SECOND / 10).await;
    }
    assert_eq!(connect.view().state().unwrap().waiters, 20);

    updates.endpoints([addr(1)]);
    callers.join_all().await;

    let served = served.lock().unwrap();
    assert!(served.is_sorted(), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_are_served_soon_after_an_endpoint_returns() {
    let (network, connect) = all_down(Waiting::new(1000, 60 * SECOND));
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        callers.spawn(connect.clone().oneshot(Session::default()));
    }
    time::sleep(20 * SECOND).await;
    assert_eq!(connect.view().state().unwrap().waiters, 20);

    network.heal(addr(2));
    let healed = Instant::now();
    for outcome in callers.join_all().await {
        outcome.unwrap();
    }

    let took = healed.elapsed();
    assert!(took <= SECOND, "{took:?}, while the longest pause is a second");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_use_a_new_endpoint_at_once() {
    let (resolver, updates) = Scripted::new();
    let network = Flaky::new(Memory::default().connector());
    network.fail(addr(1));
    let connect = BalanceLayer::new(resolver, "web")
        .attempts(Attempts::unlimited())
        .wait(Waiting::new(1000, 60 * SECOND))
        .layer(network.clone());
    updates.endpoints([addr(1)]);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        callers.spawn(connect.clone().oneshot(Session::default()));
    }
    time::sleep(20 * SECOND).await;

    updates.endpoints([addr(2)]);
    let updated = Instant::now();
    for outcome in callers.join_all().await {
        outcome.unwrap();
    }

    let took = updated.elapsed();
    assert!(took < SECOND / 10, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_wait_is_refused_at_once() {
    let (resolver, _updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web")
        .wait(Waiting::new(3, 60 * SECOND))
        .layer(Memory::default().connector());
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        waiting.spawn(connect.clone().oneshot(Session::default()));
    }
    time::sleep(SECOND).await;

    let began = Instant::now();
    let error = connect.clone().oneshot(Session::default()).await.unwrap_err();

    assert_eq!(reason(&error), Unavailable::Crowded);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(connect.view().state().unwrap().waiters, 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_is_forgotten_at_once() {
    let (network, connect) = all_down(Waiting::new(2, 60 * SECOND));
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        callers.spawn(connect.clone().oneshot(Session::default()));
    }
    time::sleep(10 * SECOND).await;

    callers.shutdown().await;

    let view = connect.view().state().unwrap();
    assert_eq!(view.waiters, 0);
    assert!(view.replicas.replicas().iter().all(|replica| replica.in_flight() == 0));
    let attempts = network.attempts().len();
    time::sleep(60 * SECOND).await;
    assert_eq!(network.attempts().len(), attempts, "nobody tries for those who left");
}

#[tokio::test]
async fn a_balancer_that_picks_nothing_is_not_asked_again_and_again() {
    let asked = Arc::<AtomicUsize>::default();
    let nothing = {
        let asked = Arc::clone(&asked);
        balance::from_fn(move |_: &ReplicaSet, _: &Hints<'_>| {
            asked.fetch_add(1, Ordering::SeqCst);
            None
        })
    };
    let connect = BalanceLayer::new(Static::new([addr(1)]), "web")
        .balancer(nothing)
        .wait(Waiting::new(10, SECOND / 5))
        .layer(Memory::default().connector());

    connect.oneshot(Session::default()).await.unwrap_err();

    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 50, "asked {asked} times in 200 ms");
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_all_time_is_none() {
    let (resolver, updates) = Scripted::new();
    let connect = BalanceLayer::new(resolver, "web")
        .wait(Waiting::new(10, Duration::MAX))
        .layer(Memory::default().connector());
    updates.endpoints([]);
    connect.ready().await;
    let caller = tokio::spawn(connect.oneshot(Session::default()));
    time::sleep(1000 * SECOND).await;
    assert!(!caller.is_finished());

    updates.endpoints([addr(1)]);

    caller.await.unwrap().unwrap();
}
