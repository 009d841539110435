//! Credentials of SyncML: `syncml:auth-md5` and `syncml:auth-basic` (OMA-TS-DM_Security 5.3; MS-MDM 2.2.4.2).
//!
//! The digest is `b64(MD5(b64(MD5("user:password")) ":" nonce))`. Only the inner half, [`Secret::Md5`], needs to
//! be stored. MD5 is an argument: this crate has no cryptography of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Chal, Cred, Format, Meta};

/// The MD5 function of the caller.
pub type Md5 = fn(&[u8]) -> [u8; 16];

/// `Type` of a digest credential.
pub const AUTH_MD5: &str = "syncml:auth-md5";
/// `Type` of a basic credential.
pub const AUTH_BASIC: &str = "syncml:auth-basic";

/// How one side proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// `syncml:auth-md5`.
    Md5,
    /// `syncml:auth-basic`.
    Basic,
}

impl Scheme {
    /// The value of `Meta/Type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => AUTH_MD5,
            Self::Basic => AUTH_BASIC,
        }
    }
}

/// `b64(MD5("user:password"))`: what a server stores instead of the password.
#[must_use]
pub fn secret_md5(user: &str, password: &str, md5: Md5) -> String {
    STANDARD.encode(md5(&pair(user, password)))
}

/// `Data` of a basic credential: `b64("user:password")`.
#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    STANDARD.encode(pair(user, password))
}

/// `Data` of a digest credential from [`secret_md5`] and the nonce's bytes.
#[must_use]
pub fn digest(secret: &str, nonce: &[u8], md5: Md5) -> String {
    let mut input = Vec::with_capacity(secret.len() + 1 + nonce.len());
    input.extend_from_slice(secret.as_bytes());
    input.push(b':');
    input.extend_from_slice(nonce);
    STANDARD.encode(md5(&input))
}

fn pair(user: &str, password: &str) -> Vec<u8> {
    [user.as_bytes(), b":", password.as_bytes()].concat()
}

/// A digest credential as `Cred`.
#[must_use]
pub fn md5_cred(secret: &str, nonce: &[u8], md5: Md5) -> Cred {
    Cred { kind: Some(AUTH_MD5.to_owned()), format: Some(Format::B64), data: digest(secret, nonce, md5) }
}

/// A basic credential as `Cred`, from `b64("user:password")`.
#[must_use]
pub fn basic_cred(data: impl Into<String>) -> Cred {
    Cred { kind: Some(AUTH_BASIC.to_owned()), format: Some(Format::B64), data: data.into() }
}

/// A challenge. The nonce stands in it for digests only.
#[must_use]
pub fn challenge(scheme: Scheme, nonce: &[u8]) -> Chal {
    let next_nonce = (scheme == Scheme::Md5).then(|| STANDARD.encode(nonce));
    let kind = Some(scheme.as_str().to_owned());
    Chal { meta: Meta { format: Some(Format::B64), kind, next_nonce, ..Meta::default() } }
}

/// The bytes of `NextNonce`. Samples have nonces that are not base64; those count as they stand.
#[must_use]
pub fn next_nonce(chal: &Chal) -> Option<Vec<u8>> {
    let text = chal.meta.next_nonce.as_deref()?;
    Some(STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec()))
}

/// The nonces of one direction of one enrollment. A fresh one goes out with every accepted credential; the one
/// before it is remembered, because the answer that carried the fresh one can be lost.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonces {
    /// What the device should use next.
    pub current: Vec<u8>,
    /// What it used before.
    pub previous: Option<Vec<u8>>,
}

impl Nonces {
    /// The first nonce, as provisioned in `AAUTHDATA`.
    #[must_use]
    pub fn new(nonce: impl Into<Vec<u8>>) -> Self {
        Self { current: nonce.into(), previous: None }
    }

    /// A fresh nonce is on its way to the device.
    pub fn rotate(&mut self, fresh: &[u8]) {
        self.previous = Some(std::mem::replace(&mut self.current, fresh.to_vec()));
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces")
    }
}

/// What a device must prove in `Cred`, beside its certificate.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// [`secret_md5`].
    Md5(String),
    /// `b64("user:password")`.
    Basic(String),
}

impl Secret {
    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Md5(_) => Scheme::Md5,
            Self::Basic(_) => Scheme::Basic,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Secret").field(&self.scheme()).finish()
    }
}

/// What a credential is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right, with the current nonce.
    Accepted,
    /// It is right, with the previous nonce: an answer was lost. Challenge once more, do not lock out.
    Stale,
    /// There is none.
    Absent,
    /// It is wrong.
    Wrong,
}

/// Judges a credential. Every comparison takes the same time wherever the first difference is.
#[must_use]
pub fn verify(cred: Option<&Cred>, secret: &Secret, nonces: &Nonces, md5: Md5) -> Verdict {
    let Some(cred) = cred else { return Verdict::Absent };
    if cred.kind.as_deref() != Some(secret.scheme().as_str()) {
        return Verdict::Wrong;
    }
    match secret {
        Secret::Basic(expected) if equal(expected, &cred.data) => Verdict::Accepted,
        Secret::Basic(_) => Verdict::Wrong,
        Secret::Md5(secret) => {
            let current = equal(&digest(secret, &nonces.current, md5), &cred.data);
            let previous =
                nonces.previous.as_ref().is_some_and(|nonce| equal(&digest(secret, nonce, md5), &cred.data));
            match (current, previous) {
                (true, _) => Verdict::Accepted,
                (false, true) => Verdict::Stale,
                (false, false) => Verdict::Wrong,
            }
        }
    }
}

fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0_u8, |difference, (a, b)| difference | (a ^ b)) == 0
}
