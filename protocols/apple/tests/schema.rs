//! Apple's own schema as the judge of commands, check-in messages, profiles and the support table.
//!
//! The schema is not a part of this repository. The tests look for it at
//! `BELLWETHER_APPLE_SCHEMA`, then at `../shared/data/apple-device-management` beside the repository, and
//! say so when they skip. Python's yaml module reads it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::LazyLock;

use bellwether_apple::checkin::{Inbound, decode};
use bellwether_apple::family::{Family, Version};
use bellwether_apple::support::{ChannelKind, Target, Unsupported, check, request_types};
use bellwether_apple::{Error, answer};
use common::{UUID, commands, profiles};
use plist::{Dictionary, Value};
use serde_json::Value as Json;

/// Newer keys than those of the schema's snapshot (18.1), with the system that brought them.
const NEWER_KEYS: &[(&str, &str)] = &[("ReturnToService", "BootstrapToken")];

fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("BELLWETHER_APPLE_SCHEMA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/apple-device-management");
    [given, Some(beside)].into_iter().flatten().find(|folder| folder.join("mdm/commands").is_dir())
}

/// Reads the files of the schema that the tests use. Code 3 means that Python lacks its yaml module.
const READER: &str = r#"
import json, pathlib, sys
try:
    import yaml
except ImportError:
    sys.exit(3)
root = pathlib.Path(sys.argv[1])
profiles = ["TopLevel", "CommonPayloadKeys", "com.apple.mdm", "com.apple.security.scep", "com.apple.security.root"]
paths = [root / "mdm/profiles" / (name + ".yaml") for name in profiles]
for folder in ["checkin", "commands", "errors"]:
    paths += (root / "mdm" / folder).glob("*.yaml")
load = lambda path: yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
print(json.dumps({str(path.relative_to(root)): load(path) for path in paths}))
"#;

/// Every file of the schema by its path, or nothing when it cannot be read here.
static SCHEMA: LazyLock<Option<Json>> = LazyLock::new(|| {
    let Some(folder) = folder() else {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: Apple's schema is not here; set BELLWETHER_APPLE_SCHEMA\n"),
        );
        return None;
    };
    let output = Process::new("python3").args(["-c", READER]).arg(folder).output();
    let skip = match &output {
        Err(error) => Some(format!("python3 is not here: {error}")),
        Ok(output) if output.status.code() == Some(3) => Some("Python has no yaml module".to_owned()),
        Ok(_) => None,
    };
    if let Some(reason) = skip {
        assert!(std::env::var_os("CI").is_none(), "needed in CI: {reason}");
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {reason}\n"));
        return None;
    }
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
});

fn files(prefix: &str) -> Vec<(&'static String, &'static Json)> {
    let all = SCHEMA.as_ref().and_then(Json::as_object).into_iter().flatten();
    all.filter(|(path, _)| path.starts_with(prefix)).collect()
}

fn command_schema(request_type: &str) -> &'static Json {
    let all = files("mdm/commands/");
    let found = all.into_iter().find(|(_, file)| file["payload"]["requesttype"] == request_type);
    found.unwrap_or_else(|| panic!("{request_type} is not in the schema")).1
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

/// Checks a dictionary against `payloadkeys` or `subkeys`.
fn check_keys(place: &str, keys: &Dictionary, schema: &[Json]) {
    let any = schema.iter().any(|entry| entry["key"].as_str().is_some_and(|key| key.starts_with("ANY")));
    for (key, value) in keys {
        let entry = schema.iter().find(|entry| entry["key"] == key.as_str());
        match entry {
            Some(entry) => check_value(&format!("{place}.{key}"), value, entry),
            None => {
                let newer = NEWER_KEYS.iter().any(|(parent, name)| place.ends_with(parent) && key == name);
                assert!(any || newer, "{place}.{key} is not in the schema");
            }
        }
    }
    for entry in schema {
        let key = entry["key"].as_str().unwrap();
        let required = entry["presence"] == "required" && !key.starts_with("ANY");
        assert!(!required || keys.contains_key(key), "{place} lacks {key}");
    }
}

