//! How `https` is spoken, by files that may change.

use std::path::PathBuf;
use std::sync::Arc;

use meshlib::Session;
use meshlib::To;
use meshlib::tls::ClientTls;
use meshlib::tls::ConnectTls;
use meshlib::tls::TlsPolicy;

use crate::config::ConfigError;
use crate::config::TlsOptions;

/// The policy of one address, and the task that follows its files.
pub(crate) struct Secure {
    pub(crate) policy: Arc<dyn TlsPolicy>,
    pub(crate) follow: Option<Follow>,
}

/// Reads the files again when they change, for ever.
pub(crate) type Follow = Box<dyn Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

impl Secure {
    /// `host` is the name that the certificate must carry unless another one is set.
    pub(crate) fn new(options: &TlsOptions, host: &str) -> Result<Self, ConfigError> {
        if let Some(client) = &options.client {
            let policy = Arc::new(meshlib::tls::Always::new(client.clone()));
            return Ok(Self { policy, follow: None });
        }
        if options.cert_file.is_some() != options.key_file.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        from_files(options, host)
    }
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn from_files(_: &TlsOptions, _: &str) -> Result<Secure, ConfigError> {
    Err(ConfigError::NoProvider)
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn from_files(options: &TlsOptions, host: &str) -> Result<Secure, ConfigError> {
    use std::time::Duration;

    use meshlib::tls::Reloading;

    let name = options.server_name.as_deref().unwrap_or(host).to_owned();
    let files = options.ca_files.iter().chain(&options.cert_file).chain(&options.key_file);
    let files: Vec<PathBuf> = files.cloned().collect();
    let options = options.clone();
    let current = Reloading::new(files, move |_| client(&options, &name))?;
    let follower = Arc::clone(&current);
    let follow: Follow = Box::new(move || {
        let current = Arc::clone(&follower);
        Box::pin(async move { current.follow(Duration::from_secs(5)).await })
    });
    Ok(Secure { policy: Arc::new(Current(current)), follow: Some(follow) })
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn client(options: &TlsOptions, name: &str) -> Result<ClientTls, ConfigError> {
    use meshlib::tls;
    use meshlib::tls::TlsError;
    use meshlib::tls::pem;
    use meshlib::tls::rustls::ClientConfig;
    use meshlib::tls::rustls::pki_types::ServerName;

    let provider = tls::provider();
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::from)?;
    let builder = match options.verify {
        crate::config::Verify::Nothing => builder
            .dangerous()
            .with_custom_certificate_verifier(tls::identity::Unverified::new(Arc::clone(&provider), name)),
        crate::config::Verify::Usual => builder.with_root_certificates(roots(options)?),
    };
    let config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = pem::certificates([cert])?;
            builder.with_client_auth_cert(chain, pem::private_key(key)?).map_err(TlsError::from)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(ClientTls::new(Arc::new(config), server_name))
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn roots(options: &TlsOptions) -> Result<meshlib::tls::rustls::RootCertStore, ConfigError> {
    let roots = match options.ca_files.as_slice() {
        [] => meshlib::tls::rustls::RootCertStore::empty(),
        files => meshlib::tls::pem::authorities(files)?,
    };
    #[cfg(feature = "native-roots")]
    let roots = {
        let mut roots = roots;
        if options.system_roots.unwrap_or(options.ca_files.is_empty()) {
            roots.roots.extend(meshlib::tls::native_roots()?.roots);
        }
        roots
    };
    if roots.is_empty() { Err(ConfigError::NoAuthority) } else { Ok(roots) }
}

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
struct Current(Arc<meshlib::tls::Reloading<ClientTls, ConfigError>>);

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
impl TlsPolicy for Current {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        ConnectTls::Required(ClientTls::clone(&self.0.load()))
    }
}
