use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509Crl, X509PurposeId, X509StoreContext};

use super::*;
use crate::cert::issued_by;

const NOW: i64 = 1_800_000_000_000;

fn chain_ok(leaf: &[u8], ca: &[u8], purpose: X509PurposeId, host: Option<&str>, at_ms: i64) -> bool {
    let mut param = X509VerifyParam::new().unwrap();
    param.set_time(at_ms / 1000);
    param.set_purpose(purpose).unwrap();
    if let Some(host) = host {
        match host.parse() {
            Ok(ip) => param.set_ip(ip).unwrap(),
            Err(_) => param.set_host(host).unwrap(),
        }
    }
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(X509::from_der(ca).unwrap()).unwrap();
    store.set_param(&param).unwrap();
    let leaf = X509::from_der(leaf).unwrap();
    let mut context = X509StoreContext::new().unwrap();
    context.init(&store.build(), &leaf, &Stack::new().unwrap(), |c| c.verify_cert()).unwrap()
}

fn spki(key: &KeyPair) -> Vec<u8> {
    key.public_key_der().unwrap()
}

#[test]
fn a_device_identity_is_what_the_template_says() {
    let ca = DeviceCa::create(NOW, [0xff; 16]).unwrap();
    for (key, usages) in [
        (KeyPair::generate_rsa2048().unwrap(), "Digital Signature, Key Encipherment\n"),
        (KeyPair::generate_p256().unwrap(), "Digital Signature\n"),
        (KeyPair::generate_p384().unwrap(), "Digital Signature\n"),
    ] {
        let der = ca.issue_device(&spki(&key), "0123-abc", [0; 16], NOW).unwrap();
        let info = CertInfo::parse(&der).unwrap();
        assert_eq!(info.serial, hex(&serial([0; 16])));
        assert_eq!(info.subject_cn.as_deref(), Some("0123-abc"));
        assert_eq!(info.issuer_cn.as_deref(), Some("Bellwether Device CA ffffffff"));
        assert_eq!(info.not_before_ms, NOW - BACKDATE_MS);
        assert_eq!(info.not_after_ms, NOW + LEAF_VALIDITY_MS);
        assert!(!info.is_ca && info.eku_client_auth && !info.eku_server_auth);
        assert_eq!(info.spki_der, spki(&key));
        assert!(issued_by(&der, ca.cert_der()));
        assert!(chain_ok(&der, ca.cert_der(), X509PurposeId::SSL_CLIENT, None, NOW));
        assert!(!chain_ok(&der, ca.cert_der(), X509PurposeId::SSL_SERVER, None, NOW));
        let text = String::from_utf8(X509::from_der(&der).unwrap().to_text().unwrap()).unwrap();
        assert!(text.contains(usages), "{text}");
        assert!(text.contains("CA:FALSE"));
        assert!(text.contains("Authority Key Identifier") && text.contains("Subject Key Identifier"));
    }
}

#[test]
fn the_device_ca_cannot_vouch_for_a_host() {
    let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
    let text = String::from_utf8(X509::from_der(ca.cert_der()).unwrap().to_text().unwrap()).unwrap();
    for expected in [
        "CA:TRUE, pathlen:0",
        "Digital Signature, Key Encipherment, Certificate Sign, CRL Sign",
        "X509v3 Name Constraints:",
        "IP:0.0.0.0/0.0.0.0",
    ] {
        assert!(text.contains(expected), "{expected} missing in {text}");
    }
    assert!(ca.info().not_after_ms > NOW + 20 * 365 * DAY);
    // A thief of the key issues a server certificate: the constraints refuse it even without purpose checks.
    let key = KeyPair::generate_p256().unwrap();
    for name in ["example.org", "192.0.2.1", "2001:db8::1"] {
        let mut extensions =
            leaf_extensions(&spki(&key), ca.info(), KeyKind::P256, oid::CLIENT_AUTH).unwrap();
        extensions.push(Extension::plain(
            oid::SUBJECT_ALT_NAME,
            template::subject_alt_names(&[name.to_owned()]).unwrap(),
        ));
        let rogue = Template {
            serial: &[1],
            issuer_der: &ca.info().subject_der,
            not_before_ms: NOW,
            not_after_ms: NOW + DAY,
            subject_cn: None,
            spki_der: &spki(&key),
            extensions,
        }
        .sign(ca.key())
        .unwrap();
        assert!(!chain_ok(&rogue, ca.cert_der(), X509PurposeId::SSL_CLIENT, None, NOW), "{name}");
    }
}

#[test]
fn a_device_identity_never_outlives_its_issuer() {
    let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
    let key = KeyPair::generate_p256().unwrap();
    let end = ca.info().not_after_ms;
    let der = ca.issue_device(&spki(&key), "d", [1; 16], end - DAY).unwrap();
    assert_eq!(CertInfo::parse(&der).unwrap().not_after_ms, end);
    assert!(ca.issue_device(&spki(&key), "d", [1; 16], end).is_err());
    assert!(ca.issue_device(&spki(&key), "d", [1; 16], i64::MAX).is_err());
    assert!(ca.issue_device(&spki(&key), "d", [1; 16], i64::MIN).is_err());
}

