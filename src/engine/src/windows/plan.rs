//! From intent to CSP commands: can this machine do it, and in how many parts.
//!
//! Judged twice, as for Apple: when the command is accepted, with [`placeholder`]s for what is made later, and again
//! when it is about to be sent. The parts must be the same both times.

mod settings;
#[cfg(test)]
mod tests;

pub(crate) use super::judge::{PartOutcome, StepStatus, judge_part, watch_outcome};
pub(crate) use super::raw::raw_is_destructive;

use super::raw;
use crate::error::Error;
use bellwether_certs::cert::CertInfo;
use bellwether_certs::hash::{Digest, hex};
use bellwether_model::intent::{
    AppSource, DefenderAction, InventoryKind, RotatableSecret, WindowsWipe, WipeOptions,
};
use bellwether_model::{ChannelKind, Intent, Ownership, PackageKind, Platform, capability};
use bellwether_windows::csp::{self, Machine, NodeCommand, Refusal, Scope, Step};
use bellwether_windows::syncml::{Command, Verb, writer};

/// What an intent is planned for.
pub(crate) struct Context<'a> {
    /// The provider id under which the machine knows this server.
    pub provider: &'a str,
    /// What is known about the machine.
    pub machine: Machine,
    /// Whose it is.
    pub ownership: Ownership,
    /// The channel that will carry it.
    pub channel: ChannelKind,
    /// What the server adds of its own.
    pub material: Material,
}

/// What is not in the intent: secrets made by the server, addresses, packages.
#[derive(Default)]
pub(crate) struct Material {
    /// Of the local administrator.
    pub password: Option<String>,
    /// The package to install.
    pub package: Option<PackageInfo>,
    /// For a certificate by SCEP.
    pub scep: Option<ScepMaterial>,
    /// Where diagnostics go when the intent names no place.
    pub upload_url: Option<String>,
    /// Names this request to the machine: a GUID.
    pub request_id: String,
}

/// A package of the package store.
pub(crate) struct PackageInfo {
    /// What is in it.
    pub kind: PackageKind,
    /// `{GUID}`, or the package family name.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Hexadecimal.
    pub sha256: String,
    /// Where the machine downloads it.
    pub url: String,
}

/// What a machine needs to enroll by SCEP.
pub(crate) struct ScepMaterial {
    /// The SCEP server.
    pub url: String,
    /// The challenge in clear.
    pub challenge: String,
    /// X.500.
    pub subject: String,
    /// SHA-1 of the CA's certificate, hexadecimal.
    pub ca_sha1: String,
    /// The machine has a certificate under this name.
    pub renews: bool,
}

/// Commands that travel together and have one outcome.
pub(crate) struct PlannedPart {
    /// The last verb and LocURI, or the inventory's name: for people. At most 250 bytes.
    pub request: String,
    /// The commands; the session numbers them.
    pub commands: Vec<Command>,
    /// Good statuses mean "accepted": the outcome follows by alert or by reading `watch`.
    pub awaits: bool,
    /// Nodes to read in later sessions until [`watch_outcome`] knows.
    pub watch: Vec<String>,
}

/// How an intent will be carried out.
pub(crate) struct Plan {
    /// In order.
    pub parts: Vec<PlannedPart>,
    /// A new password must be made and kept.
    pub needs_password: bool,
}

/// Stands for what is made later, when a command is only accepted.
pub(crate) fn placeholder() -> Material {
    Material {
        password: Some("placeholder-0".to_owned()),
        package: Some(PackageInfo {
            kind: PackageKind::Msi,
            product: "{00000000-0000-0000-0000-000000000000}".to_owned(),
            version: "1.0".to_owned(),
            sha256: "0".repeat(64),
            url: "https://placeholder.invalid/package".to_owned(),
        }),
        scep: Some(ScepMaterial {
            url: "https://placeholder.invalid/scep".to_owned(),
            challenge: "placeholder".to_owned(),
            subject: "CN=placeholder".to_owned(),
            ca_sha1: "0".repeat(40),
            renews: false,
        }),
        upload_url: Some("https://placeholder.invalid/upload".to_owned()),
        request_id: "00000000-0000-0000-0000-000000000000".to_owned(),
    }
}

