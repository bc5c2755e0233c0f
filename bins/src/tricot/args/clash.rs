//! Addresses that two listeners would share: ours may be opened several times, so the kernel would spread connections over
//! both.

use super::ListenSettings;
use crate::kit::sockets::overlap;

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
