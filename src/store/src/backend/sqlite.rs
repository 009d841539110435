//! SQLite: one writer thread with group commit, and reading connections.
//!
//! All writes of the process go through one thread. It takes what waits (up to [`GROUP`] operations), runs each in
//! its own savepoint inside one `BEGIN IMMEDIATE … COMMIT`, and answers only after the COMMIT (Q1). A failing or
//! panicking operation loses its savepoint and nothing else; a failing COMMIT fails every caller of the group.

use super::{Conn, migrate};
use crate::StoreError;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use fs4::fs_std::FileExt;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// At most so many operations share a COMMIT.
const GROUP: usize = 256;
/// A group is closed after this long, so that one heavy operation does not delay 255 others further.
const GROUP_TIME: Duration = Duration::from_millis(50);
/// How many operations may wait before callers have to.
const WAITING: usize = 1_024;
/// The database's name in the data folder.
const FILE: &str = "bellwether.db";
/// The lock's name in the data folder.
const LOCK: &str = "bellwether.lock";

/// One caller's operation on the writer thread.
pub(crate) trait Op: Send {
    /// Runs it. `Ok(true)`: keep its changes. `Ok(false)`: undo them. `Err`: the whole group is lost.
    fn run(&mut self, conn: &mut Conn) -> Result<bool, StoreError>;
    /// Answers the caller, after COMMIT or in its place.
    fn finish(self: Box<Self>, commit: Result<(), StoreError>);
}

/// An open SQLite store.
pub(crate) struct Sqlite {
    queue: Option<mpsc::Sender<Box<dyn Op>>>,
    writer: Option<JoinHandle<()>>,
    readers: r2d2::Pool<Readers>,
    path: PathBuf,
    failed: Arc<AtomicBool>,
    /// Held until the writer is gone.
    _lock: File,
}

