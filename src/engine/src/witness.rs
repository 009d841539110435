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

/// What a witness says of one site: the heads by position. What was not signed by this server says nothing, and that
/// is told.
pub(crate) struct Testimonies {
    heads: BTreeMap<i64, (usize, String)>,
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
        for (number, line) in (1..).zip(lines) {
            if line.trim().is_empty() {
                continue;
            }
            let good = serde_json::from_str::<Testimony>(line).ok().map(|testimony| {
                let of_site = testimony.site == site;
                let chain = unhex(&testimony.chain).unwrap_or_default();
                let signature = unhex(&testimony.signature).unwrap_or_default();
                let message = signed(testimony.position, &chain, testimony.at);
                (of_site, !of_site || verify_ed25519(public, &message, &signature), testimony)
            });
            match good {
                Some((true, true, testimony)) => {
                    found.heads.insert(testimony.position, (number, testimony.chain));
                }
                // Another site's: judged there.
                Some((false, ..)) => {}
                _ => found.bad = found.bad.or(Some(number)),
            }
        }
        found
    }

    /// The line that saw another link at this position.
    pub(crate) fn contradicts(&self, position: i64, chain: &[u8]) -> Option<usize> {
        let (number, seen) = self.heads.get(&position)?;
        (!ct_eq(seen.as_bytes(), hex(chain).as_bytes())).then_some(*number)
    }

    /// The longest chain that was seen: its length, and by which line.
    pub(crate) fn longest(&self) -> Option<(i64, usize)> {
        self.heads.last_key_value().map(|(position, (number, _))| (*position, *number))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = pair { Some(digit(*a)? * 16 + digit(*b)?) } else { None }).collect()
}
