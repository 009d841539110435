//! Work that nobody waits for: batched "last seen", expiry, retention.

use crate::Engine;
use crate::error::Error;
use bellwether_model::time::DAY;
use bellwether_model::{ApiKeyId, EnrollmentId, EventKind, SiteId, Timestamp};
use bellwether_store::Scope;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Rows per transaction.
const CHUNK: usize = 400;
/// Finished commands are kept for so long.
const KEEP_COMMANDS: i64 = 180 * DAY;
/// Stored answers to idempotency keys.
const KEEP_IDEMPOTENT: i64 = 2 * DAY;
/// Counters of rate limits; the longest window is a day.
const KEEP_RATES: i64 = 2 * DAY;
/// How long a waiting node sleeps at most: NOTIFY may get lost, another node may have queued the work.
const POLL: Duration = Duration::from_secs(1);

impl Engine {
    /// Returns when a wake or a job was requested here, or after a second.
    pub async fn wait_for_work(&self) {
        let _ = tokio::time::timeout(POLL, self.work.notified()).await;
    }

    /// Writes who called since the last time. No row is written on every poll. What the database did not take is kept for
    /// the next time.
    pub async fn flush_last_seen(&self) -> Result<(), Error> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let rows: Vec<_> = seen.iter().map(|((site, id), at)| (*site, *id, *at)).collect();
        if let Err(error) = self.write_seen(&rows).await {
            keep(&self.seen, seen);
            return Err(error);
        }
        let used = std::mem::take(&mut *self.used_keys.lock().unwrap_or_else(PoisonError::into_inner));
        let rows: Vec<_> = used.iter().map(|(id, at)| (*id, *at)).collect();
        if let Err(error) = self.write_used(&rows).await {
            keep(&self.used_keys, used);
            return Err(error);
        }
        Ok(())
    }

    async fn write_seen(&self, rows: &[(SiteId, EnrollmentId, Timestamp)]) -> Result<(), Error> {
        for chunk in rows.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.store
                .write(Scope::System, move |tx| tx.touch_enrollments(&chunk).map_err(Error::from))
                .await?;
        }
        Ok(())
    }

    async fn write_used(&self, rows: &[(ApiKeyId, Timestamp)]) -> Result<(), Error> {
        for chunk in rows.chunks(CHUNK) {
            let chunk = chunk.to_vec();
            self.store
                .write(Scope::System, move |tx| {
                    for (id, at) in &chunk {
                        tx.api_key_touch(*id, *at)?;
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        Ok(())
    }

    /// Renews what ends soon, ends what is past its time and deletes what is past its use.
    pub async fn housekeep_once(&self) -> Result<(), Error> {
        let now = self.now();
        self.renew_due_once().await?;
        loop {
            let limit = CHUNK as i64;
            let expired = self.store.write(Scope::System, move |tx| expire(tx, now, limit)).await?;
            if expired < CHUNK {
                break;
            }
        }
        loop {
            let before = now.plus(-KEEP_COMMANDS);
            let purged = self
                .store
                .write(Scope::System, move |tx| tx.purge_finished(before, CHUNK as i64).map_err(Error::from))
                .await?;
            if purged < CHUNK as i64 {
                break;
            }
        }
        let before = now.plus(-KEEP_IDEMPOTENT);
        self.store.write(Scope::System, move |tx| tx.idempotent_purge(before).map_err(Error::from)).await?;
        // Anybody's address is a row here: without this the table grows with every passer-by.
        let before = now.plus(-KEEP_RATES);
        self.store.write(Scope::System, move |tx| tx.rate_purge(before).map_err(Error::from)).await?;
        // Sessions of PCs that never came back; a living one is written with every message.
        let before = now.plus(-DAY);
        self.store
            .write(Scope::System, move |tx| {
                tx.protocol_states_purge("session:", before, CHUNK as i64).map_err(Error::from)
            })
            .await?;
        self.sweep_packages(now).await?;
        self.sweep_uploads(now).await
    }
}

/// Puts times back that could not be written, unless there are later ones by now.
fn keep<K: Eq + Hash>(map: &Mutex<HashMap<K, Timestamp>>, unwritten: HashMap<K, Timestamp>) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, at) in unwritten {
        let kept = map.entry(key).or_insert(at);
        *kept = (*kept).max(at);
    }
}

fn expire(tx: &mut bellwether_store::Tx<'_>, now: Timestamp, limit: i64) -> Result<usize, Error> {
    let expired = tx.expire_due(now, limit)?;
    for (site, id) in &expired {
        let event = bellwether_store::records::Event {
            // Derived from the command, so that a second run of the closure makes the same row.
            id: bellwether_model::EventId(uuid::Uuid::new_v5(&id.0, b"expired")),
            at: now,
            kind: EventKind::CommandChanged,
            subject: format!("command:{id}"),
            data: serde_json::json!({ "state": "expired" }).to_string(),
            position: None,
        };
        tx.event_append_in(*site, &event)?;
    }
    Ok(expired.len())
}
