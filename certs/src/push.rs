//! Importing an Apple push certificate (apple.md §2.8).

use crate::cert::{CertInfo, issued_by, pem_to_ders};
use crate::error::{Error, Result};
use crate::keys::KeyPair;

/// What every MDM push topic starts with.
const TOPIC_PREFIX: &str = "com.apple.mgmt";

/// A push certificate with its key, checked at import.
#[derive(Debug, Clone)]
pub struct PushCert {
    /// The push topic: the UID of the certificate's subject.
    pub topic: String,
    /// When it must have been renewed, milliseconds since the Unix epoch.
    pub not_after_ms: i64,
    /// The certificate.
    pub leaf: CertInfo,
    /// Issuers that came in the same file, DER, in order.
    pub chain: Vec<Vec<u8>>,
    /// The private key.
    pub key: KeyPair,
}

impl PushCert {
    /// Imports what `identity.apple.com/pushcert` handed out: PEM (issuers may follow) or DER, and the
    /// private key that made the request, PEM.
    ///
    /// # Errors
    /// [`Error::PushCert`] with a text for the administrator; [`Error::Key`] for an encrypted key.
    pub fn import(cert: &[u8], key_pem: &[u8], now_ms: i64) -> Result<Self> {
        let ders = if cert.first() == Some(&0x30) {
            vec![cert.to_vec()]
        } else {
            pem_to_ders(cert).map_err(|_| refused("the file holds no certificate; upload the .pem that identity.apple.com/pushcert offers for download"))?
        };
        let key = match KeyPair::from_pem(key_pem) {
            Err(Error::Malformed { .. }) => {
                return Err(refused(
                    "the private key is no PEM key; upload the key that the request was made with",
                ));
            }
            other => other?,
        };
        Self::check(&ders, key, now_ms)
    }

    /// The same checks for parts that were stored at import.
    ///
    /// # Errors
    /// [`Error::PushCert`].
    pub fn check(ders: &[Vec<u8>], key: KeyPair, now_ms: i64) -> Result<Self> {
        let public = key.public_key_der()?;
        let mut infos = Vec::with_capacity(ders.len());
        for der in ders {
            infos.push(
                CertInfo::parse(der)
                    .map_err(|_| refused("a certificate in the file is damaged; download it again"))?,
            );
        }
        // Bundles put together by hand come in any order; the leaf is the one with our key.
        let Some(at) = infos.iter().position(|info| info.spki_der == public) else {
            return Err(refused(
                "the certificate does not belong to this private key; upload the certificate that was issued for the request made with it",
            ));
        };
        let leaf = infos.remove(at);
        let Some(topic) = leaf.subject_uid.clone().filter(|uid| is_topic(uid)) else {
            return Err(refused(
                "this is no MDM push certificate (its subject has no UID starting with com.apple.mgmt); get one at identity.apple.com/pushcert with a request signed by an MDM vendor",
            ));
        };
        if leaf.not_after_ms < now_ms {
            return Err(refused(
                "the certificate has expired; renew it at identity.apple.com/pushcert with the same Apple Account, do not create a new one",
            ));
        }
        if leaf.not_before_ms > now_ms {
            return Err(refused("the certificate is not valid yet; check the clock of this server"));
        }
        let chain = order_chain(&leaf, infos);
        Ok(Self { topic, not_after_ms: leaf.not_after_ms, leaf, chain, key })
    }

    /// Whether `self` may replace `old`: enrolled devices are bound to the topic for good.
    ///
    /// # Errors
    /// [`Error::PushCert`] if the topics differ.
    pub fn may_replace(&self, old_topic: &str) -> Result<()> {
        if self.topic == old_topic {
            return Ok(());
        }
        Err(refused(&format!(
            "its topic {} is not the topic {old_topic} of the enrolled devices, which could never be reached again; renew the existing certificate at identity.apple.com/pushcert with the Apple Account that created it",
            self.topic
        )))
    }
}

/// The issuers of `leaf` in order, then nothing: what does not belong to the chain is dropped.
fn order_chain(leaf: &CertInfo, mut pool: Vec<CertInfo>) -> Vec<Vec<u8>> {
    let mut chain = Vec::new();
    let mut last = leaf.der.clone();
    while let Some(at) = pool.iter().position(|info| info.der != last && issued_by(&last, &info.der)) {
        last = pool.remove(at).der;
        chain.push(last.clone());
    }
    chain
}

