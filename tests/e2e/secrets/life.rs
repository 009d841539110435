//! A server's life with a canary in every secret field, and everything that is left of it.

use super::{cluster_folders, search};
use crate::harness::{Database, PATIENCE, Process, Site};
use crate::needles::{Found, Needles};
use crate::rows::{self, Tables};
use crate::walls::furniture::{Furniture, base64, furnish};
use crate::windows::entra::Microsoft;
use bellwether_apple::checkin::Status;
use bellwether_certs::hash::{hex, random_bytes};
use bellwether_sim::{Exchange, Family, Http, Record};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const TOPIC: &str = "com.apple.mgmt.External.cccccccc-6f3b-4f5a-9c61-0d1e2f3a4b5c";

/// What a server left behind.
pub struct Life {
    pub needles: Needles,
    pub exchanges: Vec<Exchange>,
    /// Standard output and standard error.
    pub log: String,
    pub metrics: String,
    /// Files of the database, and what was found in them.
    pub running: BTreeMap<String, BTreeSet<Found>>,
    pub stopped: BTreeMap<String, BTreeSet<Found>>,
    /// As a backup by the database's own tool has it; empty on SQLite.
    pub dump: String,
    pub rows: Tables,
    pub on_postgres: bool,
}

/// The secrets while they are planted.
struct Planted {
    needles: Needles,
}

impl Planted {
    /// A fresh secret for a field.
    fn fresh(&mut self, name: &str) -> String {
        let secret = format!("canary-{}", hex(&random_bytes::<10>().unwrap()));
        self.needles.add(name, secret.as_bytes());
        secret
    }

    fn keep(&mut self, name: &str, secret: &str) {
        self.needles.add(name, secret.as_bytes());
    }

    /// Six digits turn up everywhere; as a value in a document they do not.
    fn keep_pin(&mut self, name: &str, pin: &str) {
        for form in [format!(">{pin}<"), format!("\"{pin}\""), format!("pin={pin}"), format!("PIN {pin}")] {
            if form.len() >= crate::needles::SHORTEST {
                self.keep(name, &form);
            }
        }
    }
}

impl Life {
    pub async fn lived() -> Self {
        let mut planted = Planted { needles: Needles::new() };
        let files = tempfile::tempdir().unwrap();
        let microsoft = Microsoft::start();
        let metrics = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut sets = vec![
            "log.level=trace".to_owned(),
            format!("metrics.listen={metrics}"),
            "wns.package_sid=ms-app://s-1-15-2-1-2-3-4-5-6-7".to_owned(),
            "wns.package_family_name=Example.App_8wekyb3d8bbwe".to_owned(),
            "wns.token_endpoint=https://127.0.0.1:1/token".to_owned(),
            format!("wns.client_secret={}", planted.fresh("client secret of WNS")),
        ];
        sets.extend(microsoft.flags(files.path()).map(|(name, value)| format!("{name}={value}")));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let password = planted.fresh("password of the database");
        let database = Database::fresh().map(|database| database.with_password(&password));
        let on_postgres = database.is_some();
        let mut process = Process::start_on(&sets, database).await;
        let data = process.folder.path().join("data");
        planted.keep("setup token", &process.setup_token);
        let master = std::fs::read_to_string(data.join("master.key")).unwrap();
        planted.keep("master key", master.trim());
        let record = Record::default();
        let mut site = process.site().clone();
        site.http = Http::new(site.ca_pem.as_bytes()).unwrap().recording(record.clone());
        planted.keep("first key", site.key.expose_secret());
        let mut furniture = furnish(&site, "canary", TOPIC).await;
        plant_furniture(&mut planted, &furniture);
        commands_to_apple(&mut planted, &site, &mut furniture).await;
        commands_to_windows(&mut planted, &site, &mut furniture).await;
        keys_and_tokens(&mut planted, &site, &microsoft).await;
        mistakes(&planted, &site, &mut furniture).await;
        everything_there_is_to_read(&site).await;
        let exchanges: Vec<Exchange> = record.lock().unwrap().drain(..).collect();
        signatures(&mut planted, &exchanges);
        let metrics = tokio::task::spawn_blocking(move || plain_get(metrics)).await.unwrap();
        // Two things that nobody hides: if these are not found, the wrong bytes were searched.
        planted.keep("control: serial number", furniture.mac.serial());
        planted.keep("control: account", "mac.canary@example.org");
        let needles = planted.needles;
        let rows = rows::stored(process.database.as_ref(), &data);
        let (mut running, mut stopped) = (BTreeMap::new(), BTreeMap::new());
        let mut folders = vec![data];
        if let Some(database) = &process.database {
            crate::harness::psql(&database.admin_url(), "CHECKPOINT");
            folders.extend(cluster_folders(database));
        }
        let look = |into: &mut BTreeMap<String, BTreeSet<Found>>| {
            folders.iter().for_each(|folder| search(&needles, folder, &["master.key", "setup-token"], into));
        };
        look(&mut running);
        process.stop();
        look(&mut stopped);
        let dump = process.database.as_ref().map(dumped).unwrap_or_default();
        // The controls are in the log and in answers, rightly.
        let log = process.log();
        let needles = needles.without("control: ");
        Self { needles, exchanges, log, metrics, running, stopped, dump, rows, on_postgres }
    }
}

