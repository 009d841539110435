//! Who is calling: possession of a device key, proven before anything of the body is believed.

use super::{AppleRequest, Refused};
use crate::error::Error;
use crate::{Engine, audit};
use bellwether_apple::ChannelIds;
use bellwether_certs::{cms, hash};
use bellwether_model::device::IdentityState;
use bellwether_model::time::{DAY, MINUTE};
use bellwether_model::{Actor, EnrollmentState, EventKind, SiteId};
use bellwether_store::Scope;
use bellwether_store::records::{Device, Enrollment, Identity};
use secrecy::ExposeSecret as _;

/// An expired identity is still heard for so long: a device that lay in a drawer can only be given a new one over the
/// channel that the old one proves.
const EXPIRED_GRACE: i64 = 30 * DAY;
/// Commands of an ended enrollment that are swept up in one transaction.
const LEFTOVER: i64 = 400;
/// A new enrollment that has not finished after so long has failed.
const ENROLLING_TAKES: i64 = 10 * MINUTE;
/// Refusals that are audited per minute: from one source, and from all of them (an IPv6 client has many addresses).
const AUDITED_REFUSALS: i32 = 20;
const ALL_AUDITED_REFUSALS: i32 = 200;

/// A certificate of ours whose key signed this request. Not yet a device.
pub(super) struct Proven {
    pub site: SiteId,
    pub identity: Identity,
    /// The enrollment it belongs to, and that one's device.
    pub enrollment: Option<(Enrollment, Device)>,
}

/// An enrollment that proved itself in this request: the only key to a queue.
pub(super) struct Authenticated {
    pub site: SiteId,
    pub identity: Identity,
    pub enrollment: Enrollment,
    pub device: Device,
}

impl Authenticated {
    /// Its enrollment ended with its word that it erases itself.
    pub(super) fn was_wiped(&self) -> bool {
        self.enrollment.state == EnrollmentState::Ended
            && self.identity.state == IdentityState::Live
            && self
                .enrollment
                .end_reason
                .as_deref()
                .is_some_and(|why| [super::answers::WIPED, super::answers::LEFT].contains(&why))
    }
}

impl Engine {
    pub(super) async fn identify(
        &self,
        request: &AppleRequest,
        site: &mut SiteId,
    ) -> Result<Proven, Refused> {
        let signer = match &request.signature {
            Some(header) => {
                let cms = cms::decode_mdm_signature_header(header.expose_secret())
                    .map_err(|e| Refused::Malformed(format!("Mdm-Signature: {e}")))?;
                let signer = cms::verify_detached(&cms, &request.body)
                    .map_err(|e| Refused::Malformed(format!("Mdm-Signature: {e}")))?;
                Some(signer)
            }
            None => None,
        };
        if self.settings.apple_require_client_certificate && request.tls_certificate.is_none() {
            return Err(Refused::Malformed("no client certificate, and this server requires one".into()));
        }
        let certificate = match (&signer, &request.tls_certificate) {
            (Some(signer), Some(tls)) if signer.cert_der != *tls => {
                return Err(Refused::Forbidden("signature and TLS show different certificates".into()));
            }
            (Some(signer), _) => &signer.cert_der,
            (None, Some(tls)) => tls,
            (None, None) => {
                return Err(Refused::Malformed("no Mdm-Signature and no client certificate".into()));
            }
        };
        let fingerprint = hash::sha256(certificate);
        let known = self
            .store
            .read(Scope::System, move |tx| tx.known_identity(&fingerprint).map_err(Error::from))
            .await?
            .ok_or_else(|| Refused::Forbidden("the certificate was not issued by this server".into()))?;
        *site = known.site_id;
        let identity = known.identity;
        let now = self.now();
        match identity.state {
            IdentityState::Revoked | IdentityState::Replaced => {
                return Err(Refused::Forbidden(format!("identity {} is {}", identity.id, identity.state)));
            }
            IdentityState::Issued | IdentityState::Live | IdentityState::Staged => {}
        }
        if identity.not_after.plus(EXPIRED_GRACE) <= now {
            return Err(Refused::Forbidden(format!("identity {} expired long ago", identity.id)));
        }
        let enrollment = match (known.enrollment, known.device) {
            (Some(enrollment), Some(device)) => Some((enrollment, device)),
            (Some(enrollment), None) => {
                return Err(Error::Internal(format!("enrollment {} has no device", enrollment.id)).into());
            }
            (None, _) => None,
        };
        Ok(Proven { site: known.site_id, identity, enrollment })
    }