/// Plans an intent for a machine, or says in words for an admin why not.
pub(crate) fn plan(intent: &Intent, cx: &Context<'_>) -> Result<Plan, Error> {
    capability::check(Platform::Windows, intent)?;
    let scope = scope_of(cx.channel);
    let parts = match intent {
        // The lock screen shows no message of ours; locking matters more.
        Intent::Lock { .. } => one(csp::lock()),
        Intent::Restart { .. } => one(csp::reboot()),
        Intent::Wipe(options) => one(wipe(options, cx)?),
        Intent::Rename { name } => one(csp::rename(name)?),
        Intent::Unenroll => one(csp::unenroll(cx.provider)?),
        Intent::RefreshInventory { kinds } => inventory(kinds, cx)?,
        Intent::InstallApp { app: AppSource::Package { arguments, .. } } => {
            vec![install(arguments.as_deref(), cx)?]
        }
        Intent::RemoveApp { identifier } => one(if identifier.starts_with('{') {
            csp::uninstall_msi(identifier)?
        } else {
            csp::uninstall_msix(identifier)?
        }),
        Intent::InstallCertificate { certificate, .. } => {
            CertInfo::parse(certificate)
                .map_err(|e| Error::Invalid(format!("not a certificate in DER: {e}")))?;
            one(csp::trust_root(&hex(&Digest::Sha1.of(certificate)), certificate)?)
        }
        Intent::RemoveCertificate { thumbprint } => {
            let digits: String = thumbprint.chars().filter(|c| !matches!(c, ' ' | ':')).collect();
            one(csp::distrust_root(&digits)?)
        }
        Intent::RequestCertificate { id } => vec![request_certificate(id, scope, cx)?],
        Intent::InstallIdentity { id, pkcs12, password } => {
            one(install_identity(id, scope, pkcs12, password)?)
        }
        Intent::RotateSecret { secret } => vec![rotate(*secret, cx)?],
        Intent::Defender { action } => one(match action {
            DefenderAction::QuickScan => csp::scan(csp::Scan::Quick),
            DefenderAction::FullScan => csp::scan(csp::Scan::Full),
            DefenderAction::OfflineScan => csp::scan(csp::Scan::Offline),
            DefenderAction::UpdateSignatures => csp::update_signatures(),
        }),
        Intent::CollectDiagnostics { upload_url } => {
            let url = upload_url
                .as_ref()
                .or(cx.material.upload_url.as_ref())
                .ok_or_else(|| Error::Internal("diagnostics without an address to go to".into()))?;
            let collection = csp::diagnostics_collection(&cx.material.request_id, url)?;
            one(csp::collect_diagnostics(&collection))
        }
        Intent::RenewIdentity => one(csp::renew_certificate()),
        Intent::CallOften => {
            let schedule = csp::Polling { first: (10, 3), second: (8, 15), remaining: (0, 480) };
            vec![part(csp::polling(cx.provider, &schedule)?)]
        }
        Intent::Raw { payload } => vec![raw_part(payload, cx)?],
        Intent::OsUpdate { .. }
        | Intent::Configure { .. }
        | Intent::IngestAdmx { .. }
        | Intent::EncryptDisk
        | Intent::SetLaps(_)
        | Intent::SetLocalAdmin { .. }
        | Intent::SetWifi { .. }
        | Intent::RemoveWifi { .. }
        | Intent::SetVpn { .. }
        | Intent::RemoveVpn { .. }
        | Intent::SetFirewallRule(_)
        | Intent::RemoveFirewallRule { .. } => settings::parts(intent, scope, cx)?,
        // The capability table refuses these before anybody comes here.
        _ => {
            return Err(Error::CannotDo(format!("Windows has no command for \"{}\"", intent.kind())));
        }
    };
    let parts = parts.into_iter().map(|part| part.finish(cx)).collect::<Result<_, _>>()?;
    Ok(Plan { parts, needs_password: matches!(intent, Intent::SetLocalAdmin { .. }) })
}

