//! One admin action on many devices: accepted at once, worked off in chunks.

use crate::commands::{Notes, enqueue, life};
use crate::error::Error;
use crate::idempotency::Idempotency;
use crate::permit::{Caller, Permit, may};
use crate::vault::new_uuid;
use crate::views::{JobView, Listed, SendOptions, next_page};
use crate::{Engine, audit};
use bellwether_model::{Actor, DeviceId, EventKind, Intent, JobId, SiteId};
use bellwether_store::Scope;
use bellwether_store::records::{Job, Page};
use secrecy::ExposeSecret as _;
use serde::Deserialize;

/// Devices in one job.
const MAX_TARGETS: usize = 100_000;
/// Devices of a job that are worked off in one transaction.
const JOB_CHUNK: usize = 100;

impl Engine {
    /// Accepts one action on many devices as a job; its commands are made in chunks.
    pub async fn send_to_many(
        &self,
        caller: &Caller,
        site: SiteId,
        devices: Vec<DeviceId>,
        intent: Intent,
        options: SendOptions,
    ) -> Result<JobView, Error> {
        let permit = self.may_send(caller, site, &intent)?;
        self.make_job(site, &permit.actor, permit.source.as_deref(), devices, &intent, &options).await
    }

    /// The same for one who was asked already.
    pub(crate) async fn make_job(
        &self,
        site: SiteId,
        actor: &Actor,
        source: Option<&str>,
        devices: Vec<DeviceId>,
        intent: &Intent,
        options: &SendOptions,
    ) -> Result<JobView, Error> {
        if devices.is_empty() || devices.len() > MAX_TARGETS {
            return Err(Error::Invalid(format!("a job has 1 to {MAX_TARGETS} devices")));
        }
        if options.user.is_some() {
            return Err(Error::Invalid(
                "a job goes to device channels; name one device to reach its user".into(),
            ));
        }
        let now = self.now();
        let id = JobId(new_uuid(now)?);
        let body = serde_json::json!({
            "intent": intent, "expires_in": life(intent, options)?,
        });
        let sealed = self.vault.seal(site, "job", id.as_bytes(), "intent", body.to_string().as_bytes())?;
        let mut unique = devices;
        unique.sort_unstable();
        unique.dedup();
        let total = unique.len();
        let job = Job {
            id,
            kind: intent.kind().to_owned(),
            intent: sealed,
            targets: unique.iter().flat_map(|d| *d.as_bytes()).collect(),
            done: 0,
            refused: 0,
            created_at: now,
            created_by: actor.to_string(),
            finished_at: None,
        };
        let entry = audit::entry(
            now,
            actor,
            EventKind::JobCreated,
            &format!("job:{id}"),
            source,
            Some(serde_json::json!({ "intent": intent.kind(), "devices": total })),
        )?;
        let answer = serde_json::json!({ "id": id }).to_string();
        let request = format!("{body}\n{unique:?}");
        let key = options.idempotency_key.as_deref();
        let once = Idempotency::new(self, site, actor, key, &request, answer.as_bytes(), now)?;
        let replayed = self
            .store
            .write(Scope::Site(site), move |tx| {
                if let Some(once) = &once
                    && let Some(before) = tx.idempotent_put(&once.row)?
                {
                    return once.replay(before).map(Some);
                }
                tx.job_insert(&job)?;
                tx.audit_append(&entry)?;
                Ok::<_, Error>(None)
            })
            .await?;
        let id = match replayed {
            None => id,
            Some(row) => {
                let stored = self.open_idempotent(site, &row)?;
                stored.get("id").cloned().and_then(|v| serde_json::from_value(v).ok()).unwrap_or(id)
            }
        };
        self.work.notify_one();
        self.job_view(site, id).await
    }

