//! Beginning and ending trust, inside a transaction. Shared by all platforms.

use crate::error::Error;
use crate::permit::{Permit, may};
use crate::{Engine, audit};
use bellwether_model::device::{ChallengeState, IdentityState};
use bellwether_model::intent::InventoryKind;
use bellwether_model::lifecycle::Outcome;
use bellwether_model::{
    Actor, EnrollmentId, EnrollmentState, EventKind, IdentityId, Intent, InvitationId, PartState, Platform,
    SiteId, Timestamp,
};
use bellwether_store::records::{AuditEntry, CommandFilter, Enrollment, Identity, Page, QueueRules, Reply};
use bellwether_store::{Scope, Tx};

/// Why an enrollment ended that a newer one of the same device replaced.
pub(crate) const REENROLLED: &str = "the device enrolled again";
/// Commands that are ended in the transaction that ends an enrollment; a larger rest is swept up afterwards.
const SUPERSEDE_CHUNK: i64 = 400;

/// Revokes an identity: refused from the next request on.
pub(crate) fn revoke(
    tx: &mut Tx<'_>,
    identity: &mut Identity,
    now: Timestamp,
    why: &str,
) -> Result<(), Error> {
    identity.state = IdentityState::Revoked;
    identity.revoked_at = Some(now);
    identity.revoked_reason = Some(why.to_owned());
    Ok(tx.identity_update(identity)?)
}

/// Ends every attempt of an invitation but `keep`: challenges die, identities that were never activated are revoked,
/// a pending enrollment, or an unproven one that never finished, is over.
pub(crate) fn close_attempts(
    tx: &mut Tx<'_>,
    invitation: InvitationId,
    keep: Option<bellwether_model::ChallengeId>,
    now: Timestamp,
    why: &str,
) -> Result<(), Error> {
    for mut identity in tx.identities_of_invitation(invitation)? {
        if keep.is_some() && identity.challenge_id == keep {
            continue;
        }
        match identity.state {
            IdentityState::Issued => revoke(tx, &mut identity, now, why)?,
            IdentityState::Live => {
                let Some(id) = identity.enrollment_id else { continue };
                let Some(enrollment) = tx.enrollment(id)? else { continue };
                let unused = enrollment.state == EnrollmentState::Pending
                    || (enrollment.state == EnrollmentState::Unproven && enrollment.activated_at.is_none());
                if unused {
                    end(tx, enrollment, now, why)?;
                    revoke(tx, &mut identity, now, why)?;
                }
            }
            _ => {}
        }
    }
    for mut challenge in tx.challenges_of_invitation(invitation)? {
        // An open challenge of another download may still be used: whoever uses it becomes the one live attempt.
        let over = challenge.state == ChallengeState::Bound || keep.is_none();
        if Some(challenge.id) != keep && challenge.state != ChallengeState::Dead && over {
            challenge.state = ChallengeState::Dead;
            tx.challenge_update(&challenge)?;
        }
    }
    Ok(())
}

/// Ends an enrollment: its channels take nothing more, what waited is superseded, certificates that it got are revoked.
/// Nothing crosses to a next one.
pub(crate) fn end(
    tx: &mut Tx<'_>,
    mut enrollment: Enrollment,
    now: Timestamp,
    why: &str,
) -> Result<Enrollment, Error> {
    enrollment.state = EnrollmentState::Ended;
    enrollment.ended_at = Some(now);
    enrollment.end_reason = Some(why.to_owned());
    tx.enrollment_update(&enrollment)?;
    tx.certificates_revoke(enrollment.id, now, why)?;
    for mut channel in tx.channels(enrollment.id)? {
        channel.enabled = false;
        channel.wake_due_at = None;
        tx.channel_update(&channel)?;
    }
    tx.supersede_commands(enrollment.id, now, &format!("the enrollment ended: {why}"), SUPERSEDE_CHUNK)?;
    tx.applied_settings_forget(enrollment.id)?;
    Ok(enrollment)
}

