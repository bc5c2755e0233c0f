//! The configuration language of `linkerd-tcp`, in both of its generations.
//!
//! Generation A has `proxies` at the top (up to 0.0.3), generation B has `routers` (0.1.0 and later). [`parse`]
//! accepts either, as YAML or JSON, and converts it into one [`Config`]. Nothing is opened or bound: files are kept
//! as [`FileRef`](crate::kit::load::fields::FileRef)s that remember where they were named.

use crate::kit::load::ConfigError;
use crate::kit::load::Source;
use crate::kit::load::Warning;
use crate::kit::load::fields::Item;
use crate::kit::load::fields::Reader;
use crate::kit::load::language::Table;
use crate::kit::load::tree;
use crate::kit::load::tree::Node;
use crate::kit::load::tree::Value;

pub use self::model::Config;
pub use self::model::Generation;
pub use self::pages::manual;
pub use self::pages::reference;

mod client;
mod language;
pub mod model;
mod pages;
mod path;
mod print;
mod proxies;
mod resolver;
mod routers;
mod server;
mod tls;
mod unique;

/// Parses a configuration of either generation. `name` is what messages call the file.
///
/// # Errors
///
/// Everything that is wrong with it, each with line, column and key path. A text that is no YAML or JSON at all has
/// one problem, its first syntax error.
///
/// # Examples
///
/// ```
/// use bins::linkerd_tcp::config;
///
/// let text = "
/// proxies:
///   - servers: [{ kind: io.l5d.tcp, addr: 127.0.0.1:7474 }]
///     namerd: { addr: 127.0.0.1:4180, path: /svc/web }
/// ";
/// let (config, warnings) = config::parse(text, "example.yml").unwrap();
/// assert_eq!(config.routers[0].label, "default");
/// assert!(warnings.is_empty());
///
/// let error = config::parse("proxys: []", "example.yml").unwrap_err();
/// assert!(error.to_string().contains("did you mean `proxies`?"));
/// ```
pub fn parse(text: &str, name: &str) -> Result<(Config, Vec<Warning>), ConfigError> {
    let source = Source::new(name, text);
    let root = tree::parse(&source)?;
    let mut reader = Reader::new(&source);
    let item = Item::root(&root);
    let config = match generation(&mut reader, &item) {
        Some(Generation::Proxies) => proxies::config(&mut reader, &item),
        Some(Generation::Routers) => routers::config(&mut reader, &item),
        None => None,
    };
    reader.finish(config)
}

/// The schema of both languages, for editors.
pub fn schema() -> serde_json::Value {
    crate::kit::load::language::schema("Configuration of linkerd-tcp", &languages())
}

/// The tables of both languages, for their reference: files with `proxies`, and with `routers`.
pub fn languages() -> [&'static Table; 2] {
    [&language::PROXIES, &language::ROUTERS]
}

/// Tells the generations apart by the key that only one of them has.
fn generation(reader: &mut Reader<'_>, root: &Item<'_>) -> Option<Generation> {
    const EXPECTED: &str = "expected either `proxies` (up to 0.0.3) or `routers` (0.1.0 and later)";
    let Value::Map(entries) = &root.node.value else {
        reader.mismatch(root, "a mapping with either `proxies` or `routers`");
        return None;
    };
    let find = |name: &str| entries.iter().find(|(key, _)| key.name == name);
    match (find("proxies"), find("routers")) {
        (Some(_), None) => Some(Generation::Proxies),
        (None, Some(_)) => Some(Generation::Routers),
        (Some((a, _)), Some((b, _))) => {
            let later = if a.at > b.at { a } else { b };
            let text = format!("both `proxies` and `routers` are present; {EXPECTED}");
            reader.at_key(later, &later.name, text);
            None
        }
        (None, None) => {
            let meant = misspelt(root.node);
            reader.problem(root, format!("neither `proxies` nor `routers` is present;{meant} {EXPECTED}"));
            None
        }
    }
}

/// Names the key that was probably meant if one of the top-level keys comes close to it.
fn misspelt(root: &Node) -> String {
    let Value::Map(entries) = &root.value else {
        return String::new();
    };
    let near = entries.iter().find_map(|(key, _)| {
        crate::kit::load::nearest(&key.name, &["proxies", "routers"]).map(|name| (key, name))
    });
    match near {
        Some((key, name)) => format!(" `{}`: did you mean `{name}`?", key.name),
        None => String::new(),
    }
}

/// The buffer of a file that does not give one.
const USUAL_BUFFER: usize = 64 * 1024;

/// Buffers below this would cost more in calls than they save in memory.
const LEAST_BUFFER: usize = 1024;

/// Buffers above this only cost memory.
const MOST_BUFFER: usize = 16 * 1024 * 1024;

/// The size of transfer buffers; sizes out of the useful range are brought into it with a warning, because files
/// that have them have always started.
fn buffer_size(reader: &mut Reader<'_>, item: &Item<'_>) -> Option<usize> {
    let size = reader.count(item, 0)?;
    let used = size.clamp(LEAST_BUFFER, MOST_BUFFER);
    if used != size {
        let range = format!("the useful range is {LEAST_BUFFER} to {MOST_BUFFER}");
        reader.warning(item, format!("a buffer of {size} bytes; {range}, {used} is used"));
    }
    Some(used)
}

#[cfg(test)]
mod tests;
