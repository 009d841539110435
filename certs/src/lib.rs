//! Keys, certificate authorities, issuing templates, CMS and sealing.
//!
//! Everything here is pure: time is an argument (milliseconds since the Unix epoch, UTC), there is no
//! input or output, and no function panics on any input. All cryptography is OpenSSL's; what OpenSSL's
//! Rust binding does not offer (signed attributes, certificate revocation lists, name constraints) is
//! encoded with the small bounded codec of [`asn1`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`hash`] | digests, HMAC, HKDF, constant-time comparison, random bytes, hex |
//! | [`keys`] | private and public keys, signatures, which keys a device may have |
//! | [`seal`] | master key, site keys, sealed blobs, the audit signing key |
//! | [`stream`] | sealing what is too long for one blob, chunk by chunk |
//! | [`cert`] | reading certificates, PEM, "was this issued by that" |
//! | [`ca`] | the device CA and the TLS CA, and the only templates certificates are made from |
//! | [`csr`] | reading and building PKCS#10 requests |
//! | [`cms`] | `Mdm-Signature`, signed profiles, enveloped data |
//! | [`jwt`] | tokens of Entra ID: verifying them against a set of public keys |
//! | [`push`] | importing an Apple push certificate |

pub mod asn1;
pub mod ca;
pub mod cert;
pub mod cms;
pub mod csr;
mod error;
pub mod hash;
pub mod jwt;
pub mod keys;
mod oid;
pub mod push;
pub mod seal;
pub mod stream;

pub use error::{Error, Result};
pub use keys::KeyPair;
pub use oid::Oid;
