//! Who is speaking: the device's key and the channel (`mdm/checkin/*.yaml`, keys `UDID`,
//! `EnrollmentID`, `UserID`, `EnrollmentUserID`, `UserShortName`).

use plist::{Dictionary, Value};

use crate::Error;

/// `UserID` of a Shared iPad: the user is named by `UserShortName` instead.
pub const SHARED_IPAD_USER_ID: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

/// The longest identifier that is accepted, in bytes.
pub const MAX_IDENTIFIER_BYTES: usize = 256;

/// How the device is enrolled, as far as its identifier tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnrollmentKind {
    /// The whole device is managed and named by its UDID.
    Device,
    /// Account-driven user enrollment: an `EnrollmentID` that is new with every enrollment.
    User,
}

/// The device's own identifier. A claim until the identity certificate has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceKey {
    /// `UDID`: an opaque string; 40 hex digits, 25 characters or a UUID in practice.
    Udid(String),
    /// `EnrollmentID`: an opaque string that cannot be linked to a device.
    EnrollmentId(String),
}

impl DeviceKey {
    /// The identifier itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Udid(id) | Self::EnrollmentId(id) => id,
        }
    }

    /// How a device with such a key is enrolled.
    #[must_use]
    pub fn kind(&self) -> EnrollmentKind {
        match self {
            Self::Udid(_) => EnrollmentKind::Device,
            Self::EnrollmentId(_) => EnrollmentKind::User,
        }
    }
}

/// The stream of commands a message belongs to. A user channel is keyed by device *and* user: a
/// macOS user id can appear on several devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The device itself.
    Device,
    /// A user of a Mac (`UserID`), or of a user enrollment (`EnrollmentUserID`).
    User {
        /// The user's identifier.
        user_id: String,
    },
    /// A Managed Apple Account on a Shared iPad.
    SharedIpad {
        /// `UserShortName`.
        short_name: String,
    },
}

/// Device and channel of one message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChannelIds {
    /// The device.
    pub device: DeviceKey,
    /// The channel on it.
    pub channel: Channel,
}

impl ChannelIds {
    /// The device channel of a device with this UDID.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`] when the identifier breaks the grammar.
    pub fn udid(udid: &str) -> Result<Self, Error> {
        check_identifier("UDID", udid)?;
        Ok(Self { device: DeviceKey::Udid(udid.to_owned()), channel: Channel::Device })
    }

    /// The device channel of a user enrollment with this `EnrollmentID`.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`] when the identifier breaks the grammar.
    pub fn enrollment_id(id: &str) -> Result<Self, Error> {
        check_identifier("EnrollmentID", id)?;
        Ok(Self { device: DeviceKey::EnrollmentId(id.to_owned()), channel: Channel::Device })
    }

    /// The channel of one user of the same device.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`] when the identifier breaks the grammar or is the Shared iPad's.
    pub fn with_user(&self, user_id: &str) -> Result<Self, Error> {
        check_identifier("UserID", user_id)?;
        if user_id.eq_ignore_ascii_case(SHARED_IPAD_USER_ID) {
            return Err(Error::BadIdentifier { field: "UserID", reason: "names a Shared iPad" });
        }
        Ok(Self { device: self.device.clone(), channel: Channel::User { user_id: user_id.to_owned() } })
    }

    /// The channel of one Managed Apple Account on the same Shared iPad.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`] when the short name breaks the grammar.
    pub fn with_shared_ipad_user(&self, short_name: &str) -> Result<Self, Error> {
        check_identifier("UserShortName", short_name)?;
        Ok(Self {
            device: self.device.clone(),
            channel: Channel::SharedIpad { short_name: short_name.to_owned() },
        })
    }

    /// The user's part of the channel's key, or nothing for the device channel.
    #[must_use]
    pub fn user_key(&self) -> Option<&str> {
        match &self.channel {
            Channel::Device => None,
            Channel::User { user_id } => Some(user_id),
            Channel::SharedIpad { short_name } => Some(short_name),
        }
    }

    /// Reads the ids of a message. When both `UDID` and `EnrollmentID` are present, UDID wins. A
    /// user id that is present but unusable is an error: the message must not be taken for one of
    /// the device channel.
    pub(crate) fn read(message: &Dictionary) -> Result<Self, Error> {
        let udid = identifier(message, "UDID")?;
        let enrollment_id = identifier(message, "EnrollmentID")?;
        let device = match (udid, enrollment_id) {
            (Some(udid), _) => DeviceKey::Udid(udid),
            (None, Some(id)) => DeviceKey::EnrollmentId(id),
            (None, None) => return Err(Error::MissingIdentity),
        };
        let plain = identifier(message, "UserID")?;
        let enrolled = identifier(message, "EnrollmentUserID")?;
        let user_id = match device {
            DeviceKey::Udid(_) => plain.or(enrolled),
            DeviceKey::EnrollmentId(_) => enrolled.or(plain),
        };
        let channel = match user_id {
            None => Channel::Device,
            Some(id) if id.eq_ignore_ascii_case(SHARED_IPAD_USER_ID) => {
                let short_name = identifier(message, "UserShortName")?.ok_or(Error::BadIdentifier {
                    field: "UserShortName",
                    reason: "a Shared iPad must name its user",
                })?;
                Channel::SharedIpad { short_name }
            }
            Some(user_id) => Channel::User { user_id },
        };
        Ok(Self { device, channel })
    }

