//! SQLite: one writer thread with group commit, and reading connections.
//!
//! All writes of the process go through one thread. It takes what waits (up to [`GROUP`] operations), runs each in
//! its own savepoint inside one `BEGIN IMMEDIATE … COMMIT`, and answers only after the COMMIT (Q1). A failing or
//! panicking operation loses its savepoint and nothing else; a failing COMMIT fails every caller of the group.
//!
//! A full disk and a broken one are two things. Full: nothing was written, the reserve is given away and the group runs
//! once more. Broken, or an fsync that failed: the kernel may call pages clean that never reached the disk, so nothing
//! is written any more, and the next start copies the log into the database before it trusts it.

use super::op::{Op, WAITING, writer_gone};
use super::reserve::Reserve;
use super::{Conn, migrate};
use crate::StoreError;
use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl as _, SqliteConnection};
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
/// Pages of the log after which it is copied into the database.
const CHECKPOINT: i64 = 1_000;
/// The same in bytes, for a log that grows faster than it did.
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;
/// The database's name in the data folder.
const FILE: &str = "bellwether.db";
/// The lock's name in the data folder.
const LOCK: &str = "bellwether.lock";

/// An open SQLite store.
pub(crate) struct Sqlite {
    queue: Option<mpsc::Sender<Box<dyn Op>>>,
    writer: Option<JoinHandle<()>>,
    readers: r2d2::Pool<Readers>,
    path: PathBuf,
    failed: Arc<AtomicBool>,
    reserve: Arc<Reserve>,
    /// Held until the writer is gone.
    _lock: File,
}

