//! Invitations, identities, and the rules (a) to (e).

use crate::support::*;
use bellwether_apple::family::Family;
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{Error, may};
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{EnrollmentState, Intent, InvitationState};
use bellwether_scep::FailInfo;
use bellwether_scep::client::Reply;
use secrecy::{ExposeSecret as _, SecretString};

#[tokio::test]
async fn an_invited_device_enrolls_and_reports() {
    let house = house().await;
    let code = house.invite(Some("ann@example.org")).await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &code).await;
    let devices = house.devices().await;
    assert_eq!(devices.len(), 1);
    let enrollment = devices[0].enrollment.as_ref().unwrap();
    assert_eq!(enrollment.state, EnrollmentState::Active);
    assert_eq!(enrollment.account.as_deref(), Some("ann@example.org"));
    // The first inventory comes by itself.
    let asked = mac.drain(&house).await;
    assert!(asked.contains(&"DeviceInformation".to_owned()), "{asked:?}");
    assert_eq!(house.audited("enrollment.activated").await, 1);
    // The invitation is spent.
    let again = house.engine.mint_profile(&code, Family::Mac, false, None).await;
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
}

#[tokio::test]
async fn looking_at_a_link_mints_nothing() {
    let house = house().await;
    let code = house.invite(None).await;
    for _ in 0..50 {
        house.engine.open_invitation(&code, Some("bot")).await.unwrap();
    }
    assert_eq!(house.audited("challenge.minted").await, 0);
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &code).await;
    assert!(house.engine.open_invitation(&code, Some("bot")).await.is_err());
}

#[tokio::test]
async fn at_06_one_token_one_identity_under_concurrency() {
    let house = house().await;
    let code = house.invite(None).await;
    let details = profile(&house, &code).await;
    let keys: Vec<KeyPair> = (0..8).map(|_| KeyPair::generate_rsa2048().unwrap()).collect();
    let replies = futures_of(&house, &details, &keys).await;
    let won = replies.iter().filter(|r| matches!(r, Reply::Success(_))).count();
    assert_eq!(won, 1, "{replies:?}");
    // The winner's exact retry gets the same certificate; every other key stays out.
    let winner = replies.iter().position(|r| matches!(r, Reply::Success(_))).unwrap();
    let again = scep(&house, &details, &keys[winner], Wishes::default(), None).await;
    assert_eq!(again, replies[winner], "RSA signatures are deterministic: the request is the same");
    let loser = (winner + 1) % keys.len();
    let lost = scep(&house, &details, &keys[loser], Wishes::default(), None).await;
    assert_eq!(lost, Reply::Failure(FailInfo::BadRequest));
}

async fn futures_of(
    house: &House,
    details: &bellwether_apple::profile::EnrollmentDetails,
    keys: &[KeyPair],
) -> Vec<Reply> {
    let mut all = Vec::new();
    for key in keys {
        all.push(scep(house, details, key, Wishes::default(), None));
    }
    futures_util::future::join_all(all).await
}

#[tokio::test]
async fn at_09_a_request_for_more_than_an_identity_is_refused() {
    let house = house().await;
    let code = house.invite(None).await;
    let details = profile(&house, &code).await;
    let key = KeyPair::generate_rsa2048().unwrap();
    let greedy = [
        (Wishes { ca: true, ..Wishes::default() }, None),
        (Wishes { server_auth: true, ..Wishes::default() }, None),
        (Wishes { dns_name: Some("mdm.example.org"), ..Wishes::default() }, None),
        (Wishes::default(), Some("admin")),
    ];
    for (wishes, cn) in greedy {
        let reply = scep(&house, &details, &key, wishes, cn).await;
        assert_eq!(reply, Reply::Failure(FailInfo::BadRequest));
    }
    assert_eq!(house.audited("identity.refused").await, 4);
    // The challenge was not spent by the refusals.
    assert!(matches!(scep(&house, &details, &key, Wishes::default(), None).await, Reply::Success(_)));
}

#[tokio::test]
async fn a_lost_answer_and_a_new_key_recover() {
    let house = house().await;
    let code = house.invite(Some("ann@example.org")).await;
    // First attempt: the certificate is issued and never arrives.
    let mut lost = mac("UDID-1");
    lost.identity(&house, &code).await;
    // The person taps again: new profile, new key.
    let mut second = mac("UDID-1");
    second.enroll(&house, &code).await;
    // Exactly one live identity: the first one is revoked.
    assert_eq!(lost.authenticate(&house).await.status, 403);
    assert_eq!(house.devices().await.len(), 1);
    assert!(second.idle(&house).await.is_some());
}

