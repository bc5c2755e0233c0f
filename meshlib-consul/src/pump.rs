//! Watches whose latest level is wanted, and no other.

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::watch::Level;
use crate::watch::Watch;

/// Follows a watch by a task among `tasks`, with which it ends. Who is slow sees fewer levels.
pub(crate) fn pump<T>(tasks: &mut JoinSet<()>, mut watch: Watch<T>) -> watch::Receiver<Level<T>>
where
    T: Clone + PartialEq + Send + Sync + 'static,
{
    let (tx, rx) = watch::channel(Level::new(None, None));
    tasks.spawn(async move {
        loop {
            tx.send_replace(watch.next().await);
        }
    });
    rx
}
