//! What the fuzz targets share. Each target is a file in `src/bin`; `run` builds and runs them.
//!
//! A target states properties, not only "does not panic": what a parser accepts is within its limits, comes back
//! equal from the encoder, and gives away nothing that it must not. A property that does not hold is an `assert!`,
//! which libFuzzer reports as a crash together with the input.

pub mod keys;
pub mod plists;
pub mod sealed;
pub mod session;
pub mod syncml;
pub mod tokens;

/// A good message with some bytes changed: each three bytes of `edits` are a place (big-endian) and a new value.
#[must_use]
pub fn changed(good: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = edit[2];
    }
    bytes
}
