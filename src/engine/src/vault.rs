//! Keys in use: the master key, the sites' keys, and what is derived from them.

use crate::error::Error;
use bellwether_certs::hash::{hex, hmac_sha256, random_bytes};
use bellwether_certs::seal::{MasterKey, SealContext, SiteKey};
use bellwether_model::SiteId;
use secrecy::{ExposeSecret as _, SecretBox};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Opens and seals. Cheap to ask, holds every site's key.
pub(crate) struct Vault {
    master: MasterKey,
    /// Keys codes and challenges before they are stored, so that a stolen database cannot be searched for them.
    pepper: SecretBox<[u8; 32]>,
    sites: RwLock<HashMap<SiteId, Arc<SiteKey>>>,
}

impl Vault {
    pub(crate) fn new(master: MasterKey) -> Self {
        let pepper = master.derive("code-pepper");
        Self { master, pepper, sites: RwLock::new(HashMap::new()) }
    }

    pub(crate) fn master(&self) -> &MasterKey {
        &self.master
    }

    /// Makes a site's key; returns it wrapped for the store.
    pub(crate) fn new_site_key(&self, site: SiteId) -> Result<Vec<u8>, Error> {
        let key = SiteKey::generate()?;
        let wrapped = self.master.wrap_site_key(*site.as_bytes(), &key)?;
        Ok(wrapped)
    }

    /// Unwraps a site's key and keeps it.
    pub(crate) fn add_site(&self, site: SiteId, wrapped: &[u8]) -> Result<(), Error> {
        let key = self.master.unwrap_site_key(*site.as_bytes(), wrapped)?;
        self.sites.write().unwrap_or_else(PoisonError::into_inner).insert(site, Arc::new(key));
        Ok(())
    }

    pub(crate) fn site(&self, site: SiteId) -> Result<Arc<SiteKey>, Error> {
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        sites.get(&site).cloned().ok_or_else(|| Error::Internal(format!("no key for site {site}")))
    }

    /// Seals a value for one field of one row.
    pub(crate) fn seal(
        &self,
        site: SiteId,
        kind: &str,
        id: &[u8],
        field: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Ok(self.site(site)?.seal(&SealContext { kind, id, field }, plain)?)
    }

    /// Opens what [`Vault::seal`] made for the same field of the same row.
    pub(crate) fn open(
        &self,
        site: SiteId,
        kind: &str,
        id: &[u8],
        field: &str,
        sealed: &[u8],
    ) -> Result<SecretBox<Vec<u8>>, Error> {
        Ok(self.site(site)?.open(&SealContext { kind, id, field }, sealed)?)
    }

    /// The keyed hash under which a code or challenge is stored.
    pub(crate) fn code_hash(&self, purpose: &str, code: &str) -> Vec<u8> {
        let mut message = Vec::with_capacity(purpose.len() + 1 + code.len());
        message.extend_from_slice(purpose.as_bytes());
        message.push(0);
        message.extend_from_slice(code.as_bytes());
        hmac_sha256(self.pepper.expose_secret(), &message).to_vec()
    }
}

/// `N` random bytes as lower-case hex.
pub(crate) fn random_hex<const N: usize>() -> Result<String, Error> {
    Ok(hex(&random_bytes::<N>()?))
}

/// A number below `bound` from the CSPRNG, without modulo bias.
pub(crate) fn random_below(bound: u32) -> Result<u32, Error> {
    let limit = u32::MAX - u32::MAX % bound.max(1);
    loop {
        let n = u32::from_be_bytes(random_bytes::<4>()?);
        if n < limit {
            return Ok(n % bound.max(1));
        }
    }
}

/// A UUIDv7 for this moment.
pub(crate) fn new_uuid(now: bellwether_model::Timestamp) -> Result<uuid::Uuid, Error> {
    let millis = u64::try_from(now.0).unwrap_or_default();
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes::<10>()?).into_uuid())
}
