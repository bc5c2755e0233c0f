//! Endpoints that fail and come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use meshlib::BalanceLayer;
use meshlib::Error;
use meshlib::Session;
use meshlib::Static;
use meshlib::TcpConnector;
use meshlib::backoff::Backoff;
use meshlib::balance;
use meshlib::balance::Accrual;
use meshlib::balance::Attempts;
use meshlib::balance::Hints;
use meshlib::balance::Policy;
use meshlib::balance::ReplicaSet;
use meshlib::balance::ReplicaState;
use meshlib::balance::Waiting;
use meshlib::observe::Event;
use meshlib::observe::Observer;
use meshlib::test_util::Echo;
use meshlib::test_util::EchoOptions;
use meshlib::test_util::Flaky;
use meshlib::test_util::echo;
use tokio::time;
use tower::Layer;
use tower::ServiceExt;

use crate::memory::Memory;
use crate::memory::addr;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_backend_that_refuses_costs_no_client_anything() {
    let (living, dead) = (Echo::start().await, Echo::start().await);
    let addrs = [living.addr(), dead.addr()];
    dead.stop().await;
    let connect = BalanceLayer::new(Static::new(addrs), "web").layer(TcpConnector::default());

    for _ in 0..200 {
        let mut io = connect.clone().oneshot(Session::default()).await.unwrap();
        assert_eq!(echo(&mut io, b"x").await.unwrap(), b"x");
    }

    let view = connect.view().state().unwrap();
    let dead = view.replicas.replicas().iter().find(|replica| replica.endpoint().addr == addrs[1]).unwrap();
    assert_eq!(dead.state(), ReplicaState::Ejected);
    assert_eq!(dead.failed(), 5, "after five failures it is left alone");
    assert_eq!(dead.in_flight(), 0);
}

