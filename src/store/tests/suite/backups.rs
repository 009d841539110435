//! Everything that a database holds leaves it and comes back, from and into each backend.

use crate::harness::Bed;
use crate::world::*;
use bellwether_store::backup::{self, Counts, Into};
use bellwether_store::records::*;
use bellwether_store::{Store, StoreConfig, StoreError};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use std::time::{Duration, Instant};

/// All rows of a store.
fn dump(store: &Store) -> (Vec<u8>, Counts, String) {
    let mut out = Vec::new();
    let mut snapshot = store.snapshot().expect("a snapshot");
    let counts = snapshot.write(&mut out).expect("written");
    (out, counts, snapshot.schema().to_owned())
}

/// A new SQLite store with these rows.
fn filled(rows: &[u8], schema: &str) -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    fill_folder(&folder, rows, schema).expect("filled");
    let store = Store::open(StoreConfig::Sqlite { folder: folder.path().to_owned(), readers: 1 });
    (store.expect("opens"), folder)
}

fn fill_folder(folder: &tempfile::TempDir, mut rows: &[u8], schema: &str) -> Result<Counts, StoreError> {
    backup::fill(Into::Folder(folder.path().to_owned()), schema, &mut rows, &mut |_| Ok(()))
}

fn fill_database(
    (admin, name): &(String, String),
    mut rows: &[u8],
    schema: &str,
    aside: Option<&str>,
) -> Result<Counts, StoreError> {
    let StoreConfig::Postgres { url, .. } = Bed::postgres_config(admin, name, "bellwether_suite") else {
        panic!("PostgreSQL")
    };
    let into = Into::Postgres { url, aside: aside.map(str::to_owned), allow_rls_bypass: false };
    backup::fill(into, schema, &mut rows, &mut |_| Ok(()))
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
    #[diesel(sql_type = diesel::sql_types::Text)]
    kind: String,
}

#[expect(clippy::disallowed_methods, reason = "behind the store's back, in a test")]
fn names(raw: &mut SqliteConnection, query: &str) -> Vec<Name> {
    diesel::sql_query(query).load(raw).expect("names")
}

/// Two rows in every table that there is. All references hold, since all ids of a row are the same.
fn rows_everywhere(bed: &Bed) -> usize {
    let mut raw = SqliteConnection::establish(&bed.raw_url()).expect("opens");
    raw.batch_execute("PRAGMA foreign_keys = OFF").expect("set");
    let tables = names(
        &mut raw,
        "SELECT name, '' AS kind FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         AND name NOT LIKE '__diesel%'",
    );
    for Name { name: table, .. } in &tables {
        let columns =
            names(&mut raw, &format!("SELECT name, type AS kind FROM pragma_table_info('{table}')"));
        for n in [1, 2] {
            let value = |column: &Name| match column.kind.as_str() {
                "BLOB" => format!("x'{}'", format!("0{n}").repeat(16)),
                "TEXT" => format!("'word {n}'"),
                _ if column.kind.starts_with("BOOL") => (n - 1).to_string(),
                _ => n.to_string(),
            };
            let values: Vec<String> = columns.iter().map(value).collect();
            let insert = format!("INSERT INTO {table} VALUES ({})", values.join(", "));
            raw.batch_execute(&insert).unwrap_or_else(|e| panic!("{insert}: {e}"));
        }
    }
    tables.len()
}

#[test]
fn every_row_of_every_table_comes_back_on_sqlite() {
    let bed = Bed::sqlite();
    let tables = rows_everywhere(&bed);
    let (rows, counts, schema) = dump(bed.store());
    assert_eq!(counts.len(), tables, "every table is in it");
    assert!(tables > 30 && counts.values().all(|rows| *rows == 2), "{counts:?}");
    let (store, _folder) = filled(&rows, &schema);
    assert_eq!(dump(&store).0, rows, "byte for byte");
    assert_eq!(store.flaw(), Ok(None));
}

#[test]
fn every_row_of_every_table_crosses_to_postgres_and_back() {
    let Some(database) = Bed::empty_database() else { return };
    let bed = Bed::sqlite();
    rows_everywhere(&bed);
    let (rows, counts, schema) = dump(bed.store());
    assert_eq!(fill_database(&database, &rows, &schema, None), Ok(counts.clone()));
    let store =
        Store::open(Bed::postgres_config(&database.0, &database.1, "bellwether_suite")).expect("opens");
    let (there, of_postgres, _) = dump(&store);
    assert_eq!(of_postgres, counts, "PostgreSQL has no table more and none less");
    let (back, _folder) = filled(&there, &schema);
    assert_eq!(dump(&back).0, rows);
    // References are checked with each row again.
    let mut pg = PgConnection::establish(&url_of(&database)).expect("connects");
    pg.batch_execute("SET bellwether.system = 'on'").expect("set");
    let dangling = "INSERT INTO site_settings (site_id, key, value) VALUES ('\\x09', 'k', '\\x00')";
    assert!(pg.batch_execute(&format!("BEGIN; {dangling}")).is_err());
}

fn url_of((admin, name): &(String, String)) -> String {
    let rest = admin.split_once("://").expect("a URL").1;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).split(['/', '?']).next().expect("a host");
    format!("postgres://bellwether_suite:bellwether_suite@{host}/{name}")
}

