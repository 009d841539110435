//! The admin's road: an intent in, a durable command, a wake.

use crate::error::Error;
use crate::idempotency::Idempotency;
use crate::permit::{Caller, Permit, may};
use crate::quarantine;
use crate::vault::{new_uuid, random_below};
use crate::views::{CommandDetail, CommandView, Listed, PartView, SendOptions, next_page};
use crate::windows::applied::{self, Setting};
use crate::{Engine, audit};
use crate::{apple, uploads, windows};
use bellwether_model::quarantine::kind_waits_in_quarantine;
use bellwether_model::time::{DAY, HOUR, MINUTE};
use bellwether_model::{
    Actor, ChannelKind, CommandId, CommandState, DeviceId, EnrollmentId, EnrollmentState, EventKind, Intent,
    JobId, Lane, PartId, Platform, SiteId, Timestamp,
};
use bellwether_store::records::{
    AuditEntry, Cancelled, Channel, Command, CommandFilter, Device, Enrollment, Event, Inserted, NewCommand,
    Page,
};
use bellwether_store::{Scope, Tx};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

pub(crate) const RECOVERY_LOCK: &str = "recovery-lock";

const DEFAULT_LIFE: i64 = 30 * DAY;
const INVENTORY_LIFE: i64 = 7 * DAY;
const MIN_LIFE: i64 = 5 * MINUTE;
const MAX_LIFE: i64 = 365 * DAY;
/// Between two wakes of a device that has not called in the meantime.
const WAKE_PAUSE: i64 = 20 * 1000;

/// What is sealed with a command: its intent (or none: the job has it) and the secrets made for it.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredIntent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl Drop for StoredIntent {
    fn drop(&mut self) {
        self.pin.zeroize();
        self.password.zeroize();
    }
}

/// A command that is ready for its transaction.
pub(crate) struct Made {
    pub command: NewCommand,
    /// Parts that need not be sent to a PC that has what they set.
    settings: Vec<(PartId, Setting)>,
}

/// Where a command goes.
pub(crate) struct Address {
    device: Device,
    enrollment: Enrollment,
    channel: Channel,
}

impl Engine {
    /// Accepts a command for one device. When this returns, it is durable (Q1).
    pub async fn send_command(
        &self,
        caller: &Caller,
        site: SiteId,
        device: DeviceId,
        intent: Intent,
        options: SendOptions,
    ) -> Result<CommandView, Error> {
        let permit = self.may_send(caller, site, &intent)?;
        let now = self.now();
        let address = self.address(site, device, options.user.as_deref()).await?;
        let request =
            format!("{device}\n{}\n{options:?}", serde_json::to_string(&intent).unwrap_or_default());
        let made =
            self.make_command(site, &address, Some(&intent), &intent, &options, &permit.actor, None, now)?;
        let answer = serde_json::json!({ "id": made.command.id }).to_string();
        let key = options.idempotency_key.as_deref();
        let once = Idempotency::new(self, site, &permit.actor, key, &request, answer.as_bytes(), now)?;
        let notes = Notes::new(now, &permit.actor, permit.source.as_deref(), &made.command, device)?;
        let id = made.command.id;
        enum Done {
            New(CommandId),
            Replayed(bellwether_store::records::Idempotent),
        }
        let done = self
            .store
            .write(Scope::Site(site), move |tx| {
                if let Some(once) = &once
                    && let Some(before) = tx.idempotent_put(&once.row)?
                {
                    return once.replay(before).map(Done::Replayed);
                }
                Ok::<_, Error>(Done::New(enqueue(tx, &made, &notes, now)?))
            })
            .await?;
        let id = match done {
            Done::New(actual) => actual,
            Done::Replayed(row) => {
                let stored = self.open_idempotent(site, &row)?;
                stored.get("id").cloned().and_then(|v| serde_json::from_value(v).ok()).unwrap_or(id)
            }
        };
        self.work.notify_one();
        self.command_view(site, id).await
    }

