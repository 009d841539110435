//! Writing XML property lists: always through the `plist` crate, never by joining strings.

use plist::{Dictionary, Value};

use crate::Error;

/// Deeper values are refused when writing.
const MAX_DEPTH: usize = 64;

/// Serialises a dictionary.
pub(crate) fn encode(dictionary: Dictionary) -> Result<Vec<u8>, Error> {
    let value = Value::Dictionary(dictionary);
    check(&value)?;
    let mut bytes = Vec::new();
    value.to_writer_xml(&mut bytes).map_err(|_| Error::NotWritable("the writer refused it"))?;
    Ok(bytes)
}

/// What XML cannot carry is refused instead of written as something no device can read.
fn check(root: &Value) -> Result<(), Error> {
    let mut open: Vec<(&Value, usize)> = vec![(root, 1)];
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::NotWritable("it is nested too deeply"));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Dictionary(entries) => {
                for (key, item) in entries {
                    check_text(key)?;
                    open.push((item, depth + 1));
                }
            }
            Value::String(text) => check_text(text)?,
            Value::Real(number) if !number.is_finite() => {
                return Err(Error::NotWritable("it contains a number that is not finite"));
            }
            Value::Date(date) if !is_sound_date(*date) => {
                return Err(Error::NotWritable("it contains a date outside the years 1 to 9999"));
            }
            Value::Uid(_) => return Err(Error::NotWritable("it contains a UID")),
            _ => {}
        }
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Error> {
    if text.chars().all(is_xml_char) {
        Ok(())
    } else {
        Err(Error::NotWritable("a text contains a control character"))
    }
}

/// The characters of XML 1.0, section 2.2. `char` already excludes surrogates.
pub(crate) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// The years 1 to 9999: writing any other date as RFC 3339 panics in the `plist` crate.
pub(crate) fn is_sound_date(date: plist::Date) -> bool {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    const SECONDS_BEFORE_1970: Duration = Duration::from_secs(62_135_596_800);
    const SECONDS_AFTER_1970: Duration = Duration::from_secs(253_402_300_799);
    match SystemTime::from(date).duration_since(UNIX_EPOCH) {
        Ok(after) => after <= SECONDS_AFTER_1970,
        Err(before) => before.duration() <= SECONDS_BEFORE_1970,
    }
}

/// A dictionary under construction; an absent optional value leaves no key.
#[derive(Default)]
pub(crate) struct Keys(Dictionary);

impl Keys {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    #[must_use]
    pub(crate) fn maybe(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Writes the key only when it is true: the default of the schema is false.
    #[must_use]
    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        if value { self.with(key, true) } else { self }
    }

    /// Writes an array of strings, unless it is empty.
    #[must_use]
    pub(crate) fn list(self, key: &str, items: &[String]) -> Self {
        if items.is_empty() { self } else { self.with(key, strings(items)) }
    }

    pub(crate) fn done(self) -> Dictionary {
        self.0
    }
}

/// An array of strings.
pub(crate) fn strings<S: AsRef<str>>(items: &[S]) -> Value {
    Value::Array(items.iter().map(|item| Value::String(item.as_ref().to_owned())).collect())
}

/// A secret as data.
pub(crate) fn data(secret: &crate::Opaque) -> Value {
    Value::Data(secret.expose().to_vec())
}

/// A secret as text.
pub(crate) fn text(secret: &crate::Opaque) -> Result<Value, Error> {
    let text = secret.expose_str().ok_or(Error::NotWritable("a secret text is not UTF-8"))?;
    Ok(Value::String(text.to_owned()))
}
