use std::process::Command;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::*;
use crate::asn1;
use crate::ca::DeviceCa;
use crate::cert::ders_to_pem;
use crate::oid;

const NOW: i64 = 1_800_000_000_000;
const BODY: &[u8] = b"<?xml version=\"1.0\"?><plist><dict/></plist>";

struct Identity {
    cert: Vec<u8>,
    key: KeyPair,
}

fn identity(ca: &DeviceCa, key: KeyPair) -> Identity {
    let spki = key.public_key_der().unwrap();
    let serial = crate::hash::random_bytes().unwrap();
    let cert = ca.issue_device(&spki, "device-1", serial, NOW).unwrap();
    Identity { cert, key }
}

fn identities() -> &'static [Identity] {
    use std::sync::LazyLock;
    static ALL: LazyLock<Vec<Identity>> = LazyLock::new(|| {
        let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
        [
            KeyPair::generate_rsa2048().unwrap(),
            KeyPair::generate_p256().unwrap(),
            KeyPair::generate_p384().unwrap(),
        ]
        .map(|key| identity(&ca, key))
        .into()
    });
    &ALL
}

fn shapes() -> Vec<Shape> {
    let mut out = Vec::new();
    for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
        for signed_attributes in [false, true] {
            for ber_indefinite in [false, true] {
                out.push(Shape { digest, signed_attributes, ber_indefinite });
            }
        }
    }
    out
}

#[test]
fn every_shape_of_every_key_verifies_and_only_over_its_body() {
    for who in identities() {
        for shape in shapes() {
            let signature = sign_detached(BODY, &who.cert, &who.key, shape).unwrap();
            let signer = verify_detached(&signature, BODY).unwrap();
            assert_eq!(signer.cert_der, who.cert);
            assert_eq!(signer.digest, shape.digest);
            assert_eq!(signer.had_signed_attributes, shape.signed_attributes);
            assert!(matches!(verify_detached(&signature, b"other"), Err(Error::Signature { .. })));
            assert!(matches!(verify_detached(&signature, b""), Err(Error::Signature { .. })));
            let header = base64::engine::general_purpose::STANDARD.encode(&signature);
            assert_eq!(decode_mdm_signature_header(&header).unwrap(), signature);
            assert_eq!(decode_mdm_signature_header(header.trim_end_matches('=')).unwrap(), signature);
        }
    }
}

#[test]
fn another_certificate_in_the_message_does_not_pass() {
    let [a, b, ..] = identities() else { panic!() };
    let forged = sign_detached(BODY, &a.cert, &b.key, Shape { digest: Digest::Sha256, ..Shape::MODERN });
    assert!(verify_detached(&forged.unwrap(), BODY).is_err());
}

#[test]
fn profiles_round_trip() {
    for who in identities() {
        let chain = [who.cert.clone()];
        let signed = sign_attached(BODY, &who.cert, &who.key, &chain).unwrap();
        let (content, signer) = verify_attached(&signed).unwrap();
        assert_eq!(content, BODY);
        assert!(signer.had_signed_attributes && signer.digest == Digest::Sha256);
        assert_eq!(strip_signature(&signed).unwrap(), BODY);
        assert_eq!(strip_signature(BODY).unwrap(), BODY);
        let ber = Builder { ber_indefinite: true, ..Builder::new(BODY, &who.cert, &who.key) };
        assert_eq!(verify_attached(&ber.build().unwrap()).unwrap().0, BODY);
    }
    let who = &identities()[0];
    let detached = sign_detached(BODY, &who.cert, &who.key, Shape::MODERN).unwrap();
    assert!(verify_attached(&detached).is_err());
    assert!(strip_signature(&detached).is_err());
}

#[test]
fn attached_content_must_be_the_body() {
    let who = &identities()[0];
    let signed = sign_attached(BODY, &who.cert, &who.key, &[]).unwrap();
    verify_detached(&signed, BODY).unwrap();
    assert!(matches!(verify_detached(&signed, b"other"), Err(Error::Signature { .. })));
}

