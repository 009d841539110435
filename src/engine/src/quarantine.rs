//! The quarantine after a restore (Q14): what waits, and its end.

use crate::error::Error;
use crate::permit::{ServerPermit, may};
use crate::views::SendOptions;
use crate::{Engine, audit};
use bellwether_model::{Actor, CommandId, DeviceId, EventKind, Intent, SiteId, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::{AuditEntry, DeviceFilter, Page, Withheld};
use serde::{Deserialize, Serialize};

/// Rows of one transaction.
const CHUNK: i64 = 200;
/// So many of the commands that wait are shown.
const SHOWN: usize = 100;
/// Why a command waits, in its view.
pub(crate) const NOTE: &str = "quarantine after restore: waits until an admin ends it";

/// What is written down about a quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Words {
    /// When the backup was restored.
    pub(crate) since: Timestamp,
    /// From when its rows are.
    pub(crate) from: Timestamp,
    /// Its file.
    pub(crate) backup: String,
}

/// A quarantine, as admins see it.
#[derive(Clone, Debug)]
pub struct QuarantineView {
    /// When the backup was restored.
    pub since: Timestamp,
    /// From when the data is: what happened between the two is not known here.
    pub from: Timestamp,
    /// The backup's file.
    pub backup: String,
    /// The first of the commands that wait, oldest first.
    pub withheld: Vec<WithheldView>,
    /// How many wait.
    pub total: u64,
}

/// A command that waits.
#[derive(Clone, Debug)]
pub struct WithheldView {
    /// Site.
    pub site: SiteId,
    /// Id.
    pub id: CommandId,
    /// For.
    pub device_id: DeviceId,
    /// Intent kind.
    pub kind: String,
    /// When accepted.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// What becomes of the commands that wait when a quarantine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithheldFate {
    /// They are cancelled.
    Cancel,
    /// They are sent.
    Send,
}

/// How a quarantine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEnded {
    /// Commands that were cancelled.
    pub cancelled: u64,
    /// Commands that go out now.
    pub sent: u64,
    /// Devices that are asked again for what they report.
    pub asked: u64,
}

impl Engine {
    /// The quarantine that the server is in, if any.
    pub async fn quarantine(
        &self,
        _: &ServerPermit<may::ReadDevices>,
    ) -> Result<Option<QuarantineView>, Error> {
        let Some(words) = self.quarantine_words().await? else { return Ok(None) };
        let mut view = QuarantineView {
            since: words.since,
            from: words.from,
            backup: words.backup,
            withheld: Vec::new(),
            total: 0,
        };
        for site in self.sites().await? {
            let mut after = None;
            while let Some(rows) = self.withheld(site, after).await? {
                view.total += rows.len() as u64;
                after = rows.last().map(|row| row.id);
                let room = SHOWN.saturating_sub(view.withheld.len());
                view.withheld.extend(rows.into_iter().take(room).map(|row| WithheldView {
                    site,
                    id: row.id,
                    device_id: row.device_id,
                    kind: row.kind,
                    created_at: row.created_at,
                    created_by: row.created_by,
                }));
            }
        }
        Ok(Some(view))
    }

    /// Ends it: what waits is cancelled or sent, as said, and every device is asked again for what it reports. While
    /// something waits it must be said.
    pub async fn end_quarantine(
        &self,
        permit: &ServerPermit<may::WriteSettings>,
        fate: Option<WithheldFate>,
    ) -> Result<QuarantineEnded, Error> {
        if self.quarantine_words().await?.is_none() {
            return Err(Error::Conflict("the server is not in quarantine".into()));
        }
        let mut ended = QuarantineEnded { cancelled: 0, sent: 0, asked: 0 };
        let sites = self.sites().await?;
        for site in &sites {
            match fate {
                Some(WithheldFate::Cancel) => ended.cancelled += self.cancel_withheld(*site, permit).await?,
                Some(WithheldFate::Send) => ended.sent += self.wake_withheld(*site).await?,
                None if self.withheld(*site, None).await?.is_some() => {
                    return Err(Error::Conflict(
                        "commands wait that destroy or lock; say whether they are to be cancelled or sent"
                            .into(),
                    ));
                }
                None => {}
            }
        }
        let now = self.now();
        let (actor, source) = (permit.actor.clone(), permit.source.clone());
        let details =
            serde_json::json!({ "withheld": fate, "cancelled": ended.cancelled, "sent": ended.sent });
        let entries = sites
            .iter()
            .map(|site| {
                let details = Some(details.clone());
                let entry = audit::entry(
                    now,
                    &actor,
                    EventKind::QuarantineEnded,
                    "server",
                    source.as_deref(),
                    details,
                )?;
                Ok((*site, entry))
            })
            .collect::<Result<Vec<(SiteId, AuditEntry)>, Error>>()?;
        self.store
            .write(Scope::System, move |tx| {
                for (site, entry) in &entries {
                    if tx.quarantine_end(*site)? {
                        tx.audit_append_in(*site, entry)?;
                    }
                }
                Ok::<_, Error>(())
            })
            .await?;
        tracing::warn!(by = %permit.actor, "the quarantine after the restore was ended");
        for site in sites {
            ended.asked += self.ask_again(site, &permit.actor).await?;
        }
        Ok(ended)
    }

