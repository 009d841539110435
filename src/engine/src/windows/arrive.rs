//! The first authenticated session of an identity: the rules of re-enrollment (ARCHITECTURE, a to e), in one
//! transaction. Until then an older enrollment of the PC lives on.

use super::Refused;
use super::account::{Account, Claims};
use super::identify::Proven;
use crate::enrolling::REENROLLED;
use crate::error::Error;
use crate::vault::new_uuid;
use crate::{Engine, audit, enrolling};
use bellwether_model::device::IdentityState;
use bellwether_model::time::DAY;
use bellwether_model::{
    ChannelId, ChannelKind, DeviceId, EnrollmentId, EnrollmentState, EventKind, Fact, InvitationState,
    Ownership, PersonId, Platform, Timestamp,
};
use bellwether_store::records::{AuditEntry, Channel, Device, Enrollment, Event, Identity, Invitation};
use bellwether_store::{Scope, Tx};

/// How `created_by` of an enrollment account's invitations begins.
pub(super) const BY_ACCOUNT: &str = "enrollment-account:";
/// How that of invitations begins which tokens of Entra ID made; the tenant's id follows.
pub(super) const BY_ENTRA: &str = "entra:";
/// An invitation that ended after the certificate was issued is still good for so long.
const ARRIVAL: i64 = DAY;

/// Everything the transaction needs, made before it.
struct Arrival {
    now: Timestamp,
    /// How many PCs a person of Entra ID may have.
    person_cap: i64,
    identity: Identity,
    hardware_id: String,
    claims: Claims,
    user: Option<String>,
    new_device: DeviceId,
    new_enrollment: EnrollmentId,
    channels: [ChannelId; 2],
    started: AuditEntry,
    unproven: AuditEntry,
    activated: (AuditEntry, Event),
    ended: Event,
}

enum Decided {
    Arrived(EnrollmentState),
    Forbidden(String),
}

impl Engine {
    /// How many PCs a person of Entra ID may have; none when its tokens are not accepted any more.
    pub(super) fn person_cap(&self) -> i64 {
        self.entra().map_or(0, |entra| entra.max_devices_per_person())
    }

    /// Makes the enrollment of an identity that has none. Afterwards the message is served anew.
    pub(super) async fn arrive(
        &self,
        proven: &Proven,
        account: &Account,
        source: Option<&str>,
    ) -> Result<(), Refused> {
        let now = self.now();
        let id = EnrollmentId(new_uuid(now)?);
        let (actor, target) = (Self::device_actor(id), format!("enrollment:{id}"));
        let details = serde_json::json!({
            "hardware_id": account.hardware_id, "serial": account.claims.serial, "model": account.claims.model,
            "os": account.claims.os_version,
        });
        let entry = |kind| audit::entry(now, &actor, kind, &target, source, Some(details.clone()));
        let arrival = Arrival {
            now,
            person_cap: self.person_cap(),
            identity: proven.identity.clone(),
            hardware_id: account.hardware_id.clone(),
            claims: account.claims.clone(),
            user: (!account.system_store).then(|| account.upn.clone().unwrap_or_else(|| "user".to_owned())),
            new_device: DeviceId(new_uuid(now)?),
            new_enrollment: id,
            channels: [ChannelId(new_uuid(now)?), ChannelId(new_uuid(now)?)],
            started: entry(EventKind::EnrollmentStarted)?,
            unproven: entry(EventKind::EnrollmentUnproven)?,
            activated: (
                entry(EventKind::EnrollmentActivated)?,
                audit::event(now, EventKind::EnrollmentActivated, &target, &details)?,
            ),
            ended: audit::event(
                now,
                EventKind::EnrollmentEnded,
                "",
                &serde_json::json!({ "reason": REENROLLED }),
            )?,
        };
        let site = proven.site;
        let decided = self.store.write(Scope::Site(site), move |tx| decide(tx, &arrival)).await?;
        match decided {
            Decided::Arrived(state) => {
                if state == EnrollmentState::Active {
                    self.welcome(site, id).await;
                }
                Ok(())
            }
            Decided::Forbidden(reason) => Err(Refused::Forbidden(reason)),
        }
    }
}