#[tokio::test]
async fn rule_a_the_pinned_certificate_again_changes_nothing() {
    let house = house().await;
    let code = house.invite(None).await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &code).await;
    mac.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    house.send(id, Intent::Lock { message: None, phone_number: None }).await.unwrap();
    assert_eq!(mac.authenticate(&house).await.status, 200);
    assert_eq!(house.devices().await[0].enrollment.as_ref().unwrap().state, EnrollmentState::Active);
    assert_eq!(mac.idle(&house).await.unwrap().request_type, "DeviceLock");
}

#[tokio::test]
async fn rule_c_the_same_person_begins_a_new_epoch() {
    let house = house().await;
    let mut first = mac("UDID-1");
    first.enroll(&house, &house.invite(Some("ann@example.org")).await).await;
    first.drain(&house).await;
    let id = house.device_id("UDID-1").await;
    let lock = house.send(id, Intent::Lock { message: None, phone_number: None }).await.unwrap();
    let mut second = mac("UDID-1");
    second.enroll(&house, &house.invite(Some("Ann@Example.org")).await).await;
    let devices = house.devices().await;
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].enrollment.as_ref().unwrap().epoch, 2);
    // Q10: nothing crosses; the old identity is done.
    let asked = second.drain(&house).await;
    assert!(!asked.contains(&"DeviceLock".to_owned()), "{asked:?}");
    assert_eq!(house.command(lock.id).await.command.state.as_str(), "superseded");
    assert_eq!(first.put(&house, bellwether_apple::device::idle(&first.ids).unwrap()).await.status, 403);
}

#[tokio::test]
async fn at_04_rule_d_another_person_is_unproven_until_approved() {
    let house = house().await;
    let mut ann = mac("UDID-1");
    ann.enroll(&house, &house.invite(Some("ann@example.org")).await).await;
    ann.drain(&house).await;
    let real = house.device_id("UDID-1").await;
    let lock = house.send(real, Intent::Lock { message: None, phone_number: None }).await.unwrap();
    let mut bob = mac("UDID-1");
    bob.enroll(&house, &house.invite(Some("bob@example.org")).await).await;
    // Ann's phone is untouched, Bob's claim waits beside it and gets nothing.
    assert!(bob.idle(&house).await.is_none());
    let devices = house.devices().await;
    assert_eq!(devices.len(), 2);
    let claimant = devices.iter().find(|d| d.claims_device_id == Some(real)).unwrap();
    let enrollment = claimant.enrollment.as_ref().unwrap();
    assert_eq!(enrollment.state, EnrollmentState::Unproven);
    let refused = house.send(claimant.id, Intent::ClearPasscode).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(house.command(lock.id).await.command.state.as_str(), "queued");
    assert_eq!(ann.idle(&house).await.unwrap().request_type, "DeviceLock");
    // The admin says yes: Bob's enrollment takes the device over, Ann's ends.
    let permit = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
    house.engine.approve_enrollment(&permit, enrollment.id).await.unwrap();
    assert_eq!(ann.put(&house, bellwether_apple::device::idle(&ann.ids).unwrap()).await.status, 403);
    assert!(house.send(real, Intent::Lock { message: None, phone_number: None }).await.is_ok());
    assert_eq!(bob.idle(&house).await.unwrap().request_type, "DeviceLock");
}

#[tokio::test]
async fn at_04_rule_e_without_an_invitation_nothing_moves() {
    let house = house().await;
    let mut ann = mac("UDID-1");
    ann.enroll(&house, &house.invite(None).await).await;
    ann.drain(&house).await;
    let mut eve = mac("UDID-2");
    eve.enroll(&house, &house.invite(None).await).await;
    // Eve's own certificate, Ann's UDID.
    eve.ids = ann.ids.clone();
    assert_eq!(eve.authenticate(&house).await.status, 403);
    assert_eq!(eve.put(&house, bellwether_apple::device::idle(&eve.ids).unwrap()).await.status, 403);
    assert!(ann.idle(&house).await.is_none(), "Ann still polls");
}

