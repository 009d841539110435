//! Command reports: what a device says about the command it was given.

use plist::{Dictionary, Value};

use super::fields::Fields;
use crate::{ChannelIds, Error};

/// The most entries that are kept of an `ErrorChain`.
const MAX_ERROR_ITEMS: usize = 32;
/// The longest text that is kept of an error, in bytes.
const MAX_ERROR_TEXT: usize = 4096;

/// The state that a report gives to its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The device asks for a command.
    Idle,
    /// The command was carried out, or at least accepted.
    Acknowledged,
    /// The command failed; for this UUID that is final.
    Error,
    /// The device did not understand the command; final as well.
    CommandFormatError,
    /// Not now: keep the command, offer it again later.
    NotNow,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Acknowledged => "Acknowledged",
            Self::Error => "Error",
            Self::CommandFormatError => "CommandFormatError",
            Self::NotNow => "NotNow",
        }
    }

    fn from_wire(word: &str) -> Option<Self> {
        [Self::Idle, Self::Acknowledged, Self::Error, Self::CommandFormatError, Self::NotNow]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// One entry of an `ErrorChain`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorItem {
    /// `ErrorCode`.
    pub code: i64,
    /// `ErrorDomain`, such as `MCMDMErrorDomain`.
    pub domain: String,
    /// `LocalizedDescription`.
    pub localized: String,
    /// `USEnglishDescription`.
    pub us_english: Option<String>,
}

/// A report. Its `body` can hold escrowed secrets, so `Debug` shows the keys only.
#[derive(Clone, PartialEq)]
pub struct Report {
    /// Device and channel.
    pub ids: ChannelIds,
    /// The state of the command.
    pub status: Status,
    /// The command; absent with `Idle`.
    pub command_uuid: Option<String>,
    /// Why it failed, outermost first.
    pub error_chain: Vec<ErrorItem>,
    /// macOS user channel: the user is not at the console.
    pub not_on_console: Option<bool>,
    /// `RequestType`, which some devices repeat.
    pub request_type: Option<String>,
    /// The user's short name.
    pub user_short_name: Option<String>,
    /// The user's long name.
    pub user_long_name: Option<String>,
    /// Everything else: the answer itself. See [`crate::answer`].
    pub body: Dictionary,
    /// Optional fields that were dropped, in words.
    pub problems: Vec<String>,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report")
            .field("ids", &self.ids)
            .field("status", &self.status)
            .field("command_uuid", &self.command_uuid)
            .field("error_chain", &self.error_chain)
            .field("request_type", &self.request_type)
            .field("body_keys", &self.body.keys().collect::<Vec<_>>())
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

/// Reads a dictionary that has a `Status`.
pub(super) fn decode(message: Dictionary) -> Result<Report, Error> {
    let status = match message.get("Status") {
        Some(Value::String(word)) => Status::from_wire(word).ok_or(Error::UnknownStatus)?,
        _ => return Err(Error::BadField { message: "the report", field: "Status" }),
    };
    let ids = ChannelIds::read(&message)?;
    let mut fields = Fields::new(message);
    for key in ["Status", "UDID", "EnrollmentID", "UserID", "EnrollmentUserID", "Topic"] {
        fields.take(key);
    }
    let command_uuid = command_uuid(&mut fields);
    if command_uuid.is_none() && status != Status::Idle {
        fields.problem("CommandUUID", "missing");
    }
    let error_chain = error_chain(&mut fields);
    let not_on_console = fields.boolean("NotOnConsole");
    let request_type = fields.text("RequestType");
    let user_short_name = fields.text("UserShortName");
    let user_long_name = fields.text("UserLongName");
    let (body, problems) = fields.finish();
    Ok(Report {
        ids,
        status,
        command_uuid,
        error_chain,
        not_on_console,
        request_type,
        user_short_name,
        user_long_name,
        body,
        problems,
    })
}

fn command_uuid(fields: &mut Fields) -> Option<String> {
    let uuid = fields.text("CommandUUID")?;
    if uuid.len() > crate::command::MAX_COMMAND_UUID_BYTES {
        fields.problem("CommandUUID", "too long");
        return None;
    }
    Some(uuid)
}

fn error_chain(fields: &mut Fields) -> Vec<ErrorItem> {
    let items = match fields.take("ErrorChain") {
        None => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            fields.problem("ErrorChain", "not an array");
            return Vec::new();
        }
    };
    if items.len() > MAX_ERROR_ITEMS {
        fields.problem("ErrorChain", "too long");
    }
    let mut chain = Vec::new();
    for item in items.into_iter().take(MAX_ERROR_ITEMS) {
        match item {
            Value::Dictionary(item) => chain.push(error_item(&item, fields)),
            _ => fields.problem("ErrorChain", "an entry is not a dictionary"),
        }
    }
    chain
}

/// An entry is kept whatever is wrong with its parts: half an error is better than none.
fn error_item(item: &Dictionary, fields: &mut Fields) -> ErrorItem {
    let mut text = |key: &str| match item.get(key) {
        None => None,
        Some(Value::String(text)) => Some(clean(text)),
        Some(_) => {
            fields.problem(key, "not a string");
            None
        }
    };
    let domain = text("ErrorDomain").unwrap_or_default();
    let localized = text("LocalizedDescription").unwrap_or_default();
    let us_english = text("USEnglishDescription");
    let code = match item.get("ErrorCode") {
        Some(Value::Integer(code)) => code.as_signed(),
        _ => None,
    };
    if code.is_none() {
        fields.problem("ErrorCode", "not a number");
    }
    ErrorItem { code: code.unwrap_or_default(), domain, localized, us_english }
}

/// Descriptions are for people: line breaks stay, other control characters and excess go.
fn clean(text: &str) -> String {
    let mut end = text.len().min(MAX_ERROR_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end)
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}
