//! Bringing a database to this program's schema, and refusing one that is ahead of it.

use crate::StoreError;
use diesel::backend::Backend;
use diesel::migration::{Migration, MigrationSource};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

/// For SQLite.
pub(crate) const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");
/// For PostgreSQL.
pub(crate) const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");

/// Runs what is missing. The caller holds the lock that keeps other processes out.
pub(crate) fn run<DB, H>(harness: &mut H, source: EmbeddedMigrations) -> Result<(), StoreError>
where
    DB: Backend,
    H: MigrationHarness<DB>,
    EmbeddedMigrations: MigrationSource<DB>,
{
    let open = |why: Box<dyn std::error::Error + Send + Sync>| StoreError::Open(format!("migrations: {why}"));
    let known: Vec<Box<dyn Migration<DB>>> = MigrationSource::<DB>::migrations(&source).map_err(open)?;
    let known: Vec<String> = known.iter().map(|m| m.name().version().to_string()).collect();
    for applied in harness.applied_migrations().map_err(open)? {
        if !known.contains(&applied.to_string()) {
            return Err(StoreError::NewerSchema(applied.to_string()));
        }
    }
    harness.run_pending_migrations(source).map_err(open)?;
    Ok(())
}

/// The versions that this program knows, oldest first. Both trees have the same.
pub(crate) fn versions() -> Vec<String> {
    let known: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> = SQLITE.migrations().unwrap_or_default();
    let mut versions: Vec<String> = known.iter().map(|m| m.name().version().to_string()).collect();
    versions.sort_unstable();
    versions
}

/// Runs what an empty database needs to have the schema that it had at a version.
pub(crate) fn up_to<DB, H>(
    harness: &mut H,
    source: EmbeddedMigrations,
    version: &str,
) -> Result<(), StoreError>
where
    DB: Backend,
    H: MigrationHarness<DB>,
    EmbeddedMigrations: MigrationSource<DB>,
{
    let open = |why: Box<dyn std::error::Error + Send + Sync>| StoreError::Open(format!("migrations: {why}"));
    // Makes the table that keeps account of them.
    harness.applied_migrations().map_err(open)?;
    let mut known: Vec<Box<dyn Migration<DB>>> = MigrationSource::<DB>::migrations(&source).map_err(open)?;
    known.retain(|m| m.name().version().to_string().as_str() <= version);
    known.sort_by_key(|m| m.name().version().to_string());
    for migration in &known {
        harness.run_migration(migration.as_ref()).map_err(open)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::{Connection, SqliteConnection};

    #[test]
    fn migrations_go_both_ways() {
        let mut conn = SqliteConnection::establish(":memory:").expect("opens");
        for _ in 0..2 {
            run(&mut conn, SQLITE).expect("up");
            conn.revert_all_migrations(SQLITE).expect("down");
        }
    }

    #[test]
    fn both_trees_have_the_same_versions() {
        let sqlite: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> = SQLITE.migrations().expect("embedded");
        let postgres: Vec<Box<dyn Migration<diesel::pg::Pg>>> = POSTGRES.migrations().expect("embedded");
        let sqlite: Vec<String> = sqlite.iter().map(|m| m.name().to_string()).collect();
        let postgres: Vec<String> = postgres.iter().map(|m| m.name().to_string()).collect();
        assert_eq!(sqlite, postgres);
    }
}