fn decide(tx: &mut Tx<'_>, arrival: &Arrival) -> Result<Decided, Error> {
    let identity = tx.identity(arrival.identity.id)?.ok_or(Error::NotFound("identity"))?;
    if matches!(identity.state, IdentityState::Revoked | IdentityState::Replaced) {
        return Ok(Decided::Forbidden(format!("identity {} is {}", identity.id, identity.state)));
    }
    if identity.enrollment_id.is_some() {
        // Another session of the same PC was faster.
        return Ok(Decided::Arrived(EnrollmentState::Pending));
    }
    let Some(invitation) = identity.invitation_id else {
        // Rule (e).
        return Ok(Decided::Forbidden(format!("identity {} came without an invitation", identity.id)));
    };
    let invitation = tx.invitation(invitation)?.ok_or(Error::NotFound("invitation"))?;
    if invitation.state != InvitationState::Open || invitation.expires_at.plus(ARRIVAL) <= arrival.now {
        return Ok(Decided::Forbidden(format!("invitation {} is no longer open", invitation.id)));
    }
    if let Some(id) = invitation.created_by.strip_prefix(BY_ACCOUNT).and_then(|id| id.parse().ok()) {
        let account = tx.enrollment_account(id)?.filter(|account| account.revoked_at.is_none());
        let Some(account) = account else {
            return Ok(Decided::Forbidden(format!(
                "the account behind invitation {} was taken back",
                invitation.id
            )));
        };
        // An attempt that is over has given its place to another.
        if invitation.expires_at <= arrival.now
            && tx.enrollment_account_used(id, arrival.now)? >= i64::from(account.cap)
        {
            return Ok(Decided::Forbidden(format!(
                "the account behind invitation {} has enrolled all its devices",
                invitation.id
            )));
        }
    }
    // The same for a person of Entra ID: what ended is not counted any more when others ask.
    if invitation.created_by.starts_with(BY_ENTRA)
        && invitation.expires_at <= arrival.now
        && let Some(person) = invitation.person_id
        && entra_devices(tx, person, arrival.now)? >= arrival.person_cap
    {
        return Ok(Decided::Forbidden(format!(
            "the person behind invitation {} has enrolled as many devices as they may",
            invitation.id
        )));
    }
    let existing = tx.device_by_hardware(Platform::Windows, &arrival.hardware_id)?;
    if let (Some(bound), found) = (invitation.device_id, &existing)
        && found.as_ref().map(|d| d.id) != Some(bound)
    {
        return Ok(Decided::Forbidden(format!("invitation {} is for another device", invitation.id)));
    }
    let Some(device) = existing else {
        let device = described(new_device(arrival, &invitation, None), &arrival.claims);
        tx.device_insert(&device)?;
        return begin(tx, arrival, identity, invitation, &device, 1, EnrollmentState::Active);
    };
    let old = tx.living_enrollment(device.id)?;
    let before = match old.as_ref().and_then(|old| old.invitation_id) {
        Some(id) => tx.invitation(id)?,
        None => None,
    };
    if old.as_ref().is_some_and(|old| !may_follow(old, before.as_ref(), &invitation, &device, &identity)) {
        // Rule (d): hardware hashes are claims, and those of cloned machines are the same.
        let claimant = described(new_device(arrival, &invitation, Some(device.id)), &arrival.claims);
        tx.device_insert(&claimant)?;
        return begin(tx, arrival, identity, invitation, &claimant, 1, EnrollmentState::Unproven);
    }
    if let Some(old) = old {
        let mut event = arrival.ended.clone();
        event.subject = format!("enrollment:{}", old.id);
        enrolling::end(tx, old, arrival.now, REENROLLED)?;
        tx.event_append(&event)?;
    }
    let epoch = tx.next_epoch(device.id)?;
    let mut device = described(device, &arrival.claims);
    if invitation.ownership != Ownership::Unknown {
        device.ownership = invitation.ownership;
    }
    tx.device_update(&device)?;
    begin(tx, arrival, identity, invitation, &device, epoch, EnrollmentState::Active)
}

/// What counts against the bound of a person of Entra ID: the devices they have, however those were enrolled, and the
/// tokens that may still become one.
pub(super) fn entra_devices(tx: &mut Tx<'_>, person: PersonId, now: Timestamp) -> Result<i64, Error> {
    Ok(tx.person_enrollments(person)? + tx.person_invitations(person, BY_ENTRA, now)?)
}

/// Rule (c). A PC that enrolls again has lost its older identity: one that still calls after the new certificate was
/// issued belongs to another machine with the same hardware hash. `before` is the invitation of the old enrollment.
fn may_follow(
    old: &Enrollment,
    before: Option<&Invitation>,
    invitation: &Invitation,
    device: &Device,
    identity: &Identity,
) -> bool {
    let still_calls = old.last_seen_at.is_some_and(|seen| seen > identity.issued_at);
    let same_person = old.person_id.is_some() && old.person_id == invitation.person_id;
    !still_calls
        && (same_person && is_of_person(before, invitation)
            || invitation.device_id == Some(device.id)
            || old.invitation_id == Some(invitation.id))
}

/// Whether the person of an invitation says enough about who comes with it to take the place of an enrollment of the
/// same person.
///
/// A code does: an admin made it for that person. The password of an account does not: whoever has it can claim to be
/// any PC of its person. A token of Entra ID proves who comes, and says nothing about who came before: what the person
/// had before the directory named them was enrolled by whoever had a code for that name, and who was adopted because of
/// the name may be its next owner. So it must have been the directory's word both times; then it is the same directory
/// id, because a person's never changes. Everything else waits for an admin (rule d).
fn is_of_person(before: Option<&Invitation>, invitation: &Invitation) -> bool {
    let by_entra = |invitation: &Invitation| invitation.created_by.starts_with(BY_ENTRA);
    !invitation.created_by.starts_with(BY_ACCOUNT) && (!by_entra(invitation) || before.is_some_and(by_entra))
}

