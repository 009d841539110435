//! Power cuts: a process is killed, and what it had not made durable is taken back.
//!
//! `powerloss.c` is preloaded into the server and writes down every write and every fsync. What was written and not
//! synced may have reached the disk or not, in any order, and the last piece in half: chance decides. SQLite's shared
//! memory, which lives in no file in the end, is removed.

use crate::chance::Chance;
use crate::load::Scene;
use crate::preload::library;
use crate::victim::Victim;
use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEVICES: usize = 6;
const SECTOR: u64 = 512;
/// Rounds in which a database that does not sync must be caught.
const CONTROL: u32 = 8;

/// With the durability that the server has, and, as a control, with less.
pub async fn run(rounds: u32, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = library(folder.path(), "powerloss") else { return };
    let held = Trial::new(&library, None, seed).await.go(rounds).await;
    println!(
        "power, SQLite: {rounds} cuts, {} of them with writes under way; {} writes taken back, {} of them kept after \
         all, {} torn; {} commands, all done",
        held.hit, held.unsynced, held.kept, held.torn, held.commands
    );
    assert!(held.hit * 2 >= rounds, "fewer than half of the cuts met an open write");
    for less in ["NORMAL", "OFF"] {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let trial = Trial::new(&library, Some(less), seed).await;
        let outcome = tokio::spawn(trial.go(CONTROL)).await.map(|_| ());
        std::panic::set_hook(quiet);
        let Err(broken) = outcome else {
            panic!("with synchronous={less} nothing was lost in {CONTROL} cuts: this test shows nothing")
        };
        let why = broken.into_panic();
        let why = why.downcast_ref::<String>().map_or("?", String::as_str);
        println!("power, control: with synchronous={less} a promise is broken, as it must be: {why}");
    }
}

#[derive(Default)]
struct Held {
    hit: u32,
    unsynced: usize,
    kept: usize,
    torn: usize,
    commands: usize,
}

/// One server that loses power again and again.
struct Trial {
    victim: Victim,
    scene: Scene,
    library: PathBuf,
    less: Option<String>,
    chance: Chance,
    logs: u32,
}

impl Trial {
    async fn new(library: &Path, less: Option<&str>, seed: u64) -> Self {
        let (mut victim, site) = Victim::start(false, Vec::new()).await;
        let scene = Scene::new(site, DEVICES).await;
        victim.kill();
        let less = less.map(str::to_owned);
        Self { victim, scene, library: library.to_owned(), less, chance: Chance::new(seed), logs: 0 }
    }

    async fn go(mut self, rounds: u32) -> Held {
        let mut held = Held::default();
        self.spawn();
        for _ in 0..rounds {
            let load = tokio::spawn({
                let scene = self.scene.clone();
                async move { scene.run().await }
            });
            tokio::time::sleep(Duration::from_millis(self.chance.between(150, 900))).await;
            held.hit += u32::from(self.scene.under_way() > 0);
            self.victim.kill();
            self.scene.stop();
            load.await.unwrap();
            let cut = cut(&self.log(), &mut self.chance);
            held.unsynced += cut.unsynced;
            held.kept += cut.kept;
            held.torn += cut.torn;
            self.spawn();
            self.scene.collect().await;
            self.victim.sound();
        }
        self.scene.drain().await;
        held.commands = self.scene.ledger().wishes.len();
        held
    }

    fn log(&self) -> PathBuf {
        self.victim.folder.path().join(format!("writes-{}", self.logs))
    }

    fn spawn(&mut self) {
        // The record of the life before has been read.
        let _ = std::fs::remove_file(self.log());
        self.logs += 1;
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let mut env = vec![
            ("LD_PRELOAD".to_owned(), text(self.library.clone())),
            ("POWERLOSS_LOG".to_owned(), text(self.log())),
            ("POWERLOSS_DIR".to_owned(), text(self.victim.data())),
        ];
        env.extend(self.less.iter().map(|less| ("BELLWETHER_TEST_SYNCHRONOUS".to_owned(), less.clone())));
        self.victim.env = env;
        self.victim.spawn();
    }
}

