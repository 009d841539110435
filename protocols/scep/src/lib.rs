//! SCEP (RFC 8894), both sides, without any input or output.
//!
//! The server side takes the bytes of a `PKIOperation` and says what they ask for ([`server::decode`]); the
//! caller decides (challenge, renewal, revocation), issues, records the certificate durably, and only then
//! asks for the answer ([`server::success`] or [`server::failure`]). The client side ([`client`]) is what the
//! device simulator speaks. Time, nonces and randomness for identifiers are arguments; OpenSSL draws the
//! content keys and initialization vectors of envelopes.
//!
//! What this server accepts: `PKCSReq` and `RenewalReq` only (VU#971035 and CVE-2026-30836 came from message
//! types that skipped authorization), RSA signers (the answer is encrypted to them), AES and three-key triple
//! DES, SHA-1 (the default of old clients and of Apple's), SHA-256, SHA-384 and SHA-512.

pub mod client;
mod error;
mod query;
pub mod server;
mod wire;

pub use error::{Error, Result};
pub use query::{Operation, ca_cert_reply, parse_get_message, parse_query};
pub use wire::{FailInfo, MessageType};

/// The answer to `GetCACaps` (RFC 8894 §3.5.2).
///
/// SHA-1 is not offered although old clients' SHA-1 requests are accepted: a client that reads this list can
/// do better. `SCEPStandard` already implies AES, POSTPKIOperation and SHA-256, but older clients
/// (macOS) look for the single words. SHA-384 is no word of RFC 8894, but true; strongSwan 5.9.8 numbers its
/// list wrongly and believes in `SCEPStandard` only where it finds `SHA-384`.
pub const CAPS: &str = "AES\nDES3\nPOSTPKIOperation\nRenewal\nSHA-256\nSHA-384\nSHA-512\nSCEPStandard\n";

/// Content type of [`CAPS`].
pub const CAPS_CONTENT_TYPE: &str = "text/plain";
/// Content type of [`ca_cert_reply`].
pub const CA_CERT_CONTENT_TYPE: &str = "application/x-x509-ca-cert";
/// Content type of every `PKIOperation` answer, failures included; the HTTP status is always 200.
pub const MESSAGE_CONTENT_TYPE: &str = "application/x-pki-message";

/// Largest `PKIOperation` that is read. Real ones have 2 to 6 KiB.
pub const MAX_MESSAGE: usize = 256 * 1024;

#[cfg(test)]
mod tests;
