//! Sealing secrets at rest: a master key outside the database, a key per site, sealed blobs.
//!
//! A blob is `version (1) | key id (8) | nonce (12) | ciphertext | tag (16)`, ChaCha20-Poly1305 (RFC 8439).
//! Its associated data binds it to one place (kind, id and field, each length-prefixed), so a blob that was
//! copied to another row or field does not open. Every place has its own key, derived from the sealing key,
//! so that random nonces only ever meet other nonces of the same place.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::{Signer, Verifier};
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use zeroize::Zeroize as _;

use crate::error::{Error, Result};
use crate::hash::{hex, hkdf_sha256, hmac_sha256, random_bytes, unhex};

/// Version byte of the blob format.
const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Bytes a blob is longer than its plaintext.
pub const OVERHEAD: usize = 1 + KEY_ID + NONCE + TAG;

/// Names a key without telling anything about it.
pub type KeyId = [u8; KEY_ID];

/// The place a secret lives in. A sealed blob opens only in the place it was sealed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealContext<'a> {
    /// What the row is, for example `device`.
    pub kind: &'a str,
    /// The stable id of the row.
    pub id: &'a [u8],
    /// The field of the row, for example `unlock-token`.
    pub field: &'a str,
}

impl SealContext<'_> {
    fn associated_data(&self, key_id: &KeyId) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(key_id);
        for part in [self.kind.as_bytes(), self.id, self.field.as_bytes()] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }
}

/// The secret behind both kinds of keys.
struct Root {
    secret: SecretBox<[u8; 32]>,
    seal_key: SecretBox<[u8; 32]>,
    key_id: KeyId,
}

impl Root {
    fn new(bytes: &[u8; 32], label: &str) -> Self {
        let info = |purpose: &str| format!("bellwether/{label}/{purpose}");
        let mut id = [0; KEY_ID];
        let id_bytes = hkdf_sha256(b"", bytes, info("key-id").as_bytes());
        id.iter_mut().zip(id_bytes).for_each(|(to, from)| *to = from);
        Self {
            secret: SecretBox::new(Box::new(*bytes)),
            seal_key: SecretBox::new(Box::new(hkdf_sha256(b"", bytes, info("seal/v1").as_bytes()))),
            key_id: id,
        }
    }

    fn derive(&self, label: &str, purpose: &str) -> SecretBox<[u8; 32]> {
        // "derive:" keeps callers' purposes apart from the two labels above.
        let info = format!("bellwether/{label}/derive:{purpose}");
        SecretBox::new(Box::new(hkdf_sha256(b"", self.secret.expose_secret(), info.as_bytes())))
    }

    fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Result<Vec<u8>> {
        let aad = context.associated_data(&self.key_id);
        let mut key = hmac_sha256(self.seal_key.expose_secret(), &aad);
        let nonce = random_bytes::<NONCE>()?;
        let mut tag = [0; TAG];
        let sealed = encrypt_aead(Cipher::chacha20_poly1305(), &key, Some(&nonce), &aad, plaintext, &mut tag);
        key.zeroize();
        let mut out = Vec::with_capacity(OVERHEAD + plaintext.len());
        out.push(VERSION);
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed?);
        out.extend_from_slice(&tag);
        Ok(out)
    }

    fn open(&self, context: &SealContext<'_>, blob: &[u8]) -> Result<SecretBox<Vec<u8>>> {
        let parts = Blob::split(blob).ok_or(Error::malformed("sealed blob"))?;
        if parts.key_id != self.key_id {
            return Err(Error::WrongKey { blob: hex(parts.key_id), ours: hex(&self.key_id) });
        }
        let aad = context.associated_data(&self.key_id);
        let mut key = hmac_sha256(self.seal_key.expose_secret(), &aad);
        let opened = decrypt_aead(
            Cipher::chacha20_poly1305(),
            &key,
            Some(parts.nonce),
            &aad,
            parts.ciphertext,
            parts.tag,
        );
        key.zeroize();
        opened.map(|plain| SecretBox::new(Box::new(plain))).map_err(|_| Error::Unsealable)
    }
}

struct Blob<'a> {
    key_id: &'a [u8],
    nonce: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Blob<'a> {
    fn split(blob: &'a [u8]) -> Option<Self> {
        let (&version, rest) = blob.split_first()?;
        if version != VERSION {
            return None;
        }
        let (key_id, rest) = rest.split_at_checked(KEY_ID)?;
        let (nonce, rest) = rest.split_at_checked(NONCE)?;
        let (ciphertext, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
        Some(Self { key_id, nonce, ciphertext, tag })
    }
}

/// The key id written in a blob, to tell which key sealed it; `None` if it is no blob.
#[must_use]
pub fn blob_key_id(blob: &[u8]) -> Option<KeyId> {
    Blob::split(blob)?.key_id.try_into().ok()
}

