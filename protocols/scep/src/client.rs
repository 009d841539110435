//! The client side, for the device simulator and for judging the server side.

use bellwether_certs::asn1::{to_definite, to_indefinite};
use bellwether_certs::cert::CertInfo;
use bellwether_certs::cms::{self, Builder, ContentCipher, SignedData};
use bellwether_certs::hash::{Digest, hex, sha256};
use bellwether_certs::keys::KeyPair;
use secrecy::ExposeSecret as _;

use crate::MAX_MESSAGE;
use crate::error::{Error, Result};
use crate::wire::{self, FailInfo, MessageType};

/// How a client writes its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Digest of the signature.
    pub digest: Digest,
    /// Cipher of the envelope.
    pub cipher: ContentCipher,
    /// Write BER with indefinite lengths and strings in pieces, as macOS does, in both layers.
    pub ber_indefinite: bool,
}

impl Style {
    /// What RFC 8894 asks for.
    pub const STANDARD: Self =
        Self { digest: Digest::Sha256, cipher: ContentCipher::Aes128Cbc, ber_indefinite: false };
    /// What macOS does with a server that offers [`crate::CAPS`].
    pub const MACOS: Self = Self { ber_indefinite: true, ..Self::STANDARD };
    /// What clients from before RFC 8894 do.
    pub const OLD: Self =
        Self { digest: Digest::Sha1, cipher: ContentCipher::Des3Cbc, ber_indefinite: false };
}

/// One transaction of a client.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// The CA's certificate: requests are encrypted to it, answers are signed by it.
    pub ca_cert_der: &'a [u8],
    /// The certificate to sign with: self-signed for the first enrollment
    /// ([`bellwether_certs::csr::self_signed`]), the current identity for a renewal.
    pub cert_der: &'a [u8],
    /// Its key, RSA.
    pub key: &'a KeyPair,
    /// The transaction id, see [`transaction_id`].
    pub id: &'a str,
    /// The client's nonce.
    pub nonce: [u8; 16],
    /// How to write.
    pub style: Style,
}

/// The server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The issued certificate, DER.
    Success(Vec<u8>),
    /// Refused.
    Failure(FailInfo),
    /// Ask again later.
    Pending,
}

/// The transaction id RFC 8894 §3.2.1.1 suggests: a hash of the public key.
#[must_use]
pub fn transaction_id(spki_der: &[u8]) -> String {
    hex(&sha256(spki_der))
}

/// Builds a `PKCSReq` around a PKCS#10 request.
///
/// # Errors
/// [`Error::Certs`] if a certificate cannot be read or the CA has no RSA key.
pub fn pkcs_req(transaction: &Transaction<'_>, csr_der: &[u8]) -> Result<Vec<u8>> {
    request(transaction, MessageType::PkcsReq.text(), csr_der)
}

/// Builds a `RenewalReq` around a PKCS#10 request.
///
/// # Errors
/// As [`pkcs_req`].
pub fn renewal_req(transaction: &Transaction<'_>, csr_der: &[u8]) -> Result<Vec<u8>> {
    request(transaction, MessageType::RenewalReq.text(), csr_der)
}

/// Builds a request with any message type, to see that servers refuse it.
///
/// # Errors
/// As [`pkcs_req`].
pub fn request(transaction: &Transaction<'_>, message_type: &str, content: &[u8]) -> Result<Vec<u8>> {
    let Transaction { ca_cert_der, cert_der, key, id, nonce, style } = *transaction;
    let encrypt = if style.ber_indefinite { cms::encrypt_indefinite } else { cms::encrypt };
    let envelope = encrypt(content, ca_cert_der, style.cipher)?;
    let message = Builder {
        digest: style.digest,
        attributes: Some(vec![
            wire::text(wire::MESSAGE_TYPE, message_type),
            wire::text(wire::TRANSACTION_ID, id),
            wire::octets(wire::SENDER_NONCE, &nonce),
        ]),
        ..Builder::new(&envelope, cert_der, key)
    }
    .build()?;
    Ok(if style.ber_indefinite { to_indefinite(&message)? } else { message })
}

/// Reads and verifies a `CertRep`: signed by the CA, for this transaction and this nonce; on success the
/// certificate inside must be for `expected_spki`.
///
/// # Errors
/// [`Error::Reply`] for an answer that breaks RFC 8894, [`Error::Certs`] for one that does not verify.
pub fn parse_cert_rep(transaction: &Transaction<'_>, reply: &[u8], expected_spki: &[u8]) -> Result<Reply> {
    let wrong = |reason| Error::Reply { reason };
    let definite = to_definite(reply, MAX_MESSAGE)?;
    let signed = SignedData::parse(&definite)?;
    let verified = signed.verify(signed.content().unwrap_or_default())?;
    if verified.cert_der != transaction.ca_cert_der {
        return Err(wrong("signed by somebody else than the CA"));
    }
    let attributes = verified.attributes.as_ref().ok_or(wrong("no signed attributes"))?;
    let text = |oid| wire::read_text(attributes, oid);
    if text(wire::MESSAGE_TYPE).as_deref() != Some("3") {
        return Err(wrong("not a CertRep"));
    }
    if text(wire::TRANSACTION_ID).as_deref() != Some(transaction.id) {
        return Err(wrong("another transaction id"));
    }
    if wire::read_nonce(attributes, wire::RECIPIENT_NONCE).as_deref() != Some(&transaction.nonce) {
        return Err(wrong("another recipient nonce"));
    }
    if wire::read_nonce(attributes, wire::SENDER_NONCE).is_none() {
        return Err(wrong("no sender nonce"));
    }
    match text(wire::PKI_STATUS).as_deref() {
        Some("0") => {}
        Some("2") => {
            let info = text(wire::FAIL_INFO).and_then(|t| FailInfo::from_text(&t));
            return info.map(Reply::Failure).ok_or(wrong("a failure without failInfo"));
        }
        Some("3") => return Ok(Reply::Pending),
        _ => return Err(wrong("no pkiStatus")),
    }
    let envelope = signed.content().ok_or(wrong("a success without content"))?;
    let (inside, _) = cms::decrypt(envelope, transaction.cert_der, transaction.key, MAX_MESSAGE)?;
    let inside = to_definite(inside.expose_secret(), MAX_MESSAGE)?;
    for der in SignedData::parse(&inside)?.certificates() {
        if CertInfo::parse(der).is_ok_and(|info| info.spki_der == expected_spki) {
            return Ok(Reply::Success(der.to_vec()));
        }
    }
    Err(wrong("no certificate for the requested key"))
}

/// Whether a server's `GetCACaps` answer offers what [`Style::STANDARD`] needs.
#[must_use]
pub fn caps_suffice(caps: &str) -> bool {
    let has = |word: &str| caps.lines().any(|line| line.trim().eq_ignore_ascii_case(word));
    has("SCEPStandard") || (has("AES") && has("POSTPKIOperation") && has("SHA-256"))
}
