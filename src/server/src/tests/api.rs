//! The API's manners.

use super::World;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_63_and_64_nobody_is_administrator_by_being_first() {
    let mut world = World::new().await;
    let list = world.http.get(world.at("/api/v1/devices")).send().await.unwrap();
    assert_eq!(list.status(), 401);
    let guess = json!({ "token": "admin", "name": "thief" });
    let answer = world.http.post(world.at("/api/v1/setup")).json(&guess).send().await.unwrap();
    assert!([401, 404, 409, 400].contains(&answer.status().as_u16()), "{}", answer.status());
    // Of many who race with the right token exactly one wins.
    let token = secrecy::ExposeSecret::expose_secret(world.server.setup_token.as_ref().unwrap()).to_owned();
    let body = json!({ "token": token, "name": "racer" });
    let tries = (0..8).map(|_| world.http.post(world.at("/api/v1/setup")).json(&body).send());
    let won = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .filter(|a| a.as_ref().unwrap().status() == 201)
        .count();
    assert_eq!(won, 1);
    world.server.setup_token = None;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_are_strict_and_refusals_say_why() {
    let mut world = World::new().await;
    let key = world.key().await;
    let post = |path: &str, body: String, kind: &str| {
        world
            .http
            .post(world.at(path))
            .bearer_auth(&key)
            .header("content-type", kind.to_owned())
            .body(body)
            .send()
    };
    let json_type = "application/json";
    for (body, kind, status) in [
        (r#"{"platform":"apple","test_only":true,"admin":true}"#, json_type, 400),
        (r#"{"platform":"symbian"}"#, json_type, 400),
        (r#"{"platform":"apple","expires_in_seconds":1}"#, json_type, 400),
        (r#"{"platform":"apple""#, json_type, 400),
        (r#"{"platform":"apple"}"#, "text/plain", 415),
        (r#"{"platform":"android"}"#, json_type, 422),
    ] {
        let answer = post("/api/v1/invitations", body.to_owned(), kind).await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
        assert_eq!(answer.headers().get("content-type").unwrap(), "application/problem+json");
        let id = answer.headers().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["request_id"], id.as_str());
        assert_eq!(problem["status"], status);
    }
    let get = |path: &str| world.http.get(world.at(path)).bearer_auth(&key).send();
    for bad in [
        "/api/v1/devices?limit=0",
        "/api/v1/devices?cursor=%21",
        "/api/v1/devices?order=x",
        "/api/v1/devices?site=x",
    ] {
        assert_eq!(get(bad).await.unwrap().status(), 400, "{bad}");
    }
    assert_eq!(get("/api/v1/commands/not-an-id").await.unwrap().status(), 404);
    assert_eq!(get("/api/v1/nothing").await.unwrap().status(), 404);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_idempotency_key_makes_one_invitation() {
    let mut world = World::new().await;
    let key = world.key().await;
    let send = |body: Value| {
        world
            .http
            .post(world.at("/api/v1/invitations"))
            .bearer_auth(&key)
            .header("idempotency-key", "k-1")
            .json(&body)
            .send()
    };
    let wish = json!({ "platform": "apple", "test_only": true });
    let first: Value = send(wish.clone()).await.unwrap().json().await.unwrap();
    let second: Value = send(wish).await.unwrap().json().await.unwrap();
    assert_eq!(first["link"], second["link"]);
    assert_eq!(first["invitation"]["id"], second["invitation"]["id"]);
    let other = send(json!({ "platform": "apple", "test_only": true, "unsigned": true })).await.unwrap();
    assert_eq!(other.status(), 409);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_hold_at_the_edge() {
    let mut world = World::new().await;
    let admin = world.key().await;
    let wish = json!({ "name": "reader", "grants": ["device:read@server"], "expires_in_days": 1 });
    let made: Value = world
        .http
        .post(world.at("/api/v1/keys"))
        .bearer_auth(&admin)
        .json(&wish)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let reader = made["secret"].as_str().unwrap();
    let id = made["key"]["id"].as_str().unwrap();
    let get = |path: &str| world.http.get(world.at(path)).bearer_auth(reader).send();
    assert_eq!(get("/api/v1/devices").await.unwrap().status(), 200);
    for refused in ["/api/v1/keys", "/api/v1/audit", "/api/v1/invitations", "/api/v1/push/apple"] {
        assert_eq!(get(refused).await.unwrap().status(), 403, "{refused}");
    }
    let gone =
        world.http.delete(world.at(&format!("/api/v1/keys/{id}"))).bearer_auth(&admin).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(get("/api/v1/devices").await.unwrap().status(), 401, "revoked at once");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_on_the_same_folder_carries_on() {
    let mut world = World::new().await;
    let key = world.key().await;
    let folder = world.folder;
    let flags = [
        ("public.listen", world.server.public_addr.to_string()),
        ("device.listen", world.server.device_addr.to_string()),
    ];
    let pem = world.server.tls_ca_pem.clone();
    world.server.stop().await;
    drop(world.http);
    let flags: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let server = crate::serve::start(super::config(folder.path(), &flags)).await.unwrap();
    assert!(server.setup_token.is_none());
    assert_eq!(server.tls_ca_pem, pem);
    let http = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap())
        .build()
        .unwrap();
    let answer =
        http.get(format!("{}/api/v1/devices", server.public_url)).bearer_auth(&key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    server.stop().await;
}
