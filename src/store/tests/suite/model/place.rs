//! Where histories happen, and the ids that they use.

use super::picture::Eyes;
use crate::harness::Bed;
use bellwether_store::Store;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// A database with one server or two, used by one history after the other.
pub struct Place {
    pub bed: Bed,
    /// A second server on the same database.
    pub second: Option<Store>,
    pub eyes: Option<Eyes>,
}

impl Place {
    pub fn new(bed: Bed) -> Self {
        let second = bed.is_postgres().then(|| Store::open(bed.config.clone()).expect("a second server"));
        let eyes = Some(Eyes::of(&bed));
        Self { bed, second, eyes }
    }

    pub fn node(&self, other: bool) -> &Store {
        match (&self.second, other) {
            (Some(second), true) => second,
            _ => self.bed.store(),
        }
    }

    pub fn eyes(&mut self) -> &mut Eyes {
        self.eyes.get_or_insert_with(|| Eyes::of(&self.bed))
    }

    /// Servers that start anew.
    pub fn reopen(&mut self) {
        self.second = None;
        self.bed.reopen();
        self.second =
            self.bed.is_postgres().then(|| Store::open(self.bed.config.clone()).expect("a second server"));
    }
}

/// Ids that grow by one: the same history makes the same order of ids. Every source has a range of its own.
pub struct Ids {
    base: u128,
    count: u128,
}

impl Ids {
    pub fn new() -> Self {
        static SOURCES: AtomicU64 = AtomicU64::new(0);
        let run = Uuid::now_v7().as_u128() >> 64 << 64;
        Self { base: run + (u128::from(SOURCES.fetch_add(1, Ordering::Relaxed)) << 34), count: 0 }
    }

    pub fn next<T: From<Uuid>>(&mut self) -> T {
        T::from(Uuid::from_u128(self.mark()))
    }

    /// The first of 1,024 ids.
    pub fn mark(&mut self) -> u128 {
        self.count += 1;
        self.base + (self.count << 10)
    }
}
