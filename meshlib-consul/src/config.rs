//! Where Consul is and how it is spoken to.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meshlib::resolve::Dns;
use meshlib::tls::ClientTls;
use meshlib::tls::TlsError;
use meshlib::tls::pem::PemError;

/// Where Consul is and how it is spoken to.
///
/// # Examples
///
/// ```
/// use meshlib_consul::{Config, Token};
///
/// let config = Config::new("http://127.0.0.1:8500")
///     .with_address("http://10.0.0.2:8500")
///     .with_token(Token::new("5d17a2b0-2a4a-4c05-8e17-0cf6e26ef9e2"));
/// assert!(!format!("{config:?}").contains("5d17"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The agents to ask: `http://HOST:PORT`, `https://HOST:PORT`, each perhaps with a path in front of Consul's own, or
    /// `unix:///PATH`. The first that answers is used, until it fails three times in a row. Default
    /// `http://127.0.0.1:8500`.
    pub addresses: Vec<String>,
    /// What gives us our rights. Default: none, the rights of anybody.
    pub token: Option<Token>,
    /// The datacenter that is asked about. Default: the agent's own.
    pub datacenter: Option<Arc<str>>,
    /// How `https` is spoken. Default: with trust in nobody, unless feature `native-roots` is on.
    pub tls: TlsOptions,
    /// The key of a node's metadata that says where the node stands. Default `site`.
    pub site_key: Arc<str>,
    /// Whether the agent may answer reads of the catalog from its own cache. Default false.
    pub cached: bool,
    /// Most requests at a time, which is most connections to an agent that speaks HTTP/1.1. An agent refuses more than
    /// 200 from one address unless configured otherwise. Default 120, at least 10. With HTTP/2 it does not apply.
    pub max_requests: usize,
    /// From which time without word from the leader on an agent's answers count as degraded. Default 10 s.
    pub max_lag: Duration,
    /// How long connecting may take, TLS not included. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a read may take that does not wait for a change. Default 15 s: a server that has lost its leader takes 7 s
    /// to say so.
    pub read_timeout: Duration,
    /// How long a write may take. Default 15 s.
    pub write_timeout: Duration,
    /// How long a watch waits for a change before it asks again. Default: 60 s, and up to 300 s where there are many.
    pub wait: Option<Duration>,
    /// Finds the addresses of host names. Default: the operating system, at most every 30 s.
    pub dns: Dns,
}

impl Config {
    /// An agent at this address; everything else is the default.
    pub fn new(address: impl Into<String>) -> Self {
        Self { addresses: vec![address.into()], ..Self::default() }
    }

