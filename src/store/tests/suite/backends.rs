//! What each backend owes: isolation inside a group, locks, schema versions, and the same schema on both.

use crate::harness::Bed;
use crate::world::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, Store, StoreConfig, StoreError};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use std::collections::BTreeSet;

on_every_backend! {
    fn a_panic_loses_its_own_changes_and_nobody_elses(bed: &mut Bed) {
        let world = World::new(bed);
        let store = bed.store().clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let outcomes = runtime.block_on(async {
            let mut tasks = Vec::new();
            for n in 0..60 {
                let (store, command, entry) = (store.clone(), world.command(), audit_entry());
                tasks.push(tokio::spawn(async move {
                    store
                        .write(Scope::Site(world.site), move |tx| {
                            tx.audit_append(&entry)?;
                            assert!(n % 3 != 1, "a mistake of ours");
                            tx.command_insert(&command)?;
                            if n % 3 == 2 { Err(StoreError::Misuse("changed its mind")) } else { Ok(()) }
                        })
                        .await
                }));
            }
            let mut outcomes = Vec::new();
            for task in tasks {
                outcomes.push(task.await.expect("the task ends"));
            }
            outcomes
        });
        for (n, outcome) in outcomes.iter().enumerate() {
            match n % 3 {
                0 => assert_eq!(*outcome, Ok(())),
                1 => assert!(matches!(outcome, Err(StoreError::Panicked(_))), "{outcome:?}"),
                _ => assert_eq!(*outcome, Err(StoreError::Misuse("changed its mind"))),
            }
        }
        assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 20);
        assert_eq!(bed.read(world.site, |tx| tx.unsealed_audit_count()), 20);
        // Sequence numbers have no holes and no twins, whoever ran beside whom.
        let all = bed.read(world.site, |tx| tx.commands(&CommandFilter::default(), &Page { after: None, limit: 100 }));
        let numbers: BTreeSet<i64> = all.iter().map(|c| c.seq).collect();
        assert_eq!(numbers, (1..=20).collect());
        drop(store);
        drop(runtime);
    }

    fn operations_of_several_sites_that_share_a_commit_see_their_own(bed: &mut Bed) {
        let (here, there) = (World::new(bed), World::new(bed));
        let store = bed.store().clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let refused = runtime.block_on(async {
            let mut tasks = Vec::new();
            for n in 0..90 {
                let world = if n % 2 == 0 { here } else { there };
                let (store, command, entry) = (store.clone(), world.command(), audit_entry());
                let scope = if n % 5 == 4 { Scope::System } else { Scope::Site(world.site) };
                tasks.push(tokio::spawn(async move {
                    store
                        .write(scope, move |tx| {
                            if scope == Scope::System {
                                return tx.sites().map(|sites| assert_eq!(sites.len(), 2, "all of them"));
                            }
                            // A row of the own site is there, one of the other is not, and what is written is kept.
                            assert!(tx.channel(world.channel)?.is_some(), "the own channel");
                            let other = if world.site == here.site { there } else { here };
                            assert_eq!(tx.channel(other.channel)?, None, "the other's channel");
                            tx.command_insert(&command)?;
                            tx.audit_append(&entry)?;
                            if n % 7 == 6 { Err(StoreError::Misuse("changed its mind")) } else { Ok(()) }
                        })
                        .await
                }));
            }
            let mut refused = 0;
            for task in tasks {
                match task.await.expect("the task ends") {
                    Ok(()) => {}
                    Err(StoreError::Misuse("changed its mind")) => refused += 1,
                    Err(why) => panic!("{why}"),
                }
            }
            refused
        });
        let kept = |world: World| bed.read(world.site, move |tx| tx.pending_count(world.channel));
        let written = (0..90).filter(|n| n % 5 != 4).count();
        assert_eq!(usize::try_from(kept(here) + kept(there)).expect("a count") + refused, written);
        drop(store);
        drop(runtime);
    }

    fn a_swallowed_database_error_keeps_nothing(bed: &mut Bed) {
        let world = World::new(bed);
        let (twin, entry) = (device(world.device, "UDID-2"), audit_entry());
        let outcome = bed.try_write(Scope::Site(world.site), move |tx| {
            drop(tx.device_insert(&twin));
            drop(tx.audit_append(&entry));
            Ok(())
        });
        assert_eq!(outcome, Err(StoreError::Conflict("devices_pkey".into())));
        assert_eq!(bed.read(world.site, |tx| tx.unsealed_audit_count()), 0);
    }

    fn one_attempt_is_counted_for_each_of_many_at_once(bed: &mut Bed) {
        let world = World::new(bed);
        let invitation = invitation(None);
        let id = invitation.id;
        bed.write(world.site, move |tx| tx.invitation_insert(&invitation));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        bed.write(world.site, move |tx| tx.invitation_attempt(id));
                    }
                });
            }
        });
        assert_eq!(bed.read(world.site, |tx| tx.invitation(id)).expect("there").attempts, 20);
    }
}

#[test]
fn a_second_process_is_refused_in_plain_words() {
    let bed = Bed::sqlite();
    let refused = Store::open(bed.config.clone()).err().expect("refused");
    assert!(matches!(refused, StoreError::FolderInUse(_)));
    assert!(refused.to_string().contains("in use by another bellwether process"), "{refused}");
}

/// PostgreSQL goes by its own clock.
#[test]
fn rt_19_a_lease_from_before_the_clock_was_set_back_is_over() {
    let bed = Bed::sqlite();
    let lease = |who: &'static str, ms| {
        bed.system(move |tx| tx.lease_acquire("sealer", who, 60_000, bellwether_model::Timestamp(ms)))
    };
    let year = 365 * 24 * 3_600_000;
    assert!(lease("one", 2 * year));
    assert!(!lease("two", 2 * year + 59_999), "it runs");
    assert!(lease("two", year), "or nobody would seal for a year");
}

