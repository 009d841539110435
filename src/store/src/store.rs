//! Opening a store and running transactions.

use crate::backend::op::{Call, Op, attempt, writer_gone};
use crate::backend::postgres::Postgres;
use crate::backend::sqlite::Sqlite;
use crate::{StoreError, Tx};
use bellwether_model::SiteId;
use diesel::connection::SimpleConnection;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a caller waits for PostgreSQL.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// A PostgreSQL database; several processes may share it. The role must own the database and be neither
    /// superuser nor BYPASSRLS, or row-level security, the wall between sites, does not hold for it.
    Postgres {
        /// Where, and as whom.
        url: PostgresUrl,
        /// At most so many connections from this process.
        max_connections: u32,
        /// Start even if the role ignores row-level security. The wall between sites is then only as good as every
        /// single query.
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

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// What libpq says, without what it repeats of the password: when it cannot read a URL it quotes the whole of it,
    /// or the part that it stumbled over.
    pub(crate) fn hide(&self, said: &str) -> String {
        let mut secrets = Vec::new();
        if let Some((before, _)) = self.0.rsplit_once('@') {
            secrets.extend(
                before.split_once("://").and_then(|(_, user)| user.split_once(':')).map(|(_, pw)| pw),
            );
        }
        secrets.extend(self.0.split("password=").skip(1));
        let hidden = |quoted: &str| {
            !quoted.is_empty()
                && secrets.iter().any(|secret| secret.contains(quoted) || quoted.contains(secret))
        };
        // Every second piece stood between quotes; a password may have had one itself.
        let pieces = said.split('"').enumerate();
        let shown = pieces.map(|(n, piece)| if n % 2 == 1 && hidden(piece) { "…" } else { piece });
        let text = shown.collect::<Vec<_>>().join("\"");
        secrets.iter().filter(|secret| secret.len() > 3).fold(text, |text, secret| text.replace(secret, "…"))
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
    backend: Arc<Backend>,
}

pub(crate) enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Store {
    /// Opens, locks and migrates. Offline verbs open it too and meet the same lock.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let backend = match config {
            StoreConfig::Sqlite { folder, readers } => Backend::Sqlite(Sqlite::open(&folder, readers)?),
            StoreConfig::Postgres { url, max_connections, allow_rls_bypass } => {
                Backend::Postgres(Postgres::open(url, max_connections, allow_rls_bypass)?)
            }
        };
        Ok(Self { backend: Arc::new(backend) })
    }

    /// Runs `f` in one transaction and answers after it is durable (Q1).
    ///
    /// `f` may run more than once (a connection that broke before COMMIT, a full disk that got room), so it does no I/O, parsing, cryptography or randomness
    /// and touches at most 500 rows. Once a [`Tx`] method has failed in the database, every later one in the same
    /// transaction answers the same error, and the transaction is rolled back even if `f` returns `Ok`.
    pub async fn write<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (call, answer) = Call::queued(scope, f);
        let done = async {
            if self.queue()?.send(call).await.is_err() {
                return Err(writer_gone().into());
            }
            answer.await.unwrap_or_else(|_| Err(writer_gone().into()))
        };
        match &*self.backend {
            Backend::Sqlite(_) => done.await,
            // A database that is there and does not answer: nobody waits for ever, and what comes of it is not known.
            Backend::Postgres(_) => {
                tokio::time::timeout(PATIENCE, done).await.unwrap_or_else(|_| Err(StoreError::Unknown.into()))
            }
        }
    }

    /// Runs `f` on a snapshot; methods that write fail.
    pub async fn read<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let store = self.clone();
        blocking(move || store.read_blocking(scope, f)).await
    }

    /// [`Store::write`] for offline verbs and tests; must not be called on an async runtime's own threads.
    pub fn write_blocking<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (call, answer) = Call::queued(scope, f);
        if self.queue()?.blocking_send(call).is_err() {
            return Err(writer_gone().into());
        }
        answer.blocking_recv().unwrap_or_else(|_| Err(writer_gone().into()))
    }

    fn queue(&self) -> Result<&mpsc::Sender<Box<dyn Op>>, StoreError> {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.queue(),
            Backend::Postgres(postgres) => postgres.queue(),
        }
    }

    /// [`Store::read`] for offline verbs and tests.
    pub fn read_blocking<T, E, F>(&self, scope: Scope, mut f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E>,
        E: From<StoreError>,
    {
        match &*self.backend {
            Backend::Sqlite(sqlite) => {
                let mut conn = sqlite.reader()?;
                conn.batch_execute("BEGIN").map_err(StoreError::from)?;
                let attempt = attempt(&mut conn, scope, &mut f);
                // A reader has nothing to commit.
                let ended = conn.batch_execute("ROLLBACK").map_err(StoreError::from);
                let value = attempt.value?;
                ended?;
                Ok(value)
            }
            Backend::Postgres(postgres) => {
                let mut pooled = postgres.reading(scope)?;
                let attempt = attempt(&mut pooled.conn, scope, &mut f);
                pooled.broken = pooled.conn.batch_execute("ROLLBACK").is_err();
                attempt.value
            }
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Whether the store has stopped writing because the disk failed; the server should exit.
    pub fn has_failed(&self) -> bool {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.has_failed(),
            Backend::Postgres(_) => false,
        }
    }

    /// Keeps so many bytes free for administrators on the disk of an SQLite database; 0: none. [`Store::tend`] does it.
    pub fn keep_reserve(&self, bytes: u64) {
        if let Backend::Sqlite(sqlite) = &*self.backend {
            sqlite.reserve().keep(bytes);
        }
    }

    /// Whether the disk was full, and the reserve is given away since: whatever only adds data should wait. Always
    /// false on PostgreSQL, whose disk is somebody else's.
    pub fn is_tight(&self) -> bool {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.reserve().is_tight(),
            Backend::Postgres(_) => false,
        }
    }

    /// Makes the reserve, also again when there is space. To be called every few seconds.
    pub async fn tend(&self) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || {
            if let Backend::Sqlite(sqlite) = &*store.backend {
                sqlite.reserve().tend();
            }
            Ok(())
        })
        .await
    }
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(why) => Err(StoreError::Unavailable(format!("the server is stopping: {why}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_16_the_databases_password_is_in_no_error() {
        for (url, said, shown) in [
            (
                "postgres://mdm:hunter2@[::1/mdm",
                "no \"]\" in URI: \"postgres://mdm:hunter2@[::1/mdm\"\n",
                "no \"]\" in URI: \"…\"\n",
            ),
            (
                "postgres://mdm:ab%zz@h/mdm",
                "invalid percent-encoded token: \"ab%zz\"",
                "invalid percent-encoded token: \"…\"",
            ),
            ("postgres://mdm:hunt%zz@h/mdm", "invalid token: \"%zz\"", "invalid token: \"…\""),
            (
                "postgres://h/mdm?password=hunter2&x",
                "invalid URI query parameter: \"x\"",
                "invalid URI query parameter: \"…\"",
            ),
            (
                "host=h password=hunter2 x",
                "missing \"=\" after \"x\" in hunter2 x",
                "missing \"=\" after \"…\" in …",
            ),
            (
                "postgres://mdm:hunter2@db/mdm",
                "connection to server at \"db\", port 5432 failed: FATAL: role \"mdm\" does not exist",
                "connection to server at \"db\", port 5432 failed: FATAL: role \"mdm\" does not exist",
            ),
            ("postgres://mdm@db/mdm", "role \"mdm\" does not exist", "role \"mdm\" does not exist"),
        ] {
            assert_eq!(PostgresUrl::new(url).hide(said), shown, "{url}");
        }
    }
}
