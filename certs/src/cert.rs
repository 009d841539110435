//! Reading certificates.

use openssl::x509::X509;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate, X509Name};

use crate::error::{Error, Result};
use crate::hash::{hex, sha256};
use crate::keys::PublicKey;

/// Largest certificate that is read. Real ones have 1 to 2 KiB, attested ones up to 8.
pub const MAX_CERT: usize = 64 * 1024;

/// Subject UID (RFC 4519 `uid`), where Apple writes the push topic.
const UID: &str = "0.9.2342.19200300.100.1.1";

/// What this server reads from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// The certificate itself.
    pub der: Vec<u8>,
    /// Serial number, lower-case hex without leading zero bytes.
    pub serial: String,
    /// First common name of the subject.
    pub subject_cn: Option<String>,
    /// First UID of the subject (OID 0.9.2342.19200300.100.1.1).
    pub subject_uid: Option<String>,
    /// First common name of the issuer.
    pub issuer_cn: Option<String>,
    /// The subject, DER.
    pub subject_der: Vec<u8>,
    /// The issuer, DER.
    pub issuer_der: Vec<u8>,
    /// Start of validity, milliseconds since the Unix epoch.
    pub not_before_ms: i64,
    /// End of validity, milliseconds since the Unix epoch.
    pub not_after_ms: i64,
    /// SHA-256 of the whole certificate; what an enrollment is pinned to.
    pub fingerprint: [u8; 32],
    /// The public key, `SubjectPublicKeyInfo` DER.
    pub spki_der: Vec<u8>,
    /// SHA-256 of the public key.
    pub spki_sha256: [u8; 32],
    /// Whether the certificate says that it is a CA.
    pub is_ca: bool,
    /// Extended key usage names clientAuth (or any).
    pub eku_client_auth: bool,
    /// Extended key usage names serverAuth (or any).
    pub eku_server_auth: bool,
}

impl CertInfo {
    /// Reads one DER certificate. Nothing is verified.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooLarge`] or [`Error::TrailingData`].
    pub fn parse(der: &[u8]) -> Result<Self> {
        crate::asn1::guard_ber(der, MAX_CERT)?;
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| Error::malformed("certificate"))?;
        if !rest.is_empty() {
            return Err(Error::TrailingData { what: "certificate" });
        }
        let mut info = Self {
            der: der.to_vec(),
            serial: hex(crate::asn1::magnitude(cert.raw_serial())),
            subject_cn: attribute(cert.subject(), "2.5.4.3"),
            subject_uid: attribute(cert.subject(), UID),
            issuer_cn: attribute(cert.issuer(), "2.5.4.3"),
            subject_der: cert.subject().as_raw().to_vec(),
            issuer_der: cert.issuer().as_raw().to_vec(),
            not_before_ms: cert.validity().not_before.timestamp().saturating_mul(1000),
            not_after_ms: cert.validity().not_after.timestamp().saturating_mul(1000),
            fingerprint: sha256(der),
            spki_der: cert.public_key().raw.to_vec(),
            spki_sha256: sha256(cert.public_key().raw),
            is_ca: false,
            eku_client_auth: false,
            eku_server_auth: false,
        };
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(basic) => info.is_ca = basic.ca,
                ParsedExtension::ExtendedKeyUsage(eku) => {
                    info.eku_client_auth = eku.client_auth || eku.any;
                    info.eku_server_auth = eku.server_auth || eku.any;
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// Whether `at_ms` lies within the validity, both ends included.
    #[must_use]
    pub const fn is_valid_at(&self, at_ms: i64) -> bool {
        self.not_before_ms <= at_ms && at_ms <= self.not_after_ms
    }

    /// The public key, ready to verify with.
    ///
    /// # Errors
    /// [`Error::Malformed`] if OpenSSL cannot read it.
    pub fn public_key(&self) -> Result<PublicKey> {
        PublicKey::from_spki(&self.spki_der)
    }
}

/// Whether `ca` issued `cert`: its name is the issuer and its key made the signature. Dates, purposes and
/// revocation are other questions (devices keep working with an expired identity, apple.md §2.2).
#[must_use]
pub fn issued_by(cert_der: &[u8], ca_der: &[u8]) -> bool {
    let small = |der: &[u8]| crate::asn1::guard_ber(der, MAX_CERT).is_ok();
    if !small(cert_der) || !small(ca_der) {
        return false;
    }
    let (Ok(cert), Ok(ca)) = (X509::from_der(cert_der), X509::from_der(ca_der)) else {
        return false;
    };
    if !cert.issuer_name().try_cmp(ca.subject_name()).is_ok_and(std::cmp::Ordering::is_eq) {
        return false;
    }
    ca.public_key().and_then(|key| cert.verify(&key)).unwrap_or(false)
}

/// The certificates of a PEM file, in order; other blocks (keys, parameters) are skipped.
///
/// # Errors
/// [`Error::Malformed`] if a certificate block is broken or there is none.
pub fn pem_to_ders(pem: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| Error::malformed("PEM certificate"))?;
        if matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") {
            out.push(block.contents);
        }
    }
    if out.is_empty() { Err(Error::malformed("PEM file: no certificate in it")) } else { Ok(out) }
}

