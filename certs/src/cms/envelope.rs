//! `EnvelopedData` with one RSA recipient (RFC 5652 §6): SCEP messages, Apple's server token.

use openssl::rsa::Padding;
use openssl::symm::{Cipher, decrypt as cbc_decrypt, encrypt as cbc_encrypt};
use secrecy::{ExposeSecret as _, SecretBox};

use super::verify::CertParts;
use crate::asn1::{self, Reader, Tlv, to_definite};
use crate::error::{Error, Result};
use crate::keys::{KeyKind, KeyPair, PublicKey};
use crate::oid::{self, Oid};

/// Content ciphers that are read and written. Single DES and RC2 are not (apple-pitfalls §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCipher {
    /// AES-128 in CBC mode.
    Aes128Cbc,
    /// AES-192 in CBC mode.
    Aes192Cbc,
    /// AES-256 in CBC mode.
    Aes256Cbc,
    /// Three-key triple DES in CBC mode, which old SCEP clients still use.
    Des3Cbc,
}

impl ContentCipher {
    fn from_oid(content: &[u8]) -> Option<Self> {
        match content {
            oid::AES128_CBC => Some(Self::Aes128Cbc),
            oid::AES192_CBC => Some(Self::Aes192Cbc),
            oid::AES256_CBC => Some(Self::Aes256Cbc),
            oid::DES_EDE3_CBC => Some(Self::Des3Cbc),
            _ => None,
        }
    }

    const fn oid(self) -> Oid {
        match self {
            Self::Aes128Cbc => oid::AES128_CBC,
            Self::Aes192Cbc => oid::AES192_CBC,
            Self::Aes256Cbc => oid::AES256_CBC,
            Self::Des3Cbc => oid::DES_EDE3_CBC,
        }
    }

    fn openssl(self) -> Cipher {
        match self {
            Self::Aes128Cbc => Cipher::aes_128_cbc(),
            Self::Aes192Cbc => Cipher::aes_192_cbc(),
            Self::Aes256Cbc => Cipher::aes_256_cbc(),
            Self::Des3Cbc => Cipher::des_ede3_cbc(),
        }
    }
}

/// Opens an envelope (BER or DER) that was made for the key of `recipient_cert_der`.
///
/// A wrong content key, a wrong padding and a wrong recipient key are one and the same error, after the same
/// work, so that nobody can use this server as a decryption oracle (RFC 3218 §2.3.2).
///
/// # Errors
/// [`Error::Malformed`] and the limits; [`Error::Algorithm`]; [`Error::Key`] if the envelope is for somebody
/// else or the key is not RSA.
pub fn decrypt(
    message: &[u8],
    recipient_cert_der: &[u8],
    key: &KeyPair,
    max_len: usize,
) -> Result<(SecretBox<Vec<u8>>, ContentCipher)> {
    let definite = to_definite(message, max_len)?;
    let envelope = Envelope::parse(&definite)?;
    let recipient = CertParts::parse(recipient_cert_der)?;
    let encrypted_key = find_key(envelope.recipients.clone(), &recipient)?;
    let cipher = envelope.cipher.openssl();
    if envelope.iv.len() != cipher.iv_len().unwrap_or(0) {
        return Err(Error::malformed("initialization vector"));
    }
    let content_key = unwrap_key(key, encrypted_key, cipher.key_len())?;
    let content = cbc_decrypt(cipher, content_key.expose_secret(), Some(envelope.iv), &envelope.content)
        .map_err(|_| Error::malformed("encrypted content"))?;
    Ok((SecretBox::new(Box::new(content)), envelope.cipher))
}

/// Encrypts `content` to the RSA key of a certificate.
///
/// # Errors
/// [`Error::Key`] if the certificate has no RSA key; [`Error::Malformed`] if it cannot be read.
pub fn encrypt(content: &[u8], recipient_cert_der: &[u8], cipher: ContentCipher) -> Result<Vec<u8>> {
    seal(content, recipient_cert_der, cipher, |encrypted| asn1::tlv(0x80, &[encrypted]))
}

/// As [`encrypt`], in the BER that macOS writes: indefinite lengths and the encrypted content in pieces.
///
/// # Errors
/// As [`encrypt`].
pub fn encrypt_indefinite(
    content: &[u8],
    recipient_cert_der: &[u8],
    cipher: ContentCipher,
) -> Result<Vec<u8>> {
    let message = seal(content, recipient_cert_der, cipher, |encrypted| {
        let pieces: Vec<Vec<u8>> = encrypted.chunks(100).map(asn1::octets).collect();
        let refs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        asn1::tlv(0xa0, &refs)
    })?;
    asn1::to_indefinite(&message)
}

