//! Everything that one message changes, and the one transaction that changes it.

use super::{FORGOTTEN, LEFT, SESSIONS, Seen, Stopped};
use crate::error::Error;
use crate::vault::new_uuid;
use crate::windows::account::{ACCOUNT, forget_sessions};
use crate::windows::applied::{self, Setting};
use crate::windows::dispatch::Grant;
use crate::windows::facts::facts;
use crate::windows::identify::Proven;
use crate::{audit, enrolling};
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::{
    ChannelId, ChannelKind, DeliveryId, DeviceId, EnrollmentState, EventKind, Fact, PartId, SiteId, Timestamp,
};
use bellwether_store::records::{AuditEntry, Candidate, Event as OutboxEvent, HandOver, Peek, Reply, Sealed};
use bellwether_store::{StoreError, Tx};

/// What one channel is handed, as one delivery.
type Handed = (ChannelId, DeliveryId, Vec<(PartId, Option<Sealed>)>);

/// Everything that one message changes.
pub(super) struct Commit {
    pub(super) site: SiteId,
    pub(super) identity: bellwether_model::IdentityId,
    pub(super) now: Timestamp,
    device: Option<DeviceId>,
    enrollment: Option<bellwether_model::EnrollmentId>,
    pub(super) device_channel: Option<(bellwether_model::EnrollmentId, ChannelId)>,
    woken: Vec<ChannelId>,
    pub(super) account: (Sealed, Option<i64>),
    pub(super) session: (String, Sealed, Option<i64>),
    sessions: Vec<(String, Timestamp)>,
    pub(super) answers: Vec<(ChannelId, PartId, Reply)>,
    /// What the PC has if the answer to the part counts.
    pub(super) confirmed: Vec<(PartId, Setting)>,
    facts: Vec<Fact>,
    /// The nodes that are written to by what is handed over.
    written: Vec<String>,
    handed: Vec<Handed>,
    firsts: Vec<(PartId, OutboxEvent)>,
    grants: Vec<Grant>,
    pub(super) channel_uri: Option<String>,
    pub(super) push_token: Option<(ChannelId, Sealed)>,
    pub(super) known_token: Option<Sealed>,
    pub(super) left: bool,
    event: OutboxEvent,
    ended: (AuditEntry, OutboxEvent),
}

impl Commit {
    pub(super) fn new(proven: &Proven, seen: &Seen, now: Timestamp) -> Result<Self, Error> {
        let enrollment = proven.enrollment.as_ref().map(|e| e.id);
        let actor = bellwether_model::Actor::Device(enrollment.map(|e| e.to_string()).unwrap_or_default());
        let target = format!("enrollment:{}", enrollment.map(|e| e.to_string()).unwrap_or_default());
        let device = seen.device.as_ref().map(|d| d.id);
        let ended = serde_json::json!({ "reason": LEFT, "device": device });
        let device_channel = seen.channels.iter().find(|c| c.kind == ChannelKind::Device);
        Ok(Self {
            site: proven.site,
            identity: proven.identity.id,
            now,
            device,
            enrollment,
            device_channel: device_channel.map(|c| (c.enrollment_id, c.id)),
            woken: seen
                .channels
                .iter()
                .filter(|c| c.wake_due_at.is_some() || c.wake_attempts != 0)
                .map(|c| c.id)
                .collect(),
            account: (Vec::new(), None),
            session: (String::new(), Vec::new(), None),
            sessions: seen.states.iter().map(|row| (row.key.clone(), row.touched_at)).collect(),
            answers: Vec::new(),
            confirmed: Vec::new(),
            facts: Vec::new(),
            written: Vec::new(),
            handed: Vec::new(),
            firsts: Vec::new(),
            grants: Vec::new(),
            channel_uri: None,
            push_token: None,
            known_token: device_channel.and_then(|c| c.push_token.clone()),
            left: false,
            event: audit::event(now, EventKind::CommandChanged, "", &serde_json::json!({}))?,
            ended: (
                audit::entry(
                    now,
                    &actor,
                    EventKind::EnrollmentEnded,
                    &target,
                    None,
                    Some(serde_json::json!({ "reason": LEFT })),
                )?,
                audit::event(now, EventKind::EnrollmentEnded, &target, &ended)?,
            ),
        })
    }

    pub(super) fn add_facts(&mut self, uri: &str, format: Option<&str>, data: &str) {
        for (key, value) in facts(uri, format, data) {
            self.facts.push(Fact { key, value, reported_at: self.now });
        }
    }

