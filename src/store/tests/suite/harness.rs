//! A store of each kind, fresh for every test.

use bellwether_model::SiteId;
use bellwether_store::{PostgresUrl, Scope, Store, StoreConfig, StoreError, Tx};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs each test on every backend.
macro_rules! on_every_backend {
    ($($(#[$meta:meta])* fn $name:ident($bed:ident: &mut Bed) $body:block)+) => {
        $($(#[$meta])* fn $name($bed: &mut crate::harness::Bed) $body)+
        mod sqlite {
            $(#[test] fn $name() { super::$name(&mut crate::harness::Bed::sqlite()) })+
        }
        mod postgres {
            $(#[test] fn $name() {
                if let Some(mut bed) = crate::harness::Bed::postgres() { super::$name(&mut bed) }
            })+
        }
    };
}

/// The role that the store works under: plain, so that row-level security holds for it.
const ROLE: &str = "bellwether_suite";
static COUNT: AtomicU32 = AtomicU32::new(0);
static MAKING: Mutex<()> = Mutex::new(());

/// A store and what is needed to open it again.
pub struct Bed {
    store: Option<Store>,
    /// How it was opened.
    pub config: StoreConfig,
    folder: Option<tempfile::TempDir>,
    /// Admin's URL and the database's name.
    database: Option<(String, String)>,
}

impl Bed {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = StoreConfig::Sqlite { folder: folder.path().to_path_buf(), readers: 4 };
        let store = Some(Store::open(config.clone()).expect("SQLite opens"));
        Self { store, config, folder: Some(folder), database: None }
    }

    /// For thousands of commits: no disk below it, so it shows nothing about durability.
    pub fn sqlite_in_memory() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let config = StoreConfig::Sqlite { folder: folder.path().to_path_buf(), readers: 4 };
        let store = Some(Store::open(config.clone()).expect("SQLite opens"));
        Self { store, config, folder: Some(folder), database: None }
    }

    pub fn postgres() -> Option<Self> {
        let (admin, name) = Self::empty_database()?;
        let config = Self::postgres_config(&admin, &name, ROLE);
        let store = Some(Store::open(config.clone()).expect("PostgreSQL opens"));
        Some(Self { store, config, folder: None, database: Some((admin, name)) })
    }

    /// A database without tables, owned by the plain role.
    pub fn empty_database() -> Option<(String, String)> {
        let Ok(admin) = std::env::var("BELLWETHER_TEST_POSTGRES_URL") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI without BELLWETHER_TEST_POSTGRES_URL: see tests/postgres-up"
            );
            // Not println: what was skipped is to be seen although the test passes. Once, not fifty times.
            static SAID: std::sync::Once = std::sync::Once::new();
            SAID.call_once(|| {
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    b"SKIPPED on PostgreSQL: BELLWETHER_TEST_POSTGRES_URL is not set (see tests/postgres-up)\n",
                );
            });
            return None;
        };
        let name = format!("suite_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut pg = PgConnection::establish(&admin).expect("the admin's URL works");
        pg.batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}' NOSUPERUSER NOBYPASSRLS; \
             EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        ))
        .expect("a plain role");
        pg.batch_execute(&format!("CREATE DATABASE {name} OWNER {ROLE}")).expect("a database");
        Some((admin, name))
    }

    pub fn postgres_config(admin: &str, database: &str, role: &str) -> StoreConfig {
        StoreConfig::Postgres {
            url: PostgresUrl::new(url_as(admin, database, role)),
            max_connections: 6,
            allow_rls_bypass: false,
        }
    }

    /// For looking behind the store's back.
    pub fn raw_url(&self) -> String {
        match &self.database {
            Some((admin, name)) => url_as(admin, name, ROLE),
            None => self.file().to_str().expect("a UTF-8 path").to_owned(),
        }
    }

    /// As the cluster's administrator, for whom row-level security does not hold.
    pub fn admin_url(&self) -> String {
        let (admin, name) = self.database.as_ref().expect("PostgreSQL");
        let (scheme, rest) = admin.split_once("://").expect("a URL");
        let (host, _) = rest.rsplit_once('/').expect("a database");
        format!("{scheme}://{host}/{name}")
    }

    pub fn is_postgres(&self) -> bool {
        self.database.is_some()
    }

    pub fn file(&self) -> PathBuf {
        self.folder.as_ref().expect("SQLite").path().join("bellwether.db")
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    /// Closes and opens again, as a restart does.
    pub fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(self.config.clone()).expect("opens again"));
    }

    /// Keeps the database's files as they are in this moment: what a process leaves behind that is killed now.
    pub fn file_keeper(&self) -> impl Fn() + Send + Sync + 'static {
        let file = self.file();
        move || {
            for end in ENDS {
                let (from, to) = (with_end(&file, end), with_end(&file, &format!("{end}.kept")));
                std::fs::copy(from, to).expect("a copy");
            }
        }
    }

    pub fn has_kept_files(&self) -> bool {
        with_end(&self.file(), "-wal.kept").exists()
    }

    /// Opens the kept files, as the next process does.
    pub fn back_to_kept_files(&mut self) {
        self.store = None;
        let file = self.file();
        drop(std::fs::remove_file(with_end(&file, "-shm")));
        for end in ENDS {
            let (from, to) = (with_end(&file, &format!("{end}.kept")), with_end(&file, end));
            std::fs::rename(from, to).expect("the kept file takes its place");
        }
        self.store = Some(Store::open(self.config.clone()).expect("opens after the crash"));
    }

    /// Cuts the connections of transactions that are open and wait for their next statement, and waits until they are
    /// gone.
    pub fn backend_killer(&self) -> impl Fn() + Send + Sync + 'static {
        let kill = self.killer(
            "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity \
             WHERE datname = $1 AND state LIKE 'idle in transaction%'",
        );
        let left = self.killer(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle in transaction%'",
        );
        move || {
            assert!(kill() > 0, "no open transaction to cut");
            while left() > 0 {
                std::thread::yield_now();
            }
        }
    }

    /// Cuts one connection that works for somebody, whatever it is doing.
    pub fn any_backend_killer(&self) -> impl Fn() + Send + Sync + 'static {
        let kill = self.killer(
            "SELECT count(pg_terminate_backend(pid)) AS n FROM (SELECT pid FROM pg_stat_activity \
             WHERE datname = $1 AND state <> 'idle' AND usename = 'bellwether_suite' ORDER BY random() LIMIT 1) one",
        );
        move || {
            kill();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "PostgreSQL's view of its own processes; no table of ours")]
    fn killer(&self, sql: &'static str) -> impl Fn() -> i64 + Send + Sync + 'static {
        let (admin, name) = self.database.clone().expect("PostgreSQL");
        let pg = Mutex::new(PgConnection::establish(&admin).expect("the admin's URL works"));
        move || {
            let mut pg = pg.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let query = diesel::sql_query(sql).bind::<diesel::sql_types::Text, _>(&name);
            let counted: Counted = query.get_result(&mut *pg).expect("the admin may ask");
            counted.n
        }
    }

    pub fn try_write<T: Send + 'static>(
        &self,
        scope: Scope,
        f: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.store().write_blocking(scope, f)
    }

    /// Writes in a site.
    pub fn write<T: Send + 'static>(
        &self,
        site: SiteId,
        f: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.try_write(Scope::Site(site), f).expect("the write holds")
    }

    /// Reads in a site.
    pub fn read<T>(&self, site: SiteId, f: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
        self.store().read_blocking(Scope::Site(site), f).expect("the read holds")
    }

    /// Writes for the whole server.
    pub fn system<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.try_write(Scope::System, f).expect("the write holds")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.store = None;
        if let Some((admin, name)) = &self.database
            && let Ok(mut pg) = PgConnection::establish(admin)
        {
            drop(pg.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        }
    }
}

/// The database and its log.
const ENDS: [&str; 2] = ["", "-wal"];

fn with_end(file: &std::path::Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[derive(diesel::QueryableByName)]
struct Counted {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

/// The admin's URL with another role and database.
fn url_as(admin: &str, database: &str, role: &str) -> String {
    let rest = admin.split_once("://").expect("a URL").1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = rest.split(['/', '?']).next().expect("a host");
    format!("postgres://{role}:{role}@{host}/{database}")
}
