//! Invitations: what a person holds, and what it opens.
//!
//! Looking never consumes and never mints (link-preview bots look). A POST mints a challenge; an invitation stays
//! open until its enrollment is activated, so that a person can try again after a lost answer.

use crate::error::Error;
use crate::idempotency::Idempotency;
use crate::permit::{Permit, may};
use crate::setup::TEST_TOPIC;
use crate::vault::{new_uuid, random_below};
use crate::views::{
    CreatedInvitation, EnrollmentFile, InvitationView, Listed, NewInvitation, OpenInvitation, next_page,
};
use crate::{Engine, audit};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwether_apple::Opaque;
use bellwether_apple::family::Family;
use bellwether_apple::profile::{
    EnrollmentProfile, MdmSettings, PayloadUuids, RootCertificate, ScepSettings, Scope as ProfileScope,
};
use bellwether_apple::reply::PROFILE_CONTENT_TYPE;
use bellwether_certs::cms;
use bellwether_certs::hash::random_bytes;
use bellwether_model::device::{ChallengePurpose, ChallengeState};
use bellwether_model::time::{DAY, HOUR, MINUTE};
use bellwether_model::{
    Actor, ChallengeId, EventKind, InvitationId, InvitationState, PersonId, Platform, SiteId, Timestamp,
};
use bellwether_store::records::{Challenge, Invitation, Page, Person};
use bellwether_store::{Scope, Tx};
use secrecy::{ExposeSecret as _, SecretString};

const DEFAULT_LIFE: i64 = 24 * HOUR;
const SHORT_CODE_LIFE: i64 = HOUR;
const CHALLENGE_LIFE: i64 = HOUR;
/// Crockford's base 32: no I, L, O, U. Nine letters are 45 bits.
const SHORT_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SHORT_LENGTH: usize = 9;
/// Uses of one short code.
const SHORT_CAP: i32 = 10;
/// Wrong codes, or passwords of accounts, from one source in ten minutes; and from everybody together.
pub(crate) const SOURCE_TRIES: i32 = 20;
pub(crate) const ALL_TRIES: i32 = 600;
pub(crate) const TRY_WINDOW: i64 = 10 * MINUTE;
/// The longest account, in bytes.
pub(crate) const MAX_ACCOUNT: usize = 254;
/// Challenges that one invitation may mint: every row is paid by us.
pub(crate) const MAX_CHALLENGES: usize = 50;

impl Engine {
    /// Makes an invitation. Its secrets are in the answer and nowhere else.
    pub async fn create_invitation(
        &self,
        permit: &Permit<may::WriteInvitations>,
        wish: NewInvitation,
    ) -> Result<CreatedInvitation, Error> {
        self.create_invitation_once(permit, wish, None).await
    }

