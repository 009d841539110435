//! RT-30: limits and revocations count over all nodes.

use super::Nodes;
use crate::wire::Choice;
use bellwether_sim::Family;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use std::time::{Duration, Instant};

/// Wrong codes that one address may try (`SOURCE_TRIES` of the engine).
const TRIES: usize = 20;

/// A typed code that looks right and is not.
fn wrong(code: &str, number: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHJKMNPQRSTVWXYZ";
    let mut letters: Vec<u8> = code.bytes().filter(|byte| *byte != b'-').collect();
    letters[0] = LETTERS[number % LETTERS.len()];
    letters[1] = LETTERS[number / LETTERS.len()];
    letters[2] = if letters[2] == b'A' { b'B' } else { b'A' };
    String::from_utf8(letters).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_guessing_over_both_nodes_is_stopped_as_with_one() {
    let Some(nodes) = Nodes::two().await else { return };
    let wish = json!({ "platform": "apple", "test_only": true, "short_code": true });
    let made = nodes.post("/invitations", wish).await.good();
    let code = made["short_code"].as_str().unwrap().to_owned();
    let typed = async |code: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        nodes.raw(Method::POST, "/enroll", &headers, format!("code={code}").into_bytes()).await.status
    };
    assert_eq!(typed(&code).await, 200, "the right code is good at first");
    let mut looked = 0;
    for number in 0..TRIES * 2 {
        match typed(&wrong(&code, number)).await {
            404 => looked += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(looked, TRIES, "wrong codes that were looked at, over both nodes");
    for node in [0, 1] {
        nodes.choose(Choice::Only(node));
        assert_eq!(
            typed(&code).await,
            429,
            "node {node}: past the limit even the right one is not looked for"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_setup_tokens_are_guessed_at_both_nodes_together() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut refused = 0;
    for number in 0..20 {
        let wish = json!({ "token": format!("bws_{number:064}"), "name": "thief" });
        match nodes.call(Method::POST, "/setup", Some(wish), &[]).await.status {
            401 => refused += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    // The right one, with which the nodes were set up, was the first of ten.
    assert!((9..=10).contains(&refused), "{refused} were looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_what_one_node_takes_back_the_other_refuses() {
    let Some(nodes) = Nodes::two().await else { return };
    for round in 0..6 {
        let (here, there) = (nodes.node(round % 2), nodes.node((round + 1) % 2));
        // A key.
        let wish = json!({ "name": "short", "grants": ["device:read@server"], "expires_in_days": 1 });
        let made = here.post("/keys", wish).await.good();
        let id = made["id"].as_str().or_else(|| made["key"]["id"].as_str()).unwrap().to_owned();
        let mut thief = there.clone();
        thief.key = SecretString::from(made["secret"].as_str().unwrap().to_owned());
        assert_eq!(thief.call(Method::GET, "/devices", None, &[]).await.status, 200);
        let gone = here.delete(&format!("/keys/{id}")).await;
        let since = Instant::now();
        assert!((200..300).contains(&gone.status), "{gone:?}");
        while thief.call(Method::GET, "/devices", None, &[]).await.status != 401 {
            assert!(since.elapsed() < Duration::from_secs(1), "a revoked key is good for a second and more");
        }
        // An invitation.
        let made = here.post("/invitations", json!({ "platform": "apple", "test_only": true })).await.good();
        let id = made["id"].as_str().or_else(|| made["invitation"]["id"].as_str()).unwrap().to_owned();
        let link = made["link"].as_str().unwrap().replace(&nodes.url, &there.url);
        here.delete(&format!("/invitations/{id}")).await;
        let mut late = nodes.device(Family::Mac).await;
        assert!(late.enroll(&link).await.is_err(), "a revoked invitation is good at the other node");
    }
    // A device.
    let mut mac = nodes.enrolled(Family::Mac).await;
    nodes.send(&mac, json!({ "type": "rename", "name": "never" })).await;
    let gone = nodes.node(0).delete(&format!("/devices/{}/enrollment", mac.serial())).await;
    assert!((200..300).contains(&gone.status), "{gone:?}");
    for node in [1, 0] {
        nodes.choose(Choice::Only(node));
        let reply = mac.idle().await.unwrap();
        assert!(!reply.text().contains("never"), "node {node} still hands over");
        assert!(mac.poll().await.is_err() || !format!("{:?}", mac.told()).contains("never"));
    }
}
