//! What can be wrong with a message, and whose fault it is.

/// Every way in which bytes from a device, an upload or a caller can be refused.
///
/// No variant carries content of the message beyond names of keys and message types, so an error
/// can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body has no bytes (or only white space).
    #[error("the body is empty")]
    Empty,
    /// The body is longer than the limit, in bytes.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit that was passed, in bytes.
        limit: usize,
    },
    /// Arrays and dictionaries are nested too deeply.
    #[error("the property list is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit that was passed, in levels.
        limit: usize,
    },
    /// Too many values; in binary property lists an object counts each time it is used.
    #[error("the property list has more than {limit} values")]
    TooManyNodes {
        /// The limit that was passed, in values.
        limit: usize,
    },
    /// One string or data value is too long, or shared values unfold to too many bytes.
    #[error("a value in the property list is larger than {limit} bytes")]
    ValueTooLarge {
        /// The limit that was passed, in bytes.
        limit: usize,
    },
    /// An element carries more attributes than any property list does.
    #[error("an element of the property list has too many attributes")]
    TooManyAttributes,
    /// Not UTF-8, or declared as something else.
    #[error("the property list is not UTF-8")]
    Encoding,
    /// A document type other than Apple's, one with an internal subset, or a second one.
    #[error("the document type declaration is not Apple's plain one")]
    Doctype,
    /// A reference to an entity that XML itself does not define.
    #[error("the property list refers to an entity that XML does not define")]
    Entity,
    /// A processing instruction.
    #[error("the property list contains a processing instruction")]
    ProcessingInstruction,
    /// The XML or its use of Apple's elements is wrong.
    #[error("the XML property list is malformed: {0}")]
    Xml(&'static str),
    /// The binary property list is wrong.
    #[error("the binary property list is malformed: {0}")]
    Binary(&'static str),
    /// The value to be written cannot stand in an XML property list.
    #[error("a value cannot be written as an XML property list: {0}")]
    NotWritable(&'static str),
    /// The outermost value is not a dictionary.
    #[error("the property list is not a dictionary")]
    NotADictionary,
    /// Neither a check-in message nor a command report.
    #[error("the message has neither a MessageType nor a Status")]
    NotAMessage,
    /// A `MessageType` that Apple's schema (mdm/checkin) does not define.
    #[error("unknown check-in message type")]
    UnknownMessageType,
    /// A `Status` other than Apple's five.
    #[error("unknown command status")]
    UnknownStatus,
    /// The message names neither a `UDID` nor an `EnrollmentID`.
    #[error("the message names no device")]
    MissingIdentity,
    /// An identifier of the device or its user cannot be used as one.
    #[error("the identifier {field} is unusable: {reason}")]
    BadIdentifier {
        /// The key in the message.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key without which the message has no meaning is absent.
    #[error("{message} lacks {field}")]
    MissingField {
        /// The message or document.
        message: &'static str,
        /// The key.
        field: &'static str,
    },
    /// A key without which the message has no meaning has an unusable value.
    #[error("{message} has an unusable {field}")]
    BadField {
        /// The message or document.
        message: &'static str,
        /// The key.
        field: &'static str,
    },
    /// A command that an administrator asked for cannot be sent as it stands.
    #[error("the command cannot be sent: {0}")]
    BadCommand(&'static str),
    /// An uploaded profile would enroll the device elsewhere or replace our enrollment.
    #[error("the profile contains {payload_type}, which only an enrollment may bring")]
    EnrollmentPayload {
        /// The payload's type.
        payload_type: String,
    },
    /// An uploaded profile has the identifier of a profile that the server itself manages.
    #[error("the profile identifier belongs to a profile that this server manages")]
    ReservedIdentifier,
}

impl Error {
    /// The HTTP status that answers a device whose message was refused: 413 when it was too large,
    /// 400 otherwise. Never 401: that makes a device remove its enrollment.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            _ => 400,
        }
    }
}
