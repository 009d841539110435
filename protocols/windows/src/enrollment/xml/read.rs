//! The reader: quick-xml's tokenizer behind limits, without recursion.
//!
//! Elements are known by their local name; a namespace only has to fit where two vocabularies could be
//! confused, and then a trailing slash does not matter (Microsoft's own samples have one too many).

use std::sync::Arc;

use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use zeroize::Zeroize;

use super::super::Error;
use super::is_xml_char;

/// What a message may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The body, in bytes.
    pub max_bytes: usize,
    /// Nested elements.
    pub max_depth: usize,
    /// Elements.
    pub max_nodes: usize,
    /// Attributes of one element.
    pub max_attributes: usize,
}

impl Limits {
    /// For requests of machines, which have not proved who they are: a real request with attestation claims
    /// stays below 16 KiB.
    pub const REQUEST: Self =
        Self { max_bytes: 256 * 1024, max_depth: 32, max_nodes: 2_000, max_attributes: 32 };

    /// For replies and provisioning documents, read by a simulated machine.
    pub const REPLY: Self =
        Self { max_bytes: 1024 * 1024, max_depth: 32, max_nodes: 5_000, max_attributes: 32 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::REQUEST
    }
}

/// A document as a flat list of elements, the root first.
pub(in super::super) struct Document {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    local: String,
    /// `None` when there is no namespace, or its prefix was never declared.
    namespace: Option<Arc<str>>,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<usize>,
}

/// Texts hold passwords and tokens.
impl Drop for Node {
    fn drop(&mut self) {
        self.text.zeroize();
        for (_, value) in &mut self.attributes {
            value.zeroize();
        }
    }
}

impl Document {
    pub(in super::super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        if bytes.len() > limits.max_bytes {
            return Err(Error::TooLarge { limit: limits.max_bytes });
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::Empty);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Encoding)?;
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text).trim_start();
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        // The names are matched below, where one documented mistake is forgiven.
        config.check_end_names = false;
        config.expand_empty_elements = true;
        let mut building = Building::new(limits);
        loop {
            match reader.read_event().map_err(|_| Error::Xml("it is not well-formed"))? {
                Event::Eof => return building.finish(),
                event => building.take(event)?,
            }
        }
    }

    pub(in super::super) fn root(&self) -> Result<Element<'_>, Error> {
        self.at(0).ok_or(Error::Xml("there is no element"))
    }

    pub(in super::super) fn at(&self, index: usize) -> Option<Element<'_>> {
        self.nodes.get(index).map(|node| Element { document: self, index, node })
    }
}

/// One element of a [`Document`].
#[derive(Clone, Copy)]
pub(in super::super) struct Element<'d> {
    document: &'d Document,
    index: usize,
    node: &'d Node,
}

impl<'d> Element<'d> {
    /// Where [`Document::at`] finds it again.
    pub(in super::super) fn index(&self) -> usize {
        self.index
    }

    pub(in super::super) fn name(&self) -> &'d str {
        &self.node.local
    }

    /// Whether the element has this name, in one of these namespaces or in none that was declared.
    pub(in super::super) fn is(&self, local: &str, namespaces: &[&str]) -> bool {
        self.node.local == local
            && self.node.namespace.as_ref().is_none_or(|actual| {
                let actual = actual.trim_end_matches('/');
                namespaces.iter().any(|expected| expected.trim_end_matches('/') == actual)
            })
    }

    /// An attribute by its local name: clients write `ValueType` as well as `wsse:ValueType`.
    pub(in super::super) fn attribute(&self, local: &str) -> Option<&'d str> {
        self.node.attributes.iter().find(|(name, _)| name == local).map(|(_, value)| value.trim())
    }

    /// The text of this element itself, without the white space around it.
    pub(in super::super) fn text(&self) -> &'d str {
        self.node.text.trim()
    }

    pub(in super::super) fn children(&self) -> impl Iterator<Item = Element<'d>> + use<'d> {
        let document = self.document;
        self.node.children.iter().filter_map(move |index| document.at(*index))
    }

    /// The only child of that name.
    pub(in super::super) fn child(&self, local: &'static str) -> Result<Option<Element<'d>>, Error> {
        let mut found = self.children().filter(|child| child.name() == local);
        let first = found.next();
        if found.next().is_some() {
            return Err(Error::Repeated { field: local });
        }
        Ok(first)
    }

    /// The text of the only child of that name; `None` when it is absent or empty.
    pub(in super::super) fn value(&self, local: &'static str) -> Result<Option<&'d str>, Error> {
        Ok(self.child(local)?.map(|child| child.text()).filter(|text| !text.is_empty()))
    }

    pub(in super::super) fn required(
        &self,
        message: &'static str,
        field: &'static str,
    ) -> Result<&'d str, Error> {
        self.value(field)?.ok_or(Error::Missing { message, field })
    }

    pub(in super::super) fn required_child(
        &self,
        message: &'static str,
        field: &'static str,
    ) -> Result<Element<'d>, Error> {
        self.child(field)?.ok_or(Error::Missing { message, field })
    }
}

