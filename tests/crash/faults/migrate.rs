//! RT-25: death in the middle of a migration, at any write (SQLite) or any send to the database (PostgreSQL). The next
//! start ends it, and what was there is there.

use super::Faulty;
use crate::chance::Chance;
use crate::harness::{PATIENCE, Site, psql, root};
use crate::victim::Victim;
use bellwether_sim::{AppleDevice, Family};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub async fn run(library: &Path, rounds: u32, seed: u64) {
    backend("SQLite", library, false, rounds, seed).await;
    if std::env::var_os("BELLWETHER_TEST_POSTGRES_URL").is_some() {
        backend("PostgreSQL", library, true, rounds, seed).await;
    } else {
        let said =
            "migrate: SKIPPED on PostgreSQL: BELLWETHER_TEST_POSTGRES_URL is not set (see tests/postgres-up)";
        assert!(std::env::var_os("CI").is_none(), "{said}");
        println!("{said}");
    }
}

async fn backend(name: &str, library: &Path, postgres: bool, rounds: u32, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut faulty, site) = Faulty::start(library, postgres, &["disk.reserve_bytes=0"]).await;
    let mut mac = site.enrolled(Family::Mac).await;
    let mut known = Vec::new();
    for number in 0..6 {
        known.push(rename(&site, &mac, number).await);
        if number < 3 {
            mac.poll().await.unwrap();
        }
    }
    let before = look(&site, &known).await;
    let all = migrations(postgres);
    // How long a start with every migration but the first is.
    faulty.victim.kill();
    age(&faulty.victim, &all, 1);
    faulty.control.death(0);
    faulty.victim.spawn();
    let whole = faulty.control.steps();
    assert_eq!(look(&site, &known).await, before, "an upgrade without accidents");

    let rounds = rounds.div_ceil(5).max(8);
    let (mut killed, mut half) = (0, 0);
    let mut places = BTreeMap::<usize, u32>::new();
    for _ in 0..rounds {
        faulty.victim.kill();
        age(&faulty.victim, &all, 1);
        // Migrations come first; what a start does after them is not of interest here.
        faulty.control.death(i64::try_from(chance.between(1, whole.unsigned_abs() / 2)).unwrap());
        faulty.victim.launch();
        if dies(&mut faulty.victim) {
            killed += 1;
            let applied = versions(&faulty.victim);
            *places.entry(applied).or_default() += 1;
            half += u32::from(applied < all.len());
        }
        faulty.victim.kill();
        faulty.control.death(0);
        faulty.victim.spawn();
        assert_eq!(versions(&faulty.victim), all.len());
        assert_eq!(look(&site, &known).await, before, "an upgrade lost something");
        faulty.victim.sound();
    }
    assert!(half * 4 >= rounds, "only {half} deaths came before the last migration");
    faulty.victim.kill();
    faulty.victim.spawn();
    mac.poll().await.unwrap();
    let states = look(&site, &known).await;
    assert!(states.iter().all(|state| state == "acknowledged"), "{states:?}");
    println!(
        "migrate, {name}: {rounds} upgrades, {killed} killed in the first half of {whole} steps, {half} of them between the first \
         and the last migration (by migrations done: {places:?}); each went on to its end, and nothing was lost"
    );
}

async fn rename(site: &Site, mac: &AppleDevice, number: u32) -> String {
    site.send(mac, json!({ "type": "rename", "name": format!("mac-{number}") })).await
}

async fn look(site: &Site, known: &[String]) -> Vec<String> {
    let verified = site.get("/audit/verify").await;
    assert_eq!(verified["intact"], true, "{verified}");
    let mut states = Vec::new();
    for id in known {
        states.push(site.state(id).await);
    }
    states
}

/// Whether it died by SIGKILL; otherwise it serves.
fn dies(victim: &mut Victim) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(code) = victim.ended(Duration::ZERO) {
            assert_eq!(code, None, "it ended by itself: {}", victim.log());
            return true;
        }
        if victim.log().contains("bellwether serves") {
            return false;
        }
        assert!(Instant::now() < until, "it neither dies nor serves: {}", victim.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The migrations in order: version, and what undoes it.
fn migrations(postgres: bool) -> Vec<(String, String)> {
    let folder = root().join("migrations").join(if postgres { "postgres" } else { "sqlite" });
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let version = name.split('_').next().unwrap().replace('-', "");
            (version, std::fs::read_to_string(path.join("down.sql")).unwrap())
        })
        .collect()
}

/// Makes the database one of an older version: only the first migrations are left.
fn age(victim: &Victim, all: &[(String, String)], left: usize) {
    let mut sql = String::from("BEGIN;\n");
    for (version, undo) in all.iter().skip(left).rev() {
        sql.push_str(undo);
        sql.push_str(&format!("\nDELETE FROM __diesel_schema_migrations WHERE version = '{version}';\n"));
    }
    sql.push_str("COMMIT;\n");
    match &victim.database {
        Some(database) => drop(psql(&database.url(), &sql)),
        None => drop(python(&victim.data(), "c.executescript(sys.stdin.read())", &sql)),
    }
}

/// How many migrations have been done.
fn versions(victim: &Victim) -> usize {
    let count = "SELECT count(*) FROM __diesel_schema_migrations";
    let said = match &victim.database {
        Some(database) => psql(&database.url(), count),
        None => {
            // Whoever opens the files repairs them: that is to be the server's work.
            let copy = tempfile::tempdir().unwrap();
            for name in ["bellwether.db", "bellwether.db-wal"] {
                let from = victim.data().join(name);
                if from.exists() {
                    std::fs::copy(from, copy.path().join(name)).unwrap();
                }
            }
            python(copy.path(), "print(c.execute(sys.stdin.read()).fetchone()[0])", count)
        }
    };
    said.trim().parse().unwrap()
}

/// Python's own SQLite library.
fn python(folder: &Path, work: &str, sql: &str) -> String {
    use std::io::Write as _;
    let script = format!("import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=20); {work}; c.close()");
    let mut child = Command::new("python3")
        .args(["-c", &script])
        .arg(folder.join("bellwether.db"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{sql}");
    String::from_utf8(output.stdout).unwrap()
}
