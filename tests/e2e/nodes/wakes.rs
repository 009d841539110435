//! RT-20 with two nodes: no wake is lost, and none is sent twice while a lease is kept.

use super::Nodes;
use crate::harness::{PATIENCE, judge, psql};
use bellwether_engine::{PushIdentity, WakeOutcome, WakeTarget, Waker};
use bellwether_model::Platform;
use bellwether_sim::{AppleDevice, Family};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A push service that counts. It can be held, as one that answers slowly.
struct Counter {
    woken: Mutex<BTreeMap<Vec<u8>, usize>>,
    held: watch::Sender<bool>,
}

#[async_trait::async_trait]
impl Waker for Counter {
    async fn wake(&self, _: Option<&PushIdentity>, target: &WakeTarget) -> WakeOutcome {
        *self.woken.lock().unwrap().entry(target.token.expose_secret().clone()).or_default() += 1;
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        WakeOutcome::Sent
    }
}

impl Counter {
    fn times(&self) -> Vec<usize> {
        self.woken.lock().unwrap().values().copied().collect()
    }

    async fn until(&self, devices: usize) {
        let until = Instant::now() + PATIENCE;
        while self.times().len() < devices {
            assert!(Instant::now() < until, "{} of {devices} were woken", self.times().len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Nodes whose devices can be woken; none without PostgreSQL or the openssl program.
async fn pushing(devices: usize) -> Option<(Nodes, Vec<AppleDevice>, Arc<Counter>)> {
    let nodes = Nodes::two().await?;
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "300"])
        .args(["-subj", "/UID=com.apple.mgmt.External.nodes/CN=APSP:nodes"])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key);
    let made = judge::run("openssl", &mut openssl)?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |path| std::fs::read_to_string(path).unwrap();
    let wish = json!({ "certificate": read(&cert), "key": read(&key) });
    nodes.post("/push/apple", wish).await.good();
    let counter = Arc::new(Counter { woken: Mutex::default(), held: watch::Sender::new(false) });
    for server in &nodes.servers {
        server.engine.set_waker(Platform::Apple, counter.clone());
    }
    let mut macs = Vec::new();
    for _ in 0..devices {
        let mut mac = nodes.device(Family::Mac).await;
        mac.enroll(&nodes.invite_with(json!({ "test_only": false })).await).await.unwrap();
        mac.poll().await.unwrap();
        macs.push(mac);
    }
    // What enrolling itself asked for.
    let due = "SELECT count(*) FROM channels WHERE wake_due_at < extract(epoch FROM now()) * 1000";
    let until = Instant::now() + PATIENCE;
    while nodes.count(due) > 0 {
        assert!(Instant::now() < until, "nobody wakes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    counter.woken.lock().unwrap().clear();
    Some((nodes, macs, counter))
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_20_each_device_is_woken_once_whichever_node_was_asked() {
    let Some((nodes, mut macs, counter)) = pushing(12).await else { return };
    for mac in &macs {
        nodes.send(mac, json!({ "type": "rename", "name": "one" })).await;
    }
    counter.until(macs.len()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(counter.times(), vec![1; macs.len()], "once each");
    for mac in &mut macs {
        mac.poll().await.unwrap();
    }
    // And again for what comes after the call.
    for mac in &macs {
        nodes.send(mac, json!({ "type": "rename", "name": "two" })).await;
    }
    let until = Instant::now() + PATIENCE;
    while counter.times() != vec![2; macs.len()] {
        assert!(Instant::now() < until, "{:?}", counter.times());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The node that wakes is cut off; what the other one accepts is announced all the same, once the lease has ended.
#[tokio::test(flavor = "multi_thread")]
async fn rt_20_no_wake_is_lost_with_the_node_that_was_about_to_send_it() {
    let Some((nodes, mut macs, counter)) = pushing(4).await else { return };
    for broken in [0, 1] {
        counter.woken.lock().unwrap().clear();
        nodes.gates[broken].set(crate::wire::Road::Cut);
        nodes.choose(crate::wire::Choice::Only(1 - broken));
        for mac in &macs {
            nodes.send(mac, json!({ "type": "rename", "name": format!("name{broken}") })).await;
        }
        end_lease(&nodes, "wakes");
        counter.until(macs.len()).await;
        nodes.gates[broken].set(crate::wire::Road::Open);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(counter.times(), vec![1; macs.len()], "once each");
        for mac in &mut macs {
            mac.poll().await.unwrap();
        }
    }
}

/// A node looks what is due, is stopped, and goes on after its turn was another node's: what it saw is old.
#[tokio::test(flavor = "multi_thread")]
async fn rt_20_a_node_that_was_stopped_does_not_wake_by_an_old_list() {
    let Some((nodes, macs, counter)) = pushing(1).await else { return };
    // Node 0 cannot begin to write; so the lease is node 1's.
    nodes.gates[0].hold_writes(true);
    end_lease(&nodes, "wakes");
    counter.held.send_replace(true);
    nodes.choose(crate::wire::Choice::Only(1));
    nodes.send(&macs[0], json!({ "type": "rename", "name": "one" })).await;
    counter.until(1).await;
    // It has not heard from the push service; meanwhile node 0 sees the same device due and asks for the lease.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    counter.held.send_replace(false);
    let due = "SELECT count(*) FROM channels WHERE wake_due_at < extract(epoch FROM now()) * 1000";
    let until = Instant::now() + PATIENCE;
    while nodes.count(due) > 0 {
        assert!(Instant::now() < until, "the wake is not settled");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    end_lease(&nodes, "wakes");
    nodes.gates[0].hold_writes(false);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(counter.times(), [1], "woken for nothing");
}

/// As if its time had passed.
fn end_lease(nodes: &Nodes, name: &str) {
    psql(&nodes.database.admin_url(), &format!("UPDATE leases SET expires_at = 0 WHERE name = '{name}'"));
}
