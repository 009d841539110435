//! What stands in messages: AT-10, 35, 50, 52, 70.

use super::{Noise, idle};
use crate::harness::{House, PATIENCE, Process};
use bellwether_apple::checkin::{Authenticate, Message, SetBootstrapToken, TokenUpdate};
use bellwether_apple::guard::{self, Limits};
use bellwether_apple::{ChannelIds, device};
use bellwether_sim::{AppleDevice, Behaviour, Family, ProfileOptions, ScepOptions, Script, Status, User};
use plist::{Dictionary, Value};
use reqwest::Method;
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";
const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

fn parsed(body: &[u8]) -> Dictionary {
    match guard::parse(body, &Limits::default()).unwrap() {
        Value::Dictionary(all) => all,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_10_no_bytes_bring_the_process_down() {
    let mut process = Process::start(&[]).await;
    let site = process.site().clone();
    let mut mac = site.enrolled(Family::Mac).await;
    let link = site.invite().await;
    let profile = mac.fetch_profile(&link, &ProfileOptions::default()).await.unwrap();
    let scep = mac.scep_attempt(&profile.details, &ScepOptions::default()).await.unwrap();
    let scep_path = profile.details.scep.url.strip_prefix(&site.url).unwrap().to_owned();
    let link_path = link.strip_prefix(&site.url).unwrap().to_owned();
    let ids = ChannelIds::udid(mac.udid()).unwrap();
    let binary = {
        let mut out = Vec::new();
        Value::Dictionary(parsed(&idle(mac.udid()))).to_writer_binary(&mut out).unwrap();
        out
    };
    let bodies = [
        idle(mac.udid()),
        binary,
        device::acknowledged(&ids, "0198f5a0-0000-7000-8000-000000000000", Dictionary::new()).unwrap(),
        device::check_in(&ids, &Message::SetBootstrapToken(SetBootstrapToken::default())).unwrap(),
    ];
    let json = json!({ "platform": "apple", "account": "ann@example.org", "expires_in_seconds": 300, "test_only": true });
    let command =
        json!({ "intent": { "type": "install-profile", "profile": "AAAA" }, "expires_in_seconds": 5 });
    let bearer = format!("Bearer {}", secrecy::ExposeSecret::expose_secret(&site.key));
    let signature = mac.signature(&bodies[0]).unwrap();
    let device_path = format!("/api/v1/devices/{}/commands", mac.serial());
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    let mut judge = |what: &str, status: u16| {
        assert!(status < 500 || status == 503, "{what}: {status}");
        *statuses.entry(status).or_default() += 1;
    };

    // Well signed, and wrong inside: as deep as a stolen key gets.
    for round in 0..250 {
        let body = noise.spoil(&bodies[round % bodies.len()]);
        let kind = [CHECK_IN, "application/x-apple-aspen-mdm", ""][round % 3];
        judge("a signed body", mac.signed_request(body, kind).await.unwrap().status);
    }
    // Wrong signatures around a right body.
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let cms = STANDARD.decode(&signature).unwrap();
    for _ in 0..150 {
        let header = STANDARD.encode(noise.spoil(&cms));
        let reply = mac.raw_request(bodies[0].clone(), &[("mdm-signature", &header)]).await.unwrap();
        judge("a signature", reply.status);
    }
    for _ in 0..150 {
        let message = noise.spoil(scep.message());
        let kind = [("content-type", "application/x-pki-message")];
        let path = format!("{scep_path}?operation=PKIOperation");
        judge("a SCEP message", site.raw(Method::POST, &path, &kind, message).await.status);
    }
    for _ in 0..150 {
        let auth = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = noise.spoil(json.to_string().as_bytes());
        judge("JSON", site.raw(Method::POST, "/api/v1/invitations", &auth, body).await.status);
        let body = noise.spoil(command.to_string().as_bytes());
        judge("JSON", site.raw(Method::POST, &device_path, &auth, body).await.status);
    }
    // Noise to every route, with every method that it knows, and in paths and queries.
    for entry in bellwether::routes::table() {
        for _ in 0..8 {
            let fill: String = noise
                .bytes(12)
                .iter()
                .map(|b| char::from(b"abcXYZ019-._~%=+"[usize::from(*b) % 16]))
                .collect();
            let path = entry.path.replace("{ca}", scep_path.rsplit('/').next().unwrap());
            let path = path.replace("{id}", &fill).replace("{device}", &fill).replace("{code}", &fill);
            let query = [
                "",
                "?operation=PKIOperation&message=",
                "?limit=99999999999999999999",
                "?cursor=",
                "?site=",
                "?operation=",
            ][noise.below(6)];
            let auth = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let size = [0, 1, 100, 5000][noise.below(4)];
            let body = noise.bytes(size);
            let method: Method = entry.method.as_str().parse().unwrap();
            let query = if query.is_empty() { String::new() } else { format!("{query}{fill}") };
            let reply = site.raw(method, &format!("{path}{query}"), &auth, body).await;
            // A SOAP fault travels as 500, whoever is to blame: here it has to be the caller.
            let fault = entry.path.starts_with("/EnrollmentServer/")
                && String::from_utf8_lossy(&reply.body).contains("MessageFormat");
            judge(entry.path, if fault { 400 } else { reply.status });
        }
    }
    for _ in 0..100 {
        let body = noise.spoil(b"family=mac&code=AAAA-BBBB-C");
        judge("a form", site.raw(Method::POST, &link_path, &[], body.clone()).await.status);
        judge("a form", site.raw(Method::POST, "/enroll", &[], body).await.status);
    }
    assert!(process.is_alive(), "{}", process.log());
    assert!(!process.log().contains("panicked"), "{}", process.log());
    assert_eq!(site.raw(Method::GET, "/readyz", &[], Vec::new()).await.status, 200);
    mac.idle().await.unwrap().ok("the device that was imitated").unwrap();
    println!("{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_35_pins_come_from_the_dice() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let mut pins = Vec::new();
    for _ in 0..20 {
        // At the same moment.
        let locks = (0..5).map(|_| house.send(&mac, json!({ "type": "lock" })));
        let locks = futures_util::future::join_all(locks).await;
        mac.poll().await.unwrap();
        for lock in locks {
            pins.push(
                house.get(&format!("/commands/{lock}/secret")).await["value"].as_str().unwrap().to_owned(),
            );
        }
    }
    assert!(pins.iter().all(|pin| pin.len() == 6 && pin.bytes().all(|b| b.is_ascii_digit())), "{pins:?}");
    // Of a hundred out of a million, some may meet by chance; more than two will not.
    assert!(pins.iter().collect::<HashSet<_>>().len() >= 98, "{pins:?}");
    let mut counts = [0_f64; 10];
    pins.iter().flat_map(|pin| pin.bytes()).for_each(|digit| counts[usize::from(digit - b'0')] += 1.0);
    let expected = 60.0;
    let chi: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
    // Nine degrees of freedom: one run in a million is beyond 45.
    assert!(chi < 45.0, "{chi}: {counts:?}");
}

/// Property lists that cost more than they weigh.
fn bombs(udid: &str, canary: u16) -> Vec<(&'static str, Vec<u8>)> {
    let real = String::from_utf8(idle(udid)).unwrap();
    let inner = &real[real.find("<plist").unwrap()..];
    let entity = |declaration: &str, use_: &str| {
        format!("{HEAD}<!DOCTYPE plist [{declaration}]>{}", inner.replace("Idle", use_)).into_bytes()
    };
    let mut laughs = "<!ENTITY l0 \"ha\">".to_owned();
    for n in 1..30 {
        laughs.push_str(&format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10)));
    }
    let utf16: Vec<u8> =
        [0xFF, 0xFE].into_iter().chain(real.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let utf16be: Vec<u8> =
        [0xFE, 0xFF].into_iter().chain(real.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let deep = |open: &str, close: &str| {
        format!("{HEAD}<plist version=\"1.0\">{}{}</plist>", open.repeat(100_000), close.repeat(100_000))
            .into_bytes()
    };
    let attributes: String = (0..1_000_000).map(|n| format!(" a{n}=\"\"")).collect();
    let bplist = |objects: &[u8], offsets: &[u8], count: u64, top: u64, size: u8| {
        let mut out = b"bplist00".to_vec();
        out.extend_from_slice(objects);
        let table = u64::try_from(out.len()).unwrap();
        out.extend_from_slice(offsets);
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, size, 1]);
        for number in [count, top, table] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    };
    vec![
        ("billion laughs", entity(&laughs, "&l29;")),
        (
            "quadratic blow-up",
            entity(&format!("<!ENTITY a \"{}\">", "a".repeat(100_000)), &"&a;".repeat(10_000)),
        ),
        ("external entity", entity(&format!("<!ENTITY x SYSTEM \"http://127.0.0.1:{canary}/x\">"), "&x;")),
        ("external file", entity("<!ENTITY x SYSTEM \"file:///etc/passwd\">", "&x;")),
        (
            "parameter entity",
            entity(&format!("<!ENTITY % x SYSTEM \"http://127.0.0.1:{canary}/y\"> %x;"), "Idle"),
        ),
        (
            "external DTD",
            format!(
                "{HEAD}<!DOCTYPE plist SYSTEM \"http://127.0.0.1:{canary}/z\">{}",
                inner.replace("Idle", "&x;")
            )
            .into_bytes(),
        ),
        ("depth of arrays", deep("<array>", "</array>")),
        ("depth of dictionaries", deep("<dict><key>a</key>", "</dict>")),
        ("depth without an end", format!("{HEAD}<plist>{}", "<array>".repeat(1_000_000)).into_bytes()),
        ("a million attributes", format!("{HEAD}<plist{attributes}><dict/></plist>").into_bytes()),
        (
            "a million attributes of one name",
            format!("{HEAD}<plist{}><dict/></plist>", " a=\"\"".repeat(1_000_000)).into_bytes(),
        ),
        (
            "a million values",
            format!("{HEAD}<plist><array>{}</array></plist>", "<true/>".repeat(1_000_000)).into_bytes(),
        ),
        ("UTF-16 little endian", utf16),
        ("UTF-16 big endian", utf16be),
        ("UTF-7", real.replace("UTF-8", "UTF-7").into_bytes()),
        ("EBCDIC", real.replace("UTF-8", "IBM037").into_bytes()),
        (
            "a number without an end",
            format!("{HEAD}<plist><integer>{}</integer></plist>", "9".repeat(5_000_000)).into_bytes(),
        ),
        ("a comment without an end", format!("{HEAD}<plist><!-- {}", "-".repeat(5_000_000)).into_bytes()),
        ("an array in itself", bplist(&[0xA1, 0], &[8], 1, 0, 1)),
        ("two arrays in each other", bplist(&[0xA1, 1, 0xA1, 0], &[8, 10], 2, 0, 1)),
        ("a dictionary whose value it is", bplist(&[0xD1, 1, 0, 0x51, b'a'], &[8, 11], 2, 0, 1)),
        ("doubling arrays", {
            let objects: Vec<u8> = (1..=60_u8).flat_map(|n| [0xA2, n, n]).chain([0x51, b'x']).collect();
            let offsets: Vec<u8> = (0..=60_u8).map(|n| 8 + n * 3).collect();
            bplist(&objects, &offsets, 61, 0, 1)
        }),
        ("an offset beyond the end", bplist(&[0xA1, 1], &[8, 0xFF], 2, 0, 1)),
        ("more objects than bytes", bplist(&[0x08], &[8], u64::MAX, 0, 1)),
        ("a top beyond the table", bplist(&[0x08], &[8], 1, u64::MAX, 1)),
        (
            "a string of 2^63 bytes",
            bplist(&[0x5F, 0x13, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], &[8], 1, 0, 1),
        ),
        ("an array of 2^62 entries", bplist(&[0xAF, 0x13, 0x40, 0, 0, 0, 0, 0, 0, 0], &[8], 1, 0, 1)),
        ("offsets of no bytes", bplist(&[0x08], &[8], 1, 0, 0)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn at_50_bombs_cost_their_sender_an_error() {
    let mut process = Process::start(&[]).await;
    let site = process.site().clone();
    let mut mac = site.enrolled(Family::Mac).await;
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let before = process.memory();
    let mut most = before;
    for (what, bomb) in bombs(mac.udid(), canary.local_addr().unwrap().port()) {
        for kind in [CHECK_IN, ""] {
            let begun = Instant::now();
            let reply = mac.signed_request(bomb.clone(), kind).await.unwrap();
            // 413 is for what is too large before anybody looks into it.
            assert!([400, 413].contains(&reply.status), "{what}: {}", reply.status);
            assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
        }
        most = most.max(process.memory());
        // What an administrator uploads is read by the same guard.
        use base64::Engine as _;
        let profile = base64::engine::general_purpose::STANDARD.encode(&bomb);
        for intent in [
            json!({ "type": "install-profile", "profile": profile }),
            json!({ "type": "raw", "payload": profile }),
        ] {
            let begun = Instant::now();
            let (status, _) = site.try_send(&mac, intent).await.refusal();
            assert!([400, 413, 422].contains(&status), "{what}: {status}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
        }
        most = most.max(process.memory());
    }
    assert!(canary.accept().is_err(), "somebody followed an external entity");
    let grown = most.saturating_sub(before) / (1 << 20);
    assert!(grown < 400, "{grown} MiB");
    // JSON has depths as well.
    for body in
        ["[".repeat(100_000), "{\"intent\":".repeat(100_000), format!("{{\"intent\":{}", "[".repeat(100_000))]
    {
        let auth = format!("Bearer {}", secrecy::ExposeSecret::expose_secret(&site.key));
        let headers = [("authorization", auth.as_str()), ("content-type", "application/json")];
        let reply = site.raw(Method::POST, "/api/v1/commands", &headers, body.into_bytes()).await;
        assert_eq!(reply.status, 400);
    }
    assert!(process.is_alive() && !process.log().contains("panicked"), "{}", process.log());
    assert_eq!(mac.idle().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_52_names_are_only_names() {
    let house = House::new().await;
    let mut good = house.enrolled(Family::Mac).await;
    let names = [
        "'; DROP TABLE devices;--".to_owned(),
        "\"; DELETE FROM audit; --".to_owned(),
        "x' OR '1'='1".to_owned(),
        "\\'; SELECT pg_sleep(10);--".to_owned(),
        "%_%".to_owned(),
        "../../../etc/passwd".to_owned(),
        "<script>alert(1)</script>".to_owned(),
        "\u{202E}gnp.exe".to_owned(),
        "a\nb\r\nSet-Cookie: x=y".to_owned(),
        "\u{1}\u{7f}\u{1b}[31m".to_owned(),
        "nul\0inside".to_owned(),
        "A".repeat(64 * 1024),
        "🔒".repeat(300),
        String::new(),
        " ".to_owned(),
    ];
    let mut enrolled = 0;
    for name in &names {
        // As the hardware id.
        let mut device = house.device(Family::Mac).await;
        let profile = device.fetch_profile(&house.invite().await, &ProfileOptions::default()).await.unwrap();
        device.scep_enroll(&profile.details).await.unwrap();
        device.install_enrollment(profile);
        let mut message = Dictionary::new();
        message.insert("MessageType".into(), "Authenticate".into());
        message.insert("Topic".into(), device.enrollment().unwrap().mdm.topic.as_str().into());
        message.insert("UDID".into(), name.as_str().into());
        message.insert("SerialNumber".into(), name.as_str().into());
        message.insert("DeviceName".into(), name.as_str().into());
        message.insert("ProductName".into(), "Mac14,2".into());
        // Binary: XML cannot say NUL.
        let mut body = Vec::new();
        Value::Dictionary(message).to_writer_binary(&mut body).unwrap();
        let reply = device.signed_request(body, CHECK_IN).await.unwrap();
        let control = name.chars().any(char::is_control);
        let sound = (1..=256).contains(&name.len()) && !control && name.trim() == name;
        assert_eq!(reply.status, if sound { 200 } else { 400 }, "{name:?}");
        enrolled += usize::from(sound);
        // As every other text.
        let mut message = Dictionary::new();
        for (key, value) in [
            ("MessageType", "Authenticate"),
            ("UDID", good.udid()),
            ("Topic", &good.enrollment().unwrap().mdm.topic),
        ] {
            message.insert(key.into(), value.into());
        }
        for key in [
            "SerialNumber",
            "DeviceName",
            "Model",
            "ModelName",
            "ProductName",
            "OSVersion",
            "BuildVersion",
            "IMEI",
            "MEID",
        ] {
            message.insert(key.into(), name.as_str().into());
        }
        let mut body = Vec::new();
        Value::Dictionary(message).to_writer_binary(&mut body).unwrap();
        assert_eq!(good.signed_request(body, CHECK_IN).await.unwrap().status, 200, "{name:?}");
        let mut user = User::invent("ann").unwrap();
        user.short_name = name.replace('\0', "?").chars().filter(|c| !c.is_control()).take(500).collect();
        let reply = good.user_token_update(&user).await.unwrap();
        assert!([200, 400].contains(&reply.status), "{name:?}: {}", reply.status);
        // And as what an admin types, or a program sends.
        let nul = name.contains('\0');
        let query: String =
            url::form_urlencoded::byte_serialize(name.chars().take(100).collect::<String>().as_bytes())
                .collect();
        let found = house.call(Method::GET, &format!("/devices?search={query}"), None, &[]).await;
        assert!(found.status < 500 && (found.status == 400 || !nul), "{name:?}: {found:?}");
        let found = house.call(Method::GET, &format!("/commands?device={query}"), None, &[]).await;
        assert!([200, 400, 404, 409].contains(&found.status), "{name:?}: {found:?}");
        let made = house
            .post(
                "/invitations",
                json!({ "platform": "apple", "test_only": true, "account": name, "name": name }),
            )
            .await;
        assert!([201, 400].contains(&made.status) && (made.status == 400 || !nul), "{name:?}: {made:?}");
        let made = house.post("/keys", json!({ "name": name, "grants": ["device:read@server"] })).await;
        assert!([201, 400].contains(&made.status), "{name:?}: {made:?}");
    }
    assert!(enrolled >= 4, "quotes and the like are allowed");
    // A second later every background job has seen them, and the table is still there.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let devices = house.get("/devices?limit=500").await;
    let listed = devices["items"].as_array().unwrap();
    assert!(listed.iter().any(|d| d["hardware_id"] == names[0].as_str()), "{devices:#}");
    assert!(listed.len() > enrolled);
    assert_eq!(house.get("/audit/verify").await["intact"], true);
    good.set_udid(good.udid().to_owned());
    assert_eq!(good.idle().await.unwrap().status, 200);
}

/// Every kind of value that a field could have instead of its own.
fn wrong_values() -> Vec<Value> {
    let nested = Value::Array(vec![Value::Array(vec![Value::Dictionary(Dictionary::new())])]);
    vec![
        Value::Integer((-1).into()),
        Value::Integer(u64::MAX.into()),
        Value::Real(f64::MAX),
        Value::Boolean(true),
        Value::String(String::new()),
        Value::String("A".repeat(100_000)),
        Value::Data(vec![0, 159, 146, 150]),
        Value::Date(std::time::UNIX_EPOCH.into()),
        Value::Array(vec!["a".into(), Value::Integer(1.into())]),
        Value::Dictionary(Dictionary::new()),
        nested,
    ]
}

/// Sends a message with one field replaced, for every field but `needed` and every wrong value; each must be heard.
async fn with_each_field_wrong(mac: &mut AppleDevice, message: &Dictionary, needed: &[&str]) -> usize {
    let mut sent = 0;
    let extra =
        ["Unknown", "OSUpdateSettingsDeviceID", "NotOnConsole", "AwaitingConfiguration", "EnrollmentID"];
    let fields: Vec<String> = message.keys().map(String::to_owned).chain(extra.map(str::to_owned)).collect();
    for field in fields.iter().filter(|field| !needed.contains(&field.as_str())) {
        for wrong in wrong_values().into_iter().chain([Value::Real(f64::NAN), "nul\0inside".into()]) {
            let mut message = message.clone();
            message.insert(field.clone(), wrong.clone());
            let mut body = Vec::new();
            Value::Dictionary(message).to_writer_binary(&mut body).unwrap();
            let reply = mac.signed_request(body, "").await.unwrap();
            let shown: String = format!("{wrong:?}").chars().take(60).collect();
            assert_eq!(reply.status, 200, "{field} = {shown}");
            sent += 1;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn at_70_one_wrong_field_never_stops_a_device() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let ids = ChannelIds::udid(mac.udid()).unwrap();
    let topic = mac.enrollment().unwrap().mdm.topic.clone();
    let text = |text: &str| Some(text.to_owned());
    let messages = [
        (
            Message::Authenticate(Authenticate {
                topic: topic.clone(),
                os_version: text("15.1"),
                build_version: text("24B83"),
                product_name: text("Mac14,2"),
                serial_number: text(mac.serial()),
                model: text("Mac14,2"),
                model_name: text("MacBook Air"),
                device_name: text("Ann's"),
                imei: text("35 123456 123456 1"),
                meid: text("A0000000002329"),
            }),
            &["MessageType", "UDID", "Topic", "EnrollmentID"][..],
        ),
        (
            Message::TokenUpdate(TokenUpdate {
                topic,
                token: mac.push_token().to_vec(),
                push_magic: mac.push_magic().into(),
                unlock_token: Some(b"unlock".as_slice().into()),
                awaiting_configuration: Some(false),
                ..TokenUpdate::default()
            }),
            &["MessageType", "UDID", "Topic", "Token", "PushMagic", "EnrollmentID"][..],
        ),
        (
            Message::SetBootstrapToken(SetBootstrapToken {
                token: Some(b"token".as_slice().into()),
                awaiting_configuration: Some(false),
            }),
            // A token of a wrong type is not "forget the token": it is refused, and nothing else stops.
            &["MessageType", "UDID", "BootstrapToken", "EnrollmentID"][..],
        ),
    ];
    let mut sent = 0;
    for (message, needed) in messages {
        let message = parsed(&device::check_in(&ids, &message).unwrap());
        sent += with_each_field_wrong(&mut mac, &message, needed).await;
        let lock = house.send(&mac, json!({ "type": "lock" })).await;
        mac.poll().await.unwrap();
        assert_eq!(house.state(&lock).await, "acknowledged");
    }
    let report = parsed(&device::idle(&ids).unwrap());
    sent += with_each_field_wrong(&mut mac, &report, &["Status", "UDID", "EnrollmentID"]).await;

    // Answers of an inventory: whole fields wrong, and then each value inside.
    let answers = [
        ("DeviceInformation", "QueryResponses", "device", "OSVersion"),
        ("SecurityInfo", "SecurityInfo", "security", "FDE_Enabled"),
        ("InstalledApplicationList", "InstalledApplicationList", "apps", ""),
        ("CertificateList", "CertificateList", "certificates", ""),
        ("ProfileList", "ProfileList", "profiles", ""),
    ];
    for (request, field, kind, inside) in answers {
        // What may be asked depends on the version that the device told last.
        mac.authenticate().await.unwrap().ok("Authenticate").unwrap();
        let mut wrong: Vec<Dictionary> = Vec::new();
        for value in wrong_values() {
            let one = |value: Value| Dictionary::from_iter([(field.to_owned(), value)]);
            wrong.push(one(value.clone()));
            wrong.push(one(Value::Array(vec![value.clone()])));
            if !inside.is_empty() {
                wrong.push(one(Value::Dictionary(Dictionary::from_iter([(
                    inside.to_owned(),
                    value.clone(),
                )]))));
            }
            let entry = [
                "Identifier",
                "CommonName",
                "PayloadIdentifier",
                "Name",
                "Data",
                "PayloadContent",
                "IsIdentity",
            ]
            .map(|name| (name.to_owned(), value.clone()));
            wrong.push(one(Value::Array(vec![Value::Dictionary(Dictionary::from_iter(entry))])));
        }
        for answer in wrong {
            mac.set_script(Script::new().on(
                request,
                1,
                Behaviour::Answer(Status::Acknowledged, answer.clone()),
            ));
            let asked = house.send(&mac, json!({ "type": "refresh-inventory", "kinds": [kind] })).await;
            let lock = house.send(&mac, json!({ "type": "lock" })).await;
            mac.poll().await.unwrap();
            let shown: String = format!("{answer:?}").chars().take(200).collect();
            assert_eq!(house.state(&lock).await, "acknowledged", "{request}: {shown}");
            assert!(
                ["acknowledged", "failed"].contains(&house.state(&asked).await.as_str()),
                "{request}: {shown}"
            );
            sent += 1;
        }
    }
    assert!(sent > 250, "{sent}");
    mac.set_script(Script::new());
    answer_with_nul(&house, &mut mac).await;
    // What was dropped comes back with the next good report.
    house.send(&mac, json!({ "type": "refresh-inventory" })).await;
    mac.poll().await.unwrap();
    let until = Instant::now() + PATIENCE;
    while house.show(&mac).await["device"]["os_version"] != mac.hardware().os_version.as_str() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An answer whose every text holds a NUL, which XML cannot say and PostgreSQL cannot store.
async fn answer_with_nul(house: &House, mac: &mut AppleDevice) {
    mac.authenticate().await.unwrap().ok("Authenticate").unwrap();
    for (kind, field) in
        [("device", "QueryResponses"), ("security", "SecurityInfo"), ("apps", "InstalledApplicationList")]
    {
        let asked = house.send(mac, json!({ "type": "refresh-inventory", "kinds": [kind] })).await;
        let reply = mac.idle().await.unwrap().ok("Idle").unwrap();
        let delivered = bellwether_apple::command::decode_command(&reply.body).unwrap();
        let names = [
            "DeviceName",
            "SerialNumber",
            "Model",
            "ModelName",
            "ProductName",
            "OSVersion",
            "BuildVersion",
            "UDID",
            "WiFiMAC",
            "HostName",
            "Identifier",
            "Name",
            "Version",
            "BundleSize",
            "FDE_Enabled",
            "ManagementStatus",
        ];
        let texts = Dictionary::from_iter(names.map(|name| (name.to_owned(), Value::from("nul\0inside"))));
        let value = Value::Dictionary(texts);
        let value = if kind == "apps" { Value::Array(vec![value]) } else { value };
        let mut report = parsed(&idle(mac.udid()));
        for (key, value) in [
            ("Status", "Acknowledged".into()),
            ("CommandUUID", delivered.command_uuid.as_str().into()),
            (field, value),
        ] {
            report.insert(key.into(), value);
        }
        let mut body = Vec::new();
        Value::Dictionary(report).to_writer_binary(&mut body).unwrap();
        let reply = mac.signed_request(body, "").await.unwrap();
        assert_eq!(reply.status, 200, "{kind}");
        assert_eq!(house.state(&asked).await, "acknowledged", "{kind}");
    }
}
