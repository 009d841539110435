//! A device between two runs: a JSON file that its owner alone can read.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::KeyPair;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::{AppleDevice, Identity, InstalledProfile, Inventory, Profile};
use crate::files;
use crate::{Error, Family, Http, Result};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    family: String,
    udid: String,
    serial: String,
    os_version: String,
    name: String,
    supervised: bool,
    passcode: bool,
    push_token: String,
    push_magic: String,
    unlock_token: String,
    bootstrap_token: Option<String>,
    key: Option<String>,
    certificate: Option<String>,
    enrollment: Option<String>,
    profiles: Vec<SavedProfile>,
}

#[derive(Serialize, Deserialize)]
struct SavedProfile {
    identifier: String,
    uuid: String,
    display_name: String,
    version: i64,
    payloads: Vec<(String, String, String)>,
    signed: bool,
    user: Option<String>,
}

impl AppleDevice {
    /// Writes the device to a file of mode 0600: it holds the private key.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let key = self.identity.as_ref().map(|identity| identity.key.to_pkcs8_pem()).transpose()?;
        let saved = Saved {
            version: 1,
            family: family_word(self.hardware.family).to_owned(),
            udid: self.hardware.udid.clone(),
            serial: self.hardware.serial.clone(),
            os_version: self.hardware.os_version.clone(),
            name: self.inventory.name.clone(),
            supervised: self.hardware.supervised,
            passcode: self.inventory.passcode,
            push_token: STANDARD.encode(&self.tokens.push),
            push_magic: self.tokens.magic.clone(),
            unlock_token: STANDARD.encode(&self.tokens.unlock),
            bootstrap_token: self.tokens.bootstrap.as_ref().map(|token| STANDARD.encode(token)),
            key: key.map(|pem| String::from_utf8_lossy(pem.expose_secret()).into_owned()),
            certificate: self.identity.as_ref().map(|identity| STANDARD.encode(&identity.cert_der)),
            enrollment: self.enrollment.as_ref().map(|profile| STANDARD.encode(&profile.plist)),
            profiles: self.inventory.profiles.values().cloned().map(SavedProfile::from).collect(),
        };
        let json = serde_json::to_vec_pretty(&saved).map_err(|error| bad(path, &error.to_string()))?;
        files::write_private(path, &json)
    }

    /// Reads a device from a file that [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or is none of ours.
    pub fn load(path: &Path, http: Http) -> Result<Self> {
        let json = files::read(path)?;
        let saved: Saved = serde_json::from_slice(&json).map_err(|error| bad(path, &error.to_string()))?;
        if saved.version != 1 {
            return Err(bad(path, "written by another version of this program"));
        }
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| bad(path, "not base64"));
        let family = parse_family(&saved.family).ok_or_else(|| bad(path, "unknown family"))?;
        let mut device = Self::builder(family, http)
            .udid(saved.udid)
            .serial(saved.serial)
            .os_version(saved.os_version)
            .name(saved.name)
            .supervised(saved.supervised)
            .build()?;
        device.inventory.passcode = saved.passcode;
        device.tokens.push = bytes(&saved.push_token)?;
        device.tokens.magic = saved.push_magic;
        device.tokens.unlock = bytes(&saved.unlock_token)?;
        device.tokens.bootstrap = saved.bootstrap_token.as_deref().map(bytes).transpose()?;
        if let (Some(key), Some(certificate)) = (&saved.key, &saved.certificate) {
            let key = KeyPair::from_pem(key.as_bytes())?;
            device.set_identity(Identity { key, cert_der: bytes(certificate)? })?;
        }
        if let Some(profile) = &saved.enrollment {
            device.install_enrollment(Profile::read(&bytes(profile)?)?);
        }
        restore(&mut device.inventory, saved.profiles);
        Ok(device)
    }
}

fn parse_family(word: &str) -> Option<Family> {
    [Family::Iphone, Family::Ipad, Family::Mac]
        .into_iter()
        .find(|family| family_word(*family).eq_ignore_ascii_case(word))
}

pub(super) fn family_word(family: Family) -> &'static str {
    match family {
        Family::Mac => "mac",
        Family::Ipad => "ipad",
        _ => "iphone",
    }
}

fn restore(inventory: &mut Inventory, profiles: Vec<SavedProfile>) {
    for saved in profiles {
        let SavedProfile { identifier, uuid, display_name, version, payloads, signed, user } = saved;
        let profile = InstalledProfile { identifier, uuid, display_name, version, payloads, signed, user };
        inventory.profiles.insert(profile.identifier.clone(), profile);
    }
}

impl From<InstalledProfile> for SavedProfile {
    fn from(profile: InstalledProfile) -> Self {
        let InstalledProfile { identifier, uuid, display_name, version, payloads, signed, user } = profile;
        Self { identifier, uuid, display_name, version, payloads, signed, user }
    }
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::File { path: path.display().to_string(), reason: reason.to_owned() }
}
