//! What `DeviceInformation` asks for (`mdm/commands/information.device.yaml`).

use crate::family::{Family, Os};

/// For iPhone, iPad and iPod touch.
pub const DEFAULT_IOS_QUERIES: &[&str] = &[
    "UDID",
    "DeviceName",
    "OSVersion",
    "SupplementalOSVersionExtra",
    "BuildVersion",
    "SupplementalBuildVersion",
    "ModelName",
    "Model",
    "ModelNumber",
    "ProductName",
    "SerialNumber",
    "DeviceCapacity",
    "AvailableDeviceCapacity",
    "IMEI",
    "MEID",
    "ModemFirmwareVersion",
    "CellularTechnology",
    "BatteryLevel",
    "IsSupervised",
    "IsMultiUser",
    "IsDeviceLocatorServiceEnabled",
    "IsActivationLockEnabled",
    "IsDoNotDisturbInEffect",
    "IsMDMLostModeEnabled",
    "IsCloudBackupEnabled",
    "LastCloudBackupDate",
    "AwaitingConfiguration",
    "DiagnosticSubmissionEnabled",
    "AppAnalyticsEnabled",
    "TimeZone",
    "BluetoothMAC",
    "WiFiMAC",
    "PersonalHotspotEnabled",
    "DataRoamingEnabled",
    "ServiceSubscriptions",
    "EASDeviceIdentifier",
    "SoftwareUpdateDeviceID",
];

/// For Macs.
pub const DEFAULT_MACOS_QUERIES: &[&str] = &[
    "UDID",
    "ProvisioningUDID",
    "DeviceName",
    "HostName",
    "LocalHostName",
    "OSVersion",
    "SupplementalOSVersionExtra",
    "BuildVersion",
    "SupplementalBuildVersion",
    "ModelName",
    "Model",
    "ModelNumber",
    "IsAppleSilicon",
    "ProductName",
    "SerialNumber",
    "DeviceCapacity",
    "AvailableDeviceCapacity",
    "BatteryLevel",
    "HasBattery",
    "IsSupervised",
    "IsActivationLockEnabled",
    "IsActivationLockSupported",
    "AwaitingConfiguration",
    "ActiveManagedUsers",
    "AutoSetupAdminAccounts",
    "SystemIntegrityProtectionEnabled",
    "BluetoothMAC",
    "WiFiMAC",
    "EthernetMAC",
    "TimeZone",
    "PINRequiredForEraseDevice",
    "PINRequiredForDeviceLock",
    "SupportsiOSAppInstalls",
    "SoftwareUpdateDeviceID",
];

/// For Apple TV, Apple Vision and Apple Watch, and for a device that has not said what it is: what
/// every system answers.
pub const DEFAULT_OTHER_QUERIES: &[&str] = &[
    "UDID",
    "DeviceName",
    "OSVersion",
    "BuildVersion",
    "ModelName",
    "ModelNumber",
    "ProductName",
    "SerialNumber",
    "IsSupervised",
    "WiFiMAC",
];

/// The queries for a family. A device leaves out what it does not know.
#[must_use]
pub fn default_queries(family: Family) -> Vec<String> {
    let queries = match family.os() {
        Some(Os::Ios) => DEFAULT_IOS_QUERIES,
        Some(Os::Macos) => DEFAULT_MACOS_QUERIES,
        _ => DEFAULT_OTHER_QUERIES,
    };
    queries.iter().map(|query| (*query).to_owned()).collect()
}