#[tokio::test]
async fn scep_renewal_keeps_the_old_certificate_until_the_new_one_is_seen() {
    let house = house().await;
    let code = house.invite(None).await;
    let details = profile(&house, &code).await;
    let mut mac = mac("UDID-1");
    match scep(&house, &details, &mac.key, Wishes::default(), None).await {
        Reply::Success(der) => mac.cert = der,
        other => panic!("{other:?}"),
    }
    mac.topic = details.mdm.topic.clone();
    assert_eq!(mac.authenticate(&house).await.status, 200);
    assert_eq!(mac.token_update(&house).await.status, 200);
    mac.drain(&house).await;
    let new_key = KeyPair::generate_rsa2048().unwrap();
    let request = csr::build(&new_key, &details.scep.common_name, None, Wishes::default()).unwrap();
    let ca = authority(&details);
    let reply = scep_csr(&house, ca, &new_key, &request, Some((&mac.cert, &mac.key))).await;
    let Reply::Success(new_cert) = reply else { panic!("{reply:?}") };
    assert!(mac.idle(&house).await.is_none(), "the old one still works");
    let old = Mac { ids: mac.ids.clone(), key: mac.key, cert: mac.cert, ..crate::support::mac("x") };
    let renewed = Mac { ids: old.ids.clone(), key: new_key, cert: new_cert, ..crate::support::mac("x") };
    assert!(renewed.idle(&house).await.is_none());
    assert_eq!(old.put(&house, bellwether_apple::device::idle(&old.ids).unwrap()).await.status, 403);
    // The old certificate renews nothing any more.
    let third = KeyPair::generate_rsa2048().unwrap();
    let request = csr::build(&third, &details.scep.common_name, None, Wishes::default()).unwrap();
    let reply = scep_csr(&house, ca, &third, &request, Some((&old.cert, &old.key))).await;
    assert_eq!(reply, Reply::Failure(FailInfo::BadCertId));
}

#[tokio::test]
async fn an_expired_or_revoked_invitation_opens_nothing() {
    let house = house().await;
    let code = house.invite(None).await;
    let details = profile(&house, &code).await;
    house.later(25 * HOUR);
    assert!(matches!(house.engine.open_invitation(&code, None).await, Err(Error::NotFound(_))));
    let key = KeyPair::generate_rsa2048().unwrap();
    let late = scep(&house, &details, &key, Wishes::default(), None).await;
    assert_eq!(late, Reply::Failure(FailInfo::BadTime));
    let code = house.invite(None).await;
    let details = profile(&house, &code).await;
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let read = house.admin.permit::<may::ReadInvitations>(house.site()).unwrap();
    let list = house.engine.invitations(&read, None, 10).await.unwrap().items;
    let open = list.iter().find(|i| i.state == InvitationState::Open && !i.expired).unwrap();
    house.engine.revoke_invitation(&permit, open.id).await.unwrap();
    assert_eq!(
        scep(&house, &details, &key, Wishes::default(), None).await,
        Reply::Failure(FailInfo::BadTime)
    );
}

