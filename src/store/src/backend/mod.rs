//! The two databases behind one connection type, and what their errors mean.

mod kept;
pub(crate) mod migrate;
pub(crate) mod op;
pub(crate) mod postgres;
mod reserve;
pub(crate) mod sqlite;

pub(crate) use kept::{AtMost, Run};

use crate::StoreError;
use diesel::result::{DatabaseErrorKind, Error};
use std::any::Any;

/// One connection to either database.
#[derive(diesel::MultiConnection)]
pub(crate) enum Conn {
    /// PostgreSQL.
    Postgres(diesel::PgConnection),
    /// SQLite.
    Sqlite(diesel::SqliteConnection),
}

/// Runs a query as the database's own. Through [`Conn`] diesel writes the text of a query anew on every run, three times,
/// before it finds the prepared statement; this is for the queries that are run often.
macro_rules! native {
    ($conn:ident => $query:expr) => {
        match $conn {
            $crate::backend::Conn::Sqlite($conn) => $query,
            $crate::backend::Conn::Postgres($conn) => $query,
        }
    };
}
pub(crate) use native;

/// The rules whose violation has a meaning to callers: SQLite names columns, PostgreSQL the index.
const RULES: &[(&str, &str)] = &[
    ("deliveries.site_id, deliveries.channel_id", "deliveries_one_open"),
    ("commands.site_id, commands.channel_id, commands.waiting_key", "commands_one_waiting"),
    ("commands.site_id, commands.channel_id, commands.seq", "commands_seq"),
    ("devices.site_id, devices.platform, devices.hardware_id", "devices_proven_hardware"),
    ("enrollments.site_id, enrollments.device_id", "enrollments_one_living"),
    ("enrollments.site_id, enrollments.device_id, enrollments.epoch", "enrollments_epoch"),
    ("identities.fingerprint", "identities_fingerprint"),
    ("identities.site_id, identities.authority_id, identities.serial", "identities_serial"),
    ("certificates.site_id, certificates.authority_id, certificates.serial", "certificates_serial"),
    ("certificates.site_id, certificates.challenge_id", "certificates_challenge"),
    ("invitations.code_hash", "invitations_code"),
    ("invitations.short_hash", "invitations_short"),
    ("challenges.secret_hash", "challenges_secret"),
    ("people.site_id, people.account", "people_account"),
    ("people.site_id, people.directory_id", "people_directory"),
    ("channels.site_id, channels.enrollment_id, channels.kind, channels.user_key", "channels_user"),
    ("api_keys.hash", "api_keys_hash"),
    ("authorities.id", "authorities_id"),
    ("enrollment_accounts.secret_hash", "enrollment_accounts_secret"),
    ("package_grants.token_hash", "package_grants_token"),
    ("uploads.token_hash", "uploads_token"),
    ("audit.site_id, audit.position", "audit_position"),
    ("events.site_id, events.position", "events_position"),
    ("parts.site_id, parts.command_id, parts.ordinal", "parts_ordinal"),
];

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::DatabaseError(kind, info) => database_error(&kind, info.message(), info.constraint_name()),
            Error::DeserializationError(why) => Self::Corrupt(why.to_string()),
            Error::NotFound => Self::NotFound("row"),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

fn database_error(kind: &DatabaseErrorKind, message: &str, constraint: Option<&str>) -> StoreError {
    match kind {
        DatabaseErrorKind::UniqueViolation => StoreError::Conflict(rule_name(message, constraint)),
        DatabaseErrorKind::ForeignKeyViolation => StoreError::Conflict("foreign_key".to_owned()),
        DatabaseErrorKind::NotNullViolation => StoreError::Conflict("not_null".to_owned()),
        DatabaseErrorKind::CheckViolation => StoreError::Conflict("check".to_owned()),
        DatabaseErrorKind::SerializationFailure => StoreError::Busy(message.to_owned()),
        // diesel has no kind for 40P01; the English text is what an untranslated server says.
        _ if message.contains("deadlock detected") => StoreError::Busy(message.to_owned()),
        // What each database makes of ENOSPC at a write. SQLite says "disk I/O error" when it comes from an fsync: then
        // it is no full disk that ends, but a broken promise.
        _ if message.contains("database or disk is full") || message.contains("No space left on device") => {
            StoreError::Full(message.to_owned())
        }
        _ if message.contains("disk I/O error") || message.contains("disk image is malformed") => {
            StoreError::DiskFailed(message.to_owned())
        }
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

/// One name per rule. SQLite says "UNIQUE constraint failed: t.a, t.b"; a primary key is `<table>_pkey` as in
/// PostgreSQL.
fn rule_name(message: &str, constraint: Option<&str>) -> String {
    if let Some((_, columns)) = message.split_once("constraint failed: ") {
        if let Some((_, name)) = RULES.iter().find(|(listed, _)| *listed == columns) {
            return (*name).to_owned();
        }
        let table = columns.split('.').next().unwrap_or(columns);
        return format!("{table}_pkey");
    }
    constraint.unwrap_or(message).to_owned()
}

/// The words of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let of = |message| database_error(&DatabaseErrorKind::Unknown, message, None);
        assert!(matches!(of("database or disk is full"), StoreError::Full(_)));
        assert!(matches!(
            of("could not extend file \"base/5/16384\": No space left on device"),
            StoreError::Full(_)
        ));
        assert!(matches!(of("disk I/O error"), StoreError::DiskFailed(_)));
        assert!(matches!(of("database disk image is malformed"), StoreError::DiskFailed(_)));
        assert!(matches!(of("database is locked"), StoreError::Unavailable(_)));
    }
}