fn plant_furniture(planted: &mut Planted, at: &Furniture) {
    planted.keep("invitation link", at.invitation.0.rsplit('/').next().unwrap());
    planted.keep("short code", &at.invitation.1);
    planted.keep("password of an account", &at.account.1);
    planted.keep("pc: token of a package", at.package.rsplit('/').next().unwrap());
    planted.keep("pc: token of an upload", at.upload.rsplit('/').next().unwrap());
    let scep = &at.mac.enrollment().unwrap().scep;
    planted.keep("SCEP challenge", scep.challenge.expose_str().unwrap());
    planted.needles.add("mac: push token", at.mac.push_token());
    planted.keep("mac: push magic", at.mac.push_magic());
    planted.keep("mac: bootstrap token", "bootstrap of canary");
    planted.needles.add("mac: user's push token", &at.user.push_token);
    planted.needles.add("phone: push token", at.phone.push_token());
    planted.needles.add("phone: unlock token", at.phone.unlock_token());
    planted.keep("pc: passphrase of the furniture", "passphrase1");
    planted.keep("pc: upload of the furniture", "PK diagnostics of canary");
    let document = String::from_utf8(at.pc.account().unwrap().document().to_vec()).unwrap();
    for (field, name) in [("AAUTHSECRET", "syncml password"), ("AAUTHDATA", "syncml nonce")] {
        let mut values: Vec<&str> = document.split(&format!("name=\"{field}\"")).skip(1).collect();
        assert!(!values.is_empty(), "{field}: {document}");
        values.sort_unstable();
        for rest in values {
            planted.keep(name, rest.split("value=\"").nth(1).unwrap().split('"').next().unwrap());
        }
    }
}

/// A configuration profile with a password in it.
fn profile(password: &str, n: u32) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.wifi{n}</string><key>PayloadUUID</key><string>5E0B7A0C-0B0A-4F54-9D7B-0A4C0E3C5A0{n}</string>
<key>PayloadContent</key><array><dict><key>PayloadType</key><string>com.apple.wifi.managed</string>
<key>PayloadVersion</key><integer>1</integer><key>PayloadIdentifier</key><string>org.example.wifi{n}.1</string>
<key>PayloadUUID</key><string>6E0B7A0C-0B0A-4F54-9D7B-0A4C0E3C5A0{n}</string><key>SSID_STR</key><string>office</string>
<key>EncryptionType</key><string>WPA2</string><key>Password</key><string>{password}</string></dict></array></dict></plist>"#
    )
}

