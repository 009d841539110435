//! The one error type of this crate.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong while building a message, reading a query, or reading the server's answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The certificate and CMS layer refused.
    #[error(transparent)]
    Certs(#[from] bellwether_certs::Error),
    /// The request line or query is not SCEP. The client's fault.
    #[error("not a SCEP request: {reason}")]
    Query {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server's answer does not fit the request, or breaks RFC 8894. Seen by clients only.
    #[error("the SCEP server's answer is wrong: {reason}")]
    Reply {
        /// What is wrong with it.
        reason: &'static str,
    },
}
