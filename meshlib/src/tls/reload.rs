//! Values made of files, made anew when the files change.

use std::fmt;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time;

/// Most bytes of a file that are compared: what is larger is nothing that is made of keys and certificates.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A value that is made of files and follows their content.
///
/// [`check`](Self::check) compares what is in the files with what was in them; if it differs the value is made anew and
/// swapped in whole. If that fails the old one stays. [`follow`](Self::follow) checks every second. Contents are
/// compared, not times, so that renamed files and swapped links are seen; a set of files that changed again while it was
/// read is read once more, so that a key never meets another generation's certificate.
///
/// # Examples
///
/// ```
/// # async fn example() -> std::io::Result<()> {
/// use std::time::Duration;
/// use meshlib::tls::Reloading;
///
/// let banner = Reloading::new(["banner.txt".into()], |files| std::fs::read_to_string(&files[0]))?;
/// println!("{}", banner.load());
/// banner.follow(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
///
/// A server's certificate, which is the one for every name; a client's is followed in the same way:
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use meshlib::tls::{self, Reloading, Terminate, pem};
///
/// let provider = tls::provider();
/// let certificate = Reloading::new(["chain.pem".into(), "key.pem".into()], {
///     let provider = provider.clone();
///     move |files| pem::certified_key(&provider, [&files[0]], &files[1])
/// })?;
/// let following = Arc::clone(&certificate);
/// tokio::spawn(async move { following.follow(Duration::from_secs(1)).await });
///
/// let policy = Terminate::new(tls::server_config(provider, certificate, Some(tls::tickets()?))?);
/// # let _ = policy;
/// # Ok(())
/// # }
/// ```
///
/// Where names have certificates of their own, [`CertResolver::replace`](super::CertResolver::replace) takes what was made.
pub struct Reloading<T, E> {
    files: Box<[PathBuf]>,
    make: Box<Make<T, E>>,
    value: ArcSwap<T>,
    seen: Mutex<Contents>,
    failure: ArcSwapOption<E>,
}

type Make<T, E> = dyn Fn(&[PathBuf]) -> Result<T, E> + Send + Sync;
/// What was in each file; nothing for one that could not be read.
type Contents = Vec<Option<Vec<u8>>>;

impl<T, E> Reloading<T, E>
where
    T: Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    /// Makes the value for the first time.
    ///
    /// # Errors
    ///
    /// What `make` says.
    pub fn new(
        files: impl IntoIterator<Item = PathBuf>,
        make: impl Fn(&[PathBuf]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, E> {
        let files: Box<[PathBuf]> = files.into_iter().collect();
        let seen = read(&files);
        let value = ArcSwap::from_pointee(make(&files)?);
        let (make, seen, failure) = (Box::new(make), Mutex::new(seen), ArcSwapOption::empty());
        Ok(Arc::new(Self { files, make, value, seen, failure }))
    }

    /// The value now.
    pub fn load(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Why the value is older than what is in the files, as the last look at them has found. `None` if they were good, or
    /// changed on under the look.
    pub fn failure(&self) -> Option<Arc<E>> {
        self.failure.load_full()
    }

    /// Makes the value anew if the files have changed. True if it was. Reads files: not for a request's path.
    ///
    /// # Errors
    ///
    /// What `make` says about the new files, which [`failure`](Self::failure) repeats; the old value stays, and the same
    /// files are not tried again until they change once more.
    pub fn check(&self) -> Result<bool, Arc<E>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = read(&self.files);
        if *seen == now {
            return Ok(false);
        }
        // Writers replace several files one after the other; a handful of looks outlasts that.
        for _ in 0..5 {
            let value = (self.make)(&self.files);
            let after = read(&self.files);
            if after == now {
                *seen = now;
                let value = value.map_err(Arc::new);
                self.failure.store(value.as_ref().err().cloned());
                self.value.store(Arc::new(value?));
                return Ok(true);
            }
            now = after;
        }
        Ok(false)
    }

    /// Checks at an interval, for ever. Failures are logged once per change of the files.
    pub async fn follow(self: &Arc<Self>, interval: Duration) {
        self.follow_or(interval, watch::channel(()).1).await;
    }

    /// Like [`follow`](Self::follow), and checks at once when something is sent, too. What is sent during a check is
    /// followed by another one.
    pub async fn follow_or(self: &Arc<Self>, interval: Duration, mut now: watch::Receiver<()>) {
        loop {
            let told = async {
                if now.changed().await.is_err() {
                    // Nobody is left who could send.
                    std::future::pending::<()>().await;
                }
            };
            // Whether it was the time or somebody makes no difference.
            let _ = time::timeout(interval, told).await;
            let this = Arc::clone(self);
            match tokio::task::spawn_blocking(move || this.check()).await {
                Ok(Ok(true)) => tracing::info!(files = ?self.files, "reloaded"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    let error = crate::error::Chain(&*error);
                    tracing::error!(files = ?self.files, %error, "cannot reload; keeping what was loaded before");
                }
                Err(error) => tracing::error!(files = ?self.files, %error, "reloading failed"),
            }
        }
    }
}

impl<E> ResolvesServerCert for Reloading<Arc<CertifiedKey>, E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.load()))
    }
}

impl<E> ResolvesClientCert for Reloading<Arc<CertifiedKey>, E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.load()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl<T, E> fmt::Debug for Reloading<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(files: &[PathBuf]) -> Contents {
    files.iter().map(|file| read_one(file).ok()).collect()
}

fn read_one(file: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for, a device read without an end.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    std::fs::File::open(file)?.take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such as a link that leads to a device or a pipe by mistake.
    #[test]
    fn what_is_no_file_or_has_no_end_is_not_read() {
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::spawn(move || tx.send(read(&["/dev/zero".into()])));

        let contents = rx.recv_timeout(Duration::from_secs(5)).expect("it is soon done");

        assert_eq!(contents, [None]);
    }

    #[test]
    fn a_bad_change_keeps_the_old_value_and_a_good_one_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let number = Reloading::new([file.clone()], |files| {
            std::fs::read_to_string(&files[0]).unwrap_or_default().parse::<u32>()
        })
        .unwrap();

        assert!(!number.check().unwrap());
        std::fs::write(&file, "x").unwrap();
        assert!(number.check().is_err());
        assert_eq!(*number.load(), 1);
        assert!(!number.check().unwrap(), "the same bad content is not complained about twice");
        assert!(number.failure().is_some(), "it is known for as long as it lasts");
        std::fs::write(&file, "2").unwrap();
        assert!(number.check().unwrap());
        assert_eq!(*number.load(), 2);
        assert_eq!(number.failure(), None);
    }

    /// The file changes under each look that the first check takes, and it gives up; the next one must not have to wait.
    #[tokio::test]
    async fn what_is_sent_during_a_check_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        std::fs::write(&file, "0").unwrap();
        let (now, told) = watch::channel(());
        let (during, made) = (now.clone(), std::sync::atomic::AtomicUsize::new(0));
        let number = Reloading::new([file.clone()], move |files| {
            let n = made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if (1..=5).contains(&n) {
                std::fs::write(&files[0], format!("{n}{n}"))?;
                during.send_replace(());
            }
            std::fs::read_to_string(&files[0])
        })
        .unwrap();
        let follower = Arc::clone(&number);
        let following =
            tokio::spawn(async move { follower.follow_or(Duration::from_secs(3600), told).await });

        std::fs::write(&file, "1").unwrap();
        now.send_replace(());

        let reloaded = async {
            while *number.load() != "55" {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(Duration::from_secs(20), reloaded).await.expect("a second check follows the first");
        following.abort();
    }
}