async fn reveal(planted: &mut Planted, site: &Site, command: &str, name: &str) {
    let shown = site.get(&format!("/commands/{command}/secret")).await;
    let value = shown["value"].as_str().unwrap();
    if value.len() < crate::needles::SHORTEST {
        planted.keep_pin(name, value)
    } else {
        planted.keep(name, value)
    }
}

async fn commands_to_apple(planted: &mut Planted, site: &Site, at: &mut Furniture) {
    let mac = &mut at.mac;
    mac.poll().await.unwrap();
    let wifi = profile(&planted.fresh("mac: Wi-Fi password"), 1);
    site.send(mac, json!({ "type": "install-profile", "profile": base64(wifi.as_bytes()) })).await;
    let lock = site.send(mac, json!({ "type": "lock", "message": planted.fresh("mac: lock message") })).await;
    let rotate = site.send(mac, json!({ "type": "rotate-secret", "secret": "recovery-lock" })).await;
    mac.poll().await.unwrap();
    reveal(planted, site, &lock, "secret: PIN").await;
    reveal(planted, site, &rotate, "secret: recovery lock").await;
    // An administrator's own command, and an answer that says more than it should.
    let raw = format!(
        "<plist version=\"1.0\"><dict><key>RequestType</key><string>DeviceInformation</string><key>Queries</key>\
         <array><string>{}</string></array></dict></plist>",
        planted.fresh("mac: raw command")
    );
    let raw = site.send(mac, json!({ "type": "raw", "payload": base64(raw.as_bytes()) })).await;
    let reply = mac.idle().await.unwrap();
    let delivered = bellwether_apple::command::decode_command(&reply.body).unwrap();
    let mut answer = plist::Dictionary::new();
    answer.insert("PersonalRecoveryKey".into(), planted.fresh("mac: answer").into());
    mac.report(Status::Acknowledged, &delivered.command_uuid, &[], answer).await.unwrap();
    assert_eq!(site.state(&raw).await, "acknowledged");
    site.get(&format!("/commands/{raw}/result")).await;
    // Never fetched, cancelled, refused by the device, sent again, sent to many.
    let waiting = profile(&planted.fresh("mac: password that waits"), 2);
    let cancelled =
        site.send(mac, json!({ "type": "install-profile", "profile": base64(waiting.as_bytes()) })).await;
    site.delete(&format!("/commands/{cancelled}")).await.good();
    site.post(&format!("/commands/{cancelled}/retry"), json!({})).await.good();
    let many = profile(&planted.fresh("mac: password for many"), 3);
    let intent = json!({ "type": "install-profile", "profile": base64(many.as_bytes()) });
    site.post("/commands", json!({ "devices": [mac.serial(), at.phone.serial()], "intent": intent }))
        .await
        .good();
    let clear = site.send(&at.phone, json!({ "type": "clear-passcode" })).await;
    at.phone.poll().await.unwrap();
    assert_eq!(site.state(&clear).await, "acknowledged", "the unlock token was used");
    mac.user_poll(&at.user).await.unwrap();
}

