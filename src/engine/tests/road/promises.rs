//! Promises of the queue that only show over a long time or many epochs, on every backend.

use crate::support::*;
use bellwether_apple::device;
use bellwether_engine::SendOptions;
use bellwether_model::intent::WipeOptions;
use bellwether_model::time::DAY;
use bellwether_model::{CommandId, DeviceId, EnrollmentState, Intent};
use plist::Dictionary;

fn lock() -> Intent {
    Intent::Lock { message: Some("Bring me back".into()), phone_number: None }
}

async fn enrolled(house: &House) -> (Mac, DeviceId) {
    let mut mac = mac("UDID-1");
    mac.enroll(house, &house.invite(Some("ada@example.org")).await).await;
    mac.drain(house).await;
    let id = house.device_id("UDID-1").await;
    (mac, id)
}

/// How a command stands, and how often its first part was sent.
async fn stands(house: &House, id: CommandId) -> (&'static str, i32) {
    let detail = house.command(id).await;
    (detail.command.state.as_str(), detail.parts[0].sends)
}

on_every_backend! {
    async fn rt_07_not_now_for_a_month_blocks_nothing_and_is_never_a_busy_loop(house: House) {
        let (mac, id) = enrolled(&house).await;
        let options = SendOptions { expires_in: Some(60 * DAY), ..SendOptions::default() };
        let slow = Intent::Restart { notify_user: false };
        let slow = house.engine.send_command(&house.admin, house.site(), id, slow, options).await.unwrap();
        for day in 1..=30 {
            house.later(DAY);
            let quick = house.send(id, Intent::Rename { name: format!("day {day}") }).await.unwrap();
            let offered = mac.idle(&house).await.unwrap();
            assert_eq!(offered.request_type, "RestartDevice", "first in, first out");
            let next = mac.not_now(&house, &offered.command_uuid).await.expect("the one behind it");
            assert_eq!(next.request_type, "Settings");
            // After an acknowledgement it may be asked once more; its second NotNow ends the session.
            if let Some(again) = mac.ack(&house, &next.command_uuid, Dictionary::new()).await {
                assert_eq!(again.command_uuid, offered.command_uuid);
                assert!(mac.not_now(&house, &again.command_uuid).await.is_none(), "day {day}: no busy loop");
            }
            assert_eq!(stands(&house, quick.id).await, ("acknowledged", 1));
            let (state, sends) = stands(&house, slow.id).await;
            assert!(state == "not-now" && sends <= 2 * day, "day {day}: {state}, sent {sends} times");
            house.engine.housekeep_once().await.unwrap();
        }
        let offered = mac.idle(&house).await.unwrap();
        mac.ack(&house, &offered.command_uuid, Dictionary::new()).await;
        assert_eq!(stands(&house, slow.id).await.0, "acknowledged");
    }

    async fn rt_07_a_storm_of_not_now_asks_each_command_once(house: House) {
        let (mac, id) = enrolled(&house).await;
        let mut waiting = std::collections::BTreeSet::new();
        for n in 0..40 {
            let sent = house.send(id, Intent::Rename { name: format!("name {n}") }).await.unwrap();
            waiting.insert(house.command(sent.id).await.parts[0].id.to_string());
        }
        for session in 1..=3 {
            let mut asked = Vec::new();
            let mut next = mac.idle(&house).await;
            while let Some(offered) = next {
                asked.push(offered.command_uuid.to_lowercase());
                assert!(asked.len() <= waiting.len(), "session {session} does not end");
                next = mac.not_now(&house, &offered.command_uuid).await;
            }
            let each: std::collections::BTreeSet<String> = asked.iter().cloned().collect();
            assert_eq!((asked.len(), each == waiting), (waiting.len(), true), "session {session}: each is asked once");
            house.later(DAY / 4);
        }
    }

    async fn rt_09_a_thousand_inventory_triggers_on_an_offline_device_are_one_command(house: House) {
        let (mac, id) = enrolled(&house).await;
        let kinds = || vec![bellwether_model::intent::InventoryKind::Device];
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            ids.insert(house.send(id, Intent::RefreshInventory { kinds: kinds() }).await.unwrap().id);
        }
        assert_eq!(ids.len(), 1);
        assert_eq!(mac.drain(&house).await, ["DeviceInformation"]);
    }

    async fn rt_10_nothing_crosses_a_hundred_epochs(house: House) {
        let (mut mac, id) = enrolled(&house).await;
        let mut never = Vec::new();
        let mut wiped = 0;
        for round in 0..100 {
            let sent = house.send(id, Intent::Wipe(WipeOptions::default())).await.unwrap();
            let queued = house.send(id, lock()).await.unwrap();
            let wipe = mac.idle(&house).await.unwrap();
            assert_eq!(wipe.request_type, "EraseDevice");
            if round % 2 == 0 {
                // It says yes and is gone. Otherwise the reply was lost, or somebody erased it by hand.
                assert!(mac.ack(&house, &wipe.command_uuid, Dictionary::new()).await.is_none());
                assert_eq!(house.devices().await[0].enrollment.as_ref().unwrap().state, EnrollmentState::Ended);
                assert_eq!(stands(&house, sent.id).await.0, "acknowledged");
                wiped += 1;
            } else {
                never.push(sent.id);
            }
            never.push(queued.id);
            let old = mac.cert.clone();
            mac.enroll(&house, &house.invite(Some("ada@example.org")).await).await;
            assert_eq!(house.device_id("UDID-1").await, id, "the same device");
            let enrollment = house.devices().await[0].enrollment.clone().unwrap();
            assert_eq!((enrollment.state, enrollment.epoch), (EnrollmentState::Active, round + 2));
            // The new epoch hears nothing of the old one, and its words about the old one's commands change nothing.
            let late = mac.ack(&house, &wipe.command_uuid, Dictionary::new()).await;
            let mut heard: Vec<String> = late.iter().map(|c| c.request_type.clone()).collect();
            heard.extend(mac.drain(&house).await);
            assert!(!heard.iter().any(|r| r == "EraseDevice" || r == "DeviceLock"), "round {round}: {heard:?}");
            // Whoever still has the old identity gets nothing.
            let new = std::mem::replace(&mut mac.cert, old);
            let reply = mac.put(&house, device::idle(&mac.ids).unwrap()).await;
            assert!(reply.status != 401 && reply.body.is_empty(), "round {round}: {}", reply.status);
            mac.cert = new;
        }
        assert_eq!((wiped, never.len()), (50, 150));
        for id in never {
            assert_eq!(stands(&house, id).await.0, "superseded");
        }
    }
}
