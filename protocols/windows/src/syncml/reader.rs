//! SyncML in XML, from strangers.
//!
//! UTF-8 only; no document type, no entities beyond XML's five and character references, no processing
//! instructions; size, depth, elements and attributes are bounded by [`Limits`]. Names count without their
//! namespace, because samples and older clients write `SYNCML1.1`, `syncml:metinfo` and any prefix. Elements
//! inside `Data` are not interpreted: their bytes are kept as they stand.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};

use super::tree::Element;
use super::{Data, Error, Message, tags};

/// What one document may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The body in bytes.
    pub max_bytes: usize,
    /// Nested elements, those inside `Data` included.
    pub max_depth: usize,
    /// Elements.
    pub max_nodes: usize,
    /// Attributes of one element.
    pub max_attributes: usize,
}

impl Limits {
    /// For machines that have proved who they are: inventories come as one large message.
    pub const SESSION: Self =
        Self { max_bytes: 16 * 1024 * 1024, max_depth: 48, max_nodes: 100_000, max_attributes: 16 };

    /// For machines that have not: a first package is a few kilobytes.
    pub const UNAUTHENTICATED: Self =
        Self { max_bytes: 512 * 1024, max_depth: 48, max_nodes: 4_000, max_attributes: 16 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::SESSION
    }
}

/// Reads one message.
///
/// # Errors
/// [`Error::Empty`] for an empty body, else what the limits, XML or the header's required elements refused. A
/// command that is not understood is no error: it becomes [`Command::Unknown`](super::Command::Unknown).
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Message, Error> {
    super::model::from_tree(&tree(bytes, limits)?)
}

/// Reads commands without a message around them, as administrators write them. `CmdID` may be absent.
///
/// # Errors
/// As [`read`], except that no header is wanted.
pub fn read_commands(bytes: &[u8], limits: &Limits) -> Result<Vec<super::Command>, Error> {
    let (text, mut reader) = opened(bytes, limits)?;
    let mut document = Document::new(text, limits);
    document.open.push(Element::new("SyncBody"));
    loop {
        let before = reader.buffer_position();
        match reader.read_event().map_err(|_| Error::Xml("it is not well-formed"))? {
            Event::Eof if document.open.len() == 1 => break,
            Event::Eof => return Err(Error::Xml("an element never ends")),
            event => document.take(event, before, reader.buffer_position())?,
        }
        if document.open.is_empty() {
            return Err(Error::Xml("an element ends that never began"));
        }
    }
    let body = document.open.pop().ok_or(Error::Empty)?;
    super::model::commands_from(body)
}

/// Whether a text is a document of its own by the rules of this reader, and the local name of its root.
///
/// # Errors
/// What the limits or XML refused.
pub fn root_name(text: &str, limits: &Limits) -> Result<String, Error> {
    Ok(tree(text.as_bytes(), limits)?.name.into_owned())
}

/// Whether a text can stand between the tags of `Data` as it is.
pub(crate) fn check_markup(markup: &str) -> Result<(), Error> {
    const WRONG: Error = Error::NotWritable("its markup is not well-formed");
    let mut reader = Reader::from_str(markup);
    reader.config_mut().expand_empty_elements = true;
    let mut document = Document::new(markup, &Limits::SESSION);
    document.first = false;
    document.open.push(Element::new("Data"));
    document.data = Some((0, false));
    loop {
        let before = reader.buffer_position();
        match reader.read_event().map_err(|_| WRONG)? {
            Event::Eof if document.open.len() == 1 && document.inner == 0 => return Ok(()),
            Event::Eof => return Err(WRONG),
            event => document.take(event, before, reader.buffer_position())?,
        }
    }
}

/// The text within its limit, and a reader at its beginning.
fn opened<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(&'a str, Reader<&'a [u8]>), Error> {
    if bytes.len() > limits.max_bytes {
        return Err(Error::TooLarge { limit: limits.max_bytes });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Encoding)?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_end_names = true;
    config.expand_empty_elements = true;
    Ok((text, reader))
}

fn tree(bytes: &[u8], limits: &Limits) -> Result<Element, Error> {
    let (text, mut reader) = opened(bytes, limits)?;
    let mut document = Document::new(text, limits);
    loop {
        let before = reader.buffer_position();
        match reader.read_event().map_err(|_| Error::Xml("it is not well-formed"))? {
            Event::Eof => return document.finish(),
            event => document.take(event, before, reader.buffer_position())?,
        }
    }
}

struct Document<'a> {
    source: &'a str,
    limits: &'a Limits,
    first: bool,
    nodes: usize,
    open: Vec<Element>,
    /// Elements open inside the innermost `Data`, whose bytes are kept raw.
    inner: usize,
    /// Where the content of the innermost `Data` begins, and whether it has child elements.
    data: Option<(usize, bool)>,
    text: String,
    root: Option<Element>,
}

impl<'a> Document<'a> {
    fn new(source: &'a str, limits: &'a Limits) -> Self {
        Self {
            source,
            limits,
            first: true,
            nodes: 0,
            open: Vec::new(),
            inner: 0,
            data: None,
            text: String::new(),
            root: None,
        }
    }

