//! PKCS#10 requests (RFC 2986): reading a device's, building one for the client side.
//!
//! A request says what the device wants; nothing but its public key ever reaches a certificate. What it asks
//! for beyond the template (a CA, server usage, other names) is reported so that it can be refused and
//! audited instead of silently dropped (product.md AT-09).

use openssl::x509::X509;
use secrecy::{ExposeSecret as _, SecretString};

use crate::asn1::{self, Reader, Tlv};
use crate::error::{Error, Result};
use crate::hash::{Digest, sha256};
use crate::keys::{KeyKind, KeyPair, PublicKey, signature_algorithm};
use crate::oid;

/// Largest request that is read.
pub const MAX_CSR: usize = 64 * 1024;

/// A request whose self-signature was verified.
#[derive(Clone)]
pub struct Csr {
    /// The request itself. It contains the challenge password: never log it.
    pub der: Vec<u8>,
    /// SHA-256 of the request, to recognise an exact retry.
    pub sha256: [u8; 32],
    /// The public key, `SubjectPublicKeyInfo` DER.
    pub spki_der: Vec<u8>,
    /// SHA-256 of the public key.
    pub spki_sha256: [u8; 32],
    /// What kind of key; already checked to be one a device may have.
    pub key: KeyKind,
    /// The requested subject, DER.
    pub subject_der: Vec<u8>,
    /// First common name of the requested subject.
    pub subject_cn: Option<String>,
    /// The challenge password (RFC 2985 §5.4.1).
    pub challenge_password: Option<SecretString>,
    /// The request asks to become a CA.
    pub wants_ca: bool,
    /// Extended key usages asked for, in dotted form.
    pub requested_ekus: Vec<String>,
    /// Subject alternative names asked for, as `dns:`, `email:`, `uri:`, `ip:`, or `other:` and hex.
    pub requested_names: Vec<String>,
}

impl std::fmt::Debug for Csr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Csr")
            .field("sha256", &crate::hash::hex(&self.sha256))
            .field("key", &self.key)
            .field("subject_cn", &self.subject_cn)
            .field("has_challenge", &self.challenge_password.is_some())
            .field("wants_ca", &self.wants_ca)
            .field("requested_ekus", &self.requested_ekus)
            .field("requested_names", &self.requested_names)
            .finish_non_exhaustive()
    }
}

/// Reads a request and verifies that it was signed by the key it contains.
///
/// Unknown attributes and extensions are ignored; a known one that comes twice is refused.
///
/// # Errors
/// [`Error::Malformed`] and the limits of [`asn1::guard_ber`]; [`Error::Key`] for a key a device may not
/// have; [`Error::Algorithm`] for MD5, PSS and the like; [`Error::Signature`].
pub fn parse(der: &[u8]) -> Result<Csr> {
    const WHAT: &str = "certificate request";
    asn1::guard_ber(der, MAX_CSR)?;
    let mut outer = Reader::new(der).expect(0x30, WHAT)?.reader();
    let info = outer.expect(0x30, WHAT)?;
    let algorithm = outer.expect(0x30, WHAT)?;
    let signature = outer.expect(0x03, WHAT)?.content;
    outer.finish(WHAT)?;

    let mut fields = info.reader();
    fields.expect(0x02, WHAT)?;
    let subject = fields.expect(0x30, WHAT)?;
    let spki = fields.expect(0x30, WHAT)?;
    let attributes = fields.optional(0xa0, WHAT)?;

    let key = PublicKey::from_spki(spki.raw)?;
    key.kind().check()?;
    verify(&key, algorithm.content, info.raw, signature)?;

    let mut csr = Csr {
        der: der.to_vec(),
        sha256: sha256(der),
        spki_der: spki.raw.to_vec(),
        spki_sha256: sha256(spki.raw),
        key: key.kind(),
        subject_der: subject.raw.to_vec(),
        subject_cn: common_name(&subject),
        challenge_password: None,
        wants_ca: false,
        requested_ekus: Vec::new(),
        requested_names: Vec::new(),
    };
    if let Some(attributes) = attributes {
        read_attributes(&mut csr, attributes.reader())?;
    }
    Ok(csr)
}

/// What a client asks for beyond its name; the default asks for nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Ask for CA:TRUE (hostile requests of the tests and the simulator).
    pub ca: bool,
    /// Ask for serverAuth.
    pub server_auth: bool,
    /// Ask for a DNS name.
    pub dns_name: Option<&'a str>,
}

