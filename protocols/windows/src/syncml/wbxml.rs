//! SyncML in WBXML 1.1 to 1.3 (`application/vnd.syncml.dm+wbxml`): code pages SyncML 1.2 and MetInf.
//!
//! Reading knows inline strings, the string table, opaque data, entities and literal elements; attributes are
//! skipped. Everything is bounded by the same [`Limits`] as XML. Writing uses inline strings, and opaque data for
//! bytes and for text with a NUL.

use std::borrow::Cow;

use super::reader::{Limits, is_name, is_xml_char};
use super::tree::Element;
use super::{Data, Error, Message, model, tags};

/// The media type of the WBXML form.
pub const CONTENT_TYPE: &str = "application/vnd.syncml.dm+wbxml";

const SWITCH_PAGE: u8 = 0x00;
const END: u8 = 0x01;
const ENTITY: u8 = 0x02;
const STR_I: u8 = 0x03;
const LITERAL: u8 = 0x04;
const STR_T: u8 = 0x83;
const OPAQUE: u8 = 0xC3;

const HAS_ATTRIBUTES: u8 = 0x80;
const HAS_CONTENT: u8 = 0x40;
const TOKEN: u8 = 0x3F;

const VERSION: u8 = 0x03;
/// `-//SYNCML//DTD SyncML 1.2//EN`.
const PUBLIC_ID: u32 = 0x1201;
/// UTF-8 in the IANA registry.
const UTF_8: u32 = 106;
/// US-ASCII, a subset of it.
const US_ASCII: u32 = 3;

/// Public identifiers of SyncML 1.0 to 1.2, as numbers and as text.
const PUBLIC_IDS: &[u32] = &[0x0FD1, 0x0FD3, 0x1201];
const PUBLIC_NAMES: &[&str] =
    &["-//SYNCML//DTD SyncML 1.0//EN", "-//SYNCML//DTD SyncML 1.1//EN", "-//SYNCML//DTD SyncML 1.2//EN"];

/// Reads one message.
///
/// # Errors
/// As [`reader::read`](super::reader::read), with [`Error::Wbxml`] for what is wrong in the encoding.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Message, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    if bytes.len() > limits.max_bytes {
        return Err(Error::TooLarge { limit: limits.max_bytes });
    }
    model::from_tree(&Decoder { bytes, at: 0, table: &[], limits, nodes: 0, page: 0, copied: 0 }.document()?)
}

/// Writes one message.
///
/// # Errors
/// [`Error::NotWritable`] for elements that the code pages do not have.
pub fn write(message: &Message) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder { out: vec![VERSION], page: 0 };
    encoder.number(PUBLIC_ID);
    encoder.number(UTF_8);
    encoder.number(0);
    encoder.element(&model::to_tree(message))?;
    Ok(encoder.out)
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    table: &'a [u8],
    limits: &'a Limits,
    nodes: usize,
    page: u8,
    /// Bytes of strings taken out: references into the table must not multiply it without bound.
    copied: usize,
}

impl<'a> Decoder<'a> {
    fn document(mut self) -> Result<Element, Error> {
        if !matches!(self.byte()?, 1..=3) {
            return Err(Error::Wbxml("its version is not 1.1 to 1.3"));
        }
        let public_id = self.number()?;
        let in_table = if public_id == 0 { Some(self.number()?) } else { None };
        if !matches!(self.number()?, UTF_8 | US_ASCII) {
            return Err(Error::Encoding);
        }
        let length = self.length()?;
        self.table = self.slice(length)?;
        let known = match in_table {
            None => PUBLIC_IDS.contains(&public_id),
            Some(index) => PUBLIC_NAMES.contains(&self.table_string(index)?),
        };
        if !known {
            return Err(Error::Wbxml("its public identifier is not SyncML"));
        }
        self.elements()
    }

    /// The whole tree, with the open elements on the heap.
    fn elements(&mut self) -> Result<Element, Error> {
        let mut open: Vec<(Element, Vec<u8>)> = Vec::new();
        loop {
            let done = match self.byte()? {
                SWITCH_PAGE => {
                    self.page = self.byte()?;
                    None
                }
                END => {
                    let (mut element, content) =
                        open.pop().ok_or(Error::Wbxml("an element ends that never began"))?;
                    if !content.is_empty() && element.children.is_empty() {
                        element.content = Some(match String::from_utf8(content) {
                            // Names and numbers are repeated in the reply, which is measured as XML.
                            Ok(text)
                                if !matches!(&*element.name, "Data" | "NextNonce")
                                    && !text.chars().all(is_xml_char) =>
                            {
                                return Err(Error::Wbxml("a text contains a control character"));
                            }
                            Ok(text) => Data::Text(text),
                            Err(error) => Data::Binary(error.into_bytes()),
                        });
                    }
                    Some(element)
                }
                ENTITY => {
                    let code = self.number()?;
                    let character = char::from_u32(code).ok_or(Error::Wbxml("an entity is no character"))?;
                    self.text(&mut open, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                    None
                }
                STR_I => {
                    let text = self.inline()?;
                    self.text(&mut open, text)?;
                    None
                }
                STR_T => {
                    let index = self.number()?;
                    let text = self.table_string(index)?;
                    self.text(&mut open, text.as_bytes())?;
                    None
                }
                OPAQUE => {
                    let length = self.length()?;
                    let bytes = self.slice(length)?;
                    self.text(&mut open, bytes)?;
                    None
                }
                token => self.start(token, &mut open)?,
            };
            if let Some(element) = done {
                match open.last_mut() {
                    Some((parent, _)) => parent.children.push(element),
                    None if self.at == self.bytes.len() => return Ok(element),
                    None => return Err(Error::Wbxml("there is something after the root element")),
                }
            }
        }
    }

    /// Opens an element; one without content is done at once.
    fn start(&mut self, token: u8, open: &mut Vec<(Element, Vec<u8>)>) -> Result<Option<Element>, Error> {
        self.nodes += 1;
        if self.nodes > self.limits.max_nodes {
            return Err(Error::TooManyNodes { limit: self.limits.max_nodes });
        }
        if open.len() >= self.limits.max_depth {
            return Err(Error::TooDeep { limit: self.limits.max_depth });
        }
        let name: Cow<'static, str> = match token & TOKEN {
            LITERAL => {
                let index = self.number()?;
                let name = self.table_string(index)?;
                self.count(name.len())?;
                if !is_name(name) {
                    return Err(Error::Wbxml("an element has a name that is none"));
                }
                tags::known(name).map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
            }
            0..=3 => return Err(Error::Wbxml("a token has no meaning here")),
            code => Cow::Borrowed(tags::name(self.page, code).ok_or(Error::Wbxml("a token has no element"))?),
        };
        if token & HAS_ATTRIBUTES != 0 {
            self.skip_attributes()?;
        }
        let element = Element { name, ..Element::default() };
        if token & HAS_CONTENT == 0 {
            return Ok(Some(element));
        }
        open.push((element, Vec::new()));
        Ok(None)
    }