/// A part before it is checked against the machine.
struct Draft {
    request: Option<String>,
    steps: Vec<Step>,
    /// Instead of steps: an administrator's own.
    raw: Vec<Command>,
    awaits: bool,
    watch: Vec<Step>,
}

fn part(steps: Vec<Step>) -> Draft {
    Draft { request: None, steps, raw: Vec::new(), awaits: false, watch: Vec::new() }
}

fn one(step: Step) -> Vec<Draft> {
    vec![part(vec![step])]
}

fn watched(steps: Vec<Step>, status: impl IntoIterator<Item = Step>) -> Draft {
    Draft { awaits: true, watch: status.into_iter().take(1).collect(), ..part(steps) }
}

impl Draft {
    fn finish(self, cx: &Context<'_>) -> Result<PlannedPart, Error> {
        for step in &self.steps {
            check(step, cx).map_err(|refusal| Error::CannotDo(refusal.to_string()))?;
        }
        let commands: Vec<Command> =
            if self.raw.is_empty() { self.steps.iter().map(Step::to_command).collect() } else { self.raw };
        for request in raw::requests(&commands) {
            check_scope(raw::node(request), cx.channel)?;
        }
        for command in &commands {
            // Nothing that a session could not write may wait in the queue. The data stays out of the words.
            writer::size(command).map_err(|e| Error::Invalid(format!("this cannot be sent: {e}")))?;
        }
        let request = match (self.request, raw::requests(&commands).last()) {
            (Some(name), _) => name,
            (None, Some(last)) => [last.verb.as_str(), " ", raw::node(last)].concat(),
            (None, None) => return Err(Error::Internal("a part without commands".into())),
        };
        let watch = self.watch.iter().flat_map(Step::commands).map(|command| command.uri.clone()).collect();
        Ok(PlannedPart { request: clip(&request), commands, awaits: self.awaits, watch })
    }
}

/// Against the machine, but not whether somebody is signed in: the channel decides about that.
fn check(step: &Step, cx: &Context<'_>) -> Result<(), Refusal> {
    csp::check(step, &Machine { user_signed_in: true, ..cx.machine.clone() })
}

/// A session is of one scope; the other's commands answer 405 or worse (spec 3.10).
fn check_scope(uri: &str, channel: ChannelKind) -> Result<(), Error> {
    match (Scope::of(&raw::percent_decode(uri)), channel) {
        (Scope::Device, ChannelKind::Device) | (Scope::User, ChannelKind::User) => Ok(()),
        (Scope::User, ChannelKind::Device) => {
            Err(Error::CannotDo(format!("{} is a user's; send it to the user's channel", clip(uri))))
        }
        (Scope::Device, ChannelKind::User) => {
            Err(Error::CannotDo(format!("{} is the machine's; send it to the device's channel", clip(uri))))
        }
    }
}

fn scope_of(channel: ChannelKind) -> Scope {
    match channel {
        ChannelKind::Device => Scope::Device,
        ChannelKind::User => Scope::User,
    }
}

