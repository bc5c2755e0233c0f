//! What is written can be told from what it is written on.

use std::collections::HashMap;

const INKS: [&str; 6] = ["ink", "soft", "accent", "green", "amber", "red"];
const GROUNDS: [&str; 6] = ["ground", "panel", "green-ground", "amber-ground", "red-ground", "grey-ground"];

/// Checks the colours of a style sheet that sets them as `--name: #rrggbb`, for light and then for dark.
pub(crate) fn check(style: &str) {
    let (light, dark) = style.split_once("@media (prefers-color-scheme: dark)").expect("two sets of colours");
    for colors in [light, dark] {
        let colors: HashMap<_, _> = colors
            .split("--")
            .filter_map(|rest| rest.split_once(": #"))
            .filter_map(|(name, rest)| Some((name, luminance(rest.split([';', ' ']).next()?)?)))
            .collect();
        for ink in INKS {
            for ground in GROUNDS {
                let (a, b) = (colors[ink], colors[ground]);
                // WCAG 2.2, success criterion 1.4.3.
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 4.5, "{ink} on {ground}: {contrast:.2}");
            }
        }
    }
}

/// WCAG 2.2, "relative luminance".
fn luminance(hex: &str) -> Option<f64> {
    let digits = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex.to_owned() };
    let part = |at: usize| {
        let part = f64::from(u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?) / 255.0;
        Some(if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) })
    };
    Some(0.2126 * part(0)? + 0.7152 * part(2)? + 0.0722 * part(4)?)
}
