//! Reading and verifying `SignedData` (RFC 5652 §5).

use crate::asn1::{self, Reader, Tlv};
use crate::cms::Signer;
use crate::error::{Error, Result};
use crate::hash::{Digest, ct_eq};
use crate::keys::{KeyKind, PublicKey, signature_algorithm};
use crate::oid;

/// More certificates than this in one message are an attack.
const MAX_CERTS: usize = 32;
/// More signed attributes than this are an attack. SCEP uses eight.
const MAX_ATTRIBUTES: usize = 64;

/// A parsed `SignedData` with one signer or none.
#[derive(Debug)]
pub struct SignedData<'a> {
    content_type: &'a [u8],
    content: Option<&'a [u8]>,
    certificates: Vec<&'a [u8]>,
    signer: Option<SignerInfo<'a>>,
}

/// A verified signature.
#[derive(Debug)]
pub struct Verified<'a> {
    /// The signer's certificate, DER.
    pub cert_der: &'a [u8],
    /// The digest that was signed.
    pub digest: Digest,
    /// The signed attributes, if there were any.
    pub attributes: Option<Attributes<'a>>,
}

/// Signed attributes.
#[derive(Debug)]
pub struct Attributes<'a> {
    /// Identifier and contents of the SET of values.
    list: Vec<(&'a [u8], &'a [u8])>,
}

