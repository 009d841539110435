//! The one error type of this crate.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and whose fault it is.
///
/// Variants that describe a peer's message carry no bytes of that message, so that they can be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// OpenSSL refused: no randomness, no memory, or an operation a key cannot do.
    #[error("the cryptographic library refused: {0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
    /// The bytes are not what they should be. The sender's fault.
    #[error("malformed {what}")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// The input is longer than this server reads.
    #[error("input of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// ASN.1 nested deeper than [`crate::asn1::MAX_DEPTH`].
    #[error("ASN.1 nested too deeply")]
    TooDeep,
    /// ASN.1 that is well-formed but goes on after its end.
    #[error("data after the end of the {what}")]
    TrailingData {
        /// What was being read.
        what: &'static str,
    },
    /// An algorithm this server does not accept.
    #[error("algorithm not accepted: {what}")]
    Algorithm {
        /// Which use of an algorithm.
        what: &'static str,
    },
    /// A signature or message digest does not match.
    #[error("signature does not verify: {what}")]
    Signature {
        /// Which check failed.
        what: &'static str,
    },
    /// A key is too weak, of the wrong kind, or does not belong to the certificate beside it.
    #[error("key refused: {reason}")]
    Key {
        /// What is wrong and what would be right.
        reason: &'static str,
    },
    /// A request to issue something that the template forbids. The caller's fault.
    #[error("will not issue: {reason}")]
    Template {
        /// Which rule.
        reason: &'static str,
    },
    /// A sealed blob was made with another key: wrong master key, or a blob of another site.
    #[error("sealed with another key (the blob names key {blob}, this one is {ours})")]
    WrongKey {
        /// Key id in the blob, hex.
        blob: String,
        /// Key id of the key at hand, hex.
        ours: String,
    },
    /// A sealed blob does not open: changed, moved to another row or field, or cut short.
    #[error("sealed blob does not open in this place")]
    Unsealable,
    /// An imported push certificate cannot be used; the text tells the administrator what to do.
    #[error("push certificate refused: {reason}")]
    PushCert {
        /// What is wrong and what to do.
        reason: String,
    },
}

impl Error {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::Malformed { what }
    }
}
