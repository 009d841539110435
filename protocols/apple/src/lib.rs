//! Apple MDM on the wire: property lists behind a guard, check-in messages, the command channel,
//! enrollment profiles, and the typed reading of a device's answers.
//!
//! The crate does no input or output: bytes come in, typed messages and replies go out. Time,
//! random bytes and UUIDs are arguments. Names are the field's own (`TokenUpdate`, `NotNow`,
//! `PushMagic`); each item cites the file of Apple's device-management schema that it obeys, such as
//! `mdm/checkin/tokenupdate.yaml`.
//!
//! The way of one request through the modules:
//!
//! 1. [`checkin::decode`] reads a body (through [`guard`]) into a [`checkin::CheckIn`] or a
//!    [`checkin::Report`].
//! 2. [`answer::facts`] and [`answer::secrets`] read what a report says about the device.
//! 3. [`support::check`] decides whether a command may go to a device at all, and says why not in
//!    words for an administrator.
//! 4. [`command::Command::encode`] makes the next command, [`reply`] every other body.
//!
//! [`device`] is the same protocol from the device's end, for simulators and tests.

pub mod answer;
pub mod checkin;
pub mod command;
pub mod device;
mod error;
pub mod family;
pub mod guard;
mod identity;
pub mod profile;
pub mod reply;
mod secret;
pub mod support;
mod xml;

pub use error::Error;
pub use family::{Family, Version};
pub use identity::{Channel, ChannelIds, DeviceKey, EnrollmentKind};
pub use secret::Opaque;
