//! Push services: the adapters behind the engine's port [`bellwether_engine::Waker`].

pub mod apns;
pub mod wns;

pub use apns::{Apns, ApnsConfig, ApnsError};
pub use wns::{Wns, WnsConfig, WnsError};
