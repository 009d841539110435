//! The other check-in messages.

use super::identify::{Authenticated, Proven};
use super::{AppleReply, Refused};
use crate::error::Error;
use crate::vault::new_uuid;
use crate::{Engine, audit, enrolling};
use bellwether_apple::checkin::{CheckIn, Endpoint, Message, SetBootstrapToken, TokenUpdate};
use bellwether_apple::command::ReturnToService;
use bellwether_apple::{Channel as WireChannel, ChannelIds, reply};
use bellwether_model::{
    ChannelId, ChannelKind, EnrollmentId, EnrollmentState, EventKind, Intent, InvitationState, SiteId,
    Timestamp,
};
use bellwether_store::records::{Channel, Escrow};
use bellwether_store::{Scope, Tx};
use secrecy::ExposeSecret as _;

pub(crate) const UNLOCK_TOKEN: &str = "unlock-token";
pub(crate) const BOOTSTRAP_TOKEN: &str = "bootstrap-token";

/// The channel that a message names.
pub(super) fn channel_key(ids: &ChannelIds) -> (ChannelKind, String) {
    match &ids.channel {
        WireChannel::Device => (ChannelKind::Device, String::new()),
        WireChannel::User { user_id } => (ChannelKind::User, user_id.clone()),
        WireChannel::SharedIpad { short_name } => (ChannelKind::User, short_name.clone()),
    }
}

impl Engine {
    pub(super) async fn check_in(
        &self,
        proven: Proven,
        message: CheckIn,
        source: Option<&str>,
    ) -> Result<AppleReply, Refused> {
        let ids = message.ids;
        match message.message {
            Message::Authenticate(authenticate) => {
                if ids.channel != WireChannel::Device {
                    return Err(Refused::Malformed("Authenticate in the name of a user".into()));
                }
                self.authenticate(proven, ids, authenticate, source).await
            }
            Message::TokenUpdate(update) => self.token_update(proven, ids, update).await,
            Message::CheckOut(_) => self.check_out(proven, ids).await,
            // 410 declines directory users for this login; Macs with local users never ask (spec/apple.md 2.6).
            Message::UserAuthenticate(_) => {
                self.commanded(proven, &ids).await?;
                Err(Refused::Status(410, "network users are not managed".into()))
            }
            Message::SetBootstrapToken(_) | Message::GetBootstrapToken(_)
                if ids.channel != WireChannel::Device =>
            {
                Err(Refused::Malformed("a bootstrap token in the name of a user".into()))
            }
            Message::SetBootstrapToken(message) => {
                let caller = self.commanded(proven, &ids).await?;
                self.set_bootstrap_token(caller, message).await
            }
            Message::GetBootstrapToken(_) => {
                let caller = self.commanded(proven, &ids).await?;
                self.get_bootstrap_token(caller).await
            }
            Message::DeclarativeManagement(message) => {
                self.commanded(proven, &ids).await?;
                // This server has not turned declarative management on for anybody; a device that brings it from
                // elsewhere drops its declarations on 404.
                match message.endpoint() {
                    Some(Endpoint::Status) => Ok(AppleReply::empty()),
                    _ => Err(Refused::Status(404, "no declarations".into())),
                }
            }
            Message::GetToken(message) => {
                self.commanded(proven, &ids).await?;
                Err(Refused::Malformed(format!("no token service {:?}", message.service_type)))
            }
            Message::ReturnToService => {
                self.commanded(proven, &ids).await?;
                // Without a policy the answer is no: an unconfigured server never wipes a device.
                let no = ReturnToService { enabled: false, ..Default::default() };
                Ok(AppleReply::plist(encode(reply::return_to_service(&no))?))
            }
            other => Err(Refused::Malformed(format!("{} is not served", other.message_type()))),
        }
    }

