//! The page as a whole.

use crate::kit::state::Point;
use crate::kit::state::State;

use super::SCRIPT;
use super::STYLE;
use super::cards;
use super::certificates;
use super::destinations;
use super::html::Html;
use super::words;

/// A square with a line in it, so that browsers do not ask for an icon.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect \
                    width='16' height='16' rx='3' fill='%232456a6'/%3E%3Cpath d='M2 10l4-4 3 3 5-5' fill='none' \
                    stroke='%23fff' stroke-width='2'/%3E%3C/svg%3E";

/// The page for a state and the ten minutes before it.
pub(super) fn page(state: &State, history: &[Point]) -> String {
    let mut html = Html::default();
    html.markup("<!DOCTYPE html>\n<html lang=\"en\"");
    // The script loads all of it anew when it comes from another build than before.
    let (style, script) = (digest(STYLE), digest(SCRIPT));
    let build = format_args!("{} {} {style:08x} {script:08x}", state.version, state.commit);
    html.attribute("data-build", build);
    html.markup(">\n<head>\n<meta charset=\"utf-8\">\n<title>");
    html.text(&state.tool).markup(if state.unready.is_empty() { ": ready" } else { ": not ready" });
    html.markup("</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.markup("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.markup("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n");
    html.markup("<link rel=\"icon\"").attribute("href", ICON).markup(">\n<link rel=\"stylesheet\"");
    html.attribute("href", format_args!("dashboard.css?v={style:08x}")).markup(">\n<script defer");
    html.attribute("src", format_args!("dashboard.js?v={script:08x}")).markup("></script>\n");
    html.markup("</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the content</a>\n");
    top(&mut html, state);
    html.markup("<main id=\"main\" tabindex=\"-1\">\n");
    facts(&mut html, state);
    cards::write(&mut html, state, history);
    destinations::write(&mut html, state);
    certificates::write(&mut html, state);
    html.markup("</main>\n");
    html.markup(
        "<footer><nav aria-label=\"Other forms\"><a href=\"metrics\">Metrics</a> \
         <a href=\"state.json\">State as JSON</a> <a href=\"config.json\">Configuration</a> \
         <a href=\"ready\">Readiness</a></nav></footer>\n</body>\n</html>\n",
    );
    html.into_string()
}

fn top(html: &mut Html, state: &State) {
    html.markup("<header><h1>").text(&state.tool).markup("</h1><p class=\"version\">").text(&state.version);
    if state.commit != "unknown" {
        html.markup(" <span class=\"soft\">").text(&state.commit).markup("</span>");
    }
    html.markup("</p>");
    // For the script, which says here whether the program answers.
    html.markup("<p id=\"link\" role=\"status\"></p></header>\n");
}

/// Whether traffic is welcome, since when it runs, and with which configuration.
fn facts(html: &mut Html, state: &State) {
    html.markup("<section class=\"facts\" aria-label=\"Condition\">\n");
    if state.unready.is_empty() {
        html.markup("<p class=\"badge good\">Ready</p>\n");
    } else {
        html.markup("<div class=\"badge bad\"><p>Not ready</p><ul>");
        for reason in &state.unready {
            html.markup("<li>").text(reason).markup("</li>");
        }
        html.markup("</ul></div>\n");
    }
    if !state.problems.is_empty() {
        html.markup("<div class=\"badge bad\"><p>Problems</p><ul>");
        for problem in &state.problems {
            html.markup("<li>").text(problem).markup("</li>");
        }
        html.markup("</ul></div>\n");
    }
    html.markup("<dl><div><dt>Up for</dt><dd>").text(words::span(state.uptime_ms));
    html.markup(" <small>since ");
    words::moment(html, state.started_ms);
    html.markup("</small></dd></div>\n<div><dt>Configuration</dt><dd>");
    let reload = &state.reload;
    match &reload.source {
        Some(source) => html.text(source),
        None => html.markup("arguments and variables"),
    };
    if reload.success_ms > 0 {
        html.markup(" <small>loaded ").text(words::span(state.at_ms.saturating_sub(reload.success_ms)));
        html.markup(" ago, ");
        words::moment(html, reload.success_ms);
        html.markup("</small>");
    }
    html.markup("</dd></div>\n<div><dt>As of</dt><dd>");
    words::moment(html, state.at_ms);
    html.markup("</dd></div></dl>\n");
    if !reload.successful {
        html.markup("<div class=\"alert\"><p>The configuration could not be loaded");
        if reload.failed_ms > 0 {
            html.markup(" ").text(words::span(state.at_ms.saturating_sub(reload.failed_ms))).markup(" ago");
        }
        html.markup(if reload.success_ms > 0 {
            "; the one before stays in force. HUP tries again."
        } else {
            "."
        });
        html.markup("</p>");
        if let Some(error) = &reload.error {
            html.markup("<pre>").text(error).markup("</pre>");
        }
        html.markup("</div>\n");
    }
    html.markup("</section>\n");
}

/// FNV-1a, which tells one build's files from another's.
const fn digest(text: &str) -> u32 {
    let (mut hash, mut n, bytes) = (0x811c_9dc5_u32, 0, text.as_bytes());
    while n < bytes.len() {
        hash = (hash ^ bytes[n] as u32).wrapping_mul(0x0100_0193);
        n += 1;
    }
    hash
}
