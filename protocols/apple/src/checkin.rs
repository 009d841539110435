//! Messages from a device: check-in messages (`mdm/checkin/*.yaml`) and command reports.
//!
//! [`decode`] decides by the body (`MessageType` makes a check-in message, `Status` a report); the
//! `Content-Type` is only asked when the body has both. A field that the protocol can do without
//! never makes a message undecodable: a wrong one is dropped and named in `problems`.

mod fields;
mod messages;
mod report;

use plist::{Dictionary, Value};

pub use crate::identity::{Channel, ChannelIds, DeviceKey, EnrollmentKind};
pub use messages::{
    Authenticate, CheckIn, CheckOut, DeclarativeManagement, Endpoint, GetBootstrapToken, GetToken, Message,
    SetBootstrapToken, TokenUpdate, UserAuthenticate,
};
pub use report::{ErrorItem, Report, Status};

use crate::Error;
use crate::guard::{self, Limits};

/// The `Content-Type` of check-in messages.
pub const CHECK_IN_CONTENT_TYPE: &str = "application/x-apple-aspen-mdm-checkin";
/// The `Content-Type` of command reports.
pub const REPORT_CONTENT_TYPE: &str = "application/x-apple-aspen-mdm";

/// One message from a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// A check-in message.
    CheckIn(CheckIn),
    /// The report on a command, or `Idle`.
    Report(Report),
}

impl Inbound {
    /// Device and channel that the message claims to come from.
    #[must_use]
    pub fn ids(&self) -> &ChannelIds {
        match self {
            Self::CheckIn(message) => &message.ids,
            Self::Report(report) => &report.ids,
        }
    }

    /// Fields that were dropped because they could not be used: "`OSVersion`: not a string".
    #[must_use]
    pub fn problems(&self) -> &[String] {
        match self {
            Self::CheckIn(message) => &message.problems,
            Self::Report(report) => &report.problems,
        }
    }
}

/// Reads a request body with the default [`Limits`].
///
/// # Errors
/// When the property list is refused by the guard, when it names no device, or when a field is
/// missing without which the message has no meaning.
pub fn decode(body: &[u8], content_type: Option<&str>) -> Result<Inbound, Error> {
    decode_with(body, content_type, &Limits::default())
}

/// Reads a request body with the caller's limits.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(body: &[u8], content_type: Option<&str>, limits: &Limits) -> Result<Inbound, Error> {
    let Value::Dictionary(message) = guard::parse(body, limits)? else {
        return Err(Error::NotADictionary);
    };
    if is_check_in(&message, content_type)? {
        messages::decode(message).map(Inbound::CheckIn)
    } else {
        report::decode(message).map(Inbound::Report)
    }
}

fn is_check_in(message: &Dictionary, content_type: Option<&str>) -> Result<bool, Error> {
    match (message.contains_key("MessageType"), message.contains_key("Status")) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        (true, true) => Ok(content_type.is_none_or(|header| {
            let media_type = header.split(';').next().unwrap_or_default().trim();
            !media_type.eq_ignore_ascii_case(REPORT_CONTENT_TYPE)
        })),
        (false, false) => Err(Error::NotAMessage),
    }
}
