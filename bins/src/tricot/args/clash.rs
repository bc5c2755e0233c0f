//! Addresses that two listeners would share: ours may be opened several times, so the kernel would spread connections over
//! both.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use super::ListenSettings;

/// Refuses addresses that are wanted for two purposes.
pub(super) fn check(listen: &ListenSettings) -> Result<(), String> {
    let purposes = [
        ("TRICOT_HTTP_BIND_ADDR", listen.http.as_slice()),
        ("TRICOT_HTTPS_BIND_ADDR", listen.https.as_slice()),
        ("TRICOT_METRICS_BIND_ADDR", listen.metrics.as_slice()),
    ];
    for (n, (one, addrs)) in purposes.iter().enumerate() {
        for (other, others) in &purposes[n + 1..] {
            let pairs = addrs.iter().flat_map(|addr| others.iter().map(move |of_other| (addr, of_other)));
            if let Some((addr, of_other)) = pairs.into_iter().find(|(a, b)| overlap(**a, **b)) {
                return Err(format!(
                    "{one} ({addr}) and {other} ({of_other}) are the same port of the same address; each needs its own"
                ));
            }
        }
    }
    Ok(())
}

/// Whether a connection may be to both. Port 0 is another one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: IpAddr, ip: IpAddr| match all {
        IpAddr::V4(all) => all == Ipv4Addr::UNSPECIFIED && ip.is_ipv4(),
        // It takes IPv4, too.
        IpAddr::V6(all) => all == Ipv6Addr::UNSPECIFIED,
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}