#[tokio::test]
async fn at_08_typed_codes_are_capped() {
    let house = house().await;
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let mut wish = wish(None);
    wish.short_code = true;
    let made = house.engine.create_invitation(&permit, wish).await.unwrap();
    let short = made.short_code.unwrap();
    assert!(house.engine.open_invitation(&short.expose_secret().to_lowercase(), None).await.is_ok());
    let mut throttled = false;
    for i in 0..60 {
        let guess = format!("{:09}", 100_000_000 + i);
        match house.engine.mint_profile(&guess, Family::Iphone, false, Some("198.51.100.7")).await {
            Err(Error::TooMany { .. }) => throttled = true,
            Err(Error::NotFound(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(throttled, "sixty wrong codes from one address");
    // Another address is not locked out by it.
    let right =
        house.engine.mint_profile(short.expose_secret(), Family::Iphone, false, Some("203.0.113.9")).await;
    assert!(right.is_ok());
    // A code has a cap of its own.
    let mut ended = false;
    for _ in 0..20 {
        ended |= house.engine.mint_profile(short.expose_secret(), Family::Iphone, false, None).await.is_err();
    }
    assert!(ended);
}

#[tokio::test]
async fn at_64_the_setup_token_works_once_and_only_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(TestClock(std::sync::atomic::AtomicI64::new(START)));
    let engine = open(folder.path(), clock.clone()).await.unwrap();
    let token = engine.setup_token().unwrap();
    assert!(matches!(engine.redeem_setup_token("bws_wrong", "x", None).await, Err(Error::Unauthenticated)));
    let (a, b) = tokio::join!(
        engine.redeem_setup_token(token.expose_secret(), "a", None),
        engine.redeem_setup_token(token.expose_secret(), "b", None),
    );
    assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1);
    drop(engine);
    // A restart offers no second one.
    let engine = open(folder.path(), clock).await.unwrap();
    assert!(engine.setup_token().is_none());
}

#[tokio::test]
async fn a_wrong_master_key_is_refused() {
    let house = house().await;
    let path = house.folder.path().join("master.key");
    let folder = house.folder.path().to_owned();
    let clock = house.clock.clone();
    let keep = house.folder;
    drop(house.engine);
    std::fs::remove_file(&path).unwrap();
    let missing = open(&folder, clock.clone()).await.err().unwrap().to_string();
    assert!(missing.contains("missing"), "{missing}");
    std::fs::write(&path, "A".repeat(43) + "=").unwrap();
    let wrong = open(&folder, clock).await.err().unwrap().to_string();
    assert!(wrong.contains("master key"), "{wrong}");
    drop(keep);
}

#[tokio::test]
async fn at_01_who_cannot_prove_an_identity_gets_nothing() {
    let house = house().await;
    let mut mac = mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    let idle = bellwether_apple::device::idle(&mac.ids).unwrap();
    // None at all, nonsense, a signature over another body.
    assert_eq!(put(&house, idle.clone(), None).await.status, 400);
    assert_eq!(put(&house, idle.clone(), Some(b"nonsense".to_vec())).await.status, 400);
    let other = bellwether_certs::cms::sign_detached(b"other", &mac.cert, &mac.key, mac.shape).unwrap();
    assert_eq!(put(&house, idle.clone(), Some(other)).await.status, 400);
    // A self-signed certificate, and one of another CA with the same name.
    let key = KeyPair::generate_rsa2048().unwrap();
    let own = csr::self_signed(&key, "x", [7; 16], START).unwrap();
    let signed = bellwether_certs::cms::sign_detached(&idle, &own, &key, mac.shape).unwrap();
    assert_eq!(put(&house, idle.clone(), Some(signed)).await.status, 403);
    let foreign = bellwether_certs::ca::DeviceCa::create(START, [9; 16]).unwrap();
    let cert = foreign.issue_device(&key.public_key_der().unwrap(), "Bellwether x", [8; 16], START).unwrap();
    let signed = bellwether_certs::cms::sign_detached(&idle, &cert, &key, mac.shape).unwrap();
    assert_eq!(put(&house, idle.clone(), Some(signed)).await.status, 403);
    // Expired beyond the grace, and revoked.
    house.later(366 * DAY + 31 * DAY);
    assert_eq!(mac.put(&house, idle.clone()).await.status, 403);
    house.later(-397 * DAY);
    assert_eq!(mac.put(&house, idle.clone()).await.status, 200);
    let id = house.devices().await[0].enrollment.as_ref().unwrap().id;
    let permit = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
    house.engine.end_enrollment(&permit, id, "stolen").await.unwrap();
    let reply = mac.put(&house, idle).await;
    assert_eq!((reply.status, reply.body.len()), (403, 0));
    assert!(house.audited("device.refused").await >= 6);
}

#[tokio::test]
async fn secrets_in_keys_are_hashed_and_revocation_is_at_once() {
    let house = house().await;
    let permit = house.admin.permit::<may::WriteKeys>(house.site()).unwrap();
    let grants = bellwether_model::permit::Grants(vec!["device:read@server".parse().unwrap()]);
    let key = house.engine.create_key(&permit, &house.admin, "reader", grants, DAY).await.unwrap();
    let reader = house.engine.caller(key.secret.expose_secret(), None).await.unwrap();
    assert!(reader.permit::<may::ReadDevices>(house.site()).is_ok());
    assert!(reader.permit::<may::SendCommands>(house.site()).is_err());
    house.engine.revoke_key(&permit, key.key.id).await.unwrap();
    assert!(house.engine.caller(key.secret.expose_secret(), None).await.is_err());
    let never = SecretString::from("bw_0000".to_owned());
    assert!(house.engine.caller(never.expose_secret(), None).await.is_err());
}

#[tokio::test]
async fn at_63_every_install_has_a_setup_token_of_its_own() {
    let mut installs = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let clock = std::sync::Arc::new(TestClock(std::sync::atomic::AtomicI64::new(START)));
        let engine = open(folder.path(), clock).await.unwrap();
        let token = engine.setup_token().unwrap();
        installs.push((folder, engine, token));
    }
    let [(_, one, first), (_, two, second)] = &installs[..] else { panic!() };
    assert!(first.expose_secret().len() >= 64 && first.expose_secret() != second.expose_secret());
    let refused = two.redeem_setup_token(first.expose_secret(), "thief", None).await;
    assert!(matches!(refused, Err(Error::Unauthenticated)), "{refused:?}");
    assert!(one.redeem_setup_token(first.expose_secret(), "owner", None).await.is_ok());
}

#[tokio::test]
async fn rule_b_a_renewal_that_we_asked_for_keeps_everything() {
    let house = house().await;
    let mut old = mac("UDID-1");
    old.enroll(&house, &house.invite(None).await).await;
    old.drain(&house).await;
    house.engine.housekeep_once().await.unwrap();
    assert!(old.idle(&house).await.is_none(), "nothing to renew in the first months");
    house.later(250 * DAY);
    house.engine.housekeep_once().await.unwrap();
    house.engine.housekeep_once().await.unwrap();
    let id = house.device_id("UDID-1").await;
    house.send(id, Intent::RefreshInventory { kinds: vec![] }).await.unwrap();
    let install = old.idle(&house).await.unwrap();
    assert_eq!(install.request_type, "InstallProfile");
    let payload = install.command.get("Payload").and_then(plist::Value::as_data).unwrap();
    let details = bellwether_apple::profile::decode_enrollment_profile(
        &bellwether_certs::cms::strip_signature(payload).unwrap(),
    )
    .unwrap();
    // The device installs it: a new key, a new certificate, Authenticate and TokenUpdate with it.
    let mut new = mac("UDID-1");
    match scep(&house, &details, &new.key, Wishes::default(), None).await {
        Reply::Success(der) => new.cert = der,
        other => panic!("{other:?}"),
    }
    new.topic = details.mdm.topic.clone();
    assert_eq!(new.authenticate(&house).await.status, 200);
    assert_eq!(
        old.put(&house, bellwether_apple::device::idle(&old.ids).unwrap()).await.status,
        200,
        "still good"
    );
    assert_eq!(new.token_update(&house).await.status, 200);
    assert_eq!(
        old.put(&house, bellwether_apple::device::idle(&old.ids).unwrap()).await.status,
        200,
        "until seen"
    );
    // Same enrollment, same queue.
    let next = new.ack(&house, &install.command_uuid, plist::Dictionary::new()).await.unwrap();
    assert_eq!(next.request_type, "DeviceInformation");
    assert_eq!(
        old.put(&house, bellwether_apple::device::idle(&old.ids).unwrap()).await.status,
        403,
        "done now"
    );
    let devices = house.devices().await;
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].enrollment.as_ref().unwrap().epoch, 1);
    house.engine.housekeep_once().await.unwrap();
    new.drain(&house).await;
    house.later(DAY);
    house.engine.housekeep_once().await.unwrap();
    assert!(new.idle(&house).await.is_none(), "renewed: nothing more to do");
}

