//! Waking devices: one wake per channel after COMMIT, never one per command.

use crate::error::Error;
use crate::ports::{PushIdentity, WakeOutcome, WakeTarget, Waker};
use crate::vault::random_below;
use crate::{Engine, audit};
use bellwether_model::time::{DAY, HOUR, MINUTE, SECOND};
use bellwether_model::{Actor, EventKind, Platform, SiteId, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::{AuditEntry, DueWake, Event, WakeResult};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use tokio::task::JoinSet;

/// Wakes taken up at once; the push service and our own CPU are spared.
const BATCH: i64 = 200;
const AT_ONCE: usize = 32;
/// The push service may keep a wake for so long.
const EXPIRATION: i64 = 7 * DAY;
/// A device that was woken and did not call is woken again after so long: wakes get lost.
const SILENCE: i64 = DAY;
/// Back-off after transient failures.
const RETRIES: [i64; 4] = [30 * SECOND, 2 * MINUTE, 8 * MINUTE, 30 * MINUTE];
/// Back-off after refusals that an operator must mend.
const REJECTED_RETRY: i64 = HOUR;
const LEASE: &str = "wakes";

/// What is to be done about a wake that is due.
enum Prepared {
    /// Send it.
    Ready(Arc<dyn Waker>, Option<Arc<PushIdentity>>, WakeTarget),
    /// An operator must mend something.
    Refused(&'static str),
    /// Nothing is wrong, and nobody is woken: the device calls by itself.
    Quiet(&'static str),
}

/// What a settled wake tells admins.
type Noted = (Event, AuditEntry);

impl Engine {
    /// Sets the push service for a platform.
    pub fn set_waker(&self, platform: Platform, waker: Arc<dyn Waker>) {
        self.wakers.write().unwrap_or_else(PoisonError::into_inner).insert(platform, waker);
    }

    /// Sends the wakes that are due, the longest due first; how many.
    pub async fn wake_once(&self) -> Result<usize, Error> {
        let mut sent = 0;
        loop {
            let batch = self.wake_batch().await?;
            sent += batch;
            if batch < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                return Ok(sent);
            }
        }
    }

    async fn wake_batch(&self) -> Result<usize, Error> {
        let now = self.now();
        let due =
            self.store.read(Scope::System, move |tx| tx.wakes_due(now, BATCH).map_err(Error::from)).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let node = self.node.clone();
        let leased = self
            .store
            .write(Scope::System, move |tx| tx.lease_acquire(LEASE, &node, MINUTE, now).map_err(Error::from))
            .await?;
        if !leased {
            return Ok(0);
        }
        // What was due before the lease was ours may have been another node's, and be done.
        let now = self.now();
        let due =
            self.store.read(Scope::System, move |tx| tx.wakes_due(now, BATCH).map_err(Error::from)).await?;
        let mut identities: HashMap<(SiteId, String), Option<Arc<PushIdentity>>> = HashMap::new();
        let mut running: JoinSet<(DueWake, WakeOutcome)> = JoinSet::new();
        let count = due.len();
        for wake in due {
            let prepared = match self.prepare(&wake, &mut identities).await {
                Err(fault) if !matches!(fault, Error::Store(_)) => {
                    // One damaged row must not keep the whole fleet asleep.
                    tracing::error!(channel = %wake.channel.id, %fault, "a wake could not be prepared");
                    Prepared::Refused(
                        "the server could not open the device's token or the push certificate; its log says why",
                    )
                }
                other => other?,
            };
            match prepared {
                Prepared::Ready(waker, identity, target) => {
                    running.spawn(async move {
                        let outcome = waker.wake(identity.as_deref(), &target).await;
                        (wake, outcome)
                    });
                }
                Prepared::Refused(note) => {
                    self.settle(&wake, WakeOutcome::Rejected { note: note.into() }).await?;
                }
                Prepared::Quiet(note) => self.settle_quietly(&wake, note).await?,
            }
            if running.len() >= AT_ONCE
                && let Some(Ok((wake, outcome))) = running.join_next().await
            {
                self.settle(&wake, outcome).await?;
            }
        }
        while let Some(done) = running.join_next().await {
            if let Ok((wake, outcome)) = done {
                self.settle(&wake, outcome).await?;
            }
        }
        Ok(count)
    }

    async fn prepare(
        &self,
        wake: &DueWake,
        identities: &mut HashMap<(SiteId, String), Option<Arc<PushIdentity>>>,
    ) -> Result<Prepared, Error> {
        if wake.test_only {
            // An old row: test-only enrollments are not asked to be woken.
            return Ok(Prepared::Quiet("a test-only enrollment is never woken; it calls by itself"));
        }
        let waker = self.wakers.read().unwrap_or_else(PoisonError::into_inner).get(&wake.platform).cloned();
        if wake.platform == Platform::Windows {
            return self.prepare_windows(wake, waker);
        }
        let Some(waker) = waker else {
            return Ok(Prepared::Refused("this server has no push service for the platform"));
        };
        let Some(topic) = wake.topic.clone() else {
            return Ok(Prepared::Refused("the enrollment has no topic"));
        };
        let key = (wake.site_id, topic);
        if !identities.contains_key(&key) {
            let opened = self.push_identity(wake.site_id, &key.1).await?.map(Arc::new);
            identities.insert(key.clone(), opened);
        }
        let Some(identity) = identities.get(&key).cloned().flatten() else {
            return Ok(Prepared::Refused("no push certificate for the enrollment's topic"));
        };
        let (Some(token), Some(magic)) = (&wake.channel.push_token, &wake.channel.push_magic) else {
            return Ok(Prepared::Refused("the device has sent no push token"));
        };
        let token = self.open_field(wake, "push-token", token)?;
        let magic = self.open_field(wake, "push-magic", magic)?;
        let magic = SecretString::from(String::from_utf8_lossy(magic.expose_secret()).into_owned());
        let target = WakeTarget { token, magic: Some(magic), expires_at: self.now().plus(EXPIRATION) };
        Ok(Prepared::Ready(waker, Some(identity), target))
    }

    /// WNS is optional, for the server and for each PC: without it a PC calls on its schedule, and nobody need be
    /// alarmed (spec/windows.md 3.12).
    fn prepare_windows(&self, wake: &DueWake, waker: Option<Arc<dyn Waker>>) -> Result<Prepared, Error> {
        let Some(waker) = waker else {
            return Ok(Prepared::Quiet(
                "no push service for Windows is configured; the PC calls on its schedule",
            ));
        };
        let Some(channel_uri) = &wake.channel.push_token else {
            return Ok(Prepared::Quiet("the PC has no push channel; it calls on its schedule"));
        };
        let token = self.open_field(wake, "push-token", channel_uri)?;
        let target = WakeTarget { token, magic: None, expires_at: self.now().plus(EXPIRATION) };
        Ok(Prepared::Ready(waker, None, target))
    }

    fn open_field(&self, wake: &DueWake, field: &str, sealed: &[u8]) -> Result<SecretBox<Vec<u8>>, Error> {
        let channel = &wake.channel;
        let place = format!("{}/{}/{}", channel.enrollment_id, channel.kind, channel.user_key);
        self.vault.open(wake.site_id, "channel", place.as_bytes(), field, sealed)
    }

    async fn settle_quietly(&self, wake: &DueWake, note: &str) -> Result<(), Error> {
        let note = Some(note.to_owned());
        let result = WakeResult { next_due: None, attempts: 0, woken_at: None, note, dead: false };
        self.conclude(wake, result, None).await
    }

    async fn settle(&self, wake: &DueWake, outcome: WakeOutcome) -> Result<(), Error> {
        let now = self.now();
        let attempts = wake.channel.wake_attempts.saturating_add(1);
        let result = result_of(&outcome, attempts, now)?;
        let subject = format!("enrollment:{}", wake.channel.enrollment_id);
        let kind = match &outcome {
            WakeOutcome::Dead { .. } => Some(EventKind::PushTokenDead),
            WakeOutcome::Rejected { .. } => Some(EventKind::PushRejected),
            _ => None,
        };
        let noted = match kind {
            Some(kind) => {
                let data = serde_json::json!({ "note": result.note, "topic": wake.topic });
                Some((
                    audit::event(now, kind, &subject, &data)?,
                    audit::entry(now, &Actor::Server("push".into()), kind, &subject, None, Some(data))?,
                ))
            }
            None => None,
        };
        self.conclude(wake, result, noted).await
    }

    /// Writes what came of a wake, unless the device was faster.
    async fn conclude(&self, wake: &DueWake, result: WakeResult, noted: Option<Noted>) -> Result<(), Error> {
        let now = self.now();
        let before = wake.channel.clone();
        // An expired certificate refuses the whole fleet: one alarm per topic and day, not one per device and retry.
        // Where there is no topic the words tell the causes apart: one PC with a strange channel must not hide that
        // the server's secret has expired.
        let cause = wake.topic.as_deref().or(result.note.as_deref()).unwrap_or_default();
        let alarm = format!("push-rejected:{cause}");
        self.store
            .write(Scope::Site(wake.site_id), move |tx| {
                let mut result = result.clone();
                let Some(current) = tx.channel(before.id)? else { return Ok(()) };
                let renewed = current.push_token != before.push_token;
                if renewed {
                    // It was the old token that is dead; the device has sent another one in the meantime.
                    result.dead = false;
                }
                if renewed
                    || current.wake_due_at != before.wake_due_at
                    || current.wake_attempts != before.wake_attempts
                {
                    // The device called while the push service was still answering. What was asked for after that is
                    // a wake of its own.
                    result.next_due = current.wake_due_at;
                    result.attempts = current.wake_attempts;
                }
                tx.wake_result(before.id, &result)?;
                if let Some((event, entry)) = &noted
                    && (entry.kind != EventKind::PushRejected || tx.rate_bump(&alarm, now, DAY)? == 1)
                {
                    tx.event_append(event)?;
                    tx.audit_append(entry)?;
                }
                Ok(())
            })
            .await
    }
}

/// When to wake again, by what the push service said.
fn result_of(outcome: &WakeOutcome, attempts: i32, now: Timestamp) -> Result<WakeResult, Error> {
    let step = usize::try_from(attempts - 1).unwrap_or_default().min(RETRIES.len() - 1);
    let retry = RETRIES.get(step).copied().unwrap_or(30 * MINUTE);
    let (pause, woken, note, dead) = match outcome {
        WakeOutcome::Sent => (Some(SILENCE), Some(now), "accepted by the push service".to_owned(), false),
        WakeOutcome::Transient { retry_after, note } => {
            (Some(retry_after.unwrap_or(retry).clamp(SECOND, DAY)), None, note.clone(), false)
        }
        WakeOutcome::Rejected { note } => (Some(REJECTED_RETRY), None, note.clone(), false),
        WakeOutcome::Dead { note } => (None, None, note.clone(), true),
    };
    let next_due = match pause {
        Some(pause) => Some(now.plus(jittered(pause)?)),
        None => None,
    };
    Ok(WakeResult { next_due, attempts, woken_at: woken, note: Some(note), dead })
}

/// Plus or minus a fifth, so that a fleet does not come back in one moment.
fn jittered(pause: i64) -> Result<i64, Error> {
    let spread = u32::try_from(pause / 5 * 2).unwrap_or(u32::MAX);
    Ok(pause - pause / 5 + i64::from(random_below(spread.max(1))?))
}

#[cfg(test)]
mod tests;
