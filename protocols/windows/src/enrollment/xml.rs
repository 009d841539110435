//! XML of enrollment: a guarded reader into a small flat tree, and a writer of events.

mod read;
mod write;

pub use read::Limits;
pub(super) use read::{Document, Element};
pub(super) use write::Writing;

/// The characters of XML 1.0, section 2.2. `char` already excludes surrogates.
pub(super) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}
