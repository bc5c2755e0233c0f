//! Sessions, and locks that they hold.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use meshlib::store::Lock;
use meshlib::store::LockOptions;
use meshlib::store::Loss;
use serde_json::json;
use tokio::time;
use tokio::time::Instant;

use crate::api::SessionId;
use crate::ask::Ask;
use crate::ask::Consistency;
use crate::client::Consul;
use crate::client::failure;
use crate::error::ConsulError;
use crate::kv::PutOptions;
use crate::kv::TxnOp;
use crate::watch::Level;

/// How long nobody gets a lock whose holder has died. Consul applies at most 60 s.
const LOCK_DELAY: &str = "15s";
/// The times to live that Consul allows.
const TTL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(24 * 3600));
/// How long one renewal may take.
const RENEW_WITHIN: Duration = Duration::from_secs(5);
/// How long giving a lock back may take.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);
/// Time between two attempts at a lock whose key nobody holds: Consul keeps it back for a while after its holder died.
const DELAYED: Duration = Duration::from_secs(5);

impl Consul {
    /// Takes the lock of a key, or nothing if somebody holds it. Does not wait.
    ///
    /// The lock is held by a session of its own, which a task renews at a third of its time to live. Consul ends a session
    /// that is not renewed after up to twice that time; then, and when the lock is released, the key is removed, as is
    /// whatever else the session holds. After the death of a holder nobody gets the lock for 15 s more. The time to live is
    /// at least 10 s.
    ///
    /// # Errors
    ///
    /// If Consul cannot be asked, denies it, or the key cannot be one.
    pub async fn try_lock(&self, key: &str, options: &LockOptions) -> Result<Option<Lock>, ConsulError> {
        self.take_lock(key, key, options).await
    }

    /// Takes the lock of a key that its users know by another name.
    pub(crate) async fn take_lock(
        &self,
        key: &str,
        name: &str,
        options: &LockOptions,
    ) -> Result<Option<Lock>, ConsulError> {
        let began = Instant::now();
        let ttl = options.ttl.clamp(TTL.0, TTL.1);
        let session = Session::create(self, key, ttl).await?;
        let put = PutOptions::new().with_acquire(Arc::clone(&session.id));
        let holder = Bytes::from(options.holder.clone());
        if !self.kv_put(key, holder, put).await? {
            session.destroy().await;
            return Ok(None);
        }
        Ok(Some(session.into_lock(key, name, ttl, began)))
    }

