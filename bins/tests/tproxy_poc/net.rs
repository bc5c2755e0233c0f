//! Networks to test in, and what is in them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use meshlib::test_util::Unavailable;
use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Gateway;
use meshlib::test_util::netns::Pod;
use meshlib::test_util::or_skip;
use meshlib::test_util::require_programs;
use tempfile::TempDir;

use crate::process::PROGRAM;
use crate::talk::any;

/// How connections come to the proxy.
pub(crate) const MODES: [&str; 2] = ["nat", "tproxy"];

/// What sets the rules.
pub(crate) const TOOLS: [&str; 2] = ["iptables", "nft"];

/// How answers are kept inside.
pub(crate) const REPLIES: [&str; 3] = ["connmark", "fwmark", "source-rule"];

/// Options of `setpriv`: a user without privilege.
pub(crate) const NOBODY: [&str; 6] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// Options of `setpriv`: a user with `CAP_NET_RAW` only.
pub(crate) const NET_RAW: [&str; 7] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+net_raw",
    "--ambient-caps=-all,+net_raw",
    "--bounding-set=-all,+net_raw",
    "--no-new-privs",
];

/// Options of `setpriv`: a user with `CAP_NET_ADMIN` besides.
pub(crate) const NET_ADMIN: [&str; 7] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+net_raw,+net_admin",
    "--ambient-caps=-all,+net_raw,+net_admin",
    "--bounding-set=-all,+net_raw,+net_admin",
    "--no-new-privs",
];

/// A client and a pod, unless they cannot be had here.
pub(crate) fn pod() -> Option<Pod> {
    or_skip(tools().and_then(|()| Pod::new()))
}

/// A client, a gateway and a server, unless they cannot be had here.
pub(crate) fn gateway() -> Option<Gateway> {
    or_skip(tools().and_then(|()| Gateway::new()))
}

fn tools() -> Result<(), Unavailable> {
    require_programs(&["iptables", "ip6tables", "nft"])
}

/// Any port of the client's address.
pub(crate) fn near(family: Family) -> SocketAddr {
    any(Pod::client_ip(family))
}

/// Any port of the client's address that is not on the pod's link.
pub(crate) fn far(family: Family) -> SocketAddr {
    any(Pod::far_client_ip(family))
}

/// A port of the pod.
pub(crate) fn at_pod(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(Pod::pod_ip(family), port)
}

/// Where a server listens at every address of both families.
pub(crate) fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(Family::V6.unspecified(), port)
}

/// A directory that everybody may read, with a copy of the program: where it was built may be out of others' reach.
pub(crate) fn for_everybody() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("tproxy-poc");
    fs::copy(PROGRAM, &program).unwrap();
    let path = text(&program);
    (dir, path)
}

/// A path that is text, as those of temporary directories are.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().into()
}
