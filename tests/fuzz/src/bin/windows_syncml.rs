//! SyncML in XML: messages of machines, and raw commands of administrators. Limits hold, and both wire forms bring the
//! same message back.

#![no_main]

use bellwether_fuzz::syncml::{TIGHT, comes_back, host};
use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{Message, auth, writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let strict = reader::read(bytes, &TIGHT);
    match reader::read(bytes, &Limits::UNAUTHENTICATED) {
        Ok(message) => {
            assert!(strict.is_err() || strict.as_ref() == Ok(&message), "tighter limits changed the message");
            comes_back(&message);
            look(&message);
        }
        Err(_) => assert!(strict.is_err(), "tighter limits let something through"),
    }
    if let Ok(commands) = reader::read_commands(bytes, &Limits::UNAUTHENTICATED) {
        for command in commands {
            let size = writer::size(&command);
            let message = Message { commands: vec![command], ..host() };
            assert_eq!(writer::write(&message).is_ok(), size.is_ok(), "a command alone and in a message");
            comes_back(&message);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = reader::root_name(text, &TIGHT);
    }
});

/// A credential that nobody knows is never right.
fn look(message: &Message) {
    let md5 = |bytes: &[u8]| bellwether_certs::hash::md5(bytes);
    let secret = auth::Secret::Md5(auth::secret_md5("pc", "a password that is nowhere written", md5));
    let verdict = auth::verify(message.header.cred.as_ref(), &secret, &auth::Nonces::new(*b"nonce"), md5);
    assert!(matches!(verdict, auth::Verdict::Absent | auth::Verdict::Wrong), "{verdict:?}");
}
