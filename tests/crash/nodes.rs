//! RT-04, RT-15: two servers on one PostgreSQL, without affinity, and everything between them breaks. What administrators
//! and devices were answered is written down and must fit together in the end.

mod history;
mod nemesis;
mod town;
mod traffic;

use crate::chance::Chance;
use nemesis::Trouble;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use town::Town;
use traffic::Traffic;

/// Administrators and devices.
#[derive(Clone, Copy)]
pub struct Size {
    clients: usize,
    devices: usize,
}

/// For every change.
pub const SHORT: Size = Size { clients: 8, devices: 8 };
/// For a night.
pub const LONG: Size = Size { clients: 32, devices: 50 };

/// After trouble both nodes work again within this.
const RECOVERY: Duration = Duration::from_secs(20);
/// How long everything may take to be done in the end.
const DRAIN: Duration = Duration::from_secs(120);

pub async fn run(rounds: u32, seed: u64, size: Size) {
    history::sees_what_is_wrong();
    let Ok(cluster) = std::env::var("BELLWETHER_TEST_POSTGRES_URL") else {
        let said = "nodes: SKIPPED: BELLWETHER_TEST_POSTGRES_URL is not set (see tests/postgres-up)";
        assert!(std::env::var_os("CI").is_none(), "{said}");
        println!("{said}");
        return;
    };
    let mut chance = Chance::new(seed);
    let mut town = Town::new(cluster).await;
    let nodes = vec![town.node(0), town.node(1)];
    let traffic = Traffic::new(town.site.clone(), nodes, size.devices).await;
    let (mut struck, mut slowest) = (BTreeMap::<String, u32>::new(), Duration::ZERO);
    for round in 0..rounds {
        // Each kind comes before any comes again.
        let kinds = nemesis::ALL.len();
        let trouble = nemesis::ALL[(round as usize + (seed % kinds as u64) as usize) % kinds];
        let load = tokio::spawn({
            let (traffic, seed) = (traffic.clone(), chance.next());
            async move { traffic.run(size.clients, seed).await }
        });
        tokio::time::sleep(Duration::from_millis(chance.between(500, 1_500))).await;
        nemesis::strike(&mut town, trouble, &mut chance).await;
        *struck.entry(format!("{trouble:?}")).or_default() += 1;
        let recovered = town.recovered(RECOVERY).await;
        slowest = slowest.max(recovered);
        tokio::time::sleep(Duration::from_millis(chance.between(200, 800))).await;
        traffic.stop();
        load.await.unwrap();
        traffic.all_served(RECOVERY).await;
        town.sound();
        let wrong = traffic.history().wrong.clone();
        assert!(wrong.is_empty(), "after {trouble:?}: {wrong:#?}");
    }
    let resolved = traffic.resolve().await;
    finish(&town, &traffic).await;
    let truth = town.truth();
    let history = traffic.history().clone();
    let found = history::violations(&history, &truth);
    assert!(found.is_empty(), "{} broken promises: {found:#?}", found.len());
    let lost = town.gates.iter().map(crate::wire::Gate::lost).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let parked = truth.commands.values().filter(|row| row.sends >= 4).count();
    println!(
        "nodes: {rounds} rounds {struck:?}; {} clients, {} devices; {} commands and {} jobs, none lost, none twice, all \
         done once and in order; {resolved} unknown in the end and resolved by their keys; {} answers to a COMMIT and {} \
         COMMITs were lost; {parked} commands were parked on the way; both nodes worked again after at most {slowest:?}; \
         {:?}",
        size.clients,
        size.devices,
        history.wishes.len(),
        history.jobs.len(),
        lost.0,
        lost.1,
        history.seen,
    );
    let met = |trouble: Trouble| struck.contains_key(&format!("{trouble:?}"));
    assert!(!met(Trouble::LostCommits) || lost.0 > 0, "no answer to a COMMIT was lost");
    assert!(history.trials.iter().any(|trial| !trial.worked) || rounds < 5, "no revoked key was tried");
}

/// All devices call until nothing waits, and the sealer has sealed everything.
async fn finish(town: &Town, traffic: &Traffic) {
    let until = Instant::now() + DRAIN;
    let count = |sql: &str| town.sql(sql).trim().parse::<u64>().unwrap();
    let waiting = "SELECT (SELECT count(*) FROM commands WHERE kind = 'rename' AND pending_lane IS NOT NULL) \
                   + (SELECT count(*) FROM jobs WHERE finished_at IS NULL)";
    while count(waiting) > 0 {
        assert!(Instant::now() < until, "{} are never done", count(waiting));
        // An hour passes for what was handed over too often without an answer (Q8).
        town.sql(
            "UPDATE parts SET last_sent_at = last_sent_at - 3600001 WHERE state = 'sent' AND sends >= 4",
        );
        traffic.all_served(RECOVERY).await;
    }
    traffic.all_served(RECOVERY).await;
    let unsealed = "SELECT (SELECT count(*) FROM audit WHERE position IS NULL) \
                    + (SELECT count(*) FROM events WHERE position IS NULL)";
    while count(unsealed) > 0 {
        assert!(Instant::now() < until, "{} are never sealed", count(unsealed));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    town.sound();
    let verified = traffic.get("/audit/verify").await;
    assert_eq!(verified["intact"], true, "{verified}");
}
