//! Configuration: flag > environment > file > default. Every value knows where it came from.

mod entra;
pub mod keys;
mod layers;
mod typed;
mod wns;

pub use entra::{ENTRA_TENANT, EntraConfig};
pub use keys::{KEYS, Key, Kind};
pub use layers::{Layers, Origin, Sources, Value};
pub use typed::{Config, Limits, LogFormat, Network};
pub use wns::WnsSettings;

/// Why a configuration is refused. Names the key and the place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key that nobody knows.
    #[error("unknown configuration key \"{key}\" in {place}{hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stood.
        place: String,
        /// A similar key.
        hint: String,
    },
    /// A value of the wrong form.
    #[error("{key} ({place}): {reason}")]
    Invalid {
        /// The key.
        key: String,
        /// Where it stood.
        place: String,
        /// What is wrong. Never contains the value of a secret.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Contradiction(String),
}
