//! Who sends a session's message: possession of a device key, proven before anything of the body is believed.
//!
//! A TLS client certificate, a message signature, or a trusted proxy's word. All that are there must be the same
//! certificate. The digest inside of SyncML comes on top and suffices for nothing.

use super::{Refused, SessionRequest};
use crate::Engine;
use crate::error::Error;
use bellwether_certs::{cms, hash};
use bellwether_model::device::IdentityState;
use bellwether_model::time::DAY;
use bellwether_model::{Platform, SiteId};
use bellwether_store::Scope;
use bellwether_store::records::{Enrollment, Identity};
use secrecy::ExposeSecret as _;

/// An expired identity is still heard for so long: only over the channel that it proves can the PC be told to renew.
pub(super) const EXPIRED_GRACE: i64 = 30 * DAY;

/// A certificate of ours whose key sent this message.
pub(super) struct Proven {
    pub site: SiteId,
    pub identity: Identity,
    pub enrollment: Option<Enrollment>,
}

impl Engine {
    pub(super) async fn identify_pc(
        &self,
        request: &SessionRequest,
        site: &mut SiteId,
    ) -> Result<Proven, Refused> {
        let certificate = shown(request)?;
        let fingerprint = hash::sha256(&certificate);
        let known = self
            .store
            .read(Scope::System, move |tx| tx.known_identity(&fingerprint).map_err(Error::from))
            .await?
            .ok_or_else(|| Refused::Forbidden("the certificate was not issued by this server".into()))?;
        *site = known.site_id;
        let (identity, enrollment) = (known.identity, known.enrollment);
        if matches!(identity.state, IdentityState::Revoked | IdentityState::Replaced) {
            return Err(Refused::Forbidden(format!("identity {} is {}", identity.id, identity.state)));
        }
        if identity.not_after.plus(EXPIRED_GRACE) <= self.now() {
            return Err(Refused::Forbidden(format!("identity {} expired long ago", identity.id)));
        }
        if let Some(enrollment) = &enrollment {
            if enrollment.platform != Platform::Windows {
                return Err(Refused::Forbidden(format!("identity {} is no PC's", identity.id)));
            }
            let mine = match identity.state {
                IdentityState::Live => enrollment.identity_id == identity.id,
                // Issued for the renewal of this very enrollment.
                IdentityState::Issued | IdentityState::Staged => true,
                IdentityState::Replaced | IdentityState::Revoked => false,
            };
            if !mine {
                return Err(Refused::Forbidden(format!(
                    "identity {} ({}) is not the one pinned to enrollment {}",
                    identity.id, identity.state, enrollment.id
                )));
            }
        }
        Ok(Proven { site: known.site_id, identity, enrollment })
    }
}

/// The one certificate that every carrier shows.
fn shown(request: &SessionRequest) -> Result<Vec<u8>, Refused> {
    let mut shown: Option<Vec<u8>> = None;
    if let Some(header) = &request.signature {
        let wrong = |e: bellwether_certs::Error| Refused::Forbidden(format!("message signature: {e}"));
        let cms = cms::decode_mdm_signature_header(header.expose_secret()).map_err(wrong)?;
        shown = Some(cms::verify_detached(&cms, &request.body).map_err(wrong)?.cert_der);
    }
    for carrier in [&request.tls_certificate, &request.proxy_certificate].into_iter().flatten() {
        match &shown {
            Some(other) if other != carrier => {
                return Err(Refused::Forbidden("the request shows two different certificates".into()));
            }
            _ => shown = Some(carrier.clone()),
        }
    }
    shown.ok_or_else(|| Refused::Forbidden("no client certificate and no message signature".into()))
}
