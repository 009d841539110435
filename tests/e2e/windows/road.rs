//! What a PC, its owner and an administrator see.

use super::{code_of, msi, upload};
use crate::harness::House;
use bellwether_certs::cert::CertInfo;
use bellwether_sim::{SessionOptions, WindowsPc};
use bellwether_windows::syncml::client::Answer;
use bellwether_windows::syncml::{Format, Verb};
use serde_json::json;

fn uris(told: &[bellwether_sim::PcTold]) -> Vec<String> {
    told.iter().map(|t| t.uri.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_joins_by_the_link_and_takes_the_same_intents() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let shown = house.show_pc(&pc).await;
    assert_eq!(shown["device"]["platform"], "windows");
    assert_eq!(shown["device"]["enrollment"]["state"], "active");
    assert_eq!(shown["device"]["enrollment"]["account"], "ann@example.org");
    let facts = shown["facts"].as_array().unwrap();
    assert!(facts.iter().any(|f| f["key"] == "os.version"), "{facts:#?}");
    assert!(facts.len() > 10, "{}", facts.len());
    pc.set_pin(true);
    let lock = house.tell(&pc, json!({ "type": "lock" })).await;
    let restart = house.tell(&pc, json!({ "type": "restart" })).await;
    let set = json!({ "type": "configure", "settings": [
        { "area": "Update", "name": "ActiveHoursStart", "value": { "int": 8 } },
        { "area": "Experience", "name": "AllowCortana", "value": { "int": 0 } },
    ] });
    let configure = house.tell(&pc, set).await;
    pc.session().await.unwrap();
    for id in [&lock, &restart, &configure] {
        assert_eq!(house.state(id).await, "acknowledged", "{:#}", house.command(id).await);
    }
    let inventory = pc.inventory();
    assert_eq!((inventory.locks, inventory.reboots, inventory.policies.len()), (1, 1, 2));
    assert!(pc.session().await.unwrap().is_empty(), "nothing changed, nothing is sent");
    let list = house.get("/devices?platform=windows").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "seen in the same list");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_installed_with_progress_to_the_end() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let id = upload(&house, msi(300_000)).await;
    let intent = json!({ "type": "install-app", "app": { "source": "package", "id": id } });
    let install = house.tell(&pc, intent).await;
    pc.session().await.unwrap();
    assert_eq!(house.state(&install).await, "accepted", "{:#}", house.command(&install).await);
    for _ in 0..6 {
        pc.session().await.unwrap();
    }
    assert_eq!(house.state(&install).await, "acknowledged", "{:#}", house.command(&install).await);
    let package = pc.inventory().msis.values().next().cloned().unwrap();
    assert_eq!((package.version.as_str(), package.status), ("1.2.3", 70));
    let product = "{6F7CB29F-1319-4816-B345-0856916EB801}";
    let remove = house.tell(&pc, json!({ "type": "remove-app", "identifier": product })).await;
    pc.session().await.unwrap();
    assert_eq!(house.state(&remove).await, "acknowledged");
    assert!(pc.inventory().msis.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_fetched_by_scep_and_ends_with_the_enrollment() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let device = house.show_pc(&pc).await["device"]["id"].as_str().unwrap().to_owned();
    let list = format!("/devices/{device}/certificates");
    pc.hold_jobs(true);
    let wish = json!({ "type": "request-certificate", "id": "Office Wi-Fi" });
    let first = house.tell(&pc, wish.clone()).await;
    pc.session().await.unwrap();
    pc.session().await.unwrap();
    assert_eq!(house.state(&first).await, "accepted", "told, and pending on the PC");
    assert_eq!(house.get(&list).await["items"], json!([]), "nothing is issued before it is fetched");
    pc.hold_jobs(false);
    // What was held is done after this session, and told in the next one.
    pc.session().await.unwrap();
    pc.session().await.unwrap();
    assert_eq!(house.state(&first).await, "acknowledged", "{:#}", house.command(&first).await);
    let got = pc.inventory().certificates.into_iter().find(|c| c.kind == "SCEP").unwrap();
    let info = CertInfo::parse(&got.cert_der).unwrap();
    assert_eq!((got.id.as_str(), info.subject_cn.as_deref()), ("Office Wi-Fi", Some(device.as_str())));
    let listed = house.get(&list).await["items"][0].clone();
    assert_eq!((&listed["requested"], &listed["state"]), (&json!("Office Wi-Fi"), &json!("issued")));
    assert_eq!((&listed["serial"], &listed["common_name"]), (&json!(info.serial), &json!(device)));
    assert_eq!(house.show_pc(&pc).await["certificates"][0]["id"], listed["id"]);
    assert_eq!(
        house.cli_json(&["device", "certificates", &pc.serial()]).await["items"][0]["id"],
        listed["id"]
    );
    house.audited("certificate.issued", 1).await;
    // The same again: the old one is replaced when the new one is there.
    let second = house.tell(&pc, wish).await;
    let told = pc.session().await.unwrap();
    assert!(told.iter().all(|t| t.code() == 200 && !matches!(t.verb, Verb::Add | Verb::Delete)), "{told:?}");
    pc.session().await.unwrap();
    assert_eq!(house.state(&second).await, "acknowledged", "{:#}", house.command(&second).await);
    let renewed = pc.inventory().certificates.into_iter().find(|c| c.kind == "SCEP").unwrap();
    assert_ne!(renewed.cert_der, got.cert_der);
    house.delete(&format!("/devices/{device}/enrollment")).await;
    let states: Vec<_> = house.get(&list).await["items"].as_array().unwrap().clone();
    assert!(states.len() == 2 && states.iter().all(|c| c["state"] == "revoked"), "{states:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_fetched_is_a_failure_with_its_code() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    // A setting is lost on the way: the PC does not begin.
    pc.answer_with(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi/Install/CAThumbprint",
        Answer::status(200),
    );
    let command = house.tell(&pc, json!({ "type": "request-certificate", "id": "wifi" })).await;
    pc.session().await.unwrap();
    assert_eq!(house.state(&command).await, "failed", "Enroll without its settings");
    pc.clear_answers();
    pc.answer_with(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi/Status",
        Answer::value(Format::Int, "16"),
    );
    pc.answer_with(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi/ErrorCode",
        Answer::value(Format::Int, "-2146877436"),
    );
    let command = house.tell(&pc, json!({ "type": "request-certificate", "id": "wifi" })).await;
    pc.session().await.unwrap();
    pc.session().await.unwrap();
    let shown = house.command(&command).await;
    assert_eq!(shown["command"]["state"], "failed", "{shown:#}");
    assert_eq!(shown["parts"][0]["error"]["error_code"], "-2146877436", "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_on_our_page() {
    let house = House::with(|config| config.windows_sign_in_page = true).await;
    let link = house.invite_pc("ann@example.org").await;
    let mut pc = house.pc_builder().await.build().unwrap();
    pc.enroll_federated(&house.discovery(), "ann@example.org", code_of(&link)).await.unwrap();
    pc.session().await.unwrap();
    assert_eq!(house.show_pc(&pc).await["device"]["enrollment"]["state"], "active");
    let mut late = house.pc_builder().await.build().unwrap();
    let again = late.enroll_federated(&house.discovery(), "ann@example.org", code_of(&link)).await;
    assert!(again.is_err(), "the code is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_enrolls_as_many_pcs_as_it_may() {
    let house = House::new().await;
    let wish = json!({ "platform": "windows", "name": "kiosks", "cap": 4, "ownership": "company", "expires_in_seconds": 3600 });
    let made = house.post("/enrollment-accounts", wish).await.good();
    let password = made["password"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let mut pc = house.pc_builder().await.build().unwrap();
        // Twice, as a provisioning package tries again: what is not finished counts for an hour.
        pc.enroll(&house.discovery(), "kiosks", &password).await.unwrap();
        pc.enroll(&house.discovery(), "kiosks", &password).await.unwrap();
        pc.session().await.unwrap();
    }
    let mut third = house.pc_builder().await.build().unwrap();
    let refused = third.enroll(&house.discovery(), "kiosks", &password).await.unwrap_err();
    assert!(format!("{refused:?}").contains("DeviceCapReached"), "{refused:?}");
    assert!(third.enroll(&house.discovery(), "others", &password).await.is_err(), "another name");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_on_after_a_restart_in_the_middle() {
    let mut house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    pc.set_pin(true);
    let lock = house.tell(&pc, json!({ "type": "lock" })).await;
    let mut session = pc.open_session().unwrap();
    session.step().await.unwrap();
    house.stop().await;
    house.start().await;
    session.run().await.unwrap();
    assert_eq!(house.state(&lock).await, "acknowledged", "{:#}", house.command(&lock).await);
    assert_eq!(pc.inventory().locks, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_aborts_and_new_beginnings_lose_nothing() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    pc.set_pin(true);
    for options in [
        SessionOptions { drop_reply_at: Some(1), ..SessionOptions::default() },
        SessionOptions { drop_reply_at: Some(2), ..SessionOptions::default() },
        SessionOptions { abort_at: Some(2), ..SessionOptions::default() },
        SessionOptions { stop_at: Some(1), ..SessionOptions::default() },
        SessionOptions { restart_at: Some(1), ..SessionOptions::default() },
    ] {
        let lock = house.tell(&pc, json!({ "type": "lock" })).await;
        let _ = pc.session_with(options.clone()).await;
        pc.session().await.unwrap();
        assert_eq!(house.state(&lock).await, "acknowledged", "{options:?}: {:#}", house.command(&lock).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wbxml_and_signed_messages_take_the_same_road() {
    let house = House::new().await;
    let mut pc = house.pc_builder().await.wbxml(true).sign_messages(true).build().unwrap();
    pc.enroll_by_link(&house.invite_pc("ann@example.org").await).await.unwrap();
    pc.session().await.unwrap();
    let scan = house.tell(&pc, json!({ "type": "defender", "action": "quick-scan" })).await;
    pc.session().await.unwrap();
    assert_eq!(house.state(&scan).await, "acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_renews_and_leaves() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    house.tell(&pc, json!({ "type": "renew-identity" })).await;
    let told = pc.session().await.unwrap();
    assert!(uris(&told).iter().any(|uri| uri.ends_with("RenewNow")), "{told:?}");
    pc.session().await.unwrap();
    assert!(pc.old_identity().is_some(), "it renewed");
    let leave = house.tell(&pc, json!({ "type": "unenroll" })).await;
    pc.session().await.unwrap();
    let _ = pc.session().await;
    assert_eq!(house.state(&leave).await, "acknowledged", "{:#}", house.command(&leave).await);
    assert_eq!(house.show_pc(&pc).await["device"]["enrollment"]["state"], "ended");
    let mut other: WindowsPc = house.enrolled_pc().await;
    other.unenroll_by_user().await.unwrap();
    assert_eq!(house.show_pc(&other).await["device"]["enrollment"]["end_reason"], "left management");
}
