//! Digests, HMAC, HKDF, constant-time comparison, random bytes and hex.

use openssl::hash::MessageDigest;
use openssl::sha::{Sha256, sha256 as openssl_sha256};
use zeroize::Zeroize as _;

use crate::Oid;
use crate::error::Result;
use crate::oid;

/// The digests this server computes and accepts.
///
/// SHA-1 stands here because real Apple devices sign `Mdm-Signature` with it; it is never used to issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-1: verification of device signatures only.
    Sha1,
    /// SHA-256: what this server signs with.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Digest {
    /// The digest named by an object identifier (content octets).
    #[must_use]
    pub fn from_oid(content: &[u8]) -> Option<Self> {
        match content {
            oid::SHA1 => Some(Self::Sha1),
            oid::SHA256 => Some(Self::Sha256),
            oid::SHA384 => Some(Self::Sha384),
            oid::SHA512 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The object identifier (content octets).
    #[must_use]
    pub const fn oid(self) -> Oid {
        match self {
            Self::Sha1 => oid::SHA1,
            Self::Sha256 => oid::SHA256,
            Self::Sha384 => oid::SHA384,
            Self::Sha512 => oid::SHA512,
        }
    }

    pub(crate) fn openssl(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    /// Digests `data`.
    #[must_use]
    pub fn of(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => openssl::sha::sha1(data).to_vec(),
            Self::Sha256 => openssl_sha256(data).to_vec(),
            Self::Sha384 => openssl::sha::sha384(data).to_vec(),
            Self::Sha512 => openssl::sha::sha512(data).to_vec(),
        }
    }
}

/// SHA-256.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; 32] {
    openssl_sha256(data)
}

/// SHA-256 of what comes in pieces.
#[derive(Clone)]
pub struct RunningSha256(Sha256);

impl RunningSha256 {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Of all pieces.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finish()
    }
}

impl Default for RunningSha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// MD5, for the digest credentials of OMA-DM only (OMA-TS-DM_Security 5.3). It proves nothing by itself.
#[must_use]
pub fn md5(data: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    let digest = openssl::hash::hash(MessageDigest::md5(), data);
    // An OpenSSL without MD5 (FIPS) makes every credential wrong: it must not make them all the same.
    let bytes = digest.as_ref().map_or_else(|_| sha256(data).to_vec(), |digest| digest.to_vec());
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    out
}

/// HMAC-SHA256 (RFC 2104).
#[must_use]
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    hmac_sha256_parts(key, &[data])
}

/// HMAC-SHA256 over the concatenation of `parts`.
#[must_use]
pub fn hmac_sha256_parts(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut pad = [0_u8; BLOCK];
    if key.len() > BLOCK {
        pad.iter_mut().zip(sha256(key)).for_each(|(p, k)| *p = k);
    } else {
        pad.iter_mut().zip(key).for_each(|(p, k)| *p = *k);
    }
    pad.iter_mut().for_each(|b| *b ^= 0x36);
    let mut inner = Sha256::new();
    inner.update(&pad);
    parts.iter().for_each(|part| inner.update(part));
    pad.iter_mut().for_each(|b| *b ^= 0x36 ^ 0x5c);
    let mut outer = Sha256::new();
    outer.update(&pad);
    outer.update(&inner.finish());
    pad.zeroize();
    outer.finish()
}

/// HKDF-SHA256 (RFC 5869) with one block of output: extract with `salt`, expand with `info`.
#[must_use]
pub fn hkdf_sha256(salt: &[u8], secret: &[u8], info: &[u8]) -> [u8; 32] {
    let mut prk = hmac_sha256(salt, secret);
    let out = hmac_sha256_parts(&prk, &[info, &[1]]);
    prk.zeroize();
    out
}

/// Compares without telling by its duration where the difference is. Lengths are not secret.
#[must_use]
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && openssl::memcmp::eq(a, b)
}

/// Random bytes from OpenSSL's generator.
///
/// # Errors
/// Fails when the operating system gives no randomness.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0_u8; N];
    openssl::rand::rand_bytes(&mut out)?;
    Ok(out)
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

/// Reads hex of either case; `None` on any other character or an odd length.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let mut value = 0_u8;
            for c in pair {
                value = value << 4 | u8::try_from(char::from(*c).to_digit(16)?).ok()?;
            }
            Some(value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn hkdf_agrees_with_rfc_5869_case_1() {
        let salt = unhex("000102030405060708090a0b0c").unwrap();
        let info = unhex("f0f1f2f3f4f5f6f7f8f9").unwrap();
        assert_eq!(
            hex(&hkdf_sha256(&salt, &[0x0b; 22], &info)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        );
    }

    #[test]
    fn comparison_and_hex() {
        assert!(ct_eq(b"", b"") && ct_eq(b"ab", b"ab"));
        assert!(!ct_eq(b"ab", b"ac") && !ct_eq(b"ab", b"abc"));
        assert_eq!(hex(&[0, 0x9f, 0xff]), "009fff");
        assert_eq!(unhex("009Fff"), Some(vec![0, 0x9f, 0xff]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("é"), None);
    }

    #[test]
    fn digests_know_their_names() {
        for d in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
            assert_eq!(Digest::from_oid(d.oid()), Some(d));
            assert_eq!(d.of(b"x").len(), d.openssl().size());
        }
        assert_eq!(Digest::from_oid(b""), None);
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random_bytes::<16>().unwrap(), random_bytes::<16>().unwrap());
    }
}
