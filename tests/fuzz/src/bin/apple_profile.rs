//! Property lists that an administrator uploads or a device is given: profiles, raw commands, delivered commands and
//! the enrollment profile. What would enroll a device elsewhere is always refused.

#![no_main]

use bellwether_apple::command::{Command, RawCommand, decode_command};
use bellwether_apple::guard::{self, Limits};
use bellwether_apple::profile;
use bellwether_fuzz::plists::survives_xml;
use libfuzzer_sys::fuzz_target;
use plist::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(summary) = profile::inspect(bytes) {
        let refused = profile::refuse_upload(&summary).is_err();
        let enrolls = summary.payloads.iter().any(|payload| payload.payload_type == "com.apple.mdm");
        assert!(refused || !enrolls, "a profile with an MDM payload would be installed");
        assert!(profile::refuse_reserved(&summary, &[&summary.identifier]).is_err());
    }
    if let Ok(details) = profile::decode_enrollment_profile(bytes) {
        assert!(
            profile::refuse_upload(&details.summary).is_err(),
            "an enrollment profile would be installed"
        );
    }
    let _ = decode_command(bytes);
    if let Ok(raw) = RawCommand::from_plist(bytes) {
        delivers(raw);
    }
});

/// A raw command arrives as it was written, or is refused.
fn delivers(raw: RawCommand) {
    const UUID: &str = "0199c0de-0000-7000-8000-000000000001";
    let request_type = raw.request_type().to_owned();
    let dictionary = raw.dictionary().clone();
    let value = Value::Dictionary(dictionary.clone());
    match Command::Raw(raw).encode(UUID) {
        Err(error) => assert!(!survives_xml(&value), "{request_type}: {error}"),
        Ok(body) => {
            let delivered = decode_command(&body).expect("our own command");
            assert_eq!((delivered.command_uuid.as_str(), &delivered.request_type), (UUID, &request_type));
            if survives_xml(&value) {
                assert_eq!(delivered.command, dictionary);
            }
            assert!(guard::parse(&body, &Limits::REPORT).is_ok());
        }
    }
}