/// Builds a request signed with SHA-256: the client side of SCEP, MS-WSTEP and Android enrollment.
///
/// # Errors
/// Only if OpenSSL fails or the key cannot sign.
pub fn build(
    key: &KeyPair,
    cn: &str,
    challenge: Option<&SecretString>,
    wishes: Wishes<'_>,
) -> Result<Vec<u8>> {
    let mut attributes = Vec::new();
    if let Some(challenge) = challenge {
        let value = asn1::tlv(0x0c, &[challenge.expose_secret().as_bytes()]);
        attributes.push(attribute(oid::CHALLENGE_PASSWORD, &value));
    }
    let extension = |id, value: &[u8]| asn1::seq(&[&asn1::oid(id), &asn1::octets(value)]);
    let mut extensions = Vec::new();
    if wishes.ca {
        let value = asn1::seq(&[&asn1::tlv(0x01, &[&[0xff]])]);
        extensions.extend(extension(oid::BASIC_CONSTRAINTS, &value));
    }
    if wishes.server_auth {
        extensions.extend(extension(oid::EXT_KEY_USAGE, &asn1::seq(&[&asn1::oid(oid::SERVER_AUTH)])));
    }
    if let Some(name) = wishes.dns_name {
        let value = asn1::seq(&[&asn1::tlv(0x82, &[name.as_bytes()])]);
        extensions.extend(extension(oid::SUBJECT_ALT_NAME, &value));
    }
    if !extensions.is_empty() {
        attributes.push(attribute(oid::EXTENSION_REQUEST, &asn1::seq(&[&extensions])));
    }
    attributes.sort();
    let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
    let info = asn1::seq(&[
        &asn1::integer(&[0]),
        &crate::ca::name(cn),
        &key.public_key_der()?,
        &asn1::tlv(0xa0, &attributes),
    ]);
    let signature = key.sign_sha256(&info)?;
    Ok(asn1::seq(&[&info, &key.signature_algorithm(Digest::Sha256)?, &asn1::bits(&signature)]))
}

/// A self-signed certificate for a request's key, which RFC 8894 §2.3 asks a SCEP client to sign with
/// before it has a real one. Ten years, no extensions.
///
/// # Errors
/// [`Error::Template`] if the dates do not fit a certificate; otherwise only if OpenSSL fails.
pub fn self_signed(key: &KeyPair, cn: &str, random: [u8; 16], now_ms: i64) -> Result<Vec<u8>> {
    const TEN_YEARS_MS: i64 = 3_652 * 24 * 60 * 60 * 1000;
    let algorithm = key.signature_algorithm(Digest::Sha256)?;
    let name = crate::ca::name(cn);
    let day_before = asn1::time(now_ms.saturating_sub(24 * 60 * 60 * 1000))?;
    let tbs = asn1::seq(&[
        &asn1::integer(&crate::ca::serial(random)),
        &algorithm,
        &name,
        &asn1::seq(&[&day_before, &asn1::time(now_ms.saturating_add(TEN_YEARS_MS))?]),
        &name,
        &key.public_key_der()?,
    ]);
    let signature = key.sign_sha256(&tbs)?;
    let der = asn1::seq(&[&tbs, &algorithm, &asn1::bits(&signature)]);
    X509::from_der(&der).map(|_| der).map_err(|_| Error::malformed("self-signed certificate"))
}

fn verify(key: &PublicKey, algorithm: &[u8], signed: &[u8], signature: &[u8]) -> Result<()> {
    const FAILED: Error = Error::Signature { what: "certificate request" };
    let (rsa, digest) = signature_algorithm(algorithm)?;
    let digest = digest.ok_or(Error::Algorithm { what: "certificate request signature" })?;
    if rsa != matches!(key.kind(), KeyKind::Rsa { .. }) {
        return Err(FAILED);
    }
    let signature = signature.strip_prefix(&[0]).ok_or(Error::malformed("certificate request"))?;
    if key.verify(digest, signed, signature) { Ok(()) } else { Err(FAILED) }
}

