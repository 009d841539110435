//! What the API takes as a command: JSON into an intent, and the words of the model. What was read comes back equal,
//! says nothing of its secrets when it is logged, and every platform has an answer to it.

#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use bellwether_model::intent::{InventoryKind, Lane, WipeScope};
use bellwether_model::lifecycle::CommandState;
use bellwether_model::permit::Grant;
use bellwether_model::{capability, id::DeviceId, intent::Intent, platform::OsVersion, platform::Platform};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(intent) = serde_json::from_slice::<Intent>(bytes) {
        let written = serde_json::to_string(&intent).expect("an intent can be written");
        let back: Intent = serde_json::from_str(&written).expect("our own intent");
        assert!(back == intent, "another intent comes back");
        let said: Value = serde_json::from_str(&written).expect("our own JSON");
        assert_eq!(said["type"].as_str(), Some(intent.kind()));
        assert_eq!(
            format!("{intent:?}"),
            format!("Intent({})", intent.kind()),
            "a log shows more than the kind"
        );
        for platform in [Platform::Apple, Platform::Windows, Platform::Android] {
            if let Err(reason) = capability::check(platform, &intent) {
                assert!(!reason.to_string().is_empty());
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        word::<Platform>(text);
        word::<Lane>(text);
        word::<InventoryKind>(text);
        word::<WipeScope>(text);
        word::<CommandState>(text);
        word::<Grant>(text);
        word::<OsVersion>(text);
        word::<DeviceId>(text);
    }
});

/// A word means what it is written as.
fn word<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let again = read.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == read), "{text} comes back as another");
    }
}
