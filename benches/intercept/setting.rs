//! What is compared: a client and a pod of their own, and what is between client and server.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use benches::procfs::Measured;
use meshlib::test_util::netns::Family;
use meshlib::test_util::netns::Pod;
use tokio::time::Instant;

/// The server is at a loopback address unless nothing is in between, so that each way of replies can be compared.
const SERVER: &str = "loopback:3000";

/// Where the proxy answers when it is ready.
const METRICS: &str = "127.0.0.1:9990";

/// Ways from the client to the server: a name, and the options of the proxy.
pub(crate) const WAYS: [(&str, Option<&[&str]>); 8] = [
    ("no interception", None),
    ("plain REDIRECT", Some(&["--mode", "nat", "--source", "none"])),
    ("nat, connmark", Some(&["--mode", "nat"])),
    ("nat, fwmark", Some(&["--mode", "nat", "--reply", "fwmark"])),
    ("nat, source-rule", Some(&["--mode", "nat", "--reply", "source-rule"])),
    ("tproxy, connmark", Some(&["--mode", "tproxy"])),
    ("tproxy, fwmark", Some(&["--mode", "tproxy", "--reply", "fwmark"])),
    ("tproxy, source-rule", Some(&["--mode", "tproxy", "--reply", "source-rule"])),
];

/// A client, a pod with a server, and perhaps a proxy between them.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    net: Pod,
    proxy: Option<Child>,
}

/// What some connections took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    /// From connecting until the answer had ended, each.
    pub(crate) each: Duration,
    /// Processor time of the proxy, each.
    pub(crate) proxy: Duration,
}

impl Setting {
    pub(crate) fn new(name: &'static str, options: Option<&[&str]>, program: &Path) -> io::Result<Self> {
        let net = Pod::new().map_err(io::Error::other)?;
        let listener = net.pod.run(|| TcpListener::bind("0.0.0.0:3000"))?;
        thread::spawn(move || serve(&listener));
        let proxy = options.map(|options| start(&net, options, program)).transpose()?;
        Ok(Self { name, net, proxy })
    }

    /// Connections one after another: each sends a few bytes, gets them back and is closed by the server.
    pub(crate) fn run(&self, connections: u32) -> io::Result<Took> {
        let addr = SocketAddr::new(Pod::pod_ip(Family::V4), 3000);
        let measured = self.proxy.as_ref().map(|proxy| Measured::Processes(vec![proxy.id()]));
        let cpu = || measured.as_ref().map_or(Ok(Duration::ZERO), Measured::cpu);
        let before = cpu()?;
        let began = Instant::now();
        self.net.client.run(move || (0..connections).try_for_each(|_| exchange(addr)))?;
        let took = began.elapsed();
        Ok(Took { each: took / connections, proxy: (cpu()? - before) / connections })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            // Its rules go with the namespace.
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

/// Starts the proxy and waits until its rules are set.
fn start(net: &Pod, options: &[&str], program: &Path) -> io::Result<Child> {
    let path = program.to_str().ok_or_else(|| io::Error::other("the path of the program is no text"))?;
    let command = net.pod.command(path).args(["--server", SERVER, "--metrics", METRICS]).args(options);
    // A line for each connection is not what is measured here.
    let mut child = command.env("RUST_LOG", "error").stdout(Stdio::null()).spawn()?;
    for _ in 0..1000 {
        // It listens here when its rules are set.
        let pages = net.pod.run(|| TcpStream::connect(METRICS));
        if pages.and_then(ready).is_ok() {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    Err(io::Error::other("the proxy does not start"))
}

fn ready(mut pages: TcpStream) -> io::Result<()> {
    pages.set_read_timeout(Some(Duration::from_secs(5)))?;
    pages.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    pages.read_to_string(&mut answer)?;
    if answer.contains(" 200 ") { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let answered = stream.and_then(|mut stream| {
            let mut bytes = [0; 16];
            stream.read_exact(&mut bytes)?;
            stream.write_all(&bytes)
        });
        // Whoever measures sees what is missing.
        drop(answered);
    }
}

fn exchange(addr: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(&[7; 16])?;
    let mut answer = Vec::with_capacity(16);
    stream.read_to_end(&mut answer)?;
    if answer == [7; 16] { Ok(()) } else { Err(io::Error::other("a wrong answer")) }
}