fn check_value(place: &str, value: &Value, entry: &Json) {
    let kind = entry["type"].as_str().unwrap();
    let subkeys = list(&entry["subkeys"]);
    let in_range = |text: &str| {
        let range = list(&entry["rangelist"]);
        assert!(range.is_empty() || range.iter().any(|allowed| allowed == text), "{place}: {text}");
    };
    match (kind, value) {
        ("<any>", _) | ("<boolean>", Value::Boolean(_)) | ("<data>", Value::Data(_)) => {}
        ("<string>", Value::String(text)) => in_range(text),
        ("<integer>", Value::Integer(number)) => in_range(&number.to_string()),
        ("<real>", Value::Real(_)) | ("<date>", Value::Date(_)) => {}
        ("<dictionary>", Value::Dictionary(keys)) => {
            if !subkeys.is_empty() {
                check_keys(place, keys, subkeys);
            }
        }
        ("<array>", Value::Array(items)) => {
            for item in items {
                check_item(place, item, subkeys);
            }
        }
        _ => panic!("{place} is not {kind}"),
    }
}

/// The items of `Settings` are alternatives that the key `Item` tells apart.
fn check_item(place: &str, item: &Value, subkeys: &[Json]) {
    let name = item.as_dictionary().and_then(|keys| keys.get("Item")).and_then(Value::as_string);
    match (name, subkeys) {
        (_, []) => {}
        (Some(name), _) => {
            let entry = subkeys.iter().find(|entry| entry["key"] == name);
            check_value(&format!("{place}.{name}"), item, entry.unwrap_or_else(|| panic!("{name}")));
        }
        (None, [entry, ..]) => check_value(place, item, entry),
    }
}

#[test]
fn commands_obey_the_schema() {
    if SCHEMA.is_none() {
        return;
    }
    for command in commands() {
        let mut keys = command.to_dictionary().unwrap();
        keys.remove("RequestType");
        let schema = command_schema(command.request_type());
        check_keys(command.request_type(), &keys, list(&schema["payloadkeys"]));
        assert!(command.encode(UUID).is_ok());
    }
}

#[test]
fn every_check_in_message_of_the_schema_is_dispatched() {
    let mut types: Vec<String> = files("mdm/checkin/")
        .into_iter()
        .map(|(_, file)| {
            let keys = list(&file["payloadkeys"]).iter();
            let entry = keys.into_iter().find(|entry| entry["key"] == "MessageType").unwrap();
            entry["rangelist"][0].as_str().unwrap().to_owned()
        })
        .collect();
    types.push("ReturnToService".to_owned());
    for message_type in types {
        // A message of every key that any of them needs.
        let texts = ["UDID", "Topic", "PushMagic", "Endpoint"].map(|key| (key, Value::from("A")));
        let keys: Dictionary = texts
            .into_iter()
            .chain([
                ("MessageType", Value::from(message_type.clone())),
                ("TokenServiceType", Value::from("com.apple.maid")),
                ("Token", Value::Data(vec![1])),
            ])
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let mut bytes = Vec::new();
        Value::Dictionary(keys).to_writer_xml(&mut bytes).unwrap();
        match decode(&bytes, None) {
            Ok(Inbound::CheckIn(message)) => assert_eq!(message.message.message_type(), message_type),
            other => panic!("{message_type}: {other:?}"),
        }
    }
}

/// Each message of `testdata` has only keys of the schema.
#[test]
fn our_message_files_obey_the_schema() {
    for (path, file) in files("mdm/checkin/") {
        let keys = list(&file["payloadkeys"]);
        let entry = keys.iter().find(|entry| entry["key"] == "MessageType").unwrap();
        let message_type = entry["rangelist"][0].as_str().unwrap();
        let mut seen = 0;
        for name in std::fs::read_dir(common::testdata("")).unwrap() {
            let name = name.unwrap().file_name().into_string().unwrap();
            if !name.ends_with(".plist") {
                continue;
            }
            let message = bellwether_apple::guard::parse(&common::read(&name), &Default::default()).unwrap();
            let message = message.into_dictionary().unwrap();
            if message.get("MessageType").and_then(Value::as_string) != Some(message_type) {
                continue;
            }
            seen += 1;
            for (key, value) in &message {
                // The bootstrap token messages do not list the UDID that every message has.
                let Some(entry) = keys.iter().find(|entry| entry["key"] == key.as_str()) else {
                    assert_eq!(key, "UDID", "{path} {name}");
                    continue;
                };
                check_value(&format!("{name} {key}"), value, entry);
            }
        }
        assert!(seen > 0, "no file for {path}");
    }
}

