//! Issuing identities, and certificates that are none, over SCEP: the CA's policy.
//!
//! Sign, record durably, then answer: a device must never hold a certificate that the server does not know. Of the
//! request only the public key is taken; a request that asks for more than that is refused, not corrected.

mod certificates;

pub(crate) use certificates::{CHALLENGE_LIFE, CertificateOffer, prolong};

use crate::authorities::LoadedAuthority;
use crate::error::Error;
use crate::invitations::common_name;
use crate::vault::new_uuid;
use crate::{Engine, audit, enrolling};
use bellwether_certs::cert::CertInfo;
use bellwether_certs::hash::random_bytes;
use bellwether_model::device::{ChallengePurpose, ChallengeState, IdentityState};
use bellwether_model::{
    Actor, AuthorityId, EnrollmentState, EventKind, IdentityId, InvitationState, SiteId, Timestamp,
};
use bellwether_scep::server::{self, Request, SignedBy, Undecodable};
use bellwether_scep::{FailInfo, MessageType};
use bellwether_store::records::{AuditEntry, Challenge, Identity};
use bellwether_store::{Scope, Tx};
use secrecy::ExposeSecret as _;

/// Refusals that are written to the audit, per minute: from one source, and from all of them (an IPv6 client has many
/// addresses). The rest is only counted.
const AUDITED_REFUSALS: i32 = 20;
const ALL_AUDITED_REFUSALS: i32 = 200;
/// What is kept of a name that a refused request asked for.
const KEPT_NAME: usize = 64;

/// Why nothing was issued: what the device is told, and what the audit says.
struct Refusal {
    info: FailInfo,
    reason: String,
}

fn refuse<T>(info: FailInfo, reason: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::No(Refusal { info, reason: reason.into() }))
}

/// A refusal (answered as a signed CertRep) or a fault of ours (answered as an HTTP error, so that the device tries
/// again).
enum Refused {
    No(Refusal),
    Fault(Error),
}

impl From<Error> for Refused {
    fn from(value: Error) -> Self {
        Self::Fault(value)
    }
}

impl From<bellwether_store::StoreError> for Refused {
    fn from(value: bellwether_store::StoreError) -> Self {
        Self::Fault(value.into())
    }
}

impl From<bellwether_certs::Error> for Refused {
    fn from(value: bellwether_certs::Error) -> Self {
        Self::Fault(value.into())
    }
}

impl Engine {
    /// One `PKIOperation`. The answer is always a signed CertRep; [`Error::Invalid`] means that the bytes were no SCEP
    /// message at all (HTTP 400).
    pub async fn scep_operation(
        &self,
        id: AuthorityId,
        message: Vec<u8>,
        source: Option<String>,
    ) -> Result<Vec<u8>, Error> {
        let authority = self.authority(id).await?;
        let loaded = authority.clone();
        // RSA decryption and, for a first request, RSA verification: off the listeners' threads.
        let decoded = tokio::task::spawn_blocking(move || {
            server::decode(&message, loaded.ca.cert_der(), loaded.ca.key())
        })
        .await
        .map_err(|e| Error::Internal(format!("decoding a SCEP message: {e}")))?;
        let (cert, key) = (authority.ca.cert_der(), authority.ca.key());
        let request = match decoded {
            Ok(request) => request,
            Err(Undecodable::WithContext { context, fail_info, reason }) => {
                self.note_refusal(authority.site, &reason, None, source.as_deref()).await;
                return server::failure(&context, fail_info, cert, key, random_bytes::<16>()?)
                    .map_err(scep_error);
            }
            Err(e) => return Err(Error::Invalid(e.to_string())),
        };
        let issued = match request.message_type {
            MessageType::RenewalReq => self.renew(&authority, &request, source.as_deref()).await,
            _ => self.issue(&authority, &request, source.as_deref()).await,
        };
        match issued {
            Ok(der) => server::success(&request, &der, cert, key, random_bytes::<16>()?).map_err(scep_error),
            Err(Refused::No(refusal)) => {
                let name = request.csr.subject_cn.as_deref();
                self.note_refusal(authority.site, &refusal.reason, name, source.as_deref()).await;
                server::failure(&request.context, refusal.info, cert, key, random_bytes::<16>()?)
                    .map_err(scep_error)
            }
            Err(Refused::Fault(error)) => Err(error),
        }
    }

