//! SyncML in WBXML: limits hold, string tables do not multiply, and both wire forms bring the same message back.

#![no_main]

use bellwether_fuzz::syncml::{TIGHT, comes_back};
use bellwether_windows::syncml::reader::Limits;
use bellwether_windows::syncml::wbxml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let strict = wbxml::read(bytes, &TIGHT);
    match wbxml::read(bytes, &Limits::UNAUTHENTICATED) {
        Ok(message) => {
            assert!(strict.is_err() || strict.as_ref() == Ok(&message), "tighter limits changed the message");
            comes_back(&message);
        }
        Err(_) => assert!(strict.is_err(), "tighter limits let something through"),
    }
});
