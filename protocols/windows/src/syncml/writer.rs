//! SyncML in XML, for the other side.
//!
//! The order of elements is the DTD's. Text is escaped and never put into CDATA, which Windows mishandles in
//! places; every child of `Meta` carries the namespace `syncml:metinf` itself, without which Windows answers
//! 400. There is no document type and no white space between elements.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesRef, BytesStart, BytesText, Event};

use super::reader::{check_markup, is_xml_char};
use super::tree::Element;
use super::{Command, Data, Error, Message, model, tags};

/// The namespace of what we write.
pub const NAMESPACE: &str = "SYNCML:SYNCML1.2";
/// The namespace of the children of `Meta`.
pub const METINF: &str = "syncml:metinf";
/// The namespace of `msft:originalerror` (MS-MDM 2.2.1).
pub const MSFT: &str = "http://schemas.microsoft.com/MobileDevice/MDM";

/// The media type of the XML form.
pub const CONTENT_TYPE: &str = "application/vnd.syncml.dm+xml";

/// Writes one message.
///
/// # Errors
/// [`Error::NotWritable`] for text that XML cannot carry, binary data, or markup that is not well-formed.
pub fn write(message: &Message) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(Vec::new());
    emit(&mut writer, Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    element(&mut writer, &model::to_tree(message))?;
    Ok(writer.into_inner())
}

/// The size of one command in bytes, as it would be written: what counts towards the peer's `MaxMsgSize`.
///
/// # Errors
/// As [`write`].
pub fn size(command: &Command) -> Result<usize, Error> {
    let mut writer = Writer::new(Counter(0));
    element(&mut writer, &model::command_to(command))?;
    Ok(writer.into_inner().0)
}

/// Counts what is written to it.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn emit<W: io::Write>(writer: &mut Writer<W>, event: Event<'_>) -> Result<(), Error> {
    writer.write_event(event).map_err(|_| Error::NotWritable("the writer refused it"))
}

/// Recursion is as deep as the typed messages nest: groups in groups, which [`super::session`] bounds.
fn element<W: io::Write>(writer: &mut Writer<W>, element: &Element) -> Result<(), Error> {
    let name = &*element.name;
    if !is_name(name) {
        return Err(Error::NotWritable("a command's name is no XML name"));
    }
    let mut start = BytesStart::new(name);
    match name {
        "SyncML" => start.push_attribute(("xmlns", NAMESPACE)),
        "SyncBody" => start.push_attribute(("xmlns:msft", MSFT)),
        _ if matches!(tags::token(name), Some((tags::PAGE_METINF, _))) => {
            start.push_attribute(("xmlns", METINF))
        }
        _ => {}
    }
    if let Some(error) = &element.original_error {
        start.push_attribute(("msft:originalerror", &**error));
    }
    if element.children.is_empty() && element.content.as_ref().is_none_or(Data::is_empty) {
        return emit(writer, Event::Empty(start));
    }
    emit(writer, Event::Start(start))?;
    for child in &element.children {
        self::element(writer, child)?;
    }
    match &element.content {
        None => {}
        Some(Data::Text(text)) => characters(writer, text)?,
        Some(Data::Markup(markup)) => {
            check_markup(markup)?;
            emit(writer, Event::Text(BytesText::from_escaped(&**markup)))?;
        }
        Some(Data::Binary(_)) => return Err(Error::NotWritable("binary data needs base64 in XML")),
    }
    emit(writer, Event::End(BytesEnd::new(name)))
}

/// A carriage return is written as a reference: XML readers turn a plain one into a line feed.
fn characters<W: io::Write>(writer: &mut Writer<W>, text: &str) -> Result<(), Error> {
    if !text.chars().all(is_xml_char) {
        return Err(Error::NotWritable("a text contains a control character"));
    }
    for (index, part) in text.split('\r').enumerate() {
        if index > 0 {
            emit(writer, Event::GeneralRef(BytesRef::new("#xD")))?;
        }
        emit(writer, Event::Text(BytesText::new(part)))?;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}
