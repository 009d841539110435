//! Intents as words of the command line.

use bellwether_model::Intent;
use bellwether_model::PackageId;
use bellwether_model::intent::{
    AppSource, DefenderAction, FirewallRule, InventoryKind, Laps, RotatableSecret, WindowsWipe, WipeOptions,
    WipeScope,
};
use clap::Subcommand;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum IntentArgs {
    /// Lock the screen.
    Lock {
        /// Shown on the lock screen.
        #[arg(long)]
        message: Option<String>,
        /// Shown on the lock screen.
        #[arg(long)]
        phone: Option<String>,
    },
    /// Remove the passcode, so that the user sets a new one.
    ClearPasscode,
    /// Erase the device.
    Wipe {
        /// Only what the organisation put there.
        #[arg(long)]
        work_data: bool,
        /// Keep the eSIM's data plan (iPhone, iPad).
        #[arg(long)]
        preserve_data_plan: bool,
        /// Skip the proximity set-up afterwards (iPhone, iPad).
        #[arg(long)]
        disallow_proximity_setup: bool,
        /// Mac: Default, DoNotObliterate, ObliterateWithWarning or Always.
        #[arg(long)]
        obliteration_behavior: Option<String>,
        /// Come back under management by itself.
        #[arg(long)]
        return_to_service: bool,
        /// Windows: reset, keep-provisioning, protected, keep-user-data, cloud, cloud-keep-user-data,
        /// cloud-keep-provisioning or autopilot-reset.
        #[arg(long)]
        windows: Option<WindowsWipe>,
    },
    /// Restart.
    Restart {
        /// Let the user say when (Mac).
        #[arg(long)]
        notify_user: bool,
    },
    /// Power off.
    ShutDown,
    /// Report facts again.
    RefreshInventory {
        /// device, security, apps, certificates, profiles; more than once. All without it.
        #[arg(long = "kind")]
        kinds: Vec<InventoryKind>,
    },
    /// Install a configuration profile.
    InstallProfile {
        /// The .mobileconfig, signed or not.
        #[arg(long)]
        file: PathBuf,
    },
    /// Remove a configuration profile.
    RemoveProfile {
        /// Its PayloadIdentifier.
        identifier: String,
    },
    /// Install an app.
    InstallApp {
        /// Number in Apple's App Store.
        #[arg(long, conflicts_with_all = ["identifier", "manifest", "package"], required_unless_present_any = ["identifier", "manifest", "package"])]
        app_store: Option<u64>,
        /// Bundle id or package name of a store app.
        #[arg(long, conflicts_with_all = ["manifest", "package"])]
        identifier: Option<String>,
        /// HTTPS URL of a manifest or package.
        #[arg(long, conflicts_with = "package")]
        manifest: Option<String>,
        /// Id of a package of the package store (Windows).
        #[arg(long)]
        package: Option<PackageId>,
        /// Arguments of the package's installer.
        #[arg(long, requires = "package")]
        arguments: Option<String>,
    },
    /// Remove a managed app.
    RemoveApp {
        /// Bundle id, package name, or the {product code} of an MSI.
        identifier: String,
    },
    /// Trust a certificate.
    InstallCertificate {
        /// PEM or DER.
        #[arg(long)]
        file: PathBuf,
        /// Shown in the list of profiles.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lock the device to a message and make it findable.
    LostModeOn {
        /// Shown on the lock screen.
        #[arg(long)]
        message: Option<String>,
        /// Shown on the lock screen.
        #[arg(long)]
        phone: Option<String>,
        /// Shown below the message.
        #[arg(long)]
        footnote: Option<String>,
    },
    /// Leave lost mode.
    LostModeOff,
    /// Report the place (lost mode only).
    Locate,
    /// Make a noise (lost mode only).
    PlaySound,
    /// Give the device another name.
    Rename {
        /// The new name.
        name: String,
    },
    /// Show a text to the user.
    Message {
        /// The text.
        text: String,
    },
    /// Update the operating system.
    OsUpdate {
        /// The version wanted; without it the newest that the device may take.
        #[arg(long = "to")]
        version: Option<String>,
    },
    /// Replace a secret that the server keeps.
    RotateSecret {
        /// recovery-lock, disk-recovery-key, local-admin-password.
        secret: RotatableSecret,
    },
    /// Replace the device's own certificate now; the server does it by itself in time.
    RenewIdentity,
    /// Leave management; the device keeps its user's data.
    Unenroll,
    /// Microsoft Defender: quick-scan, full-scan, offline-scan, update-signatures.
    Defender {
        /// What.
        action: DefenderAction,
    },
    /// Windows: set policies.
    Configure {
        /// A JSON list of {"area", "name", "value"}, as in the API.
        #[arg(long)]
        file: PathBuf,
        /// Send them also when the PC has confirmed the same before.
        #[arg(long)]
        force: bool,
    },
    /// Windows: bring an ADMX file.
    IngestAdmx {
        /// The app that it is about.
        #[arg(long)]
        app: String,
        /// Names the file; its file name without this.
        #[arg(long)]
        id: Option<String>,
        /// The .admx.
        #[arg(long)]
        file: PathBuf,
    },
    /// Windows: encrypt disks with BitLocker.
    EncryptDisk,
    /// Windows: rotate the local administrator's password by LAPS.
    SetLaps {
        /// 0 nowhere, 1 Entra ID, 2 Active Directory.
        #[arg(long)]
        directory: u8,
        /// Days.
        #[arg(long, default_value_t = 30)]
        age_days: u32,
        /// Characters.
        #[arg(long, default_value_t = 20)]
        length: u32,
        /// The account, when it is not the built-in one.
        #[arg(long)]
        account: Option<String>,
    },
    /// Windows: make a local administrator's account.
    SetLocalAdmin {
        /// Its name.
        name: String,
    },
    /// Add a Wi-Fi network.
    SetWifi {
        /// Its name.
        ssid: String,
        /// A file with the passphrase; an open network without it.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
        /// It does not tell its name.
        #[arg(long)]
        hidden: bool,
        /// Windows: a WLANProfile document instead.
        #[arg(long, conflicts_with_all = ["passphrase_file", "hidden"])]
        profile: Option<PathBuf>,
    },
    /// Forget a Wi-Fi network.
    RemoveWifi {
        /// Its name.
        ssid: String,
    },
    /// Add a VPN connection.
    SetVpn {
        /// Its name.
        name: String,
        /// Windows: a VPNProfile document.
        #[arg(long)]
        profile: PathBuf,
    },
    /// Remove a VPN connection.
    RemoveVpn {
        /// Its name.
        name: String,
    },
    /// Windows: set a rule of the firewall.
    SetFirewallRule {
        /// Its id; the same again replaces it.
        id: String,
        /// Shown to people; the id without it.
        #[arg(long)]
        name: Option<String>,
        /// A program's path.
        #[arg(long)]
        program: Option<String>,
        /// 6 is TCP, 17 UDP.
        #[arg(long)]
        protocol: Option<u8>,
        /// 80,443,8000-8010.
        #[arg(long)]
        local_ports: Option<String>,
        /// The same for the other end.
        #[arg(long)]
        remote_ports: Option<String>,
        /// Addresses of the other end.
        #[arg(long)]
        remote_addresses: Option<String>,
        /// For connections that come in.
        #[arg(long)]
        inbound: bool,
        /// Allow instead of block.
        #[arg(long)]
        allow: bool,
        /// 1 domain, 2 private, 4 public, or a sum.
        #[arg(long, default_value_t = 7)]
        profiles: u8,
    },
    /// Windows: remove a rule of the firewall.
    RemoveFirewallRule {
        /// Its id.
        id: String,
    },
    /// Stop trusting an installed certificate.
    RemoveCertificate {
        /// SHA-1, hex.
        thumbprint: String,
    },
    /// Get a certificate for the device from the site's own CA.
    RequestCertificate {
        /// Names it on the device.
        id: String,
    },
    /// Install a key with its certificate.
    InstallIdentity {
        /// Names it on the device.
        id: String,
        /// The .p12 or .pfx.
        #[arg(long)]
        file: PathBuf,
        /// A file with its password.
        #[arg(long)]
        password_file: PathBuf,
    },
    /// Windows: collect diagnostics.
    CollectDiagnostics {
        /// File with the HTTPS address where the PC PUTs the archive: often a secret, so not an argument. Without it this
        /// server takes the archive ("command download").
        #[arg(long)]
        upload_url_file: Option<PathBuf>,
    },
    /// Call often for a short while again.
    CallOften,
    /// The platform's own words.
    Raw {
        /// Apple: a command plist, whole or only its Command dictionary. Windows: SyncML commands.
        #[arg(long)]
        file: PathBuf,
    },
}

/// A file that an intent needs and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// Reading.
    #[error("cannot read {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Not a list of settings.
    #[error("{path} is no list of settings: {reason}")]
    Settings {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Not a certificate.
    #[error("{path} holds not exactly one certificate (PEM or DER)")]
    Certificate {
        /// Which.
        path: String,
    },
}

impl IntentArgs {
    /// Reads the files that it names.
    pub fn into_intent(self) -> Result<Intent, IntentError> {
        Ok(match self {
            Self::Lock { message, phone } => Intent::Lock { message, phone_number: phone },
            Self::ClearPasscode => Intent::ClearPasscode,
            Self::Wipe {
                work_data,
                preserve_data_plan,
                disallow_proximity_setup,
                obliteration_behavior,
                return_to_service,
                windows,
            } => Intent::Wipe(WipeOptions {
                scope: if work_data { WipeScope::WorkData } else { WipeScope::Everything },
                preserve_data_plan,
                disallow_proximity_setup,
                obliteration_behavior,
                return_to_service,
                windows,
            }),
            Self::Restart { notify_user } => Intent::Restart { notify_user },
            Self::ShutDown => Intent::ShutDown,
            Self::RefreshInventory { kinds } => Intent::RefreshInventory { kinds },
            Self::InstallProfile { file } => Intent::InstallProfile { profile: read(&file)? },
            Self::RemoveProfile { identifier } => Intent::RemoveProfile { identifier },
            Self::InstallApp { app_store, identifier, manifest, package, arguments } => Intent::InstallApp {
                app: match (app_store, identifier, package, manifest) {
                    (Some(id), ..) => AppSource::AppStore { id },
                    (None, Some(identifier), ..) => AppSource::StoreIdentifier { identifier },
                    (None, None, Some(id), _) => AppSource::Package { id, arguments },
                    (None, None, None, url) => AppSource::Url { url: url.unwrap_or_default() },
                },
            },
            Self::RemoveApp { identifier } => Intent::RemoveApp { identifier },
            Self::InstallCertificate { file, name } => {
                Intent::InstallCertificate { certificate: certificate(&file)?, name }
            }
            Self::LostModeOn { message, phone, footnote } => {
                Intent::LostModeOn { message, phone_number: phone, footnote }
            }
            Self::LostModeOff => Intent::LostModeOff,
            Self::Locate => Intent::Locate,
            Self::PlaySound => Intent::PlaySound,
            Self::Rename { name } => Intent::Rename { name },
            Self::Message { text } => Intent::Message { text },
            Self::OsUpdate { version } => Intent::OsUpdate { version },
            Self::RotateSecret { secret } => Intent::RotateSecret { secret },
            Self::RenewIdentity => Intent::RenewIdentity,
            Self::Unenroll => Intent::Unenroll,
            Self::Defender { action } => Intent::Defender { action },
            Self::Configure { file, force } => {
                let settings = serde_json::from_slice(&read(&file)?).map_err(|e| IntentError::Settings {
                    path: file.display().to_string(),
                    reason: e.to_string(),
                })?;
                Intent::Configure { settings, force }
            }
            Self::IngestAdmx { app, id, file } => {
                let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                Intent::IngestAdmx { app, file_id: id.or(stem).unwrap_or_default(), admx: text(&file)? }
            }
            Self::EncryptDisk => Intent::EncryptDisk,
            Self::SetLaps { directory, age_days, length, account } => {
                Intent::SetLaps(Laps { directory, age_days, length, account })
            }
            Self::SetLocalAdmin { name } => Intent::SetLocalAdmin { name },
            Self::SetWifi { ssid, passphrase_file, hidden, profile } => Intent::SetWifi {
                ssid,
                passphrase: passphrase_file.map(|file| line(&file)).transpose()?,
                hidden,
                profile: profile.map(|file| text(&file)).transpose()?,
            },
            Self::RemoveWifi { ssid } => Intent::RemoveWifi { ssid },
            Self::SetVpn { name, profile } => Intent::SetVpn { name, profile: text(&profile)? },
            Self::RemoveVpn { name } => Intent::RemoveVpn { name },
            Self::SetFirewallRule {
                id,
                name,
                program,
                protocol,
                local_ports,
                remote_ports,
                remote_addresses,
                inbound,
                allow,
                profiles,
            } => Intent::SetFirewallRule(FirewallRule {
                name: name.unwrap_or_else(|| id.clone()),
                id,
                program,
                protocol,
                local_ports,
                remote_ports,
                remote_addresses,
                inbound,
                allow,
                profiles,
            }),
            Self::RemoveFirewallRule { id } => Intent::RemoveFirewallRule { id },
            Self::RemoveCertificate { thumbprint } => Intent::RemoveCertificate { thumbprint },
            Self::RequestCertificate { id } => Intent::RequestCertificate { id },
            Self::InstallIdentity { id, file, password_file } => {
                Intent::InstallIdentity { id, pkcs12: read(&file)?, password: line(&password_file)? }
            }
            Self::CollectDiagnostics { upload_url_file } => {
                Intent::CollectDiagnostics { upload_url: upload_url_file.as_deref().map(line).transpose()? }
            }
            Self::CallOften => Intent::CallOften,
            Self::Raw { file } => Intent::Raw { payload: read(&file)? },
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IntentError> {
    std::fs::read(path)
        .map_err(|e| IntentError::File { path: path.display().to_string(), reason: e.to_string() })
}

fn text(path: &Path) -> Result<String, IntentError> {
    String::from_utf8(read(path)?).map_err(|_| IntentError::File {
        path: path.display().to_string(),
        reason: "it is not UTF-8 text".to_owned(),
    })
}

/// A secret in a file, without the line's end.
fn line(path: &Path) -> Result<String, IntentError> {
    Ok(text(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn certificate(path: &Path) -> Result<Vec<u8>, IntentError> {
    let bytes = read(path)?;
    let wrong = || IntentError::Certificate { path: path.display().to_string() };
    let der = match bellwether_certs::cert::pem_to_ders(&bytes) {
        Ok(ders) => <[Vec<u8>; 1]>::try_from(ders).map(|[only]| only).map_err(|_| wrong())?,
        Err(_) => bytes,
    };
    bellwether_certs::cert::CertInfo::parse(&der).map_err(|_| wrong())?;
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    #[test]
    fn every_intent_has_its_word() {
        let command = IntentArgs::augment_subcommands(Command::new("x"));
        let words: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        assert_eq!(words, Intent::KINDS);
    }

    #[test]
    fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.mobileconfig");
        std::fs::write(&file, b"profile").unwrap();
        let intent = IntentArgs::InstallProfile { file: file.clone() }.into_intent().unwrap();
        assert_eq!(intent, Intent::InstallProfile { profile: b"profile".to_vec() });
        assert!(IntentArgs::InstallCertificate { file, name: None }.into_intent().is_err());
        assert!(IntentArgs::Raw { file: dir.path().join("absent") }.into_intent().is_err());
    }
}
