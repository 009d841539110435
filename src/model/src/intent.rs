//! What somebody wants done once, in words that no platform owns.
//!
//! An intent is sealed as a whole before it is stored: profiles carry passwords, wipes carry PINs.

use crate::id::PackageId;
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

words!(
    /// The ways in which Windows wipes (RemoteWipe CSP). What comes back under management by itself is sent once.
    WindowsWipe {
        /// The usual reset.
        Reset = "reset",
        /// Keeps provisioning packages, which enroll the PC again.
        KeepProvisioning = "keep-provisioning",
        /// Goes on after a loss of power. Has left PCs unbootable.
        Protected = "protected",
        /// Keeps users' files and the enrollment.
        KeepUserData = "keep-user-data",
        /// Reset with an image from Microsoft's cloud.
        Cloud = "cloud",
        /// The same, keeping users' files and the enrollment.
        CloudKeepUserData = "cloud-keep-user-data",
        /// The same, keeping provisioning packages.
        CloudKeepProvisioning = "cloud-keep-provisioning",
        /// Autopilot reset: the PC stays enrolled.
        AutopilotReset = "autopilot-reset",
    }
);

impl WindowsWipe {
    /// The PC comes back by itself, so a second wipe would erase the one that returned.
    pub fn comes_back(self) -> bool {
        !matches!(self, Self::Reset | Self::Protected | Self::Cloud)
    }
}

words!(
    /// What Microsoft Defender is asked to do.
    DefenderAction {
        /// A quick scan.
        QuickScan = "quick-scan",
        /// A full scan.
        FullScan = "full-scan",
        /// A scan before Windows starts: restarts the PC.
        OfflineScan = "offline-scan",
        /// Fetch newer signatures.
        UpdateSignatures = "update-signatures",
    }
);

words!(
    /// Whose setting it is.
    SettingScope {
        /// The machine's.
        Device = "device",
        /// Of the user of the session.
        User = "user",
    }
);

/// The value of a policy. Its form is the policy's, never guessed from the value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SettingValue {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// ADMX-backed: enabled, with the ids and values of its elements.
    Enabled(Vec<(String, String)>),
    /// ADMX-backed: disabled.
    Disabled,
    /// Take the setting back: not configured.
    Remove,
}

/// One policy of Windows (Policy CSP).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Whose.
    #[serde(default = "device_scope")]
    pub scope: SettingScope,
    /// The area, such as `Update`; of an ingested file `App~Policy~Category`.
    pub area: String,
    /// The policy, such as `ActiveHoursStart`.
    pub name: String,
    /// The value.
    pub value: SettingValue,
}

fn device_scope() -> SettingScope {
    SettingScope::Device
}

/// A rule of the Windows firewall (Firewall CSP).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirewallRule {
    /// The rule's id: the same again replaces it.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// A program's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// IP protocol: 6 is TCP, 17 UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// `80,443,8000-8010`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ports: Option<String>,
    /// The same for the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ports: Option<String>,
    /// Addresses of the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_addresses: Option<String>,
    /// For connections that come in.
    #[serde(default)]
    pub inbound: bool,
    /// Allow instead of block.
    #[serde(default)]
    pub allow: bool,
    /// 1 domain, 2 private, 4 public, or a sum.
    #[serde(default = "every_profile")]
    pub profiles: u8,
}

fn every_profile() -> u8 {
    7
}

/// Windows LAPS (LAPS CSP). The password goes to Entra ID or Active Directory, never to this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Laps {
    /// 0 nowhere (off), 1 Entra ID, 2 Active Directory.
    pub directory: u8,
    /// Days, 1 to 365.
    pub age_days: u32,
    /// 8 to 64.
    pub length: u32,
    /// The account, when it is not the built-in administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

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
    /// Windows: which wipe; the usual reset without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsWipe>,
}

