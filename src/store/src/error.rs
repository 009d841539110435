//! What can go wrong, whose fault it is, and what to do about it.

use std::path::PathBuf;

/// Every way in which the store can fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process works on this data folder.
    #[error(
        "the data folder {0} is in use by another bellwether process; stop it first (one process per folder)"
    )]
    FolderInUse(PathBuf),
    /// The database was written by a newer version of this program.
    #[error(
        "the database has the schema version {0}, which this version of bellwether does not know; start the newer \
         version again, or restore the backup that was made before the upgrade"
    )]
    NewerSchema(String),
    /// A method was called in a transaction of the wrong scope: a mistake in our own code.
    #[error("{0} was called in a transaction of the wrong scope")]
    WrongScope(&'static str),
    /// A method was called with something it cannot work with: a mistake in our own code.
    #[error("the store was misused: {0}")]
    Misuse(&'static str),
    /// A rule of the database forbids it; the rule's name is the same on both backends.
    #[error("refused by the database's rule {0}")]
    Conflict(String),
    /// No such row in this site.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The database cannot be reached, is full or is too busy. Nothing was written; the same call can be tried again.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// There is no space left where the database lives. Nothing was written; the same call can be tried again when
    /// there is.
    #[error("the disk is full ({0}); nothing was changed")]
    Full(String),
    /// Transactions met each other too often. Nothing was written; the same call can be tried again.
    #[error("too many changes to the same rows at once ({0}); try again")]
    Busy(String),
    /// The answer to a COMMIT was lost: the transaction may or may not have happened. Only a look tells.
    #[error(
        "the connection broke during COMMIT: the change may or may not be stored; look before trying again"
    )]
    Unknown,
    /// The disk reported an error while writing. The store writes no more until the process is restarted, since
    /// what the disk holds can no longer be trusted; that of this call may or may not be there.
    #[error("the disk failed while writing ({0}); check it, then restart bellwether")]
    DiskFailed(String),
    /// A stored value cannot be read back.
    #[error("stored data cannot be read: {0}; restore from a backup and report this")]
    Corrupt(String),
    /// The closure panicked. Its own changes were rolled back, nobody else's.
    #[error("a transaction panicked and was rolled back: {0}")]
    Panicked(String),
    /// PostgreSQL would lose accepted work in a crash.
    #[error(
        "PostgreSQL runs with synchronous_commit=off, which loses accepted commands in a crash; \
         set it to on for this role or database"
    )]
    DurabilityOff,
    /// The role ignores row-level security, the wall between sites.
    #[error(
        "the PostgreSQL role is a superuser or has BYPASSRLS, so the wall between sites would not hold; \
         use a plain role that owns the database"
    )]
    RoleBypassesRls,
    /// A backup could not be made, read or brought back. Says why; nothing that was there is changed.
    #[error("{0}")]
    Backup(String),
    /// The store could not be opened.
    #[error("the database cannot be opened: {0}")]
    Open(String),
}
