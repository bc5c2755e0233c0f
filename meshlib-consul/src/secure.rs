//! How `https` is spoken, by files that may change.

use std::sync::Arc;

use meshlib::tls::TlsPolicy;

use crate::config::ConfigError;
use crate::config::TlsOptions;

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod files;

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
        #[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
        return files::secure(options, host);
        #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
        {
            let _ = host;
            Err(ConfigError::NoProvider)
        }
    }
}
