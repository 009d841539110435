//! Everything that a database holds, out of one snapshot, and back into an empty database.
//!
//! What leaves here belongs to no backend: rows of one come back into the other. Encryption, files and what a restored
//! server must not do are the engine's business.

mod catalog;
mod dialect;
mod fill;
mod rows;

pub use fill::{Into, fill};

use crate::backend::postgres::Manager;
use crate::backend::{Conn, migrate};
use crate::store::Backend;
use crate::{Scope, Store, StoreError};
use catalog::{
    __diesel_schema_migrations, current_database, current_schema, pg_database_size, pg_tables, sqlite_schema,
};
use dialect::{AnyRow, Everything};
use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::dsl::sql;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::Text;
use rows::Writer;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// Who keeps account of migrations. Its rows are not data: they say which schema the tables have.
const MIGRATIONS: &str = "__diesel_schema_migrations";

/// How many rows of which table.
pub type Counts = BTreeMap<String, u64>;

/// The database as it is at one moment. Whoever writes meanwhile is neither seen nor kept waiting.
pub struct Snapshot {
    held: Held,
    schema: String,
}

enum Held {
    /// A connection of its own, so that no poll waits for it.
    Sqlite(Conn),
    Postgres(r2d2::PooledConnection<Manager>),
}

impl Held {
    fn conn(&mut self) -> &mut Conn {
        match self {
            Self::Sqlite(conn) => conn,
            Self::Postgres(pooled) => &mut pooled.conn,
        }
    }
}

impl Store {
    /// Opens a snapshot. It holds a connection; on SQLite the write-ahead log grows until it is dropped.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut held = match self.backend() {
            Backend::Sqlite(sqlite) => {
                let mut conn = sqlite.another_reader()?;
                conn.batch_execute("BEGIN")?;
                Held::Sqlite(conn)
            }
            Backend::Postgres(postgres) => {
                let mut pooled = postgres.reading(Scope::System)?;
                // The disk that the backup goes to may be slow.
                pooled.conn.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")?;
                Held::Postgres(pooled)
            }
        };
        // The first look is what fixes the moment.
        let schema: Option<String> = __diesel_schema_migrations::table
            .select(diesel::dsl::max(__diesel_schema_migrations::version))
            .get_result(held.conn())?;
        let schema = schema.ok_or_else(|| StoreError::Corrupt("the database has no schema".to_owned()))?;
        Ok(Snapshot { held, schema })
    }

    /// `sqlite` or `postgres`.
    pub fn backend_name(&self) -> &'static str {
        match self.backend() {
            Backend::Sqlite(_) => "sqlite",
            Backend::Postgres(_) => "postgres",
        }
    }

    /// About how many bytes the data takes on its disk.
    pub fn size(&self) -> Result<u64, StoreError> {
        match self.backend() {
            Backend::Sqlite(sqlite) => Ok(sqlite.bytes()),
            Backend::Postgres(postgres) => {
                let mut pooled = postgres.reading(Scope::System)?;
                let size: i64 =
                    diesel::select(pg_database_size(current_database())).get_result(&mut pooled.conn)?;
                pooled.broken = pooled.conn.batch_execute("ROLLBACK").is_err();
                Ok(u64::try_from(size).unwrap_or_default())
            }
        }
    }

    /// What is wrong with the database's own structures and references, if anything; reads all of it. PostgreSQL looks
    /// after its references by itself.
    pub fn flaw(&self) -> Result<Option<String>, StoreError> {
        let Backend::Sqlite(sqlite) = self.backend() else { return Ok(None) };
        let Conn::Sqlite(mut conn) = sqlite.another_reader()? else { return Ok(None) };
        let said: Vec<String> =
            sql::<Text>("SELECT integrity_check FROM pragma_integrity_check LIMIT 3").load(&mut conn)?;
        if said != ["ok"] {
            return Ok(Some(said.join("; ")));
        }
        let dangling: Vec<String> =
            sql::<Text>("SELECT DISTINCT \"table\" FROM pragma_foreign_key_check").load(&mut conn)?;
        Ok((!dangling.is_empty())
            .then(|| format!("rows point at rows that are not there, in {}", dangling.join(", "))))
    }
}

/// Bytes that are free where this file or folder is, for this process.
pub fn free_space(path: &Path) -> Result<u64, StoreError> {
    fs4::available_space(path).map_err(|why| StoreError::Backup(format!("{}: {why}", path.display())))
}

impl Snapshot {
    /// The newest migration that the tables have gone through.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Writes every row of every table. Memory holds one row.
    pub fn write(&mut self, out: &mut dyn Write) -> Result<Counts, StoreError> {
        let mut writer = Writer::new(out);
        for table in tables(self.held.conn())? {
            let mut begun = false;
            let mut each = |row: QueryResult<AnyRow>| {
                let row = row?;
                if !begun {
                    writer.table(&table, &row.columns)?;
                    begun = true;
                }
                writer.row(&row.values)
            };
            match self.held.conn() {
                Conn::Sqlite(conn) => Everything(&table)
                    .load_iter::<AnyRow, DefaultLoadingMode>(conn)?
                    .try_for_each(&mut each)?,
                Conn::Postgres(conn) => Everything(&table)
                    .load_iter::<AnyRow, PgRowByRowLoadingMode>(conn)?
                    .try_for_each(&mut each)?,
            }
            if !begun {
                writer.table(&table, &[])?;
            }
        }
        writer.end()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let ended = self.held.conn().batch_execute("ROLLBACK").is_ok();
        if let Held::Postgres(pooled) = &mut self.held {
            pooled.broken = !ended;
        }
    }
}

/// Every table that there is, by the database's own word: none can be forgotten.
fn tables(conn: &mut Conn) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = match conn {
        Conn::Sqlite(conn) => sqlite_schema::table
            .filter(sqlite_schema::kind.eq("table"))
            .select(sqlite_schema::name)
            .load(conn)?,
        Conn::Postgres(conn) => pg_tables::table
            .filter(pg_tables::schemaname.eq(current_schema()))
            .select(pg_tables::tablename)
            .load(conn)?,
    };
    names.retain(|name| name != MIGRATIONS && !name.starts_with("sqlite_"));
    names.sort_unstable();
    Ok(names)
}

/// Reads a whole backup and keeps nothing: whether it is whole, and how many rows of which table it holds.
pub fn check(input: &mut dyn Read) -> Result<Counts, StoreError> {
    struct Nothing;
    impl rows::Sink for Nothing {
        fn table(&mut self, _: &str, _: &[String]) -> Result<(), StoreError> {
            Ok(())
        }
        fn row(&mut self, _: &[rows::Value]) -> Result<(), StoreError> {
            Ok(())
        }
    }
    rows::read(input, &mut Nothing)
}

/// The lock of a data folder, for who works on its files without opening the database.
pub struct FolderLock {
    _file: std::fs::File,
}

/// Takes the lock, or says that a server runs there.
pub fn lock(folder: &Path) -> Result<FolderLock, StoreError> {
    Ok(FolderLock { _file: crate::backend::sqlite::lock_folder(folder)? })
}

/// Copies the log of a database that nobody has open into it, so that its file alone is all of it. The folder's lock must
/// be held.
pub fn settle_log(folder: &Path) -> Result<(), StoreError> {
    crate::backend::sqlite::settle_log(folder)
}

/// Whether this program knows a schema, so that a backup of it can be restored.
pub fn knows_schema(version: &str) -> bool {
    migrate::versions().iter().any(|known| known == version)
}
