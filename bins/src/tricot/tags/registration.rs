//! Everything one instance says.

use std::collections::HashSet;

use http::HeaderMap;
use http::Uri;

use super::Parsed;
use super::Tag;
use super::frontend::Frontend;
use super::header::AddHeader;
use super::parse;
use super::problem::Problem;
use super::problem::TagError;
use super::problem::shown;
use super::redirect::Redirect;

/// Everything one instance says, whatever else its service says elsewhere.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Registration {
    /// Which requests come to the instance, each once, in the order of the tags.
    pub frontends: Vec<Frontend>,
    /// Requests that are sent elsewhere, each once, in the order of the tags.
    pub redirects: Vec<Redirect>,
    /// The headers of every answer of the instance, for all its frontends. Several of one name are all sent.
    pub headers: HeaderMap,
    /// Whom to ask before a certificate is ordered for a name that only a wildcard names.
    pub ask: Option<Uri>,
    /// How far requests are spread.
    pub spread: Spread,
    /// What is wrong with the tags, each tag once.
    pub problems: Vec<Problem>,
}

/// Over which instances requests are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Spread {
    /// Those of the proxy's own node if there are any, else those of its site, else all.
    #[default]
    Nearest,
    /// Those of the proxy's own site if there are any, else all.
    Site,
    /// All.
    Global,
}

impl Registration {
    /// Reads all tags of one instance.
    pub fn from_tags(tags: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let mut registration = Self::default();
        // A tag that is there twice says nothing new, and is not complained about twice.
        let mut seen = HashSet::new();
        // What was said already in other words.
        let mut said = HashSet::new();
        for tag in tags {
            let tag = tag.as_ref();
            match parse(tag) {
                Parsed::Ignored => {}
                _ if !seen.insert(tag.to_owned()) => {}
                Parsed::Refused(error) => registration.refuse(tag, error),
                Parsed::Tag(meaning, warnings) => {
                    let doubts =
                        warnings.into_iter().map(|warning| Problem::Doubtful { tag: shown(tag), warning });
                    registration.problems.extend(doubts);
                    if said.insert(meaning.clone())
                        && let Err(error) = registration.add(meaning)
                    {
                        registration.refuse(tag, error);
                    }
                }
            }
        }
        registration
    }

    /// Whether nothing is said that changes what the proxy does.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.redirects.is_empty()
    }

    /// Puts the headers of the instance into an answer: the first of a name takes the place of those that the instance
    /// has sent itself, the others come after it.
    pub fn add_headers(&self, answer: &mut HeaderMap) {
        for name in self.headers.keys() {
            answer.remove(name);
        }
        for (name, value) in &self.headers {
            answer.append(name, value.clone());
        }
    }

    fn refuse(&mut self, tag: &str, error: TagError) {
        self.problems.push(Problem::Refused { tag: shown(tag), error });
    }

    fn add(&mut self, tag: Tag) -> Result<(), TagError> {
        match tag {
            Tag::Frontend(frontend) => self.frontends.push(frontend),
            Tag::Redirect(redirect) => self.redirects.push(redirect),
            Tag::AddHeader(_) if self.headers.len() == MOST_HEADERS => {
                return Err(TagError::TooManyHeaders { limit: MOST_HEADERS });
            }
            Tag::AddHeader(AddHeader { name, value }) => {
                self.headers.append(name, value);
            }
            Tag::Ask(_) if self.ask.is_some() => return Err(TagError::SecondAsk),
            Tag::Ask(url) => self.ask = Some(url),
            Tag::SiteLb => self.spread = self.spread.max(Spread::Site),
            Tag::GlobalLb => self.spread = Spread::Global,
        }
        Ok(())
    }
}

/// As many headers as clients take, usually, in all.
const MOST_HEADERS: usize = 100;
