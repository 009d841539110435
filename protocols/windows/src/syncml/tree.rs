//! Elements, between the two encodings (XML, WBXML) and the typed messages.

use std::borrow::Cow;

use super::Data;

/// One element. Never deeper than the limits of the reader, so dropping it cannot overflow the stack.
#[derive(Debug, Clone, Default)]
pub(crate) struct Element {
    /// The local name.
    pub(crate) name: Cow<'static, str>,
    /// The value of an `originalerror` attribute, the only one that means something.
    pub(crate) original_error: Option<String>,
    pub(crate) children: Vec<Element>,
    /// Character data; of `Data`, whatever stands in it.
    pub(crate) content: Option<Data>,
}

impl Element {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), ..Self::default() }
    }

    pub(crate) fn with_text(name: &'static str, text: impl Into<String>) -> Self {
        Self { content: Some(Data::Text(text.into())), ..Self::new(name) }
    }

    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.child(name).is_some()
    }

    /// The text of a child, without the white space that documentation samples put around values.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(Element::text)
    }

    pub(crate) fn text(&self) -> &str {
        self.content.as_ref().and_then(Data::as_str).map_or("", str::trim)
    }

    pub(crate) fn push(&mut self, child: Element) {
        self.children.push(child);
    }

    pub(crate) fn push_text(&mut self, name: &'static str, text: impl Into<String>) {
        self.push(Element::with_text(name, text));
    }

    pub(crate) fn maybe(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.push_text(name, text);
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str, set: bool) {
        if set {
            self.push(Element::new(name));
        }
    }
}
