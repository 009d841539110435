//! The enrollment page and what it may not do.

use super::World;
use serde_json::{Value, json};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15";

async fn invite(world: &World, key: &str, name: &str) -> (String, String) {
    let body =
        json!({ "platform": "apple", "test_only": true, "short_code": true, "name": name, "account": "ada" });
    let made: Value = world
        .http
        .post(world.at("/api/v1/invitations"))
        .bearer_auth(key)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    (made["link"].as_str().unwrap().to_owned(), made["short_code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_consumes_nothing_and_a_post_hands_out_the_profile() {
    let mut world = World::new().await;
    let key = world.key().await;
    let (link, code) = invite(&world, &key, "<script>alert(1)</script>").await;
    for _ in 0..3 {
        let page = world.http.get(&link).header("user-agent", IPHONE).send().await.unwrap();
        assert_eq!(page.status(), 200);
        let header = |name: &str| page.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
        assert_eq!(
            (header("cache-control"), header("referrer-policy")),
            ("no-store".into(), "no-referrer".into())
        );
        let text = page.text().await.unwrap();
        assert!(!text.contains("<script") && text.contains("value=\"iphone\""));
        let head = world.http.head(&link).send().await.unwrap();
        assert_eq!(head.status(), 200);
    }
    let file = world.http.post(&link).header("user-agent", IPHONE).send().await.unwrap();
    assert_eq!(file.status(), 200);
    assert_eq!(file.headers().get("content-type").unwrap(), "application/x-apple-aspen-config");
    assert_eq!(
        file.headers().get("content-disposition").unwrap(),
        "attachment; filename=\"enroll.mobileconfig\""
    );
    assert_eq!(file.bytes().await.unwrap().first(), Some(&0x30), "CMS");
    let plain =
        world.http.post(format!("{link}?format=unsigned")).header("user-agent", IPHONE).send().await.unwrap();
    assert!(plain.text().await.unwrap().starts_with("<?xml"));
    // The typed code shows the same page.
    let typed = world
        .http
        .post(world.at("/enroll"))
        .body(format!("code={code}"))
        .header("user-agent", IPHONE)
        .send()
        .await
        .unwrap();
    assert_eq!(typed.status(), 200);
    assert!(typed.text().await.unwrap().contains("value=\"iphone\""));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_the_same_page() {
    let mut world = World::new().await;
    let key = world.key().await;
    let (link, _) = invite(&world, &key, "Ada").await;
    let list: Value = world
        .http
        .get(world.at("/api/v1/invitations"))
        .bearer_auth(&key)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let id = list["items"][0]["id"].as_str().unwrap();
    let gone = world
        .http
        .delete(world.at(&format!("/api/v1/invitations/{id}")))
        .bearer_auth(&key)
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 200);
    let mut pages = Vec::new();
    for url in [link, world.at("/enroll/never-existed"), world.at(&format!("/enroll/{}", "x".repeat(300)))] {
        for method in [reqwest::Method::GET, reqwest::Method::POST] {
            let answer = world.http.request(method, &url).send().await.unwrap();
            assert_eq!(answer.status(), 404);
            pages.push(answer.text().await.unwrap());
        }
    }
    pages.dedup();
    assert_eq!(pages.len(), 1);
    world.server.stop().await;
}
