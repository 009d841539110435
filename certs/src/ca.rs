//! The two certificate authorities of the server and the only templates certificates are made from.
//!
//! Nothing but the public key is ever taken from a request: subject, dates, usages and constraints are ours
//! (product.md AT-09). Certificates follow RFC 5280.

mod template;

use crate::asn1;
use crate::cert::CertInfo;
use crate::error::{Error, Result};
use crate::hash::{hex, unhex};
use crate::keys::{KeyKind, KeyPair, PublicKey};
use crate::oid;
pub(crate) use template::name;
use template::{DAY, Extension, Template, key_id, usage};

/// Validity of a device certificate: one year.
pub const LEAF_VALIDITY_MS: i64 = 365 * DAY;
/// How far a certificate starts in the past, for devices whose clock is slow (apple-pitfalls §1).
pub const BACKDATE_MS: i64 = 60 * 60 * 1000;
/// Longest common name of a device: the macOS installer cuts names at 64 bytes (apple-pitfalls §4).
pub const MAX_DEVICE_CN: usize = 46;
/// Longest validity Apple accepts for a TLS certificate of a private root (HT210176).
pub const MAX_SERVER_DAYS: u16 = 825;

const DEVICE_CA_DAYS: i64 = 20 * 365 + 5;
const TLS_CA_DAYS: i64 = 10 * 365 + 2;

/// The serial number made from random bytes: 126 random bits, always positive and sixteen bytes long, so
/// that [`CertInfo::serial`] is exactly its hex (RFC 5280 §4.1.2.2). Applying it twice changes nothing.
#[must_use]
pub const fn serial(mut random: [u8; 16]) -> [u8; 16] {
    let [first, ..] = &mut random;
    *first = *first & 0x3f | 0x40;
    random
}

/// The CA that issues device identities. RSA, because SCEP encrypts its requests to it.
#[derive(Debug, Clone)]
pub struct DeviceCa {
    cert: CertInfo,
    key: KeyPair,
}

impl DeviceCa {
    /// A new CA: RSA-2048, 20 years, path length 0, unable to vouch for any host name or address. Its name
    /// tells nothing about the customer; `random` becomes the serial number and the eight digits of the name.
    ///
    /// # Errors
    /// [`Error::Template`] if the dates do not fit a certificate; otherwise only if OpenSSL fails.
    pub fn create(now_ms: i64, random: [u8; 16]) -> Result<Self> {
        let key = KeyPair::generate_rsa2048()?;
        // digitalSignature and keyEncipherment because this key also signs and receives SCEP messages
        // (RFC 8894 §2.1.2).
        let usages = usage(&[0, 2, 5, 6]);
        let extensions = vec![
            Extension::critical(oid::BASIC_CONSTRAINTS, ca_path_length_0()),
            Extension::critical(oid::KEY_USAGE, usages),
            Extension::plain(oid::EXT_KEY_USAGE, asn1::seq(&[&asn1::oid(oid::CLIENT_AUTH)])),
            // Not critical, against the letter of RFC 5280 §4.2.1.10: libstrongswan 5.9 does not know the address form
            // and must refuse a critical extension it does not know. Verifiers that know it enforce it all the same.
            Extension::plain(oid::NAME_CONSTRAINTS, no_host_names()),
        ];
        let cn = format!("Bellwether Device CA {}", suffix(&random));
        let der = self_signed(&key, &cn, random, now_ms, DEVICE_CA_DAYS, extensions)?;
        Self::load(&der, key)
    }

    /// A CA that was created earlier.
    ///
    /// # Errors
    /// [`Error::Key`] if the key is not RSA of 2048 bits or more or does not belong to the certificate,
    /// [`Error::Malformed`] if the certificate cannot be read.
    pub fn load(cert_der: &[u8], key: KeyPair) -> Result<Self> {
        let cert = load_ca(cert_der, &key)?;
        match key.kind() {
            KeyKind::Rsa { .. } => Ok(Self { cert, key }),
            _ => Err(Error::Key { reason: "the device CA must have an RSA key, SCEP encrypts to it" }),
        }
    }

    /// The certificate, DER.
    #[must_use]
    pub fn cert_der(&self) -> &[u8] {
        &self.cert.der
    }

    /// What the certificate says.
    #[must_use]
    pub const fn info(&self) -> &CertInfo {
        &self.cert
    }

