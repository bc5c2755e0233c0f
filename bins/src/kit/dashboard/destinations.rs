//! Where traffic goes: a table for each destination with a row for each endpoint.

use std::collections::HashMap;

use crate::kit::state::Destination;
use crate::kit::state::EndpointState;
use crate::kit::state::State;

use super::html::Html;
use super::words;

/// The columns, and whether they hold numbers.
const COLUMNS: [(&str, bool); 9] = [
    ("Endpoint", false),
    ("State", false),
    ("Weight", true),
    ("In flight", true),
    ("Per second", true),
    ("Latency", true),
    ("Picked", true),
    ("Failed", true),
    ("TLS name", false),
];

/// Most tables.
const MOST: usize = 200;

/// What the words of the tables mean.
const LEGEND: &str = "<details id=\"legend\"><summary id=\"words\">What the words mean</summary><dl>\
    <dt class=\"ready state\">ready</dt><dd>may be picked</dd>\
    <dt class=\"cooling state\">cooling down</dt><dd>failed just now, and is left alone for a moment</dd>\
    <dt class=\"ejected state\">ejected</dt><dd>failed again and again, and is tried once when the time is over, or before \
    that when an outage of all has ended</dd>\
    <dt class=\"cooling state\">probation</dt><dd>the time is over, and nobody has tried it since</dd>\
    <dt class=\"unused state\">unused</dt><dd>is known, but not picked for the reason given</dd>\
    <dt>Per second, picked</dt><dd>how often it was chosen lately, and since its balancer was made: at the start, or when its settings last changed</dd>\
    <dt>Failed</dt><dd>how often it could not be reached or served badly, and how many connections in use it broke later</dd>\
    <dt>Latency</dt><dd>time to the first byte of its answers: an average that rises at once and falls slowly</dd></dl></details>\n";

/// Writes the tables.
pub(super) fn write(html: &mut Html, state: &State) {
    html.markup("<section aria-labelledby=\"to\">\n<h2 id=\"to\">Destinations");
    if let (Some(towards), true) = (&state.towards, state.destinations.is_empty()) {
        html.markup("</h2>\n<p class=\"note\">This program has none of its own: each connection goes to ");
        html.text(towards).markup(".</p>\n</section>\n");
        return;
    }
    html.markup(" <small>").text(summary(&state.destinations)).markup("</small></h2>\n");
    if state.left_off > 0 {
        html.markup("<p class=\"note\">").text(words::counted(
            state.left_off,
            "endpoint is",
            "endpoints are",
        ));
        html.markup(" not shown here: <a id=\"more-endpoints\" href=\"state.json\">the state as JSON</a> has more.</p>\n");
    }
    if state.destinations.is_empty() {
        html.markup("<p class=\"note\">There are none.</p>\n");
    } else {
        html.markup(LEGEND);
    }
    if let Some(left_off @ 1..) = state.destinations.len().checked_sub(MOST) {
        html.markup("<p class=\"note\">").text(words::counted(
            left_off,
            "destination is",
            "destinations are",
        ));
        html.markup(
            " not shown here: <a id=\"more-destinations\" href=\"names.json\">all of them</a>.</p>\n",
        );
    }
    let mut ids = HashMap::new();
    for destination in state.destinations.iter().take(MOST) {
        // An id stays with its destination when others come and go, and with it focus and scrolled columns.
        let digest = digest(&[&destination.router, &destination.dst]);
        let same: &mut u32 = ids.entry(digest).or_default();
        *same += 1;
        table(html, destination, &format!("to-{digest:08x}-{same}"), state.left_off > 0);
    }
    html.markup("</section>\n");
}

