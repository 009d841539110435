//! Devices of A that say they are B's, name what is B's, and answer for what is B's.

use super::Street;
use super::wishes::Pool;
use crate::attacks::Noise;
use crate::harness::keys;
use crate::windows::code_of;
use bellwether_apple::checkin::Status;
use bellwether_sim::{AppleDevice, Family, SessionOptions, User, WindowsPc};
use bellwether_windows::syncml::{Alert, Command, Data, Item, Location, Results, Status as SyncStatus};
use plist::Dictionary;
use reqwest::Method;
use serde_json::json;

/// One thing of many; its name.
pub async fn step(street: &mut Street, pool: &Pool, noise: &mut Noise) -> &'static str {
    mend(street).await;
    match noise.below(12) {
        0 => a_mac_that_is_theirs(street).await,
        1 => a_mac_in_their_name(street, noise).await,
        2 => answers_for_their_commands(street, pool, noise).await,
        3 => their_users_and_tokens(street).await,
        4 => unknown_messages(street, pool, noise).await,
        5 => a_pc_that_is_theirs(street).await,
        6 => a_pc_in_their_name(street).await,
        7 => a_session_about_theirs(street, pool, noise).await,
        8 => addresses_with_their_ids(street, pool, noise).await,
        9 => their_account_with_our_password(street).await,
        10 => the_identity_of_a_mac_for_a_pc(street).await,
        _ => ordinary_life(street, noise).await,
    }
}

/// Devices of A that were wiped or thrown out come back, so that every step has somebody to take it.
async fn mend(street: &mut Street) {
    let alive = street.at_a.mac.idle().await.is_ok_and(|reply| reply.status == 200);
    if !alive {
        let mut mac = street.a.device(Family::Mac).await;
        mac.enroll(&street.a.invite().await).await.unwrap();
        street.at_a.mac = mac;
    }
    if street.at_a.pc.session().await.is_err() {
        let mut pc = street.a.pc_builder().await.build().unwrap();
        pc.enroll_by_link(&street.a.invite_pc("again@example.org").await).await.unwrap();
        pc.session().await.unwrap();
        street.at_a.pc = pc;
    }
}

async fn a_mac_that_is_theirs(street: &mut Street) -> &'static str {
    let theirs = &street.at_b.mac;
    let builder = AppleDevice::builder(Family::Mac, street.a.http.clone()).keys(keys().await);
    let builder = builder.udid(theirs.udid()).serial(theirs.serial()).name("Mac of birch");
    let mut twin = builder.build().unwrap();
    let account = json!({ "account": "mac.birch@example.org", "name": "Ann of birch" });
    twin.enroll(&street.a.invite_with(account).await).await.unwrap();
    twin.poll().await.unwrap();
    assert_eq!(twin.get_bootstrap_token().await.unwrap(), None, "B's bootstrap token stays at B");
    twin.checkout().await.unwrap();
    "a Mac that is theirs"
}

async fn a_mac_in_their_name(street: &mut Street, noise: &mut Noise) -> &'static str {
    let mac = &mut street.at_a.mac;
    let own = mac.udid().to_owned();
    mac.set_udid(street.at_b.mac.udid());
    let reply = match noise.below(5) {
        0 => mac.idle().await,
        1 => mac.authenticate().await,
        2 => mac.token_update().await,
        3 => mac.checkout().await,
        _ => mac.set_bootstrap_token(None).await,
    };
    let status = reply.unwrap().status;
    mac.set_udid(own);
    assert!([400, 403].contains(&status), "{status}");
    "a Mac in their name"
}

async fn answers_for_their_commands(street: &mut Street, pool: &Pool, noise: &mut Noise) -> &'static str {
    let mut parts: Vec<String> = pool.theirs.clone();
    parts.extend(street.before["parts"].iter().map(|row| super::id_of(&row["id"])));
    for _ in 0..4 {
        // The last ones are the parts; half of all tries are one.
        let at =
            if noise.below(2) == 0 { noise.below(parts.len()) } else { parts.len() - 1 - noise.below(4) };
        let uuid = parts[at].to_uppercase();
        let status = [Status::Acknowledged, Status::Error, Status::NotNow][noise.below(3)];
        let reply = street.at_a.mac.report(status, &uuid, &[], Dictionary::new()).await.unwrap();
        assert_eq!(reply.status, 200, "an answer to nothing gets the next command");
    }
    "answers for their commands"
}

async fn their_users_and_tokens(street: &mut Street) -> &'static str {
    let user = User { id: street.at_b.user.id.clone(), ..User::invent("ann-birch").unwrap() };
    let mac = &mut street.at_a.mac;
    mac.user_token_update(&user).await.unwrap().ok("TokenUpdate").unwrap();
    mac.user_poll(&user).await.unwrap();
    mac.set_push_token(street.at_b.mac.push_token());
    mac.token_update().await.unwrap().ok("TokenUpdate").unwrap();
    mac.get_bootstrap_token().await.unwrap();
    "their users and tokens"
}

async fn unknown_messages(street: &mut Street, pool: &Pool, noise: &mut Noise) -> &'static str {
    for kind in ["DeclarativeManagement", "GetToken", "UserAuthenticate", "ReturnToService", "Nonsense"] {
        let mut message = Dictionary::new();
        message.insert("MessageType".into(), kind.into());
        message.insert("UDID".into(), street.at_a.mac.udid().into());
        for key in ["EnrollmentID", "UserID", "Endpoint", "CommandUUID", "Data", "DigestResponse", "Site"] {
            if noise.below(2) == 0 {
                message.insert(key.into(), pool.text(noise).into());
            }
        }
        let body = crate::attacks::xml(&plist::Value::Dictionary(message));
        let reply =
            street.at_a.mac.signed_request(body, "application/x-apple-aspen-mdm-checkin").await.unwrap();
        assert!(reply.status < 500 && reply.status != 401, "{kind}: {}", reply.status);
    }
    "unknown messages"
}

