//! The server side: reading requests, building answers.

use bellwether_certs::asn1::to_definite;
use bellwether_certs::cert::{CertInfo, issued_by};
use bellwether_certs::cms::{self, Attribute, Builder, ContentCipher, SignedData, Verified};
use bellwether_certs::csr::{self, Csr};
use bellwether_certs::hash::Digest;
use bellwether_certs::keys::{KeyKind, KeyPair};
use secrecy::ExposeSecret as _;

use crate::error::Result;
use crate::wire::{self, FailInfo, MessageType};
use crate::{Error, MAX_MESSAGE};

/// What an answer must repeat of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestContext {
    /// The client's transaction id.
    pub transaction_id: String,
    /// The client's nonce, returned as the recipient's nonce.
    pub sender_nonce: Vec<u8>,
    /// The digest to sign the answer with: the one of the request; SHA-256 if that is unknown or SHA-1. The
    /// CA key, which also signs certificates, never signs SHA-1 over text that a client chose.
    pub digest: Digest,
}

/// Whose key signed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// A throw-away self-signed certificate of the very key that is to be certified (RFC 8894 §2.3).
    RequestKey,
    /// A certificate that is not self-signed. **Who issued it, and whether it is current and unrevoked, is not
    /// yet checked**: find `signer.fingerprint` among the certificates that the store has recorded.
    Identity,
}

/// A request whose signature, encryption and self-signature are in order. Whether it is authorised is not
/// decided here.
#[derive(Debug, Clone)]
pub struct Request {
    /// What an answer must repeat.
    pub context: RequestContext,
    /// First enrollment or renewal.
    pub message_type: MessageType,
    /// Whose key signed. Always [`SignedBy::Identity`] for a renewal.
    pub signed_by: SignedBy,
    /// The certificate that signed; the answer is encrypted to it.
    pub signer: CertInfo,
    /// The request inside.
    pub csr: Csr,
    /// The cipher of the request, used for the answer.
    pub cipher: ContentCipher,
}

/// A request that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// Enough was readable to answer with [`failure`] over HTTP 200.
    #[error("SCEP request refused ({fail_info:?}): {reason}")]
    WithContext {
        /// What the answer must repeat. Not verified when the signature is what failed.
        context: RequestContext,
        /// What to answer.
        fail_info: FailInfo,
        /// For the log. Never tell the client: it could learn what decrypted (see [`decode`]).
        reason: String,
    },
    /// Not a SCEP message at all: HTTP 400.
    #[error("not a SCEP message: {reason}")]
    Opaque {
        /// For the log.
        reason: String,
    },
}

/// Reads a `PKIOperation` that was sent to `recipient_cert_der`.
///
/// BER is read as well as DER, in both layers. Whatever fails between opening the envelope and verifying the
/// request's self-signature is answered alike, with `badMessageCheck`: otherwise somebody who recorded another
/// device's request could change its ciphertext, sign it anew and read the challenge out of our answers.
///
/// # Errors
/// [`Undecodable`].
pub fn decode(
    pki_message: &[u8],
    recipient_cert_der: &[u8],
    recipient_key: &KeyPair,
) -> std::result::Result<Request, Undecodable> {
    let opaque = |reason: &dyn std::fmt::Display| Undecodable::Opaque { reason: reason.to_string() };
    let definite = to_definite(pki_message, MAX_MESSAGE).map_err(|e| opaque(&e))?;
    let signed = SignedData::parse(&definite).map_err(|e| opaque(&e))?;
    let attributes = signed.unverified_attributes().ok_or_else(|| opaque(&"no signed attributes"))?;
    let transaction_id =
        wire::read_text(&attributes, wire::TRANSACTION_ID).ok_or_else(|| opaque(&"no transaction id"))?;
    let sender_nonce = wire::read_nonce(&attributes, wire::SENDER_NONCE);
    let has_nonce = sender_nonce.is_some();
    let mut context = RequestContext {
        transaction_id,
        sender_nonce: sender_nonce.unwrap_or_default(),
        digest: Digest::Sha256,
    };
    let refuse = |context: &RequestContext, fail_info, reason: &dyn std::fmt::Display| {
        Undecodable::WithContext { context: context.clone(), fail_info, reason: reason.to_string() }
    };

    let content = signed.content().unwrap_or_default();
    let verified = signed.verify(content).map_err(|e| match e {
        bellwether_certs::Error::Algorithm { .. } => refuse(&context, FailInfo::BadAlg, &e),
        _ => refuse(&context, FailInfo::BadMessageCheck, &e),
    })?;
    context.digest = match verified.digest {
        Digest::Sha1 => Digest::Sha256,
        other => other,
    };
    if !has_nonce {
        return Err(refuse(&context, FailInfo::BadRequest, &"no sender nonce"));
    }
    let message_type = message_type(&verified)
        .ok_or_else(|| refuse(&context, FailInfo::BadRequest, &"message type not accepted"))?;
    let signer =
        CertInfo::parse(verified.cert_der).map_err(|e| refuse(&context, FailInfo::BadMessageCheck, &e))?;
    let signer_kind = signer.public_key().map(|k| k.kind());
    if !matches!(signer_kind, Ok(KeyKind::Rsa { bits }) if bits >= 2048) {
        return Err(refuse(&context, FailInfo::BadAlg, &"the signer's key is not RSA of 2048 bits or more"));
    }

    let (plain, cipher) = cms::decrypt(content, recipient_cert_der, recipient_key, MAX_MESSAGE)
        .map_err(|e| refuse(&context, decrypt_failure(&e), &e))?;
    let csr =
        csr::parse(plain.expose_secret()).map_err(|e| refuse(&context, FailInfo::BadMessageCheck, &e))?;

    let signed_by = if issued_by(&signer.der, &signer.der) {
        if signer.spki_der != csr.spki_der {
            let reason = "self-signed by another key than the one to be certified";
            return Err(refuse(&context, FailInfo::BadMessageCheck, &reason));
        }
        SignedBy::RequestKey
    } else {
        SignedBy::Identity
    };
    if message_type == MessageType::RenewalReq && signed_by == SignedBy::RequestKey {
        let reason = "a renewal must be signed with the certificate to be renewed";
        return Err(refuse(&context, FailInfo::BadRequest, &reason));
    }
    Ok(Request { context, message_type, signed_by, signer, csr, cipher })
}

