//! Names by `bind` and `addr`, as a client sees them.

#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use futures::StreamExt;
use meshlib::Resolver;
use meshlib::Update;
use meshlib::Weight;
use meshlib_namerd::Mode;
use meshlib_namerd::Namerd;
use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Bound;
use meshlib_namerd::api::Branch;
use meshlib_namerd::api::Tree;
use meshlib_namerd::server::NamerdServer;
use tokio::time;

/// A union of so many names, all with the same endpoint.
fn union(leaves: usize) -> Tree {
    let leaf = |n| {
        let addr = Addr::bound([std::net::SocketAddr::from(([127, 0, 0, 1], 9))]);
        Branch::new(Weight::ONE, Tree::Leaf(Bound::new(format!("/#/{n}").parse().unwrap(), addr)))
    };
    Tree::Union((0..leaves).map(leaf).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_with_too_many_leaves_is_a_bad_answer_and_followed_by_nobody() {
    let server = NamerdServer::bind("127.0.0.1:0").await.unwrap();
    server.set("default", "/svc/web", union(2)).unwrap();
    let namerd = Namerd::new(&server.url()).unwrap().mode(Mode::Bind);
    let mut updates = namerd.resolve("/svc/web");
    let mut next = async || time::timeout(Duration::from_secs(20), updates.next()).await.unwrap().unwrap();
    let Update::Endpoints(endpoints) = next().await.unwrap() else { panic!("no endpoints") };
    assert_eq!(endpoints.len(), 2);

    server.set("default", "/svc/web", union(1_001)).unwrap();

    // Nothing but the error: whoever balances keeps what it has.
    let error = next().await.unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(text, "the tree has 1001 leaves; at most 1000 are followed");
    let asked = server.requests();
    let leaves: Vec<_> = asked.iter().filter_map(|it| it.target.strip_prefix("/api/1/addr/")).collect();
    let before = |leaf: &&str| {
        ["default?path=%2F%23%2F0", "default?path=%2F%23%2F1"].contains(&leaf.trim_end_matches("&watch=true"))
    };
    assert!(!leaves.is_empty() && leaves.iter().all(before), "the two before and nobody else: {leaves:?}");

    server.set("default", "/svc/web", union(3)).unwrap();
    // The bad tree may have been asked for more than once, and what was known may be said again in between.
    while !matches!(next().await, Ok(Update::Endpoints(endpoints)) if endpoints.len() == 3) {}
}
