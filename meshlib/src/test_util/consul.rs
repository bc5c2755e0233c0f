//! Consul agents that live as long as a test.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time;
use tokio::time::Instant;

use super::Program;
use super::TestCa;
use super::Unavailable;
use super::free_ports;
use super::locate;

mod request;

pub use request::ConsulAnswer;

/// How long an agent may take until it knows a leader, on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(60);
/// How often an agent is started on other ports because somebody took one of its own.
const ATTEMPTS: u32 = 5;

/// What an agent is like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsulOptions {
    /// The name of its node. Default `edge1`.
    pub node: String,
    /// The metadata of its node. Default: none.
    pub node_meta: Vec<(String, String)>,
    /// More configuration, as JSON. Default: none.
    pub config: Option<String>,
    /// The authority whose certificate it shows on a second port, and that client certificates must come from. Default:
    /// no such port.
    pub tls: Option<ConsulTls>,
    /// The token that every request of the helpers carries. Default: none.
    pub token: Option<String>,
    /// Whether it keeps its state on disk, and so over a restart. Default false.
    pub on_disk: bool,
}

/// The files of an agent that speaks TLS, in PEM.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsulTls {
    /// The authority's certificate.
    pub ca: String,
    /// The agent's certificate.
    pub cert: String,
    /// The agent's private key.
    pub key: String,
    /// Whether clients must show a certificate. Default false.
    pub verify_clients: bool,
}

impl Default for ConsulOptions {
    fn default() -> Self {
        Self {
            node: "edge1".into(),
            node_meta: Vec::new(),
            config: None,
            tls: None,
            token: None,
            on_disk: false,
        }
    }
}

impl ConsulOptions {
    /// Names the node.
    #[must_use]
    pub fn with_node(mut self, name: impl Into<String>) -> Self {
        self.node = name.into();
        self
    }

    /// Adds to the metadata of the node.
    #[must_use]
    pub fn with_node_meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node_meta.push((key.into(), value.into()));
        self
    }

    /// Sets more configuration: one JSON object.
    #[must_use]
    pub fn with_config(mut self, json: impl Into<String>) -> Self {
        self.config = Some(json.into());
        self
    }

    /// Keeps the state on disk.
    #[must_use]
    pub fn with_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// Opens a port for TLS, with a certificate for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn with_tls(mut self, ca: &TestCa) -> Self {
        let cert = ca.issue(["server.dc1.consul", "localhost", "127.0.0.1"]);
        let (cert, key) = (cert.chain_pem(), cert.key_pem());
        self.tls = Some(ConsulTls { ca: ca.pem(), cert, key, verify_clients: false });
        self
    }

    /// Makes the port for TLS ask for a client certificate. Nothing happens where there is no such port.
    #[must_use]
    pub fn verifying_clients(mut self) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.verify_clients = true;
        }
        self
    }

    /// Refuses what no token allows, and makes `token` the one that allows everything.
    #[must_use]
    pub fn with_acl(mut self, token: &str) -> Self {
        self.config = Some(format!(
            r#"{{"acl": {{"enabled": true, "default_policy": "deny", "tokens": {{"master": "{token}", "agent": "{token}"}}}}}}"#
        ));
        self.token = Some(token.to_owned());
        self
    }
}

/// A Consul agent that runs until this is dropped.
///
/// It keeps everything in memory, so that a restart forgets all, unless it was [told to keep it on
/// disk](ConsulOptions::with_disk) or is one of a [`cluster`](Self::cluster).
///
/// # Examples
///
/// ```
/// use meshlib::test_util::{Consul, ConsulOptions, or_skip};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
/// consul.service("n2", "web", "web-1", 8080, &["primary"]).await;
///
/// let answer = consul.get("/v1/catalog/service/web").await;
/// assert!(answer.body.contains("web-1"));
/// # }
/// ```
#[derive(Debug)]
pub struct Consul {
    program: Program,
    binary: PathBuf,
    arguments: Vec<String>,
    dir: Dir,
    http: SocketAddr,
    https: Option<SocketAddr>,
    token: Option<String>,
    node: String,
    /// The values of its metadata.
    node_meta: Vec<String>,
}

impl Consul {
    /// Starts an agent and waits until it is its own leader.
    ///
    /// # Errors
    ///
    /// [`Unavailable::Server`] if there is no Consul.
    ///
    /// # Panics
    ///
    /// If it does not start, or takes longer than a minute.
    pub async fn start(options: ConsulOptions) -> Result<Self, Unavailable> {
        let binary = binary()?;
        for _ in 1..ATTEMPTS {
            let mut agent = Self::launch(&binary, &options, free_ports(), None);
            if agent.is_ready().await {
                return Ok(agent);
            }
        }
        let mut agent = Self::launch(&binary, &options, free_ports(), None);
        assert!(agent.is_ready().await, "consul does not start:\n{}", agent.said());
        Ok(agent)
    }

