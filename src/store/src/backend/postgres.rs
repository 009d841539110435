//! PostgreSQL: pooled connections, serializable transactions, and the checks at start.

use super::{Conn, migrate};
use crate::{PostgresUrl, Scope, StoreError};
use bellwether_model::Timestamp;
use diesel::connection::SimpleConnection;
use diesel::pg::data_types::PgTimestamp;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
/// How often a transaction that met another is run again.
pub(crate) const TRIES: u32 = 12;

/// An open PostgreSQL store.
pub(crate) struct Postgres {
    pool: r2d2::Pool<Manager>,
    /// Held by the one writing transaction of this process.
    turn: Mutex<()>,
}

/// A pooled connection.
pub(crate) struct Pooled {
    /// The connection.
    pub(crate) conn: Conn,
    /// It is in an unknown state and must not be used again.
    pub(crate) broken: bool,
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
        let pool = r2d2::Pool::builder()
            .max_size(max_connections.max(1))
            .min_idle(Some(1))
            .connection_timeout(Duration::from_secs(10))
            .test_on_check_out(true)
            .build(manager)
            .map_err(|why| StoreError::Open(why.to_string()))?;
        Ok(Self { pool, turn: Mutex::new(()) })
    }

    /// A connection that has just answered.
    pub(crate) fn get(&self) -> Result<r2d2::PooledConnection<Manager>, StoreError> {
        self.pool.get().map_err(|why| StoreError::Unavailable(format!("no connection to PostgreSQL: {why}")))
    }

    /// Waits for this process's turn to write.
    ///
    /// PostgreSQL notices serialization conflicts by index page, and ids that grow with time put all new rows on the
    /// same page: sixteen transactions of different channels at once aborted each other until some gave up, and did
    /// less in total than one after the other. Other processes are met by running again.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins a transaction and tells the row-level security whose rows it may see.
pub(crate) fn begin(conn: &mut Conn, scope: Scope, writes: bool) -> Result<(), StoreError> {
    conn.batch_execute(if writes {
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"
    } else {
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    })?;
    let Conn::Postgres(pg) = conn else { return Ok(()) };
    let (site, system) = match scope {
        Scope::Site(site) => (site.0.simple().to_string(), "off"),
        Scope::System => (String::new(), "on"),
    };
    // A sequential scan of a small table locks all of it against every other serializable transaction.
    let scans = if writes { "off" } else { "on" };
    diesel::select((
        set_config("bellwether.site", site, true),
        set_config("bellwether.system", system, true),
        set_config("enable_seqscan", scans, true),
    ))
    .execute(pg)?;
    Ok(())
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

/// Makes and tests connections.
pub(crate) struct Manager {
    url: PostgresUrl,
}

impl Manager {
    fn connect_pg(&self) -> Result<PgConnection, StoreError> {
        let mut pg = PgConnection::establish(self.url.expose())
            .map_err(|why| StoreError::Unavailable(format!("PostgreSQL: {why}")))?;
        pg.batch_execute(
            "SET client_min_messages = warning; SET idle_in_transaction_session_timeout = 30000",
        )?;
        Ok(pg)
    }
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = StoreError;

    fn connect(&self) -> Result<Pooled, StoreError> {
        Ok(Pooled { conn: Conn::Postgres(self.connect_pg()?), broken: false })
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), StoreError> {
        pooled.conn.batch_execute("SELECT 1")?;
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.broken
    }
}
