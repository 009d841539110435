//! The queue as a device meets it.

use crate::support::*;
use bellwether_apple::device;
use bellwether_engine::{Error, SendOptions, may};
use bellwether_model::intent::{AppSource, WipeOptions};
use bellwether_model::time::{DAY, HOUR, MINUTE};
use bellwether_model::{EnrollmentState, Intent};
use plist::{Dictionary, Value};
use secrecy::ExposeSecret as _;

async fn enrolled() -> (House, Mac, bellwether_model::DeviceId) {
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    mac.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    (house, mac, id)
}

fn lock() -> Intent {
    Intent::Lock { message: Some("Bring me back".into()), phone_number: None }
}

#[tokio::test]
async fn at_35_pins_come_from_the_csprng_and_are_sealed() {
    let (house, mac, id) = enrolled().await;
    let mut pins = Vec::new();
    for _ in 0..2 {
        // The clock stands still.
        let sent = house.send(id, lock()).await.unwrap();
        let delivered = mac.idle(&house).await.unwrap();
        let pin = delivered.command.get("PIN").and_then(Value::as_string).unwrap().to_owned();
        assert_eq!(pin.len(), 6);
        let permit = house.admin.permit::<may::RevealSecrets>(house.site()).unwrap();
        let shown = house.engine.reveal_command_secret(&permit, sent.id).await.unwrap();
        assert_eq!(shown.value.expose_secret(), pin);
        mac.ack(&house, &delivered.command_uuid, Dictionary::new()).await;
        pins.push(pin);
    }
    assert_ne!(pins[0], pins[1]);
    assert_eq!(house.audited("secret.revealed").await, 2);
    // Neither PIN nor message stands in the database's files.
    for file in std::fs::read_dir(house.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        for canary in [pins[0].as_bytes(), pins[1].as_bytes(), b"Bring me back"] {
            assert!(!bytes.windows(canary.len()).any(|w| w == canary));
        }
    }
}

#[tokio::test]
async fn q04_a_lost_answer_is_asked_again_with_the_same_bytes_and_counts_once() {
    let (house, mac, id) = enrolled().await;
    let sent = house.send(id, lock()).await.unwrap();
    let first = mac.put(&house, device::idle(&mac.ids).unwrap()).await;
    let second = mac.put(&house, device::idle(&mac.ids).unwrap()).await;
    assert_eq!(first.body, second.body, "frozen bytes, PIN included");
    let delivered = command(second).unwrap();
    mac.ack(&house, &delivered.command_uuid, Dictionary::new()).await;
    // The same report again, and a contradicting one.
    mac.ack(&house, &delivered.command_uuid, Dictionary::new()).await;
    mac.fail(&house, &delivered.command_uuid).await;
    let detail = house.command(sent.id).await;
    assert_eq!(detail.command.state.as_str(), "acknowledged");
    assert_eq!(detail.parts[0].sends, 2);
    // Made anew this one would hold another challenge.
    house.send(id, Intent::RenewIdentity).await.unwrap();
    let first = mac.put(&house, device::idle(&mac.ids).unwrap()).await;
    let second = mac.put(&house, device::idle(&mac.ids).unwrap()).await;
    assert_eq!(first.body, second.body);
    assert_eq!(command(second).unwrap().request_type, "InstallProfile");
}

#[tokio::test]
async fn q04_two_polls_at_once_are_told_the_same_bytes() {
    let (house, mac, id) = enrolled().await;
    for _ in 0..8 {
        // Both are made ready, each with a challenge of its own.
        house.send(id, Intent::RenewIdentity).await.unwrap();
        let poll = || mac.put(&house, device::idle(&mac.ids).unwrap());
        let (one, two) = tokio::join!(poll(), poll());
        assert_eq!(one.body, two.body);
        mac.fail(&house, &command(one).unwrap().command_uuid).await;
    }
}

#[tokio::test]
async fn q07_not_now_lets_others_pass_and_comes_back() {
    let (house, mac, id) = enrolled().await;
    house.send(id, Intent::Rename { name: "One".into() }).await.unwrap();
    house.send(id, Intent::Restart { notify_user: false }).await.unwrap();
    let one = mac.idle(&house).await.unwrap();
    assert_eq!(one.request_type, "Settings");
    let two = mac.not_now(&house, &one.command_uuid).await.unwrap();
    assert_eq!(two.request_type, "RestartDevice");
    let again = mac.ack(&house, &two.command_uuid, Dictionary::new()).await.unwrap();
    assert_eq!(again.command_uuid, one.command_uuid, "offered again, same UUID");
    assert!(mac.not_now(&house, &one.command_uuid).await.is_none(), "no busy loop");
    let back = mac.idle(&house).await.unwrap();
    assert_eq!(back.command_uuid, one.command_uuid);
    assert!(mac.ack(&house, &back.command_uuid, Dictionary::new()).await.is_none());
}