    /// The same, at most once for one idempotency key (Q2): the stored answer is sealed.
    pub async fn create_invitation_once(
        &self,
        permit: &Permit<may::WriteInvitations>,
        wish: NewInvitation,
        key: Option<&str>,
    ) -> Result<CreatedInvitation, Error> {
        let now = self.now();
        let site = permit.site;
        if wish.platform == Platform::Android {
            return Err(Error::CannotDo(
                "enrolling android devices is not built yet; this version enrolls Apple and Windows devices"
                    .into(),
            ));
        }
        let life = wish.expires_in.unwrap_or(if wish.short_code { SHORT_CODE_LIFE } else { DEFAULT_LIFE });
        if !(5 * MINUTE..=30 * DAY).contains(&life) {
            return Err(Error::Invalid("an invitation lives between 5 minutes and 30 days".into()));
        }
        if wish.short_code && life > SHORT_CODE_LIFE {
            return Err(Error::Invalid(
                "an invitation with a typed code lives at most one hour; leave the code out for a longer one"
                    .into(),
            ));
        }
        let pushed_by_apple = wish.platform == Platform::Apple && !wish.test_only;
        if pushed_by_apple && self.newest_topic(site, now).await?.is_none() {
            return Err(Error::Conflict(
                "no valid Apple push certificate is imported, so an enrolled device could never be woken, and its \
                 topic can never change. Import one (bellwether apns import), or make the invitation test-only."
                    .into(),
            ));
        }
        let account = wish.account.as_deref().map(clean_account).transpose()?;
        let code = URL_SAFE_NO_PAD.encode(random_bytes::<20>()?);
        let short = if wish.short_code { Some(new_short_code()?) } else { None };
        let id = InvitationId(new_uuid(now)?);
        let row = Invitation {
            id,
            platform: wish.platform,
            person_id: None,
            device_id: wish.device_id,
            code_hash: self.vault.code_hash("link", &code),
            short_hash: short.as_deref().map(|s| self.vault.code_hash("short", &normalize_short(s))),
            attempts: 0,
            attempt_cap: SHORT_CAP,
            test_only: wish.test_only,
            unsigned: wish.unsigned,
            ownership: wish.ownership,
            state: InvitationState::Open,
            created_at: now,
            created_by: permit.actor.to_string(),
            expires_at: now.plus(life),
            closed_at: None,
            enrollment_id: None,
        };
        let person = account.clone().map(|account| {
            Ok::<_, Error>(Person {
                id: PersonId(new_uuid(now)?),
                account,
                name: wish.name.clone(),
                created_at: now,
                directory_id: None,
            })
        });
        let person = person.transpose()?;
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::InvitationCreated,
            &format!("invitation:{id}"),
            permit.source.as_deref(),
            Some(serde_json::json!({
                "platform": wish.platform, "account": account, "test_only": wish.test_only,
                "expires_at": row.expires_at, "short_code": wish.short_code,
            })),
        )?;
        let secrets = serde_json::json!({ "id": id, "code": code, "short": short }).to_string();
        let once =
            Idempotency::new(self, site, &permit.actor, key, &format!("{wish:?}"), secrets.as_bytes(), now)?;
        let replay = self
            .store
            .write(Scope::Site(site), move |tx| {
                if let Some(once) = &once
                    && let Some(before) = tx.idempotent_put(&once.row)?
                {
                    return once.replay(before).map(Some);
                }
                let mut row = row.clone();
                if let Some(device) = row.device_id
                    && tx.device(device)?.is_none()
                {
                    return Err(Error::NotFound("device"));
                }
                if let Some(person) = &person {
                    row.person_id = Some(ensure_person(tx, person)?);
                }
                tx.invitation_insert(&row)?;
                tx.audit_append(&entry)?;
                Ok(None)
            })
            .await?;
        let secrets = match replay {
            Some(row) => self.open_idempotent(site, &row)?,
            None => serde_json::from_str(&secrets).unwrap_or_default(),
        };
        self.created(permit, &secrets).await
    }

    async fn created(
        &self,
        permit: &Permit<may::WriteInvitations>,
        secrets: &serde_json::Value,
    ) -> Result<CreatedInvitation, Error> {
        let damaged = || Error::Internal("a stored answer is damaged".into());
        let id: InvitationId =
            serde_json::from_value(secrets.get("id").cloned().unwrap_or_default()).map_err(|_| damaged())?;
        let code = secrets.get("code").and_then(|c| c.as_str()).ok_or_else(damaged)?;
        let short = secrets.get("short").and_then(|c| c.as_str());
        Ok(CreatedInvitation {
            invitation: self.invitation_of(permit.site, id).await?,
            link: SecretString::from(format!("{}/enroll/{code}", self.settings.public_url)),
            short_code: short.map(|s| SecretString::from(s.to_owned())),
        })
    }

    /// A page of invitations, newest first.
    pub async fn invitations(
        &self,
        permit: &Permit<may::ReadInvitations>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<InvitationView>, Error> {
        let now = self.now();
        self.store
            .read(Scope::Site(permit.site), move |tx| {
                let rows = tx.invitations(&Page { after: cursor.clone(), limit })?;
                let next = next_page(&rows, limit, |row| row.id.as_bytes());
                let items = rows.into_iter().map(|row| view(tx, row, now)).collect::<Result<_, _>>()?;
                Ok(Listed { items, next })
            })
            .await
    }

    /// One invitation.
    pub async fn invitation(
        &self,
        permit: &Permit<may::ReadInvitations>,
        id: InvitationId,
    ) -> Result<InvitationView, Error> {
        self.invitation_of(permit.site, id).await
    }

    async fn invitation_of(&self, site: SiteId, id: InvitationId) -> Result<InvitationView, Error> {
        let now = self.now();
        self.store
            .read(Scope::Site(site), move |tx| {
                let row = tx.invitation(id)?.ok_or(Error::NotFound("invitation"))?;
                view(tx, row, now)
            })
            .await
    }

    /// Takes an invitation back. What was issued through it and never activated dies with it.
    pub async fn revoke_invitation(
        &self,
        permit: &Permit<may::WriteInvitations>,
        id: InvitationId,
    ) -> Result<InvitationView, Error> {
        let now = self.now();
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::InvitationRevoked,
            &format!("invitation:{id}"),
            permit.source.as_deref(),
            None,
        )?;
        self.store
            .write(Scope::Site(permit.site), move |tx| {
                let mut row = tx.invitation(id)?.ok_or(Error::NotFound("invitation"))?;
                match row.state {
                    InvitationState::Open => {
                        row.state = InvitationState::Revoked;
                        row.closed_at = Some(now);
                        tx.invitation_update(&row)?;
                        crate::enrolling::close_attempts(tx, id, None, now, "the invitation was revoked")?;
                        tx.audit_append(&entry)?;
                    }
                    InvitationState::Revoked => {}
                    InvitationState::Activated => {
                        return Err(Error::Conflict(
                            "a device was enrolled with this invitation; end its enrollment instead".into(),
                        ));
                    }
                }
                view(tx, row, now)
            })
            .await
    }

    /// What the page behind a link or a typed code shows. Changes nothing but the counters of wrong codes; every
    /// refusal is the same [`Error::NotFound`].
    pub async fn open_invitation(&self, code: &str, source: Option<&str>) -> Result<OpenInvitation, Error> {
        let (site, row) = self.find_invitation(code, source, false).await?;
        let person = row.person_id;
        let person = self
            .store
            .read(Scope::Site(site), move |tx| {
                Ok::<_, Error>(match person {
                    Some(id) => tx.person(id)?,
                    None => None,
                })
            })
            .await?;
        Ok(OpenInvitation {
            platform: row.platform,
            organization: self.settings.organization.clone(),
            account: person.as_ref().map(|p| p.account.clone()),
            person: person.map(|p| p.name.unwrap_or(p.account)),
            expires_at: row.expires_at,
            test_only: row.test_only,
        })
    }

    /// Mints a challenge and gives the profile that carries it. Only a POST may lead here.
    pub async fn mint_profile(
        &self,
        code: &str,
        family: Family,
        unsigned: bool,
        source: Option<&str>,
    ) -> Result<EnrollmentFile, Error> {
        let now = self.now();
        let (site, invitation) = self.find_invitation(code, source, true).await?;
        if invitation.platform != Platform::Apple {
            return Err(Error::NotFound("invitation"));
        }
        let topic = if invitation.test_only {
            self.test_topic().await?
        } else {
            self.newest_topic(site, now).await?.ok_or_else(|| {
                Error::Conflict(
                    "the push certificate has expired; no device can be enrolled until it is renewed".into(),
                )
            })?
        };
        let minted = self.new_challenge(
            ChallengePurpose::Enroll,
            Some(invitation.id),
            None,
            now,
            invitation.expires_at.min(now.plus(CHALLENGE_LIFE)),
        )?;
        let bytes = self.enrollment_profile(site, &minted, &topic, family).await?;
        let bytes = if unsigned || invitation.unsigned { bytes } else { self.sign_profile(&bytes)? };
        let entry = audit::entry(
            now,
            &Actor::Invitation(invitation.id.to_string()),
            EventKind::ChallengeMinted,
            &format!("invitation:{}", invitation.id),
            source,
            Some(serde_json::json!({ "challenge": minted.row.id, "family": family.noun() })),
        )?;
        let (id, row) = (invitation.id, minted.row);
        self.store
            .write(Scope::Site(site), move |tx| {
                // Look again inside the transaction: it may have been revoked or activated since.
                let current = tx.invitation(id)?.ok_or(Error::NotFound("invitation"))?;
                if current.state != InvitationState::Open {
                    return Err(Error::NotFound("invitation"));
                }
                if tx.challenges_of_invitation(id)?.len() >= MAX_CHALLENGES {
                    return Err(Error::Conflict(
                        "this invitation was tried too often; ask your administrator for a new one".into(),
                    ));
                }
                tx.challenge_insert(&row)?;
                tx.audit_append(&entry).map_err(Error::from)
            })
            .await?;
        Ok(EnrollmentFile { bytes, file_name: "enroll.mobileconfig", content_type: PROFILE_CONTENT_TYPE })
    }

    /// Finds an open invitation by its link's code or its typed code.
    pub(crate) async fn find_invitation(
        &self,
        code: &str,
        source: Option<&str>,
        counts: bool,
    ) -> Result<(SiteId, Invitation), Error> {
        let now = self.now();
        let short = normalize_short(code);
        let by_link = (code.len() <= 64).then(|| self.vault.code_hash("link", code));
        let by_short = is_short(&short).then(|| self.vault.code_hash("short", &short));
        let is_short = by_short.is_some();
        let bucket = format!("code:{}", source.unwrap_or("unknown"));
        let own = bucket.clone();
        let found = self
            .store
            .read(Scope::System, move |tx| {
                if let Some(hash) = &by_link
                    && let Some(found) = tx.invitation_by_code_hash(hash)?
                {
                    return Ok::<_, Error>(Some(found));
                }
                // A typed code can be guessed: past the limit a right one is not even looked for.
                if by_short.is_some()
                    && (tx.rate_count(&own, now, TRY_WINDOW)? >= SOURCE_TRIES
                        || tx.rate_count("code:*", now, TRY_WINDOW)? >= ALL_TRIES)
                {
                    return Err(Error::TooMany { retry_after_seconds: 600 });
                }
                Ok(match &by_short {
                    Some(hash) => tx.invitation_by_short_hash(hash)?,
                    None => None,
                })
            })
            .await?;
        let good = found.filter(|(_, row)| {
            row.state == InvitationState::Open
                && row.expires_at > now
                && (!is_short || row.attempts < row.attempt_cap)
        });
        let Some((site, row)) = good else {
            // Only wrong codes are counted, so that a busy enrollment day from one address is no attack.
            let (mine, all) = self
                .store
                .write(Scope::System, move |tx| {
                    Ok::<_, Error>((
                        tx.rate_bump(&bucket, now, TRY_WINDOW)?,
                        tx.rate_bump("code:*", now, TRY_WINDOW)?,
                    ))
                })
                .await?;
            return Err(if mine > SOURCE_TRIES || (is_short && all > ALL_TRIES) {
                Error::TooMany { retry_after_seconds: 600 }
            } else {
                Error::NotFound("invitation")
            });
        };
        if is_short && counts {
            let id = row.id;
            let uses = self
                .store
                .write(Scope::Site(site), move |tx| tx.invitation_attempt(id).map_err(Error::from))
                .await?;
            if uses > row.attempt_cap {
                return Err(Error::NotFound("invitation"));
            }
        }
        Ok((site, row))
    }

    pub(crate) fn new_challenge(
        &self,
        purpose: ChallengePurpose,
        invitation_id: Option<InvitationId>,
        enrollment_id: Option<bellwether_model::EnrollmentId>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<MintedChallenge, Error> {
        let secret = URL_SAFE_NO_PAD.encode(random_bytes::<24>()?);
        let row = Challenge {
            id: ChallengeId(new_uuid(now)?),
            secret_hash: self.vault.code_hash("challenge", &secret),
            purpose,
            invitation_id,
            enrollment_id,
            state: ChallengeState::Open,
            csr_hash: None,
            identity_id: None,
            created_at: now,
            expires_at,
            requested: None,
        };
        Ok(MintedChallenge { row, secret: SecretString::from(secret) })
    }

    /// The enrollment profile for a challenge: unsigned bytes. The same for an enrollment and its renewals but for
    /// the challenge, because Topic, URLs, rights and scope can never change.
    pub(crate) async fn enrollment_profile(
        &self,
        site: SiteId,
        minted: &MintedChallenge,
        topic: &str,
        family: Family,
    ) -> Result<Vec<u8>, Error> {
        let authority = self.issuing_authority(site).await?;
        let base = profile_identifier(site);
        let mut scep = ScepSettings::new(
            format!("{}/scep/{}", self.settings.public_url, authority.id),
            Opaque::from(minted.secret.expose_secret()),
            common_name(minted.row.id),
        );
        scep.name = Some("Bellwether".into());
        let server = if self.settings.apple_require_client_certificate {
            &self.settings.device_url
        } else {
            &self.settings.public_url
        };
        let roots = if self.settings.own_tls_ca {
            vec![RootCertificate { name: "Bellwether TLS CA".into(), der: self.tls_ca.cert_der().to_vec() }]
        } else {
            Vec::new()
        };
        let uuids = PayloadUuids::derive(uuid::Uuid::from_bytes(*site.as_bytes()), &base);
        let profile = EnrollmentProfile {
            organization: self.settings.organization.clone(),
            display_name: format!("{} device management", self.settings.organization),
            description: Some("Lets your organisation manage this device.".into()),
            identifier_base: base,
            uuids,
            scep,
            mdm: MdmSettings::new(format!("{server}/apple/mdm"), topic),
            roots,
            scope: (family == Family::Mac).then_some(ProfileScope::User),
        };
        profile.encode().map_err(|e| Error::Internal(format!("the enrollment profile: {e}")))
    }

    pub(crate) fn sign_profile(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let signer = &self.signer;
        Ok(cms::sign_attached(bytes, &signer.certificate, &signer.key, &signer.chain)?)
    }

    /// The topic that test-only enrollments get: of this server, pushable by nobody.
    pub(crate) async fn test_topic(&self) -> Result<String, Error> {
        let stored = self
            .store
            .read(Scope::System, |tx| tx.server_setting(TEST_TOPIC).map_err(Error::from))
            .await?
            .ok_or_else(|| Error::Internal("the test topic is gone".into()))?;
        String::from_utf8(stored).map_err(|_| Error::Internal("the test topic is damaged".into()))
    }
}

