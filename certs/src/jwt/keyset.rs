//! An issuer's public keys (JWKS, RFC 7517).

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jws::RS256;
use josekit::jws::alg::rsassa::RsassaJwsVerifier;
use serde_json::{Map, Value};

use super::{MAX_KEY_ID, json};
use crate::asn1;
use crate::error::{Error, Result};
use crate::keys::{KeyKind, PublicKey};
use crate::oid;

/// Largest document that is read. That of Entra ID has 10 to 20 KiB.
const MAX_BYTES: usize = 1024 * 1024;
/// Most keys in a document. Entra ID has about ten.
const MAX_KEYS: usize = 64;
const WHAT: &str = "JSON web key set";

/// Public keys by their id.
pub struct KeySet {
    keys: HashMap<String, Known>,
}

struct Known {
    verifier: RsassaJwsVerifier,
    /// For whose tokens the key is. Not in the RFC; Entra ID writes it.
    issuer: Option<String>,
}

impl KeySet {
    /// Reads a JWKS document. Keys that cannot verify RS256 (other types, other uses, fewer than 2048 bits, odd
    /// exponents, no id) are left out, as RFC 7517 §5 wants.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over 1 MiB or 64 keys. [`Error::Malformed`] for what is no such document, and for
    /// two usable keys of one id: which of them a token means would be a guess.
    pub fn parse(jwks: &[u8]) -> Result<Self> {
        const BAD: Error = Error::Malformed { what: WHAT };
        if jwks.len() > MAX_BYTES {
            return Err(Error::TooLarge { len: jwks.len(), limit: MAX_BYTES });
        }
        let document = json::object(jwks).ok_or(BAD)?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(BAD)?;
        if listed.len() > MAX_KEYS {
            return Err(Error::TooLarge { len: listed.len(), limit: MAX_KEYS });
        }
        let mut keys = HashMap::new();
        for (kid, known) in listed.iter().filter_map(Value::as_object).filter_map(usable) {
            if keys.insert(kid, known).is_some() {
                return Err(BAD);
            }
        }
        Ok(Self { keys })
    }

    /// Leaves out the keys whose `issuer` is not accepted. It is asked with `None` for a key without one.
    pub fn retain_issuers(&mut self, accept: impl Fn(Option<&str>) -> bool) {
        self.keys.retain(|_, known| accept(known.issuer.as_deref()));
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn get(&self, kid: &str) -> Option<&RsassaJwsVerifier> {
        self.keys.get(kid).map(|known| &known.verifier)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.len())
    }
}

/// The id and the key, if it can verify RS256.
fn usable(jwk: &Map<String, Value>) -> Option<(String, Known)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    // A member that is there must fit, also when it is no text.
    let absent_or = |name: &str, wanted: &str| jwk.get(name).is_none_or(|v| v.as_str() == Some(wanted));
    let verifies = |ops: &Value| ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"));
    let kid = text("kid").filter(|kid| !kid.is_empty() && kid.len() <= MAX_KEY_ID)?;
    let fits = text("kty") == Some("RSA")
        && absent_or("use", "sig")
        && absent_or("alg", "RS256")
        && jwk.get("key_ops").is_none_or(verifies);
    if !fits {
        return None;
    }
    let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let spki = rsa_spki(&number("n")?, &number("e")?);
    let kind = PublicKey::from_spki(&spki).ok()?.kind();
    if !matches!(kind, KeyKind::Rsa { .. }) || kind.check().is_err() {
        return None;
    }
    let verifier = RS256.verifier_from_der(&spki).ok()?;
    // An issuer that is no text is no issuer we know, and must not pass for none.
    let issuer = jwk.get("issuer").map(|issuer| issuer.as_str().unwrap_or_default().to_owned());
    Some((kid.to_owned(), Known { verifier, issuer }))
}

/// RFC 8017 §A.1.1 in RFC 5280 §4.1.
fn rsa_spki(n: &[u8], e: &[u8]) -> Vec<u8> {
    let key = asn1::seq(&[&asn1::integer(n), &asn1::integer(e)]);
    let algorithm = asn1::seq(&[&asn1::oid(oid::RSA_ENCRYPTION), &asn1::tlv(0x05, &[])]);
    asn1::seq(&[&algorithm, &asn1::bits(&key)])
}
