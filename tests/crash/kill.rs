//! SIGKILL under load: of the server, of PostgreSQL, of both.

use crate::chance::Chance;
use crate::harness::root;
use crate::load::Scene;
use crate::victim::Victim;
use std::process::Command;
use std::time::Duration;

/// Half Macs, half PCs.
const DEVICES: usize = 8;

/// On each backend that is there.
pub async fn run(rounds: u32, seed: u64) {
    backend("SQLite", None, rounds, seed).await;
    match std::env::var("BELLWETHER_TEST_POSTGRES_URL") {
        Ok(url) => backend("PostgreSQL", Some(url), rounds, seed).await,
        Err(_) => {
            let said = "kill: SKIPPED on PostgreSQL: BELLWETHER_TEST_POSTGRES_URL is not set (see tests/postgres-up)";
            assert!(std::env::var_os("CI").is_none(), "{said}");
            println!("{said}");
        }
    }
}

/// What is killed in a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Server,
    Database,
    Both,
}

async fn backend(name: &str, cluster: Option<String>, rounds: u32, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut victim, site) = Victim::start(cluster.is_some(), Vec::new()).await;
    let scene = Scene::new(site, DEVICES).await;
    let (mut hit, mut most, mut databases) = (0, 0, 0);
    let (mut committed, mut lost) = (0, 0);
    for _ in 0..rounds {
        let who = match chance.between(0, 4) {
            0 if cluster.is_some() => Who::Database,
            1 if cluster.is_some() => Who::Both,
            _ => Who::Server,
        };
        let load = tokio::spawn({
            let scene = scene.clone();
            async move { scene.run().await }
        });
        tokio::time::sleep(Duration::from_millis(chance.between(80, 900))).await;
        let under_way = scene.under_way();
        if let Some(url) = cluster.as_ref().filter(|_| who != Who::Server) {
            databases += 1;
            crash_cluster(url).await;
        }
        if who != Who::Database {
            victim.kill();
        }
        scene.stop();
        load.await.unwrap();
        if who != Who::Database {
            victim.spawn();
        }
        let found = scene.collect().await;
        victim.sound();
        hit += u32::from(under_way > 0);
        most = most.max(under_way);
        committed += found.committed;
        lost += found.lost;
    }
    scene.drain().await;
    println!(
        "kill, {name}: {rounds} rounds, in {databases} the database; {hit} met writes under way (up to {most}); of the \
         calls without an answer {committed} were committed and {lost} were not; {} commands, all done",
        scene.ledger().wishes.len()
    );
    assert!(hit * 2 >= rounds, "fewer than half of the kills met an open write");
}

/// All processes of the cluster are killed, and it starts again.
async fn crash_cluster(url: &str) {
    let mut command = Command::new(root().join("tests/postgres-crash"));
    command.arg(url);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
