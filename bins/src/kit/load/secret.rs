//! Passwords that must not be repeated in messages.

/// The text with what stands before the host of a URL, a user and a password, blotted out. As many characters as before.
pub(crate) fn blotted(text: &str) -> String {
    let Some((before, url)) = text.split_once("://") else { return text.to_owned() };
    // Up to the last one: passwords may have any characters in them, a place to be seen has few that are worth it.
    let (secret, rest) = url.split_at(url.rfind('@').unwrap_or_default());
    let blots: String = secret.chars().map(|_| '*').collect();
    format!("{before}://{blots}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_blotted_out() {
        for (text, shown) in [
            ("url: http://u:p@namerd:4180/x", "url: http://***@namerd:4180/x"),
            ("{a: \"http://u:p / '@é@h\"}", "{a: \"http://*********@h\"}"),
            ("http://a, http://u@b, http://c", "http://***********@b, http://c"),
            ("http://u:p://x@h", "http://*******@h"),
            ("a@b", "a@b"),
            ("http://h", "http://h"),
            ("", ""),
        ] {
            assert_eq!(blotted(text), shown);
        }
    }
}