    async fn token_update(
        &self,
        proven: Proven,
        ids: ChannelIds,
        update: TokenUpdate,
    ) -> Result<AppleReply, Refused> {
        let caller = self.authenticated(proven, &ids).await?;
        if caller.enrollment.state == EnrollmentState::Ended {
            return Err(Refused::Forbidden(format!(
                "enrollment {} is over; a TokenUpdate cannot revive it",
                caller.enrollment.id
            )));
        }
        let now = self.now();
        let (site, id) = (caller.site, caller.enrollment.id);
        let (kind, user_key) = channel_key(&ids);
        let channel = ChannelId(new_uuid(now)?);
        let place = format!("{id}/{kind}/{user_key}");
        let seal =
            |field: &str, plain: &[u8]| self.vault.seal(site, "channel", place.as_bytes(), field, plain);
        let arrival = TokenArrival {
            now,
            enrollment: id,
            identity: caller.identity.id,
            kind,
            user_key,
            new_channel: channel,
            token: seal("push-token", &update.token)?,
            magic: seal("push-magic", update.push_magic.expose())?,
            unlock: match &update.unlock_token {
                Some(token) => {
                    Some(self.vault.seal(site, "enrollment", id.as_bytes(), UNLOCK_TOKEN, token.expose())?)
                }
                None => None,
            },
            awaiting: update.awaiting_configuration,
            user_name: update.user_short_name.clone().or_else(|| update.user_long_name.clone()),
            has_token: !update.token.is_empty(),
        };
        let entry = audit::entry(
            now,
            &Self::device_actor(id),
            EventKind::EnrollmentActivated,
            &format!("enrollment:{id}"),
            None,
            None,
        )?;
        let event = audit::event(
            now,
            EventKind::EnrollmentActivated,
            &format!("enrollment:{id}"),
            &serde_json::json!({
                "device": caller.device.id, "serial": caller.device.serial, "hardware_id": caller.device.hardware_id,
            }),
        )?;
        let activated = self
            .store
            .write(Scope::Site(site), move |tx| {
                let activated = accept_token(tx, &arrival)?;
                if activated == Some(true) {
                    tx.audit_append(&entry)?;
                    tx.event_append(&event)?;
                }
                Ok::<_, Error>(activated)
            })
            .await?;
        let Some(activated) = activated else {
            return Err(Refused::Forbidden(format!("enrollment {id} ended in the meantime")));
        };
        if activated {
            self.welcome(site, id).await;
        }
        if update.awaiting_configuration == Some(true) && kind == ChannelKind::Device {
            // With every such TokenUpdate: the first word may have been lost with the server.
            self.release_from_setup(site, id).await;
        }
        Ok(AppleReply::empty())
    }

    /// The word that lets Setup Assistant go on; once, however often it is asked for.
    pub(crate) async fn release_from_setup(&self, site: SiteId, enrollment: EnrollmentId) {
        let configured = bellwether_apple::command::Command::DeviceConfigured;
        let queued = match configured.encode("00000000-0000-0000-0000-000000000000") {
            Ok(payload) => {
                let key = Some("device-configured".to_owned());
                self.queue_for_enrollment(site, enrollment, Intent::Raw { payload }, key).await
            }
            Err(error) => Err(Error::Internal(error.to_string())),
        };
        if let Err(error) = queued {
            tracing::warn!(%error, %enrollment, "DeviceConfigured was not queued");
        }
    }

    async fn check_out(&self, proven: Proven, ids: ChannelIds) -> Result<AppleReply, Refused> {
        let caller = self.authenticated(proven, &ids).await?;
        let now = self.now();
        let id = caller.enrollment.id;
        let (kind, user_key) = channel_key(&ids);
        let why = "the device checked out";
        let entry = audit::entry(
            now,
            &Self::device_actor(id),
            EventKind::EnrollmentEnded,
            &format!("enrollment:{id}"),
            None,
            Some(serde_json::json!({ "reason": why })),
        )?;
        let event = audit::event(
            now,
            EventKind::EnrollmentEnded,
            &format!("enrollment:{id}"),
            &serde_json::json!({ "reason": why, "device": caller.device.id, "serial": caller.device.serial }),
        )?;
        let rules = self.rules;
        self.store
            .write(Scope::Site(caller.site), move |tx| {
                if kind == ChannelKind::User {
                    // Only that user leaves.
                    if let Some(mut channel) = tx.channel_find(id, kind, &user_key)? {
                        channel.enabled = false;
                        tx.channel_update(&channel)?;
                    }
                    return Ok::<_, Error>(());
                }
                let enrollment = tx.enrollment(id)?.ok_or(Error::NotFound("enrollment"))?;
                if enrollment.state == EnrollmentState::Ended {
                    return Ok(());
                }
                enrolling::settle_unenroll(tx, &enrollment, now, &rules)?;
                enrolling::end(tx, enrollment, now, why)?;
                tx.audit_append(&entry)?;
                tx.event_append(&event)?;
                Ok(())
            })
            .await?;
        Ok(AppleReply::empty())
    }

    async fn set_bootstrap_token(
        &self,
        caller: Authenticated,
        message: SetBootstrapToken,
    ) -> Result<AppleReply, Refused> {
        let id = caller.enrollment.id;
        let token = message.token.as_ref().map_or(&[][..], |t| t.expose());
        // An empty value stands for "forgotten": the row stays, so that its age tells when.
        let value = self.vault.seal(caller.site, "enrollment", id.as_bytes(), BOOTSTRAP_TOKEN, token)?;
        let row = Escrow { enrollment_id: id, field: BOOTSTRAP_TOKEN.into(), value, stored_at: self.now() };
        self.store
            .write(Scope::Site(caller.site), move |tx| tx.escrow_put(&row).map_err(Error::from))
            .await?;
        Ok(AppleReply::empty())
    }

