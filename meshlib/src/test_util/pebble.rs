//! A real ACME authority beside a test.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;

use super::Program;
use super::TestCa;
use super::Unavailable;
use super::free_ports;
use super::locate;

/// How long the authority may take to come up, and to answer a question.
const SOON: Duration = Duration::from_secs(20);

/// How an authority behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PebbleOptions {
    /// The port to which HTTP challenges are sent. Default 1, where nobody listens.
    pub http_port: u16,
    /// The port to which TLS challenges are sent. Default 1, where nobody listens.
    pub tls_port: u16,
    /// How long certificates are valid, in seconds. Default 90 days.
    pub lifetime_secs: u64,
    /// How many of a hundred good nonces are refused. Default none.
    pub bad_nonces: u8,
    /// How many of a hundred valid authorizations are used again. Default none.
    pub reused_authorizations: u8,
    /// Whether every challenge counts as met, without a look. Default false.
    pub always_valid: bool,
    /// Identifier and key (base64url) of the external account that is asked for. Default: none is.
    pub external_account: Option<(String, String)>,
    /// Names for which orders are refused. Default none.
    pub blocked: Vec<String>,
    renewal_info: bool,
}

impl Default for PebbleOptions {
    fn default() -> Self {
        Self {
            http_port: 1,
            tls_port: 1,
            lifetime_secs: 90 * 24 * 3600,
            bad_nonces: 0,
            reused_authorizations: 0,
            always_valid: false,
            external_account: None,
            blocked: Vec::new(),
            renewal_info: false,
        }
    }
}

impl PebbleOptions {
    /// Sets where HTTP challenges are sent.
    #[must_use]
    pub fn with_http_port(mut self, port: u16) -> Self {
        self.http_port = port;
        self
    }

    /// Sets where TLS challenges are sent.
    #[must_use]
    pub fn with_tls_port(mut self, port: u16) -> Self {
        self.tls_port = port;
        self
    }

    /// Sets for how many seconds certificates are valid.
    #[must_use]
    pub fn with_lifetime_secs(mut self, secs: u64) -> Self {
        self.lifetime_secs = secs;
        self
    }

    /// Sets how many of a hundred good nonces are refused.
    #[must_use]
    pub fn with_bad_nonces(mut self, percent: u8) -> Self {
        self.bad_nonces = percent;
        self
    }

    /// Sets how many of a hundred valid authorizations are used again.
    #[must_use]
    pub fn with_reused_authorizations(mut self, percent: u8) -> Self {
        self.reused_authorizations = percent;
        self
    }

    /// Takes every challenge for met.
    #[must_use]
    pub fn always_valid(mut self) -> Self {
        self.always_valid = true;
        self
    }

    /// Asks for an external account: its identifier, and its key in base64url.
    #[must_use]
    pub fn with_external_account(mut self, id: impl Into<String>, key: impl Into<String>) -> Self {
        self.external_account = Some((id.into(), key.into()));
        self
    }

    /// Refuses orders for a name.
    #[must_use]
    pub fn with_blocked(mut self, name: impl Into<String>) -> Self {
        self.blocked.push(name.into());
        self
    }

    /// Runs a version that offers renewal information.
    #[must_use]
    pub fn with_renewal_info(mut self) -> Self {
        self.renewal_info = true;
        self
    }
}

/// Pebble, the ACME authority for tests, with a DNS server that answers it `127.0.0.1` for every name unless told
/// otherwise. Both run on ports of their own until this is dropped. Its accounts, orders and keys are gone when it is
/// restarted.
#[derive(Debug)]
pub struct Pebble {
    ca: TestCa,
    options: PebbleOptions,
    programs: PathBuf,
    dir: Scratch,
    ports: Ports,
    authority: Option<Program>,
    dns: Option<Program>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    directory: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
}

impl Ports {
    fn free() -> Self {
        let [directory, management, dns, dns_management] = free_ports();
        Self { directory, management, dns, dns_management }
    }
}

