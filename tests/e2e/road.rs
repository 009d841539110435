//! The road that a device takes, over real TLS, seen from the HTTP API and from the command line.

use crate::harness::{House, PATIENCE, judge, keys, program};
use bellwether_sim::{
    AppleDevice, Behaviour, ErrorItem, Family, ProfileOptions, ScepOptions, Script, Status, User,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PROFILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.e2e</string>
<key>PayloadUUID</key><string>3F7D3D56-5E5A-4C5B-8B4B-2B1C4D1B7A11</string>
<key>PayloadDisplayName</key><string>Ann &amp; Co</string>
<key>PayloadContent</key><array><dict>
<key>PayloadType</key><string>com.apple.applicationaccess</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.e2e.restrictions</string>
<key>PayloadUUID</key><string>9A8D3D56-5E5A-4C5B-8B4B-2B1C4D1B7A22</string>
<key>allowCamera</key><false/></dict></array>
</dict></plist>
"#;

fn request_types(device: &AppleDevice) -> Vec<String> {
    device.told().iter().map(|told| told.request_type.clone()).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_locked_configured_and_seen() {
    let house = House::new().await;
    for family in [Family::Mac, Family::Iphone, Family::Ipad] {
        let mut device = house.device(family).await;
        device.enroll(&house.invite_for("ann@example.org").await).await.unwrap();
        device.poll().await.unwrap();
        let lock = house.send(&device, json!({ "type": "lock", "message": "Bring me back" })).await;
        let profile = house
            .send(&device, json!({ "type": "install-profile", "profile": base64(PROFILE.as_bytes()) }))
            .await;
        let inventory = house.send(&device, json!({ "type": "refresh-inventory" })).await;
        device.poll().await.unwrap();
        for id in [&lock, &profile, &inventory] {
            assert_eq!(house.state(id).await, "acknowledged", "{:#}", house.command(id).await);
        }
        assert_eq!(device.inventory().locks, 1);
        assert!(device.inventory().profiles.contains_key("org.example.e2e"));
        let shown = house.show(&device).await;
        assert_eq!(shown["device"]["hardware_id"], device.udid());
        assert_eq!(shown["device"]["serial"], device.serial());
        assert_eq!(shown["device"]["os_version"], device.hardware().os_version.as_str());
        assert_eq!(shown["device"]["product"], device.hardware().product_name.as_str());
        assert_eq!(shown["device"]["enrollment"]["state"], "active");
        assert_eq!(shown["device"]["enrollment"]["account"], "ann@example.org");
        let facts = shown["facts"].as_array().unwrap();
        assert!(facts.iter().any(|f| f["key"] == "os.version"), "{facts:#?}");
        let asked = request_types(&device);
        for request in
            ["DeviceInformation", "SecurityInfo", "InstalledApplicationList", "DeviceLock", "InstallProfile"]
        {
            assert!(asked.iter().any(|a| a == request), "{family:?}: {request} in {asked:?}");
        }
    }
    let list = house.get("/devices").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let listed = house.cli_json(&["device", "list"]).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 3, "{listed:#}");
}

/// What looks at links before people do.
const BOTS: &[&str] = &[
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "WhatsApp/2.23.20.0",
    "facebookexternalhit/1.1;line-poker/1.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
    "TelegramBot (like TwitterBot)",
    "Mozilla/5.0 (compatible; Google-Safety; +http://www.google.com/bot.html)",
];

#[tokio::test(flavor = "multi_thread")]
async fn previews_of_the_link_consume_nothing() {
    let house = House::new().await;
    let link = house.invite().await;
    let path = link.strip_prefix(&house.url).unwrap();
    for bot in BOTS {
        for method in [Method::GET, Method::HEAD] {
            let page = house.raw(method.clone(), path, &[("user-agent", bot)], Vec::new()).await;
            assert_eq!(page.status, 200, "{method} {bot}");
            assert_eq!(page.header("cache-control"), Some("no-store"), "{bot}");
            assert_eq!(page.body.is_empty(), method == Method::HEAD, "{bot}");
        }
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            assert_eq!(house.raw(method, path, &[("user-agent", bot)], Vec::new()).await.status, 405);
        }
    }
    assert!(house.audited("challenge.minted", 0).await.is_empty());
    let mut mac = house.device(Family::Mac).await;
    mac.enroll(&link).await.unwrap();
    // Spent: the page says no more than that the link does not work.
    let after = mac.open_page(&link).await.unwrap();
    assert_eq!(after.status, 404);
    let unknown = mac.open_page(&format!("{}/enroll/AAAAAAAAAAAAAAAAAAAAAAAAAAA", house.url)).await.unwrap();
    assert_eq!((unknown.status, unknown.html), (after.status, after.html));
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_the_profile_by_the_tls_ca() {
    let house = House::new().await;
    let link = house.invite().await;
    let mac = house.device(Family::Mac).await;
    let signed =
        mac.post_for_profile(&link, &ProfileOptions::default()).await.unwrap().ok("profile").unwrap();
    let (file, ca) = (house.folder().join("profile.der"), house.folder().join("ca.pem"));
    std::fs::write(&file, &signed.body).unwrap();
    std::fs::write(&ca, &house.ca_pem).unwrap();
    let verify = |file: &Path| {
        let mut command = Command::new("openssl");
        command.args(["cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-in"]).arg(file);
        command.arg("-CAfile").arg(&ca);
        judge::run("openssl", &mut command)
    };
    let Some(output) = verify(&file) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plist = plist_of(&output.stdout);
    assert_eq!(plist["PayloadScope"].as_string(), Some("User"));
    // The same invitation keeps its identifiers: the next attempt updates the profile instead of adding one.
    let again = mac.post_for_profile(&link, &ProfileOptions::unsigned()).await.unwrap();
    let again = plist_of(&again.body);
    for key in ["PayloadUUID", "PayloadIdentifier"] {
        assert_eq!(plist[key], again[key], "{key}");
    }
    let mut damaged = signed.body.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert!(!verify(&file).unwrap().status.success());
    judge::looked("openssl cms -verify (profile)", 2);
}

fn plist_of(bytes: &[u8]) -> plist::Dictionary {
    match bellwether_apple::guard::parse(bytes, &bellwether_apple::guard::Limits::default()).unwrap() {
        plist::Value::Dictionary(all) => all,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sees_and_does_it_all() {
    let house = House::new().await;
    let made = house
        .cli_json(&[
            "invitation",
            "create",
            "--platform",
            "apple",
            "--test-only",
            "--user",
            "ann@example.org",
        ])
        .await;
    let mut mac = house.device(Family::Mac).await;
    mac.enroll(made["link"].as_str().unwrap()).await.unwrap();
    mac.poll().await.unwrap();
    let serial = mac.serial().to_owned();
    let file = house.folder().join("wifi.mobileconfig");
    std::fs::write(&file, PROFILE).unwrap();
    let file = file.to_str().unwrap().to_owned();

    // `--wait` waits for what the device says.
    let polls = async {
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            if !mac.poll().await.unwrap().is_empty() {
                break;
            }
        }
    };
    let lock = ["command", "send", &serial, "lock", "--message", "hello", "--wait", "--wait-for", "20s"];
    let (locked, ()) = tokio::join!(house.cli_json(&lock), polls);
    assert_eq!(locked["state"], "acknowledged", "{locked:#}");
    let lock = locked["id"].as_str().unwrap();
    let pin = house.cli_json(&["command", "pin", lock]).await;
    assert_eq!(pin["value"].as_str(), mac.inventory().lock_pin.as_deref());
    assert!(house.cli_json(&["command", "result", lock]).await.is_array());

    let install = house.cli_json(&["command", "send", &serial, "install-profile", "--file", &file]).await;
    let refresh =
        house.cli_json(&["command", "send", &serial, "refresh-inventory", "--kind", "device"]).await;
    mac.poll().await.unwrap();
    for sent in [&install, &refresh] {
        let shown = house.cli_json(&["command", "show", sent["id"].as_str().unwrap()]).await;
        assert_eq!(shown["command"]["state"], "acknowledged", "{shown:#}");
    }
    let shown = house.cli_json(&["device", "show", &serial]).await;
    assert_eq!(shown["device"]["hardware_id"], mac.udid());
    let commands = house.cli_json(&["device", "commands", &serial]).await;
    assert!(commands["items"].as_array().unwrap().len() >= 4, "{commands:#}");

    let waiting = house.cli_json(&["command", "send", &serial, "restart"]).await;
    let id = waiting["id"].as_str().unwrap();
    assert_eq!(house.cli_json(&["command", "cancel", id]).await["state"], "cancelled");
    assert_eq!(house.cli_json(&["command", "retry", id]).await["state"], "queued");
    let only = house.cli_json(&["command", "list", "--state", "cancelled"]).await;
    assert_eq!(only["items"].as_array().unwrap().len(), 1);

    // What destroys asks, and without a terminal refuses.
    let wipe = house.cli(&["command", "send", &serial, "wipe"]).await;
    assert!(!wipe.status.success());
    assert!(String::from_utf8_lossy(&wipe.stderr).contains(&format!("--yes {serial}")));

    let invitation = house.cli_json(&["invitation", "create", "--test-only"]).await;
    let id = invitation["invitation"]["id"].as_str().unwrap();
    assert_eq!(house.cli_json(&["invitation", "revoke", id]).await["state"], "revoked");
    assert_eq!(house.cli_json(&["invitation", "list"]).await["items"].as_array().unwrap().len(), 2);
    assert_eq!(house.cli_json(&["apns", "status"]).await, json!([]));
    house.audited("command.queued", 4).await;
    assert_eq!(house.cli_json(&["audit", "verify", "--online"]).await["intact"], true);
    assert!(!house.cli_json(&["audit", "list"]).await["items"].as_array().unwrap().is_empty());
    assert_eq!(house.cli_json(&["openapi"]).await["openapi"].as_str().unwrap().get(..3), Some("3.1"));
    assert!(house.cli_json(&["config", "show", "--origin"]).await.is_array());
    let table = house.cli(&["device", "list"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains(&serial));
    for shell in ["bash", "zsh", "fish"] {
        assert!(house.cli(&["completions", shell]).await.stdout.len() > 1000, "{shell}");
    }
    // Errors are words for people, and exit codes for programs.
    let refused = house.cli(&["device", "show", "NOBODY"]).await;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("device"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulators_own_program_takes_the_road() {
    let house = House::new().await;
    let link = house.invite().await;
    let (state, ca) = (house.folder().join("device"), house.config.data_dir.join("tls-ca.pem"));
    let run = |verb: &str, more: &[&str]| {
        let mut command = program("bellwether-sim");
        command.args(["--output", "json", verb]).arg("--ca").arg(&ca).arg("--state").arg(&state).args(more);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    for (verb, more) in [
        ("enroll", &["--link", &link, "--serial", "SIM0000001"][..]),
        ("poll", &[]),
        ("renew", &[]),
        ("poll", &[]),
    ] {
        let output = run(verb, more).await.unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let shown = house.get("/devices/SIM0000001").await;
    assert_eq!(shown["device"]["enrollment"]["state"], "active");
    assert!(run("checkout", &[]).await.unwrap().status.success());
    let shown = house.get("/devices/SIM0000001").await;
    assert_eq!(shown["device"]["enrollment"]["state"], "ended");
}

/// Figures come from this program: in every mode it has to reach the server that it measures.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_test_loads_this_server() {
    use secrecy::ExposeSecret as _;
    let house = House::new().await;
    for (mode, connections) in
        [("idle", "keep"), ("commands", "keep"), ("windows-sessions", "full"), ("windows-sessions", "resume")]
    {
        let mut command = program("bellwether-sim");
        command
            .args(["load", "--output", "json", "--mode", mode, "--devices", "2", "--seconds", "1"])
            .args(["--connections", connections, "--url"])
            .arg(&house.url)
            .arg("--ca")
            .arg(house.config.data_dir.join("tls-ca.pem"))
            .env("BELLWETHER_API_KEY", house.key.expose_secret());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{mode}: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["mode"], mode, "{report:#}");
        assert_eq!(report["errors"], json!([]), "{report:#}");
        assert!(report["requests"]["count"].as_u64().unwrap() > 0, "{report:#}");
        if connections == "resume" {
            // Each of the two machines has one first handshake; all others resume.
            let shakes = |key: &str| report["sessions"][key].as_u64().unwrap();
            assert_eq!(shakes("resumed") + 2, shakes("handshakes"), "{report:#}");
            assert!(shakes("resumed") > 0, "{report:#}");
        }
    }
    let devices = house.get("/devices").await;
    assert_eq!(devices["items"].as_array().unwrap().len(), 8, "{devices:#}");
}

/// The program that says what unchanged settings cost: it must have seen them arrive, and then none.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_settings_are_not_sent_to_a_fleet() {
    use secrecy::ExposeSecret as _;
    let house = House::new().await;
    let mut command = program("bellwether-sim");
    command
        .args(["load", "--output", "json", "--mode", "windows-settings", "--devices", "3", "--url"])
        .arg(&house.url)
        .arg("--ca")
        .arg(house.config.data_dir.join("tls-ca.pem"))
        .arg("--data")
        .arg(&house.config.data_dir)
        .env("BELLWETHER_API_KEY", house.key.expose_secret());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], json!([]), "{report:#}");
    assert_eq!((&report["first"]["sent"], &report["again"]["sent"]), (&json!(75), &json!(0)), "{report:#}");
    let commands = house.get("/commands?state=acknowledged&limit=500").await;
    let configured: Vec<&Value> =
        commands["items"].as_array().unwrap().iter().filter(|c| c["kind"] == "configure").collect();
    let unsent = configured.iter().filter(|c| c["first_sent_at"].is_null()).count();
    assert_eq!((configured.len(), unsent), (6, 3), "{commands:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn not_now_waits_and_others_go_first() {
    let house = House::new().await;
    let mut phone = house.enrolled(Family::Iphone).await;
    phone.set_script(Script::new().on("InstallProfile", 2, Behaviour::NotNow));
    let before = phone.told().len();
    let profile =
        house.send(&phone, json!({ "type": "install-profile", "profile": base64(PROFILE.as_bytes()) })).await;
    let refresh = house.send(&phone, json!({ "type": "refresh-inventory", "kinds": ["device"] })).await;
    phone.poll().await.unwrap();
    // After another status than NotNow it is offered once more, and then the session is over: no busy loop.
    let asked = &request_types(&phone)[before..];
    assert_eq!(asked, ["InstallProfile", "DeviceInformation", "InstallProfile"]);
    assert_eq!(house.state(&profile).await, "not-now");
    assert_eq!(house.state(&refresh).await, "acknowledged");
    phone.poll().await.unwrap();
    assert_eq!(house.state(&profile).await, "acknowledged");
    let shown = house.command(&profile).await;
    assert_eq!(shown["parts"][0]["not_now"], 2, "{shown:#}");
    let installs = phone.told().iter().filter(|t| t.request_type == "InstallProfile");
    assert_eq!(installs.map(|t| &t.command_uuid).collect::<HashSet<_>>().len(), 1, "one command, one UUID");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_device_are_shown_and_can_be_retried() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let chain = vec![ErrorItem {
        code: 4001,
        domain: "MCInstallationErrorDomain".into(),
        localized: "Profil konnte nicht <installiert> werden".into(),
        us_english: Some("Profile could not be installed".into()),
    }];
    mac.set_script(Script::new().on("InstallProfile", 1, Behaviour::Error(chain)).on(
        "RestartDevice",
        1,
        Behaviour::FormatError,
    ));
    let profile =
        house.send(&mac, json!({ "type": "install-profile", "profile": base64(PROFILE.as_bytes()) })).await;
    let restart = house.send(&mac, json!({ "type": "restart" })).await;
    mac.poll().await.unwrap();
    let shown = house.command(&profile).await;
    assert_eq!(shown["command"]["state"], "failed", "{shown:#}");
    let error = shown["parts"][0]["error"].to_string();
    assert!(error.contains("4001") && error.contains("MCInstallationErrorDomain"), "{error}");
    assert_eq!(house.state(&restart).await, "failed");
    let again = house.post(&format!("/commands/{profile}/retry"), json!({})).await;
    assert_eq!(again.status, 201);
    let again = again.good()["id"].as_str().unwrap().to_owned();
    assert_ne!(again, profile);
    mac.poll().await.unwrap();
    assert_eq!(house.state(&again).await, "acknowledged");
    assert_eq!(house.state(&profile).await, "failed", "history stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_lost_replies_and_duplicates_lose_nothing() {
    let house = House::new().await;
    for behaviour in [
        Behaviour::Silence,
        Behaviour::LoseAnswer,
        Behaviour::LoseReply,
        Behaviour::Duplicate,
        Behaviour::Contradict(Status::Error),
        Behaviour::Contradict(Status::NotNow),
    ] {
        let mut mac = house.enrolled(Family::Mac).await;
        let before = mac.told().len();
        mac.set_script(Script::new().on("InstallProfile", 1, behaviour.clone()));
        let first = house
            .send(&mac, json!({ "type": "install-profile", "profile": base64(PROFILE.as_bytes()) }))
            .await;
        let second = house.send(&mac, json!({ "type": "restart" })).await;
        for _ in 0..3 {
            mac.poll().await.unwrap();
        }
        assert_eq!(house.state(&first).await, "acknowledged", "{behaviour:?}");
        assert_eq!(house.state(&second).await, "acknowledged", "{behaviour:?}");
        let told = &mac.told()[before..];
        let uuids: HashSet<&str> = told.iter().map(|t| t.command_uuid.as_str()).collect();
        assert_eq!(uuids.len(), 2, "{behaviour:?}: a resend keeps its UUID: {told:?}");
        let twice = matches!(behaviour, Behaviour::Silence | Behaviour::LoseAnswer);
        let installs = told.iter().filter(|t| t.request_type == "InstallProfile").count();
        assert_eq!(installs, if twice { 2 } else { 1 }, "{behaviour:?}");
    }
    // Q17: a report on what the server never sent is no error, neither are a foreign UUID's.
    let mut mac = house.enrolled(Family::Mac).await;
    for uuid in ["00000000-0000-4000-8000-000000000000", "not-a-uuid", ""] {
        let reply = mac.report(Status::Acknowledged, uuid, &[], plist::Dictionary::new()).await.unwrap();
        assert_eq!(reply.status, 200, "{uuid:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_makes_one_command() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let path = format!("/devices/{}/commands", mac.serial());
    let send = || {
        let body = json!({ "intent": { "type": "restart" } });
        house.call(Method::POST, &path, Some(body), &[("idempotency-key", "ticket-4711")])
    };
    let (a, b, c) = tokio::join!(send(), send(), send());
    let ids: HashSet<String> = [a, b, c]
        .into_iter()
        .filter(|answer| answer.status != 409 && answer.status != 503)
        .map(|answer| answer.good()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1);
    let restarted = mac.poll().await.unwrap().iter().filter(|t| t.request_type == "RestartDevice").count();
    assert_eq!(restarted, 1);
    let other = json!({ "intent": { "type": "lock" } });
    let (status, _) =
        house.call(Method::POST, &path, Some(other), &[("idempotency-key", "ticket-4711")]).await.refusal();
    assert_eq!(status, 409, "another request under the same key");
}

#[tokio::test(flavor = "multi_thread")]
async fn emergencies_overtake_and_what_cannot_be_done_is_said_before() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let phone = house.enrolled(Family::Iphone).await;
    house.send(&mac, json!({ "type": "refresh-inventory" })).await;
    house.send(&mac, json!({ "type": "restart" })).await;
    house.send(&mac, json!({ "type": "lock" })).await;
    let told = mac.poll().await.unwrap();
    assert_eq!(told[0].request_type, "DeviceLock", "{told:?}");
    assert_eq!(told[1].request_type, "RestartDevice");
    // An unsupervised iPhone cannot be restarted; a Mac has no unlock token.
    for (device, intent) in
        [(&phone, json!({ "type": "restart" })), (&mac, json!({ "type": "clear-passcode" }))]
    {
        let (status, why) = house.try_send(device, intent.clone()).await.refusal();
        assert_eq!(status, 422, "{intent}: {why}");
        assert!(why.len() > 20, "{why}");
    }
    assert_eq!(
        house.get(&format!("/devices/{}/commands", phone.serial())).await["items"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_person_enrolls_again_and_nothing_crosses() {
    let house = House::new().await;
    let mut mac = house.device(Family::Mac).await;
    mac.enroll(&house.invite_for("ann@example.org").await).await.unwrap();
    mac.poll().await.unwrap();
    mac.set_bootstrap_token(Some(b"of the first epoch")).await.unwrap().ok("token").unwrap();
    let lock = house.send(&mac, json!({ "type": "lock" })).await;
    let old = mac.identity().unwrap().clone();
    mac.wipe().unwrap();
    mac.enroll(&house.invite_for("ann@example.org").await).await.unwrap();
    let told = mac.poll().await.unwrap();
    assert!(told.iter().all(|t| t.request_type != "DeviceLock"), "{told:?}");
    assert_eq!(house.state(&lock).await, "superseded");
    let shown = house.show(&mac).await;
    assert_eq!(shown["device"]["enrollment"]["epoch"], 2);
    assert_eq!(shown["enrollments"].as_array().unwrap().len(), 2);
    assert_eq!(mac.get_bootstrap_token().await.unwrap(), None, "escrow belongs to an enrollment");
    let new = mac.identity().unwrap().clone();
    mac.set_identity(old).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 403);
    mac.set_identity(new).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_lost_after_issuance_and_a_new_key_recover() {
    let house = House::new().await;
    let link = house.invite().await;
    let mut mac = house.device(Family::Mac).await;
    let first = mac.fetch_profile(&link, &ProfileOptions::default()).await.unwrap();
    let attempt = mac.scep_attempt(&first.details, &ScepOptions::default()).await.unwrap();
    mac.scep_lose_answer(&attempt).await.unwrap();
    // An exact network retry gets the same certificate.
    let (one, two) = (attempt.send(&house.http).await.unwrap(), attempt.send(&house.http).await.unwrap());
    assert_eq!(one.cert_der, two.cert_der);
    // The person taps again: another challenge, another key; the earlier identity is gone.
    mac.enroll(&link).await.unwrap();
    mac.poll().await.unwrap();
    let good = mac.identity().unwrap().clone();
    mac.set_identity(one).unwrap();
    assert_eq!(mac.authenticate().await.unwrap().status, 403);
    mac.set_identity(good).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 200);
    assert_eq!(house.get("/devices").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_a_channel_of_their_own() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let ann = User::invent("ann").unwrap();
    mac.user_token_update(&ann).await.unwrap().ok("TokenUpdate").unwrap();
    mac.user_poll(&ann).await.unwrap();
    let body = json!({ "intent": { "type": "install-profile", "profile": base64(PROFILE.as_bytes()) }, "user": "ann" });
    let sent = house.post(&format!("/devices/{}/commands", mac.serial()), body).await.good();
    let id = sent["id"].as_str().unwrap();
    assert!(mac.poll().await.unwrap().is_empty(), "not through the device's channel");
    let told = mac.user_poll(&ann).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].user.as_deref(), Some(ann.id.as_str()));
    assert_eq!(house.state(id).await, "acknowledged");
    let channels = house.show(&mac).await["channels"].clone();
    assert!(
        channels.as_array().unwrap().iter().any(|c| c["kind"] == "user" && c["user"] == "ann"),
        "{channels:#}"
    );
    // A user that nobody announced has no queue, and costs the device nothing.
    let stranger = User::invent("bob").unwrap();
    assert!(mac.user_poll(&stranger).await.unwrap().is_empty());
    let body = json!({ "intent": { "type": "refresh-inventory" }, "user": "bob" });
    assert!(house.post(&format!("/devices/{}/commands", mac.serial()), body).await.refusal().0 < 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_token_is_kept_and_forgotten() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    assert_eq!(mac.get_bootstrap_token().await.unwrap(), None);
    let token: Vec<u8> = (0..=255).collect();
    mac.set_bootstrap_token(Some(&token)).await.unwrap().ok("set").unwrap();
    assert_eq!(mac.get_bootstrap_token().await.unwrap(), Some(token));
    let shown = house.show(&mac).await;
    assert!(shown["escrow"].as_array().unwrap().iter().any(|name| name == "bootstrap-token"), "{shown:#}");
    mac.set_bootstrap_token(None).await.unwrap().ok("forget").unwrap();
    assert_eq!(mac.get_bootstrap_token().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_checks_out_is_gone_and_can_come_back() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let waiting = house.send(&mac, json!({ "type": "restart" })).await;
    mac.checkout().await.unwrap().ok("CheckOut").unwrap();
    let shown = house.show(&mac).await;
    assert_eq!(shown["device"]["enrollment"]["state"], "ended");
    assert!(["superseded", "cancelled", "expired"].contains(&house.state(&waiting).await.as_str()));
    assert_eq!(house.try_send(&mac, json!({ "type": "lock" })).await.refusal().0, 409);
    assert_eq!(mac.idle().await.unwrap().status, 403);
    let again = mac.checkout().await.unwrap();
    assert!(again.status == 200 || again.status == 403, "{}", again.status);
    mac.wipe_enrollment();
    mac.enroll(&house.invite().await).await.unwrap();
    mac.poll().await.unwrap();
    assert_eq!(house.show(&mac).await["device"]["enrollment"]["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_wins_only_before_the_hand_over() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let queued = house.send(&mac, json!({ "type": "restart" })).await;
    assert_eq!(house.delete(&format!("/commands/{queued}")).await.good()["state"], "cancelled");
    mac.set_script(Script::new().on("RestartDevice", 1, Behaviour::Silence));
    let sent = house.send(&mac, json!({ "type": "restart" })).await;
    mac.poll().await.unwrap();
    assert_eq!(house.state(&sent).await, "sent");
    assert_eq!(house.delete(&format!("/commands/{sent}")).await.refusal().0, 409);
    mac.poll().await.unwrap();
    assert_eq!(house.state(&sent).await, "acknowledged");
    assert_eq!(house.delete(&format!("/commands/{sent}")).await.refusal().0, 409);
    assert_eq!(mac.told().iter().filter(|t| t.request_type == "RestartDevice").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_reaches_many_devices() {
    let house = House::new().await;
    let mut macs = Vec::new();
    for _ in 0..4 {
        macs.push(house.enrolled(Family::Mac).await);
    }
    let names: Vec<&str> = macs.iter().map(AppleDevice::serial).collect();
    let body = json!({ "devices": names, "intent": { "type": "install-profile", "profile": base64(PROFILE.as_bytes()) } });
    let started = house.post("/commands", body).await;
    assert_eq!(started.status, 202);
    let job = started.good()["id"].as_str().unwrap().to_owned();
    let until = Instant::now() + PATIENCE;
    loop {
        let now = house.get(&format!("/jobs/{job}")).await;
        if !now["finished_at"].is_null() {
            assert_eq!(
                (now["total"].as_i64(), now["done"].as_i64(), now["refused"].as_i64()),
                (Some(4), Some(4), Some(0))
            );
            break;
        }
        assert!(Instant::now() < until, "{now:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for mac in &mut macs {
        let told = mac.poll().await.unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
    }
    let listed = house.get(&format!("/commands?job={job}")).await;
    let states: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|c| c["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["acknowledged"; 4]);
    assert_eq!(house.audited("job.created", 1).await.len(), 1, "one entry for one action");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_revealed_to_whoever_may_and_the_look_is_recorded() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let lock = house.send(&mac, json!({ "type": "lock" })).await;
    mac.poll().await.unwrap();
    let grants = json!({ "name": "reader", "grants": ["device:read@server", "command:send@server"] });
    let reader = house.post("/keys", grants).await.good()["secret"].as_str().unwrap().to_owned();
    let mut limited = house.site.clone();
    limited.key = secrecy::SecretString::from(reader);
    let path = format!("/commands/{lock}/secret");
    assert_eq!(limited.call(Method::GET, &path, None, &[]).await.refusal().0, 403);
    let shown = house.get(&path).await;
    assert_eq!(shown["value"].as_str(), mac.inventory().lock_pin.as_deref());
    assert_eq!(house.audited("secret.revealed", 1).await.len(), 1);
    // Nowhere else.
    let everything =
        [house.command(&lock).await, house.show(&mac).await, house.get("/audit?limit=500").await];
    let pin = format!("\"{}\"", shown["value"].as_str().unwrap());
    assert!(everything.iter().all(|json| !json.to_string().contains(&pin)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_renewed_and_the_old_one_ends_when_the_new_is_seen() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let old = mac.identity().unwrap().clone();
    mac.scep_renew().await.unwrap();
    let new = mac.identity().unwrap().clone();
    assert_ne!(old.cert_der, new.cert_der);
    mac.set_identity(old.clone()).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 200, "the answer could have been lost");
    mac.set_identity(new).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 200);
    mac.set_identity(old).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 403);
    assert!(mac.scep_renew().await.is_err(), "a replaced identity renews nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_device_leaves_and_gets_nothing_more() {
    let house = House::new().await;
    let mut phone = house.enrolled(Family::Iphone).await;
    let wipe = house.send(&phone, json!({ "type": "wipe" })).await;
    let later = house.send(&phone, json!({ "type": "lock" })).await;
    let told = phone.poll().await.unwrap();
    assert_eq!(told[0].request_type, "EraseDevice", "{told:?}");
    assert!(!phone.is_enrolled());
    assert_eq!(house.state(&wipe).await, "acknowledged");
    assert!(["superseded", "cancelled"].contains(&house.state(&later).await.as_str()));
    assert_eq!(house.show(&phone).await["device"]["enrollment"]["state"], "ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_can_be_required() {
    let house = House::with(|config| config.apple_require_client_certificate = true).await;
    let link = house.invite().await;
    let mut mac = AppleDevice::builder(Family::Mac, house.http.clone())
        .keys(keys().await)
        .client_certificate(true)
        .build()
        .unwrap();
    mac.enroll(&link).await.unwrap();
    mac.poll().await.unwrap();
    assert!(mac.enrollment().unwrap().mdm.server_url.starts_with(&house.device_url));
    let mut bare = house.device(Family::Mac).await;
    let refused = bare.enroll(&house.invite().await).await.unwrap_err();
    assert_eq!(refused.status(), Some(400), "{refused}");
}