/// Builds the `CertRep` with pkiStatus SUCCESS (RFC 8894 §3.3.2.1): the issued certificate, encrypted to the
/// signer of the request with the cipher of the request, signed with the digest of the request
/// (SHA-256 where that was SHA-1).
///
/// Record the certificate durably first: a device must never hold one that the server does not know.
///
/// # Errors
/// Only if OpenSSL fails or a certificate cannot be read.
pub fn success(
    request: &Request,
    issued_der: &[u8],
    ca_cert_der: &[u8],
    ca_key: &KeyPair,
    sender_nonce: [u8; 16],
) -> Result<Vec<u8>> {
    let envelope = cms::encrypt(&cms::certs_only(&[issued_der]), &request.signer.der, request.cipher)?;
    let attributes = answer(&request.context, "0", sender_nonce);
    sign(&request.context, &envelope, false, attributes, ca_cert_der, ca_key)
}

/// Builds the `CertRep` with pkiStatus FAILURE (RFC 8894 §3.3.2.2), to be sent with HTTP 200.
///
/// # Errors
/// Only if OpenSSL fails or a certificate cannot be read.
pub fn failure(
    context: &RequestContext,
    fail_info: FailInfo,
    ca_cert_der: &[u8],
    ca_key: &KeyPair,
    sender_nonce: [u8; 16],
) -> Result<Vec<u8>> {
    let mut attributes = answer(context, "2", sender_nonce);
    attributes.push(wire::text(wire::FAIL_INFO, fail_info.text()));
    // The envelope is left out, not empty (RFC 8894 §3.3.2.2).
    sign(context, b"", true, attributes, ca_cert_der, ca_key)
}

/// Builds the `CertRep` with pkiStatus PENDING (RFC 8894 §3.3.2.3), for an approval that is not given yet.
/// The client repeats the same request or polls; polls are answered as unknown message types are.
///
/// # Errors
/// Only if OpenSSL fails or a certificate cannot be read.
pub fn pending(
    context: &RequestContext,
    ca_cert_der: &[u8],
    ca_key: &KeyPair,
    sender_nonce: [u8; 16],
) -> Result<Vec<u8>> {
    sign(context, b"", true, answer(context, "3", sender_nonce), ca_cert_der, ca_key)
}

fn answer(context: &RequestContext, status: &str, sender_nonce: [u8; 16]) -> Vec<Attribute> {
    let mut attributes = vec![
        wire::text(wire::MESSAGE_TYPE, "3"),
        wire::text(wire::PKI_STATUS, status),
        wire::text(wire::TRANSACTION_ID, &context.transaction_id),
        wire::octets(wire::SENDER_NONCE, &sender_nonce),
    ];
    if !context.sender_nonce.is_empty() {
        attributes.push(wire::octets(wire::RECIPIENT_NONCE, &context.sender_nonce));
    }
    attributes
}

fn sign(
    context: &RequestContext,
    content: &[u8],
    detached: bool,
    attributes: Vec<Attribute>,
    ca_cert_der: &[u8],
    ca_key: &KeyPair,
) -> Result<Vec<u8>> {
    let message = Builder {
        detached,
        digest: context.digest,
        attributes: Some(attributes),
        ..Builder::new(content, ca_cert_der, ca_key)
    };
    message.build().map_err(Error::from)
}

fn message_type(verified: &Verified<'_>) -> Option<MessageType> {
    let attributes = verified.attributes.as_ref()?;
    MessageType::from_text(&wire::read_text(attributes, wire::MESSAGE_TYPE)?)
}

/// The algorithm stands outside the encryption, so naming it gives nothing away.
const fn decrypt_failure(error: &bellwether_certs::Error) -> FailInfo {
    match error {
        bellwether_certs::Error::Algorithm { .. } => FailInfo::BadAlg,
        _ => FailInfo::BadMessageCheck,
    }
}