/// The key of the whole server. It lives outside the database; every node has the same one.
pub struct MasterKey(Root);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", hex(&self.0.key_id))
    }
}

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// Only without randomness.
    pub fn generate() -> Result<Self> {
        let mut bytes = random_bytes::<32>()?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Root::new(bytes, "master"))
    }

    /// Reads a key file: 32 bytes as base64 (any alphabet) or 64 hex digits; white space around it is fine.
    ///
    /// # Errors
    /// [`Error::Key`] if it is neither.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim();
        let decoded = if text.len() == 64 {
            unhex(text)
        } else {
            [&STANDARD, &URL_SAFE, &URL_SAFE_NO_PAD].into_iter().find_map(|engine| engine.decode(text).ok())
        };
        let mut decoded = decoded.unwrap_or_default();
        let key = <&[u8; 32]>::try_from(decoded.as_slice()).map(Self::from_bytes).map_err(|_| Error::Key {
            reason: "the master key must be 32 bytes in base64 or hex (openssl rand -base64 32)",
        });
        decoded.zeroize();
        key
    }

    /// The key as base64, for the key file.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        SecretString::from(STANDARD.encode(self.0.secret.expose_secret()))
    }

    /// Names this key; nodes compare it at start and refuse a wrong one.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.0.key_id
    }

    /// A key for one purpose (HKDF-SHA256, RFC 5869).
    #[must_use]
    pub fn derive(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        self.0.derive("master", purpose)
    }

    /// Seals a secret of the whole server.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Result<Vec<u8>> {
        self.0.seal(context, plaintext)
    }

    /// Opens a secret of the whole server.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::Unsealable`] or [`Error::Malformed`].
    pub fn open(&self, context: &SealContext<'_>, blob: &[u8]) -> Result<SecretBox<Vec<u8>>> {
        self.0.open(context, blob)
    }

    /// Seals a site's key. Deleting the result and all its copies destroys every secret of the site.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn wrap_site_key(&self, site: [u8; 16], key: &SiteKey) -> Result<Vec<u8>> {
        self.seal(&site_context(&site), key.0.secret.expose_secret())
    }

    /// Opens a site's key.
    ///
    /// # Errors
    /// As [`Self::open`]; also for the wrapped key of another site.
    pub fn unwrap_site_key(&self, site: [u8; 16], blob: &[u8]) -> Result<SiteKey> {
        let opened = self.open(&site_context(&site), blob)?;
        let bytes = <&[u8; 32]>::try_from(opened.expose_secret().as_slice());
        bytes.map(SiteKey::from_bytes).map_err(|_| Error::Unsealable)
    }
}

const fn site_context(site: &[u8; 16]) -> SealContext<'_> {
    SealContext { kind: "site", id: site, field: "key" }
}

/// The key of one site.
pub struct SiteKey(Root);

impl std::fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SiteKey({})", hex(&self.0.key_id))
    }
}

impl SiteKey {
    /// A new random key.
    ///
    /// # Errors
    /// Only without randomness.
    pub fn generate() -> Result<Self> {
        let mut bytes = random_bytes::<32>()?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Root::new(bytes, "site"))
    }

    /// Names this key.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.0.key_id
    }

    /// A key for one purpose (HKDF-SHA256, RFC 5869).
    #[must_use]
    pub fn derive(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        self.0.derive("site", purpose)
    }

    /// Seals a secret of this site.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Result<Vec<u8>> {
        self.0.seal(context, plaintext)
    }

    /// Opens a secret of this site.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::Unsealable`] or [`Error::Malformed`].
    pub fn open(&self, context: &SealContext<'_>, blob: &[u8]) -> Result<SecretBox<Vec<u8>>> {
        self.0.open(context, blob)
    }
}

/// An Ed25519 key (RFC 8032) that signs audit checkpoints.
pub struct SigningKey {
    pkey: PKey<Private>,
    public: [u8; 32],
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(public {})", hex(&self.public))
    }
}

/// The audit signing key of a seed; the same seed always gives the same key.
///
/// # Errors
/// Only if OpenSSL fails.
pub fn audit_signing_key(seed: &[u8; 32]) -> Result<SigningKey> {
    let pkey = PKey::private_key_from_raw_bytes(seed, Id::ED25519)?;
    let public = pkey.raw_public_key()?.try_into().map_err(|_| Error::malformed("Ed25519 public key"))?;
    Ok(SigningKey { pkey, public })
}

impl SigningKey {
    /// Signs.
    ///
    /// # Errors
    /// Only if OpenSSL fails.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64]> {
        let signature = Signer::new_without_digest(&self.pkey)?.sign_oneshot_to_vec(message)?;
        signature.try_into().map_err(|_| Error::malformed("Ed25519 signature"))
    }

    /// The raw public key.
    #[must_use]
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }
}

