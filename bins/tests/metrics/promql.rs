//! What an expression of PromQL names: metrics with the labels that are asked of them, and labels to group by.
//!
//! It knows as much of the language as the alerts and the dashboard use, and takes what it does not know for a metric.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::reference::Entry;

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names {
    pub(crate) selectors: Vec<Selector>,
    /// Labels to group or to join by.
    pub(crate) groups: BTreeSet<String>,
}

/// A metric with what is asked of its labels.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator, and value.
    pub(crate) matchers: Vec<(String, String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, a number, a duration or a variable of Grafana's.
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(expr: &str) -> Vec<Token> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_:$.".contains(c);
    let (mut tokens, mut chars) = (Vec::new(), expr.chars().peekable());
    while let Some(c) = chars.next() {
        if is_word(c) {
            let mut word = c.to_string();
            while let Some(c) = chars.next_if(|c| is_word(*c)) {
                word.push(c);
            }
            tokens.push(Token::Word(word));
        } else if c == '"' || c == '\'' {
            // No escapes: none are needed here.
            tokens.push(Token::Text(chars.by_ref().take_while(|other| *other != c).collect()));
        } else if !c.is_whitespace() {
            tokens.push(Token::Sign(c));
        }
    }
    tokens
}

/// Reads an expression.
pub(crate) fn names(expr: &str) -> Names {
    const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const WORDS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "inf"];

    let (mut names, mut tokens) = (Names::default(), tokens(expr).into_iter().peekable());
    while let Some(token) = tokens.next() {
        let word = match token {
            Token::Sign('[') => {
                tokens.by_ref().find(|token| *token == Token::Sign(']')).expect("a range ends");
                continue;
            }
            Token::Word(word) => word,
            _ => continue,
        };
        let is_group_next = tokens
            .peek()
            .is_some_and(|next| matches!(next, Token::Word(word) if word == "by" || word == "without"));
        let is_called = tokens.peek() == Some(&Token::Sign('('));
        if GROUPING.contains(&&*word) {
            if is_called {
                let labels = tokens.by_ref().take_while(|token| *token != Token::Sign(')'));
                names.groups.extend(labels.filter_map(|token| match token {
                    Token::Word(label) => Some(label),
                    _ => None,
                }));
            }
        } else if !is_called
            && !is_group_next
            && !WORDS.contains(&&*word)
            && !word.starts_with(|c: char| c.is_ascii_digit() || c == '$')
        {
            let mut selector = Selector { metric: word, matchers: Vec::new() };
            if tokens.next_if_eq(&Token::Sign('{')).is_some() {
                let inside: Vec<_> = tokens.by_ref().take_while(|token| *token != Token::Sign('}')).collect();
                for matcher in inside.split(|token| *token == Token::Sign(',')) {
                    selector
                        .matchers
                        .push(self::matcher(matcher).unwrap_or_else(|| panic!("{matcher:?} in {expr}")));
                }
            }
            names.selectors.push(selector);
        }
    }
    names
}

fn matcher(tokens: &[Token]) -> Option<(String, String, String)> {
    let (Token::Word(label), Token::Text(value)) = (tokens.first()?, tokens.last()?) else { return None };
    let sign = |token: &Token| match token {
        Token::Sign(sign) => Some(*sign),
        _ => None,
    };
    let operator: Option<String> = tokens[1..tokens.len() - 1].iter().map(sign).collect();
    let operator = operator.filter(|operator| ["=", "!=", "=~", "!~"].contains(&operator.as_str()))?;
    Some((label.clone(), operator, value.clone()))
}

/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "job"];

/// Checks that all of it is documented, and returns the labels that a result may have.
pub(crate) fn check(expr: &str, known: &BTreeMap<String, Entry>) -> Result<BTreeSet<String>, String> {
    let names = names(expr);
    let mut labels: BTreeSet<String> = ADDED.map(str::to_owned).into();
    for Selector { metric, matchers } in &names.selectors {
        // Prometheus' own, about the scrape.
        if metric == "up" {
            continue;
        }
        let (entry, is_bucket) =
            find(metric, known).ok_or_else(|| format!("{metric} is no metric, in {expr}"))?;
        labels.extend(entry.labels.keys().cloned());
        labels.extend(is_bucket.then(|| "le".to_owned()));
        for (label, operator, value) in matchers.iter().filter(|(label, _, _)| !ADDED.contains(&&**label)) {
            let values =
                entry.labels.get(label).ok_or_else(|| format!("{metric} has no label {label}, in {expr}"))?;
            let is_regex = operator.ends_with('~');
            let asked =
                value.split('|').filter(|value| !is_regex || value.chars().all(char::is_alphanumeric));
            if let Some(odd) = asked.filter(|_| !values.is_empty()).find(|value| !values.contains(*value)) {
                return Err(format!("{label} of {metric} is never {odd}, in {expr}"));
            }
        }
    }
    if let Some(odd) = names.groups.iter().find(|label| !labels.contains(*label)) {
        return Err(format!("no metric has a label {odd}, in {expr}"));
    }
    if names.selectors.is_empty() { Err(format!("no metric in {expr}")) } else { Ok(labels) }
}

/// The family of a sample, and whether it is a bucket.
fn find<'a>(sample: &str, known: &'a BTreeMap<String, Entry>) -> Option<(&'a Entry, bool)> {
    if let Some(entry) = known.get(sample).filter(|entry| entry.kind != "histogram") {
        return Some((entry, false));
    }
    ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| {
        let entry = known.get(sample.strip_suffix(suffix)?).filter(|entry| entry.kind == "histogram")?;
        Some((entry, suffix == "_bucket"))
    })
}

mod tests {
    use super::*;

    #[test]
    fn metrics_and_labels_are_told_from_all_else() {
        let expr = r#"sum by (a, le) (rate(m_bucket{x="1,}", y!~"$y"}[$__rate_interval])) / on (b) group_left l5d:n > 1e3
            and histogram_quantile(0.99, max(o offset 5m)) unless p{}"#;
        let expr = expr.replace("p{}", "p");

        let names = names(&expr);

        let metrics: Vec<_> = names.selectors.iter().map(|selector| &*selector.metric).collect();
        assert_eq!(metrics, ["m_bucket", "l5d:n", "o", "p"]);
        let matcher = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(names.selectors[0].matchers, [matcher("x", "=", "1,}"), matcher("y", "!~", "$y")]);
        assert_eq!(names.groups, ["a", "b", "le"].map(str::to_owned).into());
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let labels = [("state".to_owned(), ["ready".to_owned()].into()), ("dst".to_owned(), BTreeSet::new())];
        let entry = |kind: &str| Entry { kind: kind.to_owned(), labels: labels.clone().into() };
        let known =
            [("endpoints".to_owned(), entry("gauge")), ("took".to_owned(), entry("histogram"))].into();

        for good in [
            r#"sum by (job, dst) (endpoints{state="ready", instance=~"$x"}) == 0"#,
            r#"endpoints{state=~"ready", dst="anything"} and on (instance) up == 1"#,
            "sum by (le) (took_bucket) + took_sum + took_count",
        ] {
            check(good, &known).expect(good);
        }
        for bad in [
            "endpoint",
            "endpoints_sum",
            "took",
            "took_total",
            r#"endpoints{le="1"}"#,
            "sum by (le) (took_sum)",
            r#"endpoints{state="readi"}"#,
            r#"endpoints{state=~"ready|readi"}"#,
            "sum by (dest) (endpoints)",
            "1",
        ] {
            assert!(check(bad, &known).is_err(), "{bad}");
        }
    }
}
