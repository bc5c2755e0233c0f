//! The balancers of the names that were asked for, of which there is room for so many.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockWriteGuard;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time;
use tokio::time::Instant;

use crate::balance::layer::Options;
use crate::balance::service::Balance;
use crate::error::Error;
use crate::error::Refusal;
use crate::resolve::Resolver;

/// After this long without a request a name is forgotten.
const IDLE: Duration = Duration::from_secs(600);
/// How often names are looked at.
const SWEEP: Duration = Duration::from_secs(60);

/// The balancers by name.
pub(super) struct Table<S, T, K> {
    resolver: Arc<dyn Resolver<T>>,
    most: usize,
    options: Options<K>,
    /// Read per request, written per new name.
    names: RwLock<HashMap<T, Entry<S, K>>>,
    origin: Instant,
    is_swept: AtomicBool,
}

struct Entry<S, K> {
    balance: Balance<S, K>,
    /// When it was last asked for, in ms since the table was made.
    used: AtomicU64,
}

impl<S, K> Entry<S, K> {
    /// What is worth less comes first; nothing for a name with work in flight.
    fn worth(&self) -> Option<(bool, u64)> {
        let shared = self.balance.shared();
        // Relaxed: a time that stands alone.
        (!shared.is_in_use()).then(|| (shared.is_known(), self.used.load(Ordering::Relaxed)))
    }
}

impl<S, T, K> Table<S, T, K> {
    pub(super) fn new(resolver: Arc<dyn Resolver<T>>, most: usize, options: Options<K>) -> Self {
        let (origin, is_swept) = (Instant::now(), AtomicBool::new(false));
        Self { resolver, most: most.max(1), options, names: RwLock::default(), origin, is_swept }
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<T, Entry<S, K>>> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, T, K> Table<S, T, K>
where
    S: Clone + Send + Sync + 'static,
    T: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    K: Clone + Send + Sync + 'static,
{
    /// The balancer of a name, made if it is new. Must be called in a runtime.
    pub(super) fn balance(self: &Arc<Self>, name: T, inner: &S) -> Result<Balance<S, K>, Error> {
        let now = self.now();
        if let Some(entry) = self.names.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            entry.used.store(now, Ordering::Relaxed);
            return Ok(entry.balance.clone());
        }
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        let mut names = self.write();
        if names.len() >= self.most && !names.contains_key(&name) {
            make_room(&mut names);
            if names.len() >= self.most {
                return Err(Error::Refused(Refusal::Limit));
            }
        }
        let entry = names.entry(name).or_insert_with_key(|name| {
            let resolution = self.resolver.resolve(name.clone());
            let balance = Balance::new(name.to_string().into(), resolution, &self.options, inner.clone());
            Entry { balance, used: AtomicU64::new(now) }
        });
        Ok(entry.balance.clone())
    }
}

/// Forgets a tenth of the names, so that a new name costs ten looks at others and not as many as there are.
fn make_room<S, T: Clone + Eq + Hash, K>(names: &mut HashMap<T, Entry<S, K>>) {
    let mut idle: Vec<_> =
        names.iter().filter_map(|(name, entry)| Some((entry.worth()?, name.clone()))).collect();
    idle.sort_unstable_by_key(|(worth, _)| *worth);
    for (_, name) in idle.iter().take(names.len().div_ceil(10)) {
        names.remove(name);
    }
}

/// Ends with the table.
async fn sweep<S, T, K>(table: Weak<Table<S, T, K>>) {
    loop {
        time::sleep(SWEEP).await;
        let Some(table) = table.upgrade() else { return };
        let oldest = table.now().saturating_sub(IDLE.as_millis() as u64);
        table
            .write()
            .retain(|_, entry| entry.used.load(Ordering::Relaxed) >= oldest || entry.worth().is_none());
    }
}