    fn take(&mut self, event: Event<'_>, before: u64, after: u64) -> Result<(), Error> {
        let first = std::mem::replace(&mut self.first, false);
        match event {
            Event::Decl(declaration) if first => self.declaration(&declaration),
            Event::Decl(_) | Event::PI(_) => Err(Error::ProcessingInstruction),
            Event::DocType(_) => Err(Error::Doctype),
            Event::Comment(_) | Event::Eof => Ok(()),
            Event::Start(tag) => self.start(&tag, after),
            Event::Empty(_) => Err(Error::Xml("an element was not expanded")),
            Event::End(_) => self.end(before),
            Event::Text(text) => self.characters(&text.xml10_content()),
            Event::CData(text) => self.characters(&text.xml10_content()),
            Event::GeneralRef(reference) => self.reference(&reference),
        }
    }

    fn declaration(&mut self, declaration: &BytesDecl<'_>) -> Result<(), Error> {
        if !matches!(declaration.version(), Ok(version) if version == "1.0") {
            return Err(Error::Xml("its version is not 1.0"));
        }
        match declaration.encoding() {
            None => Ok(()),
            Some(Ok(name)) if name.eq_ignore_ascii_case("UTF-8") => Ok(()),
            Some(_) => Err(Error::Encoding),
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>, after: u64) -> Result<(), Error> {
        if self.root.is_some() {
            return Err(Error::Xml("there is more than one root element"));
        }
        self.nodes += 1;
        if self.nodes > self.limits.max_nodes {
            return Err(Error::TooManyNodes { limit: self.limits.max_nodes });
        }
        if self.open.len() + self.inner >= self.limits.max_depth {
            return Err(Error::TooDeep { limit: self.limits.max_depth });
        }
        if !is_name(tag.name().as_ref()) {
            return Err(Error::Xml("an element has a name that is none"));
        }
        let original_error = self.attributes(tag)?;
        if let Some((_, markup)) = &mut self.data {
            *markup = true;
            self.inner += 1;
            return Ok(());
        }
        // Text beside child elements is white space between them; SyncML has no other mixed content.
        self.text.clear();
        let local = tag.local_name();
        let name = local.as_ref();
        let name = tags::known(name).map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed);
        if name == "Data" {
            let begin = usize::try_from(after).map_err(|_| Error::Xml("it is too long"))?;
            self.data = Some((begin, false));
        }
        self.open.push(Element { name, original_error, ..Element::default() });
        Ok(())
    }

    fn attributes(&self, tag: &BytesStart<'_>) -> Result<Option<String>, Error> {
        let mut original_error = None;
        for (index, attribute) in tag.attributes().enumerate() {
            if index >= self.limits.max_attributes {
                return Err(Error::TooManyAttributes { limit: self.limits.max_attributes });
            }
            let attribute = attribute.map_err(|_| Error::Xml("an attribute is wrong"))?;
            if attribute.key.local_name().as_ref() == "originalerror" {
                // An HRESULT: anything with references in it is not one.
                let value: String =
                    attribute.value.chars().filter(|c| c.is_ascii_alphanumeric()).take(32).collect();
                original_error = Some(value);
            }
        }
        Ok(original_error)
    }

    fn end(&mut self, before: u64) -> Result<(), Error> {
        if self.inner > 0 {
            self.inner -= 1;
            return Ok(());
        }
        let mut element = self.open.pop().ok_or(Error::Xml("an element ends that never began"))?;
        let text = std::mem::take(&mut self.text);
        match self.data.take() {
            Some((begin, true)) => {
                let end = usize::try_from(before).map_err(|_| Error::Xml("it is too long"))?;
                // An empty element that was expanded ends where it began.
                let raw = self.source.get(begin..end).unwrap_or_default();
                element.content = Some(Data::Markup(raw.to_owned()));
            }
            Some((_, false)) => element.content = Some(Data::Text(text)),
            None if element.children.is_empty() && !text.is_empty() => {
                element.content = Some(Data::Text(text))
            }
            None => {}
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
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
        self.characters(character.encode_utf8(&mut [0; 4]))
    }

    fn characters(&mut self, text: &str) -> Result<(), Error> {
        if !text.chars().all(is_xml_char) {
            return Err(Error::Xml("it contains a control character"));
        }
        if self.open.is_empty() {
            let blank = text.chars().all(|c| c.is_ascii_whitespace());
            return if blank { Ok(()) } else { Err(Error::Xml("there is text outside the root element")) };
        }
        if !matches!(self.data, Some((_, true))) {
            self.text.push_str(text);
        }
        Ok(())
    }

    fn finish(self) -> Result<Element, Error> {
        match self.root {
            Some(root) if self.open.is_empty() => Ok(root),
            _ => Err(Error::Xml("an element never ends")),
        }
    }
}

/// Whether an element can be called so (XML 1.0, section 2.3, as far as ASCII goes). A command that nobody knows is
/// called by its name in the answer.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c) || (!c.is_ascii() && is_xml_char(c));
    !name.starts_with(|c: char| c.is_ascii_digit() || "-.".contains(c))
        && !name.is_empty()
        && name.chars().all(fits)
}

/// The characters of XML 1.0, section 2.2. `char` already excludes surrogates.
pub(crate) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}
