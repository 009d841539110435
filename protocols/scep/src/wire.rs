//! Names and numbers of RFC 8894 §3.2.1, and reading them from signed attributes.

use bellwether_certs::cms::{Attribute, Attributes};
use bellwether_certs::{Oid, asn1};

/// 2.16.840.1.113733.1.9.2
pub(crate) const MESSAGE_TYPE: Oid = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 2];
/// 2.16.840.1.113733.1.9.3
pub(crate) const PKI_STATUS: Oid = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 3];
/// 2.16.840.1.113733.1.9.4
pub(crate) const FAIL_INFO: Oid = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 4];
/// 2.16.840.1.113733.1.9.5
pub(crate) const SENDER_NONCE: Oid = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 5];
/// 2.16.840.1.113733.1.9.6
pub(crate) const RECIPIENT_NONCE: Oid = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 6];
/// 2.16.840.1.113733.1.9.7
pub(crate) const TRANSACTION_ID: Oid = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 7];

/// Longest transaction id that is read. RFC 8894 sets no limit; hex of SHA-512 has 128.
const MAX_TRANSACTION_ID: usize = 255;
/// Longest nonce that is read. RFC 8894 §3.2.1.5 says 16 bytes; some clients send others.
const MAX_NONCE: usize = 64;

/// The message types this server answers (RFC 8894 §3.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// 19: first enrollment, authorised by a challenge.
    PkcsReq,
    /// 17: renewal, authorised by the certificate that signs.
    RenewalReq,
}

impl MessageType {
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        match text {
            "19" => Some(Self::PkcsReq),
            "17" => Some(Self::RenewalReq),
            _ => None,
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::PkcsReq => "19",
            Self::RenewalReq => "17",
        }
    }
}

/// Why a request failed (RFC 8894 §3.2.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailInfo {
    /// 0: unrecognised or unsupported algorithm.
    BadAlg,
    /// 1: integrity check (signature, encryption) failed.
    BadMessageCheck,
    /// 2: the transaction is not permitted or not supported.
    BadRequest,
    /// 3: the signing time is too far from the server's.
    BadTime,
    /// 4: no certificate matches.
    BadCertId,
}

impl FailInfo {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::BadAlg => "0",
            Self::BadMessageCheck => "1",
            Self::BadRequest => "2",
            Self::BadTime => "3",
            Self::BadCertId => "4",
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        [Self::BadAlg, Self::BadMessageCheck, Self::BadRequest, Self::BadTime, Self::BadCertId]
            .into_iter()
            .find(|info| info.text() == text)
    }
}

/// A PrintableString attribute.
pub(crate) fn text(oid: Oid, value: &str) -> Attribute {
    Attribute { oid, value: asn1::tlv(0x13, &[value.as_bytes()]) }
}

/// An OCTET STRING attribute.
pub(crate) fn octets(oid: Oid, value: &[u8]) -> Attribute {
    Attribute { oid, value: asn1::octets(value) }
}

/// Reads a string attribute; some clients write UTF8String or IA5String where PrintableString belongs.
pub(crate) fn read_text(attributes: &Attributes<'_>, oid: Oid) -> Option<String> {
    let value = attributes.one(oid).ok().flatten()?;
    let fits = matches!(value.tag, 0x0c | 0x13 | 0x16)
        && (1..=MAX_TRANSACTION_ID).contains(&value.content.len())
        && value.content.iter().all(|b| (0x20..0x7f).contains(b));
    if fits { String::from_utf8(value.content.to_vec()).ok() } else { None }
}

/// Reads a nonce attribute.
pub(crate) fn read_nonce(attributes: &Attributes<'_>, oid: Oid) -> Option<Vec<u8>> {
    let value = attributes.one(oid).ok().flatten()?;
    (value.tag == 0x04 && (1..=MAX_NONCE).contains(&value.content.len())).then(|| value.content.to_vec())
}
