//! The tamper-evident record: entries, the sealer, reading and verifying.
//!
//! Entries and events are inserted without a position in the transaction of what they record. One sealer at a time
//! (a lease) gives them positions and chains them: `HMAC(site key, previous HMAC | entry)`, and signs the head with
//! Ed25519. Both keys come from the site's key, not from the database, so whoever can write the database cannot
//! recompute the chain.

use crate::Engine;
use crate::error::Error;
use crate::permit::{Permit, may};
use crate::vault::{Vault, new_uuid};
use crate::views::{AuditReport, AuditView, EventView, Listed};
use crate::witness::{Restores, Testimonies, Testimony, Witness};
use bellwether_certs::hash::{ct_eq, hex, hmac_sha256_parts, sha256};
use bellwether_certs::seal::{SigningKey, audit_signing_key, verify_ed25519};
use bellwether_model::{Actor, AuditId, EventId, EventKind, SiteId, Timestamp};
use bellwether_store::records::{AuditEntry, Checkpoint, Event};
use bellwether_store::{Scope, Store};
use secrecy::ExposeSecret as _;
use std::sync::{Arc, PoisonError};

/// Rows sealed in one transaction.
const SEAL_CHUNK: i64 = 200;
const SEALER_LEASE: &str = "sealer";
const SEALER_LEASE_MS: i64 = 10_000;

/// An entry to append in the business transaction. `details` must hold no secret.
pub(crate) fn entry(
    now: Timestamp,
    actor: &Actor,
    kind: EventKind,
    target: &str,
    source: Option<&str>,
    details: Option<serde_json::Value>,
) -> Result<AuditEntry, Error> {
    let details = details.map(|d| d.to_string());
    Ok(AuditEntry {
        id: AuditId(new_uuid(now)?),
        at: now,
        actor: actor.to_string(),
        kind,
        target: target.to_owned(),
        source: source.map(str::to_owned),
        details_digest: sha256(details.as_deref().unwrap_or_default().as_bytes()).to_vec(),
        details,
        position: None,
        chain: None,
    })
}

/// The same entry with details that only the transaction knows. They must hold no secret.
pub(crate) fn with_details(entry: AuditEntry, details: &serde_json::Value) -> AuditEntry {
    let details = details.to_string();
    AuditEntry { details_digest: sha256(details.as_bytes()).to_vec(), details: Some(details), ..entry }
}

/// The details of the entry that a restore writes: from which backup, and how far the sealed chain went in it. The
/// verifier reads them again.
pub(crate) fn restored_details(backup: &str, from: Timestamp, position: i64) -> serde_json::Value {
    serde_json::json!({ "backup": backup, "from": from, "position": position })
}

/// An outbox row to append in the business transaction. `data` must hold no secret.
pub(crate) fn event(
    now: Timestamp,
    kind: EventKind,
    subject: &str,
    data: &serde_json::Value,
) -> Result<Event, Error> {
    Ok(Event {
        id: EventId(new_uuid(now)?),
        at: now,
        kind,
        subject: subject.to_owned(),
        data: data.to_string(),
        position: None,
    })
}

/// The entry's link in the chain: every field, each with its length, after the link before.
fn link(key: &[u8], before: &[u8], position: i64, entry: &AuditEntry) -> Vec<u8> {
    let position = position.to_be_bytes();
    let at = entry.at.0.to_be_bytes();
    let fields: [&[u8]; 8] = [
        entry.id.as_bytes(),
        &position,
        &at,
        entry.actor.as_bytes(),
        entry.kind.as_str().as_bytes(),
        entry.target.as_bytes(),
        entry.source.as_deref().unwrap_or_default().as_bytes(),
        &entry.details_digest,
    ];
    let lengths: Vec<[u8; 8]> = fields.iter().map(|f| (f.len() as u64).to_be_bytes()).collect();
    let mut parts: Vec<&[u8]> = vec![before];
    for (length, field) in lengths.iter().zip(fields) {
        parts.push(length);
        parts.push(field);
    }
    hmac_sha256_parts(key, &parts).to_vec()
}

