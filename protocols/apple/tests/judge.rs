//! Python's plistlib as an independent reader of everything that the crate writes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::process::Command as Process;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_apple::command::ReturnToService;
use bellwether_apple::guard::{Limits, parse};
use bellwether_apple::reply::{self, ErrorDocument};
use bellwether_apple::{ChannelIds, Opaque, device};
use common::{UUID, commands, profiles};
use plist::Value;
use serde_json::{Value as Json, json};

/// Everything that the crate writes, by name.
fn everything() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (number, command) in commands().into_iter().enumerate() {
        let name = format!("command-{number}-{}.plist", command.request_type());
        all.push((name, command.encode(UUID).unwrap()));
    }
    for (number, profile) in profiles().into_iter().enumerate() {
        all.push((format!("profile-{number}.plist"), profile.encode().unwrap()));
    }
    let ids = ChannelIds::udid("A").unwrap();
    let document = ErrorDocument::SoftwareUpdateRequired {
        os_version: "17.2".to_owned(),
        build_version: Some("21C62".to_owned()),
        beta_program: Some(("Beta".to_owned(), Opaque::from("seed"))),
    };
    for (name, bytes) in [
        ("idle", device::idle(&ids)),
        ("bootstrap", reply::bootstrap_token(Some(b"abc"))),
        ("no-bootstrap", reply::bootstrap_token(None)),
        ("challenge", reply::user_authenticate_challenge("Digest realm=\"<&>\"")),
        ("auth-token", reply::user_authenticate_token(&Opaque::from("t"))),
        ("token-data", reply::token_data(b"jwt")),
        ("return-to-service", reply::return_to_service(&ReturnToService::default())),
        ("error-document", document.to_plist(Some("Update first"))),
    ] {
        all.push((format!("{name}.plist"), bytes.unwrap()));
    }
    all
}

#[test]
fn plistlib_reads_what_we_write() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("judge-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let all = everything();
    for (name, bytes) in &all {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judge.py");
    let output = Process::new("python3").arg(script).arg(&folder).output();
    std::fs::remove_dir_all(&folder).unwrap();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "python3 is needed in CI: {error}");
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: python3 is not here ({error})\n"),
            );
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let judged: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(judged.as_object().unwrap().len(), all.len());
    for (name, bytes) in &all {
        assert_eq!(judged[name], plain(&parse(bytes, &Limits::default()).unwrap()), "{name}");
    }
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Dictionary(keys) => {
            let inner: serde_json::Map<_, _> =
                keys.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
            json!({ "dict": inner })
        }
        Value::Boolean(value) => json!(value),
        Value::Data(bytes) => json!({ "data": STANDARD.encode(bytes) }),
        Value::Date(date) => json!({ "date": date.to_xml_format() }),
        Value::Real(number) => json!(number),
        Value::Integer(number) => {
            number.as_signed().map_or_else(|| json!(number.as_unsigned()), |n| json!(n))
        }
        Value::String(text) => json!(text),
        other => panic!("{other:?}"),
    }
}
