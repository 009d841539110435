//! The writer: quick-xml events only, so that every value is escaped.

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

use super::super::Error;
use super::is_xml_char;

/// A document under construction. The first thing that cannot be written is reported by [`Writing::finish`].
pub(in super::super) struct Writing {
    writer: Writer<Vec<u8>>,
    open: Vec<&'static str>,
    wrong: Option<Error>,
}

type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Writing {
    pub(in super::super) fn new() -> Self {
        Self { writer: Writer::new(Vec::new()), open: Vec::new(), wrong: None }
    }

    pub(in super::super) fn open(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        let tag = self.tag(name, attributes);
        self.event(Event::Start(tag));
        self.open.push(name);
        self
    }

    pub(in super::super) fn close(&mut self) -> &mut Self {
        match self.open.pop() {
            Some(name) => self.event(Event::End(BytesEnd::new(name))),
            None => self.refuse("an element ends that never began"),
        }
        self
    }

    pub(in super::super) fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) -> &mut Self {
        let tag = self.tag(name, attributes);
        self.event(Event::Empty(tag));
        self
    }

    pub(in super::super) fn leaf(&mut self, name: &'static str, text: &str) -> &mut Self {
        self.leaf_with(name, &[], text)
    }

    pub(in super::super) fn leaf_with(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        text: &str,
    ) -> &mut Self {
        self.open(name, attributes);
        self.check(text);
        self.event(Event::Text(BytesText::new(text)));
        self.close()
    }

    pub(in super::super) fn maybe(&mut self, name: &'static str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.leaf(name, text),
            None => self,
        }
    }

    pub(in super::super) fn finish(mut self) -> Result<Vec<u8>, Error> {
        if !self.open.is_empty() {
            self.refuse("an element never ends");
        }
        match self.wrong {
            Some(error) => Err(error),
            None => Ok(self.writer.into_inner()),
        }
    }

    fn tag(&mut self, name: &'static str, attributes: Attributes<'_>) -> BytesStart<'static> {
        let mut tag = BytesStart::new(name);
        for (key, value) in attributes {
            self.check(value);
            tag.push_attribute((*key, *value));
        }
        tag
    }

    fn check(&mut self, text: &str) {
        if !text.chars().all(is_xml_char) {
            self.refuse("a text contains a control character");
        }
    }

    fn refuse(&mut self, reason: &'static str) {
        self.wrong.get_or_insert(Error::NotWritable(reason));
    }

    fn event(&mut self, event: Event<'_>) {
        if self.writer.write_event(event).is_err() {
            self.refuse("the writer refused it");
        }
    }
}
