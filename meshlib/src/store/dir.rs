//! A store in files below a directory, shared by the processes of one machine.
//!
//! ```text
//! state           the last version given out; locked while anything is read or written as a whole
//! values/         a file for each value, in folders by the parts of its key
//! locks/          a file for each lock that is held, locked by the kernel for as long as its holder lives
//! new/            values that are being written; they are renamed into place
//! ```
//!
//! A value's file begins with a line: its version and, if it lives by a lock, that lock's file and token. A lock's file has
//! a line for its token, one for its holder, and one for each value that lives by it.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use futures::stream::BoxStream;
use rustix::fs::FlockOperation;
use rustix::fs::flock;
use tokio::task;
use tokio::time;

use self::value::Owner;
use self::value::Value;
use super::Entry;
use super::KvStore;
use super::Lock;
use super::LockOptions;
use super::Read;
use super::StoreError;
use super::When;

mod key;
mod value;

/// How often a watch looks.
const LOOK: Duration = Duration::from_secs(1);

/// Values in files below a directory. A clone is the same store, and so is another one of the same directory, in this
/// process or in another one of the same machine.
///
/// Values are replaced in whole and are on disk when a write returns. The directory is for its owner alone (mode 0700, and
/// 0600 for files). A lock ends with its process, whatever its time to live; what lives by it ends then, too. A watch looks
/// once a second. It must be a directory of the machine itself: file systems over a network may not know such locks.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("certificates");
/// use meshlib::store::{DirStore, KvStore, Read, When};
///
/// let store = DirStore::open(&path).await?;
/// store.put("a/b", "value".into(), When::Absent).await?;
/// assert_eq!(DirStore::open(&path).await?.get("a/b", Read::Latest).await?.unwrap().value, "value");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DirStore {
    dir: Arc<Dir>,
}

#[derive(Debug)]
struct Dir {
    path: PathBuf,
}

impl DirStore {
    /// Opens a store, and makes its directory if it is not there. What lived by locks of processes that have ended is
    /// removed.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made or used.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = Arc::new(Dir { path: path.into() });
        let store = Self { dir };
        store.blocking(Dir::prepare).await?;
        Ok(store)
    }

    /// Does what blocks outside the runtime's own threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Dir) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let dir = Arc::clone(&self.dir);
        let done = task::spawn_blocking(move || work(&dir)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unreachable(error.into())))
    }

    /// Writes or removes, if the condition holds.
    async fn change(
        &self,
        key: &str,
        when: When<'_>,
        change: impl FnOnce(&Dir, &mut State, &Path, &str) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<bool, StoreError> {
        let path = key::value(key)?;
        let (key, when) = (key.to_owned(), Condition::new(when)?);
        self.blocking(move |dir| {
            let mut state = dir.state(FlockOperation::LockExclusive)?;
            let path = dir.path.join(&path);
            if !dir.holds(&when, &path)? {
                return Ok(false);
            }
            change(dir, &mut state, &path, &key)?;
            Ok(true)
        })
        .await
    }
}

/// A condition without what it borrows.
enum Condition {
    Always,
    Absent,
    Version(u64),
    Held(Owner),
}

impl Condition {
    fn new(when: When<'_>) -> Result<Self, StoreError> {
        Ok(match when {
            When::Always => Self::Always,
            When::Absent => Self::Absent,
            When::Version(version) => Self::Version(version),
            When::Held(lock) => Self::Held(Owner::of(lock)?),
        })
    }
}

/// The file `state`, locked.
struct State {
    file: File,
    version: u64,
}

impl State {
    /// A version that was never given out. It is written down before anything is written with it, so that whoever waits
    /// for changes looks.
    fn next(&mut self) -> Result<u64, StoreError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Should the file be lost, time has gone on.
        let now = u64::try_from(now.as_nanos()).unwrap_or_default();
        self.version = now.max(self.version.saturating_add(1));
        self.file.rewind().map_err(failed)?;
        // Always as long as the last one, so that no digit of it stays, and in one write.
        self.file.write_all(format!("{:020}", self.version).as_bytes()).map_err(failed)?;
        Ok(self.version)
    }
}

impl Dir {
    fn prepare(&self) -> Result<(), StoreError> {
        for folder in
            [self.path.clone(), self.path.join("values"), self.path.join("locks"), self.path.join("new")]
        {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let mut state = self.state(FlockOperation::LockExclusive)?;
        for left in fs::read_dir(self.path.join("new")).map_err(failed)? {
            fs::remove_file(left.map_err(failed)?.path()).map_err(failed)?;
        }
        for lock in fs::read_dir(self.path.join("locks")).map_err(failed)? {
            let path = lock.map_err(failed)?.path();
            let file = private().read(true).write(true).open(&path).map_err(failed)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.bury(&mut state, &path)?;
            }
        }
        Ok(())
    }

