//! Endpoints as rows.

use super::figures;
use super::table::Align;
use crate::kit::state::Destination;
use crate::kit::state::EndpointState;
use crate::kit::state::State;

/// An endpoint of a destination, or a destination that has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) destination: &'a Destination,
    pub(super) endpoint: Option<&'a EndpointState>,
}

/// The columns that are always shown.
pub(super) const COLUMNS: [(&str, Align); 9] = [
    ("ROUTER", Align::Left),
    ("DST", Align::Left),
    ("ENDPOINT", Align::Left),
    ("STATE", Align::Left),
    ("WEIGHT", Align::Right),
    ("INFLIGHT", Align::Right),
    ("RPS", Align::Right),
    ("LATENCY", Align::Right),
    ("FAILED", Align::Right),
];

/// The columns that are shown beside them where there is room. The last one has spaces in it.
pub(super) const WIDE: [(&str, Align); 7] = [
    ("NODE", Align::Left),
    ("TLS", Align::Left),
    ("PICKED", Align::Right),
    ("CONNECTING", Align::Right),
    ("BROKEN", Align::Right),
    ("UNANSWERED", Align::Right),
    ("WHY", Align::Left),
];

impl<'a> Row<'a> {
    /// The rows of a program, in its order.
    pub(super) fn all(state: &'a State) -> impl Iterator<Item = Self> {
        state.destinations.iter().flat_map(|destination| {
            let none = destination.endpoints.is_empty().then_some(Self { destination, endpoint: None });
            let some = destination.endpoints.iter();
            none.into_iter().chain(some.map(|it| Self { destination, endpoint: Some(it) }))
        })
    }

    /// What is in [`COLUMNS`].
    pub(super) fn cells(self) -> [String; 9] {
        let Destination { router, dst, .. } = self.destination;
        let (router, dst) = (router.clone(), dst.clone());
        let state = self.state();
        let Some(endpoint) = self.endpoint else {
            let unknown = || figures::UNKNOWN.to_owned();
            return [router, dst, unknown(), state, unknown(), unknown(), unknown(), unknown(), unknown()];
        };
        [
            router,
            dst,
            endpoint.addr.clone(),
            state,
            figures::weight(endpoint.weight),
            endpoint.in_flight.to_string(),
            figures::rate(endpoint.rate),
            figures::latency(endpoint.answer_time_ms),
            endpoint.failed.to_string(),
        ]
    }

    /// What is in [`WIDE`].
    pub(super) fn wide_cells(self) -> [String; 7] {
        let Some(endpoint) = self.endpoint else {
            return Default::default();
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            text(&endpoint.node),
            text(&endpoint.tls),
            endpoint.picked.to_string(),
            endpoint.connecting.to_string(),
            endpoint.broken.to_string(),
            endpoint.unanswered.to_string(),
            text(&endpoint.why),
        ]
    }

    /// In one word what it is doing, with how long it will be left alone.
    pub(super) fn state(self) -> String {
        match self.endpoint {
            None => self.destination.answer.clone(),
            Some(EndpointState { state, closed_for_ms: 0, .. }) => state.clone(),
            Some(EndpointState { state, closed_for_ms, .. }) => {
                format!("{state}({})", figures::time(closed_for_ms.saturating_add(999)))
            }
        }
    }
}