#[cfg(unix)]
#[test]
fn the_files_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::sqlite();
    World::new(&bed);
    for name in ["bellwether.db", "bellwether.db-wal", "bellwether.db-shm", "bellwether.lock"] {
        let path = bed.file().with_file_name(name);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

const FUTURE: &str = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231235959')";

#[test]
fn a_newer_schema_is_refused_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = StoreConfig::Sqlite { folder: folder.path().to_path_buf(), readers: 1 };
    drop(Store::open(config.clone()).expect("opens"));
    let file = folder.path().join("bellwether.db");
    SqliteConnection::establish(file.to_str().expect("UTF-8"))
        .expect("opens")
        .batch_execute(FUTURE)
        .expect("stored");
    assert_eq!(Store::open(config).err(), Some(StoreError::NewerSchema("29991231235959".into())));
}

#[test]
fn a_newer_schema_is_refused_on_postgres() {
    let Some(bed) = Bed::postgres() else { return };
    PgConnection::establish(&bed.raw_url()).expect("connects").batch_execute(FUTURE).expect("stored");
    assert_eq!(Store::open(bed.config.clone()).err(), Some(StoreError::NewerSchema("29991231235959".into())));
}

#[test]
fn postgres_without_durability_or_walls_is_refused() {
    let Some(bed) = Bed::postgres() else { return };
    let mut pg = PgConnection::establish(&bed.raw_url()).expect("connects");
    let name = bed.raw_url().rsplit('/').next().expect("a name").to_owned();
    pg.batch_execute(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).expect("set");
    assert_eq!(Store::open(bed.config.clone()).err(), Some(StoreError::DurabilityOff));
    pg.batch_execute(&format!("ALTER DATABASE {name} RESET synchronous_commit")).expect("reset");
    let admin = std::env::var("BELLWETHER_TEST_POSTGRES_URL").expect("set");
    let url = admin.replacen("/postgres", &format!("/{name}"), 1);
    let as_admin = |allow| StoreConfig::Postgres {
        url: bellwether_store::PostgresUrl::new(url.clone()),
        max_connections: 2,
        allow_rls_bypass: allow,
    };
    assert_eq!(Store::open(as_admin(false)).err(), Some(StoreError::RoleBypassesRls));
    assert!(Store::open(as_admin(true)).is_ok());
}

#[test]
fn a_connection_that_postgres_dropped_is_replaced() {
    let Some(bed) = Bed::postgres() else { return };
    let world = World::new(&bed);
    let admin = std::env::var("BELLWETHER_TEST_POSTGRES_URL").expect("set");
    let mut pg = PgConnection::establish(&admin).expect("connects");
    let name = bed.raw_url().rsplit('/').next().expect("a name").to_owned();
    for _ in 0..3 {
        pg.batch_execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .expect("dropped");
        world.insert(&bed, &world.command());
    }
    assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 3);
}

type Shape = BTreeSet<(String, String, bool)>;

mod sqlite_catalog {
    diesel::table! { sqlite_master (name) { name -> Text, #[sql_name = "type"] kind -> Text } }
}

mod postgres_catalog {
    diesel::table! {
        information_schema.columns (table_name, column_name) {
            table_schema -> Text,
            table_name -> Text,
            column_name -> Text,
            #[sql_name = "is_nullable"]
            yes_or_no -> Text,
        }
    }
}

/// (table, column, nullable) as SQLite has them.
fn sqlite_shape() -> Shape {
    use sqlite_catalog::sqlite_master::dsl::*;
    #[derive(QueryableByName)]
    struct Column {
        #[diesel(sql_type = diesel::sql_types::Text)]
        column: String,
        #[diesel(sql_type = diesel::sql_types::Integer)]
        required: i32,
    }
    let bed = Bed::sqlite();
    let mut raw = SqliteConnection::establish(&bed.raw_url()).expect("opens");
    let tables: Vec<String> =
        sqlite_master.filter(kind.eq("table")).select(name).load(&mut raw).expect("tables");
    let mut shape = Shape::new();
    for table in tables.into_iter().filter(|t| !t.starts_with("sqlite_") && !t.starts_with("__diesel")) {
        #[expect(
            clippy::disallowed_methods,
            reason = "a pragma's rows have no diesel table; the name is bound"
        )]
        let columns: Vec<Column> =
            diesel::sql_query("SELECT name AS \"column\", \"notnull\" AS required FROM pragma_table_info(?)")
                .bind::<diesel::sql_types::Text, _>(&table)
                .load(&mut raw)
                .expect("columns");
        shape.extend(columns.into_iter().map(|c| (table.clone(), c.column, c.required == 0)));
    }
    shape
}

#[test]
fn both_databases_have_the_same_schema() {
    let Some(bed) = Bed::postgres() else { return };
    use postgres_catalog::columns::dsl::*;
    let mut pg = PgConnection::establish(&bed.raw_url()).expect("connects");
    let rows: Vec<(String, String, String)> = columns
        .filter(table_schema.eq("public"))
        .filter(table_name.ne("__diesel_schema_migrations"))
        .select((table_name, column_name, yes_or_no))
        .load(&mut pg)
        .expect("columns");
    let postgres: Shape = rows.into_iter().map(|(t, c, n)| (t, c, n == "YES")).collect();
    let sqlite = sqlite_shape();
    let apart: Vec<_> = sqlite.symmetric_difference(&postgres).collect();
    assert!(apart.is_empty(), "in one of both only: {apart:?}");
    assert!(sqlite.len() > 200, "the comparison saw the tables");
}
