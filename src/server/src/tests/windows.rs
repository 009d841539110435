//! What Windows machines and the people before them meet at the edge: framing, identity, the sign-in page.

use super::{World, raw, status};
use bellwether_windows::enrollment::CONTENT_TYPE;
use serde_json::{Value, json};

const AUTH: &str = "/EnrollmentServer/Auth";
const SETTINGS: &str = "ms-app://windows.immersivecontrolpanel";

fn is_chunked(answer: &str) -> bool {
    answer.to_ascii_lowercase().contains("transfer-encoding")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_answers_the_first_look_with_nothing() {
    let world = World::new().await;
    let addr = world.server.public_addr;
    for method in ["GET", "HEAD"] {
        let request = format!(
            "{method} /EnrollmentServer/Discovery.svc?x=y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let answer = tokio::task::spawn_blocking(move || raw(addr, request.as_bytes())).await.unwrap();
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("content-length: 0\r\n"), "{answer}");
        assert!(!is_chunked(&answer) && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_certificate_stands_for_the_discovery_names() {
    let host = "enterpriseenrollment.contoso.example";
    let world = World::with(&[
        ("windows.discovery_names", "EnterpriseEnrollment.Contoso.example"),
        ("public_url", "https://mdm.contoso.example"),
        ("device_url", "https://devices.contoso.example"),
    ])
    .await;
    let roots = reqwest::Certificate::from_pem_bundle(world.server.tls_ca_pem.as_bytes()).unwrap();
    let addr = world.server.public_addr;
    let http = reqwest::Client::builder().tls_certs_only(roots).resolve(host, addr).build().unwrap();
    let url = format!("https://{host}:{}/EnrollmentServer/Discovery.svc", addr.port());
    assert_eq!(http.get(&url).send().await.unwrap().status(), 200);
    let other = http.get(&url).header("host", "mdm.contoso.example").send().await.unwrap();
    assert_eq!(other.status(), 421);
    assert_eq!(other.text().await.unwrap(), "", "no prose for machines");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_51_packed_bodies_are_refused_in_soap() {
    let world = World::new().await;
    for path in ["Discovery.svc", "Policy.svc", "Enrollment.svc"] {
        let url = world.at(&format!("/EnrollmentServer/{path}?mode=x"));
        let answer = world.http.post(&url).header("content-encoding", "gzip").body("x").send().await.unwrap();
        assert_eq!(answer.status(), 415);
        assert_eq!(answer.headers().get("content-type").unwrap(), CONTENT_TYPE);
        let id = answer.headers().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        let length = answer.headers().get("content-length").unwrap().to_str().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        assert_eq!(length, text.len().to_string());
        assert!(
            text.contains("s:MessageFormat") && text.contains(&format!("<TraceId>{id}</TraceId>")),
            "{text}"
        );
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_50_sessions_need_an_identity_before_anything_is_parsed() {
    let world = World::new().await;
    let path = "/ManagementServer/MDM.svc?mode=Maintenance&Platform=WoA";
    // Not on the listener that never asks for a certificate.
    assert_eq!(world.http.post(world.at(path)).body("x").send().await.unwrap().status(), 404);
    let url = format!("{}{path}", world.server.device_url);
    let post = |body: Vec<u8>| world.http.post(&url).body(body);
    for body in [Vec::new(), b"<SyncML/>".to_vec(), vec![b'x'; 60_000]] {
        let answer = post(body).send().await.unwrap();
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers().get("content-length").unwrap(), "0");
        assert!(answer.headers().get("content-type").is_none());
    }
    // A header that nobody configured is no identity, nor is one of a stranger.
    assert_eq!(post(Vec::new()).header("client-cert", ":MAA=:").send().await.unwrap().status(), 403);
    let two = post(Vec::new()).header("mdm-signature", "AAAA").header("ms-signature", "AAAA");
    assert_eq!(two.send().await.unwrap().status(), 400);
    let addr = world.server.device_addr;
    for (header, code) in [("", 403), ("MS-Signature: AAAA\r\n", 413)] {
        let request = format!(
            "POST /ManagementServer/MDM.svc HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 1073741824\r\n\r\nx"
        );
        let answer = tokio::task::spawn_blocking(move || raw(addr, request.as_bytes())).await.unwrap();
        assert_eq!(status(&answer), code, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_trusted_proxy_speaks_of_certificates() {
    let header = ("device.client_certificate_header", "Client-Cert");
    // 400 tells that the header was looked at.
    for (proxies, code) in [("192.0.2.0/24", 403), ("127.0.0.0/8,::1", 400)] {
        let world = World::with(&[header, ("trusted_proxies", proxies)]).await;
        let url = format!("{}/ManagementServer/MDM.svc", world.server.device_url);
        let post = || world.http.post(&url).body("x");
        for wrong in ["nonsense", "::", ":MAA=:, :MAA=:"] {
            let answer = post().header("client-cert", wrong).send().await.unwrap();
            assert_eq!(answer.status(), code, "{wrong}");
        }
        let twice = post().header("client-cert", ":MAA=:").header("client-cert", ":MAA=:");
        assert_eq!(twice.send().await.unwrap().status(), code);
        assert_eq!(post().send().await.unwrap().status(), 403, "the proxy saw no certificate");
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sign_in_page_knows_where_a_token_may_go() {
    let world = World::new().await;
    let open = async |appru: &str, hint: &str| {
        let mut url: url::Url = world.at(AUTH).parse().unwrap();
        url.query_pairs_mut().append_pair("appru", appru).append_pair("login_hint", hint);
        world.http.get(url).send().await.unwrap()
    };
    let own = world.at("/done");
    for good in [SETTINGS, "ms-appx-web://Microsoft.AAD.BrokerPlugin/x", &own] {
        let answer = open(good, "ada@example.org\"><script>").await;
        assert_eq!(answer.status(), 200, "{good}");
        let policy = answer.headers().get("content-security-policy").unwrap().to_str().unwrap().to_owned();
        assert!(policy.contains("form-action 'self'") && !policy.contains("script-src"), "{policy}");
        let text = answer.text().await.unwrap();
        assert!(
            text.contains(good) && text.contains("ada@example.org") && !text.contains("<script"),
            "{text}"
        );
    }
    let mut refusals = Vec::new();
    for hostile in [
        "",
        "https://evil.example/",
        "javascript:alert(1)",
        "//evil.example",
        "data:text/html,x",
        "ms-app://x\"><script>alert(1)</script>",
        "ms-app://x\r\nLocation: https://evil.example",
        &format!("{}.evil.example/", world.url),
        &format!("ms-app://{}", "x".repeat(4000)),
    ] {
        let answer = open(hostile, "<img src=x>").await;
        assert_eq!(answer.status(), 400, "{hostile}");
        refusals.push(answer.text().await.unwrap());
        let fields = [("appru", hostile), ("account", "ada"), ("code", "x")];
        let answer = world.http.post(world.at(AUTH)).body(form(&fields)).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{hostile}");
        refusals.push(answer.text().await.unwrap());
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "nothing of what came is shown");
    assert!(!refusals[0].contains("evil") && !refusals[0].contains("<img"));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sign_in_form_is_ours_and_forgives_a_typing_error() {
    let world = World::new().await;
    let fields = form(&[("appru", SETTINGS), ("account", "ada@example.org"), ("code", "never-existed")]);
    let post = || world.http.post(world.at(AUTH)).body(fields.clone());
    let answer = post().header("origin", &world.url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(text.contains("role=\"alert\"") && text.contains("ada@example.org"), "{text}");
    assert!(!text.contains("wresult") && !text.contains("never-existed"), "{text}");
    let foreign = post().header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    let foreign =
        post().header("origin", "null").header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_for_windows_shows_steps_and_hands_out_no_profile() {
    let mut world = World::new().await;
    let key = world.key().await;
    // No push certificate of Apple's is needed.
    let wish = json!({ "platform": "windows", "account": "ada@example.org", "short_code": true });
    let made = world.http.post(world.at("/api/v1/invitations")).bearer_auth(&key).json(&wish).send().await;
    let made = made.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let link = made["link"].as_str().unwrap();
    let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Edg/131.0.0.0";
    let page = world.http.get(link).header("user-agent", agent).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let text = page.text().await.unwrap();
    for part in [
        "ms-device-enrollment:?mode=mdm",
        "ada@example.org",
        "Discovery.svc",
        link.rsplit('/').next().unwrap(),
        "/tls-ca.crt",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let profile = world.http.post(link).header("user-agent", agent).send().await.unwrap();
    assert_eq!(profile.status(), 404);
    let android = json!({ "platform": "android" });
    let refused =
        world.http.post(world.at("/api/v1/invitations")).bearer_auth(&key).json(&android).send().await;
    assert_eq!(refused.unwrap().status(), 422);
    world.server.stop().await;
}

fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
