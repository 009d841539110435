//! What is left after a crash. The server is killed under load, or its machine loses power; it starts again, and every
//! promise that it gave before is collected.
//!
//! ```text
//! cargo test -p e2e --test crash -- kill --rounds 50
//! cargo test -p e2e --test crash -- power --rounds 50
//! cargo test -p e2e --test crash -- nodes --rounds 12
//! cargo test -p e2e --test crash -- nodes --rounds 100 --long
//! cargo test -p e2e --test crash -- faults --rounds 50
//! ```
//!
//! `nodes` is two servers on one PostgreSQL, and everything between them breaks. `faults` is disks that fill up or break,
//! clocks that jump, orderly ends, and deaths in the middle of a migration; `disk`, `broken`, `clock`, `drain` and
//! `migrate` are one of them each.
//!
//! Without a word all run for a few rounds. `--seed N` repeats a run's chances, as far as time allows. PostgreSQL is
//! killed too where `BELLWETHER_TEST_POSTGRES_URL` names a cluster of `tests/postgres-up`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop, and says what it did"
)]

mod chance;
mod faults;
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
#[path = "../e2e/harness.rs"]
mod harness;
mod kill;
mod ledger;
mod load;
mod nodes;
mod power;
mod preload;
mod victim;
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
#[path = "../e2e/wire.rs"]
mod wire;

use std::process::ExitCode;

/// Rounds of a plain `cargo test`.
const FEW: u32 = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let rounds = after("--rounds").and_then(|rounds| u32::try_from(rounds).ok()).unwrap_or(FEW);
    let seed = after("--seed").unwrap_or_else(chance::seed);
    let only = |name: &str| words.iter().any(|word| word == name);
    let faults =
        faults::WORDS.iter().copied().filter(|word| only(word) || only("faults")).collect::<Vec<_>>();
    let all = !only("kill") && !only("power") && !only("nodes") && faults.is_empty();
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if all || only("kill") {
        runtime.block_on(kill::run(rounds, seed));
    }
    if all || only("power") {
        runtime.block_on(power::run(rounds, seed));
    }
    if all || only("nodes") {
        let size = if only("--long") { nodes::LONG } else { nodes::SHORT };
        runtime.block_on(nodes::run(rounds, seed, size));
    }
    let faults = if all { faults::WORDS.to_vec() } else { faults };
    if !faults.is_empty() {
        runtime.block_on(faults::run(&faults, rounds, seed));
    }
    ExitCode::SUCCESS
}
