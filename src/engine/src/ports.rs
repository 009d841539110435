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
    /// The device's push token, raw bytes of any length.
    pub token: SecretBox<Vec<u8>>,
    /// Apple: `PushMagic`.
    pub magic: SecretString,
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
    /// 410: this token is dead. The only outcome that retires it.
    Dead {
        /// For admins.
        note: String,
    },
}

/// A push service that tells a device to call home. It carries no command.
#[async_trait]
pub trait Waker: Send + Sync {
    /// Sends one wake.
    async fn wake(&self, identity: &PushIdentity, target: &WakeTarget) -> WakeOutcome;
}