/// A message with attributes chosen by an attacker who has a valid identity.
fn with_attributes(list: &[(oid::Oid, Vec<u8>)]) -> Vec<u8> {
    let who = &identities()[0];
    let template = sign_detached(BODY, &who.cert, &who.key, Shape::MODERN).unwrap();
    let good = sign_detached(BODY, &who.cert, &who.key, Shape { signed_attributes: false, ..Shape::MODERN });
    let _ = good.unwrap();
    let attributes: Vec<Vec<u8>> =
        list.iter().map(|(id, value)| asn1::seq(&[&asn1::oid(id), &asn1::tlv(0x31, &[value])])).collect();
    let set = asn1::set_of(attributes);
    let signature = who.key.sign_sha256(&set).unwrap();
    let mut sent = set;
    sent[0] = 0xa0;
    // Take the message apart down to the signer info and put the forged parts in.
    let mut info = asn1::Reader::new(&template).expect(0x30, "").unwrap().reader();
    let kind = info.next("").unwrap();
    let mut data = info.next("").unwrap().reader().next("").unwrap().reader();
    let head: Vec<asn1::Tlv<'_>> = (0..4).map(|_| data.next("").unwrap()).collect();
    let mut signer = data.next("").unwrap().reader().next("").unwrap().reader();
    let parts: Vec<asn1::Tlv<'_>> = (0..5).map(|_| signer.next("").unwrap()).collect();
    let signer = asn1::seq(&[
        parts[0].raw,
        parts[1].raw,
        parts[2].raw,
        &sent,
        parts[4].raw,
        &asn1::octets(&signature),
    ]);
    let head: Vec<&[u8]> = head.iter().map(|t| t.raw).collect();
    let data = asn1::seq(&[head[0], head[1], head[2], head[3], &asn1::tlv(0x31, &[&signer])]);
    asn1::seq(&[kind.raw, &asn1::tlv(0xa0, &[&data])])
}

#[test]
fn signed_attributes_must_be_complete_single_and_true() {
    let content_type = (oid::CONTENT_TYPE, asn1::oid(oid::DATA));
    let digest = (oid::MESSAGE_DIGEST, asn1::octets(&Digest::Sha256.of(BODY)));
    let wrong_digest = (oid::MESSAGE_DIGEST, asn1::octets(&Digest::Sha256.of(b"other")));
    let wrong_type = (oid::CONTENT_TYPE, asn1::oid(oid::SIGNED_DATA));
    verify_detached(&with_attributes(&[content_type.clone(), digest.clone()]), BODY).unwrap();
    for bad in [
        vec![content_type.clone()],
        vec![digest.clone()],
        vec![],
        vec![content_type.clone(), wrong_digest.clone()],
        vec![wrong_type, digest.clone()],
        vec![content_type.clone(), digest.clone(), wrong_digest],
        vec![content_type.clone(), content_type, digest],
    ] {
        assert!(verify_detached(&with_attributes(&bad), BODY).is_err());
    }
}

#[test]
fn signing_time_is_reported() {
    let who = &identities()[0];
    let time = Attribute { oid: oid::SIGNING_TIME, value: asn1::time(NOW).unwrap() };
    let message =
        Builder { detached: true, attributes: Some(vec![time]), ..Builder::new(BODY, &who.cert, &who.key) };
    let signer = verify_detached(&message.build().unwrap(), BODY).unwrap();
    assert_eq!(signer.signing_time_ms, Some(NOW));
}

#[test]
fn no_signer_and_no_certificate_are_refused() {
    let who = &identities()[0];
    let degenerate = certs_only(&[&who.cert]);
    assert!(verify_detached(&degenerate, BODY).is_err());
    let parsed = SignedData::parse(&degenerate).unwrap();
    assert_eq!(parsed.certificates(), [who.cert.as_slice()]);
}

