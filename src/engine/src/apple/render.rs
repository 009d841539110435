//! From a planned part to the bytes on the wire. Rendered once, at the first send, and frozen from then on.

use super::plan::{family, no_apple_command};
use crate::commands::StoredIntent;
use crate::error::Error;
use crate::invitations::profile_identifier;
use bellwether_apple::Opaque;
use bellwether_apple::command::{
    AppSource as WireAppSource, Command, DeviceLock, EraseDevice, InstallAction, InstallApplication,
    InstallEnterpriseApplication, ObliterationBehavior, OsUpdate, RawCommand, RestartDevice, ReturnToService,
    Setting, default_queries,
};
use bellwether_apple::profile::certificate_profile;
use bellwether_model::intent::AppSource;
use bellwether_model::{Intent, PartId, SiteId};
use bellwether_store::records::Device;

/// What rendering may need besides the intent, opened for this one use.
pub(super) struct Material<'a> {
    pub site: SiteId,
    pub organization: &'a str,
    pub device: &'a Device,
    /// The escrowed unlock token, for ClearPasscode.
    pub unlock_token: Option<Opaque>,
    /// The recovery-lock password that is in force.
    pub current_recovery_lock: Option<Opaque>,
    /// The enrollment profile with a fresh challenge, for a renewal.
    pub renewal_profile: Option<Opaque>,
}

/// How every enrollment profile's identifier begins.
pub(super) fn enrollment_profile_identifier() -> &'static str {
    "bellwether.enrollment."
}

/// The `CommandUUID` of a part: upper case, as Apple writes UUIDs.
pub(super) fn command_uuid(part: PartId) -> String {
    part.0.hyphenated().to_string().to_uppercase()
}

/// The command plist for one part.
pub(super) fn render(
    stored: &StoredIntent,
    intent: &Intent,
    request: &str,
    part: PartId,
    material: Material<'_>,
) -> Result<Vec<u8>, Error> {
    let command = command(stored, intent, request, material)?;
    command.encode(&command_uuid(part)).map_err(|e| Error::Invalid(format!("{request}: {e}")))
}

