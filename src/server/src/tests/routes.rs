//! AT-26 and AT-27: the inventory of routes, and that nothing of the API answers without a key.

use super::{World, raw, status};
use crate::api::openapi;
use crate::routes::{Audience, table};
use std::collections::BTreeSet;

fn fill(path: &str) -> String {
    path.replace("{id}", "0190a5d0-0000-7000-8000-000000000000")
        .replace("{device}", "C02XYZ")
        .replace("{code}", "x")
        .replace("{ca}", "x")
        .replace("{token}", "x")
        .replace("{name}", "x")
}

#[test]
fn at_26_the_document_is_the_inventory_of_the_api() {
    let routed: BTreeSet<(String, String)> = table()
        .iter()
        .filter(|entry| matches!(entry.audience, Audience::Key | Audience::Setup))
        .map(|entry| (entry.method.to_string(), entry.path.to_owned()))
        .collect();
    let documented: BTreeSet<(String, String)> =
        openapi::operations().into_iter().map(|(method, path)| (method.to_owned(), path)).collect();
    assert_eq!(routed, documented);
    // Everything else is on this list. A debug endpoint would have to be added here.
    let rest: BTreeSet<&str> = table()
        .iter()
        .filter(|entry| !matches!(entry.audience, Audience::Key | Audience::Setup))
        .map(|entry| entry.path)
        .collect();
    let allowed = [
        "/EnrollmentServer/Auth",
        "/EnrollmentServer/Discovery.svc",
        "/EnrollmentServer/Enrollment.svc",
        "/EnrollmentServer/Policy.svc",
        "/EnrollmentServer/TermsOfUse",
        "/ManagementServer/MDM.svc",
        "/apple/mdm",
        "/crl/{ca}",
        "/enroll",
        "/enroll/{code}",
        "/livez",
        "/packages/{token}",
        "/readyz",
        "/scep/{ca}",
        "/tls-ca.crt",
        "/tls-ca.pem",
        "/uploads/{token}",
        "/uploads/{token}/{name}",
    ];
    assert_eq!(rest, BTreeSet::from(allowed));
    for entry in table() {
        let inside = entry.path.starts_with("/api/v1/");
        assert_eq!(inside, matches!(entry.audience, Audience::Key | Audience::Setup), "{}", entry.path);
        assert!(!(inside && entry.on_device_listener), "{}", entry.path);
        assert!(entry.on_public_listener || entry.on_device_listener, "{}", entry.path);
    }
    // What must be reached with a client certificate only, and what must be reached without.
    let only = |public: bool, device: bool| -> BTreeSet<&str> {
        let here =
            |e: &&crate::routes::Entry| e.on_public_listener == public && e.on_device_listener == device;
        table().iter().filter(here).map(|entry| entry.path).collect()
    };
    assert_eq!(only(false, true), BTreeSet::from(["/ManagementServer/MDM.svc"]));
    let both = ["/EnrollmentServer/Enrollment.svc", "/apple/mdm", "/livez", "/packages/{token}", "/readyz"];
    assert_eq!(only(true, true), BTreeSet::from(both));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_27_no_trick_reaches_the_api_without_a_key() {
    let world = World::new().await;
    let addr = world.server.public_addr;
    let device = world.server.device_addr;
    let mut tries = Vec::new();
    for entry in table().iter().filter(|entry| entry.audience == Audience::Key) {
        let path = fill(entry.path);
        let method = entry.method.as_str().to_owned();
        let tail = path.trim_start_matches("/api/v1");
        for spelling in [
            path.clone(),
            format!("/{path}"),
            format!("/api//v1{tail}"),
            format!("/./api/v1{tail}"),
            format!("/api/./v1{tail}"),
            format!("/x/../api/v1{tail}"),
            format!("/%61pi/v1{tail}"),
            format!("/api/v1/%2e{tail}"),
            format!("/api/v1;x{tail}"),
            format!("/api/v1{};x", tail),
            format!("/API/V1{tail}"),
            format!("{path}/"),
            format!("/api/v1/setup/..{tail}"),
            format!("/livez/../api/v1{tail}"),
            format!("https://localhost{path}"),
            format!("{path}?_method=POST"),
        ] {
            tries.push((method.clone(), spelling, ""));
        }
        for header in [
            "X-HTTP-Method-Override: POST\r\n",
            "X-Original-URL: /livez\r\n",
            "X-Rewrite-URL: /api/v1/setup\r\n",
            "X-Forwarded-For: 127.0.0.1\r\n",
            "Authorization: Bearer bw_nonsense\r\n",
            "Authorization: Basic YTpi\r\n",
            "Cookie: session=1\r\n",
        ] {
            tries.push((method.clone(), path.clone(), header));
        }
        for other in ["HEAD", "OPTIONS", "PATCH", "PUT", "TRACE", "CONNECT", "PROPFIND"] {
            tries.push((other.to_owned(), path.clone(), ""));
        }
    }
    let answers = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut out = Vec::new();
        let mut stream: Option<openssl::ssl::SslStream<std::net::TcpStream>> = None;
        for (method, path, header) in tries {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 0\r\n\r\n");
            let mut answer = String::new();
            for attempt in 0..2 {
                let open = stream.get_or_insert_with(|| super::tls::connect(addr, None).unwrap());
                let mut buffer = [0_u8; 8192];
                let done = open.write_all(request.as_bytes()).is_ok();
                let n = if done { open.read(&mut buffer).unwrap_or(0) } else { 0 };
                if n > 0 {
                    answer = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    if method == "CONNECT" || method == "HEAD" || answer.contains("connection: close") {
                        stream = None;
                    }
                    break;
                }
                assert_eq!(attempt, 0, "{method} {path}: no answer");
                stream = None;
            }
            out.push((method, path, header, status(&answer), answer));
        }
        out
    })
    .await
    .unwrap();
    assert!(answers.len() > 500);
    for (method, path, header, status, answer) in answers {
        assert!([400, 401, 404].contains(&status), "{method} {path} {header:?}: {answer}");
        // 400 is for what is no HTTP request of ours at all.
        assert!(
            status != 400 || method == "CONNECT" || path.contains("//"),
            "{method} {path} {header:?}: {answer}"
        );
    }
    // The other listener has no API.
    let request = b"GET /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = tokio::task::spawn_blocking(move || raw(device, request)).await.unwrap();
    assert_eq!(status(&answer), 404, "{answer}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_of_the_table_is_served() {
    let mut world = World::new().await;
    let key = world.key().await;
    for entry in table() {
        let method = reqwest::Method::from_bytes(entry.method.as_str().as_bytes()).unwrap();
        let base = if entry.on_public_listener { &world.url } else { &world.server.device_url };
        let url = format!("{base}{}", fill(entry.path));
        let answer = world.http.request(method, url).bearer_auth(&key).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key("x-request-id"), "{} {}", entry.method, entry.path);
        assert_ne!(status, 405, "{} {}", entry.method, entry.path);
        // SOAP's faults have that status too (spec/windows.md 2.1).
        let soap = answer
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind == bellwether_windows::enrollment::CONTENT_TYPE);
        assert!(status != 500 || soap, "{} {}", entry.method, entry.path);
        if status == 404 && matches!(entry.audience, Audience::Key) {
            let text = answer.text().await.unwrap();
            assert!(!text.contains("no such path"), "{} {}: {text}", entry.method, entry.path);
        }
    }
    let answer = world.http.patch(world.at("/api/v1/devices")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 405);
    world.server.stop().await;
}

/// AT-43: the audit and the events are read, and nothing else is done to them, by routes or by verbs.
#[test]
fn at_43_nothing_takes_from_the_audit() {
    let about = |path: &str| path.contains("audit") || path.contains("event");
    let routes: BTreeSet<(String, &str)> = table()
        .iter()
        .filter(|entry| about(entry.path))
        .map(|entry| (entry.method.to_string(), entry.path))
        .collect();
    let read = ["/api/v1/audit", "/api/v1/audit/verify", "/api/v1/events"];
    assert_eq!(routes, read.map(|path| ("GET".to_owned(), path)).into_iter().collect());
    // The program's verbs, down to the last one.
    let verbs = crate::cli::verbs();
    assert!(verbs.len() > 20, "{verbs:?}");
    let of_the_audit: Vec<&String> = verbs.iter().filter(|verb| about(verb)).collect();
    assert_eq!(of_the_audit, ["audit", "audit list", "audit verify"]);
    let words = ["purge", "truncate", "clear", "erase", "retention", "vacuum", "reset"];
    assert!(
        !verbs.iter().any(|verb| words.iter().any(|word| verb.split(' ').next_back() == Some(word))),
        "{verbs:?}"
    );
}
