//! API keys and the setup token.

use crate::error::Error;
use crate::permit::{Caller, Permit, may};
use crate::vault::{new_uuid, random_hex};
use crate::views::{KeyView, NewKey};
use crate::{Engine, audit};
use bellwether_model::permit::Grants;
use bellwether_model::time::{DAY, MINUTE};
use bellwether_model::{Actor, ApiKeyId, EventKind};
use bellwether_store::Scope;
use bellwether_store::records::ApiKey;
use secrecy::SecretString;
use std::sync::PoisonError;

/// The longest life of a key.
const MAX_KEY_LIFE: i64 = 400 * DAY;
/// What keys are hashed for.
const KEY_PURPOSE: &str = "api-key";
/// The first key's life.
const FIRST_KEY_LIFE: i64 = 90 * DAY;
/// Wrong setup tokens per minute, over all sources, before everybody has to wait.
const SETUP_TRIES: i32 = 10;

impl Engine {
    /// The caller behind a bearer key.
    pub async fn caller(&self, bearer: &str, source: Option<String>) -> Result<Caller, Error> {
        if !bearer.starts_with("bw_") || bearer.len() > 200 {
            return Err(Error::Unauthenticated);
        }
        let hash = self.vault.code_hash(KEY_PURPOSE, bearer);
        let key = self
            .store
            .read(Scope::System, move |tx| tx.api_key_by_hash(&hash).map_err(Error::from))
            .await?
            .ok_or(Error::Unauthenticated)?;
        let now = self.now();
        if key.revoked_at.is_some() || key.expires_at <= now {
            return Err(Error::Unauthenticated);
        }
        self.used_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.id, now);
        let actor = Actor::ApiKey(format!("{} ({})", key.prefix, key.name));
        Ok(Caller { actor, grants: key.grants, source })
    }

    /// Trades the setup token for the first key, which may do everything. The token is spent by it.
    pub async fn redeem_setup_token(
        &self,
        token: &str,
        name: &str,
        source: Option<String>,
    ) -> Result<NewKey, Error> {
        let now = self.now();
        let tries = self
            .store
            .write(Scope::System, move |tx| tx.rate_bump("setup", now, MINUTE).map_err(Error::from))
            .await?;
        if tries > SETUP_TRIES {
            return Err(Error::TooMany { retry_after_seconds: 60 });
        }
        let (row, secret) = self.make_key(name, Grants::everything(), FIRST_KEY_LIFE, &Actor::SetupToken)?;
        let entry = audit::entry(
            now,
            &Actor::SetupToken,
            EventKind::ServerSetUp,
            &format!("key:{}", row.id),
            source.as_deref(),
            Some(serde_json::json!({ "name": row.name, "prefix": row.prefix })),
        )?;
        let (site, token, stored) = (self.default_site, token.to_owned(), row.clone());
        self.store
            .write(Scope::System, move |tx| {
                let held = tx.server_setting(Self::SETUP_HASH)?;
                if !Self::is_setup_token(held.as_deref(), &token, now) {
                    return Err(Error::Unauthenticated);
                }
                tx.server_setting_put(Self::SETUP_HASH, b"")?;
                tx.api_key_insert(&stored)?;
                tx.audit_append_in(site, &entry)?;
                Ok(())
            })
            .await?;
        Ok(NewKey { key: view(row), secret })
    }

    /// Mints a key with at most the grants that the caller has.
    pub async fn create_key(
        &self,
        permit: &Permit<may::WriteKeys>,
        caller: &Caller,
        name: &str,
        grants: Grants,
        expires_in: i64,
    ) -> Result<NewKey, Error> {
        if !caller.grants().cover(&grants) {
            return Err(Error::Invalid("a key cannot be given more than your own key may do".into()));
        }
        let (row, secret) = self.make_key(name, grants, expires_in, &permit.actor)?;
        let entry = audit::entry(
            self.now(),
            &permit.actor,
            EventKind::KeyCreated,
            &format!("key:{}", row.id),
            permit.source.as_deref(),
            Some(serde_json::json!({ "name": row.name, "prefix": row.prefix, "grants": row.grants })),
        )?;
        let (site, stored) = (permit.site, row.clone());
        self.store
            .write(Scope::System, move |tx| {
                tx.api_key_insert(&stored)?;
                tx.audit_append_in(site, &entry).map_err(Error::from)
            })
            .await?;
        Ok(NewKey { key: view(row), secret })
    }

    /// The keys that may do no more than the caller, without their secrets: a site's administrator sees nothing of
    /// another site's keys.
    pub async fn keys(&self, permit: &Permit<may::WriteKeys>) -> Result<Vec<KeyView>, Error> {
        let rows = self.store.read(Scope::System, |tx| tx.api_keys().map_err(Error::from)).await?;
        Ok(rows.into_iter().filter(|key| permit.grants.cover(&key.grants)).map(view).collect())
    }

    /// Takes a key back; it is refused from the next request on. A key that may do more than the caller is out of
    /// reach, as if it did not exist.
    pub async fn revoke_key(&self, permit: &Permit<may::WriteKeys>, id: ApiKeyId) -> Result<(), Error> {
        let now = self.now();
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::KeyRevoked,
            &format!("key:{id}"),
            permit.source.as_deref(),
            None,
        )?;
        let (site, grants) = (permit.site, permit.grants.clone());
        let found = self
            .store
            .write(Scope::System, move |tx| {
                let known = tx.api_keys()?.into_iter().any(|key| key.id == id && grants.cover(&key.grants));
                let found = known && tx.api_key_revoke(id, now)?;
                if found {
                    tx.audit_append_in(site, &entry)?;
                }
                Ok::<_, Error>(found)
            })
            .await?;
        if found { Ok(()) } else { Err(Error::NotFound("API key")) }
    }

    fn make_key(
        &self,
        name: &str,
        grants: Grants,
        expires_in: i64,
        by: &Actor,
    ) -> Result<(ApiKey, SecretString), Error> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            return Err(Error::Invalid("a key needs a name of 1 to 100 printable characters".into()));
        }
        if grants.0.is_empty() {
            return Err(Error::Invalid("a key needs at least one grant, such as device:read@server".into()));
        }
        if !(MINUTE..=MAX_KEY_LIFE).contains(&expires_in) {
            return Err(Error::Invalid("a key lives between one minute and 400 days".into()));
        }
        let now = self.now();
        let secret = format!("bw_{}", random_hex::<32>()?);
        let row = ApiKey {
            id: ApiKeyId(new_uuid(now)?),
            name: name.to_owned(),
            prefix: secret.chars().take(9).collect(),
            // Keyed: whoever can write the database cannot make a key of his own.
            hash: self.vault.code_hash(KEY_PURPOSE, &secret),
            grants,
            created_at: now,
            created_by: by.to_string(),
            expires_at: now.plus(expires_in),
            revoked_at: None,
            last_used_at: None,
        };
        Ok((row, SecretString::from(secret)))
    }
}

fn view(row: ApiKey) -> KeyView {
    KeyView {
        id: row.id,
        name: row.name,
        prefix: row.prefix,
        grants: row.grants,
        created_at: row.created_at,
        created_by: row.created_by,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        last_used_at: row.last_used_at,
    }
}
