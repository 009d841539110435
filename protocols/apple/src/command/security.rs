//! Commands that lock, wipe and rekey.

use plist::{Dictionary, Value};

use crate::xml::{self, Keys};
use crate::{Error, Opaque};

/// `device.lock.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceLock {
    /// What the locked screen says.
    pub message: Option<String>,
    /// Whom to call.
    pub phone_number: Option<String>,
    /// Six digits that unlock a Mac again; Macs only.
    pub pin: Option<Opaque>,
}

impl DeviceLock {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        Ok(Keys::new()
            .maybe("Message", self.message.clone())
            .maybe("PhoneNumber", self.phone_number.clone())
            .maybe("PIN", pin(self.pin.as_ref())?)
            .done())
    }
}

/// `device.erase.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EraseDevice {
    /// Six digits that unlock the wiped Mac; Macs only.
    pub pin: Option<Opaque>,
    /// Keep the cellular plan (iOS 11).
    pub preserve_data_plan: bool,
    /// Skip Quick Start in the next Setup Assistant (iOS 11.3).
    pub disallow_proximity_setup: bool,
    /// What a Mac does when it cannot erase all content and settings (macOS 12).
    pub obliteration_behavior: Option<ObliterationBehavior>,
    /// Enroll again without hands (iOS 17, tvOS 18).
    pub return_to_service: Option<ReturnToService>,
}

impl EraseDevice {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        let behavior = self.obliteration_behavior.map(ObliterationBehavior::as_str);
        let return_to_service = self.return_to_service.as_ref().map(ReturnToService::keys);
        Ok(Keys::new()
            .flag("PreserveDataPlan", self.preserve_data_plan)
            .flag("DisallowProximitySetup", self.disallow_proximity_setup)
            .maybe("PIN", pin(self.pin.as_ref())?)
            .maybe("ObliterationBehavior", behavior)
            .maybe("ReturnToService", return_to_service)
            .done())
    }
}

/// `ObliterationBehavior` of `device.erase.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObliterationBehavior {
    /// Obliterate when erasing is impossible.
    Default,
    /// Fail instead.
    DoNotObliterate,
    /// Obliterate, but report an error first.
    ObliterateWithWarning,
    /// Do not even try the gentle way.
    Always,
}

impl ObliterationBehavior {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "Default",
            Self::DoNotObliterate => "DoNotObliterate",
            Self::ObliterateWithWarning => "ObliterateWithWarning",
            Self::Always => "Always",
        }
    }
}

/// `ReturnToService` of `device.erase.yaml` and of the check-in message of that name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReturnToService {
    /// Whether to return to service.
    pub enabled: bool,
    /// A profile with the Wi-Fi network to use.
    pub wifi_profile: Option<Opaque>,
    /// The enrollment profile to use.
    pub mdm_profile: Option<Opaque>,
    /// Keeps the installed apps (iOS 26).
    pub bootstrap_token: Option<Opaque>,
}

impl ReturnToService {
    pub(crate) fn keys(&self) -> Dictionary {
        Keys::new()
            .with("Enabled", self.enabled)
            .maybe("WiFiProfileData", self.wifi_profile.as_ref().map(xml::data))
            .maybe("MDMProfileData", self.mdm_profile.as_ref().map(xml::data))
            .maybe("BootstrapToken", self.bootstrap_token.as_ref().map(xml::data))
            .done()
    }
}

/// `device.restart.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestartDevice {
    /// Lets a Mac's user choose the moment (macOS 11.4).
    pub notify_user: bool,
    /// Rebuilds the kernel cache (macOS 11).
    pub rebuild_kernel_cache: bool,
    /// Kernel extensions to include in it.
    pub kext_paths: Vec<String>,
}

impl RestartDevice {
    pub(super) fn keys(&self) -> Dictionary {
        Keys::new()
            .flag("RebuildKernelCache", self.rebuild_kernel_cache)
            .list("KextPaths", &self.kext_paths)
            .flag("NotifyUser", self.notify_user)
            .done()
    }
}

/// `KeyType` of `rotate.file.vault.key.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileVaultKeyType {
    /// The personal recovery key.
    Personal,
    /// The institutional recovery key.
    Institutional,
}

