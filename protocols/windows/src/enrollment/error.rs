//! What can be wrong with an enrollment message, and whose fault it is.

use super::fault::{Fault, Subcode};

/// Every way in which enrollment bytes from a machine, or a document that we were asked to write, can be
/// refused.
///
/// No variant carries content of the message beyond names of elements, so an error can be logged.
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
    /// Elements are nested too deeply.
    #[error("the XML is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit that was passed, in levels.
        limit: usize,
    },
    /// Too many elements.
    #[error("the XML has more than {limit} elements")]
    TooManyNodes {
        /// The limit that was passed, in elements.
        limit: usize,
    },
    /// One element carries too many attributes.
    #[error("an element has more than {limit} attributes")]
    TooManyAttributes {
        /// The limit that was passed, in attributes.
        limit: usize,
    },
    /// One value is longer than its kind ever is.
    #[error("{field} is longer than {limit} bytes")]
    ValueTooLarge {
        /// The element or item.
        field: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Not UTF-8 (UTF-16 included: no enrollment client sends it), or declared as something else.
    #[error("the XML is not UTF-8")]
    Encoding,
    /// A document type declaration.
    #[error("the XML has a document type declaration")]
    Doctype,
    /// A reference to an entity that XML itself does not define.
    #[error("the XML refers to an entity that XML does not define")]
    Entity,
    /// A processing instruction.
    #[error("the XML contains a processing instruction")]
    ProcessingInstruction,
    /// The XML is wrong.
    #[error("the XML is malformed: {0}")]
    Xml(&'static str),
    /// The XML is not a SOAP envelope with a body.
    #[error("the message is not a SOAP envelope: {0}")]
    NotAnEnvelope(&'static str),
    /// The body is none of the messages of MS-MDE2.
    #[error("the SOAP body holds no message that this service knows")]
    UnknownMessage,
    /// The `Action` header belongs to another message than the body.
    #[error("the SOAP action and the SOAP body do not fit each other")]
    ActionMismatch,
    /// An element or attribute without which the message has no meaning is absent.
    #[error("{message} lacks {field}")]
    Missing {
        /// The message or document.
        message: &'static str,
        /// The element, attribute or item.
        field: &'static str,
    },
    /// An element or attribute has an unusable value.
    #[error("{message} has an unusable {field}")]
    Bad {
        /// The message or document.
        message: &'static str,
        /// The element, attribute or item.
        field: &'static str,
    },
    /// An element or item that can only stand once stands twice: two readers could disagree on which counts.
    #[error("{field} stands more than once")]
    Repeated {
        /// The element or item.
        field: &'static str,
    },
    /// An identifier of the device, account or installation cannot be used as one.
    #[error("the identifier {field} is unusable: {reason}")]
    BadIdentifier {
        /// Where it stood.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The security header cannot be understood: an unknown token, or more than one credential.
    #[error("the security header is unusable: {0}")]
    Security(&'static str),
    /// The certificate request of a `RequestSecurityToken` cannot be unwrapped.
    #[error("the certificate request is unusable: {0}")]
    CertificateRequest(&'static str),
    /// A provisioning document that a machine would refuse.
    #[error("the provisioning document is unusable: {0}")]
    Provisioning(&'static str),
    /// The value to be written cannot stand in the message.
    #[error("the message cannot be written: {0}")]
    NotWritable(&'static str),
    /// An e-mail address, host name or URL that enrollment cannot use.
    #[error("the address is unusable: {0}")]
    Address(&'static str),
    /// A return address that is not on the list of allowed ones.
    #[error("the return address is refused: {0}")]
    Redirect(&'static str),
}

impl Error {
    /// The subcode of MS-MDE2 2.2.10 that answers this error.
    #[must_use]
    pub fn subcode(&self) -> Subcode {
        match self {
            Self::Security(_) => Subcode::InvalidSecurity,
            Self::CertificateRequest(_) => Subcode::CertificateRequest,
            Self::Provisioning(_) | Self::NotWritable(_) => Subcode::InternalServiceFault,
            _ => Subcode::MessageFormat,
        }
    }

    /// The fault that answers this error; `trace_id` is our request id.
    #[must_use]
    pub fn fault(&self, trace_id: impl Into<String>) -> Fault {
        Fault::new(self.subcode(), self.to_string(), trace_id)
    }
}
