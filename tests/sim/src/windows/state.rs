//! A PC between two runs: a JSON file that its owner alone can read.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::KeyPair;
use bellwether_windows::enrollment::EnrollmentType;
use bellwether_windows::syncml::{Alert, Format, Item};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::machine::{Account, Certificate};
use super::{Hardware, WindowsPc, WipeFate};
use crate::files;
use crate::{Error, Http, Identity, Result};

/// The word for a PC where Apple devices say `mac`.
pub(crate) const FAMILY: &str = "pc";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    family: String,
    name: String,
    next_name: Option<String>,
    hardware: SavedHardware,
    wbxml: bool,
    sign_messages: bool,
    user_signed_in: bool,
    pin: bool,
    channel_uri: String,
    locks: u32,
    reboots: u32,
    wipes: u32,
    executed: BTreeMap<String, u32>,
    sessions: u32,
    leaving: bool,
    identity: Option<SavedIdentity>,
    old_identity: Option<SavedIdentity>,
    enrollment: Option<SavedEnrollment>,
    nodes: Vec<(String, Format, String)>,
    certificates: Vec<(String, String, String)>,
    alerts: Vec<(u16, Vec<Item>)>,
}

#[derive(Serialize, Deserialize)]
struct SavedHardware {
    serial: String,
    device_id: String,
    hw_dev_id: String,
    os_version: String,
    edition: u32,
    manufacturer: String,
    model: String,
    mac: String,
    hash: String,
    /// `EnrollmentType` is `Device`.
    device: bool,
}

#[derive(Serialize, Deserialize)]
struct SavedIdentity {
    key: String,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
struct SavedEnrollment {
    document: String,
    enrollment_url: String,
    nonce: String,
    /// A renewal can have changed it.
    root: Option<String>,
}

impl WindowsPc {
    /// Whether a file that [`Self::save`] or an Apple device wrote holds a PC.
    #[must_use]
    pub fn is_saved_in(path: &Path) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            family: String,
        }
        let kind = files::read(path).ok().and_then(|json| serde_json::from_slice::<Kind>(&json).ok());
        kind.is_some_and(|kind| kind.family == FAMILY)
    }

    /// Writes the machine to a file of mode 0600: it holds the private key and the account's passwords. Downloads
    /// that are under way are lost.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let machine = self.shared.lock();
        let state = &machine.state;
        let enrollment = machine.enrollment.as_ref().map(|account| SavedEnrollment {
            document: STANDARD.encode(&account.document),
            enrollment_url: account.enrollment_url.clone(),
            nonce: STANDARD.encode(&account.nonce),
            root: account.root.as_ref().map(|der| STANDARD.encode(der)),
        });
        let saved = Saved {
            version: 1,
            family: FAMILY.to_owned(),
            name: state.name.clone(),
            next_name: state.next_name.clone(),
            hardware: SavedHardware::from(&machine.hardware),
            wbxml: self.wbxml,
            sign_messages: self.sign,
            user_signed_in: state.user_signed_in,
            pin: state.has_pin,
            channel_uri: state.channel_uri.clone(),
            locks: state.locks,
            reboots: state.reboots,
            wipes: machine.wipes,
            executed: state.executed.clone(),
            sessions: machine.sessions,
            leaving: machine.leaving,
            identity: machine.identity.as_ref().map(SavedIdentity::write).transpose()?,
            old_identity: machine.old_identity.as_ref().map(SavedIdentity::write).transpose()?,
            enrollment,
            nodes: state
                .tree
                .iter()
                .map(|node| (node.uri.clone(), node.format.clone(), node.value.clone()))
                .collect(),
            certificates: state
                .certificates
                .iter()
                .map(|cert| (cert.kind.to_owned(), cert.id.clone(), STANDARD.encode(&cert.cert_der)))
                .collect(),
            alerts: machine.alerts.iter().map(|alert| (alert.code, alert.items.clone())).collect(),
        };
        let json = serde_json::to_vec_pretty(&saved).map_err(|error| bad(path, &error.to_string()))?;
        files::write_private(path, &json)
    }

    /// Reads a machine from a file that [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or is none of ours.
    pub fn load(path: &Path, http: Http) -> Result<Self> {
        let json = files::read(path)?;
        let saved: Saved = serde_json::from_slice(&json).map_err(|error| bad(path, &error.to_string()))?;
        if saved.version != 1 || saved.family != FAMILY {
            return Err(bad(path, "written by another version of this program, or no PC"));
        }
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| bad(path, "not base64"));
        let pc = Self::builder(http)
            .name(saved.name)
            .wbxml(saved.wbxml)
            .sign_messages(saved.sign_messages)
            .user_signed_in(saved.user_signed_in)
            .pin(saved.pin)
            .wipe_fate(WipeFate::Done)
            .channel_uri(saved.channel_uri)
            .build()?;
        let shared = pc.shared.clone();
        let machine = &mut *shared.lock();
        machine.hardware = saved.hardware.into();
        machine.identity = saved.identity.map(SavedIdentity::read).transpose()?;
        machine.old_identity = saved.old_identity.map(SavedIdentity::read).transpose()?;
        if let Some(enrollment) = saved.enrollment {
            let (mut account, _) = Account::read(&bytes(&enrollment.document)?, &enrollment.enrollment_url)?;
            account.nonce = bytes(&enrollment.nonce)?;
            account.root = enrollment.root.as_deref().map(bytes).transpose()?;
            machine.enrollment = Some(account);
        }
        machine.sessions = saved.sessions;
        machine.leaving = saved.leaving;
        machine.wipes = saved.wipes;
        machine.alerts =
            saved.alerts.into_iter().map(|(code, items)| Alert { code, items, ..Alert::default() }).collect();
        let state = &mut machine.state;
        state.next_name = saved.next_name;
        (state.locks, state.reboots, state.executed) = (saved.locks, saved.reboots, saved.executed);
        for (uri, format, value) in saved.nodes {
            state.tree.set(&uri, format, value);
        }
        for (kind, id, cert) in saved.certificates {
            let kind = ["Root", "CA", "SCEP", "PFX"].into_iter().find(|known| *known == kind);
            let kind = kind.ok_or_else(|| bad(path, "an unknown kind of certificate"))?;
            state.certificates.push(Certificate { kind, id, cert_der: bytes(&cert)? });
        }
        Ok(pc)
    }
}

