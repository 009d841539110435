//! Which key of an answer becomes which fact (`information.device.yaml`, `information.security.yaml`).

use plist::Dictionary;

use super::Fact;
use super::value::{self, Kind};

/// Key of the device, key of the fact, kind of the value.
pub(super) type Table = &'static [(&'static str, &'static str, Kind)];

/// Reads every key of a table that is present and sound.
pub(super) fn read(answers: &Dictionary, table: Table) -> Vec<Fact> {
    table
        .iter()
        .filter_map(|(theirs, ours, kind)| {
            let value = value::read(answers.get(theirs)?, *kind)?;
            Some(Fact::new(ours, value))
        })
        .collect()
}

/// `QueryResponses` of `information.device.yaml`.
pub(super) const DEVICE_INFORMATION: Table = &[
    ("UDID", "udid", Kind::Text),
    ("ProvisioningUDID", "provisioning-udid", Kind::Text),
    ("SerialNumber", "serial-number", Kind::Text),
    ("DeviceName", "device.name", Kind::Text),
    ("HostName", "device.host-name", Kind::Text),
    ("LocalHostName", "device.local-host-name", Kind::Text),
    ("OSVersion", "os.version", Kind::Text),
    ("SupplementalOSVersionExtra", "os.version-extra", Kind::Text),
    ("BuildVersion", "os.build", Kind::Text),
    ("SupplementalBuildVersion", "os.build-extra", Kind::Text),
    ("TimeZone", "os.time-zone", Kind::Text),
    ("SoftwareUpdateDeviceID", "os.software-update-device-id", Kind::Text),
    ("ModelName", "model-name", Kind::Text),
    ("Model", "model", Kind::Text),
    ("ModelNumber", "model-number", Kind::Text),
    ("ProductName", "product-name", Kind::Text),
    ("IsAppleSilicon", "hardware.apple-silicon", Kind::Bool),
    ("SupportsiOSAppInstalls", "hardware.runs-ios-apps", Kind::Bool),
    ("SupportsLOMDevice", "hardware.lights-out-management", Kind::Bool),
    ("DeviceCapacity", "storage.capacity-gb", Kind::Amount),
    ("AvailableDeviceCapacity", "storage.available-gb", Kind::Amount),
    ("BatteryLevel", "battery.level", Kind::Amount),
    ("HasBattery", "battery.present", Kind::Bool),
    ("IsSupervised", "supervised", Kind::Bool),
    ("IsMultiUser", "shared-ipad", Kind::Bool),
    ("AwaitingConfiguration", "awaiting-configuration", Kind::Bool),
    ("IsDeviceLocatorServiceEnabled", "find-my.enabled", Kind::Bool),
    ("IsActivationLockEnabled", "activation-lock.enabled", Kind::Bool),
    ("IsActivationLockSupported", "activation-lock.supported", Kind::Bool),
    ("IsMDMLostModeEnabled", "lost-mode.enabled", Kind::Bool),
    ("IsDoNotDisturbInEffect", "do-not-disturb", Kind::Bool),
    ("IsCloudBackupEnabled", "cloud-backup.enabled", Kind::Bool),
    ("LastCloudBackupDate", "cloud-backup.last", Kind::Date),
    ("iTunesStoreAccountIsActive", "app-store.signed-in", Kind::Bool),
    ("DiagnosticSubmissionEnabled", "privacy.diagnostic-submission", Kind::Bool),
    ("AppAnalyticsEnabled", "privacy.app-analytics", Kind::Bool),
    ("PINRequiredForEraseDevice", "pin-required.erase", Kind::Bool),
    ("PINRequiredForDeviceLock", "pin-required.lock", Kind::Bool),
    ("SystemIntegrityProtectionEnabled", "security.sip.enabled", Kind::Bool),
    ("EACSPreflight", "erase-preflight", Kind::Text),
    ("EASDeviceIdentifier", "exchange-device-id", Kind::Text),
    ("DeviceID", "device-id", Kind::Text),
    ("ActiveManagedUsers", "users.active-managed", Kind::Texts),
    ("MaximumResidentUsers", "shared-ipad.maximum-users", Kind::Int),
    ("EstimatedResidentUsers", "shared-ipad.estimated-users", Kind::Int),
    ("ResidentUsers", "shared-ipad.resident-users", Kind::Int),
    ("QuotaSize", "shared-ipad.quota-mb", Kind::Int),
    ("WiFiMAC", "network.wifi-mac", Kind::Text),
    ("BluetoothMAC", "network.bluetooth-mac", Kind::Text),
    ("EthernetMAC", "network.ethernet-mac", Kind::Text),
    ("IMEI", "cellular.imei", Kind::Text),
    ("MEID", "cellular.meid", Kind::Text),
    ("ICCID", "cellular.iccid", Kind::Text),
    ("PhoneNumber", "cellular.phone-number", Kind::Text),
    ("ModemFirmwareVersion", "cellular.modem-firmware", Kind::Text),
    ("CellularTechnology", "cellular.technology", Kind::Int),
    ("CurrentCarrierNetwork", "cellular.carrier", Kind::Text),
    ("SubscriberCarrierNetwork", "cellular.home-carrier", Kind::Text),
    ("CarrierSettingsVersion", "cellular.carrier-settings", Kind::Text),
    ("IsRoaming", "cellular.roaming", Kind::Bool),
    ("DataRoamingEnabled", "cellular.data-roaming", Kind::Bool),
    ("VoiceRoamingEnabled", "cellular.voice-roaming", Kind::Bool),
    ("PersonalHotspotEnabled", "cellular.personal-hotspot", Kind::Bool),
];

