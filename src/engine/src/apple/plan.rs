//! From intent to Apple requests: can this device do it, and in how many parts.
//!
//! Judged twice: when the command is accepted, and again when it is about to be sent (a Mac may have been upgraded, a
//! device given away in between).

use super::render::enrollment_profile_identifier;
use crate::error::Error;
use bellwether_apple::command::RawCommand;
use bellwether_apple::family::{Family, Version};
use bellwether_apple::profile::{inspect, refuse_upload};
use bellwether_apple::support::{self, ChannelKind as WireChannel, Target, Unsupported};
use bellwether_certs::cms;
use bellwether_model::intent::{AppSource, InventoryKind, RotatableSecret, WipeScope};
use bellwether_model::{ChannelKind, Intent, Ownership, Platform, capability};
use bellwether_store::records::{Device, Enrollment};

/// How an intent will be carried out.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The requests, in order; one part each.
    pub requests: Vec<String>,
    /// A six-digit PIN must be made.
    pub needs_pin: bool,
    /// A new recovery-lock password must be made.
    pub needs_password: bool,
}

/// Plans an intent for a device, or says in words for an admin why not.
pub(crate) fn plan(
    intent: &Intent,
    device: &Device,
    enrollment: &Enrollment,
    channel: ChannelKind,
) -> Result<Plan, Error> {
    capability::check(Platform::Apple, intent)?;
    let target = target(device, enrollment, channel);
    let mac = target.family == Family::Mac;
    let one =
        |request: &str| Plan { requests: vec![request.to_owned()], needs_pin: false, needs_password: false };
    let plan = match intent {
        Intent::Lock { .. } => Plan { needs_pin: mac, ..one("DeviceLock") },
        Intent::ClearPasscode => one("ClearPasscode"),
        Intent::Wipe(options) => {
            refuse_wiping_personal(device)?;
            if let Some(behavior) = &options.obliteration_behavior
                && !["Default", "DoNotObliterate", "ObliterateWithWarning", "Always"]
                    .contains(&behavior.as_str())
            {
                return Err(Error::Invalid(
                    "obliteration_behavior is Default, DoNotObliterate, ObliterateWithWarning or Always"
                        .into(),
                ));
            }
            debug_assert!(options.scope == WipeScope::Everything, "the capability table refuses the other");
            Plan { needs_pin: mac, ..one("EraseDevice") }
        }
        Intent::Restart { .. } => one("RestartDevice"),
        Intent::ShutDown => one("ShutDownDevice"),
        Intent::RefreshInventory { kinds } => return inventory(kinds, &target),
        Intent::InstallProfile { profile } => {
            check_profile(profile)?;
            one("InstallProfile")
        }
        Intent::RemoveProfile { identifier } => {
            check_text("the profile's identifier", identifier, 1024)?;
            if is_enrollment_profile(identifier) {
                return Err(Error::Invalid(
                    "this is the enrollment profile; removing it ends management: send unenroll".into(),
                ));
            }
            one("RemoveProfile")
        }
        Intent::InstallApp { app } => match app {
            AppSource::Url { url } => {
                if !url.starts_with("https://") || url.len() > 2048 {
                    return Err(Error::Invalid("an app's manifest comes from an https:// address".into()));
                }
                one(if mac { "InstallEnterpriseApplication" } else { "InstallApplication" })
            }
            AppSource::StoreIdentifier { identifier } => {
                check_text("the app's bundle identifier", identifier, 255)?;
                one("InstallApplication")
            }
            AppSource::AppStore { .. } => one("InstallApplication"),
            AppSource::Package { .. } => return Err(no_apple_command(intent)),
        },
        Intent::RemoveApp { identifier } => {
            check_text("the app's bundle identifier", identifier, 255)?;
            one("RemoveApplication")
        }
        Intent::InstallCertificate { certificate, .. } => {
            bellwether_certs::cert::CertInfo::parse(certificate)
                .map_err(|e| Error::Invalid(format!("not a certificate in DER: {e}")))?;
            one("InstallProfile")
        }
        Intent::LostModeOn { message, phone_number, .. } => {
            if message.is_none() && phone_number.is_none() {
                return Err(Error::Invalid("lost mode shows a message or a phone number; give one".into()));
            }
            one("EnableLostMode")
        }
        Intent::LostModeOff => one("DisableLostMode"),
        Intent::Locate => one("DeviceLocation"),
        Intent::PlaySound => one("PlayLostModeSound"),
        Intent::Rename { name } => {
            check_text("the new name", name, 255)?;
            one("Settings")
        }
        Intent::OsUpdate { version: None } => {
            return Err(Error::CannotDo(
                "Apple's update command names what to install, and this server does not look up the newest version \
                 yet; say which version"
                    .into(),
            ));
        }
        Intent::OsUpdate { version: Some(version) } => {
            check_text("the version", version, 64)?;
            one("ScheduleOSUpdate")
        }
        Intent::RotateSecret { secret: RotatableSecret::RecoveryLock } => {
            Plan { needs_password: true, ..one("SetRecoveryLock") }
        }
        Intent::RotateSecret { .. } => {
            return Err(Error::CannotDo(
                "rotating the FileVault key needs the current key or a password in escrow, which this server does not \
                 keep yet"
                    .into(),
            ));
        }
        Intent::RenewIdentity => one("InstallProfile"),
        Intent::Unenroll => one("RemoveProfile"),
        Intent::Raw { payload } => {
            let raw = raw(payload)?;
            if raw.request_type() == "EraseDevice" {
                refuse_wiping_personal(device)?;
            }
            if raw.request_type() == "DeviceConfigured" && enrollment.awaiting_configuration {
                // It waits in Setup Assistant for this word and cannot report before that it is supervised.
                return Ok(one(raw.request_type()));
            }
            match support::check(raw.request_type(), &target) {
                // A request newer than our table is the administrator's own responsibility.
                Ok(()) | Err(Unsupported::UnknownCommand { .. }) => {}
                Err(reason) => return Err(Error::CannotDo(reason.to_string())),
            }
            return Ok(one(raw.request_type()));
        }
        _ => return Err(no_apple_command(intent)),
    };
    for request in &plan.requests {
        support::check(request, &target).map_err(|reason| Error::CannotDo(reason.to_string()))?;
    }
    Ok(plan)
}

