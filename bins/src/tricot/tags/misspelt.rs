//! First words that are nearly one of ours: who wrote them waits for a site that never comes.

/// The word that is probably meant by the first word of a tag that is none of ours. `rest` is what comes after it.
pub(super) fn meant(word: &str, rest: &str) -> Option<&'static str> {
    let end = word.find(SEPARATORS).unwrap_or(word.len());
    let (head, tail) = word.split_at(end);
    // A tag of one word may be a word of its own.
    if !is_near(head.as_bytes()) || (tail.is_empty() && rest.is_empty()) {
        return None;
    }
    let tail = tail.to_ascii_lowercase().replace('_', "-");
    let known = super::WORDS.iter().find(|known| known.strip_prefix(OWN) == Some(&*tail));
    Some(known.copied().unwrap_or(OWN))
}

/// Whether a word differs from ours in case, and in one letter at most: missing, too many, another, or changed with the
/// next.
fn is_near(word: &[u8]) -> bool {
    let own = OWN.as_bytes();
    let same = word.iter().zip(own).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    let (word, own) = (&word[same..], &own[same..]);
    let equal = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
    match (word, own) {
        ([], []) => true,
        ([_, word @ ..], []) => word.is_empty(),
        ([], [_, own @ ..]) => own.is_empty(),
        ([a, after @ ..], [b, of_own @ ..]) => {
            equal(after, own)
                || equal(word, of_own)
                || equal(after, of_own)
                || matches!((after, of_own), ([c, after @ ..], [d, of_own @ ..])
                    if a.eq_ignore_ascii_case(d) && b.eq_ignore_ascii_case(c) && equal(after, of_own))
        }
    }
}

const OWN: &str = "tricot";
const SEPARATORS: [char; 5] = ['-', '_', ':', '=', '/'];