    /// Starts three servers that elect a leader among them, and waits until each knows it. They keep their state on disk.
    /// `options` hold for each, but that a number follows the name of the node.
    ///
    /// # Errors
    ///
    /// [`Unavailable::Server`] if there is no Consul.
    ///
    /// # Panics
    ///
    /// If they do not start, or take longer than a minute.
    pub async fn cluster(options: ConsulOptions) -> Result<[Self; 3], Unavailable> {
        let binary = binary()?;
        for _ in 0..ATTEMPTS {
            let ports: [u16; 12] = free_ports();
            let serf = [ports[1], ports[5], ports[9]];
            let mut agents = [0, 1, 2].map(|n: usize| {
                let mut options = options.clone();
                let _ = write!(options.node, "{}", n + 1);
                let own = [ports[4 * n], ports[4 * n + 1], ports[4 * n + 2], ports[4 * n + 3]];
                Self::launch(&binary, &options, own, Some(serf[(n + 1) % 3]))
            });
            let mut ready = true;
            for agent in &mut agents {
                ready = ready && agent.is_ready().await;
            }
            if ready {
                return Ok(agents);
            }
        }
        panic!("three consuls do not find a leader");
    }

    /// Where it speaks HTTP.
    pub fn addr(&self) -> SocketAddr {
        self.http
    }

    /// Where it speaks HTTPS.
    ///
    /// # Panics
    ///
    /// If it was [not told to](ConsulOptions::with_tls).
    pub fn https_addr(&self) -> SocketAddr {
        self.https.expect("an agent with TLS")
    }

