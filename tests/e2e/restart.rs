//! Stopping, starting, and what is refused at the start.

use crate::attacks::sql;
use crate::harness::House;
use bellwether::config::Config;
use bellwether::serve;
use bellwether_sim::{Behaviour, Family, Script};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn devices_carry_on_after_a_restart() {
    let mut house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let mut phone = house.enrolled(Family::Iphone).await;
    // One command is on its way, one waits, one invitation is half used.
    mac.set_script(Script::new().on("RestartDevice", 1, Behaviour::Silence));
    let sent = house.send(&mac, json!({ "type": "restart" })).await;
    mac.poll().await.unwrap();
    let uuid = mac.told().last().unwrap().command_uuid.clone();
    let waiting = house.send(&phone, json!({ "type": "lock" })).await;
    let link = house.invite().await;
    let mut late = house.device(Family::Ipad).await;
    let profile = late.fetch_profile(&link, &Default::default()).await.unwrap();
    let before = house.get("/devices").await;

    house.stop().await;
    assert!(mac.idle().await.is_err(), "nobody answers");
    house.start().await;

    mac.poll().await.unwrap();
    assert_eq!(mac.told().last().unwrap().command_uuid, uuid, "the same command under the same UUID");
    phone.poll().await.unwrap();
    for id in [&sent, &waiting] {
        assert_eq!(house.state(id).await, "acknowledged");
    }
    late.enroll_by_profile(profile, &Default::default()).await.unwrap();
    let after = house.get("/devices").await;
    assert_eq!(after["items"].as_array().unwrap().len(), before["items"].as_array().unwrap().len() + 1);
    assert_eq!(house.get("/audit/verify").await["intact"], true);
    // Offline, on the stopped server's data, the same finding.
    house.stop().await;
    if house.config.database.is_none() {
        let output =
            house.cli(&["--data-dir", house.config.data_dir.to_str().unwrap(), "audit", "verify"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_refuses_a_newer_database() {
    let mut house = House::new().await;
    house.stop().await;
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')";
    sql(&house, newer);
    let why = serve::start(house.config.clone()).await.err().unwrap().to_string();
    assert!(why.contains("newer"), "{why}");
    assert!(!why.contains("Diesel") && !why.contains("Error {"), "words for people: {why}");
    let output = house.cli(&["--data-dir", house.config.data_dir.to_str().unwrap(), "audit", "verify"]).await;
    assert!(!output.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_folder_is_refused() {
    // The lock is the folder's, so this is about SQLite.
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::ephemeral(folder.path().join("data")).unwrap();
    config.limits.drain_seconds = 0;
    let first = serve::start(config.clone()).await.unwrap();
    let mut command = crate::harness::program("bellwether");
    command.args([
        "serve",
        "--set",
        "public.listen=127.0.0.1:0",
        "--set",
        "device.listen=127.0.0.1:0",
        "--data-dir",
    ]);
    command.arg(&config.data_dir);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(!output.status.success());
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(why.contains("another") || why.contains("already"), "{why}");
    assert!(!why.contains("panicked"), "{why}");
    // Offline verbs take the same lock.
    let mut command = crate::harness::program("bellwether");
    command.args(["audit", "verify", "--data-dir"]).arg(&config.data_dir);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    first.stop().await;
    // And the folder is free again.
    let again = serve::start(config).await.unwrap();
    again.stop().await;
}
