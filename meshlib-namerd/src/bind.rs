//! The tree of a name with the addresses of its leaves, as one weighted set.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::AbortHandle;
use futures::future::Abortable;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use meshlib::dtab::path::Path;
use meshlib::resolve::ResolveError;

use crate::api::Addr;
use crate::api::Address;
use crate::api::Skipped;
use crate::api::Tree;
use crate::client::Namerd;
use crate::client::Target;
use crate::follow;
use crate::follow::Follow;

/// How many leaves a tree may have: each distinct one costs a poll and a watch of its own, and a name server that has gone
/// wrong must not take all connections there are. No name that people gave has a tenth as many.
const MAX_LEAVES: usize = 1_000;

/// Follows the tree of a name and the addresses of every leaf in it.
pub(crate) struct Bound {
    namerd: Namerd,
    tree: Option<Tree>,
    /// What is known of each leaf of the tree.
    leaves: HashMap<Path, Addr>,
    /// Ends the following of each leaf of the tree.
    followed: HashMap<Path, EndOnDrop>,
    changes: FuturesUnordered<BoxFuture<'static, Change>>,
}

enum Change {
    Tree(Follow<Tree>, Result<Tree, ResolveError>),
    Leaf(Path, Follow<Addr>, Result<Addr, ResolveError>),
    /// A leaf that is not in the tree any more is followed no further.
    Gone,
}

/// Ends the following of a leaf, so that one that comes back is not followed twice.
struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bound {
    pub(crate) fn new(namerd: &Namerd, name: &str) -> Self {
        let target = Target::new("bind", &namerd.options.namespace, name);
        let changes = FuturesUnordered::new();
        changes.push(next_tree(Follow::new(namerd.asker(), target, namerd.options.clone(), tree)));
        Self { namerd: namerd.clone(), tree: None, leaves: HashMap::new(), followed: HashMap::new(), changes }
    }

    /// The addresses of the name, each with its share of all traffic.
    pub(crate) async fn next(&mut self) -> Result<Addr, ResolveError> {
        loop {
            match self.changes.next().await {
                None => std::future::pending().await,
                Some(Change::Tree(follow, result)) => {
                    self.changes.push(next_tree(follow));
                    self.follow_leaves(&result?);
                }
                Some(Change::Gone) => continue,
                Some(Change::Leaf(id, follow, result)) => {
                    self.follow_leaf(id.clone(), follow);
                    match result? {
                        // What is known stays until something else is.
                        Addr::Pending | Addr::Failed { .. } => continue,
                        addr => self.leaves.insert(id, addr),
                    };
                }
            }
            let Some(tree) = &self.tree else { continue };
            match flatten(tree, &self.leaves) {
                Flat::Known(addresses) => return Ok(Addr::bound(addresses)),
                Flat::Neg => return Ok(Addr::Neg),
                Flat::Pending => {}
            }
        }
    }

    fn follow_leaves(&mut self, tree: &Tree) {
        let mut wanted = HashMap::new();
        leaves_of(tree, &mut wanted);
        self.leaves.retain(|id, _| wanted.contains_key(id));
        self.followed.retain(|id, _| wanted.contains_key(id));
        for (id, addr) in wanted {
            if self.leaves.contains_key(&id) {
                continue;
            }
            let options = self.namerd.options.clone();
            let target = Target::new("addr", &options.namespace, id.as_str());
            let follow = Follow::new(self.namerd.asker(), target, options, follow::addr);
            self.follow_leaf(id.clone(), follow);
            self.leaves.insert(id, addr);
        }
        self.tree = Some(tree.clone());
    }

    fn follow_leaf(&mut self, id: Path, follow: Follow<Addr>) {
        let (handle, registration) = AbortHandle::new_pair();
        let next = Abortable::new(next_leaf(id.clone(), follow), registration);
        self.changes.push(Box::pin(async move { next.await.unwrap_or(Change::Gone) }));
        self.followed.insert(id, EndOnDrop(handle));
    }
}

fn next_tree(mut follow: Follow<Tree>) -> BoxFuture<'static, Change> {
    Box::pin(async move {
        let result = follow.next().await;
        Change::Tree(follow, result)
    })
}

fn next_leaf(id: Path, mut follow: Follow<Addr>) -> BoxFuture<'static, Change> {
    Box::pin(async move {
        let result = follow.next().await;
        Change::Leaf(id, follow, result)
    })
}

/// Understands a tree, unless it is too large. What is left out of its addresses is said by those who follow them.
fn tree(bytes: &[u8], name: &Arc<str>, _: &mut Skipped) -> Result<Tree, ResolveError> {
    let tree = Tree::from_json(bytes, &mut Skipped::default())
        .map_err(|error| ResolveError::Decode { name: Arc::clone(name), source: Arc::new(error) })?;
    match count_leaves(&tree) {
        ..=MAX_LEAVES => Ok(tree),
        n => Err(ResolveError::Decode { name: Arc::clone(name), source: Arc::new(TooManyLeaves(n)) }),
    }
}

/// A tree that is not followed.
#[derive(Debug, thiserror::Error)]
#[error("the tree has {0} leaves; at most {MAX_LEAVES} are followed")]
struct TooManyLeaves(usize);

fn count_leaves(tree: &Tree) -> usize {
    match tree {
        Tree::Leaf(_) => 1,
        Tree::Alt(trees) => trees.iter().map(count_leaves).sum(),
        Tree::Union(branches) => branches.iter().map(|branch| count_leaves(&branch.tree)).sum(),
        Tree::Neg | Tree::Fail | Tree::Empty => 0,
    }
}

