//! What a hostile reading of the queue found.

use crate::support::*;
use bellwether_apple::checkin::{Message, TokenUpdate};
use bellwether_apple::{Opaque, device};
use bellwether_engine::SendOptions;
use bellwether_model::intent::{InventoryKind, RotatableSecret, WipeOptions};
use bellwether_model::{EnrollmentState, Intent};
use plist::Dictionary;

async fn enrolled() -> (House, Mac, bellwether_model::DeviceId) {
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    mac.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    (house, mac, id)
}

#[tokio::test]
async fn the_same_word_about_a_wipe_again_brings_nothing_back() {
    let (house, mac, id) = enrolled().await;
    house.send(id, Intent::Wipe(WipeOptions::default())).await.unwrap();
    let wipe = mac.idle(&house).await.unwrap();
    assert!(mac.ack(&house, &wipe.command_uuid, Dictionary::new()).await.is_none());
    // Our 200 was lost on the way: the device repeats its last word, then erases itself.
    assert!(mac.ack(&house, &wipe.command_uuid, Dictionary::new()).await.is_none());
    let device = &house.devices().await[0];
    assert_eq!(device.enrollment.as_ref().unwrap().state, EnrollmentState::Ended);
}

#[tokio::test]
async fn a_command_that_cannot_be_prepared_blocks_neither_answers_nor_the_queue() {
    let (house, mac, id) = enrolled().await;
    let first = house.send(id, Intent::Restart { notify_user: false }).await.unwrap();
    // XML cannot carry this name; nobody says so before the hand-over.
    let certificate = mac.cert.clone();
    let bad = Intent::InstallCertificate { certificate, name: Some("Root \u{1}".into()) };
    let bad = house.send(id, bad).await.unwrap();
    let last = house.send(id, Intent::Rename { name: "after".into() }).await.unwrap();
    let restart = mac.idle(&house).await.unwrap();
    assert_eq!(restart.request_type, "RestartDevice");
    let next = mac.ack(&house, &restart.command_uuid, Dictionary::new()).await.unwrap();
    assert_eq!(next.request_type, "Settings");
    mac.ack(&house, &next.command_uuid, Dictionary::new()).await;
    assert_eq!(house.command(first.id).await.command.state.as_str(), "acknowledged");
    assert_eq!(house.command(bad.id).await.command.state.as_str(), "cancelled");
    assert_eq!(house.command(last.id).await.command.state.as_str(), "acknowledged");
}

#[tokio::test]
async fn many_commands_that_became_impossible_do_not_hide_the_one_behind_them() {
    let (house, mut mac, id) = enrolled().await;
    for _ in 0..9 {
        house.send(id, Intent::RotateSecret { secret: RotatableSecret::RecoveryLock }).await.unwrap();
    }
    let last = Intent::RefreshInventory { kinds: vec![InventoryKind::Device] };
    house.send(id, last).await.unwrap();
    // In between the device says that it is something else (an upgrade that removes a command does the same).
    mac.product = "iPhone14,2";
    assert_eq!(mac.authenticate(&house).await.status, 200);
    let next = mac.idle(&house).await.expect("the one behind them");
    assert_eq!(next.request_type, "DeviceInformation");
}

#[tokio::test]
async fn a_retry_goes_to_the_channel_of_the_first_try() {
    let (house, mut mac, id) = enrolled().await;
    let device_ids = mac.ids.clone();
    mac.ids = device_ids.with_user("USER-1").unwrap();
    assert_eq!(mac.token_update(&house).await.status, 200);
    let options = SendOptions { user: Some("USER-1".into()), ..SendOptions::default() };
    let intent = Intent::RefreshInventory { kinds: vec![InventoryKind::Device] };
    let sent = house.engine.send_command(&house.admin, house.site(), id, intent, options).await.unwrap();
    let asked = mac.idle(&house).await.unwrap();
    mac.fail(&house, &asked.command_uuid).await;
    house.engine.retry_command(&house.admin, house.site(), sent.id).await.unwrap();
    assert!(mac.idle(&house).await.is_some(), "the user's channel is asked again");
    mac.ids = device_ids;
    assert!(mac.idle(&house).await.is_none(), "and not the device's");
}

#[tokio::test]
async fn an_ipad_that_waits_in_setup_assistant_is_released() {
    let house = house().await;
    let mut pad = mac("UDID-1");
    pad.product = "iPad13,1";
    pad.identity(&house, &house.invite(None).await).await;
    assert_eq!(pad.authenticate(&house).await.status, 200);
    let update = TokenUpdate {
        topic: pad.topic.clone(),
        token: b"token".to_vec(),
        push_magic: Opaque::from("magic"),
        awaiting_configuration: Some(true),
        ..TokenUpdate::default()
    };
    assert_eq!(pad.check_in(&house, &Message::TokenUpdate(update)).await.status, 200);
    let asked = pad.drain(&house).await;
    assert!(asked.iter().any(|a| a == "DeviceConfigured"), "{asked:?}");
}

#[tokio::test]
async fn a_second_poll_before_the_answer_gets_the_frozen_bytes() {
    let (house, mac, id) = enrolled().await;
    house.send(id, Intent::RenewIdentity).await.unwrap();
    let idle = device::idle(&mac.ids).unwrap();
    let (a, b) = futures_util::join!(mac.put(&house, idle.clone()), mac.put(&house, idle));
    assert_eq!((a.status, b.status), (200, 200));
    assert!(a.body == b.body, "one CommandUUID went out with two different payloads");
}
