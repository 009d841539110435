//! Cryptographic Message Syntax (RFC 5652): `Mdm-Signature`, signed profiles, enveloped data.
//!
//! Real Apple devices send BER with indefinite lengths, SHA-1 and no signed attributes; simulators and
//! other clients send DER with signed attributes (apple.md §2.2). Both verify here. Verification says who
//! signed and that the bytes are what was signed; whether that certificate chains to one of our CAs, is
//! current, revoked or pinned is the caller's question. OpenSSL's own CMS verifier is not used: it cannot
//! show signed attributes, and its security level and purpose checks refuse what devices really send.

mod envelope;
mod sign;
mod verify;

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use crate::asn1::{guard_ber, to_definite};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::keys::KeyPair;
pub use envelope::{ContentCipher, decrypt, encrypt, encrypt_indefinite};
pub use sign::{Attribute, Builder, certs_only};
pub use verify::{Attributes, SignedData, Verified};

/// Largest detached signature that is read. Real ones have 2 to 4 KiB.
pub const MAX_DETACHED: usize = 64 * 1024;
/// Largest signed message with content (a profile with embedded files) that is read.
pub const MAX_ATTACHED: usize = 16 * 1024 * 1024;

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The signer's certificate as it stood in the message.
    pub cert_der: Vec<u8>,
    /// The claimed time of signing, milliseconds since the Unix epoch. Devices with a slow clock claim a
    /// time before their certificate begins.
    pub signing_time_ms: Option<i64>,
    /// The digest that was signed.
    pub digest: Digest,
    /// Whether signed attributes were present (real devices send none).
    pub had_signed_attributes: bool,
}

/// How [`sign_detached`] writes its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The digest to sign.
    pub digest: Digest,
    /// Whether to sign attributes (content type and message digest).
    pub signed_attributes: bool,
    /// Whether to write BER with indefinite lengths.
    pub ber_indefinite: bool,
}

impl Shape {
    /// What real iPhones and Macs send.
    pub const DEVICE: Self = Self { digest: Digest::Sha1, signed_attributes: false, ber_indefinite: true };
    /// What the iPhone simulator and well-behaved libraries send.
    pub const MODERN: Self = Self { digest: Digest::Sha256, signed_attributes: true, ber_indefinite: false };
}

/// Verifies a detached signature (BER or DER) over `body`: exactly one signer, whose certificate is inside.
/// Dates and chains are not looked at.
///
/// # Errors
/// [`Error::Signature`] when it does not verify; [`Error::Algorithm`]; [`Error::Malformed`] and the limits.
pub fn verify_detached(signature: &[u8], body: &[u8]) -> Result<Signer> {
    let definite = to_definite(signature, MAX_DETACHED)?;
    let signed = SignedData::parse(&definite)?;
    if signed.content().is_some_and(|content| content != body) {
        return Err(Error::Signature { what: "the signature brings other content with it" });
    }
    Ok(signed.verify(body)?.signer())
}

/// Verifies a message that contains what was signed; returns the content and the signer.
///
/// # Errors
/// As [`verify_detached`]; also when there is no content.
pub fn verify_attached(message: &[u8]) -> Result<(Vec<u8>, Signer)> {
    let definite = to_definite(message, MAX_ATTACHED)?;
    let signed = SignedData::parse(&definite)?;
    let content = signed.content().ok_or(Error::malformed("signed message: no content"))?;
    Ok((content.to_vec(), signed.verify(content)?.signer()))
}

/// The profile inside a signed mobileconfig, or the input itself if it is not signed. Nothing is verified.
///
/// # Errors
/// [`Error::Malformed`] and the limits, if the input looks like CMS and is none.
pub fn strip_signature(mobileconfig: &[u8]) -> Result<Cow<'_, [u8]>> {
    if mobileconfig.first() != Some(&0x30) {
        return Ok(Cow::Borrowed(mobileconfig));
    }
    let definite = to_definite(mobileconfig, MAX_ATTACHED)?;
    let content = SignedData::parse(&definite)?.content().map(<[u8]>::to_vec);
    content.map(Cow::Owned).ok_or(Error::malformed("signed profile: no content"))
}

/// Signs a profile: content attached, SHA-256, signed attributes, the chain included.
///
/// # Errors
/// [`Error::Malformed`] for an unreadable certificate; otherwise only if OpenSSL fails.
pub fn sign_attached(content: &[u8], cert_der: &[u8], key: &KeyPair, chain: &[Vec<u8>]) -> Result<Vec<u8>> {
    Builder { chain, attributes: Some(Vec::new()), ..Builder::new(content, cert_der, key) }.build()
}

/// Signs `content` without including it, as devices do for `Mdm-Signature`.
///
/// # Errors
/// As [`sign_attached`].
pub fn sign_detached(content: &[u8], cert_der: &[u8], key: &KeyPair, shape: Shape) -> Result<Vec<u8>> {
    Builder {
        detached: true,
        digest: shape.digest,
        attributes: shape.signed_attributes.then(Vec::new),
        ber_indefinite: shape.ber_indefinite,
        ..Builder::new(content, cert_der, key)
    }
    .build()
}

/// Decodes the value of an `Mdm-Signature` header: base64, with or without padding, no longer than
/// [`MAX_DETACHED`] when decoded.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::Malformed`].
pub fn decode_mdm_signature_header(value: &str) -> Result<Vec<u8>> {
    const LIMIT: usize = MAX_DETACHED / 3 * 4 + 4;
    const TOLERANT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let value = value.trim();
    if value.len() > LIMIT {
        return Err(Error::TooLarge { len: value.len(), limit: LIMIT });
    }
    TOLERANT.decode(value).map_err(|_| Error::malformed("Mdm-Signature header"))
}

#[cfg(test)]
mod tests;
