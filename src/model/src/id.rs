//! Identifiers. All are UUIDv7 unless a comment says otherwise; they are names, never secrets.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The sixteen bytes, as the store keeps them.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the sixteen bytes that the store kept; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(value: Uuid) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

id!(
    /// A customer of the server; a hard wall.
    SiteId
);
id!(
    /// The physical thing.
    DeviceId
);
id!(
    /// One period of trust between a device and the server.
    EnrollmentId
);
id!(
    /// A stream of commands inside an enrollment.
    ChannelId
);
id!(
    /// What a person holds: link, short code, QR.
    InvitationId
);
id!(
    /// Minted by an invitation (or a renewal) for one attempt.
    ChallengeId
);
id!(
    /// A device's certificate.
    IdentityId
);
id!(
    /// A certificate that a device uses elsewhere; no identity.
    CertificateId
);
id!(
    /// A certificate authority of a site; it stands in URLs (`/scep/{ca}`), so it is random (v4), not timed.
    AuthorityId
);
id!(
    /// Somebody who uses devices.
    PersonId
);
id!(
    /// An intent that somebody wants done once.
    CommandId
);
id!(
    /// One part of a command. On Apple's wire this is the `CommandUUID`.
    PartId
);
id!(
    /// One hand-over of 1..n commands to a channel.
    DeliveryId
);
id!(
    /// One admin action on many devices.
    JobId
);
id!(
    /// An audit entry.
    AuditId
);
id!(
    /// An outbox row.
    EventId
);
id!(
    /// A package of the package store.
    PackageId
);
id!(
    /// An enrollment account: a name and a password with which several devices may enroll.
    EnrollmentAccountId
);
id!(
    /// An API key.
    ApiKeyId
);