fn checkpoint_message(site: SiteId, position: i64, chain: &[u8], at: Timestamp) -> Vec<u8> {
    let mut message = b"bellwether audit checkpoint v1".to_vec();
    message.extend_from_slice(site.as_bytes());
    message.extend_from_slice(&position.to_be_bytes());
    message.extend_from_slice(&at.0.to_be_bytes());
    message.extend_from_slice(chain);
    message
}

impl Engine {
    /// Seals what waits, in every site. Does nothing while another node holds the lease.
    pub async fn seal_once(&self) -> Result<(), Error> {
        let (now, node) = (self.now(), self.node.clone());
        let sites = self.store.read(Scope::System, |tx| tx.unsealed_sites().map_err(Error::from)).await?;
        if sites.is_empty() {
            return Ok(());
        }
        let leased = self
            .store
            .write(Scope::System, move |tx| {
                tx.lease_acquire(SEALER_LEASE, &node, SEALER_LEASE_MS, now).map_err(Error::from)
            })
            .await?;
        if !leased {
            return Ok(());
        }
        for site in sites {
            self.seal_site(site).await?;
        }
        Ok(())
    }

    async fn seal_site(&self, site: SiteId) -> Result<(), Error> {
        let keys = ChainKeys::of(&self.vault, site)?;
        loop {
            let (head, entries, event_head, events) = self
                .store
                .read(Scope::Site(site), |tx| {
                    Ok::<_, Error>((
                        tx.audit_head()?,
                        tx.unsealed_audit(SEAL_CHUNK)?,
                        tx.event_head()?,
                        tx.unsealed_events(SEAL_CHUNK)?,
                    ))
                })
                .await?;
            if entries.is_empty() && events.is_empty() {
                return Ok(());
            }
            let (start, mut before) = head.unwrap_or((0, Vec::new()));
            let mut sealed = Vec::with_capacity(entries.len());
            let mut position = start;
            for entry in &entries {
                position += 1;
                before = link(keys.chain.expose_secret(), &before, position, entry);
                sealed.push((entry.id, position, before.clone()));
            }
            let now = self.now();
            let checkpoint = if sealed.is_empty() {
                None
            } else {
                let signature = keys.signer.sign(&checkpoint_message(site, position, &before, now))?;
                Some(Checkpoint { position, chain: before.clone(), at: now, signature: signature.to_vec() })
            };
            let placed: Vec<(EventId, i64)> =
                events.iter().zip(event_head + 1..).map(|(e, position)| (e.id, position)).collect();
            let head = checkpoint.clone();
            let done = self
                .store
                .write(Scope::Site(site), move |tx| {
                    if !sealed.is_empty() && !tx.audit_seal(start, &sealed)? {
                        return Ok::<_, Error>(false);
                    }
                    if let Some(checkpoint) = &checkpoint {
                        tx.checkpoint_insert(checkpoint)?;
                    }
                    if !placed.is_empty() && !tx.event_seal(event_head, &placed)? {
                        // The whole transaction is taken back: another sealer was faster.
                        return Err(Error::Conflict("another node sealed first".into()));
                    }
                    Ok(true)
                })
                .await?;
            if !done {
                return Ok(());
            }
            if let Some(head) = head {
                self.testify(site, &head).await?;
            }
        }
    }

    /// Remembers a head outside of the database. If that fails, the next head says as much and more.
    async fn testify(&self, site: SiteId, head: &Checkpoint) -> Result<(), Error> {
        let Some(witness) = self.witness() else { return Ok(()) };
        let line = Testimony::line(site, head)?;
        let kept = tokio::task::spawn_blocking(move || witness.append(&line)).await;
        if let Err(reason) = kept.unwrap_or_else(|e| Err(e.to_string())) {
            tracing::error!(%site, reason, "the audit's witness could not be told");
        }
        Ok(())
    }

