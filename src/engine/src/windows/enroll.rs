//! Discovery, policy, and the first certificate (MS-MDE2 3.1, MS-XCEP, MS-WSTEP).

mod record;

use self::record::{Attempt, Recorded, record_attempt};
use super::account::{ACCOUNT, Account, Claims};
use super::arrive::BY_ENTRA;
use super::credential::{Guest, Way, refused};
use super::entra::EntraUser;
use super::{SoapRequest, WindowsService, fault};
use crate::authorities::LoadedAuthority;
use crate::directory::Named;
use crate::error::Error;
use crate::invitations::{clean_account, common_name};
use crate::scep::{issued_entry, new_identity};
use crate::vault::new_uuid;
use crate::{Engine, audit};
use bellwether_certs::csr;
use bellwether_certs::hash::{Digest, hex, md5, random_bytes};
use bellwether_model::device::{ChallengePurpose, IdentityState};
use bellwether_model::time::HOUR;
use bellwether_model::{
    Actor, ChallengeId, EventKind, InvitationId, InvitationState, Platform, SiteId, Timestamp,
};
use bellwether_store::Scope;
use bellwether_store::records::{AuditEntry, Challenge, Identity, Invitation};
use bellwether_windows::enrollment::provisioning::{
    Account as WireAccount, Certificate, ClientCredential, DmClient, Encoding, Enrollment as WireEnrollment,
    KeyStore, Nonce, Poll, ProviderId, Provisioning, RenewalSchedule, Retry, Scheme, Secret,
    ServerCredential, Subject,
};
use bellwether_windows::enrollment::{
    AuthPolicy, Authentication, Context, DiscoverRequest, DiscoverResponse, EnrollmentPolicy, EnrollmentType,
    Envelope, ErrorType, Fault, IssuedToken, Limits, Message, Opaque, Pkcs10, ReplyHeader, Subcode,
    Timestamp as Window, TokenRequest, Version,
};
use bellwether_windows::syncml::auth::{Nonces, secret_md5};
use secrecy::{ExposeSecret as _, SecretString};

/// Seconds of validity that the policy tells; the certificate itself says it exactly.
const VALIDITY_SECONDS: u64 = 365 * 24 * 3600;
/// When the PC begins to renew, before the end.
const RENEWAL_DAYS: u16 = 60;
const RENEWAL_RETRY_DAYS: u16 = 4;
/// How long an attempt with an enrollment account may take.
const ATTEMPT_LIFE: i64 = HOUR;
/// What a PC says of itself is kept up to so many characters.
const KEPT: usize = 200;

impl Engine {
    pub(super) async fn enrollment_message(
        &self,
        request: SoapRequest,
        header: &mut ReplyHeader,
    ) -> Result<Vec<u8>, Fault> {
        let envelope = Envelope::read(&request.body, &Limits::REQUEST).map_err(|e| e.fault(""))?;
        *header = ReplyHeader::to(envelope.header());
        if let Ok(id) = request.trace_id.parse() {
            *header = header.clone().with_activity(id);
        }
        let message = envelope.message().map_err(|e| e.fault(""))?;
        let source = request.source.as_deref();
        match (request.service, message) {
            (WindowsService::Discovery, Message::Discover(discover)) => self.discovered(&discover, header),
            (WindowsService::Policy, Message::GetPolicies(_)) => {
                let credential = envelope.credential().map_err(|e| e.fault(""))?;
                self.guest(credential, source, false).await?;
                let renewal = u64::from(RENEWAL_DAYS) * 24 * 3600;
                let policy = EnrollmentPolicy::new(VALIDITY_SECONDS, renewal).map_err(|e| e.fault(""))?;
                policy.encode(header).map_err(|e| e.fault(""))
            }
            (WindowsService::Enrollment, Message::RequestSecurityToken(token)) => {
                let window = Window::five_minutes(u64::try_from(self.now().0).unwrap_or_default());
                let document = match token.request {
                    TokenRequest::Issue(csr) => {
                        let credential = envelope.credential().map_err(|e| e.fault(""))?;
                        let guest = self.guest(credential, source, true).await?;
                        self.issued(guest, csr, &token.context, source).await?
                    }
                    TokenRequest::Renew(signed) => {
                        self.renewed_pc(signed.as_der(), request.tls_certificate.as_deref(), source).await?
                    }
                };
                *header = header.clone().with_timestamp(window);
                IssuedToken::new(document).encode(header).map_err(|e| e.fault(""))
            }
            _ => Err(fault(Subcode::MessageFormat, "this message belongs to another service")),
        }
    }

