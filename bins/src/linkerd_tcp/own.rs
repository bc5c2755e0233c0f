//! The certificates that endpoints and namerd are shown, as they are in their files now.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use meshlib::tls::rustls::pki_types::CertificateDer;
use meshlib::tls::rustls::pki_types::pem::PemObject;

/// A larger file is no certificate.
const LARGEST: u64 = 1 << 24;

/// Files with certificates. What is in them is read apart from being shown: it may take any time.
#[derive(Debug, Default)]
pub(super) struct Own {
    paths: Vec<PathBuf>,
    leaves: Mutex<Vec<Leaf>>,
}

/// The first certificate of a file.
pub(super) type Leaf = (PathBuf, CertificateDer<'static>);

impl Own {
    /// In these files, which are not read yet.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, leaves: Mutex::default() }
    }

    /// Reads the files. May block.
    pub(super) fn read(&self) {
        let leaves = self.paths.iter().filter_map(|path| Some((path.clone(), leaf(path)?))).collect();
        *self.lock() = leaves;
    }

    /// What was in the files when they were read last.
    pub(super) fn leaves(&self) -> Vec<Leaf> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Leaf>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leaf(path: &Path) -> Option<CertificateDer<'static>> {
    // A pipe would be waited for.
    std::fs::metadata(path).ok().filter(|file| file.is_file() && file.len() < LARGEST)?;
    CertificateDer::pem_file_iter(path).ok()?.next()?.ok()
}