    /// PKCSReq: a challenge buys one certificate for the first key that brings it.
    async fn issue(
        &self,
        authority: &LoadedAuthority,
        request: &Request,
        source: Option<&str>,
    ) -> Result<Vec<u8>, Refused> {
        if request.signed_by != SignedBy::RequestKey {
            return refuse(
                FailInfo::BadRequest,
                "a first request must be signed by the key it asks a certificate for",
            );
        }
        let Some(secret) = request.csr.challenge_password.as_ref() else {
            return refuse(FailInfo::BadRequest, "the request has no challenge");
        };
        check_wishes(request)?;
        let hash = self.vault.code_hash("challenge", secret.expose_secret());
        let found = self
            .store
            .read(Scope::System, move |tx| tx.challenge_by_hash(&hash).map_err(Error::from))
            .await?;
        let Some((site, challenge)) = found.filter(|(site, _)| *site == authority.site) else {
            return refuse(FailInfo::BadRequest, "the challenge is unknown");
        };
        if challenge.purpose == ChallengePurpose::Certificate {
            return self.issue_certificate(authority, request, &challenge, source).await;
        }
        let name = common_name(challenge.id);
        check_subject(request, &name)?;
        let now = self.now();
        let new = self.make_identity(authority, request, &name, now)?;
        let actor = match challenge.invitation_id {
            Some(id) => Actor::Invitation(id.to_string()),
            None => Actor::Device(challenge.enrollment_id.map(|e| e.to_string()).unwrap_or_default()),
        };
        let entry = issued_entry(&new, &actor, now, source)?;
        let (id, csr_hash) = (challenge.id, request.csr.sha256);
        let outcome = self
            .store
            .write(Scope::Site(site), move |tx| claim(tx, id, &csr_hash, &new, &entry, now))
            .await?;
        match outcome {
            Claim::Issued(der) => Ok(der),
            Claim::Refused(info, reason) => refuse(info, reason),
        }
    }

    /// RenewalReq: the old key vouches for the new one.
    async fn renew(
        &self,
        authority: &LoadedAuthority,
        request: &Request,
        source: Option<&str>,
    ) -> Result<Vec<u8>, Refused> {
        check_wishes(request)?;
        let fingerprint = request.signer.fingerprint;
        let known = self
            .store
            .read(Scope::System, move |tx| tx.known_identity(&fingerprint).map_err(Error::from))
            .await?;
        let Some(known) = known.filter(|k| k.site_id == authority.site) else {
            return refuse(
                FailInfo::BadMessageCheck,
                "the renewal is signed by a certificate that is not ours",
            );
        };
        let now = self.now();
        let old = known.identity;
        let Some(enrollment) = known.enrollment.filter(|e| e.state == EnrollmentState::Active) else {
            return refuse(FailInfo::BadCertId, "the certificate belongs to no living enrollment");
        };
        if old.state != IdentityState::Live || enrollment.identity_id != old.id {
            return refuse(FailInfo::BadCertId, format!("the certificate to be renewed is {}", old.state));
        }
        if old.not_after <= now {
            return refuse(FailInfo::BadTime, "the certificate to be renewed has expired");
        }
        let name = old.common_name.clone();
        if request.csr.subject_cn.as_deref().is_some_and(|cn| !cn.is_empty() && cn != name) {
            return refuse(FailInfo::BadRequest, "a renewal must ask for the subject of the old certificate");
        }
        let mut new = self.make_identity(authority, request, &name, now)?;
        new.enrollment_id = Some(enrollment.id);
        let entry = issued_entry(&new, &Actor::Device(enrollment.id.to_string()), now, source)?;
        let issued = self
            .store
            .write(Scope::Site(authority.site), move |tx| {
                enrolling::record_renewal(tx, enrollment.id, old.id, &new, &entry, now)
            })
            .await?;
        match issued {
            Some(identity) => Ok(identity.certificate),
            None => refuse(FailInfo::BadCertId, "the certificate to be renewed is no longer the pinned one"),
        }
    }