    fn discovered(&self, request: &DiscoverRequest, header: &ReplyHeader) -> Result<Vec<u8>, Fault> {
        let windows = request.device_type.as_deref().is_none_or(|kind| kind == "CIMClient_Windows");
        if !windows {
            return Err(fault(Subcode::Authorization, "this is no kind of device that enrolls here")
                .with_type(ErrorType::DeviceNotSupported));
        }
        let preference = if self.settings.windows.sign_in_page {
            [AuthPolicy::Federated, AuthPolicy::OnPremise]
        } else {
            [AuthPolicy::OnPremise, AuthPolicy::Federated]
        };
        let base = &self.settings.public_url;
        let authentication = match request.choose(&preference) {
            Some(AuthPolicy::Federated) => {
                Authentication::Federated { service_url: format!("{base}/EnrollmentServer/Auth") }
            }
            Some(AuthPolicy::OnPremise) => Authentication::OnPremise,
            _ => return Err(Fault::no_common_policy("")),
        };
        let response = DiscoverResponse {
            authentication,
            enrollment_version: request.request_version.negotiate(Version::V4),
            policy_url: Some(format!("{base}/EnrollmentServer/Policy.svc")),
            enrollment_url: format!("{base}/EnrollmentServer/Enrollment.svc"),
        };
        response.encode(header).map_err(|e| e.fault(""))
    }

    /// A security token for an invitation: an open challenge.
    pub(super) async fn mint_token(
        &self,
        site: SiteId,
        invitation: &Invitation,
        life: i64,
        source: Option<&str>,
    ) -> Result<SecretString, Error> {
        let now = self.now();
        let until = invitation.expires_at.min(now.plus(life));
        let minted = self.new_challenge(ChallengePurpose::Enroll, Some(invitation.id), None, now, until)?;
        let entry = minted_entry(invitation.id, minted.row.id, now, source)?;
        let (id, row) = (invitation.id, minted.row);
        self.store
            .write(Scope::Site(site), move |tx| {
                let current = tx.invitation(id)?.ok_or(Error::NotFound("invitation"))?;
                if current.state != InvitationState::Open {
                    return Err(Error::NotFound("invitation"));
                }
                if tx.challenges_of_invitation(id)?.len() >= crate::invitations::MAX_CHALLENGES {
                    return Err(Error::Conflict(
                        "this invitation was tried too often; ask your administrator for a new one".into(),
                    ));
                }
                tx.challenge_insert(&row)?;
                tx.audit_append(&entry).map_err(Error::from)
            })
            .await?;
        Ok(minted.secret)
    }