    /// Takes the lock of a key, when nobody holds it any more. Waits as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`try_lock`](Self::try_lock), but for failures that pass: those are waited out.
    pub async fn lock(&self, key: &str, options: &LockOptions) -> Result<Lock, ConsulError> {
        let mut holders = self.kv_watch(key)?;
        let mut failures = 0;
        let mut held = false;
        loop {
            match self.try_lock(key, options).await {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => failures = 0,
                Err(error) if error.is_transient() => {
                    tracing::debug!(key, %error, "a lock cannot be asked for");
                    let most = Duration::from_secs(1 << failures.min(4));
                    time::sleep(most.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
            loop {
                match time::timeout(DELAYED, holders.next()).await {
                    Ok(Some(Level { value: Some(pair), .. })) => {
                        held = pair.is_some_and(|pair| pair.session.is_some());
                        if !held {
                            break;
                        }
                    }
                    Ok(_) => {}
                    // Nobody holds it, and still it could not be had.
                    Err(_) if !held => break,
                    Err(_) => {}
                }
            }
        }
    }
}

/// A session that ends when this is dropped, or a while after.
struct Session {
    consul: Consul,
    id: Arc<str>,
    armed: bool,
}

impl Session {
    async fn create(consul: &Consul, key: &str, ttl: Duration) -> Result<Self, ConsulError> {
        // Without checks of the node it dies with its time to live only, on whatever node this runs.
        let body = json!({
            "Name": format!("meshlib/{key}"),
            "TTL": format!("{}s", ttl.as_secs_f64().ceil()),
            "LockDelay": LOCK_DELAY,
            "Behavior": "delete",
            "NodeChecks": [],
        });
        let ask = consul.kv(Ask::put("/v1/session/create", body.to_string()));
        let what = Arc::clone(&ask.what);
        let answer = consul.ask_ok(ask).await?;
        let session = serde_json::from_slice::<SessionId>(&answer.body);
        let id = session.map_err(|error| ConsulError::decode(&what, error))?.id;
        Ok(Self { consul: consul.clone(), id, armed: true })
    }

    async fn destroy(mut self) {
        self.armed = false;
        destroy(&self.consul, &self.id).await;
    }

    fn into_lock(mut self, key: &str, name: &str, ttl: Duration, began: Instant) -> Lock {
        self.armed = false;
        let (consul, id, full) = (self.consul.clone(), Arc::clone(&self.id), key.to_owned());
        let (stop, stopped) = tokio::sync::watch::channel(());
        let lock = Lock::new(name, Arc::clone(&self.id), move || async move {
            drop(stop);
            let release = async {
                // The session would take the key with it, and keep the next holder waiting as if we had died.
                let fence = TxnOp::CheckSession { key: full.clone(), session: Arc::clone(&id) };
                let given_back = consul.txn(&[fence, TxnOp::Delete { key: full.clone() }]).await;
                if let Err(error) = given_back {
                    tracing::debug!(key = full, %error, "a lock was not given back; it ends with its session");
                }
                destroy(&consul, &id).await;
            };
            if time::timeout(RELEASE_WITHIN, release).await.is_err() {
                tracing::debug!(key = full, "a lock was not given back in time; it ends with its session");
            }
        });
        let keep = Keep {
            consul: self.consul.clone(),
            session: Arc::clone(&self.id),
            key: key.into(),
            ttl,
            loss: lock.loss(),
        };
        tokio::spawn(keep.run(began, stopped));
        lock
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.armed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (consul, id) = (self.consul.clone(), Arc::clone(&self.id));
            runtime.spawn(async move { destroy(&consul, &id).await });
        }
    }
}

/// As good as it can be done: a session that is not destroyed ends by itself.
async fn destroy(consul: &Consul, id: &str) {
    let ask = consul.kv(Ask::put("/v1/session/destroy/", Bytes::new()).segment(id)).within(RELEASE_WITHIN);
    if let Err(error) = consul.ask_ok(ask).await {
        tracing::debug!(%error, "a session was not destroyed; it ends by itself");
    }
}

/// What a lock needs as long as it is held.
struct Keep {
    consul: Consul,
    session: Arc<str>,
    key: Arc<str>,
    ttl: Duration,
    loss: Loss,
}

impl Keep {
    /// Ends when the lock is given back or lost.
    async fn run(self, began: Instant, mut stopped: tokio::sync::watch::Receiver<()>) {
        tokio::select! {
            _ = stopped.changed() => return,
            () = self.renew(began) => {}
            () = self.is_taken() => {}
        }
        tracing::warn!(key = %self.key, "a lock of consul is lost");
        self.loss.declare();
        destroy(&self.consul, &self.session).await;
    }

    /// Returns when the session is gone, or may be: it was not renewed for two thirds of its time.
    async fn renew(&self, began: Instant) {
        let mut renewed = began;
        let mut pause = self.ttl / 3;
        loop {
            let until = renewed + self.ttl * 2 / 3;
            time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            let asked = Instant::now();
            if asked >= until {
                return;
            }
            let ask = Ask::put("/v1/session/renew/", Bytes::new()).segment(&self.session);
            let what = Arc::clone(&ask.what);
            let ask = self.consul.kv(ask).within(RENEW_WITHIN.min(until - asked));
            let error = match self.consul.ask(ask).await {
                Ok(answer) if answer.status == 200 => {
                    (renewed, pause) = (asked, self.ttl / 3);
                    continue;
                }
                Ok(answer) if answer.status == 404 => return,
                Ok(answer) => failure(&what, &answer),
                Err(error) => error,
            };
            tracing::debug!(key = %self.key, %error, "a lock was not renewed");
            pause = (self.ttl / 20).min(Duration::from_secs(1));
        }
    }

    /// Returns when the key shows another session than ours.
    async fn is_taken(&self) {
        let Ok(mut watch) = self.consul.kv_watch(&self.key) else { return };
        while let Some(level) = watch.next().await {
            let Some(pair) = level.value else { continue };
            let ours = pair.is_some_and(|pair| pair.session.as_deref() == Some(&*self.session));
            // Any server may have answered, also one that has not heard of us yet.
            if !ours && level.degraded.is_none() && !self.still_ours().await {
                return;
            }
        }
    }

    /// Asks the leader. What it does not answer is left to renewal.
    async fn still_ours(&self) -> bool {
        match self.consul.kv_get(&self.key, Consistency::Leader).await {
            Ok(pair) => pair.is_some_and(|pair| pair.session.as_deref() == Some(&*self.session)),
            Err(_) => true,
        }
    }
}
