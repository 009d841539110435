//! Rows of a backup into an empty database.

use super::catalog::{
    self, current_database, current_schema, pg_backend_pid, pg_tables, pg_try_advisory_xact_lock, set_config,
};
use super::dialect::{Change, Column, Insert};
use super::rows::{self, Sink, Value};
use super::{Counts, tables};
use crate::backend::{Conn, migrate, postgres, sqlite};
use crate::{PostgresUrl, StoreError, Tx};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// Where rows go.
pub enum Into {
    /// A new SQLite database in this folder, which holds none.
    Folder(PathBuf),
    /// A PostgreSQL database that nobody else uses now.
    Postgres {
        /// Where, and as whom: the plain role that owns the database.
        url: PostgresUrl,
        /// Tables that are there move into a new schema of this name. Without it they are a refusal.
        aside: Option<String>,
        /// Go on with a role that row-level security does not hold for.
        allow_rls_bypass: bool,
    },
}

/// Makes the tables of a backup's schema, fills them, brings them to this program's schema and lets `finish` work on
/// them. On PostgreSQL all of it is one transaction: after an error nothing has changed. In a folder an error leaves a
/// file that is worth nothing.
pub fn fill(
    into: Into,
    schema: &str,
    rows: &mut dyn Read,
    finish: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), StoreError>,
) -> Result<Counts, StoreError> {
    if !super::knows_schema(schema) {
        return Err(StoreError::NewerSchema(schema.to_owned()));
    }
    match into {
        Into::Folder(folder) => fill_folder(&folder, schema, rows, finish),
        Into::Postgres { url, aside, allow_rls_bypass } => {
            let mut conn = Conn::Postgres(postgres::connect(&url)?);
            let filled = conn.transaction(|conn| {
                make_room(conn, aside.as_deref(), allow_rls_bypass)?;
                fill_postgres(conn, schema, rows, finish)
            })?;
            Ok(filled)
        }
    }
}

fn fill_folder(
    folder: &std::path::Path,
    schema: &str,
    rows: &mut dyn Read,
    finish: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), StoreError>,
) -> Result<Counts, StoreError> {
    let mut conn = sqlite::new_file(folder)?;
    // References are checked when everything is there; what is half written is never used.
    conn.batch_execute("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF")?;
    migrate::up_to(&mut conn, migrate::SQLITE, schema)?;
    conn.batch_execute("BEGIN")?;
    let mut sink = Filling { conn: &mut conn, target: None, known: BTreeMap::new() };
    let counts = rows::read(rows, &mut sink)?;
    conn.batch_execute("COMMIT")?;
    migrate::run(&mut conn, migrate::SQLITE)?;
    conn.batch_execute("PRAGMA foreign_keys = ON; BEGIN")?;
    let mut conn = Conn::Sqlite(conn);
    let mut tx = Tx::new(&mut conn, crate::Scope::System);
    finish(&mut tx)?;
    if let Some(broken) = tx.into_broken() {
        return Err(broken);
    }
    conn.batch_execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE")?;
    drop(conn);
    sqlite::sync(folder)?;
    Ok(counts)
}

/// Nobody else may work on the database, and it must be empty, or emptied without losing anything.
fn make_room(conn: &mut Conn, aside: Option<&str>, allow_rls_bypass: bool) -> Result<(), StoreError> {
    let old = tables(conn)?;
    let Conn::Postgres(pg) = conn else { return Err(StoreError::Misuse("a restore into another backend")) };
    if !diesel::select(pg_try_advisory_xact_lock(postgres::MIGRATION_LOCK)).get_result::<bool>(pg)? {
        return Err(StoreError::Backup("a server is starting on this database; stop it first".to_owned()));
    }
    let (superuser, user): (String, String) = diesel::select((
        postgres::current_setting("is_superuser"),
        diesel::dsl::sql::<Text>("current_user::text"),
    ))
    .get_result(pg)?;
    if superuser == "on" && !allow_rls_bypass {
        return Err(StoreError::RoleBypassesRls);
    }
    use catalog::pg_stat_activity as sessions;
    let others: i64 = sessions::table
        .filter(sessions::datname.eq(current_database().nullable()))
        .filter(sessions::usename.eq(user))
        .filter(sessions::pid.ne(pg_backend_pid()))
        .count()
        .get_result(pg)?;
    if others > 0 {
        return Err(StoreError::Backup(format!(
            "{others} other connections use this database; stop every server that works on it first"
        )));
    }
    let migrations = [super::MIGRATIONS.to_owned()];
    match aside {
        _ if old.is_empty() && !has_migrations(pg)? => Ok(()),
        None => Err(StoreError::Backup(
            "the database is not empty. With --replace its tables are moved aside, not deleted".to_owned(),
        )),
        Some(aside) => {
            Change::NewSchema(aside).execute(pg)?;
            for table in old.iter().chain(&migrations) {
                Change::Move(table, aside).execute(pg)?;
            }
            Ok(())
        }
    }
}