    /// `RequestSecurityToken … /Issue`.
    async fn issued(
        &self,
        guest: Guest,
        request: Pkcs10,
        context: &Context,
        source: Option<&str>,
    ) -> Result<Opaque, Fault> {
        let device_id = context.device_id().map_err(|e| e.fault(""))?.ok_or_else(|| {
            fault(Subcode::MessageFormat, "the request has no DeviceID")
                .with_type(ErrorType::InvalidEnrollmentData)
        })?;
        let hw_dev_id = context.hw_dev_id().map_err(|e| e.fault(""))?;
        let kind = context.enrollment_type().map_err(|e| e.fault(""))?;
        if let Way::Entra(user) = &guest.way {
            self.check_terms(user, context.enrollment_data())?;
        }
        let parsed = tokio::task::spawn_blocking(move || csr::parse(request.as_der()))
            .await
            .map_err(|_| fault(Subcode::InternalServiceFault, "the request could not be read"))?
            .map_err(|e| fault(Subcode::CertificateRequest, format!("the certificate request: {e}")))?;
        let claims = claims(context);
        // The hardware hash of cloned machines is the same; with the serial number they can be told apart.
        let hardware = hw_dev_id.as_ref().unwrap_or(&device_id).as_str().to_ascii_uppercase();
        let hardware_id = match &claims.serial {
            Some(serial) if hw_dev_id.is_some() => format!("{hardware}/{serial}"),
            _ => hardware,
        };
        let now = self.now();
        let provider = self.provider_id().await.map_err(refused)?;
        let authority = self.issuing_authority(guest.site).await.map_err(refused)?;
        let (challenge, fresh) = match &guest.way {
            Way::Token(challenge) => (challenge.clone(), false),
            Way::Code(invitation) => {
                (self.open_challenge(Some(invitation.id), invitation.expires_at, now).map_err(refused)?, true)
            }
            Way::Account(_) | Way::Entra(_) => {
                (self.open_challenge(None, now.plus(ATTEMPT_LIFE), now).map_err(refused)?, true)
            }
        };
        let identity = self.certified(&authority, &parsed.spki_der, challenge.id, now).await?;
        let passwords = Passwords::new().map_err(refused)?;
        let login = device_id.as_str().to_owned();
        let account = Account {
            device_id: login.clone(),
            hardware_id: hardware_id.clone(),
            provider: provider.clone(),
            address: format!("{}/ManagementServer/MDM.svc", self.settings.device_url),
            client_secret: secret_md5(&login, passwords.client.expose_secret(), md5),
            server_secret: secret_md5(&provider, passwords.server.expose_secret(), md5),
            nonces: Nonces::new(passwords.client_nonce.to_vec()),
            server_nonce: Some(passwords.server_nonce.to_vec()),
            system_store: kind == EnrollmentType::Device,
            upn: match &guest.way {
                Way::Entra(user) => Some(user.upn.to_lowercase()),
                _ => None,
            },
            claims,
            device_info: None,
            signs: false,
            push_package: None,
        };
        let attempt = Attempt {
            challenge,
            fresh,
            csr_hash: parsed.sha256,
            person: match &guest.way {
                Way::Entra(user) => Some(self.entra_person(user, now, source).map_err(refused)?),
                _ => None,
            },
            person_cap: self.person_cap(),
            known_people_only: self.entra().is_some_and(|entra| entra.known_people_only()),
            account_row: match guest.way {
                Way::Account(account) => Some((account, self.blank_invitation(now).map_err(refused)?)),
                _ => None,
            },
            claim: hardware_id,
            now,
            entry: issued_entry(&identity, &Actor::Anonymous, now, source).map_err(refused)?,
            sealed: self.seal_state(guest.site, identity.id, ACCOUNT, &account).map_err(refused)?,
            identity,
        };
        let identity = self.recorded(guest.site, attempt, &account).await?;
        self.document(&authority, &identity, &account, &passwords, context).map_err(refused)
    }

    async fn certified(
        &self,
        authority: &std::sync::Arc<LoadedAuthority>,
        spki: &[u8],
        challenge: ChallengeId,
        now: Timestamp,
    ) -> Result<Identity, Fault> {
        let (authority, spki) = (authority.clone(), spki.to_vec());
        tokio::task::spawn_blocking(move || new_identity(&authority, &spki, &common_name(challenge), now))
            .await
            .map_err(|_| fault(Subcode::EnrollmentServer, "the certificate could not be issued"))?
            .map_err(|e| match e {
                Error::Certs(e @ bellwether_certs::Error::Key { .. }) => {
                    fault(Subcode::CertificateRequest, e.to_string())
                }
                other => {
                    tracing::error!(error = %other, "a certificate could not be issued");
                    fault(Subcode::EnrollmentServer, "the certificate could not be issued")
                }
            })
    }

