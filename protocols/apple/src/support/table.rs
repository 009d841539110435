//! The facts of `supportedOS` in `mdm/commands/*.yaml`, with the corrections that are known since.
//!
//! What is not stated here does not hold: user enrollment, Shared iPad and a Mac's user channel are
//! named where they are allowed. A test compares the table with the schema.

use super::rule::{Row, Shared, since};

const INSPECT_PROFILES: u32 = 1;
const CHANGE_PROFILES: u32 = 2;
const LOCK: u32 = 4;
const ERASE: u32 = 8;
const NETWORK: u32 = 32;
const INSPECT_PROVISIONING: u32 = 64;
const CHANGE_PROVISIONING: u32 = 128;
const APPS: u32 = 256;
const RESTRICTIONS: u32 = 512;
const SECURITY: u32 = 1024;
const SETTINGS: u32 = 2048;
const APP_MANAGEMENT: u32 = 4096;
const DEVICE: Shared = Shared::Device;
const USER: Shared = Shared::User;
const BOTH: Shared = Shared::Both;

/// Every command, sorted by request type.
pub(super) const TABLE: &[Row] = &[
    Row::new("AccountConfiguration", "Setting up local accounts").macos(since(10, 11, 0).automated()),
    Row::new("ActivationLockBypassCode", "Fetching the Activation Lock bypass code")
        .ios(since(7, 1, 0).supervised())
        .macos(since(10, 15, 0).supervised())
        .visionos(since(2, 0, 0).supervised()),
    Row::new("ActiveNSExtensions", "Listing extensions").macos(since(10, 13, 0).right(APPS).user_channel()),
    Row::new("ApplyRedemptionCode", "Redeeming an app code").ios(since(5, 0, 0).right(APP_MANAGEMENT)),
    Row::new("AvailableOSUpdates", "Listing OS updates")
        .ios(since(9, 0, 0).right(APP_MANAGEMENT).supervised().shared(DEVICE))
        .macos(since(10, 11, 0).removed(27, 0, 0))
        .tvos(since(12, 0, 0).right(APP_MANAGEMENT).supervised()),
    Row::new("CertificateList", "Listing certificates")
        .ios(since(4, 0, 0).right(INSPECT_PROFILES).byod().shared(DEVICE))
        .macos(since(10, 7, 0).right(INSPECT_PROFILES).byod().both_channels())
        .tvos(since(9, 0, 0).right(INSPECT_PROFILES))
        .visionos(since(1, 1, 0).right(INSPECT_PROFILES).byod())
        .watchos(since(10, 0, 0).right(INSPECT_PROFILES)),
    Row::new("ClearActivationLockBypassCode", "Clearing the Activation Lock bypass code")
        .ios(since(7, 1, 0).supervised())
        .macos(since(10, 15, 0).supervised())
        .visionos(since(2, 0, 0).supervised()),
    Row::new("ClearPasscode", "Clearing the passcode")
        .ios(since(4, 0, 0).right(LOCK))
        .visionos(since(1, 1, 0).right(LOCK))
        .watchos(since(10, 0, 0).right(LOCK)),
    Row::new("ClearRestrictionsPassword", "Clearing the restrictions password")
        .ios(since(8, 0, 0).supervised()),
    Row::new("ContentCachingInformation", "Content caching information")
        .macos(since(10, 15, 4).right(NETWORK)),
    Row::new("DeclarativeManagement", "Declarative management")
        .ios(since(15, 0, 0).byod().shared(BOTH))
        .macos(since(13, 0, 0).byod().both_channels())
        .tvos(since(16, 0, 0))
        .visionos(since(1, 1, 0).byod())
        .watchos(since(10, 0, 0)),
    Row::new("DeleteUser", "Deleting a user")
        .ios(since(9, 3, 0).shared(DEVICE).shared_only())
        .macos(since(10, 13, 0).supervised()),
    Row::new("DeviceConfigured", "Releasing the device from Setup Assistant")
        .ios(since(9, 0, 0).supervised().automated().shared(DEVICE))
        .macos(since(10, 11, 0).automated())
        .tvos(since(10, 2, 0).supervised())
        .visionos(since(2, 0, 0).supervised().automated()),
    Row::new("DeviceInformation", "Device information")
        .ios(since(4, 0, 0).byod().shared(BOTH))
        .macos(since(10, 7, 0).byod().both_channels())
        .tvos(since(9, 0, 0))
        .visionos(since(1, 1, 0).byod())
        .watchos(since(10, 0, 0)),
    Row::new("DeviceLocation", "Locating a lost device").ios(since(9, 3, 0).supervised().shared(DEVICE)),
    Row::new("DeviceLock", "Locking")
        .ios(since(4, 0, 0).right(LOCK).byod().shared(DEVICE))
        .macos(since(10, 7, 0).right(LOCK))
        .visionos(since(2, 0, 0).right(LOCK).byod())
        .watchos(since(10, 0, 0).right(LOCK)),
    Row::new("DisableLostMode", "Leaving lost mode").ios(since(9, 3, 0).supervised().shared(DEVICE)),
    Row::new("DisableRemoteDesktop", "Turning remote desktop off").macos(since(10, 14, 4).supervised()),
    Row::new("EnableLostMode", "Lost mode").ios(since(9, 3, 0).supervised().shared(DEVICE)),
    Row::new("EnableRemoteDesktop", "Turning remote desktop on").macos(since(10, 14, 4).supervised()),
    Row::new("EraseDevice", "Erasing")
        .ios(since(4, 0, 0).right(ERASE).shared(DEVICE))
        .macos(since(10, 7, 0).right(ERASE))
        .tvos(since(10, 2, 0).right(ERASE))
        .visionos(since(1, 1, 0).right(ERASE))
        .watchos(since(10, 0, 0).right(ERASE)),
    Row::new("InstallApplication", "Installing an app")
        .ios(since(5, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .macos(since(10, 9, 0).right(APP_MANAGEMENT).byod().both_channels())
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod())
        .watchos(since(10, 0, 0).right(APP_MANAGEMENT)),
    Row::new("InstallEnterpriseApplication", "Installing a package")
        .macos(since(10, 13, 6).right(APP_MANAGEMENT).byod()),
    Row::new("InstallMedia", "Installing a book")
        .ios(since(8, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .macos(since(10, 9, 0).right(APP_MANAGEMENT).user_channel()),
    Row::new("InstallProfile", "Installing a profile")
        .ios(since(4, 0, 0).right(CHANGE_PROFILES).byod().shared(BOTH))
        .macos(since(10, 7, 0).right(CHANGE_PROFILES).byod().both_channels())
        .tvos(since(9, 0, 0).right(CHANGE_PROFILES))
        .visionos(since(1, 1, 0).right(CHANGE_PROFILES).byod())
        .watchos(since(10, 0, 0).right(CHANGE_PROFILES)),
    Row::new("InstallProvisioningProfile", "Installing a provisioning profile")
        .ios(since(4, 0, 0).right(CHANGE_PROVISIONING).byod().shared(DEVICE))
        .macos(since(11, 0, 0).byod())
        .tvos(since(10, 2, 0).right(CHANGE_PROVISIONING))
        .visionos(since(1, 1, 0).right(CHANGE_PROVISIONING).byod())
        .watchos(since(10, 0, 0).right(CHANGE_PROVISIONING)),
    Row::new("InstalledApplicationList", "Listing installed apps")
        .ios(since(5, 0, 0).right(APPS).byod().shared(DEVICE))
        .macos(since(10, 7, 0).right(APPS).both_channels())
        .tvos(since(10, 2, 0).right(APPS))
        .visionos(since(1, 1, 0).right(APPS).byod())
        .watchos(since(10, 0, 0).right(APPS)),
    Row::new("InviteToProgram", "Inviting to volume purchasing")
        .ios(since(7, 0, 0).right(APP_MANAGEMENT).shared(USER))
        .macos(since(10, 9, 0).user_channel()),
    Row::new("LOMDeviceRequest", "Lights-out management").macos(since(11, 0, 0).right(LOCK)),
    Row::new("LOMSetupRequest", "Lights-out management setup").macos(since(11, 0, 0).right(LOCK)),
    Row::new("LogOutUser", "Logging the user out").ios(since(9, 3, 0).shared(DEVICE).shared_only()),
    Row::new("ManagedApplicationAttributes", "Reading managed app attributes")
        .ios(since(7, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod())
        .watchos(since(10, 0, 0).right(APP_MANAGEMENT)),
    Row::new("ManagedApplicationConfiguration", "Reading managed app configuration")
        .ios(since(7, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .macos(since(10, 15, 0).right(APP_MANAGEMENT).byod())
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod())
        .watchos(since(10, 0, 0).right(APP_MANAGEMENT)),
    Row::new("ManagedApplicationFeedback", "Reading managed app feedback")
        .ios(since(7, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .macos(since(11, 0, 0).right(APP_MANAGEMENT).user_channel())
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod()),
    Row::new("ManagedApplicationList", "Listing managed apps")
        .ios(since(5, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .macos(since(11, 0, 0).right(APP_MANAGEMENT).byod().both_channels())
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod())
        .watchos(since(10, 0, 0).right(APP_MANAGEMENT)),
    Row::new("ManagedMediaList", "Listing managed books")
        .ios(since(8, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE)),
    Row::new("NSExtensionMappings", "Listing extension mappings")
        .macos(since(10, 13, 0).right(APPS).user_channel()),
    Row::new("OSUpdateStatus", "The OS update status")
        .ios(since(9, 0, 0).right(APP_MANAGEMENT).supervised().shared(DEVICE))
        .macos(since(10, 11, 5).supervised().removed(27, 0, 0))
        .tvos(since(12, 0, 0).right(APP_MANAGEMENT).supervised()),
    Row::new("PlayLostModeSound", "Playing the lost mode sound")
        .ios(since(10, 3, 0).supervised().shared(DEVICE)),
    Row::new("ProfileList", "Listing profiles")
        .ios(since(4, 0, 0).right(INSPECT_PROFILES).byod().shared(BOTH))
        .macos(since(10, 7, 0).right(INSPECT_PROFILES).byod().both_channels())
        .tvos(since(9, 0, 0).right(INSPECT_PROFILES))
        .visionos(since(1, 1, 0).right(INSPECT_PROFILES).byod())
        .watchos(since(10, 0, 0).right(INSPECT_PROFILES)),
    Row::new("ProvisioningProfileList", "Listing provisioning profiles")
        .ios(since(4, 0, 0).right(INSPECT_PROVISIONING).byod().shared(DEVICE))
        .macos(since(11, 0, 0).byod())
        .tvos(since(10, 2, 0).right(INSPECT_PROVISIONING))
        .visionos(since(1, 1, 0).right(INSPECT_PROVISIONING).byod())
        .watchos(since(10, 0, 0).right(INSPECT_PROVISIONING)),
    Row::new("RefreshCellularPlans", "Refreshing cellular plans").ios(since(13, 0, 0).shared(DEVICE)),
    Row::new("RemoveApplication", "Removing an app")
        .ios(since(5, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .macos(since(11, 0, 0).right(APP_MANAGEMENT).byod())
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod())
        .watchos(since(10, 0, 0).right(APP_MANAGEMENT)),
    Row::new("RemoveMedia", "Removing a book")
        .ios(since(8, 0, 0).right(APP_MANAGEMENT).byod().shared(DEVICE)),
    Row::new("RemoveProfile", "Removing a profile")
        .ios(since(4, 0, 0).right(CHANGE_PROFILES).byod().shared(BOTH))
        .macos(since(10, 7, 0).right(CHANGE_PROFILES).byod().both_channels())
        .tvos(since(9, 0, 0).right(CHANGE_PROFILES))
        .visionos(since(1, 1, 0).right(CHANGE_PROFILES).byod())
        .watchos(since(10, 0, 0).right(CHANGE_PROFILES)),
    Row::new("RemoveProvisioningProfile", "Removing a provisioning profile")
        .ios(since(4, 0, 0).right(CHANGE_PROVISIONING).byod().shared(DEVICE))
        .macos(since(11, 0, 0).byod())
        .tvos(since(10, 2, 0).right(CHANGE_PROVISIONING))
        .visionos(since(1, 1, 0).right(CHANGE_PROVISIONING).byod())
        .watchos(since(10, 0, 0).right(CHANGE_PROVISIONING)),
    Row::new("RequestMirroring", "AirPlay mirroring")
        .ios(since(7, 0, 0).byod().shared(DEVICE))
        .macos(since(10, 10, 0).byod()),
    Row::new("RequestUnlockToken", "Requesting the unlock token").ios(since(5, 0, 0).supervised()),
    Row::new("RestartDevice", "Restarting")
        .ios(since(10, 3, 0).right(LOCK).supervised().shared(DEVICE))
        .macos(since(10, 13, 0).right(LOCK))
        .tvos(since(10, 2, 0).right(LOCK).supervised()),
    Row::new("Restrictions", "Listing restrictions")
        .ios(since(4, 0, 0).right(RESTRICTIONS).shared(BOTH))
        .tvos(since(9, 0, 0).right(RESTRICTIONS))
        .visionos(since(1, 1, 0).right(RESTRICTIONS))
        .watchos(since(10, 0, 0).right(RESTRICTIONS)),
    Row::new("RotateFileVaultKey", "Rotating the FileVault key").macos(since(10, 9, 0).right(LOCK)),
    Row::new("ScheduleOSUpdate", "Scheduling an OS update")
        .ios(since(9, 0, 0).right(APP_MANAGEMENT).supervised().shared(DEVICE))
        .macos(since(10, 11, 0).supervised().removed(27, 0, 0))
        .tvos(since(12, 0, 0).right(APP_MANAGEMENT).supervised()),
    Row::new("ScheduleOSUpdateScan", "Scanning for OS updates")
        .macos(since(10, 11, 0).supervised().removed(27, 0, 0)),
    Row::new("SecurityInfo", "Security information")
        .ios(since(4, 0, 0).right(SECURITY).byod().shared(DEVICE))
        .macos(since(10, 7, 0).right(SECURITY).byod().both_channels())
        .tvos(since(9, 0, 0).right(SECURITY))
        .visionos(since(1, 1, 0).right(SECURITY).byod())
        .watchos(since(10, 0, 0).right(SECURITY)),
    Row::new("SetAutoAdminPassword", "Setting the admin password").macos(since(10, 11, 0).automated()),
    Row::new("SetFirmwarePassword", "Setting the firmware password").macos(since(10, 13, 0).right(LOCK)),
    Row::new("SetRecoveryLock", "Setting the recovery lock").macos(since(11, 5, 0).right(LOCK)),
    Row::new("Settings", "Changing settings")
        .ios(since(5, 0, 0).right(SETTINGS).byod().shared(BOTH))
        .macos(since(10, 9, 0).right(SETTINGS).byod().both_channels())
        .tvos(since(9, 0, 0).right(SETTINGS))
        .visionos(since(1, 1, 0).right(SETTINGS).byod())
        .watchos(since(10, 0, 0).right(SETTINGS)),
    Row::new("ShutDownDevice", "Shutting down")
        .ios(since(10, 3, 0).right(LOCK).supervised().shared(DEVICE))
        .macos(since(10, 13, 0).right(LOCK)),
    Row::new("StopMirroring", "Stopping AirPlay mirroring")
        .ios(since(7, 0, 0).supervised().shared(DEVICE))
        .macos(since(10, 10, 0)),
    Row::new("UnlockUserAccount", "Unlocking a user account").macos(since(10, 13, 0).right(LOCK)),
    Row::new("UserConfigured", "Releasing the user from Setup Assistant")
        .ios(since(17, 0, 0).supervised().automated().shared(USER)),
    Row::new("UserList", "Listing users")
        .ios(since(9, 3, 0).shared(DEVICE).shared_only())
        .macos(since(10, 13, 0).supervised()),
    Row::new("ValidateApplications", "Validating apps")
        .ios(since(9, 2, 0).right(APP_MANAGEMENT).byod().shared(DEVICE))
        .tvos(since(10, 2, 0).right(APP_MANAGEMENT))
        .visionos(since(1, 1, 0).right(APP_MANAGEMENT).byod()),
    Row::new("VerifyFirmwarePassword", "Verifying the firmware password").macos(since(10, 13, 0)),
    Row::new("VerifyRecoveryLock", "Verifying the recovery lock").macos(since(11, 5, 0).right(LOCK)),
];