    /// The enrollment behind a proven identity, if it is the one that the body speaks for.
    pub(super) async fn authenticated(
        &self,
        proven: Proven,
        ids: &ChannelIds,
    ) -> Result<Authenticated, Refused> {
        let Proven { site, identity, enrollment } = proven;
        let (enrollment, device) = enrollment.ok_or_else(|| {
            Refused::Forbidden(format!("identity {} has not authenticated yet", identity.id))
        })?;
        let mine = match identity.state {
            IdentityState::Live => enrollment.identity_id == identity.id,
            IdentityState::Staged => enrollment.staged_identity_id == Some(identity.id),
            // Issued for this very enrollment: a renewal, by the old key at SCEP or by our profile. Its next request may
            // simply carry the new certificate, without an Authenticate.
            IdentityState::Issued => true,
            IdentityState::Replaced | IdentityState::Revoked => false,
        };
        if !mine {
            return Err(Refused::Forbidden(format!(
                "identity {} ({}) is not the one pinned to enrollment {}",
                identity.id, identity.state, enrollment.id
            )));
        }
        if device.hardware_id != ids.device.as_str() {
            return Err(Refused::Forbidden(format!(
                "the identity of enrollment {} was used in the name of another device",
                enrollment.id
            )));
        }
        self.note_seen(site, enrollment.id);
        Ok(Authenticated { site, identity, enrollment, device })
    }

    /// An authenticated enrollment that may be given commands and secrets.
    pub(super) async fn commanded(&self, proven: Proven, ids: &ChannelIds) -> Result<Authenticated, Refused> {
        let caller = self.authenticated(proven, ids).await?;
        self.commandable(caller).await
    }

    pub(super) async fn commandable(&self, mut caller: Authenticated) -> Result<Authenticated, Refused> {
        match caller.enrollment.state {
            EnrollmentState::Active | EnrollmentState::Unproven => {}
            state => {
                return Err(Refused::Forbidden(format!("enrollment {} is {state}", caller.enrollment.id)));
            }
        }
        if matches!(caller.identity.state, IdentityState::Issued | IdentityState::Staged) {
            caller = self.adopt_renewed(caller).await?;
        }
        Ok(caller)
    }

    /// A renewed identity asks for commands: now it is the live one, and the old one is done. Not earlier: an installer
    /// may still roll back after its TokenUpdate and go on with the old identity.
    async fn adopt_renewed(&self, mut caller: Authenticated) -> Result<Authenticated, Refused> {
        let now = self.now();
        let (enrollment, identity) = (caller.enrollment.id, caller.identity.id);
        let entry = audit::entry(
            now,
            &Self::device_actor(enrollment),
            EventKind::IdentityRenewed,
            &format!("identity:{identity}"),
            None,
            None,
        )?;
        let (enrollment, identity) = self
            .store
            .write(Scope::Site(caller.site), move |tx| {
                let mut row = tx.enrollment(enrollment)?.ok_or(Error::NotFound("enrollment"))?;
                let mut new = tx.identity(identity)?.ok_or(Error::NotFound("identity"))?;
                if matches!(new.state, IdentityState::Issued | IdentityState::Staged)
                    && row.state != EnrollmentState::Ended
                {
                    crate::enrolling::replace_identity(tx, &mut row, &mut new)?;
                    tx.audit_append(&entry)?;
                }
                Ok::<_, Error>((row, new))
            })
            .await?;
        caller.enrollment = enrollment;
        caller.identity = identity;
        Ok(caller)
    }