async fn a_pc_that_is_theirs(street: &mut Street) -> &'static str {
    let theirs = &street.at_b.pc;
    let hardware = theirs.hardware();
    let builder = street.a.pc_builder().await.device_id(theirs.device_id()).serial(theirs.serial());
    let mut twin = builder.hw_dev_id(hardware.hw_dev_id).name("PC-of-birch").build().unwrap();
    twin.enroll_by_link(&street.a.invite_pc("pc.birch@example.org").await).await.unwrap();
    twin.session().await.unwrap();
    twin.unenroll_by_user().await.unwrap();
    "a PC that is theirs"
}

async fn a_pc_in_their_name(street: &mut Street) -> &'static str {
    let pc = &mut street.at_a.pc;
    let own = pc.device_id();
    pc.set_device_id(street.at_b.pc.device_id());
    let refused = pc.session().await.is_err();
    pc.set_device_id(own);
    assert!(refused);
    "a PC in their name"
}

async fn a_session_about_theirs(street: &mut Street, pool: &Pool, noise: &mut Noise) -> &'static str {
    let mut session = street.at_a.pc.open_session().unwrap();
    for _ in 0..3 {
        if let Some(message) = session.message_mut() {
            for n in 0..3 {
                let id = pool.text(noise);
                let uri = format!("./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{id}/Status");
                let item = Item {
                    source: Some(Location { uri, ..Location::default() }),
                    data: Some(Data::Text(pool.text(noise))),
                    ..Item::default()
                };
                let cmd_id = format!("{}", 900 + n);
                message.commands.push(match noise.below(3) {
                    0 => Command::Results(Results {
                        cmd_id,
                        cmd_ref: id,
                        items: vec![item],
                        ..Results::default()
                    }),
                    1 => Command::Status(SyncStatus {
                        cmd_id,
                        cmd_ref: id,
                        cmd: "Exec".into(),
                        code: 200,
                        items: vec![item],
                        ..SyncStatus::default()
                    }),
                    _ => Command::Alert(Alert { cmd_id, items: vec![item], code: 1226, ..Alert::default() }),
                });
            }
        }
        if session.is_over() || session.step().await.is_err() {
            break;
        }
    }
    "a session about theirs"
}

async fn addresses_with_their_ids(street: &mut Street, pool: &Pool, noise: &mut Noise) -> &'static str {
    let id = pool.text(noise);
    let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
    for (method, path) in [
        (Method::GET, format!("{}/{id}", street.at_a.package)),
        (Method::GET, format!("{}?package={id}&enrollment={id}", street.at_a.package)),
        (Method::HEAD, format!("/packages/{id}")),
        (Method::PUT, format!("{}/{id}", street.at_a.upload)),
        (Method::PUT, format!("/uploads/{id}")),
    ] {
        let reply = street.a.raw(method, &path, &[("x-package", &id)], b"PK of alder".to_vec()).await;
        assert!(reply.status < 500, "{path}: {}", reply.status);
    }
    // B's own addresses with an identity of A, where one is asked for.
    let identity = street.at_a.pc.identity().unwrap();
    let http = street.a.http.with_client_certificate(&identity.cert_der, &identity.key).unwrap();
    let request = http.request(Method::GET, &format!("{}{}", street.a.device_url, street.at_b.package));
    assert_eq!(http.send("package", request).await.unwrap().status, 404);
    "addresses with their ids"
}

async fn their_account_with_our_password(street: &mut Street) -> &'static str {
    let link = street.a.invite_pc("pc.birch@example.org").await;
    for (name, password) in [
        (street.at_b.account.0.as_str(), street.at_a.account.1.as_str()),
        ("pc.birch@example.org", "nonsense"),
        (street.at_a.account.0.as_str(), code_of(&street.a.invite().await)),
        ("kiosk-birch", code_of(&link)),
    ] {
        let mut pc: WindowsPc =
            street.a.pc_builder().await.device_id(street.at_b.pc.device_id()).build().unwrap();
        // The last one is a good code under B's name: what is enrolled then is A's.
        let _ = pc.enroll(&street.a.discovery(), name, password).await;
    }
    "their account with our password"
}

async fn the_identity_of_a_mac_for_a_pc(street: &mut Street) -> &'static str {
    let identity = street.at_a.mac.identity().unwrap().clone();
    let options = SessionOptions {
        presented: Some(identity.clone()),
        signer: Some(identity),
        sign: Some(true),
        ..SessionOptions::default()
    };
    let own = street.at_a.pc.device_id();
    street.at_a.pc.set_device_id(street.at_b.mac.udid());
    assert!(street.at_a.pc.session_with(options).await.is_err());
    street.at_a.pc.set_device_id(own);
    "the identity of a Mac for a PC"
}

async fn ordinary_life(street: &mut Street, noise: &mut Noise) -> &'static str {
    match noise.below(3) {
        0 => drop(street.at_a.mac.poll().await),
        1 => drop(street.at_a.phone.poll().await),
        _ => drop(street.at_a.pc.renew().await),
    }
    "ordinary life"
}
