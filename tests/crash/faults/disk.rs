//! RT-13: the disk is full at any write: of the log, of the database, of files beside them; while the server runs and
//! when it starts. Devices hear 503, programs 507, administrators are served, and nothing is lost.

use super::{ALLOCATE, ENOSPC, Faulty, TRUNCATE, WRITE, Which, readiness, until_ready};
use crate::chance::Chance;
use crate::harness::{PATIENCE, Site};
use crate::load::Scene;
use bellwether_sim::{AppleDevice, Family};
use reqwest::Method;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICES: usize = 4;
/// More than the reserve and less than twice as much.
const LITTLE: i64 = 3 * 1024 * 1024;
/// Small, so that writing it does not take the test's time.
const RESERVE: &str = "disk.reserve_bytes=2097152";

pub async fn run(library: &Path, rounds: u32, seed: u64) {
    let mut chance = Chance::new(seed);
    let (mut faulty, site) = Faulty::start(library, false, &[RESERVE]).await;
    let scene = Scene::new(site.clone(), DEVICES).await;
    let mut quiet = site.enrolled(Family::Mac).await;
    warm_up(&faulty, &scene).await;
    let of = |share: u32| rounds.div_ceil(share);

    for _ in 0..of(25) {
        starts_full(&mut faulty, &scene, &mut quiet).await;
        faulty.victim.sound();
    }
    for _ in 0..of(16) {
        fills_up(&faulty, &scene, &mut quiet, &mut chance).await;
        faulty.victim.sound();
    }
    let (mut hits, mut failed, walk) = (0, 0, of(8).max(3));
    for round in 0..walk {
        let which = [Which::Log, Which::All, Which::Database][round as usize % 3];
        let met = one_write_fails(&faulty, &scene, which, &mut chance).await;
        hits += u32::from(met > 0);
        failed += met;
        faulty.victim.sound();
    }
    assert!(hits * 3 >= walk * 2, "only {hits} of {walk} rounds met a write");
    scene.drain().await;
    println!(
        "disk, SQLite: full {} times until space returned, {} times at the start; {failed} writes refused in {hits} of \
         {walk} walks; {} commands, all done",
        of(16),
        of(25),
        scene.ledger().wishes.len()
    );
}