    /// Locks the whole, until what is returned is dropped. Held for single reads and writes: no wait is long.
    fn state(&self, how: FlockOperation) -> Result<State, StoreError> {
        let mut options = private();
        let options = options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(self.path.join("state")).map_err(failed)?;
        loop {
            match flock(&file, how) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        let version = read_version(&mut file)?;
        Ok(State { file, version })
    }

    /// The last version given out, without a lock.
    fn version(&self) -> Result<u64, StoreError> {
        read_version(&mut File::open(self.path.join("state")).map_err(failed)?)
    }

    fn holds(&self, condition: &Condition, path: &Path) -> Result<bool, StoreError> {
        Ok(match condition {
            Condition::Always => true,
            Condition::Absent => self.read(path)?.is_none(),
            Condition::Version(version) => self.read(path)?.is_some_and(|value| value.version == *version),
            Condition::Held(owner) => self.is_held(owner)?,
        })
    }

    /// A value; one that lives by a lock only while that is held.
    fn read(&self, path: &Path) -> Result<Option<Value>, StoreError> {
        let Some(value) = Value::read(path)? else { return Ok(None) };
        match &value.owner {
            Some(owner) if !self.is_held(owner)? => Ok(None),
            _ => Ok(Some(value)),
        }
    }

    /// Whether a lock is held by the holder that has this token.
    fn is_held(&self, owner: &Owner) -> Result<bool, StoreError> {
        let path = self.path.join(&owner.file);
        let Some(content) = there(fs::read_to_string(&path))? else { return Ok(false) };
        if content.lines().next() != Some(&owner.token) {
            return Ok(false);
        }
        let file = File::open(&path).map_err(failed)?;
        // Who holds it keeps others from a shared lock, and this one ends with the file.
        Ok(flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    fn write(
        &self,
        state: &mut State,
        path: &Path,
        bytes: &[u8],
        owner: Option<&Owner>,
    ) -> Result<(), StoreError> {
        let version = state.next()?;
        let folder = path.parent().unwrap_or(&self.path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let new = self.path.join("new").join(version.to_string());
        let mut file = private().create_new(true).write(true).open(&new).map_err(failed)?;
        let written = Value::write(&mut file, version, owner, bytes).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| fs::rename(&new, path));
        if placed.is_err() {
            // What is left is removed when the store is next opened.
            let _ = fs::remove_file(&new);
        }
        placed.and_then(|()| File::open(folder)?.sync_all()).map_err(failed)
    }

    fn remove(&self, state: &mut State, path: &Path) -> Result<(), StoreError> {
        state.next()?;
        there(fs::remove_file(path))?;
        Ok(())
    }

    /// Removes a lock that nobody holds, or whose holder asks for it, with what lives by it.
    fn bury(&self, state: &mut State, lock: &Path) -> Result<(), StoreError> {
        let Some(content) = there(fs::read_to_string(lock))? else { return Ok(()) };
        let mut lines = content.lines();
        let token = lines.next().unwrap_or_default();
        for key in lines.skip(1) {
            let Ok(path) = key::value(key) else { continue };
            let path = self.path.join(path);
            let value = Value::read(&path)?;
            if value.and_then(|value| value.owner).is_some_and(|owner| owner.token == token) {
                self.remove(state, &path)?;
            }
        }
        there(fs::remove_file(lock))?;
        Ok(())
    }

    fn take(&self, key: &str, file: &Path, holder: &str) -> Result<Option<(Owner, File)>, StoreError> {
        let mut state = self.state(FlockOperation::LockExclusive)?;
        let path = self.path.join(file);
        if let Some(old) = there(private().read(true).write(true).open(&path))? {
            if flock(&old, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(None);
            }
            tracing::debug!(key, "the holder of a lock has died");
            self.bury(&mut state, &path)?;
        }
        let owner = Owner { file: file.to_owned(), token: state.next()?.to_string() };
        let mut lock = private().create_new(true).write(true).open(&path).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        let holder: String = holder.chars().filter(|c| !c.is_control()).collect();
        write!(lock, "{}\n{holder}\n", owner.token).map_err(failed)?;
        Ok(Some((owner, lock)))
    }

    /// All values whose keys begin with `prefix`, in the order of their keys, and the version they are of.
    fn below(&self, prefix: &str) -> Result<(u64, Vec<Entry>), StoreError> {
        let state = self.state(FlockOperation::LockShared)?;
        let mut found = Vec::new();
        for (key, path) in self.files(prefix)? {
            match self.read(&path) {
                Ok(Some(value)) => found.push(Entry::new(key, value.bytes, value.version)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), error = %crate::error::Chain(&error), "not a value");
                }
            }
        }
        Ok((state.version, found))
    }

    /// The keys that begin with `prefix`, in order, with their files.
    fn files(&self, prefix: &str) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let values = self.path.join("values");
        // Folders above the last part of the prefix are whole parts.
        let (folder, _) = prefix.rsplit_once('/').unwrap_or_default();
        let start = if folder.is_empty() { values } else { values.join(key::folder(folder)?) };
        let mut found = Vec::new();
        let mut folders = vec![(start, folder.to_owned())];
        while let Some((folder, parts)) = folders.pop() {
            let Some(entries) = there(fs::read_dir(&folder))? else { continue };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Some(part) = entry.file_name().to_str().and_then(key::part) else { continue };
                let key = if parts.is_empty() { part.name } else { format!("{parts}/{}", part.name) };
                if !part.is_value {
                    folders.push((entry.path(), key));
                } else if key.starts_with(prefix) {
                    found.push((key, entry.path()));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

impl KvStore for DirStore {
    fn get<'a>(&'a self, key: &'a str, _: Read) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        async move {
            let (path, name) = (key::value(key)?, key.to_owned());
            self.blocking(move |dir| {
                // Whoever looks whether a lock is held seems to hold it for that moment.
                let _state = dir.state(FlockOperation::LockShared)?;
                let value = dir.read(&dir.path.join(path))?;
                Ok(value.map(|value| Entry::new(name, value.bytes, value.version)))
            })
            .await
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Arc<str>>, StoreError>> {
        async move {
            let prefix = prefix.to_owned();
            self.blocking(move |dir| {
                let _state = dir.state(FlockOperation::LockShared)?;
                Ok(dir.files(&prefix)?.into_iter().map(|(key, _)| key.into()).collect())
            })
            .await
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        when: When<'a>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.change(key, when, move |dir, state, path, _| dir.write(state, path, &value, None)).boxed()
    }

    fn put_ephemeral<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        lock: &'a Lock,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let owner = Owner::of(lock)?;
            self.change(key, When::Held(lock), move |dir, state, path, key| {
                // Noted first: a note of a value that is not there does no harm.
                let lock = private().append(true).open(dir.path.join(&owner.file));
                lock.and_then(|mut lock| writeln!(lock, "{key}")).map_err(failed)?;
                dir.write(state, path, &value, Some(&owner))
            })
            .await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, when: When<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.change(key, when, |dir, state, path, _| dir.remove(state, path)).boxed()
    }

    fn watch(&self, prefix: &str) -> BoxStream<'static, Result<Arc<[Entry]>, StoreError>> {
        let (dir, prefix) = (Arc::downgrade(&self.dir), Arc::<str>::from(prefix));
        let all = stream::unfold(Seen::default(), move |mut seen| {
            let (dir, prefix) = (dir.clone(), Arc::clone(&prefix));
            async move {
                loop {
                    if seen.looked {
                        time::sleep(LOOK).await;
                    }
                    seen.looked = true;
                    let store = Self { dir: dir.upgrade()? };
                    match store.look(&prefix, seen.version).await {
                        Ok(None) => {}
                        Ok(Some((version, entries))) => {
                            seen.version = Some(version);
                            if seen.entries.as_deref() != Some(&entries) {
                                let entries: Arc<[Entry]> = entries.into();
                                seen.entries = Some(Arc::clone(&entries));
                                return Some((Ok(entries), seen));
                            }
                        }
                        Err(error) => return Some((Err(error), seen)),
                    }
                }
            }
        });
        all.boxed()
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        options: &'a LockOptions,
    ) -> BoxFuture<'a, Result<Option<Lock>, StoreError>> {
        async move {
            let (file, name, holder) = (key::lock(key)?, key.to_owned(), options.holder.clone());
            let taken = self.blocking(move |dir| dir.take(&name, &file, &holder)).await?;
            let Some((owner, held)) = taken else { return Ok(None) };
            let (store, token) = (self.clone(), owner.token);
            let path = owner.file;
            Ok(Some(Lock::new(key, token, move || async move {
                let buried = store.blocking(move |dir| {
                    let mut state = dir.state(FlockOperation::LockExclusive)?;
                    dir.bury(&mut state, &dir.path.join(path))?;
                    drop(held);
                    Ok(())
                });
                if let Err(error) = buried.await {
                    tracing::warn!(error = %crate::error::Chain(&error), "cannot clear up after a lock");
                }
            })))
        }
        .boxed()
    }
}

/// What a watch has seen last.
#[derive(Default)]
struct Seen {
    looked: bool,
    version: Option<u64>,
    entries: Option<Arc<[Entry]>>,
}

impl DirStore {
    /// What begins with `prefix`, if anything has changed since a version.
    async fn look(
        &self,
        prefix: &Arc<str>,
        since: Option<u64>,
    ) -> Result<Option<(u64, Vec<Entry>)>, StoreError> {
        let prefix = Arc::clone(prefix);
        self.blocking(move |dir| {
            if since.is_some() && since == Some(dir.version()?) {
                return Ok(None);
            }
            dir.below(&prefix).map(Some)
        })
        .await
    }
}

impl fmt::Debug for DirStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirStore").field("path", &self.dir.path).finish()
    }
}

/// How files are made: for their owner alone.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.mode(0o600);
    options
}

/// Nothing for a file that is not there.
fn there<T>(result: io::Result<T>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => StoreError::Denied { what: "access to its files".to_owned() },
        _ => StoreError::Unreachable(error.into()),
    }
}

fn read_version(file: &mut File) -> Result<u64, StoreError> {
    let mut text = String::new();
    file.take(64).read_to_string(&mut text).map_err(failed)?;
    // A file that was cut off counts as none: versions go by the time then.
    Ok(text.trim().parse().unwrap_or_default())
}

#[cfg(test)]
mod tests;
