//! What is stored, and what it is sealed with: AT-36, AT-41, AT-62, and the master key.

use super::edge::by_hand;
use super::sql;
use crate::harness::{House, Process, root, walk};
use crate::rows::{self, Tables};
use base64::Engine as _;
use bellwether::serve;
use bellwether_sim::Family;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A sealed value that cannot be opened, because it was changed or is another row's, is not sent in any form: its
/// command ends, says so, and the next one is handed over. The product knows no variables that would be expanded; what
/// is opened at the send is all there is.
#[tokio::test(flavor = "multi_thread")]
async fn at_36_what_cannot_be_opened_is_never_sent() {
    let house = House::new().await;
    let (mut mac, mut phone, mut pc) =
        (house.enrolled(Family::Mac).await, house.enrolled(Family::Iphone).await, house.enrolled_pc().await);
    let literal =
        |hex: &str| if house.database.is_some() { format!("'\\x{hex}'") } else { format!("X'{hex}'") };
    let id = |id: &str| literal(&id.replace('-', ""));
    let profile = |n: u8| {
        let text = format!(
            "<plist version=\"1.0\"><dict><key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key>\
             <integer>1</integer><key>PayloadIdentifier</key><string>org.example.{n}</string><key>PayloadUUID</key>\
             <string>5E0B7A0C-0B0A-4F54-9D7B-0A4C0E3C5A0{n}</string><key>PayloadContent</key><array/></dict></plist>"
        );
        json!({ "type": "install-profile", "profile": base64::engine::general_purpose::STANDARD.encode(text) })
    };
    // Changed; another command's; cut off; frozen bytes that were changed after the first hand-over.
    let changed = house.send(&mac, profile(1)).await;
    let others = house.send(&mac, profile(2)).await;
    let cut = house.send(&mac, profile(3)).await;
    let good = house.send(&mac, json!({ "type": "restart" })).await;
    let zeros = literal(&"00".repeat(200));
    sql(&house, &format!("UPDATE commands SET intent = {zeros} WHERE id = {}", id(&changed)));
    let other = format!("(SELECT c.intent FROM commands c WHERE c.id = {})", id(&good));
    sql(&house, &format!("UPDATE commands SET intent = {other} WHERE id = {}", id(&others)));
    sql(&house, &format!("UPDATE commands SET intent = {} WHERE id = {}", literal(""), id(&cut)));
    let told: Vec<String> = mac.poll().await.unwrap().into_iter().map(|told| told.request_type).collect();
    assert_eq!(told, ["RestartDevice"], "once, and nothing else");
    for command in [&changed, &others, &cut] {
        let shown = house.command(command).await;
        assert_eq!(shown["command"]["state"], "cancelled", "{shown:#}");
        assert!(shown["command"]["note"].as_str().unwrap().contains("could not prepare"), "{shown:#}");
    }
    assert_eq!(house.state(&good).await, "acknowledged");
    let frozen = house.send(&mac, json!({ "type": "lock" })).await;
    let sent = mac.idle().await.unwrap();
    assert!(!sent.body.is_empty());
    let behind = house.send(&mac, json!({ "type": "restart" })).await;
    sql(&house, &format!("UPDATE parts SET wire = {zeros} WHERE command_id = {}", id(&frozen)));
    let told: Vec<String> = mac.poll().await.unwrap().into_iter().map(|told| told.request_type).collect();
    assert_eq!(told, ["RestartDevice"]);
    assert_eq!(house.state(&behind).await, "acknowledged");
    // The secret that goes into a command is gone, then damaged.
    let gone = house.send(&phone, json!({ "type": "clear-passcode" })).await;
    sql(&house, "CREATE TABLE saved AS SELECT * FROM escrow");
    sql(&house, "DELETE FROM escrow");
    assert!(phone.poll().await.unwrap().is_empty());
    assert_eq!(house.state(&gone).await, "cancelled", "{:#}", house.command(&gone).await);
    sql(
        &house,
        &format!(
            "INSERT INTO escrow SELECT * FROM saved; UPDATE escrow SET value = {zeros}; DROP TABLE saved"
        ),
    );
    let damaged = house.send(&phone, json!({ "type": "clear-passcode" })).await;
    assert!(phone.poll().await.unwrap().is_empty());
    assert_eq!(house.state(&damaged).await, "cancelled");
    assert!(phone.inventory().passcode, "it still has its passcode");
    // A PC: a passphrase that cannot be opened, and what stands behind it.
    let wifi = house
        .tell(&pc, json!({ "type": "set-wifi", "ssid": "office", "passphrase": "hunter2hunter2" }))
        .await;
    let scan = house.tell(&pc, json!({ "type": "defender", "action": "quick-scan" })).await;
    sql(&house, &format!("UPDATE commands SET intent = {zeros} WHERE id = {}", id(&wifi)));
    let told = pc.session().await.unwrap();
    assert!(!told.iter().any(|told| told.uri.contains("WiFi")), "{told:?}");
    assert_eq!(
        (house.state(&wifi).await, house.state(&scan).await),
        ("cancelled".into(), "acknowledged".into())
    );
    let entries = house.audited("command.cancelled", 7).await;
    assert!(
        entries.iter().all(|entry| entry["actor"].as_str().unwrap().starts_with("server:")),
        "{entries:#?}"
    );
}

