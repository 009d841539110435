//! `Authenticate`: the five cases of re-enrollment (ARCHITECTURE, rules a to e), decided in one transaction.

use super::Refused;
use super::identify::Proven;
use crate::enrolling::REENROLLED;
use crate::error::Error;
use crate::vault::new_uuid;
use crate::{AppleReply, Engine, audit, enrolling};
use bellwether_apple::checkin::Authenticate;
use bellwether_apple::{ChannelIds, EnrollmentKind};
use bellwether_model::device::IdentityState;
use bellwether_model::{
    DeviceId, EnrollmentId, EnrollmentState, EventKind, InvitationId, InvitationState, Ownership, Platform,
    Timestamp,
};
use bellwether_store::records::{AuditEntry, Device, Enrollment, Event, Identity, Invitation};
use bellwether_store::{Scope, Tx};

/// Everything the transaction needs, made before it.
struct Arrival {
    now: Timestamp,
    ids: ChannelIds,
    message: Authenticate,
    identity: Identity,
    new_device: DeviceId,
    new_enrollment: EnrollmentId,
    started: AuditEntry,
    unproven: AuditEntry,
    ended: Event,
}

enum Decided {
    Ok,
    Forbidden(String),
}

impl Engine {
    pub(super) async fn authenticate(
        &self,
        proven: Proven,
        ids: ChannelIds,
        message: Authenticate,
        source: Option<&str>,
    ) -> Result<AppleReply, Refused> {
        let now = self.now();
        self.check_topic(&proven, &message.topic).await?;
        let new_enrollment = EnrollmentId(new_uuid(now)?);
        let actor = Self::device_actor(new_enrollment);
        let target = format!("enrollment:{new_enrollment}");
        let details = serde_json::json!({
            "hardware_id": ids.device.as_str(), "serial": message.serial_number, "product": message.product_name,
            "os": message.os_version,
        });
        let arrival = Arrival {
            now,
            new_device: DeviceId(new_uuid(now)?),
            new_enrollment,
            started: audit::entry(
                now,
                &actor,
                EventKind::EnrollmentStarted,
                &target,
                source,
                Some(details.clone()),
            )?,
            unproven: audit::entry(
                now,
                &actor,
                EventKind::EnrollmentUnproven,
                &target,
                source,
                Some(details),
            )?,
            ended: audit::event(
                now,
                EventKind::EnrollmentEnded,
                "",
                &serde_json::json!({ "reason": REENROLLED }),
            )?,
            ids,
            message,
            identity: proven.identity,
        };
        let decided = self.store.write(Scope::Site(proven.site), move |tx| decide(tx, &arrival)).await?;
        match decided {
            Decided::Ok => Ok(AppleReply::empty()),
            Decided::Forbidden(reason) => Err(Refused::Forbidden(reason)),
        }
    }

    /// The topic must be one of this server's: an enrollment to another could never be woken, and no profile of ours
    /// carries one.
    async fn check_topic(&self, proven: &Proven, topic: &str) -> Result<(), Refused> {
        let topic = topic.to_owned();
        let ours = topic == self.test_topic().await?
            || self
                .store
                .read(Scope::Site(proven.site), {
                    let topic = topic.clone();
                    move |tx| tx.push_cert(&topic).map_err(Error::from)
                })
                .await?
                .is_some();
        if ours {
            Ok(())
        } else {
            Err(Refused::Malformed(format!("the topic {topic:?} is not one of this server's")))
        }
    }
}

fn decide(tx: &mut Tx<'_>, arrival: &Arrival) -> Result<Decided, Error> {
    // Read again: another request may have revoked or bound it since.
    let identity = tx.identity(arrival.identity.id)?.ok_or(Error::NotFound("identity"))?;
    if matches!(identity.state, IdentityState::Revoked | IdentityState::Replaced) {
        return Ok(Decided::Forbidden(format!("identity {} is {}", identity.id, identity.state)));
    }
    match identity.enrollment_id {
        Some(id) => {
            let enrollment = tx.enrollment(id)?.ok_or(Error::NotFound("enrollment"))?;
            known(tx, arrival, identity, enrollment)
        }
        None => match identity.invitation_id {
            Some(invitation) => {
                let row = tx.invitation(invitation)?.ok_or(Error::NotFound("invitation"))?;
                if row.state != InvitationState::Open || row.expires_at <= arrival.now {
                    return Ok(Decided::Forbidden(format!("invitation {invitation} is no longer open")));
                }
                newcomer(tx, arrival, identity, row)
            }
            // Rule (e): no invitation. Queue, escrow and pin of whatever it claims to be stay untouched.
            None => Ok(Decided::Forbidden(format!("identity {} came without an invitation", identity.id))),
        },
    }
}

/// Rules (a) and (b): the certificate already belongs to an enrollment.
fn known(
    tx: &mut Tx<'_>,
    arrival: &Arrival,
    mut identity: Identity,
    mut enrollment: Enrollment,
) -> Result<Decided, Error> {
    let device = tx.device(enrollment.device_id)?.ok_or(Error::NotFound("device"))?;
    if device.hardware_id != arrival.ids.device.as_str() {
        return Ok(Decided::Forbidden(format!(
            "the identity of enrollment {} was used in the name of another device",
            enrollment.id
        )));
    }
    if enrollment.state == EnrollmentState::Ended {
        return Ok(Decided::Forbidden(format!(
            "enrollment {} is over; it needs a new invitation",
            enrollment.id
        )));
    }
    if enrollment.identity_id == identity.id {
        // Rule (a): a retry. Nothing changes but what the device says of itself.
        tx.device_update(&described(device, &arrival.message))?;
        return Ok(Decided::Ok);
    }
    // Rule (b): a renewal that this server asked for. Staged until its TokenUpdate: the old identity stays good.
    identity.state = IdentityState::Staged;
    tx.identity_update(&identity)?;
    enrollment.staged_identity_id = Some(identity.id);
    tx.enrollment_update(&enrollment)?;
    tx.device_update(&described(device, &arrival.message))?;
    Ok(Decided::Ok)
}

