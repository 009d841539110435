//! Property lists from strangers.
//!
//! The `plist` crate's readers have no nesting limit (a body of 35 KB overflows the stack) and skip
//! some XML silently (CDATA, for one). So this module reads both forms itself, without recursion and
//! within [`Limits`], and yields the crate's [`plist::Value`]:
//!
//! * XML: UTF-8 only, Apple's document type or none, no internal subset, no entities beyond XML's
//!   five and character references, no processing instructions, no attributes beyond a few.
//! * Binary (`bplist00`): every offset and length is checked; an object that is used many times counts
//!   each time; a cycle runs into the depth limit.
//!
//! No value is ever built deeper than the limit, so dropping one cannot overflow the stack either.

mod binary;
mod xml;

use plist::{Dictionary, Value};

use crate::Error;

/// What a property list may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The body, in bytes. Also the limit for what shared values of a binary list unfold to.
    pub max_bytes: usize,
    /// Nested arrays and dictionaries.
    pub max_depth: usize,
    /// Values and dictionary keys.
    pub max_nodes: usize,
    /// One string or data value, in bytes.
    pub max_string: usize,
    /// Attributes of one XML element.
    pub max_attributes: usize,
}

impl Limits {
    /// For reports: application and profile lists can be several megabytes.
    pub const REPORT: Self = Self {
        max_bytes: 20 * 1024 * 1024,
        max_depth: 32,
        max_nodes: 500_000,
        max_string: 16 * 1024 * 1024,
        max_attributes: 4,
    };

    /// For messages of a device that has not proved who it is.
    pub const UNAUTHENTICATED: Self = Self {
        max_bytes: 1024 * 1024,
        max_depth: 16,
        max_nodes: 2_000,
        max_string: 512 * 1024,
        max_attributes: 4,
    };

    /// For profiles that an administrator uploads.
    pub const PROFILE: Self = Self::REPORT;
}

impl Default for Limits {
    fn default() -> Self {
        Self::REPORT
    }
}

/// Reads a property list, XML or binary.
///
/// # Errors
/// [`Error::Empty`] for an empty body, else what the limits or the format refused.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    if bytes.len() > limits.max_bytes {
        return Err(Error::TooLarge { limit: limits.max_bytes });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::Empty);
    }
    if bytes.starts_with(b"bplist") { binary::parse(bytes, limits) } else { xml::parse(bytes, limits) }
}

/// Builds a value from a flat run of events, with the open collections on a heap-allocated stack.
struct Builder<'l> {
    limits: &'l Limits,
    open: Vec<Open>,
    root: Option<Value>,
    nodes: usize,
}

enum Open {
    Array(Vec<Value>),
    Dictionary(Dictionary, Option<String>),
}

impl<'l> Builder<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self { limits, open: Vec::new(), root: None, nodes: 0 }
    }

    fn start_array(&mut self) -> Result<(), Error> {
        self.start(Open::Array(Vec::new()))
    }

    fn start_dictionary(&mut self) -> Result<(), Error> {
        self.start(Open::Dictionary(Dictionary::new(), None))
    }

    fn start(&mut self, collection: Open) -> Result<(), Error> {
        self.count()?;
        self.expects_value()?;
        if self.open.len() >= self.limits.max_depth {
            return Err(Error::TooDeep { limit: self.limits.max_depth });
        }
        self.open.push(collection);
        Ok(())
    }

    /// A dictionary's next key. A key that comes twice is refused: two readers could disagree on
    /// which value counts.
    fn key(&mut self, name: String) -> Result<(), Error> {
        self.count()?;
        self.fits(name.len())?;
        match self.open.last_mut() {
            Some(Open::Dictionary(entries, key @ None)) => {
                if entries.contains_key(&name) {
                    return Err(Error::Xml("a dictionary has a key twice"));
                }
                *key = Some(name);
                Ok(())
            }
            _ => Err(Error::Xml("a key stands where a value belongs")),
        }
    }

    fn scalar(&mut self, value: Value) -> Result<(), Error> {
        self.count()?;
        self.fits(match &value {
            Value::String(text) => text.len(),
            Value::Data(bytes) => bytes.len(),
            _ => 0,
        })?;
        if matches!(&value, Value::Date(date) if !crate::xml::is_sound_date(*date)) {
            return Err(Error::Xml("a date is outside the years 1 to 9999"));
        }
        self.expects_value()?;
        self.attach(value)
    }

    fn end(&mut self) -> Result<(), Error> {
        let value = match self.open.pop() {
            Some(Open::Array(items)) => Value::Array(items),
            Some(Open::Dictionary(entries, None)) => Value::Dictionary(entries),
            Some(Open::Dictionary(_, Some(_))) => return Err(Error::Xml("a key has no value")),
            None => return Err(Error::Xml("a collection ends that never began")),
        };
        self.attach(value)
    }

    fn finish(self) -> Result<Value, Error> {
        match self.root {
            Some(root) if self.open.is_empty() => Ok(root),
            Some(_) => Err(Error::Xml("a collection never ends")),
            None => Err(Error::Xml("there is no value")),
        }
    }

    fn attach(&mut self, value: Value) -> Result<(), Error> {
        match self.open.last_mut() {
            Some(Open::Array(items)) => items.push(value),
            Some(Open::Dictionary(entries, key)) => match key.take() {
                Some(name) => {
                    entries.insert(name, value);
                }
                None => return Err(Error::Xml("a value in a dictionary has no key")),
            },
            None => self.root = Some(value),
        }
        Ok(())
    }

    fn expects_value(&self) -> Result<(), Error> {
        match self.open.last() {
            Some(Open::Dictionary(_, None)) => Err(Error::Xml("a value in a dictionary has no key")),
            None if self.root.is_some() => Err(Error::Xml("there is more than one value")),
            _ => Ok(()),
        }
    }

    fn fits(&self, length: usize) -> Result<(), Error> {
        if length > self.limits.max_string {
            return Err(Error::ValueTooLarge { limit: self.limits.max_string });
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > self.limits.max_nodes {
            return Err(Error::TooManyNodes { limit: self.limits.max_nodes });
        }
        Ok(())
    }
}
