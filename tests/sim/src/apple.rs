//! A simulated iPhone, iPad or Mac.

mod answers;
mod apps;
mod builder;
mod channel;
mod enroll;
mod hardware;
mod inventory;
mod message;
mod profiles;
pub(crate) mod scep;
mod script;
mod state;
#[cfg(test)]
mod tests;
mod users;

use bellwether_apple::ChannelIds;
use bellwether_apple::profile::EnrollmentDetails;
use bellwether_certs::KeyPair;
use bellwether_certs::cms::Shape;

pub use builder::Builder;
pub use channel::Told;
pub use enroll::{EnrollOptions, Page, Profile, ProfileOptions};
pub use hardware::Hardware;
pub use inventory::{InstalledApp, InstalledProfile, Inventory};
pub use scep::{ScepAttempt, ScepCipher, ScepOptions, ScepTransport};
pub use script::{Behaviour, Rule, Script};
pub use users::User;

use crate::{Error, Family, Http, KeyPool, Result};

/// One simulated Apple device.
#[derive(Debug)]
pub struct AppleDevice {
    hardware: Hardware,
    inventory: Inventory,
    script: Script,
    http: Http,
    keys: KeyPool,
    shape: Shape,
    /// Present the identity in the TLS handshake as well.
    client_certificate: bool,
    identity: Option<Identity>,
    enrollment: Option<Profile>,
    tokens: Tokens,
    last: Option<Sent>,
    told: Vec<Told>,
}

/// Key and certificate of an enrollment.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The private key.
    pub key: KeyPair,
    /// The certificate, DER.
    pub cert_der: Vec<u8>,
}

/// What `TokenUpdate` hands over, and the bootstrap token.
#[derive(Clone)]
struct Tokens {
    push: Vec<u8>,
    magic: String,
    unlock: Vec<u8>,
    bootstrap: Option<Vec<u8>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// The last request, for [`AppleDevice::replay`].
#[derive(Debug, Clone)]
struct Sent {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl AppleDevice {
    /// Describes a device; [`Builder::build`] makes it.
    #[must_use]
    pub fn builder(family: Family, http: Http) -> Builder {
        Builder::new(family, http)
    }

    /// What the device is.
    #[must_use]
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// The device's identifier.
    #[must_use]
    pub fn udid(&self) -> &str {
        &self.hardware.udid
    }

    /// The device's serial number.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.hardware.serial
    }

    /// What is on the device: name, profiles, apps, lock and lost mode.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The same to be changed by hand, as a person at the device would.
    pub fn inventory_mut(&mut self) -> &mut Inventory {
        &mut self.inventory
    }

    /// How the device misbehaves.
    pub fn script_mut(&mut self) -> &mut Script {
        &mut self.script
    }

    /// Replaces the script.
    pub fn set_script(&mut self, script: Script) {
        self.script = script;
    }

    /// The shape of signatures from now on.
    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// The identity, once SCEP gave one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Speaks with another identity from now on: another device's, an expired, a foreign one.
    ///
    /// # Errors
    /// When a TLS client certificate is wanted and TLS cannot be set up with it.
    pub fn set_identity(&mut self, identity: Identity) -> Result<()> {
        if self.client_certificate {
            self.http = self.http.with_client_certificate(&identity.cert_der, &identity.key)?;
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Claims another UDID from now on, as a forger would.
    pub fn set_udid(&mut self, udid: impl Into<String>) {
        self.hardware.udid = udid.into();
    }

    /// The enrollment profile that is installed.
    #[must_use]
    pub fn enrollment(&self) -> Option<&EnrollmentDetails> {
        self.enrollment.as_ref().map(|profile| &profile.details)
    }

    /// Whether the device believes that it is managed.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.enrollment.is_some() && self.identity.is_some()
    }

    /// Every command that the device was ever given, in order.
    #[must_use]
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// The push token that the next `TokenUpdate` sends.
    #[must_use]
    pub fn push_token(&self) -> &[u8] {
        &self.tokens.push
    }

    /// The push magic that goes with it.
    #[must_use]
    pub fn push_magic(&self) -> &str {
        &self.tokens.magic
    }

    /// The unlock token that goes with it (iPhone and iPad).
    #[must_use]
    pub fn unlock_token(&self) -> &[u8] {
        &self.tokens.unlock
    }

    /// Chooses the push token, so that an APNs stand-in can be scripted by it.
    pub fn set_push_token(&mut self, token: impl Into<Vec<u8>>) {
        self.tokens.push = token.into();
    }

    /// Wipes the device by hand: everything is forgotten but hardware, script and the record of what
    /// it was told.
    ///
    /// # Errors
    /// When no random bytes can be had.
    pub fn wipe(&mut self) -> Result<()> {
        self.identity = None;
        self.enrollment = None;
        self.last = None;
        self.tokens = builder::new_tokens()?;
        self.inventory = Inventory::factory(&self.hardware);
        Ok(())
    }

    /// Removes the enrollment profile and everything that came with it, as a person in Settings would.
    /// Nothing is sent; [`Self::checkout`] does that.
    pub fn wipe_enrollment(&mut self) {
        self.identity = None;
        self.enrollment = None;
        self.inventory.profiles.clear();
        self.inventory.apps.retain(|_, app| !app.managed);
    }

    fn ids(&self) -> Result<ChannelIds> {
        Ok(ChannelIds::udid(&self.hardware.udid)?)
    }

    fn need_identity(&self) -> Result<&Identity> {
        self.identity.as_ref().ok_or(Error::Missing("identity"))
    }

    fn need_enrollment(&self) -> Result<&EnrollmentDetails> {
        self.enrollment().ok_or(Error::Missing("enrollment profile"))
    }
}
