//! The server's side of an OMA-DM session, driven by arbitrary messages. The input is messages in XML with a NUL
//! between them; session and device are set right, because everything else is refused at once. Before a message the
//! byte 1 takes the transport's proof away, and 2 sends the last reply's twin (a lost reply).
//!
//! Whatever a machine says: every command of it gets one status, a part is answered only if it was sent and each of its
//! commands once, replies can be written and keep to their limit, nothing is sent to whom has not proved itself, and
//! the state that the server stores stays small.

#![no_main]

use bellwether_fuzz::session::{DEVICE, Drive};
use bellwether_windows::syncml::reader::{self, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut drive = Drive::new();
    for (number, text) in bytes.split(|byte| *byte == 0).take(24).enumerate() {
        let proved = text.first() != Some(&1);
        let twice = text.first() == Some(&2);
        let text = text.strip_prefix(&[1]).or(text.strip_prefix(&[2])).unwrap_or(text);
        let Ok(mut message) = reader::read(text, &Limits::UNAUTHENTICATED) else { continue };
        message.header.session_id = "93".to_owned();
        message.header.source.uri = DEVICE.to_owned();
        for _ in 0..=usize::from(twice) {
            drive.exchange(&message, proved, number);
        }
    }
});