#[test]
fn envelopes_open_for_their_recipient_only() {
    let [rsa, ec, ..] = identities() else { panic!() };
    for cipher in
        [ContentCipher::Aes128Cbc, ContentCipher::Aes192Cbc, ContentCipher::Aes256Cbc, ContentCipher::Des3Cbc]
    {
        let message = encrypt(BODY, &rsa.cert, cipher).unwrap();
        let (content, used) = decrypt(&message, &rsa.cert, &rsa.key, 10_000).unwrap();
        assert_eq!((content.expose_secret().as_slice(), used), (BODY, cipher));
        assert!(decrypt(&message, &rsa.cert, &ec.key, 10_000).is_err());
        assert!(matches!(decrypt(&message, &ec.cert, &rsa.key, 10_000), Err(Error::Key { .. })));
        let stranger = KeyPair::generate_rsa2048().unwrap();
        let wrong = decrypt(&message, &rsa.cert, &stranger, 10_000);
        assert!(wrong.is_err() || wrong.unwrap().0.expose_secret() != BODY);
        assert!(matches!(decrypt(&message, &rsa.cert, &rsa.key, 100), Err(Error::TooLarge { .. })));
        for at in 0..message.len() {
            assert!(decrypt(&message[..at], &rsa.cert, &rsa.key, 10_000).is_err());
        }
    }
    assert!(encrypt(BODY, &ec.cert, ContentCipher::Aes128Cbc).is_err());
}

#[test]
fn headers_are_bounded() {
    assert!(matches!(decode_mdm_signature_header(&"A".repeat(100_000)), Err(Error::TooLarge { .. })));
    assert!(decode_mdm_signature_header("not base64 ü").is_err());
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let who = &identities()[0];
    for shape in [Shape::DEVICE, Shape::MODERN] {
        let signature = sign_detached(BODY, &who.cert, &who.key, shape).unwrap();
        for at in 0..signature.len() {
            assert!(verify_detached(&signature[..at], BODY).is_err());
        }
        let mut long = signature;
        long.push(0);
        assert!(matches!(verify_detached(&long, BODY), Err(Error::TrailingData { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_mutated_message_never_panics_and_never_changes_its_meaning(
        which in 0_usize..2,
        at in any::<prop::sample::Index>(),
        to: u8,
        cut in any::<prop::sample::Index>(),
        splice in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let who = &identities()[0];
        let shape = [Shape::DEVICE, Shape::MODERN][which];
        let mut message = sign_detached(BODY, &who.cert, &who.key, shape).unwrap();
        let at = at.index(message.len());
        message[at] = to;
        // Bytes that nothing signs (versions, unused parameters) may change; the signed body may not.
        prop_assert!(verify_detached(&message, b"other body").is_err());
        let _ = verify_detached(&message, BODY);
        let cut = cut.index(message.len());
        message.splice(cut..cut, splice);
        prop_assert!(verify_detached(&message, b"other body").is_err());
        let _ = (verify_attached(&message), strip_signature(&message));
        let _ = decrypt(&message, &who.cert, &who.key, 100_000);
    }

    #[test]
    fn a_mutated_envelope_never_panics(at in any::<prop::sample::Index>(), to: u8) {
        use std::sync::LazyLock;
        static MESSAGE: LazyLock<Vec<u8>> =
            LazyLock::new(|| encrypt(BODY, &identities()[0].cert, ContentCipher::Aes128Cbc).unwrap());
        let who = &identities()[0];
        let mut message = MESSAGE.clone();
        let at = at.index(message.len());
        message[at] = to;
        let _ = decrypt(&message, &who.cert, &who.key, 100_000);
    }

    #[test]
    fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(verify_detached(&bytes, BODY).is_err());
        let _ = (verify_attached(&bytes), strip_signature(&bytes));
    }
}

/// OpenSSL's command line as a second opinion; `None` where it is not installed (an error under CI).
fn openssl(dir: &std::path::Path, args: &[&str]) -> Option<std::process::Output> {
    match Command::new("openssl").current_dir(dir).args(args).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CI").is_some() => panic!("the openssl program is missing: {error}"),
        Err(_) => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: the openssl program is missing\n"),
            );
            None
        }
    }
}

fn lay_out(who: &Identity) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("body", BODY);
    write("cert.pem", ders_to_pem(&[&who.cert]).as_bytes());
    write("key.pem", who.key.to_pkcs8_pem().unwrap().expose_secret());
    dir
}