#[derive(Debug)]
struct SignerInfo<'a> {
    id: Tlv<'a>,
    digest: &'a [u8],
    attributes: Option<Tlv<'a>>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> SignedData<'a> {
    /// Reads a `ContentInfo` with `SignedData` inside, in definite-length form
    /// (see [`to_definite`](crate::asn1::to_definite)).
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TrailingData`].
    pub fn parse(definite: &'a [u8]) -> Result<Self> {
        const WHAT: &str = "signed message";
        let mut input = Reader::new(definite);
        let mut info = input.expect(0x30, WHAT)?.reader();
        input.finish(WHAT)?;
        if info.expect(0x06, WHAT)?.content != oid::SIGNED_DATA {
            return Err(Error::malformed("signed message: other content type"));
        }
        let mut wrapper = info.expect(0xa0, WHAT)?.reader();
        info.finish(WHAT)?;
        let mut data = wrapper.expect(0x30, WHAT)?.reader();
        wrapper.finish(WHAT)?;

        data.expect(0x02, WHAT)?;
        data.expect(0x31, WHAT)?;
        let mut encapsulated = data.expect(0x30, WHAT)?.reader();
        let content_type = encapsulated.expect(0x06, WHAT)?.content;
        let content = match encapsulated.optional(0xa0, WHAT)? {
            None => None,
            Some(explicit) => {
                let mut explicit = explicit.reader();
                let octets = explicit.expect(0x04, WHAT)?.content;
                explicit.finish(WHAT)?;
                Some(octets)
            }
        };
        encapsulated.finish(WHAT)?;
        let certificates = match data.optional(0xa0, WHAT)? {
            None => Vec::new(),
            Some(set) => read_certificates(set.reader())?,
        };
        data.optional(0xa1, WHAT)?;
        let mut signers = data.expect(0x31, WHAT)?.reader();
        data.finish(WHAT)?;
        let signer = match signers.optional(0x30, WHAT)? {
            None => None,
            Some(info) => Some(SignerInfo::parse(info.reader())?),
        };
        if !signers.is_empty() {
            return Err(Error::malformed("signed message: more than one signer"));
        }
        Ok(Self { content_type, content, certificates, signer })
    }

    /// The content, if it is inside.
    #[must_use]
    pub const fn content(&self) -> Option<&'a [u8]> {
        self.content
    }

    /// All certificates of the message, DER, in order.
    #[must_use]
    pub fn certificates(&self) -> &[&'a [u8]] {
        &self.certificates
    }

    /// The signed attributes before anything was verified: enough to answer a message that does not verify.
    #[must_use]
    pub fn unverified_attributes(&self) -> Option<Attributes<'a>> {
        Attributes::parse(self.signer.as_ref()?.attributes.as_ref()?).ok()
    }

    /// Verifies the one signature over `content` with the certificate inside the message.
    ///
    /// With signed attributes, content type and message digest must each be there once and match
    /// (RFC 5652 §5.4, §11.1, §11.2); the signature then covers the attributes as a SET OF.
    ///
    /// # Errors
    /// [`Error::Signature`], [`Error::Algorithm`], [`Error::Malformed`].
    pub fn verify(&self, content: &[u8]) -> Result<Verified<'a>> {
        let signer = self.signer.as_ref().ok_or(Error::malformed("signed message: no signer"))?;
        let digest = Digest::from_oid(signer.digest).ok_or(Error::Algorithm { what: "message digest" })?;
        let (rsa, named) = signature_algorithm(signer.algorithm)?;
        if named.is_some_and(|named| named != digest) {
            return Err(Error::Algorithm { what: "the signature names another digest than the message" });
        }
        let cert_der = self.find_certificate(&signer.id)?;
        let key = PublicKey::from_spki(CertParts::parse(cert_der)?.spki)?;
        match key.kind() {
            KeyKind::Rsa { bits } if rsa && bits <= 8192 => {}
            KeyKind::P256 | KeyKind::P384 if !rsa => {}
            _ => return Err(Error::Algorithm { what: "the signer's key does not fit its signature" }),
        }
        let attributes = signer.attributes.as_ref().map(Attributes::parse).transpose()?;
        let good = match (&signer.attributes, &attributes) {
            (Some(raw), Some(attributes)) => {
                self.check_attributes(attributes, digest, content)?;
                key.verify(digest, &asn1::tlv(0x31, &[raw.content]), signer.signature)
            }
            _ if self.content_type == oid::DATA => key.verify(digest, content, signer.signature),
            // RFC 5652 §5.3: other content types must sign attributes.
            _ => return Err(Error::malformed("signed message: signed attributes are missing")),
        };
        if !good {
            return Err(Error::Signature { what: "the signer's key did not sign this" });
        }
        Ok(Verified { cert_der, digest, attributes })
    }

    fn check_attributes(&self, attributes: &Attributes<'a>, digest: Digest, content: &[u8]) -> Result<()> {
        let content_type = attributes.one(oid::CONTENT_TYPE)?;
        if !content_type.is_some_and(|t| t.tag == 0x06 && t.content == self.content_type) {
            return Err(Error::Signature { what: "the signed content type is missing or differs" });
        }
        let claimed = attributes.one(oid::MESSAGE_DIGEST)?;
        if !claimed.is_some_and(|d| d.tag == 0x04 && ct_eq(d.content, &digest.of(content))) {
            return Err(Error::Signature { what: "the message digest is missing or differs" });
        }
        Ok(())
    }

    fn find_certificate(&self, id: &Tlv<'a>) -> Result<&'a [u8]> {
        let found = self.certificates.iter().find(|der| CertParts::parse(der).is_ok_and(|c| c.is(id)));
        found.copied().ok_or(Error::malformed("signed message: the signer's certificate is missing"))
    }
}

impl Verified<'_> {
    /// The owned summary.
    #[must_use]
    pub fn signer(&self) -> Signer {
        let time = self.attributes.as_ref().and_then(|a| a.one(oid::SIGNING_TIME).ok().flatten());
        Signer {
            cert_der: self.cert_der.to_vec(),
            signing_time_ms: time.as_ref().and_then(asn1::parse_time),
            digest: self.digest,
            had_signed_attributes: self.attributes.is_some(),
        }
    }
}

impl<'a> Attributes<'a> {
    fn parse(set: &Tlv<'a>) -> Result<Self> {
        const WHAT: &str = "signed attributes";
        let mut input = set.reader();
        let mut list = Vec::new();
        while !input.is_empty() {
            let mut attribute = input.expect(0x30, WHAT)?.reader();
            let id = attribute.expect(0x06, WHAT)?.content;
            let values = attribute.expect(0x31, WHAT)?.content;
            attribute.finish(WHAT)?;
            if list.len() == MAX_ATTRIBUTES {
                return Err(Error::malformed("signed attributes: too many"));
            }
            list.push((id, values));
        }
        Ok(Self { list })
    }

    /// The one value of an attribute, `None` if the attribute is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the attribute comes twice or has not exactly one value.
    pub fn one(&self, id: &[u8]) -> Result<Option<Tlv<'a>>> {
        const WHAT: &str = "signed attribute";
        let mut found = self.list.iter().filter(|(name, _)| *name == id);
        let Some((_, values)) = found.next() else { return Ok(None) };
        let mut values = Reader::new(values);
        let value = values.next(WHAT)?;
        if found.next().is_some() || !values.is_empty() {
            return Err(Error::malformed("signed attribute: more than one value"));
        }
        Ok(Some(value))
    }
}

impl<'a> SignerInfo<'a> {
    fn parse(mut info: Reader<'a>) -> Result<Self> {
        const WHAT: &str = "signer info";
        info.expect(0x02, WHAT)?;
        let id = info.next(WHAT)?;
        let digest = info.expect(0x30, WHAT)?.reader().expect(0x06, WHAT)?.content;
        let attributes = info.optional(0xa0, WHAT)?;
        let algorithm = info.expect(0x30, WHAT)?.content;
        let signature = info.expect(0x04, WHAT)?.content;
        info.optional(0xa1, WHAT)?;
        info.finish(WHAT)?;
        Ok(Self { id, digest, attributes, algorithm, signature })
    }
}

fn read_certificates(mut set: Reader<'_>) -> Result<Vec<&[u8]>> {
    let mut out = Vec::new();
    while !set.is_empty() {
        let choice = set.next("certificates of a message")?;
        // The other choices of RFC 5652 §10.2.2 are attribute certificates.
        if choice.tag == 0x30 {
            out.push(choice.raw);
        }
        if out.len() > MAX_CERTS {
            return Err(Error::malformed("signed message: too many certificates"));
        }
    }
    Ok(out)
}

/// The fields of a certificate by which messages point at it.
pub(super) struct CertParts<'a> {
    pub(super) serial: Tlv<'a>,
    pub(super) issuer: Tlv<'a>,
    pub(super) spki: &'a [u8],
    key_id: Option<&'a [u8]>,
}

impl<'a> CertParts<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self> {
        const WHAT: &str = "certificate in a message";
        let mut tbs = Reader::new(der).expect(0x30, WHAT)?.reader().expect(0x30, WHAT)?.reader();
        tbs.optional(0xa0, WHAT)?;
        let serial = tbs.expect(0x02, WHAT)?;
        tbs.expect(0x30, WHAT)?;
        let issuer = tbs.expect(0x30, WHAT)?;
        tbs.expect(0x30, WHAT)?;
        tbs.expect(0x30, WHAT)?;
        let spki = tbs.expect(0x30, WHAT)?.raw;
        tbs.optional(0x81, WHAT)?;
        tbs.optional(0x82, WHAT)?;
        let key_id = match tbs.optional(0xa3, WHAT)? {
            None => None,
            Some(explicit) => subject_key_id(explicit.reader().expect(0x30, WHAT)?.reader())?,
        };
        Ok(Self { serial, issuer, spki, key_id })
    }

    /// Whether a `SignerIdentifier` or `RecipientIdentifier` (RFC 5652 §5.3, §6.2.1) means this one.
    pub(super) fn is(&self, id: &Tlv<'_>) -> bool {
        match id.tag {
            0x30 => {
                let mut parts = id.reader();
                let issuer = parts.expect(0x30, "issuer");
                let serial = parts.expect(0x02, "serial number");
                let (Ok(issuer), Ok(serial)) = (issuer, serial) else { return false };
                serial.content == self.serial.content && same_name(issuer.raw, self.issuer.raw)
            }
            0x80 => self.key_id == Some(id.content),
            _ => false,
        }
    }
}

/// Compares names byte for byte, and only when that fails as RFC 5280 §7.1 asks: clients re-encode strings.
fn same_name(a: &[u8], b: &[u8]) -> bool {
    use openssl::x509::X509Name;
    a == b
        || X509Name::from_der(a)
            .and_then(|a| X509Name::from_der(b).and_then(|b| a.try_cmp(&b)))
            .is_ok_and(std::cmp::Ordering::is_eq)
}

fn subject_key_id(mut extensions: Reader<'_>) -> Result<Option<&[u8]>> {
    const WHAT: &str = "certificate extension";
    while !extensions.is_empty() {
        let mut extension = extensions.expect(0x30, WHAT)?.reader();
        if extension.expect(0x06, WHAT)?.content == oid::SUBJECT_KEY_ID {
            extension.optional(0x01, WHAT)?;
            let value = extension.expect(0x04, WHAT)?.content;
            return Ok(Some(Reader::new(value).expect(0x04, WHAT)?.content));
        }
    }
    Ok(None)
}
