//! The sockets that listen: passed by the service manager, or opened here.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;

use listenfd::ListenFd;
use meshlib::ListenOptions;
use meshlib::Listener;

use super::args::ListenSettings;

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
        let mut passed =
            passed().map_err(|error| format!("the sockets that were passed are of no use: {error}"))?;
        let mut of = |name: &str, addrs: &[SocketAddr]| {
            let taken: Vec<TcpListener> = take(&mut passed, name);
            if taken.is_empty() {
                return addrs.iter().map(|addr| open(*addr, workers)).collect::<Result<Vec<_>, _>>();
            }
            taken.into_iter().map(|socket| share(socket, workers)).collect()
        };
        let http = of("http", &settings.http)?;
        let https = of("https", &settings.https)?;
        let metrics = of("metrics", settings.metrics.as_slice())?;
        let metrics = metrics.into_iter().next().and_then(|bound| bound.sockets.into_iter().next());
        for (name, _) in passed {
            tracing::warn!(target: "tricot", name, "a socket was passed that nobody asked for");
        }
        Ok(Self { http, https, metrics })
    }
}

/// The sockets that were passed, each with its name.
fn passed() -> io::Result<Vec<(String, TcpListener)>> {
    // Before ListenFd, which takes the variables away.
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut fds = ListenFd::from_env();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut usual = ["http", "https", "metrics"].into_iter();
    let mut passed = Vec::new();
    for n in 0..fds.len() {
        let name = names.next().or_else(|| usual.next()).unwrap_or("unknown");
        if let Some(socket) = fds.take_tcp_listener(n)? {
            // systemd calls a socket after its unit if it is given no name.
            let name = name.trim_end_matches(".socket").trim_start_matches("tricot-");
            passed.push((name.to_owned(), socket));
        }
    }
    Ok(passed)
}

fn take(passed: &mut Vec<(String, TcpListener)>, name: &str) -> Vec<TcpListener> {
    let (taken, left) = std::mem::take(passed).into_iter().partition(|(own, _)| own == name);
    *passed = left;
    Vec::into_iter(taken).map(|(_, socket)| socket).collect()
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

/// A passed socket for all workers: it is one queue, and stays open where it came from.
fn share(socket: TcpListener, workers: usize) -> Result<Bound, String> {
    let failed = |error: io::Error| format!("a socket that was passed is of no use: {error}");
    let addr = socket.local_addr().map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let rest = (1..workers).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    Ok(Bound { addr, sockets: [socket].into_iter().chain(rest).collect() })
}
