//! Certificates and how long they last.

use crate::kit::state::Certificate;
use crate::kit::state::State;

use super::html::Html;
use super::words;
use super::words::DAY;

/// What a whole bar stands for: the life of a certificate from the usual authorities.
const WHOLE: u64 = 90 * DAY;
/// Below this there is little time: what renews by itself has done so by then.
const LITTLE: u64 = 30 * DAY;
/// Below this somebody should look.
const LEAST: u64 = 14 * DAY;

/// Most that are shown, those that end first.
const MOST: usize = 200;

const COLUMNS: [&str; 6] = ["Names", "Ends", "State", "For", "Issuer", "File"];

/// Writes the table, if there is something to write.
pub(super) fn write(html: &mut Html, state: &State) {
    if state.certificates.is_empty() {
        return;
    }
    html.markup("<section aria-labelledby=\"certificates\">\n<h2 id=\"certificates\">Certificates</h2>\n");
    let mut shown: Vec<&Certificate> = state.certificates.iter().collect();
    if shown.len() > MOST {
        // What went wrong first, and what has no end is none.
        shown.sort_by_key(|it| (it.error.is_none(), it.not_after_ms));
        let left_off = words::counted(shown.len() - MOST, "certificate that ends", "certificates that end");
        html.markup("<p class=\"note\">").text(left_off);
        html.markup(" later: <a id=\"more-certificates\" href=\"certs.json\">all of them</a>.</p>\n");
        shown.truncate(MOST);
    }
    html.markup("<div class=\"box\" id=\"box-certificates\" role=\"region\" tabindex=\"0\" aria-label=\"Certificates\">\n");
    html.markup(
        "<table>\n<caption class=\"unseen\">Certificates that are shown or used</caption>\n<thead><tr>",
    );
    for name in COLUMNS {
        html.markup("<th scope=\"col\">").text(name).markup("</th>");
    }
    html.markup("</tr></thead>\n<tbody>\n");
    for certificate in shown {
        row(html, certificate, state.at_ms);
    }
    html.markup("</tbody>\n</table></div>\n</section>\n");
}

fn row(html: &mut Html, certificate: &Certificate, now_ms: u64) {
    html.markup("<tr").attribute("class", class(certificate, now_ms)).markup("><th scope=\"row\">");
    if certificate.names.is_empty() {
        html.markup(words::UNKNOWN);
    }
    html.text(certificate.names.join(", ")).markup("</th><td class=\"ends\">");
    match certificate.not_after_ms {
        Some(end) => {
            let text = ends(end, now_ms);
            html.text(&text).markup(" <small>");
            words::moment(html, end);
            html.markup("</small>");
            bar(html, end.saturating_sub(now_ms), &text);
        }
        None => {
            html.markup(words::UNKNOWN);
        }
    }
    html.markup("</td><td class=\"state\">").text(&certificate.state);
    if let Some(error) = &certificate.error {
        html.markup("<small class=\"red\">").text(error).markup("</small>");
    }
    html.markup("</td><td>").text(&certificate.role);
    for text in [&certificate.issuer, &certificate.file] {
        html.markup("</td><td>").text(text.as_deref().unwrap_or(words::UNKNOWN));
    }
    html.markup("</td></tr>\n");
}

/// A bar that is as long as there is time left.
fn bar(html: &mut Html, left: u64, text: &str) {
    html.markup("<svg class=\"bar\" role=\"img\" viewBox=\"0 0 90 6\" preserveAspectRatio=\"none\"");
    html.attribute("aria-label", format_args!("ends {text}; the whole bar is 90 days")).markup(">");
    html.markup("<rect class=\"whole\" width=\"90\" height=\"6\"/><rect class=\"left\" height=\"6\"");
    html.attribute("width", left.min(WHOLE) / DAY).markup("/></svg>");
}

fn ends(end: u64, now_ms: u64) -> String {
    // Hours matter only at the end.
    let whole = |ms: u64| if ms < 2 * DAY { words::span(ms) } else { words::span(ms / DAY * DAY) };
    match end.checked_sub(now_ms) {
        Some(left) => format!("in {}", whole(left)),
        None => format!("{} ago", whole(now_ms - end)),
    }
}

fn class(certificate: &Certificate, now_ms: u64) -> &'static str {
    match certificate.not_after_ms.map(|end| end.saturating_sub(now_ms)) {
        Some(left) if left < LEAST => "ejected",
        _ if certificate.error.is_some() => "ejected",
        Some(left) if left < LITTLE => "cooling",
        Some(_) => "ready",
        None => "unused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(not_after_ms: u64) -> Certificate {
        Certificate { not_after_ms: Some(not_after_ms), ..Certificate::default() }
    }

    #[test]
    fn a_certificate_asks_for_attention_in_time() {
        let now = 1_000 * DAY;
        for (end, text, class_of_it) in [
            (now + 53 * DAY + 1, "in 53 days", "ready"),
            (now + 30 * DAY - 1, "in 29 days", "cooling"),
            (now + 14 * DAY - 1, "in 13 days", "ejected"),
            (now + DAY + DAY / 2, "in 1 day 12 h", "ejected"),
            (now - 3 * DAY, "3 days ago", "ejected"),
        ] {
            assert_eq!((&*ends(end, now), class(&ending(end), now)), (text, class_of_it));
        }
        let failed = Certificate { error: Some("refused".into()), ..ending(now + WHOLE) };
        assert_eq!(class(&failed, now), "ejected");
        assert_eq!(class(&Certificate::default(), now), "unused");
    }
}
