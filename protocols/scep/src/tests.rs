//! Both parties in memory, and hostile clients.

use std::sync::LazyLock;

use bellwether_certs::asn1::{self, to_indefinite};
use bellwether_certs::ca::DeviceCa;
use bellwether_certs::cert::CertInfo;
use bellwether_certs::cms::{self, Builder, ContentCipher};
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::Digest;
use bellwether_certs::keys::KeyPair;
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};

use crate::client::{self, Reply, Style, Transaction};
use crate::server::{self, Request, SignedBy, Undecodable};
use crate::wire;
use crate::{FailInfo, MessageType};

const NOW: i64 = 1_800_000_000_000;
const NONCE: [u8; 16] = [7; 16];

struct World {
    ca: DeviceCa,
    key: KeyPair,
    self_signed: Vec<u8>,
    csr: Vec<u8>,
    identity: Vec<u8>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let ca = DeviceCa::create(NOW, [1; 16]).unwrap();
    let key = KeyPair::generate_rsa2048().unwrap();
    let challenge = SecretString::from("s3cret");
    World {
        self_signed: csr::self_signed(&key, "device", [2; 16], NOW).unwrap(),
        csr: csr::build(&key, "device", Some(&challenge), Wishes::default()).unwrap(),
        identity: ca.issue_device(&key.public_key_der().unwrap(), "device", [3; 16], NOW).unwrap(),
        ca,
        key,
    }
});

impl World {
    fn transaction(&self, style: Style) -> Transaction<'_> {
        Transaction {
            ca_cert_der: self.ca.cert_der(),
            cert_der: &self.self_signed,
            key: &self.key,
            id: "tx-1",
            nonce: NONCE,
            style,
        }
    }

    fn decode(&self, message: &[u8]) -> Result<Request, Undecodable> {
        server::decode(message, self.ca.cert_der(), self.ca.key())
    }

    fn refusal(&self, message: &[u8]) -> FailInfo {
        match self.decode(message) {
            Err(Undecodable::WithContext { context, fail_info, .. }) => {
                assert_eq!(context.transaction_id, "tx-1");
                let reply =
                    server::failure(&context, fail_info, self.ca.cert_der(), self.ca.key(), [9; 16]).unwrap();
                let seen = client::parse_cert_rep(&self.transaction(Style::STANDARD), &reply, b"").unwrap();
                assert_eq!(seen, Reply::Failure(fail_info));
                fail_info
            }
            other => panic!("{other:?}"),
        }
    }
}

fn styles() -> Vec<Style> {
    let mut out = vec![Style::STANDARD, Style::MACOS, Style::OLD];
    for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
        for cipher in [ContentCipher::Aes128Cbc, ContentCipher::Aes256Cbc, ContentCipher::Des3Cbc] {
            for ber_indefinite in [false, true] {
                out.push(Style { digest, cipher, ber_indefinite });
            }
        }
    }
    out
}

#[test]
fn enrolment_in_every_style() {
    let world = &*WORLD;
    let spki = world.key.public_key_der().unwrap();
    for style in styles() {
        let transaction = world.transaction(style);
        let request = world.decode(&client::pkcs_req(&transaction, &world.csr).unwrap()).unwrap();
        assert_eq!(request.message_type, MessageType::PkcsReq);
        assert_eq!(request.signed_by, SignedBy::RequestKey);
        assert_eq!(request.context.transaction_id, "tx-1");
        let answered = if style.digest == Digest::Sha1 { Digest::Sha256 } else { style.digest };
        assert_eq!(request.context.digest, answered);
        assert_eq!(request.cipher, style.cipher);
        assert_eq!(request.csr.der, world.csr);
        assert_eq!(request.csr.challenge_password.as_ref().unwrap().expose_secret(), "s3cret");
        assert!(!format!("{request:?}").contains("s3cret"));
        let reply =
            server::success(&request, &world.identity, world.ca.cert_der(), world.ca.key(), [9; 16]).unwrap();
        for reply in [reply.clone(), to_indefinite(&reply).unwrap()] {
            let seen = client::parse_cert_rep(&transaction, &reply, &spki).unwrap();
            assert_eq!(seen, Reply::Success(world.identity.clone()));
        }
    }
}

