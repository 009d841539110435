//! Reading optional fields: what cannot be used is dropped and named, never an error.

use plist::{Dictionary, Value};

use crate::{Error, Opaque};

/// The longest text that is kept from an optional field, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// The longest token, in bytes; real ones have 32 to some thousand.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// The most problems that are listed for one message.
const MAX_PROBLEMS: usize = 32;

/// A message that is being taken apart.
pub(super) struct Fields {
    message: Dictionary,
    problems: Vec<String>,
}

impl Fields {
    pub(super) fn new(message: Dictionary) -> Self {
        Self { message, problems: Vec::new() }
    }

    /// What is left of the message, and what was wrong with the rest.
    pub(super) fn finish(self) -> (Dictionary, Vec<String>) {
        (self.message, self.problems)
    }

    pub(super) fn problem(&mut self, key: &str, what: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{key}: {what}"));
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.message.remove(key)
    }

    /// A text without control characters; an empty one is the same as none.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) if text.len() > MAX_TEXT_BYTES => {
                self.problem(key, "too long");
                None
            }
            Value::String(text) if text.chars().any(char::is_control) => {
                self.problem(key, "contains a control character");
                None
            }
            Value::String(text) => Some(text),
            _ => {
                self.problem(key, "not a string");
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(value) => Some(value),
            _ => {
                self.problem(key, "not a boolean");
                None
            }
        }
    }

    /// Data that is present and not empty.
    pub(super) fn secret(&mut self, key: &str) -> Option<Opaque> {
        match self.take(key)? {
            Value::Data(bytes) if bytes.is_empty() => None,
            Value::Data(bytes) if bytes.len() <= MAX_TOKEN_BYTES => Some(Opaque::from(bytes)),
            Value::Data(_) => {
                self.problem(key, "too long");
                None
            }
            _ => {
                self.problem(key, "not data");
                None
            }
        }
    }

    /// A text without which the message has no meaning.
    pub(super) fn essential_text(
        &mut self,
        message: &'static str,
        field: &'static str,
    ) -> Result<String, Error> {
        if !self.message.contains_key(field) {
            return Err(Error::MissingField { message, field });
        }
        self.text(field).ok_or(Error::BadField { message, field })
    }

    /// Data without which the message has no meaning.
    pub(super) fn essential_data(
        &mut self,
        message: &'static str,
        field: &'static str,
    ) -> Result<Opaque, Error> {
        if !self.message.contains_key(field) {
            return Err(Error::MissingField { message, field });
        }
        self.secret(field).ok_or(Error::BadField { message, field })
    }
}