#[tokio::test]
async fn rt_08_a_wipe_overtakes_what_is_never_answered() {
    let (house, mac, id) = enrolled().await;
    let app = Intent::InstallApp { app: AppSource::Url { url: "https://apps.example.org/a.plist".into() } };
    house.send(id, app).await.unwrap();
    let install = mac.idle(&house).await.unwrap();
    assert_eq!(install.request_type, "InstallEnterpriseApplication");
    house.send(id, Intent::Wipe(WipeOptions::default())).await.unwrap();
    let wipe = mac.idle(&house).await.unwrap();
    assert_eq!(wipe.request_type, "EraseDevice");
    // The late answer to the overtaken one still counts.
    let next = mac.ack(&house, &install.command_uuid, Dictionary::new()).await;
    assert!(next.is_none_or(|n| n.request_type == "EraseDevice"));
}

#[tokio::test]
async fn a_wipe_is_asked_again_until_the_device_reports_and_ends_the_enrollment() {
    let (house, mac, id) = enrolled().await;
    let wipe = house.send(id, Intent::Wipe(WipeOptions::default())).await.unwrap();
    house.send(id, Intent::Rename { name: "never".into() }).await.unwrap();
    let first = mac.idle(&house).await.unwrap();
    house.later(10 * MINUTE);
    let again = mac.idle(&house).await.unwrap();
    assert_eq!(first.command_uuid, again.command_uuid);
    assert!(mac.ack(&house, &again.command_uuid, Dictionary::new()).await.is_none());
    assert_eq!(house.command(wipe.id).await.command.state.as_str(), "acknowledged");
    let device = &house.devices().await[0];
    assert_eq!(device.enrollment.as_ref().unwrap().state, EnrollmentState::Ended);
    // It acknowledged and was not erased: taken back rather than lost.
    assert!(mac.idle(&house).await.is_none());
    assert_eq!(house.devices().await[0].enrollment.as_ref().unwrap().state, EnrollmentState::Active);
}

#[tokio::test]
async fn facts_come_from_answers_and_show_their_age() {
    let (house, mac, id) = enrolled().await;
    let kinds = vec![bellwether_model::intent::InventoryKind::Device];
    house.send(id, Intent::RefreshInventory { kinds }).await.unwrap();
    let asked = mac.idle(&house).await.unwrap();
    let mut responses = Dictionary::new();
    responses.insert("DeviceName".into(), Value::String("Ann's Mac".into()));
    responses.insert("OSVersion".into(), Value::String("15.2".into()));
    // One bad field: the others still count (AT-70).
    responses.insert("BatteryLevel".into(), Value::String("full".into()));
    let mut answer = Dictionary::new();
    answer.insert("QueryResponses".into(), Value::Dictionary(responses));
    mac.ack(&house, &asked.command_uuid, answer).await;
    let permit = house.admin.permit::<may::ReadDevices>(house.site()).unwrap();
    let detail = house.engine.device(&permit, id).await.unwrap();
    let value = |key: &str| detail.facts.iter().find(|f| f.key == key).map(|f| f.value.clone());
    assert_eq!(value("os.version"), Some("15.2".into()), "{:?}", detail.facts);
    assert_eq!(detail.device.name.as_deref(), Some("Ann's Mac"));
    assert_eq!(detail.device.os_version.as_deref(), Some("15.2"));
}

#[tokio::test]
async fn q02_the_same_key_is_the_same_command() {
    let (house, _mac, id) = enrolled().await;
    let options = SendOptions { idempotency_key: Some("k1".into()), ..SendOptions::default() };
    let a = house.engine.send_command(&house.admin, house.site(), id, lock(), options.clone()).await.unwrap();
    let b = house.engine.send_command(&house.admin, house.site(), id, lock(), options.clone()).await.unwrap();
    assert_eq!(a.id, b.id);
    let other = house.engine.send_command(&house.admin, house.site(), id, Intent::ShutDown, options).await;
    assert!(matches!(other, Err(Error::Conflict(_))), "{other:?}");
}

