//! Trust, certificates and keys from files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meshlib::Session;
use meshlib::To;
use meshlib::tls;
use meshlib::tls::ClientTls;
use meshlib::tls::ConnectTls;
use meshlib::tls::Reloading;
use meshlib::tls::TlsError;
use meshlib::tls::TlsPolicy;
use meshlib::tls::pem;
use meshlib::tls::rustls::ClientConfig;
use meshlib::tls::rustls::RootCertStore;
use meshlib::tls::rustls::pki_types::ServerName;

use super::Follow;
use super::Secure;
use crate::config::ConfigError;
use crate::config::TlsOptions;
use crate::config::Verify;

/// Time between two looks at the files.
const EVERY: Duration = Duration::from_secs(5);

pub(super) fn secure(options: &TlsOptions, host: &str) -> Result<Secure, ConfigError> {
    let name = options.server_name.as_deref().unwrap_or(host).to_owned();
    let files = options.ca_files.iter().chain(&options.cert_file).chain(&options.key_file);
    let files: Vec<PathBuf> = files.cloned().collect();
    let options = options.clone();
    let current = Reloading::new(files, move |_| client(&options, &name))?;
    let follower = Arc::clone(&current);
    let follow: Follow = Box::new(move || {
        let current = Arc::clone(&follower);
        Box::pin(async move { current.follow(EVERY).await })
    });
    Ok(Secure { policy: Arc::new(Current(current)), follow: Some(follow) })
}

/// What the files say now.
struct Current(Arc<Reloading<ClientTls, ConfigError>>);

impl TlsPolicy for Current {
    fn connect(&self, _: &To<Session>) -> ConnectTls {
        ConnectTls::Required(ClientTls::clone(&self.0.load()))
    }
}

fn client(options: &TlsOptions, name: &str) -> Result<ClientTls, ConfigError> {
    let provider = tls::provider();
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::from)?;
    let builder = match options.verify {
        Verify::Nothing => {
            let verifier = tls::identity::Unverified::new(Arc::clone(&provider), name);
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        Verify::Usual => builder.with_root_certificates(roots(options)?),
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

fn roots(options: &TlsOptions) -> Result<RootCertStore, ConfigError> {
    let roots = match options.ca_files.as_slice() {
        [] => RootCertStore::empty(),
        files => pem::authorities(files)?,
    };
    #[cfg(feature = "native-roots")]
    let roots = {
        let mut roots = roots;
        if options.system_roots.unwrap_or(options.ca_files.is_empty()) {
            roots.roots.extend(tls::native_roots()?.roots);
        }
        roots
    };
    if roots.is_empty() { Err(ConfigError::NoAuthority) } else { Ok(roots) }
}
