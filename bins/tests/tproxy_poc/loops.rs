//! Rules of others that bring the proxy's own connections back to it.

use meshlib::test_util::netns::Family;

use crate::net::at_pod;
use crate::net::everywhere;
use crate::net::near;
use crate::net::pod;
use crate::process::Proxy;
use crate::process::eventually;
use crate::talk::Server;
use crate::talk::is_refused;
use crate::talk::visit;

/// Brings back what the proxy itself sends.
const NAT: &str = "
    iptables -t nat -A PREROUTING -p tcp -j REDIRECT --to-ports 5000
    iptables -t nat -A OUTPUT -p tcp --dport 3000 -j REDIRECT --to-ports 5000";

/// Makes no exception for `lo`.
const TPROXY: &str = "iptables -t mangle -A PREROUTING -p tcp --dport 3000 -j TPROXY --on-port 5000";

#[test]
fn a_connection_that_comes_back_ends_and_takes_no_others_with_it() {
    for (mode, rules) in [("nat", NAT), ("tproxy", TPROXY)] {
        let Some(net) = pod() else { return };
        let _server = Server::start(&net.pod, everywhere(3000));
        let args = format!("--mode {mode} --rules none --source none --server original:original --workers 1");
        let proxy = Proxy::start(&net.pod, &args);
        net.pod.sh(rules);

        for n in 1..=3 {
            let result = visit(&net.client, near(Family::V4), at_pod(Family::V4, 3000));

            assert!(is_refused(&result), "{mode}: {result:?}");
            eventually("it is noticed", || proxy.log().count("refused to connect to myself") >= n);
        }
        // Loops end soon after they have begun.
        let handled = proxy.log().count("Handling connection");
        assert!(handled < 30, "{mode}: {handled} connections");
    }
}
