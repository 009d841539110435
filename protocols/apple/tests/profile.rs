//! The enrollment profile there and back, and what uploads are refused.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use bellwether_apple::profile::{
    AccessRights, EnrollmentProfile, MdmSettings, PayloadUuids, Scope, decode_enrollment_profile, inspect,
    refuse_reserved, refuse_upload,
};
use bellwether_apple::{Error, Opaque};
use common::{expected, profiles};
use plist::{Dictionary, Value};
use uuid::Uuid;

#[test]
fn the_device_reads_what_the_server_wrote() {
    for profile in profiles() {
        let bytes = profile.encode().unwrap();
        assert_eq!(bytes, profile.encode().unwrap());
        let seen = decode_enrollment_profile(&bytes).unwrap();
        assert_eq!(seen.scep, profile.scep);
        assert_eq!(seen.mdm, profile.mdm);
        assert_eq!(seen.roots, profile.roots);
        assert_eq!(seen.server_capabilities.len(), 3);
        assert_eq!(seen.summary.identifier, profile.identifier_base);
        assert_eq!(seen.summary.scope, profile.scope);
        assert_eq!(seen.subject.last().unwrap(), &("CN".to_owned(), profile.scep.common_name.clone()));
        assert!(!format!("{seen:?}").contains("challenge>"));
    }
}

#[test]
fn frozen_profiles() {
    for (name, profile) in ["full", "byod", "few-rights"].into_iter().zip(profiles()) {
        expected(&format!("expected-profile-{name}.plist"), &profile.encode().unwrap());
    }
}

#[test]
fn uuids_follow_the_identifier_not_the_content() {
    let namespace = Uuid::from_u128(7);
    let one = PayloadUuids::derive(namespace, "org.example");
    assert_eq!(one, PayloadUuids::derive(namespace, "org.example"));
    let all = [one.profile, one.scep, one.mdm, one.root(1), one.root(2)];
    for (place, uuid) in all.iter().enumerate() {
        assert_eq!(uuid.get_version_num(), 5);
        assert!(!all[..place].contains(uuid));
    }
    assert_ne!(one.profile, PayloadUuids::derive(Uuid::from_u128(8), "org.example").profile);
    let mut changed = profiles().remove(0);
    let before = inspect(&changed.encode().unwrap()).unwrap();
    changed.scep.challenge = Opaque::from("another");
    "Other".clone_into(&mut changed.organization);
    let after = inspect(&changed.encode().unwrap()).unwrap();
    assert_eq!(before.uuid, after.uuid);
    assert!(before.payloads.iter().zip(&after.payloads).all(|(a, b)| a.uuid == b.uuid));
}

type Spoil = fn(&mut EnrollmentProfile);

#[test]
fn profiles_that_could_not_work_are_refused() {
    let good = profiles().remove(0);
    let refused: [(&str, Spoil); 14] = [
        ("http server", |p| p.mdm.server_url = "http://a".to_owned()),
        ("http check-in", |p| p.mdm.check_in_url = Some("ftp://a".to_owned())),
        ("no topic", |p| p.mdm.topic = " ".to_owned()),
        ("no challenge", |p| p.scep.challenge = Opaque::default()),
        ("small key", |p| p.scep.key_size = 1024),
        ("long name", |p| p.scep.common_name = "x".repeat(47)),
        ("no name", |p| p.scep.common_name = String::new()),
        ("no rights", |p| p.mdm.access_rights = Some(AccessRights(0))),
        ("change without inspect", |p| p.mdm.access_rights = Some(AccessRights(2))),
        ("too many rights", |p| p.mdm.access_rights = Some(AccessRights(8192))),
        ("rights and BYOD", |p| p.mdm.enrollment_mode = Some("BYOD".to_owned())),
        ("no account", |p| {
            p.mdm.enrollment_mode = Some("BYOD".to_owned());
            p.mdm.access_rights = None;
        }),
        ("identifier", |p| p.identifier_base = "a b".to_owned()),
        ("control character", |p| p.organization = "a\u{1}".to_owned()),
    ];
    assert!(good.encode().is_ok());
    for (what, spoil) in refused {
        let mut profile = good.clone();
        spoil(&mut profile);
        assert!(profile.encode().is_err(), "{what}");
    }
}