    /// The one transaction in which a credential becomes a certificate; the identity that goes out.
    async fn recorded(&self, site: SiteId, attempt: Attempt, account: &Account) -> Result<Identity, Fault> {
        let done = self
            .store
            .write(Scope::Site(site), move |tx| record_attempt(tx, &attempt))
            .await
            .map_err(refused)?;
        match done {
            Recorded::New(identity) => Ok(*identity),
            Recorded::Again(identity) => {
                // The passwords of the lost answer are nowhere: the account gets those of this one.
                let sealed = self.seal_state(site, identity.id, ACCOUNT, account).map_err(refused)?;
                let (id, now) = (identity.id, self.now());
                let stored = self
                    .store
                    .write(Scope::Site(site), move |tx| {
                        // Once a session was opened the passwords are the PC's for good.
                        if tx.identity(id)?.is_none_or(|row| row.state != IdentityState::Issued) {
                            return Ok(false);
                        }
                        let states = tx.protocol_states(id)?;
                        let version = states.iter().find(|row| row.key == ACCOUNT).map(|row| row.version);
                        tx.protocol_state_put(id, ACCOUNT, &sealed, version, now).map_err(Error::from)
                    })
                    .await
                    .map_err(refused)?;
                if !stored {
                    // A document with passwords that nobody stored would lock the PC out.
                    return Err(refused(Error::Conflict("the same request is being answered".into())));
                }
                Ok(*identity)
            }
            Recorded::Refused(reason) => Err(fault(Subcode::Authentication, reason)),
            Recorded::Unknown => Err(fault(
                Subcode::Authorization,
                "nobody has said that you may enroll; ask your administrator",
            )
            .with_type(ErrorType::UserLicense)),
            Recorded::CapReached(reason) => {
                Err(fault(Subcode::Authorization, reason).with_type(ErrorType::DeviceCapReached))
            }
        }
    }