    pub(super) fn hand(
        &mut self,
        channel: ChannelId,
        candidate: Candidate,
        sealed: Option<Sealed>,
        grant: Option<Grant>,
        written: Vec<String>,
    ) -> Result<(), Error> {
        let part = candidate.part.id;
        self.written.extend(written);
        if sealed.is_some() {
            let mut event = audit::event(self.now, EventKind::CommandSent, "", &serde_json::json!({}))?;
            event.subject = format!("command:{}", candidate.command.id);
            event.data = serde_json::json!({
                "device": self.device, "enrollment": self.enrollment, "part": part,
                "request": candidate.part.request,
            })
            .to_string();
            self.firsts.push((part, event));
        }
        self.grants.extend(grant);
        match self.handed.iter_mut().find(|(c, ..)| *c == channel) {
            Some((_, _, parts)) => parts.push((part, sealed)),
            None => {
                self.handed.push((channel, DeliveryId(new_uuid(self.now)?), vec![(part, sealed)]));
            }
        }
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        tx: &mut Tx<'_>,
        rules: &bellwether_store::records::QueueRules,
    ) -> Result<(), Stopped> {
        let (key, session, version) = &self.session;
        if !tx.protocol_state_put(self.identity, ACCOUNT, &self.account.0, self.account.1, self.now)?
            || !tx.protocol_state_put(self.identity, key, session, *version, self.now)?
        {
            return Err(Stopped::Moved);
        }
        if version.is_none() {
            forget_sessions(tx, self.identity, &self.sessions, self.now.plus(-FORGOTTEN), SESSIONS)?;
        }
        for (channel, part, reply) in &self.answers {
            let answered = tx.answer(*channel, *part, reply, self.now, rules)?;
            self.note_answer(tx, *part, reply, &answered)?;
            if answered.verdict == AnswerVerdict::Applied {
                self.confirm(tx, *part)?;
            }
        }
        if let Some(device) = self.device
            && !self.facts.is_empty()
        {
            tx.facts_put(device, &self.facts)?;
            update_device(tx, device, &self.facts)?;
        }
        for id in &self.woken {
            if let Some(mut channel) = tx.channel(*id)? {
                channel.wake_due_at = None;
                channel.wake_attempts = 0;
                tx.channel_update(&channel)?;
            }
        }
        if let Some((id, token)) = &self.push_token
            && let Some(mut channel) = tx.channel(*id)?
        {
            channel.push_token = Some(token.clone());
            channel.push_dead = false;
            tx.channel_update(&channel)?;
        }
        if self.left {
            return self.leave(tx, rules);
        }
        for grant in &self.grants {
            grant.give(tx)?;
        }
        for (part, _) in &self.firsts {
            if tx.part(*part)?.is_some_and(|row| row.wire.is_some()) {
                // Another session was faster: its bytes are the ones of this part.
                return Err(Stopped::Moved);
            }
        }
        for (channel, delivery, parts) in &self.handed {
            let peek = Peek { now: self.now, answering: Vec::new(), skip_not_now: false };
            if tx.hand_over(*channel, *delivery, parts, &peek, rules)? == HandOver::Moved {
                return Err(Stopped::Moved);
            }
        }
        if let Some(enrollment) = self.enrollment
            && !self.written.is_empty()
        {
            applied::forget(tx, enrollment, &self.written)?;
        }
        for (_, event) in &self.firsts {
            tx.event_append(event)?;
        }
        Ok(())
    }

    fn confirm(&self, tx: &mut Tx<'_>, part: PartId) -> Result<(), Stopped> {
        let Some(enrollment) = self.enrollment else { return Ok(()) };
        for (_, setting) in self.confirmed.iter().filter(|(id, _)| *id == part) {
            applied::confirm(tx, enrollment, setting, self.now)?;
        }
        Ok(())
    }

    /// The PC removed the account, by itself or because we asked.
    fn leave(&self, tx: &mut Tx<'_>, rules: &bellwether_store::records::QueueRules) -> Result<(), Stopped> {
        let Some(id) = self.enrollment else { return Ok(()) };
        let Some(enrollment) = tx.enrollment(id)? else { return Ok(()) };
        if enrollment.state == EnrollmentState::Ended {
            return Ok(());
        }
        enrolling::settle_unenroll(tx, &enrollment, self.now, rules)?;
        enrolling::end(tx, enrollment, self.now, LEFT)?;
        tx.audit_append(&self.ended.0)?;
        tx.event_append(&self.ended.1)?;
        Ok(())
    }

    fn note_answer(
        &self,
        tx: &mut Tx<'_>,
        part: PartId,
        reply: &Reply,
        answered: &bellwether_store::records::Answered,
    ) -> Result<(), Stopped> {
        let kind = match answered.verdict {
            AnswerVerdict::Duplicate => return Ok(()),
            AnswerVerdict::Conflict => EventKind::AnswerConflict,
            AnswerVerdict::Unknown => EventKind::AnswerUnknown,
            AnswerVerdict::Applied => EventKind::CommandChanged,
        };
        let state = answered.command.as_ref().map(|c| c.state);
        if kind == EventKind::CommandChanged && state == answered.before {
            return Ok(());
        }
        let mut event = self.event.clone();
        event.id = bellwether_model::EventId(uuid::Uuid::new_v5(&self.event.id.0, part.as_bytes()));
        event.kind = kind;
        event.subject = match &answered.command {
            Some(command) => format!("command:{}", command.id),
            None => format!("enrollment:{}", self.enrollment.map(|e| e.to_string()).unwrap_or_default()),
        };
        event.data = serde_json::json!({
            "device": self.device, "enrollment": self.enrollment, "part": part, "request": answered.request,
            "answer": reply.outcome, "state": state, "before": answered.before,
        })
        .to_string();
        tx.event_append(&event)?;
        Ok(())
    }
}

/// The few facts that the device's own row shows.
fn update_device(tx: &mut Tx<'_>, id: DeviceId, facts: &[Fact]) -> Result<(), StoreError> {
    let Some(mut device) = tx.device(id)? else { return Ok(()) };
    let before = device.clone();
    for fact in facts {
        let text = || fact.value.as_str().map(str::to_owned);
        match fact.key.as_str() {
            "device.name" => device.name = text().or(device.name),
            "model" | "model-name" => device.model = text().or(device.model),
            "manufacturer" => device.product = text().or(device.product),
            "os.version" => device.os_version = text().or(device.os_version),
            "serial-number" | "device.serial-number" => device.serial = text().or(device.serial),
            _ => {}
        }
    }
    if device != before {
        tx.device_update(&device)?;
    }
    Ok(())
}
