//! What a device answered: facts, secrets, and what the answer ends.

use super::checkin::UNLOCK_TOKEN;
use super::identify::Authenticated;
use super::report::Poll;
use crate::commands::RECOVERY_LOCK;
use crate::error::Error;
use crate::{Engine, enrolling};
use bellwether_apple::answer::{self, SecretKind};
use bellwether_apple::checkin::{ErrorItem, Report, Status};
use bellwether_model::lifecycle::{AnswerVerdict, Outcome};
use bellwether_model::{CommandState, EventKind, Fact, PartId, Timestamp};
use bellwether_store::records::{Answered, Escrow, QueueRules, Reply};
use bellwether_store::{Scope, Tx};

/// Why an enrollment ended when the device said that it erases itself.
pub(super) const WIPED: &str = "wiped";
/// Why it ended when the device said that it removed the enrollment profile.
pub(super) const LEFT: &str = "left management";
/// A larger answer is not kept whole; its facts are.
const MAX_KEPT_ANSWER: usize = 4 * 1024 * 1024;

/// The answer in a report, made ready before the transaction.
pub(super) struct Incoming {
    pub(super) part: PartId,
    pub(super) reply: Reply,
    pub(super) facts: Vec<Fact>,
    pub(super) escrow: Vec<Escrow>,
    /// The device said that it erases itself.
    pub(super) wiped: bool,
    /// A new recovery lock is in force.
    pub(super) rotated: Option<Escrow>,
}

impl Engine {
    /// Reads an answer: facts, secrets, and the sealed whole.
    pub(super) async fn incoming(
        &self,
        caller: &Authenticated,
        report: &Report,
        part: PartId,
        outcome: Outcome,
        request: Option<&str>,
        now: Timestamp,
    ) -> Result<Incoming, Error> {
        let (site, enrollment) = (caller.site, caller.enrollment.id);
        let done = outcome == Outcome::Acknowledged;
        let device_channel = report.ids.user_key().is_none();
        let mut facts = Vec::new();
        let mut escrow = Vec::new();
        if let Some(request) = request.filter(|_| done) {
            if device_channel {
                // A user's answers never overwrite facts of the device.
                for fact in answer::facts(request, &report.body) {
                    facts.push(Fact { key: fact.key, value: fact.value, reported_at: now });
                }
            }
            for secret in answer::secrets(request, &report.body) {
                let field = secret_field(secret.kind);
                let value = self.vault.seal(
                    site,
                    "enrollment",
                    enrollment.as_bytes(),
                    field,
                    secret.value.expose(),
                )?;
                escrow.push(Escrow { enrollment_id: enrollment, field: field.into(), value, stored_at: now });
            }
        }
        let raw = answer::to_xml(&report.body).unwrap_or_default();
        let kept = (!raw.is_empty() && raw.len() <= MAX_KEPT_ANSWER)
            .then(|| self.vault.seal(site, "part", part.as_bytes(), "answer", &raw))
            .transpose()?;
        let error = (outcome == Outcome::Failed).then(|| error_json(report.status, &report.error_chain));
        let rotated = match (done, request) {
            (true, Some("SetRecoveryLock")) => self.rotated_password(caller, part, now).await?,
            _ => None,
        };
        Ok(Incoming {
            part,
            reply: Reply { outcome, answer: kept, error },
            facts,
            escrow,
            wiped: done && request == Some("EraseDevice"),
            rotated,
        })
    }

    /// The password that an acknowledged SetRecoveryLock put in force.
    async fn rotated_password(
        &self,
        caller: &Authenticated,
        part: PartId,
        now: Timestamp,
    ) -> Result<Option<Escrow>, Error> {
        let (site, enrollment) = (caller.site, caller.enrollment.id);
        let command = self
            .store
            .read(Scope::Site(site), move |tx| {
                Ok::<_, Error>(match tx.part(part)? {
                    Some(part) => tx.command(part.command_id)?,
                    None => None,
                })
            })
            .await?;
        let Some(command) = command.filter(|c| c.enrollment_id == enrollment) else { return Ok(None) };
        let stored = self.open_intent(site, &command).await?.0;
        let Some(password) = stored.password.as_deref() else { return Ok(None) };
        let value =
            self.vault.seal(site, "enrollment", enrollment.as_bytes(), RECOVERY_LOCK, password.as_bytes())?;
        Ok(Some(Escrow { enrollment_id: enrollment, field: RECOVERY_LOCK.into(), value, stored_at: now }))
    }
}