/// A challenge with the secret that goes into the profile.
pub(crate) struct MintedChallenge {
    pub row: Challenge,
    pub secret: SecretString,
}

/// The subject that a challenge's certificate gets: random, 43 bytes (macOS cuts at 64), says nothing.
pub(crate) fn common_name(challenge: ChallengeId) -> String {
    format!("Bellwether {}", challenge.0.simple())
}

/// The enrollment profile's `PayloadIdentifier`. Unenrolling removes it by this name.
pub(crate) fn profile_identifier(site: SiteId) -> String {
    format!("bellwether.enrollment.{}", site.0.simple())
}

pub(crate) fn ensure_person(tx: &mut Tx<'_>, person: &Person) -> Result<PersonId, Error> {
    if let Some(found) = tx.person_by_account(&person.account)? {
        return Ok(found.id);
    }
    tx.person_insert(person)?;
    Ok(person.id)
}

pub(crate) fn clean_account(account: &str) -> Result<String, Error> {
    let account = account.trim().to_lowercase();
    let bad = account.is_empty() || account.len() > MAX_ACCOUNT || account.chars().any(char::is_control);
    if bad {
        return Err(Error::Invalid(
            "an account is an e-mail address or login name of at most 254 bytes".into(),
        ));
    }
    Ok(account)
}

