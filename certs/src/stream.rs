//! Sealing what is too long for one blob: a stream of chunks, each sealed by itself (STREAM, Hoang et al. 2015).
//!
//! Every stream has its own key: HKDF of the master key's secret for a purpose, a random salt, and everything that the
//! stream's header says. A chunk's nonce is its number and whether it is the last one. So a chunk opens in its place of
//! its stream only: what was changed, left out, repeated, reordered, cut off or taken from another stream does not.

use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use secrecy::{ExposeSecret as _, SecretBox};

use crate::error::{Error, Result};
use crate::hash::{hkdf_sha256, hmac_sha256_parts};
use crate::seal::MasterKey;

/// Bytes of a stream's salt.
pub const SALT: usize = 32;
/// Bytes of a header's signature.
pub const HEADER_TAG: usize = 32;
/// Bytes that a sealed chunk is longer than what it holds.
pub const CHUNK_TAG: usize = 16;

/// The key of one stream, and the place in it. Each direction has its own.
pub struct StreamKey {
    key: SecretBox<[u8; 32]>,
    next: u64,
    over: bool,
}

impl StreamKey {
    /// The key of the stream with this salt and header.
    #[must_use]
    pub fn new(master: &MasterKey, purpose: &str, salt: &[u8; SALT], header: &[u8]) -> Self {
        let secret = master.derive(purpose);
        let key = hkdf_sha256(salt, secret.expose_secret(), header);
        Self { key: SecretBox::new(Box::new(key)), next: 0, over: false }
    }

    /// Seals the next chunk. After the last one there is none.
    ///
    /// # Errors
    /// [`Error::Unsealable`] after the last chunk; otherwise only if OpenSSL fails.
    pub fn seal(&mut self, plain: &[u8], last: bool) -> Result<Vec<u8>> {
        let nonce = self.step(last)?;
        let mut tag = [0; CHUNK_TAG];
        let key = self.key.expose_secret();
        let mut sealed = encrypt_aead(Cipher::chacha20_poly1305(), key, Some(&nonce), &[], plain, &mut tag)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens the next chunk.
    ///
    /// # Errors
    /// [`Error::Unsealable`] if it is not exactly the next chunk of this stream, the last one or not as said.
    pub fn open(&mut self, sealed: &[u8], last: bool) -> Result<Vec<u8>> {
        let nonce = self.step(last)?;
        let at = sealed.len().checked_sub(CHUNK_TAG).ok_or(Error::Unsealable)?;
        let (body, tag) = sealed.split_at_checked(at).ok_or(Error::Unsealable)?;
        let key = self.key.expose_secret();
        decrypt_aead(Cipher::chacha20_poly1305(), key, Some(&nonce), &[], body, tag)
            .map_err(|_| Error::Unsealable)
    }

    fn step(&mut self, last: bool) -> Result<[u8; 12]> {
        if self.over {
            return Err(Error::Unsealable);
        }
        self.over = last;
        let mut nonce = [0; 12];
        let number = self.next.to_be_bytes();
        let flag = [u8::from(last)];
        nonce.iter_mut().zip(flag.iter().chain(&[0; 3]).chain(&number)).for_each(|(to, from)| *to = *from);
        self.next = self.next.checked_add(1).ok_or(Error::Unsealable)?;
        Ok(nonce)
    }
}

/// Proves that a header was written by who has the master key, without opening what follows it.
#[must_use]
pub fn header_tag(master: &MasterKey, purpose: &str, header: &[u8]) -> [u8; HEADER_TAG] {
    let key = master.derive(purpose);
    hmac_sha256_parts(key.expose_secret(), &[b"header", header])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(salt: u8, header: &[u8]) -> (StreamKey, StreamKey) {
        let master = MasterKey::from_bytes(&[7; 32]);
        let key = || StreamKey::new(&master, "backup", &[salt; SALT], header);
        (key(), key())
    }

    #[test]
    fn chunks_open_in_their_order_and_end_with_the_last() {
        let (mut seal, mut open) = keys(1, b"h");
        let chunks = [
            seal.seal(b"one", false).unwrap(),
            seal.seal(b"", false).unwrap(),
            seal.seal(b"end", true).unwrap(),
        ];
        assert!(seal.seal(b"more", false).is_err(), "there is nothing after the last chunk");
        assert_eq!(open.open(&chunks[0], false).unwrap(), b"one");
        assert_eq!(open.open(&chunks[1], false).unwrap(), b"");
        assert_eq!(open.open(&chunks[2], true).unwrap(), b"end");
        assert!(open.open(&chunks[2], true).is_err());
    }

    #[test]
    fn a_chunk_opens_nowhere_else() {
        let (mut seal, _) = keys(1, b"h");
        let chunks = [seal.seal(b"one", false).unwrap(), seal.seal(b"two", true).unwrap()];
        let fails = |salt, header: &[u8], chunk: &[u8], last| keys(salt, header).1.open(chunk, last).is_err();
        assert!(!fails(1, b"h", &chunks[0], false));
        assert!(fails(1, b"h", &chunks[0], true), "said to be the last one");
        assert!(fails(1, b"h", &chunks[1], true), "in another place");
        assert!(fails(2, b"h", &chunks[0], false), "in another stream");
        assert!(fails(1, b"H", &chunks[0], false), "under another header");
        let stranger = MasterKey::from_bytes(&[8; 32]);
        assert!(StreamKey::new(&stranger, "backup", &[1; SALT], b"h").open(&chunks[0], false).is_err());
        for at in 0..chunks[0].len() {
            let mut changed = chunks[0].clone();
            changed[at] ^= 1;
            assert!(fails(1, b"h", &changed, false) && fails(1, b"h", &chunks[0][..at], false), "{at}");
        }
    }

    #[test]
    fn a_header_is_signed_with_the_master_key() {
        let (master, other) = (MasterKey::from_bytes(&[7; 32]), MasterKey::from_bytes(&[8; 32]));
        let tag = header_tag(&master, "backup", b"h");
        assert_eq!(tag, header_tag(&master, "backup", b"h"));
        assert_ne!(tag, header_tag(&master, "backup", b"H"));
        assert_ne!(tag, header_tag(&other, "backup", b"h"));
    }
}