fn wipe(options: &WipeOptions, cx: &Context<'_>) -> Result<Step, Error> {
    refuse_wiping_personal(cx)?;
    if options.return_to_service {
        return Err(Error::CannotDo(
            "return to service is Apple's; on Windows say {\"windows\": \"autopilot-reset\"} or \"keep-provisioning\""
                .into(),
        ));
    }
    if options.preserve_data_plan
        || options.disallow_proximity_setup
        || options.obliteration_behavior.is_some()
    {
        return Err(Error::CannotDo("this wipe has options that only Apple devices understand".into()));
    }
    Ok(match options.windows.unwrap_or(WindowsWipe::Reset) {
        WindowsWipe::Reset => csp::wipe(csp::Wipe::Reset),
        WindowsWipe::KeepProvisioning => csp::wipe(csp::Wipe::KeepProvisioning),
        WindowsWipe::Protected => csp::wipe(csp::Wipe::Protected),
        WindowsWipe::KeepUserData => csp::wipe(csp::Wipe::KeepUserData),
        WindowsWipe::Cloud => csp::wipe(csp::Wipe::Cloud),
        WindowsWipe::CloudKeepUserData => csp::wipe(csp::Wipe::CloudKeepUserData),
        WindowsWipe::CloudKeepProvisioning => csp::wipe(csp::Wipe::CloudKeepProvisioning),
        WindowsWipe::AutopilotReset => csp::autopilot_reset(),
    })
}

/// AT-32: a person's own device is never wiped whole.
fn refuse_wiping_personal(cx: &Context<'_>) -> Result<(), Error> {
    if cx.ownership == Ownership::Personal {
        return Err(Error::CannotDo(
            "this is somebody's own device and is never wiped whole; unenroll removes the organisation's settings"
                .into(),
        ));
    }
    Ok(())
}

fn inventory(kinds: &[InventoryKind], cx: &Context<'_>) -> Result<Vec<Draft>, Error> {
    let mut parts = Vec::new();
    for kind in InventoryKind::ALL.iter().copied().filter(|k| kinds.is_empty() || kinds.contains(k)) {
        let mut steps = questions(kind, cx)?;
        // An old build or a Home edition lacks some nodes; the others are asked all the same.
        steps.retain(|step| check(step, cx).is_ok());
        if !steps.is_empty() {
            let request = Some(["Inventory ", kind.as_str()].concat());
            parts.push(Draft { request, ..part(steps) });
        } else if kinds.len() == 1 {
            return Err(Error::CannotDo(format!("Windows does not report {}", kind.as_str())));
        }
    }
    if parts.is_empty() {
        return Err(Error::CannotDo("this machine answers none of these questions".into()));
    }
    Ok(parts)
}

fn questions(kind: InventoryKind, cx: &Context<'_>) -> Result<Vec<Step>, Error> {
    Ok(match kind {
        InventoryKind::Device => {
            let mut steps = csp::gets(csp::DEVICE_INFORMATION);
            steps.push(csp::hardware_hash());
            steps.extend(csp::enrollment_information(cx.provider)?);
            steps
        }
        InventoryKind::Security => csp::gets(csp::POSTURE),
        InventoryKind::Apps => csp::software()?,
        InventoryKind::Certificates => vec![csp::trusted_roots()],
        InventoryKind::Profiles => Vec::new(),
    })
}

fn install(arguments: Option<&str>, cx: &Context<'_>) -> Result<Draft, Error> {
    let package = cx.material.package.as_ref();
    let package = package.ok_or_else(|| Error::CannotDo("the package is no longer in the store".into()))?;
    match package.kind {
        PackageKind::Msi => {
            let arguments = arguments.unwrap_or("/quiet");
            if arguments.len() > 1024 || arguments.chars().any(char::is_control) {
                return Err(Error::Invalid("arguments are at most 1024 printable bytes".into()));
            }
            let steps = csp::install_msi(&csp::Msi {
                product: package.product.clone(),
                version: package.version.clone(),
                url: package.url.clone(),
                sha256: package.sha256.clone(),
                arguments: arguments.to_owned(),
                timeout: 60,
                retries: 3,
                interval: 5,
            })?;
            Ok(watched(steps, csp::msi_status(&package.product)?))
        }
        PackageKind::Msix if arguments.is_some() => {
            Err(Error::Invalid("an MSIX package takes no arguments; leave them out".into()))
        }
        PackageKind::Msix => Ok(watched(
            csp::install_msix(&package.product, &package.url)?,
            [csp::msix_status(&package.product)?],
        )),
    }
}