    /// A page of jobs, newest first.
    pub async fn jobs(
        &self,
        permit: &Permit<may::ReadDevices>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<JobView>, Error> {
        let rows = self
            .store
            .read(Scope::Site(permit.site), move |tx| {
                tx.jobs(&Page { after: cursor.clone(), limit }).map_err(Error::from)
            })
            .await?;
        let next = next_page(&rows, limit, |row| row.id.as_bytes());
        Ok(Listed { items: rows.into_iter().map(job_view).collect(), next })
    }

    /// One job.
    pub async fn job(&self, permit: &Permit<may::ReadDevices>, id: JobId) -> Result<JobView, Error> {
        self.job_view(permit.site, id).await
    }

    /// Makes the next chunk of commands of every open job; whether anything is left to do.
    pub async fn run_jobs_once(&self) -> Result<bool, Error> {
        let now = self.now();
        let node = self.node.clone();
        let jobs = self.store.read(Scope::System, |tx| tx.jobs_open(8).map_err(Error::from)).await?;
        if jobs.is_empty() {
            return Ok(false);
        }
        let leased = self
            .store
            .write(Scope::System, move |tx| tx.lease_acquire("jobs", &node, 10_000, now).map_err(Error::from))
            .await?;
        if !leased {
            return Ok(false);
        }
        // Round robin over jobs, so that a large one of one site does not starve the others (Q16).
        let mut all = Ok(());
        for (site, job) in jobs {
            // A job that cannot go on keeps no other from going on.
            all = all.and(self.run_chunk(site, &job).await);
        }
        all?;
        self.work.notify_one();
        Ok(true)
    }

    async fn run_chunk(&self, site: SiteId, job: &Job) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Body {
            intent: Intent,
            expires_in: i64,
        }
        let opened = self.vault.open(site, "job", job.id.as_bytes(), "intent", &job.intent)?;
        let body: Body = serde_json::from_slice(opened.expose_secret())
            .map_err(|_| Error::Internal(format!("the intent of job {} is damaged", job.id)))?;
        let options = SendOptions { expires_in: Some(body.expires_in), ..SendOptions::default() };
        let now = self.now();
        let from = usize::try_from(job.done).unwrap_or_default();
        let total = job.targets.len() / 16;
        let chunk: Vec<DeviceId> = job
            .targets
            .chunks_exact(16)
            .skip(from)
            .take(JOB_CHUNK)
            .filter_map(DeviceId::from_slice)
            .collect();
        let mut refused = job.refused;
        let mut made = Vec::new();
        let actor = Actor::Server(format!("job {}", job.id));
        for device in &chunk {
            let command = async {
                let address = self.address(site, *device, None).await?;
                let owner = &job.created_by;
                let mut command = self.make_command(
                    site,
                    &address,
                    None,
                    &body.intent,
                    &options,
                    &actor,
                    Some(job.id),
                    now,
                )?;
                command.command.created_by.clone_from(owner);
                Ok::<_, Error>((command, *device))
            };
            match command.await {
                Ok((command, device)) => {
                    let notes = Notes::new(now, &actor, None, &command.command, device)?.silent();
                    made.push((command, notes));
                }
                Err(Error::Store(fault)) => return Err(fault.into()),
                Err(reason) => {
                    tracing::info!(job = %job.id, device = %device, %reason, "no command for this device");
                    refused = refused.saturating_add(1);
                }
            }
        }
        let done = from + chunk.len();
        let finished = (done >= total || chunk.is_empty()).then_some(now);
        let (id, expected) = (job.id, job.done);
        let done = i32::try_from(done).unwrap_or(i32::MAX);
        self.store
            .write(Scope::Site(site), move |tx| {
                // Another node may have worked off this chunk in the meantime.
                let current = tx.job(id)?.ok_or(Error::NotFound("job"))?;
                if current.done != expected || current.finished_at.is_some() {
                    return Ok::<_, Error>(());
                }
                for (command, notes) in &made {
                    enqueue(tx, command, notes, now)?;
                }
                Ok(tx.job_progress(id, done, refused, finished)?)
            })
            .await
    }

    async fn job_view(&self, site: SiteId, id: JobId) -> Result<JobView, Error> {
        let row = self
            .store
            .read(Scope::Site(site), move |tx| tx.job(id).map_err(Error::from))
            .await?
            .ok_or(Error::NotFound("job"))?;
        Ok(job_view(row))
    }
}

fn job_view(row: Job) -> JobView {
    JobView {
        id: row.id,
        kind: row.kind,
        total: (row.targets.len() / 16) as i64,
        done: row.done,
        refused: row.refused,
        created_at: row.created_at,
        created_by: row.created_by,
        finished_at: row.finished_at,
    }
}