/// Pins `new` to the enrollment; what was pinned before is replaced.
pub(crate) fn replace_identity(
    tx: &mut Tx<'_>,
    enrollment: &mut Enrollment,
    new: &mut Identity,
) -> Result<(), Error> {
    if let Some(mut old) = tx.identity(enrollment.identity_id)?
        && old.id != new.id
        && old.state == IdentityState::Live
    {
        old.state = IdentityState::Replaced;
        tx.identity_update(&old)?;
    }
    for mut other in tx.identities_of_enrollment(enrollment.id)? {
        // Other renewals that were begun and never used are worth nothing any more.
        if other.id != new.id && matches!(other.state, IdentityState::Issued | IdentityState::Staged) {
            revoke(tx, &mut other, new.issued_at, "another renewal was used")?;
        }
    }
    new.state = IdentityState::Live;
    tx.identity_update(new)?;
    enrollment.identity_id = new.id;
    enrollment.staged_identity_id = None;
    tx.enrollment_update(enrollment)?;
    Ok(())
}

/// Writes down the certificate of a renewal; the one that goes out, or `None` when the old one is no longer pinned.
pub(crate) fn record_renewal(
    tx: &mut Tx<'_>,
    enrollment: EnrollmentId,
    old: IdentityId,
    new: &Identity,
    entry: &AuditEntry,
    now: Timestamp,
) -> Result<Option<Identity>, Error> {
    // Look again inside the transaction: it may have been revoked or replaced since.
    let current = tx.enrollment(enrollment)?.ok_or(Error::NotFound("enrollment"))?;
    let still = tx.identity(old)?.is_some_and(|identity| identity.state == IdentityState::Live);
    if !still || current.identity_id != old || current.state != EnrollmentState::Active {
        return Ok(None);
    }
    let mut earlier = tx.identities_of_enrollment(enrollment)?;
    // The same key again: the answer was lost on the way. The same certificate goes out.
    let same = |i: &&Identity| i.key_hash == new.key_hash && i.state == IdentityState::Issued;
    if let Some(same) = earlier.iter().find(same) {
        return Ok(Some(same.clone()));
    }
    // Another key while an earlier renewal was never seen: exactly one unused identity.
    let unused = |i: &&mut Identity| i.state == IdentityState::Issued && i.challenge_id.is_none();
    for unused in earlier.iter_mut().filter(unused) {
        revoke(tx, unused, now, "replaced by a later renewal before it was used")?;
    }
    tx.identity_insert(new)?;
    tx.audit_append(entry)?;
    Ok(Some(new.clone()))
}

/// The device has finished a new enrollment: the identities of the earlier one, which were good until now in case that
/// it failed, are worth nothing any more.
pub(crate) fn retire_earlier(tx: &mut Tx<'_>, enrollment: &Enrollment, now: Timestamp) -> Result<(), Error> {
    let earlier = tx.enrollments_of_device(enrollment.device_id)?;
    for old in earlier.iter().filter(|e| e.id != enrollment.id && e.state == EnrollmentState::Ended).take(20)
    {
        for mut identity in tx.identities_of_enrollment(old.id)? {
            if identity.state != IdentityState::Revoked {
                revoke(tx, &mut identity, now, REENROLLED)?;
            }
        }
    }
    Ok(())
}

/// A device that checks out has done what an outstanding `unenroll` asked for, also when its answer was lost.
pub(crate) fn settle_unenroll(
    tx: &mut Tx<'_>,
    enrollment: &Enrollment,
    now: Timestamp,
    rules: &QueueRules,
) -> Result<(), Error> {
    let filter = CommandFilter { device_id: Some(enrollment.device_id), ..CommandFilter::default() };
    let recent = tx.commands(&filter, &Page { after: None, limit: 50 })?;
    for command in recent {
        let ours = command.enrollment_id == enrollment.id && command.kind == "unenroll";
        if !ours || command.state.is_terminal() {
            continue;
        }
        for part in tx.parts(command.id)? {
            if matches!(part.state, PartState::Sent | PartState::Accepted) {
                let done = Reply { outcome: Outcome::Acknowledged, answer: None, error: None };
                tx.answer(command.channel_id, part.id, &done, now, rules)?;
            }
        }
    }
    Ok(())
}