    /// The private key.
    #[must_use]
    pub const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Issues a device identity for a public key: one year, clientAuth only, never longer than this CA.
    ///
    /// `random` becomes the serial number, see [`serial`].
    ///
    /// # Errors
    /// [`Error::Key`] for a key that is not RSA of 2048 bits or more, P-256 or P-384; [`Error::Template`]
    /// for a name that is empty, longer than [`MAX_DEVICE_CN`] bytes or not made of letters, digits and
    /// `-_: ` (no dot: OpenSSL takes a common name with a dot for a host name), or after this CA's end.
    pub fn issue_device(&self, spki_der: &[u8], cn: &str, random: [u8; 16], now_ms: i64) -> Result<Vec<u8>> {
        check_device_cn(cn)?;
        let kind = PublicKey::from_spki(spki_der)?.kind();
        kind.check()?;
        let not_after = now_ms.saturating_add(LEAF_VALIDITY_MS).min(self.cert.not_after_ms);
        if not_after <= now_ms {
            return Err(Error::Template { reason: "the CA has expired" });
        }
        Template {
            serial: &serial(random),
            issuer_der: &self.cert.subject_der,
            not_before_ms: now_ms.saturating_sub(BACKDATE_MS).max(self.cert.not_before_ms),
            not_after_ms: not_after,
            subject_cn: Some(cn),
            spki_der,
            extensions: leaf_extensions(spki_der, &self.cert, kind, oid::CLIENT_AUTH)?,
        }
        .sign(&self.key)
    }

    /// A certificate revocation list (RFC 5280 §5): serial numbers as in [`CertInfo::serial`], with the
    /// time of revocation.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a serial number that is not hex; [`Error::Template`] for impossible dates.
    pub fn crl(&self, revoked: &[(String, i64)], number: u64, now_ms: i64, next_ms: i64) -> Result<Vec<u8>> {
        let algorithm = self.key.signature_algorithm(crate::hash::Digest::Sha256)?;
        let mut entries = Vec::with_capacity(revoked.len());
        for (serial, at_ms) in revoked {
            let serial = unhex(serial).ok_or(Error::malformed("serial number"))?;
            entries.push(asn1::seq(&[&asn1::integer(&serial), &asn1::time(*at_ms)?]));
        }
        let refs: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        // An empty list must be left out, not empty (RFC 5280 §5.1.2.6).
        let list = if refs.is_empty() { Vec::new() } else { asn1::seq(&refs) };
        let extensions = template::extensions(&[
            Extension::plain(oid::AUTHORITY_KEY_ID, authority_key_id(&self.cert)?),
            Extension::plain(oid::CRL_NUMBER, asn1::integer(&number.to_be_bytes())),
        ]);
        let tbs = asn1::seq(&[
            &asn1::integer(&[1]),
            &algorithm,
            &self.cert.subject_der,
            &asn1::time(now_ms)?,
            &asn1::time(next_ms)?,
            &list,
            &asn1::tlv(0xa0, &[&extensions]),
        ]);
        let signature = self.key.sign_sha256(&tbs)?;
        Ok(asn1::seq(&[&tbs, &algorithm, &asn1::bits(&signature)]))
    }
}

/// The CA of the server's own TLS certificate, where no public one is used.
#[derive(Debug, Clone)]
pub struct TlsCa {
    cert: CertInfo,
    key: KeyPair,
}

impl TlsCa {
    /// A new CA: P-256, 10 years, path length 0.
    ///
    /// # Errors
    /// [`Error::Template`] if the dates do not fit a certificate; otherwise only if OpenSSL fails.
    pub fn create(now_ms: i64, random: [u8; 16]) -> Result<Self> {
        let key = KeyPair::generate_p256()?;
        let extensions = vec![
            Extension::critical(oid::BASIC_CONSTRAINTS, ca_path_length_0()),
            Extension::critical(oid::KEY_USAGE, usage(&[5, 6])),
        ];
        let cn = format!("Bellwether TLS CA {}", suffix(&random));
        let der = self_signed(&key, &cn, random, now_ms, TLS_CA_DAYS, extensions)?;
        Self::load(&der, key)
    }

