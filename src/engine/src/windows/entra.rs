//! Whom an Entra ID token speaks for (spec/windows.md 2.5 and 2.11).
//!
//! All tenants of Entra ID share its signing keys: a good signature says that Microsoft made the token, and not for
//! whom. Issuer, `tid`, audience and scope decide. Which keys to look at is read from the unverified token; everything
//! else from the verified one, `tid` once more.

use super::terms::EntraTerms;
use crate::error::Error;
use crate::ports::SigningKeys;
use bellwether_certs::hash::sha256;
use bellwether_certs::jwt::{self, Claims, Expected, KeySet, Refusal};
use bellwether_model::Timestamp;
use bellwether_model::time::{DAY, MINUTE, SECOND};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, OwnedMutexGuard};
use uuid::Uuid;

/// How much our clock and Microsoft's may differ.
const LEEWAY: i64 = MINUTE;
/// Keys are fetched anew after so long.
const KEEP: i64 = DAY;
/// Keys that are there are fetched anew no more often than that, whoever asks.
const REFETCH: i64 = MINUTE;
/// As long as there are none, the next try comes sooner.
const FIRST_FETCH: i64 = 10 * SECOND;
/// What an access token for enrollment is good for; an identity token has no scope.
const SCOPE: &str = "mdm_delegation";
/// Longest name of a user that is taken.
const MAX_NAME: usize = 320;

/// Whose tokens are accepted, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntraSettings {
    /// Tenant ids, GUIDs.
    pub tenants: Vec<String>,
    /// What `aud` may be: `https://` and the server's name (tokens of version 1), the application's id (version 2).
    pub audiences: Vec<String>,
    /// `https://login.microsoftonline.com`, without a slash at the end; national clouds have another.
    pub authority: String,
    /// How many PCs one person may have: at least one.
    pub max_devices_per_person: u32,
    /// Only people whom an admin has made known here, by an invitation or an account, may enroll.
    pub known_people_only: bool,
    /// What people accept before.
    pub terms: EntraTerms,
}

/// Whom a verified token speaks for. Tenant and object id say who it is: unlike `upn` they are never given to somebody
/// else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntraUser {
    /// The tenant's id, lower case.
    pub tenant: String,
    /// The user's name in the form of a mail address.
    pub upn: String,
    /// The user's id in the tenant, lower case.
    pub object_id: String,
    /// The device's id in the tenant, lower case; none before the device is joined or registered.
    pub device_id: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// SHA-256 of what the token's signature covers: the same for every spelling of the token that is accepted, another
    /// for every other token (see [`jwt::signed_part`]).
    pub token_digest: [u8; 32],
}

impl EntraUser {
    /// Who this is, for good: `entra:{tenant}:{object id}`.
    pub(crate) fn directory_id(&self) -> String {
        format!("entra:{}:{}", self.tenant, self.object_id)
    }
}

/// Why a token is refused, in words for the audit. Holds nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntraRefusal {
    /// The token itself: form, signature, times, issuer, audience.
    #[error(transparent)]
    Token(#[from] Refusal),
    /// A tenant that nobody allowed.
    #[error("the token is of a tenant that is not allowed here")]
    Tenant,
    /// An identity token, or an access token for something else.
    #[error("the token is no access token for enrollment: its scope lacks mdm_delegation")]
    Scope,
    /// No usable user or object id: a token of an application, for example.
    #[error("the token names no user")]
    User,
    /// A device id that is none.
    #[error("the token's device id is malformed")]
    Device,
    /// Not the token's fault: the tenant's keys were never fetched. The device may try again.
    #[error("the signing keys of the token's tenant could not be fetched: {0}")]
    NoKeys(String),
}

/// Verifies tokens, and keeps each tenant's keys.
pub struct Entra {
    tenants: Vec<Arc<Tenant>>,
    audiences: Vec<String>,
    source: Arc<dyn SigningKeys>,
    max_devices_per_person: u32,
    known_people_only: bool,
    terms: EntraTerms,
}

