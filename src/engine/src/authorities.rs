//! Device CAs in use, and the key that signs profiles.

use crate::Engine;
use crate::error::Error;
use bellwether_certs::ca::DeviceCa;
use bellwether_certs::keys::KeyPair;
use bellwether_model::time::DAY;
use bellwether_model::{AuthorityId, SiteId};
use bellwether_store::Scope;
use secrecy::ExposeSecret as _;
use std::sync::{Arc, PoisonError};

/// A device CA with its key opened.
pub(crate) struct LoadedAuthority {
    pub site: SiteId,
    pub id: AuthorityId,
    pub ca: DeviceCa,
}

impl LoadedAuthority {
    pub(crate) fn new(site: SiteId, id: AuthorityId, ca: DeviceCa) -> Self {
        Self { site, id, ca }
    }
}

/// Signs enrollment profiles, so that a device shows them as unaltered.
pub(crate) struct ProfileSigner {
    pub certificate: Vec<u8>,
    pub key: KeyPair,
    pub chain: Vec<Vec<u8>>,
}

impl Engine {
    /// The authority with this id, loaded once.
    pub(crate) async fn authority(&self, id: AuthorityId) -> Result<Arc<LoadedAuthority>, Error> {
        if let Some(found) = self.authorities.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(found.clone());
        }
        let (site, row) = self
            .store
            .read(Scope::System, move |tx| tx.authority_find(id).map_err(Error::from))
            .await?
            .ok_or(Error::NotFound("certificate authority"))?;
        let key = self.vault.open(site, "authority", id.as_bytes(), "key", &row.key)?;
        let ca = DeviceCa::load(&row.certificate, KeyPair::from_pkcs8_der(key.expose_secret())?)?;
        let loaded = Arc::new(LoadedAuthority::new(site, id, ca));
        self.authorities.write().unwrap_or_else(PoisonError::into_inner).insert(id, loaded.clone());
        Ok(loaded)
    }

    /// The authority that issues for a site now.
    pub(crate) async fn issuing_authority(&self, site: SiteId) -> Result<Arc<LoadedAuthority>, Error> {
        let rows = self.store.read(Scope::Site(site), |tx| tx.authorities().map_err(Error::from)).await?;
        let newest = rows.iter().filter(|a| a.retired_at.is_none()).max_by_key(|a| a.created_at);
        let id = newest.ok_or_else(|| Error::Internal(format!("site {site} has no device CA")))?.id;
        self.authority(id).await
    }

    /// `GetCACert`: the CA's certificate. It carries no credential.
    pub async fn scep_ca_certificate(&self, id: AuthorityId) -> Result<Vec<u8>, Error> {
        Ok(self.authority(id).await?.ca.cert_der().to_vec())
    }

    /// The list of revoked certificates, signed now, good for a week.
    pub async fn crl(&self, id: AuthorityId) -> Result<Vec<u8>, Error> {
        let authority = self.authority(id).await?;
        let now = self.now();
        let (identities, certificates) = self
            .store
            .read(Scope::Site(authority.site), move |tx| {
                Ok::<_, Error>((tx.revoked_identities(id)?, tx.revoked_certificates(id)?))
            })
            .await?;
        let identities = identities.into_iter().map(|i| (i.serial, i.revoked_at));
        let certificates = certificates.into_iter().map(|c| (c.serial, c.revoked_at));
        let entries: Vec<(String, i64)> =
            identities.chain(certificates).map(|(serial, at)| (serial, at.unwrap_or(now).0)).collect();
        // The number must only grow; milliseconds do.
        let number = u64::try_from(now.0).unwrap_or_default();
        Ok(authority.ca.crl(&entries, number, now.0, now.plus(7 * DAY).0)?)
    }
}