fn request_certificate(id: &str, scope: Scope, cx: &Context<'_>) -> Result<Draft, Error> {
    let material = cx.material.scep.as_ref();
    let material = material.ok_or_else(|| Error::Internal("a certificate without what SCEP needs".into()))?;
    let steps = csp::scep(&csp::Scep {
        id: id.to_owned(),
        scope,
        urls: vec![material.url.clone()],
        challenge: material.challenge.clone(),
        // Client authentication.
        eku: vec!["1.3.6.1.5.5.7.3.2".to_owned()],
        key_usage: 0xA0,
        subject: material.subject.clone(),
        alternative_names: Vec::new(),
        key_protection: 2,
        key_length: 2048,
        ca_sha1: material.ca_sha1.clone(),
        renews: material.renews,
    })?;
    Ok(Draft { awaits: true, watch: csp::scep_status(id, scope)?, ..part(steps) })
}

fn install_identity(id: &str, scope: Scope, pkcs12: &[u8], password: &str) -> Result<Step, Error> {
    // A PKCS#12 file is one SEQUENCE (RFC 7292, 4). Whether the password opens it only the machine finds out.
    if pkcs12.first() != Some(&0x30) || !(64..=64 * 1024).contains(&pkcs12.len()) {
        return Err(Error::Invalid("pkcs12 is a PKCS#12 file of at most 64 KiB".into()));
    }
    if password.len() > 256 || password.chars().any(char::is_control) {
        return Err(Error::Invalid("the file's password is at most 256 printable bytes".into()));
    }
    Ok(csp::pfx(id, scope, pkcs12, password)?)
}

fn rotate(secret: RotatableSecret, cx: &Context<'_>) -> Result<Draft, Error> {
    match secret {
        RotatableSecret::DiskRecoveryKey => Ok(watched(
            vec![csp::rotate_recovery_passwords(&cx.material.request_id)],
            [csp::rotation_status()],
        )),
        RotatableSecret::LocalAdminPassword => Ok(part(vec![csp::reset_laps_password()])),
        RotatableSecret::RecoveryLock => {
            Err(Error::CannotDo("the recovery lock exists on Apple silicon Macs only".into()))
        }
    }
}

fn raw_part(payload: &[u8], cx: &Context<'_>) -> Result<Draft, Error> {
    let commands = raw::commands(payload)?;
    for request in raw::requests(&commands) {
        if raw::wipes(request) {
            refuse_wiping_personal(cx)?;
        }
        let command =
            NodeCommand { verb: request.verb, uri: raw::node(request).to_owned(), format: None, data: None };
        // What our table does not have is the administrator's own responsibility.
        if let Err(reason @ (Refusal::Build { .. } | Refusal::Edition { .. })) = check(&command.into(), cx) {
            return Err(Error::CannotDo(reason.to_string()));
        }
    }
    if commands.iter().any(|command| matches!(command, Command::Group(group) if atomic_get(group))) {
        return Err(Error::Invalid("an Atomic holds no Get".into()));
    }
    Ok(Draft { raw: commands, ..part(Vec::new()) })
}

fn atomic_get(group: &bellwether_windows::syncml::Group) -> bool {
    use bellwether_windows::syncml::GroupKind;
    match group.kind {
        GroupKind::Atomic => raw::requests(&group.commands).iter().any(|request| request.verb == Verb::Get),
        GroupKind::Sequence => {
            group.commands.iter().any(|command| matches!(command, Command::Group(inner) if atomic_get(inner)))
        }
    }
}

impl From<csp::Error> for Error {
    fn from(error: csp::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// For the store's column.
fn clip(text: &str) -> String {
    text.get(..text.floor_char_boundary(250)).unwrap_or_default().to_owned()
}