async fn commands_to_windows(planted: &mut Planted, site: &Site, at: &mut Furniture) {
    let pc = &mut at.pc;
    pc.session().await.unwrap();
    let passphrase = planted.fresh("pc: passphrase");
    site.tell(pc, json!({ "type": "set-wifi", "ssid": "office", "passphrase": passphrase })).await;
    let vpn = format!(
        "<VPNProfile><ProfileName>x</ProfileName><Secret>{}</Secret></VPNProfile>",
        planted.fresh("pc: VPN secret")
    );
    site.tell(pc, json!({ "type": "set-vpn", "name": "office", "profile": vpn })).await;
    let file = [&[0x30, 0x82, 1, 0][..], planted.fresh("pc: PKCS#12 file").as_bytes(), &[7; 64]].concat();
    let identity = json!({ "type": "install-identity", "id": "x", "pkcs12": base64(&file), "password": planted.fresh("pc: PKCS#12 password") });
    site.tell(pc, identity).await;
    let text = planted.fresh("pc: value of a setting");
    let settings = json!([{ "area": "Update", "name": "UpdateServiceUrl", "value": { "text": text } }]);
    site.tell(pc, json!({ "type": "configure", "settings": settings })).await;
    let admin = site.tell(pc, json!({ "type": "set-local-admin", "name": "rescue" })).await;
    let raw = format!(
        "<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Device/Vendor/MSFT/Custom/x</LocURI></Target><Data>{}</Data></Item></Replace>",
        planted.fresh("pc: raw command")
    );
    site.tell(pc, json!({ "type": "raw", "payload": base64(raw.as_bytes()) })).await;
    let told = pc.session().await.unwrap();
    assert!(told.iter().any(|t| t.data.as_deref().is_some_and(|d| d.contains(&passphrase))), "{told:?}");
    reveal(planted, site, &admin, "secret: local administrator").await;
    // The challenge of a certificate for the PC, told and then spent.
    site.tell(pc, json!({ "type": "request-certificate", "id": "canary" })).await;
    let told = pc.session().await.unwrap();
    let challenge = told.iter().find(|t| t.uri.ends_with("/Install/Challenge")).and_then(|t| t.data.clone());
    planted.keep("pc: challenge", &challenge.unwrap());
    pc.session().await.unwrap();
    let (command, path) = site.told_where_to(pc).await;
    planted.keep("pc: second token of an upload", path.rsplit('/').next().unwrap());
    assert_eq!(site.put(&path, format!("PK{}", planted.fresh("pc: upload")).as_bytes()).await, 201);
    let bearer = format!("Bearer {}", site.key.expose_secret());
    let path = format!("/api/v1/commands/{command}/upload");
    assert_eq!(site.raw(Method::GET, &path, &[("authorization", &bearer)], Vec::new()).await.status, 200);
    site.raw(Method::GET, &at.package, &[], Vec::new()).await.ok("package").unwrap();
}

async fn keys_and_tokens(planted: &mut Planted, site: &Site, microsoft: &Microsoft) {
    let wish = json!({ "name": "second", "grants": ["device:read@server"], "expires_in_days": 1 });
    let second = site.post("/keys", wish).await.good();
    planted.keep("second key", second["secret"].as_str().unwrap());
    let token = microsoft.token(1, "entra@example.org");
    // What makes it good is its signature, what names it is the rest.
    for (part, name) in token.split('.').zip(["", "token of Entra ID", "signature of Entra ID"]).skip(1) {
        planted.keep(name, part);
    }
    let mut pc = site.pc_builder().await.build().unwrap();
    site.join(&mut pc, &token, None).await.unwrap();
    pc.session().await.unwrap();
    let mut thief = site.pc_builder().await.build().unwrap();
    assert!(site.join(&mut thief, &token, None).await.is_err());
    // A certificate whose key is looked for in the middle: its beginning is the same for all.
    let key = crate::judges::push_certificate(TOPIC);
    let body: String = key.1.lines().filter(|line| !line.starts_with('-')).collect();
    let line = body.len() / 128 * 64;
    planted.keep("key of a push certificate", key.1.lines().nth(line / 64).unwrap());
    let bytes = openssl::base64::decode_block(&body).unwrap();
    planted.needles.add("key of a push certificate, DER", &bytes[bytes.len() / 2..bytes.len() / 2 + 48]);
    site.post("/push/apple", json!({ "certificate": key.0, "key": key.1 })).await.good();
    let wrong = json!({ "certificate": key.0, "key": crate::judges::push_certificate(TOPIC).1 });
    assert_eq!(site.post("/push/apple", wrong).await.refusal().0, 400);
}

