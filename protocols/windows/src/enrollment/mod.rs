//! MS-MDE2 enrollment: how a Windows machine finds the server, learns what certificate to ask for, asks for it,
//! and is told how to open OMA-DM sessions.
//!
//! Three exchanges of SOAP 1.2 over HTTPS, all of them with [`CONTENT_TYPE`], a `Content-Length` and never a
//! chunked, compressed or redirected reply:
//!
//! 1. `Discover` (MS-MDE2 3.1): [`DiscoverRequest`] -> [`DiscoverResponse`];
//! 2. `GetPolicies` (MS-XCEP): [`GetPolicies`] -> [`EnrollmentPolicy`];
//! 3. `RequestSecurityToken` (MS-WSTEP), to issue or to renew: [`RequestSecurityToken`] -> [`IssuedToken`], which
//!    wraps a provisioning document ([`Provisioning`]).
//!
//! The server reads with [`Envelope::read`], then [`Envelope::credential`] and [`Envelope::message`]; what goes
//! wrong is answered by a [`Fault`]. [`client`] is the same from the machine's end.
//!
//! MessageIDs are constants of the client: echoed into `RelatesTo`, never used to recognise a repetition.

pub mod address;
mod bytes;
pub mod client;
mod context;
mod discovery;
mod error;
mod fault;
mod message;
mod names;
mod policy;
pub mod provisioning;
mod rst;
mod secret;
mod soap;
mod time;
mod xml;

pub use bytes::{Pkcs7, Pkcs10};
pub use context::{Context, DeviceId, EnrollmentType};
pub use discovery::{AuthPolicy, Authentication, DiscoverRequest, DiscoverResponse, Version};
pub use error::Error;
pub use fault::{ErrorType, Fault, Subcode};
pub use message::Message;
pub use policy::{EnrollmentPolicy, GetPolicies, KeyProvider};
pub use provisioning::Provisioning;
pub use rst::{IssuedToken, RequestSecurityToken, TokenRequest};
pub use secret::Opaque;
pub use soap::{Credential, Envelope, Exchange, Header, ReplyHeader};
pub use time::Timestamp;
pub use xml::Limits;

/// The `Content-Type` of every request and reply of enrollment.
pub const CONTENT_TYPE: &str = "application/soap+xml; charset=utf-8";
