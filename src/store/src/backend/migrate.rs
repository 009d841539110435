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
