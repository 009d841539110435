//! Certificates that devices use elsewhere (Wi-Fi, VPN): offered in a session, issued over SCEP.
//!
//! They come from the same CA and template as identities and are none: they are recorded in a table that nothing asks
//! who a device is (AT-01, AT-09).

use super::{Claim, Refused, USED, check_subject, is_retry, refuse};
use crate::authorities::LoadedAuthority;
use crate::error::Error;
use crate::invitations::MintedChallenge;
use crate::vault::new_uuid;
use crate::{Engine, audit};
use bellwether_certs::hash::{Digest, hex};
use bellwether_model::device::{CertificateState, ChallengePurpose, ChallengeState};
use bellwether_model::time::DAY;
use bellwether_model::{CertificateId, ChallengeId, DeviceId, EnrollmentState, EventKind, SiteId, Timestamp};
use bellwether_scep::FailInfo;
use bellwether_scep::server::Request;
use bellwether_store::records::{AuditEntry, Certificate, Challenge, Enrollment};
use bellwether_store::{Scope, Tx};
use secrecy::SecretString;

/// How long a device may fetch the certificate after it was told to.
pub(crate) const CHALLENGE_LIFE: i64 = DAY;

/// What a device needs to fetch a certificate.
pub(crate) struct CertificateOffer {
    /// The SCEP server.
    pub url: String,
    /// Its CA: SHA-1 of the certificate, hexadecimal.
    pub ca_sha1: String,
    /// The common name that the certificate will have.
    pub common_name: String,
    /// The device has one under this name.
    pub renews: bool,
    /// In clear, for the device.
    pub secret: SecretString,
    /// To be stored with the first hand-over.
    pub challenge: Challenge,
}

impl Engine {
    /// Mints what an enrollment needs to fetch one certificate. It works once its challenge was inserted.
    pub(crate) async fn offer_certificate(
        &self,
        site: SiteId,
        enrollment: &Enrollment,
        requested: &str,
    ) -> Result<CertificateOffer, Error> {
        let authority = self.issuing_authority(site).await?;
        let (id, now) = (enrollment.id, self.now());
        let earlier = self
            .store
            .read(Scope::Site(site), move |tx| tx.certificates_of_enrollment(id).map_err(Error::from))
            .await?;
        let until = now.plus(CHALLENGE_LIFE);
        let MintedChallenge { mut row, secret } =
            self.new_challenge(ChallengePurpose::Certificate, None, Some(id), now, until)?;
        row.requested = Some(requested.to_owned());
        Ok(CertificateOffer {
            url: format!("{}/scep/{}", self.settings.public_url, authority.id),
            ca_sha1: hex(&Digest::Sha1.of(authority.ca.cert_der())),
            common_name: common_name(enrollment.device_id),
            renews: earlier.iter().any(|known| known.requested == requested),
            secret,
            challenge: row,
        })
    }

    /// PKCSReq with a challenge for a certificate.
    pub(super) async fn issue_certificate(
        &self,
        authority: &LoadedAuthority,
        request: &Request,
        challenge: &Challenge,
        source: Option<&str>,
    ) -> Result<Vec<u8>, Refused> {
        let (Some(enrollment), Some(requested)) = (challenge.enrollment_id, &challenge.requested) else {
            return refuse(FailInfo::BadRequest, "the challenge leads nowhere");
        };
        let row = self
            .store
            .read(Scope::Site(authority.site), move |tx| tx.enrollment(enrollment).map_err(Error::from))
            .await?
            .ok_or(Error::NotFound("enrollment"))?;
        let name = common_name(row.device_id);
        check_subject(request, &name)?;
        let now = self.now();
        // The template is that of identities; what becomes of it is not.
        let made = self.make_identity(authority, request, &name, now)?;
        let new = Certificate {
            id: CertificateId(new_uuid(now)?),
            authority_id: made.authority_id,
            serial: made.serial,
            fingerprint: made.fingerprint,
            certificate: made.certificate,
            enrollment_id: enrollment,
            challenge_id: challenge.id,
            requested: requested.clone(),
            common_name: name,
            not_before: made.not_before,
            not_after: made.not_after,
            state: CertificateState::Issued,
            issued_at: now,
            revoked_at: None,
            revoked_reason: None,
        };
        let entry = certificate_entry(&new, row.device_id, now, source)?;
        let (id, csr_hash) = (challenge.id, request.csr.sha256);
        let outcome = self
            .store
            .write(Scope::Site(authority.site), move |tx| claim(tx, id, &csr_hash, &new, &entry, now))
            .await?;
        match outcome {
            Claim::Issued(der) => Ok(der),
            Claim::Refused(info, reason) => refuse(info, reason),
        }
    }
}

/// The subject: who manages the network finds the device by it.
fn common_name(device: DeviceId) -> String {
    device.to_string()
}

/// The one transaction in which a challenge becomes a certificate that is no identity (AT-06).
fn claim(
    tx: &mut Tx<'_>,
    id: ChallengeId,
    csr_hash: &[u8],
    new: &Certificate,
    entry: &AuditEntry,
    now: Timestamp,
) -> Result<Claim, Error> {
    let mut challenge = tx.challenge(id)?.ok_or(Error::NotFound("challenge"))?;
    if let Some(again) = is_retry(&challenge, csr_hash) {
        if !again {
            return Ok(USED);
        }
        return Ok(match tx.certificate_of_challenge(id)? {
            Some(known) if known.state == CertificateState::Issued => Claim::Issued(known.certificate),
            _ => Claim::Refused(FailInfo::BadCertId, "the certificate of this challenge was revoked"),
        });
    }
    if challenge.state != ChallengeState::Open || challenge.expires_at <= now {
        return Ok(Claim::Refused(FailInfo::BadTime, "the challenge has expired or was taken back"));
    }
    let row = tx.enrollment(new.enrollment_id)?.ok_or(Error::NotFound("enrollment"))?;
    if row.state != EnrollmentState::Active || common_name(row.device_id) != new.common_name {
        return Ok(Claim::Refused(
            FailInfo::BadCertId,
            "the enrollment that the challenge was made for is over",
        ));
    }
    tx.certificate_insert(new)?;
    challenge.state = ChallengeState::Bound;
    challenge.csr_hash = Some(csr_hash.to_vec());
    tx.challenge_update(&challenge)?;
    tx.audit_append(entry)?;
    Ok(Claim::Issued(new.certificate.clone()))
}

/// The frozen bytes are handed over again: the device gets the whole time anew, unless it was there already.
pub(crate) fn prolong(tx: &mut Tx<'_>, id: ChallengeId, until: Timestamp) -> Result<(), Error> {
    if let Some(mut challenge) = tx.challenge(id)?
        && challenge.state == ChallengeState::Open
    {
        challenge.expires_at = until;
        tx.challenge_update(&challenge)?;
    }
    Ok(())
}

fn certificate_entry(
    certificate: &Certificate,
    device: DeviceId,
    now: Timestamp,
    source: Option<&str>,
) -> Result<AuditEntry, Error> {
    let details = serde_json::json!({
        "device": device, "requested": certificate.requested, "serial": certificate.serial,
        "not_after": certificate.not_after,
    });
    audit::entry(
        now,
        &Engine::device_actor(certificate.enrollment_id),
        EventKind::CertificateIssued,
        &format!("certificate:{}", certificate.id),
        source,
        Some(details),
    )
}
