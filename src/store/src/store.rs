//! Opening a store and running transactions.

use crate::backend::postgres::{self, Postgres};
use crate::backend::sqlite::{self, Op, Sqlite};
use crate::backend::{Conn, panic_text};
use crate::{StoreError, Tx};
use bellwether_model::SiteId;
use diesel::connection::SimpleConnection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

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
    /// `f` may run more than once (serialization failures), so it does no I/O, parsing, cryptography or randomness
    /// and touches at most 500 rows. Once a [`Tx`] method has failed in the database, every later one in the same
    /// transaction answers the same error, and the transaction is rolled back even if `f` returns `Ok`.
    pub async fn write<T, E, F>(&self, scope: Scope, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &*self.backend {
            Backend::Sqlite(sqlite) => {
                let (call, answer) = Call::queued(scope, f);
                let queue = sqlite.queue()?;
                if queue.send(call).await.is_err() {
                    return Err(sqlite::writer_gone().into());
                }
                answer.await.unwrap_or_else(|_| Err(sqlite::writer_gone().into()))
            }
            Backend::Postgres(_) => {
                let store = self.clone();
                blocking(move || store.write_postgres(scope, f)).await
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
        match &*self.backend {
            Backend::Sqlite(sqlite) => {
                let (call, answer) = Call::queued(scope, f);
                if sqlite.queue()?.blocking_send(call).is_err() {
                    return Err(sqlite::writer_gone().into());
                }
                answer.blocking_recv().unwrap_or_else(|_| Err(sqlite::writer_gone().into()))
            }
            Backend::Postgres(_) => self.write_postgres(scope, f),
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
                let mut pooled = postgres.get()?;
                pooled.broken = true;
                postgres::begin(&mut pooled.conn, scope, false)?;
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

    /// Serializable, and run again when it met another transaction.
    fn write_postgres<T, E, F>(&self, scope: Scope, mut f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, E>,
        E: From<StoreError>,
    {
        let Backend::Postgres(postgres) = &*self.backend else {
            return Err(StoreError::Misuse("a PostgreSQL transaction on SQLite").into());
        };
        let mut last: Option<E> = None;
        let mut conflicts = 0;
        for tried in 0..postgres::TRIES {
            if tried > 0 {
                std::thread::sleep(Duration::from_millis(u64::from(tried).min(10)));
            }
            let _turn = postgres.turn();
            let mut pooled = postgres.get()?;
            // Whatever leaves this block early leaves a connection in an unknown state behind: not for others.
            pooled.broken = true;
            postgres::begin(&mut pooled.conn, scope, true)?;
            let attempt = attempt(&mut pooled.conn, scope, &mut f);
            match (attempt.value, attempt.broken) {
                (Ok(value), None) => match postgres::commit(&mut pooled.conn) {
                    Ok(()) => {
                        pooled.broken = false;
                        return Ok(value);
                    }
                    Err(StoreError::Unknown) => return Err(StoreError::Unknown.into()),
                    Err(why) => {
                        // A COMMIT that was refused has rolled back; a plain ROLLBACK clears what is left.
                        pooled.broken = pooled.conn.batch_execute("ROLLBACK").is_err();
                        last = Some(why.into());
                    }
                },
                (value, broken) => {
                    pooled.broken = pooled.conn.batch_execute("ROLLBACK").is_err();
                    let error = match value {
                        Err(error) => error,
                        Ok(_) => broken.clone().unwrap_or(StoreError::Unknown).into(),
                    };
                    match broken {
                        Some(StoreError::Busy(_)) => last = Some(error),
                        // Under SERIALIZABLE a lost race can show as a violated rule. The second run sees the
                        // winner's row: either it goes another way, or the violation is real.
                        Some(StoreError::Conflict(_)) if conflicts == 0 => {
                            conflicts += 1;
                            last = Some(error);
                        }
                        _ => return Err(error),
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Busy("no attempt was made".to_owned()).into()))
    }
}

/// One run of a caller's closure.
struct Attempt<T, E> {
    value: Result<T, E>,
    /// The database refused something in it: nothing of it may be kept.
    broken: Option<StoreError>,
}

fn attempt<T, E, F>(conn: &mut Conn, scope: Scope, f: &mut F) -> Attempt<T, E>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E>,
    E: From<StoreError>,
{
    let mut tx = Tx::new(conn, scope);
    let ran = catch_unwind(AssertUnwindSafe(|| f(&mut tx)));
    let broken = tx.into_broken();
    let value = match (ran, &broken) {
        (Err(payload), _) => {
            let text = panic_text(payload.as_ref());
            tracing::error!(panic = %text, "a transaction panicked and is rolled back");
            return Attempt { value: Err(StoreError::Panicked(text.clone()).into()), broken: None };
        }
        (Ok(Ok(_)), Some(why)) => Err(why.clone().into()),
        (Ok(value), _) => value,
    };
    Attempt { value, broken }
}

/// A caller's closure on its way through the writer thread.
struct Call<T, E, F> {
    scope: Scope,
    f: F,
    value: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Call<T, E, F>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    fn queued(scope: Scope, f: F) -> (Box<dyn Op>, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { scope, f, value: None, reply }), answer)
    }
}

impl<T, E, F> Op for Call<T, E, F>
where
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    fn run(&mut self, conn: &mut Conn) -> Result<bool, StoreError> {
        let attempt = attempt(conn, self.scope, &mut self.f);
        let keep = attempt.value.is_ok();
        self.value = Some(attempt.value);
        match attempt.broken {
            Some(failed @ StoreError::DiskFailed(_)) => Err(failed),
            _ => Ok(keep),
        }
    }

    fn finish(self: Box<Self>, commit: Result<(), StoreError>) {
        let value = match (commit, self.value) {
            (Ok(()), Some(value)) => value,
            (Ok(()), None) => Err(sqlite::writer_gone().into()),
            // Also for those that answered an error: they may have seen what others of the group did.
            (Err(why), _) => Err(why.into()),
        };
        // The caller may have gone; its change stands all the same.
        drop(self.reply.send(value));
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
