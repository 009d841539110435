//! The provisioning document as a machine reads it: what it takes, the server can write, and it reads the same again.

#![no_main]

use bellwether_windows::enrollment::{Error, Provisioning};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Provisioning::decode(bytes) else { return };
    match document.encode() {
        Ok(written) => {
            let back = Provisioning::decode(written.expose()).expect("a document of ours");
            assert!(back == document, "another document comes back");
        }
        // What machines overlook the server still does not write.
        Err(error) => {
            assert!(
                matches!(error, Error::NotWritable(_) | Error::Provisioning(_) | Error::Address(_)),
                "{error}"
            );
        }
    }
});