impl Engine {
    /// Ends the server's trust without asking the device: its identity is revoked at once. The device is not told;
    /// send `unenroll` for that.
    pub async fn end_enrollment(
        &self,
        permit: &Permit<may::WriteDevices>,
        id: EnrollmentId,
        reason: &str,
    ) -> Result<(), Error> {
        let now = self.now();
        let reason = if reason.trim().is_empty() { "ended by an administrator" } else { reason.trim() };
        let reason: String = reason.chars().take(200).collect();
        let entry = self.enrollment_entry(permit, EventKind::EnrollmentEnded, id, now, &reason)?;
        let event = audit::event(
            now,
            EventKind::EnrollmentEnded,
            &format!("enrollment:{id}"),
            &serde_json::json!({ "reason": reason }),
        )?;
        self.store
            .write(Scope::Site(permit.site), move |tx| {
                let enrollment = tx.enrollment(id)?.ok_or(Error::NotFound("enrollment"))?;
                if enrollment.state == EnrollmentState::Ended {
                    return Ok(());
                }
                for mut identity in tx.identities_of_enrollment(id)? {
                    if identity.state != IdentityState::Revoked {
                        revoke(tx, &mut identity, now, &reason)?;
                    }
                }
                end(tx, enrollment, now, &reason)?;
                tx.audit_append(&entry)?;
                tx.event_append(&event).map_err(Error::from)
            })
            .await
    }

    /// Lets an unproven enrollment in (rule d): the old enrollment of the device it claims to be ends, and the
    /// device's row passes to the newcomer.
    pub async fn approve_enrollment(
        &self,
        permit: &Permit<may::WriteDevices>,
        id: EnrollmentId,
    ) -> Result<(), Error> {
        let now = self.now();
        let entry = self.enrollment_entry(permit, EventKind::EnrollmentApproved, id, now, "")?;
        let event = audit::event(
            now,
            EventKind::EnrollmentApproved,
            &format!("enrollment:{id}"),
            &serde_json::json!({}),
        )?;
        let approved = self
            .store
            .write(Scope::Site(permit.site), move |tx| {
                let mut enrollment = tx.enrollment(id)?.ok_or(Error::NotFound("enrollment"))?;
                if enrollment.state != EnrollmentState::Unproven {
                    return Err(Error::Conflict(format!(
                        "this enrollment is {}; only an unproven one can be approved",
                        enrollment.state
                    )));
                }
                let claimant = tx.device(enrollment.device_id)?.ok_or(Error::NotFound("device"))?;
                let Some(real) = claimant.claims_device_id else {
                    return Err(Error::Internal("an unproven device claims nothing".into()));
                };
                if let Some(old) = tx.living_enrollment(real)? {
                    for mut identity in tx.identities_of_enrollment(old.id)? {
                        if identity.state != IdentityState::Revoked {
                            revoke(tx, &mut identity, now, "another enrollment of the device was approved")?;
                        }
                    }
                    end(tx, old, now, "another enrollment of the device was approved")?;
                }
                enrollment.device_id = real;
                enrollment.epoch = tx.next_epoch(real)?;
                enrollment.state = if enrollment.activated_at.is_some() {
                    EnrollmentState::Active
                } else {
                    EnrollmentState::Pending
                };
                tx.enrollment_update(&enrollment)?;
                if enrollment.state == EnrollmentState::Active {
                    for mut channel in tx.channels(id)? {
                        channel.enabled =
                            channel.push_token.is_some() || enrollment.platform == Platform::Windows;
                        tx.channel_update(&channel)?;
                    }
                }
                tx.audit_append(&entry)?;
                tx.event_append(&event)?;
                Ok::<_, Error>(enrollment)
            })
            .await?;
        if approved.state == EnrollmentState::Active {
            self.welcome(permit.site, id).await;
            if approved.awaiting_configuration {
                self.release_from_setup(permit.site, id).await;
            }
        }
        Ok(())
    }

    /// What a fresh enrollment gets without anybody asking: a first inventory. Not part of the transaction that made
    /// it: a `TokenUpdate` or a first session is never lost to it.
    pub(crate) async fn welcome(&self, site: SiteId, enrollment: EnrollmentId) {
        let intent = Intent::RefreshInventory { kinds: InventoryKind::ALL.to_vec() };
        if let Err(error) = self.queue_for_enrollment(site, enrollment, intent, None).await {
            tracing::warn!(%error, %enrollment, "the first inventory was not queued");
        }
    }

    fn enrollment_entry(
        &self,
        permit: &Permit<may::WriteDevices>,
        kind: EventKind,
        id: EnrollmentId,
        now: Timestamp,
        reason: &str,
    ) -> Result<bellwether_store::records::AuditEntry, Error> {
        audit::entry(
            now,
            &permit.actor,
            kind,
            &format!("enrollment:{id}"),
            permit.source.as_deref(),
            Some(serde_json::json!({ "reason": reason })),
        )
    }

    /// The audit's name for a device.
    pub(crate) fn device_actor(id: EnrollmentId) -> Actor {
        Actor::Device(id.to_string())
    }
}