    /// What the environment says, in the variables that Consul's own tools read: `CONSUL_HTTP_ADDR`,
    /// `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_HTTP_SSL`, `CONSUL_HTTP_SSL_VERIFY`, `CONSUL_CACERT`,
    /// `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY`, `CONSUL_TLS_SERVER_NAME` and `CONSUL_DATACENTER`. What is not set is
    /// the default.
    ///
    /// # Errors
    ///
    /// If the file of the token cannot be read, or a switch is neither true nor false.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let switch =
            |name: &'static str| match variable(name).map(|value| value.to_ascii_lowercase()).as_deref() {
                None => Ok(None),
                Some("1" | "t" | "true") => Ok(Some(true)),
                Some("0" | "f" | "false") => Ok(Some(false)),
                Some(_) => Err(ConfigError::Switch { name }),
            };
        let mut config = Self::default();
        let secure = switch("CONSUL_HTTP_SSL")?.unwrap_or(false);
        if let Some(address) = variable("CONSUL_HTTP_ADDR") {
            // Consul's own tools leave the scheme out.
            let scheme = if secure { "https" } else { "http" };
            let address = if address.contains("://") { address } else { format!("{scheme}://{address}") };
            config.addresses = vec![address];
        } else if secure {
            config.addresses = vec!["https://127.0.0.1:8500".to_owned()];
        }
        if let Some(path) = variable("CONSUL_HTTP_TOKEN_FILE") {
            let path = PathBuf::from(path);
            let token = std::fs::read_to_string(&path)
                .map_err(|source| ConfigError::TokenFile { path, source: Arc::new(source) })?;
            config.token = Some(Token::new(token.trim()));
        }
        if let Some(token) = variable("CONSUL_HTTP_TOKEN") {
            config.token = Some(Token::new(token));
        }
        config.datacenter = variable("CONSUL_DATACENTER").map(Into::into);
        config.tls.ca_files = variable("CONSUL_CACERT").map(PathBuf::from).into_iter().collect();
        config.tls.cert_file = variable("CONSUL_CLIENT_CERT").map(PathBuf::from);
        config.tls.key_file = variable("CONSUL_CLIENT_KEY").map(PathBuf::from);
        config.tls.server_name = variable("CONSUL_TLS_SERVER_NAME");
        if switch("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
            config.tls.verify = Verify::Nothing;
        }
        Ok(config)
    }

    /// Adds an agent to ask when those before do not answer.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Sets what gives us our rights.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Option<Token>>) -> Self {
        self.token = token.into();
        self
    }

    /// Sets the datacenter that is asked about.
    #[must_use]
    pub fn with_datacenter(mut self, datacenter: impl Into<Arc<str>>) -> Self {
        self.datacenter = Some(datacenter.into());
        self
    }

    /// Sets how `https` is spoken.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsOptions) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the key of a node's metadata that says where the node stands.
    #[must_use]
    pub fn with_site_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.site_key = key.into();
        self
    }

    /// Says whether the agent may answer reads of the catalog from its own cache.
    #[must_use]
    pub fn with_cached(mut self, cached: bool) -> Self {
        self.cached = cached;
        self
    }

    /// Sets how many requests there may be at a time.
    #[must_use]
    pub fn with_max_requests(mut self, n: usize) -> Self {
        self.max_requests = n;
        self
    }

    /// Sets from which time without word from the leader on answers count as degraded.
    #[must_use]
    pub fn with_max_lag(mut self, lag: Duration) -> Self {
        self.max_lag = lag;
        self
    }

    /// Sets how long connecting may take.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets how long a read may take.
    #[must_use]
    pub fn with_read_timeout(mut self, limit: Duration) -> Self {
        self.read_timeout = limit;
        self
    }

    /// Sets how long a write may take.
    #[must_use]
    pub fn with_write_timeout(mut self, limit: Duration) -> Self {
        self.write_timeout = limit;
        self
    }

    /// Sets how long a watch waits for a change, between 1 s and 10 min.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait.clamp(Duration::from_secs(1), Duration::from_secs(600)));
        self
    }

    /// Sets what finds the addresses of host names.
    #[must_use]
    pub fn with_dns(mut self, dns: Dns) -> Self {
        self.dns = dns;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: vec!["http://127.0.0.1:8500".to_owned()],
            token: None,
            datacenter: None,
            tls: TlsOptions::default(),
            site_key: "site".into(),
            cached: false,
            max_requests: 120,
            max_lag: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(15),
            wait: None,
            dns: Dns::every(Duration::from_secs(30)),
        }
    }
}

/// A secret that gives rights. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// A token of these characters.
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self(secret.into())
    }

    /// The characters.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How `https` is spoken. Files are read again when they change.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Whom to trust: files of PEM certificates. Default: none.
    pub ca_files: Vec<PathBuf>,
    /// Whether the operating system's authorities are trusted as well. Default: if there are no `ca_files`.
    #[cfg(feature = "native-roots")]
    pub system_roots: Option<bool>,
    /// Our own certificate and what must be sent with it, in PEM. Default: none.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate, in PEM (PKCS#8, PKCS#1 or SEC1). Default: none.
    pub key_file: Option<PathBuf>,
    /// The name that the agent's certificate must carry. Default: the host of the address.
    pub server_name: Option<String>,
    /// What is looked at in the agent's certificate. Default: everything.
    pub verify: Verify,
    /// A configuration that is used as it is, whatever else is set here. Default: none.
    pub client: Option<ClientTls>,
}