impl Default for WipeOptions {
    fn default() -> Self {
        Self {
            scope: WipeScope::Everything,
            preserve_data_plan: false,
            disallow_proximity_setup: false,
            obliteration_behavior: None,
            return_to_service: false,
            windows: None,
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
    /// A package of the package store.
    Package {
        /// Its id.
        id: PackageId,
        /// Arguments of the installer (Windows MSI); `/quiet` without them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<String>,
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
    /// Microsoft Defender: scan, or fetch signatures.
    Defender {
        /// What.
        action: DefenderAction,
    },
    /// Windows: set or take back policies. What is set already is not sent again.
    Configure {
        /// The policies, in order.
        settings: Vec<Setting>,
        /// Send them also when the machine has confirmed the same before: somebody may have changed them by hand.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Windows: bring an ADMX file, whose policies can then be set with `configure`.
    IngestAdmx {
        /// The app that the file is about; its policies' areas begin with it.
        app: String,
        /// Names the file.
        file_id: String,
        /// The file.
        admx: String,
    },
    /// Windows: encrypt disks with BitLocker without asking.
    EncryptDisk,
    /// Windows: rotate the local administrator's password by LAPS.
    SetLaps(Laps),
    /// Windows: make a local administrator's account with a password that the server keeps.
    SetLocalAdmin {
        /// The account's name.
        name: String,
    },
    /// A Wi-Fi network: a passphrase, or the platform's own profile.
    SetWifi {
        /// Its name.
        ssid: String,
        /// WPA2/WPA3 passphrase; an open network without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<String>,
        /// Does not tell its name.
        #[serde(default)]
        hidden: bool,
        /// Windows: a whole `WLANProfile` document instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// Forget a Wi-Fi network.
    RemoveWifi {
        /// Its name.
        ssid: String,
    },
    /// A VPN connection.
    SetVpn {
        /// Its name.
        name: String,
        /// Windows: the `VPNProfile` document.
        profile: String,
    },
    /// Remove a VPN connection.
    RemoveVpn {
        /// Its name.
        name: String,
    },
    /// A rule of the Windows firewall.
    SetFirewallRule(FirewallRule),
    /// Remove a rule of the Windows firewall.
    RemoveFirewallRule {
        /// Its id.
        id: String,
    },
    /// Stop trusting a certificate that was installed.
    RemoveCertificate {
        /// SHA-1 of the certificate, hex: what the platform names it by.
        thumbprint: String,
    },
    /// Get a certificate for the device by SCEP from the site's own CA.
    RequestCertificate {
        /// Names it on the device; the same again renews.
        id: String,
    },
    /// Install a key with its certificate.
    InstallIdentity {
        /// Names it on the device.
        id: String,
        /// PKCS#12, base64 in JSON.
        #[serde(with = "bytes_base64")]
        pkcs12: Vec<u8>,
        /// Of the file.
        password: String,
    },
    /// Windows: collect diagnostics and upload them.
    CollectDiagnostics {
        /// Where to PUT the archive (HTTPS). Without it this server takes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upload_url: Option<String>,
    },
    /// Call often for a short while again. The server asks for it by itself.
    CallOften,
    /// The platform's own words, for what has no word here.
    Raw {
        /// Apple: a command plist, whole or only its `Command` dictionary. Windows: SyncML commands. Base64 in JSON.
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
            Self::Defender { .. } => "defender",
            Self::Configure { .. } => "configure",
            Self::IngestAdmx { .. } => "ingest-admx",
            Self::EncryptDisk => "encrypt-disk",
            Self::SetLaps(_) => "set-laps",
            Self::SetLocalAdmin { .. } => "set-local-admin",
            Self::SetWifi { .. } => "set-wifi",
            Self::RemoveWifi { .. } => "remove-wifi",
            Self::SetVpn { .. } => "set-vpn",
            Self::RemoveVpn { .. } => "remove-vpn",
            Self::SetFirewallRule(_) => "set-firewall-rule",
            Self::RemoveFirewallRule { .. } => "remove-firewall-rule",
            Self::RemoveCertificate { .. } => "remove-certificate",
            Self::RequestCertificate { .. } => "request-certificate",
            Self::InstallIdentity { .. } => "install-identity",
            Self::CollectDiagnostics { .. } => "collect-diagnostics",
            Self::CallOften => "call-often",
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
        "defender",
        "configure",
        "ingest-admx",
        "encrypt-disk",
        "set-laps",
        "set-local-admin",
        "set-wifi",
        "remove-wifi",
        "set-vpn",
        "remove-vpn",
        "set-firewall-rule",
        "remove-firewall-rule",
        "remove-certificate",
        "request-certificate",
        "install-identity",
        "collect-diagnostics",
        "call-often",
        "raw",
    ];

    /// Which lane an admin's command takes.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Lock { .. } | Self::Wipe(_) | Self::LostModeOn { .. } | Self::Unenroll => Lane::Emergency,
            Self::RefreshInventory { .. } => Lane::Inventory,
            Self::RenewIdentity | Self::Configure { .. } | Self::CallOften => Lane::Policy,
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
            Self::Wipe(options) if options.windows.is_some_and(WindowsWipe::comes_back) => {
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
            Self::CallOften => Some("call-often".to_owned()),
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
        let back: Intent =
            serde_json::from_str(r#"{"type":"wipe","windows":"autopilot-reset"}"#).expect("a way to wipe");
        assert_eq!(back.guarantee(), Guarantee::AtMostOnce, "it comes back by itself");
        let set = r#"{"type":"configure","settings":[{"area":"Update","name":"ActiveHoursStart","value":{"int":8}}]}"#;
        assert_eq!(serde_json::from_str::<Intent>(set).expect("settings").lane(), Lane::Policy);
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