impl Pebble {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Unavailable::Server`] if the programs are not there.
    ///
    /// # Panics
    ///
    /// If they cannot be started, or do not answer within 20 s.
    pub async fn start(options: PebbleOptions) -> Result<Self, Unavailable> {
        let relative = if options.renewal_info {
            "trixie-pebble/usr/bin/pebble"
        } else {
            "bookworm-pebble/usr/bin/pebble"
        };
        let program = locate("pebble", "MESHLIB_PEBBLE", relative)?;
        let programs = program.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let dir = Scratch::new("pebble");
        let (ca, ports) = (TestCa::new(), Ports::free());
        let mut pebble = Self { ca, options, programs, dir, ports, authority: None, dns: None };
        // Somebody may take a port before it does.
        for _ in 0..5 {
            if pebble.launch().await {
                return Ok(pebble);
            }
            pebble.stop();
            pebble.ports = Ports::free();
        }
        panic!("pebble does not start: {}", pebble.said());
    }

    /// Its directory's URL.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.ports.directory)
    }

    /// The authority that vouches for the directory itself, in PEM. Not the one that issues.
    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// A client's configuration that trusts the directory.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.ca.client_config().into()
    }

    /// Trust in the certificates that it issues. Its root is another one after each start.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn issuing_roots(&self) -> RootCertStore {
        let answer = self.get(self.ports.management, "/roots/0").await.expect("it says what its root is");
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(answer.as_bytes()).expect("a root in PEM");
        roots.add(root).expect("a root can be trusted");
        roots
    }

    /// How many orders it has taken since it was first started.
    pub fn orders(&self) -> usize {
        self.said().lines().filter(|line| line.contains("Added order")).count()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        let log = fs::read(self.dir.0.join("pebble.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ends it. Its DNS server goes on.
    pub fn kill(&mut self) {
        self.authority = None;
    }

    /// Starts it again on the same ports, without a memory.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch_authority();
        assert!(self.is_up().await, "pebble does not start again: {}", self.said());
    }

    /// Keeps it from answering until [`resume`](Self::resume); connections to it are still made.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sets the addresses of a host.
    ///
    /// # Panics
    ///
    /// If the DNS server does not take it.
    pub async fn set_a(&self, host: &str, ips: &[IpAddr]) {
        let ips = ips.iter().map(|ip| format!("\"{ip}\"")).collect::<Vec<_>>().join(",");
        self.tell("/clear-a", &format!("{{\"host\":\"{host}\"}}")).await;
        self.tell("/add-a", &format!("{{\"host\":\"{host}\",\"addresses\":[{ips}]}}")).await;
    }

    /// Lets look-ups of a host fail.
    ///
    /// # Panics
    ///
    /// If the DNS server does not take it.
    pub async fn servfail(&self, host: &str) {
        self.tell("/set-servfail", &format!("{{\"host\":\"{host}\"}}")).await;
    }

    /// Lets look-ups of a host succeed again.
    ///
    /// # Panics
    ///
    /// If the DNS server does not take it.
    pub async fn clear_servfail(&self, host: &str) {
        self.tell("/clear-servfail", &format!("{{\"host\":\"{host}\"}}")).await;
    }

    fn signal(&self, name: &str) {
        self.authority.as_ref().expect("it runs").signal(name);
    }

    async fn launch(&mut self) -> bool {
        let Ports { dns, dns_management, .. } = self.ports;
        let mut command = Command::new(self.programs.join("pebble-challtestsrv"));
        command
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1"])
            .args(["-defaultIPv6", "", "-dns01", &format!("127.0.0.1:{dns}")])
            .args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let program = Program::start(&mut command, &self.dir.0.join("dns.log"));
        self.dns = Some(program.expect("pebble-challtestsrv can be started"));
        self.launch_authority();
        self.is_up().await
    }

    fn launch_authority(&mut self) {
        let cert = self.ca.issue(["localhost", "127.0.0.1"]);
        cert.write_to(&self.dir.0).expect("a scratch directory can be written");
        fs::write(self.dir.0.join("pebble.json"), self.config()).expect("a scratch directory can be written");
        let flag = |on: bool| if on { "1" } else { "0" };
        let mut command = Command::new(self.programs.join("pebble"));
        command
            .args(["-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{}", self.ports.dns)])
            .current_dir(&self.dir.0)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", flag(self.options.always_valid))
            .env("PEBBLE_WFE_NONCEREJECT", self.options.bad_nonces.to_string())
            .env("PEBBLE_AUTHZREUSE", self.options.reused_authorizations.to_string());
        let program = Program::start(&mut command, &self.dir.0.join("pebble.log"));
        self.authority = Some(program.expect("pebble can be started"));
    }

    /// Each text in it is a name or base64url, with nothing to escape.
    fn config(&self) -> String {
        let Ports { directory, management, .. } = self.ports;
        let PebbleOptions { http_port, tls_port, lifetime_secs, .. } = self.options;
        let blocked: Vec<_> = self.options.blocked.iter().map(|name| format!("\"{name}\"")).collect();
        let mut config = format!(
            "{{\"pebble\":{{\"listenAddress\":\"127.0.0.1:{directory}\",\
             \"managementListenAddress\":\"127.0.0.1:{management}\",\
             \"certificate\":\"cert.pem\",\"privateKey\":\"key.pem\",\
             \"httpPort\":{http_port},\"tlsPort\":{tls_port},\"certificateValidityPeriod\":{lifetime_secs},\
             \"profiles\":{{\"default\":{{\"description\":\"test\",\"validityPeriod\":{lifetime_secs}}}}},\
             \"domainBlocklist\":[{}]",
            blocked.join(",")
        );
        if let Some((id, key)) = &self.options.external_account {
            let keys = format!(
                ",\"externalAccountBindingRequired\":true,\"externalAccountMACKeys\":{{\"{id}\":\"{key}\"}}"
            );
            let _ = write!(config, "{keys}");
        }
        config + "}}"
    }

    fn stop(&mut self) {
        self.authority = None;
        self.dns = None;
    }

    /// Waits until both answer. False if one of them has ended.
    async fn is_up(&mut self) -> bool {
        let deadline = time::Instant::now() + SOON;
        loop {
            let runs = |program: &mut Option<Program>| program.as_mut().is_some_and(Program::is_running);
            if !runs(&mut self.authority) || !runs(&mut self.dns) {
                return false;
            }
            let answers = self.get(self.ports.directory, "/dir").await.is_ok()
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.dns_management)).await.is_ok();
            if answers {
                return true;
            }
            assert!(time::Instant::now() < deadline, "pebble does not answer: {}", self.said());
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get(&self, port: u16, path: &str) -> io::Result<String> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let name = ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let tls = TlsConnector::from(self.client_config()).connect(name, tcp).await?;
        exchange(tls, &format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")).await
    }

    async fn tell(&self, path: &str, json: &str) {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.dns_management));
        let tcp = TcpStream::connect(addr).await.expect("the DNS server runs");
        let length = json.len();
        let request = format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{json}");
        exchange(tcp, &request).await.expect("the DNS server takes it");
    }
}

/// Sends a request and reads the body of the answer; an error unless its status is 200.
async fn exchange(
    mut io: impl tokio::io::AsyncRead + AsyncWriteExt + Unpin,
    request: &str,
) -> io::Result<String> {
    let exchange = async {
        io.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        match io.read_to_end(&mut answer).await {
            // It closes TLS without saying so.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(io::Error::other(head.to_owned())),
        }
    };
    time::timeout(SOON, exchange).await?
}

/// A directory that goes with this.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let unique = format!("meshlib-{name}-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(unique);
        fs::create_dir(&dir).expect("a scratch directory can be made");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over is in the folder for what may be thrown away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::or_skip;
    use super::*;

    #[tokio::test]
    async fn it_can_be_asked_stopped_and_started_again() {
        let Some(mut pebble) = or_skip(Pebble::start(PebbleOptions::default()).await) else { return };
        let root = pebble.issuing_roots().await.roots;
        pebble.set_a("a.test", &["127.0.0.2".parse().unwrap()]).await;
        pebble.servfail("b.test").await;
        pebble.clear_servfail("b.test").await;

        pebble.kill();
        assert!(pebble.get(pebble.ports.directory, "/dir").await.is_err());
        pebble.restart().await;

        assert_ne!(
            pebble.issuing_roots().await.roots[0].subject_public_key_info,
            root[0].subject_public_key_info
        );
        assert_eq!(pebble.orders(), 0);
    }
}