/// Rules (c) and (d): a fresh invitation.
fn newcomer(
    tx: &mut Tx<'_>,
    arrival: &Arrival,
    identity: Identity,
    invitation: Invitation,
) -> Result<Decided, Error> {
    let hardware = arrival.ids.device.as_str();
    let existing = tx.device_by_hardware(Platform::Apple, hardware)?;
    if let (Some(bound), found) = (invitation.device_id, &existing)
        && found.as_ref().map(|d| d.id) != Some(bound)
    {
        return Ok(Decided::Forbidden(format!("invitation {} is for another device", invitation.id)));
    }
    let Some(device) = existing else {
        let device = described(new_device(arrival, &invitation, None), &arrival.message);
        tx.device_insert(&device)?;
        return begin(tx, arrival, identity, &invitation, &device, 1, EnrollmentState::Pending);
    };
    let old = tx.living_enrollment(device.id)?;
    let may_follow = match &old {
        None => true,
        Some(old) => {
            let same_person = old.person_id.is_some() && old.person_id == invitation.person_id;
            // A pending enrollment of the same invitation is an earlier attempt of the same person.
            same_person || invitation.device_id == Some(device.id) || old.invitation_id == Some(invitation.id)
        }
    };
    if !may_follow {
        // Rule (d): somebody else's invitation while the old enrollment is alive. A serial number is a claim.
        let claimant = described(new_device(arrival, &invitation, Some(device.id)), &arrival.message);
        tx.device_insert(&claimant)?;
        return begin(tx, arrival, identity, &invitation, &claimant, 1, EnrollmentState::Unproven);
    }
    if let Some(old) = old {
        // Its identities stay until the new enrollment is activated: if that fails, the device keeps its old profile
        // and calls with it (`revive_kept`).
        let mut event = arrival.ended.clone();
        event.subject = format!("enrollment:{}", old.id);
        enrolling::end(tx, old, arrival.now, REENROLLED)?;
        tx.event_append(&event)?;
    }
    let epoch = tx.next_epoch(device.id)?;
    let mut device = described(device, &arrival.message);
    if invitation.ownership != Ownership::Unknown {
        device.ownership = invitation.ownership;
    }
    tx.device_update(&device)?;
    begin(tx, arrival, identity, &invitation, &device, epoch, EnrollmentState::Pending)
}

fn begin(
    tx: &mut Tx<'_>,
    arrival: &Arrival,
    mut identity: Identity,
    invitation: &Invitation,
    device: &Device,
    epoch: i32,
    state: EnrollmentState,
) -> Result<Decided, Error> {
    let enrollment = Enrollment {
        id: arrival.new_enrollment,
        device_id: device.id,
        epoch,
        platform: Platform::Apple,
        state,
        user_enrollment: arrival.ids.device.kind() == EnrollmentKind::User,
        invitation_id: Some(invitation.id),
        person_id: invitation.person_id,
        identity_id: identity.id,
        staged_identity_id: None,
        topic: Some(arrival.message.topic.clone()),
        test_only: invitation.test_only,
        awaiting_configuration: false,
        started_at: arrival.now,
        activated_at: None,
        ended_at: None,
        end_reason: None,
        last_seen_at: Some(arrival.now),
    };
    tx.enrollment_insert(&enrollment)?;
    identity.state = IdentityState::Live;
    identity.enrollment_id = Some(enrollment.id);
    tx.identity_update(&identity)?;
    link_invitation(tx, invitation.id, enrollment.id)?;
    tx.audit_append(if state == EnrollmentState::Unproven { &arrival.unproven } else { &arrival.started })?;
    Ok(Decided::Ok)
}

fn link_invitation(tx: &mut Tx<'_>, invitation: InvitationId, enrollment: EnrollmentId) -> Result<(), Error> {
    let mut row = tx.invitation(invitation)?.ok_or(Error::NotFound("invitation"))?;
    row.enrollment_id = Some(enrollment);
    Ok(tx.invitation_update(&row)?)
}

fn new_device(arrival: &Arrival, invitation: &Invitation, claims: Option<DeviceId>) -> Device {
    Device {
        id: arrival.new_device,
        platform: Platform::Apple,
        hardware_id: arrival.ids.device.as_str().to_owned(),
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

/// What `Authenticate` says of the device; absent fields keep what is known.
fn described(mut device: Device, message: &Authenticate) -> Device {
    let take = |field: &mut Option<String>, said: &Option<String>| {
        if let Some(said) = said {
            *field = Some(said.clone());
        }
    };
    take(&mut device.serial, &message.serial_number);
    take(&mut device.product, &message.product_name);
    take(&mut device.model, &message.model_name);
    take(&mut device.name, &message.device_name);
    // A version that is none keeps the known one: commands that depend on it go on (AT-70).
    let version = message.os_version.clone().filter(|v| bellwether_apple::Version::parse(v).is_some());
    take(&mut device.os_version, &version);
    take(&mut device.os_build, &message.build_version);
    device
}
