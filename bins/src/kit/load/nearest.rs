//! The nearest valid key to a misspelt one.

/// The option closest to `word`, if any is close enough to be what was meant.
///
/// Case and `_`, `-` do not count: `alpn_protocols` is `alpnProtocols`. Otherwise a third of the letters may
/// differ, where a swap of two neighbours is one difference.
pub fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    /// No key is longer; a longer word is no misspelling and not worth a quadratic comparison.
    const LONGEST: usize = 64;
    let word = plain(word);
    if word.len() > LONGEST {
        return None;
    }
    options
        .iter()
        .map(|option| (distance(&word, &plain(option)), *option))
        .filter(|(far, option)| *far <= (option.len() / 3).max(1))
        .min_by_key(|(far, _)| *far)
        .map(|(_, option)| option)
}

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Edit distance with swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let options = ["label", "servers", "namerd", "client", "maxWaiters"];
        for (word, meant) in [
            ("sevrers", Some("servers")),
            ("server", Some("servers")),
            ("max_waiters", Some("maxWaiters")),
            ("MAXWAITERS", Some("maxWaiters")),
            ("lable", Some("label")),
            ("", None),
            ("interpreter", None),
        ] {
            assert_eq!(nearest(word, &options), meant, "{word}");
        }
        assert_eq!(nearest(&"servers".repeat(1000), &options), None);
    }
}