fn seal(
    content: &[u8],
    recipient_cert_der: &[u8],
    cipher: ContentCipher,
    encode: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<Vec<u8>> {
    let recipient = CertParts::parse(recipient_cert_der)?;
    let public = PublicKey::from_spki(recipient.spki)?;
    if !matches!(public.kind(), KeyKind::Rsa { .. }) {
        return Err(Error::Key { reason: "only RSA keys can receive an encrypted message" });
    }
    let openssl = cipher.openssl();
    let mut content_key = SecretBox::new(Box::new(vec![0_u8; openssl.key_len()]));
    openssl::rand::rand_bytes(secrecy::ExposeSecretMut::expose_secret_mut(&mut content_key))?;
    let mut iv = vec![0; openssl.iv_len().unwrap_or(0)];
    openssl::rand::rand_bytes(&mut iv)?;
    let encrypted = cbc_encrypt(openssl, content_key.expose_secret(), Some(&iv), content)?;
    let rsa = public.pkey().rsa()?;
    let mut wrapped = vec![0; usize::try_from(rsa.size()).unwrap_or(0)];
    let written = rsa.public_encrypt(content_key.expose_secret(), &mut wrapped, Padding::PKCS1)?;
    wrapped.truncate(written);

    let key_algorithm = asn1::seq(&[&asn1::oid(oid::RSA_ENCRYPTION), &asn1::tlv(0x05, &[])]);
    let recipient_info = asn1::seq(&[
        &asn1::integer(&[0]),
        &asn1::seq(&[recipient.issuer.raw, recipient.serial.raw]),
        &key_algorithm,
        &asn1::octets(&wrapped),
    ]);
    let data = asn1::seq(&[
        &asn1::integer(&[0]),
        &asn1::tlv(0x31, &[&recipient_info]),
        &asn1::seq(&[
            &asn1::oid(oid::DATA),
            &asn1::seq(&[&asn1::oid(cipher.oid()), &asn1::octets(&iv)]),
            &encode(&encrypted),
        ]),
    ]);
    Ok(asn1::seq(&[&asn1::oid(oid::ENVELOPED_DATA), &asn1::tlv(0xa0, &[&data])]))
}

struct Envelope<'a> {
    recipients: Reader<'a>,
    cipher: ContentCipher,
    iv: &'a [u8],
    content: Vec<u8>,
}

impl<'a> Envelope<'a> {
    fn parse(definite: &'a [u8]) -> Result<Self> {
        const WHAT: &str = "enveloped message";
        let mut info = Reader::new(definite).expect(0x30, WHAT)?.reader();
        if info.expect(0x06, WHAT)?.content != oid::ENVELOPED_DATA {
            return Err(Error::malformed("enveloped message: other content type"));
        }
        let mut data = info.expect(0xa0, WHAT)?.reader().expect(0x30, WHAT)?.reader();
        data.expect(0x02, WHAT)?;
        data.optional(0xa0, WHAT)?;
        let recipients = data.expect(0x31, WHAT)?.reader();
        let mut encrypted = data.expect(0x30, WHAT)?.reader();
        data.optional(0xa1, WHAT)?;
        data.finish(WHAT)?;
        encrypted.expect(0x06, WHAT)?;
        let mut algorithm = encrypted.expect(0x30, WHAT)?.reader();
        let cipher = ContentCipher::from_oid(algorithm.expect(0x06, WHAT)?.content)
            .ok_or(Error::Algorithm { what: "content encryption" })?;
        let iv = algorithm.expect(0x04, WHAT)?.content;
        let content = octets_of(&encrypted.next(WHAT)?)?;
        encrypted.finish(WHAT)?;
        Ok(Self { recipients, cipher, iv, content })
    }
}

/// `encryptedContent [0] IMPLICIT OCTET STRING`: primitive, or constructed from octet strings.
fn octets_of(value: &Tlv<'_>) -> Result<Vec<u8>> {
    const WHAT: &str = "encrypted content";
    match value.tag {
        0x80 => Ok(value.content.to_vec()),
        0xa0 => {
            let mut out = Vec::with_capacity(value.content.len());
            let mut parts = value.reader();
            while !parts.is_empty() {
                out.extend_from_slice(parts.expect(0x04, WHAT)?.content);
            }
            Ok(out)
        }
        _ => Err(Error::malformed(WHAT)),
    }
}

fn find_key<'a>(mut recipients: Reader<'a>, us: &CertParts<'_>) -> Result<&'a [u8]> {
    const WHAT: &str = "recipient info";
    while !recipients.is_empty() {
        let recipient = recipients.next(WHAT)?;
        // Key agreement and the other choices ([1] to [4]) are not for an RSA key.
        if recipient.tag != 0x30 {
            continue;
        }
        let mut info = recipient.reader();
        info.expect(0x02, WHAT)?;
        if !us.is(&info.next(WHAT)?) {
            continue;
        }
        if info.expect(0x30, WHAT)?.reader().expect(0x06, WHAT)?.content != oid::RSA_ENCRYPTION {
            return Err(Error::Algorithm { what: "key encryption" });
        }
        return Ok(info.expect(0x04, WHAT)?.content);
    }
    Err(Error::Key { reason: "the message is encrypted for another certificate" })
}

/// Decrypts the content key; on any failure gives a random one, which then fails like a wrong key.
fn unwrap_key(key: &KeyPair, encrypted: &[u8], len: usize) -> Result<SecretBox<Vec<u8>>> {
    let rsa = key.pkey().rsa().map_err(|_| Error::Key { reason: "the recipient's key is not RSA" })?;
    let mut random = vec![0; len];
    openssl::rand::rand_bytes(&mut random)?;
    let size = usize::try_from(rsa.size()).unwrap_or(0);
    let mut plain = SecretBox::new(Box::new(vec![0_u8; size]));
    let buffer: &mut Vec<u8> = secrecy::ExposeSecretMut::expose_secret_mut(&mut plain);
    // OpenSSL's binding asserts that the buffer is large enough and that lengths fit an int.
    let good = encrypted.len() <= size
        && rsa.private_decrypt(encrypted, buffer, Padding::PKCS1).is_ok_and(|written| written == len);
    buffer.truncate(len);
    Ok(if good { plain } else { SecretBox::new(Box::new(random)) })
}