#[test]
fn a_database_that_is_not_empty_or_in_use_is_refused_and_unchanged() {
    let Some(bed) = Bed::postgres() else { return };
    let world = World::new(&bed);
    let (rows, counts, schema) = dump(bed.store());
    let Some(target) = Bed::empty_database() else { return };
    fill_database(&target, &rows, &schema, None).expect("filled");
    let refused = fill_database(&target, &rows, &schema, None).expect_err("refused");
    assert!(refused.to_string().contains("not empty"), "{refused}");
    let config = Bed::postgres_config(&target.0, &target.1, "bellwether_suite");
    let store = Store::open(config.clone()).expect("opens");
    let refused = fill_database(&target, &rows, &schema, Some("aside")).expect_err("refused");
    assert!(refused.to_string().contains("stop every server"), "{refused}");
    drop(store);
    // What cannot be brought back changes nothing, also when room was made for it.
    let half = rows.get(..rows.len() - 10).expect("shorter");
    assert!(fill_database(&target, half, &schema, Some("aside")).is_err());
    let store = Store::open(config.clone()).expect("opens");
    assert_eq!(dump(&store).1, counts);
    drop(store);
    // What is moved aside is still there.
    fill_database(&target, &rows, &schema, Some("aside")).expect("filled");
    let mut pg = PgConnection::establish(&url_of(&target)).expect("connects");
    pg.batch_execute("SET bellwether.system = 'on'").expect("set");
    #[expect(clippy::disallowed_methods, reason = "behind the store's back, in a test")]
    let kept: Vec<Name> =
        diesel::sql_query("SELECT name, '' AS kind FROM aside.sites").load(&mut pg).expect("read");
    assert_eq!(kept.first().map(|site| site.name.as_str()), Some("Acme"));
    drop(pg);
    let store = Store::open(config).expect("opens");
    let site = store.read_blocking(bellwether_store::Scope::Site(world.site), |tx| tx.site(world.site));
    assert!(matches!(site, Ok(Some(_))), "{site:?}");
}

#[test]
fn a_schema_that_nobody_knows_is_refused_and_an_older_one_is_brought_up() {
    let bed = Bed::sqlite();
    let (rows, ..) = dump(bed.store());
    let folder = tempfile::tempdir().expect("a folder");
    let refused = fill_folder(&folder, &rows, "29991231235959").expect_err("refused");
    assert!(matches!(refused, StoreError::NewerSchema(_)), "{refused}");
    assert!(!folder.path().join("bellwether.db").exists());
    // The first schema had no packages: its rows come back, and the tables that came later are made.
    let old = tempfile::tempdir().expect("a folder");
    let first = "20261122030000";
    assert!(backup::knows_schema(first));
    let mut raw =
        SqliteConnection::establish(old.path().join("old.db").to_str().expect("UTF-8")).expect("opens");
    raw.batch_execute(include_str!("../../../../migrations/sqlite/2026-11-22-030000_first/up.sql"))
        .expect("made");
    drop(raw);
    let empty: Vec<u8> =
        [&[1, 5][..], b"sites", &[4, 2], b"id", &[4], b"name", &[11], b"wrapped_key", &[10], b"created_at"]
            .concat();
    let site = [&[2, 3, 0, 0, 0, 16][..], &[7; 16], &[2, 0, 0, 0, 1], b"A", &[3, 0, 0, 0, 1, 9, 1], &[0; 8]]
        .concat();
    let end = [&[3, 0, 1, 5][..], b"sites", &1_u64.to_be_bytes()].concat();
    let (store, _folder) = filled(&[empty, site, end].concat(), first);
    let (_, counts, schema) = dump(&store);
    assert_eq!((counts.get("sites"), counts.get("packages")), (Some(&1), Some(&0)));
    assert_ne!(schema, first);
}

on_every_backend! {
    fn a_snapshot_is_one_moment_and_keeps_nobody_waiting(bed: &mut Bed) {
        let world = World::new(bed);
        for _ in 0..50 {
            world.insert(bed, &world.command());
        }
        let mut snapshot = bed.store().snapshot().expect("a snapshot");
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let began = Instant::now();
            world.insert(bed, &world.command());
            slowest = slowest.max(began.elapsed());
        }
        let mut out = Vec::new();
        let counts = snapshot.write(&mut out).expect("written");
        assert_eq!(counts.get("commands"), Some(&50), "what came later is not in it");
        assert_eq!(counts.get("parts"), Some(&50));
        assert!(slowest < Duration::from_secs(2), "a write waited {slowest:?}");
        drop(snapshot);
        let (_, counts, _) = dump(bed.store());
        assert_eq!(counts.get("commands"), Some(&100));
    }

    fn a_row_that_points_nowhere_is_told(bed: &mut Bed) {
        let world = World::new(bed);
        world.insert(bed, &world.command());
        let (rows, _, schema) = dump(bed.store());
        // The device under another id: everything of it points nowhere.
        let device = world.device.as_bytes().to_vec();
        let at = rows.windows(16).position(|window| window == device).expect("it is in there");
        let mut damaged = rows.clone();
        damaged.splice(at..at + 16, [0xee; 16]);
        let (store, _folder) = filled(&damaged, &schema);
        let flaw = store.flaw().expect("looked").expect("found");
        assert!(flaw.contains("not there"), "{flaw}");
        let Some(target) = Bed::empty_database() else { return };
        assert!(fill_database(&target, &damaged, &schema, None).is_err());
        assert!(fill_database(&target, &rows, &schema, None).is_ok(), "nothing of it was left behind");
    }
}

#[test]
fn what_is_written_ends_with_an_error_when_the_disk_is_full() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bed = Bed::sqlite();
    World::new(&bed);
    let refused = bed.store().snapshot().expect("a snapshot").write(&mut Full(500)).expect_err("refused");
    assert!(matches!(refused, StoreError::Backup(_)), "{refused}");
    // The store itself goes on.
    let world = World::new(&bed);
    assert_eq!(world.insert(&bed, &world.command()), Inserted::New(1));
}