impl Entra {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that would accept nobody, or a tenant that is no GUID.
    pub fn new(settings: EntraSettings, source: Arc<dyn SigningKeys>) -> Result<Self, Error> {
        let EntraSettings { tenants, audiences, authority, max_devices_per_person, known_people_only, terms } =
            settings;
        if max_devices_per_person == 0 {
            return Err(Error::Invalid("a person needs at least one device to enroll any".into()));
        }
        if tenants.is_empty() || audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(Error::Invalid("Entra ID needs at least one tenant and one audience".into()));
        }
        if !authority.starts_with("https://") || authority.ends_with('/') {
            return Err(Error::Invalid("the authority must be https:// and a name, without a slash".into()));
        }
        let tenant = |id: &String| match guid(id) {
            Some(id) => Ok(Arc::new(Tenant::new(id, &authority))),
            None => Err(Error::Invalid("a tenant of Entra ID is named by its id, a GUID".into())),
        };
        let tenants = tenants.iter().map(tenant).collect::<Result<_, _>>()?;
        Ok(Self { tenants, audiences, source, max_devices_per_person, known_people_only, terms })
    }

    /// How many PCs one person may have.
    pub(super) fn known_people_only(&self) -> bool {
        self.known_people_only
    }

    pub(super) fn max_devices_per_person(&self) -> i64 {
        i64::from(self.max_devices_per_person)
    }

    pub(super) fn terms(&self) -> &EntraTerms {
        &self.terms
    }

    /// Verifies a token (the JWT itself, not its base64 form in a security header) and says whose it is.
    ///
    /// # Errors
    /// [`EntraRefusal`]. Keys are fetched at most once for a call.
    pub async fn verify(&self, token: &[u8], now: Timestamp) -> Result<EntraUser, EntraRefusal> {
        let claimed = jwt::unverified_tid(token)?;
        let tenant = self.tenants.iter().find(|t| t.id == claimed).ok_or(EntraRefusal::Tenant)?;
        let keys = self.keys(tenant, now).await?;
        let claims = match self.check(tenant, &keys, token, now) {
            Err(Refusal::UnknownKey) => match self.newer_keys(tenant, &keys, now).await {
                Some(newer) => self.check(tenant, &newer, token, now)?,
                None => return Err(Refusal::UnknownKey.into()),
            },
            judged => judged?,
        };
        user(tenant, &claims, sha256(jwt::signed_part(token)?))
    }

    fn check(&self, tenant: &Tenant, keys: &KeySet, token: &[u8], now: Timestamp) -> Result<Claims, Refusal> {
        let issuers = tenant.issuers.each_ref().map(String::as_str);
        let audiences: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        let expected =
            Expected { issuers: &issuers, audiences: &audiences, now_ms: now.0, leeway_ms: LEEWAY };
        jwt::verify(token, keys, &expected)
    }

    /// The tenant's keys, not older than a day if Microsoft can be reached.
    async fn keys(&self, tenant: &Arc<Tenant>, now: Timestamp) -> Result<Arc<KeySet>, EntraRefusal> {
        let Some(kept) = tenant.kept() else { return self.first_keys(tenant, now).await };
        if !within(KEEP, kept.fetched_at, now)
            && let Ok(turn) = Arc::clone(&tenant.turn).try_lock_owned()
            && !turn.tried_within(REFETCH, now)
            && let Ok(fresh) = self.fetch(tenant, turn, now).await
        {
            return Ok(fresh);
        }
        Ok(kept.keys)
    }

    async fn first_keys(&self, tenant: &Arc<Tenant>, now: Timestamp) -> Result<Arc<KeySet>, EntraRefusal> {
        let turn = Arc::clone(&tenant.turn).lock_owned().await;
        if let Some(kept) = tenant.kept() {
            return Ok(kept.keys);
        }
        if turn.tried_within(FIRST_FETCH, now) {
            return Err(EntraRefusal::NoKeys(turn.failure.clone()));
        }
        self.fetch(tenant, turn, now).await.map_err(EntraRefusal::NoKeys)
    }

    /// Other keys than `used`, if there are any or may be fetched: the token names a key that is not among them.
    async fn newer_keys(
        &self,
        tenant: &Arc<Tenant>,
        used: &Arc<KeySet>,
        now: Timestamp,
    ) -> Option<Arc<KeySet>> {
        let turn = Arc::clone(&tenant.turn).lock_owned().await;
        match tenant.kept() {
            Some(kept) if !Arc::ptr_eq(&kept.keys, used) => Some(kept.keys),
            _ if turn.tried_within(REFETCH, now) => None,
            _ => self.fetch(tenant, turn, now).await.ok(),
        }
    }

    /// In a task of its own: a client that hangs up early, again and again, must not keep the keys away.
    async fn fetch(
        &self,
        tenant: &Arc<Tenant>,
        mut turn: OwnedMutexGuard<Turn>,
        now: Timestamp,
    ) -> Result<Arc<KeySet>, String> {
        turn.tried_at = Some(now);
        "the attempt broke off".clone_into(&mut turn.failure);
        let (tenant, source) = (Arc::clone(tenant), Arc::clone(&self.source));
        let task = tokio::spawn(async move {
            let fetched = source.fetch(&tenant.id).await.and_then(|jwks| tenant.read(&jwks));
            match fetched {
                Ok(keys) => {
                    let keys = Arc::new(keys);
                    tenant.keep(Kept { keys: Arc::clone(&keys), fetched_at: now });
                    Ok(keys)
                }
                Err(reason) => {
                    // Keys that are there stay: enrollment goes on while Microsoft cannot be reached.
                    tracing::warn!(tenant = %tenant.id, reason, "the signing keys could not be fetched");
                    turn.failure.clone_from(&reason);
                    Err(reason)
                }
            }
        });
        task.await.unwrap_or_else(|_| Err("the attempt broke off".to_owned()))
    }
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants: Vec<&str> = self.tenants.iter().map(|tenant| tenant.id.as_str()).collect();
        f.debug_struct("Entra").field("tenants", &tenants).finish_non_exhaustive()
    }
}

