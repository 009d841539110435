//! Commands (`mdm/commands/*.yaml`): what the server asks of a device.
//!
//! A [`Command`] is typed where the server knows what it does, and [`RawCommand`] carries whatever
//! else Apple defines. [`Command::encode`] makes the body of a reply; [`decode_command`] is the
//! device's end.

mod apps;
mod encode;
mod queries;
mod raw;
mod security;
mod settings;

pub use apps::{AppSource, InstallApplication, InstallEnterpriseApplication};
pub use encode::{Delivered, MAX_COMMAND_UUID_BYTES, decode_command};
pub use queries::{DEFAULT_IOS_QUERIES, DEFAULT_MACOS_QUERIES, DEFAULT_OTHER_QUERIES, default_queries};
pub use raw::RawCommand;
pub use security::{
    AccountConfiguration, AdminAccount, DeviceLock, EraseDevice, FileVaultKeyType, ObliterationBehavior,
    RestartDevice, ReturnToService, RotateFileVaultKey,
};
pub use settings::{InstallAction, MdmOptions, OrganizationInfo, OsUpdate, Setting};

use crate::Opaque;

/// One command. `Debug` shows the request type only: payloads hold secrets.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// `device.lock.yaml`.
    DeviceLock(DeviceLock),
    /// `device.erase.yaml`. The device may fall silent without an answer.
    EraseDevice(EraseDevice),
    /// `device.restart.yaml`.
    RestartDevice(RestartDevice),
    /// `device.shutdown.yaml`.
    ShutDownDevice,
    /// `passcode.clear.yaml`.
    ClearPasscode {
        /// The token that the device escrowed with its `TokenUpdate`.
        unlock_token: Opaque,
    },
    /// `profile.install.yaml`.
    InstallProfile {
        /// The profile, signed or not.
        payload: Opaque,
    },
    /// `profile.remove.yaml`.
    RemoveProfile {
        /// The top-level `PayloadIdentifier`.
        identifier: String,
    },
    /// `profile.list.yaml`.
    ProfileList {
        /// Only what MDM installed.
        managed_only: bool,
    },
    /// `information.device.yaml`.
    DeviceInformation {
        /// The names of the wanted properties.
        queries: Vec<String>,
        /// Asks for a fresh attestation.
        attestation_nonce: Option<Vec<u8>>,
    },
    /// `information.security.yaml`.
    SecurityInfo,
    /// `application.installed.list.yaml`.
    InstalledApplicationList {
        /// Only these bundle identifiers; empty for all.
        identifiers: Vec<String>,
        /// Only what MDM installed.
        managed_only: bool,
    },
    /// `application.managed.list.yaml`.
    ManagedApplicationList {
        /// Only these bundle identifiers; empty for all.
        identifiers: Vec<String>,
    },
    /// `certificate.list.yaml`.
    CertificateList {
        /// Only what MDM installed.
        managed_only: bool,
    },
    /// `application.install.yaml`.
    InstallApplication(InstallApplication),
    /// `application.install.enterprise.yaml`.
    InstallEnterpriseApplication(InstallEnterpriseApplication),
    /// `application.remove.yaml`.
    RemoveApplication {
        /// The bundle identifier.
        identifier: String,
    },
    /// `device.lostmode.enable.yaml`: needs a message or a phone number.
    EnableLostMode {
        /// What the locked screen says.
        message: Option<String>,
        /// Whom to call.
        phone_number: Option<String>,
        /// Stands where "Slide to unlock" was.
        footnote: Option<String>,
    },
    /// `device.lostmode.disable.yaml`.
    DisableLostMode,
    /// `device.lostmode.location.yaml`; works in lost mode only.
    DeviceLocation,
    /// `device.lostmode.playsound.yaml`; works in lost mode only.
    PlayLostModeSound,
    /// `settings.yaml`.
    Settings {
        /// One or more settings.
        items: Vec<Setting>,
    },
    /// `system.update.schedule.yaml`; removed from macOS 27.
    ScheduleOsUpdate {
        /// One or more updates.
        updates: Vec<OsUpdate>,
    },
    /// `system.update.available.yaml`; removed from macOS 27.
    AvailableOsUpdates,
    /// `system.update.status.yaml`; removed from macOS 27.
    OsUpdateStatus,
    /// `device.configured.yaml`: lets the Setup Assistant go on.
    DeviceConfigured,
    /// `user.configured.yaml`: the same for a user of a Shared iPad.
    UserConfigured,
    /// `declarativemanagement.yaml`: turns declarative management on, or says that it changed.
    DeclarativeManagement {
        /// The synchronisation tokens as JSON.
        data: Option<Vec<u8>>,
    },
    /// `device.activationlock.bypasscode.yaml`.
    ActivationLockBypassCode,
    /// `device.activationlock.clearbypasscode.yaml`.
    ClearActivationLockBypassCode,
    /// `passcode.recovery.set.yaml` (Apple silicon).
    SetRecoveryLock {
        /// Needed when one is set.
        current: Option<Opaque>,
        /// Empty to remove it.
        new: Opaque,
    },
    /// `passcode.recovery.verify.yaml`.
    VerifyRecoveryLock {
        /// The password to try.
        password: Opaque,
    },
    /// `rotate.file.vault.key.yaml`.
    RotateFileVaultKey(RotateFileVaultKey),
    /// `set.auto.admin.password.yaml`.
    SetAutoAdminPassword {
        /// The account's GUID, from `AutoSetupAdminAccounts`.
        guid: String,
        /// A SALTED-SHA512-PBKDF2 property list (`other/passwordhash.yaml`).
        password_hash: Opaque,
    },
    /// `account.configuration.yaml`; only while the device awaits configuration.
    AccountConfiguration(AccountConfiguration),
    /// `user.list.yaml`.
    UserList,
    /// `user.delete.yaml`.
    DeleteUser {
        /// The user; required unless all users are meant.
        user_name: Option<String>,
        /// Even when data has not been synchronised (iPadOS).
        force: bool,
        /// All users (iPadOS 14).
        all_users: bool,
    },
    /// `user.logout.yaml`.
    LogOutUser,
    /// `user.unlock.yaml`.
    UnlockUserAccount {
        /// The local account's short name.
        user_name: String,
    },
    /// `remotedesktop.enable.yaml`.
    EnableRemoteDesktop,
    /// `remotedesktop.disable.yaml`.
    DisableRemoteDesktop,
    /// Any other command, as an administrator wrote it.
    Raw(RawCommand),
}

