//! What a hostile reading of enrollment and renewal found.

use crate::support::*;
use bellwether_apple::device;
use bellwether_apple::profile::decode_enrollment_profile;
use bellwether_certs::csr::Wishes;
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{Error, may};
use bellwether_model::time::DAY;
use bellwether_model::{EnrollmentState, Intent};
use bellwether_scep::client::Reply;
use secrecy::ExposeSecret as _;

#[tokio::test]
async fn an_unproven_attempt_ends_when_the_next_one_begins() {
    let house = house().await;
    mac("UDID-1").enroll(&house, &house.invite(Some("ann@example.org")).await).await;
    let code = house.invite(Some("bob@example.org")).await;
    let mut first = mac("UDID-1");
    first.identity(&house, &code).await;
    assert_eq!(first.authenticate(&house).await.status, 200);
    let mut second = mac("UDID-1");
    second.identity(&house, &code).await;
    assert_eq!(first.token_update(&house).await.status, 403, "exactly one live identity per invitation");
    assert_eq!(second.authenticate(&house).await.status, 200);
    assert_eq!(second.token_update(&house).await.status, 200);
}

#[tokio::test]
async fn an_approved_enrollment_gets_what_every_fresh_one_gets() {
    let house = house().await;
    mac("UDID-1").enroll(&house, &house.invite(Some("ann@example.org")).await).await;
    let mut bob = mac("UDID-1");
    bob.enroll(&house, &house.invite(Some("bob@example.org")).await).await;
    assert!(bob.idle(&house).await.is_none());
    let unproven = house
        .devices()
        .await
        .into_iter()
        .find_map(|d| d.enrollment.filter(|e| e.state == EnrollmentState::Unproven).map(|e| e.id));
    let permit = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
    house.engine.approve_enrollment(&permit, unproven.unwrap()).await.unwrap();
    assert!(!bob.drain(&house).await.is_empty(), "a first inventory, and DeviceConfigured when it waits");
}

#[tokio::test]
async fn a_flood_of_refusals_from_many_addresses_is_not_a_flood_of_entries() {
    let house = house().await;
    for i in 0..400 {
        let request = bellwether_engine::AppleRequest {
            signature: None,
            tls_certificate: None,
            body: b"x".to_vec(),
            content_type: None,
            source: Some(format!("2001:db8::{i:x}")),
        };
        assert_eq!(house.engine.apple_request(request).await.status, 400);
    }
    assert!(house.audited("device.refused").await <= 300);
}

#[tokio::test]
async fn who_guessed_too_often_is_not_told_a_right_code_either() {
    let house = house().await;
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let mut wish = wish(None);
    wish.short_code = true;
    let made = house.engine.create_invitation(&permit, wish).await.unwrap();
    let source = Some("198.51.100.7");
    for i in 0..60 {
        let guess = format!("{:09}", 100_000_000 + i);
        let _ = house.engine.open_invitation(&guess, source).await;
    }
    let right = house.engine.open_invitation(made.short_code.unwrap().expose_secret(), source).await;
    assert!(matches!(right, Err(Error::TooMany { .. })), "{right:?}");
}

/// Installs the renewal that waits; the old and the new device.
async fn renewed(house: &House) -> (Mac, Mac, String) {
    let mut old = mac("UDID-1");
    old.enroll(house, &house.invite(None).await).await;
    old.drain(house).await;
    let id = house.device_id("UDID-1").await;
    house.send(id, Intent::RenewIdentity).await.unwrap();
    let install = old.idle(house).await.unwrap();
    let payload = install.command.get("Payload").and_then(plist::Value::as_data).unwrap();
    let details =
        decode_enrollment_profile(&bellwether_certs::cms::strip_signature(payload).unwrap()).unwrap();
    let key = KeyPair::generate_rsa2048().unwrap();
    let Reply::Success(cert) = scep(house, &details, &key, Wishes::default(), None).await else { panic!() };
    let new = Mac { ids: old.ids.clone(), key, cert, topic: old.topic.clone(), ..mac("x") };
    (old, new, install.command_uuid)
}