fn has_migrations(pg: &mut PgConnection) -> Result<bool, StoreError> {
    let found: i64 = pg_tables::table
        .filter(pg_tables::schemaname.eq(current_schema()))
        .filter(pg_tables::tablename.eq(super::MIGRATIONS))
        .count()
        .get_result(pg)?;
    Ok(found > 0)
}

fn fill_postgres(
    conn: &mut Conn,
    schema: &str,
    rows: &mut dyn Read,
    finish: &mut dyn FnMut(&mut Tx<'_>) -> Result<(), StoreError>,
) -> Result<Counts, StoreError> {
    let Conn::Postgres(pg) = conn else { return Err(StoreError::Misuse("a restore into another backend")) };
    pg.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")?;
    diesel::select((set_config("bellwether.site", "", true), set_config("bellwether.system", "on", true)))
        .execute(pg)?;
    migrate::up_to(pg, migrate::POSTGRES, schema)?;
    let keys = foreign_keys(pg)?;
    for (table, key) in &keys {
        Change::Defer(table, key).execute(pg)?;
    }
    let known = columns(pg)?;
    let counts = rows::read(rows, &mut Filling { conn: &mut *pg, target: None, known })?;
    // Here every reference is looked at.
    pg.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")?;
    for (table, key) in &keys {
        Change::Undefer(table, key).execute(pg)?;
    }
    migrate::run(pg, migrate::POSTGRES)?;
    let mut tx = Tx::new(conn, crate::Scope::System);
    finish(&mut tx)?;
    tx.into_broken().map_or(Ok(counts), Err)
}

fn foreign_keys(pg: &mut PgConnection) -> Result<Vec<(String, String)>, StoreError> {
    use catalog::table_constraints as keys;
    Ok(keys::table
        .filter(keys::table_schema.eq(current_schema()))
        .filter(keys::constraint_type.eq("FOREIGN KEY"))
        .select((keys::table_name, keys::constraint_name))
        .order((keys::table_name, keys::constraint_name))
        .load(pg)?)
}

type Known = BTreeMap<(String, String), Column>;

fn columns(pg: &mut PgConnection) -> Result<Known, StoreError> {
    use catalog::columns;
    let found: Vec<(String, String, String)> = columns::table
        .filter(columns::table_schema.eq(current_schema()))
        .filter(columns::table_name.ne(super::MIGRATIONS))
        .select((columns::table_name, columns::column_name, columns::data_type))
        .load(pg)?;
    found.into_iter().map(|(table, column, kind)| Ok(((table, column), Column::of(&kind)?))).collect()
}

/// Puts rows where they belong.
struct Filling<'c, C> {
    conn: &'c mut C,
    target: Option<Target>,
    /// Columns' types, where values must have them. SQLite keeps what it is given.
    known: Known,
}

struct Target {
    table: String,
    columns: Vec<String>,
    kinds: Vec<Column>,
}

/// Runs one insert.
trait Fills {
    const TYPED: bool;
    fn insert(&mut self, row: &Insert<'_>) -> QueryResult<usize>;
}

impl Fills for SqliteConnection {
    const TYPED: bool = false;
    fn insert(&mut self, row: &Insert<'_>) -> QueryResult<usize> {
        let Insert { table, columns, kinds, values } = *row;
        Insert { table, columns, kinds, values }.execute(self)
    }
}

impl Fills for PgConnection {
    const TYPED: bool = true;
    fn insert(&mut self, row: &Insert<'_>) -> QueryResult<usize> {
        let Insert { table, columns, kinds, values } = *row;
        Insert { table, columns, kinds, values }.execute(self)
    }
}

impl<C: Fills> Sink for Filling<'_, C> {
    fn table(&mut self, name: &str, columns: &[String]) -> Result<(), StoreError> {
        let kind = |column: &String| match C::TYPED {
            false => Ok(Column::Any),
            true => self.known.get(&(name.to_owned(), column.clone())).copied().ok_or_else(|| {
                StoreError::Backup(format!("it has {name}.{column}, which its schema does not know"))
            }),
        };
        let kinds = columns.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
        self.target = Some(Target { table: name.to_owned(), columns: columns.to_vec(), kinds });
        Ok(())
    }

    fn row(&mut self, values: &[Value]) -> Result<(), StoreError> {
        let target = self.target.as_ref().ok_or(StoreError::Misuse("a row before its table"))?;
        let Target { table, columns, kinds } = target;
        let insert = Insert { table, columns, kinds, values };
        self.conn.insert(&insert).map_err(|why| {
            StoreError::Backup(format!("a row of {table} cannot be brought back: {}", StoreError::from(why)))
        })?;
        Ok(())
    }
}