impl Sqlite {
    /// Locks the folder, opens the file, migrates it and starts the writer.
    pub(crate) fn open(folder: &Path, readers: u32) -> Result<Self, StoreError> {
        let lock = lock_folder(folder)?;
        let path = folder.join(FILE);
        private_file(&path)?;
        let reserve = Arc::new(Reserve::of(folder));
        let writer = match open_writer(&path) {
            Err(StoreError::Open(why)) if speaks_of_space(&why) => {
                reserve.release();
                open_writer(&path)
            }
            opened => opened,
        }?;
        let log = folder.join(format!("{FILE}-wal"));
        if !log.exists() {
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
        let work = Writer {
            conn: Conn::Sqlite(writer),
            waiting,
            failed: Arc::clone(&failed),
            reserve: Arc::clone(&reserve),
            checkpoints: Checkpoints::new(log),
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || work.serve())
            .map_err(|why| StoreError::Open(format!("cannot start the writer: {why}")))?;
        Ok(Self { queue: Some(queue), writer: Some(writer), readers, path, failed, reserve, _lock: lock })
    }

    /// The room that is kept for administrators.
    pub(crate) fn reserve(&self) -> &Reserve {
        &self.reserve
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

struct Writer {
    conn: Conn,
    waiting: mpsc::Receiver<Box<dyn Op>>,
    failed: Arc<AtomicBool>,
    reserve: Arc<Reserve>,
    checkpoints: Checkpoints,
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
        if self.failed.load(Ordering::Acquire) {
            return;
        }
        if let Err(why) = self.conn.batch_execute("PRAGMA optimize") {
            tracing::warn!(%why, "the store could not refresh its statistics while closing");
        }
    }

    /// One group: BEGIN, every waiting operation in its savepoint, COMMIT, then the answers.
    fn group(&mut self, first: Box<dyn Op>) {
        let mut ops = vec![first];
        let mut outcome = self.collect_and_run(&mut ops);
        if matches!(outcome, Err(StoreError::Full(_))) {
            self.roll_back();
            self.reserve.release();
            outcome = self.run_again(&mut ops);
        }
        if let Err(why) = &outcome {
            self.note_failure(why);
            self.roll_back();
        }
        for op in ops {
            op.finish(outcome.clone());
        }
        if outcome.is_ok() {
            self.checkpoint();
        }
    }

    /// Runs the first operation and those that wait behind it, as many as a group takes.
    fn collect_and_run(&mut self, ops: &mut Vec<Box<dyn Op>>) -> Result<(), StoreError> {
        let started = Instant::now();
        self.conn.batch_execute("BEGIN IMMEDIATE")?;
        loop {
            // An operation is in the list before it runs, so that its caller always gets an answer.
            if let Some(op) = ops.last_mut() {
                in_savepoint(&mut self.conn, op.as_mut())?;
            }
            if ops.len() >= GROUP || started.elapsed() >= GROUP_TIME {
                break;
            }
            let Ok(next) = self.waiting.try_recv() else { break };
            ops.push(next);
        }
        Ok(self.conn.batch_execute("COMMIT")?)
    }

    /// The same group once more.
    fn run_again(&mut self, ops: &mut [Box<dyn Op>]) -> Result<(), StoreError> {
        self.conn.batch_execute("BEGIN IMMEDIATE")?;
        for op in ops {
            in_savepoint(&mut self.conn, op.as_mut())?;
        }
        Ok(self.conn.batch_execute("COMMIT")?)
    }

    fn roll_back(&mut self) {
        if let Err(rollback) = self.conn.batch_execute("ROLLBACK") {
            tracing::debug!(%rollback, "SQLite had rolled the group back by itself");
        }
    }

    fn note_failure(&self, why: &StoreError) {
        if let StoreError::DiskFailed(what) = why {
            // After a failed fsync the page cache may claim what the disk does not hold: never retry and trust.
            tracing::error!(%what, "the disk failed; the store writes no more");
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Copies the log into the database when it is long enough. SQLite would do it by itself inside of COMMIT, and
    /// would pass over whatever fails there, an fsync included.
    fn checkpoint(&mut self) {
        if !self.checkpoints.is_due() {
            return;
        }
        let Conn::Sqlite(sqlite) = &mut self.conn else { return };
        match checkpoint(sqlite, "PRAGMA wal_checkpoint(PASSIVE)") {
            Ok(done) => self.checkpoints.done(&done),
            Err(why) => {
                // What was committed stands in the log. A full disk is tried again after the next group.
                if matches!(why, StoreError::Full(_)) {
                    self.reserve.release();
                } else {
                    tracing::error!(%why, "the log could not be copied into the database");
                }
                self.note_failure(&why);
            }
        }
    }
}

/// When the log is to be copied next.
struct Checkpoints {
    log: PathBuf,
    /// Groups since the last time.
    groups: i64,
    /// After so many it is time, as far as the last ones tell.
    every: i64,
    /// And when the file is longer than this, whatever they told.
    longest: u64,
    /// Pages that the last time left in the log.
    left: i64,
}

impl Checkpoints {
    fn new(log: PathBuf) -> Self {
        Self { log, groups: 0, every: 50, longest: CHECKPOINT_BYTES, left: 0 }
    }

    /// Counts one group.
    fn is_due(&mut self) -> bool {
        self.groups += 1;
        self.groups >= self.every || self.length() > self.longest
    }

    fn length(&self) -> u64 {
        self.log.metadata().map_or(0, |file| file.len())
    }

    fn done(&mut self, done: &Checkpointed) {
        let per_group = ((done.log - self.left).max(1) / self.groups.max(1)).max(1);
        self.every = (CHECKPOINT / per_group).clamp(1, CHECKPOINT);
        // A log that was copied to its end begins anew with the next write.
        self.left = if done.log == done.checkpointed { 0 } else { done.log };
        self.longest = self.length().max(CHECKPOINT_BYTES).saturating_add(CHECKPOINT_BYTES);
        self.groups = 0;
    }
}

/// What SQLite says of a checkpoint, in pages.
#[derive(diesel::QueryableByName)]
struct Checkpointed {
    /// 1: somebody was in the way.
    #[diesel(sql_type = diesel::sql_types::Integer)]
    busy: i32,
    /// In the log.
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    log: i64,
    /// Of those copied.
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    checkpointed: i64,
}

#[expect(clippy::disallowed_methods, reason = "a pragma with an answer, as a constant: diesel cannot say it")]
fn checkpoint(conn: &mut SqliteConnection, pragma: &'static str) -> Result<Checkpointed, StoreError> {
    diesel::sql_query(pragma).get_result(conn).map_err(StoreError::from)
}

/// The writing connection, with a database that is up to date and owes its log nothing.
///
/// An earlier process may have stopped because an fsync failed. What it left in the log can be read and is perhaps not
/// on the disk, and whatever is appended behind it would be lost with it; copied into the database and synced there it
/// is safe.
fn open_writer(path: &Path) -> Result<SqliteConnection, StoreError> {
    let open = |why: StoreError| StoreError::Open(format!("{}: {why}", path.display()));
    let mut writer = connect(path)?;
    writer.batch_execute("PRAGMA wal_autocheckpoint = 0").map_err(|why| open(why.into()))?;
    let copied = checkpoint(&mut writer, "PRAGMA wal_checkpoint(TRUNCATE)").map_err(open)?;
    if copied.busy != 0 {
        return Err(StoreError::Open(format!(
            "{}: another program is reading it; stop it first",
            path.display()
        )));
    }
    migrate::run(&mut writer, migrate::SQLITE)?;
    Ok(writer)
}

/// Whether an error may come from a full disk: what SQLite cannot write or create while it opens has no better words.
fn speaks_of_space(why: &str) -> bool {
    ["is full", "No space left", "disk I/O error", "unable to open database file"]
        .iter()
        .any(|words| why.contains(words))
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

/// Copies the log into the database's file. For who holds the folder's lock.
pub(crate) fn settle_log(folder: &Path) -> Result<(), StoreError> {
    let copied = checkpoint(&mut connect(&folder.join(FILE))?, "PRAGMA wal_checkpoint(TRUNCATE)")?;
    if copied.busy != 0 {
        return Err(StoreError::Open(format!("{}: another program is reading it", folder.display())));
    }
    Ok(())
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
    use crate::Scope;
    use std::sync::mpsc;

    /// Runs one statement and reports what its caller is told.
    struct Statement {
        sql: &'static str,
        keep: bool,
        told: mpsc::Sender<Result<(), StoreError>>,
    }

    impl Op for Statement {
        fn scope(&self) -> Scope {
            Scope::System
        }

        fn run(&mut self, conn: &mut Conn) -> Result<bool, StoreError> {
            match conn.batch_execute(self.sql).map_err(StoreError::from) {
                Err(full @ StoreError::Full(_)) => Err(full),
                _ => Ok(self.keep),
            }
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

    /// SQLite's own way to do it is off, because it passes over what fails.
    #[test]
    fn the_log_is_copied_into_the_database_and_stays_short() {
        const BIG: &str =
            "INSERT INTO server_settings (key, value) VALUES (hex(randomblob(8)), randomblob(60000))";
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(folder.path(), 1).expect("opens");
        for _ in 0..300 {
            assert_eq!(group(&store, &[BIG]), [Ok(())]);
        }
        let length = |name: String| folder.path().join(name).metadata().expect("there").len();
        let (log, database) = (length(format!("{FILE}-wal")), length(FILE.to_owned()));
        assert!(log < 8_000_000, "18 MB were written, and the log has {log} bytes");
        assert!(database > 10_000_000, "the database has {database} bytes only");
    }

    #[test]
    fn rt_14_what_another_process_left_in_the_log_is_copied_before_anything_is_added() {
        let (folder, later) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
        let store = Sqlite::open(folder.path(), 1).expect("opens");
        assert_eq!(group(&store, &[GOOD]), [Ok(())]);
        for name in [FILE.to_owned(), format!("{FILE}-wal")] {
            std::fs::copy(folder.path().join(&name), later.path().join(&name)).expect("copied");
        }
        let log = later.path().join(format!("{FILE}-wal"));
        assert!(log.metadata().expect("there").len() > 0, "it was not closed in an orderly way");
        let mut writer = open_writer(&later.path().join(FILE)).expect("opens");
        assert_eq!(log.metadata().expect("there").len(), 0);
        use crate::schema::server_settings;
        use diesel::prelude::*;
        let there: i64 = server_settings::table.count().get_result(&mut writer).expect("counted");
        assert_eq!(there, 1);
    }

    #[test]
    fn a_full_disk_is_told_to_callers_and_ends_when_space_returns() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(folder.path(), 1).expect("opens");
        const FILLS: &str = "INSERT INTO server_settings (key, value) VALUES ('big', zeroblob(50000000))";
        // The smallest limit that SQLite takes is the size that the file has.
        let told = group(&store, &["PRAGMA max_page_count = 1", FILLS, GOOD]);
        assert_eq!(told.len(), 3);
        assert!(told.iter().any(|told| matches!(told, Err(StoreError::Full(_)))), "{told:?}");
        assert!(!store.has_failed(), "a full disk is no broken disk");
        group(&store, &["PRAGMA max_page_count = 1000000"]);
        let before = settings(&store);
        assert_eq!(group(&store, &[GOOD]), [Ok(())]);
        assert_eq!(settings(&store), before + 1);
    }
}
