//! What goes wrong without a crash: disks that fill up (RT-13) or break (RT-14), clocks that jump (RT-19), orderly ends
//! (RT-18), and deaths in the middle of a migration (RT-25).

mod broken;
mod clock;
mod disk;
mod drain;
mod migrate;

use crate::harness::Site;
use crate::preload::library;
use crate::victim::Victim;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The parts of this test.
pub const WORDS: [&str; 5] = ["disk", "broken", "clock", "drain", "migrate"];

/// Runs the parts that are named.
pub async fn run(words: &[&str], rounds: u32, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = library(folder.path(), "faults") else { return };
    for word in words {
        let started = Instant::now();
        match *word {
            "disk" => disk::run(&library, rounds, seed).await,
            "broken" => broken::run(&library, rounds, seed).await,
            "clock" => clock::run(&library).await,
            "drain" => drain::run(rounds, seed).await,
            _ => migrate::run(&library, rounds, seed).await,
        }
        println!("faults, {word}: {} s", started.elapsed().as_secs());
    }
}

/// Kinds of calls; they add up.
const WRITE: i64 = 1;
const TRUNCATE: i64 = 2;
const ALLOCATE: i64 = 4;
const SYNC: i64 = 8;
const READ: i64 = 16;
const OPEN: i64 = 32;

const ENOSPC: i64 = 28;
const EIO: i64 = 5;
const EROFS: i64 = 30;

/// Whose calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All = 0,
    Database = 1,
    Log = 2,
}

/// The numbers that `faults.c` reads.
struct Control(File);

impl Control {
    fn new(path: &Path) -> Self {
        let mut options = File::options();
        let control = Self(options.read(true).write(true).create(true).truncate(true).open(path).unwrap());
        control.0.set_len(80).unwrap();
        control.room(-1);
        control
    }

    fn put(&self, slot: u64, number: i64) {
        self.0.write_all_at(&number.to_ne_bytes(), slot * 8).unwrap();
    }

    fn get(&self, slot: u64) -> i64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, slot * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }

    fn clock(&self, seconds: i64) {
        self.put(0, seconds);
    }

    /// Bytes by which files may grow; -1: no bound.
    fn room(&self, bytes: i64) {
        self.put(1, bytes);
    }

    /// After so many calls that go well, so many (-1: all) fail.
    fn arm(&self, what: i64, which: Which, after: i64, times: i64, error: i64) {
        self.put(2, 0);
        self.put(3, which as i64);
        self.put(4, after);
        self.put(5, times);
        self.put(6, error);
        self.put(7, 0);
        self.put(2, what);
    }

    fn disarm(&self) {
        self.put(2, 0);
    }

    /// Calls that failed since it was armed.
    fn failed(&self) -> i64 {
        self.get(7)
    }

    /// SIGKILL at this step of the next life.
    fn death(&self, step: i64) {
        self.put(9, 0);
        self.put(8, step);
    }

    fn steps(&self) -> i64 {
        self.get(9)
    }
}

/// A server on a disk and with a clock that can be spoilt.
struct Faulty {
    victim: Victim,
    control: Control,
}

impl Faulty {
    /// Started and set up.
    async fn start(library: &Path, postgres: bool, sets: &[&str]) -> (Self, Site) {
        let mut victim = Victim::new(postgres);
        let numbers = victim.folder.path().join("control");
        let control = Control::new(&numbers);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        victim.env = vec![
            ("LD_PRELOAD".to_owned(), text(library.to_owned())),
            ("FAULTS_CONTROL".to_owned(), text(numbers)),
            ("FAULTS_DIR".to_owned(), text(victim.data())),
        ];
        if postgres {
            victim.env.push(("FAULTS_SENDS".to_owned(), "1".to_owned()));
        }
        victim.sets.extend(sets.iter().map(|set| (*set).to_owned()));
        let site = victim.set_up().await;
        (Self { victim, control }, site)
    }
}

/// What `/readyz` says; empty when nobody answers.
async fn readiness(site: &Site) -> String {
    let request = site.http.request(reqwest::Method::GET, &format!("{}/readyz", site.url));
    site.http.send("readyz", request).await.map(|reply| reply.text().trim().to_owned()).unwrap_or_default()
}

/// Waits until `/readyz` says this.
async fn until_ready(site: &Site, wanted: &str, within: Duration) {
    let until = Instant::now() + within;
    loop {
        let said = readiness(site).await;
        if said == wanted {
            return;
        }
        assert!(Instant::now() < until, "not {wanted:?} in {within:?}, but {said:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
