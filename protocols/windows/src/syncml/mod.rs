//! OMA-DM 1.2 sessions as Windows speaks them (MS-MDM; OMA-TS-DM_Protocol; SyncML Representation Protocol 1.2).
//!
//! * [`Message`] and what it holds: the typed form of one message, the same for both ends.
//! * [`reader`] and [`writer`]: `application/vnd.syncml.dm+xml`; [`wbxml`]: `application/vnd.syncml.dm+wbxml`.
//! * [`auth`]: `syncml:auth-md5` and `syncml:auth-basic`, both directions, and the rotation of nonces.
//! * [`session`]: the server's side of one session as plain state that survives a restart.
//! * [`client`]: the machine's side, for simulators and tests.
//!
//! Nothing here reads a clock, a socket or a source of random bytes.

pub mod auth;
pub mod client;
mod error;
mod message;
mod model;
pub mod reader;
pub mod session;
mod tags;
mod tree;
pub mod wbxml;
pub mod writer;

pub use error::Error;
pub use message::{
    Alert, Chal, Command, Cred, Data, Format, Group, GroupKind, Header, Item, Location, Message, Meta,
    Request, Results, Status, Verb,
};