/// The capability table refuses these before anybody comes here.
pub(super) fn no_apple_command(intent: &Intent) -> Error {
    Error::CannotDo(format!("Apple has no command for \"{}\"", intent.kind()))
}

/// Whether an admin needs leave to destroy for this raw payload.
pub(crate) fn raw_is_destructive(payload: &[u8]) -> Result<bool, Error> {
    let raw = raw(payload)?;
    // RemoveProfile can remove the enrollment profile.
    Ok(matches!(raw.request_type(), "EraseDevice" | "RemoveProfile"))
}

fn raw(payload: &[u8]) -> Result<RawCommand, Error> {
    RawCommand::from_plist(payload).map_err(|e| Error::Invalid(format!("not a command plist: {e}")))
}

/// AT-32: a person's own device is never wiped whole.
fn refuse_wiping_personal(device: &Device) -> Result<(), Error> {
    if device.ownership == Ownership::Personal {
        return Err(Error::CannotDo(
            "this is somebody's own device and is never wiped whole; unenroll removes the organisation's data".into(),
        ));
    }
    Ok(())
}

fn inventory(kinds: &[InventoryKind], target: &Target) -> Result<Plan, Error> {
    let all = InventoryKind::ALL;
    let asked: Vec<InventoryKind> =
        all.iter().copied().filter(|k| kinds.is_empty() || kinds.contains(k)).collect();
    let mut requests = Vec::new();
    let mut last = None;
    for kind in asked {
        let request = request_for(kind);
        match support::check(request, target) {
            Ok(()) => requests.push(request.to_owned()),
            // "Everything" means what this device has; a kind asked for by name is refused by name.
            Err(_) if kinds.is_empty() => {}
            Err(Unsupported::VersionUnknown { .. } | Unsupported::FamilyUnknown { .. })
                if kinds.len() > 1 => {}
            Err(reason) => last = Some(reason),
        }
    }
    match last {
        Some(reason) => Err(Error::CannotDo(reason.to_string())),
        None if requests.is_empty() => {
            Err(Error::CannotDo("this device answers none of these questions".into()))
        }
        None => Ok(Plan { requests, needs_pin: false, needs_password: false }),
    }
}

fn request_for(kind: InventoryKind) -> &'static str {
    match kind {
        InventoryKind::Device => "DeviceInformation",
        InventoryKind::Security => "SecurityInfo",
        InventoryKind::Apps => "InstalledApplicationList",
        InventoryKind::Certificates => "CertificateList",
        InventoryKind::Profiles => "ProfileList",
    }
}

fn check_profile(profile: &[u8]) -> Result<(), Error> {
    let plain =
        cms::strip_signature(profile).map_err(|e| Error::Invalid(format!("the profile's signature: {e}")))?;
    let summary = inspect(&plain).map_err(|e| Error::Invalid(format!("not a configuration profile: {e}")))?;
    refuse_upload(&summary).map_err(|e| Error::Invalid(e.to_string()))
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), Error> {
    if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("{what} is 1 to {max} printable bytes")));
    }
    Ok(())
}

fn is_enrollment_profile(identifier: &str) -> bool {
    identifier.starts_with(enrollment_profile_identifier())
}

pub(crate) fn family(device: &Device) -> Family {
    device.product.as_deref().or(device.model.as_deref()).map_or(Family::Unknown, Family::from_product_name)
}

fn target(device: &Device, enrollment: &Enrollment, channel: ChannelKind) -> Target {
    Target {
        family: family(device),
        os_version: device.os_version.as_deref().and_then(Version::parse),
        supervised: device.supervised,
        user_enrollment: enrollment.user_enrollment,
        channel: match channel {
            ChannelKind::Device => WireChannel::Device,
            ChannelKind::User => WireChannel::User,
        },
        shared_ipad: None,
        automated_enrollment: None,
        access_rights: Some(bellwether_apple::profile::AccessRights::ALL.0),
    }
}