/// `SecurityInfo` of `information.security.yaml`.
pub(super) const SECURITY_INFO: Table = &[
    ("HardwareEncryptionCaps", "security.hardware-encryption", Kind::Int),
    ("PasscodePresent", "security.passcode-present", Kind::Bool),
    ("PasscodeCompliant", "security.passcode-compliant", Kind::Bool),
    ("PasscodeCompliantWithProfiles", "security.passcode-compliant-with-profiles", Kind::Bool),
    ("PasscodeLockGracePeriod", "security.passcode-grace-period", Kind::Int),
    ("PasscodeLockGracePeriodEnforced", "security.passcode-grace-period-enforced", Kind::Int),
    ("AutoLockTime", "security.auto-lock-time", Kind::Int),
    ("FDE_Enabled", "security.filevault.enabled", Kind::Bool),
    ("FDE_HasPersonalRecoveryKey", "security.filevault.personal-key", Kind::Bool),
    ("FDE_HasInstitutionalRecoveryKey", "security.filevault.institutional-key", Kind::Bool),
    ("SystemIntegrityProtectionEnabled", "security.sip.enabled", Kind::Bool),
    ("AuthenticatedRootVolumeEnabled", "security.authenticated-root", Kind::Bool),
    ("RemoteDesktopEnabled", "security.remote-desktop", Kind::Bool),
    ("IsRecoveryLockEnabled", "security.recovery-lock", Kind::Bool),
    ("BootstrapTokenAllowedForAuthentication", "security.bootstrap-token.allowed", Kind::Text),
    ("BootstrapTokenRequiredForSoftwareUpdate", "security.bootstrap-token.required-for-updates", Kind::Bool),
    (
        "BootstrapTokenRequiredForKernelExtensionApproval",
        "security.bootstrap-token.required-for-kernel-extensions",
        Kind::Bool,
    ),
];

/// Dictionaries inside `SecurityInfo`.
pub(super) const SECURITY_INFO_GROUPS: &[(&str, Table)] = &[
    (
        "FirewallSettings",
        &[
            ("FirewallEnabled", "security.firewall.enabled", Kind::Bool),
            ("BlockAllIncoming", "security.firewall.block-all-incoming", Kind::Bool),
            ("StealthMode", "security.firewall.stealth-mode", Kind::Bool),
            ("LoggingEnabled", "security.firewall.logging", Kind::Bool),
        ],
    ),
    (
        "FirmwarePasswordStatus",
        &[
            ("PasswordExists", "security.firmware-password.present", Kind::Bool),
            ("ChangePending", "security.firmware-password.change-pending", Kind::Bool),
        ],
    ),
    (
        "ManagementStatus",
        &[
            ("EnrolledViaDEP", "enrollment.automated", Kind::Bool),
            ("UserApprovedEnrollment", "enrollment.user-approved", Kind::Bool),
            ("IsUserEnrollment", "enrollment.user-enrollment", Kind::Bool),
            ("IsActivationLockManageable", "activation-lock.manageable", Kind::Bool),
        ],
    ),
    (
        "SecureBoot",
        &[
            ("SecureBootLevel", "security.secure-boot.level", Kind::Text),
            ("ExternalBootLevel", "security.secure-boot.external", Kind::Text),
        ],
    ),
];

/// `passcode.recovery.verify.yaml`.
pub(super) const RECOVERY_LOCK: Table =
    &[("PasswordVerified", "security.recovery-lock.password-verified", Kind::Bool)];
