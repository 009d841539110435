//! AT-37 and AT-56 at the edge: packages over real sockets.

use super::{World, tls};
use crate::serve;
use bellwether_certs::hash::{hex, sha256};
use bellwether_engine::may;
use bellwether_model::device::IdentityState;
use bellwether_model::*;
use bellwether_store::records::{Device, Enrollment, Identity};
use bellwether_store::{Scope, Store, StoreConfig};
use reqwest::{Method, Response};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

const CODE: &str = "{0190A5D0-0000-7000-8000-00000000ABCD}";

fn msi(length: usize) -> Vec<u8> {
    let mut bytes = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    bytes.extend((8..length).map(|n| (n / 253) as u8 ^ (n as u8)));
    bytes
}

async fn upload(world: &World, key: &str, name: &str, bytes: Vec<u8>) -> Response {
    let mut url: reqwest::Url = world.at("/api/v1/packages").parse().unwrap();
    url.query_pairs_mut()
        .append_pair("kind", "msi")
        .append_pair("name", name)
        .append_pair("product", CODE)
        .append_pair("version", "1.2.3");
    world
        .http
        .post(url)
        .bearer_auth(key)
        .header("content-type", "application/octet-stream")
        .body(bytes)
        .send()
        .await
        .unwrap()
}

/// A server that knows two enrolled devices, by what a dialect would have written.
async fn with_devices(
    devices: [&tls::Identity; 2],
    settings: &[(&str, &str)],
) -> (World, String, [EnrollmentId; 2]) {
    let mut world = World::new().await;
    let key = world.key().await;
    let site = world.server.engine.default_site();
    world.server.stop().await;
    let store =
        Store::open(StoreConfig::Sqlite { folder: world.folder.path().to_owned(), readers: 1 }).unwrap();
    let now = crate::clock::SystemClock::read();
    let fresh = uuid::Uuid::now_v7;
    let authorities = store.read(Scope::Site(site), |tx| tx.authorities()).await.unwrap();
    let authority = authorities.first().unwrap().id;
    let mut ids = Vec::new();
    for (n, known) in devices.into_iter().enumerate() {
        let (device, identity, enrollment) = (DeviceId(fresh()), IdentityId(fresh()), EnrollmentId(fresh()));
        let device = Device {
            id: device,
            platform: Platform::Windows,
            hardware_id: format!("PC-{n}"),
            claims_device_id: None,
            serial: None,
            product: None,
            model: None,
            name: None,
            os_version: None,
            os_build: None,
            supervised: None,
            ownership: Ownership::Company,
            created_at: now,
        };
        let row = Identity {
            id: identity,
            authority_id: authority,
            serial: identity.to_string(),
            fingerprint: sha256(&known.cert).to_vec(),
            key_hash: vec![7; 32],
            certificate: known.cert.clone(),
            common_name: "device".into(),
            not_before: now,
            not_after: now.plus(time::DAY),
            state: IdentityState::Live,
            challenge_id: None,
            invitation_id: None,
            enrollment_id: None,
            issued_at: now,
            revoked_at: None,
            revoked_reason: None,
        };
        let period = Enrollment {
            id: enrollment,
            device_id: device.id,
            epoch: 1,
            platform: Platform::Windows,
            state: EnrollmentState::Active,
            user_enrollment: false,
            invitation_id: None,
            person_id: None,
            identity_id: identity,
            staged_identity_id: None,
            topic: None,
            test_only: true,
            awaiting_configuration: false,
            started_at: now,
            activated_at: Some(now),
            ended_at: None,
            end_reason: None,
            last_seen_at: None,
        };
        store
            .write(Scope::Site(site), move |tx| {
                tx.device_insert(&device)?;
                tx.identity_insert(&row)?;
                tx.enrollment_insert(&period)?;
                tx.identity_update(&Identity { enrollment_id: Some(enrollment), ..row.clone() })
            })
            .await
            .unwrap();
        ids.push(enrollment);
    }
    drop(store);
    let server = serve::start(super::config(world.folder.path(), settings)).await.unwrap();
    let url = server.public_url.clone();
    (World { server, url, ..world }, key, [ids[0], ids[1]])
}