    /// A device that acknowledged a wipe and still calls with the same identity was not wiped. Losing it would be
    /// worse: it is taken back, so that it can be wiped again. Only a call for the next command may lead here: its last
    /// word again, because our answer was lost, is no sign of life.
    pub(super) async fn revive_unwiped(&self, mut caller: Authenticated) -> Result<Authenticated, Refused> {
        if !caller.was_wiped() {
            return Ok(caller);
        }
        let now = self.now();
        let id = caller.enrollment.id;
        let entry = audit::entry(
            now,
            &Self::device_actor(id),
            EventKind::EnrollmentActivated,
            &format!("enrollment:{id}"),
            None,
            Some(
                serde_json::json!({ "reason": "it said its last word and still calls: it was not erased, or has not left" }),
            ),
        )?;
        caller.enrollment = self
            .store
            .write(Scope::Site(caller.site), move |tx| {
                let mut row = tx.enrollment(id)?.ok_or(Error::NotFound("enrollment"))?;
                if row.state == EnrollmentState::Ended && tx.living_enrollment(row.device_id)?.is_none() {
                    // What a large queue still held when the enrollment ended stays ended.
                    if tx.supersede_commands(id, now, "the enrollment had ended", LEFTOVER)? > 0 {
                        // A chunk at a time; the device calls again.
                        return Ok::<_, Error>(row);
                    }
                    row.state = EnrollmentState::Active;
                    row.ended_at = None;
                    row.end_reason = None;
                    tx.enrollment_update(&row)?;
                    for mut channel in tx.channels(id)? {
                        channel.enabled = channel.push_token.is_some();
                        tx.channel_update(&channel)?;
                    }
                    tx.audit_append(&entry)?;
                }
                Ok::<_, Error>(row)
            })
            .await?;
        Ok(caller)
    }

    /// A device that began a new enrollment, never finished it and calls with its earlier identity has kept its earlier
    /// profile: it is taken back. While the new enrollment may still be under way it is told to come back later.
    pub(super) async fn revive_kept(&self, mut caller: Authenticated) -> Result<Authenticated, Refused> {
        let over = &caller.enrollment;
        let kept = over.state == EnrollmentState::Ended
            && caller.identity.state == IdentityState::Live
            && over.end_reason.as_deref() == Some(crate::enrolling::REENROLLED);
        if !kept {
            return Ok(caller);
        }
        let now = self.now();
        let id = over.id;
        let entry = audit::entry(
            now,
            &Self::device_actor(id),
            EventKind::EnrollmentActivated,
            &format!("enrollment:{id}"),
            None,
            Some(
                serde_json::json!({ "reason": "it began to enroll again, did not finish, and kept this enrollment" }),
            ),
        )?;
        let revived = self
            .store
            .write(Scope::Site(caller.site), move |tx| {
                let mut row = tx.enrollment(id)?.ok_or(Error::NotFound("enrollment"))?;
                match tx.living_enrollment(row.device_id)? {
                    Some(new) if new.state != EnrollmentState::Pending => return Ok::<_, Error>(Some(row)),
                    Some(new) if now.since(new.started_at) < ENROLLING_TAKES => return Ok(None),
                    Some(new) => {
                        crate::enrolling::end(tx, new, now, "the device kept its earlier enrollment")?;
                    }
                    None => {}
                }
                if tx.supersede_commands(id, now, "the enrollment had ended", LEFTOVER)? > 0 {
                    return Ok(None);
                }
                row.state = EnrollmentState::Active;
                row.ended_at = None;
                row.end_reason = None;
                tx.enrollment_update(&row)?;
                for mut channel in tx.channels(id)? {
                    channel.enabled = channel.push_token.is_some();
                    tx.channel_update(&channel)?;
                }
                tx.audit_append(&entry)?;
                Ok(Some(row))
            })
            .await?;
        match revived {
            Some(row) => {
                caller.enrollment = row;
                Ok(caller)
            }
            None => Err(Refused::Status(503, format!("enrollment {id} is being replaced"))),
        }
    }

    /// A refused device request is an audit entry; a flood of them is not a flood of entries.
    pub(crate) async fn note_device_refusal(
        &self,
        dialect: &'static str,
        site: SiteId,
        status: u16,
        reason: &str,
        source: Option<&str>,
    ) {
        tracing::info!(dialect, status, reason, source, "device request refused");
        let now = self.now();
        let bucket = format!("device-refused:{}", source.unwrap_or("unknown"));
        let details = serde_json::json!({ "status": status, "reason": reason });
        let Ok(entry) =
            audit::entry(now, &Actor::Anonymous, EventKind::DeviceRefused, dialect, source, Some(details))
        else {
            return;
        };
        let written = self
            .store
            .write(Scope::Site(site), move |tx| {
                if tx.rate_bump(&bucket, now, MINUTE)? <= AUDITED_REFUSALS
                    && tx.rate_bump("device-refused:*", now, MINUTE)? <= ALL_AUDITED_REFUSALS
                {
                    tx.audit_append(&entry)?;
                }
                Ok::<_, Error>(())
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(%error, "a refusal could not be audited");
        }
    }

    pub(crate) fn note_seen(&self, site: SiteId, enrollment: bellwether_model::EnrollmentId) {
        let now = self.now();
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert((site, enrollment), now);
    }
}
