//! One-time actions.

use super::document::Xml;
use super::{Error, NodeCommand, Step, device, segment, unusable};
use crate::syncml::Format;

/// The ways to wipe (RemoteWipe CSP). The status says only that the machine took the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wipe {
    /// `doWipe`: the usual reset.
    Reset,
    /// `doWipePersistProvisionedData`.
    KeepProvisioning,
    /// `doWipeProtected`: goes on after power loss; can leave machines unbootable.
    Protected,
    /// `doWipePersistUserData`.
    KeepUserData,
    /// `doWipeCloud`.
    Cloud,
    /// `doWipeCloudPersistUserData`.
    CloudKeepUserData,
    /// `doWipeCloudPersistProvisionedData`.
    CloudKeepProvisioning,
}

/// Wipes the machine.
#[must_use]
pub fn wipe(kind: Wipe) -> Step {
    let node = match kind {
        Wipe::Reset => "doWipe",
        Wipe::KeepProvisioning => "doWipePersistProvisionedData",
        Wipe::Protected => "doWipeProtected",
        Wipe::KeepUserData => "doWipePersistUserData",
        Wipe::Cloud => "doWipeCloud",
        Wipe::CloudKeepUserData => "doWipeCloudPersistUserData",
        Wipe::CloudKeepProvisioning => "doWipeCloudPersistProvisionedData",
    };
    exec(&["RemoteWipe/", node].concat())
}

/// Autopilot reset.
#[must_use]
pub fn autopilot_reset() -> Step {
    exec("RemoteWipe/AutomaticRedeployment/doAutomaticRedeployment")
}

/// Locks the screen. A machine without a PIN answers 405, and most desktops do.
#[must_use]
pub fn lock() -> Step {
    exec("RemoteLock/Lock")
}

/// Restarts within five minutes.
#[must_use]
pub fn reboot() -> Step {
    exec("Reboot/RebootNow")
}

/// Renames the machine; takes effect with its next restart.
///
/// # Errors
/// For a name that is no NetBIOS host name.
pub fn rename(name: &str) -> Result<Step, Error> {
    let fits = (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !fits || name.bytes().all(|b| b.is_ascii_digit()) || name.starts_with('-') || name.ends_with('-') {
        return Err(unusable("name", "1 to 15 letters, digits and hyphens, not digits alone"));
    }
    Ok(NodeCommand::replace("./DevDetail/Ext/Microsoft/DNSComputerName", Format::Chr, name).into())
}

/// Removes the enrollment. The session ends at once and no status comes (DMClient CSP).
///
/// # Errors
/// For a provider id that cannot stand in a LocURI.
pub fn unenroll(provider: &str) -> Result<Step, Error> {
    Ok(NodeCommand::exec(provider_node(provider, "Unenroll")?).into())
}

/// Scans of Microsoft Defender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scan {
    Quick,
    Full,
    /// Restarts the machine.
    Offline,
}

/// Starts a scan (Defender CSP).
#[must_use]
pub fn scan(kind: Scan) -> Step {
    match kind {
        Scan::Quick => {
            NodeCommand::with(crate::syncml::Verb::Exec, device("Defender/Scan"), Format::Chr, "1").into()
        }
        Scan::Full => {
            NodeCommand::with(crate::syncml::Verb::Exec, device("Defender/Scan"), Format::Chr, "2").into()
        }
        Scan::Offline => exec("Defender/OfflineScan"),
    }
}

/// Updates the signatures of Microsoft Defender.
#[must_use]
pub fn update_signatures() -> Step {
    exec("Defender/UpdateSignature")
}

/// New recovery passwords for BitLocker; answers 202 and goes to Entra or AD, never to us (BitLocker CSP).
#[must_use]
pub fn rotate_recovery_passwords(request_id: &str) -> Step {
    let uri = device("BitLocker/RotateRecoveryPasswords");
    NodeCommand::with(crate::syncml::Verb::Exec, uri, Format::Chr, request_id).into()
}

/// Asks how the rotation goes: 0 done, 1 pending, 2 not started, else an error.
#[must_use]
pub fn rotation_status() -> Step {
    NodeCommand::get(device("BitLocker/Status/RotateRecoveryPasswordsStatus")).into()
}

/// A new LAPS password, which goes to Entra or AD, never to us (LAPS CSP).
#[must_use]
pub fn reset_laps_password() -> Step {
    exec("LAPS/Actions/ResetPassword")
}

