//! XML documents that travel as the data of a node.

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

use super::{Error, unusable};

/// An element with attributes, and text or children.
pub(super) struct Xml<'a> {
    pub(super) name: &'a str,
    pub(super) attributes: &'a [(&'a str, &'a str)],
    pub(super) text: &'a str,
    pub(super) children: Vec<Xml<'a>>,
}

impl<'a> Xml<'a> {
    pub(super) fn text(name: &'a str, text: &'a str) -> Self {
        Self { name, attributes: &[], text, children: Vec::new() }
    }

    pub(super) fn empty(name: &'a str, attributes: &'a [(&'a str, &'a str)]) -> Self {
        Self { name, attributes, text: "", children: Vec::new() }
    }

    pub(super) fn parent(name: &'a str, children: Vec<Xml<'a>>) -> Self {
        Self { name, attributes: &[], text: "", children }
    }

    pub(super) fn write(&self) -> Result<String, Error> {
        fragments(std::slice::from_ref(self))
    }

    fn emit(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let start = BytesStart::new(self.name).with_attributes(self.attributes.iter().copied());
        if self.text.is_empty() && self.children.is_empty() {
            return writer.write_event(Event::Empty(start));
        }
        writer.write_event(Event::Start(start))?;
        writer.write_event(Event::Text(BytesText::new(self.text)))?;
        for child in &self.children {
            child.emit(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name)))
    }
}

/// Several elements in a row, as ADMX-backed policies have them.
pub(super) fn fragments(elements: &[Xml<'_>]) -> Result<String, Error> {
    let mut writer = Writer::new(Vec::new());
    for element in elements {
        element.emit(&mut writer).map_err(|_| unusable("document", "it cannot be written"))?;
    }
    String::from_utf8(writer.into_inner()).map_err(|_| unusable("document", "it is not text"))
}