#[test]
fn enrollment_profiles_obey_the_schema() {
    let Some(schema) = SCHEMA.as_ref() else { return };
    let keys = |name: &str| list(&schema[format!("mdm/profiles/{name}.yaml")]["payloadkeys"]);
    for profile in profiles() {
        let bytes = profile.encode().unwrap();
        let value = bellwether_apple::guard::parse(&bytes, &Default::default()).unwrap();
        let top = value.into_dictionary().unwrap();
        check_keys("TopLevel", &top, keys("TopLevel"));
        for payload in top["PayloadContent"].as_array().unwrap() {
            let payload = payload.as_dictionary().unwrap();
            let name = payload["PayloadType"].as_string().unwrap();
            let schema: Vec<Json> = [keys("CommonPayloadKeys"), keys(name)].concat();
            check_keys(name, payload, &schema);
        }
    }
}

#[test]
fn queries_and_answers_are_those_of_the_schema() {
    if SCHEMA.is_none() {
        return;
    }
    let schema = command_schema("DeviceInformation");
    let entry = list(&schema["responsekeys"]).iter().find(|entry| entry["key"] == "QueryResponses").unwrap();
    let answers = list(&entry["subkeys"]);
    for family in [Family::Iphone, Family::Mac, Family::Watch, Family::Unknown] {
        for query in bellwether_apple::command::default_queries(family) {
            assert!(answers.iter().any(|entry| entry["key"] == query.as_str()), "{query}");
        }
    }
    // An answer with a value of the right type for every key; nearly every one becomes a fact.
    let facts = |request_type: &str, key: &str| {
        let schema = command_schema(request_type);
        let entry = list(&schema["responsekeys"]).iter().find(|entry| entry["key"] == key).unwrap();
        let body: Dictionary = [(key.to_owned(), sample(entry))].into_iter().collect();
        answer::facts(request_type, &body)
    };
    let device = facts("DeviceInformation", "QueryResponses");
    assert_eq!(device.len(), 65);
    assert_eq!(facts("SecurityInfo", "SecurityInfo").len(), 29);
    for (request_type, key, columns) in [
        ("InstalledApplicationList", "InstalledApplicationList", 18),
        ("ProfileList", "ProfileList", 12),
        ("CertificateList", "CertificateList", 3),
        ("UserList", "Users", 10),
        ("AvailableOSUpdates", "AvailableOSUpdates", 12),
        ("OSUpdateStatus", "OSUpdateStatus", 6),
    ] {
        let facts = facts(request_type, key);
        assert_eq!(facts.len(), 1, "{request_type}");
        let row = facts[0].value[0].as_object().unwrap();
        assert_eq!(row.len(), columns, "{request_type}: {row:?}");
    }
    let mut keys: Vec<_> = device.iter().map(|fact| &fact.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), device.len(), "two answers have one key");
}

fn sample(entry: &Json) -> Value {
    let subkeys = list(&entry["subkeys"]);
    match entry["type"].as_str().unwrap() {
        "<string>" => Value::from("x"),
        "<integer>" => Value::Integer(1.into()),
        "<real>" => Value::Real(0.5),
        "<boolean>" => Value::Boolean(true),
        "<data>" => Value::Data(vec![1]),
        "<date>" => Value::Date(std::time::UNIX_EPOCH.into()),
        "<array>" => Value::Array(subkeys.first().map(sample).into_iter().collect()),
        _ => Value::Dictionary(
            subkeys.iter().map(|entry| (entry["key"].as_str().unwrap().to_owned(), sample(entry))).collect(),
        ),
    }
}