fn profile(payload_types: &[&str], extra: &[(&str, Value)]) -> Vec<u8> {
    let payloads = payload_types.iter().map(|name| {
        let keys: Dictionary = [("PayloadType".to_owned(), Value::from(*name))].into_iter().collect();
        Value::Dictionary(keys)
    });
    let mut keys: Dictionary = [
        ("PayloadType", Value::from("Configuration")),
        ("PayloadIdentifier", Value::from("org.example.wifi")),
        ("PayloadUUID", Value::from("8D0A")),
        ("PayloadContent", Value::Array(payloads.collect())),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    for (key, value) in extra {
        keys.insert((*key).to_owned(), value.clone());
    }
    let mut bytes = Vec::new();
    Value::Dictionary(keys).to_writer_binary(&mut bytes).unwrap();
    bytes
}

#[test]
fn uploads() {
    let wifi = inspect(&profile(
        &["com.apple.wifi.managed"],
        &[
            ("PayloadScope", Value::from("System")),
            ("PayloadRemovalDisallowed", Value::Boolean(true)),
            ("PayloadDisplayName", Value::from("Wi-Fi")),
        ],
    ))
    .unwrap();
    assert_eq!((wifi.scope, wifi.removal_disallowed), (Some(Scope::System), true));
    assert_eq!(wifi.display_name.as_deref(), Some("Wi-Fi"));
    assert_eq!(wifi.payloads[0].payload_type, "com.apple.wifi.managed");
    refuse_upload(&wifi).unwrap();
    for payload_type in ["com.apple.mdm", "COM.APPLE.MDM", " com.apple.mdm "] {
        let summary = inspect(&profile(&["com.apple.wifi.managed", payload_type], &[])).unwrap();
        assert!(matches!(refuse_upload(&summary), Err(Error::EnrollmentPayload { .. })), "{payload_type}");
    }
    let service: Dictionary = [("URL".to_owned(), Value::from("https://evil"))].into_iter().collect();
    let ota = inspect(&profile(
        &[],
        &[("PayloadType", Value::from("Profile Service")), ("PayloadContent", Value::Dictionary(service))],
    ))
    .unwrap();
    assert!(matches!(refuse_upload(&ota), Err(Error::EnrollmentPayload { .. })));
    for ours in profiles() {
        let summary = inspect(&ours.encode().unwrap()).unwrap();
        assert!(refuse_upload(&summary).is_err());
        assert_eq!(refuse_reserved(&summary, &["org.bellwether"]), Err(Error::ReservedIdentifier));
    }
    refuse_reserved(&wifi, &["org.bellwether", "org.example.wif"]).unwrap();
    assert!(refuse_reserved(&wifi, &["org.example.wifi"]).is_err());
}

#[test]
fn malformed_uploads() {
    let without = |key: &str, value: Value| inspect(&profile(&[], &[(key, value)]));
    assert!(inspect(&profile(&[], &[])).is_ok());
    assert!(without("PayloadIdentifier", Value::from("")).is_err());
    assert!(without("PayloadIdentifier", Value::from("a\0")).is_err());
    assert!(without("PayloadUUID", Value::Boolean(true)).is_err());
    assert!(without("PayloadScope", Value::from("Everyone")).is_err());
    assert!(without("PayloadContent", Value::from("x")).is_err());
    assert!(without("PayloadContent", Value::Array(vec![Value::from("x")])).is_err());
    assert!(without("PayloadContent", Value::Dictionary(Dictionary::new())).is_err());
    assert!(inspect(b"<plist><array/></plist>").is_err());
    let encrypted = without("EncryptedPayloadContent", Value::Data(vec![1])).unwrap();
    assert!(encrypted.encrypted);
    refuse_upload(&encrypted).unwrap();
}

#[test]
fn the_usual_settings_are_the_safe_ones() {
    let mdm = MdmSettings::new("https://a", "t");
    assert!(mdm.sign_message && mdm.check_out_when_removed && !mdm.use_development_apns);
    assert_eq!(mdm.access_rights, Some(AccessRights::ALL));
    let bytes = profiles().remove(0).encode().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for key in ["KeyIsExtractable", "AllowAllAppsAccess"] {
        assert!(text.replace(['\n', '\t'], "").contains(&format!("<key>{key}</key><false/>")), "{key}");
    }
}