    /// A page of commands, newest first.
    pub async fn commands(
        &self,
        permit: &Permit<may::ReadDevices>,
        device: Option<DeviceId>,
        state: Option<CommandState>,
        job: Option<JobId>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<CommandView>, Error> {
        let filter = CommandFilter { device_id: device, state, job_id: job };
        let site = permit.site;
        let (rows, quarantine) = self
            .store
            .read(Scope::Site(site), move |tx| {
                let rows = tx.commands(&filter, &Page { after: cursor.clone(), limit })?;
                Ok::<_, Error>((rows, tx.quarantine(site)?.is_some()))
            })
            .await?;
        let next = next_page(&rows, limit, |row| row.id.as_bytes());
        Ok(Listed { items: rows.into_iter().map(|row| view(row, quarantine)).collect(), next })
    }

    /// One command with its parts.
    pub async fn command(
        &self,
        permit: &Permit<may::ReadDevices>,
        id: CommandId,
    ) -> Result<CommandDetail, Error> {
        let site = permit.site;
        let (command, parts, upload, quarantine) = self
            .store
            .read(Scope::Site(site), move |tx| {
                let command = tx.command(id)?.ok_or(Error::NotFound("command"))?;
                let quarantine = tx.quarantine(site)?.is_some();
                Ok::<_, Error>((command, tx.parts(id)?, tx.upload_of_command(id)?, quarantine))
            })
            .await?;
        let parts = parts
            .into_iter()
            .map(|p| PartView {
                id: p.id,
                request: p.request,
                state: p.state,
                sends: p.sends,
                not_now: p.not_now,
                error: p.error.and_then(|e| serde_json::from_str(&e).ok()),
                finished_at: p.finished_at,
            })
            .collect();
        Ok(CommandDetail {
            command: view(command, quarantine),
            parts,
            upload: upload.and_then(uploads::view),
        })
    }

    /// Takes a command back. It wins only if the command was not sent (Q12).
    pub async fn cancel_command(
        &self,
        permit: &Permit<may::SendCommands>,
        id: CommandId,
    ) -> Result<CommandView, Error> {
        let now = self.now();
        let target = format!("command:{id}");
        let source = permit.source.as_deref();
        let entry = audit::entry(now, &permit.actor, EventKind::CommandCancelled, &target, source, None)?;
        let event = audit::event(now, EventKind::CommandCancelled, &target, &serde_json::json!({}))?;
        let done = self
            .store
            .write(Scope::Site(permit.site), move |tx| {
                let done = tx.command_cancel(id, now)?;
                if done == Cancelled::Done {
                    tx.audit_append(&entry)?;
                    tx.event_append(&event)?;
                }
                Ok::<_, Error>(done)
            })
            .await?;
        match done {
            Cancelled::Done => self.command_view(permit.site, id).await,
            Cancelled::AlreadySent(state) => Err(Error::Conflict(format!(
                "the device has this command already ({state}); it can no longer be taken back"
            ))),
            Cancelled::AlreadyOver(state) => Err(Error::Conflict(format!("the command is over ({state})"))),
            Cancelled::NotFound => Err(Error::NotFound("command")),
        }
    }

    /// Sends a finished command again, as a new command with the same intent to the device's living enrollment.
    pub async fn retry_command(
        &self,
        caller: &Caller,
        site: SiteId,
        id: CommandId,
    ) -> Result<CommandView, Error> {
        // The intent is a secret; whoever may not send it must not learn what it was.
        let (row, channel) = self
            .store
            .read(Scope::Site(site), move |tx| {
                let row = tx.command(id)?.ok_or(Error::NotFound("command"))?;
                let channel = tx.channel(row.channel_id)?.ok_or(Error::NotFound("channel"))?;
                Ok::<_, Error>((row, channel))
            })
            .await?;
        let permit = caller.permit::<may::SendCommands>(site)?;
        if !row.state.is_terminal() {
            return Err(Error::Conflict(format!("the command is {}; it needs no retry", row.state)));
        }
        let (_, intent) = self.open_intent(site, &row).await?;
        let entry = audit::entry(
            self.now(),
            &permit.actor,
            EventKind::CommandRetried,
            &format!("command:{id}"),
            permit.source.as_deref(),
            None,
        )?;
        // A user's command stays with that user.
        let user = (channel.kind == ChannelKind::User).then_some(channel.user_key);
        let options = SendOptions { user, ..SendOptions::default() };
        let sent = self.send_command(caller, site, row.device_id, intent, options).await?;
        self.store.write(Scope::Site(site), move |tx| tx.audit_append(&entry).map_err(Error::from)).await?;
        Ok(sent)
    }

    /// Queues an intent of the server's own for an enrollment's device channel.
    pub(crate) async fn queue_for_enrollment(
        &self,
        site: SiteId,
        enrollment: EnrollmentId,
        intent: Intent,
        coalesce: Option<String>,
    ) -> Result<(), Error> {
        let now = self.now();
        let device = self
            .store
            .read(Scope::Site(site), move |tx| tx.enrollment(enrollment).map_err(Error::from))
            .await?
            .ok_or(Error::NotFound("enrollment"))?
            .device_id;
        let address = self.address(site, device, None).await?;
        let actor = Actor::Server(intent.kind().into());
        let options = SendOptions::default();
        let mut made =
            self.make_command(site, &address, Some(&intent), &intent, &options, &actor, None, now)?;
        made.command.coalesce_key = coalesce.or(made.command.coalesce_key);
        let notes = Notes::new(now, &actor, None, &made.command, device)?;
        self.store.write(Scope::Site(site), move |tx| enqueue(tx, &made, &notes, now).map(|_| ())).await?;
        self.work.notify_one();
        Ok(())
    }

    /// The intent of a command, opened: its own or its job's.
    pub(crate) async fn open_intent(
        &self,
        site: SiteId,
        command: &Command,
    ) -> Result<(StoredIntent, Intent), Error> {
        let damaged = || Error::Internal(format!("the intent of command {} is damaged", command.id));
        let opened = self.vault.open(site, "command", command.id.as_bytes(), "intent", &command.intent)?;
        let mut stored: StoredIntent =
            serde_json::from_slice(opened.expose_secret()).map_err(|_| damaged())?;
        if let Some(intent) = stored.intent.take() {
            return Ok((stored, intent));
        }
        let job = command.job_id.ok_or_else(damaged)?;
        let row = self
            .store
            .read(Scope::Site(site), move |tx| tx.job(job).map_err(Error::from))
            .await?
            .ok_or_else(damaged)?;
        let opened = self.vault.open(site, "job", job.as_bytes(), "intent", &row.intent)?;
        let body: serde_json::Value =
            serde_json::from_slice(opened.expose_secret()).map_err(|_| damaged())?;
        let intent = body.get("intent").cloned().ok_or_else(damaged)?;
        Ok((stored, serde_json::from_value(intent).map_err(|_| damaged())?))
    }

    /// The grants an intent needs: sending, and more for what destroys or bypasses.
    pub(crate) fn may_send(
        &self,
        caller: &Caller,
        site: SiteId,
        intent: &Intent,
    ) -> Result<Permit<may::SendCommands>, Error> {
        let permit = caller.permit::<may::SendCommands>(site)?;
        if intent.is_destructive() {
            caller.permit::<may::Destroy>(site)?;
        }
        if let Intent::Raw { payload } = intent {
            caller.permit::<may::SendRaw>(site)?;
            // The device is not looked at yet: either dialect's word counts.
            let destroys =
                match (apple::raw_is_destructive(payload), windows::plan::raw_is_destructive(payload)) {
                    (Err(apple), Err(windows)) => {
                        return Err(Error::Invalid(format!(
                            "neither of Apple ({apple}) nor of Windows ({windows})"
                        )));
                    }
                    (apple, windows) => apple.unwrap_or(false) || windows.unwrap_or(false),
                };
            if destroys {
                caller.permit::<may::Destroy>(site)?;
            }
        }
        Ok(permit)
    }

    pub(crate) async fn address(
        &self,
        site: SiteId,
        device: DeviceId,
        user: Option<&str>,
    ) -> Result<Address, Error> {
        let user = user.map(str::to_owned);
        self.store
            .read(Scope::Site(site), move |tx| {
                let device = tx.device(device)?.ok_or(Error::NotFound("device"))?;
                let enrollments = tx.enrollments_of_device(device.id)?;
                let enrollment = enrollments
                    .into_iter()
                    .find(|e| e.state != EnrollmentState::Ended)
                    .ok_or_else(|| Error::Conflict("this device is not enrolled".into()))?;
                match enrollment.state {
                    EnrollmentState::Active => {}
                    EnrollmentState::Unproven => {
                        return Err(Error::Conflict(
                            "this enrollment is unproven: approve it before you send commands".into(),
                        ));
                    }
                    _ => {
                        return Err(Error::Conflict(
                            "this device has not finished its enrollment yet".into(),
                        ));
                    }
                }
                let channels = tx.channels(enrollment.id)?;
                let channel = match &user {
                    None => channels.into_iter().find(|c| c.kind == ChannelKind::Device),
                    Some(name) => channels.into_iter().find(|c| {
                        c.kind == ChannelKind::User
                            && (c.user_key == *name || c.user_name.as_deref() == Some(name.as_str()))
                    }),
                };
                let channel = channel
                    .filter(|c| c.enabled)
                    .ok_or_else(|| Error::Conflict("this channel takes no commands now".into()))?;
                Ok(Address { device, enrollment, channel })
            })
            .await
    }

    #[expect(clippy::too_many_arguments, reason = "they are the command; a struct would only rename them")]
    pub(crate) fn make_command(
        &self,
        site: SiteId,
        address: &Address,
        keep: Option<&Intent>,
        intent: &Intent,
        options: &SendOptions,
        actor: &Actor,
        job: Option<JobId>,
        now: Timestamp,
    ) -> Result<Made, Error> {
        let (plan, settings) = match address.device.platform {
            Platform::Apple => {
                let plan = apple::plan(intent, &address.device, &address.enrollment, address.channel.kind)?;
                (plan, Vec::new())
            }
            Platform::Windows => self.windows_plan(intent, address)?,
            other => return Err(Error::CannotDo(format!("commanding {other} devices is not built yet"))),
        };
        let id = CommandId(new_uuid(now)?);
        let stored = StoredIntent {
            intent: keep.cloned(),
            pin: if plan.needs_pin { Some(format!("{:06}", random_below(1_000_000)?)) } else { None },
            password: if plan.needs_password { Some(new_password()?) } else { None },
        };
        let mut plain = serde_json::to_vec(&stored).map_err(|e| Error::Internal(e.to_string()))?;
        let sealed = self.vault.seal(site, "command", id.as_bytes(), "intent", &plain);
        plain.zeroize();
        let mut parts = Vec::with_capacity(plan.requests.len());
        for request in &plan.requests {
            parts.push((PartId(new_uuid(now)?), request.clone()));
        }
        let settings = settings.into_iter().zip(&parts);
        let settings = settings.filter_map(|(setting, (part, _))| Some((*part, setting?))).collect();
        let command = NewCommand {
            id,
            enrollment_id: address.enrollment.id,
            channel_id: address.channel.id,
            kind: intent.kind().to_owned(),
            lane: intent.lane(),
            guarantee: intent.guarantee(),
            intent: sealed?,
            job_id: job,
            coalesce_key: intent.coalesce_key(),
            held_reason: None,
            not_before: None,
            expires_at: now.plus(life(intent, options)?),
            created_at: now,
            created_by: actor.to_string(),
            parts,
        };
        Ok(Made { command, settings })
    }

    /// Whether a PC can do it, in how many parts, and what they set. Planned again with what the intent needs when it
    /// is sent.
    fn windows_plan(
        &self,
        intent: &Intent,
        address: &Address,
    ) -> Result<(apple::Plan, Vec<Option<Setting>>), Error> {
        use windows::plan::{Context, placeholder, plan};
        let build = address.device.os_version.as_deref().and_then(windows::build);
        let cx = Context {
            provider: "Bellwether",
            machine: bellwether_windows::csp::Machine { build, home: false, user_signed_in: true },
            ownership: address.device.ownership,
            channel: address.channel.kind,
            // Whether the package is there and fits is seen when the PC calls.
            material: placeholder(),
        };
        let plan = plan(intent, &cx)?;
        let settings = match intent {
            Intent::Configure { force: false, .. } => {
                plan.parts.iter().map(|part| Setting::of(&self.vault, &part.commands)).collect()
            }
            _ => Vec::new(),
        };
        let requests = plan.parts.into_iter().map(|part| part.request).collect();
        Ok((apple::Plan { requests, needs_pin: false, needs_password: plan.needs_password }, settings))
    }

    async fn command_view(&self, site: SiteId, id: CommandId) -> Result<CommandView, Error> {
        let (row, quarantine) = self
            .store
            .read(Scope::Site(site), move |tx| {
                Ok::<_, Error>((tx.command(id)?, tx.quarantine(site)?.is_some()))
            })
            .await?;
        Ok(view(row.ok_or(Error::NotFound("command"))?, quarantine))
    }
}

/// What is written beside a new command.
pub(crate) struct Notes {
    audit: Option<AuditEntry>,
    event: Event,
}

impl Notes {
    pub(crate) fn new(
        now: Timestamp,
        actor: &Actor,
        source: Option<&str>,
        command: &NewCommand,
        device: DeviceId,
    ) -> Result<Self, Error> {
        let target = format!("command:{}", command.id);
        let data = serde_json::json!({
            "device": device, "enrollment": command.enrollment_id, "intent": command.kind, "lane": command.lane,
            "job": command.job_id,
        });
        Ok(Self {
            audit: Some(audit::entry(
                now,
                actor,
                EventKind::CommandQueued,
                &target,
                source,
                Some(data.clone()),
            )?),
            event: audit::event(now, EventKind::CommandQueued, &target, &data)?,
        })
    }

