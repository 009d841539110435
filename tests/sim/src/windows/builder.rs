//! Making a PC.

use bellwether_certs::hash::{hex, random_bytes};
use bellwether_windows::enrollment::{AuthPolicy, EnrollmentType, Version};
use bellwether_windows::syncml::client::Habits;

use super::csp::State;
use super::hardware::Hardware;
use super::machine::Shared;
use super::{WindowsPc, WipeFate};
use crate::{Http, KeyPool, Result};

/// Describes a PC that does not exist yet. What is not said is invented.
#[derive(Debug)]
pub struct PcBuilder {
    http: Http,
    keys: KeyPool,
    habits: Habits,
    wbxml: bool,
    sign: bool,
    auth_policies: Vec<AuthPolicy>,
    request_version: Version,
    keep_connections: bool,
    user_signed_in: bool,
    pin: bool,
    wipe_fate: WipeFate,
    enrollment_type: EnrollmentType,
    name: Option<String>,
    serial: Option<String>,
    device_id: Option<String>,
    hw_dev_id: Option<String>,
    os_version: Option<String>,
    edition: Option<u32>,
    channel_uri: Option<String>,
}

impl PcBuilder {
    pub(super) fn new(http: Http) -> Self {
        Self {
            http,
            keys: KeyPool::distinct(),
            habits: native(),
            wbxml: false,
            sign: false,
            auth_policies: vec![AuthPolicy::OnPremise, AuthPolicy::Federated],
            // What Windows 11 24H2 and 25H2 send.
            request_version: Version { major: 9, minor: 0 },
            keep_connections: false,
            user_signed_in: true,
            pin: true,
            wipe_fate: WipeFate::default(),
            enrollment_type: EnrollmentType::Full,
            name: None,
            serial: None,
            device_id: None,
            hw_dev_id: None,
            os_version: None,
            edition: None,
            channel_uri: None,
        }
    }

    /// The computer's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The SMBIOS serial number.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = Some(serial.into());
        self
    }

    /// `DeviceID`, 32 hexadecimal digits.
    #[must_use]
    pub fn device_id(mut self, device_id: impl Into<String>) -> Self {
        self.device_id = Some(device_id.into());
        self
    }

    /// `HWDevID`, 64 hexadecimal digits.
    #[must_use]
    pub fn hw_dev_id(mut self, hw_dev_id: impl Into<String>) -> Self {
        self.hw_dev_id = Some(hw_dev_id.into());
        self
    }

    /// The version of Windows, such as `10.0.26100.2033`.
    #[must_use]
    pub fn os_version(mut self, version: impl Into<String>) -> Self {
        self.os_version = Some(version.into());
        self
    }

    /// The number of the edition: 48 is Pro, 4 is Enterprise, 101 is Home.
    #[must_use]
    pub fn edition(mut self, edition: u32) -> Self {
        self.edition = Some(edition);
        self
    }

    /// Where keys come from; by default every machine makes its own.
    #[must_use]
    pub fn keys(mut self, keys: KeyPool) -> Self {
        self.keys = keys;
        self
    }

    /// How the machine differs from the specification. The default is what native clients do: `CmdID`s from 2, and a
    /// first message without a credential, which is challenged.
    #[must_use]
    pub fn habits(mut self, habits: Habits) -> Self {
        self.habits = habits;
        self
    }

    /// Speaks WBXML, whatever `DEFAULTENCODING` says.
    #[must_use]
    pub fn wbxml(mut self, wanted: bool) -> Self {
        self.wbxml = wanted;
        self
    }

    /// `EnrollmentType`: a person's or the machine's own.
    #[must_use]
    pub fn enrollment_type(mut self, kind: EnrollmentType) -> Self {
        self.enrollment_type = kind;
        self
    }

    /// Whether the enrolled user is signed in; by default, yes.
    #[must_use]
    pub fn user_signed_in(mut self, signed_in: bool) -> Self {
        self.user_signed_in = signed_in;
        self
    }

    /// Signs every message (`MDM-Signature`), whether the server asks for it or not.
    #[must_use]
    pub fn sign_messages(mut self, sign: bool) -> Self {
        self.sign = sign;
        self
    }

    /// The authentication policies that [`WindowsPc::discover`] offers.
    #[must_use]
    pub fn auth_policies(mut self, policies: &[AuthPolicy]) -> Self {
        self.auth_policies = policies.to_vec();
        self
    }

    /// `RequestVersion` of `Discover`.
    #[must_use]
    pub fn request_version(mut self, version: Version) -> Self {
        self.request_version = version;
        self
    }

    /// Keeps connections between sessions, which real machines do not; for load tests.
    #[must_use]
    pub fn keep_connections(mut self, keep: bool) -> Self {
        self.keep_connections = keep;
        self
    }

    /// Whether a PIN is set; by default, yes.
    #[must_use]
    pub fn pin(mut self, set: bool) -> Self {
        self.pin = set;
        self
    }

    /// What becomes of wipes.
    #[must_use]
    pub fn wipe_fate(mut self, fate: WipeFate) -> Self {
        self.wipe_fate = fate;
        self
    }

    /// The push channel that the machine gets, so that a stand-in for WNS can be called.
    #[must_use]
    pub fn channel_uri(mut self, uri: impl Into<String>) -> Self {
        self.channel_uri = Some(uri.into());
        self
    }

    /// The machine, out of its box.
    ///
    /// # Errors
    /// When no random bytes can be had.
    pub fn build(self) -> Result<WindowsPc> {
        let mut hardware = Hardware::invent()?;
        let fill = |place: &mut String, value: Option<String>| {
            if let Some(value) = value {
                *place = value;
            }
        };
        fill(&mut hardware.serial, self.serial);
        fill(&mut hardware.device_id, self.device_id);
        fill(&mut hardware.hw_dev_id, self.hw_dev_id);
        fill(&mut hardware.os_version, self.os_version);
        hardware.edition = self.edition.unwrap_or(hardware.edition);
        hardware.enrollment_type = self.enrollment_type;
        let name = self.name.unwrap_or_else(|| {
            ["DESKTOP-", &hardware.device_id.chars().take(7).collect::<String>()].concat()
        });
        let channel_uri = match self.channel_uri {
            Some(uri) => uri,
            None => {
                let token: [u8; 24] = random_bytes()?;
                ["https://db5p.notify.windows.com/?token=", &hex(&token)].concat()
            }
        };
        let mut state = State::new(&hardware, &name, channel_uri);
        state.user_signed_in = self.user_signed_in;
        state.has_pin = self.pin;
        state.wipe_fate = self.wipe_fate;
        Ok(WindowsPc {
            shared: Shared::new(hardware, state),
            http: self.http,
            keys: self.keys,
            habits: self.habits,
            wbxml: self.wbxml,
            sign: self.sign,
            auth_policies: self.auth_policies,
            request_version: self.request_version,
            keep_connections: self.keep_connections,
            hold_jobs: false,
            managed: None,
        })
    }
}

/// What native clients do.
fn native() -> Habits {
    Habits { always_cred: false, ..Habits::default() }
}
