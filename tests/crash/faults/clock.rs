//! RT-19: the wall clock jumps by a year, in both directions, under a server that runs. Nothing expires, nothing is
//! renewed, no certificate gets another year, and when the clock returns everything goes on.

use super::Faulty;
use crate::harness::{PATIENCE, Site};
use crate::load::Scene;
use bellwether::clock::SystemClock;
use bellwether_certs::cert::CertInfo;
use bellwether_sim::{AppleDevice, Family};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICES: usize = 4;
const YEAR: i64 = 365 * 24 * 3600;
/// The longest pause between two passes of housekeeping, and some more.
const PASS: Duration = Duration::from_secs(34);

pub async fn run(library: &Path) {
    let (faulty, site) = Faulty::start(library, false, &["disk.reserve_bytes=0"]).await;
    let scene = Scene::new(site.clone(), DEVICES).await;
    live(&scene, Duration::from_secs(3)).await;
    scene.collect().await;
    let mut quiet = site.enrolled(Family::Mac).await;
    let command = site.send(&quiet, json!({ "type": "restart" })).await;

    for (jump, seconds, stay) in
        [("forward", YEAR, PASS), ("back", -YEAR, Duration::from_secs(4)), ("again", YEAR, Duration::ZERO)]
    {
        faulty.control.clock(seconds);
        live(&scene, Duration::from_secs(2)).await;
        let newcomer = site.enrolled(Family::Mac).await;
        of_today(&newcomer, jump);
        tokio::time::sleep(stay).await;
        calm(&site, jump).await;
        assert_eq!(site.state(&command).await, "queued", "{jump}");
        assert!(faulty.victim.log().contains("the machine's clock jumped"), "{jump}: nobody was told");
        scene.collect().await;
        faulty.control.clock(0);
        live(&scene, Duration::from_secs(1)).await;
        said(&faulty, "the machine's clock is back where it was").await;
        scene.collect().await;
    }
    quiet.poll().await.unwrap();
    assert_eq!(site.state(&command).await, "acknowledged", "it waited, and then it was done");
    of_today(&site.enrolled(Family::Mac).await, "afterwards");
    scene.drain().await;
    faulty.victim.sound();
    println!(
        "clock, SQLite: a year forward (with a pass of housekeeping), back, and forward; {} commands, all done",
        scene.ledger().wishes.len()
    );
}

async fn live(scene: &Scene, time: Duration) {
    let load = tokio::spawn({
        let scene = scene.clone();
        async move { scene.run().await }
    });
    tokio::time::sleep(time).await;
    scene.stop();
    load.await.unwrap();
}

/// A certificate of today, for a year.
fn of_today(device: &AppleDevice, when: &str) {
    // This process has the machine's own clock.
    let now = SystemClock::read().0;
    let days = |millis: i64| (millis - now) / (24 * 3600 * 1000);
    let info = CertInfo::parse(&device.identity().unwrap().cert_der).unwrap();
    let (from, to) = (days(info.not_before_ms), days(info.not_after_ms));
    assert!((-2..=0).contains(&from) && (360..=366).contains(&to), "{when}: from day {from} to day {to}");
}

/// No command ended by the clock, and none was made by it.
async fn calm(site: &Site, when: &str) {
    let page = site.get("/commands?limit=500").await;
    for command in page["items"].as_array().unwrap() {
        assert_ne!(command["state"], "expired", "{when}: {command}");
        assert_ne!(command["kind"], "renew-identity", "{when}: {command}");
    }
}

async fn said(faulty: &Faulty, words: &str) {
    let until = Instant::now() + PATIENCE;
    while !faulty.victim.log().contains(words) {
        assert!(Instant::now() < until, "nobody said {words:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
