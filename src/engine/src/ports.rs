//! What the use cases need from outside, as small traits.

use async_trait::async_trait;
use bellwether_model::Timestamp;
use secrecy::{SecretBox, SecretString};

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// A push certificate, opened for use.
pub struct PushIdentity {
    /// The topic it stands for.
    pub topic: String,
    /// Counts imports: a newer version means a new connection.
    pub version: i32,
    /// Leaf and chain, PEM.
    pub certificate_pem: String,
    /// Private key, PKCS#8 DER.
    pub key: SecretBox<Vec<u8>>,
}

/// Whom to wake.
pub struct WakeTarget {
    /// Apple: the device's push token, raw bytes of any length. Windows: the ChannelURI as the PC reported it.
    pub token: SecretBox<Vec<u8>>,
    /// Apple: `PushMagic`. Nobody else has one.
    pub magic: Option<SecretString>,
    /// The push service may forget the wake then.
    pub expires_at: Timestamp,
}

/// What a push service said. Four classes and no more (spec/apple.md 2.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WakeOutcome {
    /// Accepted. It does not mean delivered.
    Sent,
    /// Try again; `retry_after` only when the service named it, in milliseconds.
    Transient {
        /// The service's own word.
        retry_after: Option<i64>,
        /// For admins.
        note: String,
    },
    /// Refused for a reason that an operator must mend (certificate, topic, environment). The device is innocent.
    Rejected {
        /// For admins.
        note: String,
    },
    /// Apple: 410; WNS: 404 and 410: this token is dead. The only outcome that retires it.
    Dead {
        /// For admins.
        note: String,
    },
}

/// A push service that tells a device to call home. It carries no command.
#[async_trait]
pub trait Waker: Send + Sync {
    /// Sends one wake. `identity` is Apple's push certificate; a service whose credentials are the server's own (WNS)
    /// gets none.
    async fn wake(&self, identity: Option<&PushIdentity>, target: &WakeTarget) -> WakeOutcome;
}

/// Where Entra ID publishes the keys that it signs tokens with.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// The JWKS document of one tenant, a GUID. Ends by itself after seconds. The error is for admins.
    async fn fetch(&self, tenant: &str) -> Result<Vec<u8>, String>;
}