#[tokio::test]
async fn the_certificate_that_signs_profiles_is_replaced_in_time() {
    let house = house().await;
    let signer = async |house: &House| {
        let code = house.invite(None).await;
        let file = house.engine.mint_profile(&code, Family::Iphone, false, None).await.unwrap();
        bellwether_certs::cms::verify_attached(&file.bytes).unwrap().1.cert_der
    };
    let first = signer(&house).await;
    let House { engine, clock, admin, folder } = house;
    drop(engine);
    clock.0.fetch_add(720 * DAY, std::sync::atomic::Ordering::SeqCst);
    let engine = open(folder.path(), clock.clone()).await.unwrap();
    let house = House { engine, clock, admin, folder };
    let second = signer(&house).await;
    assert_ne!(first, second);
    let info = bellwether_certs::cert::CertInfo::parse(&second).unwrap();
    assert!(info.not_after_ms > START + 1_400 * DAY);
}

#[tokio::test]
async fn a_sites_key_reaches_no_key_that_may_do_more() {
    let house = house().await;
    let permit = house.admin.permit::<may::WriteKeys>(house.site()).unwrap();
    let site = house.site();
    let grants = bellwether_model::permit::Grants(vec![
        format!("key:write@{site}").parse().unwrap(),
        format!("device:read@{site}").parse().unwrap(),
    ]);
    let local = house.engine.create_key(&permit, &house.admin, "site admin", grants, DAY).await.unwrap();
    let local = house.engine.caller(local.secret.expose_secret(), None).await.unwrap();
    let permit = local.permit::<may::WriteKeys>(site).unwrap();
    let seen = house.engine.keys(&permit).await.unwrap();
    assert_eq!(seen.len(), 1, "its own, not the server's first key");
    let all = house.admin.permit::<may::WriteKeys>(site).unwrap();
    let first = house.engine.keys(&all).await.unwrap().into_iter().find(|k| k.name == "first").unwrap();
    assert!(matches!(house.engine.revoke_key(&permit, first.id).await, Err(Error::NotFound(_))));
    let wider = bellwether_model::permit::Grants(vec!["device:read@server".parse().unwrap()]);
    assert!(house.engine.create_key(&permit, &local, "wider", wider, DAY).await.is_err());
    assert!(house.engine.revoke_key(&all, first.id).await.is_ok());
}