fn command(
    stored: &StoredIntent,
    intent: &Intent,
    request: &str,
    material: Material<'_>,
) -> Result<Command, Error> {
    let pin = stored.pin.as_deref().map(Opaque::from);
    Ok(match intent {
        Intent::Lock { message, phone_number } => Command::DeviceLock(DeviceLock {
            message: message.clone(),
            phone_number: phone_number.clone(),
            pin,
        }),
        Intent::ClearPasscode => Command::ClearPasscode {
            unlock_token: material.unlock_token.ok_or_else(|| {
                Error::CannotDo(
                    "this device has escrowed no unlock token, so its passcode cannot be cleared".into(),
                )
            })?,
        },
        Intent::Wipe(options) => Command::EraseDevice(EraseDevice {
            pin,
            preserve_data_plan: options.preserve_data_plan,
            disallow_proximity_setup: options.disallow_proximity_setup,
            obliteration_behavior: options.obliteration_behavior.as_deref().and_then(obliteration),
            return_to_service: options
                .return_to_service
                .then(|| ReturnToService { enabled: true, ..ReturnToService::default() }),
        }),
        Intent::Restart { notify_user } => {
            Command::RestartDevice(RestartDevice { notify_user: *notify_user, ..RestartDevice::default() })
        }
        Intent::ShutDown => Command::ShutDownDevice,
        Intent::RefreshInventory { .. } => inventory(request, material.device)?,
        Intent::InstallProfile { profile } => {
            Command::InstallProfile { payload: Opaque::from(profile.as_slice()) }
        }
        Intent::RemoveProfile { identifier } => Command::RemoveProfile { identifier: identifier.clone() },
        Intent::InstallApp { app } => install_app(app, request)?,
        Intent::RemoveApp { identifier } => Command::RemoveApplication { identifier: identifier.clone() },
        Intent::InstallCertificate { certificate, name } => {
            let namespace = uuid::Uuid::from_bytes(*material.site.as_bytes());
            let profile = certificate_profile(material.organization, namespace, name.as_deref(), certificate)
                .map_err(|e| Error::Internal(format!("a certificate profile: {e}")))?;
            Command::InstallProfile { payload: Opaque::from(profile) }
        }
        Intent::LostModeOn { message, phone_number, footnote } => Command::EnableLostMode {
            message: message.clone(),
            phone_number: phone_number.clone(),
            footnote: footnote.clone(),
        },
        Intent::LostModeOff => Command::DisableLostMode,
        Intent::Locate => Command::DeviceLocation,
        Intent::PlaySound => Command::PlayLostModeSound,
        Intent::Rename { name } => Command::Settings { items: vec![Setting::DeviceName(name.clone())] },
        Intent::OsUpdate { version } => Command::ScheduleOsUpdate {
            updates: vec![OsUpdate {
                product_key: None,
                product_version: version.clone(),
                action: InstallAction::Default,
                max_user_deferrals: None,
                high_priority: false,
            }],
        },
        Intent::RotateSecret { .. } => Command::SetRecoveryLock {
            current: material.current_recovery_lock,
            new: stored
                .password
                .as_deref()
                .map(Opaque::from)
                .ok_or_else(|| Error::Internal("a rotation without a new password".into()))?,
        },
        Intent::RenewIdentity => Command::InstallProfile {
            payload: material
                .renewal_profile
                .ok_or_else(|| Error::Internal("a renewal without its profile".into()))?,
        },
        Intent::Unenroll => Command::RemoveProfile { identifier: profile_identifier(material.site) },
        Intent::Raw { payload } => Command::Raw(
            RawCommand::from_plist(payload)
                .map_err(|e| Error::Invalid(format!("not a command plist: {e}")))?,
        ),
        _ => return Err(no_apple_command(intent)),
    })
}

fn inventory(request: &str, device: &Device) -> Result<Command, Error> {
    Ok(match request {
        "DeviceInformation" => {
            Command::DeviceInformation { queries: default_queries(family(device)), attestation_nonce: None }
        }
        "SecurityInfo" => Command::SecurityInfo,
        "InstalledApplicationList" => {
            Command::InstalledApplicationList { identifiers: Vec::new(), managed_only: false }
        }
        "CertificateList" => Command::CertificateList { managed_only: false },
        "ProfileList" => Command::ProfileList { managed_only: false },
        other => return Err(Error::Internal(format!("no inventory request {other}"))),
    })
}

fn install_app(app: &AppSource, request: &str) -> Result<Command, Error> {
    Ok(match app {
        AppSource::Url { url } if request == "InstallEnterpriseApplication" => {
            Command::InstallEnterpriseApplication(InstallEnterpriseApplication {
                manifest_url: Some(url.clone()),
                ..InstallEnterpriseApplication::default()
            })
        }
        AppSource::Url { url } => {
            Command::InstallApplication(InstallApplication::new(WireAppSource::ManifestUrl(url.clone())))
        }
        AppSource::StoreIdentifier { identifier } => Command::InstallApplication(InstallApplication::new(
            WireAppSource::BundleIdentifier(identifier.clone()),
        )),
        AppSource::AppStore { id } => {
            Command::InstallApplication(InstallApplication::new(WireAppSource::StoreId(*id)))
        }
        AppSource::Package { .. } => {
            return Err(Error::CannotDo("Apple installs from the package store by URL only".into()));
        }
    })
}

fn obliteration(word: &str) -> Option<ObliterationBehavior> {
    [
        ObliterationBehavior::Default,
        ObliterationBehavior::DoNotObliterate,
        ObliterationBehavior::ObliterateWithWarning,
        ObliterationBehavior::Always,
    ]
    .into_iter()
    .find(|b| b.as_str() == word)
}
