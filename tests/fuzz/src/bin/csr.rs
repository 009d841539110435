//! Certificate requests, strict and lenient alike: whatever is accepted yields its public key and nothing else. The
//! first byte chooses: 0x30 is a request as it came; otherwise the rest becomes attributes, or subject and attributes,
//! or parameters of the key, in a request that is signed well, since no mutation gets past a signature.

#![no_main]

use bellwether_certs::cert::CertInfo;
use bellwether_certs::csr::{self, Csr, MAX_CSR};
use bellwether_certs::keys::PublicKey;
use bellwether_fuzz::keys::{NOW, WORLD, request};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;

/// OpenSSL is asked to sign only as many times as it takes to see that nothing of the request matters.
const CN: &str = "0199c0de-0000-7000-8000-000000000001";

fuzz_target!(|bytes: &[u8]| {
    let der = match bytes.split_first() {
        Some((0x30, _)) => bytes.to_vec(),
        Some((kind, rest)) if kind % 4 == 0 => request(&[], rest, &[]),
        Some((kind, rest)) if kind % 4 == 1 => request(&[], &[], rest),
        Some((_, rest)) => {
            let at = rest.first().map_or(0, |at| usize::from(*at).min(rest.len() - 1));
            let (subject, attributes) = rest.split_at(at);
            request(subject, attributes, &[])
        }
        None => Vec::new(),
    };
    let Ok(csr) = csr::parse(&der) else { return };
    assert!(der.len() <= MAX_CSR && csr.der == der);
    let key = PublicKey::from_spki(&csr.spki_der).expect("an accepted key");
    assert_eq!(key.kind(), csr.key);
    key.kind().check().expect("a key that a device may have");
    let ours = [&WORLD.device, &WORLD.p256].map(|key| key.public_key_der().expect("a public key"));
    assert!(ours.contains(&csr.spki_der), "something stands beside the key, or somebody else's key signed");
    hides_the_challenge(&csr);
    only_the_key_counts(&csr);
});

/// `Debug` goes to logs.
fn hides_the_challenge(csr: &Csr) {
    let Some(challenge) = csr.challenge_password.as_ref().map(|c| c.expose_secret()) else { return };
    let shown = format!("{csr:?}");
    let elsewhere = Csr { challenge_password: None, ..csr.clone() };
    if challenge.len() >= 8 && !format!("{elsewhere:?}").contains(challenge) {
        assert!(!shown.contains(challenge), "{shown}");
    }
}

fn only_the_key_counts(csr: &Csr) {
    let issued =
        WORLD.ca.issue_device(&csr.spki_der, CN, [7; 16], NOW).expect("an accepted key is certified");
    let info = CertInfo::parse(&issued).expect("our own certificate");
    assert_eq!((info.subject_cn.as_deref(), &info.spki_der), (Some(CN), &csr.spki_der));
    assert_eq!(info.issuer_der, WORLD.ca.info().subject_der);
    assert!(!info.is_ca && info.eku_client_auth && !info.eku_server_auth);
    assert!(info.not_after_ms <= NOW + 366 * 24 * 60 * 60 * 1000);
    for name in &csr.requested_names {
        let name = name.split_once(':').map_or(name.as_str(), |(_, name)| name).as_bytes();
        let told = name.len() >= 8 && issued.windows(name.len()).any(|w| w == name);
        assert!(
            !told
                || csr.spki_der.windows(name.len()).any(|w| w == name)
                || CN.as_bytes().windows(name.len()).any(|w| w == name)
                || b"Bellwether Fuzz CA".windows(name.len()).any(|w| w == name),
            "a requested name is in the certificate"
        );
    }
}