/// Verifies an Ed25519 signature; anything that is not one is `false`.
#[must_use]
pub fn verify_ed25519(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    PKey::public_key_from_raw_bytes(public, Id::ED25519)
        .and_then(|key| Verifier::new_without_digest(&key)?.verify_oneshot(signature, message))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: SealContext<'_> = SealContext { kind: "device", id: &[1, 2], field: "unlock-token" };

    #[test]
    fn a_blob_opens_only_where_it_was_sealed() {
        let key = SiteKey::generate().unwrap();
        let blob = key.seal(&HERE, b"secret").unwrap();
        assert_eq!(blob.len(), OVERHEAD + 6);
        assert_eq!(blob_key_id(&blob), Some(key.key_id()));
        assert_eq!(key.open(&HERE, &blob).unwrap().expose_secret(), b"secret");
        for elsewhere in [
            SealContext { kind: "user", ..HERE },
            SealContext { id: &[1, 3], ..HERE },
            SealContext { field: "bootstrap-token", ..HERE },
            // The borders between the parts count too.
            SealContext { kind: "devic", id: &[b'e', 1, 2], field: "unlock-token" },
            SealContext { kind: "device", id: &[1], field: "\u{2}unlock-token" },
        ] {
            assert!(matches!(key.open(&elsewhere, &blob), Err(Error::Unsealable)));
        }
        let other = SiteKey::generate().unwrap();
        assert!(matches!(other.open(&HERE, &blob), Err(Error::WrongKey { .. })));
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let key = SiteKey::generate().unwrap();
        let blob = key.seal(&HERE, b"secret").unwrap();
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            assert!(key.open(&HERE, &changed).is_err());
            assert!(key.open(&HERE, &blob[..at]).is_err());
        }
    }

    #[test]
    fn site_keys_are_wrapped_for_one_site() {
        let master = MasterKey::generate().unwrap();
        let key = SiteKey::generate().unwrap();
        let blob = master.wrap_site_key([7; 16], &key).unwrap();
        let again = master.unwrap_site_key([7; 16], &blob).unwrap();
        let sealed = key.seal(&HERE, b"x").unwrap();
        assert_eq!(again.open(&HERE, &sealed).unwrap().expose_secret(), b"x");
        assert!(master.unwrap_site_key([8; 16], &blob).is_err());
        let stranger = MasterKey::generate().unwrap();
        assert!(matches!(stranger.unwrap_site_key([7; 16], &blob), Err(Error::WrongKey { .. })));
    }

    #[test]
    fn master_keys_are_read_from_every_text_form() {
        let master = MasterKey::from_bytes(&[0xfb; 32]);
        let text = master.to_text();
        let forms = [
            format!("{}\n", text.expose_secret()),
            format!("  {}\r\n", hex(&[0xfb; 32])),
            URL_SAFE_NO_PAD.encode([0xfb; 32]),
            URL_SAFE.encode([0xfb; 32]),
        ];
        for form in &forms {
            assert_eq!(MasterKey::from_text(form).unwrap().key_id(), master.key_id());
        }
        for bad in ["", "AAAA", &"g".repeat(64), &"0".repeat(63), "é"] {
            assert!(MasterKey::from_text(bad).is_err());
        }
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_kind() {
        let master = MasterKey::from_bytes(&[1; 32]);
        let site = SiteKey::from_bytes(&[1; 32]);
        let a = *master.derive("audit").expose_secret();
        assert_eq!(a, *master.derive("audit").expose_secret());
        assert_ne!(a, *master.derive("audit2").expose_secret());
        assert_ne!(a, *site.derive("audit").expose_secret());
        assert_ne!(master.key_id(), site.key_id());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let master = MasterKey::from_bytes(&[1; 32]);
        assert_eq!(format!("{master:?}"), format!("MasterKey({})", hex(&master.key_id())));
    }

    #[test]
    fn audit_signatures_agree_with_rfc_8032_test_1() {
        let seed = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = audit_signing_key(seed.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(hex(&key.public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = key.sign(b"").unwrap();
        assert!(hex(&signature).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974"));
        assert!(verify_ed25519(&key.public(), b"", &signature));
        assert!(!verify_ed25519(&key.public(), b"x", &signature));
        assert!(!verify_ed25519(b"short", b"", &signature));
        assert!(!verify_ed25519(&key.public(), b"", b"short"));
    }

    proptest! {
        #[test]
        fn any_secret_comes_back(plain in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let key = SiteKey::from_bytes(&[3; 32]);
            let blob = key.seal(&HERE, &plain).unwrap();
            let opened = key.open(&HERE, &blob).unwrap();
            prop_assert_eq!(opened.expose_secret(), &plain);
        }

        #[test]
        fn opening_rubbish_never_panics(blob in proptest::collection::vec(any::<u8>(), 0..100)) {
            let key = SiteKey::from_bytes(&[3; 32]);
            prop_assert!(key.open(&HERE, &blob).is_err());
        }
    }
}