impl Sqlite {
    /// Locks the folder, opens the file, migrates it and starts the writer.
    pub(crate) fn open(folder: &Path, readers: u32) -> Result<Self, StoreError> {
        let lock = lock_folder(folder)?;
        let path = folder.join(FILE);
        private_file(&path)?;
        let mut writer = connect(&path)?;
        migrate::run(&mut writer, migrate::SQLITE)?;
        if !folder.join(format!("{FILE}-wal")).exists() {
            return Err(StoreError::Open(format!(
                "{} is on a file system without SQLite's write-ahead log (a network share?); use a local disk",
                folder.display()
            )));
        }
        let readers = r2d2::Pool::builder()
            .max_size(readers.max(1))
            .min_idle(Some(1))
            .connection_timeout(Duration::from_secs(10))
            .test_on_check_out(false)
            .build(Readers { path: path.clone() })
            .map_err(|why| StoreError::Open(why.to_string()))?;
        let (queue, waiting) = mpsc::channel(WAITING);
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Writer { conn: Conn::Sqlite(writer), waiting, failed: flag }.serve())
            .map_err(|why| StoreError::Open(format!("cannot start the writer: {why}")))?;
        Ok(Self { queue: Some(queue), writer: Some(writer), readers, path, failed, _lock: lock })
    }

    /// Where operations go.
    pub(crate) fn queue(&self) -> Result<&mpsc::Sender<Box<dyn Op>>, StoreError> {
        self.queue.as_ref().ok_or_else(writer_gone)
    }

    /// A reading connection.
    pub(crate) fn reader(&self) -> Result<r2d2::PooledConnection<Readers>, StoreError> {
        self.readers
            .get()
            .map_err(|why| StoreError::Unavailable(format!("no free reading connection: {why}")))
    }

    /// A reading connection beside the pool, for what takes long.
    pub(crate) fn another_reader(&self) -> Result<Conn, StoreError> {
        r2d2::ManageConnection::connect(&Readers { path: self.path.clone() })
    }

    /// Bytes of the database and of what is on its way into it.
    pub(crate) fn bytes(&self) -> u64 {
        let wal = self.path.with_file_name(format!("{FILE}-wal"));
        [&self.path, &wal].iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// Whether the disk failed and writing has stopped for good.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

impl Drop for Sqlite {
    /// The folder's lock goes after the writer's connection, never before.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

/// What a caller hears when the writer thread is gone.
pub(crate) fn writer_gone() -> StoreError {
    StoreError::Unavailable("the store's writer has stopped; restart bellwether".to_owned())
}

struct Writer {
    conn: Conn,
    waiting: mpsc::Receiver<Box<dyn Op>>,
    failed: Arc<AtomicBool>,
}

impl Writer {
    fn serve(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            if self.failed.load(Ordering::Acquire) {
                first.finish(Err(StoreError::DiskFailed("an earlier write failed".to_owned())));
                continue;
            }
            self.group(first);
        }
        if let Err(why) = self.conn.batch_execute("PRAGMA optimize") {
            tracing::warn!(%why, "the store could not refresh its statistics while closing");
        }
    }

    /// One group: BEGIN, every waiting operation in its savepoint, COMMIT, then the answers.
    fn group(&mut self, first: Box<dyn Op>) {
        let mut done: Vec<Box<dyn Op>> = Vec::new();
        let outcome = self.run_group(first, &mut done);
        if let Err(why) = &outcome {
            if let StoreError::DiskFailed(what) = why {
                // After a failed fsync the page cache may claim what the disk does not hold: never retry and trust.
                tracing::error!(%what, "the disk failed; the store writes no more");
                self.failed.store(true, Ordering::Release);
            }
            if let Err(rollback) = self.conn.batch_execute("ROLLBACK") {
                tracing::debug!(%rollback, "SQLite had rolled the group back by itself");
            }
        }
        for op in done {
            op.finish(outcome.clone());
        }
    }

    fn run_group(&mut self, first: Box<dyn Op>, done: &mut Vec<Box<dyn Op>>) -> Result<(), StoreError> {
        let started = Instant::now();
        let mut next = Some(first);
        let begun = self.conn.batch_execute("BEGIN IMMEDIATE").map_err(StoreError::from);
        while let Some(mut op) = next {
            // An operation is in `done` whatever happens, so that its caller always gets an answer.
            let ran = begun.clone().and_then(|()| in_savepoint(&mut self.conn, op.as_mut()));
            done.push(op);
            ran?;
            let full = done.len() >= GROUP || started.elapsed() >= GROUP_TIME;
            next = if full { None } else { self.waiting.try_recv().ok() };
        }
        self.conn.batch_execute("COMMIT").map_err(StoreError::from)
    }
}

fn in_savepoint(conn: &mut Conn, op: &mut dyn Op) -> Result<(), StoreError> {
    conn.batch_execute("SAVEPOINT op")?;
    let keep = op.run(conn)?;
    // After SQLITE_FULL or an I/O error SQLite may have ended the whole transaction: then this fails, and the group.
    conn.batch_execute(if keep { "RELEASE op" } else { "ROLLBACK TO op; RELEASE op" })?;
    Ok(())
}

/// Opens reading connections; they cannot write.
pub(crate) struct Readers {
    path: PathBuf,
}

impl r2d2::ManageConnection for Readers {
    type Connection = Conn;
    type Error = StoreError;

    fn connect(&self) -> Result<Conn, StoreError> {
        let mut conn = connect(&self.path)?;
        conn.batch_execute("PRAGMA query_only = ON")?;
        Ok(Conn::Sqlite(conn))
    }

    fn is_valid(&self, _conn: &mut Conn) -> Result<(), StoreError> {
        Ok(())
    }

    fn has_broken(&self, _conn: &mut Conn) -> bool {
        false
    }
}

/// A new database's file in a folder that has none, for who fills it alone.
pub(crate) fn new_file(folder: &Path) -> Result<SqliteConnection, StoreError> {
    let path = folder.join(FILE);
    if path.exists() {
        return Err(StoreError::Open(format!("{} is there already", path.display())));
    }
    private_file(&path)?;
    connect(&path)
}

/// Makes sure that the file is on the disk, under its name.
pub(crate) fn sync(folder: &Path) -> Result<(), StoreError> {
    let synced = File::open(folder.join(FILE)).and_then(|file| file.sync_all());
    synced
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|why| StoreError::Backup(format!("{}: {why}", folder.display())))
}

fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let name =
        path.to_str().ok_or_else(|| StoreError::Open("the data folder's name is not UTF-8".to_owned()))?;
    let mut conn = SqliteConnection::establish(name)
        .map_err(|why| StoreError::Open(format!("{}: {why}", path.display())))?;
    conn.batch_execute(
        "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -16384; PRAGMA journal_size_limit = 67108864;",
    )
    .and_then(|()| less_durable().map_or(Ok(()), |less| conn.batch_execute(less)))
    .map_err(|why| StoreError::Open(format!("{}: {why}", path.display())))?;
    Ok(conn)
}

/// An answer leaves after its commit is on the disk. The tests of power cuts must fail with less, and in debug builds
/// they can ask for it.
fn less_durable() -> Option<&'static str> {
    let asked = if cfg!(debug_assertions) { std::env::var("BELLWETHER_TEST_SYNCHRONOUS").ok() } else { None };
    match asked.as_deref() {
        Some("OFF") => Some("PRAGMA synchronous = OFF"),
        Some("NORMAL") => Some("PRAGMA synchronous = NORMAL"),
        _ => None,
    }
}

