//! RT-15: connections to PostgreSQL break, and answers to a COMMIT get lost.

use super::Nodes;
use crate::harness::psql;
use crate::wire::{Choice, Fate, Road};
use bellwether_sim::{AppleDevice, Family, WindowsPc};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// After a broken road everything works again within this.
const RECOVERY: Duration = Duration::from_secs(10);
/// Nobody who calls waits longer for an answer, whatever the database does.
const ANSWER: Duration = Duration::from_secs(15);
/// A transaction that another node left open is in the way no longer than this.
const IN_THE_WAY: Duration = Duration::from_secs(15);

/// Whether a call of a device was served; if not, it was told to come back.
#[track_caller]
fn served<T: std::fmt::Debug>(what: &str, outcome: &bellwether_sim::Result<T>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => {
            let fault = error.fault().map(|fault| format!("{:?}", fault.subcode));
            assert!(error.status() == Some(503) || fault.is_some(), "{what}: {error}");
            false
        }
    }
}

async fn poll_until_served(mac: &mut AppleDevice) -> Duration {
    let since = Instant::now();
    while !served("a poll", &mac.poll().await) {
        assert!(since.elapsed() < RECOVERY, "not served again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_15_a_commit_without_an_answer_is_503_and_its_key_resolves_it() {
    let Some(nodes) = Nodes::two().await else { return };
    let mac = nodes.enrolled(Family::Mac).await;
    let path = format!("/devices/{}/commands", mac.serial());
    let commands = || nodes.count("SELECT count(*) FROM commands WHERE kind = 'rename'");
    let (mut wanted, mut met) = (0, 0);
    for fate in [Fate::AnswerLost, Fate::NeverArrives].repeat(3) {
        // What runs by itself commits too and may be hit instead: then another one is tried.
        for _ in 0..40 {
            let key = format!("key-{wanted}");
            let body = json!({ "intent": { "type": "rename", "name": key } });
            let headers = [("idempotency-key", key.as_str())];
            let before = commands();
            nodes.choose(Choice::Only(0));
            nodes.gates[0].next_commit(fate);
            let answer = nodes.call(Method::POST, &path, Some(body.clone()), &headers).await;
            wanted += 1;
            assert!([201, 503].contains(&answer.status), "{answer:?}");
            let lost = answer.status == 503;
            if lost {
                assert!(answer.headers.iter().any(|(name, _)| name == "retry-after"), "{answer:?}");
                let detail = answer.json["detail"].as_str().unwrap();
                assert!(detail.contains("may or may not") && detail.contains("Idempotency-Key"), "{detail}");
                assert_eq!(commands() - before, i64::from(fate == Fate::AnswerLost), "{fate:?}");
                met += 1;
            }
            nodes.choose(Choice::Only(1));
            let mut ids = Vec::new();
            for _ in 0..2 {
                let again = nodes.call(Method::POST, &path, Some(body.clone()), &headers).await.good();
                ids.push(again["id"].clone());
            }
            assert_eq!(ids[0], ids[1]);
            assert_eq!(commands(), wanted, "one command for each key");
            if lost {
                break;
            }
        }
    }
    assert_eq!(met, 6, "each fate was met three times");
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_15_devices_resolve_commits_that_were_not_answered() {
    let Some(nodes) = Nodes::two().await else { return };
    for gate in &nodes.gates {
        gate.lose_commits(250);
    }
    let mut mac = nodes.device(Family::Mac).await;
    let mut pc = nodes.pc_builder().await.build().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut link = insist(async || nodes.try_invite("apple").await).await;
    loop {
        let outcome = if mac.is_enrolled() {
            // It has its identity; what it said last was not answered.
            match mac.authenticate().await.and_then(|reply| reply.ok("Authenticate")) {
                Ok(_) => mac.token_update().await.and_then(|reply| reply.ok("TokenUpdate")).map(|_| ()),
                Err(error) => Err(error),
            }
        } else {
            mac.enroll(&link).await
        };
        match outcome {
            Ok(()) => break,
            Err(error) if error.status() == Some(503) => {}
            // Its certificate was issued, and the answer is gone with its key: a person asks for another link.
            Err(error) => {
                assert!(Instant::now() < until, "{error}");
                link = insist(async || nodes.try_invite("apple").await).await;
            }
        }
    }
    let mut link = insist(async || nodes.try_invite("windows").await).await;
    while pc.enroll_by_link(&link).await.is_err() {
        assert!(Instant::now() < until, "the PC does not get in");
        link = insist(async || nodes.try_invite("windows").await).await;
    }
    // A PC is enrolled with its first session.
    while !served("the first session", &pc.session().await) {
        assert!(Instant::now() < until, "the PC is not served");
    }
    let (mut names, mut sent) = (Vec::new(), Vec::new());
    for number in 0..8 {
        for serial in [mac.serial().to_owned(), pc.serial()] {
            let name = format!("name{number}x{}", names.len());
            let path = format!("/devices/{serial}/commands");
            let body = json!({ "intent": { "type": "rename", "name": name } });
            let headers = [("idempotency-key", name.as_str())];
            sent.push(
                insist(async || {
                    let answer = nodes.call(Method::POST, &path, Some(body.clone()), &headers).await;
                    assert!([201, 503].contains(&answer.status), "{answer:?}");
                    (answer.status == 201).then(|| answer.json["id"].as_str().unwrap().to_owned())
                })
                .await,
            );
            names.push(name);
        }
    }
    drain(&nodes, &mut mac, &mut pc, until).await;
    for gate in &nodes.gates {
        gate.lose_commits(0);
    }
    for id in &sent {
        assert_eq!(nodes.state(id).await, "acknowledged");
    }
    assert_eq!(nodes.count("SELECT count(*) FROM commands WHERE kind = 'rename'"), 16);
    let living = "SELECT count(*) FROM enrollments WHERE state IN ('pending', 'active')";
    assert_eq!(nodes.count(living), 2, "one life for each device");
    let (answers, commits) =
        nodes.gates.iter().fold((0, 0), |(a, c), gate| (a + gate.lost().0, c + gate.lost().1));
    assert!(
        answers > 1 && commits > 1 && answers + commits > 8,
        "{answers} answers and {commits} commits were lost"
    );
    nodes.at_most_one_open_delivery();
}

/// Both call until nothing waits for them.
async fn drain(nodes: &Nodes, mac: &mut AppleDevice, pc: &mut WindowsPc, until: Instant) {
    let waiting = "SELECT count(*) FROM commands WHERE kind = 'rename' AND pending_lane IS NOT NULL";
    while nodes.count(waiting) > 0 {
        assert!(Instant::now() < until, "{} commands are never done", nodes.count(waiting));
        served("the Mac's poll", &mac.poll().await);
        served("the PC's session", &pc.session().await);
    }
}

/// Calls until there is an answer.
async fn insist<T>(mut call: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..100 {
        if let Some(value) = call().await {
            return value;
        }
    }
    panic!("never answered")
}

impl Nodes {
    async fn try_invite(&self, platform: &str) -> Option<String> {
        let wish = json!({ "platform": platform, "account": "ann@example.org", "test_only": true });
        let answer = self.post("/invitations", wish).await;
        assert!([201, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 201).then(|| answer.json["link"].as_str().unwrap().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_15_broken_connections_are_replaced_and_nobody_is_stuck() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut mac = nodes.enrolled(Family::Mac).await;
    let database = nodes.database.url().rsplit('/').next().unwrap().to_owned();
    let terminate = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    );
    for round in 0..6 {
        if round % 2 == 0 {
            psql(&nodes.database.admin_url(), &terminate);
        } else {
            nodes.gates.iter().for_each(crate::wire::Gate::cut_once);
        }
        poll_until_served(&mut mac).await;
        // Every connection of every pool is good again: as many calls as there are connections.
        for _ in 0..20 {
            mac.poll().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_15_a_node_without_its_database_says_come_back_and_does() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut mac = nodes.enrolled(Family::Mac).await;
    let mut pc = nodes.enrolled_pc().await;
    for road in [Road::Cut, Road::Stalled] {
        nodes.gates[0].set(road);
        nodes.choose(Choice::Only(0));
        if road == Road::Cut {
            let since = Instant::now();
            let body = mac.idle_body().unwrap();
            let signature = mac.signature(&body).unwrap();
            let headers = [("mdm-signature", signature.as_str())];
            let ca = scep_path(&nodes);
            let (poll, session, api, scep, ready) = tokio::join!(
                mac.raw_request(body, &headers),
                pc.session(),
                nodes.call(Method::GET, "/devices", None, &[]),
                nodes.raw(Method::GET, &ca, &[], Vec::new()),
                nodes.raw(Method::GET, "/readyz", &[], Vec::new()),
            );
            assert_eq!(session.unwrap_err().status(), Some(503));
            assert_eq!(api.status, 503);
            assert!(api.headers.iter().any(|(name, _)| name == "retry-after"), "{api:?}");
            for (what, reply) in [("poll", poll.unwrap()), ("SCEP", scep)] {
                assert_eq!(reply.status, 503, "{what}");
                assert!(reply.header("retry-after").is_some(), "{what}: {:?}", reply.headers);
            }
            assert_eq!(ready.status, 503, "a load balancer is told");
            assert!(since.elapsed() < ANSWER, "the answers took {:?}", since.elapsed());
        } else {
            // Nobody is told anything on such a road; the callers' patience is what ends.
            let asked = tokio::time::timeout(Duration::from_secs(3), mac.poll()).await;
            assert!(asked.map_or(true, |outcome| outcome.is_err()), "served without a database");
            // New connections are tried, and nobody answers them, now or later.
            nodes.gates[0].cut_once();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        nodes.choose(Choice::Only(1));
        mac.poll().await.expect("the other node serves");
        nodes.gates[0].set(Road::Open);
        nodes.choose(Choice::Only(0));
        poll_until_served(&mut mac).await;
        for _ in 0..10 {
            mac.poll().await.unwrap();
            pc.session().await.unwrap();
        }
    }
}

/// A node that lost its database for a while still knows who called just before.
#[tokio::test(flavor = "multi_thread")]
async fn rt_15_who_called_before_the_road_broke_is_written_down_after_it() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut mac = nodes.enrolled(Family::Mac).await;
    // What enrolling left is written before.
    tokio::time::sleep(Duration::from_secs(6)).await;
    nodes.choose(Choice::Only(0));
    let called = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    mac.poll().await.unwrap();
    nodes.gates[0].set(Road::Cut);
    let seen = || nodes.count("SELECT coalesce(max(last_seen_at), 0) FROM enrollments");
    // The node tries to write it, and waits in vain for a connection.
    tokio::time::sleep(Duration::from_secs(5) + ANSWER).await;
    assert!(seen() < called, "it was written before the road broke; nothing is shown");
    nodes.gates[0].set(Road::Open);
    let until = Instant::now() + Duration::from_secs(30);
    while seen() < called {
        assert!(Instant::now() < until, "nobody knows that the device called");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `GetCACert` of a CA that no node has looked up yet, so that the database is asked.
fn scep_path(nodes: &Nodes) -> String {
    let id = psql(&nodes.database.admin_url(), "SELECT encode(id, 'hex')::uuid FROM authorities LIMIT 1");
    let last = id.trim().chars().last().unwrap();
    let other = if last == '0' { '1' } else { '0' };
    format!("/scep/{}{other}?operation=GetCACert", id.trim().strip_suffix(last).unwrap())
}

/// A node that is cut off (or stopped) in the middle of a transaction holds the rows that it wrote. The others must
/// neither wait for it for long nor stop serving everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn rt_15_a_node_that_falls_silent_in_a_transaction_does_not_stop_the_others() {
    let Some(nodes) = Nodes::two().await else { return };
    let mut mac = nodes.enrolled(Family::Mac).await;
    let mut other = nodes.enrolled(Family::Iphone).await;
    nodes.send(&mac, json!({ "type": "rename", "name": "one" })).await;
    nodes.send(&other, json!({ "type": "rename", "name": "two" })).await;
    let body = mac.idle_body().unwrap();
    let signature = mac.signature(&body).unwrap();
    let headers = [("mdm-signature", signature.as_str())];
    let since = Instant::now();
    // Other writes of the node may be caught instead; so the Mac asks until its own transaction is stuck.
    nodes.choose(Choice::Only(0));
    nodes.gates[0].next_commit(Fate::Stuck);
    let stuck = tokio::time::timeout(Duration::from_secs(3), mac.raw_request(body, &headers)).await;
    nodes.choose(Choice::Only(1));
    let mut slowest = Duration::ZERO;
    while since.elapsed() < IN_THE_WAY + Duration::from_secs(5) {
        let at = Instant::now();
        served("the other device's poll", &other.poll().await);
        slowest = slowest.max(at.elapsed());
        nodes.post("/invitations", json!({ "platform": "apple", "test_only": true })).await;
        slowest = slowest.max(at.elapsed());
        if served("the same device's poll", &mac.poll().await) {
            break;
        }
    }
    assert!(stuck.is_err(), "the transaction was not caught");
    mac.poll().await.expect("the device is served by the other node");
    assert!(since.elapsed() < IN_THE_WAY, "the device waited for {:?}", since.elapsed());
    assert!(slowest < Duration::from_secs(8), "everybody waited: {slowest:?}");
    nodes.gates[0].set(Road::Cut);
    nodes.gates[0].set(Road::Open);
    nodes.at_most_one_open_delivery();
    let done = "SELECT count(*) FROM commands WHERE kind = 'rename' AND state = 'acknowledged'";
    assert_eq!(nodes.count(done), 2);
}