fn begin(
    tx: &mut Tx<'_>,
    arrival: &Arrival,
    mut identity: Identity,
    mut invitation: Invitation,
    device: &Device,
    epoch: i32,
    state: EnrollmentState,
) -> Result<Decided, Error> {
    let now = arrival.now;
    let enrollment = Enrollment {
        id: arrival.new_enrollment,
        device_id: device.id,
        epoch,
        platform: Platform::Windows,
        state,
        user_enrollment: false,
        invitation_id: Some(invitation.id),
        person_id: invitation.person_id,
        identity_id: identity.id,
        staged_identity_id: None,
        topic: None,
        test_only: invitation.test_only,
        awaiting_configuration: false,
        started_at: now,
        activated_at: Some(now),
        ended_at: None,
        end_reason: None,
        last_seen_at: Some(now),
    };
    tx.enrollment_insert(&enrollment)?;
    identity.state = IdentityState::Live;
    identity.enrollment_id = Some(enrollment.id);
    tx.identity_update(&identity)?;
    let enabled = state == EnrollmentState::Active;
    let [device_channel, user_channel] = arrival.channels;
    tx.channel_insert(&channel(device_channel, enrollment.id, ChannelKind::Device, None, enabled))?;
    if arrival.user.is_some() {
        let user = match invitation.person_id {
            Some(id) => tx.person(id)?.map(|person| person.account),
            None => None,
        };
        let user = user.or_else(|| arrival.user.clone());
        tx.channel_insert(&channel(user_channel, enrollment.id, ChannelKind::User, user, enabled))?;
    }
    invitation.state = InvitationState::Activated;
    invitation.closed_at = Some(now);
    invitation.enrollment_id = Some(enrollment.id);
    tx.invitation_update(&invitation)?;
    enrolling::close_attempts(tx, invitation.id, identity.challenge_id, now, "the invitation was used")?;
    tx.facts_put(device.id, &facts(&arrival.claims, now))?;
    if enabled {
        enrolling::retire_earlier(tx, &enrollment, now)?;
        tx.audit_append(&arrival.started)?;
        tx.audit_append(&arrival.activated.0)?;
        tx.event_append(&arrival.activated.1)?;
    } else {
        tx.audit_append(&arrival.unproven)?;
    }
    Ok(Decided::Arrived(state))
}

fn channel(
    id: ChannelId,
    enrollment_id: EnrollmentId,
    kind: ChannelKind,
    user: Option<String>,
    enabled: bool,
) -> Channel {
    Channel {
        id,
        enrollment_id,
        kind,
        user_key: user.clone().unwrap_or_default(),
        user_name: user,
        enabled,
        push_token: None,
        push_magic: None,
        push_dead: false,
        last_seq: 0,
        token_updates: 0,
        last_was_not_now: false,
        wake_due_at: None,
        wake_attempts: 0,
        woken_at: None,
        wake_note: None,
    }
}

fn new_device(arrival: &Arrival, invitation: &Invitation, claims: Option<DeviceId>) -> Device {
    Device {
        id: arrival.new_device,
        platform: Platform::Windows,
        hardware_id: arrival.hardware_id.clone(),
        claims_device_id: claims,
        serial: None,
        product: None,
        model: None,
        name: None,
        os_version: None,
        os_build: None,
        supervised: None,
        ownership: invitation.ownership,
        created_at: arrival.now,
    }
}

/// What the PC said of itself; absent values keep what is known.
fn described(mut device: Device, claims: &Claims) -> Device {
    let take = |field: &mut Option<String>, said: &Option<String>| {
        if said.is_some() {
            field.clone_from(said);
        }
    };
    take(&mut device.serial, &claims.serial);
    take(&mut device.product, &claims.manufacturer);
    take(&mut device.model, &claims.model);
    take(&mut device.name, &claims.name);
    take(&mut device.os_version, &claims.os_version);
    device
}

fn facts(claims: &Claims, now: Timestamp) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |key: &str, value: serde_json::Value| {
        facts.push(Fact { key: key.to_owned(), value, reported_at: now });
    };
    if let Some(edition) = claims.os_edition {
        fact("os.edition-number", edition.into());
    }
    if let Some(manufacturer) = &claims.manufacturer {
        fact("manufacturer", manufacturer.clone().into());
    }
    if !claims.macs.is_empty() {
        fact("network.mac-addresses", claims.macs.clone().into());
    }
    if let Some(locale) = &claims.locale {
        fact("locale", locale.clone().into());
    }
    facts
}