#[test]
fn the_support_table_says_what_the_schema_says() {
    let systems = [
        ("iOS", Family::Ipad),
        ("macOS", Family::Mac),
        ("tvOS", Family::AppleTv),
        ("visionOS", Family::Vision),
        ("watchOS", Family::Watch),
    ];
    let all = files("mdm/commands/");
    if all.is_empty() {
        return;
    }
    assert_eq!(all.len(), request_types().count());
    for (path, file) in all {
        let name = file["payload"]["requesttype"].as_str().unwrap();
        for (system, family) in systems {
            let says = &file["payload"]["supportedOS"][system];
            let place = format!("{path} {system}");
            let introduced = says["introduced"].as_str().and_then(Version::parse);
            let is = |key: &str| says[key] == "true";
            let shared = says["sharedipad"]["mode"].as_str();
            let user_only = family == Family::Mac && !is("devicechannel");
            let channel = |channel| Target {
                family,
                os_version: introduced.or(Some(Version::new(18, 0, 0))),
                supervised: Some(true),
                channel,
                ..Target::default()
            };
            let mut best = channel(if user_only { ChannelKind::User } else { ChannelKind::Device });
            if shared == Some("required") {
                best.shared_ipad = Some(true);
            }
            if name == "UserConfigured" || name == "InviteToProgram" && family == Family::Ipad {
                best.channel = if shared.is_some() { ChannelKind::User } else { best.channel };
            }
            let Some(introduced) = introduced else {
                assert!(matches!(check(name, &best), Err(Unsupported::WrongFamily { .. })), "{place}");
                continue;
            };
            assert_eq!(check(name, &best), Ok(()), "{place}");
            let old = Target { os_version: Some(Version::new(introduced.major - 1, 99, 0)), ..best };
            assert!(matches!(check(name, &old), Err(Unsupported::TooOld { .. })), "{place}");
            let alone = Target { supervised: Some(false), ..best };
            assert_eq!(check(name, &alone).is_err(), is("supervised"), "{place} supervised");
            let manual = Target { automated_enrollment: Some(false), ..best };
            assert_eq!(check(name, &manual).is_err(), is("requiresdep"), "{place} automated");
            if let Some(mode) = says["userenrollment"]["mode"].as_str() {
                let byod = Target { user_enrollment: true, ..best };
                // Apple's later erratum: allowed on a Mac.
                let allowed = mode == "allowed" || (name == "RemoveApplication" && family == Family::Mac);
                assert_eq!(check(name, &byod).is_ok(), allowed, "{place} user enrollment");
            }
            if family == Family::Mac {
                let user = check(name, &channel(ChannelKind::User)).is_ok();
                let device = check(name, &channel(ChannelKind::Device)).is_ok();
                assert_eq!((device, user), (is("devicechannel"), is("userchannel")), "{place} channels");
            }
            if let Some(mode) = shared {
                let says = &says["sharedipad"];
                for (key, kind) in
                    [("devicechannel", ChannelKind::Device), ("userchannel", ChannelKind::User)]
                {
                    let target = Target { shared_ipad: Some(true), ..channel(kind) };
                    let allowed = mode != "forbidden" && says[key] == "true";
                    assert_eq!(check(name, &target).is_ok(), allowed, "{place} Shared iPad {key}");
                }
            }
            let powerless = Target { access_rights: Some(0), ..best };
            let none = ["None", "Special Case"].map(Json::from);
            let needs = !says["accessrights"].is_null() && !none.contains(&says["accessrights"]);
            assert_eq!(check(name, &powerless).is_err(), needs, "{place} rights");
        }
    }
}

#[test]
fn error_documents_have_the_codes_of_the_schema() {
    use bellwether_apple::reply::ErrorDocument;
    let documents = [
        ErrorDocument::UnrecognizedDevice,
        ErrorDocument::WellKnownFailed,
        ErrorDocument::WatchPairingTokenMissing { security_token: "S".to_owned() },
        ErrorDocument::SoftwareUpdateRequired {
            os_version: "17.2".to_owned(),
            build_version: None,
            beta_program: None,
        },
    ];
    for (path, file) in files("mdm/errors/") {
        let keys = list(&file["payloadkeys"]);
        let code = &keys.iter().find(|entry| entry["key"] == "code").unwrap()["rangelist"][0];
        let document = documents.iter().find(|document| code == document.code());
        let bytes = document.unwrap_or_else(|| panic!("{path}")).to_plist(Some("Hello")).unwrap();
        let value = bellwether_apple::guard::parse(&bytes, &Default::default()).unwrap();
        check_keys(path, value.as_dictionary().unwrap(), keys);
    }
    assert_eq!(Error::Empty.http_status(), 400);
    assert_eq!(Error::TooLarge { limit: 1 }.http_status(), 413);
}
