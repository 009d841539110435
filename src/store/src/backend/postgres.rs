//! PostgreSQL: one writer for each process, pooled connections for reading, and the checks at start.

mod writer;

use super::op::Op;
use super::{Conn, migrate};
use crate::{PostgresUrl, Scope, StoreError};
use bellwether_model::Timestamp;
use diesel::connection::SimpleConnection;
use diesel::pg::data_types::PgTimestamp;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use std::time::Duration;
use tokio::sync::mpsc;
use writer::Writer;

diesel::define_sql_function!(fn set_config(name: Text, value: Text, is_local: Bool) -> Text);
diesel::define_sql_function!(fn current_setting(name: Text) -> Text);
diesel::define_sql_function!(fn row_security_active(relation: Text) -> Bool);
diesel::define_sql_function!(fn pg_try_advisory_lock(key: BigInt) -> Bool);
diesel::define_sql_function!(fn pg_advisory_unlock(key: BigInt) -> Bool);
diesel::define_sql_function!(fn clock_timestamp() -> Timestamptz);

/// Keeps two processes from migrating at once. Any number that nobody else uses.
pub(crate) const MIGRATION_LOCK: i64 = 0x6265_6c6c_7765_7468;
/// 2000-01-01, PostgreSQL's epoch, in milliseconds since 1970.
const PG_EPOCH: i64 = 946_684_800_000;
/// How libpq notices a road that fell silent: seconds to connect, milliseconds until sent bytes are confirmed, and
/// seconds of silence after which it asks. Without them a node whose packets are dropped waits for a quarter of an hour.
const LIMITS: [(&str, &str); 5] = [
    ("connect_timeout", "5"),
    ("tcp_user_timeout", "10000"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "3"),
    ("keepalives_count", "3"),
];

/// An open PostgreSQL store.
pub(crate) struct Postgres {
    /// For reading.
    pool: r2d2::Pool<Manager>,
    writer: Writer,
}

impl Postgres {
    /// Connects, migrates and checks that durability and the wall between sites hold.
    pub(crate) fn open(
        url: PostgresUrl,
        max_connections: u32,
        allow_rls_bypass: bool,
    ) -> Result<Self, StoreError> {
        let manager = Manager { url };
        let mut first = manager.connect_pg()?;
        // Before anything is made: tables of a superuser would be closed to the plain role that comes after it.
        let superuser: String = diesel::select(current_setting("is_superuser")).get_result(&mut first)?;
        if superuser == "on" && !allow_rls_bypass {
            return Err(StoreError::RoleBypassesRls);
        }
        migrate_locked(&mut first)?;
        check(&mut first, allow_rls_bypass)?;
        drop(first);
        let writer = Writer::start(manager.clone())?;
        let pool = r2d2::Pool::builder()
            // One of them is the writer's.
            .max_size(max_connections.saturating_sub(1).max(1))
            .min_idle(Some(1))
            .connection_timeout(Duration::from_secs(5))
            // Asking each time costs a round trip; `reading` notices too.
            .test_on_check_out(false)
            .build(manager)
            .map_err(|why| StoreError::Open(why.to_string()))?;
        Ok(Self { pool, writer })
    }

    /// Where writing operations go.
    pub(crate) fn queue(&self) -> Result<&mpsc::Sender<Box<dyn Op>>, StoreError> {
        self.writer.queue()
    }

