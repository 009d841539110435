//! What goes wrong between two nodes and their database, and how it is mended again.

use crate::chance::Chance;
use crate::nodes::town::Town;
use crate::wire::{Gate, Road};
use std::time::Duration;

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A node's connections to the database break, and it gets no new ones.
    Partition,
    /// Bytes stop between a node and the database.
    Stall,
    /// Every message to and from the database is late.
    Slow,
    /// COMMITs, or the answers to them, get lost.
    LostCommits,
    /// A node is stopped for longer than its leases last, and goes on as if nothing had been.
    Pause,
    /// A node is killed and started again.
    Kill,
    /// PostgreSQL ends every connection, in an orderly way, and starts again.
    Restart,
    /// PostgreSQL loses all of its processes.
    Crash,
    /// PostgreSQL ends connections, again and again.
    Terminate,
    /// One node loses COMMITs while the other one is stopped.
    Both,
}

/// All of them.
pub const ALL: [Trouble; 10] = [
    Trouble::LostCommits,
    Trouble::Pause,
    Trouble::Partition,
    Trouble::Restart,
    Trouble::Kill,
    Trouble::Stall,
    Trouble::Terminate,
    Trouble::Crash,
    Trouble::Slow,
    Trouble::Both,
];

/// Of a thousand COMMITs so many are lost.
const UNLUCKY: u32 = 250;
/// Longer than the leases of the sealer and of jobs (10 seconds).
const LONGER_THAN_LEASES: (u64, u64) = (11_000, 13_000);

/// Makes trouble, waits, and ends it.
pub async fn strike(town: &mut Town, trouble: Trouble, chance: &mut Chance) {
    let node = chance.between(0, 2) as usize;
    let some_time = Duration::from_millis(chance.between(1_500, 4_000));
    match trouble {
        Trouble::Partition => {
            town.gates[node].set(Road::Cut);
            tokio::time::sleep(some_time).await;
            town.gates[node].set(Road::Open);
        }
        Trouble::Stall => {
            town.gates[node].set(Road::Stalled);
            tokio::time::sleep(some_time * 2).await;
            town.gates[node].set(Road::Open);
        }
        Trouble::Slow => {
            town.gates.iter().for_each(|gate| gate.set(Road::Slow(Duration::from_millis(5))));
            tokio::time::sleep(some_time).await;
            town.gates.iter().for_each(|gate| gate.set(Road::Open));
        }
        Trouble::LostCommits => {
            town.gates.iter().for_each(|gate| gate.lose_commits(UNLUCKY));
            tokio::time::sleep(some_time).await;
            town.gates.iter().for_each(|gate| gate.lose_commits(0));
        }
        Trouble::Pause => pause(town, node, chance).await,
        Trouble::Kill => {
            town.nodes[node].kill();
            tokio::time::sleep(some_time / 4).await;
            tokio::task::block_in_place(|| town.nodes[node].spawn());
        }
        Trouble::Restart => town.cluster("postgres-crash", &["fast"]).await,
        Trouble::Crash => town.cluster("postgres-crash", &[]).await,
        Trouble::Terminate => {
            for _ in 0..6 {
                town.sql(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
                tokio::time::sleep(some_time / 8).await;
            }
            town.gates.iter().for_each(Gate::cut_once);
        }
        Trouble::Both => {
            town.gates[1 - node].lose_commits(UNLUCKY);
            pause(town, node, chance).await;
            town.gates[1 - node].lose_commits(0);
        }
    }
}

async fn pause(town: &Town, node: usize, chance: &mut Chance) {
    let (least, most) = LONGER_THAN_LEASES;
    town.nodes[node].signal("STOP");
    tokio::time::sleep(Duration::from_millis(chance.between(least, most))).await;
    town.nodes[node].signal("CONT");
}
