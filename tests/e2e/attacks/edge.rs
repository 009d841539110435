//! The edge: who reaches what at all. AT-08, 26, 27, 63, 64.

use crate::harness::{House, Site};
use bellwether::config::Network;
use bellwether::routes::{self, Audience};
use bellwether_sim::Family;
use futures_util::future::join_all;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

/// A request written by hand, so that nothing tidies its path. The status of the answer.
pub fn by_hand(site: &Site, base: &str, request: &str) -> u16 {
    use openssl::ssl::{SslConnector, SslMethod};
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    let ca = openssl::x509::X509::from_pem(site.ca_pem.as_bytes()).unwrap();
    builder.cert_store_mut().add_cert(ca).unwrap();
    let address = base.strip_prefix("https://").unwrap().replace("localhost", "127.0.0.1");
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut tls = builder.build().connect("localhost", stream).unwrap();
    tls.write_all(request.as_bytes()).unwrap();
    let mut answer = [0_u8; 64];
    let count = tls.read(&mut answer).unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn filled(path: &str) -> String {
    const ID: &str = "0198f5a0-0000-7000-8000-000000000000";
    path.replace("{id}", ID).replace("{device}", "SERIAL1").replace("{code}", "AAAA").replace("{ca}", ID)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_08_typed_codes_cannot_be_guessed() {
    // A proxy in front, so that the test can come from many addresses.
    let house =
        House::with(|config| config.trusted_proxies = vec![Network::parse("127.0.0.1").unwrap()]).await;
    let made = house
        .post("/invitations", json!({ "platform": "apple", "test_only": true, "short_code": true }))
        .await
        .good();
    let code = made["short_code"].as_str().unwrap().to_owned();
    let letters: String = code.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    // 32 letters: five bits each.
    assert!(letters.len() * 5 >= 40, "{code}");
    let life = made["invitation"]["expires_at"].as_str().unwrap().to_owned();
    let tries = async |code: String, from: String| {
        let form = format!("code={code}").into_bytes();
        let headers =
            [("x-forwarded-for", from.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        house.raw(Method::POST, "/enroll", &headers, form).await.status
    };
    assert_eq!(tries(code.to_lowercase(), "198.51.100.1".into()).await, 200, "as people type it");
    // One address: after twenty wrong codes not even the right one is looked at.
    let mut looked_at = 0;
    for n in 0..40_u32 {
        match tries(format!("{:09}", 100_000_000 + n), "198.51.100.7".into()).await {
            404 => looked_at += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert!((10..=20).contains(&looked_at), "{looked_at}");
    assert_eq!(
        tries(code.clone(), "198.51.100.7".into()).await,
        429,
        "a right guess after the limit is no luck"
    );
    assert_eq!(tries(code.clone(), "203.0.113.9".into()).await, 200, "the person is elsewhere");
    // Many addresses: the whole server looks at some hundred guesses in ten minutes. With 2^45 codes and an hour of
    // life that is one chance in 10^9 for each open code.
    for round in 0..20_u32 {
        let guesses = (0..40_u32)
            .map(|n| tries(format!("{:09}", 200_000_000 + round * 100 + n), format!("10.1.{round}.{n}")));
        looked_at += join_all(guesses).await.into_iter().filter(|status| *status == 404).count();
    }
    assert!(looked_at <= 700, "{looked_at} guesses were looked at");
    assert_eq!(tries(code.clone(), "10.9.9.9".into()).await, 429, "{life}");
    // Links are 160 bits and need no limit: nobody is locked out of those by a flood of guesses.
    let link = house.invite().await;
    let path = link.strip_prefix(&house.url).unwrap();
    assert_eq!(
        house.raw(Method::GET, path, &[("x-forwarded-for", "10.9.9.9")], Vec::new()).await.status,
        200
    );
    // A code has a cap of its own.
    let other = House::new().await;
    let made = other
        .post("/invitations", json!({ "platform": "apple", "test_only": true, "short_code": true }))
        .await
        .good();
    let path = format!("/enroll/{}", made["short_code"].as_str().unwrap());
    let mut handed_out = 0;
    for _ in 0..30 {
        handed_out +=
            usize::from(other.raw(Method::POST, &path, &[], b"family=mac".to_vec()).await.status == 200);
    }
    assert!((1..=10).contains(&handed_out), "{handed_out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_26_the_document_is_the_inventory() {
    let house = House::new().await;
    let document = house.get("/openapi.json").await;
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let served: BTreeSet<String> = routes::table()
        .iter()
        .filter(|entry| entry.path.starts_with("/api/") && entry.path != "/api/v1/openapi.json")
        .map(|entry| format!("{} {}", entry.method, entry.path))
        .collect();
    documented.remove("GET /api/v1/openapi.json");
    assert_eq!(documented, served);
    for base in [&house.url, &house.device_url] {
        for path in [
            "/metrics",
            "/debug",
            "/debug/pprof/",
            "/debug/pprof/heap",
            "/pprof",
            "/server-status",
            "/actuator/env",
            "/env",
            "/.env",
            "/.git/config",
            "/data/master.key",
            "/bellwether.db",
            "/swagger",
            "/graphql",
            "/trace",
            "/admin",
            "/console",
            "/api",
            "/api/",
            "/api/v1",
            "/api/v1/",
            "/api/v2/devices",
            "/",
            "/index.html",
            "/favicon.ico",
        ] {
            let request = house.http.request(Method::GET, &format!("{base}{path}"));
            let status = house.http.send("probe", request).await.unwrap().status;
            assert!(status == 404 || status == 401, "{base}{path}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_27_no_spelling_of_a_path_opens_the_api_without_a_key() {
    let house = House::new().await;
    let mut stranger = house.site.clone();
    stranger.key = SecretString::default();
    let wrong_keys = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer bw_",
        "Bearer bw_0000000000000000000000000000000000000000000",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer null",
        "Bearer ' OR 1=1 --",
        "bw_x",
        "Bearer bw_x, Bearer bw_y",
        "Negotiate x",
        "Digest username=\"admin\"",
    ];
    let (site, url) = (house.site.clone(), house.url.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let mut checked = 0;
        for (nth, entry) in routes::table().iter().filter(|entry| entry.audience == Audience::Key).enumerate() {
            let path = filled(entry.path);
            let rest = path.strip_prefix("/api/v1/").unwrap();
            let mut spellings = vec![
                path.clone(), format!("{path}/"), format!("/{path}"), format!("//api//v1//{rest}"), format!("/./api/v1/{rest}"),
                format!("/api/./v1/{rest}"), format!("/api/v1/../v1/{rest}"), format!("/enroll/../api/v1/{rest}"),
                format!("/apple/mdm/../../api/v1/{rest}"), format!("/api/v1/%2e/{rest}"), format!("/%61pi/v1/{rest}"),
                format!("/api%2fv1%2f{rest}"), format!("{path};x=1"), format!("/api;x/v1/{rest}"), path.to_uppercase(),
                format!("/Api/v1/{rest}"), format!("{path}%00"), format!("{path}%20"), format!("{path}."), format!("{path}\\"),
                format!("\\api\\v1\\{rest}"), format!("{path}?x=/livez"), format!("{path}#/livez"), format!("/livez/../api/v1/{rest}"),
                format!("/api/v1/setup/../{rest}"), format!("{path}.json"), format!("{path}~"), format!("{path}?_method=GET"),
                format!("https://localhost{path}"),
            ];
            spellings.dedup();
            // Every spelling of some routes, some spellings of every route: each is a connection of its own.
            let all = spellings.into_iter().enumerate();
            for (_, spelling) in all.filter(|(at, _)| *at == 0 || nth < 4 || (at + nth) % 6 == 0) {
                let request = format!(
                    "{} {spelling} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                    entry.method
                );
                let status = by_hand(&site, &url, &request);
                // 400: not a path that HTTP knows.
                assert!([400, 401, 404, 405].contains(&status), "{} {spelling}: {status}", entry.method);
                assert!(spelling != path || status == 401, "{} {spelling}: {status}", entry.method);
                checked += 1;
            }
        }
        checked
    })
    .await
    .unwrap();
    assert!(checked > 200, "{checked}");
    for entry in routes::table().iter().filter(|entry| entry.audience == Audience::Key) {
        let path = filled(entry.path);
        for header in wrong_keys {
            let reply = house
                .raw(entry.method.as_str().parse().unwrap(), &path, &[("authorization", header)], Vec::new())
                .await;
            assert_eq!(reply.status, 401, "{} {path} {header:?}", entry.method);
        }
        // Another method, however it is said, is no way in.
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO"] {
            let headers = [
                ("x-http-method-override", "GET"),
                ("x-original-url", "/livez"),
                ("x-rewrite-url", "/livez"),
                ("x-forwarded-for", "127.0.0.1"),
            ];
            let reply = house.raw(method.parse().unwrap(), &path, &headers, Vec::new()).await;
            assert!([401, 404, 405].contains(&reply.status), "{method} {path}: {}", reply.status);
        }
        // What is wrong with a request is nobody's business before the key is right.
        let reply = house
            .raw(Method::POST, &path, &[("content-type", "application/json")], b"{\"x\":".to_vec())
            .await;
        assert_eq!(reply.status, 401, "{path}");
    }
    // A key in the URL is refused even when it is right.
    use secrecy::ExposeSecret as _;
    let path = format!("/api/v1/devices?access_token={}", house.key.expose_secret());
    assert_eq!(house.raw(Method::GET, &path, &[], Vec::new()).await.status, 400);
    // The device listener has no API.
    let request = house.http.request(Method::GET, &format!("{}/api/v1/devices", house.device_url));
    assert_eq!(house.http.send("API", request).await.unwrap().status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_63_a_fresh_install_has_no_credentials_and_shares_none() {
    let (one, two) = (House::new().await, House::new().await);
    for house in [&one, &two] {
        let mut stranger = house.site.clone();
        stranger.key = SecretString::default();
        for entry in
            routes::table().iter().filter(|entry| matches!(entry.audience, Audience::Key | Audience::Setup))
        {
            let path = filled(entry.path.strip_prefix("/api/v1").unwrap());
            let answer =
                stranger.call(entry.method.as_str().parse().unwrap(), &path, Some(json!({})), &[]).await;
            assert!([400, 401].contains(&answer.status), "{} {path}: {answer:?}", entry.method);
            assert!(answer.status == 401 || entry.audience == Audience::Setup);
        }
        for token in ["", "admin", "password", "bws_", "setup", "00000000"] {
            let answer = stranger.post("/setup", json!({ "token": token, "name": "x" })).await;
            assert_eq!(answer.refusal().0, 401, "{token:?}");
        }
        let mode = |path: &str| {
            std::fs::metadata(house.config.data_dir.join(path)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode("master.key"), 0o600);
        assert_eq!(mode(""), 0o700);
    }
    // The key of one is worth nothing at the other, and neither is anything else.
    let mut crossed = two.site.clone();
    crossed.key = one.key.clone();
    assert_eq!(crossed.call(Method::GET, "/devices", None, &[]).await.refusal().0, 401);
    let file = |house: &House, name: &str| std::fs::read(house.config.data_dir.join(name)).unwrap();
    assert_ne!(file(&one, "master.key"), file(&two, "master.key"));
    assert_ne!(one.ca_pem, two.ca_pem);
    let ca = async |house: &House| {
        let mac = house.enrolled(Family::Mac).await;
        let path = mac.enrollment().unwrap().scep.url.strip_prefix(&house.url).unwrap().to_owned();
        let reply = house.raw(Method::GET, &format!("{path}?operation=GetCACert"), &[], Vec::new()).await;
        reply.ok("GetCACert").unwrap().body
    };
    assert_ne!(ca(&one).await, ca(&two).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_64_one_of_many_first_visitors_wins() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = bellwether::config::Config::ephemeral(folder.path().join("data")).unwrap();
    config.limits.drain_seconds = 0;
    let mut server = bellwether::serve::start(config).await.unwrap();
    use secrecy::ExposeSecret as _;
    let token = server.setup_token.take().unwrap();
    let http = bellwether_sim::Http::new(server.tls_ca_pem.as_bytes()).unwrap();
    let url = format!("{}/api/v1/setup", server.public_url);
    let visit = |token: String, name: String| {
        let (http, url) = (http.clone(), url.clone());
        tokio::spawn(async move {
            let body = json!({ "token": token, "name": name }).to_string();
            let request =
                http.request(Method::POST, &url).header("content-type", "application/json").body(body);
            http.send("setup", request).await.unwrap().status
        })
    };
    // Whoever does not hold the token is not first, however early.
    for guess in ["x", "bws_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(visit(guess.into(), "thief".into()).await.unwrap(), 401);
    }
    let race = (0..16).map(|n| visit(token.expose_secret().to_owned(), format!("visitor {n}")));
    let statuses: Vec<u16> = join_all(race).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 401, 429].contains(status)), "{statuses:?}");
    assert!([401, 429].contains(&visit(token.expose_secret().to_owned(), "late".into()).await.unwrap()));
    server.stop().await;
}
