//! What a device's answers say about it, as facts with stable keys.
//!
//! An absent or malformed value yields no fact, so that the stored one is kept; an answer is never an
//! error. Escrowed secrets come from [`secrets`], never from [`facts`].

use plist::Dictionary;

use crate::Opaque;

/// One fact about the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// A stable key such as `os.version` or `security.filevault.enabled`.
    pub key: String,
    /// The value.
    pub value: serde_json::Value,
}

/// What an escrowed secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretKind {
    /// `FDE_PersonalRecoveryKeyCMS`: the FileVault key, encrypted to the escrow certificate.
    FileVaultRecoveryKeyCms,
    /// `FDE_PersonalRecoveryKeyDeviceKey`: what the Mac shows to help find the key.
    FileVaultDeviceKey,
    /// `EncryptedNewRecoveryKey` of `RotateFileVaultKey`.
    RotatedFileVaultKeyCms,
    /// `UnlockToken` of `RequestUnlockToken`.
    UnlockToken,
    /// `ActivationLockBypassCode`.
    ActivationLockBypassCode,
}

/// A secret that the device hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// What it is.
    pub kind: SecretKind,
    /// The secret.
    pub value: Opaque,
}

/// The facts in an acknowledged answer to a command of this type.
#[must_use]
pub fn facts(request_type: &str, body: &Dictionary) -> Vec<Fact> {
    let _ = (request_type, body);
    Vec::new()
}

/// The secrets in an acknowledged answer to a command of this type.
#[must_use]
pub fn secrets(request_type: &str, body: &Dictionary) -> Vec<Secret> {
    let _ = (request_type, body);
    Vec::new()
}
