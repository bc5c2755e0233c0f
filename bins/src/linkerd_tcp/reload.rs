//! Loading the configuration again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task;
use tokio::task::JoinHandle;
use tokio::time;

use super::Prepared;

/// How long files may take, such as those of a network that is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a configuration to be loaded again.
#[derive(Clone, Debug)]
pub struct Ask(mpsc::Sender<()>);

impl Ask {
    /// Asks. What is asked for before the last was begun is the same.
    pub fn ask(&self) {
        let _ = self.0.try_send(());
    }
}

/// Where a new configuration comes from, and when it is asked for.
pub struct Reloads {
    source: Option<String>,
    asked: mpsc::Receiver<()>,
    load: Arc<dyn Fn() -> Result<Prepared, String> + Send + Sync>,
    /// One that nobody waits for any more.
    late: Option<JoinHandle<Result<Prepared, String>>>,
}

impl Reloads {
    /// Loads it in this way, which may block, whenever it is asked for. `source` is where it comes from.
    pub fn new(
        source: impl Into<String>,
        load: impl Fn() -> Result<Prepared, String> + Send + Sync + 'static,
    ) -> (Ask, Self) {
        let (ask, asked) = mpsc::channel(1);
        (Ask(ask), Self { source: Some(source.into()), asked, load: Arc::new(load), late: None })
    }

    /// Never.
    pub fn never() -> Self {
        let asked = mpsc::channel(1).1;
        let load = Arc::new(|| Err("there is nothing to load again".into()));
        Self { source: None, asked, load, late: None }
    }

    /// Where it comes from, if it comes from anywhere.
    pub(super) fn source(&self) -> Option<String> {
        self.source.clone()
    }

    /// Waits until it is asked for.
    pub(super) async fn asked(&mut self) {
        if self.asked.recv().await.is_none() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }

    /// Loads it.
    pub(super) async fn load(&mut self) -> Result<Prepared, String> {
        self.late.take_if(|late| late.is_finished());
        if self.late.is_some() {
            return Err("the files of the load before have still not been read".into());
        }
        let load = Arc::clone(&self.load);
        let mut loading = task::spawn_blocking(move || load());
        match time::timeout(PATIENCE, &mut loading).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => Err(format!("loading the configuration failed: {error}")),
            Err(_) => {
                self.late = Some(loading);
                Err(format!("loading the configuration takes longer than {PATIENCE:?}"))
            }
        }
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloads").finish_non_exhaustive()
    }
}