/// Until all are enrolled and the reserve stands.
async fn warm_up(faulty: &Faulty, scene: &Scene) {
    under_load(scene, tokio::time::sleep(Duration::from_secs(3))).await;
    let until = Instant::now() + PATIENCE;
    while !faulty.victim.data().join("bellwether.reserve").exists() {
        assert!(Instant::now() < until, "there is no reserve");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.collect().await;
}

/// Does something while everything goes on.
async fn under_load<T>(scene: &Scene, work: impl Future<Output = T>) -> T {
    let load = tokio::spawn({
        let scene = scene.clone();
        async move { scene.run().await }
    });
    let done = work.await;
    scene.stop();
    load.await.unwrap();
    done
}

/// No room is left, for as long as it takes; then there is.
async fn fills_up(faulty: &Faulty, scene: &Scene, quiet: &mut AppleDevice, chance: &mut Chance) {
    let before = (faulty.victim.id(), prepare(&scene.site, quiet).await);
    let room = i64::try_from(chance.between(0, 1_500_000)).unwrap();
    under_load(scene, async {
        faulty.control.room(room);
        until_ready(&scene.site, "ready, disk full", PATIENCE).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await;
    assert!(!faulty.victim.data().join("bellwether.reserve").exists(), "the room is given away");
    refused(&scene.site, quiet).await;
    administrators(&scene.site, &before.1).await;
    assert!(faulty.victim.log().contains("the disk is full: the emergency reserve is given"));
    // A little room is not yet an end of it: the reserve alone would fill it again.
    faulty.control.room(LITTLE);
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    assert_eq!(readiness(&scene.site).await, "ready, disk full");
    faulty.control.room(-1);
    until_ready(&scene.site, "ready", Duration::from_secs(10)).await;
    assert_eq!(faulty.victim.id(), before.0);
    scene.collect().await;
    assert!(faulty.victim.data().join("bellwether.reserve").exists(), "the reserve is there again");
}

/// Some writes find no space, one after so many that did; how many. Also those that grow nothing: the log's old pages and,
/// while it is copied, the database's.
async fn one_write_fails(faulty: &Faulty, scene: &Scene, which: Which, chance: &mut Chance) -> i64 {
    let id = faulty.victim.id();
    let after = i64::try_from(chance.between(0, 60)).unwrap();
    let times = [1, 2, 20, -1][chance.between(0, 4) as usize];
    let met = under_load(scene, async {
        faulty.control.arm(WRITE | TRUNCATE | ALLOCATE, which, after, times, ENOSPC);
        let until = Instant::now() + Duration::from_secs(4);
        while faulty.control.failed() == 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(chance.between(0, 300))).await;
        faulty.control.disarm();
        faulty.control.failed()
    })
    .await;
    until_ready(&scene.site, "ready", Duration::from_secs(10)).await;
    assert_eq!(faulty.victim.id(), id);
    scene.collect().await;
    met
}

/// A start on a full disk: what is reserved is enough for it, and for administrators.
async fn starts_full(faulty: &mut Faulty, scene: &Scene, quiet: &mut AppleDevice) {
    let prepared = prepare(&scene.site, quiet).await;
    faulty.victim.kill();
    faulty.control.room(0);
    faulty.victim.spawn();
    // The log that it found gave room back when it was copied; what is left is less than the server waits for.
    faulty.control.room(1024 * 1024);
    if readiness(&scene.site).await != "ready, disk full" {
        under_load(scene, until_ready(&scene.site, "ready, disk full", PATIENCE)).await;
    }
    refused(&scene.site, quiet).await;
    administrators(&scene.site, &prepared).await;
    faulty.control.room(-1);
    until_ready(&scene.site, "ready", Duration::from_secs(10)).await;
    scene.collect().await;
}

/// What an administrator will want to take back.
struct Prepared {
    command: String,
    invitation: String,
}

async fn prepare(site: &Site, quiet: &AppleDevice) -> Prepared {
    let command = site.send(quiet, json!({ "type": "refresh-inventory" })).await;
    let wish = json!({ "platform": "apple", "test_only": true, "ownership": "company" });
    let made = site.post("/invitations", wish).await.good();
    let id = made["id"].as_str().or_else(|| made["invitation"]["id"].as_str()).unwrap().to_owned();
    Prepared { command, invitation: id }
}

/// What only adds data waits, each in its own words.
async fn refused(site: &Site, quiet: &mut AppleDevice) {
    let wish = json!({ "platform": "apple", "test_only": true, "ownership": "company" });
    let answer = site.post("/invitations", wish).await;
    assert!(answer.headers.iter().any(|(name, _)| name == "retry-after"), "{answer:?}");
    let (status, words) = answer.refusal();
    assert_eq!(status, 507);
    assert!(words.contains("disk is full") && words.contains("nothing was changed"), "{words}");
    let (status, _) = site.try_send(quiet, json!({ "type": "refresh-inventory" })).await.refusal();
    assert_eq!(status, 507);
    for (method, path) in
        [(Method::PUT, "/apple/mdm"), (Method::POST, "/apple/mdm"), (Method::POST, "/enroll")]
    {
        let reply = site.raw(method, path, &[], b"x".to_vec()).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("60")), "{path}");
    }
    let reply = site.raw(Method::POST, "/EnrollmentServer/Enrollment.svc", &[], b"x".to_vec()).await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("InMaintenance"), "SOAP has a form of its own: {}", reply.text());
    assert!(reply.header("retry-after").is_some());
    let error = quiet.poll().await.unwrap_err();
    assert_eq!(error.status(), Some(503), "{error}");
}

/// An administrator signs in, makes and revokes a key, cancels, withdraws, and finds all of it in the audit.
async fn administrators(site: &Site, prepared: &Prepared) {
    site.get("/devices").await;
    let made = site
        .post("/keys", json!({ "name": "in need", "grants": ["device:read@server"], "expires_in_days": 1 }))
        .await
        .good();
    let id = made["id"].as_str().or_else(|| made["key"]["id"].as_str()).unwrap().to_owned();
    let gone = |path: String| async move {
        let answer = site.delete(&path).await;
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    };
    gone(format!("/keys/{id}")).await;
    gone(format!("/commands/{}", prepared.command)).await;
    gone(format!("/invitations/{}", prepared.invitation)).await;
    let wanted = [
        ("key.created", format!("key:{id}")),
        ("key.revoked", format!("key:{id}")),
        ("command.cancelled", format!("command:{}", prepared.command)),
        ("invitation.revoked", format!("invitation:{}", prepared.invitation)),
    ];
    let until = Instant::now() + PATIENCE;
    loop {
        let page = site.get("/audit?limit=200").await;
        let items = page["items"].as_array().unwrap();
        let there = |(kind, target): &(&str, String)| {
            items.iter().any(|entry| entry["kind"] == *kind && entry["target"] == target.as_str())
        };
        let missing: Vec<_> = wanted.iter().filter(|one| !there(one)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "not in the audit: {missing:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