    fn make_identity(
        &self,
        authority: &LoadedAuthority,
        request: &Request,
        name: &str,
        now: Timestamp,
    ) -> Result<Identity, Refused> {
        match new_identity(authority, &request.csr.spki_der, name, now) {
            Ok(identity) => Ok(identity),
            Err(Error::Certs(e @ bellwether_certs::Error::Key { .. })) => {
                refuse(FailInfo::BadAlg, e.to_string())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// A refusal is an audit entry, but a flood of them is not a flood of entries.
    pub(crate) async fn note_refusal(
        &self,
        site: SiteId,
        reason: &str,
        name: Option<&str>,
        source: Option<&str>,
    ) {
        tracing::info!(%site, reason, source, "certificate request refused");
        let now = self.now();
        let bucket = format!("refused:{}", source.unwrap_or("unknown"));
        let name = name.map(|name| name.chars().take(KEPT_NAME).collect::<String>());
        let details = serde_json::json!({ "reason": reason, "asked_for": name });
        let Ok(entry) =
            audit::entry(now, &Actor::Anonymous, EventKind::IdentityRefused, "scep", source, Some(details))
        else {
            return;
        };
        let written = self
            .store
            .write(Scope::Site(site), move |tx| {
                let minute = bellwether_model::time::MINUTE;
                if tx.rate_bump(&bucket, now, minute)? <= AUDITED_REFUSALS
                    && tx.rate_bump("refused:*", now, minute)? <= ALL_AUDITED_REFUSALS
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
}

/// A certificate for a public key, made before the transaction that records it.
pub(crate) fn new_identity(
    authority: &LoadedAuthority,
    spki_der: &[u8],
    name: &str,
    now: Timestamp,
) -> Result<Identity, Error> {
    let der = authority.ca.issue_device(spki_der, name, random_bytes::<16>()?, now.0)?;
    let info = CertInfo::parse(&der)?;
    Ok(Identity {
        id: IdentityId(new_uuid(now)?),
        authority_id: authority.id,
        serial: info.serial.clone(),
        fingerprint: info.fingerprint.to_vec(),
        key_hash: info.spki_sha256.to_vec(),
        certificate: der,
        common_name: name.to_owned(),
        not_before: Timestamp(info.not_before_ms),
        not_after: Timestamp(info.not_after_ms),
        state: IdentityState::Issued,
        challenge_id: None,
        invitation_id: None,
        enrollment_id: None,
        issued_at: now,
        revoked_at: None,
        revoked_reason: None,
    })
}

pub(crate) enum Claim {
    Issued(Vec<u8>),
    Refused(FailInfo, &'static str),
}

/// The answer to another request with a challenge that was used.
const USED: Claim = Claim::Refused(FailInfo::BadRequest, "the challenge was used for another request");

/// Of a challenge that was used: whether this is the very same request. An exact retry gets the recorded certificate,
/// as long as nobody has revoked it; any other request fails. `None`: it was not used.
fn is_retry(challenge: &Challenge, csr_hash: &[u8]) -> Option<bool> {
    (challenge.state == ChallengeState::Bound).then(|| challenge.csr_hash.as_deref() == Some(csr_hash))
}

/// The one transaction in which a challenge becomes a certificate (AT-06).
pub(crate) fn claim(
    tx: &mut Tx<'_>,
    id: bellwether_model::ChallengeId,
    csr_hash: &[u8],
    new: &Identity,
    entry: &AuditEntry,
    now: Timestamp,
) -> Result<Claim, Error> {
    let mut challenge = tx.challenge(id)?.ok_or(Error::NotFound("challenge"))?;
    if let Some(again) = is_retry(&challenge, csr_hash) {
        if !again {
            return Ok(USED);
        }
        let identity = match challenge.identity_id {
            Some(id) => tx.identity(id)?,
            None => None,
        };
        return Ok(match identity {
            Some(i) if i.state != IdentityState::Revoked => Claim::Issued(i.certificate),
            _ => Claim::Refused(FailInfo::BadCertId, "the certificate of this challenge was revoked"),
        });
    }
    if challenge.state != ChallengeState::Open || challenge.expires_at <= now {
        return Ok(Claim::Refused(FailInfo::BadTime, "the challenge has expired or was taken back"));
    }
    match (challenge.purpose, challenge.invitation_id, challenge.enrollment_id) {
        (ChallengePurpose::Enroll, Some(invitation), _) => {
            let row = tx.invitation(invitation)?.ok_or(Error::NotFound("invitation"))?;
            if row.state != InvitationState::Open || row.expires_at <= now {
                return Ok(Claim::Refused(FailInfo::BadTime, "the invitation is no longer open"));
            }
            // A new attempt revokes what earlier attempts got and never activated: exactly one live identity.
            enrolling::close_attempts(tx, invitation, Some(id), now, "replaced by a new attempt")?;
        }
        (ChallengePurpose::Renew, _, Some(enrollment)) => {
            let row = tx.enrollment(enrollment)?.ok_or(Error::NotFound("enrollment"))?;
            if row.state != EnrollmentState::Active {
                return Ok(Claim::Refused(FailInfo::BadCertId, "the enrollment to be renewed is over"));
            }
            for mut earlier in tx.identities_of_enrollment(enrollment)? {
                if earlier.state == IdentityState::Issued {
                    enrolling::revoke(
                        tx,
                        &mut earlier,
                        now,
                        "replaced by a later renewal before it was used",
                    )?;
                }
            }
        }
        _ => return Ok(Claim::Refused(FailInfo::BadRequest, "the challenge leads nowhere")),
    }
    let mut identity = new.clone();
    identity.challenge_id = Some(id);
    identity.invitation_id = challenge.invitation_id;
    identity.enrollment_id = challenge.enrollment_id;
    tx.identity_insert(&identity)?;
    challenge.state = ChallengeState::Bound;
    challenge.csr_hash = Some(csr_hash.to_vec());
    challenge.identity_id = Some(identity.id);
    tx.challenge_update(&challenge)?;
    tx.audit_append(entry)?;
    Ok(Claim::Issued(identity.certificate))
}

/// A request that asks for more than a device identity is refused (AT-09).
fn check_wishes(request: &Request) -> Result<(), Refused> {
    let csr = &request.csr;
    if csr.wants_ca {
        return refuse(FailInfo::BadRequest, "the request asks to become a certificate authority");
    }
    // clientAuth is what it gets anyway.
    if csr.requested_ekus.iter().any(|eku| eku != "1.3.6.1.5.5.7.3.2") {
        return refuse(
            FailInfo::BadRequest,
            "the request asks for another purpose than client authentication",
        );
    }
    if !csr.requested_names.is_empty() {
        return refuse(FailInfo::BadRequest, "the request asks for names of its own choice");
    }
    Ok(())
}

/// The subject is ours; a request may repeat it.
fn check_subject(request: &Request, name: &str) -> Result<(), Refused> {
    if request.csr.subject_cn.as_deref().is_some_and(|cn| !cn.is_empty() && cn != name) {
        return refuse(
            FailInfo::BadRequest,
            "the request names another subject than its challenge was made for",
        );
    }
    Ok(())
}

pub(crate) fn issued_entry(
    identity: &Identity,
    actor: &Actor,
    now: Timestamp,
    source: Option<&str>,
) -> Result<AuditEntry, Error> {
    audit::entry(
        now,
        actor,
        EventKind::IdentityIssued,
        &format!("identity:{}", identity.id),
        source,
        Some(serde_json::json!({ "serial": identity.serial, "not_after": identity.not_after })),
    )
}

fn scep_error(e: bellwether_scep::Error) -> Error {
    Error::Internal(format!("building a SCEP answer: {e}"))
}
