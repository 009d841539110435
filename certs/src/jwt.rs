//! Signed tokens (JWT, RFC 7519, as JWS compact, RFC 7515) of an issuer whose public keys are known.
//!
//! Written for Entra ID (windows.md 2.11): RS256 and nothing else. The header is judged here, before any
//! key is chosen: a token may name a key that we hold, and never bring or locate one. josekit checks the
//! signature and sees nothing but the signed bytes; its own reading of headers and claims is not used,
//! because it takes duplicate names and leaves `iss`, `aud` and the times to its caller.
//!
//! Claims are parsed only after the signature has been found good. [`unverified_tid`] is the one
//! exception: it tells which issuer's keys to look for, and decides nothing.

mod claims;
mod json;
mod keyset;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jws::JwsVerifier as _;
use serde_json::{Map, Value};

pub use claims::Claims;
pub use keyset::KeySet;

use crate::asn1::{self, Reader};
use crate::error::{Error, Result};
use crate::keys::{KeyKind, KeyPair};

/// Largest token that is read. Those of Entra ID have 1 to 4 KiB.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Largest key id that is read. Those of Entra ID have 27 bytes.
const MAX_KEY_ID: usize = 256;
/// Header names that bring a key or say where to find one (RFC 7515 §4.1.2 to §4.1.6).
const KEY_CARRIERS: [&str; 4] = ["jku", "jwk", "x5u", "x5c"];
/// Header names that change how a token is to be read (RFC 7515 §4.1.11, RFC 7797).
const READING_CHANGERS: [&str; 2] = ["crit", "b64"];
/// Token types that are read (RFC 7519 §5.1, RFC 9068 §2.1); others have rules of their own.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// Why a token is refused. Carries nothing of the token, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is over the limit of 16 KiB")]
    TooLarge,
    /// Not three parts of base64url without padding.
    #[error("the token is not in the compact form of three base64url parts")]
    Shape,
    /// The header is no JSON object, or names something twice.
    #[error("the token's header is malformed")]
    Header,
    /// Anything but RS256: `none`, HMAC, other signatures.
    #[error("the token's algorithm is not RS256")]
    Algorithm,
    /// `typ` names another kind of token.
    #[error("the token is of another type than JWT")]
    Type,
    /// `jku`, `jwk`, `x5u` or `x5c`.
    #[error("the token's header brings a key of its own, or says where to fetch one")]
    OwnKey,
    /// `crit` or `b64`.
    #[error("the token's header asks for an extension")]
    Extension,
    /// No key id.
    #[error("the token names no key")]
    NoKey,
    /// A key that is not in the set. The issuer may have a new one: fetch the set again, once.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the token's signature is wrong")]
    Signature,
    /// The claims are no JSON object, name something twice, or a claim has the wrong form.
    #[error("the token's claims are malformed")]
    Claims,
    /// No `exp`.
    #[error("the token has no end of validity")]
    NoExpiry,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// `iss` is missing or another.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` is missing or another.
    #[error("the token is for another audience")]
    Audience,
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Acceptable values of `iss`, compared byte by byte.
    pub issuers: &'a [&'a str],
    /// Acceptable values of `aud`, compared byte by byte; a token for several audiences needs one of them.
    pub audiences: &'a [&'a str],
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// How much the issuer's clock may differ, in milliseconds.
    pub leeway_ms: i64,
}

/// Verifies a token: form, header, signature, times, issuer, audience.
///
/// # Errors
/// The first [`Refusal`], in that order. [`Refusal::UnknownKey`] alone is worth another try, with keys
/// that have been fetched anew.
pub fn verify(token: &[u8], keys: &KeySet, expected: &Expected<'_>) -> std::result::Result<Claims, Refusal> {
    let parts = split(token)?;
    let kid = key_id(&decode(parts.header)?)?;
    let signature = decode(parts.signature)?;
    let verifier = keys.get(&kid).ok_or(Refusal::UnknownKey)?;
    verifier.verify(parts.signed, &signature).map_err(|_| Refusal::Signature)?;
    let claims = Claims::parse(&decode(parts.claims)?)?;
    claims.judge(expected)?;
    Ok(claims)
}