/// What people and programs do wrong with secrets in their hands.
async fn mistakes(planted: &Planted, site: &Site, at: &mut Furniture) {
    let first = |name: &str| String::from_utf8(planted.needles.thing(name).unwrap().to_vec()).unwrap();
    let passphrase = first("pc: passphrase");
    let device = format!("/devices/{}/commands", at.pc.serial());
    for intent in [
        json!({ "type": "set-wifi", "ssid": "x", "passphrase": { "secret": passphrase } }),
        json!({ "type": "set-wifi", "ssid": "x", "hidden": passphrase }),
        json!({ "type": "set-wifi", "ssid": "x", "passphrase": [passphrase] }),
        json!({ "type": passphrase }),
        json!(passphrase),
        json!({ "type": "set-wifi", "ssid": "x", "profile": format!("<WLANProfile><keyMaterial>{passphrase}</key") }),
        json!({ "type": "set-vpn", "name": "x", "profile": format!("<Other>{passphrase}</Other>") }),
        json!({ "type": "set-vpn", "name": "x", "profile": passphrase }),
        json!({ "type": "raw", "payload": base64(format!("<Add>{passphrase}").as_bytes()) }),
        json!({ "type": "raw", "payload": passphrase }),
        json!({ "type": "install-identity", "id": "x", "pkcs12": base64(passphrase.as_bytes()), "password": "x" }),
        json!({ "type": "install-identity", "id": "x", "pkcs12": passphrase, "password": "x" }),
        json!({ "type": "install-identity", "id": "x", "pkcs12": base64(&[0x30; 100]), "password": format!("{passphrase}\u{7}") }),
        json!({ "type": "install-profile", "profile": base64(format!("<plist><dict>{passphrase}").as_bytes()) }),
        json!({ "type": "configure", "settings": [{ "area": "a", "name": "b", "value": { "int": passphrase } }] }),
        json!({ "type": "configure", "settings": [{ "area": "a/b", "name": "b", "value": { "text": format!("{passphrase}\u{7}") } }] }),
        json!({ "type": "ingest-admx", "app": "x", "file_id": "x", "admx": format!("<policyDefinitions>{passphrase}") }),
    ] {
        let answer = site.post(&device, json!({ "intent": intent })).await;
        assert!((400..500).contains(&answer.status), "{intent}: {answer:?}");
    }
    let mac = format!("/devices/{}/commands", at.mac.serial());
    for payload in [
        format!("<plist><dict>{passphrase}"),
        format!("<plist><dict><key>RequestType</key><string>{passphrase}</string>"),
    ] {
        for kind in ["raw", "install-profile"] {
            let name = if kind == "raw" { "payload" } else { "profile" };
            site.post(&mac, json!({ "intent": { "type": kind, name: base64(payload.as_bytes()) } }))
                .await
                .refusal();
        }
    }
    // A body that is no JSON, half of one, in the wrong form, under the wrong method.
    let bearer = format!("Bearer {}", site.key.expose_secret());
    for (kind, body) in [
        ("application/json", format!("{{\"intent\":{{\"type\":\"set-wifi\",\"passphrase\":\"{passphrase}")),
        ("application/json", passphrase.clone()),
        ("text/plain", passphrase.clone()),
        (
            "application/json",
            format!("{{\"intent\":{{\"type\":\"set-wifi\",\"passphrase\":\"{passphrase}\\u0000\"}}}}"),
        ),
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let reply = site.raw(Method::POST, &format!("/api/v1{device}"), &headers, body.into_bytes()).await;
        assert!((400..500).contains(&reply.status), "{}", reply.text());
    }
    let key = first("second key");
    for path in [
        format!("/api/v1/devices?access_token={key}"),
        format!("/api/v1/devices?search={key}"),
        format!("/api/v1/{key}"),
        format!("/api/v1/devices/{key}"),
        format!("/{key}"),
        format!("/enroll/{key}"),
        format!("/packages/{}x", first("pc: token of a package")),
        format!("/uploads/{}/..%2f", first("pc: token of an upload")),
    ] {
        for headers in [
            &[("authorization", bearer.as_str())][..],
            &[("authorization", "Basic x"), ("cookie", &bearer)],
            &[("authorization", &format!("{bearer}x"))],
        ] {
            let reply = site.raw(Method::GET, &path, headers, Vec::new()).await;
            assert!(reply.status < 500, "{path}: {}", reply.text());
        }
    }
    let setup = json!({ "token": first("second key"), "name": first("setup token") });
    site.post("/setup", setup).await.refusal();
    site.post("/setup", json!({ "token": first("setup token"), "name": "again" })).await.refusal();
    // Devices: the wrong password, nonsense with something true in it, a signature over something else.
    let mut pc = site.pc_builder().await.build().unwrap();
    assert!(pc.enroll(&site.discovery(), "kiosk-other", &at.account.1).await.is_err());
    assert!(pc.enroll(&site.discovery(), &at.account.1, &first("invitation link")).await.is_err());
    let soap = ("content-type", "application/soap+xml; charset=utf-8");
    for service in ["Discovery", "Policy", "Enrollment"] {
        let body = format!("<s:Envelope><{0}>{0}", at.account.1);
        site.raw(Method::POST, &format!("/EnrollmentServer/{service}.svc"), &[soap], body.into_bytes()).await;
    }
    let syncml = ("content-type", "application/vnd.syncml.dm+xml");
    for body in [format!("<SyncML>{passphrase}"), passphrase.clone()] {
        at.pc.raw_session_post(body.into_bytes(), &[syncml]).await.unwrap();
    }
    let signature = at.mac.signature(b"something else").unwrap();
    let headers = [("mdm-signature", signature.as_str()), ("content-type", "application/x-apple-aspen-mdm")];
    at.mac.raw_request(at.mac.idle_body().unwrap(), &headers).await.unwrap();
    at.mac
        .raw_request(first("mac: raw command").into_bytes(), &[("mdm-signature", &first("second key"))])
        .await
        .unwrap();
    at.mac.signed_request(first("mac: raw command").into_bytes(), "").await.unwrap();
    let mut stranger = site.device(Family::Mac).await;
    stranger.enroll(&site.invite().await).await.unwrap();
    site.delete(&format!("/devices/{}/enrollment", stranger.serial())).await;
    assert_eq!(stranger.idle().await.unwrap().status, 403);
}

