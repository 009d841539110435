//! Push services: the adapters behind the engine's port [`bellwether_engine::Waker`].

pub mod apns;

pub use apns::{Apns, ApnsConfig, ApnsError};