/// Renews the identity certificate now (CertificateStore CSP).
#[must_use]
pub fn renew_certificate() -> Step {
    exec("CertificateStore/MY/WSTEP/Renew/RenewNow")
}

/// Collects diagnostics and uploads them (DiagnosticLog CSP); `definition` is the `Collection` document.
#[must_use]
pub fn collect_diagnostics(definition: &str) -> Step {
    let uri = "./Vendor/MSFT/DiagnosticLog/DiagnosticArchive/ArchiveDefinition";
    NodeCommand::with(crate::syncml::Verb::Exec, uri, Format::Chr, definition).into()
}

/// The `Collection` document: what helps to see why management does not work, uploaded to `url`.
///
/// # Errors
/// For an id that is no GUID, or an address that is not HTTPS.
pub fn diagnostics_collection(id: &str, url: &str) -> Result<String, Error> {
    if uuid::Uuid::try_parse(id).is_err() {
        return Err(unusable("id", "it is not a GUID"));
    }
    if !url.starts_with("https://") || url.len() > 2048 || url.chars().any(char::is_control) {
        return Err(unusable("url", "it is not an HTTPS address"));
    }
    let mut children = vec![Xml::text("ID", id), Xml::text("SasUrl", url)];
    let gathered = [
        ("RegistryKey", "HKLM\\SOFTWARE\\Microsoft\\PolicyManager"),
        ("RegistryKey", "HKLM\\SOFTWARE\\Policies"),
        ("FoldersFiles", "%ProgramData%\\Microsoft\\DiagnosticLogCSP\\Collectors\\*.etl"),
        ("Command", "%windir%\\system32\\ipconfig.exe /all"),
        ("Events", "Application"),
        ("Events", "System"),
        ("Events", "Microsoft-Windows-DeviceManagement-Enterprise-Diagnostics-Provider/Admin"),
    ];
    children.extend(gathered.map(|(name, what)| Xml::text(name, what)));
    Xml::parent("Collection", children).write()
}

/// The polling schedule: (number, interval in minutes) of its three stages (DMClient CSP, Poll).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// Quick, after enrollment.
    pub first: (u32, u32),
    /// Slower.
    pub second: (u32, u32),
    /// For good; 0 tries with an interval are without end.
    pub remaining: (u32, u32),
}

/// Sets the polling schedule.
///
/// # Errors
/// For a schedule that would leave the machine without polls, or a provider id that cannot stand in a LocURI.
pub fn polling(provider: &str, schedule: &Polling) -> Result<Vec<Step>, Error> {
    if schedule.first.0 == 0 || schedule.first.1 == 0 {
        return Err(unusable("polling", "the first stage needs a number and an interval"));
    }
    [
        ("NumberOfFirstRetries", schedule.first.0),
        ("IntervalForFirstSetOfRetries", schedule.first.1),
        ("NumberOfSecondRetries", schedule.second.0),
        ("IntervalForSecondSetOfRetries", schedule.second.1),
        ("NumberOfRemainingScheduledRetries", schedule.remaining.0),
        ("IntervalForRemainingScheduledRetries", schedule.remaining.1),
    ]
    .into_iter()
    .map(|(node, value)| {
        let uri = provider_node(provider, &["Poll/", node].concat())?;
        Ok(NodeCommand::replace(uri, Format::Int, value.to_string()).into())
    })
    .collect()
}

/// Has every message signed (`MDM-Signature`), so that it is proved behind a proxy as well.
///
/// # Errors
/// For a provider id that cannot stand in a LocURI.
pub fn require_message_signing(provider: &str) -> Result<Step, Error> {
    Ok(NodeCommand::replace(provider_node(provider, "RequireMessageSigning")?, Format::Bool, "true").into())
}

/// Sets the package family name whose push channel wakes the machine (DMClient CSP, Push).
///
/// # Errors
/// For a provider id that cannot stand in a LocURI.
pub fn push_package(provider: &str, family_name: &str) -> Result<Step, Error> {
    Ok(NodeCommand::replace(provider_node(provider, "Push/PFN")?, Format::Chr, family_name).into())
}

pub(super) fn provider_node(provider: &str, node: &str) -> Result<String, Error> {
    Ok([&device("DMClient/Provider/"), &segment("provider", provider)?, "/", node].concat())
}

fn exec(path: &str) -> Step {
    NodeCommand::exec(device(path)).into()
}
