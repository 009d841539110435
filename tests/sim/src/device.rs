//! A device of any platform, as the command line has it.

use std::path::Path;

use bellwether_sim::{AppleDevice, Error, Http, PcTold, Result, Told, WindowsPc};
use url::Url;

use crate::cli::Device as Wanted;

/// A device.
#[derive(Debug)]
pub enum Device {
    /// An iPhone, iPad or Mac.
    Apple(Box<AppleDevice>),
    /// A PC.
    Pc(Box<WindowsPc>),
}

/// What a device was told in one session.
#[derive(Debug)]
pub enum Heard {
    /// Commands of Apple's protocol.
    Apple(Vec<Told>),
    /// Commands about nodes.
    Pc(Vec<PcTold>),
}

impl Heard {
    /// How many commands.
    pub fn len(&self) -> usize {
        match self {
            Self::Apple(told) => told.len(),
            Self::Pc(told) => told.len(),
        }
    }
}

impl Device {
    /// Makes the device that was asked for.
    pub fn build(wanted: &Wanted, http: Http) -> Result<Self> {
        match wanted.family.apple() {
            Some(family) => apple(wanted, AppleDevice::builder(family, http)),
            None => pc(wanted, http),
        }
    }

    /// Reads a device from the file that `save` wrote.
    pub fn load(path: &Path, http: Http) -> Result<Self> {
        if WindowsPc::is_saved_in(path) {
            return Ok(Self::Pc(Box::new(WindowsPc::load(path, http)?)));
        }
        Ok(Self::Apple(Box::new(AppleDevice::load(path, http)?)))
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        match self {
            Self::Apple(device) => device.save(path),
            Self::Pc(pc) => pc.save(path),
        }
    }

    /// Follows an invitation link.
    pub async fn enroll(&mut self, link: &str) -> Result<()> {
        match self {
            Self::Apple(device) => device.enroll(link).await,
            Self::Pc(pc) => pc.enroll_by_link(link).await,
        }
    }

    /// One session.
    pub async fn poll(&mut self) -> Result<Heard> {
        match self {
            Self::Apple(device) => device.poll().await.map(Heard::Apple),
            Self::Pc(pc) => pc.session().await.map(Heard::Pc),
        }
    }

    /// Renews the identity with the key that is in use.
    pub async fn renew(&mut self) -> Result<()> {
        match self {
            Self::Apple(device) => device.scep_renew().await,
            Self::Pc(pc) => pc.renew().await,
        }
    }

    /// Leaves, as a person at the device would.
    pub async fn leave(&mut self) -> Result<()> {
        match self {
            Self::Apple(device) => {
                device.checkout().await?.ok("CheckOut")?;
                device.wipe_enrollment();
            }
            Self::Pc(pc) => {
                pc.unenroll_by_user().await?;
            }
        }
        Ok(())
    }

    pub fn is_enrolled(&self) -> bool {
        match self {
            Self::Apple(device) => device.is_enrolled(),
            Self::Pc(pc) => pc.is_enrolled(),
        }
    }

    /// The server that it calls.
    pub fn server(&self) -> Result<Url> {
        let gone = Error::Missing("enrollment: it was erased or checked out");
        match self {
            Self::Apple(device) => {
                let profile = device.enrollment().ok_or(gone)?;
                Url::parse(&profile.mdm.server_url)
                    .map_err(|_| Error::Profile("its ServerURL is no URL".to_owned()))
            }
            Self::Pc(pc) => Url::parse(&pc.account().ok_or(gone)?.address)
                .map_err(|_| Error::Enrollment("ADDR is no URL".to_owned())),
        }
    }
}

fn apple(wanted: &Wanted, mut builder: bellwether_sim::Builder) -> Result<Device> {
    let of_pcs =
        [&wanted.device_id, &wanted.hw_dev_id].into_iter().any(Option::is_some) || wanted.edition.is_some();
    if of_pcs || wanted.wbxml {
        return Err(Error::Usage(
            "--device-id, --hw-dev-id, --edition and --wbxml are for --family pc".to_owned(),
        ));
    }
    if let Some(name) = &wanted.name {
        builder = builder.name(name);
    }
    if let Some(serial) = &wanted.serial {
        builder = builder.serial(serial);
    }
    if let Some(udid) = &wanted.udid {
        builder = builder.udid(udid);
    }
    if let Some(version) = &wanted.os_version {
        builder = builder.os_version(version);
    }
    if let Some(supervised) = wanted.supervised {
        builder = builder.supervised(supervised);
    }
    Ok(Device::Apple(Box::new(builder.build()?)))
}

fn pc(wanted: &Wanted, http: Http) -> Result<Device> {
    if wanted.udid.is_some() || wanted.supervised.is_some() {
        return Err(Error::Usage(
            "a PC has no --udid and is not --supervised; it has a --device-id".to_owned(),
        ));
    }
    let mut builder = WindowsPc::builder(http).wbxml(wanted.wbxml);
    if let Some(name) = &wanted.name {
        builder = builder.name(name);
    }
    if let Some(serial) = &wanted.serial {
        builder = builder.serial(serial);
    }
    if let Some(device_id) = &wanted.device_id {
        builder = builder.device_id(device_id);
    }
    if let Some(hw_dev_id) = &wanted.hw_dev_id {
        builder = builder.hw_dev_id(hw_dev_id);
    }
    if let Some(version) = &wanted.os_version {
        builder = builder.os_version(version);
    }
    if let Some(edition) = wanted.edition {
        builder = builder.edition(edition);
    }
    Ok(Device::Pc(Box::new(builder.build()?)))
}
