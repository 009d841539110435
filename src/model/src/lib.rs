//! The words of the house: ids, platforms, devices, enrollments, intents and their life cycle.
//!
//! Floor 0: plain data and pure rules. Nothing here reads a clock, draws a random number, touches a disk or
//! knows a protocol. Every other room speaks in these words, so a change here is its own commit.

pub mod audit;
pub mod capability;
pub mod device;
pub mod fact;
pub mod id;
pub mod intent;
pub mod lifecycle;
pub mod permit;
pub mod platform;
pub mod quarantine;
pub mod time;

pub use audit::{Actor, EventKind};
pub use capability::CannotDo;
pub use device::{EnrollmentState, InvitationState, Ownership};
pub use fact::Fact;
pub use id::{
    ApiKeyId, AuditId, AuthorityId, CertificateId, ChallengeId, ChannelId, CommandId, DeliveryId, DeviceId,
    EnrollmentAccountId, EnrollmentId, EventId, IdentityId, InvitationId, JobId, PackageId, PartId, PersonId,
    SiteId,
};
pub use intent::{Intent, Lane};
pub use lifecycle::{CommandState, Guarantee, Outcome, PartState};
pub use permit::{Action, Scope};
pub use platform::{ChannelKind, PackageKind, Platform};
pub use time::Timestamp;
