//! Renewal without a person (ROBO): the old key vouches for the new one (MS-MDE2 3.4.4.1.1.2, MS-WSTEP 3.1.4.1.2.7).
//!
//! The old certificate stays good until the PC is seen with the new one: the answer can be lost.

use super::credential::refused;
use super::enroll::wire_certificate;
use super::fault;
use crate::error::Error;
use crate::scep::{issued_entry, new_identity};
use crate::{Engine, enrolling};
use bellwether_certs::csr::Csr;
use bellwether_certs::{cms, csr, hash};
use bellwether_model::device::IdentityState;
use bellwether_model::time::DAY;
use bellwether_model::{Actor, EnrollmentState, Platform, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::{CommandFilter, Identity, KnownIdentity, Page};
use bellwether_windows::enrollment::provisioning::{KeyStore, ProviderId, Provisioning, RenewedIdentity};
use bellwether_windows::enrollment::{Fault, Opaque, Subcode};

/// A PC may renew so long before the end; it is told to begin at 60 days.
const WINDOW: i64 = 61 * DAY;
/// How long after it was told to renew now.
const TOLD: i64 = 7 * DAY;

impl Engine {
    /// `RequestSecurityToken … /Renew`.
    pub(super) async fn renewed_pc(
        &self,
        signed: &[u8],
        tls: Option<&[u8]>,
        source: Option<&str>,
    ) -> Result<Opaque, Fault> {
        let signed = signed.to_vec();
        let opened = tokio::task::spawn_blocking(move || {
            let (inner, signer) = cms::verify_attached(&signed)?;
            Ok::<_, bellwether_certs::Error>((csr::parse(&inner), signer))
        })
        .await
        .map_err(|_| fault(Subcode::InternalServiceFault, "the request could not be read"))?;
        let (request, signer) =
            opened.map_err(|e| fault(Subcode::MessageFormat, format!("the signed request: {e}")))?;
        if tls.is_some_and(|tls| tls != signer.cert_der) {
            return Err(fault(Subcode::Authentication, "signature and TLS show different certificates"));
        }
        let fingerprint = hash::sha256(&signer.cert_der);
        let known = self
            .store
            .read(Scope::System, move |tx| tx.known_identity(&fingerprint).map_err(Error::from))
            .await
            .map_err(refused)?
            .ok_or_else(|| {
                fault(Subcode::MessageFormat, "the request is signed by a certificate that is not ours")
            })?;
        let now = self.now();
        self.may_renew(&known, now).await?;
        let request = request
            .map_err(|e| fault(Subcode::CertificateRequest, format!("the certificate request: {e}")))?;
        let identity = self.renewal_recorded(&known, &request, now, source).await?;
        self.renewal_document(&known, &identity).await.map_err(refused)
    }

    async fn may_renew(&self, known: &KnownIdentity, now: Timestamp) -> Result<(), Fault> {
        let old = &known.identity;
        if matches!(old.state, IdentityState::Revoked | IdentityState::Replaced) {
            return Err(fault(
                Subcode::Authorization,
                format!("the certificate to be renewed is {}", old.state),
            ));
        }
        let Some(enrollment) = known.enrollment.as_ref().filter(|e| e.platform == Platform::Windows) else {
            return Err(fault(Subcode::Authorization, "the certificate belongs to no enrolled PC"));
        };
        if enrollment.state != EnrollmentState::Active || enrollment.identity_id != old.id {
            return Err(fault(Subcode::Authorization, "the enrollment of this certificate is over"));
        }
        let told = self.was_told_to_renew(known, now).await?;
        // An expired one only when it was told to in a session, which hears it for 30 more days.
        if old.not_after <= now && !(told && now < old.not_after.plus(super::identify::EXPIRED_GRACE)) {
            return Err(fault(Subcode::MessageFormat, "the certificate to be renewed has expired"));
        }
        if old.not_after.plus(-WINDOW) <= now || told {
            return Ok(());
        }
        Err(Fault::not_eligible_to_renew(""))
    }

    /// Whether an administrator, or this server, asked the PC to renew now.
    async fn was_told_to_renew(&self, known: &KnownIdentity, now: Timestamp) -> Result<bool, Fault> {
        let Some(enrollment) = &known.enrollment else { return Ok(false) };
        let filter = CommandFilter { device_id: Some(enrollment.device_id), ..CommandFilter::default() };
        let recent = self
            .store
            .read(Scope::Site(known.site_id), move |tx| {
                tx.commands(&filter, &Page { after: None, limit: 200 }).map_err(Error::from)
            })
            .await
            .map_err(refused)?;
        Ok(recent.iter().any(|command| {
            command.kind == "renew-identity"
                && command.enrollment_id == enrollment.id
                && command.first_sent_at.is_some_and(|at| now.since(at) < TOLD)
        }))
    }

    async fn renewal_recorded(
        &self,
        known: &KnownIdentity,
        request: &Csr,
        now: Timestamp,
        source: Option<&str>,
    ) -> Result<Identity, Fault> {
        let old = known.identity.clone();
        let Some(enrollment) = known.enrollment.as_ref().map(|e| e.id) else {
            return Err(fault(Subcode::Authorization, "the certificate belongs to no enrolled PC"));
        };
        let authority = self.issuing_authority(known.site_id).await.map_err(refused)?;
        let mut new =
            new_identity(&authority, &request.spki_der, &old.common_name, now).map_err(|e| match e {
                Error::Certs(e @ bellwether_certs::Error::Key { .. }) => {
                    fault(Subcode::CertificateRequest, e.to_string())
                }
                other => refused(other),
            })?;
        new.enrollment_id = Some(enrollment);
        let actor = Actor::Device(enrollment.to_string());
        let entry = issued_entry(&new, &actor, now, source).map_err(refused)?;
        let issued = self
            .store
            .write(Scope::Site(known.site_id), move |tx| {
                enrolling::record_renewal(tx, enrollment, old.id, &new, &entry, now)
            })
            .await
            .map_err(refused)?;
        issued.ok_or_else(|| {
            fault(Subcode::Authorization, "the certificate to be renewed is no longer the pinned one")
        })
    }

    async fn renewal_document(&self, known: &KnownIdentity, identity: &Identity) -> Result<Opaque, Error> {
        let (site, old) = (known.site_id, known.identity.id);
        let states = self
            .store
            .read(Scope::Site(site), move |tx| tx.protocol_states(old).map_err(Error::from))
            .await?;
        let account = self
            .account_of(site, old, &states, &[])
            .map_err(|_| Error::Internal(format!("identity {old} has no account")))?
            .value;
        let made = || -> Result<Opaque, bellwether_windows::enrollment::Error> {
            Provisioning::Renewal(RenewedIdentity {
                root: None,
                identity: wire_certificate(&identity.certificate)?,
                store: if account.system_store { KeyStore::System } else { KeyStore::User },
                provider_id: ProviderId::parse(&account.provider)?,
            })
            .encode()
        };
        made().map_err(|e| Error::Internal(format!("the provisioning document: {e}")))
    }
}