struct Building<'l> {
    limits: &'l Limits,
    nodes: Vec<Node>,
    open: Vec<Open>,
    /// Nothing but the root may stand outside of it; a declaration only at the very beginning.
    begun: bool,
}

struct Open {
    index: usize,
    name: String,
    /// Prefixes that this element declares; the empty one is the default.
    namespaces: Vec<(String, Arc<str>)>,
}

impl<'l> Building<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self { limits, nodes: Vec::new(), open: Vec::new(), begun: false }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), Error> {
        let begun = std::mem::replace(&mut self.begun, true);
        match event {
            Event::Decl(_) if begun => Err(Error::ProcessingInstruction),
            Event::Decl(declaration) => check_declaration(&declaration),
            Event::DocType(_) => Err(Error::Doctype),
            Event::PI(_) => Err(Error::ProcessingInstruction),
            Event::Comment(_) | Event::Eof => Ok(()),
            Event::Start(tag) => self.start(&tag),
            Event::Empty(_) => Err(Error::Xml("an element was not expanded")),
            Event::End(tag) => self.end(tag.name().as_ref()),
            Event::Text(text) => self.characters(&text.xml10_content()),
            Event::CData(text) => self.characters(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = resolve(&reference)?;
                self.characters(character.encode_utf8(&mut [0; 4]))
            }
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), Error> {
        if self.open.is_empty() && !self.nodes.is_empty() {
            return Err(Error::Xml("there is more than one root element"));
        }
        if self.open.len() >= self.limits.max_depth {
            return Err(Error::TooDeep { limit: self.limits.max_depth });
        }
        let index = self.nodes.len();
        if index >= self.limits.max_nodes {
            return Err(Error::TooManyNodes { limit: self.limits.max_nodes });
        }
        let mut node = Node::default();
        let mut namespaces = Vec::new();
        self.attributes(tag, &mut node, &mut namespaces)?;
        let name = tag.name();
        let (prefix, local) = split(name.as_ref());
        self.open.push(Open { index, name: name.as_ref().to_owned(), namespaces });
        if local.is_empty() {
            return Err(Error::Xml("an element has no name"));
        }
        node.local = local.to_owned();
        node.namespace = self.resolve_prefix(prefix);
        if let Some(parent) = self.open.iter().rev().nth(1)
            && let Some(parent) = self.nodes.get_mut(parent.index)
        {
            parent.children.push(index);
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Counts before comparing, so that a million attributes cost nothing.
    fn attributes(
        &self,
        tag: &BytesStart<'_>,
        node: &mut Node,
        namespaces: &mut Vec<(String, Arc<str>)>,
    ) -> Result<(), Error> {
        let mut names: Vec<String> = Vec::new();
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|_| Error::Xml("an attribute is malformed"))?;
            if names.len() >= self.limits.max_attributes {
                return Err(Error::TooManyAttributes { limit: self.limits.max_attributes });
            }
            let name = attribute.key.as_ref().to_owned();
            if names.contains(&name) {
                return Err(Error::Xml("an attribute stands twice"));
            }
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| Error::Entity)?;
            if !value.chars().all(is_xml_char) {
                return Err(Error::Xml("it contains a control character"));
            }
            let (prefix, local) = split(&name);
            match prefix {
                "xmlns" => namespaces.push((local.to_owned(), value.as_ref().into())),
                "" if local == "xmlns" => namespaces.push((String::new(), value.as_ref().into())),
                _ => node.attributes.push((local.to_owned(), value.into_owned())),
            }
            names.push(name);
        }
        Ok(())
    }

    fn resolve_prefix(&self, prefix: &str) -> Option<Arc<str>> {
        let declared = self.open.iter().rev().flat_map(|open| &open.namespaces);
        let (_, namespace) = declared.into_iter().find(|(name, _)| name == prefix)?;
        (!namespace.is_empty()).then(|| Arc::clone(namespace))
    }

    /// Closes the innermost element, which must have that name. One mistake of Microsoft's samples of
    /// `RequestSecurityToken` is forgiven: a `ContextItem` that nobody closes ends with what is around it.
    fn end(&mut self, name: &str) -> Result<(), Error> {
        loop {
            let open = self.open.pop().ok_or(Error::Xml("an element ends that never began"))?;
            if open.name == name {
                return Ok(());
            }
            if split(&open.name).1 != "ContextItem" {
                return Err(Error::Xml("an element ends inside another one"));
            }
        }
    }

    fn characters(&mut self, text: &str) -> Result<(), Error> {
        if !text.chars().all(is_xml_char) {
            return Err(Error::Xml("it contains a control character"));
        }
        match self.open.last().and_then(|open| self.nodes.get_mut(open.index)) {
            Some(node) => node.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(Error::Xml("a text stands outside of the root element")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Document, Error> {
        if !self.open.is_empty() {
            return Err(Error::Xml("an element never ends"));
        }
        if self.nodes.is_empty() {
            return Err(Error::Xml("there is no element"));
        }
        Ok(Document { nodes: self.nodes })
    }
}

fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), Error> {
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

fn resolve(reference: &BytesRef<'_>) -> Result<char, Error> {
    Ok(match reference.as_ref() {
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
    })
}

/// Prefix and local name.
fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}
