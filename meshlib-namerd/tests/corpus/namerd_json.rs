//! What holds for any answer of namerd.

use meshlib_namerd::api::Addr;
use meshlib_namerd::api::Skipped;
use meshlib_namerd::api::Tree;

/// Panics if an answer that was read is not read the same after it was written.
pub(crate) fn check(bytes: &[u8]) {
    let mut skipped = Skipped::default();
    if let Ok(addr) = Addr::from_json(bytes, &mut skipped) {
        assert_eq!(skipped.count == 0, skipped.first.is_none());
        let endpoints = addr.endpoints();
        if let Addr::Bound { addrs, .. } = &addr {
            assert_eq!(endpoints.len(), addrs.len());
        } else {
            assert!(endpoints.is_empty());
        }
        assert!(endpoints.iter().all(|endpoint| endpoint.addr.port() != 0));

        let written = addr.to_json();
        let mut skipped = Skipped::default();
        let again = Addr::from_json(written.as_bytes(), &mut skipped).expect("it was written so");
        assert_eq!((again, skipped), (addr, Skipped::default()));
    }
    if let Ok(tree) = Tree::from_json(bytes, &mut Skipped::default()) {
        let written = tree.to_json();
        let mut skipped = Skipped::default();
        let again = Tree::from_json(written.as_bytes(), &mut skipped).expect("it was written so");
        assert_eq!((again, skipped), (tree, Skipped::default()));
    }
}
