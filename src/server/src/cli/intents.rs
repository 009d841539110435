//! Intents as words of the command line.

use bellwether_model::Intent;
use bellwether_model::intent::{AppSource, InventoryKind, RotatableSecret, WipeOptions, WipeScope};
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
        #[arg(long, conflicts_with_all = ["identifier", "manifest"], required_unless_present_any = ["identifier", "manifest"])]
        app_store: Option<u64>,
        /// Bundle id or package name of a store app.
        #[arg(long, conflicts_with = "manifest")]
        identifier: Option<String>,
        /// HTTPS URL of a manifest or package.
        #[arg(long)]
        manifest: Option<String>,
    },
    /// Remove a managed app.
    RemoveApp {
        /// Bundle id or package name.
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
    /// The platform's own words.
    Raw {
        /// Apple: a command plist, whole or only its Command dictionary.
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
            } => Intent::Wipe(WipeOptions {
                scope: if work_data { WipeScope::WorkData } else { WipeScope::Everything },
                preserve_data_plan,
                disallow_proximity_setup,
                obliteration_behavior,
                return_to_service,
            }),
            Self::Restart { notify_user } => Intent::Restart { notify_user },
            Self::ShutDown => Intent::ShutDown,
            Self::RefreshInventory { kinds } => Intent::RefreshInventory { kinds },
            Self::InstallProfile { file } => Intent::InstallProfile { profile: read(&file)? },
            Self::RemoveProfile { identifier } => Intent::RemoveProfile { identifier },
            Self::InstallApp { app_store, identifier, manifest } => Intent::InstallApp {
                app: match (app_store, identifier, manifest) {
                    (Some(id), ..) => AppSource::AppStore { id },
                    (None, Some(identifier), _) => AppSource::StoreIdentifier { identifier },
                    (None, None, url) => AppSource::Url { url: url.unwrap_or_default() },
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
            Self::Raw { file } => Intent::Raw { payload: read(&file)? },
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IntentError> {
    std::fs::read(path)
        .map_err(|e| IntentError::File { path: path.display().to_string(), reason: e.to_string() })
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