    /// Writes the ids as the keys that [`Self::read`] reads.
    pub(crate) fn write(&self, message: &mut Dictionary) {
        let user_key = match &self.device {
            DeviceKey::Udid(id) => {
                message.insert("UDID".to_owned(), Value::String(id.clone()));
                "UserID"
            }
            DeviceKey::EnrollmentId(id) => {
                message.insert("EnrollmentID".to_owned(), Value::String(id.clone()));
                "EnrollmentUserID"
            }
        };
        match &self.channel {
            Channel::Device => {}
            Channel::User { user_id } => {
                message.insert(user_key.to_owned(), Value::String(user_id.clone()));
            }
            Channel::SharedIpad { short_name } => {
                let sentinel = Value::String(SHARED_IPAD_USER_ID.to_owned());
                message.insert("UserID".to_owned(), sentinel);
                let name = Value::String(short_name.clone());
                message.insert("UserShortName".to_owned(), name);
            }
        }
    }
}

/// An identifier is an opaque string of 1..=256 bytes without control characters.
fn check_identifier(field: &'static str, id: &str) -> Result<(), Error> {
    let reason = if id.is_empty() {
        "it is empty"
    } else if id.len() > MAX_IDENTIFIER_BYTES {
        "it is longer than 256 bytes"
    } else if id.chars().any(char::is_control) {
        "it contains a control character"
    } else if id.trim() != id {
        "it begins or ends with white space"
    } else {
        return Ok(());
    };
    Err(Error::BadIdentifier { field, reason })
}

/// Absent and empty are the same: nothing. Everything else must be a sound identifier.
fn identifier(message: &Dictionary, field: &'static str) -> Result<Option<String>, Error> {
    match message.get(field) {
        None => Ok(None),
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        Some(Value::String(id)) => {
            check_identifier(field, id)?;
            Ok(Some(id.clone()))
        }
        Some(_) => Err(Error::BadIdentifier { field, reason: "it is not a string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(pairs: &[(&str, &str)]) -> Dictionary {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::String((*v).to_owned()))).collect()
    }

    #[test]
    fn the_table_of_channels() {
        let ids = ChannelIds::read(&message(&[("UDID", "A")])).unwrap();
        assert_eq!(ids, ChannelIds::udid("A").unwrap());
        let ids = ChannelIds::read(&message(&[("UDID", "A"), ("UserID", "U")])).unwrap();
        assert_eq!(ids, ChannelIds::udid("A").unwrap().with_user("U").unwrap());
        let ids = ChannelIds::read(&message(&[
            ("UDID", "A"),
            ("UserID", SHARED_IPAD_USER_ID),
            ("UserShortName", "ann@example.org"),
        ]))
        .unwrap();
        assert_eq!(ids.channel, Channel::SharedIpad { short_name: "ann@example.org".to_owned() });
        let ids = ChannelIds::read(&message(&[("EnrollmentID", "E")])).unwrap();
        assert_eq!(ids.device.kind(), EnrollmentKind::User);
        let ids = ChannelIds::read(&message(&[("EnrollmentID", "E"), ("EnrollmentUserID", "U")])).unwrap();
        assert_eq!(ids.user_key(), Some("U"));
    }

    #[test]
    fn udid_wins() {
        let ids = ChannelIds::read(&message(&[("UDID", "A"), ("EnrollmentID", "E")])).unwrap();
        assert_eq!(ids.device, DeviceKey::Udid("A".to_owned()));
    }

    #[test]
    fn a_user_is_never_taken_for_the_device() {
        let mut m = message(&[("UDID", "A")]);
        m.insert("UserID".to_owned(), Value::Boolean(true));
        assert!(matches!(ChannelIds::read(&m), Err(Error::BadIdentifier { field: "UserID", .. })));
        let m = message(&[("UDID", "A"), ("EnrollmentUserID", "U")]);
        assert_eq!(ChannelIds::read(&m).unwrap().user_key(), Some("U"));
    }

    #[test]
    fn shared_ipad_needs_a_short_name() {
        let m = message(&[("UDID", "A"), ("UserID", SHARED_IPAD_USER_ID)]);
        assert!(matches!(ChannelIds::read(&m), Err(Error::BadIdentifier { .. })));
    }

    #[test]
    fn the_grammar_holds_at_the_edge() {
        let long = "x".repeat(257);
        for bad in ["a\0b", "a\nb", " a", "a ", long.as_str()] {
            assert!(ChannelIds::read(&message(&[("UDID", bad)])).is_err(), "{bad:?}");
        }
        for good in ["'; DROP TABLE devices; --", "ünïcode", "zz-not-hex", &long[..256]] {
            assert!(ChannelIds::read(&message(&[("UDID", good)])).is_ok(), "{good:?}");
        }
        assert_eq!(ChannelIds::read(&message(&[("UDID", "")])), Err(Error::MissingIdentity));
    }
}
