//! What somebody wants done once, in words that no platform owns.
//!
//! An intent is sealed as a whole before it is stored: profiles carry passwords, wipes carry PINs.

use crate::lifecycle::Guarantee;
use crate::words;
use serde::{Deserialize, Serialize};

words!(
    /// Lanes of a channel's queue, first served first. Within a lane order is the channel's sequence.
    Lane {
        /// Lock, wipe, lost mode: overtakes everything, also an unanswered delivery.
        Emergency = "emergency",
        /// Somebody is waiting for it.
        Interactive = "interactive",
        /// What policies ask for.
        Policy = "policy",
        /// Refreshing facts.
        Inventory = "inventory",
    }
);

impl Lane {
    /// 0 is served first.
    pub fn rank(self) -> i32 {
        match self {
            Self::Emergency => 0,
            Self::Interactive => 1,
            Self::Policy => 2,
            Self::Inventory => 3,
        }
    }
}

words!(
    /// Which facts to refresh.
    InventoryKind {
        /// Names, versions, hardware, network.
        Device = "device",
        /// Passcode, encryption, firewall, secure boot.
        Security = "security",
        /// Installed software.
        Apps = "apps",
        /// Installed certificates.
        Certificates = "certificates",
        /// Installed profiles.
        Profiles = "profiles",
    }
);

words!(
    /// How thoroughly a wipe removes what was there.
    WipeScope {
        /// Everything: the device is as new and leaves management.
        Everything = "everything",
        /// Only what the organisation put there.
        WorkData = "work-data",
    }
);

words!(
    /// Secrets that the server can have a device replace.
    RotatableSecret {
        /// The recovery lock of an Apple silicon Mac.
        RecoveryLock = "recovery-lock",
        /// The personal FileVault recovery key.
        DiskRecoveryKey = "disk-recovery-key",
        /// The password of the managed local administrator.
        LocalAdminPassword = "local-admin-password",
    }
);

/// Options of a wipe. All default to the plain variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "snake_case")]
pub struct WipeOptions {
    /// How much goes.
    pub scope: WipeScope,
    /// Keep the eSIM's data plan (iPhone, iPad).
    pub preserve_data_plan: bool,
    /// Skip the proximity set-up afterwards (iPhone, iPad).
    pub disallow_proximity_setup: bool,
    /// macOS: `Default`, `DoNotObliterate`, `ObliterateWithWarning` or `Always`.
    pub obliteration_behavior: Option<String>,
    /// Come back under management by itself (iOS 17, tvOS 18).
    pub return_to_service: bool,
}

impl Default for WipeOptions {
    fn default() -> Self {
        Self {
            scope: WipeScope::Everything,
            preserve_data_plan: false,
            disallow_proximity_setup: false,
            obliteration_behavior: None,
            return_to_service: false,
        }
    }
}

/// An app to install, by the one name that the platform's installer understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AppSource {
    /// Apple's App Store, by its numeric id.
    AppStore {
        /// The `adamId`.
        id: u64,
    },
    /// A store app by bundle id or package name.
    StoreIdentifier {
        /// `com.example.app`.
        identifier: String,
    },
    /// A manifest or package that the device fetches by HTTPS.
    Url {
        /// Where.
        url: String,
    },
}

/// What somebody wants done once. JSON: `{"type": "lock", "message": "…"}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Intent {
    /// Lock the screen. A Mac without a PIN of ours locks until the PIN is typed.
    Lock {
        /// Shown on the lock screen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Shown on the lock screen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phone_number: Option<String>,
    },
    /// Remove the passcode, so that the user sets a new one.
    ClearPasscode,
    /// Erase.
    Wipe(WipeOptions),
    /// Restart.
    Restart {
        /// Let the user say when (macOS).
        #[serde(default)]
        notify_user: bool,
    },
    /// Power off.
    ShutDown,
    /// Report facts again. Empty means all kinds that the platform knows.
    RefreshInventory {
        /// Which.
        #[serde(default)]
        kinds: Vec<InventoryKind>,
    },
    /// Install a configuration profile (Apple: mobileconfig, signed or not).
    InstallProfile {
        /// The file's bytes, base64 in JSON.
        #[serde(with = "bytes_base64")]
        profile: Vec<u8>,
    },
    /// Remove a configuration profile.
    RemoveProfile {
        /// Its `PayloadIdentifier`.
        identifier: String,
    },
    /// Install an app.
    InstallApp {
        /// Which.
        app: AppSource,
    },
    /// Remove a managed app.
    RemoveApp {
        /// Bundle id or package name.
        identifier: String,
    },
    /// Trust a certificate.
    InstallCertificate {
        /// DER, base64 in JSON.
        #[serde(with = "bytes_base64")]
        certificate: Vec<u8>,
        /// Shown in the list of profiles.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Lock the device to a message and make it findable.
    LostModeOn {
        /// Shown on the lock screen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Shown on the lock screen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phone_number: Option<String>,
        /// Shown below the message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        footnote: Option<String>,
    },
    /// Leave lost mode.
    LostModeOff,
    /// Report the place (lost mode only).
    Locate,
    /// Make a noise (lost mode only).
    PlaySound,
    /// Give the device another name.
    Rename {
        /// The new name.
        name: String,
    },
    /// Show a text to the user.
    Message {
        /// The text.
        text: String,
    },
    /// Bring the operating system to a version.
    OsUpdate {
        /// The version wanted, such as 15.2. Apple needs one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// Replace a secret that the server keeps in escrow.
    RotateSecret {
        /// Which.
        secret: RotatableSecret,
    },
    /// Replace the device's own certificate before it ends. The server asks for it by itself in time.
    RenewIdentity,
    /// Leave management; the device keeps its user's data.
    Unenroll,
    /// The platform's own words, for what has no word here.
    Raw {
        /// Apple: a command plist, whole or only its `Command` dictionary. Base64 in JSON.
        #[serde(with = "bytes_base64")]
        payload: Vec<u8>,
    },
}

impl std::fmt::Debug for Intent {
    /// Profiles and messages hold secrets: the kind only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Intent({})", self.kind())
    }
}

