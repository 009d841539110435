//! SCEP over HTTP: the query, `PKIOperation`, and the answers. No change to a recorded request makes another request of
//! it, and whatever can be answered is answered in a way that its client understands. The first byte chooses: 0x30 is
//! a message as it came; otherwise the rest changes a good one, or stands inside an envelope or a signature that are
//! good, or is a query.

#![no_main]

use std::sync::LazyLock;

use bellwether_certs::cms::{self, Attribute, Builder, ContentCipher};
use bellwether_certs::{Oid, asn1, csr};
use bellwether_fuzz::changed;
use bellwether_fuzz::keys::{NOW, WORLD, request};
use bellwether_scep::client::{self, Reply, Style, Transaction};
use bellwether_scep::server::{self, RequestContext, SignedBy, Undecodable};
use bellwether_scep::{FailInfo, MAX_MESSAGE, Operation, parse_get_message, parse_query};
use libfuzzer_sys::fuzz_target;

const NONCE: [u8; 16] = [7; 16];
const STYLES: [Style; 3] = [Style::STANDARD, Style::MACOS, Style::OLD];

fn transaction(style: Style, cert_der: &[u8]) -> Transaction<'_> {
    Transaction {
        ca_cert_der: WORLD.ca.cert_der(),
        cert_der,
        key: &WORLD.device,
        id: "tx-1",
        nonce: NONCE,
        style,
    }
}

/// First enrollments and renewals in every style.
static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let first =
        |style| client::pkcs_req(&transaction(style, &WORLD.self_signed), &WORLD.csr).expect("a request");
    let renewal =
        |style| client::renewal_req(&transaction(style, &WORLD.identity), &WORLD.csr).expect("a request");
    STYLES.into_iter().map(first).chain(STYLES.into_iter().map(renewal)).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return operation(bytes) };
    if *kind == 0x30 {
        operation(bytes);
        return;
    }
    let style = STYLES[usize::from(kind / 8) % STYLES.len()];
    match kind % 8 {
        0 | 1 => {
            let Some((which, edits)) = rest.split_first() else { return };
            operation(&changed(&GOOD[usize::from(*which) % GOOD.len()], edits));
        }
        2 => {
            operation(&client::pkcs_req(&transaction(style, &WORLD.self_signed), rest).expect("an envelope"))
        }
        3 => operation(
            &client::pkcs_req(&transaction(style, &WORLD.self_signed), &request(&[], rest, &[]))
                .expect("an envelope"),
        ),
        4 => operation(&signed(rest, "19")),
        5 => {
            let (kind, content) = rest.split_at(rest.len().min(2));
            operation(&signed(content, &String::from_utf8_lossy(kind)));
        }
        6 => reply(rest),
        _ => query(rest),
    }
});

/// A message whose signature is good, whatever is inside.
fn signed(content: &[u8], message_type: &str) -> Vec<u8> {
    const SCEP: [Oid; 3] = [
        &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 2],
        &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 5],
        &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, 7],
    ];
    let values =
        [asn1::tlv(0x13, &[message_type.as_bytes()]), asn1::octets(&NONCE), asn1::tlv(0x13, &[b"tx-1"])];
    let attributes = SCEP.into_iter().zip(values).map(|(oid, value)| Attribute { oid, value }).collect();
    let message =
        Builder { attributes: Some(attributes), ..Builder::new(content, &WORLD.self_signed, &WORLD.device) };
    message.build().expect("a signature")
}

fn operation(message: &[u8]) {
    let (cert, key) = (WORLD.ca.cert_der(), WORLD.ca.key());
    match server::decode(message, cert, key) {
        Ok(request) => {
            assert!(message.len() <= MAX_MESSAGE);
            let spki = request.csr.spki_der.clone();
            assert!(csr::parse(&request.csr.der).is_ok_and(|csr| csr.spki_der == spki));
            let own = [WORLD.device.public_key_der(), WORLD.p256.public_key_der()]
                .map(|key| key.expect("a public key"));
            assert!(own.contains(&spki), "a key that never asked");
            assert!(request.signed_by == SignedBy::Identity || request.signer.spki_der == spki);
            assert_eq!(request.signer.spki_der, own[0], "somebody else signed");
            let issued = WORLD.ca.issue_device(&spki, "device", [4; 16], NOW).expect("a certificate");
            let answer = server::success(&request, &issued, cert, key, [9; 16]).expect("an answer");
            understood(&request.context, &request.signer.der, &answer, &spki, &Reply::Success(issued));
        }
        Err(Undecodable::WithContext { context, fail_info, .. }) => {
            assert!(matches!(fail_info, FailInfo::BadAlg | FailInfo::BadMessageCheck | FailInfo::BadRequest));
            let answer = server::failure(&context, fail_info, cert, key, [9; 16]).expect("an answer");
            understood(&context, &WORLD.self_signed, &answer, b"", &Reply::Failure(fail_info));
        }
        Err(_) => {}
    }
}

/// The client of this very transaction reads the answer.
fn understood(context: &RequestContext, signer: &[u8], answer: &[u8], spki: &[u8], expected: &Reply) {
    let Ok(nonce) = <[u8; 16]>::try_from(context.sender_nonce.as_slice()) else { return };
    let client = Transaction { id: &context.transaction_id, nonce, ..transaction(Style::STANDARD, signer) };
    assert_eq!(&client::parse_cert_rep(&client, answer, spki).expect("an answer of ours"), expected);
}

/// What a client is told: nothing but an answer of the CA to this transaction is believed.
fn reply(bytes: &[u8]) {
    let client = transaction(Style::STANDARD, &WORLD.self_signed);
    assert!(client::parse_cert_rep(&client, bytes, b"").is_err(), "an answer that no CA gave");
    let envelope = cms::encrypt(bytes, &WORLD.self_signed, ContentCipher::Aes128Cbc).expect("an envelope");
    assert!(client::parse_cert_rep(&client, &envelope, b"").is_err());
}

fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse_query(text) {
        Ok(Operation::PkiOperation(Some(message))) => operation(&message),
        Ok(_) => assert!(text.contains("operation=")),
        Err(_) => {}
    }
    if let Ok(message) = parse_get_message(text) {
        use base64::Engine as _;
        let plain = base64::engine::general_purpose::STANDARD.encode(&message);
        assert_eq!(parse_get_message(&plain).expect("our own base64"), message);
        let escaped: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(parse_get_message(&escaped).expect("our own escapes"), message);
    }
}