/// An entry of the record.
struct Entry {
    kind: u32,
    file: u32,
    offset: u64,
    size: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// The whole entries; the last one may have been cut off by the kill.
fn entries(log: &Path) -> Vec<Entry> {
    let bytes = std::fs::read(log).unwrap();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(32) {
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
        let Some((old, tail)) = tail.split_at_checked(word(24) as usize) else { break };
        let Some((new, tail)) = tail.split_at_checked(word(28) as usize) else { break };
        let (old, new) = (old.to_vec(), new.to_vec());
        found.push(Entry { kind: word(0), file: word(4), offset: long(8), size: long(16), old, new });
        rest = tail;
    }
    found
}

#[derive(Default)]
struct Cut {
    unsynced: usize,
    kept: usize,
    torn: usize,
}

/// What happens to writes that were not synced.
#[derive(Clone, Copy)]
enum Fate {
    /// None of them reached the disk.
    Lost,
    /// The first ones did, the next one in part.
    Torn(usize),
    /// Some did, whatever their order.
    Mixed,
}

/// Makes the files what the disk might hold after a power cut.
fn cut(log: &Path, chance: &mut Chance) -> Cut {
    let mut names = BTreeMap::new();
    let mut by_path: BTreeMap<PathBuf, Vec<&Entry>> = BTreeMap::new();
    let entries = entries(log);
    for entry in &entries {
        if entry.kind == 0 {
            names.insert(entry.file, PathBuf::from(String::from_utf8(entry.new.clone()).unwrap()));
        } else {
            by_path.entry(names[&entry.file].clone()).or_default().push(entry);
        }
    }
    let mut cut = Cut::default();
    for (path, entries) in by_path {
        if path.to_str().is_some_and(|path| path.ends_with("-shm")) {
            continue;
        }
        let durable = durable(&entries);
        let created = entries.iter().position(|entry| entry.kind == 5);
        let open: Vec<&Entry> =
            entries[durable..].iter().copied().filter(|entry| matches!(entry.kind, 1 | 2)).collect();
        cut.unsynced += open.len();
        let Ok(mut file) = std::fs::OpenOptions::new().read(true).write(true).open(&path) else {
            // It was removed in an orderly way.
            continue;
        };
        open.iter().rev().for_each(|entry| undo(&mut file, entry));
        let fate = match chance.between(0, 3) {
            0 => Fate::Lost,
            1 => Fate::Torn(chance.between(0, open.len() as u64 + 1) as usize),
            _ => Fate::Mixed,
        };
        if matches!(fate, Fate::Lost) && created.is_some_and(|at| at >= durable) {
            drop(file);
            std::fs::remove_file(&path).unwrap();
            continue;
        }
        for (place, entry) in open.iter().enumerate() {
            let keep = match fate {
                Fate::Lost => false,
                Fate::Torn(at) => place < at,
                Fate::Mixed => chance.next().is_multiple_of(2),
            };
            if keep {
                cut.kept += 1;
                redo(&mut file, entry, entry.new.len() as u64);
            } else if matches!(fate, Fate::Torn(at) if place == at) && entry.kind == 1 {
                cut.torn += 1;
                // Some sectors, and a piece of the next one.
                let sectors = chance.between(0, entry.new.len() as u64 / SECTOR + 1) * SECTOR;
                redo(&mut file, entry, (sectors + chance.between(0, SECTOR)).min(entry.new.len() as u64));
            }
        }
    }
    for file in std::fs::read_dir(log.with_file_name("data")).unwrap().map_while(Result::ok) {
        if file.file_name().to_str().is_some_and(|name| name.ends_with("-shm")) {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    cut
}

/// How many of a file's entries are behind a sync that ended well.
fn durable(entries: &[&Entry]) -> usize {
    let (mut begun, mut durable) = (std::collections::VecDeque::new(), 0);
    for (at, entry) in entries.iter().enumerate() {
        match entry.kind {
            3 => begun.push_back(at),
            // Of several at once the first is taken: it promises least.
            4 => durable = begun.pop_front().unwrap_or(durable),
            _ => {}
        }
    }
    durable
}

fn undo(file: &mut std::fs::File, entry: &Entry) {
    if entry.kind == 2 {
        file.set_len(entry.size).unwrap();
    }
    write_at(file, entry.offset, &entry.old);
    if entry.kind == 1 && file.metadata().unwrap().len() > entry.size {
        file.set_len(entry.size).unwrap();
    }
}

fn redo(file: &mut std::fs::File, entry: &Entry, bytes: u64) {
    if entry.kind == 2 {
        file.set_len(entry.offset).unwrap();
    } else {
        write_at(file, entry.offset, &entry.new[..bytes as usize]);
    }
}

fn write_at(file: &mut std::fs::File, offset: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(bytes).unwrap();
    }
    // Read back through the same handle, so that a file system that lies is noticed here.
    let mut there = vec![0; bytes.len()];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut there).unwrap();
    assert_eq!(there, bytes);
}
