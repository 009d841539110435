//! Houses on PostgreSQL, for what depends on how transactions meet. PostgreSQL comes from
//! `BELLWETHER_TEST_POSTGRES_URL` (see `tests/postgres-up`); without it only SQLite is tried.

use bellwether_engine::StoreConfig;
use bellwether_store::PostgresUrl;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs each test in a house on every backend.
macro_rules! on_every_backend {
    ($($(#[$meta:meta])* async fn $name:ident($house:ident: House) $body:block)+) => {
        $($(#[$meta])* async fn $name($house: crate::support::House) $body)+
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(crate::support::house().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let Some(database) = crate::backends::Database::fresh() else { return };
                let folder = tempfile::tempdir().unwrap();
                super::$name(crate::support::house_on(database.store(), folder).await).await;
            })+
        }
    };
}

/// The role that the engine works under: plain, so that row-level security holds for it.
const ROLE: &str = "bellwether_road";

/// A database that is gone with the test.
pub struct Database {
    admin: String,
    name: String,
}

impl Database {
    pub fn fresh() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(admin) = std::env::var("BELLWETHER_TEST_POSTGRES_URL") else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI without BELLWETHER_TEST_POSTGRES_URL: see tests/postgres-up"
            );
            return None;
        };
        let name = format!("road_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let role = format!(
            "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}' NOSUPERUSER NOBYPASSRLS; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        psql(&admin, &role);
        psql(&admin, &format!("CREATE DATABASE {name} OWNER {ROLE}"));
        Some(Self { admin, name })
    }

    pub fn store(&self) -> StoreConfig {
        let rest = self.admin.split_once("://").unwrap().1;
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).split(['/', '?']).next().unwrap();
        StoreConfig::Postgres {
            url: PostgresUrl::new(format!("postgres://{ROLE}:{ROLE}@{host}/{}", self.name)),
            max_connections: 4,
            allow_rls_bypass: false,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = Command::new("psql").args(["-q", "-d", &self.admin, "-c", &drop]).output();
    }
}

fn psql(url: &str, sql: &str) {
    let output =
        Command::new("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}