fn is_topic(uid: &str) -> bool {
    uid.starts_with(TOPIC_PREFIX) && uid.len() <= 255 && uid.bytes().all(|b| b.is_ascii_graphic())
}

fn refused(reason: &str) -> Error {
    Error::PushCert { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use openssl::asn1::{Asn1Integer, Asn1Time};
    use openssl::bn::BigNum;
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::{X509, X509Name};
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::cert::ders_to_pem;

    const NOW: i64 = 1_800_000_000_000;
    const TOPIC: &str = "com.apple.mgmt.External.8c9f1a02";

    fn cert(key: &KeyPair, uid: Option<&str>, from_ms: i64, days: i64) -> Vec<u8> {
        let mut name = X509Name::builder().unwrap();
        if let Some(uid) = uid {
            name.append_entry_by_nid(Nid::USERID, uid).unwrap();
        }
        name.append_entry_by_nid(Nid::COMMONNAME, "APSP:test").unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial = Asn1Integer::from_bn(&BigNum::from_u32(7).unwrap()).unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(from_ms / 1000).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(from_ms / 1000 + days * 86400).unwrap()).unwrap();
        builder.set_pubkey(key.pkey()).unwrap();
        builder.sign(key.pkey(), MessageDigest::sha256()).unwrap();
        builder.build().to_der().unwrap()
    }

    fn reason(result: Result<PushCert>) -> String {
        match result {
            Err(Error::PushCert { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_certificate_is_imported_in_every_form() {
        let key = KeyPair::generate_rsa2048().unwrap();
        let pem = key.to_pkcs8_pem().unwrap();
        let der = cert(&key, Some(TOPIC), NOW, 365);
        let other = cert(&KeyPair::generate_p256().unwrap(), None, NOW, 365);
        for file in
            [der.clone(), ders_to_pem(&[&der]).into_bytes(), ders_to_pem(&[&other, &der]).into_bytes()]
        {
            let push = PushCert::import(&file, pem.expose_secret(), NOW).unwrap();
            assert_eq!(push.topic, TOPIC);
            assert_eq!(push.not_after_ms, NOW + 365 * 86_400_000);
            assert_eq!(push.leaf.der, der);
            assert!(push.chain.is_empty());
            push.may_replace(TOPIC).unwrap();
            assert!(push.may_replace("com.apple.mgmt.External.other").is_err());
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let key = KeyPair::generate_rsa2048().unwrap();
        let pem = key.to_pkcs8_pem().unwrap();
        let pem = pem.expose_secret();
        let good = cert(&key, Some(TOPIC), NOW, 365);
        let import = |cert: &[u8], key: &[u8], now| reason(PushCert::import(cert, key, now));
        assert!(import(&cert(&key, None, NOW, 1), pem, NOW).contains("vendor"));
        assert!(import(&cert(&key, Some("com.example"), NOW, 1), pem, NOW).contains("vendor"));
        assert!(import(&good, pem, NOW + 366 * 86_400_000).contains("expired"));
        assert!(import(&good, pem, NOW - 1000).contains("clock"));
        assert!(import(b"hello", pem, NOW).contains("download"));
        assert!(import(b"0000", pem, NOW).contains("damaged"));
        assert!(import(&good, b"hello", NOW).contains("no PEM key"));
        let stranger = KeyPair::generate_p256().unwrap().to_pkcs8_pem().unwrap();
        assert!(import(&good, stranger.expose_secret(), NOW).contains("does not belong"));
    }

    #[test]
    fn issuers_are_kept_in_order() {
        let ca = crate::ca::TlsCa::create(NOW, [1; 16]).unwrap();
        let key = KeyPair::generate_p256().unwrap();
        let leaf =
            ca.issue_server(&["a.example".into()], &key.public_key_der().unwrap(), [2; 16], NOW, 10).unwrap();
        let stranger = cert(&key, None, NOW, 1);
        let infos = [stranger.as_slice(), ca.cert_der()].map(|d| CertInfo::parse(d).unwrap());
        let chain = order_chain(&CertInfo::parse(&leaf).unwrap(), infos.into());
        assert_eq!(chain, [ca.cert_der()]);
    }
}
