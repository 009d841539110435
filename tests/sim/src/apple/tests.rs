//! Two parties: a device, and a server of a few lines.

mod server;

use bellwether_apple::checkin::{Inbound, Message};
use bellwether_apple::command::{Command, DeviceLock, EraseDevice, Setting};
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::{Digest, random_bytes};
use bellwether_certs::{KeyPair, cms};
use bellwether_scep::MessageType;
use plist::{Dictionary, Value};
use server::Server;

use super::*;
use crate::{Error, Fleet, FleetOptions, Status, clock};

async fn enrolled(family: Family) -> (Server, AppleDevice) {
    let server = Server::start();
    let mut device = AppleDevice::builder(family, server.http()).supervised(true).build().unwrap();
    device.enroll(&server.link()).await.unwrap();
    (server, device)
}

fn list() -> Command {
    Command::ProfileList { managed_only: false }
}

fn statuses(told: &[Told]) -> Vec<(&str, Option<Status>)> {
    told.iter().map(|told| (told.command_uuid.as_str(), told.reported)).collect()
}

const SMALL_PROFILE: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>
<plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.wifi</string>
<key>PayloadUUID</key><string>7E8F34D2-5A6B-4C0B-9C25-6C7F0F2F9A11</string>
<key>PayloadContent</key><array/></dict></plist>"#;

#[tokio::test]
async fn the_road_of_every_family() {
    for family in [Family::Iphone, Family::Ipad, Family::Mac] {
        let (server, mut device) = enrolled(family).await;
        assert!(device.is_enrolled());
        assert_eq!(server.check_ins(), ["Authenticate", "TokenUpdate"]);
        assert!(device.poll().await.unwrap().is_empty());
        let state = server.state();
        let (Inbound::CheckIn(first), cert_der) = &state.seen[0] else { panic!("no check-in") };
        assert_eq!(cert_der, &device.identity().unwrap().cert_der);
        let Message::Authenticate(message) = &first.message else { panic!("no Authenticate") };
        assert_eq!(Family::from_authenticate(message), family);
        assert_eq!(message.topic, server::TOPIC);
        // Only a Mac says its name before the first inventory.
        assert_eq!(message.device_name.is_some(), family == Family::Mac);
        let Inbound::CheckIn(second) = &state.seen[1].0 else { panic!("no check-in") };
        let Message::TokenUpdate(message) = &second.message else { panic!("no TokenUpdate") };
        assert_eq!(message.unlock_token.is_some(), family != Family::Mac);
        assert!(first.problems.is_empty() && second.problems.is_empty());
    }
}

#[tokio::test]
async fn signatures_verify_in_every_shape_and_with_every_key() {
    let server = Server::start();
    let mut device = AppleDevice::builder(Family::Mac, server.http()).build().unwrap();
    let keys = [KeyPair::generate_rsa2048().unwrap(), KeyPair::generate_p256().unwrap()];
    for key in keys {
        let cert_der = csr::self_signed(&key, "x", random_bytes().unwrap(), clock::now_ms()).unwrap();
        device.set_identity(Identity { key, cert_der: cert_der.clone() }).unwrap();
        for digest in [Digest::Sha1, Digest::Sha256] {
            for (signed_attributes, ber_indefinite) in
                [(false, true), (true, true), (false, false), (true, false)]
            {
                device.set_shape(Shape { digest, signed_attributes, ber_indefinite });
                let header = device.signature(b"body").unwrap();
                let signature = cms::decode_mdm_signature_header(&header).unwrap();
                assert_eq!(signature[1] == 0x80, ber_indefinite);
                assert_eq!(cms::verify_detached(&signature, b"body").unwrap().cert_der, cert_der);
                assert!(cms::verify_detached(&signature, b"bodY").is_err());
            }
        }
    }
}