/// Names of devices and people, paths, agents and words of a protocol: one event stays one line, in both formats.
#[tokio::test(flavor = "multi_thread")]
async fn at_41_nobody_writes_a_line_of_the_log() {
    for format in ["text", "json"] {
        let process = Process::start(&[&format!("log.format={format}"), "log.level=trace"]).await;
        let site = process.site();
        let hostile = "x\r\n2026-11-25T00:00:00.000000Z  INFO forged \u{1b}[2J\u{9b}31m\u{2028}forged\u{85}\",\"forged\":\"";
        // XML carries no control characters; these it does.
        let name = "x\u{2028}forged\u{2029}\",\"forged\":\"";
        let mut mac =
            bellwether_sim::AppleDevice::builder(Family::Mac, site.http.clone()).name(name).build().unwrap();
        mac.enroll(&site.invite_for("ann@example.org").await).await.unwrap();
        mac.poll().await.unwrap();
        let mut pc = site.pc_builder().await.name(name).build().unwrap();
        let _ = pc.enroll(&site.discovery(), hostile, "nonsense").await;
        assert!(pc.enroll(&site.discovery(), name, "nonsense").await.is_err());
        pc.enroll_by_link(&site.invite_pc("ann@example.org").await).await.unwrap();
        let mut session = pc.open_session().unwrap();
        if let Some(message) = session.message_mut() {
            message.commands.push(bellwether_windows::syncml::Command::Status(
                bellwether_windows::syncml::Status {
                    cmd_id: "99".into(),
                    cmd_ref: name.into(),
                    cmd: "Exec".into(),
                    code: 200,
                    ..Default::default()
                },
            ));
        }
        let _ = session.step().await;
        let mut stranger = site.device(Family::Mac).await;
        let fetched = stranger.fetch_profile(&site.invite().await, &Default::default()).await.unwrap();
        stranger.install_enrollment(fetched);
        let mut details = stranger.enrollment().unwrap().clone();
        details.scep.common_name = "CN\u{1b}[2J forged".into();
        let _ = stranger.scep_enroll(&details).await;
        let raw = "\u{1b}[2J\u{2028}forged\u{85}";
        for request in [
            format!("GET /enroll/{raw} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            format!("GET /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {raw}\r\nConnection: close\r\n\r\n"),
            format!("F{raw} /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            "FORGED /livez%0d%0aforged HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.2.3.4 forged\r\nConnection: close\r\n\r\n".to_owned(),
        ] {
            tokio::task::block_in_place(|| by_hand(site, &site.url, &request));
        }
        let log = process.log();
        assert!(log.lines().count() > 100 && log.contains("enrollment refused"), "{log}");
        for line in log.lines().filter(|line| !line.is_empty()) {
            let odd = |c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c);
            assert!(!line.contains(odd), "{format}: {line:?}");
            if format == "json" {
                let event: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
                assert!(event["forged"].is_null() && event["level"].is_string(), "{line}");
            } else {
                let level = line.split_whitespace().nth(1).unwrap_or_default();
                assert!(
                    line.starts_with("20") && ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level),
                    "{line:?}"
                );
            }
        }
    }
}

