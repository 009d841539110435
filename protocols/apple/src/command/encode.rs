//! A command as the body of a reply, and back.

use plist::{Dictionary, Value};

use super::Command;
use crate::Error;
use crate::guard::{self, Limits};
use crate::xml::{self, Keys};

/// The longest `CommandUUID` that is written or kept, in bytes.
pub const MAX_COMMAND_UUID_BYTES: usize = 128;

impl Command {
    /// The reply's body: an XML property list `{CommandUUID, Command {RequestType, …}}`.
    ///
    /// The same command and UUID always give the same bytes.
    ///
    /// # Errors
    /// [`Error::BadCommand`] when a value breaks a rule of the schema, [`Error::NotWritable`] when a
    /// text contains a character that XML cannot carry.
    pub fn encode(&self, command_uuid: &str) -> Result<Vec<u8>, Error> {
        let sound = !command_uuid.is_empty()
            && command_uuid.len() <= MAX_COMMAND_UUID_BYTES
            && command_uuid.bytes().all(|b| b.is_ascii_graphic());
        if !sound {
            return Err(Error::BadCommand("the command UUID is unusable"));
        }
        let envelope =
            Keys::new().with("CommandUUID", command_uuid).with("Command", self.to_dictionary()?).done();
        xml::encode(envelope)
    }

    /// The inner dictionary, with its `RequestType`.
    ///
    /// # Errors
    /// [`Error::BadCommand`] when a value breaks a rule of the schema.
    pub fn to_dictionary(&self) -> Result<Dictionary, Error> {
        if let Self::Raw(raw) = self {
            return Ok(raw.dictionary().clone());
        }
        let mut command = Keys::new().with("RequestType", self.request_type()).done();
        for (key, value) in self.keys()? {
            command.insert(key, value);
        }
        Ok(command)
    }

    /// The keys beside `RequestType`.
    fn keys(&self) -> Result<Dictionary, Error> {
        let keys = Keys::new();
        Ok(match self {
            Self::DeviceLock(lock) => lock.keys()?,
            Self::EraseDevice(erase) => erase.keys()?,
            Self::RestartDevice(restart) => restart.keys(),
            Self::ClearPasscode { unlock_token } => {
                if unlock_token.is_empty() {
                    return Err(Error::BadCommand("no unlock token is stored"));
                }
                keys.with("UnlockToken", xml::data(unlock_token)).done()
            }
            Self::InstallProfile { payload } => {
                if payload.is_empty() {
                    return Err(Error::BadCommand("the profile is empty"));
                }
                keys.with("Payload", xml::data(payload)).done()
            }
            Self::RemoveProfile { identifier } | Self::RemoveApplication { identifier } => {
                keys.with("Identifier", named(identifier)?).done()
            }
            Self::ProfileList { managed_only } | Self::CertificateList { managed_only } => {
                keys.flag("ManagedOnly", *managed_only).done()
            }
            Self::DeviceInformation { queries, attestation_nonce } => {
                if queries.is_empty() {
                    return Err(Error::BadCommand("no property was asked for"));
                }
                keys.with("Queries", xml::strings(queries))
                    .maybe("DeviceAttestationNonce", attestation_nonce.clone().map(Value::Data))
                    .done()
            }
            Self::InstalledApplicationList { identifiers, managed_only } => {
                keys.list("Identifiers", identifiers).flag("ManagedAppsOnly", *managed_only).done()
            }
            Self::ManagedApplicationList { identifiers } => keys.list("Identifiers", identifiers).done(),
            Self::InstallApplication(app) => app.keys()?,
            Self::InstallEnterpriseApplication(app) => app.keys()?,
            Self::EnableLostMode { message, phone_number, footnote } => {
                if message.is_none() && phone_number.is_none() {
                    return Err(Error::BadCommand("lost mode needs a message or a phone number"));
                }
                keys.maybe("Message", message.clone())
                    .maybe("PhoneNumber", phone_number.clone())
                    .maybe("Footnote", footnote.clone())
                    .done()
            }
            Self::Settings { items } => keys.with("Settings", each(items, |i| i.keys())?).done(),
            Self::ScheduleOsUpdate { updates } => keys.with("Updates", each(updates, |u| u.keys())?).done(),
            Self::DeclarativeManagement { data } => keys.maybe("Data", data.clone().map(Value::Data)).done(),
            Self::SetRecoveryLock { current, new } => keys
                .maybe("CurrentPassword", current.as_ref().map(xml::text).transpose()?)
                .with("NewPassword", xml::text(new)?)
                .done(),
            Self::VerifyRecoveryLock { password } => keys.with("Password", xml::text(password)?).done(),
            Self::RotateFileVaultKey(rotate) => rotate.keys()?,
            Self::SetAutoAdminPassword { guid, password_hash } => {
                keys.with("GUID", named(guid)?).with("passwordHash", xml::data(password_hash)).done()
            }
            Self::AccountConfiguration(accounts) => accounts.keys()?,
            Self::DeleteUser { user_name, force, all_users } => {
                if user_name.is_none() != *all_users {
                    return Err(Error::BadCommand("name one user or choose all users"));
                }
                keys.maybe("UserName", user_name.clone())
                    .flag("ForceDeletion", *force)
                    .flag("DeleteAllUsers", *all_users)
                    .done()
            }
            Self::UnlockUserAccount { user_name } => keys.with("UserName", named(user_name)?).done(),
            Self::ShutDownDevice
            | Self::SecurityInfo
            | Self::DisableLostMode
            | Self::DeviceLocation
            | Self::PlayLostModeSound
            | Self::AvailableOsUpdates
            | Self::OsUpdateStatus
            | Self::DeviceConfigured
            | Self::UserConfigured
            | Self::ActivationLockBypassCode
            | Self::ClearActivationLockBypassCode
            | Self::UserList
            | Self::LogOutUser
            | Self::EnableRemoteDesktop
            | Self::DisableRemoteDesktop
            | Self::Raw(_) => keys.done(),
        })
    }
}