#[test]
fn renewal_is_signed_by_the_identity() {
    let world = &*WORLD;
    let new_key = KeyPair::generate_rsa2048().unwrap();
    let request = csr::build(&new_key, "device", None, Wishes::default()).unwrap();
    let transaction = Transaction { cert_der: &world.identity, ..world.transaction(Style::MACOS) };
    let message = client::renewal_req(&transaction, &request).unwrap();
    let decoded = world.decode(&message).unwrap();
    assert_eq!(decoded.message_type, MessageType::RenewalReq);
    assert_eq!(decoded.signed_by, SignedBy::Identity);
    assert_eq!(decoded.signer, CertInfo::parse(&world.identity).unwrap());
    let spki = new_key.public_key_der().unwrap();
    let issued = world.ca.issue_device(&spki, "device", [4; 16], NOW).unwrap();
    let reply = server::success(&decoded, &issued, world.ca.cert_der(), world.ca.key(), [9; 16]).unwrap();
    assert_eq!(client::parse_cert_rep(&transaction, &reply, &spki).unwrap(), Reply::Success(issued));
    // A renewal cannot be signed with a throw-away certificate, and a first request may come from an identity
    // (macOS renews with a PKCSReq): the caller judges who that is.
    let thrown_away = client::renewal_req(&world.transaction(Style::STANDARD), &world.csr).unwrap();
    assert_eq!(world.refusal(&thrown_away), FailInfo::BadRequest);
    let again = world.decode(&client::pkcs_req(&transaction, &request).unwrap()).unwrap();
    assert_eq!(again.signed_by, SignedBy::Identity);
}

#[test]
fn pending_is_understood() {
    let world = &*WORLD;
    let transaction = world.transaction(Style::STANDARD);
    let request = world.decode(&client::pkcs_req(&transaction, &world.csr).unwrap()).unwrap();
    let reply = server::pending(&request.context, world.ca.cert_der(), world.ca.key(), [9; 16]).unwrap();
    assert_eq!(client::parse_cert_rep(&transaction, &reply, b"").unwrap(), Reply::Pending);
}

#[test]
fn other_message_types_are_refused() {
    let world = &*WORLD;
    // CertRep, UpdateReq, CertPoll, GetCert, GetCRL, and things that are no types (AT-09).
    for kind in ["3", "18", "20", "21", "22", "0", "019", "19 ", "x", "-1"] {
        let message = client::request(&world.transaction(Style::STANDARD), kind, &world.csr).unwrap();
        assert_eq!(world.refusal(&message), FailInfo::BadRequest, "{kind}");
    }
}

#[test]
fn the_signer_must_hold_the_key_to_be_certified() {
    let world = &*WORLD;
    let other = KeyPair::generate_rsa2048().unwrap();
    let theirs = csr::build(&other, "device", None, Wishes::default()).unwrap();
    let message = client::pkcs_req(&world.transaction(Style::STANDARD), &theirs).unwrap();
    assert_eq!(world.refusal(&message), FailInfo::BadMessageCheck);
}