    fn open_challenge(
        &self,
        invitation: Option<InvitationId>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Challenge, Error> {
        // Its secret never leaves: the code is what the PC presents.
        Ok(self.new_challenge(ChallengePurpose::Enroll, invitation, None, now, until)?.row)
    }

    /// An invitation that a credential for more than one device makes for one. Nobody can present its code.
    fn blank_invitation(&self, now: Timestamp) -> Result<Invitation, Error> {
        let nobody = hex(&random_bytes::<32>()?);
        Ok(Invitation {
            id: InvitationId(new_uuid(now)?),
            platform: Platform::Windows,
            person_id: None,
            device_id: None,
            code_hash: self.vault.code_hash("link", &nobody),
            short_hash: None,
            attempts: 0,
            attempt_cap: 0,
            test_only: false,
            unsigned: false,
            ownership: bellwether_model::Ownership::Company,
            state: InvitationState::Open,
            created_at: now,
            created_by: String::new(),
            expires_at: now.plus(ATTEMPT_LIFE),
            closed_at: None,
            enrollment_id: None,
        })
    }

    /// The person that Entra ID named, and the invitation that the token stands for.
    fn entra_person(
        &self,
        user: &EntraUser,
        now: Timestamp,
        source: Option<&str>,
    ) -> Result<(Named, Invitation), Error> {
        let account = clean_account(&user.upn)?;
        let person = Named::new(user.directory_id(), account, user.name.clone(), now, source)?;
        let code_hash = self.vault.code_hash("entra", &hex(&user.token_digest));
        let created_by = format!("{BY_ENTRA}{}", user.tenant);
        Ok((person, Invitation { code_hash, created_by, ..self.blank_invitation(now)? }))
    }

    fn document(
        &self,
        authority: &LoadedAuthority,
        identity: &Identity,
        account: &Account,
        passwords: &Passwords,
        context: &Context,
    ) -> Result<Opaque, Error> {
        let made = || -> Result<Opaque, bellwether_windows::enrollment::Error> {
            let store = if account.system_store { KeyStore::System } else { KeyStore::User };
            let secret = |text: &SecretString| Secret::new(text.expose_secret());
            let nonce = |bytes: &[u8; 16]| Nonce::new(bytes.to_vec());
            Provisioning::Enrollment(Box::new(WireEnrollment {
                root: Some(wire_certificate(authority.ca.cert_der())?),
                intermediate: None,
                identity: wire_certificate(&identity.certificate)?,
                store,
                renewal: Some(RenewalSchedule { period_days: RENEWAL_DAYS, retry_days: RENEWAL_RETRY_DAYS }),
                account: WireAccount {
                    provider_id: ProviderId::parse(&account.provider)?,
                    name: self.settings.organization.clone(),
                    address: account.address.clone(),
                    retry: Retry::default(),
                    encoding: Encoding::Xml,
                    subject: Subject::common_name(&identity.common_name)?,
                    role: None,
                    server: ServerCredential {
                        secret: secret(&passwords.server)?,
                        nonce: nonce(&passwords.server_nonce)?,
                    },
                    client: ClientCredential {
                        scheme: Scheme::Digest,
                        name: account.device_id.clone(),
                        secret: secret(&passwords.client)?,
                        nonce: nonce(&passwords.client_nonce)?,
                    },
                },
                client: DmClient {
                    ent_dm_id: identity.id.to_string(),
                    upn: account.upn.clone(),
                    // What XML allows and a document does not, such as U+0085, must not keep a PC out.
                    ent_device_name: context
                        .device_name()
                        .and_then(kept)
                        .map(|name| name.chars().take(63).collect()),
                    sync_application_version: None,
                    require_message_signing: false,
                    poll: Poll::AFTER_ENROLLMENT,
                },
            }))
            .encode()
        };
        made().map_err(|e| Error::Internal(format!("the provisioning document: {e}")))
    }
}

/// What the provisioning document tells and the server keeps digests of only.
struct Passwords {
    client: SecretString,
    server: SecretString,
    client_nonce: [u8; 16],
    server_nonce: [u8; 16],
}

impl Passwords {
    fn new() -> Result<Self, Error> {
        let password =
            || -> Result<SecretString, Error> { Ok(SecretString::from(hex(&random_bytes::<20>()?))) };
        Ok(Self {
            client: password()?,
            server: password()?,
            client_nonce: random_bytes()?,
            server_nonce: random_bytes()?,
        })
    }
}

pub(super) fn wire_certificate(der: &[u8]) -> Result<Certificate, bellwether_windows::enrollment::Error> {
    let thumbprint: [u8; 20] = Digest::Sha1.of(der).try_into().unwrap_or_default();
    Certificate::new(der, thumbprint)
}

fn claims(context: &Context) -> Claims {
    let text = |value: Option<&str>| value.and_then(kept);
    Claims {
        serial: text(context.serial_number()),
        manufacturer: text(context.manufacturer()),
        model: text(context.model()),
        name: text(context.device_name()),
        os_version: text(context.os_version().or(context.application_version())),
        os_edition: context.os_edition(),
        macs: context.macs().filter_map(kept).take(16).collect(),
        locale: text(context.locale()),
    }
}

/// A text without control characters (PostgreSQL takes no NUL), not too long.
pub(super) fn kept(text: &str) -> Option<String> {
    let kept: String = text.trim().chars().filter(|c| !c.is_control()).take(KEPT).collect();
    (!kept.is_empty()).then_some(kept)
}

fn minted_entry(
    invitation: InvitationId,
    challenge: ChallengeId,
    now: Timestamp,
    source: Option<&str>,
) -> Result<AuditEntry, Error> {
    audit::entry(
        now,
        &Actor::Invitation(invitation.to_string()),
        EventKind::ChallengeMinted,
        &format!("invitation:{invitation}"),
        source,
        Some(serde_json::json!({ "challenge": challenge, "for": "a PC" })),
    )
}
