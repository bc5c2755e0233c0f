//! What belongs to a request, by its host and path.
//!
//! A [`Table`] has rules of a host, a path prefix, a priority and a value of your own. Asked for a host and a path it gives
//! the values of all rules that match, the best one first:
//!
//! 1. by priority, the higher one first;
//! 2. by the length of the path prefix, the longer one first;
//! 3. by the host: the exact one, then `*.` and a suffix, the longer one first, then other patterns, then any.
//!
//! A table is made once and read by many; a change makes a new one, which a cell hands out from then on.
//!
//! # Examples
//!
//! ```
//! use meshlib::http::route::{Host, Table};
//!
//! let table = Table::builder()
//!     .rule(Host::exact("shop.example.com"), "", 100, "shop")
//!     .rule(Host::exact("shop.example.com"), "/api", 100, "api")
//!     .rule(Host::suffix("example.com"), "", 100, "any of ours")
//!     .rule(Host::Any, "", 1, "sorry")
//!     .build();
//!
//! let of = |host, path| table.find(host, path).copied().collect::<Vec<_>>();
//! assert_eq!(of("shop.example.com", "/api/x"), ["api", "shop", "any of ours", "sorry"]);
//! assert_eq!(of("Blog.Example.Com:8080", "/"), ["any of ours", "sorry"]);
//! assert_eq!(of("example.org", "/"), ["sorry"]);
//! ```
//!
//! A table that changes while requests come, in an `ArcSwap` of the crate `arc-swap`; an `RwLock<Arc<Table<_>>>` does as
//! well where cores are few. A request keeps the table that it began with:
//!
//! ```
//! use arc_swap::ArcSwap;
//! use http::Request;
//! use meshlib::http::Body;
//! use meshlib::http::route::{Host, Table};
//!
//! let named = |name| Table::builder().rule(Host::Any, "", 100, name).build();
//! let current = ArcSwap::from_pointee(named("blue"));
//!
//! // For each request:
//! let of = |request: &Request<Body>| {
//!     let host = request.uri().host().or_else(|| request.headers().get("host")?.to_str().ok())?;
//!     current.load().find(host, request.uri().path()).next().copied()
//! };
//! let request = Request::get("http://www.example.com/").body(Body::empty())?;
//! assert_eq!(of(&request), Some("blue"));
//!
//! // When the configuration has changed:
//! current.store(named("green").into());
//! assert_eq!(of(&request), Some("green"));
//! # Ok::<_, http::Error>(())
//! ```
//!
//! The value may be a name that [`BalanceLayer::by`](crate::BalanceLayer::by) resolves, which then has one balancer for each,
//! or a service of its own.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Rules, ready to be asked.
///
/// A question costs a hash of the host and of each of its parents that has a rule of its own, and then a look at the
/// rules of these hosts only. It allocates nothing unless the host has upper-case letters, or has rules at more than
/// four levels.
pub struct Table<T> {
    exact: HashMap<Box<str>, Rules<T>>,
    /// By what follows `*.`.
    suffixes: HashMap<Box<str>, Rules<T>>,
    /// The most labels that a suffix has.
    most_labels: usize,
    patterns: Box<[(Matches, Rules<T>)]>,
    any: Rules<T>,
    paths: Paths,
    len: usize,
}

/// The rules of one host, the best one first.
type Rules<T> = Box<[Rule<T>]>;
type Matches = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Debug)]
struct Rule<T> {
    priority: u32,
    path: Box<str>,
    value: T,
}

/// Which hosts a rule is for.
#[derive(Clone)]
#[non_exhaustive]
pub enum Host {
    /// One.
    Exact(Box<str>),
    /// All below one, at any depth, but not that one itself.
    Suffix(Box<str>),
    /// Those that match a pattern.
    Pattern {
        /// The pattern: two rules of the same text are for the same hosts.
        text: Box<str>,
        /// Whether a host matches; it is in lower case and has no port.
        matches: Matches,
    },
    /// All.
    Any,
}

impl Host {
    /// One host. Letter case does not matter.
    pub fn exact(host: &str) -> Self {
        Self::Exact(host.to_ascii_lowercase().into())
    }

    /// All below `parent`: `example.com` is for `a.example.com` and `a.b.example.com`.
    pub fn suffix(parent: &str) -> Self {
        Self::Suffix(parent.to_ascii_lowercase().into())
    }

    /// Those that match a pattern, which is given by what it does and by a text that identifies it.
    pub fn pattern(text: &str, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::Pattern { text: text.into(), matches: Arc::new(matches) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(parent) => write!(f, "*.{parent}"),
            Self::Pattern { text, .. } => f.write_str(text),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}

/// When a path is below the prefix of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Paths {
    /// If it begins with the same bytes: `/api` is for `/api`, `/api/x` and `/apix`.
    #[default]
    Bytes,
    /// If it begins with the same segments: `/api` is for `/api` and `/api/x`.
    Segments,
}

impl Paths {
    fn is_below(self, path: &str, prefix: &str) -> bool {
        let Some(rest) = path.strip_prefix(prefix) else { return false };
        match self {
            Self::Bytes => true,
            Self::Segments => {
                rest.is_empty() || rest.starts_with('/') || prefix.is_empty() || prefix.ends_with('/')
            }
        }
    }
}

impl<T> Table<T> {
    /// Begins a table.
    pub fn builder() -> TableBuilder<T> {
        TableBuilder { rules: Vec::new(), paths: Paths::default() }
    }

