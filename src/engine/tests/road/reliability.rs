//! Long and repeated troubles (spec/product.md 5): a month of NotNow, a hundred lives of one device.

use crate::support::*;
use bellwether_apple::device;
use bellwether_engine::SendOptions;
use bellwether_model::intent::WipeOptions;
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{CommandId, Intent};
use plist::Dictionary;
use std::collections::BTreeSet;

fn rename(name: String) -> Intent {
    Intent::Rename { name }
}

async fn state(house: &House, id: CommandId) -> String {
    house.command(id).await.command.state.as_str().to_owned()
}

#[tokio::test]
async fn rt_07_a_month_of_not_now_holds_up_nobody_and_ends_well() {
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    mac.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    let patient = SendOptions { expires_in: Some(60 * DAY), ..SendOptions::default() };
    let restart = Intent::Restart { notify_user: false };
    let restart =
        house.engine.send_command(&house.admin, house.site(), id, restart, patient).await.unwrap().id;
    let uuid = mac.idle(&house).await.unwrap().command_uuid;
    assert!(mac.not_now(&house, &uuid).await.is_none());
    for day in 0..30 {
        for _ in 0..8 {
            house.later(3 * HOUR);
            // A device that is in use says so at once: each session is two messages long.
            let told = mac.idle(&house).await.unwrap();
            assert_eq!(told.command_uuid, uuid, "day {day}: the same bytes' UUID");
            assert!(mac.not_now(&house, &uuid).await.is_none(), "day {day}: a busy loop");
        }
        house.engine.housekeep_once().await.unwrap();
        let other = house.send(id, rename(format!("day-{day}"))).await.unwrap().id;
        mac.idle(&house).await.unwrap();
        let behind = mac.not_now(&house, &uuid).await.unwrap();
        assert_eq!(behind.request_type, "Settings", "day {day}: what is behind it passes");
        let again = mac.ack(&house, &behind.command_uuid, Dictionary::new()).await;
        assert!(again.is_none_or(|again| again.command_uuid == uuid));
        assert!(mac.not_now(&house, &uuid).await.is_none());
        assert_eq!(state(&house, other).await, "acknowledged");
        assert_eq!(state(&house, restart).await, "not-now", "day {day}");
    }
    mac.idle(&house).await.unwrap();
    assert!(mac.ack(&house, &uuid, Dictionary::new()).await.is_none());
    assert_eq!(state(&house, restart).await, "acknowledged");
}

#[tokio::test]
async fn rt_10_a_hundred_lives_of_a_device_and_nothing_crosses() {
    let house = house().await;
    let mut before: Option<(Mac, String, CommandId)> = None;
    let mut told = BTreeSet::new();
    for life in 0..100_u32 {
        let mut mac = mac("UDID-1");
        mac.enroll(&house, &house.invite(Some("ann@example.org")).await).await;
        let id = house.device_id("UDID-1").await;
        let mut next = mac.idle(&house).await;
        while let Some(delivered) = next {
            assert_ne!(delivered.request_type, "Settings", "life {life}: a command of another life");
            assert!(told.insert(delivered.command_uuid.clone()), "life {life}: told before");
            next = mac.ack(&house, &delivered.command_uuid, Dictionary::new()).await;
        }
        if let Some((old, uuid, sent)) = before.take() {
            // The life before comes too late with its answer.
            let late = device::acknowledged(&old.ids, &uuid, Dictionary::new()).unwrap();
            assert_eq!(old.put(&house, late).await.status, 403, "life {life}");
            assert_eq!(state(&house, sent).await, "superseded", "life {life}");
        }
        // One command is with the device, another waits; then the life ends by a wipe or just by a new one.
        let sent = house.send(id, rename(format!("sent-{life}"))).await.unwrap().id;
        let uuid = mac.idle(&house).await.unwrap().command_uuid;
        assert!(told.insert(uuid.clone()));
        house.send(id, rename(format!("waits-{life}"))).await.unwrap();
        if life % 2 == 0 {
            house.send(id, Intent::Wipe(WipeOptions::default())).await.unwrap();
            let wipe = mac.idle(&house).await.unwrap();
            assert_eq!(wipe.request_type, "EraseDevice", "life {life}: it overtakes");
            assert!(told.insert(wipe.command_uuid.clone()));
            assert!(mac.ack(&house, &wipe.command_uuid, Dictionary::new()).await.is_none());
        }
        before = Some((mac, uuid, sent));
    }
    let device = &house.devices().await[0];
    assert_eq!(device.enrollment.as_ref().unwrap().epoch, 100);
    assert_eq!(house.devices().await.len(), 1);
}