#[test]
fn keys_and_ciphers_outside_the_rule_are_refused() {
    let world = &*WORLD;
    let ec = KeyPair::generate_p256().unwrap();
    let cert = csr::self_signed(&ec, "device", [2; 16], NOW).unwrap();
    let transaction = Transaction { cert_der: &cert, key: &ec, ..world.transaction(Style::STANDARD) };
    let request = csr::build(&ec, "device", None, Wishes::default()).unwrap();
    let message = client::pkcs_req(&transaction, &request).unwrap();
    assert_eq!(world.refusal(&message), FailInfo::BadAlg);
    // Single DES (1.3.14.3.2.7) in place of AES-128-CBC.
    let envelope = cms::encrypt(&world.csr, world.ca.cert_der(), ContentCipher::Des3Cbc).unwrap();
    let triple = [6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
    let at = envelope.windows(triple.len()).position(|w| w == triple).unwrap();
    let mut single = envelope;
    single[at + 9] = 2;
    assert_eq!(world.refusal(&signed(&single, "19")), FailInfo::BadAlg);
}

fn signed(content: &[u8], message_type: &str) -> Vec<u8> {
    let world = &*WORLD;
    let attributes = vec![
        wire::text(wire::MESSAGE_TYPE, message_type),
        wire::text(wire::TRANSACTION_ID, "tx-1"),
        wire::octets(wire::SENDER_NONCE, &NONCE),
    ];
    let message =
        Builder { attributes: Some(attributes), ..Builder::new(content, &world.self_signed, &world.key) };
    message.build().unwrap()
}

/// A recorded request, its ciphertext changed and signed anew, must tell nothing about its plaintext.
#[test]
fn a_changed_envelope_is_answered_alike_whatever_fails() {
    let world = &*WORLD;
    let envelope = cms::encrypt(&world.csr, world.ca.cert_der(), ContentCipher::Aes128Cbc).unwrap();
    let len = envelope.len();
    // Last block: padding. Early block: the request's syntax. Near the end: its signature.
    for at in [len - 1, len - 16, len - 17, len - 33, len - 200, len - 400] {
        let mut changed = envelope.clone();
        changed[at] ^= 1;
        assert_eq!(world.refusal(&signed(&changed, "19")), FailInfo::BadMessageCheck, "{at}");
    }
    for rubbish in [&b""[..], b"x", &world.csr, &asn1::seq(&[])] {
        assert_eq!(world.refusal(&signed(rubbish, "19")), FailInfo::BadMessageCheck);
    }
    let stranger = DeviceCa::create(NOW, [8; 16]).unwrap();
    let elsewhere = cms::encrypt(&world.csr, stranger.cert_der(), ContentCipher::Aes128Cbc).unwrap();
    assert_eq!(world.refusal(&signed(&elsewhere, "19")), FailInfo::BadMessageCheck);
}

#[test]
fn a_broken_signature_is_answered_in_kind() {
    let world = &*WORLD;
    let mut message = client::pkcs_req(&world.transaction(Style::STANDARD), &world.csr).unwrap();
    *message.last_mut().unwrap() ^= 1;
    assert_eq!(world.refusal(&message), FailInfo::BadMessageCheck);
}

#[test]
fn what_has_no_transaction_is_opaque() {
    let world = &*WORLD;
    let plain = Builder::new(b"x", &world.self_signed, &world.key).build().unwrap();
    let no_id = cms::sign_attached(b"x", &world.self_signed, &world.key, &[]).unwrap();
    for message in [&b""[..], b"<html>", &plain, &no_id, &vec![0x30; crate::MAX_MESSAGE + 1]] {
        assert!(matches!(world.decode(message), Err(Undecodable::Opaque { .. })));
    }
    let deep = [0x30, 0x80].repeat(50_000);
    assert!(matches!(world.decode(&deep), Err(Undecodable::Opaque { .. })));
}

#[test]
fn a_request_without_nonce_is_refused_and_still_answered() {
    let world = &*WORLD;
    let attributes = vec![wire::text(wire::MESSAGE_TYPE, "19"), wire::text(wire::TRANSACTION_ID, "tx-1")];
    let message =
        Builder { attributes: Some(attributes), ..Builder::new(b"", &world.self_signed, &world.key) };
    match world.decode(&message.build().unwrap()) {
        Err(Undecodable::WithContext { context, fail_info: FailInfo::BadRequest, .. }) => {
            server::failure(&context, FailInfo::BadRequest, world.ca.cert_der(), world.ca.key(), NONCE)
                .unwrap();
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn clients_refuse_answers_of_others() {
    let world = &*WORLD;
    let transaction = world.transaction(Style::STANDARD);
    let spki = world.key.public_key_der().unwrap();
    let request = world.decode(&client::pkcs_req(&transaction, &world.csr).unwrap()).unwrap();
    let (cert, key) = (world.ca.cert_der(), world.ca.key());
    let good = server::success(&request, &world.identity, cert, key, NONCE).unwrap();
    client::parse_cert_rep(&transaction, &good, &spki).unwrap();
    for other in [
        Transaction { id: "tx-2", ..transaction },
        Transaction { nonce: [8; 16], ..transaction },
        Transaction { ca_cert_der: &world.identity, ..transaction },
    ] {
        assert!(client::parse_cert_rep(&other, &good, &spki).is_err());
    }
    assert!(client::parse_cert_rep(&transaction, &good, b"another key").is_err());
    let own = client::pkcs_req(&transaction, &world.csr).unwrap();
    assert!(client::parse_cert_rep(&transaction, &own, &spki).is_err());
    assert!(client::caps_suffice(crate::CAPS));
    assert!(!client::caps_suffice("SHA-1\nDES3\n"));
}

#[test]
fn truncation_at_every_byte_is_refused() {
    let world = &*WORLD;
    for style in [Style::STANDARD, Style::MACOS] {
        let message = client::pkcs_req(&world.transaction(style), &world.csr).unwrap();
        for at in 0..message.len() {
            assert!(matches!(world.decode(&message[..at]), Err(Undecodable::Opaque { .. })), "{at}");
        }
        let long = [&message[..], &[0]].concat();
        assert!(matches!(world.decode(&long), Err(Undecodable::Opaque { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_mutation_panics_or_changes_the_request(
        macos: bool,
        at in any::<prop::sample::Index>(),
        to: u8,
        cut in any::<prop::sample::Index>(),
        splice in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        static MESSAGES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
            let world = &*WORLD;
            [Style::STANDARD, Style::MACOS]
                .map(|style| client::pkcs_req(&world.transaction(style), &world.csr).unwrap())
        });
        let world = &*WORLD;
        let mut message = MESSAGES[usize::from(macos)].clone();
        let at = at.index(message.len());
        message[at] = to;
        let cut = cut.index(message.len());
        message.splice(cut..cut, splice);
        if let Ok(request) = world.decode(&message) {
            prop_assert_eq!(&request.csr.der, &world.csr);
            // A damaged certificate may pass for an identity, but never for one that was issued: the caller
            // compares it byte for byte.
            prop_assert_eq!(request.signed_by == SignedBy::RequestKey, request.signer.der == world.self_signed);
        }
        let _ = client::parse_cert_rep(&world.transaction(Style::STANDARD), &message, b"");
    }

    #[test]
    fn rubbish_inside_a_good_signature_never_panics(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(WORLD.decode(&signed(&content, "19")).is_err());
    }
}
