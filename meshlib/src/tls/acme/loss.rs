//! A store that has lost what it had, as Consul in memory that was restarted.
//!
//! A store has a mark: a random text, written by the first node that finds none. A node that has known another mark before
//! knows by it that everything was lost, and writes back what it has in memory where there is nothing. While the mark is
//! the same, a key that is not there was deleted by somebody who meant it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream;

use super::Shared;
use super::certificate::Certificate;
use super::record::Announcement;
use crate::error::Chain;
use crate::store::Read;
use crate::store::StoreError;
use crate::store::When;

/// Most certificates that are written back at a time.
const MAX_WRITES: usize = 8;

/// How often a mark is looked for that another node has written: once is enough, unless somebody deletes it just then.
const MARKS: u32 = 3;

/// What a node knows of the store besides certificates.
#[derive(Default)]
pub(super) struct Known {
    /// The mark of the store that the certificates in memory are from. Held while anything is written back.
    mark: tokio::sync::Mutex<Option<Bytes>>,
    account: Mutex<Option<Bytes>>,
}

impl Known {
    /// The account as the store has it, or that it has none.
    pub(super) fn set_account(&self, json: Option<Bytes>) {
        *self.account() = json;
    }

    fn account(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Writes back what the store has lost, if it has lost everything since it was last looked at.
    pub(super) async fn restore(&self) -> Result<(), StoreError> {
        let mut known = self.known.mark.lock().await;
        let mark = self.mark().await?;
        if known.as_ref() == Some(&mark) {
            return Ok(());
        }
        if known.is_some() {
            tracing::warn!("the store has lost what it had; writing back what is in memory");
            self.write_back().await?;
        } else {
            // Who has just started has nothing that this store ever had, and may order nothing for weeks.
            self.learn_account().await?;
        }
        // If anything has failed, the next look finds the mark that is not known again.
        *known = Some(mark);
        Ok(())
    }

    /// The same where the store need not let us write.
    pub(super) async fn restore_if_allowed(&self) -> Result<(), StoreError> {
        match self.restore().await {
            Err(error @ StoreError::Unreachable(_)) => Err(error),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot tell whether the store has lost anything");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Notes which of these certificates were deleted from the store by somebody who meant it: they are served on, but
    /// never written back. `keys` is what the store has, listed after they were loaded.
    pub(super) async fn note_deleted(
        &self,
        certificates: &[Arc<Certificate>],
        keys: &[Arc<str>],
    ) -> Result<(), StoreError> {
        let known = self.known.mark.lock().await;
        let mark = self.store.get(&self.layout.mark(), Read::Latest).await?;
        if known.is_none() || mark.map(|entry| entry.value) != *known {
            return Ok(());
        }
        for certificate in certificates {
            let key = self.layout.certificate(&certificate.name);
            let is_there = keys.binary_search_by(|other| (**other).cmp(&key)).is_ok();
            certificate.is_deleted.store(!is_there, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Remembers the account of the store, if it has one and we know none: who orders nothing does not ask for it.
    pub(super) async fn learn_account(&self) -> Result<(), StoreError> {
        if self.known.account().is_some() {
            return Ok(());
        }
        if let Some(entry) = self.store.get(&self.layout.account(), Read::Latest).await? {
            self.known.set_account(Some(entry.value));
        }
        Ok(())
    }

    /// The mark of the store, which gets one if it has none.
    async fn mark(&self) -> Result<Bytes, StoreError> {
        let key = self.layout.mark();
        for _ in 0..MARKS {
            if let Some(entry) = self.store.get(&key, Read::Latest).await? {
                return Ok(entry.value);
            }
            let mark = Bytes::from(format!("{:032x}", fastrand::u128(..)));
            // If not, another node was quicker.
            if self.store.put(&key, mark.clone(), When::Absent).await? {
                return Ok(mark);
            }
        }
        Err(StoreError::Garbled(format!("{key} is neither there nor can be written").into()))
    }

    async fn write_back(&self) -> Result<(), StoreError> {
        // First, because an order would register another one.
        let account = self.known.account().clone();
        if let Some(json) = account {
            let key = self.layout.account();
            let is_written = self.store.put(&key, json.clone(), When::Absent).await?;
            // Another node may have registered another one by now, whose key belongs there.
            if is_written
                || self.store.get(&key, Read::Latest).await?.is_some_and(|entry| entry.value == json)
            {
                self.keep_account_key(&json).await?;
            }
        }
        let now = self.now();
        let written = AtomicUsize::new(0);
        let lost = self.certs.all().into_iter().filter(|certificate| certificate.not_after > now);
        stream::iter(lost.map(Ok))
            .try_for_each_concurrent(MAX_WRITES, async |certificate| {
                let is_written = self.write_back_one(&certificate).await?;
                written.fetch_add(is_written.into(), Ordering::Relaxed);
                Ok(())
            })
            .await?;
        tracing::info!(certificates = written.into_inner(), "wrote certificates back to the store");
        Ok(())
    }

    /// Writes one back where there is none. False if there is one, or this one was deleted before.
    async fn write_back_one(&self, certificate: &Certificate) -> Result<bool, StoreError> {
        let Some(stored) = certificate.stored().filter(|_| !certificate.is_deleted.load(Ordering::Relaxed))
        else {
            return Ok(false);
        };
        let (key, value) = (self.layout.certificate(&certificate.name), Bytes::from(stored.to_json()));
        let is_written = self.store.put(&key, value.clone(), When::Absent).await?;
        if !is_written {
            // Another node has written the same, or ordered a newer one. Or this one, before it failed half way.
            let entry = self.store.get(&key, Read::Latest).await?;
            if entry.is_none_or(|entry| entry.value != value) {
                return Ok(false);
            }
        }
        let announcement = Announcement::new(certificate).to_json();
        self.store
            .put(&self.layout.announcement(&certificate.name), announcement.into(), When::Absent)
            .await?;
        Ok(is_written)
    }
}

#[cfg(test)]
mod tests;
