//! Base64 as Windows writes it, and the two kinds of request that it wraps.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::Error;

/// A DER `SEQUENCE`.
const SEQUENCE: u8 = 0x30;
/// The longest certificate request or signed request, in bytes. Real ones stay below 8 KiB.
const MAX_REQUEST: usize = 64 * 1024;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes Base64 that may contain line breaks and spaces, and may lack its padding.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let compact: zeroize::Zeroizing<Vec<u8>> =
        text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>().into();
    LENIENT.decode(compact.as_slice()).ok()
}

/// Base64 of DER, or Base64 of Base64 of DER: a renewal that a person started is wrapped twice.
pub(super) fn decode_der(text: &str) -> Result<Vec<u8>, Error> {
    let wrong = Error::CertificateRequest("it is not Base64 of a DER sequence");
    let once = decode(text).ok_or_else(|| wrong.clone())?;
    let der = if once.first() == Some(&SEQUENCE) {
        once
    } else {
        let inner = std::str::from_utf8(&once).map_err(|_| wrong.clone())?;
        decode(inner).ok_or_else(|| wrong.clone())?
    };
    check_der(&der)?;
    Ok(der)
}

fn check_der(der: &[u8]) -> Result<(), Error> {
    if der.len() > MAX_REQUEST {
        return Err(Error::CertificateRequest("it is too long"));
    }
    if der.first() != Some(&SEQUENCE) || der.len() < 2 {
        return Err(Error::CertificateRequest("it is not Base64 of a DER sequence"));
    }
    Ok(())
}

/// A PKCS#10 certificate request: raw DER, not looked into.
///
/// Windows puts an illegal `!` (and in some builds a NUL) into a `PrintableString` of the subject: verify the
/// signature over these bytes as they are and take nothing but the public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs10(Vec<u8>);

/// A CMS `SignedData` around a PKCS#10 request, signed by the key that is to be replaced: raw BER or DER, not
/// looked into (MS-WSTEP 3.1.4.1.2.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs7(Vec<u8>);

impl Pkcs10 {
    /// Wraps DER.
    ///
    /// # Errors
    /// [`Error::CertificateRequest`] when it is no sequence or too long.
    pub fn new(der: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let der = der.into();
        check_der(&der).map(|()| Self(der))
    }

    /// The bytes.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

impl Pkcs7 {
    /// Wraps DER.
    ///
    /// # Errors
    /// [`Error::CertificateRequest`] when it is no sequence or too long.
    pub fn new(der: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let der = der.into();
        check_der(&der).map(|()| Self(der))
    }

    /// The bytes.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}
