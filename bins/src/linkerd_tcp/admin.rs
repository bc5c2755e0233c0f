//! Pages for operators.

use std::sync::Arc;

use http::StatusCode;
use meshlib::balance::ReplicaState;
use meshlib::balance::View;
use meshlib::balance::ViewState;
use meshlib::http::admin::Access;
use meshlib::http::admin::Router;
use meshlib::http::admin::json;
use meshlib::http::admin::status;
use serde_json::Value;

use super::config::Config;
use super::config::Generation;
use super::metrics::Metrics;
use crate::admin;
use crate::ending::Ending;

/// `/metrics`, `/live`, `/ready`, `/state.json`, and by POST `/shutdown` and `/abort`.
pub(super) fn pages(
    config: &Config,
    metrics: &Metrics,
    views: Vec<(String, View)>,
    ending: &Ending,
) -> Router {
    // Generation A listens on all interfaces unless told otherwise; reading is harmless there, stopping is not.
    let open = config.admin.explicit_addr || config.generation == Generation::Routers;
    let access = if open { Access::Anybody } else { Access::Loopback };
    let views: Arc<[(String, View)]> = views.into();
    let (ready_views, state_views) = (Arc::clone(&views), views);
    let (draining, ending) = (ending.drain().clone(), ending.clone());
    let unready = move || unready(&ready_views, draining.is_started());
    admin::pages(metrics.registry.clone(), || {}, unready)
        .hiding_methods()
        .get("/state.json", move |_| json(state(&state_views)))
        .post("/shutdown", access, move |_| {
            if ending.begin() {
                tracing::info!(target: "linkerd_tcp::app", grace = ?ending.grace(), "asked to shut down; draining");
            }
            status(StatusCode::OK)
        })
        .post("/abort", access, |_| {
            tracing::error!(target: "linkerd_tcp::admin", "asked to abort");
            std::process::exit(1)
        })
}

/// Why no traffic should be sent here.
fn unready(views: &[(String, View)], draining: bool) -> Vec<String> {
    let unresolved = views.iter().filter_map(|(label, view)| {
        let state = view.state().filter(|state| state.resolved.is_none())?;
        Some(format!("{label}: {} is not resolved yet", state.name))
    });
    draining.then(|| "draining".into()).into_iter().chain(unresolved).collect()
}

/// Every destination with its endpoints, as JSON.
fn state(views: &[(String, View)]) -> String {
    let destinations: Vec<Value> =
        views.iter().filter_map(|(label, view)| Some(destination(label, &view.state()?))).collect();
    serde_json::json!({ "destinations": destinations }).to_string()
}

fn destination(label: &str, state: &ViewState) -> Value {
    let endpoints: Vec<Value> = state
        .replicas
        .replicas()
        .iter()
        .map(|replica| {
            let endpoint = replica.endpoint();
            serde_json::json!({
                "addr": endpoint.addr.to_string(),
                "weight": endpoint.weight.get(),
                "node": endpoint.metadata.node.as_deref(),
                "state": match replica.state() {
                    ReplicaState::Ready => "ready",
                    ReplicaState::CoolingDown => "cooling_down",
                    _ => "ejected",
                },
                "closed_for_ms": replica.closed_for().as_millis() as u64,
                "in_flight": replica.in_flight(),
                "connecting": replica.connecting(),
                "picked": replica.picked(),
                "failed": replica.failed(),
                "answer_time_ms": replica.answer_time().map(|time| time.as_secs_f64() * 1e3),
            })
        })
        .collect();
    serde_json::json!({
        "router": label,
        "dst": &*state.name,
        "answer": match state.resolved {
            None => "pending",
            Some(false) => "neg",
            Some(true) => "bound",
        },
        "age_ms": state.age.as_millis() as u64,
        "waiters": state.waiters,
        "retired": state.retired,
        "endpoints": endpoints,
    })
}
