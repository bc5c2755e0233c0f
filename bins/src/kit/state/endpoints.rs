//! The endpoints of a balancer as they are shown.

use meshlib::Endpoint;
use meshlib::balance::Replica;
use meshlib::balance::ReplicaState;
use meshlib::balance::ViewState;

use super::millis;
use super::model::Destination;
use super::model::EndpointState;

/// Puts what a balancer knows into a destination, as far as there is `room` for more endpoints, and returns how many are
/// left off. `more` adds what only the program knows about an endpoint.
pub fn endpoints(
    destination: &mut Destination,
    state: &ViewState,
    room: &mut usize,
    more: impl Fn(&Endpoint, &mut EndpointState),
) -> usize {
    destination.answer = match state.resolved {
        None => "pending",
        Some(false) => "neg",
        Some(true) => "bound",
    }
    .to_owned();
    destination.age_ms = millis(state.age);
    (destination.waiters, destination.retired) = (state.waiters, state.retired);
    destination.failing.clone_from(&state.failing);
    let replicas = state.replicas.replicas();
    let fails =
        |replica: &Replica| matches!(replica.state(), ReplicaState::Ejected | ReplicaState::Probation);
    destination.is_down = (!replicas.is_empty()).then(|| replicas.iter().all(fails));
    let shown = replicas.len().min(*room);
    *room -= shown;
    for replica in &replicas[..shown] {
        let endpoint = replica.endpoint();
        let mut row = EndpointState {
            addr: endpoint.addr.to_string(),
            weight: endpoint.weight.get(),
            node: endpoint.metadata.node.as_deref().map(str::to_owned),
            state: match replica.state() {
                ReplicaState::Ready => "ready",
                ReplicaState::CoolingDown => "cooling_down",
                ReplicaState::Probation => "probation",
                _ => "ejected",
            }
            .to_owned(),
            why: is_tried_in_vain(replica).or_else(|| is_silent(replica)),
            closed_for_ms: millis(replica.closed_for()),
            in_flight: replica.in_flight(),
            connecting: replica.connecting(),
            picked: replica.picked(),
            failed: replica.failed(),
            broken: replica.broken(),
            unanswered: replica.unanswered(),
            answer_time_ms: replica.answer_time().map(|time| time.as_secs_f64() * 1e3),
            ..EndpointState::default()
        };
        more(endpoint, &mut row);
        destination.endpoints.push(row);
    }
    replicas.len() - shown
}

/// An endpoint may fail and be used nevertheless, for the policy lets it, or no other is there.
fn is_tried_in_vain(replica: &Replica) -> Option<String> {
    let failures = replica.failures_in_a_row();
    let used = matches!(replica.state(), ReplicaState::Ready | ReplicaState::Probation);
    (failures > 1 && used).then(|| format!("failed {failures} times in a row"))
}

/// An endpoint may take connections or requests and never say a word.
fn is_silent(replica: &Replica) -> Option<String> {
    let silent = replica.unanswered_in_a_row();
    (silent > 1).then(|| format!("did not answer {silent} times in a row"))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use meshlib::BalanceLayer;
    use meshlib::Error;
    use meshlib::Session;
    use meshlib::Static;
    use meshlib::To;
    use meshlib::balance::Accrual;
    use meshlib::io::Io;
    use tower::Layer;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn an_endpoint_that_is_used_though_it_fails_says_so() {
        let refuses = tower::service_fn(|to: To<Session>| async move {
            Err::<Io, _>(Error::Connect {
                addr: to.endpoint.addr,
                source: io::ErrorKind::ConnectionRefused.into(),
            })
        });
        let only = SocketAddr::from(([127, 0, 0, 1], 1));
        let balance = BalanceLayer::new(Static::new([only]), "one").accrual(Accrual::never()).layer(refuses);
        let why = || {
            let mut shown = Destination::default();
            endpoints(&mut shown, &balance.view().state().unwrap(), &mut 10, |_, _| ());
            (shown.endpoints[0].state.clone(), shown.endpoints[0].why.clone())
        };

        balance.clone().oneshot(Session::default()).await.unwrap_err();
        assert_eq!(why(), ("ready".to_owned(), None), "once is nothing");
        for _ in 0..2 {
            balance.clone().oneshot(Session::default()).await.unwrap_err();
        }
        assert_eq!(why(), ("ready".to_owned(), Some("failed 3 times in a row".to_owned())));
    }
}