/// What is looked at in an agent's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Who issued it, for which name, until when.
    #[default]
    Usual,
    /// Nothing: encryption without knowing with whom.
    Nothing,
}

impl TlsOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds authorities to trust.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_files.push(path.into());
        self
    }

    /// Says whether the operating system's authorities are trusted as well.
    #[cfg(feature = "native-roots")]
    #[must_use]
    pub fn with_system_roots(mut self, trust: bool) -> Self {
        self.system_roots = Some(trust);
        self
    }

    /// Sets our own certificate and its key.
    #[must_use]
    pub fn with_certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.cert_file = Some(cert.into());
        self.key_file = Some(key.into());
        self
    }

    /// Sets the name that the agent's certificate must carry.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Sets what is looked at in the agent's certificate.
    #[must_use]
    pub fn with_verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Sets a configuration that is used as it is.
    #[must_use]
    pub fn with_client(mut self, client: ClientTls) -> Self {
        self.client = Some(client);
        self
    }
}

/// Why a [`Config`] is no good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No address is given.
    #[error("no address of consul")]
    NoAddress,
    /// An address is none. Says nothing of one that may have a password in it.
    #[error("{0:?} is not http://HOST:PORT, https://HOST:PORT or unix:///PATH")]
    Address(String),
    /// An address has a user in it: Consul knows tokens only.
    #[error("an address of consul has a user in it")]
    User,
    /// A token that cannot be sent.
    #[error("the token has characters that no header can have")]
    Token,
    /// The file of the token cannot be read.
    #[error("cannot read {path}", path = path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: Arc<std::io::Error>,
    },
    /// A variable that is neither true nor false.
    #[error("{name} is neither true nor false")]
    Switch {
        /// The variable.
        name: &'static str,
    },
    /// There is a certificate without a key, or a key without a certificate.
    #[error("a client certificate needs both its certificate and its key")]
    HalfCertificate,
    /// `https`, but nobody to trust.
    #[error("an https address needs an authority to trust")]
    NoAuthority,
    /// `https`, but no crypto provider was compiled in.
    #[error("an https address needs feature aws-lc-rs or ring, or a configuration of its own")]
    NoProvider,
    /// A file of certificates or keys is no good.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// TLS cannot be configured so.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_is_that_of_consuls_own_tools() {
        let config = from(&[
            ("CONSUL_HTTP_ADDR", "consul.example:8501"),
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
            ("CONSUL_HTTP_TOKEN", "s3cret"),
            ("CONSUL_DATACENTER", "dc2"),
            ("CONSUL_CACERT", "ca.pem"),
        ])
        .unwrap();

        assert_eq!(config.addresses, ["https://consul.example:8501"]);
        assert_eq!(config.tls.verify, Verify::Nothing);
        assert_eq!(config.token.as_ref().map(Token::secret), Some("s3cret"));
        assert_eq!(config.datacenter.as_deref(), Some("dc2"));
        assert_eq!(config.tls.ca_files, [PathBuf::from("ca.pem")]);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(from(&[]).unwrap().addresses, ["http://127.0.0.1:8500"]);
        assert!(matches!(from(&[("CONSUL_HTTP_SSL", "perhaps")]), Err(ConfigError::Switch { .. })));
    }

    #[test]
    fn a_token_may_come_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "abc\n").unwrap();

        let config = from(&[("CONSUL_HTTP_TOKEN_FILE", file.to_str().unwrap())]).unwrap();

        assert_eq!(config.token, Some(Token::new("abc")));
        assert!(matches!(
            from(&[("CONSUL_HTTP_TOKEN_FILE", "/nowhere/token")]),
            Err(ConfigError::TokenFile { .. })
        ));
    }
}
