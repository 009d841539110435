//! Backups: made beside a running server, kept, tried, and brought back into quarantine (docs/adr/0011).

mod file;
mod folder;
mod restore;
mod verify;

pub use file::Header;
pub use folder::{Drill, Listed};
pub use restore::{RestoreWish, Restored, restore};
pub use verify::{OfflineBackups, Verified};

use crate::error::Error;
use crate::permit::{ServerPermit, may};
use crate::{Engine, audit};
use bellwether_certs::seal::MasterKey;
use bellwether_model::time::{HOUR, MINUTE};
use bellwether_model::{Actor, EventKind, Timestamp};
use bellwether_store::{Scope, Store, backup as rows};
use file::Sealing;
use serde::{Deserialize, Serialize};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

const LEASE: &str = "backup";
const LEASE_MS: i64 = 5 * MINUTE;
/// The lease is prolonged so often while a backup is made.
const PROLONG: Duration = Duration::from_secs(60);
/// A backup that failed is tried again after this long.
const AGAIN: i64 = HOUR;
/// So much must stay free beside the backup, for the database itself.
const RESERVE: u64 = 64 * 1024 * 1024;
/// How backups went; a server setting.
const STATUS: &str = "backup-status";

/// Where backups go and how long they stay.
#[derive(Clone, Debug)]
pub struct BackupSettings {
    /// The folder; made when missing, for its owner only.
    pub folder: PathBuf,
    /// Hours between two backups that nobody asks for; 0: none.
    pub every_hours: u32,
    /// Days after which a backup leaves.
    pub keep_days: u32,
    /// Version of this server.
    pub server: String,
}

/// How backups went, over all processes that share the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// From when the newest is.
    pub last_good: Option<Timestamp>,
    /// Its file.
    pub last_file: Option<String>,
    /// When one last failed.
    pub last_failed: Option<Timestamp>,
    /// Why. Gone with the next that succeeds.
    pub failure: Option<String>,
}

/// A backup that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The file's name.
    pub name: String,
    /// From when the rows are.
    pub at: Timestamp,
    /// Bytes of the file.
    pub bytes: u64,
    /// Tables in it.
    pub tables: u64,
    /// Rows in it.
    pub rows: u64,
}

/// Everything that is known about backups.
#[derive(Clone, Debug)]
pub struct Backups {
    /// The folder.
    pub folder: PathBuf,
    /// Newest first.
    pub files: Vec<Listed>,
    /// How they went.
    pub status: BackupStatus,
    /// The last drill.
    pub drill: Option<Drill>,
}