fn named(name: &str) -> Result<String, Error> {
    if name.trim().is_empty() {
        Err(Error::BadCommand("an identifier is empty"))
    } else {
        Ok(name.to_owned())
    }
}

fn each<T>(items: &[T], keys: impl Fn(&T) -> Result<Dictionary, Error>) -> Result<Value, Error> {
    if items.is_empty() {
        return Err(Error::BadCommand("there is nothing to do"));
    }
    let items = items.iter().map(|item| keys(item).map(Value::Dictionary));
    Ok(Value::Array(items.collect::<Result<_, _>>()?))
}

/// A command as the device sees it. `Debug` shows no content.
#[derive(Clone, PartialEq)]
pub struct Delivered {
    /// `CommandUUID`.
    pub command_uuid: String,
    /// `RequestType`.
    pub request_type: String,
    /// The inner dictionary, `RequestType` included.
    pub command: Dictionary,
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivered({} {})", self.command_uuid, self.request_type)
    }
}

/// Reads the body of a reply; an empty body ([`Error::Empty`]) means that there is no command.
///
/// # Errors
/// When the guard refuses the body or it is not a command.
pub fn decode_command(body: &[u8]) -> Result<Delivered, Error> {
    let missing = |field| Error::MissingField { message: "the command", field };
    let Value::Dictionary(mut envelope) = guard::parse(body, &Limits::default())? else {
        return Err(Error::NotADictionary);
    };
    let Some(Value::String(command_uuid)) = envelope.remove("CommandUUID") else {
        return Err(missing("CommandUUID"));
    };
    let Some(Value::Dictionary(command)) = envelope.remove("Command") else {
        return Err(missing("Command"));
    };
    let Some(Value::String(request_type)) = command.get("RequestType") else {
        return Err(missing("RequestType"));
    };
    let request_type = request_type.clone();
    Ok(Delivered { command_uuid, request_type, command })
}