fn view(tx: &mut Tx<'_>, row: Invitation, now: Timestamp) -> Result<InvitationView, Error> {
    let account = match row.person_id {
        Some(id) => tx.person(id)?.map(|p| p.account),
        None => None,
    };
    Ok(InvitationView {
        id: row.id,
        platform: row.platform,
        account,
        device_id: row.device_id,
        test_only: row.test_only,
        ownership: row.ownership,
        state: row.state,
        expired: row.state == InvitationState::Open && row.expires_at <= now,
        created_at: row.created_at,
        created_by: row.created_by,
        expires_at: row.expires_at,
        enrollment_id: row.enrollment_id,
    })
}

fn new_short_code() -> Result<String, Error> {
    let mut code = String::with_capacity(SHORT_LENGTH + 2);
    for i in 0..SHORT_LENGTH {
        if i > 0 && i % 3 == 0 {
            code.push('-');
        }
        let letter = SHORT_ALPHABET.get(random_below(32)? as usize).copied().unwrap_or(b'0');
        code.push(char::from(letter));
    }
    Ok(code)
}

/// What people type for what was printed: case, dashes and look-alikes do not matter.
fn normalize_short(code: &str) -> String {
    code.chars()
        .take(64)
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

fn is_short(normalized: &str) -> bool {
    normalized.len() == SHORT_LENGTH && normalized.bytes().all(|b| SHORT_ALPHABET.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_codes_have_45_bits_and_forgive_look_alikes() {
        let code = new_short_code().expect("randomness");
        assert_eq!(code.len(), 11, "{code}");
        assert!(is_short(&normalize_short(&code)));
        assert_eq!(normalize_short("abc-oil 0xy"), "ABC0110XY");
        assert!(!is_short(&normalize_short("ABC-DEF")));
        assert!(!is_short("UUUUUUUUU"));
    }
}
