//! A token of Entra ID, and the key that it is signed with.

use bellwether_certs::jwt::{self, Expected};
use serde_json::{Value, json};

use crate::keys::{NOW, WORLD};

/// Whose token it is.
pub const ISSUER: &str = "https://sts.windows.net/0199c0de-0000-7000-8000-000000000001/";
/// Whom it is for.
pub const AUDIENCE: &str = "https://mdm.example";
/// What a token must say.
pub const EXPECTED: Expected<'static> =
    Expected { issuers: &[ISSUER], audiences: &[AUDIENCE], now_ms: NOW, leeway_ms: 60_000 };

/// Good claims.
#[must_use]
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "exp": NOW / 1000 + 600, "nbf": NOW / 1000 - 600,
        "tid": "0199c0de-0000-7000-8000-000000000001", "upn": "ann@example.org", "scp": "mdm_delegation",
        "deviceid": "0199c0de-0000-7000-8000-000000000002",
    })
}

/// The issuer's key set, with one key: `key-1`, the device's of [`WORLD`].
#[must_use]
pub fn key_set() -> Value {
    json!({ "keys": [jwt::public_jwk("key-1", &WORLD.device).expect("a key")] })
}