/// Every value of bytes of a fresh server, by what it is: stored, or a file.
fn bytes_of(house: &House, tables: &Tables) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (table, rows) in tables {
        for row in rows {
            for (column, value) in row.as_object().unwrap() {
                let text = value.as_str().unwrap_or_default();
                // Keys, nonces, hashes and certificates; a shorter value is no secret, nor is the digest of no details.
                if column != "details_digest" && text.strip_prefix("\\x").is_some_and(|hex| hex.len() >= 32) {
                    all.insert(text.to_owned(), format!("{table}.{column}"));
                }
            }
        }
    }
    for name in ["master.key", "tls-ca.pem"] {
        let text = std::fs::read_to_string(house.config.data_dir.join(name)).unwrap();
        all.insert(text.trim().to_owned(), name.to_owned());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn at_62_two_installs_share_no_secret() {
    let mut installs = Vec::new();
    for _ in 0..2 {
        let house = House::new().await;
        house.invite().await;
        let account = json!({ "platform": "windows", "name": "kiosk", "cap": 2, "expires_in_seconds": 3600 });
        house.post("/enrollment-accounts", account).await.good();
        let everything = bytes_of(&house, &rows::all(&house));
        installs.push((house, everything));
    }
    let (one, two) = (&installs[0].1, &installs[1].1);
    for kind in [
        "sites.wrapped_key",
        "authorities.key",
        "authorities.certificate",
        "api_keys.hash",
        "server_settings.value",
        "invitations.code_hash",
        "enrollment_accounts.secret_hash",
        "master.key",
        "tls-ca.pem",
    ] {
        assert!(one.values().any(|name| name == kind), "{kind}: {:?}", one.values().collect::<BTreeSet<_>>());
    }
    let shared: Vec<(&String, &String)> = one.iter().filter(|(value, _)| two.contains_key(*value)).collect();
    assert!(shared.is_empty(), "{shared:?}");
    // Certificates: no part of the keys inside is shared either.
    let keys = |all: &BTreeMap<String, String>| -> BTreeSet<Vec<u8>> {
        let certificates =
            all.iter().filter(|(_, name)| *name == "authorities.certificate").map(|(hex, _)| {
                let hex = hex.strip_prefix("\\x").unwrap();
                (0..hex.len() / 2)
                    .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
                    .collect::<Vec<u8>>()
            });
        let mut ders: Vec<Vec<u8>> = certificates.collect();
        for (pem, _) in all.iter().filter(|(_, name)| *name == "tls-ca.pem") {
            ders.push(openssl::x509::X509::from_pem(pem.as_bytes()).unwrap().to_der().unwrap());
        }
        ders.iter()
            .map(|der| bellwether_certs::cert::CertInfo::parse(der).unwrap().spki_sha256.to_vec())
            .collect()
    };
    let (one, two) = (keys(one), keys(two));
    assert!(one.len() == 2 && two.len() == 2 && one.is_disjoint(&two));
}

/// What is built carries no key of ours, and no password that somebody could look up.
#[test]
fn at_62_the_program_carries_no_secret() {
    let program = crate::harness::program("bellwether").get_program().to_owned();
    let bytes = std::fs::read(program).unwrap();
    let found = keys_in(&bytes);
    assert!(found.is_empty(), "{found:?}");
    // That it would be found: a key of each kind in the middle of something else.
    let rsa = bellwether_certs::keys::KeyPair::generate_rsa2048().unwrap();
    let p256 = bellwether_certs::keys::KeyPair::generate_p256().unwrap();
    for key in [&rsa, &p256] {
        use secrecy::ExposeSecret as _;
        for form in [
            key.to_pkcs8_der().unwrap().expose_secret().clone(),
            key.to_pkcs8_pem().unwrap().expose_secret().clone(),
        ] {
            assert_eq!(keys_in(&[b"\0before", &form[..], b"after"].concat()).len(), 1);
        }
    }
    // Literals of our own code that look like a key: 32 or more characters of hex or base64 without a word in them.
    let mut files = Vec::new();
    ["src", "certs/src", "protocols"].iter().for_each(|room| walk(&root().join(room), &mut files));
    let mut literals = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        if path.contains("/tests") || path.contains("/benches") {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for literal in code.split('"').skip(1).step_by(2) {
            literals += 1;
            assert!(!looks_like_a_key(literal), "{path}: {literal}");
        }
    }
    assert!(literals > 3_000, "{literals}");
    assert!(looks_like_a_key("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"));
    assert!(looks_like_a_key("q83vEjRWeJq7zN3u/wARIjNEVWZ3iJmqu8zd7v8="));
    assert!(!looks_like_a_key("bellwether_http_request_duration_seconds"));
}

/// Private keys in PEM and PKCS#8, by where they begin.
fn keys_in(bytes: &[u8]) -> Vec<usize> {
    let (rsa, ec): (&[u8], &[u8]) = (
        b"\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x82",
        b"\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04",
    );
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n\\".contains(byte);
    let mut found = Vec::new();
    for at in 0..bytes.len() {
        // Most bytes begin none of them.
        if !matches!(bytes[at], b'P' | 2) {
            continue;
        }
        let here = &bytes[at..];
        let pem = here.starts_with(b"PRIVATE KEY-----")
            && here.len() > 80
            && here[16..80].iter().all(base64)
            && here[16..80].iter().filter(|byte| byte.is_ascii_alphanumeric()).count() > 50;
        if pem || here.starts_with(rsa) || here.starts_with(ec) {
            found.push(at);
        }
    }
    found
}

fn looks_like_a_key(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+/=-_".contains(c);
    let changes = text.as_bytes().windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() >= 32
        && text.chars().all(plain)
        && changes * 4 > text.len()
        && digits > 4
        && text.matches('-').count() < 4
}

fn kind(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    }
}