/// All lists, and everything that they name.
async fn everything_there_is_to_read(site: &Site) {
    let until = Instant::now() + PATIENCE;
    while site.get("/audit/verify").await["unsealed"] != 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let document = site.get("/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap();
        if item["get"].is_null() || path.contains('{') {
            continue;
        }
        let listed = site.get(path).await;
        let items = listed["items"].as_array().or(listed.as_array()).cloned().unwrap_or_default();
        for below in document["paths"].as_object().unwrap().iter().filter(|(_, item)| !item["get"].is_null())
        {
            let below = below.0.strip_prefix("/api/v1").unwrap();
            let Some(rest) = below.strip_prefix(path).and_then(|rest| rest.strip_prefix("/{")) else {
                continue;
            };
            let rest = rest.split_once('}').unwrap().1;
            for id in items.iter().filter_map(|item| item["id"].as_str()) {
                site.call(Method::GET, &format!("{path}/{id}{rest}"), None, &[]).await;
            }
        }
    }
}

/// Every `Mdm-Signature` that was sent: whoever has one of an Idle can say it again.
fn signatures(planted: &mut Planted, exchanges: &[Exchange]) {
    let mut kept = 0;
    for exchange in exchanges {
        let text = String::from_utf8_lossy(&exchange.request);
        let header = text
            .lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix("mdm-signature: "));
        if let Some(value) = header.filter(|value| value.len() > 400) {
            // The end: the signature itself. What stands before is certificates, which are no secret.
            planted.keep("Mdm-Signature", &value[value.len() - 120..value.len() - 8]);
            kept += 1;
        }
    }
    assert!(kept > 20, "{kept}");
}

fn plain_get(address: std::net::SocketAddr) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn dumped(database: &Database) -> String {
    let output = std::process::Command::new("pg_dump").arg("-d").arg(database.admin_url()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("COPY public.commands") && text.contains("mac.canary@example.org"),
        "a dump of all tables"
    );
    text
}
