//! What a hostile reading of the wakes found.

use crate::support::*;
use bellwether_engine::{PushIdentity, WakeOutcome, WakeTarget, Waker, may};
use bellwether_model::{Intent, Platform};
use secrecy::SecretString;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Says what it is told to say; can be held in the middle.
#[derive(Default)]
struct Puppet {
    dead: AtomicBool,
    hold: AtomicBool,
    begun: Notify,
    go: Notify,
    seen: Mutex<usize>,
}

#[async_trait::async_trait]
impl Waker for Puppet {
    async fn wake(&self, _: Option<&PushIdentity>, _: &WakeTarget) -> WakeOutcome {
        *self.seen.lock().unwrap() += 1;
        self.begun.notify_one();
        if self.hold.load(Ordering::SeqCst) {
            self.go.notified().await;
        }
        if self.dead.load(Ordering::SeqCst) {
            WakeOutcome::Dead { note: "Unregistered".into() }
        } else {
            WakeOutcome::Sent
        }
    }
}

/// A device that can be pushed; `None` without the openssl program, which makes the push certificate.
async fn pushable() -> Option<(House, Mac, Arc<Puppet>)> {
    let house = house().await;
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "20000"])
        .args(["-subj", "/UID=com.apple.mgmt.External.review/CN=APSP:review"])
        .arg("-out")
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .ok()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let real = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    house.clock.0.fetch_max(real + 60_000, Ordering::SeqCst);
    let permit = house.admin.permit::<may::WritePush>(house.site()).unwrap();
    let key = SecretString::from(std::fs::read_to_string(key).unwrap());
    house.engine.import_push_cert(&permit, &std::fs::read_to_string(cert).unwrap(), key, None).await.unwrap();
    let puppet = Arc::new(Puppet::default());
    house.engine.set_waker(Platform::Apple, puppet.clone());
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let mut wish = wish(None);
    wish.test_only = false;
    let made = house.engine.create_invitation(&permit, wish).await.unwrap();
    let link = secrecy::ExposeSecret::expose_secret(&made.link).to_owned();
    let mut mac = mac("UDID-1");
    mac.enroll(&house, link.rsplit('/').next().unwrap()).await;
    mac.drain(&house).await;
    house.later(1000);
    house.engine.wake_once().await.unwrap();
    *puppet.seen.lock().unwrap() = 0;
    Some((house, mac, puppet))
}

fn rename(name: &str) -> Intent {
    Intent::Rename { name: name.into() }
}

#[tokio::test]
async fn what_waited_for_a_dead_token_is_announced_to_its_successor() {
    let Some((house, mac, puppet)) = pushable().await else { return };
    let id = house.device_id("UDID-1").await;
    house.send(id, rename("one")).await.unwrap();
    puppet.dead.store(true, Ordering::SeqCst);
    house.engine.wake_once().await.unwrap();
    puppet.dead.store(false, Ordering::SeqCst);
    house.later(60_000);
    assert_eq!(mac.token_update(&house).await.status, 200);
    house.later(1000);
    house.engine.wake_once().await.unwrap();
    assert_eq!(*puppet.seen.lock().unwrap(), 2, "nobody else will ever wake this device");
}

#[tokio::test]
async fn a_wake_that_ends_late_takes_back_no_newer_one() {
    let Some((house, mac, puppet)) = pushable().await else { return };
    let id = house.device_id("UDID-1").await;
    house.send(id, rename("one")).await.unwrap();
    puppet.hold.store(true, Ordering::SeqCst);
    let engine = house.engine.clone();
    let waking = tokio::spawn(async move { engine.wake_once().await.unwrap() });
    puppet.begun.notified().await;
    // The device is faster than the push service's answer.
    house.later(500);
    assert_eq!(mac.drain(&house).await, ["Settings"]);
    house.later(500);
    house.send(id, rename("two")).await.unwrap();
    puppet.hold.store(false, Ordering::SeqCst);
    puppet.go.notify_one();
    waking.await.unwrap();
    house.later(60_000);
    house.engine.wake_once().await.unwrap();
    assert_eq!(*puppet.seen.lock().unwrap(), 2, "the second command waits for a day");
}

#[tokio::test]
async fn a_late_dead_does_not_retire_a_newer_token() {
    let Some((house, mac, puppet)) = pushable().await else { return };
    let id = house.device_id("UDID-1").await;
    house.send(id, rename("one")).await.unwrap();
    puppet.hold.store(true, Ordering::SeqCst);
    puppet.dead.store(true, Ordering::SeqCst);
    let engine = house.engine.clone();
    let waking = tokio::spawn(async move { engine.wake_once().await.unwrap() });
    puppet.begun.notified().await;
    house.later(500);
    assert_eq!(mac.token_update(&house).await.status, 200);
    puppet.hold.store(false, Ordering::SeqCst);
    puppet.go.notify_one();
    waking.await.unwrap();
    puppet.dead.store(false, Ordering::SeqCst);
    house.later(60_000);
    house.engine.wake_once().await.unwrap();
    assert_eq!(*puppet.seen.lock().unwrap(), 2, "the new token is good");
}

#[tokio::test]
async fn what_cannot_be_sent_again_wakes_nobody() {
    let Some((house, mac, puppet)) = pushable().await else { return };
    let id = house.device_id("UDID-1").await;
    let options = bellwether_model::intent::WipeOptions { return_to_service: true, ..Default::default() };
    house.send(id, Intent::Wipe(options)).await.unwrap();
    assert_eq!(mac.idle(&house).await.unwrap().request_type, "EraseDevice");
    for _ in 0..96 {
        assert!(mac.idle(&house).await.is_none(), "at most once");
        house.later(40 * 60_000);
        house.engine.wake_once().await.unwrap();
    }
    assert!(*puppet.seen.lock().unwrap() < 20, "{} wakes in 64 hours", puppet.seen.lock().unwrap());
}

#[tokio::test]
async fn a_device_that_said_not_now_and_went_away_is_looked_for_in_the_end() {
    let Some((house, mac, puppet)) = pushable().await else { return };
    let id = house.device_id("UDID-1").await;
    house.send(id, rename("one")).await.unwrap();
    let asked = mac.idle(&house).await.unwrap();
    assert!(mac.not_now(&house, &asked.command_uuid).await.is_none());
    for _ in 0..7 {
        house.later(24 * 3_600_000);
        house.engine.wake_once().await.unwrap();
    }
    assert!(*puppet.seen.lock().unwrap() > 0, "seven days, one waiting command, no wake");
}
