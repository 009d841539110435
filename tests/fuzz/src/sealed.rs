//! One master key, one context and one secret.

use bellwether_certs::seal::{MasterKey, SealContext};

/// What is sealed.
pub const SECRET: &[u8] = b"the secret that was sealed";
/// Where it stands.
pub const CONTEXT: SealContext<'static> = SealContext { kind: "command", id: &[7; 16], field: "payload" };

/// The master key of the targets.
#[must_use]
pub fn key() -> MasterKey {
    MasterKey::from_bytes(&[42; 32])
}

/// [`SECRET`], sealed anew.
#[must_use]
pub fn seed() -> Vec<u8> {
    key().seal(&CONTEXT, SECRET).expect("a blob")
}
