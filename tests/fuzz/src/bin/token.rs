//! Tokens of Entra ID and the key sets they are checked with. Only what the issuer signed is accepted, and only what
//! it says for us and now. `!` begins claims that are signed well, `#` a key set; anything else is a token as it came.

#![no_main]

use std::sync::LazyLock;

use bellwether_certs::jwt::{self, KeySet};
use bellwether_fuzz::keys::{NOW, WORLD};
use bellwether_fuzz::tokens::{AUDIENCE, EXPECTED, ISSUER, claims, key_set};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::parse(key_set().to_string().as_bytes()).expect("our keys"));

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((b'!', rest)) => signed(rest),
        Some((b'#', rest)) => {
            if let Ok(keys) = KeySet::parse(rest) {
                assert!(keys.len() <= 64);
            }
        }
        _ => unsigned(bytes),
    }
});

fn unsigned(token: &[u8]) {
    let _ = (jwt::unverified_tid(token), jwt::signed_part(token));
    if let Ok(found) = jwt::verify(token, &KEYS, &EXPECTED) {
        assert_eq!(found.tid(), claims()["tid"].as_str(), "a token that nobody signed");
    }
}

/// Any claims in a good signature: what is accepted is for us, from the issuer, and valid now.
fn signed(text: &[u8]) {
    let Ok(said) = serde_json::from_slice::<Value>(text) else { return };
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"});
    let token = jwt::sign_rs256(&header, &said, &WORLD.device).expect("a token");
    if token.len() > jwt::MAX_TOKEN {
        assert!(jwt::verify(token.as_bytes(), &KEYS, &EXPECTED).is_err());
        return;
    }
    let Ok(found) = jwt::verify(token.as_bytes(), &KEYS, &EXPECTED) else { return };
    assert_eq!((found.iss(), said["iss"].as_str()), (ISSUER, Some(ISSUER)));
    assert!(found.aud().iter().any(|aud| aud == AUDIENCE));
    assert!(
        found.exp_ms() > NOW - EXPECTED.leeway_ms
            && found.nbf_ms().is_none_or(|at| at <= NOW + EXPECTED.leeway_ms)
    );
    let forged = [token.as_bytes(), b"x"].concat();
    assert!(jwt::verify(&forged, &KEYS, &EXPECTED).is_err(), "a longer signature is as good");
}
