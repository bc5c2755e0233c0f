//! What every run needs: the program, a folder, certificates.

use std::io;
use std::path::PathBuf;

use benches::tls::Identity;
use tempfile::TempDir;

/// Lives as long as the run.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The program under test.
    pub(crate) program: PathBuf,
    /// For its configuration and certificates.
    pub(crate) dir: TempDir,
    /// What the program shows to clients, and the backends to the program.
    pub(crate) identity: Identity,
}

impl Setup {
    /// Finds the program and makes certificates.
    pub(crate) fn new(program: PathBuf) -> io::Result<Self> {
        if !program.is_file() {
            let hint = "cargo build --release -p bins --bin linkerd-tcp, or give its path with --program";
            return Err(io::Error::other(format!("there is no {}: {hint}", program.display())));
        }
        let dir = tempfile::tempdir()?;
        let identity = Identity::create(dir.path(), "endure")?;
        Ok(Self { program, dir, identity })
    }
}