#[tokio::test]
async fn q09_a_thousand_inventory_wishes_are_one_command() {
    let (house, _mac, id) = enrolled().await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..100 {
        ids.insert(house.send(id, Intent::RefreshInventory { kinds: vec![] }).await.unwrap().id);
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn q12_cancel_wins_only_before_the_send() {
    let (house, mac, id) = enrolled().await;
    let permit = house.admin.permit::<may::SendCommands>(house.site()).unwrap();
    let early = house.send(id, lock()).await.unwrap();
    assert_eq!(house.engine.cancel_command(&permit, early.id).await.unwrap().state.as_str(), "cancelled");
    assert!(mac.idle(&house).await.is_none());
    let late = house.send(id, lock()).await.unwrap();
    assert!(mac.idle(&house).await.is_some());
    assert!(matches!(house.engine.cancel_command(&permit, late.id).await, Err(Error::Conflict(_))));
}

#[tokio::test]
async fn q17_an_answer_to_nothing_gets_the_next_command() {
    let (house, mac, id) = enrolled().await;
    house.send(id, lock()).await.unwrap();
    for uuid in ["00000000-0000-0000-0000-000000000000", "not a uuid"] {
        let next = mac.ack(&house, uuid, Dictionary::new()).await;
        assert_eq!(next.unwrap().request_type, "DeviceLock");
    }
}

#[tokio::test]
async fn q03_what_is_never_fetched_expires() {
    let (house, mac, id) = enrolled().await;
    let sent = house.send(id, lock()).await.unwrap();
    house.later(31 * DAY);
    house.engine.housekeep_once().await.unwrap();
    assert_eq!(house.command(sent.id).await.command.state.as_str(), "expired");
    assert!(mac.idle(&house).await.is_none());
}

#[tokio::test]
async fn a_job_reaches_every_device_and_is_one_audit_entry() {
    let house = house().await;
    let mut macs = Vec::new();
    let mut ids = Vec::new();
    for i in 0..3 {
        let mut mac = mac(&format!("UDID-{i}"));
        mac.enroll(&house, &house.invite(None).await).await;
        mac.drain(&house).await;
        ids.push(house.device_id(&format!("UDID-{i}")).await);
        macs.push(mac);
    }
    // One that does not exist is counted, not fatal.
    ids.push(bellwether_model::DeviceId(uuid::Uuid::from_u128(1)));
    let options = SendOptions::default();
    let job = house.engine.send_to_many(&house.admin, house.site(), ids, lock(), options).await.unwrap();
    while house.engine.run_jobs_once().await.unwrap() {}
    let permit = house.admin.permit::<may::ReadDevices>(house.site()).unwrap();
    let done = house.engine.job(&permit, job.id).await.unwrap();
    assert_eq!((done.total, done.done, done.refused), (4, 4, 1));
    let mut pins = std::collections::BTreeSet::new();
    for mac in &macs {
        let delivered = mac.idle(&house).await.unwrap();
        assert_eq!(delivered.request_type, "DeviceLock");
        pins.insert(delivered.command.get("PIN").and_then(Value::as_string).unwrap().to_owned());
    }
    assert_eq!(pins.len(), 3, "every device has its own PIN");
    assert_eq!(house.audited("job.created").await, 1);
}

#[tokio::test]
async fn what_a_device_cannot_do_is_said_before_anything_is_queued() {
    let (house, _mac, id) = enrolled().await;
    for (intent, word) in [
        (Intent::Message { text: "hi".into() }, "lost mode"),
        (Intent::ClearPasscode, "Mac"),
        (Intent::PlaySound, "Mac"),
        (Intent::InstallProfile { profile: b"nonsense".to_vec() }, "profile"),
    ] {
        let refused = house.send(id, intent).await.err().unwrap().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

#[tokio::test]
async fn at_32_a_personal_device_is_never_wiped_whole() {
    let house = house().await;
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let mut own = wish(None);
    own.ownership = bellwether_model::Ownership::Personal;
    let made = house.engine.create_invitation(&permit, own).await.unwrap();
    let code = made.link.expose_secret().rsplit('/').next().unwrap().to_owned();
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &code).await;
    mac.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    let refused = house.send(id, Intent::Wipe(WipeOptions::default())).await;
    assert!(matches!(refused, Err(Error::CannotDo(_))), "{refused:?}");
    let raw = bellwether_apple::command::Command::EraseDevice(Default::default()).encode("X").unwrap();
    let refused = house.send(id, Intent::Raw { payload: raw }).await;
    assert!(matches!(refused, Err(Error::CannotDo(_))), "{refused:?}");
    assert!(house.send(id, Intent::Unenroll).await.is_ok());
}

#[tokio::test]
async fn check_out_settles_an_outstanding_unenroll() {
    let (house, mac, id) = enrolled().await;
    let sent = house.send(id, Intent::Unenroll).await.unwrap();
    let delivered = mac.idle(&house).await.unwrap();
    assert_eq!(delivered.request_type, "RemoveProfile");
    assert_eq!(mac.check_out(&house).await.status, 200);
    assert_eq!(house.command(sent.id).await.command.state.as_str(), "acknowledged");
    assert_eq!(house.devices().await[0].enrollment.as_ref().unwrap().state, EnrollmentState::Ended);
    assert_eq!(mac.token_update(&house).await.status, 403, "a TokenUpdate revives nothing");
}

#[tokio::test]
async fn commands_wait_for_a_silent_device_across_a_restart() {
    let (house, mac, id) = enrolled().await;
    let sent = house.send(id, lock()).await.unwrap();
    let House { engine, clock, admin, folder } = house;
    drop(engine);
    let engine = open(folder.path(), clock.clone()).await.unwrap();
    let house = House { engine, clock, admin, folder };
    house.later(HOUR);
    let delivered = mac.idle(&house).await.unwrap();
    assert_eq!(delivered.command_uuid.to_lowercase(), house.command(sent.id).await.parts[0].id.to_string());
}

#[tokio::test]
async fn the_audit_is_whole_and_says_so() {
    let (house, mac, id) = enrolled().await;
    house.send(id, lock()).await.unwrap();
    mac.drain(&house).await;
    house.engine.seal_once().await.unwrap();
    let permit = house.admin.permit::<may::ReadAudit>(house.site()).unwrap();
    let report = house.engine.audit_verify(&permit).await.unwrap();
    assert_eq!(report.broken, None);
    assert_eq!(report.unsealed, 0);
    assert!(report.entries > 5 && report.checkpoints > 0, "{report:?}");
}

/// The sealer works on while the chain is read; that is no tampering.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_whole_while_it_grows() {
    let (house, _mac, id) = enrolled().await;
    let permit = house.admin.permit::<may::ReadAudit>(house.site()).unwrap();
    let grows = async {
        for _ in 0..40 {
            house.send(id, lock()).await.unwrap();
            house.engine.seal_once().await.unwrap();
        }
    };
    let reads = async {
        for _ in 0..200 {
            assert_eq!(house.engine.audit_verify(&permit).await.unwrap().broken, None);
        }
    };
    tokio::join!(grows, reads);
}

/// Retention takes commands, answers and counters. The audit stays: there is nothing that would have to sign for a gap.
#[tokio::test]
async fn at_43_ten_years_later_the_audit_is_whole() {
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    let device = house.device_id("UDID-1").await;
    house.send(device, Intent::Restart { notify_user: false }).await.unwrap();
    mac.drain(&house).await;
    house.engine.seal_once().await.unwrap();
    let permit = house.admin.permit::<may::ReadAudit>(house.site()).unwrap();
    let read = async || {
        let entries = house.engine.audit(&permit, None, 1000).await.unwrap().items;
        entries.into_iter().map(|e| (e.position, e.kind, e.target, e.details)).collect::<Vec<_>>()
    };
    let before = read().await;
    assert!(before.len() > 5, "{before:?}");
    let commands = async || {
        let permit = house.admin.permit::<may::ReadDevices>(house.site()).unwrap();
        let all = house.engine.commands(&permit, None, None, None, None, 100).await.unwrap().items;
        all.into_iter().map(|command| command.id).collect::<Vec<_>>()
    };
    let finished = commands().await;
    assert!(!finished.is_empty());
    for _ in 0..10 {
        house.later(365 * DAY);
        house.engine.housekeep_once().await.unwrap();
    }
    let left = commands().await;
    assert!(!left.iter().any(|id| finished.contains(id)), "retention did run");
    house.engine.seal_once().await.unwrap();
    let after = read().await;
    let old: Vec<_> = after.iter().filter(|entry| before.contains(entry)).collect();
    assert_eq!(old.len(), before.len());
    let report = house.engine.audit_verify(&permit).await.unwrap();
    assert_eq!(report.broken, None);
}
