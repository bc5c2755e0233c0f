//! Parsing ends with a result for every text.

use proptest::prelude::*;

use super::*;

/// Pieces of configurations, so that random texts get past the first line.
const PIECES: &[&str] = &[
    "proxies:",
    "routers:",
    "- ",
    "  ",
    "\n",
    "servers:",
    "namerd:",
    "label: ",
    "addr: ",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|\n",
    ">-\n",
    "#",
    "---\n",
    "...\n",
    "\t",
    "\r",
    "\u{feff}",
    "null",
    "~",
    "1e999",
    ".nan",
    "-1",
    "99999999999999999999999999999999999999999999",
    "0x1",
    "true",
    "/svc/a",
    "kind: ",
    "io.l5d.tls",
    "io.l5d.static",
    "tls:",
    "identities:",
    "interpreter:",
    "client:",
    "configs:",
    "é",
    "\u{0}",
    "?",
    "%YAML 1.2\n",
    "http://[::1]:1/",
    "\\ud800",
    "\u{2028}",
    "\u{85}",
];

/// A result of either kind must print.
fn total(text: &str) {
    match parse(text, "f") {
        Ok((config, warnings)) => {
            let _ = format!("{config:?}");
            warnings.iter().for_each(|warning| drop(warning.to_string()));
        }
        Err(error) => {
            assert!(!error.problems().is_empty());
            assert!(error.to_string().starts_with("f"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text(text in any::<String>()) {
        total(&text);
    }

    #[test]
    fn any_bytes_read_as_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        total(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_mixture_of_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        total(&pieces.concat());
    }

    #[test]
    fn any_damage_to_a_good_file(
        example in 0..EXAMPLES.len(),
        at in any::<prop::sample::Index>(),
        length in 0..20_usize,
        piece in prop::sample::select(PIECES),
    ) {
        let chars: Vec<char> = EXAMPLES[example].chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        let text: String = chars[..start].iter().copied().chain(piece.chars()).chain(chars[end..].iter().copied()).collect();
        total(&text);
    }

    #[test]
    fn any_value_in_any_field(
        field in prop::sample::select(&["addr", "url", "path", "namespace", "intervalSecs", "watch", "tls", "mode"][..]),
        value in any::<String>(),
    ) {
        total(&format!("proxies: [{{servers: [], namerd: {{path: /a, {field}: {value:?}}}}}]"));
    }
}

const EXAMPLES: [&str; 4] = [
    include_str!("../../../../tests/data/linkerd-tcp/a-tls.yml"),
    include_str!("../../../../tests/data/linkerd-tcp/a-tls.json"),
    include_str!("../../../../tests/data/linkerd-tcp/b-static.yml"),
    include_str!("../../../../tests/data/linkerd-tcp/b-static.json"),
];

#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{\"a\":", "{a: ", "- ", "? ", "[{", "a: [", "&a [", "!t ["] {
        let error = parse(&open.repeat(100_000), "f").unwrap_err();
        assert_eq!(error.problems().len(), 1, "{open}");
    }
    let steps: String = (0..5000).map(|i| " ".repeat(i) + "a:\n").collect();
    assert!(parse(&steps, "f").is_err());
}

#[test]
fn huge_aliases_are_refused() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_string();
    for i in 1..20 {
        let items = vec![format!("*a{}", i - 1); 9].join(",");
        text += &format!("a{i}: &a{i} [{items}]\n");
    }

    let error = parse(&text, "f").unwrap_err();
    assert!(error.to_string().contains("too large or too deep"), "{error}");
}

#[test]
fn an_alias_to_itself_is_refused() {
    assert!(parse("proxies: &a [*a]", "f").is_err());
    assert!(parse("proxies: &a\n  <<: *a", "f").is_err());
}

#[test]
fn a_flood_of_problems_is_cut() {
    let text = format!("proxies: []\n{}", (0..5000).map(|i| format!("k{i}: 1\n")).collect::<String>());

    let error = parse(&text, "f").unwrap_err();
    assert_eq!(error.problems().len(), 101);
    assert_eq!(error.problems()[100].to_string(), "f: and 4900 more problems");
}
