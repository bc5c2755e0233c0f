//! A program in text.

use super::clean;
use super::figures;
use super::row;
use super::row::Row;
use super::table::Align;
use super::table::Table;
use crate::kit::state::Certificate;
use crate::kit::state::Destination;
use crate::kit::state::State;
use crate::kit::state::Traffic;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// What fits on most screens.
    Usual,
    /// More columns, and the certificates.
    Wide,
}

/// What is known about a program, line by line.
pub(super) fn lines(state: &State, detail: Detail) -> Vec<String> {
    let mut lines = head(state);
    lines.push(String::new());
    let wide = match detail {
        Detail::Usual => &[][..],
        Detail::Wide => &row::WIDE,
    };
    let mut table = Table::new(row::COLUMNS.iter().chain(wide).copied());
    for row in Row::all(state) {
        let more = row.wide_cells().into_iter().take(wide.len());
        table.push(row.cells().into_iter().chain(more));
    }
    match none(state) {
        Some(none) => lines.push(none),
        None => lines.extend(table.lines()),
    }
    if state.left_off > 0 {
        lines.push(format!("... and {} more endpoints", state.left_off));
    }
    if detail == Detail::Wide && !state.certificates.is_empty() {
        lines.push(String::new());
        lines.extend(certificates(state));
    }
    lines
}

/// What stands in the place of destinations if there are none.
pub(super) fn none(state: &State) -> Option<String> {
    let none = || match &state.towards {
        Some(towards) => format!("no destinations of its own: each connection goes to {towards}"),
        None => "no destinations".to_owned(),
    };
    state.destinations.is_empty().then(none)
}

/// How the program as a whole does, in a line, and a line for each thing that is wrong with it.
pub(super) fn head(state: &State) -> Vec<String> {
    let State { tool, version, .. } = state;
    let mut first = vec![
        format!("{tool} {version}"),
        format!("up {}", figures::time(state.uptime_ms)),
        if state.unready.is_empty() { "ready".into() } else { "NOT READY".into() },
    ];
    first.extend(recent(&state.traffic));
    let mut lines = vec![first.join("  ")];
    lines.extend(problems(state));
    lines
}

/// What went through a program in the recent past.
pub(super) fn recent(traffic: &Traffic) -> [String; 6] {
    let Traffic { unit, recent, .. } = traffic;
    let unit = if unit.is_empty() { "requests" } else { unit };
    [
        format!("{} {unit}/s", figures::rate(recent.rate)),
        format!("success {}", figures::share(recent.success)),
        format!("p50 {}", figures::latency(recent.p50_ms)),
        format!("p95 {}", figures::latency(recent.p95_ms)),
        format!("p99 {}", figures::latency(recent.p99_ms)),
        format!("TLS {}", figures::share(recent.tls)),
    ]
}

/// What is wrong with a program, line by line.
pub(super) fn problems(state: &State) -> Vec<String> {
    let unready = state.unready.iter().map(|reason| format!("not ready: {reason}"));
    let others = state.problems.iter().map(|problem| format!("problem: {problem}"));
    let waiters = state.destinations.iter().fold(0_usize, |sum, it| sum.saturating_add(it.waiters));
    let most = state.destinations.iter().max_by_key(|it| it.waiters).filter(|it| it.waiters > 0);
    let waiting = most.map(|Destination { router, dst, .. }| {
        format!("waiting for an endpoint: {waiters}, most of them in {router} for {dst}")
    });
    let reload = state.reload.error.iter().flat_map(|error| error.lines()).enumerate();
    // The rest of it is what stands there, with a mark at the place.
    let tried = match state.reload.failed_ms {
        0 => String::new(),
        at => format!(" ({} ago; HUP tries again)", figures::time(state.at_ms.saturating_sub(at))),
    };
    let reload = reload
        .map(|(n, line)| if n == 0 { format!("not loaded{tried}: {line}") } else { format!("  {line}") });
    unready.chain(reload).chain(others).chain(waiting).collect()
}

fn certificates(state: &State) -> Vec<String> {
    let mut table = Table::new([
        ("CERTIFICATE", Align::Left),
        ("ROLE", Align::Left),
        ("DAYS", Align::Right),
        ("STATE", Align::Left),
        ("ISSUER", Align::Left),
        ("FILE", Align::Left),
        ("ERROR", Align::Left),
    ]);
    for certificate in &state.certificates {
        let Certificate { names, issuer, role, file, not_after_ms, state: does, error } = certificate;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let days = not_after_ms.map(|end| figures::days(state.at_ms, end).to_string());
        let name = names.join(",");
        let days = days.unwrap_or_default();
        let error = clean::line(&text(error));
        table.push([name, role.clone(), days, does.clone(), text(issuer), text(file), error]);
    }
    table.lines()
}