    /// A folder that is removed with the agent, for files of the test.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.program.kill();
    }

    /// Starts it again on the same ports, and waits until it knows a leader. It is killed before if it still runs.
    ///
    /// # Panics
    ///
    /// If it does not start, or takes longer than a minute.
    pub async fn restart(&mut self) {
        self.start_again();
        assert!(self.is_ready().await, "consul does not start again:\n{}", self.said());
    }

    /// Starts it again on the same ports without waiting for a leader, which it may never know.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start_again(&mut self) {
        self.program.kill();
        self.program = run(&self.binary, &self.arguments, &self.dir.0);
    }

    /// Stops it in its tracks: its connections stay open and nothing comes.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pause(&self) {
        self.program.signal("STOP");
    }

    /// Lets it go on after a [`pause`](Self::pause).
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn resume(&self) {
        self.program.signal("CONT");
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// What it has logged so far.
    pub fn said(&self) -> String {
        self.program.said()
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// If the agent cannot be reached, or takes longer than 30 s.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> io::Result<ConsulAnswer> {
        request::request(self.http, self.token.as_deref(), method, path, body).await
    }

    /// Reads, whatever the status.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> ConsulAnswer {
        self.request("GET", path, "").await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Writes, and returns the body of the answer.
    ///
    /// # Panics
    ///
    /// If there is no answer, or one that is not 200.
    pub async fn put(&self, path: &str, body: &str) -> String {
        let answer =
            self.request("PUT", path, body).await.unwrap_or_else(|error| panic!("PUT {path}: {error}"));
        assert_eq!(answer.status, 200, "PUT {path}: {}", answer.body);
        answer.body
    }

    /// Registers whatever a `catalog/register` request in JSON says: a node, a service, checks.
    ///
    /// # Panics
    ///
    /// If the agent does not take it.
    pub async fn register(&self, json: &str) {
        self.put("/v1/catalog/register", json).await;
    }

    /// Removes what a `catalog/deregister` request in JSON names.
    ///
    /// # Panics
    ///
    /// If the agent does not take it.
    pub async fn deregister(&self, json: &str) {
        self.put("/v1/catalog/deregister", json).await;
    }

    /// Registers an instance on 127.0.0.1 of a node that has the same address.
    ///
    /// # Panics
    ///
    /// If the agent does not take it.
    pub async fn service(&self, node: &str, service: &str, id: &str, port: u16, tags: &[&str]) {
        let tags: Vec<_> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
        self.register(&format!(
            r#"{{"Node": "{node}", "Address": "127.0.0.1", "SkipNodeUpdate": true,
                "Service": {{"Service": "{service}", "ID": "{id}", "Port": {port}, "Tags": [{}]}}}}"#,
            tags.join(",")
        ))
        .await;
    }

    /// Sets the state of a check of an instance; of the node if `id` is empty.
    ///
    /// # Panics
    ///
    /// If the agent does not take it.
    pub async fn check(&self, node: &str, id: &str, check: &str, status: &str) {
        self.register(&format!(
            r#"{{"Node": "{node}", "Address": "127.0.0.1", "SkipNodeUpdate": true,
                "Check": {{"CheckID": "{check}", "Name": "{check}", "ServiceID": "{id}", "Status": "{status}"}}}}"#
        ))
        .await;
    }

    fn launch(binary: &Path, options: &ConsulOptions, ports: [u16; 4], next: Option<u16>) -> Self {
        let dir = Dir::new();
        let [http, serf, server, https] = ports;
        let https = options.tls.as_ref().map(|_| https);
        let mut config = config(options, [http, serf, server], https, &dir.0);
        let on_disk = options.on_disk || next.is_some();
        if on_disk {
            let data = dir.0.join("data");
            let _ = write!(
                config,
                r#", "server": true, "bootstrap_expect": {}, "data_dir": "{}", "performance": {{"raft_multiplier": 1}}"#,
                if next.is_some() { 3 } else { 1 },
                data.display()
            );
        }
        if let Some(next) = next {
            let _ = write!(config, r#", "retry_join": ["127.0.0.1:{next}"], "retry_interval": "1s""#);
        }
        write_file(&dir.0.join("agent.json"), &format!("{{{config}}}"));
        write_file(&dir.0.join("more.json"), options.config.as_deref().unwrap_or("{}"));
        let mut arguments: Vec<String> = vec!["agent".into()];
        if !on_disk {
            arguments.push("-dev".into());
        }
        arguments.extend(["agent.json", "more.json"].map(|file| format!("-config-file={file}")));
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            program: run(binary, &arguments, &dir.0),
            binary: binary.to_owned(),
            arguments,
            dir,
            http: local(http),
            https: https.map(local),
            token: options.token.clone(),
            node: options.node.clone(),
            node_meta: options.node_meta.iter().map(|(_, value)| value.clone()).collect(),
        }
    }

    /// Waits until it knows a leader. False if it ended, or the time is over.
    async fn is_ready(&mut self) -> bool {
        let until = Instant::now() + READY;
        while Instant::now() < until && self.program.is_running() {
            if self.shows("/v1/status/leader", &[":".into()]).await
                && self.shows("/v1/catalog/services", &["consul".into()]).await
                // It registers the metadata of its node after all that.
                && self.shows(&format!("/v1/catalog/node/{}", self.node), &self.node_meta).await
            {
                return true;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn shows(&self, path: &str, all: &[String]) -> bool {
        let answer = self.request("GET", path, "").await;
        answer.is_ok_and(|answer| answer.status == 200 && all.iter().all(|text| answer.body.contains(text)))
    }
}

fn binary() -> Result<PathBuf, Unavailable> {
    locate("consul", "MESHLIB_CONSUL", "bullseye-consul/usr/bin/consul")
}

/// The insides of the configuration's object.
fn config(options: &ConsulOptions, ports: [u16; 3], https: Option<u16>, dir: &Path) -> String {
    let [http, serf, server] = ports;
    let meta: Vec<_> =
        options.node_meta.iter().map(|(key, value)| format!(r#""{key}": "{value}""#)).collect();
    let mut config = format!(
        r#""node_name": "{}", "node_meta": {{{}}}, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
            "disable_update_check": true, "log_level": "warn", "leave_on_terminate": false,
            "ports": {{"http": {http}, "https": {}, "dns": -1, "grpc": -1, "serf_lan": {serf}, "serf_wan": -1,
                "server": {server}}}"#,
        options.node,
        meta.join(","),
        https.map_or(-1, i32::from),
    );
    if let Some(tls) = &options.tls {
        for (file, text) in [("ca.pem", &tls.ca), ("cert.pem", &tls.cert), ("key.pem", &tls.key)] {
            write_file(&dir.join(file), text);
        }
        let _ = write!(
            config,
            r#", "ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "key.pem",
                "verify_incoming_https": {}"#,
            tls.verify_clients
        );
    }
    config
}

fn run(binary: &Path, arguments: &[String], dir: &Path) -> Program {
    let mut command = Command::new(binary);
    // Variables that are meant for clients mean something to the agent, too.
    command.args(arguments).current_dir(dir).env_clear();
    Program::start(&mut command, &dir.join("log"))
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()))
}

fn write_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A folder that goes when this is dropped.
#[derive(Debug)]
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("meshlib-consul-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::or_skip;

    #[tokio::test]
    async fn an_agent_starts_with_what_it_was_told_and_forgets_all_when_restarted() {
        let options = ConsulOptions::default().with_node("n1").with_node_meta("site", "north");
        let Some(mut consul) = or_skip(Consul::start(options).await) else { return };
        let node = consul.get("/v1/catalog/node/n1").await;
        assert!(node.body.contains("north"), "{}", node.body);
        consul.service("n2", "web", "web-1", 8080, &["primary"]).await;
        let services = consul.get("/v1/catalog/services").await;
        assert!(services.body.contains("web") && services.body.contains("primary"), "{}", services.body);

        consul.restart().await;

        assert!(!consul.get("/v1/catalog/services").await.body.contains("web"));
    }

    #[tokio::test]
    async fn what_is_on_disk_is_there_after_a_restart() {
        let options = ConsulOptions::default().with_disk();
        let Some(mut consul) = or_skip(Consul::start(options).await) else { return };
        consul.service("n2", "web", "web-1", 8080, &[]).await;

        consul.restart().await;

        let deadline = Instant::now() + READY;
        while !consul.get("/v1/catalog/services").await.body.contains("web") {
            assert!(Instant::now() < deadline, "it has forgotten");
        }
    }

    #[tokio::test]
    async fn a_folder_goes_with_its_agent() {
        let Some(consul) = or_skip(Consul::start(ConsulOptions::default()).await) else { return };
        let dir = consul.dir().to_owned();
        assert!(dir.exists());

        drop(consul);

        assert!(!dir.exists());
    }
}
