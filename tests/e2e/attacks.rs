//! Attacks by their numbers in the specification: what must be refused is refused, what must live lives.

mod audit;
mod edge;
pub(crate) mod floods;
mod identity;
mod messages;
mod stored;

use crate::harness::{House, psql, root};
use bellwether_sim::{AppleDevice, Identity, Reply};
use plist::Value;
use std::process::Command;

/// A refusal in the terms of `/apple/mdm`: 400 or 403 (or what the case names), never 401, and without a body.
#[track_caller]
fn refused(what: &str, reply: &Reply, statuses: &[u16]) {
    assert!(statuses.contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
    assert!(reply.body.is_empty(), "{what}: {}", reply.text());
}

/// `Idle` of a device as bytes.
fn idle(udid: &str) -> Vec<u8> {
    bellwether_apple::device::idle(&bellwether_apple::ChannelIds::udid(udid).unwrap()).unwrap()
}

/// A property list as XML.
pub fn xml(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.to_writer_xml(&mut out).unwrap();
    out
}

/// Speaks for another identity with one body.
async fn speak_as(device: &mut AppleDevice, identity: Identity, body: Vec<u8>) -> Reply {
    let mine = device.identity().unwrap().clone();
    device.set_identity(identity).unwrap();
    let reply = device.signed_request(body, "").await.unwrap();
    device.set_identity(mine).unwrap();
    reply
}

/// Numbers that look random and are the same in every run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    /// The same bytes with something wrong: flipped, cut, doubled, or something foreign put in.
    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(out.len());
            match self.below(6) {
                0 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                1 => out.truncate(at),
                2 => {
                    let end = (at + self.below(64)).min(out.len());
                    let part = out[at..end].to_vec();
                    out.splice(at..at, part);
                }
                3 if !out.is_empty() => out[at] = [0, 0xFF, 0x80, b'<', b'&', 0x30][self.below(6)],
                4 => {
                    let count = self.below(40);
                    let noise = self.bytes(count);
                    out.splice(at..at, noise);
                }
                _ => {
                    let end = (at + self.below(16)).min(out.len());
                    out.drain(at..end);
                }
            }
        }
        out
    }
}

/// SQL behind the server's back, on whichever database it uses.
pub fn sql(house: &House, statement: &str) {
    match &house.database {
        Some(database) => drop(psql(&database.admin_url(), statement)),
        None => sqlite(&house.config.data_dir.join("bellwether.db"), statement),
    }
}

/// SQL on an SQLite file, by Python's own library.
fn sqlite(file: &std::path::Path, statement: &str) {
    let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=20); c.executescript(sys.argv[2]); c.commit(); c.close()";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(file)
        .arg(statement)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
