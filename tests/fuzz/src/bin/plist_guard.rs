//! The guard in front of every property list: limits hold for what it passes, stricter limits never change a value,
//! the `plist` crate (whose own readers know no limits) reads the same, and what is written comes back.

#![no_main]

use std::io::Cursor;

use bellwether_apple::guard::{self, Limits};
use bellwether_fuzz::plists::{Cost, same, survives_xml};
use libfuzzer_sys::fuzz_target;
use plist::Value;

const TIGHT: Limits =
    Limits { max_bytes: 4096, max_depth: 4, max_nodes: 40, max_string: 128, max_attributes: 2 };

fuzz_target!(|bytes: &[u8]| {
    let strict = guard::parse(bytes, &TIGHT);
    if let Ok(value) = &strict {
        Cost::of(value).assert_within(&TIGHT);
    }
    let Ok(value) = guard::parse(bytes, &Limits::UNAUTHENTICATED) else {
        assert!(strict.is_err(), "tighter limits let something through");
        return;
    };
    Cost::of(&value).assert_within(&Limits::UNAUTHENTICATED);
    if let Ok(strict) = strict {
        assert!(same(&strict, &value), "tighter limits changed the value");
    }

    // What passed the guard is safe for the crate's readers, and two readers must not disagree on what a message
    // says. The crate may refuse, and it skips XML that the guard reads: CDATA, comments inside a text, line ends.
    if let Ok(theirs) = crates_own(bytes)
        && (bytes.starts_with(b"bplist") || !skips(bytes))
    {
        assert!(same(&theirs, &value), "the plist crate reads {theirs:?}, the guard {value:?}");
    }

    let mut binary = Vec::new();
    if value.to_writer_binary(&mut binary).is_ok() {
        let back = guard::parse(&binary, &Limits::REPORT).expect("a binary list of our own is refused");
        assert!(same(&back, &value), "binary: {back:?} instead of {value:?}");
    }
    if survives_xml(&value) {
        let mut xml = Vec::new();
        value.to_writer_xml(&mut xml).expect("XML can carry it");
        let back = guard::parse(&xml, &Limits::REPORT).expect("an XML list of our own is refused");
        assert!(same(&back, &value), "XML: {back:?} instead of {value:?}");
    }
});

fn skips(xml: &[u8]) -> bool {
    xml.contains(&b'\r')
        || xml.windows(2).any(|pair| pair == b"<!") && xml.windows(3).any(|w| w == b"<![" || w == b"<!-")
}

#[expect(
    clippy::disallowed_methods,
    reason = "that what the guard passed is safe for the crate is the question"
)]
fn crates_own(guarded: &[u8]) -> Result<Value, plist::Error> {
    Value::from_reader(Cursor::new(guarded))
}