    fn witness(&self) -> Option<Arc<dyn Witness>> {
        self.witness.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps signed heads of the audit there from now on, and compares with them.
    pub fn set_witness(&self, witness: Arc<dyn Witness>) {
        *self.witness.write().unwrap_or_else(PoisonError::into_inner) = Some(witness);
    }

    /// Sealed entries, newest first.
    pub async fn audit(
        &self,
        permit: &Permit<may::ReadAudit>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<AuditView>, Error> {
        let before = cursor.map(|c| position_of(&c)).transpose()?;
        let rows = self
            .store
            .read(Scope::Site(permit.site), move |tx| tx.audit_newest(before, limit).map_err(Error::from))
            .await?;
        let next = (rows.len() as i64 == limit)
            .then(|| rows.last().and_then(|e| e.position).map(|p| p.to_be_bytes().to_vec()))
            .flatten();
        Ok(Listed { items: rows.into_iter().map(audit_view).collect(), next })
    }

    /// Sealed events, oldest first, after a position.
    pub async fn events(
        &self,
        permit: &Permit<may::ReadAudit>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<EventView>, Error> {
        let after = cursor.map(|c| position_of(&c)).transpose()?.unwrap_or(0);
        let rows = self
            .store
            .read(Scope::Site(permit.site), move |tx| tx.events(after, limit).map_err(Error::from))
            .await?;
        // Events have no end: the cursor of the last row is where a reader goes on later.
        let next = rows.last().and_then(|e| e.position).map(|p| p.to_be_bytes().to_vec());
        let items = rows
            .into_iter()
            .map(|e| EventView {
                position: e.position.unwrap_or_default(),
                at: e.at,
                kind: e.kind.to_string(),
                subject: e.subject,
                data: serde_json::from_str(&e.data).unwrap_or_default(),
            })
            .collect();
        Ok(Listed { items, next })
    }

    /// Checks the whole chain of a site.
    pub async fn audit_verify(&self, permit: &Permit<may::ReadAudit>) -> Result<AuditReport, Error> {
        let lines = witnessed(self.witness()).await?;
        verify_site(&self.store, &self.vault, permit.site, &lines).await
    }
}

fn position_of(cursor: &[u8]) -> Result<i64, Error> {
    let bytes = cursor.try_into().map_err(|_| Error::Invalid("this cursor is not one of ours".into()))?;
    Ok(i64::from_be_bytes(bytes))
}

fn audit_view(e: AuditEntry) -> AuditView {
    AuditView {
        position: e.position.unwrap_or_default(),
        at: e.at,
        actor: e.actor,
        kind: e.kind.to_string(),
        target: e.target,
        source: e.source,
        details: e.details.and_then(|d| serde_json::from_str(&d).ok()),
        chain: hex(e.chain.as_deref().unwrap_or_default()),
    }
}

struct ChainKeys {
    chain: secrecy::SecretBox<[u8; 32]>,
    signer: SigningKey,
}

impl ChainKeys {
    fn of(vault: &Vault, site: SiteId) -> Result<Self, Error> {
        let key = vault.site(site)?;
        let signer = audit_signing_key(key.derive("audit-checkpoint").expose_secret())?;
        Ok(Self { chain: key.derive("audit-chain"), signer })
    }
}

/// What a witness has kept; nothing without one.
pub(crate) async fn witnessed(witness: Option<Arc<dyn Witness>>) -> Result<Vec<String>, Error> {
    let Some(witness) = witness else { return Ok(Vec::new()) };
    tokio::task::spawn_blocking(move || witness.lines())
        .await
        .map_err(|e| Error::Internal(format!("reading the witness: {e}")))?
        .map_err(|reason| Error::Conflict(format!("the audit's witness cannot be read: {reason}")))
}

/// Recomputes a site's chain and compares, also with what a witness has kept: names the first row that is wrong.
pub(crate) async fn verify_site(
    store: &Store,
    vault: &Vault,
    site: SiteId,
    witnessed: &[String],
) -> Result<AuditReport, Error> {
    let keys = ChainKeys::of(vault, site)?;
    let public = keys.signer.public();
    let testimonies = Testimonies::read(witnessed, site, &public, |position, chain, at| {
        checkpoint_message(site, position, chain, at)
    });
    // One snapshot says how far to look: what the sealer adds meanwhile has a checkpoint that is not among these.
    let (checkpoints, unsealed, head) = store
        .read(Scope::Site(site), |tx| {
            Ok::<_, Error>((tx.checkpoints()?, tx.unsealed_audit_count()?, tx.audit_head()?))
        })
        .await?;
    let end = head.map_or(0, |(position, _)| position);
    let mut report = AuditReport {
        entries: 0,
        unsealed,
        checkpoints: checkpoints.len() as i64,
        restored: Vec::new(),
        broken: None,
    };
    let (mut restores, mut contradicted) = (Restores::default(), Vec::new());
    let mut waiting = checkpoints.iter().peekable();
    let mut before: Vec<u8> = Vec::new();
    let mut position = 0i64;
    while position < end {
        let (after, most) = (position, SEAL_CHUNK.min(end - position));
        let rows =
            store.read(Scope::Site(site), move |tx| tx.audit(after, most).map_err(Error::from)).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let expected = position + 1;
            if row.position != Some(expected) {
                let found = row.position.unwrap_or_default();
                report.broken = Some(format!(
                    "entry {expected} is missing: the next one is {found} ({} by {})",
                    row.kind, row.actor
                ));
                return Ok(report);
            }
            if let Some(details) = &row.details
                && !ct_eq(&sha256(details.as_bytes()), &row.details_digest)
            {
                report.broken = Some(format!("the details of entry {expected} were changed"));
                return Ok(report);
            }
            let chain = link(keys.chain.expose_secret(), &before, expected, &row);
            if !ct_eq(&chain, row.chain.as_deref().unwrap_or_default()) {
                report.broken =
                    Some(format!("entry {expected} ({} by {}) was changed or moved", row.kind, row.actor));
                return Ok(report);
            }
            if row.kind == EventKind::ServerRestored {
                // The link has just shown that this server wrote it.
                restores.add(expected, row.at, row.details.as_deref());
            }
            contradicted.extend(testimonies.contradicting(expected, &chain));
            position = expected;
            before = chain;
            report.entries += 1;
            while let Some(checkpoint) = waiting.next_if(|c| c.position == position) {
                let message = checkpoint_message(site, position, &before, checkpoint.at);
                if !ct_eq(&checkpoint.chain, &before)
                    || !verify_ed25519(&public, &message, &checkpoint.signature)
                {
                    report.broken = Some(format!("the checkpoint at entry {position} was changed"));
                    return Ok(report);
                }
            }
        }
    }
    report.restored = restores.told();
    // What a witness saw of the time between a backup and its restore is explained; everything else is not.
    if let Some(seen) = contradicted.iter().find(|seen| !restores.explain(seen)) {
        report.broken = Some(format!(
            "entry {} is another one than the witness saw (line {}): what came after it was cut off and written anew",
            seen.position, seen.line
        ));
    } else if let Some(checkpoint) = waiting.next() {
        report.broken = Some(format!(
            "a signed checkpoint covers {} entries, but only {position} are left: the end was cut off",
            checkpoint.position
        ));
    } else if report.entries > 0 && checkpoints.last().map(|c| c.position) != Some(position) {
        report.broken = Some(format!("entry {position} is covered by no signed checkpoint"));
    } else if let Some(seen) = testimonies.after(position).find(|seen| !restores.explain(seen)) {
        report.broken = Some(format!(
            "the witness saw {} entries (line {}), but only {position} are left: the end was cut off",
            seen.position, seen.line
        ));
    } else if let Some(line) = testimonies.bad {
        report.broken = Some(format!("line {line} of the witness was not signed by this server"));
    }
    Ok(report)
}
