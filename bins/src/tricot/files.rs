//! What is wrong with files that settings name, in words that name the setting, too.

use std::io;
use std::path::Path;

use meshlib::tls::pem::PemError;
use meshlib_consul::ConfigError;
use rustix::fs::Access;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::accessat;

use super::args::ConsulSettings;
use crate::kit::log;

/// Why Consul's client cannot be made.
pub(super) fn about_consul(settings: &ConsulSettings, error: &ConfigError) -> String {
    let text = log::chain(error);
    let client = settings.client_cert.as_ref();
    if let Some(client) = client.filter(|_| text.contains("KeyMismatch")) {
        return format!(
            "TRICOT_CONSUL_CLIENT_KEY is {}: it is not the key of the certificate in TRICOT_CONSUL_CLIENT_CERT, {}",
            client.key.display(),
            client.cert.display()
        );
    }
    let error = match error {
        ConfigError::Pem(error) => error,
        ConfigError::NoAddress | ConfigError::Address(_) | ConfigError::User => {
            return format!("{} is {}: {text}", settings.address_from, settings.address);
        }
        _ => return text,
    };
    let is = |path: &Path| path == error.path();
    // One file may be both; then the kind of the error tells what is missing in it.
    let is_about_key =
        matches!(error, PemError::Missing { what: "private key", .. } | PemError::ManyKeys { .. });
    let variable = match client {
        _ if settings.ca_cert.as_deref().is_some_and(is) => "TRICOT_CONSUL_CA_CERT",
        Some(client) if is(&client.cert) && !is_about_key => "TRICOT_CONSUL_CLIENT_CERT",
        Some(client) if is(&client.key) => "TRICOT_CONSUL_CLIENT_KEY",
        // The directory of the system's authorities has no variable of ours.
        _ => return text,
    };
    format!("{variable}: {text}")
}

/// Whether a directory, with those above it, could be made and written to.
///
/// # Errors
///
/// Why not. Nothing is made.
pub(super) fn could_make(dir: &Path) -> Result<(), String> {
    for dir in dir.ancestors() {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match dir.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", dir.display())),
            Ok(_) => return could_write_in(dir),
        }
    }
    Ok(())
}

/// Whether a file could be written beside which another one is written first.
///
/// # Errors
///
/// Why not. Nothing is written.
pub(super) fn could_write(file: &Path) -> Result<(), String> {
    if file.is_dir() {
        return Err("it is a directory".into());
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    could_write_in(dir)
}

fn could_write_in(dir: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", dir.display());
    if !dir.metadata().map_err(failed)?.is_dir() {
        return Err(format!("{} is not a directory", dir.display()));
    }
    let access = accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    access.map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_made_is_found_without_making_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (new, below_file) = (dir.path().join("a/b/c"), file.join("a"));

        assert_eq!(could_make(&new), Ok(()));
        assert_eq!(could_make(dir.path()), Ok(()));
        assert!(could_make(&file).unwrap_err().contains("not a directory"));
        assert!(could_make(&below_file).is_err());
        assert_eq!(could_write(&dir.path().join("dump.json")), Ok(()));
        assert_eq!(could_write(&file), Ok(()));
        assert_eq!(could_write(Path::new("dump.json")), Ok(()));
        for wrong in [dir.path(), &new, &below_file] {
            assert!(could_write(wrong).is_err(), "{}", wrong.display());
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