    /// A connection in an open snapshot. It counts as broken until it is told otherwise.
    pub(crate) fn reading(&self, scope: Scope) -> Result<r2d2::PooledConnection<Manager>, StoreError> {
        let mut refused = StoreError::Unavailable("no connection to PostgreSQL".to_owned());
        // One that broke while nobody used it is thrown away, and the next one is tried; after a restart of the database
        // that can be all of them.
        for _ in 0..=self.pool.max_size() {
            let mut pooled = self
                .pool
                .get()
                .map_err(|why| StoreError::Unavailable(format!("no connection to PostgreSQL: {why}")))?;
            pooled.broken = true;
            match pooled.begin(scope, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") {
                Ok(()) => return Ok(pooled),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }
}

/// A connection, and whose rows the row-level security lets it see.
pub(crate) struct Pooled {
    /// The connection.
    pub(crate) conn: Conn,
    /// It is in an unknown state and must not be used again.
    pub(crate) broken: bool,
    /// Whose rows its next transaction sees. `None`: nobody's.
    scope: Option<Scope>,
    /// Whose rows the transaction sees that is open.
    within: Scope,
}

impl Pooled {
    /// Begins a transaction in a scope.
    fn begin(&mut self, scope: Scope, begin: &str) -> Result<(), StoreError> {
        if self.scope != Some(scope) {
            // Most transactions are of the scope before: then nothing needs to be said.
            self.scope = None;
            self.tell(scope, false)?;
            self.scope = Some(scope);
        }
        self.conn.batch_execute(begin)?;
        self.within = scope;
        Ok(())
    }

    /// Changes the scope inside the open transaction, and for it alone.
    fn look_at(&mut self, scope: Scope) -> Result<(), StoreError> {
        self.tell(scope, true)?;
        self.within = scope;
        Ok(())
    }

    fn tell(&mut self, scope: Scope, is_local: bool) -> Result<(), StoreError> {
        let Conn::Postgres(pg) = &mut self.conn else {
            return Err(StoreError::Misuse("a PostgreSQL transaction on SQLite"));
        };
        let (site, system) = match scope {
            Scope::Site(site) => (site.0.simple().to_string(), "off"),
            Scope::System => (String::new(), "on"),
        };
        diesel::select((
            set_config("bellwether.site", site, is_local),
            set_config("bellwether.system", system, is_local),
        ))
        .execute(pg)?;
        Ok(())
    }
}

/// What a failed COMMIT means.
pub(crate) fn commit(conn: &mut Conn) -> Result<(), StoreError> {
    conn.batch_execute("COMMIT").map_err(|why| match StoreError::from(why) {
        known @ (StoreError::Busy(_) | StoreError::Conflict(_)) => known,
        // The server may have committed before the connection broke.
        _ => StoreError::Unknown,
    })
}

/// The database's own time: leases of several processes must not depend on their clocks.
pub(crate) fn database_time(pg: &mut PgConnection) -> Result<Timestamp, StoreError> {
    let PgTimestamp(micros) = diesel::select(clock_timestamp()).get_result(pg)?;
    Ok(Timestamp(micros.div_euclid(1_000).saturating_add(PG_EPOCH)))
}

fn migrate_locked(pg: &mut PgConnection) -> Result<(), StoreError> {
    for _ in 0..600 {
        if diesel::select(pg_try_advisory_lock(MIGRATION_LOCK)).get_result::<bool>(pg)? {
            let outcome = migrate::run(pg, migrate::POSTGRES);
            diesel::select(pg_advisory_unlock(MIGRATION_LOCK)).get_result::<bool>(pg)?;
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(StoreError::Open("another process has been migrating this database for a minute".to_owned()))
}

fn check(pg: &mut PgConnection, allow_rls_bypass: bool) -> Result<(), StoreError> {
    let durable: String = diesel::select(current_setting("synchronous_commit")).get_result(pg)?;
    if durable == "off" {
        return Err(StoreError::DurabilityOff);
    }
    let walled: bool = diesel::select(row_security_active("devices")).get_result(pg)?;
    if !walled {
        if !allow_rls_bypass {
            return Err(StoreError::RoleBypassesRls);
        }
        tracing::warn!(
            "the PostgreSQL role ignores row-level security; the wall between sites has one layer less"
        );
    }
    Ok(())
}

/// A connection beside the pool.
pub(crate) fn connect(url: &PostgresUrl) -> Result<PgConnection, StoreError> {
    Manager { url: url.clone() }.connect_pg()
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Manager {
    url: PostgresUrl,
}

impl Manager {
    fn connect_pg(&self) -> Result<PgConnection, StoreError> {
        let mut pg = PgConnection::establish(&with_limits(self.url.expose()))
            .map_err(|why| StoreError::Unavailable(self.url.hide(&format!("PostgreSQL: {why}"))))?;
        // A transaction does nothing but queries: one that waits for this node for so long belongs to a node that was
        // stopped or cut off, and holds rows that others want.
        pg.batch_execute(
            "SET client_min_messages = warning; SET idle_in_transaction_session_timeout = 10000",
        )?;
        Ok(pg)
    }

    fn session(&self) -> Result<Pooled, StoreError> {
        let conn = Conn::Postgres(self.connect_pg()?);
        Ok(Pooled { conn, broken: false, scope: None, within: Scope::System })
    }
}

/// The URL, with limits where it sets none itself.
fn with_limits(url: &str) -> String {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let mut limited = url.to_owned();
    for (key, value) in LIMITS {
        if !url.contains(key) {
            limited.push_str(if !is_url {
                " "
            } else if limited.contains('?') {
                "&"
            } else {
                "?"
            });
            limited.push_str(key);
            limited.push('=');
            limited.push_str(value);
        }
    }
    limited
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = StoreError;

    fn connect(&self) -> Result<Pooled, StoreError> {
        self.session()
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), StoreError> {
        pooled.conn.batch_execute("SELECT 1")?;
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.broken
    }
}
