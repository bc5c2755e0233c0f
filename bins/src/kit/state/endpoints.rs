//! The endpoints of a balancer as they are shown.

use meshlib::Endpoint;
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
    let replicas = state.replicas.replicas();
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
                _ => "ejected",
            }
            .to_owned(),
            closed_for_ms: millis(replica.closed_for()),
            in_flight: replica.in_flight(),
            connecting: replica.connecting(),
            picked: replica.picked(),
            failed: replica.failed(),
            answer_time_ms: replica.answer_time().map(|time| time.as_secs_f64() * 1e3),
            ..EndpointState::default()
        };
        more(endpoint, &mut row);
        destination.endpoints.push(row);
    }
    replicas.len() - shown
}
