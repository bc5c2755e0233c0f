//! Which coding a client wants.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// A way to compress a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Zstandard, RFC 8878.
    #[cfg(feature = "compress-zstd")]
    Zstd,
    /// Brotli, RFC 7932.
    Brotli,
    /// gzip, RFC 1952.
    Gzip,
}

impl Coding {
    /// All that there are; of those that a client likes the same the first is taken.
    const ALL: &[Self] = &[
        #[cfg(feature = "compress-zstd")]
        Self::Zstd,
        Self::Brotli,
        Self::Gzip,
    ];

    /// Its name in `Content-Encoding`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "compress-zstd")]
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    fn is_called(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name())
            // RFC 9110 section 8.4.1.3: the two are equivalent.
            || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// The coding that a request's `Accept-Encoding` likes best; `None` if the body should stay as it is.
///
/// RFC 9110 section 12.5.3: what is named counts, `*` speaks for what is not. Of a coding that is named twice the first
/// counts. `identity` wins only if it is named with a higher weight than any coding. No allocation.
pub(super) fn coding(headers: &HeaderMap) -> Option<Coding> {
    let weight_of = |is_called: &dyn Fn(&str) -> bool| {
        items(headers).find(|(name, _)| is_called(name)).map(|(_, weight)| weight)
    };
    let others = weight_of(&|name| name == "*").unwrap_or_default();
    let identity = weight_of(&|name| name.eq_ignore_ascii_case("identity")).unwrap_or_default();

    let mut best = None;
    for coding in Coding::ALL {
        let weight = weight_of(&|name| coding.is_called(name)).unwrap_or(others);
        if weight > 0 && weight >= identity && best.is_none_or(|(_, than)| weight > than) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// Names with weights in thousandths, in the order in which they are given.
fn items(headers: &HeaderMap) -> impl Iterator<Item = (&str, u16)> {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim_end().eq_ignore_ascii_case("q").then(|| weight(value.trim_start()))
        });
        (name, weight.unwrap_or(1000))
    })
}

/// RFC 9110 section 12.4.2: from 0 to 1 with at most three decimals. Anything else counts as zero: what cannot be read is
/// no consent.
fn weight(text: &str) -> u16 {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.bytes().all(|b| b.is_ascii_digit()) && decimals.len() <= 3;
    if !digits {
        return 0;
    }
    let decimals = decimals.bytes().map(|b| u16::from(b - b'0')).chain([0; 3]).take(3);
    match (whole, decimals.fold(0, |number, digit| number * 10 + digit)) {
        ("0", thousandths) => thousandths,
        ("1", 0) => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn named(lines: &[&str]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        coding(&headers).map(Coding::name)
    }

    /// The first of all codings.
    fn first() -> Option<&'static str> {
        Some(Coding::ALL[0].name())
    }

    #[test]
    fn what_is_named_counts() {
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[""]), None);
        assert_eq!(named(&["deflate"]), None);
        assert_eq!(named(&["identity"]), None);
        assert_eq!(named(&["gzip"]), Some("gzip"));
        assert_eq!(named(&["GZip"]), Some("gzip"));
        assert_eq!(named(&["x-gzip"]), Some("gzip"));
        assert_eq!(named(&["gzipx, xgzip"]), None);
        assert_eq!(named(&["deflate", "gzip"]), Some("gzip"));
        assert_eq!(named(&["deflate, gzip;q=1.0, *;q=0.5"]), Some("gzip"));
    }

    #[test]
    fn of_equals_the_first_of_ours_is_taken() {
        assert_eq!(named(&["gzip, br"]), Some("br"));
        assert_eq!(named(&["gzip;q=0.5, br;q=0.5"]), Some("br"));
        assert_eq!(named(&["gzip, deflate, br, zstd"]), first());
        assert_eq!(named(&["*"]), first());
    }

    #[test]
    fn weights_decide() {
        assert_eq!(named(&["br;q=0.5, gzip"]), Some("gzip"));
        assert_eq!(named(&["br;q=0.999, gzip;q=1"]), Some("gzip"));
        assert_eq!(named(&["br ; Q = 0.001 , zstd;q=0"]), Some("br"));
        assert_eq!(named(&["gzip;level=9;q=0.1"]), Some("gzip"));
        assert_eq!(named(&["*;q=0.1, gzip;q=0.2"]), Some("gzip"));
    }

    #[test]
    fn zero_is_a_refusal() {
        assert_eq!(named(&["gzip;q=0"]), None);
        assert_eq!(named(&["gzip;q=0.000"]), None);
        assert_eq!(named(&["*;q=0"]), None);
        assert_eq!(named(&["*, br;q=0, zstd;q=0"]), Some("gzip"));
        assert_eq!(named(&["*;q=0, gzip"]), Some("gzip"));
        assert_eq!(named(&["identity;q=0"]), None);
    }

    #[test]
    fn identity_may_be_preferred() {
        assert_eq!(named(&["identity, gzip;q=0.5"]), None);
        assert_eq!(named(&["identity;q=0.5, gzip;q=0.5"]), Some("gzip"));
        assert_eq!(named(&["identity;q=0.5, *;q=0.4"]), None);
        assert_eq!(named(&["identity;q=0.5, *;q=0.4, br;q=0.6"]), Some("br"));
    }

    #[test]
    fn what_cannot_be_read_is_no_consent() {
        for q in ["", "1.5", "2", "-1", "0.1234", "0.x", ".5", "1.001", "nan", "0.+1", "1e0"] {
            assert_eq!(named(&[&format!("gzip;q={q}")]), None, "{q}");
        }
        for q in ["0.", "1.", "1.0", "1.000", "0.05"] {
            let expected = if q == "0." { None } else { Some("gzip") };
            assert_eq!(named(&[&format!("gzip;q={q}")]), expected, "{q}");
        }
    }
}