/// How many endpoints are in which state.
fn summary(destinations: &[Destination]) -> String {
    let endpoints = || destinations.iter().flat_map(|destination| &destination.endpoints);
    let states = [
        ("ready", "ready"),
        ("cooling_down", "cooling down"),
        ("ejected", "ejected"),
        ("probation", "on probation"),
        ("unused", "unused"),
    ];
    let counts = states.into_iter().filter_map(|(state, word)| {
        let count = endpoints().filter(|endpoint| endpoint.state == state).count();
        (count > 0).then(|| format!("{} {word}", words::count(count as u64)))
    });
    let all = words::counted(endpoints().count(), "endpoint", "endpoints");
    let counts: Vec<_> = counts.collect();
    if counts.is_empty() { all } else { format!("{all}: {}", counts.join(", ")) }
}

fn table(html: &mut Html, destination: &Destination, id: &str, is_part: bool) {
    html.markup("<div class=\"box\" role=\"region\" tabindex=\"0\"").attribute("id", id);
    html.attribute("aria-label", format_args!("Endpoints of {} {}", destination.router, destination.dst));
    html.markup(">\n<table class=\"to\">\n<caption><div>");
    caption(html, destination);
    html.markup("</div></caption>\n<thead><tr>");
    for (name, is_number) in COLUMNS {
        html.markup("<th scope=\"col\"").markup(if is_number { " class=\"n\">" } else { ">" });
        html.text(name).markup("</th>");
    }
    html.markup("</tr></thead>\n<tbody>\n");
    for endpoint in &destination.endpoints {
        row(html, endpoint);
    }
    if destination.endpoints.is_empty() {
        let why = match destination.answer.as_str() {
            "sni" => "Found anew for each client",
            _ if is_part => "No endpoints are shown",
            _ => "No endpoints",
        };
        html.markup("<tr class=\"none\"><td").attribute("colspan", COLUMNS.len()).markup(">");
        html.text(why).markup("</td></tr>\n");
    }
    html.markup("</tbody>\n");
    if destination.endpoints.len() > 1 {
        sums(html, &destination.endpoints, is_part);
    }
    html.markup("</table></div>\n");
}

/// What the table is about, and how its name does.
fn caption(html: &mut Html, destination: &Destination) {
    html.markup("<strong>");
    if !destination.router.is_empty() {
        html.text(&destination.router).markup("</strong> <strong class=\"dst\">");
    }
    html.text(&destination.dst).markup("</strong> ");
    let age = words::span(destination.age_ms);
    let (class, answer) = match destination.answer.as_str() {
        "bound" => ("answer", format!("found {age} ago")),
        "neg" => ("answer red", format!("does not exist, since {age}")),
        "pending" => ("answer amber", format!("waits for discovery, since {age}")),
        "sni" => ("answer", "depends on the name that a client asks for".to_owned()),
        other => ("answer", other.replace('_', " ")),
    };
    html.markup("<span").attribute("class", class).markup(">").text(answer).markup("</span>");
    if !destination.listens.is_empty() {
        html.markup(" <span>listens at ").text(destination.listens.join(", ")).markup("</span>");
    }
    if destination.waiters > 0 {
        html.markup(" <span class=\"amber\">").text(words::counted(destination.waiters, "client", "clients"));
        html.markup(if destination.waiters == 1 { " waits" } else { " wait" }).markup("</span>");
    }
    if destination.retired > 0 {
        html.markup(" <span>").text(words::counted(destination.retired, "endpoint", "endpoints"));
        html.markup(" left with connections open</span>");
    }
}

