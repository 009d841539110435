//! The certificate request of Windows, with what strict parsers stumble over: a common name with `!` in a
//! PrintableString, and an extension of Microsoft's with the DeviceID.

use bellwether_certs::asn1;
use bellwether_certs::hash::Digest;
use bellwether_certs::keys::KeyKind;
use bellwether_certs::{KeyPair, Oid};

use crate::{Error, Result};

const COMMON_NAME: Oid = &[0x55, 0x04, 0x03];
const CHALLENGE_PASSWORD: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];
const EXTENSION_REQUEST: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// 1.3.6.1.4.1.311.66.1.0
const MS_DEVICE_ID: Oid = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x42, 0x01, 0x00];
/// 1.3.6.1.4.1.311.20.2.3, a user principal name among alternative names.
const UPN: Oid = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x14, 0x02, 0x03];
const BASIC_CONSTRAINTS: Oid = &[0x55, 0x1d, 0x13];
const ALTERNATIVE_NAME: Oid = &[0x55, 0x1d, 0x11];
const EXTENDED_USAGE: Oid = &[0x55, 0x1d, 0x25];
const RSA_SHA1: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
const RSA_SHA256: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const ECDSA_SHA1: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const ECDSA_SHA256: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// What a request says. The default of everything but the name asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct CsrOptions {
    /// The common name; it goes into a PrintableString whatever is in it.
    pub common_name: String,
    /// The DeviceID in Microsoft's extension.
    pub device_id: Option<String>,
    /// The challenge password of SCEP.
    pub challenge: Option<String>,
    /// Extended key usages, dotted.
    pub ekus: Vec<String>,
    /// A user principal name.
    pub upn: Option<String>,
    /// A DNS name.
    pub dns_name: Option<String>,
    /// Ask for CA:TRUE.
    pub ca: bool,
    /// Sign with SHA-1, as machines without a policy do.
    pub sha1: bool,
    /// Break the signature.
    pub bad_signature: bool,
}

impl CsrOptions {
    /// Builds the request.
    ///
    /// # Errors
    /// When the key cannot sign, or an identifier is none.
    pub fn build(&self, key: &KeyPair) -> Result<Vec<u8>> {
        let name = asn1::seq(&[&asn1::oid(COMMON_NAME), &asn1::tlv(0x13, &[self.common_name.as_bytes()])]);
        let mut attributes = Vec::new();
        if let Some(challenge) = &self.challenge {
            attributes.push(attribute(CHALLENGE_PASSWORD, &asn1::tlv(0x0c, &[challenge.as_bytes()])));
        }
        let extensions = self.extensions()?;
        if !extensions.is_empty() {
            attributes.push(attribute(EXTENSION_REQUEST, &asn1::seq(&[&extensions])));
        }
        attributes.sort();
        let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        let info = asn1::seq(&[
            &asn1::integer(&[0]),
            &asn1::seq(&[&asn1::tlv(0x31, &[&name])]),
            &key.public_key_der()?,
            &asn1::tlv(0xa0, &attributes),
        ]);
        let digest = if self.sha1 { Digest::Sha1 } else { Digest::Sha256 };
        let mut signature = key.sign(digest, &info)?;
        if self.bad_signature
            && let Some(last) = signature.last_mut()
        {
            *last ^= 1;
        }
        let algorithm = match (key.kind(), self.sha1) {
            (KeyKind::Rsa { .. }, true) => asn1::seq(&[&asn1::oid(RSA_SHA1), &asn1::tlv(0x05, &[])]),
            (KeyKind::Rsa { .. }, false) => asn1::seq(&[&asn1::oid(RSA_SHA256), &asn1::tlv(0x05, &[])]),
            (_, true) => asn1::seq(&[&asn1::oid(ECDSA_SHA1)]),
            (_, false) => asn1::seq(&[&asn1::oid(ECDSA_SHA256)]),
        };
        Ok(asn1::seq(&[&info, &algorithm, &asn1::bits(&signature)]))
    }