impl Engine {
    /// Backups go there from now on.
    pub fn set_backups(&self, settings: BackupSettings) {
        *self.backups.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(settings));
    }

    fn backup_settings(&self) -> Result<Arc<BackupSettings>, Error> {
        let settings = self.backups.read().unwrap_or_else(PoisonError::into_inner).clone();
        settings.ok_or_else(|| Error::Conflict("this server has no folder for backups".into()))
    }

    /// Makes a backup now. It goes on when whoever asked goes away.
    pub async fn backup_now(
        self: &Arc<Self>,
        permit: &ServerPermit<may::WriteBackups>,
    ) -> Result<Made, Error> {
        self.backup_by(permit.actor.clone(), permit.source.clone()).await
    }

    /// What is in the folder, and how backups went.
    pub async fn backups(&self, _: &ServerPermit<may::ReadBackups>) -> Result<Backups, Error> {
        self.backups_seen().await
    }

    async fn backups_seen(&self) -> Result<Backups, Error> {
        let settings = self.backup_settings()?;
        let status = self.backup_status().await?;
        let files = folder::list(&settings.folder, self.vault.master())?;
        let drill = folder::last_drill(&settings.folder);
        Ok(Backups { folder: settings.folder.clone(), files, status, drill })
    }

    /// How backups went and how the last drill did, for metrics.
    pub async fn backup_health(&self) -> Result<(BackupStatus, Option<Drill>), Error> {
        let drill = self.backup_settings().ok().and_then(|settings| folder::last_drill(&settings.folder));
        Ok((self.backup_status().await?, drill))
    }

    /// Makes a backup when one is due, and lets old ones go. Another process may have made it.
    pub async fn backup_if_due(self: &Arc<Self>) -> Result<(), Error> {
        let settings = self.backup_settings()?;
        let (now, status) = (self.now(), self.backup_status().await?);
        if settings.every_hours == 0 || !is_due(&status, now, i64::from(settings.every_hours) * HOUR) {
            return Ok(());
        }
        match self.backup_by(Actor::Server("backup".into()), None).await {
            Ok(_) | Err(Error::Conflict(_)) => Ok(()),
            Err(other) => Err(other),
        }
    }

    async fn backup_by(self: &Arc<Self>, actor: Actor, source: Option<String>) -> Result<Made, Error> {
        let engine = Arc::clone(self);
        let work = tokio::spawn(async move { engine.backup_leased(actor, source).await });
        work.await.map_err(|e| Error::Internal(format!("a backup was not finished: {e}")))?
    }

    async fn backup_leased(self: Arc<Self>, actor: Actor, source: Option<String>) -> Result<Made, Error> {
        let settings = self.backup_settings()?;
        let busy = || Error::Conflict("a backup is being made already".into());
        let _alone = self.backing_up.try_lock().map_err(|_| busy())?;
        if !self.backup_lease().await? {
            return Err(busy());
        }
        let (engine, with) = (Arc::clone(&self), Arc::clone(&settings));
        let mut work = tokio::task::spawn_blocking(move || {
            make(&engine.store, engine.vault.master(), &with, &engine.node, || engine.now())
        });
        let made = loop {
            tokio::select! {
                made = &mut work => break made.map_err(|e| Error::Internal(e.to_string())).and_then(|made| made),
                () = tokio::time::sleep(PROLONG) => {
                    // The backup goes on: this process makes no second one meanwhile.
                    if let Err(error) = self.backup_lease().await {
                        tracing::warn!(cause = %error, "the lease for a backup was not prolonged");
                    }
                }
            }
        };
        self.note_backup(&settings, &actor, source.as_deref(), &made).await?;
        let node = self.node.clone();
        self.store
            .write(Scope::System, move |tx| tx.lease_release(LEASE, &node).map_err(Error::from))
            .await?;
        made
    }

    async fn backup_lease(&self) -> Result<bool, Error> {
        let (now, node) = (self.now(), self.node.clone());
        self.store
            .write(Scope::System, move |tx| {
                tx.lease_acquire(LEASE, &node, LEASE_MS, now).map_err(Error::from)
            })
            .await
    }

    /// Status and audit of one backup; then old ones leave.
    async fn note_backup(
        &self,
        settings: &BackupSettings,
        actor: &Actor,
        source: Option<&str>,
        made: &Result<Made, Error>,
    ) -> Result<(), Error> {
        let now = self.now();
        let mut status = self.backup_status().await?;
        let mut entries = Vec::new();
        match made {
            Ok(made) => {
                status = BackupStatus {
                    last_good: Some(made.at),
                    last_file: Some(made.name.clone()),
                    last_failed: status.last_failed,
                    failure: None,
                };
                let details =
                    serde_json::json!({ "bytes": made.bytes, "tables": made.tables, "rows": made.rows });
                let target = format!("backup:{}", made.name);
                entries.push(audit::entry(
                    now,
                    actor,
                    EventKind::BackupMade,
                    &target,
                    source,
                    Some(details),
                )?);
                tracing::info!(file = made.name, bytes = made.bytes, rows = made.rows, "a backup was made");
                match folder::prune(&settings.folder, self.vault.master(), now, settings.keep_days) {
                    Ok(gone) => {
                        for name in gone {
                            let target = format!("backup:{name}");
                            let by = Actor::Server("backup".into());
                            entries.push(audit::entry(
                                now,
                                &by,
                                EventKind::BackupPruned,
                                &target,
                                None,
                                None,
                            )?);
                        }
                    }
                    Err(error) => tracing::error!(cause = %error, "old backups could not be removed"),
                }
            }
            Err(error) => {
                status.last_failed = Some(now);
                status.failure = Some(error.to_string());
                let details = serde_json::json!({ "reason": error.to_string() });
                entries.push(audit::entry(
                    now,
                    actor,
                    EventKind::BackupFailed,
                    "backup",
                    source,
                    Some(details),
                )?);
                tracing::error!(cause = %error, "a backup failed");
            }
        }
        let status = serde_json::to_vec(&status).map_err(|e| Error::Internal(e.to_string()))?;
        let site = self.default_site;
        self.store
            .write(Scope::System, move |tx| {
                tx.server_setting_put(STATUS, &status)?;
                entries.iter().try_for_each(|entry| tx.audit_append_in(site, entry)).map_err(Error::from)
            })
            .await
    }

    async fn backup_status(&self) -> Result<BackupStatus, Error> {
        let row = self.store.read(Scope::System, |tx| tx.server_setting(STATUS).map_err(Error::from)).await?;
        Ok(row.and_then(|row| serde_json::from_slice(&row).ok()).unwrap_or_default())
    }
}

