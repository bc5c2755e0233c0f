//! The sockets that listen: passed by the service manager, or opened here.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;

use meshlib::ListenOptions;
use meshlib::Listener;

use super::args::ListenSettings;
use crate::kit::sockets::Passed;
use crate::kit::sockets::share;

/// Everything that listens.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) http: Vec<Bound>,
    pub(super) https: Vec<Bound>,
    pub(super) metrics: Option<TcpListener>,
}

/// One address, with a socket for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) addr: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
}

impl Sockets {
    /// Takes the sockets that the service manager passes for `http`, `https` and `metrics`, by these names or in this
    /// order, and opens those that it does not.
    ///
    /// # Errors
    ///
    /// The address that cannot be listened at, and why.
    pub(super) fn open(settings: &ListenSettings, workers: usize) -> Result<Self, String> {
        let mut passed = Passed::take("tricot", &["http", "https", "metrics"]).map_err(useless)?;
        let mut of = |name: &str, addrs: &[SocketAddr]| {
            let taken = passed.all(name);
            if taken.is_empty() {
                return addrs.iter().map(|addr| open(*addr, workers)).collect::<Result<Vec<_>, _>>();
            }
            let shared = taken.into_iter().map(|socket| share(socket, workers).map_err(useless));
            shared.map(|shared| shared.map(|(addr, sockets)| Bound { addr, sockets })).collect()
        };
        let http = of("http", &settings.http)?;
        let https = of("https", &settings.https)?;
        let metrics = of("metrics", settings.metrics.as_slice())?;
        let metrics = metrics.into_iter().next().and_then(|bound| bound.sockets.into_iter().next());
        passed.close_rest();
        Ok(Self { http, https, metrics })
    }
}

fn useless(error: io::Error) -> String {
    format!("the sockets that were passed are of no use: {error}")
}

/// A socket that others listen at as well, a worker each: those of this process, and those of the process that takes over
/// from it.
fn open(addr: SocketAddr, workers: usize) -> Result<Bound, String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "cannot listen at {addr}: {error}; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
            )
        }
        _ => format!("cannot listen at {addr}: {error}"),
    };
    let options = ListenOptions::default().with_reuse_port(true);
    let first = Listener::open(addr, &options).map_err(failed)?;
    let addr = first.local_addr().map_err(failed)?;
    let rest = (1..workers)
        .map(|_| Listener::open(addr, &options))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    Ok(Bound { addr, sockets: [first].into_iter().chain(rest).collect() })
}
