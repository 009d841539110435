//! Opening a store and running transactions.

use crate::{StoreError, Tx};
use bellwether_model::SiteId;
use std::path::PathBuf;

/// Where the data lives.
#[derive(Clone)]
#[non_exhaustive]
pub enum StoreConfig {
    /// One file, `bellwether.db`, in this folder; one process.
    Sqlite {
        /// The data folder; made when missing.
        folder: PathBuf,
        /// How many reading connections.
        readers: u32,
    },
    /// A PostgreSQL database; several processes may share it.
    Postgres {
        /// Where, and as whom.
        url: PostgresUrl,
        /// At most so many connections from this process.
        max_connections: u32,
        /// Start even if the role ignores row-level security (superuser, BYPASSRLS). The wall between sites is
        /// then only as good as every single query.
        allow_rls_bypass: bool,
    },
}

/// A connection string. It may carry a password, so it has no `Debug`.
#[derive(Clone)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    /// Takes `postgres://…` or libpq's `key=value` form.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }
}

/// Whose rows a transaction sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One site's.
    Site(SiteId),
    /// All sites': for the listed callers that work before a site is known, or across sites.
    System,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    _private: (),
}

impl Store {
    /// Opens, locks and migrates.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let _ = config;
        Err(StoreError::Unavailable("not built yet".to_owned()))
    }

    /// Runs `f` in one transaction and answers after it is durable.
    ///
    /// `f` may run more than once (serialization failures), so it does no I/O, parsing, cryptography or randomness
    /// and touches at most 500 rows. After an `Err` of a [`Tx`] method that came from the database, the transaction
    /// is rolled back even if `f` returns `Ok`.
    pub async fn write<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _ = (scope, f);
        Err(E::from(StoreError::Unavailable("not built yet".to_owned())))
    }

    /// Runs `f` on a snapshot; writing methods fail.
    pub async fn read<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _ = (scope, f);
        Err(E::from(StoreError::Unavailable("not built yet".to_owned())))
    }

    /// [`Store::write`] for offline verbs and tests; must not be called inside an async runtime.
    pub fn write_blocking<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _ = (scope, f);
        Err(E::from(StoreError::Unavailable("not built yet".to_owned())))
    }

    /// [`Store::read`] for offline verbs and tests.
    pub fn read_blocking<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E>,
        E: From<StoreError>,
    {
        let _ = (scope, f);
        Err(E::from(StoreError::Unavailable("not built yet".to_owned())))
    }

    /// Whether the store has stopped writing because the disk failed; the server should exit.
    pub fn has_failed(&self) -> bool {
        false
    }
}
