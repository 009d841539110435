//! What can be wrong with a SyncML document, a command or a session.

/// Every way in which a message from a device, or a command of a caller, can be refused.
///
/// No variant carries data of the message beyond names of elements, so an error can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body has no bytes. From a device this ends the session.
    #[error("the body is empty")]
    Empty,
    /// The body is longer than the limit.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit that was passed, in bytes.
        limit: usize,
    },
    /// Elements are nested too deeply.
    #[error("the document is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit that was passed, in levels.
        limit: usize,
    },
    /// Too many elements.
    #[error("the document has more than {limit} elements")]
    TooManyNodes {
        /// The limit that was passed, in elements.
        limit: usize,
    },
    /// An element with more attributes than any SyncML element has.
    #[error("an element has more than {limit} attributes")]
    TooManyAttributes {
        /// The limit that was passed.
        limit: usize,
    },
    /// Not UTF-8, or declared as something else.
    #[error("the document is not UTF-8")]
    Encoding,
    /// A document type declaration.
    #[error("the document has a document type declaration")]
    Doctype,
    /// A reference to an entity that XML itself does not define.
    #[error("the document refers to an entity that XML does not define")]
    Entity,
    /// A processing instruction.
    #[error("the document contains a processing instruction")]
    ProcessingInstruction,
    /// The XML is not well-formed.
    #[error("the XML is malformed: {0}")]
    Xml(&'static str),
    /// The WBXML is wrong.
    #[error("the WBXML is malformed: {0}")]
    Wbxml(&'static str),
    /// An element without which the message has no meaning is absent.
    #[error("{parent} lacks {element}")]
    Missing {
        /// The element that should hold it.
        parent: &'static str,
        /// What is absent.
        element: &'static str,
    },
    /// An element has a value that it cannot have.
    #[error("{element} is unusable")]
    Unusable {
        /// The element.
        element: &'static str,
    },
    /// The message names a protocol other than OMA-DM 1.1 or 1.2.
    #[error("the protocol version is not OMA-DM 1.1 or 1.2")]
    Version,
    /// A value to be written cannot stand in the document.
    #[error("a value cannot be written: {0}")]
    NotWritable(&'static str),
    /// The message belongs to another session or another device.
    #[error("the message belongs to another session")]
    OtherSession,
    /// A command cannot be sent as it stands.
    #[error("the command cannot be sent: {0}")]
    BadCommand(&'static str),
}

impl Error {
    /// The HTTP status that answers a device whose message was refused: 413 when it was too large, 400 otherwise.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            _ => 400,
        }
    }
}