/// The tenant (`tid`) that a token claims to be of. Nothing is verified: good for choosing the keys to
/// verify with, and for nothing else.
///
/// # Errors
/// [`Refusal`] if there is no such claim in a readable token.
pub fn unverified_tid(token: &[u8]) -> std::result::Result<String, Refusal> {
    let claims = json::object(&decode(split(token)?.claims)?).ok_or(Refusal::Claims)?;
    claims.get("tid").and_then(Value::as_str).map(str::to_owned).ok_or(Refusal::Claims)
}

/// What a token's signature covers, as it came: header, dot and claims. Of a token that [`verify`] accepted there is no
/// other spelling: the signature is over these very characters, so that padding, blanks or bits that mean nothing make
/// it wrong. The signature itself is left out; how it is written does not matter here.
///
/// # Errors
/// [`Refusal::TooLarge`], [`Refusal::Shape`].
pub fn signed_part(token: &[u8]) -> std::result::Result<&[u8], Refusal> {
    Ok(split(token)?.signed)
}

/// Makes a token, for tests and the simulator: the server itself never signs one. The header is written as
/// it is given and judged by nobody.
///
/// # Errors
/// [`Error::Key`] if the key is not RSA; otherwise only if OpenSSL fails.
pub fn sign_rs256(header: &Value, claims: &Value, key: &KeyPair) -> Result<String> {
    must_be_rsa(key.kind())?;
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", text(header), text(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign_sha256(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// The public half of an RSA key as a member of a JWKS (RFC 7517 §4), for tests and the simulator.
///
/// # Errors
/// [`Error::Key`] if the key is not RSA; otherwise only if OpenSSL fails.
pub fn public_jwk(kid: &str, key: &KeyPair) -> Result<Value> {
    const WHAT: &str = "public key";
    must_be_rsa(key.kind())?;
    let der = key.public_key_der()?;
    let mut spki = Reader::new(&der).expect(0x30, WHAT)?.reader();
    spki.expect(0x30, WHAT)?;
    let bits = spki.expect(0x03, WHAT)?.content;
    let mut numbers = Reader::new(bits.strip_prefix(&[0]).unwrap_or_default()).expect(0x30, WHAT)?.reader();
    let mut number = || -> Result<String> {
        Ok(URL_SAFE_NO_PAD.encode(asn1::magnitude(numbers.expect(0x02, WHAT)?.content)))
    };
    let (n, e) = (number()?, number()?);
    Ok(serde_json::json!({ "kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e }))
}

fn must_be_rsa(kind: KeyKind) -> Result<()> {
    match kind {
        KeyKind::Rsa { .. } => Ok(()),
        _ => Err(Error::Key { reason: "RS256 needs an RSA key" }),
    }
}

/// A token's parts, still encoded.
struct Parts<'a> {
    header: &'a [u8],
    claims: &'a [u8],
    signature: &'a [u8],
    /// Header, dot and claims.
    signed: &'a [u8],
}

fn split(token: &[u8]) -> std::result::Result<Parts<'_>, Refusal> {
    if token.len() > MAX_TOKEN {
        return Err(Refusal::TooLarge);
    }
    let mut parts = token.split(|b| *b == b'.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Shape);
    };
    let signed = token.get(..header.len() + 1 + claims.len()).ok_or(Refusal::Shape)?;
    Ok(Parts { header, claims, signature, signed })
}

/// Base64url without padding and without bits that mean nothing: each byte string has one spelling
/// (RFC 7515 §2, RFC 4648 §3.5).
fn decode(part: &[u8]) -> std::result::Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Shape)
}

/// Judges a header and returns the key it names.
fn key_id(header: &[u8]) -> std::result::Result<String, Refusal> {
    let header = json::object(header).ok_or(Refusal::Header)?;
    let any_of = |names: &[&str]| names.iter().any(|name| header.contains_key(*name));
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(Refusal::Algorithm);
    }
    if any_of(&KEY_CARRIERS) {
        return Err(Refusal::OwnKey);
    }
    if any_of(&READING_CHANGERS) {
        return Err(Refusal::Extension);
    }
    if !is_readable_type(&header) {
        return Err(Refusal::Type);
    }
    match header.get("kid").map(Value::as_str) {
        Some(Some(kid)) if !kid.is_empty() && kid.len() <= MAX_KEY_ID => Ok(kid.to_owned()),
        Some(_) => Err(Refusal::Header),
        None => Err(Refusal::NoKey),
    }
}

fn is_readable_type(header: &Map<String, Value>) -> bool {
    let named = |typ: &str| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known));
    header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(named))
}

#[cfg(test)]
mod tests;