#[test]
fn what_the_openssl_program_signs_verifies_here() {
    for (at, who) in identities().iter().enumerate() {
        let dir = lay_out(who);
        let base = "cms -sign -binary -signer cert.pem -inkey key.pem -in body -outform DER -out sig";
        // With -noattr and EC keys OpenSSL 3.0 signs nothing it could verify itself with other digests.
        for more in [
            "-md sha1 -noattr -stream",
            "-md sha256 -noattr",
            "-md sha256",
            "-md sha384 -stream",
            "-md sha512 -keyid",
            "-md sha1",
        ] {
            for attached in [false, true] {
                let mut args: Vec<&str> = base.split(' ').chain(more.split(' ')).collect();
                if attached {
                    args.push("-nodetach");
                }
                let Some(output) = openssl(dir.path(), &args) else { return };
                assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
                let signature = std::fs::read(dir.path().join("sig")).unwrap();
                let signer = if attached {
                    let (content, signer) = verify_attached(&signature).unwrap();
                    assert_eq!(content, BODY);
                    signer
                } else {
                    verify_detached(&signature, BODY).unwrap_or_else(|e| panic!("{at} {more}: {e}"))
                };
                assert_eq!(signer.had_signed_attributes, !more.contains("-noattr"));
                assert_eq!(signer.signing_time_ms.is_some(), signer.had_signed_attributes);
            }
        }
    }
}

#[test]
fn what_is_signed_here_the_openssl_program_verifies() {
    for who in identities() {
        let dir = lay_out(who);
        let verify = |sig: &[u8], more: &[&str]| {
            std::fs::write(dir.path().join("sig"), sig).unwrap();
            let mut args = vec!["cms", "-verify", "-noverify", "-binary", "-inform", "DER", "-in", "sig"];
            args.extend(more);
            openssl(dir.path(), &args)
        };
        let attached = sign_attached(BODY, &who.cert, &who.key, &[]).unwrap();
        let Some(output) = verify(&attached, &[]) else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, BODY);
        for shape in shapes() {
            let signature = sign_detached(BODY, &who.cert, &who.key, shape).unwrap();
            let output = verify(&signature, &["-content", "body"]).unwrap();
            assert!(output.status.success(), "{shape:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn envelopes_agree_with_the_openssl_program() {
    let who = &identities()[0];
    let dir = lay_out(who);
    for (name, cipher) in [
        ("-aes-128-cbc", ContentCipher::Aes128Cbc),
        ("-aes-256-cbc", ContentCipher::Aes256Cbc),
        ("-des3", ContentCipher::Des3Cbc),
    ] {
        for stream in ["-stream", "-keyid"] {
            let args = ["cms", "-encrypt", "-binary", name, stream, "-in", "body", "-outform", "DER"];
            let Some(output) = openssl(dir.path(), &[&args[..], &["-out", "env", "cert.pem"]].concat())
            else {
                return;
            };
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let message = std::fs::read(dir.path().join("env")).unwrap();
            let (content, used) = decrypt(&message, &who.cert, &who.key, 10_000).unwrap();
            assert_eq!((content.expose_secret().as_slice(), used), (BODY, cipher));
        }
        std::fs::write(dir.path().join("env"), encrypt(BODY, &who.cert, cipher).unwrap()).unwrap();
        let args = "cms -decrypt -binary -inform DER -in env -inkey key.pem -recip cert.pem";
        let output = openssl(dir.path(), &args.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(output.stdout, BODY, "{}", String::from_utf8_lossy(&output.stderr));
    }
}