/// One process per data folder: a second writer would stall both and see half of our caches.
pub(crate) fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    let open = |why: std::io::Error| StoreError::Open(format!("{}: {why}", folder.display()));
    if !folder.exists() {
        std::fs::create_dir_all(folder).map_err(open)?;
        restrict(folder, 0o700).map_err(open)?;
    }
    let path = folder.join(LOCK);
    private_file(&path)?;
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(open)?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(StoreError::FolderInUse(folder.to_path_buf())),
        Err(why) => Err(open(why)),
    }
}

/// Makes the file when missing; readable by its owner only, before anything is in it.
fn private_file(path: &Path) -> Result<(), StoreError> {
    let open = |why: std::io::Error| StoreError::Open(format!("{}: {why}", path.display()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(open)?;
    restrict(path, 0o600).map_err(open)
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn restrict(_path: &Path, _mode: u32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Runs one statement and reports what its caller is told.
    struct Statement {
        sql: &'static str,
        keep: bool,
        told: mpsc::Sender<Result<(), StoreError>>,
    }

    impl Op for Statement {
        fn run(&mut self, conn: &mut Conn) -> Result<bool, StoreError> {
            drop(conn.batch_execute(self.sql));
            Ok(self.keep)
        }

        fn finish(self: Box<Self>, commit: Result<(), StoreError>) {
            drop(self.told.send(commit));
        }
    }

    fn group(store: &Sqlite, statements: &[&'static str]) -> Vec<Result<(), StoreError>> {
        let (told, answers) = mpsc::channel();
        // The first one keeps the writer busy until the others wait: they share the next group.
        for sql in statements {
            let op = Box::new(Statement { sql, keep: true, told: told.clone() });
            store.queue().expect("open").blocking_send(op).map_err(|_| "stopped").expect("sent");
        }
        drop(told);
        answers.iter().collect()
    }

    const GOOD: &str = "INSERT INTO server_settings (key, value) VALUES (hex(randomblob(8)), x'00')";
    /// Holds inside its savepoint and breaks the COMMIT.
    const BREAKS_COMMIT: &str = "PRAGMA defer_foreign_keys = ON; \
        INSERT INTO site_settings (site_id, key, value) VALUES (x'00', 'k', x'00')";
    const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) \
        INSERT OR REPLACE INTO server_settings (key, value) SELECT 'slow', x'00' FROM n";

    fn settings(store: &Sqlite) -> i64 {
        use crate::schema::server_settings;
        use diesel::prelude::*;
        let mut conn = store.reader().expect("a reader");
        server_settings::table
            .filter(server_settings::key.ne("slow"))
            .count()
            .get_result(&mut *conn)
            .expect("counted")
    }

    #[test]
    fn a_failed_commit_fails_every_caller_of_its_group_and_the_next_group_works() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(folder.path(), 1).expect("opens");
        let told = group(&store, &[SLOW, GOOD, BREAKS_COMMIT, GOOD]);
        assert_eq!(told.first(), Some(&Ok(())));
        let lost = told.iter().skip(1).filter(|t| matches!(t, Err(StoreError::Conflict(_)))).count();
        assert_eq!(lost, 3, "{told:?}");
        assert_eq!(settings(&store), 0);
        assert_eq!(group(&store, &[GOOD]), [Ok(())]);
        assert_eq!(settings(&store), 1);
    }

    #[test]
    fn q01_a_commit_waits_for_the_disk() {
        use diesel::dsl::sql;
        use diesel::prelude::*;
        use diesel::sql_types::{Integer, Text};
        let folder = tempfile::tempdir().expect("a folder");
        let mut conn = connect(&folder.path().join(FILE)).expect("opens");
        let synchronous = sql::<Integer>("(SELECT synchronous FROM pragma_synchronous)");
        let told: i32 = diesel::select(synchronous).get_result(&mut conn).expect("told");
        assert_eq!(told, 2, "FULL: with less a power cut takes commits back that were answered");
        let journal = sql::<Text>("(SELECT journal_mode FROM pragma_journal_mode)");
        let told: String = diesel::select(journal).get_result(&mut conn).expect("told");
        assert_eq!(told, "wal");
    }

    #[test]
    fn a_full_disk_is_told_to_callers_and_ends_when_space_returns() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(folder.path(), 1).expect("opens");
        const FILLS: &str = "INSERT INTO server_settings (key, value) VALUES ('big', zeroblob(50000000))";
        // The smallest limit that SQLite takes is the size that the file has.
        let told = group(&store, &["PRAGMA max_page_count = 1", FILLS, GOOD]);
        assert_eq!(told.len(), 3);
        assert!(!store.has_failed(), "a full disk is no broken disk");
        group(&store, &["PRAGMA max_page_count = 1000000"]);
        let before = settings(&store);
        assert_eq!(group(&store, &[GOOD]), [Ok(())]);
        assert_eq!(settings(&store), before + 1);
    }
}