#[tokio::test]
async fn commands_are_obeyed_and_remembered() {
    let (server, mut device) = enrolled(Family::Mac).await;
    let lock = DeviceLock { pin: Some("123456".into()), ..DeviceLock::default() };
    server.push("1", &Command::DeviceLock(lock));
    server.push("2", &Command::InstallProfile { payload: SMALL_PROFILE.into() });
    server.push("3", &list());
    server.push(
        "4",
        &Command::DeviceInformation {
            queries: vec!["SerialNumber".to_owned(), "Nonsense".to_owned()],
            attestation_nonce: None,
        },
    );
    server.push("5", &Command::Settings { items: vec![Setting::DeviceName("Renamed".to_owned())] });
    server.push("6", &Command::InstallProfile { payload: "no profile".into() });
    server.push("7", &Command::RemoveProfile { identifier: "org.example.nothing".to_owned() });
    let told = device.poll().await.unwrap();
    let ok = Some(Status::Acknowledged);
    let error = Some(Status::Error);
    assert_eq!(
        statuses(&told),
        [("1", ok), ("2", ok), ("3", ok), ("4", ok), ("5", ok), ("6", error), ("7", error)]
    );
    assert_eq!(device.inventory().locks, 1);
    assert_eq!(device.inventory().lock_pin.as_deref(), Some("123456"));
    assert_eq!(device.inventory().name, "Renamed");
    assert!(device.inventory().profiles.contains_key("org.example.wifi"));

    let state = server.state();
    let answer = |uuid: &str| {
        state.seen.iter().find_map(|(inbound, _)| match inbound {
            Inbound::Report(report) if report.command_uuid.as_deref() == Some(uuid) => Some(report.clone()),
            _ => None,
        })
    };
    let profiles = answer("3").unwrap().body;
    let profiles = profiles.get("ProfileList").and_then(Value::as_array).unwrap();
    assert_eq!(profiles.len(), 2, "the enrollment profile and the one that was installed");
    let facts = answer("4").unwrap().body;
    let facts = facts.get("QueryResponses").and_then(Value::as_dictionary).unwrap();
    assert_eq!(facts.get("SerialNumber").and_then(Value::as_string), Some(device.serial()));
    assert_eq!(facts.len(), 1);
    assert!(!answer("6").unwrap().error_chain.is_empty());
}

#[tokio::test]
async fn an_unknown_command_is_a_format_error() {
    let (server, mut device) = enrolled(Family::Iphone).await;
    let raw = Dictionary::from_iter([("RequestType".to_owned(), Value::from("FlyToTheMoon"))]);
    let raw = bellwether_apple::command::RawCommand::from_dictionary(raw).unwrap();
    server.push("1", &Command::Raw(raw));
    let told = device.poll().await.unwrap();
    assert_eq!(told[0].reported, Some(Status::CommandFormatError));
}

#[tokio::test]
async fn only_its_own_unlock_token_clears_the_passcode() {
    let (server, mut device) = enrolled(Family::Iphone).await;
    server.push("1", &Command::ClearPasscode { unlock_token: "another".into() });
    server.push("2", &Command::ClearPasscode { unlock_token: device.unlock_token().into() });
    let told = device.poll().await.unwrap();
    assert_eq!(statuses(&told), [("1", Some(Status::Error)), ("2", Some(Status::Acknowledged))]);
    assert!(!device.inventory().passcode);
}

