//! Addresses that are made for one enrollment: the token at their end, and who may use it (AT-37).

use crate::error::Error;
use crate::vault::Vault;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwether_certs::hash::random_bytes;
use bellwether_model::device::IdentityState;
use bellwether_model::{EnrollmentId, EnrollmentState, SiteId};
use bellwether_store::Tx;
use secrecy::SecretString;

/// 24 bytes are 192 bits and 32 letters.
const TOKEN_BYTES: usize = 24;
const TOKEN_LETTERS: usize = 32;

/// A fresh token, and what is stored of it.
pub(crate) fn mint(vault: &Vault, purpose: &str) -> Result<(SecretString, Vec<u8>), Error> {
    let token = URL_SAFE_NO_PAD.encode(random_bytes::<TOKEN_BYTES>()?);
    let hash = vault.code_hash(purpose, &token);
    Ok((SecretString::from(token), hash))
}

/// What would be stored of a token; none for what cannot be one.
pub(crate) fn hash(vault: &Vault, purpose: &str, token: &str) -> Option<Vec<u8>> {
    (token.len() == TOKEN_LETTERS && token.is_ascii()).then(|| vault.code_hash(purpose, token))
}

/// Whether the connection's client certificate, if it has one, is a good identity of this enrollment.
pub(crate) fn may_use(
    tx: &mut Tx<'_>,
    fingerprint: Option<&[u8]>,
    site: SiteId,
    enrollment: EnrollmentId,
) -> Result<bool, Error> {
    let Some(fingerprint) = fingerprint else { return Ok(true) };
    Ok(tx.known_identity(fingerprint)?.is_some_and(|known| {
        known.site_id == site
            && known.identity.enrollment_id == Some(enrollment)
            && !matches!(known.identity.state, IdentityState::Revoked | IdentityState::Replaced)
    }))
}

/// An address ends with the enrollment.
pub(crate) fn is_active(tx: &mut Tx<'_>, enrollment: EnrollmentId) -> Result<bool, Error> {
    Ok(tx.enrollment(enrollment)?.is_some_and(|row| row.state == EnrollmentState::Active))
}
