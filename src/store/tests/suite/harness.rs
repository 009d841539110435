//! A store of each kind, fresh for every test.

use bellwether_model::SiteId;
use bellwether_store::{PostgresUrl, Scope, Store, StoreConfig, StoreError, Tx};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
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

/// The admin's URL with another role and database.
fn url_as(admin: &str, database: &str, role: &str) -> String {
    let rest = admin.split_once("://").expect("a URL").1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = rest.split(['/', '?']).next().expect("a host");
    format!("postgres://{role}:{role}@{host}/{database}")
}
