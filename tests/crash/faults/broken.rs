//! RT-14: the disk breaks. After an fsync that failed the kernel may call pages clean that never reached the disk, so the
//! server stops at once, with words and a code; and a start that cannot read or write says so and ends too.

use super::{EIO, ENOSPC, EROFS, Faulty, OPEN, READ, SYNC, WRITE, Which};
use crate::chance::Chance;
use crate::load::Scene;
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICES: usize = 4;
/// How long a server may live on after its disk broke.
const END: Duration = Duration::from_secs(8);

/// What breaks while it runs.
const CASES: [(&str, i64, Which, i64); 6] = [
    ("an fsync of the log", SYNC, Which::Log, EIO),
    ("an fsync of the database", SYNC, Which::Database, EIO),
    ("an fsync of the log, for want of space", SYNC, Which::Log, ENOSPC),
    ("a write to the log", WRITE, Which::Log, EIO),
    ("a write to the log of a read-only file system", WRITE, Which::Log, EROFS),
    ("a write to the database", WRITE, Which::Database, EIO),
];

/// What breaks before it runs, and the words for it.
const STARTS: [(&str, i64, Which, i64, &str); 4] = [
    ("the database cannot be read", READ, Which::Database, EIO, "disk I/O error"),
    ("the file system is read-only", OPEN, Which::All, EROFS, "Read-only file system"),
    ("the database cannot be synced", SYNC, Which::Database, EIO, "disk I/O error"),
    ("the log cannot be written", WRITE, Which::Log, EIO, "disk"),
];

pub async fn run(library: &Path, rounds: u32, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut faulty, site) = Faulty::start(library, false, &["disk.reserve_bytes=0"]).await;
    let scene = Scene::new(site, DEVICES).await;
    let rounds = CASES.len().max(rounds as usize / 8);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let (name, what, which, error) = CASES[round % CASES.len()];
        let load = tokio::spawn({
            let scene = scene.clone();
            async move { scene.run().await }
        });
        tokio::time::sleep(Duration::from_millis(chance.between(100, 500))).await;
        let after = i64::try_from(chance.between(0, 8)).unwrap();
        // Once is enough: the next fsync of the same file says that all is well, and lies.
        faulty.control.arm(what, which, after, 1, error);
        let until = Instant::now() + Duration::from_secs(30);
        while faulty.control.failed() == 0 {
            assert!(Instant::now() < until, "{name}: it was never called");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let broken = Instant::now();
        let code = faulty.victim.ended(END);
        scene.stop();
        load.await.unwrap();
        assert_eq!(code, Some(Some(1)), "{name} failed, and the server goes on: {}", faulty.victim.log());
        slowest = slowest.max(broken.elapsed());
        let log = faulty.victim.log();
        assert!(log.contains("the disk failed while writing, so the server stopped"), "{name}: {log}");
        faulty.control.disarm();
        faulty.victim.spawn();
        scene.collect().await;
        faulty.victim.sound();
    }
    for (name, what, which, error, words) in STARTS {
        faulty.victim.kill();
        faulty.control.arm(what, which, 0, -1, error);
        faulty.victim.launch();
        let code = faulty.victim.ended(END);
        let log = faulty.victim.log();
        assert_eq!(code, Some(Some(1)), "{name}, and the server starts: {log}");
        assert!(log.contains("error: ") && log.contains(words), "{name}: {log}");
        faulty.control.disarm();
        faulty.victim.spawn();
        scene.collect().await;
        faulty.victim.sound();
    }
    scene.drain().await;
    println!(
        "broken, SQLite: {rounds} failures under load, each the end of the server within {slowest:?}; {} starts refused; \
         {} commands, all done",
        STARTS.len(),
        scene.ledger().wishes.len()
    );
}
