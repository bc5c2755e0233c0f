//! What a path is bound to.

use meshlib::Weight;
use meshlib::dtab::path::Path;
use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Map;
use serde_json::Value;

use super::Addr;
use super::DecodeError;
use super::Skipped;
use super::decode;

/// How deeply the nodes of a tree may be nested when it is read.
pub const MAX_DEPTH: usize = 32;

/// The bound names of a path: the answer of `bind`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Tree {
    /// One name.
    Leaf(Bound),
    /// The first that can be used.
    Alt(Vec<Self>),
    /// All of them, by weight.
    Union(Vec<Branch>),
    /// There is no such name; alternatives are tried.
    Neg,
    /// There is no such name, and no alternative is tried.
    Fail,
    /// A name without addresses, which is no reason to try alternatives.
    Empty,
}

/// A bound name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bound {
    /// The id, under which its addresses are watched.
    pub id: Path,
    /// What is left of the path after the name. Default: nothing, `/`.
    pub residual: Path,
    /// Its addresses when the tree was made; they change without a new tree.
    pub addr: Addr,
}

/// A weighted part of a union.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Branch {
    /// Its share of the traffic, relative to the other branches.
    pub weight: Weight,
    /// What it leads to.
    pub tree: Tree,
}

impl Bound {
    /// A name with its addresses and nothing left.
    pub fn new(id: Path, addr: Addr) -> Self {
        Self { id, residual: Path::default(), addr }
    }
}

impl Branch {
    /// A part of a union.
    pub fn new(weight: Weight, tree: Tree) -> Self {
        Self { weight, tree }
    }
}

impl Tree {
    /// Reads an answer. Unknown keys are ignored; a leaf without an address has a pending one.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the answer is not JSON or no such tree, or nested deeper than [`MAX_DEPTH`].
    pub fn from_json(json: &[u8], skipped: &mut Skipped) -> Result<Self, DecodeError> {
        Self::decode(serde_json::from_slice(json)?, MAX_DEPTH, skipped)
    }

    fn decode(value: Value, depth: usize, skipped: &mut Skipped) -> Result<Self, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        let mut members = decode::object(value, "a tree")?;
        let kind = decode::text(&mut members, "type")?;
        match kind.as_str() {
            "leaf" => {
                let bound = members.remove("bound").unwrap_or_default();
                Ok(Self::Leaf(Bound::decode(decode::object(bound, "bound")?, skipped)?))
            }
            "alt" => {
                let trees = decode::list(&mut members, "alt")?.into_iter();
                let trees = trees.map(|tree| Self::decode(tree, depth, skipped));
                Ok(Self::Alt(trees.collect::<Result<_, _>>()?))
            }
            "union" => {
                let branches = decode::list(&mut members, "union")?.into_iter();
                let branches = branches.map(|branch| Branch::decode(branch, depth, skipped));
                Ok(Self::Union(branches.collect::<Result<_, _>>()?))
            }
            "neg" => Ok(Self::Neg),
            "fail" => Ok(Self::Fail),
            "empty" => Ok(Self::Empty),
            other => Err(DecodeError::Type(decode::excerpt(other))),
        }
    }

    /// The compact JSON that namerd writes, without the newline that ends it there.
    pub fn to_json(&self) -> String {
        // Keys are texts and no writer is involved, so this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Bound {
    fn decode(mut members: Map<String, Value>, skipped: &mut Skipped) -> Result<Self, DecodeError> {
        let not_a_path = |at| DecodeError::Shape { at, expected: "a path" };
        let id = decode::text(&mut members, "id")?;
        let residual = match members.remove("path") {
            None | Some(Value::Null) => Path::default(),
            Some(Value::String(text)) => Path::parse(&text).map_err(|_| not_a_path("path"))?,
            Some(_) => return Err(not_a_path("path")),
        };
        let addr = match members.remove("addr") {
            None | Some(Value::Null) => Addr::Pending,
            Some(addr) => Addr::decode(decode::object(addr, "addr")?, skipped)?,
        };
        Ok(Self { id: Path::parse(&id).map_err(|_| not_a_path("id"))?, residual, addr })
    }
}

impl Branch {
    fn decode(value: Value, depth: usize, skipped: &mut Skipped) -> Result<Self, DecodeError> {
        let mut members = decode::object(value, "a branch")?;
        let weight = members.get("weight").and_then(decode::number);
        let weight = weight.and_then(|weight| Weight::new(weight).ok());
        let tree = members.remove("tree").unwrap_or_default();
        Ok(Self { weight: weight.unwrap_or(Weight::ONE), tree: Tree::decode(tree, depth, skipped)? })
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Leaf(bound) => {
                map.serialize_entry("type", "leaf")?;
                map.serialize_entry("bound", bound)?;
            }
            Self::Alt(trees) => {
                map.serialize_entry("type", "alt")?;
                map.serialize_entry("alt", trees)?;
            }
            Self::Union(branches) => {
                map.serialize_entry("type", "union")?;
                map.serialize_entry("union", branches)?;
            }
            Self::Neg => map.serialize_entry("type", "neg")?,
            Self::Fail => map.serialize_entry("type", "fail")?,
            Self::Empty => map.serialize_entry("type", "empty")?,
        }
        map.end()
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("addr", &self.addr)?;
        map.serialize_entry("id", self.id.as_str())?;
        map.serialize_entry("path", self.residual.as_str())?;
        map.end()
    }
}

impl Serialize for Branch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("weight", &self.weight.get())?;
        map.serialize_entry("tree", &self.tree)?;
        map.end()
    }
}