/// Certificates as PEM, in order.
#[must_use]
pub fn ders_to_pem<D: AsRef<[u8]>>(ders: &[D]) -> String {
    use base64::Engine as _;
    let mut out = String::new();
    for der in ders {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at_checked(64).unwrap_or((rest, ""));
            out.push_str(line);
            out.push('\n');
            rest = tail;
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

fn attribute(name: &X509Name<'_>, dotted: &str) -> Option<String> {
    name.iter_attributes()
        .find(|a| a.attr_type().to_id_string() == dotted)
        .and_then(|a| a.as_str().ok())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ca::{DeviceCa, TlsCa};
    use crate::keys::KeyPair;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn issued_by_checks_name_and_signature() {
        let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
        let same_name = DeviceCa::create(NOW, [1; 16]).unwrap();
        let other = DeviceCa::create(NOW, [9; 16]).unwrap();
        let key = KeyPair::generate_p256().unwrap();
        let leaf = ca.issue_device(&key.public_key_der().unwrap(), "device-1", [7; 16], NOW).unwrap();
        assert!(issued_by(&leaf, ca.cert_der()));
        assert!(!issued_by(&leaf, same_name.cert_der()), "same name, other key");
        assert!(!issued_by(&leaf, other.cert_der()));
        assert!(!issued_by(&leaf, &leaf));
        assert!(issued_by(ca.cert_der(), ca.cert_der()));
        for at in 0..leaf.len() {
            assert!(!issued_by(&leaf[..at], ca.cert_der()));
            assert!(!issued_by(&leaf, &ca.cert_der()[..at.min(ca.cert_der().len() - 1)]));
            assert!(CertInfo::parse(&leaf[..at]).is_err());
        }
    }

    #[test]
    fn pem_round_trip() {
        let ca = TlsCa::create(NOW, [1; 16]).unwrap();
        let key = ca.key().to_pkcs8_pem().unwrap();
        let mut pem = ders_to_pem(&[ca.cert_der(), ca.cert_der()]);
        assert_eq!(X509::from_pem(pem.as_bytes()).unwrap().to_der().unwrap(), ca.cert_der());
        pem.push_str(std::str::from_utf8(secrecy::ExposeSecret::expose_secret(&key)).unwrap());
        assert_eq!(pem_to_ders(pem.as_bytes()).unwrap(), vec![ca.cert_der(), ca.cert_der()]);
        assert!(pem_to_ders(b"no certificate here").is_err());
        assert!(pem_to_ders(b"-----BEGIN CERTIFICATE-----\nAAAA\n").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_mutated_certificate_never_panics(at in 0_usize..700, to: u8, at2 in 0_usize..700, to2: u8) {
            use std::sync::LazyLock;
            static LEAF: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
                let ca = TlsCa::create(NOW, [1; 16]).unwrap();
                (ca.cert_der().to_vec(), ca.cert_der().to_vec())
            });
            let (mut der, ca) = LEAF.clone();
            let len = der.len();
            der[at % len] = to;
            der[at2 % len] = to2;
            let _ = CertInfo::parse(&der);
            prop_assert!(!issued_by(&der, &ca) || der == ca);
            let _ = issued_by(&ca, &der);
            let _ = pem_to_ders(&der);
        }
    }
}
