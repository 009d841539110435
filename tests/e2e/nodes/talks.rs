//! RT-30: what a device and an administrator say in several pieces may be heard by several nodes.

use super::Nodes;
use crate::wire::Choice;
use bellwether_sim::{EnrollOptions, Family, ProfileOptions, ScepOptions};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

fn rename(name: &str) -> Value {
    json!({ "type": "rename", "name": name })
}

/// The names in what a device was told, in order.
fn names<'a>(told: impl Iterator<Item = String> + 'a) -> Vec<String> {
    told.filter_map(|text| {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .find(|word| word.starts_with("node"))
            .map(str::to_owned)
    })
    .collect()
}

fn wanted(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("node{n:03}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_a_session_of_a_pc_goes_to_and_fro_between_nodes() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut pc = nodes.enrolled_pc().await;
    let mut sent = Vec::new();
    for name in wanted(12) {
        sent.push(nodes.tell(&pc, rename(&name)).await);
    }
    let before = nodes.device.taken();
    let told = pc.session().await.unwrap();
    let told = names(told.iter().filter_map(|told| told.data.clone()));
    assert_eq!(told, wanted(12), "each once, in order");
    let taken: Vec<usize> = nodes.device.taken().iter().zip(&before).map(|(now, was)| now - was).collect();
    assert!(taken.iter().all(|messages| *messages > 0), "one session, heard by both nodes: {taken:?}");
    for id in &sent {
        assert_eq!(nodes.state(id).await, "acknowledged");
    }
    nodes.at_most_one_open_delivery();
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_a_mac_is_told_by_one_node_and_answers_another() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut mac = nodes.enrolled(Family::Mac).await;
    let mut sent = Vec::new();
    for name in wanted(9) {
        sent.push(nodes.send(&mac, rename(&name)).await);
    }
    let before = nodes.public.taken();
    let told = mac.poll().await.unwrap();
    let told = names(told.iter().map(|told| format!("{:?}", told.command)));
    assert_eq!(told, wanted(9), "each once, in order");
    let taken: Vec<usize> = nodes.public.taken().iter().zip(&before).map(|(now, was)| now - was).collect();
    assert_eq!(taken, [5, 5], "Idle and nine answers, by turns");
    for id in &sent {
        assert_eq!(nodes.state(id).await, "acknowledged");
    }
    nodes.at_most_one_open_delivery();
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_a_challenge_of_one_node_is_good_at_the_other_and_once() {
    let Some(nodes) = Nodes::two().await else { return };
    let link = nodes.invite().await;
    let mut mac = nodes.device(Family::Mac).await;
    nodes.choose(Choice::Only(0));
    let profile = mac.fetch_profile(&link, &ProfileOptions::default()).await.unwrap();
    mac.install_enrollment(profile);
    let details = mac.enrollment().unwrap().clone();
    nodes.choose(Choice::Only(1));
    let first = mac.scep_attempt(&details, &ScepOptions::default()).await.unwrap();
    let other = mac.scep_attempt(&details, &ScepOptions::default()).await.unwrap();
    // Two keys with one challenge, at both nodes in one moment.
    nodes.choose(Choice::Turns);
    let (one, two) = tokio::join!(first.send(&nodes.http), other.send(&nodes.http));
    assert!(one.is_ok() != two.is_ok(), "one challenge buys one certificate: {one:?} {two:?}");
    assert_eq!(nodes.count("SELECT count(*) FROM identities"), 1);
    let winner = if one.is_ok() { &first } else { &other };
    // The same request again, at whichever node: the same certificate.
    for node in [0, 1] {
        nodes.choose(Choice::Only(node));
        let again = winner.send(&nodes.http).await.unwrap();
        assert_eq!(again.cert_der, one.as_ref().or(two.as_ref()).unwrap().cert_der);
    }
    nodes.choose(Choice::Only(0));
    mac.scep_finish(winner).await.unwrap();
    mac.authenticate().await.unwrap().ok("Authenticate").unwrap();
    nodes.choose(Choice::Only(1));
    mac.token_update().await.unwrap().ok("TokenUpdate").unwrap();
    mac.poll().await.unwrap();
    nodes.choose(Choice::Only(0));
    mac.poll().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_an_invitation_is_redeemed_once_although_both_nodes_are_asked() {
    let Some(nodes) = Nodes::two().await else { return };
    for round in 1..=3 {
        let link = nodes.invite().await;
        let (mut one, mut two) = (nodes.device(Family::Mac).await, nodes.device(Family::Iphone).await);
        let options = EnrollOptions::default();
        let (first, second) =
            tokio::join!(one.enroll_with(&link, &options), two.enroll_with(&link, &options));
        let mut enrolled = 0;
        for (device, outcome) in [(&mut one, &first), (&mut two, &second)] {
            if outcome.is_ok() {
                enrolled += usize::from(device.poll().await.is_ok());
            }
        }
        assert!(enrolled <= 1, "round {round}: two devices with one invitation");
        let living = nodes.count("SELECT count(*) FROM enrollments WHERE state = 'active'");
        let used = nodes.count("SELECT count(*) FROM invitations WHERE state = 'activated'");
        assert_eq!(living, used, "round {round}: {first:?} {second:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_30_the_same_idempotency_key_at_both_nodes_makes_one_command() {
    let Some(nodes) = Nodes::two().await else { return };
    let mac = nodes.enrolled(Family::Mac).await;
    let path = format!("/devices/{}/commands", mac.serial());
    for round in 0..10 {
        let key = format!("key-{round}");
        let body = json!({ "intent": rename(&format!("node{round:03}")) });
        let headers = [("idempotency-key", key.as_str())];
        let calls = (0..4).map(|_| nodes.call(Method::POST, &path, Some(body.clone()), &headers));
        let answers = join_all(calls).await;
        let mut ids: Vec<&str> = answers
            .iter()
            // 503 says nothing; it is sent again below.
            .filter(|answer| answer.status != 503)
            .map(|answer| {
                assert_eq!(answer.status, 201, "{answer:?}");
                answer.json["id"].as_str().unwrap()
            })
            .collect();
        let again = nodes.call(Method::POST, &path, Some(body.clone()), &headers).await.good();
        ids.push(again["id"].as_str().unwrap());
        ids.dedup();
        assert_eq!(ids.len(), 1, "one key, one command: {ids:?}");
        let other = json!({ "intent": rename("another") });
        let refused = nodes.call(Method::POST, &path, Some(other), &headers).await;
        assert_eq!(refused.refusal().0, 409, "the key stands for another request");
    }
    assert_eq!(nodes.count("SELECT count(*) FROM commands WHERE kind = 'rename'"), 10);
    let audited = "SELECT count(*) FROM audit a JOIN commands c ON a.target = 'command:' || encode(c.id, 'hex')::uuid \
                   WHERE a.kind = 'command.queued' AND c.kind = 'rename'";
    assert_eq!(nodes.count(audited), 10, "each command has one entry of its making");
}

/// A device that asks both nodes in one moment, as after a lost answer and a quick retry.
#[tokio::test(flavor = "multi_thread")]
async fn rt_30_both_nodes_hand_over_the_same_delivery() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut mac = nodes.enrolled(Family::Mac).await;
    for round in 0..8 {
        nodes.send(&mac, rename(&format!("first{round}"))).await;
        nodes.send(&mac, rename(&format!("second{round}"))).await;
        let body = mac.idle_body().unwrap();
        let signature = mac.signature(&body).unwrap();
        let headers = [("mdm-signature", signature.as_str())];
        let asked = join_all((0..2).map(|_| mac.raw_request(body.clone(), &headers))).await;
        let mut told: Vec<String> = asked
            .into_iter()
            .map(|reply| reply.unwrap())
            .filter(|reply| {
                assert!([200, 503].contains(&reply.status), "{}", reply.status);
                reply.status == 200
            })
            .map(|reply| bellwether_apple::command::decode_command(&reply.body).unwrap().command_uuid)
            .collect();
        assert!(!told.is_empty(), "nobody was served");
        told.dedup();
        assert_eq!(told.len(), 1, "round {round}: two commands are on their way to one channel");
        nodes.at_most_one_open_delivery();
        mac.poll().await.unwrap();
    }
    assert_eq!(
        nodes.count("SELECT count(*) FROM commands WHERE kind = 'rename' AND state = 'acknowledged'"),
        16
    );
}
