//! Bytes that must not appear in logs, audit entries or webhooks.

use zeroize::Zeroize;

/// An opaque secret: a password, a one-time code, a security token, a nonce, a provisioning document.
///
/// There is no `Debug`, no `Display` and no serialisation; comparison takes the same time wherever the first
/// difference is, and the memory is cleared on drop.
#[derive(Clone, Default)]
pub struct Opaque(Vec<u8>);

impl Opaque {
    /// Wraps bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes. The name is long so that uses stand out in review.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, when they are UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Opaque {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Opaque {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<String> for Opaque {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&str> for Opaque {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).fold(0_u8, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl Eq for Opaque {}

impl Drop for Opaque {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_sees_every_byte() {
        assert!(Opaque::from("abc") == Opaque::from("abc"));
        assert!(Opaque::from("abc") != Opaque::from("abd"));
        assert!(Opaque::from("abc") != Opaque::from("abcd"));
    }
}
