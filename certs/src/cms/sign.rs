//! Building `SignedData` (RFC 5652 §5).

use super::verify::CertParts;
use crate::asn1;
use crate::error::Result;
use crate::hash::Digest;
use crate::keys::{KeyKind, KeyPair};
use crate::oid::{self, Oid};

/// A signed attribute with one value.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// The identifier, content octets.
    pub oid: Oid,
    /// The value, DER.
    pub value: Vec<u8>,
}

/// A `SignedData` message to be built. [`Builder::new`] gives the usual choices.
#[derive(Debug)]
pub struct Builder<'a> {
    /// What is signed.
    pub content: &'a [u8],
    /// Leave the content out of the message.
    pub detached: bool,
    /// The signer's certificate, DER.
    pub cert_der: &'a [u8],
    /// The signer's key.
    pub key: &'a KeyPair,
    /// More certificates to include, DER.
    pub chain: &'a [Vec<u8>],
    /// The digest to sign.
    pub digest: Digest,
    /// Attributes to sign beside content type and message digest; `None` signs the content itself.
    pub attributes: Option<Vec<Attribute>>,
    /// Write BER: indefinite lengths, and the content as a constructed octet string.
    pub ber_indefinite: bool,
}

impl<'a> Builder<'a> {
    /// Attached, SHA-256, no chain, no attributes, DER.
    #[must_use]
    pub const fn new(content: &'a [u8], cert_der: &'a [u8], key: &'a KeyPair) -> Self {
        Self {
            content,
            detached: false,
            cert_der,
            key,
            chain: &[],
            digest: Digest::Sha256,
            attributes: None,
            ber_indefinite: false,
        }
    }

    /// Signs and encodes.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] for an unreadable certificate, [`crate::Error::Algorithm`] for a key that
    /// cannot sign; otherwise only if OpenSSL fails.
    pub fn build(&self) -> Result<Vec<u8>> {
        let parts = CertParts::parse(self.cert_der)?;
        let null = asn1::tlv(0x05, &[]);
        let digest_algorithm = asn1::seq(&[&asn1::oid(self.digest.oid()), &null]);
        let (signed_attributes, signature) = self.sign()?;
        // RFC 5652 calls the RSA signature by the name of the key (RFC 3370 §3.2): every reader knows that.
        let algorithm = match self.key.kind() {
            KeyKind::Rsa { .. } => asn1::seq(&[&asn1::oid(oid::RSA_ENCRYPTION), &null]),
            _ => self.key.signature_algorithm(self.digest)?,
        };
        let signer = asn1::seq(&[
            &asn1::integer(&[1]),
            &asn1::seq(&[parts.issuer.raw, parts.serial.raw]),
            &digest_algorithm,
            &signed_attributes,
            &algorithm,
            &asn1::octets(&signature),
        ]);
        let mut certificates = vec![self.cert_der];
        certificates.extend(self.chain.iter().map(Vec::as_slice));
        let content = if self.detached { Vec::new() } else { self.encapsulate() };
        Ok(self.signed_data(&[
            &asn1::integer(&[1]),
            &asn1::tlv(0x31, &[&digest_algorithm]),
            &self.wrap(0x30, &[&asn1::oid(oid::DATA), &content]),
            &self.wrap(0xa0, &certificates),
            &asn1::tlv(0x31, &[&signer]),
        ]))
    }

    /// The signed attributes as they stand in the message (empty if there are none), and the signature.
    fn sign(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let Some(more) = &self.attributes else {
            return Ok((Vec::new(), self.key.sign(self.digest, self.content)?));
        };
        let attribute = |id: Oid, value: &[u8]| asn1::seq(&[&asn1::oid(id), &asn1::tlv(0x31, &[value])]);
        let mut list = vec![
            attribute(oid::CONTENT_TYPE, &asn1::oid(oid::DATA)),
            attribute(oid::MESSAGE_DIGEST, &asn1::octets(&self.digest.of(self.content))),
        ];
        list.extend(more.iter().map(|a| attribute(a.oid, &a.value)));
        let set = asn1::set_of(list);
        let signature = self.key.sign(self.digest, &set)?;
        // Signed as SET OF (0x31), sent as [0] IMPLICIT (0xA0): RFC 5652 §5.4.
        let mut sent = set;
        if let Some(tag) = sent.first_mut() {
            *tag = 0xa0;
        }
        Ok((sent, signature))
    }

    fn encapsulate(&self) -> Vec<u8> {
        if !self.ber_indefinite {
            return asn1::tlv(0xa0, &[&asn1::octets(self.content)]);
        }
        let chunks: Vec<Vec<u8>> = self.content.chunks(1000).map(asn1::octets).collect();
        let refs: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        self.wrap(0xa0, &[&self.wrap(0x24, &refs)])
    }

    fn signed_data(&self, parts: &[&[u8]]) -> Vec<u8> {
        let data = self.wrap(0x30, parts);
        self.wrap(0x30, &[&asn1::oid(oid::SIGNED_DATA), &self.wrap(0xa0, &[&data])])
    }

    fn wrap(&self, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        if !self.ber_indefinite {
            return asn1::tlv(tag, parts);
        }
        let mut out = vec![tag, 0x80];
        parts.iter().for_each(|p| out.extend_from_slice(p));
        out.extend_from_slice(&[0, 0]);
        out
    }
}

/// A message without content or signature that only carries certificates ("degenerate", RFC 5652 §5.2).
#[must_use]
pub fn certs_only<D: AsRef<[u8]>>(ders: &[D]) -> Vec<u8> {
    let certificates: Vec<&[u8]> = ders.iter().map(AsRef::as_ref).collect();
    let data = asn1::seq(&[
        &asn1::integer(&[1]),
        &asn1::tlv(0x31, &[]),
        &asn1::seq(&[&asn1::oid(oid::DATA)]),
        &asn1::tlv(0xa0, &certificates),
        &asn1::tlv(0x31, &[]),
    ]);
    asn1::seq(&[&asn1::oid(oid::SIGNED_DATA), &asn1::tlv(0xa0, &[&data])])
}
