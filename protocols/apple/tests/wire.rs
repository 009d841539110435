//! Messages as devices send them, from files and from the simulator's end.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use bellwether_apple::checkin::{
    Authenticate, CheckIn, CheckOut, DeclarativeManagement, DeviceKey, Endpoint, ErrorItem,
    GetBootstrapToken, GetToken, Inbound, Message, REPORT_CONTENT_TYPE, Report, SetBootstrapToken, Status,
    TokenUpdate, UserAuthenticate, decode,
};
use bellwether_apple::{Channel, ChannelIds, Error, Family, Opaque, answer, command, device};
use common::{UUID, commands, expected, read};
use plist::{Dictionary, Value};
use proptest::prelude::*;

fn check_in(name: &str) -> CheckIn {
    match decode(&read(name), None) {
        Ok(Inbound::CheckIn(message)) => message,
        other => panic!("{name}: {other:?}"),
    }
}

fn report(name: &str) -> Report {
    match decode(&read(name), None) {
        Ok(Inbound::Report(report)) => report,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn authenticate() {
    let Message::Authenticate(message) = check_in("authenticate-iphone.plist").message else { panic!() };
    assert_eq!(message.os_version.as_deref(), Some("18.1.1"));
    assert_eq!(message.serial_number.as_deref(), Some("F2LXJ0ABCD"));
    assert_eq!(Family::from_authenticate(&message), Family::Iphone);
    let mac = check_in("authenticate-mac.plist");
    let Message::Authenticate(message) = mac.message else { panic!() };
    assert_eq!(message.device_name.as_deref(), Some("Ann’s MacBook Air"));
    assert_eq!(Family::from_authenticate(&message), Family::Mac);
    assert!(answer::authenticate_facts(&message).iter().any(|fact| fact.key == "os.version"));
    let byod = check_in("authenticate-byod.plist");
    assert_eq!(byod.ids.device, DeviceKey::EnrollmentId("ENROLLMENT-5E0B3C".to_owned()));
    assert!(byod.problems.is_empty());
}

#[test]
fn token_update() {
    for name in ["tokenupdate-device.plist", "tokenupdate-device.bplist"] {
        let Message::TokenUpdate(message) = check_in(name).message else { panic!() };
        assert_eq!(message.token, (0..32).collect::<Vec<u8>>());
        assert_eq!(message.push_magic.expose_str(), Some("7E1A-<&>-\"magic\""));
        assert_eq!(message.unlock_token, Some(Opaque::from("unlock-token-bytes")));
        assert_eq!(message.awaiting_configuration, Some(true));
        assert!(!format!("{message:?}").contains("magic\""));
    }
    let user = check_in("tokenupdate-user.plist");
    assert_eq!(user.ids.user_key(), Some("6B1F2E3D-1111-4222-8333-444455556666"));
    let Message::TokenUpdate(message) = user.message else { panic!() };
    assert_eq!(message.token, b"fakeToken");
    assert_eq!((message.not_on_console, message.unlock_token), (Some(false), None));
    let shared = check_in("tokenupdate-shared-ipad.plist");
    assert_eq!(shared.ids.channel, Channel::SharedIpad { short_name: "ann@school.example".to_owned() });
    let byod = check_in("tokenupdate-byod-user.plist");
    assert_eq!(byod.ids.user_key(), Some("EU-1"));
}

#[test]
fn the_other_messages() {
    let topic = Some("com.apple.mgmt.External.3a1b2c3d-0000-4000-8000-000000000001".to_owned());
    assert_eq!(check_in("checkout.plist").message, Message::CheckOut(CheckOut { topic }));
    let Message::UserAuthenticate(first) = check_in("userauthenticate-first.plist").message else { panic!() };
    assert_eq!(first.digest_response, None);
    let Message::UserAuthenticate(second) = check_in("userauthenticate-second.plist").message else {
        panic!()
    };
    assert!(second.digest_response.is_some());
    let Message::SetBootstrapToken(set) = check_in("setbootstraptoken.plist").message else { panic!() };
    assert_eq!(set.token, Some(Opaque::from("bootstrap")));
    let Message::SetBootstrapToken(set) = check_in("setbootstraptoken-empty.plist").message else { panic!() };
    assert_eq!(set.token, None);
    assert!(matches!(check_in("getbootstraptoken.plist").message, Message::GetBootstrapToken(_)));
    let Message::DeclarativeManagement(status) = check_in("declarativemanagement-status.plist").message
    else {
        panic!()
    };
    assert_eq!(status.endpoint(), Some(Endpoint::Status));
    assert!(status.data.unwrap().starts_with(b"{"));
    let Message::DeclarativeManagement(one) = check_in("declarativemanagement-declaration.plist").message
    else {
        panic!()
    };
    let identifier = "com.example/passcode".to_owned();
    assert_eq!(one.endpoint(), Some(Endpoint::Declaration { kind: "configuration".to_owned(), identifier }));
    let Message::GetToken(watch) = check_in("gettoken-watch.plist").message else { panic!() };
    assert_eq!(watch.parameters.unwrap()["SecurityToken"].as_string(), Some("S-1"));
    assert_eq!(check_in("returntoservice.plist").message, Message::ReturnToService);
}

#[test]
fn reports() {
    let idle = report("report-idle.plist");
    assert_eq!((idle.status, idle.command_uuid, idle.body.len()), (Status::Idle, None, 0));
    assert!(idle.problems.is_empty());
    let user = report("report-idle-user.plist");
    assert_eq!((user.not_on_console, user.user_short_name.as_deref()), (Some(false), Some("ann")));
    let error = report("report-error.plist");
    assert_eq!(error.error_chain.len(), 2);
    assert_eq!(error.error_chain[0].code, 12021);
    assert_eq!(error.error_chain[0].us_english.as_deref(), Some("“InstallProfile” is not a valid request."));
    assert_eq!(error.error_chain[1].code, -1);
    assert_eq!(report("report-notnow.plist").status, Status::NotNow);
    assert_eq!(report("report-formaterror.plist").status, Status::CommandFormatError);
}

fn fact(facts: &[answer::Fact], key: &str) -> serde_json::Value {
    facts.iter().find(|fact| fact.key == key).unwrap_or_else(|| panic!("{key}")).value.clone()
}

#[test]
fn answers_become_facts() {
    let facts = answer::facts("DeviceInformation", &report("report-deviceinformation.plist").body);
    assert_eq!(fact(&facts, "os.version"), "18.1.1");
    assert_eq!(fact(&facts, "device.name"), "Ann’s iPhone");
    assert_eq!(fact(&facts, "battery.level"), 0.87);
    assert_eq!(fact(&facts, "supervised"), true);
    assert_eq!(fact(&facts, "cloud-backup.last"), "2026-11-20T03:04:05Z");
    assert_eq!(fact(&facts, "cellular.subscriptions")[0]["phone-number"], "+491701234567");
    let body = report("report-securityinfo.plist").body;
    let facts = answer::facts("SecurityInfo", &body);
    assert_eq!(fact(&facts, "security.filevault.enabled"), true);
    assert_eq!(fact(&facts, "security.firewall.stealth-mode"), true);
    assert_eq!(fact(&facts, "enrollment.user-approved"), true);
    assert_eq!(fact(&facts, "security.secure-boot.level"), "full");
    assert!(!format!("{facts:?}").contains("cms"));
    let secrets = answer::secrets("SecurityInfo", &body);
    assert_eq!(secrets.len(), 2);
    assert_eq!(secrets[0].value, Opaque::from("cms-bytes"));
    for name in ["report-installedapplicationlist.plist", "report-installedapplicationlist.bplist"] {
        let facts = answer::facts("InstalledApplicationList", &report(name).body);
        assert_eq!(fact(&facts, "apps")[0]["identifier"], "com.apple.Safari");
        assert_eq!(fact(&facts, "apps")[1]["app-store"], true);
    }
    let facts = answer::facts("ProfileList", &report("report-profilelist.plist").body);
    assert_eq!(fact(&facts, "profiles")[0]["payloads"][0]["type"], "com.apple.wifi.managed");
    let facts = answer::facts("CertificateList", &report("report-certificatelist.plist").body);
    assert_eq!(fact(&facts, "certificates")[0]["der"], "ZGVyLWJ5dGVz");
}

/// Absent, malformed and absurd values leave no fact and no error.
#[test]
fn bad_answers_leave_no_facts() {
    let bad = [
        Value::Boolean(true),
        Value::Integer(7.into()),
        Value::Real(f64::NAN),
        Value::Real(-1.0),
        Value::String("a\0b".to_owned()),
        Value::String("x".repeat(100_000)),
        Value::Data(vec![0; 100_000]),
        Value::Array(vec![Value::Integer(1.into())]),
        Value::Dictionary(Dictionary::new()),
    ];
    for outer in ["QueryResponses", "SecurityInfo", "InstalledApplicationList", "ProfileList", "Users"] {
        for request_type in [
            "DeviceInformation",
            "SecurityInfo",
            "InstalledApplicationList",
            "ProfileList",
            "UserList",
            "DeviceLocation",
        ] {
            for value in &bad {
                let body: Dictionary = [(outer.to_owned(), value.clone())].into_iter().collect();
                for fact in answer::facts(request_type, &body) {
                    assert_eq!(fact.value, serde_json::json!([]), "{}", fact.key);
                }
                let _ = answer::secrets(request_type, &body);
            }
        }
    }
    for key in ["DeviceName", "OSVersion", "SerialNumber"] {
        for value in &bad {
            let answers: Dictionary = [
                (key.to_owned(), value.clone()),
                ("BatteryLevel".to_owned(), Value::Real(-1.0)),
                ("IsSupervised".to_owned(), Value::Boolean(true)),
            ]
            .into_iter()
            .collect();
            let body = [("QueryResponses".to_owned(), Value::Dictionary(answers))].into_iter().collect();
            let facts = answer::facts("DeviceInformation", &body);
            assert_eq!(facts.len(), 1, "{facts:?}");
            assert_eq!(facts[0].key, "supervised");
        }
    }
}

/// AT-70: whatever is wrong with an optional field, the message stays readable.
#[test]
fn one_bad_field_never_makes_a_message_undecodable() {
    let bad = || {
        [
            Value::Boolean(true),
            Value::Integer(u64::MAX.into()),
            Value::Real(0.5),
            Value::String(String::new()),
            Value::String("x".repeat(70_000)),
            Value::String("a\0b".to_owned()),
            Value::Data(vec![]),
            Value::Data(vec![0; 70_000]),
            Value::Array(vec![Value::Boolean(true); 100]),
            Value::Dictionary(Dictionary::new()),
        ]
    };
    let essential = |message: &str, key: &str| {
        matches!(key, "MessageType" | "Status" | "UDID" | "EnrollmentID" | "UserID" | "EnrollmentUserID")
            || matches!(
                (message, key),
                ("Authenticate" | "TokenUpdate", "Topic")
                    | ("TokenUpdate", "Token" | "PushMagic")
                    | ("SetBootstrapToken", "BootstrapToken")
                    | ("UserAuthenticate", "DigestResponse")
                    | ("DeclarativeManagement", "Endpoint" | "Data")
                    | ("GetToken", "TokenServiceType" | "TokenParameters")
            )
    };
    let mut tried = 0;
    for name in std::fs::read_dir(common::testdata("")).unwrap() {
        let name = name.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".plist") || name.starts_with("expected-") {
            continue;
        }
        let parsed = bellwether_apple::guard::parse(&read(&name), &Default::default()).unwrap();
        let original = parsed.into_dictionary().unwrap();
        let kind = original.get("MessageType").and_then(Value::as_string).unwrap_or_default().to_owned();
        let shared = name.contains("shared-ipad");
        let optional = [
            "ErrorChain",
            "RequestType",
            "NotOnConsole",
            "AwaitingConfiguration",
            "UnlockToken",
            "OSVersion",
            "Surprise",
        ];
        let keys: Vec<String> =
            original.keys().cloned().chain(optional.into_iter().map(str::to_owned)).collect();
        for key in keys {
            for value in bad() {
                if essential(&kind, &key) || (shared && key == "UserShortName") {
                    continue;
                }
                let mut changed = original.clone();
                changed.insert(key.clone(), value);
                let mut bytes = Vec::new();
                // Binary, because XML cannot carry all of these values.
                Value::Dictionary(changed).to_writer_binary(&mut bytes).unwrap();
                let message = decode(&bytes, None).unwrap_or_else(|error| panic!("{name} {key}: {error}"));
                assert!(message.problems().len() <= 33);
                if let Inbound::Report(report) = message {
                    let _ = answer::facts("DeviceInformation", &report.body);
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// A database refuses NUL; a console can be fooled by other control characters.
#[test]
fn control_characters_and_endless_texts_do_not_come_in() {
    let name = "authenticate-mac.plist";
    let parsed = bellwether_apple::guard::parse(&read(name), &Default::default()).unwrap();
    let mut keys = parsed.into_dictionary().unwrap();
    keys.insert("DeviceName".to_owned(), Value::from("a\0b"));
    keys.insert("ModelName".to_owned(), Value::from("a\u{1b}[2J"));
    keys.insert("SerialNumber".to_owned(), Value::from("a".repeat(1025)));
    let mut bytes = Vec::new();
    Value::Dictionary(keys).to_writer_binary(&mut bytes).unwrap();
    let Ok(Inbound::CheckIn(message)) = decode(&bytes, None) else { panic!() };
    assert_eq!(message.problems.len(), 3);
    let Message::Authenticate(message) = message.message else { panic!() };
    assert_eq!((message.device_name, message.model_name, message.serial_number), (None, None, None));
    assert_eq!(message.product_name.as_deref(), Some("Mac14,2"));
}

#[test]
fn what_is_essential_is_required() {
    let cases = [
        ("tokenupdate-device.plist", "Token"),
        ("tokenupdate-device.plist", "PushMagic"),
        ("tokenupdate-device.plist", "Topic"),
        ("tokenupdate-device.plist", "UDID"),
        ("authenticate-mac.plist", "Topic"),
        ("gettoken-maid.plist", "TokenServiceType"),
        ("declarativemanagement-status.plist", "Endpoint"),
        ("tokenupdate-shared-ipad.plist", "UserShortName"),
        ("report-idle.plist", "Status"),
    ];
    for (name, key) in cases {
        let parsed = bellwether_apple::guard::parse(&read(name), &Default::default()).unwrap();
        let mut keys = parsed.into_dictionary().unwrap();
        keys.remove(key);
        let mut bytes = Vec::new();
        Value::Dictionary(keys).to_writer_xml(&mut bytes).unwrap();
        let error = decode(&bytes, None).unwrap_err();
        assert_eq!(error.http_status(), 400, "{name} {key} {error}");
    }
    let wrong = |pairs: &[(&str, Value)]| {
        let keys: Dictionary = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let mut bytes = Vec::new();
        Value::Dictionary(keys).to_writer_xml(&mut bytes).unwrap();
        decode(&bytes, None).unwrap_err()
    };
    let (udid, text) = (("UDID", Value::from("A")), Value::from("x"));
    assert_eq!(wrong(&[udid.clone(), ("MessageType", text.clone())]), Error::UnknownMessageType);
    assert_eq!(wrong(&[udid.clone(), ("Status", text.clone())]), Error::UnknownStatus);
    assert_eq!(wrong(std::slice::from_ref(&udid)), Error::NotAMessage);
    // Taken for an absent token it would erase the stored one.
    let message = ("MessageType", Value::from("SetBootstrapToken"));
    let error = wrong(&[udid, message, ("BootstrapToken", text)]);
    assert_eq!(error, Error::BadField { message: "SetBootstrapToken", field: "BootstrapToken" });
}

#[test]
fn the_content_type_is_only_a_hint() {
    let idle = read("report-idle.plist");
    for hint in [None, Some("application/x-apple-aspen-mdm-checkin"), Some("text/html"), Some("")] {
        assert!(matches!(decode(&idle, hint), Ok(Inbound::Report(_))));
    }
    let both: Dictionary = [("UDID", "A"), ("Status", "Idle"), ("MessageType", "GetBootstrapToken")]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect();
    let mut bytes = Vec::new();
    Value::Dictionary(both).to_writer_xml(&mut bytes).unwrap();
    assert!(matches!(decode(&bytes, None), Ok(Inbound::CheckIn(_))));
    let hint = format!("{REPORT_CONTENT_TYPE}; charset=utf-8");
    assert!(matches!(decode(&bytes, Some(&hint)), Ok(Inbound::Report(_))));
}

#[test]
fn commands_travel() {
    for sent in commands() {
        let bytes = sent.encode(UUID).unwrap();
        assert_eq!(bytes, sent.encode(UUID).unwrap());
        let seen = command::decode_command(&bytes).unwrap();
        assert_eq!(seen.command_uuid, UUID);
        assert_eq!(seen.request_type, sent.request_type());
        assert_eq!(seen.command, sent.to_dictionary().unwrap());
        let raw = command::RawCommand::from_plist(&bytes).unwrap();
        assert_eq!(command::Command::Raw(raw).encode(UUID).unwrap(), bytes);
    }
}

#[test]
fn frozen_commands() {
    let all = commands();
    for (name, index) in [("devicelock", 1), ("erasedevice", 3)] {
        expected(&format!("expected-{name}.plist"), &all[index].encode(UUID).unwrap());
    }
    for (name, request_type) in [("settings", "Settings"), ("accountconfiguration", "AccountConfiguration")] {
        let command = all.iter().find(|command| command.request_type() == request_type).unwrap();
        expected(&format!("expected-{name}.plist"), &command.encode(UUID).unwrap());
    }
}

#[test]
fn commands_that_cannot_be_sent() {
    use command::{AccountConfiguration, AppSource, Command, DeviceLock, InstallApplication, Setting};
    let pin =
        |pin: &str| Command::DeviceLock(DeviceLock { pin: Some(Opaque::from(pin)), ..Default::default() });
    let refused = [
        pin("12345"),
        pin("1234567"),
        pin("12345a"),
        pin("１２"),
        Command::ClearPasscode { unlock_token: Opaque::default() },
        Command::InstallProfile { payload: Opaque::default() },
        Command::RemoveProfile { identifier: " ".to_owned() },
        Command::EnableLostMode { message: None, phone_number: None, footnote: None },
        Command::Settings { items: vec![] },
        Command::Settings { items: vec![Setting::DeviceName(String::new())] },
        Command::Settings { items: vec![Setting::DeviceName("a\0".to_owned())] },
        Command::DeviceInformation { queries: vec![], attestation_nonce: None },
        Command::InstallEnterpriseApplication(Default::default()),
        Command::InstallApplication(InstallApplication::new(AppSource::ManifestUrl("http://a".to_owned()))),
        Command::AccountConfiguration(AccountConfiguration {
            skip_primary_setup_account_creation: true,
            ..Default::default()
        }),
        Command::DeleteUser { user_name: None, force: false, all_users: false },
        Command::SetRecoveryLock { current: None, new: Opaque::from(vec![0xff]) },
    ];
    for command in refused {
        assert!(command.encode(UUID).is_err(), "{command:?}");
    }
    for uuid in ["", "a b", "ü", &"x".repeat(129)] {
        assert!(Command::SecurityInfo.encode(uuid).is_err());
    }
    for text in [
        "<plist><dict/></plist>",
        "<plist><array/></plist>",
        "<plist><dict><key>RequestType</key><string>a b</string></dict></plist>",
        "<plist><dict><key>Command</key><string>x</string></dict></plist>",
    ] {
        assert!(command::RawCommand::from_plist(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(command::decode_command(b""), Err(Error::Empty));
    let lock = &commands()[1];
    assert_eq!(format!("{lock:?}"), "Command(DeviceLock)");
}

#[test]
fn reports_travel() {
    let ids = ChannelIds::udid("A").unwrap();
    let item = ErrorItem { code: 12, domain: "D".to_owned(), localized: "L".to_owned(), us_english: None };
    let read = |bytes: Vec<u8>| match decode(&bytes, Some(REPORT_CONTENT_TYPE)) {
        Ok(Inbound::Report(report)) => report,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(device::idle(&ids).unwrap()).status, Status::Idle);
    assert_eq!(read(device::not_now(&ids, "u").unwrap()).command_uuid.as_deref(), Some("u"));
    let error = read(device::error(&ids, "u", std::slice::from_ref(&item)).unwrap());
    assert_eq!((error.status, error.error_chain), (Status::Error, vec![item]));
    let format = read(device::command_format_error(&ids, "u", &[]).unwrap());
    assert_eq!(format.status, Status::CommandFormatError);
    let response: Dictionary =
        [("QueryResponses".to_owned(), Value::Dictionary(Dictionary::new()))].into_iter().collect();
    let done = read(device::acknowledged(&ids, "u", response.clone()).unwrap());
    assert_eq!((done.status, done.body), (Status::Acknowledged, response));
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9ü<&>\"'-]{1,20}"
}

fn maybe_word() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(word())
}

fn secret() -> impl Strategy<Value = Opaque> {
    proptest::collection::vec(any::<u8>(), 1..80).prop_map(Opaque::from)
}

fn ids() -> impl Strategy<Value = ChannelIds> {
    (word(), 0_u8..5, word()).prop_map(|(device, kind, user)| {
        let udid = ChannelIds::udid(&device).unwrap();
        let byod = ChannelIds::enrollment_id(&device).unwrap();
        match kind {
            0 => udid,
            1 => udid.with_user(&user).unwrap(),
            2 => udid.with_shared_ipad_user(&user).unwrap(),
            3 => byod,
            _ => byod.with_user(&user).unwrap(),
        }
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let authenticate = (word(), proptest::array::uniform9(maybe_word())).prop_map(|(topic, names)| {
        let [
            os_version,
            build_version,
            product_name,
            serial_number,
            model,
            model_name,
            device_name,
            imei,
            meid,
        ] = names;
        Message::Authenticate(Authenticate {
            topic,
            os_version,
            build_version,
            product_name,
            serial_number,
            model,
            model_name,
            device_name,
            imei,
            meid,
        })
    });
    let flag = || proptest::option::of(any::<bool>());
    let token_update =
        (word(), secret(), word(), proptest::option::of(secret()), flag(), flag(), maybe_word()).prop_map(
            |(topic, token, magic, unlock_token, awaiting_configuration, not_on_console, user_long_name)| {
                Message::TokenUpdate(TokenUpdate {
                    topic,
                    token: token.into_exposed(),
                    push_magic: Opaque::from(magic),
                    unlock_token,
                    awaiting_configuration,
                    not_on_console,
                    user_short_name: None,
                    user_long_name,
                })
            },
        );
    prop_oneof![
        authenticate,
        token_update,
        maybe_word().prop_map(|topic| Message::CheckOut(CheckOut { topic })),
        maybe_word().prop_map(|digest| Message::UserAuthenticate(UserAuthenticate {
            digest_response: digest.map(Opaque::from)
        })),
        (proptest::option::of(secret()), flag()).prop_map(|(token, awaiting_configuration)| {
            Message::SetBootstrapToken(SetBootstrapToken { token, awaiting_configuration })
        }),
        flag().prop_map(|awaiting_configuration| {
            Message::GetBootstrapToken(GetBootstrapToken { awaiting_configuration })
        }),
        (word(), proptest::option::of(secret())).prop_map(|(endpoint, data)| {
            Message::DeclarativeManagement(DeclarativeManagement {
                endpoint,
                data: data.map(Opaque::into_exposed),
            })
        }),
        word().prop_map(|service_type| Message::GetToken(GetToken { service_type, parameters: None })),
        Just(Message::ReturnToService),
    ]
}

proptest! {
    #[test]
    fn check_ins_travel(ids in ids(), message in messages()) {
        let bytes = device::check_in(&ids, &message).unwrap();
        let Ok(Inbound::CheckIn(mut seen)) = decode(&bytes, None) else { panic!() };
        prop_assert_eq!(&seen.ids, &ids);
        prop_assert_eq!(&seen.problems, &Vec::<String>::new());
        if let (Message::TokenUpdate(update), Channel::SharedIpad { short_name }) = (&mut seen.message, &ids.channel) {
            let seen_name = update.user_short_name.take();
            prop_assert_eq!(seen_name.as_ref(), Some(short_name));
        }
        prop_assert_eq!(seen.message, message);
    }

    #[test]
    fn decoding_random_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, None);
        let _ = command::decode_command(&bytes);
        let _ = bellwether_apple::profile::inspect(&bytes);
        let _ = bellwether_apple::profile::decode_enrollment_profile(&bytes);
    }
}