impl Intent {
    /// The stable name, as in JSON's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lock { .. } => "lock",
            Self::ClearPasscode => "clear-passcode",
            Self::Wipe(_) => "wipe",
            Self::Restart { .. } => "restart",
            Self::ShutDown => "shut-down",
            Self::RefreshInventory { .. } => "refresh-inventory",
            Self::InstallProfile { .. } => "install-profile",
            Self::RemoveProfile { .. } => "remove-profile",
            Self::InstallApp { .. } => "install-app",
            Self::RemoveApp { .. } => "remove-app",
            Self::InstallCertificate { .. } => "install-certificate",
            Self::LostModeOn { .. } => "lost-mode-on",
            Self::LostModeOff => "lost-mode-off",
            Self::Locate => "locate",
            Self::PlaySound => "play-sound",
            Self::Rename { .. } => "rename",
            Self::Message { .. } => "message",
            Self::OsUpdate { .. } => "os-update",
            Self::RotateSecret { .. } => "rotate-secret",
            Self::RenewIdentity => "renew-identity",
            Self::Unenroll => "unenroll",
            Self::Raw { .. } => "raw",
        }
    }

    /// Every name that [`Intent::kind`] can return.
    pub const KINDS: &'static [&'static str] = &[
        "lock",
        "clear-passcode",
        "wipe",
        "restart",
        "shut-down",
        "refresh-inventory",
        "install-profile",
        "remove-profile",
        "install-app",
        "remove-app",
        "install-certificate",
        "lost-mode-on",
        "lost-mode-off",
        "locate",
        "play-sound",
        "rename",
        "message",
        "os-update",
        "rotate-secret",
        "renew-identity",
        "unenroll",
        "raw",
    ];

    /// Which lane an admin's command takes.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Lock { .. } | Self::Wipe(_) | Self::LostModeOn { .. } | Self::Unenroll => Lane::Emergency,
            Self::RefreshInventory { .. } => Lane::Inventory,
            Self::RenewIdentity => Lane::Policy,
            _ => Lane::Interactive,
        }
    }

    /// How it is handed over.
    pub fn guarantee(&self) -> Guarantee {
        match self {
            Self::Wipe(options) if options.scope == WipeScope::Everything && options.return_to_service => {
                // The enrollment comes back by itself; a second wipe would erase the returned device.
                Guarantee::AtMostOnce
            }
            Self::Wipe(_) | Self::Unenroll => Guarantee::UntilSilent,
            _ => Guarantee::UntilAnswered,
        }
    }

    /// Two waiting commands of one channel with the same key are one command (Q9). Only intents whose repetition
    /// means nothing have a key.
    pub fn coalesce_key(&self) -> Option<String> {
        match self {
            Self::RefreshInventory { kinds } => {
                let mut names: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                Some(format!("refresh-inventory:{}", names.join("+")))
            }
            Self::Locate => Some("locate".to_owned()),
            Self::RenewIdentity => Some("renew-identity".to_owned()),
            _ => None,
        }
    }

    /// Whether it destroys data or ends management. Such commands never cross an epoch, a restore or a missing
    /// approval.
    pub fn is_destructive(&self) -> bool {
        matches!(self, Self::Wipe(_) | Self::Unenroll)
    }
}

/// Bytes as standard base64 in JSON.
mod bytes_base64 {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_names_are_the_kinds() {
        let lock: Intent = serde_json::from_str(r#"{"type":"lock","message":"lost"}"#).expect("lock");
        assert_eq!(lock.kind(), "lock");
        let wipe: Intent = serde_json::from_str(r#"{"type":"wipe"}"#).expect("options default");
        assert_eq!(wipe.guarantee(), Guarantee::UntilSilent);
        assert!(serde_json::from_str::<Intent>(r#"{"type":"lock","pin":"1234"}"#).is_err(), "unknown field");
        for kind in Intent::KINDS {
            let text = serde_json::json!({ "type": kind }).to_string();
            let error =
                serde_json::from_str::<Intent>(&text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(!error.contains("unknown variant"), "{kind}: {error}");
        }
    }

    #[test]
    fn coalescing_ignores_the_order_of_kinds() {
        let a = Intent::RefreshInventory { kinds: vec![InventoryKind::Apps, InventoryKind::Device] };
        let b = Intent::RefreshInventory { kinds: vec![InventoryKind::Device, InventoryKind::Apps] };
        assert_eq!(a.coalesce_key(), b.coalesce_key());
        assert_eq!(Intent::ClearPasscode.coalesce_key(), None);
    }

    proptest! {
        #[test]
        fn bytes_survive_json(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let intent = Intent::Raw { payload: bytes };
            let text = serde_json::to_string(&intent).expect("serializes");
            prop_assert_eq!(serde_json::from_str::<Intent>(&text).expect("parses"), intent);
        }
    }
}