/// Takes an answer in; whether the device said that it erases itself.
pub(super) fn take_answer(
    tx: &mut Tx<'_>,
    poll: &Poll,
    incoming: &Incoming,
    rules: &QueueRules,
) -> Result<bool, Error> {
    let answered = tx.answer(poll.channel, incoming.part, &incoming.reply, poll.now, rules)?;
    note_answer(tx, poll, incoming, &answered)?;
    if answered.verdict != AnswerVerdict::Applied {
        return Ok(false);
    }
    if incoming.reply.outcome == Outcome::Failed
        && answered.command.as_ref().is_some_and(|c| c.kind == "renew-identity")
    {
        // The installer rolled back: the device goes on with the old identity, the new one is worth nothing.
        drop_staged(tx, poll)?;
    }
    if !incoming.facts.is_empty() {
        tx.facts_put(poll.device, &incoming.facts)?;
        update_device(tx, poll, &incoming.facts)?;
    }
    for row in incoming.escrow.iter().chain(&incoming.rotated) {
        tx.escrow_put(row)?;
    }
    let returns =
        answered.command.as_ref().is_some_and(|c| c.guarantee == bellwether_model::Guarantee::AtMostOnce);
    let left = incoming.reply.outcome == Outcome::Acknowledged
        && answered.command.as_ref().is_some_and(|c| c.kind == "unenroll");
    if (incoming.wiped && !returns) || left {
        let enrollment = tx.enrollment(poll.enrollment)?.ok_or(Error::NotFound("enrollment"))?;
        enrolling::end(tx, enrollment, poll.now, if left { LEFT } else { WIPED })?;
        tx.audit_append(&poll.wiped)?;
        return Ok(true);
    }
    Ok(false)
}

fn drop_staged(tx: &mut Tx<'_>, poll: &Poll) -> Result<(), Error> {
    let Some(mut enrollment) = tx.enrollment(poll.enrollment)? else { return Ok(()) };
    let Some(staged) = enrollment.staged_identity_id.take() else { return Ok(()) };
    if let Some(mut identity) = tx.identity(staged)? {
        enrolling::revoke(tx, &mut identity, poll.now, "the device could not install its renewal")?;
    }
    Ok(tx.enrollment_update(&enrollment)?)
}

fn note_answer(tx: &mut Tx<'_>, poll: &Poll, incoming: &Incoming, answered: &Answered) -> Result<(), Error> {
    let mut event = poll.event.clone();
    event.kind = match answered.verdict {
        AnswerVerdict::Duplicate => return Ok(()),
        AnswerVerdict::Conflict => EventKind::AnswerConflict,
        AnswerVerdict::Unknown => EventKind::AnswerUnknown,
        AnswerVerdict::Applied => EventKind::CommandChanged,
    };
    let (state, before) = (answered.command.as_ref().map(|c| c.state), answered.before);
    if answered.verdict == AnswerVerdict::Applied && state == before && state != Some(CommandState::NotNow) {
        return Ok(());
    }
    event.subject = match &answered.command {
        Some(command) => format!("command:{}", command.id),
        None => format!("enrollment:{}", poll.enrollment),
    };
    event.data = serde_json::json!({
        "device": poll.device, "enrollment": poll.enrollment, "part": incoming.part,
        "request": answered.request, "answer": incoming.reply.outcome, "state": state, "before": before,
    })
    .to_string();
    Ok(tx.event_append(&event)?)
}

/// The few facts that the device's own row shows.
fn update_device(tx: &mut Tx<'_>, poll: &Poll, facts: &[Fact]) -> Result<(), Error> {
    let Some(mut device) = tx.device(poll.device)? else { return Ok(()) };
    let before = device.clone();
    for fact in facts {
        let text = || fact.value.as_str().map(str::to_owned);
        match fact.key.as_str() {
            "device.name" => device.name = text().or(device.name),
            "device.model-name" | "model-name" => device.model = text().or(device.model),
            "os.version" => {
                let version = text().filter(|v| bellwether_apple::Version::parse(v).is_some());
                device.os_version = version.or(device.os_version);
            }
            "os.build" => device.os_build = text().or(device.os_build),
            "serial-number" | "device.serial-number" => device.serial = text().or(device.serial),
            "device.product-name" | "product-name" => device.product = text().or(device.product),
            "supervised" | "device.supervised" => {
                device.supervised = fact.value.as_bool().or(device.supervised)
            }
            _ => {}
        }
    }
    if device != before {
        tx.device_update(&device)?;
    }
    Ok(())
}

pub(super) fn outcome(status: Status) -> Option<Outcome> {
    match status {
        Status::Idle => None,
        Status::Acknowledged => Some(Outcome::Acknowledged),
        Status::Error | Status::CommandFormatError => Some(Outcome::Failed),
        Status::NotNow => Some(Outcome::NotNow),
    }
}

fn error_json(status: Status, chain: &[ErrorItem]) -> String {
    let chain: Vec<serde_json::Value> = chain
        .iter()
        .map(|item| {
            serde_json::json!({
                "code": item.code, "domain": item.domain, "localized": item.localized, "us_english": item.us_english,
            })
        })
        .collect();
    serde_json::json!({ "status": status.as_str(), "chain": chain }).to_string()
}

fn secret_field(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::FileVaultRecoveryKeyCms => "filevault-key-cms",
        SecretKind::FileVaultDeviceKey => "filevault-device-key",
        SecretKind::RotatedFileVaultKeyCms => "filevault-rotated-key-cms",
        SecretKind::UnlockToken => UNLOCK_TOKEN,
        SecretKind::ActivationLockBypassCode => "activation-lock-bypass-code",
        _ => "secret",
    }
}