/// Another key, no key, and a key that is none: the server does not start, says why, and nothing of the database is
/// changed by it. With its own key it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_master_key_is_refused_at_start_and_changes_nothing() {
    let mut house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let lock = house.send(&mac, json!({ "type": "lock" })).await;
    house.stop().await;
    let before = rows::all(&house);
    let path = house.config.data_dir.join("master.key");
    let own = std::fs::read_to_string(&path).unwrap();
    let other = "5a".repeat(32);
    let refused = async |house: &House, key: Option<&str>| {
        let mut config = house.config.clone();
        config.master_key = key.map(SecretString::from);
        serve::start(config).await.err().expect("refused").to_string()
    };
    let said = refused(&house, Some(&other)).await;
    assert!(said.contains("not the one that sealed this database"), "{said}");
    assert!(!said.contains(&other), "{said}");
    std::fs::write(&path, format!("{other}\n")).unwrap();
    assert!(refused(&house, None).await.contains("not the one that sealed this database"));
    std::fs::write(&path, "nonsense\n").unwrap();
    refused(&house, None).await;
    std::fs::remove_file(&path).unwrap();
    assert!(refused(&house, None).await.contains("is missing"));
    assert!(!path.exists(), "no new key was made over the old one's data");
    let changed = rows::differences(&before, &rows::all(&house));
    assert!(changed.is_empty(), "{changed:#?}");
    std::fs::write(&path, own).unwrap();
    house.start().await;
    mac.poll().await.unwrap();
    assert_eq!(house.state(&lock).await, "acknowledged");
}