fn read_attributes(csr: &mut Csr, mut attributes: Reader<'_>) -> Result<()> {
    const WHAT: &str = "certificate request attribute";
    const TWICE: Error = Error::Malformed { what: "certificate request: the same attribute twice" };
    let mut seen_extensions = false;
    while !attributes.is_empty() {
        let mut attribute = attributes.expect(0x30, WHAT)?.reader();
        let id = attribute.expect(0x06, WHAT)?.content;
        let mut values = attribute.expect(0x31, WHAT)?.reader();
        match id {
            oid::CHALLENGE_PASSWORD => {
                let text = string(&values.next(WHAT)?).ok_or(Error::malformed("challenge password"))?;
                values.finish("challenge password")?;
                if csr.challenge_password.replace(SecretString::from(text)).is_some() {
                    return Err(TWICE);
                }
            }
            oid::EXTENSION_REQUEST | oid::MS_CERT_EXTENSIONS => {
                if std::mem::replace(&mut seen_extensions, true) {
                    return Err(TWICE);
                }
                read_extensions(csr, values.expect(0x30, WHAT)?.reader())?;
                values.finish(WHAT)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_extensions(csr: &mut Csr, mut extensions: Reader<'_>) -> Result<()> {
    const WHAT: &str = "requested extension";
    while !extensions.is_empty() {
        let mut extension = extensions.expect(0x30, WHAT)?.reader();
        let id = extension.expect(0x06, WHAT)?.content;
        extension.optional(0x01, WHAT)?;
        let mut value = Reader::new(extension.expect(0x04, WHAT)?.content);
        match id {
            oid::BASIC_CONSTRAINTS => {
                let flag = value.expect(0x30, WHAT)?.reader().optional(0x01, WHAT)?;
                csr.wants_ca |= flag.is_some_and(|f| f.content.iter().any(|b| *b != 0));
            }
            oid::EXT_KEY_USAGE => {
                let mut usages = value.expect(0x30, WHAT)?.reader();
                while !usages.is_empty() {
                    let usage = usages.expect(0x06, WHAT)?.content;
                    csr.requested_ekus.push(oid::dotted(usage).ok_or(Error::malformed(WHAT))?);
                }
            }
            oid::SUBJECT_ALT_NAME => {
                let mut names = value.expect(0x30, WHAT)?.reader();
                while !names.is_empty() {
                    csr.requested_names.push(general_name(&names.next(WHAT)?));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn general_name(name: &Tlv<'_>) -> String {
    let text = || String::from_utf8_lossy(name.content);
    match name.tag {
        0x81 => format!("email:{}", text()),
        0x82 => format!("dns:{}", text()),
        0x86 => format!("uri:{}", text()),
        0x87 => format!("ip:{}", crate::hash::hex(name.content)),
        _ => format!("other:{}", crate::hash::hex(name.raw)),
    }
}

fn attribute(id: &[u8], value: &[u8]) -> Vec<u8> {
    asn1::seq(&[&asn1::oid(id), &asn1::tlv(0x31, &[value])])
}

fn common_name(subject: &Tlv<'_>) -> Option<String> {
    let mut rdns = subject.reader();
    while let Ok(rdn) = rdns.expect(0x31, "name") {
        let mut parts = rdn.reader();
        while let Ok(part) = parts.expect(0x30, "name") {
            let mut part = part.reader();
            if part.expect(0x06, "name").is_ok_and(|id| id.content == oid::COMMON_NAME) {
                return part.next("name").ok().as_ref().and_then(string);
            }
        }
    }
    None
}

/// A `DirectoryString` (RFC 5280 §4.1.2.4) or IA5String as text.
fn string(value: &Tlv<'_>) -> Option<String> {
    match value.tag {
        // UTF8String, NumericString, PrintableString, IA5String, VisibleString
        0x0c | 0x12 | 0x13 | 0x16 | 0x1a => String::from_utf8(value.content.to_vec()).ok(),
        // TeletexString, which everybody fills with Latin-1
        0x14 => Some(value.content.iter().map(|b| char::from(*b)).collect()),
        // BMPString
        0x1e => {
            let (pairs, rest) = value.content.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509Req;
    use proptest::prelude::*;

    use super::*;

    fn sample(key: &KeyPair) -> Vec<u8> {
        let wishes = Wishes { ca: true, server_auth: true, dns_name: Some("b.example") };
        build(key, "device-1", Some(&SecretString::from("s3cret")), wishes).unwrap()
    }

    #[test]
    fn a_request_comes_back_with_all_its_wishes() {
        for key in [
            KeyPair::generate_rsa2048().unwrap(),
            KeyPair::generate_p256().unwrap(),
            KeyPair::generate_p384().unwrap(),
        ] {
            let der = sample(&key);
            let openssl = X509Req::from_der(&der).unwrap();
            assert!(openssl.verify(&openssl.public_key().unwrap()).unwrap());
            let csr = parse(&der).unwrap();
            assert_eq!(csr.spki_der, key.public_key_der().unwrap());
            assert_eq!(csr.subject_cn.as_deref(), Some("device-1"));
            assert_eq!(csr.challenge_password.as_ref().unwrap().expose_secret(), "s3cret");
            assert!(csr.wants_ca);
            assert_eq!(csr.requested_ekus, ["1.3.6.1.5.5.7.3.1"]);
            assert_eq!(csr.requested_names, ["dns:b.example"]);
            assert!(!format!("{csr:?}").contains("s3cret"));
            let plain = parse(&build(&key, "x", None, Wishes::default()).unwrap()).unwrap();
            assert!(plain.challenge_password.is_none() && !plain.wants_ca);
        }
    }

    #[test]
    fn a_request_of_openssl_is_read() {
        let key = KeyPair::generate_rsa2048().unwrap();
        let mut builder = X509Req::builder().unwrap();
        let mut name = openssl::x509::X509Name::builder().unwrap();
        name.append_entry_by_text("O", "Example").unwrap();
        name.append_entry_by_text("CN", "Gerät").unwrap();
        builder.set_subject_name(&name.build()).unwrap();
        let public = PublicKey::from_spki(&key.public_key_der().unwrap()).unwrap();
        builder.set_pubkey(public.pkey()).unwrap();
        builder.sign(key.pkey(), openssl::hash::MessageDigest::sha1()).unwrap();
        let csr = parse(&builder.build().to_der().unwrap()).unwrap();
        assert_eq!(csr.subject_cn.as_deref(), Some("Gerät"));
    }

    #[test]
    fn a_request_of_another_key_is_refused() {
        let (ours, theirs) = (KeyPair::generate_p256().unwrap(), KeyPair::generate_p256().unwrap());
        let der = sample(&ours);
        let old = ours.public_key_der().unwrap();
        let at = der.windows(old.len()).position(|w| w == old).unwrap();
        let mut forged = der.clone();
        forged[at..at + old.len()].copy_from_slice(&theirs.public_key_der().unwrap());
        assert!(matches!(parse(&forged), Err(Error::Signature { .. })));
    }

    #[test]
    fn a_challenge_given_twice_is_refused() {
        let key = KeyPair::generate_p256().unwrap();
        let one = attribute(oid::CHALLENGE_PASSWORD, &asn1::tlv(0x13, &[b"a"]));
        let info = asn1::seq(&[
            &asn1::integer(&[0]),
            &crate::ca::name("x"),
            &key.public_key_der().unwrap(),
            &asn1::tlv(0xa0, &[&one, &one]),
        ]);
        let signature = key.sign_sha256(&info).unwrap();
        let algorithm = key.signature_algorithm(Digest::Sha256).unwrap();
        let der = asn1::seq(&[&info, &algorithm, &asn1::bits(&signature)]);
        assert!(matches!(parse(&der), Err(Error::Malformed { .. })));
    }

    #[test]
    fn strings_of_every_kind() {
        let read = |tag, content: &[u8]| string(&Tlv { tag, content, raw: &[] });
        assert_eq!(read(0x14, b"\xfc").as_deref(), Some("ü"));
        assert_eq!(read(0x1e, &[0, b'a', 0x20, 0xac]).as_deref(), Some("a€"));
        assert_eq!(read(0x1e, &[0]), None);
        assert_eq!(read(0x0c, &[0xff]), None);
        assert_eq!(read(0x02, &[1]), None);
    }

    #[test]
    fn a_self_signed_certificate_verifies_with_its_own_key() {
        let key = KeyPair::generate_rsa2048().unwrap();
        let der = self_signed(&key, "x", [1; 16], 1_800_000_000_000).unwrap();
        assert!(crate::cert::issued_by(&der, &der));
    }

    #[test]
    fn truncation_at_every_byte_is_an_error() {
        let der = sample(&KeyPair::generate_p256().unwrap());
        for at in 0..der.len() {
            assert!(parse(&der[..at]).is_err());
        }
        let mut long = der;
        long.push(0);
        assert!(parse(&long).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn no_mutation_verifies_or_panics(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            use std::sync::LazyLock;
            static DER: LazyLock<Vec<u8>> = LazyLock::new(|| sample(&KeyPair::generate_p256().unwrap()));
            let mut der = DER.clone();
            let at = at.index(der.len());
            der[at] ^= flip;
            prop_assert!(parse(&der).is_err());
        }

        #[test]
        fn rubbish_never_panics(der in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&der);
        }
    }
}