async fn token(world: &World, key: &str, package: &Value, enrollment: EnrollmentId) -> String {
    let caller = world.server.engine.caller(key, None).await.unwrap();
    let permit = caller.permit::<may::WritePackages>(world.server.engine.default_site()).unwrap();
    let id = package["id"].as_str().unwrap().parse().unwrap();
    let token = world.server.engine.grant_package(&permit, id, enrollment).await.unwrap();
    token.expose_secret().to_owned()
}

/// Over the device listener, with a certificate: status, head and body.
async fn over_device_listener(
    world: &World,
    request: String,
    identity: Option<&tls::Identity>,
) -> (u16, Vec<u8>) {
    let addr = world.server.device_addr;
    tokio::task::block_in_place(move || {
        let mut stream = tls::connect(addr, identity).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let status = super::status(&String::from_utf8_lossy(&answer[..head]));
        (status, answer.split_off(head + 4))
    })
}

fn get(method: &str, token: &str) -> String {
    format!("{method} /packages/{token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_are_uploaded_listed_and_deleted() {
    let mut world = World::with(&[("limits.package_body", "100000")]).await;
    let key = world.key().await;
    let answer = upload(&world, &key, "../../Tool", msi(90_000)).await;
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.unwrap();
    assert_eq!((made["size"].as_i64(), made["product"].as_str()), (Some(90_000), Some(CODE)));
    assert_eq!(made["sha256"].as_str().unwrap(), hex(&sha256(&msi(90_000))));
    // One byte more than is allowed, refused by what is announced.
    let request = format!(
        "POST /api/v1/packages?kind=msi&name=x&product=x&version=1 HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {key}\r\nContent-Type: application/octet-stream\r\nContent-Length: 100001\r\n\r\nxxxx"
    );
    let addr = world.server.public_addr;
    let large = tokio::task::spawn_blocking(move || super::raw(addr, request.as_bytes())).await.unwrap();
    assert_eq!(super::status(&large), 413, "{large}");
    assert_eq!(upload(&world, &key, "Tool", b"MZ".to_vec()).await.status(), 400);
    assert_eq!(upload(&world, &key, "", msi(10)).await.status(), 400);
    assert_eq!(upload(&world, "bw_nobody", "Tool", msi(10)).await.status(), 401);
    let as_json = world
        .http
        .post(world.at("/api/v1/packages?kind=msi&name=x&product=x&version=1"))
        .bearer_auth(&key)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(as_json.status(), 415);
    let id = made["id"].as_str().unwrap();
    let one = world.at(&format!("/api/v1/packages/{id}"));
    let shown: Value = world.http.get(&one).bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    assert_eq!(shown, made);
    let list = world.http.get(world.at("/api/v1/packages")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(list.json::<Value>().await.unwrap(), json!({ "items": [made], "next": null }));
    // A key that reads devices neither sees nor uploads packages.
    let wish = json!({ "name": "reader", "grants": ["device:read@server"], "expires_in_days": 1 });
    let reader =
        world.http.post(world.at("/api/v1/keys")).bearer_auth(&key).json(&wish).send().await.unwrap();
    let reader: Value = reader.json().await.unwrap();
    let reader = reader["secret"].as_str().unwrap();
    assert_eq!(world.http.get(&one).bearer_auth(reader).send().await.unwrap().status(), 403);
    assert_eq!(upload(&world, reader, "Tool", msi(10)).await.status(), 403);
    assert_eq!(world.http.delete(&one).bearer_auth(&key).send().await.unwrap().status(), 200);
    assert_eq!(world.http.get(&one).bearer_auth(&key).send().await.unwrap().status(), 404);
    // Nothing was written but the database and what stood there before.
    assert!(!world.folder.path().join("Tool").exists());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_is_fetched_whole_and_in_parts() {
    let devices = [
        tls::foreign(crate::clock::SystemClock::read().0),
        tls::foreign(crate::clock::SystemClock::read().0),
    ];
    let (world, key, [mine, _]) = with_devices([&devices[0], &devices[1]], &[]).await;
    let bytes = msi(2 * 1024 * 1024 + 345);
    let made: Value = upload(&world, &key, "To\"ol/..", bytes.clone()).await.json().await.unwrap();
    let url = world.at(&format!("/packages/{}", token(&world, &key, &made, mine).await));
    let send = |method: Method, headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(world.http.request(method, &url), |request, (name, value)| request.header(*name, *value));
        async move { request.send().await.unwrap() }
    };
    let header = |answer: &Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let etag = format!("\"{}\"", hex(&sha256(&bytes)));
    let size = bytes.len();
    for method in [Method::GET, Method::HEAD] {
        let answer = send(method.clone(), &[("accept-encoding", "gzip")]).await;
        assert_eq!(answer.status(), 200);
        for (name, value) in [
            ("content-length", size.to_string()),
            ("accept-ranges", "bytes".to_owned()),
            ("etag", etag.clone()),
            ("cache-control", "private, no-store".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
            ("content-encoding", String::new()),
            ("content-disposition", "attachment; filename=\"To_ol_.msi\"".to_owned()),
        ] {
            assert_eq!(header(&answer, name), value, "{method} {name}");
        }
        let body = answer.bytes().await.unwrap();
        assert!(if method == Method::HEAD { body.is_empty() } else { body == bytes }, "{method}");
    }
    let border = 1024 * 1024;
    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        (format!("bytes={}-{}", border - 3, border + 3), border - 3, border + 4),
        (format!("bytes={border}-"), border, size),
        ("bytes=-5".to_owned(), size - 5, size),
        (format!("bytes={}-99999999", size - 1), size - 1, size),
    ] {
        let answer = send(Method::GET, &[("range", range.as_str())]).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(header(&answer, "content-range"), format!("bytes {from}-{}/{size}", to - 1));
        assert_eq!(header(&answer, "content-length"), (to - from).to_string());
        assert!(answer.bytes().await.unwrap() == bytes[from..to], "{range}");
    }
    let beyond = format!("bytes={size}-");
    let outside = send(Method::GET, &[("range", beyond.as_str())]).await;
    assert_eq!(
        (outside.status().as_u16(), header(&outside, "content-range")),
        (416, format!("bytes */{size}"))
    );
    for headers in [
        [("range", "bytes=0-1,4-5"), ("accept", "*/*")],
        [("range", "bytes=x"), ("accept", "*/*")],
        [("range", "bytes=0-1"), ("if-range", "\"other\"")],
        [("range", "bytes=0-1"), ("if-range", "Wed, 25 Nov 2026 00:00:00 GMT")],
    ] {
        let answer = send(Method::GET, &headers).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "content-length")), (200, size.to_string()));
    }
    assert_eq!(send(Method::GET, &[("range", "bytes=0-1"), ("if-range", etag.as_str())]).await.status(), 206);
    assert_eq!(send(Method::HEAD, &[("range", "bytes=0-1")]).await.status(), 200);
    assert_eq!(send(Method::GET, &[("if-none-match", etag.as_str())]).await.status(), 304);
    assert_eq!(send(Method::GET, &[("if-none-match", "\"other\"")]).await.status(), 200);
    assert_eq!(send(Method::POST, &[]).await.status(), 405);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_37_no_other_certificate_and_no_guess_fetches_a_package() {
    let now = crate::clock::SystemClock::read().0;
    let devices = [tls::foreign(now), tls::foreign(now)];
    let (world, key, [mine, _]) = with_devices([&devices[0], &devices[1]], &[]).await;
    let bytes = msi(5_000);
    let made: Value = upload(&world, &key, "Tool", bytes.clone()).await.json().await.unwrap();
    let token = token(&world, &key, &made, mine).await;
    let stranger = tls::foreign(now);
    for (identity, status) in
        [(None, 200), (Some(&devices[0]), 200), (Some(&devices[1]), 404), (Some(&stranger), 404)]
    {
        for method in ["GET", "HEAD"] {
            let (seen, body) = over_device_listener(&world, get(method, &token), identity).await;
            assert_eq!(seen, status, "{method}");
            assert!(if (method, status) == ("GET", 200) { body == bytes } else { body.is_empty() });
        }
        let range = get("GET", &token).replace("\r\n\r\n", "\r\nRange: bytes=1-3\r\n\r\n");
        let (seen, body) = over_device_listener(&world, range, identity).await;
        assert_eq!((seen, body.as_slice()), if status == 200 { (206, &bytes[1..4]) } else { (404, &[][..]) });
    }
    // What can be known or guessed opens nothing, and every refusal is the same (AT-56: nor is it a path).
    let id = made["id"].as_str().unwrap();
    let hash = made["sha256"].as_str().unwrap();
    let double = token.repeat(2);
    for guess in [
        id,
        hash,
        "1",
        &token[1..],
        &double,
        "..",
        "%2e%2e",
        "%252e%252e",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..",
        "%00",
        "bellwether.db",
        "C:%5cWindows",
    ] {
        for method in ["GET", "HEAD"] {
            let (status, body) = over_device_listener(&world, get(method, guess), None).await;
            assert_eq!((status, body.len()), (404, 0), "{guess}");
        }
        let answer = world.http.get(world.at(&format!("/packages/{guess}"))).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{guess}");
    }
    let one = world.at(&format!("/api/v1/packages/{id}"));
    assert_eq!(world.http.delete(&one).bearer_auth(&key).send().await.unwrap().status(), 200);
    let (status, body) = over_device_listener(&world, get("GET", &token), Some(&devices[0])).await;
    assert_eq!((status, body.len()), (404, 0), "deleted");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_37_a_proxy_hands_on_whose_certificate_it_saw() {
    use base64::Engine as _;
    let now = crate::clock::SystemClock::read().0;
    let devices = [tls::foreign(now), tls::foreign(now)];
    let header = ("device.client_certificate_header", "Client-Cert");
    for (proxies, other) in [("127.0.0.0/8,::1", 404), ("192.0.2.0/24", 200)] {
        let settings = [header, ("trusted_proxies", proxies)];
        let (world, key, [mine, _]) = with_devices([&devices[0], &devices[1]], &settings).await;
        let made: Value = upload(&world, &key, "Tool", msi(50)).await.json().await.unwrap();
        let token = token(&world, &key, &made, mine).await;
        for (identity, status) in [(Some(&devices[0]), 200), (Some(&devices[1]), other), (None, other)] {
            let der = identity.map_or(&b""[..], |identity| &identity.cert);
            let value = format!(":{}:", base64::engine::general_purpose::STANDARD.encode(der));
            let request =
                get("GET", &token).replace("\r\n\r\n", &format!("\r\nClient-Cert: {value}\r\n\r\n"));
            let (seen, _) = over_device_listener(&world, request, None).await;
            assert_eq!(seen, status, "{proxies}");
        }
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrollment_accounts_are_made_listed_and_revoked() {
    let mut world = World::new().await;
    let key = world.key().await;
    let root = world.at("/api/v1/enrollment-accounts");
    let post = |body: Value| world.http.post(&root).bearer_auth(&key).json(&body).send();
    let wish = json!({ "platform": "windows", "name": "kiosks", "cap": 3, "expires_in_seconds": 3600 });
    let answer = post(wish.clone()).await.unwrap();
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.unwrap();
    assert!(made["password"].as_str().unwrap().starts_with("bwe_"));
    for (field, value, status) in [
        ("cap", json!(0), 400),
        ("cap", json!("3"), 400),
        ("name", json!(""), 400),
        ("expires_in_seconds", json!(i64::MAX), 400),
        ("platform", json!("apple"), 422),
        ("admin", json!(true), 400),
    ] {
        let mut body = wish.clone();
        body[field] = value;
        assert_eq!(post(body).await.unwrap().status(), status, "{field}");
    }
    let list = world.http.get(&root).bearer_auth(&key).send().await.unwrap().text().await.unwrap();
    assert!(list.contains("kiosks") && !list.contains("bwe_"), "{list}");
    let one = format!("{root}/{}", made["account"]["id"].as_str().unwrap());
    let gone: Value = world.http.delete(&one).bearer_auth(&key).send().await.unwrap().json().await.unwrap();
    assert!(gone["revoked_at"].is_string(), "{gone}");
    world.server.stop().await;
}