fn row(html: &mut Html, endpoint: &EndpointState) {
    html.markup("<tr").attribute("class", class(endpoint)).markup("><th scope=\"row\">").text(&endpoint.addr);
    if let Some(node) = &endpoint.node {
        html.markup(" <small>").text(node).markup("</small>");
    }
    html.markup("</th><td class=\"state\">").text(said(endpoint)).markup("</td>");
    number(html, &words::weight(endpoint.weight));
    html.markup("<td class=\"n\">").text(words::count(endpoint.in_flight));
    if endpoint.connecting > 0 {
        html.markup("<small>").text(words::count(endpoint.connecting)).markup(" connecting</small>");
    }
    html.markup("</td>");
    number(html, &words::known(endpoint.rate, words::rate));
    number(html, &words::known(endpoint.answer_time_ms, words::latency));
    number(html, &words::count(endpoint.picked));
    html.markup("<td class=\"n\">").text(words::count(endpoint.failed));
    if endpoint.broken > 0 {
        html.markup("<small>").text(words::count(endpoint.broken)).markup(" broke later</small>");
    }
    if endpoint.unanswered > 0 {
        html.markup("<small>").text(words::count(endpoint.unanswered)).markup(" not answered</small>");
    }
    html.markup("</td>");
    match &endpoint.tls {
        Some(name) => html.markup("<td>").text(name),
        None => html.markup("<td class=\"soft\">no TLS"),
    };
    html.markup("</td></tr>\n");
}

fn number(html: &mut Html, number: &str) {
    html.markup("<td class=\"n\">").text(number).markup("</td>");
}

/// What all of them do together.
fn sums(html: &mut Html, endpoints: &[EndpointState], is_part: bool) {
    let in_flight: u64 = endpoints.iter().map(|it| u64::from(it.in_flight)).sum();
    let rate = endpoints.iter().filter_map(|it| it.rate).reduce(|a, b| a + b);
    let picked = endpoints.iter().fold(0_u64, |sum, it| sum.saturating_add(it.picked));
    let failed = endpoints.iter().fold(0_u64, |sum, it| sum.saturating_add(it.failed));
    html.markup("<tfoot><tr><th scope=\"row\" colspan=\"3\">");
    html.markup(if is_part { "Those shown: " } else { "All " }).text(endpoints.len()).markup("</th>");
    number(html, &words::count(in_flight));
    number(html, &words::known(rate, words::rate));
    html.markup("<td></td>");
    number(html, &words::count(picked));
    number(html, &words::count(failed));
    html.markup("<td></td></tr></tfoot>\n");
}

fn class(endpoint: &EndpointState) -> &'static str {
    match endpoint.state.as_str() {
        "ready" => "ready",
        "cooling_down" | "probation" => "cooling",
        "ejected" => "ejected",
        _ => "unused",
    }
}

/// The state, how long it lasts and why.
fn said(endpoint: &EndpointState) -> String {
    let mut said = endpoint.state.replace('_', " ");
    if endpoint.closed_for_ms > 0 && endpoint.state != "ready" {
        said += &format!(" for {}", words::remaining(endpoint.closed_for_ms));
    }
    if let Some(why) = &endpoint.why {
        said += &format!(": {why}");
    }
    said
}

/// FNV-1a of some words.
fn digest(words: &[&str]) -> u32 {
    let bytes = words.iter().flat_map(|word| word.bytes().chain([0]));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(state: &str, closed_for_ms: u64, why: Option<&str>) -> EndpointState {
        let (state, why) = (state.to_owned(), why.map(str::to_owned));
        EndpointState { state, why, closed_for_ms, ..EndpointState::default() }
    }

    #[test]
    fn states_are_words() {
        for (endpoint, words) in [
            (endpoint("ready", 0, None), "ready"),
            (endpoint("cooling_down", 2_300, None), "cooling down for 3 s"),
            (endpoint("ejected", 12_000, None), "ejected for 12 s"),
            (endpoint("ejected", 0, Some("connection refused")), "ejected: connection refused"),
            (endpoint("unused", 0, Some("weight is zero")), "unused: weight is zero"),
            (endpoint("going_away", 0, None), "going away"),
        ] {
            assert_eq!(said(&endpoint), words);
        }
    }

    #[test]
    fn a_summary_counts_what_there_is() {
        let ready = || endpoint("ready", 0, None);
        let endpoints = vec![ready(), ready(), endpoint("ejected", 1, None)];

        assert_eq!(summary(&[]), "0 endpoints");
        let destination = Destination { endpoints, ..Destination::default() };
        assert_eq!(summary(&[destination]), "3 endpoints: 2 ready, 1 ejected");
    }
}
