//! What a configuration language has in it, said once: for reading files, for the schema that editors use, and for the
//! reference.

use serde_json::Value;

mod pages;
mod schema;

pub use pages::manual;
pub use pages::reference;
pub use schema::schema;

/// A mapping with fixed fields.
#[derive(Debug)]
#[non_exhaustive]
pub struct Table {
    /// What the reference calls it, such as `server of a proxy`.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Its fields. Some are common to several tables.
    pub fields: &'static [&'static [Field]],
}

/// A field of a mapping.
#[derive(Debug)]
#[non_exhaustive]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Other names that mean the same.
    pub also: &'static [&'static str],
    /// Whether it must be there.
    pub is_required: bool,
    /// What is taken if it is not, for people. Empty if that is nothing.
    pub default: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What it is, in a sentence.
    pub about: &'static str,
}

/// What a field takes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Takes {
    /// A text, described for people.
    Text(&'static str),
    /// The path of a file.
    File,
    /// A whole number within bounds.
    Integer(u64, u64),
    /// A number from 0.
    Number,
    /// `true` or `false`.
    Flag,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// One of these texts, or the number that it looks like without quotes.
    Version(&'static [&'static str]),
    /// A mapping.
    One(&'static Table),
    /// A mapping whose `kind` says which.
    Either(&'static [&'static Table]),
    /// A list, with at least so many elements.
    Many(usize, &'static Self),
    /// Nothing: it belongs elsewhere, which is said to whoever writes it here. No reference has it.
    Refused(&'static str),
    /// A mapping with keys of the user's choice, described for people.
    Map(&'static str, &'static Self),
}

impl Table {
    /// A mapping with these fields.
    pub const fn new(name: &'static str, about: &'static str, fields: &'static [&'static [Field]]) -> Self {
        Self { name, about, fields }
    }

    /// Its fields.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> + Clone {
        self.all().filter(|field| !matches!(field.takes, Takes::Refused(_)))
    }

    fn all(&self) -> impl Iterator<Item = &'static Field> + Clone {
        self.fields.iter().copied().flatten()
    }

    /// The field of a name, its own or another; also one that is refused.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.all().find(|field| field.names().any(|it| it == name))
    }

    /// The tables that this one leads to, itself first, each once.
    fn reachable(&'static self) -> Vec<&'static Self> {
        let mut found = vec![self];
        let mut next = 0;
        while let Some(table) = found.get(next) {
            let inner: Vec<_> = table.fields().flat_map(|field| field.takes.tables()).collect();
            for table in inner {
                // By name: a static may have several addresses.
                if !found.iter().any(|it| it.name == table.name) {
                    found.push(table);
                }
            }
            next += 1;
        }
        found
    }
}

impl Field {
    /// A field that may be absent.
    pub const fn new(name: &'static str, takes: Takes, about: &'static str) -> Self {
        Self { name, also: &[], is_required: false, default: "", takes, about }
    }

    /// One that must be there.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Says what is taken if it is absent.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    /// Gives it other names.
    #[must_use]
    pub const fn also(mut self, names: &'static [&'static str]) -> Self {
        self.also = names;
        self
    }

    /// Its name, and the others.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        [self.name].into_iter().chain(self.also.iter().copied())
    }
}

impl Takes {
    fn tables(&self) -> Vec<&'static Table> {
        match self {
            Self::One(table) => vec![table],
            Self::Either(tables) => tables.to_vec(),
            Self::Many(_, inner) | Self::Map(_, inner) => inner.tables(),
            _ => Vec::new(),
        }
    }
}

/// A value of JSON as a page shows it: one text for the same value, with a newline at its end.
pub fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