/// `rotate.file.vault.key.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateFileVaultKey {
    /// Which key to replace.
    pub key_type: FileVaultKeyType,
    /// A user's password or the present personal recovery key.
    pub password: Opaque,
    /// The new institutional certificate, DER.
    pub new_certificate: Option<Vec<u8>>,
    /// Encrypts the new personal key for us, DER. Keep its private key before sending.
    pub reply_encryption_certificate: Option<Vec<u8>>,
}

impl RotateFileVaultKey {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        let key_type = match self.key_type {
            FileVaultKeyType::Personal => "personal",
            FileVaultKeyType::Institutional => "institutional",
        };
        match self.key_type {
            FileVaultKeyType::Personal if self.reply_encryption_certificate.is_none() => {
                return Err(Error::BadCommand(
                    "a new personal recovery key needs a certificate that encrypts it",
                ));
            }
            FileVaultKeyType::Institutional if self.new_certificate.is_none() => {
                return Err(Error::BadCommand("a new institutional recovery key needs its certificate"));
            }
            _ => {}
        }
        let unlock = Keys::new().with("Password", xml::text(&self.password)?).done();
        Ok(Keys::new()
            .with("KeyType", key_type)
            .with("FileVaultUnlock", unlock)
            .maybe("NewCertificate", self.new_certificate.clone().map(Value::Data))
            .maybe("ReplyEncryptionCertificate", self.reply_encryption_certificate.clone().map(Value::Data))
            .done())
    }
}

/// `account.configuration.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountConfiguration {
    /// Do not offer to create the first account; an admin account is needed then.
    pub skip_primary_setup_account_creation: bool,
    /// Make the first account a standard user; an admin account is needed then.
    pub set_primary_setup_account_as_regular_user: bool,
    /// Full name to fill in.
    pub primary_account_full_name: Option<String>,
    /// Short name to fill in.
    pub primary_account_user_name: Option<String>,
    /// Do not fill in what the identity provider said.
    pub dont_auto_populate_primary_account_info: bool,
    /// Do not let the user change the names.
    pub lock_primary_account_info: bool,
    /// The admin account to create; macOS uses the first only.
    pub admin_account: Option<AdminAccount>,
    /// Short name of the user to manage.
    pub managed_local_user_short_name: Option<String>,
}

/// One entry of `AutoSetupAdminAccounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAccount {
    /// The short name.
    pub short_name: String,
    /// The full name.
    pub full_name: Option<String>,
    /// A SALTED-SHA512-PBKDF2 property list (`other/passwordhash.yaml`).
    pub password_hash: Opaque,
    /// Hide the account from the login window.
    pub hidden: bool,
}

impl AccountConfiguration {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        let wants_admin =
            self.skip_primary_setup_account_creation || self.set_primary_setup_account_as_regular_user;
        if wants_admin && self.admin_account.is_none() {
            return Err(Error::BadCommand(
                "a Mac whose first account is skipped or a standard user needs an admin account",
            ));
        }
        let accounts = self.admin_account.as_ref().map(|account| {
            let account = Keys::new()
                .with("shortName", account.short_name.clone())
                .maybe("fullName", account.full_name.clone())
                .with("passwordHash", xml::data(&account.password_hash))
                .flag("hidden", account.hidden)
                .done();
            Value::Array(vec![Value::Dictionary(account)])
        });
        Ok(Keys::new()
            .flag("SkipPrimarySetupAccountCreation", self.skip_primary_setup_account_creation)
            .flag("SetPrimarySetupAccountAsRegularUser", self.set_primary_setup_account_as_regular_user)
            .maybe("PrimaryAccountFullName", self.primary_account_full_name.clone())
            .maybe("PrimaryAccountUserName", self.primary_account_user_name.clone())
            .flag("DontAutoPopulatePrimaryAccountInfo", self.dont_auto_populate_primary_account_info)
            .flag("LockPrimaryAccountInfo", self.lock_primary_account_info)
            .maybe("AutoSetupAdminAccounts", accounts)
            .maybe("ManagedLocalUserShortName", self.managed_local_user_short_name.clone())
            .done())
    }
}

/// The PIN of a Mac has exactly six digits; with another one nobody can unlock it again.
fn pin(pin: Option<&Opaque>) -> Result<Option<Value>, Error> {
    let Some(pin) = pin else { return Ok(None) };
    let six_digits = pin.len() == 6 && pin.expose().iter().all(u8::is_ascii_digit);
    if !six_digits {
        return Err(Error::BadCommand("a PIN has exactly six digits"));
    }
    xml::text(pin).map(Some)
}
