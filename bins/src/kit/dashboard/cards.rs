//! What goes through the program, in a few large numbers.

use crate::kit::state::INTERVAL;
use crate::kit::state::Point;
use crate::kit::state::State;

use super::chart::Chart;
use super::chart::Scale;
use super::html::Html;
use super::words;

/// Writes the cards.
pub(super) fn write(html: &mut Html, state: &State, history: &[Point]) {
    let (traffic, recent) = (&state.traffic, &state.traffic.recent);
    let unit = capitalized(&traffic.unit);
    html.markup("<section aria-labelledby=\"traffic\">\n<h2 id=\"traffic\">Traffic <small>of the last ");
    html.text(INTERVAL.as_secs()).markup(" s; lines show 10 min</small></h2>\n<div class=\"cards\">\n");

    let name = format!("{unit} per second");
    let say = words::rate;
    open(html, &name);
    large(html, &words::known(recent.rate, say));
    let of = |point: &Point| point.rate;
    Chart { name: &name, history, of, say, scale: Scale::FromZero }.write(html, recent.rate);
    html.markup("</div>\n");

    let (name, say) = ("Success rate", words::share);
    open(html, name);
    large(html, &words::known(recent.success, say));
    let of = |point: &Point| point.success;
    Chart { name, history, of, say, scale: Scale::UpToAll }.write(html, recent.success);
    html.markup("</div>\n");

    let say = words::latency;
    html.markup("<div class=\"card double\"><h3 class=\"unseen\">Latency</h3><dl class=\"trio\">");
    for (name, value) in [("Latency p50", recent.p50_ms), ("p95", recent.p95_ms), ("p99", recent.p99_ms)] {
        html.markup("<div><dt>").text(name).markup("</dt><dd>").text(words::known(value, say));
        html.markup("</dd></div>");
    }
    html.markup("</dl>");
    let (name, of) = ("Latency of the slowest in a hundred, p99,", |point: &Point| point.p99_ms);
    Chart { name, history, of, say, scale: Scale::FromZero }.write(html, recent.p99_ms);
    html.markup("</div>\n");

    let (name, say) = ("Over TLS", words::share);
    open(html, name);
    large(html, &words::known(recent.tls, say));
    let (name, of) = ("Share over TLS", |point: &Point| point.tls);
    Chart { name, history, of, say, scale: Scale::Share }.write(html, recent.tls);
    html.markup("</div>\n");

    open(html, "In flight");
    large(html, &words::count(traffic.in_flight));
    html.markup("<dl class=\"totals\"><div><dt>Ended</dt><dd>").text(words::count(traffic.ended));
    html.markup("</dd></div><div><dt>Failed</dt><dd>").text(words::count(traffic.failed));
    html.markup("</dd></div></dl><p class=\"range\">since the start</p></div>\n");
    html.markup("</div>\n</section>\n");
}

fn open(html: &mut Html, name: &str) {
    html.markup("<div class=\"card\"><h3>").text(name).markup("</h3>");
}

fn large(html: &mut Html, value: &str) {
    html.markup("<p class=\"large\">").text(value).markup("</p>");
}

fn capitalized(unit: &str) -> String {
    let mut chars = unit.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