impl SavedIdentity {
    fn write(identity: &Identity) -> Result<Self> {
        let pem = identity.key.to_pkcs8_pem()?;
        Ok(Self {
            key: String::from_utf8_lossy(pem.expose_secret()).into_owned(),
            certificate: STANDARD.encode(&identity.cert_der),
        })
    }

    fn read(self) -> Result<Identity> {
        let cert_der = STANDARD
            .decode(&self.certificate)
            .map_err(|_| Error::Usage("the certificate in the state file is not base64".to_owned()))?;
        Ok(Identity { key: KeyPair::from_pem(self.key.as_bytes())?, cert_der })
    }
}

impl From<&Hardware> for SavedHardware {
    fn from(hardware: &Hardware) -> Self {
        let Hardware {
            serial,
            device_id,
            hw_dev_id,
            os_version,
            edition,
            manufacturer,
            model,
            mac,
            hash,
            enrollment_type,
        } = hardware.clone();
        let device = enrollment_type == EnrollmentType::Device;
        Self { serial, device_id, hw_dev_id, os_version, edition, manufacturer, model, mac, hash, device }
    }
}

impl From<SavedHardware> for Hardware {
    fn from(saved: SavedHardware) -> Self {
        let SavedHardware {
            serial,
            device_id,
            hw_dev_id,
            os_version,
            edition,
            manufacturer,
            model,
            mac,
            hash,
            device,
        } = saved;
        let enrollment_type = if device { EnrollmentType::Device } else { EnrollmentType::Full };
        Self {
            serial,
            device_id,
            hw_dev_id,
            os_version,
            edition,
            manufacturer,
            model,
            mac,
            hash,
            enrollment_type,
        }
    }
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::File { path: path.display().to_string(), reason: reason.to_owned() }
}