    async fn get_bootstrap_token(&self, caller: Authenticated) -> Result<AppleReply, Refused> {
        let id = caller.enrollment.id;
        // An unproven enrollment gets no secret of the device it claims to be: escrow belongs to the enrollment.
        let row = self
            .store
            .read(Scope::Site(caller.site), move |tx| tx.escrow(id, BOOTSTRAP_TOKEN).map_err(Error::from))
            .await?;
        let token = match row {
            Some(row) => {
                let opened =
                    self.vault.open(caller.site, "enrollment", id.as_bytes(), BOOTSTRAP_TOKEN, &row.value)?;
                (!opened.expose_secret().is_empty()).then_some(opened)
            }
            None => None,
        };
        let body = reply::bootstrap_token(token.as_ref().map(|t| t.expose_secret().as_slice()));
        Ok(AppleReply::plist(encode(body)?))
    }
}

struct TokenArrival {
    now: Timestamp,
    enrollment: EnrollmentId,
    identity: bellwether_model::IdentityId,
    kind: ChannelKind,
    user_key: String,
    new_channel: ChannelId,
    token: Vec<u8>,
    magic: Vec<u8>,
    unlock: Option<Vec<u8>>,
    awaiting: Option<bool>,
    user_name: Option<String>,
    has_token: bool,
}

/// Stores a TokenUpdate; whether it activated the enrollment, `None` when that is over. It may come only once, so it is never lost: whatever
/// else is wrong, token and magic are stored.
fn accept_token(tx: &mut Tx<'_>, arrival: &TokenArrival) -> Result<Option<bool>, Error> {
    let mut enrollment = tx.enrollment(arrival.enrollment)?.ok_or(Error::NotFound("enrollment"))?;
    if enrollment.state == EnrollmentState::Ended {
        return Ok(None);
    }
    let identity = tx.identity(arrival.identity)?.ok_or(Error::NotFound("identity"))?;
    let first = arrival.kind == ChannelKind::Device && enrollment.activated_at.is_none();
    if first {
        enrollment.activated_at = Some(arrival.now);
        if enrollment.state == EnrollmentState::Pending {
            enrollment.state = EnrollmentState::Active;
        }
        if let Some(id) = enrollment.invitation_id
            && let Some(mut invitation) = tx.invitation(id)?
            && invitation.state == InvitationState::Open
        {
            invitation.state = InvitationState::Activated;
            invitation.closed_at = Some(arrival.now);
            invitation.enrollment_id = Some(enrollment.id);
            tx.invitation_update(&invitation)?;
            enrolling::close_attempts(tx, id, identity.challenge_id, arrival.now, "the invitation was used")?;
        }
        if enrollment.state == EnrollmentState::Active {
            enrolling::retire_earlier(tx, &enrollment, arrival.now)?;
        }
    }
    if let Some(awaiting) = arrival.awaiting {
        enrollment.awaiting_configuration = awaiting;
    }
    tx.enrollment_update(&enrollment)?;
    if let Some(unlock) = &arrival.unlock
        && arrival.kind == ChannelKind::Device
    {
        tx.escrow_put(&Escrow {
            enrollment_id: enrollment.id,
            field: UNLOCK_TOKEN.into(),
            value: unlock.clone(),
            stored_at: arrival.now,
        })?;
    }
    let enabled = enrollment.state == EnrollmentState::Active;
    match tx.channel_find(enrollment.id, arrival.kind, &arrival.user_key)? {
        Some(mut channel) => {
            channel.push_token = Some(arrival.token.clone());
            channel.push_magic = Some(arrival.magic.clone());
            channel.push_dead = !arrival.has_token;
            channel.enabled = enabled;
            channel.token_updates = channel.token_updates.saturating_add(1);
            if arrival.user_name.is_some() {
                channel.user_name.clone_from(&arrival.user_name);
            }
            tx.channel_update(&channel)?;
            // What was queued while the old token was dead asked for no wake; the new one can be woken.
            if !enrollment.test_only && channel.wake_due_at.is_none() && tx.pending_count(channel.id)? > 0 {
                tx.wake_request(channel.id, arrival.now)?;
            }
        }
        None => tx.channel_insert(&Channel {
            id: arrival.new_channel,
            enrollment_id: enrollment.id,
            kind: arrival.kind,
            user_key: arrival.user_key.clone(),
            user_name: arrival.user_name.clone(),
            enabled,
            push_token: Some(arrival.token.clone()),
            push_magic: Some(arrival.magic.clone()),
            push_dead: !arrival.has_token,
            last_seq: 0,
            token_updates: 1,
            last_was_not_now: false,
            wake_due_at: None,
            wake_attempts: 0,
            woken_at: None,
            wake_note: None,
        })?,
    }
    Ok(Some(first && enabled))
}

fn encode(body: Result<Vec<u8>, bellwether_apple::Error>) -> Result<Vec<u8>, Error> {
    body.map_err(|e| Error::Internal(format!("encoding a reply: {e}")))
}
