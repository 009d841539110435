//! The XML form, read with quick-xml's tokenizer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plist::{Date, Integer, Value};
use quick_xml::Reader;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};

use super::{Builder, Limits};
use crate::Error;
use crate::xml::is_xml_char;

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Encoding)?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_end_names = true;
    config.expand_empty_elements = true;
    let mut document = Document::new(limits);
    loop {
        match reader.read_event().map_err(|_| Error::Xml("it is not well-formed"))? {
            Event::Eof => return document.finish(),
            event => document.take(event)?,
        }
    }
}

/// Where in the document we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the root element; the flags say what has been seen.
    Prolog { first: bool, doctype: bool },
    /// Between the tags of collections.
    Structure,
    /// Inside an element that holds text.
    Leaf(Leaf),
    /// After the root element.
    Epilog,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Key,
    String,
    Data,
    Date,
    Integer,
    Real,
    True,
    False,
}

struct Document<'l> {
    builder: Builder<'l>,
    limits: &'l Limits,
    place: Place,
    /// Whether a `plist` element is open.
    wrapped: bool,
    text: String,
}

impl<'l> Document<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self {
            builder: Builder::new(limits),
            limits,
            place: Place::Prolog { first: true, doctype: false },
            wrapped: false,
            text: String::new(),
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), Error> {
        match event {
            Event::Decl(declaration) => self.declaration(&declaration),
            Event::DocType(doctype) => self.doctype(doctype.as_ref()),
            Event::PI(_) => Err(Error::ProcessingInstruction),
            Event::Comment(_) => {
                self.not_first();
                Ok(())
            }
            Event::Start(tag) => self.start(&tag),
            Event::Empty(_) => Err(Error::Xml("an element was not expanded")),
            Event::End(tag) => self.end(tag.local_name().as_ref()),
            Event::Text(text) => self.characters(&text.xml10_content()),
            Event::CData(text) => self.characters(&text.xml10_content()),
            Event::GeneralRef(reference) => self.reference(&reference),
            Event::Eof => Ok(()),
        }
    }

    fn not_first(&mut self) {
        if let Place::Prolog { first, .. } = &mut self.place {
            *first = false;
        }
    }

    fn declaration(&mut self, declaration: &BytesDecl<'_>) -> Result<(), Error> {
        if !matches!(self.place, Place::Prolog { first: true, .. }) {
            return Err(Error::ProcessingInstruction);
        }
        self.not_first();
        match declaration.version() {
            Ok(version) if version == "1.0" => {}
            _ => return Err(Error::Xml("its version is not 1.0")),
        }
        match declaration.encoding() {
            None => Ok(()),
            Some(Ok(name)) if name.eq_ignore_ascii_case("UTF-8") => Ok(()),
            Some(_) => Err(Error::Encoding),
        }
    }

    /// Only the document types that Apple's own software writes; none has an internal subset.
    fn doctype(&mut self, doctype: &str) -> Result<(), Error> {
        const SYSTEM_IDS: &[&str] = &[
            "http://www.apple.com/DTDs/PropertyList-1.0.dtd",
            "https://www.apple.com/DTDs/PropertyList-1.0.dtd",
        ];
        const PUBLIC_IDS: &[&str] = &["-//Apple//DTD PLIST 1.0//EN", "-//Apple Computer//DTD PLIST 1.0//EN"];
        let Place::Prolog { doctype: seen @ false, first } = &mut self.place else {
            return Err(Error::Doctype);
        };
        *seen = true;
        *first = false;
        if doctype.len() > 256 {
            return Err(Error::Doctype);
        }
        let mut rest = doctype.trim();
        let literal = |rest: &mut &str, allowed: &[&str]| {
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (value, after) = rest.get(1..)?.split_once(quote)?;
            *rest = after.trim_start();
            allowed.contains(&value).then_some(())
        };
        let word = |rest: &mut &str, expected: &str| {
            let after = rest.strip_prefix(expected)?;
            let trimmed = after.trim_start();
            let separated = trimmed.len() < after.len() || trimmed.is_empty();
            *rest = trimmed;
            separated.then_some(())
        };
        let apple = (|| {
            word(&mut rest, "plist")?;
            word(&mut rest, "PUBLIC")?;
            literal(&mut rest, PUBLIC_IDS)?;
            literal(&mut rest, SYSTEM_IDS)?;
            rest.is_empty().then_some(())
        })();
        apple.ok_or(Error::Doctype)
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), Error> {
        self.attributes(tag)?;
        let in_prolog = match self.place {
            Place::Prolog { .. } => true,
            Place::Structure => false,
            Place::Leaf(_) => return Err(Error::Xml("an element stands inside a text")),
            Place::Epilog => return Err(Error::Xml("there is more than one root element")),
        };
        self.place = Place::Structure;
        let leaf = match tag.name().as_ref() {
            "plist" if in_prolog => {
                self.wrapped = true;
                return Ok(());
            }
            "dict" => return self.builder.start_dictionary(),
            "array" => return self.builder.start_array(),
            "key" => Leaf::Key,
            "string" => Leaf::String,
            "data" => Leaf::Data,
            "date" => Leaf::Date,
            "integer" => Leaf::Integer,
            "real" => Leaf::Real,
            "true" => Leaf::True,
            "false" => Leaf::False,
            _ => return Err(Error::Xml("it has an element that property lists do not have")),
        };
        self.place = Place::Leaf(leaf);
        self.text.clear();
        Ok(())
    }

    /// Counts without looking at the attributes' names, so that a million of them costs nothing.
    fn attributes(&self, tag: &BytesStart<'_>) -> Result<(), Error> {
        let mut count = 0;
        for attribute in tag.attributes().with_checks(false) {
            attribute.map_err(|_| Error::Xml("an attribute is malformed"))?;
            count += 1;
            if count > self.limits.max_attributes {
                return Err(Error::TooManyAttributes);
            }
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Result<(), Error> {
        match self.place {
            Place::Leaf(leaf) => {
                self.place = Place::Structure;
                self.leaf(leaf)?;
            }
            // The tokenizer has matched the names, so this closes what was opened last.
            Place::Structure if name == "plist" => {
                self.wrapped = false;
                self.place = Place::Epilog;
                return Ok(());
            }
            Place::Structure => self.builder.end()?,
            Place::Prolog { .. } | Place::Epilog => {
                return Err(Error::Xml("an element ends that never began"));
            }
        }
        if !self.wrapped && self.builder.open.is_empty() {
            self.place = Place::Epilog;
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: Leaf) -> Result<(), Error> {
        let text = std::mem::take(&mut self.text);
        let value = match leaf {
            Leaf::Key => return self.builder.key(text),
            Leaf::String => Value::String(text),
            Leaf::Data => Value::Data(data(text)?),
            Leaf::Date => Value::Date(date(text.trim())?),
            Leaf::Integer => Value::Integer(integer(text.trim())?),
            Leaf::Real => Value::Real(text.trim().parse().map_err(|_| Error::Xml("a real number is wrong"))?),
            Leaf::True | Leaf::False => {
                if !text.trim().is_empty() {
                    return Err(Error::Xml("a boolean contains text"));
                }
                Value::Boolean(leaf == Leaf::True)
            }
        };
        self.builder.scalar(value)
    }

    fn characters(&mut self, text: &str) -> Result<(), Error> {
        if !text.chars().all(is_xml_char) {
            return Err(Error::Xml("it contains a control character"));
        }
        match self.place {
            Place::Leaf(_) => {
                // Base64 and line breaks make data longer than what it holds.
                let limit = self.limits.max_string.saturating_mul(2);
                if self.text.len().saturating_add(text.len()) > limit {
                    return Err(Error::ValueTooLarge { limit: self.limits.max_string });
                }
                self.text.push_str(text);
                Ok(())
            }
            _ if text.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')) => {
                self.not_first();
                Ok(())
            }
            _ => Err(Error::Xml("a text stands where an element belongs")),
        }
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), Error> {
        let character = match reference.as_ref() {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => match reference.resolve_char_ref() {
                Ok(Some(character)) => character,
                Ok(None) => return Err(Error::Entity),
                Err(_) => return Err(Error::Xml("a character reference is wrong")),
            },
        };
        if !matches!(self.place, Place::Leaf(_)) {
            return Err(Error::Xml("a text stands where an element belongs"));
        }
        self.characters(character.encode_utf8(&mut [0; 4]))
    }

    fn finish(self) -> Result<Value, Error> {
        match self.place {
            Place::Epilog => self.builder.finish(),
            _ => Err(Error::Xml("it ends too early")),
        }
    }
}

fn data(mut text: String) -> Result<Vec<u8>, Error> {
    text.retain(|c| !c.is_ascii_whitespace());
    STANDARD.decode(&text).map_err(|_| Error::Xml("data is not Base64"))
}

/// Apple writes `2026-11-22T02:29:44Z`. Other offsets are refused: the `plist` crate panics when one of
/// them shifts a date out of the years it knows.
fn date(text: &str) -> Result<Date, Error> {
    let wrong = Error::Xml("a date is wrong");
    if text.len() > 40 || !text.ends_with('Z') {
        return Err(wrong);
    }
    Date::from_xml_format(text).map_err(|_| wrong)
}

/// Decimal, or hexadecimal with `0x`, from `i64::MIN` to `u64::MAX`.
fn integer(text: &str) -> Result<Integer, Error> {
    let wrong = || Error::Xml("an integer is wrong");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let size = u64::from_str_radix(digits, radix).map_err(|_| wrong())?;
    if negative {
        let value = 0_i64.checked_sub_unsigned(size).ok_or_else(wrong)?;
        Ok(value.into())
    } else {
        Ok(size.into())
    }
}
