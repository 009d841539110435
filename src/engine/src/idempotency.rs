//! Idempotency keys (Q2): the row is written in the business transaction, so the same key never does a thing twice,
//! also when the answer was lost.

use crate::Engine;
use crate::error::Error;
use bellwether_certs::hash::{ct_eq, sha256};
use bellwether_model::{Actor, SiteId, Timestamp};
use bellwether_store::records::Idempotent;
use secrecy::ExposeSecret as _;

/// The longest key that is taken.
const MAX_KEY: usize = 200;

/// A key together with what it stands for.
#[derive(Clone)]
pub(crate) struct Idempotency {
    /// The row to put first in the transaction.
    pub row: Idempotent,
}

impl Idempotency {
    /// `request` is everything that makes the request what it is; `answer` is sealed.
    pub(crate) fn new(
        engine: &Engine,
        site: SiteId,
        actor: &Actor,
        key: Option<&str>,
        request: &str,
        answer: &[u8],
        now: Timestamp,
    ) -> Result<Option<Self>, Error> {
        let Some(key) = key else { return Ok(None) };
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(Error::Invalid(format!("an Idempotency-Key has 1 to {MAX_KEY} bytes")));
        }
        let key_hash = sha256(format!("{site}\n{actor}\n{key}").as_bytes()).to_vec();
        let body = engine.vault.seal(site, "idempotent", &key_hash, "body", answer)?;
        Ok(Some(Self {
            row: Idempotent {
                key_hash,
                // Keyed: the request may hold a password that could be guessed.
                request_hash: engine.vault.code_hash("request", request),
                status: 200,
                body,
                created_at: now,
            },
        }))
    }

    /// The earlier row, if it stands for the same request.
    pub(crate) fn replay(&self, before: Idempotent) -> Result<Idempotent, Error> {
        if ct_eq(&before.request_hash, &self.row.request_hash) {
            Ok(before)
        } else {
            Err(Error::Conflict(
                "this Idempotency-Key was used for another request; use a new key for a new request".into(),
            ))
        }
    }
}

impl Engine {
    pub(crate) fn open_idempotent(&self, site: SiteId, row: &Idempotent) -> Result<serde_json::Value, Error> {
        let plain = self.vault.open(site, "idempotent", &row.key_hash, "body", &row.body)?;
        serde_json::from_slice(plain.expose_secret())
            .map_err(|_| Error::Internal("a stored answer is damaged".into()))
    }
}