    /// Says loudly at a start that the server is in quarantine.
    pub(crate) async fn announce_quarantine(&self) -> Result<(), Error> {
        if let Some(words) = self.quarantine_words().await? {
            tracing::warn!(
                backup = words.backup,
                restored_at = words.since.0,
                data_from = words.from.0,
                "QUARANTINE: this server was restored from a backup. Nothing that wipes, locks, removes or unenrolls is \
                 sent to any device until an administrator ends it: bellwether quarantine show, bellwether quarantine end"
            );
        }
        Ok(())
    }

    async fn quarantine_words(&self) -> Result<Option<Words>, Error> {
        let site = self.default_site;
        let row =
            self.store.read(Scope::Site(site), move |tx| tx.quarantine(site).map_err(Error::from)).await?;
        let damaged = |_| Error::Internal("what stands about the quarantine is damaged".into());
        row.map(|row| serde_json::from_slice(&row).map_err(damaged)).transpose()
    }

    async fn sites(&self) -> Result<Vec<SiteId>, Error> {
        let sites = self.store.read(Scope::System, |tx| tx.sites().map_err(Error::from)).await?;
        Ok(sites.into_iter().map(|site| site.id).collect())
    }

    /// A chunk of what waits; `None` after the last.
    async fn withheld(&self, site: SiteId, after: Option<CommandId>) -> Result<Option<Vec<Withheld>>, Error> {
        let rows = self
            .store
            .read(Scope::Site(site), move |tx| tx.withheld(after, CHUNK).map_err(Error::from))
            .await?;
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }

    async fn cancel_withheld(
        &self,
        site: SiteId,
        permit: &ServerPermit<may::WriteSettings>,
    ) -> Result<u64, Error> {
        let mut count = 0;
        while let Some(rows) = self.withheld(site, None).await? {
            let now = self.now();
            let mut ends = Vec::with_capacity(rows.len());
            for row in rows {
                let target = format!("command:{}", row.id);
                let details = serde_json::json!({ "kind": row.kind, "reason": "quarantine" });
                let source = permit.source.as_deref();
                let kind = EventKind::CommandCancelled;
                let entry = audit::entry(now, &permit.actor, kind, &target, source, Some(details.clone()))?;
                ends.push((row.id, entry, audit::event(now, kind, &target, &details)?));
            }
            count += ends.len() as u64;
            self.store
                .write(Scope::Site(site), move |tx| {
                    for (id, entry, event) in &ends {
                        if tx.command_give_up(
                            *id,
                            now,
                            "cancelled with the end of the quarantine after a restore",
                        )? {
                            tx.audit_append(entry)?;
                            tx.event_append(event)?;
                        }
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        Ok(count)
    }

    /// The devices for which something waits are woken.
    async fn wake_withheld(&self, site: SiteId) -> Result<u64, Error> {
        let (mut count, mut after) = (0, None);
        while let Some(rows) = self.withheld(site, after).await? {
            count += rows.len() as u64;
            after = rows.last().map(|row| row.id);
            let now = self.now();
            self.store
                .write(Scope::Site(site), move |tx| {
                    rows.iter()
                        .try_for_each(|row| tx.wake_request(row.channel_id, now).map(drop))
                        .map_err(Error::from)
                })
                .await?;
        }
        self.work.notify_one();
        Ok(count)
    }

    /// Facts and escrowed secrets that a device reports when asked may be newer than the backup.
    async fn ask_again(&self, site: SiteId, actor: &Actor) -> Result<u64, Error> {
        let mut devices = Vec::new();
        let mut after = None;
        loop {
            let page = Page { after: after.clone(), limit: 500 };
            let rows = self
                .store
                .read(Scope::Site(site), move |tx| {
                    tx.devices(&DeviceFilter::default(), &page).map_err(Error::from)
                })
                .await?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.id.as_bytes().to_vec());
            let active = rows.iter().filter(|(_, enrollment)| {
                enrollment.as_ref().is_some_and(|e| e.state == bellwether_model::EnrollmentState::Active)
            });
            devices.extend(active.map(|(device, _)| device.id));
        }
        if devices.is_empty() {
            return Ok(0);
        }
        let count = devices.len() as u64;
        let intent = Intent::RefreshInventory { kinds: Vec::new() };
        self.make_job(site, actor, None, devices, &intent, &SendOptions::default()).await?;
        Ok(count)
    }
}
