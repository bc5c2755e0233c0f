//! Certificates and keys from PEM files.
//!
//! Errors name the file, and for a broken PEM section the line it begins at. Nothing of a key is ever in an error.
//!
//! # Examples
//!
//! A server's certificate, and a client that trusts nobody but the authority of a file:
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use meshlib::tls::{self, CertResolver, ClientTls, pem};
//!
//! let provider = tls::provider();
//! let www = pem::certified_key(&provider, ["chain.pem"], "key.pem")?;
//! let certificates = CertResolver::builder().with_name("www.example.com", www).build();
//!
//! let config = tls::client_config(provider, pem::authorities(["ca.pem"])?)?;
//! let client = ClientTls::new(config.into(), "db.example.com".try_into()?);
//! # let _ = (certificates, client);
//! # Ok(())
//! # }
//! ```

use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::pem::SliceIter;
use rustls::sign::CertifiedKey;

use super::error;

/// Largest file that is read: a bundle of thousands of certificates.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file is no good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// It cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is not PEM.
    #[error("{path}:{line}: not a PEM file: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line of the section that is broken.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It lacks what was looked for.
    #[error("{path} contains no {what}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// It holds several keys, and which one is meant is not known.
    #[error("{path} contains {count} private keys, expected one", path = path.display())]
    ManyKeys {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// The key or the certificate is of a kind that cannot be used, or they do not belong together.
    #[error("{path} cannot be used", path = path.display())]
    Unusable {
        /// The file of the key.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The first certificate, whose key it is, cannot be used.
    #[error("the certificate in {path} cannot be used: {reason}", path = path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// Why, and what to do about it.
        reason: String,
    },
    /// None of the certificates can serve as an authority.
    #[error("{path} contains no certificate that can be an authority", path = path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
}

impl PemError {
    /// The file in question.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Syntax { path, .. }
            | Self::Missing { path, .. }
            | Self::ManyKeys { path, .. }
            | Self::Unusable { path, .. }
            | Self::Certificate { path, .. }
            | Self::NoAuthority { path } => path,
        }
    }
}

/// Every certificate of every file, in order: the chain to send, leaf first.
///
/// # Errors
///
/// A file that cannot be read, is not PEM, or holds no certificate.
pub fn certificates<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut chain = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let text = read(path)?;
        let before = chain.len();
        for (kind, der) in sections(path, &text)? {
            if kind == SectionKind::Certificate {
                chain.push(CertificateDer::from(der));
            }
        }
        if chain.len() == before {
            return Err(PemError::Missing { path: path.to_owned(), what: "certificate" });
        }
    }
    Ok(chain)
}

/// The one private key of a file: PKCS#8, PKCS#1 (RSA) or SEC1 (elliptic curves).
///
/// # Errors
///
/// A file that cannot be read, is not PEM, or holds no key or several.
pub fn private_key(path: impl AsRef<Path>) -> Result<PrivateKeyDer<'static>, PemError> {
    let path = path.as_ref();
    let text = read(path)?;
    let keys =
        sections(path, &text)?.into_iter().filter_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
    let mut keys: Vec<_> = keys.collect();
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (None, _) => Err(PemError::Missing { path: path.to_owned(), what: "private key" }),
        (Some(_), more) => Err(PemError::ManyKeys { path: path.to_owned(), count: more + 1 }),
    }
}

/// A chain and its key, checked to belong together. One file may hold both: what is no certificate is passed over in the
/// one, what is no key in the other.
///
/// # Errors
///
/// As [`certificates`] and [`private_key`], and if the provider cannot use the key, it is not the leaf's, or that is no
/// certificate of X.509 version 3.
pub fn certified_key<P: AsRef<Path>>(
    provider: &CryptoProvider,
    certs: impl IntoIterator<Item = P>,
    key: impl AsRef<Path>,
) -> Result<Arc<CertifiedKey>, PemError> {
    let mut certs = certs.into_iter().peekable();
    let leaf = certs.peek().map(|path| path.as_ref().to_owned());
    let chain = certificates(certs)?;
    let path = key.as_ref();
    let key = private_key(path)?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|source| match (source, leaf) {
        (rustls::Error::InvalidCertificate(why), Some(path)) => {
            PemError::Certificate { path, reason: error::reason(&why) }
        }
        (source, _) => PemError::Unusable { path: path.to_owned(), source },
    })
}

/// The authorities of all files together. Certificates that cannot serve as one are left out with a warning.
///
/// A server that shows one of these very certificates is not believed if it is one that may issue others: it is an
/// authority's and no server's (`CaUsedAsEndEntity`). [`identity::Pinned`](super::identity::Pinned) believes it.
///
/// # Errors
///
/// A file that cannot be read, is not PEM, or holds nothing usable.
pub fn authorities<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for path in paths {
        let path = path.as_ref();
        let (used, left_out) = roots.add_parsable_certificates(certificates([path])?);
        if used == 0 {
            return Err(PemError::NoAuthority { path: path.to_owned() });
        }
        if left_out > 0 {
            tracing::warn!(path = %path.display(), left_out, "some certificates cannot be authorities");
        }
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |source| PemError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    // A device says that it is empty and has no end.
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}

fn sections(path: &Path, text: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, PemError> {
    let mut sections = SliceIter::<(SectionKind, Vec<u8>)>::new(text);
    let mut found = Vec::new();
    loop {
        let rest = sections.remainder();
        match sections.next() {
            None => return Ok(found),
            Some(Ok(section)) => found.push(section),
            Some(Err(error)) => {
                let begin = rest.windows(11).position(|window| window == b"-----BEGIN ").unwrap_or_default();
                let before = &text[..text.len() - rest.len() + begin];
                let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                return Err(PemError::Syntax {
                    path: path.to_owned(),
                    line,
                    reason: reason(&error).to_owned(),
                });
            }
        }
    }
}

/// The reason without a word of what the file holds.
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins with a line that cannot be one",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be understood",
    }
}
