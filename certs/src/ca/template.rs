//! Encoding of a certificate from a template (RFC 5280 §4.1).

use std::net::IpAddr;

use crate::asn1::{self, Reader};
use crate::error::{Error, Result};
use crate::hash::Digest;
use crate::keys::KeyPair;
use crate::oid::{self, Oid};

pub(super) const DAY: i64 = 24 * 60 * 60 * 1000;

/// One extension of a certificate.
pub(super) struct Extension {
    pub(super) critical: bool,
    pub(super) oid: Oid,
    pub(super) value: Vec<u8>,
}

impl Extension {
    pub(super) const fn critical(oid: Oid, value: Vec<u8>) -> Self {
        Self { critical: true, oid, value }
    }

    pub(super) const fn plain(oid: Oid, value: Vec<u8>) -> Self {
        Self { critical: false, oid, value }
    }
}

/// Everything a certificate says.
pub(super) struct Template<'a> {
    pub(super) serial: &'a [u8],
    pub(super) issuer_der: &'a [u8],
    pub(super) not_before_ms: i64,
    pub(super) not_after_ms: i64,
    pub(super) subject_cn: Option<&'a str>,
    pub(super) spki_der: &'a [u8],
    pub(super) extensions: Vec<Extension>,
}

impl Template<'_> {
    /// Encodes and signs with SHA-256.
    pub(super) fn sign(&self, issuer: &KeyPair) -> Result<Vec<u8>> {
        let algorithm = issuer.signature_algorithm(Digest::Sha256)?;
        let tbs = asn1::seq(&[
            &asn1::tlv(0xa0, &[&asn1::integer(&[2])]),
            &asn1::integer(self.serial),
            &algorithm,
            self.issuer_der,
            &asn1::seq(&[&asn1::time(self.not_before_ms)?, &asn1::time(self.not_after_ms)?]),
            &self.subject_cn.map_or_else(|| asn1::seq(&[]), name),
            self.spki_der,
            &asn1::tlv(0xa3, &[&extensions(&self.extensions)]),
        ]);
        let signature = issuer.sign_sha256(&tbs)?;
        Ok(asn1::seq(&[&tbs, &algorithm, &asn1::bits(&signature)]))
    }
}

/// Encodes `Extensions`.
pub(super) fn extensions(list: &[Extension]) -> Vec<u8> {
    let encoded: Vec<Vec<u8>> = list
        .iter()
        .map(|e| {
            let critical = if e.critical { asn1::tlv(0x01, &[&[0xff]]) } else { Vec::new() };
            asn1::seq(&[&asn1::oid(e.oid), &critical, &asn1::octets(&e.value)])
        })
        .collect();
    let refs: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    asn1::seq(&refs)
}

/// A distinguished name with nothing but a common name (UTF8String).
pub(crate) fn name(cn: &str) -> Vec<u8> {
    let attribute = asn1::seq(&[&asn1::oid(oid::COMMON_NAME), &asn1::tlv(0x0c, &[cn.as_bytes()])]);
    asn1::seq(&[&asn1::tlv(0x31, &[&attribute])])
}

/// The key identifier: SHA-1 of the key bits (RFC 5280 §4.2.1.2, method 1). A name, not a security property.
pub(super) fn key_id(spki_der: &[u8]) -> Result<Vec<u8>> {
    let mut spki = Reader::new(spki_der).expect(0x30, "public key")?.reader();
    spki.next("public key")?;
    let bits = spki.expect(0x03, "public key")?.content;
    let (_, key) = bits.split_first().ok_or(Error::malformed("public key"))?;
    Ok(Digest::Sha1.of(key))
}

/// `KeyUsage` from bit numbers (RFC 5280 §4.2.1.3); all the bits we use are in the first byte.
pub(super) fn usage(bits: &[u32]) -> Vec<u8> {
    let byte = bits.iter().fold(0_u8, |byte, bit| byte | 0x80_u8.checked_shr(*bit).unwrap_or(0));
    let unused = u8::try_from(byte.trailing_zeros().min(7)).unwrap_or(0);
    asn1::tlv(0x03, &[&[unused, byte]])
}

/// `SubjectAltName` from DNS names and IP literals.
pub(super) fn subject_alt_names(names: &[String]) -> Result<Vec<u8>> {
    if names.is_empty() {
        return Err(Error::Template { reason: "a server certificate needs at least one name" });
    }
    let mut encoded = Vec::with_capacity(names.len());
    for name in names {
        let literal = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        encoded.push(match literal.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => asn1::tlv(0x87, &[&ip.octets()]),
            Ok(IpAddr::V6(ip)) => asn1::tlv(0x87, &[&ip.octets()]),
            Err(_) if is_dns_name(name) => asn1::tlv(0x82, &[name.as_bytes()]),
            Err(_) => {
                return Err(Error::Template { reason: "a name is neither a DNS name nor an IP address" });
            }
        });
    }
    let refs: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    Ok(asn1::seq(&refs))
}

fn is_dns_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253
        && labels.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