    /// The values of all rules for this host and path, the best one first. The host may have a port, the path no query.
    pub fn find<'t>(&'t self, host: &str, path: &'t str) -> Found<'t, T> {
        let host = host_name(host);
        let mut lists = Lists::default();
        if let Some(rules) = self.exact.get(&*host) {
            lists.push(rules);
        }
        if self.most_labels > 0 {
            let mut parent = &*host;
            for left in (1..labels(&host)).rev() {
                let Some((_, rest)) = parent.split_once('.') else { break };
                parent = rest;
                if left <= self.most_labels
                    && let Some(rules) = self.suffixes.get(parent)
                {
                    lists.push(rules);
                }
            }
        }
        for (matches, rules) in &self.patterns {
            if matches(&host) {
                lists.push(rules);
            }
        }
        if !self.any.is_empty() {
            lists.push(&self.any);
        }
        Found { lists, path, paths: self.paths }
    }

    /// The values of all rules, those of one host together.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let named = self.exact.values().chain(self.suffixes.values());
        let others = self.patterns.iter().map(|(_, rules)| rules).chain([&self.any]);
        named.chain(others).flat_map(|rules| rules.iter()).map(|rule| &rule.value)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rules", &self.len).finish_non_exhaustive()
    }
}

/// A host as it is compared: without port, final dot and upper-case letters.
pub fn host_name(host: &str) -> Cow<'_, str> {
    let (mut end, mut upper) = (host.len(), false);
    for (at, byte) in host.bytes().enumerate() {
        match byte {
            b':' => end = at,
            // A colon inside brackets is a part of the address.
            b']' => end = host.len(),
            b'A'..=b'Z' => upper = true,
            _ => {}
        }
    }
    let host = &host[..end];
    let host = host.strip_suffix('.').unwrap_or(host);
    if upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) }
}

/// A table that is being made.
#[must_use = "a builder does nothing until it is built"]
pub struct TableBuilder<T> {
    rules: Vec<(Host, Rule<T>)>,
    paths: Paths,
}

impl<T> TableBuilder<T> {
    /// Adds a rule. An empty path is for every path. Of two rules that are alike in all but the value, the first is
    /// found first.
    pub fn rule(mut self, host: Host, path: impl Into<Box<str>>, priority: u32, value: T) -> Self {
        self.rules.push((host, Rule { priority, path: path.into(), value }));
        self
    }

    /// Sets when a path is below a prefix. Default: by bytes.
    pub fn paths(mut self, paths: Paths) -> Self {
        self.paths = paths;
        self
    }

    /// Finishes the table.
    pub fn build(self) -> Table<T> {
        let len = self.rules.len();
        let (mut exact, mut suffixes, mut patterns, mut any) =
            (HashMap::new(), HashMap::new(), Vec::<(Box<str>, Matches, Vec<Rule<T>>)>::new(), Vec::new());
        for (host, rule) in self.rules {
            match host {
                Host::Exact(host) => exact.entry(host).or_insert_with(Vec::new).push(rule),
                Host::Suffix(parent) => suffixes.entry(parent).or_insert_with(Vec::new).push(rule),
                Host::Pattern { text, matches } => match patterns.iter_mut().find(|known| known.0 == text) {
                    Some((_, _, rules)) => rules.push(rule),
                    None => patterns.push((text, matches, vec![rule])),
                },
                Host::Any => any.push(rule),
            }
        }
        let most_labels = suffixes.keys().map(|parent: &_| labels(parent)).max().unwrap_or(0);
        Table {
            exact: exact.into_iter().map(|(host, rules)| (host, best_first(rules))).collect(),
            suffixes: suffixes.into_iter().map(|(host, rules)| (host, best_first(rules))).collect(),
            most_labels,
            patterns: patterns.into_iter().map(|(_, matches, rules)| (matches, best_first(rules))).collect(),
            any: best_first(any),
            paths: self.paths,
            len,
        }
    }
}

impl<T> fmt::Debug for TableBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableBuilder").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

fn labels(host: &str) -> usize {
    host.split('.').count()
}

fn best_first<T>(mut rules: Vec<Rule<T>>) -> Rules<T> {
    rules.sort_by_key(|rule| Reverse(rule.rank()));
    rules.into()
}

impl<T> Rule<T> {
    fn rank(&self) -> (u32, usize) {
        (self.priority, self.path.len())
    }
}

/// The values that belong to a request; made by [`Table::find`].
#[must_use = "iterators are lazy"]
pub struct Found<'t, T> {
    lists: Lists<'t, T>,
    path: &'t str,
    paths: Paths,
}

impl<'t, T> Iterator for Found<'t, T> {
    type Item = &'t T;

    fn next(&mut self) -> Option<&'t T> {
        let (path, paths) = (self.path, self.paths);
        let lists = self.lists.iter_mut().filter_map(|list| {
            while !paths.is_below(path, &list.first()?.path) {
                *list = &list[1..];
            }
            Some((list.first()?.rank(), list))
        });
        // Lists come by how exact their host is, so that the first of equals is the best.
        let (_, list) = lists.reduce(|best, other| if other.0 > best.0 { other } else { best })?;
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some(&first.value)
    }
}

impl<T> fmt::Debug for Found<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The rules of the hosts that match, those of the most exact one first.
struct Lists<'t, T> {
    few: [&'t [Rule<T>]; 4],
    len: usize,
    more: Vec<&'t [Rule<T>]>,
}

impl<T> Default for Lists<'_, T> {
    fn default() -> Self {
        Self { few: [&[]; 4], len: 0, more: Vec::new() }
    }
}

impl<'t, T> Lists<'t, T> {
    fn push(&mut self, list: &'t [Rule<T>]) {
        match self.few.get_mut(self.len) {
            Some(free) => {
                *free = list;
                self.len += 1;
            }
            None => self.more.push(list),
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut &'t [Rule<T>]> {
        self.few[..self.len].iter_mut().chain(&mut self.more)
    }
}
