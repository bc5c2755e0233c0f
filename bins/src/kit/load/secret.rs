//! Passwords that must not be repeated in messages.

/// The text with what stands before the host of a URL, a user and a password, blotted out. As many characters as before.
pub(crate) fn blotted(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        // Up to the last one: passwords may have any characters in them, a place to be seen has few that are worth it.
        let (secret, rest) = part.split_at(part.rfind('@').unwrap_or_default());
        shown.extend(secret.chars().map(|_| '*'));
        shown.push_str(rest);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_blotted_out() {
        for (text, shown) in [
            ("url: http://u:p@namerd:4180/x", "url: http://***@namerd:4180/x"),
            ("{a: \"http://u:p / '@é@h\"}", "{a: \"http://*********@h\"}"),
            ("http://a, http://u@b, http://c", "http://a, http://*@b, http://c"),
            ("a@b", "a@b"),
            ("http://h", "http://h"),
            ("", ""),
        ] {
            assert_eq!(blotted(text), shown);
        }
    }
}
