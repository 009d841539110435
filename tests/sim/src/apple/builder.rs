//! Making a device.

use bellwether_certs::cms::Shape;
use bellwether_certs::hash::random_bytes;
use uuid::Uuid;

use super::{AppleDevice, Hardware, Inventory, Script, Tokens};
use crate::{Family, Http, KeyPool, Result};

/// Describes a device that does not exist yet. What is not said is invented.
#[derive(Debug)]
pub struct Builder {
    family: Family,
    http: Http,
    keys: KeyPool,
    shape: Shape,
    client_certificate: bool,
    script: Script,
    udid: Option<String>,
    serial: Option<String>,
    os_version: Option<String>,
    name: Option<String>,
    supervised: Option<bool>,
}

impl Builder {
    pub(super) fn new(family: Family, http: Http) -> Self {
        Self {
            family,
            http,
            keys: KeyPool::distinct(),
            shape: Shape::DEVICE,
            client_certificate: false,
            script: Script::default(),
            udid: None,
            serial: None,
            os_version: None,
            name: None,
            supervised: None,
        }
    }

    /// The UDID.
    #[must_use]
    pub fn udid(mut self, udid: impl Into<String>) -> Self {
        self.udid = Some(udid.into());
        self
    }

    /// The serial number.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = Some(serial.into());
        self
    }

    /// The version of the operating system.
    #[must_use]
    pub fn os_version(mut self, version: impl Into<String>) -> Self {
        self.os_version = Some(version.into());
        self
    }

    /// The device's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether the device is supervised. Macs are unless told otherwise, phones and tablets are not.
    #[must_use]
    pub fn supervised(mut self, supervised: bool) -> Self {
        self.supervised = Some(supervised);
        self
    }

    /// Where keys come from; by default every device makes its own.
    #[must_use]
    pub fn keys(mut self, keys: KeyPool) -> Self {
        self.keys = keys;
        self
    }

    /// The shape of `Mdm-Signature`; by default that of real devices.
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// Presents the identity as TLS client certificate too. The device then has connections of its own.
    #[must_use]
    pub fn client_certificate(mut self, wanted: bool) -> Self {
        self.client_certificate = wanted;
        self
    }

    /// How the device misbehaves.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// The device, out of its box.
    ///
    /// # Errors
    /// When no random bytes can be had.
    pub fn build(self) -> Result<AppleDevice> {
        let mut hardware = Hardware::invent(self.family)?;
        if let Some(udid) = self.udid {
            hardware.udid = udid;
        }
        if let Some(serial) = self.serial {
            hardware.serial = serial;
        }
        if let Some(version) = self.os_version {
            hardware.os_version = version;
        }
        if let Some(supervised) = self.supervised {
            hardware.supervised = supervised;
        }
        let mut inventory = Inventory::factory(&hardware);
        if let Some(name) = self.name {
            inventory.name = name;
        }
        Ok(AppleDevice {
            inventory,
            hardware,
            script: self.script,
            http: self.http,
            keys: self.keys,
            shape: self.shape,
            client_certificate: self.client_certificate,
            identity: None,
            enrollment: None,
            tokens: new_tokens()?,
            last: None,
            told: Vec::new(),
        })
    }
}

/// Tokens as Apple's servers and the device would make them.
pub(super) fn new_tokens() -> Result<Tokens> {
    let push: [u8; 32] = random_bytes()?;
    let magic: [u8; 16] = random_bytes()?;
    // Real unlock tokens have one or two kilobytes.
    let unlock: [u8; 1024] = random_bytes()?;
    Ok(Tokens {
        push: push.to_vec(),
        magic: Uuid::from_bytes(magic).hyphenated().to_string().to_uppercase(),
        unlock: unlock.to_vec(),
        bootstrap: None,
    })
}
