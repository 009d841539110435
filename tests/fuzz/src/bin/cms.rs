//! `Mdm-Signature` and signed profiles. Nobody but the holder of a key can make a message that names it: whatever
//! verifies was signed by one of ours. The first byte chooses: 0x30 is a message as it came, otherwise the rest changes
//! a good message, or is signed, or is a header.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::cert::CertInfo;
use bellwether_certs::cms::{self, MAX_DETACHED, Shape, Signer};
use bellwether_certs::hash::Digest;
use bellwether_fuzz::changed;
use bellwether_fuzz::keys::WORLD;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const BODY: &[u8] = b"<plist version=\"1.0\"><dict><key>Status</key><string>Idle</string></dict></plist>";

/// Good signatures over [`BODY`] in the shapes that devices use, by both kinds of key.
static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let keys = [(&WORLD.self_signed, &WORLD.device), (&WORLD.p256_cert, &WORLD.p256)];
    let sign =
        |shape| keys.map(|(cert, key)| cms::sign_detached(BODY, cert, key, shape).expect("a signature"));
    shapes().flat_map(sign).collect()
});

fn shapes() -> impl Iterator<Item = Shape> {
    [Digest::Sha1, Digest::Sha256].into_iter().flat_map(|digest| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(signed_attributes, ber_indefinite)| Shape { digest, signed_attributes, ber_indefinite })
    })
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0x30, _)) => read(bytes),
        Some((kind, rest)) => match kind % 3 {
            0 => {
                let Some((which, edits)) = rest.split_first() else { return };
                read(&changed(&GOOD[usize::from(*which) % GOOD.len()], edits));
            }
            1 => signs(usize::from(*kind), rest),
            _ => header(rest),
        },
        None => read(bytes),
    }
});

fn read(message: &[u8]) {
    if let Ok(signer) = cms::verify_detached(message, BODY) {
        assert!(message.len() <= MAX_DETACHED);
        is_ours(&signer);
        assert!(cms::verify_detached(message, b"another body").is_err(), "one signature for two bodies");
    }
    if let Ok((content, signer)) = cms::verify_attached(message) {
        is_ours(&signer);
        assert_eq!(cms::strip_signature(message).expect("a signed message"), content);
    }
    let _ = cms::strip_signature(message);
    let _ = cms::decrypt(message, WORLD.ca.cert_der(), WORLD.ca.key(), 8192);
}

fn is_ours(signer: &Signer) {
    let info = CertInfo::parse(&signer.cert_der);
    let spki = info.map(|info| info.spki_der).unwrap_or_default();
    let ours =
        [&WORLD.device, &WORLD.p256, WORLD.ca.key()].map(|key| key.public_key_der().expect("a public key"));
    assert!(spki.is_empty() || ours.contains(&spki), "somebody else's key signed");
}

/// Any content is signed and found good again, and not for another body.
fn signs(kind: usize, content: &[u8]) {
    let shape = shapes().nth(kind % 8).expect("eight shapes");
    let message = cms::sign_detached(content, &WORLD.p256_cert, &WORLD.p256, shape).expect("a signature");
    let signer = cms::verify_detached(&message, content).expect("our own signature");
    assert_eq!((signer.cert_der.as_slice(), signer.digest), (WORLD.p256_cert.as_slice(), shape.digest));
    assert_eq!(signer.had_signed_attributes, shape.signed_attributes);
    assert!(cms::verify_detached(&message, &[content, b"x"].concat()).is_err());
    let profile = cms::sign_attached(content, &WORLD.p256_cert, &WORLD.p256, &[]).expect("a signature");
    assert_eq!(cms::verify_attached(&profile).expect("our own message").0, content);
}

fn header(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(decoded) = cms::decode_mdm_signature_header(text) {
        assert!(decoded.len() <= MAX_DETACHED + 3);
        let again = cms::decode_mdm_signature_header(&STANDARD.encode(&decoded));
        assert_eq!(again.expect("our own header"), decoded);
    }
}