/// Whether the next is due. A time in the future was written before the clock was set back.
fn is_due(status: &BackupStatus, now: Timestamp, every: i64) -> bool {
    let passed = |at: Option<Timestamp>, pause: i64| at.is_none_or(|at| at > now || now.since(at) >= pause);
    passed(status.last_good, every) && (status.failure.is_none() || passed(status.last_failed, AGAIN))
}

/// One backup, from the snapshot to its name. Read back before it gets one.
fn make(
    store: &Store,
    master: &MasterKey,
    settings: &BackupSettings,
    node: &str,
    now: impl Fn() -> Timestamp,
) -> Result<Made, Error> {
    let target = &settings.folder;
    folder::make(target)?;
    folder::sweep(target, node, now());
    let (free, needed) = (rows::free_space(target)?, store.size()?.saturating_add(RESERVE));
    if free < needed {
        return Err(Error::Conflict(format!(
            "{} has {} MB free, and a backup may need {} MB",
            target.display(),
            free >> 20,
            needed >> 20
        )));
    }
    let (part, out) = folder::begin(target, node)?;
    let made = (|| {
        let mut snapshot = store.snapshot()?;
        let at = now();
        let header = Header::new(master, &settings.server, store.backend_name(), snapshot.schema(), at)?;
        let wrong = |e: std::io::Error| folder::failed(&part, &e);
        let mut sealing = Sealing::new(BufWriter::with_capacity(1 << 17, out), master, &header)?;
        let counts = snapshot.write(&mut sealing)?;
        drop(snapshot);
        let mut out = sealing.finish().map_err(wrong)?;
        out.flush().map_err(wrong)?;
        out.get_ref().sync_all().map_err(wrong)?;
        let bytes = out.get_ref().metadata().map_err(wrong)?.len();
        // What cannot be read back is no backup.
        let input = std::fs::File::open(&part).map_err(wrong)?;
        let (_, mut opening) = file::open(BufReader::with_capacity(1 << 17, input), master)?;
        if rows::check(&mut opening)? != counts {
            return Err(Error::Conflict("the backup does not hold what was written to it".into()));
        }
        let path = folder::publish(target, &part, at)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Made { name, at, bytes, tables: counts.len() as u64, rows: counts.values().sum() })
    })();
    if made.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_due_after_its_pause_and_after_the_clock_was_set_back() {
        let at = |hours: i64| Timestamp(hours * HOUR);
        let good = |hours| BackupStatus { last_good: Some(at(hours)), ..BackupStatus::default() };
        assert!(is_due(&BackupStatus::default(), at(5), 24 * HOUR));
        assert!(!is_due(&good(5), at(28), 24 * HOUR) && is_due(&good(5), at(29), 24 * HOUR));
        assert!(is_due(&good(50), at(5), 24 * HOUR), "the clock was set back");
        let failed = BackupStatus { last_failed: Some(at(30)), failure: Some("full".into()), ..good(5) };
        assert!(!is_due(&failed, Timestamp(at(30).0 + MINUTE), 24 * HOUR), "not at once again");
        assert!(is_due(&failed, at(31), 24 * HOUR));
    }
}
