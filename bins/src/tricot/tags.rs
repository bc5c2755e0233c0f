//! What the tags of a service's instance say.
//!
//! ```text
//! tricot HOST[/PATH] [PRIORITY]                                 requests for HOST come here, over plain HTTP
//! tricot-https HOST[/PATH] [PRIORITY]                           the same, the instance speaks TLS
//! tricot-add-header NAME VALUE                                  a header of every answer
//! tricot-add-redirect HOST[/PATH] HOST[:PORT][/PATH] [STATUS]   requests for the first are sent to the second
//! tricot-on-demand-tls-ask URL                                  who is asked before a certificate is ordered for a wildcard
//! tricot-site-lb, tricot-global-lb                              how far requests are spread
//! ```
//!
//! Words are separated by blanks. HOST is a name, `*`, `*.name`, or a name with `*`, `?` and `[ab]` in it.
//!
//! [`parse`] reads one tag, [`Registration::from_tags`] all tags of one instance. A tag that cannot be read is left out
//! with a reason for whoever wrote it, and changes nothing about the others. Other tags may be there for other tools.
//! Pure, without I/O; whatever a tag is, reading it takes no longer than its length allows.
//!
//! # Examples
//!
//! ```
//! use bins::tricot::tags::Registration;
//!
//! let registration = Registration::from_tags(["tricot app.example.com/api 10", "tricot http://oops", "urlprefix-/x"]);
//!
//! let frontend = &registration.frontends[0];
//! assert_eq!(frontend.to_string(), "app.example.com/api 10");
//! assert!(frontend.host.matches("app.example.com"));
//! assert_eq!(
//!     registration.problems[0].to_string(),
//!     "tag \"tricot http://oops\" is ignored: a host is wanted without http://, such as app.example.com"
//! );
//! ```

mod frontend;
mod glob;
mod header;
mod host;
mod misspelt;
mod problem;
mod redirect;
mod registration;
#[cfg(test)]
mod tests;

use http::Uri;

pub use frontend::Backend;
pub use frontend::DEFAULT_PRIORITY;
pub use frontend::Frontend;
pub use glob::Glob;
pub use header::AddHeader;
pub use host::Host;
pub use host::HostPattern;
pub use problem::Problem;
pub use problem::TagError;
pub use problem::TagWarning;
pub use redirect::Redirect;
pub use registration::Registration;
pub use registration::Spread;

/// What one tag says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tag {
    /// Which requests come to the instance.
    Frontend(Frontend),
    /// A header of every answer of the instance.
    AddHeader(AddHeader),
    /// Requests that are sent elsewhere.
    Redirect(Redirect),
    /// Whom to ask before a certificate is ordered for a name that only a wildcard names.
    Ask(Uri),
    /// Requests are spread over the instances of a site.
    SiteLb,
    /// Requests are spread over all instances.
    GlobalLb,
}

/// What became of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parsed {
    /// It says something, maybe less than it tries to.
    Tag(Tag, Vec<TagWarning>),
    /// It was meant for tricot and cannot be read.
    Refused(TagError),
    /// It is meant for others.
    Ignored,
}

/// Reads one tag.
///
/// The first word decides, in lower case as it is; everything that begins with `tricot-` is taken to be meant for tricot,
/// and so is what is nearly `tricot`.
pub fn parse(tag: &str) -> Parsed {
    let (word, rest) = word(tag);
    let mut warnings = Vec::new();
    let tag = match word {
        "tricot" => frontend::parse(Backend::Http, rest, &mut warnings).map(Tag::Frontend),
        "tricot-https" => frontend::parse(Backend::Https, rest, &mut warnings).map(Tag::Frontend),
        "tricot-add-header" => header::parse(rest).map(Tag::AddHeader),
        "tricot-add-redirect" => redirect::parse(rest, &mut warnings).map(Tag::Redirect),
        "tricot-on-demand-tls-ask" => ask(rest, &mut warnings).map(Tag::Ask),
        "tricot-site-lb" => flag(Tag::SiteLb, rest, &mut warnings),
        "tricot-global-lb" => flag(Tag::GlobalLb, rest, &mut warnings),
        unknown if unknown.starts_with("tricot-") => {
            Err(TagError::UnknownWord { word: problem::shown(unknown) })
        }
        other => match misspelt::meant(other, rest) {
            Some(meant) => Err(TagError::Misspelt { word: problem::shown(other), meant }),
            None => return Parsed::Ignored,
        },
    };
    match tag {
        Ok(tag) => Parsed::Tag(tag, warnings),
        Err(error) => Parsed::Refused(error),
    }
}

/// Whether a tag is meant for tricot, even if it cannot be read.
pub fn is_meant(tag: &str) -> bool {
    let (word, rest) = word(tag);
    word == WORDS[0] || word.starts_with("tricot-") || misspelt::meant(word, rest).is_some()
}

fn ask(rest: &str, warnings: &mut Vec<TagWarning>) -> Result<Uri, TagError> {
    let (url, rest) = word(rest);
    nothing_more(rest, warnings);
    let uri: Uri = url.parse().map_err(|_| TagError::Url)?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if is_http && uri.host().is_some_and(|host| !host.is_empty()) { Ok(uri) } else { Err(TagError::Url) }
}

fn flag(tag: Tag, rest: &str, warnings: &mut Vec<TagWarning>) -> Result<Tag, TagError> {
    nothing_more(rest, warnings);
    Ok(tag)
}

/// Warns of text where none is wanted.
fn nothing_more(rest: &str, warnings: &mut Vec<TagWarning>) {
    if !rest.is_empty() {
        warnings.push(TagWarning::Trailing { text: problem::shown(rest) });
    }
}

/// The first word, and what comes after it without the blanks around it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_matches(BLANKS);
    let (word, rest) = text.split_once(BLANKS).unwrap_or((text, ""));
    (word, rest.trim_start_matches(BLANKS))
}

/// The first words that are known.
const WORDS: [&str; 7] = [
    "tricot",
    "tricot-https",
    "tricot-add-header",
    "tricot-add-redirect",
    "tricot-on-demand-tls-ask",
    "tricot-site-lb",
    "tricot-global-lb",
];

const BLANKS: [char; 2] = [' ', '\t'];
