//! Sealed blobs as they stand in the database: only the blob that was sealed opens, only in its own place, and a
//! master key's text means one key. The first byte chooses: a version byte (1) is a blob as it came; otherwise the
//! rest changes a good one, is sealed, or is the text of a key file.

#![no_main]

use std::sync::LazyLock;

use bellwether_certs::seal::{MasterKey, SealContext, SiteKey, blob_key_id, verify_ed25519};
use bellwether_fuzz::changed;
use bellwether_fuzz::sealed::{CONTEXT, SECRET, key, seed};
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(seed);
const SITE: [u8; 16] = [9; 16];

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((1, _)) | None => stranger(bytes),
        Some((kind, rest)) => match kind % 4 {
            0 => opens_unchanged_only(&changed(&GOOD, rest)),
            2 => comes_back(rest),
            3 => key_file(rest),
            _ => opens_unchanged_only(&[&GOOD[..], rest].concat()),
        },
    }
});

/// Nobody without the key makes a blob; those of the corpus hold the one secret.
fn stranger(blob: &[u8]) {
    let _ = blob_key_id(blob);
    if let Ok(opened) = key().open(&CONTEXT, blob) {
        assert_eq!(opened.expose_secret(), SECRET);
    }
    assert!(key().unwrap_site_key(SITE, blob).is_err());
    let (public, signature) = blob.split_at(blob.len().min(32));
    assert!(!verify_ed25519(public, b"a checkpoint", signature), "a signature of nobody");
}

fn opens_unchanged_only(blob: &[u8]) {
    assert_eq!(key().open(&CONTEXT, blob).is_ok(), *blob == **GOOD);
}

fn comes_back(secret: &[u8]) {
    let key = key();
    let blob = key.seal(&CONTEXT, secret).expect("a blob");
    assert_eq!(key.open(&CONTEXT, &blob).expect("our own blob").expose_secret(), secret);
    assert_eq!(blob_key_id(&blob), Some(key.key_id()));
    // Behind version, key id and nonce, which are no secrets.
    let ciphertext = &blob[21..];
    assert!(
        secret.len() < 8 || !ciphertext.windows(secret.len()).any(|w| w == secret),
        "a blob shows its secret"
    );
    let id = [8; 16];
    for elsewhere in [
        SealContext { kind: "commandp", field: "ayload", ..CONTEXT },
        SealContext { field: "note", ..CONTEXT },
        SealContext { id: &id, ..CONTEXT },
    ] {
        assert!(key.open(&elsewhere, &blob).is_err(), "a blob opens in another place");
    }
    let site = SiteKey::generate().expect("a key");
    let wrapped = key.wrap_site_key(SITE, &site).expect("a blob");
    assert_eq!(key.unwrap_site_key(SITE, &wrapped).expect("our own").key_id(), site.key_id());
    assert!(site.open(&CONTEXT, &blob).is_err() && key.unwrap_site_key([1; 16], &wrapped).is_err());
}

fn key_file(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(key) = MasterKey::from_text(text) {
        let again = MasterKey::from_text(key.to_text().expose_secret()).expect("our own text");
        assert_eq!(again.key_id(), key.key_id());
    }
}