#[tokio::test]
async fn bad_behaviour_by_script() {
    let (server, mut device) = enrolled(Family::Mac).await;
    device.set_script(Script::new().on("ProfileList", 2, Behaviour::NotNow));
    server.push("1", &list());
    assert_eq!(statuses(&device.poll().await.unwrap()), [("1", Some(Status::NotNow))]);
    assert_eq!(statuses(&device.poll().await.unwrap()), [("1", Some(Status::NotNow))]);
    assert_eq!(statuses(&device.poll().await.unwrap()), [("1", Some(Status::Acknowledged))]);

    device.set_script(Script::new().on_any(1, Behaviour::LoseAnswer));
    server.push("2", &list());
    assert_eq!(statuses(&device.poll().await.unwrap()), [("2", None)]);
    assert_eq!(statuses(&device.poll().await.unwrap()), [("2", Some(Status::Acknowledged))]);

    device.set_script(Script::new().on_any(1, Behaviour::Duplicate));
    server.push("3", &list());
    assert_eq!(device.poll().await.unwrap().len(), 1);
    device.set_script(Script::new().on_any(1, Behaviour::Contradict(Status::Error)));
    server.push("4", &list());
    assert_eq!(device.poll().await.unwrap().len(), 1);
    device.set_script(Script::new().always("ProfileList", Behaviour::Silence));
    server.push("5", &list());
    assert_eq!(statuses(&device.poll().await.unwrap()), [("5", None)]);
    let reports = server.reports();
    let of = |uuid: &str| reports.iter().filter(|(id, _)| id == uuid).map(|(_, s)| *s).collect::<Vec<_>>();
    assert_eq!(of("2"), [Status::Acknowledged]);
    assert_eq!(of("3"), [Status::Acknowledged, Status::Acknowledged]);
    assert_eq!(of("4"), [Status::Acknowledged, Status::Error]);
    assert!(of("5").is_empty());
    let reply = device.report(Status::Acknowledged, "unknown", &[], Dictionary::new()).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_erased_device_has_forgotten_everything() {
    let (server, mut device) = enrolled(Family::Iphone).await;
    let unlock = device.unlock_token().to_vec();
    server.push("1", &Command::EraseDevice(EraseDevice::default()));
    assert_eq!(statuses(&device.poll().await.unwrap()), [("1", Some(Status::Acknowledged))]);
    assert!(!device.is_enrolled() && device.identity().is_none());
    assert_ne!(device.unlock_token(), unlock);
    assert!(matches!(device.poll().await, Err(Error::Missing(_))));
    device.enroll(&server.link()).await.unwrap();
}

#[tokio::test]
async fn every_scep_dialect_and_every_refusal() {
    let server = Server::start();
    let mut device = AppleDevice::builder(Family::Mac, server.http()).build().unwrap();
    let profile = device.fetch_profile(&server.link(), &ProfileOptions::default()).await.unwrap();
    let key = Some(KeyPair::generate_rsa2048().unwrap());
    for transport in [ScepTransport::Post, ScepTransport::Get] {
        for cipher in [ScepCipher::Aes, ScepCipher::TripleDes] {
            for ber_indefinite in [false, true] {
                let options =
                    ScepOptions { transport, cipher, ber_indefinite, key: key.clone(), ..Default::default() };
                device.scep_enroll_with(&profile.details, &options).await.unwrap();
            }
        }
    }
    let bad = [
        ScepOptions { challenge: Some("wrong".to_owned()), ..Default::default() },
        ScepOptions { no_challenge: true, ..Default::default() },
        ScepOptions { ask_for_ca: true, ..Default::default() },
        ScepOptions { message_type: Some("18".to_owned()), ..Default::default() },
    ];
    for options in bad {
        let options = ScepOptions { key: key.clone(), ..options };
        let refused = device.scep_enroll_with(&profile.details, &options).await;
        assert!(matches!(refused, Err(Error::Scep(_))), "{refused:?}");
    }
    let options = ScepOptions { common_name: Some("other".to_owned()), key, ..Default::default() };
    device.scep_enroll_with(&profile.details, &options).await.unwrap();
    assert_eq!(server.state().scep_requests.last().unwrap().2, "other");

    server.state().fingerprint = Some(vec![0; 32]);
    let profile = device.fetch_profile(&server.link(), &ProfileOptions::unsigned()).await.unwrap();
    assert!(profile.signer.is_none());
    assert!(matches!(device.scep_enroll(&profile.details).await, Err(Error::Scep(_))), "another CA");
}

#[tokio::test]
async fn an_identity_is_renewed_by_scep_and_by_profile() {
    let (server, mut device) = enrolled(Family::Mac).await;
    let first = device.identity().unwrap().cert_der.clone();
    device.scep_renew().await.unwrap();
    let second = device.identity().unwrap().cert_der.clone();
    assert_ne!(first, second);
    assert_eq!(server.state().scep_requests.last().unwrap().0, MessageType::RenewalReq);
    device.poll().await.unwrap();

    server.push("1", &Command::InstallProfile { payload: server.profile().into() });
    assert_eq!(statuses(&device.poll().await.unwrap()), [("1", Some(Status::Acknowledged))]);
    assert_ne!(device.identity().unwrap().cert_der, second);
    assert_eq!(server.check_ins(), ["Authenticate", "TokenUpdate", "Authenticate", "TokenUpdate"]);
}

#[tokio::test]
async fn tokens_users_and_check_out() {
    let (server, mut device) = enrolled(Family::Mac).await;
    assert_eq!(device.get_bootstrap_token().await.unwrap(), None);
    device.set_bootstrap_token(Some(b"token")).await.unwrap();
    assert_eq!(device.get_bootstrap_token().await.unwrap().as_deref(), Some(b"token".as_slice()));

    let user = User::invent("ann").unwrap();
    device.user_token_update(&user).await.unwrap().ok("TokenUpdate").unwrap();
    server.push("1", &Command::InstallProfile { payload: SMALL_PROFILE.into() });
    let told = device.user_poll(&user).await.unwrap();
    assert_eq!(told[0].user.as_deref(), Some(user.id.as_str()));
    assert_eq!(device.inventory().profiles["org.example.wifi"].user.as_deref(), Some(user.id.as_str()));

    device.checkout().await.unwrap().ok("CheckOut").unwrap();
    device.wipe_enrollment();
    assert!(!device.is_enrolled());
}

#[tokio::test]
async fn forgeries_can_be_tried() {
    let (server, mut device) = enrolled(Family::Mac).await;
    let mut other = AppleDevice::builder(Family::Mac, server.http()).build().unwrap();
    other.enroll(&server.link()).await.unwrap();
    // Another device's certificate under this device's name: the test server has no pins, real ones do.
    device.set_identity(other.identity().unwrap().clone()).unwrap();
    device.idle().await.unwrap();
    let (last, cert_der) = server.state().seen.last().cloned().unwrap();
    assert_eq!(last.ids().device.as_str(), device.udid());
    assert_eq!(cert_der, other.identity().unwrap().cert_der);
    assert_eq!(device.replay().await.unwrap().status, 200);

    let body = device.idle_body().unwrap();
    assert_eq!(device.raw_request(body, &[]).await.unwrap().status, 400, "unsigned");
    assert_eq!(device.raw_request(vec![0; 100], &[("mdm-signature", "AAAA")]).await.unwrap().status, 400);
}

#[tokio::test]
async fn the_identity_can_be_shown_in_the_tls_handshake_too() {
    let (server, _) = enrolled(Family::Mac).await;
    assert!(server.state().presented.is_empty(), "not unless asked to");
    let mut device =
        AppleDevice::builder(Family::Mac, server.http()).client_certificate(true).build().unwrap();
    device.enroll(&server.link()).await.unwrap();
    let identity = device.identity().unwrap().cert_der.clone();
    assert_eq!(server.state().presented, [identity]);
}

#[tokio::test]
async fn a_device_survives_in_a_file() {
    let (server, mut device) = enrolled(Family::Ipad).await;
    server.push("1", &Command::InstallProfile { payload: SMALL_PROFILE.into() });
    device.poll().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ipad.json");
    device.save(&path).unwrap();
    device.save(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mut again = AppleDevice::load(&path, server.http()).unwrap();
    assert_eq!(again.hardware().udid, device.hardware().udid);
    assert_eq!(again.unlock_token(), device.unlock_token());
    assert_eq!(again.inventory().profiles, device.inventory().profiles);
    again.poll().await.unwrap();
    std::fs::write(&path, b"{}").unwrap();
    assert!(matches!(AppleDevice::load(&path, server.http()), Err(Error::File { .. })));
}

#[tokio::test]
async fn a_fleet_enrolls_and_polls() {
    let server = Server::start();
    let mut options = FleetOptions::new(12);
    options.keys = KeyPool::shared(2).await.unwrap();
    let fleet = Fleet::new(&server.http(), &options).await.unwrap();
    let link = server.link();
    let results = fleet.enroll(|_| std::future::ready(Ok(link.clone()))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(fleet.poll().await.into_iter().all(|told| told.is_ok_and(|count| count == 0)));
    let mut udids = Vec::new();
    for device in fleet.devices() {
        udids.push(device.lock().await.udid().to_owned());
    }
    udids.sort();
    udids.dedup();
    assert_eq!(udids.len(), 12);
}

#[test]
fn a_bad_request_can_be_built() {
    let options =
        ScepOptions { ask_for_ca: true, dns_name: Some("example.org".to_owned()), ..Default::default() };
    let wishes = Wishes { ca: true, server_auth: false, dns_name: options.dns_name.as_deref() };
    let key = KeyPair::generate_rsa2048().unwrap();
    let csr = csr::parse(&csr::build(&key, "x", None, wishes).unwrap()).unwrap();
    assert!(csr.wants_ca);
    assert_eq!(csr.requested_names, ["dns:example.org"]);
}