#[test]
fn names_and_keys_outside_the_rule_are_refused() {
    let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
    let key = KeyPair::generate_p256().unwrap();
    for cn in ["", &"x".repeat(47), "host.example", "a\0b", "é", "a/b", "CN=x"] {
        assert!(ca.issue_device(&spki(&key), cn, [1; 16], NOW).is_err(), "{cn:?}");
    }
    ca.issue_device(&spki(&key), &"x".repeat(46), [1; 16], NOW).unwrap();
    let weak = openssl::rsa::Rsa::generate(1024).unwrap().public_key_to_der().unwrap();
    assert!(matches!(ca.issue_device(&weak, "d", [1; 16], NOW), Err(Error::Key { .. })));
    assert!(ca.issue_device(b"", "d", [1; 16], NOW).is_err());
}

#[test]
fn a_ca_comes_back_only_with_its_own_key() {
    let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
    DeviceCa::load(ca.cert_der(), ca.key().clone()).unwrap();
    assert!(DeviceCa::load(ca.cert_der(), KeyPair::generate_rsa2048().unwrap()).is_err());
    let leaf = ca.issue_device(&spki(ca.key()), "d", [1; 16], NOW).unwrap();
    assert!(DeviceCa::load(&leaf, ca.key().clone()).is_err(), "a leaf is no CA");
    let tls = TlsCa::create(NOW, [1; 16]).unwrap();
    assert!(DeviceCa::load(tls.cert_der(), tls.key().clone()).is_err(), "no RSA key");
}

#[test]
fn server_certificates_carry_names_and_addresses() {
    let ca = TlsCa::create(NOW, [2; 16]).unwrap();
    let key = KeyPair::generate_p256().unwrap();
    let names =
        ["mdm.example.org", "*.example.net", "192.0.2.1", "[2001:db8::1]", "localhost"].map(str::to_owned);
    let der = ca.issue_server(&names, &spki(&key), [3; 16], NOW, 397).unwrap();
    for host in ["mdm.example.org", "x.example.net", "192.0.2.1", "2001:db8::1", "localhost"] {
        assert!(chain_ok(&der, ca.cert_der(), X509PurposeId::SSL_SERVER, Some(host), NOW), "{host}");
    }
    assert!(!chain_ok(&der, ca.cert_der(), X509PurposeId::SSL_SERVER, Some("example.com"), NOW));
    assert!(!chain_ok(&der, ca.cert_der(), X509PurposeId::SSL_CLIENT, None, NOW));
    let info = CertInfo::parse(&der).unwrap();
    assert!(info.not_after_ms - info.not_before_ms <= 397 * DAY);

    let long = [format!("{}.example.org", "a".repeat(60))];
    let der = ca.issue_server(&long, &spki(&key), [3; 16], NOW, 825).unwrap();
    assert!(chain_ok(&der, ca.cert_der(), X509PurposeId::SSL_SERVER, Some(&long[0]), NOW));
    assert_eq!(CertInfo::parse(&der).unwrap().subject_cn, None);

    for (names, days) in [(vec![], 1), (vec!["a"], 0), (vec!["a"], 826), (vec!["a b"], 1), (vec!["a..b"], 1)]
    {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        assert!(ca.issue_server(&names, &spki(&key), [3; 16], NOW, days).is_err(), "{names:?} {days}");
    }
}

#[test]
fn a_revocation_list_names_what_was_revoked() {
    let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
    let key = KeyPair::generate_p256().unwrap();
    let gone = ca.issue_device(&spki(&key), "d", [0xee; 16], NOW).unwrap();
    let kept = ca.issue_device(&spki(&key), "d", [0xdd; 16], NOW).unwrap();
    let serial = CertInfo::parse(&gone).unwrap().serial;
    let der = ca.crl(&[(serial, NOW)], u64::MAX, NOW, NOW + DAY).unwrap();
    let crl = X509Crl::from_der(&der).unwrap();
    assert!(crl.verify(&X509::from_der(ca.cert_der()).unwrap().public_key().unwrap()).unwrap());
    let status = |der: &[u8]| {
        let cert = X509::from_der(der).unwrap();
        matches!(crl.get_by_cert(&cert), openssl::x509::CrlStatus::Revoked(_))
    };
    assert!(status(&gone) && !status(&kept));
    let empty = ca.crl(&[], 1, NOW, NOW + DAY).unwrap();
    assert!(X509Crl::from_der(&empty).unwrap().get_revoked().is_none());
    assert!(ca.crl(&[("xyz".into(), NOW)], 1, NOW, NOW).is_err());
}

#[test]
fn serial_numbers_stay_positive_and_long() {
    for random in [[0; 16], [0xff; 16], [0x80; 16]] {
        let s = serial(random);
        assert!(s[0] & 0x80 == 0 && s[0] != 0);
        assert_eq!(serial(s), s);
    }
}