/// Every leaf with the address it has in the tree.
fn leaves_of(tree: &Tree, found: &mut HashMap<Path, Addr>) {
    match tree {
        Tree::Leaf(bound) => {
            found.entry(bound.id.clone()).or_insert_with(|| bound.addr.clone());
        }
        Tree::Alt(trees) => trees.iter().for_each(|tree| leaves_of(tree, found)),
        Tree::Union(branches) => branches.iter().for_each(|branch| leaves_of(&branch.tree, found)),
        Tree::Neg | Tree::Fail | Tree::Empty => {}
    }
}

/// What a part of a tree comes to.
enum Flat {
    Known(Vec<Address>),
    Neg,
    Pending,
}

/// The addresses below a node, whose weights add up to one. Each node is looked at once.
fn flatten(tree: &Tree, leaves: &HashMap<Path, Addr>) -> Flat {
    match tree {
        Tree::Leaf(bound) => match leaves.get(&bound.id).unwrap_or(&bound.addr) {
            Addr::Bound { addrs, .. } => Flat::Known(shared(addrs)),
            Addr::Neg => Flat::Neg,
            _ => Flat::Pending,
        },
        Tree::Alt(trees) => {
            for tree in trees {
                match flatten(tree, leaves) {
                    Flat::Neg => {}
                    // An alternative without members is left for one that has some.
                    Flat::Known(addresses) if addresses.is_empty() && !matches!(tree, Tree::Empty) => {}
                    flat => return flat,
                }
            }
            Flat::Neg
        }
        Tree::Union(branches) => {
            // Branches that lead nowhere leave their share to the others.
            let mut usable = Vec::new();
            for branch in branches.iter().filter(|branch| branch.weight.get() > 0.0) {
                match flatten(&branch.tree, leaves) {
                    Flat::Known(addresses) => usable.push((branch.weight.get(), addresses)),
                    Flat::Neg => {}
                    Flat::Pending => return Flat::Pending,
                }
            }
            if usable.is_empty() {
                return Flat::Neg;
            }
            let total: f64 = usable.iter().map(|(weight, _)| weight).sum();
            let scaled = |(weight, addresses): (f64, Vec<Address>)| {
                let share = weight / total;
                addresses.into_iter().map(move |address| {
                    let weight = address.weight().get();
                    address.with_weight(weight * share)
                })
            };
            Flat::Known(usable.into_iter().flat_map(scaled).collect())
        }
        Tree::Empty => Flat::Known(Vec::new()),
        Tree::Neg | Tree::Fail => Flat::Neg,
    }
}

/// The addresses of one leaf, each with its share of what goes there.
fn shared(addresses: &[Address]) -> Vec<Address> {
    let total: f64 = addresses.iter().map(|address| address.weight().get()).sum();
    let weighted = |address: &Address| {
        let weight = address.weight().get();
        let part = if total > 0.0 { weight / total } else { 1.0 / addresses.len() as f64 };
        address.clone().with_weight(part)
    };
    addresses.iter().map(weighted).collect()
}

#[cfg(test)]
mod tests {
    use meshlib::Weight;

    use super::*;
    use crate::api::Bound as Leaf;
    use crate::api::Branch;

    fn leaf(id: &str, ports: &[u16]) -> Tree {
        let addrs = ports.iter().map(|&port| Address::new(([127, 0, 0, 1], port).into()));
        Tree::Leaf(Leaf::new(Path::parse(id).unwrap(), Addr::bound(addrs)))
    }

    fn weights(tree: &Tree) -> Option<Vec<(u16, f64)>> {
        match flatten(tree, &HashMap::new()) {
            Flat::Known(all) => {
                Some(all.iter().map(|address| (address.addr.port(), address.weight().get())).collect())
            }
            _ => None,
        }
    }

    #[test]
    fn a_union_shares_by_weight_whatever_its_leaves_hold() {
        let tree = Tree::Union(vec![
            Branch::new(Weight::new(3.0).unwrap(), leaf("/#/a", &[1, 2])),
            Branch::new(Weight::new(1.0).unwrap(), leaf("/#/b", &[3])),
        ]);

        assert_eq!(weights(&tree).unwrap(), [(1, 0.375), (2, 0.375), (3, 0.25)]);
    }

    #[test]
    fn an_alternative_is_taken_when_the_first_has_no_members() {
        let tree = Tree::Alt(vec![Tree::Neg, leaf("/#/a", &[]), leaf("/#/b", &[3])]);

        assert_eq!(weights(&tree).unwrap(), [(3, 1.0)]);
        assert!(weights(&Tree::Fail).is_none());
    }

    #[test]
    fn a_deep_tree_costs_what_it_has_nodes() {
        let mut tree = leaf("/#/a", &[1]);
        for _ in 0..31 {
            tree = Tree::Union(vec![Branch::new(Weight::ONE, tree)]);
        }
        let (tx, rx) = std::sync::mpsc::channel();

        std::thread::spawn(move || tx.send(weights(&tree)));

        let flat = rx.recv_timeout(std::time::Duration::from_secs(5)).expect("it is soon done");
        assert_eq!(flat.unwrap(), [(1, 1.0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_that_comes_and_goes_is_followed_once() {
        let namerd = Namerd::new("http://127.0.0.1:1").unwrap();
        let mut bound = Bound::new(&namerd, "/svc/web");

        for _ in 0..100 {
            bound.follow_leaves(&leaf("/#/a", &[1]));
            bound.follow_leaves(&leaf("/#/b", &[2]));
        }
        for _ in 0..10 {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), bound.next()).await;
        }

        assert_eq!(bound.changes.len(), 2, "the tree and one leaf");
    }
}