#[tokio::test]
async fn a_backend_that_returns_is_used_again() {
    let (living, dead) = (Echo::start().await, Echo::start().await);
    let addrs = [living.addr(), dead.addr()];
    dead.stop().await;
    let penalty = Backoff::new(Duration::from_millis(100), Duration::from_millis(200));
    let connect = BalanceLayer::new(Static::new(addrs), "web")
        .accrual(Accrual::new(Policy::Consecutive(2)).with_penalty(penalty))
        .layer(TcpConnector::default());
    for _ in 0..50 {
        connect.clone().oneshot(Session::default()).await.unwrap();
    }

    let back = EchoOptions::default().with_addr(addrs[1]).start().await.unwrap();
    let used = async {
        while back.accepted() < 10 {
            connect.clone().oneshot(Session::default()).await.unwrap();
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(5 * SECOND, used).await.expect("it gets its share again");
}

#[tokio::test(start_paused = true)]
async fn one_caller_at_a_time_tries_an_ejected_endpoint_again() {
    let network = Flaky::new(Memory::default().connector());
    network.fail(addr(1));
    let connect = BalanceLayer::new(Static::new([addr(1), addr(2)]), "web").layer(network.clone());
    for _ in 0..100 {
        connect.clone().oneshot(Session::default()).await.unwrap();
    }
    let tried = || network.attempts().iter().filter(|picked| **picked == addr(1)).count();
    assert_eq!(tried(), 5);

    time::sleep(6 * SECOND).await;
    network.delay(SECOND / 10);
    let callers = (0..100).map(|_| connect.clone().oneshot(Session::default()));
    for outcome in futures::future::join_all(callers).await {
        outcome.unwrap();
    }

    assert_eq!(tried(), 6, "one probe, while all others go elsewhere");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_go_elsewhere() {
    let network = Flaky::new(Memory::default().connector());
    let layer = || BalanceLayer::new(Static::new([1, 2, 3, 4].map(addr)), "web").accrual(Accrual::never());
    [1, 2, 3, 4].map(addr).into_iter().for_each(|addr| network.fail(addr));

    for (most, attempts) in [(1, Attempts::most(1)), (2, Attempts::default()), (3, Attempts::most(3))] {
        let before = network.attempts().len();
        let outcome = layer().attempts(attempts).layer(network.clone()).oneshot(Session::default()).await;

        assert!(matches!(outcome, Err(Error::Connect { .. })), "{outcome:?}");
        let mut tried = network.attempts().split_off(before);
        assert_eq!(tried.len(), most);
        tried.sort();
        tried.dedup();
        assert_eq!(tried.len(), most, "each time another endpoint");
    }
}

#[tokio::test(start_paused = true)]
async fn one_caller_may_try_less_often_than_others() {
    let network = Flaky::new(Memory::default().connector());
    [1, 2, 3].map(addr).into_iter().for_each(|addr| network.fail(addr));
    let connect = BalanceLayer::new(Static::new([1, 2, 3].map(addr)), "web")
        .accrual(Accrual::never())
        .attempts(Attempts::most(3))
        .layer(network.clone());

    let hasty = connect.with_attempts(Attempts::most(1));
    assert!(hasty.oneshot(Session::default()).await.is_err());
    assert_eq!(network.attempts().len(), 1);

    assert!(connect.oneshot(Session::default()).await.is_err());
    assert_eq!(network.attempts().len(), 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn attempts_without_bound_go_round_until_one_succeeds() {
    let network = Flaky::new(Memory::default().connector());
    network.fail_next(20);
    let connect = BalanceLayer::new(Static::new([1, 2, 3].map(addr)), "web")
        .attempts(Attempts::unlimited())
        .accrual(Accrual::never())
        .wait(Waiting::new(10, 60 * SECOND))
        .layer(network.clone());

    connect.clone().oneshot(Session::default()).await.unwrap();

    let attempts = network.attempts();
    assert_eq!(attempts.len(), 21);
    for round in attempts.chunks_exact(3) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, [1, 2, 3].map(addr), "each round tries every endpoint once");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_ejected_all_are_used() {
    let network = Flaky::new(Memory::default().connector());
    network.fail_next(1000);
    let connect = BalanceLayer::new(Static::new([1, 2].map(addr)), "web").layer(network.clone());
    for _ in 0..20 {
        connect.clone().oneshot(Session::default()).await.unwrap_err();
    }
    let view = connect.view().state().unwrap();
    assert!(view.replicas.replicas().iter().all(|replica| replica.state() == ReplicaState::Ejected));

    network.fail_next(0);

    connect.clone().oneshot(Session::default()).await.expect("never refused because of this");
}

#[tokio::test(start_paused = true)]
async fn where_all_fail_no_share_keeps_the_last_one_in() {
    let network = Flaky::new(Memory::default().connector());
    network.fail_next(100_000);
    let accrual = Accrual::default().with_max_ejected(0.5);
    let connect =
        BalanceLayer::new(Static::new([1, 2].map(addr)), "web").accrual(accrual).layer(network.clone());
    let fail = async || {
        for _ in 0..20 {
            connect.clone().oneshot(Session::default()).await.unwrap_err();
        }
    };

    fail().await;
    assert_eq!(ejected(&connect.view()), 1);
    // Each time that the one that is out may be tried again, the other may be drawn first and take its place: chance must
    // have had it so often that it is certain.
    for _ in 0..2_000 {
        time::advance(SECOND).await;
        fail().await;
    }

    let state = connect.view().state().unwrap();
    let states: Vec<_> = state.replicas.replicas().iter().map(|replica| replica.state()).collect();
    assert!(!states.contains(&ReplicaState::Ready), "{states:?}");
}

/// How many endpoints are ejected.
fn ejected(view: &balance::View) -> usize {
    let state = view.state().unwrap();
    state.replicas.replicas().iter().filter(|replica| replica.state() == ReplicaState::Ejected).count()
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_all_the_first_one_back_is_soon_relieved() {
    const ENDPOINTS: usize = 20;
    let network = Flaky::new(Memory::default().connector());
    network.fail_next(100_000);
    let endpoints = (1..=ENDPOINTS as u16).map(addr);
    let connect = BalanceLayer::new(Static::new(endpoints), "web").layer(network.clone());
    while ejected(&connect.view()) < ENDPOINTS {
        connect.clone().oneshot(Session::default()).await.unwrap_err();
    }

    network.fail_next(0);
    let mut open = Vec::new();
    // No time passes.
    while ejected(&connect.view()) > 0 {
        open.push(connect.clone().oneshot(Session::default()).await.unwrap());
        assert!(open.len() < 5 * ENDPOINTS, "{} are still ejected", ejected(&connect.view()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_try_in_vain_costs_an_endpoint_nothing_and_the_next_is_tried() {
    let network = Flaky::new(Memory::default().connector());
    let endpoints: Vec<_> = (1..=6).map(addr).collect();
    endpoints.iter().for_each(|addr| network.fail(*addr));
    let connect = BalanceLayer::new(Static::new(endpoints.clone()), "web").layer(network.clone());
    while ejected(&connect.view()) < endpoints.len() {
        connect.clone().oneshot(Session::default()).await.unwrap_err();
    }
    let times = || {
        let state = connect.view().state().unwrap();
        let replicas = state.replicas.replicas();
        replicas.iter().map(|it| (it.endpoint().addr, it.closed_for())).collect::<BTreeMap<_, _>>()
    };
    let before = times();

    // The others are down for longer.
    let back = [addr(1), addr(6)];
    back.iter().for_each(|addr| network.heal(*addr));
    // Whoever meets two of them is told so.
    let mut open = Vec::new();
    for _ in 0..200 {
        open.extend(connect.clone().oneshot(Session::default()).await);
    }

    let after = times();
    for addr in &endpoints {
        let wanted = if back.contains(addr) { Duration::ZERO } else { before[addr] };
        assert_eq!(after[addr], wanted, "{addr}: {before:?}, {after:?}");
    }
    assert!(open.len() >= 190, "{}", open.len());
}

#[tokio::test(start_paused = true)]
async fn one_that_recovers_from_a_blip_does_not_bring_back_the_dead() {
    let network = Flaky::new(Memory::default().connector());
    let blip = Backoff::exact(Backoff::new(Duration::from_millis(10), Duration::from_millis(10)));
    let connect = BalanceLayer::new(Static::new([1, 2].map(addr)), "web")
        .accrual(Accrual::default().with_cool_down(Some(blip)))
        .wait(Waiting::new(8, SECOND))
        .layer(network.clone());
    network.fail(addr(1));
    while ejected(&connect.view()) == 0 {
        connect.clone().oneshot(Session::default()).await.unwrap();
        time::sleep(Duration::from_millis(20)).await;
    }
    let tried = || network.attempts().iter().filter(|to| **to == addr(1)).count();
    let before = tried();

    // Of the one that is well.
    network.fail_next(1);
    for _ in 0..20 {
        // One may find neither.
        let _ = connect.clone().oneshot(Session::default()).await;
        time::sleep(Duration::from_millis(20)).await;
    }

    // Nobody else was there for a moment: it may have been tried as a last resort.
    assert!(tried() <= before + 1, "{} more", tried() - before);
    assert_eq!(ejected(&connect.view()), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_of_ours_are_not_the_endpoints() {
    let connect = BalanceLayer::new(Static::new([addr(1)]), "web").layer(tower::service_fn(
        |_: meshlib::To<Session>| async { Err::<meshlib::Io, _>(Error::Refused(meshlib::Refusal::Limit)) },
    ));

    for _ in 0..20 {
        connect.clone().oneshot(Session::default()).await.unwrap_err();
    }

    let view = connect.view().state().unwrap();
    assert_eq!(view.replicas.replicas()[0].state(), ReplicaState::Ready);
    assert_eq!(view.replicas.replicas()[0].failed(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_error_names_the_endpoint_that_failed_last() {
    let network = Flaky::new(Memory::default().connector());
    network.fail(addr(1));
    let connect = BalanceLayer::new(Static::new([addr(1)]), "web").layer(network.clone());

    let outcome = connect.oneshot(Session::default()).await;

    // There is no second endpoint for the second attempt; that is not what went wrong.
    assert!(matches!(outcome, Err(Error::Connect { addr: failed, .. }) if failed == addr(1)), "{outcome:?}");
}

/// Which attempts began and how they ended.
#[derive(Debug, Default)]
struct Attempted(Mutex<Vec<&'static str>>);

impl Observer for Attempted {
    fn on(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(match event {
            Event::Attempt { attempt: 1, .. } => "attempt",
            Event::Attempt { .. } => "another",
            Event::Attempted { error: None, .. } => "done",
            Event::Attempted { error: Some(_), .. } => "failed",
            Event::Abandoned { took, .. } if *took >= SECOND => "abandoned",
            _ => return,
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_caller_goes_away_is_abandoned() {
    let network = Flaky::new(Memory::default().connector());
    let observer = Arc::<Attempted>::default();
    let connect =
        BalanceLayer::new(Static::new([addr(1)]), "web").observe(observer.clone()).layer(network.clone());
    connect.clone().oneshot(Session::default()).await.unwrap();

    network.delay(10 * SECOND);
    let late = time::timeout(SECOND, connect.clone().oneshot(Session::default())).await;

    assert!(late.is_err());
    assert_eq!(*observer.0.lock().unwrap(), ["attempt", "done", "attempt", "abandoned"]);
    assert_eq!(connect.view().state().unwrap().replicas.replicas()[0].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn attempts_of_one_request_are_told_apart() {
    let network = Flaky::new(Memory::default().connector());
    network.fail_next(2);
    let observer = Arc::<Attempted>::default();
    let connect = BalanceLayer::new(Static::new([1, 2, 3].map(addr)), "web")
        .attempts(Attempts::most(3))
        .observe(observer.clone())
        .layer(network);

    for _ in 0..2 {
        connect.clone().oneshot(Session::default()).await.unwrap();
    }

    let first = ["attempt", "failed", "another", "failed", "another", "done"];
    assert_eq!(*observer.0.lock().unwrap(), [&first[..], &["attempt", "done"]].concat());
}

#[tokio::test(start_paused = true)]
async fn where_all_have_failed_a_balancer_of_ones_own_need_not_think_of_it() {
    let network = Flaky::new(Memory::default().connector());
    let first_usable = balance::from_fn(|set: &ReplicaSet, hints: &Hints<'_>| {
        set.replicas().iter().position(|replica| replica.usable(hints))
    });
    let connect = BalanceLayer::new(Static::new([addr(1)]), "web")
        .balancer(first_usable)
        .accrual(Accrual::new(Policy::Consecutive(1)))
        .layer(network.clone());
    network.fail_next(1);
    connect.clone().oneshot(Session::default()).await.unwrap_err();
    let state = || connect.view().state().unwrap().replicas.replicas()[0].state();
    assert_eq!(state(), ReplicaState::Ejected);

    connect.clone().oneshot(Session::default()).await.expect("it is tried nevertheless");

    assert_eq!(state(), ReplicaState::Ready);
}
