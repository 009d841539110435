//! One reported value with the time it was reported.

use crate::Timestamp;
use serde::{Deserialize, Serialize};

/// What a device said about itself. An absent or malformed value never replaces an older one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Dotted name, the same on every platform where the meaning is the same: `os.version`, `battery.level`.
    pub key: String,
    /// The value as reported, in JSON.
    pub value: serde_json::Value,
    /// When the answer that carried it was accepted.
    pub reported_at: Timestamp,
}