    /// A job is one audit entry, not one per device.
    pub(crate) fn silent(mut self) -> Self {
        self.audit = None;
        self
    }
}

/// The transaction of a command: row, audit, event, wake (Q13). The id of the command that will be done: another one
/// when the same thing already waits (Q9).
pub(crate) fn enqueue(
    tx: &mut Tx<'_>,
    made: &Made,
    notes: &Notes,
    now: Timestamp,
) -> Result<CommandId, Error> {
    let command = &made.command;
    // Look again: the enrollment may have ended since the plan was made (Q10).
    let enrollment = tx.enrollment(command.enrollment_id)?.ok_or(Error::NotFound("enrollment"))?;
    if enrollment.state != EnrollmentState::Active {
        return Err(Error::Conflict("this device is no longer enrolled".into()));
    }
    let id = match tx.command_insert(command)? {
        Inserted::New(_) => command.id,
        Inserted::Coalesced(id) => id,
    };
    if let Some(entry) = &notes.audit {
        tx.audit_append(entry)?;
    }
    if id == command.id {
        tx.event_append(&notes.event)?;
        // What waits before it could still change what the PC has: then it is seen when the PC calls.
        if !made.settings.is_empty() && tx.pending_count(command.channel_id)? == 1 {
            let spared = applied::spare(tx, enrollment.id, id, &made.settings, now)?;
            if spared == command.parts.len() {
                return Ok(id);
            }
        }
    }
    if !enrollment.test_only {
        let due = wake_due(tx, command, now)?;
        tx.wake_request(command.channel_id, due)?;
    }
    Ok(id)
}

/// When to wake for a new command. A device that was woken a moment ago and has not called yet finds the new command
/// when it does: one wake, not one per command.
fn wake_due(tx: &mut Tx<'_>, command: &NewCommand, now: Timestamp) -> Result<Timestamp, Error> {
    if command.lane == Lane::Emergency {
        // Due since long: it is sent before the wakes of a job for the whole fleet (Q16).
        return Ok(now.plus(-DAY));
    }
    let Some(channel) = tx.channel(command.channel_id)? else { return Ok(now) };
    Ok(match channel.woken_at {
        Some(at) if channel.wake_attempts > 0 && now.since(at) < WAKE_PAUSE => at.plus(WAKE_PAUSE),
        _ => now,
    })
}

pub(crate) fn life(intent: &Intent, options: &SendOptions) -> Result<i64, Error> {
    let default = if intent.lane() == Lane::Inventory { INVENTORY_LIFE } else { DEFAULT_LIFE };
    let life = options.expires_in.unwrap_or(default);
    if (MIN_LIFE..=MAX_LIFE).contains(&life) {
        Ok(life)
    } else {
        Err(Error::Invalid(format!(
            "a command lives between {} minutes and {} days",
            MIN_LIFE / MINUTE,
            MAX_LIFE / (24 * HOUR)
        )))
    }
}

/// Twenty letters and digits without look-alikes: 116 bits.
fn new_password() -> Result<String, Error> {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let mut password = String::with_capacity(20);
    for _ in 0..20 {
        let i = random_below(LETTERS.len() as u32)? as usize;
        password.push(char::from(LETTERS.get(i).copied().unwrap_or(b'x')));
    }
    Ok(password)
}

fn view(row: Command, in_quarantine: bool) -> CommandView {
    let withheld = in_quarantine && !row.state.is_terminal() && kind_waits_in_quarantine(&row.kind);
    CommandView {
        id: row.id,
        device_id: row.device_id,
        enrollment_id: row.enrollment_id,
        kind: row.kind,
        lane: row.lane,
        state: row.state,
        note: if withheld { Some(quarantine::NOTE.to_owned()) } else { row.note },
        job_id: row.job_id,
        created_at: row.created_at,
        created_by: row.created_by,
        expires_at: row.expires_at,
        first_sent_at: row.first_sent_at,
        finished_at: row.finished_at,
    }
}