struct Tenant {
    /// Lower case, as Microsoft writes it.
    id: String,
    /// Of tokens of version 1 and of version 2.
    issuers: [String; 2],
    keys: RwLock<Option<Kept>>,
    /// Whoever holds it may fetch.
    turn: Arc<Mutex<Turn>>,
}

#[derive(Clone)]
struct Kept {
    keys: Arc<KeySet>,
    fetched_at: Timestamp,
}

#[derive(Default)]
struct Turn {
    tried_at: Option<Timestamp>,
    /// Why the last attempt failed, if it did.
    failure: String,
}

impl Turn {
    fn tried_within(&self, span: i64, now: Timestamp) -> bool {
        self.tried_at.is_some_and(|tried_at| within(span, tried_at, now))
    }
}

impl Tenant {
    fn new(id: String, authority: &str) -> Self {
        let issuers = [format!("https://sts.windows.net/{id}/"), format!("{authority}/{id}/v2.0")];
        Self { id, issuers, keys: RwLock::default(), turn: Arc::default() }
    }

    fn kept(&self) -> Option<Kept> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, kept: Kept) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    fn read(&self, jwks: &[u8]) -> Result<KeySet, String> {
        let mut keys = KeySet::parse(jwks).map_err(|e| e.to_string())?;
        keys.retain_issuers(|issuer| self.may_sign(issuer));
        if keys.is_empty() { Err("the answer holds no key for this tenant".into()) } else { Ok(keys) }
    }

    /// Microsoft publishes the keys of private accounts (tenant 9188040d-…) in the same list. They name that tenant as
    /// their issuer; those of organizations have `{tenantid}` in its place. A private key must not vouch for us.
    fn may_sign(&self, issuer: Option<&str>) -> bool {
        issuer.is_none_or(|issuer| issuer.split('/').any(|part| part == "{tenantid}" || part == self.id))
    }
}

/// What is asked of the claims beyond a good token.
fn user(tenant: &Tenant, claims: &Claims, token_digest: [u8; 32]) -> Result<EntraUser, EntraRefusal> {
    if claims.tid() != Some(tenant.id.as_str()) {
        return Err(EntraRefusal::Tenant);
    }
    if !claims.scp().contains(SCOPE) {
        return Err(EntraRefusal::Scope);
    }
    let names = [claims.upn(), claims.preferred_username(), claims.unique_name()];
    let upn = names.into_iter().flatten().find(|name| !name.is_empty());
    let upn = upn.filter(|name| is_plain(name)).ok_or(EntraRefusal::User)?.to_owned();
    let object_id = claims.oid().and_then(guid).ok_or(EntraRefusal::User)?;
    let device_id = match claims.deviceid() {
        None | Some("") => None,
        Some(id) => Some(guid(id).ok_or(EntraRefusal::Device)?),
    };
    // Only for reading: one that cannot be shown is left out.
    let name = claims.name().filter(|name| !name.is_empty() && is_plain(name)).map(str::to_owned);
    Ok(EntraUser { tenant: tenant.id.clone(), upn, object_id, device_id, name, token_digest })
}

fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// A GUID with hyphens and nothing around it, in lower case.
fn guid(text: &str) -> Option<String> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(|id| id.to_string())
}

/// Whether `then` is less than `span` ago. A time to come is not: the clock was wrong then.
fn within(span: i64, then: Timestamp, now: Timestamp) -> bool {
    (0..span).contains(&now.since(then))
}

#[cfg(test)]
mod tests;
