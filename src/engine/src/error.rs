//! What can go wrong in a use case, in words for whoever caused it.

use crate::permit::Denied;
use bellwether_model::CannotDo;
use bellwether_store::StoreError;

/// A use case did not happen. Nothing was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No key, an unknown key, an expired or revoked one. The same words for all of them.
    #[error("no valid API key: send one as \"Authorization: Bearer bw_…\"")]
    Unauthenticated,
    /// The key is good but lacks a grant.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nothing of that kind with that name in this site.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request makes no sense; says what to change.
    #[error("{0}")]
    Invalid(String),
    /// The request contradicts the present state; says which.
    #[error("{0}")]
    Conflict(String),
    /// The platform or the device cannot do it.
    #[error("{0}")]
    CannotDo(String),
    /// Too many attempts; says when to come back.
    #[error("too many attempts; try again in {retry_after_seconds} seconds")]
    TooMany {
        /// Seconds.
        retry_after_seconds: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate, key, signature or sealed value did not work.
    #[error(transparent)]
    Certs(#[from] bellwether_certs::Error),
    /// The server's own data contradicts itself.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<CannotDo> for Error {
    fn from(value: CannotDo) -> Self {
        Self::CannotDo(value.to_string())
    }
}
