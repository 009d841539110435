//! Backups from outside: the verbs, the API's doors, and a fleet that goes on talking to a restored server.

use crate::harness::{House, PATIENCE, program};
use bellwether_sim::Family;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::process::Output;
use std::time::Instant;

/// A verb on the server's own machine, with its configuration.
async fn offline(house: &House, args: &[&str]) -> Output {
    let mut command = program("bellwether");
    command.arg("--data-dir").arg(&house.config.data_dir).args(["--output", "json"]).args(args);
    if let Some(database) = &house.config.database {
        command.env("BELLWETHER_DATABASE", database.expose_secret());
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn offline_json(house: &House, args: &[&str]) -> Value {
    let output = offline(house, args).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn why(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Restores; connections of a server that has just stopped may linger for a moment.
async fn restore(house: &House, name: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let output = offline(house, &["restore", name, "--replace"]).await;
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).unwrap();
        }
        let why = why(&output);
        assert!(why.contains("stop every server") && Instant::now() < until, "{why}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn q14_the_verbs_back_up_try_restore_and_end_the_quarantine() {
    let mut house = House::new().await;
    let mut phone = house.enrolled(Family::Iphone).await;
    let mut mac = house.enrolled(Family::Mac).await;
    let wipe = house.send(&phone, json!({ "type": "wipe" })).await;
    let made = house.cli_json(&["backup", "now"]).await;
    let name = made["name"].as_str().unwrap().to_owned();
    assert!(made["rows"].as_u64().unwrap() > 20, "{made}");
    // What is in it cannot be read without the key.
    let file = std::fs::read(house.config.backup_folder.join(&name)).unwrap();
    assert!(!file.windows(8).any(|window| window == phone.serial().as_bytes().get(..8).unwrap()));

    // Beside the running server.
    assert_eq!(offline_json(&house, &["backup", "verify"]).await[0]["good"], true);
    assert_eq!(offline_json(&house, &["backup", "verify", "--all"]).await[0]["good"], true);
    assert_eq!(offline_json(&house, &["backup", "drill"]).await["good"], true);
    let listed = house.cli_json(&["backup", "list"]).await;
    assert_eq!(listed["items"][0]["name"], name);
    assert_eq!((&listed["drill"]["good"], &listed["failure"]), (&json!(true), &Value::Null));
    assert_eq!(offline_json(&house, &["backup", "list", "--offline"]).await[0]["name"], name);
    assert_eq!(house.audited("backup.made", 1).await[0]["target"], format!("backup:{name}"));
    // A damaged one is named, and the exit code says so.
    let bad = house.folder().join("bad.bwb");
    std::fs::write(&bad, &file[..file.len() - 5]).unwrap();
    let output = offline(&house, &["backup", "verify", bad.to_str().unwrap()]).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("cut off"));
    assert!(!output.status.success());

    // The phone's wipe is taken back; the server is lost, and comes back from the backup.
    house.delete(&format!("/commands/{wipe}")).await.good();
    phone.poll().await.unwrap();
    if house.config.database.is_none() {
        let refused = why(&offline(&house, &["restore", &name, "--replace"]).await);
        assert!(refused.contains("in use by another bellwether process"), "{refused}");
    }
    house.stop().await;
    let refused = why(&offline(&house, &["restore", &name]).await);
    assert!(refused.contains("--replace") || refused.contains("stop every server"), "{refused}");
    let restored = restore(&house, &name).await;
    assert!(restored["aside"].is_string(), "{restored}");
    house.start().await;

    let found = house.cli_json(&["quarantine", "show"]).await;
    assert_eq!((&found["active"], &found["withheld_total"]), (&json!(true), &json!(1)));
    assert_eq!(found["withheld"][0]["id"], wipe.as_str());
    phone.poll().await.unwrap();
    assert!(!phone.told().iter().any(|told| told.request_type == "EraseDevice"), "nobody is wiped");
    let note = house.command(&wipe).await["command"]["note"].as_str().unwrap().to_owned();
    assert!(note.contains("quarantine after restore"), "{note}");
    let restart = house.send(&mac, json!({ "type": "restart" })).await;
    mac.poll().await.unwrap();
    assert_eq!(house.state(&restart).await, "acknowledged");
    let refused = house.cli(&["quarantine", "end"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cancelled or sent"));
    let ended = house.cli_json(&["quarantine", "end", "--cancel-withheld"]).await;
    assert_eq!((&ended["cancelled"], &ended["asked_again"]), (&json!(1), &json!(2)));
    assert_eq!(house.state(&wipe).await, "cancelled");
    assert_eq!(house.get("/quarantine").await["active"], false);
    house.audited("server.restored", 1).await;
    house.audited("quarantine.ended", 1).await;
    let report = house.get("/audit/verify").await;
    assert_eq!(report["intact"], true);
    assert_eq!(report["restored"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_and_the_quarantine_are_for_keys_of_the_whole_server() {
    let house = House::new().await;
    let everything = ["backup:read", "backup:write", "settings:write", "device:read", "command:send"];
    // The same actions in one site only, and others on the whole server.
    let id = house.default_site();
    let of_site: Vec<String> = everything.iter().map(|action| format!("{action}@{id}")).collect();
    for grants in [of_site, vec!["audit:read@server".to_owned()]] {
        let made = house.post("/keys", json!({ "name": "little", "grants": grants })).await.good();
        let mut little = house.site.clone();
        little.key = SecretString::from(made["secret"].as_str().unwrap().to_owned());
        for (method, path, body) in [
            (Method::GET, "/backups", None),
            (Method::POST, "/backups", Some(json!({}))),
            (Method::GET, "/quarantine", None),
            (Method::POST, "/quarantine/end", Some(json!({ "withheld": "send" }))),
        ] {
            let (status, _) = little.call(method, path, body, &[]).await.refusal();
            assert_eq!(status, 403, "{path} with {grants:?}");
        }
    }
    let reader =
        house.post("/keys", json!({ "name": "reader", "grants": ["backup:read@server"] })).await.good();
    let mut reader_site = house.site.clone();
    reader_site.key = SecretString::from(reader["secret"].as_str().unwrap().to_owned());
    assert_eq!(reader_site.get("/backups").await["items"], json!([]));
    assert_eq!(reader_site.post("/backups", json!({})).await.refusal().0, 403);
}
