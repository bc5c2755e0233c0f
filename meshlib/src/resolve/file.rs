//! A directory with one file per name.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use tokio::time;

use super::Resolution;
use super::ResolveError;
use super::Resolver;
use super::Update;
use crate::endpoint::Endpoint;
use crate::endpoint::Weight;

/// Largest file that is read: 100,000 lines of an IPv6 address with a weight.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Resolves a name to the endpoints listed in the file of that name, and follows the file.
///
/// A line holds `host port` or `host port * weight`, where the host is an address; blank lines and what follows a `#`
/// are ignored. The file is read again every second (see [`Dir::every`]) and an update is sent when its content has
/// changed. A file that is not there is [`Update::NotFound`]; one that cannot be read or understood keeps the last good
/// set.
///
/// # Examples
///
/// ```
/// use meshlib::resolve::{Dir, Resolver};
///
/// let resolution = Dir::new("/etc/endpoints").resolve("web");
/// # drop(resolution);
/// ```
#[derive(Clone, Debug)]
pub struct Dir {
    root: PathBuf,
    interval: Duration,
}

impl Dir {
    /// Reads files in `root` once a second.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), interval: Duration::from_secs(1) }
    }

    /// Sets how often the files are read, at least every 10 ms.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }
}

impl<T: AsRef<str>> Resolver<T> for Dir {
    fn resolve(&self, target: T) -> Resolution {
        let name: Arc<str> = target.as_ref().into();
        // A name is one file of the directory, never a way out of it.
        if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
            return Resolution::new(stream::iter([Err(ResolveError::Name { name })]));
        }
        let file = Watched { path: self.root.join(&*name), name, interval: self.interval, seen: None };
        Resolution::new(stream::unfold(file, |mut file| async move { Some((file.changed().await, file)) }))
    }
}

struct Watched {
    path: PathBuf,
    name: Arc<str>,
    interval: Duration,
    seen: Option<Result<Option<String>, io::ErrorKind>>,
}

impl Watched {
    /// Waits until the file is not what it was.
    async fn changed(&mut self) -> Result<Update, ResolveError> {
        loop {
            if self.seen.is_some() {
                time::sleep(self.interval).await;
            }
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let now = read.map_err(io::Error::other).and_then(|read| read);
            let kind = now.as_ref().map(Clone::clone).map_err(io::Error::kind);
            if self.seen.as_ref() == Some(&kind) {
                continue;
            }
            self.seen = Some(kind);
            return match now {
                Ok(Some(text)) => parse(&text, &self.name),
                Ok(None) => Ok(Update::NotFound),
                Err(error) => Err(ResolveError::unreachable(self.path.display().to_string(), error)),
            };
        }
    }
}

/// The text, or nothing if there is no such file.
fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(path) {
        // A pipe would be waited for, a device read without an end.
        Ok(metadata) if !metadata.is_file() => Err(io::ErrorKind::InvalidInput.into()),
        Ok(metadata) if metadata.len() > MAX_BYTES => Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => std::fs::read_to_string(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str, name: &Arc<str>) -> Result<Update, ResolveError> {
    let lines =
        text.lines().enumerate().map(|(n, line)| (n + 1, line.split('#').next().unwrap_or_default().trim()));
    let mut endpoints = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let endpoint = endpoint(text).ok_or_else(|| ResolveError::Decode {
            name: Arc::clone(name),
            source: Arc::new(BadLine { line, text: text.chars().take(80).collect() }),
        })?;
        endpoints.push(endpoint);
    }
    Ok(Update::endpoints(endpoints))
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let mut words = text.split_whitespace();
    let host: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let weight = match (words.next(), words.next(), words.next()) {
        (None, None, None) => Weight::ONE,
        (Some("*"), Some(weight), None) => Weight::new(weight.parse().ok()?).ok()?,
        _ => return None,
    };
    Some(Endpoint::new(SocketAddr::new(host, port)).with_weight(weight))
}

/// A line of a file that names no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not `host port` or `host port * weight`: {text:?}")]
struct BadLine {
    line: usize,
    text: String,
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn endpoints(update: Option<Result<Update, ResolveError>>) -> Vec<(String, f64)> {
        match update {
            Some(Ok(Update::Endpoints(set))) => {
                set.iter().map(|endpoint| (endpoint.addr.to_string(), endpoint.weight.get())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_followed_from_nothing_to_bad_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web");
        let mut resolution = Dir::new(dir.path()).every(Duration::from_millis(10)).resolve("web");

        assert!(matches!(resolution.next().await, Some(Ok(Update::NotFound))));
        std::fs::write(&file, "127.0.0.1 80 # main\n\n::1 81 * 0.5\n").unwrap();
        assert_eq!(
            endpoints(resolution.next().await),
            [("127.0.0.1:80".to_owned(), 1.0), ("[::1]:81".to_owned(), 0.5)]
        );
        std::fs::write(&file, "127.0.0.1\n").unwrap();
        assert!(matches!(resolution.next().await, Some(Err(ResolveError::Decode { .. }))));
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_name_cannot_leave_the_directory() {
        let mut resolution = Dir::new("/etc").resolve("../etc/passwd");

        assert!(matches!(resolution.next().await, Some(Err(ResolveError::Name { .. }))));
    }
}
