//! Certificates, chains and push certificates. Nothing that a stranger writes passes for one that our CA issued.

#![no_main]

use bellwether_certs::KeyPair;
use bellwether_certs::cert::{self, CertInfo, MAX_CERT};
use bellwether_certs::keys::PublicKey;
use bellwether_certs::push::PushCert;
use bellwether_fuzz::keys::{NOW, WORLD};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    der(bytes);
    if let Ok(chain) = cert::pem_to_ders(bytes) {
        assert!(!chain.is_empty());
        chain.iter().for_each(|one| der(one));
        assert_eq!(cert::pem_to_ders(cert::ders_to_pem(&chain).as_bytes()).expect("our own PEM"), chain);
    }
    let _ = PublicKey::from_spki(bytes);
    let _ = KeyPair::from_pem(bytes);
    if let Ok(push) = PushCert::import(bytes, include_bytes!("../../keys/device.pem"), NOW) {
        assert!(push.topic.starts_with("com.apple.mgmt") && push.leaf.is_valid_at(NOW));
        assert_eq!(push.leaf.spki_der, WORLD.device.public_key_der().expect("a public key"));
    }
});

fn der(der: &[u8]) {
    let info = CertInfo::parse(der);
    if cert::issued_by(der, WORLD.ca.cert_der()) {
        let info = info.as_ref().expect("an issued certificate can be read");
        let ours =
            [WORLD.ca.info().spki_der.clone(), CertInfo::parse(&WORLD.identity).expect("ours").spki_der];
        assert!(ours.contains(&info.spki_der), "a certificate that our CA never issued");
    }
    assert!(!cert::issued_by(&WORLD.p256_cert, der) || info.as_ref().is_ok_and(|i| i.spki_der == p256()));
    let Ok(info) = info else { return };
    assert!(der.len() <= MAX_CERT && info.der == der);
    assert!(!info.is_valid_at(info.not_after_ms.saturating_add(1)) || info.not_after_ms == i64::MAX);
    let _ = info.public_key();
}

fn p256() -> Vec<u8> {
    WORLD.p256.public_key_der().expect("a public key")
}
