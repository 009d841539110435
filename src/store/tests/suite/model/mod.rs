//! The queue against a reference model that shares no code with it (RT-11, RT-12).
//!
//! Random histories run on SQLite and on PostgreSQL with two servers: closing and opening, crashes before COMMIT, lost
//! and repeated answers, re-enrollment, jobs. What the store answers must be what the model answers, and after each
//! history every row must be the model's.
//!
//! `BELLWETHER_MODEL_STEPS` says how many steps are made over both backends (100,000 without it).
//! `BELLWETHER_MODEL_SEED` repeats a run, `BELLWETHER_MODEL_HISTORY` only one history of it; a failure prints both.

mod act;
mod calls;
mod deliveries;
mod epochs;
mod history;
mod picture;
mod place;
mod reference;
mod steps;
mod tally;
mod together;

use crate::harness::Bed;
use place::Place;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;
use steps::{KINDS, steps};
use tally::{STEP, Tally};

/// Of a hundred steps, so many are made on PostgreSQL.
const ON_POSTGRES: u64 = 12;
/// A database serves so many histories.
const HISTORIES: u64 = 40;

#[test]
fn rt_11_the_queue_equals_its_model_on_both_backends() {
    silence_planned_panics();
    let total = number("BELLWETHER_MODEL_STEPS").unwrap_or(100_000);
    let seed = number("BELLWETHER_MODEL_SEED").unwrap_or_else(clock_seed);
    let run = Run {
        seed,
        only: number("BELLWETHER_MODEL_HISTORY"),
        failed: AtomicBool::new(false),
        all: Mutex::default(),
    };
    let on_postgres = total * ON_POSTGRES / 100;
    let begun = Instant::now();
    let there = Bed::postgres().is_some();
    std::thread::scope(|scope| {
        scope.spawn(|| run.worker("sqlite", 0, (total - on_postgres).div_ceil(2), &Bed::sqlite_in_memory));
        scope.spawn(|| run.worker("sqlite", 1, (total - on_postgres).div_ceil(2), &Bed::sqlite_in_memory));
        if there {
            scope.spawn(|| {
                run.worker("postgres", 2, on_postgres, &|| {
                    Bed::postgres().expect("it was there a moment ago")
                })
            });
        }
    });
    let all = run.all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.print(&format!(
        "the queue against its model: seed {seed}, {} steps in {} s",
        all.sum(STEP),
        begun.elapsed().as_secs()
    ));
    assert!(!run.failed.into_inner(), "a history failed; it is printed above");
    if run.only.is_some() || total < 50_000 {
        return;
    }
    let kinds: Vec<String> = KINDS.iter().map(|(_, kind)| format!("{kind:?}")).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let mut fates =
        vec!["read", "committed", "refused by its closure", "panicked", "the server crashed before COMMIT"];
    if there {
        assert!(all.sum(STEP) >= total, "{} steps of {total}", all.sum(STEP));
        fates.extend(["its connection was cut before COMMIT", "through the second server"]);
    }
    all.judge(&kinds, &fates, 1_000);
}

struct Run {
    seed: u64,
    only: Option<u64>,
    failed: AtomicBool,
    all: Mutex<Tally>,
}

impl Run {
    /// One history after the other, each from a seed of its own, until the steps are made.
    fn worker(&self, backend: &str, worker: u64, steps_wanted: u64, bed: &dyn Fn() -> Bed) {
        // A failed history drops its database: the next attempt begins with a fresh one.
        let place: Cell<Option<Place>> = Cell::new(None);
        let tally = RefCell::new(Tally::default());
        let used = AtomicU64::new(0);
        let mut number = worker;
        while tally.borrow().sum(STEP) < steps_wanted && !self.failed.load(Ordering::Relaxed) {
            if self.only.is_some_and(|only| only % 3 != worker) {
                return;
            }
            let at = self.only.unwrap_or(number);
            let mut runner = TestRunner::new_with_rng(config(), rng(self.seed, at));
            let tree = steps().new_tree(&mut runner).expect("steps");
            let outcome = runner.run_one(tree, |steps| {
                if used.fetch_add(1, Ordering::Relaxed).is_multiple_of(HISTORIES) {
                    place.set(None);
                }
                let mut here = place.take().unwrap_or_else(|| Place::new(bed()));
                let mut counted = Tally::default();
                history::run(&mut here, &steps, &mut counted);
                tally.borrow_mut().merge(&counted);
                place.set(Some(here));
                Ok(())
            });
            if let Err(why) = outcome {
                self.failed.store(true, Ordering::Relaxed);
                say(&format!(
                    "a history failed on {backend}; again with BELLWETHER_MODEL_SEED={} BELLWETHER_MODEL_HISTORY={at}\n{why}",
                    self.seed
                ));
            }
            if self.only.is_some() {
                break;
            }
            number += 3;
        }
        self.all.lock().unwrap_or_else(PoisonError::into_inner).merge(&tally.into_inner());
    }
}

fn config() -> Config {
    Config { failure_persistence: None, max_shrink_iters: 600, max_shrink_time: 20_000, ..Config::default() }
}

fn rng(seed: u64, history: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..16].copy_from_slice(&history.to_be_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().expect("a number"))
}

fn clock_seed() -> u64 {
    uuid::Uuid::now_v7().as_u128() as u64
}

fn say(text: &str) {
    drop(std::io::stderr().write_all(format!("{text}\n").as_bytes()));
}

/// Closures of the model panic on purpose, thousands of times; that is not worth a line each.
fn silence_planned_panics() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&act::DIES) {
                usual(info);
            }
        }));
    });
}
