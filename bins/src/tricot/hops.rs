//! How often a request has come through a proxy like this one already.
//!
//! Only an instance that speaks TLS may be a `tricot` again, since its HTTP port passes nothing on: requests to such
//! instances carry a member `tricot` in `CDN-Loop` ([RFC 8586](https://www.rfc-editor.org/rfc/rfc8586)) for each pass.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const OWN: &str = "tricot";

/// A chain of proxies on purpose is shorter.
const MOST: usize = 8;

/// Counts one pass more. What others have written there stays.
pub(super) fn add(headers: &mut HeaderMap) {
    headers.append(CDN_LOOP, const { HeaderValue::from_static(OWN) });
}

/// Whether a request goes round in circles.
pub(super) fn are_too_many(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(CDN_LOOP).iter();
    let members = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    members.filter(|member| is_own(member)).nth(MOST - 1).is_some()
}

/// Whether a member, which may have parameters, is ours.
fn is_own(member: &[u8]) -> bool {
    let id = member.split(|byte| *byte == b';').next().unwrap_or_default();
    id.trim_ascii().eq_ignore_ascii_case(OWN.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (CDN_LOOP, HeaderValue::from_str(field).unwrap())).collect()
    }

    #[test]
    fn members_are_counted_in_all_fields_and_those_of_others_are_not() {
        let seven = "tricot, tricot;a=b ,Tricot,\ttricot,tricot,tricot,tricot";
        assert!(!are_too_many(&HeaderMap::new()));
        assert!(!are_too_many(&headers(&[seven])));
        assert!(!are_too_many(&headers(&[seven, "other", "tricot.example.com, a;b=tricot", "", ","])));
        assert!(are_too_many(&headers(&[seven, "other, tricot"])));
        assert!(are_too_many(&headers(&["tricot"; 9])));
    }

    #[test]
    fn a_pass_is_added_to_what_is_there() {
        let mut passed = headers(&["other", "tricot"]);

        add(&mut passed);

        assert_eq!(passed, headers(&["other", "tricot", "tricot"]));
    }
}