    /// A CA that was created earlier.
    ///
    /// # Errors
    /// [`Error::Key`] if the key does not belong to the certificate or is too weak.
    pub fn load(cert_der: &[u8], key: KeyPair) -> Result<Self> {
        Ok(Self { cert: load_ca(cert_der, &key)?, key })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn cert_der(&self) -> &[u8] {
        &self.cert.der
    }

    /// What the certificate says.
    #[must_use]
    pub const fn info(&self) -> &CertInfo {
        &self.cert
    }

    /// The private key.
    #[must_use]
    pub const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Issues a TLS server certificate for DNS names (a wildcard label is fine) and IP literals.
    ///
    /// # Errors
    /// [`Error::Template`] without names, for something that is neither a DNS name nor an address, for 0 or
    /// more than [`MAX_SERVER_DAYS`] days; [`Error::Key`] for a weak key.
    pub fn issue_server(
        &self,
        names: &[String],
        spki_der: &[u8],
        random: [u8; 16],
        now_ms: i64,
        days: u16,
    ) -> Result<Vec<u8>> {
        if days == 0 || days > MAX_SERVER_DAYS {
            return Err(Error::Template { reason: "a server certificate lasts 1 to 825 days" });
        }
        let kind = PublicKey::from_spki(spki_der)?.kind();
        kind.check()?;
        let sans = template::subject_alt_names(names)?;
        // The validity counts from its start, so the backdated hour is part of the days (Apple counts too).
        let not_before = now_ms.saturating_sub(BACKDATE_MS).max(self.cert.not_before_ms);
        let not_after = not_before.saturating_add(i64::from(days) * DAY).min(self.cert.not_after_ms);
        if not_after <= now_ms {
            return Err(Error::Template { reason: "the CA has expired" });
        }
        let mut extensions = leaf_extensions(spki_der, &self.cert, kind, oid::SERVER_AUTH)?;
        let cn = names.first().map(String::as_str).filter(|n| n.len() <= 64);
        // RFC 5280 §4.2.1.6: critical exactly when the subject is empty.
        extensions.push(Extension { critical: cn.is_none(), oid: oid::SUBJECT_ALT_NAME, value: sans });
        Template {
            serial: &serial(random),
            issuer_der: &self.cert.subject_der,
            not_before_ms: not_before,
            not_after_ms: not_after,
            subject_cn: cn,
            spki_der,
            extensions,
        }
        .sign(&self.key)
    }
}

fn load_ca(cert_der: &[u8], key: &KeyPair) -> Result<CertInfo> {
    let cert = CertInfo::parse(cert_der)?;
    key.kind().check()?;
    if cert.spki_der != key.public_key_der()? {
        return Err(Error::Key { reason: "the private key does not belong to the CA certificate" });
    }
    if !cert.is_ca {
        return Err(Error::Template { reason: "the certificate is not one of a CA" });
    }
    Ok(cert)
}

fn self_signed(
    key: &KeyPair,
    cn: &str,
    random: [u8; 16],
    now_ms: i64,
    days: i64,
    mut extensions: Vec<Extension>,
) -> Result<Vec<u8>> {
    let spki = key.public_key_der()?;
    let id = key_id(&spki)?;
    extensions.push(Extension::plain(oid::SUBJECT_KEY_ID, asn1::octets(&id)));
    // A day back: a device set up in another time zone with a wrong clock still accepts the chain.
    let not_before = now_ms.saturating_sub(DAY);
    Template {
        serial: &serial(random),
        issuer_der: &template::name(cn),
        not_before_ms: not_before,
        not_after_ms: now_ms.saturating_add(days * DAY),
        subject_cn: Some(cn),
        spki_der: &spki,
        extensions,
    }
    .sign(key)
}

fn leaf_extensions(spki_der: &[u8], ca: &CertInfo, kind: KeyKind, eku: oid::Oid) -> Result<Vec<Extension>> {
    // keyEncipherment only makes sense for RSA; SCEP answers are encrypted to it.
    let usages = if matches!(kind, KeyKind::Rsa { .. }) { usage(&[0, 2]) } else { usage(&[0]) };
    Ok(vec![
        // DER leaves out a default: an empty sequence is CA:FALSE.
        Extension::critical(oid::BASIC_CONSTRAINTS, asn1::seq(&[])),
        Extension::critical(oid::KEY_USAGE, usages),
        Extension::plain(oid::EXT_KEY_USAGE, asn1::seq(&[&asn1::oid(eku)])),
        Extension::plain(oid::SUBJECT_KEY_ID, asn1::octets(&key_id(spki_der)?)),
        Extension::plain(oid::AUTHORITY_KEY_ID, authority_key_id(ca)?),
    ])
}

fn authority_key_id(ca: &CertInfo) -> Result<Vec<u8>> {
    Ok(asn1::seq(&[&asn1::tlv(0x80, &[&key_id(&ca.spki_der)?])]))
}

fn ca_path_length_0() -> Vec<u8> {
    asn1::seq(&[&asn1::tlv(0x01, &[&[0xff]]), &asn1::integer(&[0])])
}

/// Name constraints (RFC 5280 §4.2.1.10) that exclude every DNS name (the empty name matches all) and every
/// IPv4 and IPv6 address: a stolen device CA cannot impersonate a web site.
fn no_host_names() -> Vec<u8> {
    let excluded = asn1::tlv(
        0xa1,
        &[
            &asn1::seq(&[&asn1::tlv(0x82, &[])]),
            &asn1::seq(&[&asn1::tlv(0x87, &[&[0; 8]])]),
            &asn1::seq(&[&asn1::tlv(0x87, &[&[0; 32]])]),
        ],
    );
    asn1::seq(&[&excluded])
}

fn check_device_cn(cn: &str) -> Result<()> {
    if cn.is_empty() || cn.len() > MAX_DEVICE_CN {
        return Err(Error::Template { reason: "a device's common name has 1 to 46 bytes" });
    }
    if cn.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_: ".contains(&b)) {
        Ok(())
    } else {
        Err(Error::Template { reason: "a device's common name has letters, digits and -_: only" })
    }
}

fn suffix(random: &[u8; 16]) -> String {
    let [.., a, b, c, d] = *random;
    hex(&[a, b, c, d])
}

#[cfg(test)]
mod tests;