impl Command {
    /// `RequestType` on the wire.
    #[must_use]
    pub fn request_type(&self) -> &str {
        match self {
            Self::DeviceLock(_) => "DeviceLock",
            Self::EraseDevice(_) => "EraseDevice",
            Self::RestartDevice(_) => "RestartDevice",
            Self::ShutDownDevice => "ShutDownDevice",
            Self::ClearPasscode { .. } => "ClearPasscode",
            Self::InstallProfile { .. } => "InstallProfile",
            Self::RemoveProfile { .. } => "RemoveProfile",
            Self::ProfileList { .. } => "ProfileList",
            Self::DeviceInformation { .. } => "DeviceInformation",
            Self::SecurityInfo => "SecurityInfo",
            Self::InstalledApplicationList { .. } => "InstalledApplicationList",
            Self::ManagedApplicationList { .. } => "ManagedApplicationList",
            Self::CertificateList { .. } => "CertificateList",
            Self::InstallApplication(_) => "InstallApplication",
            Self::InstallEnterpriseApplication(_) => "InstallEnterpriseApplication",
            Self::RemoveApplication { .. } => "RemoveApplication",
            Self::EnableLostMode { .. } => "EnableLostMode",
            Self::DisableLostMode => "DisableLostMode",
            Self::DeviceLocation => "DeviceLocation",
            Self::PlayLostModeSound => "PlayLostModeSound",
            Self::Settings { .. } => "Settings",
            Self::ScheduleOsUpdate { .. } => "ScheduleOSUpdate",
            Self::AvailableOsUpdates => "AvailableOSUpdates",
            Self::OsUpdateStatus => "OSUpdateStatus",
            Self::DeviceConfigured => "DeviceConfigured",
            Self::UserConfigured => "UserConfigured",
            Self::DeclarativeManagement { .. } => "DeclarativeManagement",
            Self::ActivationLockBypassCode => "ActivationLockBypassCode",
            Self::ClearActivationLockBypassCode => "ClearActivationLockBypassCode",
            Self::SetRecoveryLock { .. } => "SetRecoveryLock",
            Self::VerifyRecoveryLock { .. } => "VerifyRecoveryLock",
            Self::RotateFileVaultKey(_) => "RotateFileVaultKey",
            Self::SetAutoAdminPassword { .. } => "SetAutoAdminPassword",
            Self::AccountConfiguration(_) => "AccountConfiguration",
            Self::UserList => "UserList",
            Self::DeleteUser { .. } => "DeleteUser",
            Self::LogOutUser => "LogOutUser",
            Self::UnlockUserAccount { .. } => "UnlockUserAccount",
            Self::EnableRemoteDesktop => "EnableRemoteDesktop",
            Self::DisableRemoteDesktop => "DisableRemoteDesktop",
            Self::Raw(raw) => raw.request_type(),
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({})", self.request_type())
    }
}