#[tokio::test]
async fn a_renewal_that_fails_at_its_end_leaves_the_old_identity() {
    let house = house().await;
    let (old, new, uuid) = renewed(&house).await;
    assert_eq!(new.authenticate(&house).await.status, 200);
    assert_eq!(new.token_update(&house).await.status, 200);
    // The installer rolls back after its TokenUpdate: it reports the failure with the old identity, and keeps that.
    let chain = [];
    let reply = old.put(&house, device::error(&old.ids, &uuid, &chain).unwrap()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(old.put(&house, device::idle(&old.ids).unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_heard_without_an_authenticate() {
    let house = house().await;
    let (_old, new, _uuid) = renewed(&house).await;
    assert_eq!(new.put(&house, device::idle(&new.ids).unwrap()).await.status, 200);
}

#[tokio::test]
async fn devices_that_never_call_do_not_keep_others_from_being_renewed() {
    let house = house().await;
    for i in 0..200 {
        mac(&format!("GONE-{i}")).enroll(&house, &house.invite(None).await).await;
    }
    house.later(DAY);
    let mut alive = mac("ALIVE");
    alive.enroll(&house, &house.invite(None).await).await;
    alive.drain(&house).await;
    house.later(250 * DAY);
    for _ in 0..4 {
        house.engine.renew_due_once().await.unwrap();
    }
    assert_eq!(alive.drain(&house).await, ["InstallProfile"]);
}

#[tokio::test]
async fn an_aborted_new_enrollment_leaves_the_old_one() {
    let house = house().await;
    let mut old = mac("UDID-1");
    old.enroll(&house, &house.invite(Some("ann@example.org")).await).await;
    let mut again = mac("UDID-1");
    again.identity(&house, &house.invite(Some("ann@example.org")).await).await;
    assert_eq!(again.authenticate(&house).await.status, 200);
    // The installation stops here (a network loss, a refusal, the user); the device keeps its old profile.
    house.later(30 * DAY);
    assert_eq!(old.put(&house, device::idle(&old.ids).unwrap()).await.status, 200);
}

#[tokio::test]
async fn an_unused_renewal_dies_with_the_next_one() {
    let house = house().await;
    let (old, thief, _uuid) = renewed(&house).await;
    // Somebody with the old key got a certificate and waits; the device itself renews again and uses it.
    let id = house.device_id("UDID-1").await;
    house.later(2 * DAY);
    let first = old.idle(&house).await.unwrap();
    old.ack(&house, &first.command_uuid, plist::Dictionary::new()).await;
    house.send(id, Intent::RenewIdentity).await.unwrap();
    let install = old.idle(&house).await.unwrap();
    let payload = install.command.get("Payload").and_then(plist::Value::as_data).unwrap();
    let details =
        decode_enrollment_profile(&bellwether_certs::cms::strip_signature(payload).unwrap()).unwrap();
    let key = KeyPair::generate_rsa2048().unwrap();
    let Reply::Success(cert) = scep(&house, &details, &key, Wishes::default(), None).await else { panic!() };
    let new = Mac { ids: old.ids.clone(), key, cert, topic: old.topic.clone(), ..mac("x") };
    assert_eq!(new.put(&house, device::idle(&new.ids).unwrap()).await.status, 200);
    assert_eq!(thief.put(&house, device::idle(&thief.ids).unwrap()).await.status, 403);
}

#[tokio::test]
async fn an_acknowledged_unenroll_ends_the_enrollment_also_without_check_out() {
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    mac.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    house.send(id, Intent::Unenroll).await.unwrap();
    assert_eq!(mac.drain(&house).await, ["RemoveProfile"]);
    let state = async |house: &House| house.devices().await[0].enrollment.as_ref().unwrap().state;
    assert_eq!(state(&house).await, EnrollmentState::Ended);
    // It has not left after all: better to have it back than to lose it.
    assert!(mac.idle(&house).await.is_none());
    assert_eq!(state(&house).await, EnrollmentState::Active);
}

#[tokio::test]
async fn bootstrap_tokens_belong_to_the_device_channel() {
    use bellwether_apple::Opaque;
    use bellwether_apple::checkin::{GetBootstrapToken, Message, SetBootstrapToken};
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    let set = Message::SetBootstrapToken(SetBootstrapToken {
        token: Some(Opaque::from("escrowed")),
        awaiting_configuration: None,
    });
    let get = Message::GetBootstrapToken(GetBootstrapToken::default());
    assert_eq!(mac.check_in(&house, &set).await.status, 200);
    let reply = mac.check_in(&house, &get).await;
    let text = String::from_utf8_lossy(&reply.body).replace(['\n', '\t'], "");
    assert!(text.contains("<data>ZXNjcm93ZWQ=</data>"), "{text}");
    let user = mac.ids.with_user("U-1").unwrap();
    let as_user = Mac { ids: user, key: mac.key.clone(), cert: mac.cert.clone(), ..crate::support::mac("x") };
    assert_eq!(as_user.check_in(&house, &get).await.status, 400);
    assert_eq!(as_user.check_in(&house, &set).await.status, 400);
}
