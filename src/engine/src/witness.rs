//! Signed heads of the audit, kept where whoever rules the database cannot reach (AT-40).
//!
//! The chain says by itself when an entry was changed, moved or taken out of the middle. It cannot say that its end was
//! cut off together with the checkpoints there: what is left is a good, shorter chain. A witness remembers how long it
//! was.

use crate::error::Error;
use bellwether_certs::hash::{ct_eq, hex};
use bellwether_certs::seal::verify_ed25519;
use bellwether_model::{SiteId, Timestamp};
use bellwether_store::records::Checkpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where signed heads go. Append-only, and outside of the database.
pub trait Witness: Send + Sync {
    /// Keeps a line, durably. The error is for the log.
    fn append(&self, line: &str) -> Result<(), String>;

    /// Every line that was kept, in order. The error is for admins.
    fn lines(&self) -> Result<Vec<String>, String>;
}

/// A signed head, as a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Testimony {
    site: SiteId,
    position: i64,
    chain: String,
    at: Timestamp,
    signature: String,
}

impl Testimony {
    pub(crate) fn line(site: SiteId, checkpoint: &Checkpoint) -> Result<String, Error> {
        let testimony = Self {
            site,
            position: checkpoint.position,
            chain: hex(&checkpoint.chain),
            at: checkpoint.at,
            signature: hex(&checkpoint.signature),
        };
        serde_json::to_string(&testimony).map_err(|e| Error::Internal(format!("a witness line: {e}")))
    }
}

/// A head that a witness saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The chain's length then.
    pub(crate) position: i64,
    /// Its last link, hex.
    chain: String,
    /// When it was signed.
    at: Timestamp,
    /// By which line.
    pub(crate) line: usize,
}

/// What a witness says of one site: the heads by position. What was not signed by this server says nothing, and that
/// is told.
pub(crate) struct Testimonies {
    heads: BTreeMap<i64, Vec<Seen>>,
    /// The first line that is no good testimony.
    pub(crate) bad: Option<usize>,
}

impl Testimonies {
    /// Reads lines. `signed` makes the message that a head's signature covers.
    pub(crate) fn read(
        lines: &[String],
        site: SiteId,
        public: &[u8; 32],
        signed: impl Fn(i64, &[u8], Timestamp) -> Vec<u8>,
    ) -> Self {
        let mut found = Self { heads: BTreeMap::new(), bad: None };
        for (line, text) in (1..).zip(lines) {
            if text.trim().is_empty() {
                continue;
            }
            let good = serde_json::from_str::<Testimony>(text).ok().map(|testimony| {
                let of_site = testimony.site == site;
                let chain = unhex(&testimony.chain).unwrap_or_default();
                let signature = unhex(&testimony.signature).unwrap_or_default();
                let message = signed(testimony.position, &chain, testimony.at);
                (of_site, !of_site || verify_ed25519(public, &message, &signature), testimony)
            });
            match good {
                Some((true, true, Testimony { position, chain, at, .. })) => {
                    found.heads.entry(position).or_default().push(Seen { position, chain, at, line });
                }
                // Another site's: judged there.
                Some((false, ..)) => {}
                _ => found.bad = found.bad.or(Some(line)),
            }
        }
        found
    }

    /// What was seen at this position and is another link.
    pub(crate) fn contradicting(&self, position: i64, chain: &[u8]) -> Vec<Seen> {
        let chain = hex(chain);
        let seen = self.heads.get(&position).into_iter().flatten();
        seen.filter(|seen| !ct_eq(seen.chain.as_bytes(), chain.as_bytes())).cloned().collect()
    }

    /// What was seen of a longer chain, the longest first.
    pub(crate) fn after(&self, position: i64) -> impl Iterator<Item = &Seen> {
        self.heads.range(position.saturating_add(1)..).rev().flat_map(|(_, seen)| seen)
    }
}

/// Restores that a chain tells of, each by an entry that only who has the master key can have written.
///
/// What was sealed between a backup and its restore is lost, and a witness remembers it. That explains heads beyond
/// the backup's end that were signed before the restore, and nothing else: who cuts the chain off without the key
/// cannot write such an entry, and who cuts it off behind one leaves heads that were signed later.
#[derive(Default)]
pub(crate) struct Restores(Vec<Restore>);

struct Restore {
    /// Where the entry stands.
    entry: i64,
    at: Timestamp,
    /// Where the backup's sealed chain ended.
    end: i64,
    backup: String,
}

impl Restores {
    /// An entry of a restore, whose link was checked.
    pub(crate) fn add(&mut self, entry: i64, at: Timestamp, details: Option<&str>) {
        let details: Option<serde_json::Value> = details.and_then(|text| serde_json::from_str(text).ok());
        let Some(details) = details else { return };
        let (Some(end), Some(backup)) = (
            details.get("position").and_then(serde_json::Value::as_i64),
            details.get("backup").and_then(serde_json::Value::as_str),
        ) else {
            return;
        };
        self.0.push(Restore { entry, at, end, backup: backup.to_owned() });
    }

    pub(crate) fn explain(&self, seen: &Seen) -> bool {
        self.0.iter().any(|restore| seen.position > restore.end && seen.at <= restore.at)
    }

    /// In words, for admins.
    pub(crate) fn told(&self) -> Vec<String> {
        let one = |r: &Restore| {
            format!(
                "entry {}: restored from {}, whose chain ended with entry {}; what was sealed after it and before the \
                 restore is lost",
                r.entry, r.backup, r.end
            )
        };
        self.0.iter().map(one).collect()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = pair { Some(digit(*a)? * 16 + digit(*b)?) } else { None }).collect()
}
