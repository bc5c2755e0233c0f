//! Sockets that the service manager has opened and passes (systemd's socket activation).
//!
//! They stay open where they come from: while one process ends and the next begins, connections wait in their queue and
//! none is lost.

use std::env;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;

use listenfd::ListenFd;
use meshlib::ListenOptions;
use meshlib::Listener;

use crate::kit::log;

/// Whether a connection may be to both addresses, so that two listeners cannot have them. Port 0 is another one each time.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: IpAddr, ip: IpAddr| match all {
        IpAddr::V4(all) => all.is_unspecified() && ip.is_ipv4(),
        // It takes IPv4, too.
        IpAddr::V6(all) => all.is_unspecified(),
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

/// The sockets that were passed, each with its name.
#[derive(Debug, Default)]
pub struct Passed(Vec<(String, TcpListener)>);

impl Passed {
    /// Takes them from the process, which has them once.
    ///
    /// A socket is called what `FileDescriptorName` says. Without that it has the name of its unit: `TOOL-http.socket` is
    /// `http`. Those that have no name at all get `usual` ones, in order.
    ///
    /// # Errors
    ///
    /// If what was passed is no socket for TCP.
    pub fn take(tool: &str, usual: &[&str]) -> io::Result<Self> {
        // Before ListenFd, which takes the variables away.
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut fds = ListenFd::from_env();
        let mut names = names.split(':');
        let mut usual = usual.iter().copied();
        let prefix = format!("{tool}-");
        let mut passed = Vec::new();
        for n in 0..fds.len() {
            let name = names.next().filter(|name| !name.is_empty()).or_else(|| usual.next());
            let name = name.unwrap_or("unknown");
            if let Some(socket) = fds.take_tcp_listener(n)? {
                // Only what is called after a unit ends so.
                let unit =
                    name.strip_suffix(".socket").map(|unit| unit.strip_prefix(&prefix).unwrap_or(unit));
                passed.push((
                    unit.unwrap_or(name).to_owned(),
                    Listener::adopt(socket, &ListenOptions::default())?,
                ));
            }
        }
        Ok(Self(passed))
    }

    /// All of this name.
    pub fn all(&mut self, name: &str) -> Vec<TcpListener> {
        self.0.extract_if(.., |(own, _)| own == name).map(|(_, socket)| socket).collect()
    }

    /// The next of this name.
    pub fn next(&mut self, name: &str) -> Option<TcpListener> {
        let at = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(at).1)
    }

    /// Says which are left that nobody asked for, and closes them.
    pub fn close_rest(self) {
        for (name, _) in self.0 {
            tracing::warn!(target: log::PROCESS, name, "a socket was passed that nobody asked for");
        }
    }
}

/// A passed socket for each worker. They have one queue.
///
/// # Errors
///
/// What the operating system says.
pub fn share(socket: TcpListener, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let addr = socket.local_addr()?;
    let rest = (1..workers).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    Ok((addr, [socket].into_iter().chain(rest).collect()))
}