    fn skip_attributes(&mut self) -> Result<(), Error> {
        for _ in 0..self.limits.max_attributes.saturating_mul(4) {
            match self.byte()? {
                END => return Ok(()),
                SWITCH_PAGE => drop(self.byte()?),
                ENTITY | LITERAL | STR_T => drop(self.number()?),
                STR_I => drop(self.inline()?),
                OPAQUE => {
                    let length = self.length()?;
                    self.slice(length)?;
                }
                _ => {}
            }
        }
        Err(Error::TooManyAttributes { limit: self.limits.max_attributes })
    }

    fn text(&mut self, open: &mut [(Element, Vec<u8>)], bytes: &[u8]) -> Result<(), Error> {
        self.count(bytes.len())?;
        let (_, content) = open.last_mut().ok_or(Error::Wbxml("there is text outside the root element"))?;
        content.extend_from_slice(bytes);
        Ok(())
    }

    fn count(&mut self, length: usize) -> Result<(), Error> {
        self.copied = self.copied.saturating_add(length);
        if self.copied > self.limits.max_bytes {
            return Err(Error::TooLarge { limit: self.limits.max_bytes });
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or(Error::Wbxml("it ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    /// A multi-byte integer of at most 32 bits.
    fn number(&mut self) -> Result<u32, Error> {
        let mut value: u32 = 0;
        for _ in 0..5 {
            let byte = self.byte()?;
            value = value
                .checked_mul(128)
                .and_then(|value| value.checked_add(u32::from(byte & 0x7F)))
                .ok_or(Error::Wbxml("a number is too large"))?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Wbxml("a number is too long"))
    }

    fn length(&mut self) -> Result<usize, Error> {
        usize::try_from(self.number()?).map_err(|_| Error::Wbxml("a length is too large"))
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(length).ok_or(Error::Wbxml("a length is too large"))?;
        let slice = self.bytes.get(self.at..end).ok_or(Error::Wbxml("it ends too early"))?;
        self.at = end;
        Ok(slice)
    }

    fn inline(&mut self) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0).ok_or(Error::Wbxml("a string never ends"))?;
        let text = self.slice(length)?;
        self.at += 1;
        Ok(text)
    }

    fn table_string(&self, index: u32) -> Result<&'a str, Error> {
        let rest = usize::try_from(index)
            .ok()
            .and_then(|index| self.table.get(index..))
            .ok_or(Error::Wbxml("a reference leaves the string table"))?;
        let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| Error::Encoding)
    }
}

struct Encoder {
    out: Vec<u8>,
    page: u8,
}

impl Encoder {
    fn element(&mut self, element: &Element) -> Result<(), Error> {
        let (page, token) = tags::token(&element.name)
            .ok_or(Error::NotWritable("WBXML has no token for a command's name"))?;
        if page != self.page {
            self.out.extend([SWITCH_PAGE, page]);
            self.page = page;
        }
        let content = element.content.as_ref().filter(|content| !content.is_empty());
        if element.children.is_empty() && content.is_none() {
            self.out.push(token);
            return Ok(());
        }
        self.out.push(token | HAS_CONTENT);
        match content {
            Some(Data::Text(text)) if !text.contains('\0') => {
                self.out.push(STR_I);
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(0);
            }
            Some(Data::Text(text) | Data::Markup(text)) => self.opaque(text.as_bytes())?,
            Some(Data::Binary(bytes)) => self.opaque(bytes)?,
            None => {}
        }
        for child in &element.children {
            self.element(child)?;
        }
        self.out.push(END);
        Ok(())
    }

    fn opaque(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::NotWritable("the data is too long"))?;
        self.out.push(OPAQUE);
        self.number(length);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn number(&mut self, value: u32) {
        let mut shift = 28;
        while shift > 0 && value >> shift == 0 {
            shift -= 7;
        }
        while shift > 0 {
            self.out.push(u8::try_from((value >> shift) & 0x7F).unwrap_or(0) | 0x80);
            shift -= 7;
        }
        self.out.push(u8::try_from(value & 0x7F).unwrap_or(0));
    }
}
