//! What the server knows, and what a path is by that.

use std::collections::HashMap;

use meshlib::dtab::path::Path;

use super::dtab::Dentry;
use super::dtabs::Dtabs;
use super::fault::Faults;
use crate::api::Addr;
use crate::api::Bound;
use crate::api::Tree;

/// What a path is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Name {
    /// A bound name with these addresses. Its id is the path if that is one, else the path under `/#/io.l5d.fs`.
    Addr(Addr),
    /// A tree of bound names. A leaf has the addresses that are set for its id, else those it brings.
    Tree(Tree),
    /// The namer throws this: an answer is 500, a watch ends with the text.
    Throws(String),
}

impl From<Addr> for Name {
    fn from(addr: Addr) -> Self {
        Self::Addr(addr)
    }
}

impl From<Tree> for Name {
    fn from(tree: Tree) -> Self {
        Self::Tree(tree)
    }
}

/// What a namer threw.
#[derive(Debug)]
pub(super) struct Thrown(pub(super) String);

#[derive(Debug, Default)]
pub(super) struct Tables {
    names: HashMap<String, HashMap<Path, Name>>,
    dtabs: Dtabs,
    faults: Faults,
}

impl Tables {
    pub(super) fn set_name(&mut self, namespace: &str, path: Path, name: Option<Name>) {
        let names = self.names.entry(namespace.to_owned()).or_default();
        match name {
            Some(name) => names.insert(path, name),
            None => names.remove(&path),
        };
    }

    pub(super) fn dtabs_mut(&mut self) -> &mut Dtabs {
        &mut self.dtabs
    }

    pub(super) fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    pub(super) fn dtabs(&self) -> &Dtabs {
        &self.dtabs
    }

    /// Binds a path in the namespace's dtab with `extra` after it.
    pub(super) fn bind(&self, namespace: &str, path: &Path, extra: &[Dentry]) -> Result<Tree, Thrown> {
        let own = self.dtabs.get(namespace).map(|(entries, _)| entries).unwrap_or_default();
        let mut budget = MAX_REWRITES;
        Binding { tables: self, namespace, dtab: [own, extra] }.rewrite(path, MAX_DEPTH, &mut budget)
    }

    /// The addresses of an id.
    pub(super) fn addr(&self, namespace: &str, id: &Path) -> Result<Addr, Thrown> {
        let id = without_transformers(id);
        let Some(names) = self.names.get(namespace) else {
            return Ok(Addr::Neg);
        };
        let by_path = id
            .strip_prefix(&namer())
            .and_then(|path| names.get(&path))
            .filter(|name| !matches!(name, Name::Tree(_)));
        match names.get(&id).or(by_path) {
            Some(Name::Addr(addr)) => return Ok(addr.clone()),
            Some(Name::Throws(text)) => return Err(Thrown(text.clone())),
            Some(Name::Tree(_)) | None => {}
        }
        let trees = names.values().filter_map(|name| match name {
            Name::Tree(tree) => Some(tree),
            _ => None,
        });
        let found = trees.flat_map(leaves).find(|bound| bound.id == id);
        Ok(found.map_or(Addr::Neg, |bound| bound.addr.clone()))
    }

    /// What is set for exactly this path.
    fn own(&self, namespace: &str, path: &Path) -> Result<Tree, Thrown> {
        let names = self.names.get(namespace);
        match names.and_then(|names| names.get(path)) {
            None => Ok(Tree::Neg),
            Some(Name::Throws(text)) => Err(Thrown(text.clone())),
            Some(Name::Addr(addr)) => Ok(Tree::Leaf(Bound::new(id_of(path), addr.clone()))),
            Some(Name::Tree(tree)) => {
                let mut tree = tree.clone();
                for bound in leaves_mut(&mut tree) {
                    if let Some(Name::Addr(addr)) = names.and_then(|names| names.get(&bound.id)) {
                        bound.addr = addr.clone();
                    }
                }
                Ok(tree)
            }
        }
    }
}

/// A path on its way through a dtab.
struct Binding<'a> {
    tables: &'a Tables,
    namespace: &'a str,
    /// The namespace's entries and those of the request.
    dtab: [&'a [Dentry]; 2],
}

impl Binding<'_> {
    /// Tries the entries from the last to the first, then what is set for the path itself.
    fn rewrite(&self, path: &Path, depth: usize, budget: &mut usize) -> Result<Tree, Thrown> {
        let (Some(depth), Some(left)) = (depth.checked_sub(1), budget.checked_sub(1)) else {
            return Err(Thrown(format!("Max recursion level ({MAX_DEPTH}) exceeded")));
        };
        *budget = left;
        for entry in self.dtab.iter().rev().flat_map(|entries| entries.iter().rev()) {
            let Some(rest) = entry.prefix.strip(path) else {
                continue;
            };
            let tree = self.rewrite(&entry.dst.concat(&rest), depth, budget)?;
            if tree != Tree::Neg {
                return Ok(tree);
            }
        }
        self.tables.own(self.namespace, path)
    }
}

/// All leaves of a tree.
pub(super) fn leaves(tree: &Tree) -> Vec<&Bound> {
    let mut found = Vec::new();
    let mut left = vec![tree];
    while let Some(tree) = left.pop() {
        match tree {
            Tree::Leaf(bound) => found.push(bound),
            Tree::Alt(trees) => left.extend(trees),
            Tree::Union(branches) => left.extend(branches.iter().map(|branch| &branch.tree)),
            Tree::Neg | Tree::Fail | Tree::Empty => {}
        }
    }
    found
}

/// All leaves of a tree, to be changed.
pub(super) fn leaves_mut(tree: &mut Tree) -> Vec<&mut Bound> {
    let mut found = Vec::new();
    let mut left = vec![tree];
    while let Some(tree) = left.pop() {
        match tree {
            Tree::Leaf(bound) => found.push(bound),
            Tree::Alt(trees) => left.extend(trees),
            Tree::Union(branches) => left.extend(branches.iter_mut().map(|branch| &mut branch.tree)),
            Tree::Neg | Tree::Fail | Tree::Empty => {}
        }
    }
    found
}

/// The namer under which paths get their ids.
fn namer() -> Path {
    // Neither label is empty.
    Path::from_labels(["#", "io.l5d.fs"]).unwrap_or_default()
}

/// The id of a path that is set to addresses.
fn id_of(path: &Path) -> Path {
    if is_id(path) { path.clone() } else { namer().concat(path) }
}

fn is_id(path: &Path) -> bool {
    path.labels().next().is_some_and(|label| matches!(label.as_str(), "#" | "$"))
}

/// An id may say in front through which transformers it went: `/%/io.l5d.port/4141/#/io.l5d.fs/web`.
fn without_transformers(id: &Path) -> Path {
    if id.labels().next().is_none_or(|label| label.as_str() != "%") {
        return id.clone();
    }
    let at = id.labels().position(|label| matches!(label.as_str(), "#" | "$"));
    id.skip(at.unwrap_or(0))
}

/// How often a path is rewritten before it counts as a loop, as in the original.
const MAX_DEPTH: usize = 100;

/// How many rewrites one request may cause in all: a dtab of twenty lines can ask for millions.
const MAX_REWRITES: usize = 10_000;