    fn extensions(&self) -> Result<Vec<u8>> {
        let extension = |id: Oid, value: &[u8]| asn1::seq(&[&asn1::oid(id), &asn1::octets(value)]);
        let mut all = Vec::new();
        if let Some(device_id) = &self.device_id {
            all.extend(extension(MS_DEVICE_ID, &asn1::tlv(0x0c, &[device_id.as_bytes()])));
        }
        if self.ca {
            all.extend(extension(BASIC_CONSTRAINTS, &asn1::seq(&[&asn1::tlv(0x01, &[&[0xff]])])));
        }
        let mut names = Vec::new();
        if let Some(upn) = &self.upn {
            let value = asn1::tlv(0xa0, &[&asn1::tlv(0x0c, &[upn.as_bytes()])]);
            names.extend(asn1::tlv(0xa0, &[&asn1::oid(UPN), &value]));
        }
        if let Some(dns) = &self.dns_name {
            names.extend(asn1::tlv(0x82, &[dns.as_bytes()]));
        }
        if !names.is_empty() {
            all.extend(extension(ALTERNATIVE_NAME, &asn1::seq(&[&names])));
        }
        if !self.ekus.is_empty() {
            let usages = self.ekus.iter().map(|eku| object_identifier(eku)).collect::<Result<Vec<_>>>()?;
            all.extend(extension(EXTENDED_USAGE, &asn1::seq(&[&usages.concat()])));
        }
        Ok(all)
    }
}

fn attribute(id: Oid, value: &[u8]) -> Vec<u8> {
    asn1::seq(&[&asn1::oid(id), &asn1::tlv(0x31, &[value])])
}

fn object_identifier(dotted: &str) -> Result<Vec<u8>> {
    let object = openssl::asn1::Asn1Object::from_str(dotted)
        .map_err(|_| Error::Usage(format!("not an object identifier: {dotted}")))?;
    Ok(asn1::oid(object.as_slice()))
}

#[cfg(test)]
mod tests {
    use bellwether_certs::csr;
    use openssl::x509::X509Req;

    use super::*;

    #[test]
    fn the_odd_name_and_its_wishes_come_through() {
        let rsa = KeyPair::generate_rsa2048().unwrap();
        let keys = [rsa, KeyPair::generate_p256().unwrap()];
        for key in &keys {
            for sha1 in [false, true] {
                let options = CsrOptions {
                    common_name: "562A7F8A!B5B9".to_owned(),
                    device_id: Some("B5B9".to_owned()),
                    challenge: Some("secret".to_owned()),
                    ekus: vec!["1.3.6.1.5.5.7.3.2".to_owned()],
                    upn: Some("ann@example.org".to_owned()),
                    dns_name: Some("pc.example.org".to_owned()),
                    ca: true,
                    sha1,
                    bad_signature: false,
                };
                let der = options.build(key).unwrap();
                let openssl = X509Req::from_der(&der).unwrap();
                assert!(openssl.verify(&openssl.public_key().unwrap()).unwrap());
                let read = csr::parse(&der).unwrap();
                assert_eq!(read.subject_cn.as_deref(), Some("562A7F8A!B5B9"));
                assert_eq!(read.requested_ekus, ["1.3.6.1.5.5.7.3.2"]);
                assert_eq!(read.requested_names.len(), 2);
                assert!(read.wants_ca && read.challenge_password.is_some());
                assert!(
                    der.windows(14)
                        .any(|bytes| bytes == [&[0x13, 13][..], b"562A7F8A!B5B"].concat()[..14].to_vec())
                );
                let bad = CsrOptions { bad_signature: true, ..options };
                assert!(csr::parse(&bad.build(key).unwrap()).is_err());
            }
        }
        let bad = CsrOptions { ekus: vec!["x".to_owned()], ..CsrOptions::default() };
        assert!(bad.build(&keys[1]).is_err());
    }
}
