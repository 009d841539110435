//! What a device's answers say about it, as facts with stable keys.
//!
//! An absent or malformed value yields no fact, so that the stored one is kept; an answer is never an
//! error. Escrowed secrets come from [`secrets`], never from [`facts`]. Take facts only from
//! acknowledged answers to commands of our own, on the device channel: what a user's channel says must
//! not overwrite what the device said.
//!
//! Lists (`apps`, `profiles`, `certificates`, `managed-apps`, `users`) hold what was asked for: the
//! answer to a command with `ManagedOnly` or `Identifiers` is a part, not the inventory.

mod lists;
mod tables;
mod value;

use plist::{Dictionary, Value};

use crate::Opaque;
use crate::checkin::Authenticate;

/// One fact about the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// A stable key such as `os.version` or `security.filevault.enabled`.
    pub key: String,
    /// The value. Dates are RFC 3339 texts, data is Base64.
    pub value: serde_json::Value,
}

impl Fact {
    fn new(key: &str, value: serde_json::Value) -> Self {
        Self { key: key.to_owned(), value }
    }
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

/// The answer itself as an XML property list, to be kept. It may hold secrets.
///
/// # Errors
/// [`crate::Error::NotWritable`] when it holds what XML cannot carry.
pub fn to_xml(body: &Dictionary) -> Result<Vec<u8>, crate::Error> {
    crate::xml::encode(body.clone())
}

/// The facts in an acknowledged answer to a command of this type; none for types without facts.
#[must_use]
pub fn facts(request_type: &str, body: &Dictionary) -> Vec<Fact> {
    match request_type {
        "DeviceInformation" => dictionary(body, "QueryResponses").map_or_else(Vec::new, |answers| {
            let mut facts = tables::read(answers, tables::DEVICE_INFORMATION);
            facts.extend(lists::device_information(answers));
            facts
        }),
        "SecurityInfo" => dictionary(body, "SecurityInfo").map_or_else(Vec::new, |answers| {
            let mut facts = tables::read(answers, tables::SECURITY_INFO);
            for (key, table) in tables::SECURITY_INFO_GROUPS {
                if let Some(group) = dictionary(answers, key) {
                    facts.extend(tables::read(group, table));
                }
            }
            facts
        }),
        "DeviceLocation" => lists::location(body).into_iter().collect(),
        "VerifyRecoveryLock" => tables::read(body, tables::RECOVERY_LOCK),
        _ => lists::read(request_type, body).into_iter().collect(),
    }
}

/// The facts that an `Authenticate` states, under the same keys as the inventory.
#[must_use]
pub fn authenticate_facts(message: &Authenticate) -> Vec<Fact> {
    [
        ("os.version", &message.os_version),
        ("os.build", &message.build_version),
        ("product-name", &message.product_name),
        ("serial-number", &message.serial_number),
        ("model", &message.model),
        ("model-name", &message.model_name),
        ("device.name", &message.device_name),
        ("cellular.imei", &message.imei),
        ("cellular.meid", &message.meid),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some(Fact::new(key, value.clone()?.into())))
    .collect()
}

/// The secrets in an acknowledged answer to a command of this type. Empty ones are left out.
#[must_use]
pub fn secrets(request_type: &str, body: &Dictionary) -> Vec<Secret> {
    let mut found = Vec::new();
    let mut keep = |kind, keys: Option<&Dictionary>, key: &str| {
        let value = match keys.and_then(|keys| keys.get(key)) {
            Some(Value::Data(bytes)) => Opaque::from(bytes.as_slice()),
            Some(Value::String(text)) => Opaque::from(text.as_str()),
            _ => return,
        };
        if !value.is_empty() {
            found.push(Secret { kind, value });
        }
    };
    match request_type {
        "SecurityInfo" => {
            let info = dictionary(body, "SecurityInfo");
            keep(SecretKind::FileVaultRecoveryKeyCms, info, "FDE_PersonalRecoveryKeyCMS");
            keep(SecretKind::FileVaultDeviceKey, info, "FDE_PersonalRecoveryKeyDeviceKey");
        }
        "RotateFileVaultKey" => {
            let result = dictionary(body, "RotateResult");
            keep(SecretKind::RotatedFileVaultKeyCms, result, "EncryptedNewRecoveryKey");
        }
        "RequestUnlockToken" => keep(SecretKind::UnlockToken, Some(body), "UnlockToken"),
        "ActivationLockBypassCode" => {
            let kind = SecretKind::ActivationLockBypassCode;
            keep(kind, Some(body), "ActivationLockBypassCode");
        }
        _ => {}
    }
    found
}

fn dictionary<'d>(keys: &'d Dictionary, key: &str) -> Option<&'d Dictionary> {
    keys.get(key).and_then(Value::as_dictionary)
}
