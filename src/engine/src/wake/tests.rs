//! Pauses, and what is different about PCs.

use super::*;
use crate::ports::Clock;
use crate::{EngineConfig, StoreConfig};
use bellwether_model::device::IdentityState;
use bellwether_model::{
    ChannelId, ChannelKind, DeviceId, EnrollmentId, EnrollmentState, IdentityId, Ownership,
};
use bellwether_store::records::{Channel, Device, Enrollment, Identity};
use bellwether_store::{StoreError, Tx};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

#[test]
fn only_dead_retires_a_token() {
    let now = Timestamp(1_000_000);
    let rejected = WakeOutcome::Rejected { note: "BadDeviceToken".into() };
    let result = result_of(&rejected, 1, now).expect("randomness");
    assert!(!result.dead && result.next_due.is_some());
    let dead = result_of(&WakeOutcome::Dead { note: "Unregistered".into() }, 1, now).expect("randomness");
    assert!(dead.dead && dead.next_due.is_none());
}

#[test]
fn back_off_grows_and_stays_within_a_fifth() {
    let now = Timestamp(0);
    for (attempt, pause) in (1..).zip(RETRIES) {
        let outcome = WakeOutcome::Transient { retry_after: None, note: String::new() };
        let due = result_of(&outcome, attempt, now).expect("randomness").next_due.expect("a retry").0;
        assert!((pause * 4 / 5..=pause * 6 / 5).contains(&due), "{attempt}: {due}");
    }
}
struct At(AtomicI64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Answers as it is told, and remembers what it was asked.
#[derive(Default)]
struct Puppet {
    answers: Mutex<Vec<WakeOutcome>>,
    asked: Mutex<Vec<(bool, bool, Vec<u8>)>>,
}

#[async_trait::async_trait]
impl Waker for Puppet {
    async fn wake(&self, identity: Option<&PushIdentity>, target: &WakeTarget) -> WakeOutcome {
        let asked = (identity.is_some(), target.magic.is_some(), target.token.expose_secret().clone());
        self.asked.lock().unwrap().push(asked);
        self.answers.lock().unwrap().pop().unwrap_or(WakeOutcome::Sent)
    }
}

const CHANNEL_URI: &[u8] = b"https://db5p.notify.windows.com/?token=AwYAAAB%2f";

/// A server with one enrolled PC.
struct Desk {
    engine: Arc<Engine>,
    clock: Arc<At>,
    enrollment: EnrollmentId,
    channel: ChannelId,
    _folder: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(At(AtomicI64::new(1_800_000_000_000)));
        let engine = Engine::open(EngineConfig {
            windows: crate::WindowsConfig::default(),
            uploads: Default::default(),
            store: StoreConfig::Sqlite { folder: folder.path().to_owned(), readers: 1 },
            data_dir: folder.path().to_owned(),
            master_key: None,
            public_url: "https://mdm.example.org".into(),
            device_url: "https://devices.example.org".into(),
            organization: "Example".into(),
            apple_require_client_certificate: false,
            own_tls_ca: true,
            lose_devices: 0,
            clock: clock.clone(),
        })
        .await
        .unwrap();
        let now = engine.now();
        let [device, identity, enrollment, channel] =
            std::array::from_fn(|_| crate::vault::new_uuid(now).unwrap());
        let desk = Self {
            engine,
            clock,
            enrollment: EnrollmentId(enrollment),
            channel: ChannelId(channel),
            _folder: folder,
        };
        let (device, identity) = (DeviceId(device), IdentityId(identity));
        let (enrollment, channel) = (desk.enrollment, desk.channel);
        desk.write(move |tx| {
            let authority_id = tx.authorities()?.first().unwrap().id;
            tx.device_insert(&Device {
                id: device,
                platform: Platform::Windows,
                hardware_id: "HWDevID-1".into(),
                claims_device_id: None,
                serial: None,
                product: None,
                model: None,
                name: None,
                os_version: None,
                os_build: None,
                supervised: None,
                ownership: Ownership::Company,
                created_at: now,
            })?;
            tx.identity_insert(&Identity {
                id: identity,
                authority_id,
                serial: "01".into(),
                fingerprint: vec![1; 32],
                key_hash: vec![2; 32],
                certificate: vec![3],
                common_name: "pc".into(),
                not_before: now,
                not_after: now.plus(DAY),
                state: IdentityState::Live,
                challenge_id: None,
                invitation_id: None,
                enrollment_id: None,
                issued_at: now,
                revoked_at: None,
                revoked_reason: None,
            })?;
            tx.enrollment_insert(&Enrollment {
                id: enrollment,
                device_id: device,
                epoch: 1,
                platform: Platform::Windows,
                state: EnrollmentState::Active,
                user_enrollment: false,
                invitation_id: None,
                person_id: None,
                identity_id: identity,
                staged_identity_id: None,
                topic: None,
                test_only: false,
                awaiting_configuration: false,
                started_at: now,
                activated_at: Some(now),
                ended_at: None,
                end_reason: None,
                last_seen_at: None,
            })?;
            tx.channel_insert(&Channel {
                id: channel,
                enrollment_id: enrollment,
                kind: ChannelKind::Device,
                user_key: String::new(),
                user_name: None,
                enabled: true,
                push_token: None,
                push_magic: None,
                push_dead: false,
                last_seq: 0,
                token_updates: 0,
                last_was_not_now: false,
                wake_due_at: None,
                wake_attempts: 0,
                woken_at: None,
                wake_note: None,
            })
        })
        .await;
        desk
    }

    async fn write<T: Send + 'static>(
        &self,
        f: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> T {
        let site = self.engine.default_site;
        self.engine.store.write(Scope::Site(site), move |tx| f(tx).map_err(Error::from)).await.unwrap()
    }

    async fn channel(&self) -> Channel {
        let id = self.channel;
        self.write(move |tx| tx.channel(id)).await.unwrap()
    }

    fn sealed_uri(&self) -> Vec<u8> {
        let place = format!("{}/{}/", self.enrollment, ChannelKind::Device);
        let (site, place) = (self.engine.default_site, place.as_bytes());
        self.engine.vault.seal(site, "channel", place, "push-token", CHANNEL_URI).unwrap()
    }

    async fn report_uri(&self) {
        let changed = Channel { push_token: Some(self.sealed_uri()), ..self.channel().await };
        self.write(move |tx| tx.channel_update(&changed)).await;
    }

    fn waker(&self, mut answers: Vec<WakeOutcome>) -> Arc<Puppet> {
        answers.reverse();
        let puppet = Arc::new(Puppet { answers: Mutex::new(answers), asked: Mutex::default() });
        self.engine.set_waker(Platform::Windows, puppet.clone());
        puppet
    }

    /// A command was queued a moment ago: what the channel looks like after the wake for it.
    async fn wake(&self) -> Channel {
        self.clock.0.fetch_add(2 * HOUR, Ordering::SeqCst);
        let (id, now) = (self.channel, self.engine.now());
        self.write(move |tx| tx.wake_request(id, now)).await;
        self.engine.wake_once().await.unwrap();
        self.channel().await
    }

    /// Alarms for admins.
    async fn alarms(&self) -> usize {
        self.engine.seal_once().await.unwrap();
        let entries = self.write(|tx| tx.audit_newest(None, 1000)).await;
        let push = [EventKind::PushRejected, EventKind::PushTokenDead];
        entries.iter().filter(|entry| push.contains(&entry.kind)).count()
    }
}

#[tokio::test]
async fn a_pc_that_cannot_be_pushed_is_settled_quietly() {
    let desk = Desk::new().await;
    desk.report_uri().await;
    let after = desk.wake().await;
    assert_eq!((after.wake_due_at, after.wake_attempts, after.woken_at), (None, 0, None));
    assert!(after.wake_note.unwrap().contains("no push service for Windows is configured"));

    let desk = Desk::new().await;
    let puppet = desk.waker(vec![]);
    let after = desk.wake().await;
    assert_eq!((after.wake_due_at, after.wake_attempts, after.push_dead), (None, 0, false));
    assert!(after.wake_note.unwrap().contains("the PC has no push channel"));
    assert!(puppet.asked.lock().unwrap().is_empty());
    assert_eq!(desk.alarms().await, 0);
}

#[tokio::test]
async fn a_pc_is_woken_by_its_channel_uri_alone() {
    let desk = Desk::new().await;
    let puppet = desk.waker(vec![WakeOutcome::Sent, WakeOutcome::Dead { note: "410".into() }]);
    desk.report_uri().await;
    let after = desk.wake().await;
    assert_eq!(after.woken_at, Some(desk.engine.now()));
    assert!(after.wake_due_at > Some(desk.engine.now()), "looked for again if it stays silent");
    assert_eq!(*puppet.asked.lock().unwrap(), [(false, false, CHANNEL_URI.to_vec())]);

    let after = desk.wake().await;
    assert_eq!((after.push_dead, after.wake_due_at), (true, None));
    assert_eq!(desk.alarms().await, 1);
    desk.wake().await;
    assert_eq!(puppet.asked.lock().unwrap().len(), 2, "a dead channel is not used again");
}

#[tokio::test]
async fn a_channel_uri_that_comes_while_a_wake_is_settled_is_not_forgotten() {
    let desk = Desk::new().await;
    let now = desk.engine.now();
    let (id, site) = (desk.channel, desk.engine.default_site);
    desk.write(move |tx| tx.wake_request(id, now)).await;
    let due = desk.engine.store.read(Scope::System, move |tx| tx.wakes_due(now, 10)).await.unwrap();
    assert_eq!((due.len(), due[0].site_id), (1, site));
    desk.report_uri().await;
    desk.engine.settle_quietly(&due[0], "the PC has no push channel").await.unwrap();
    assert_eq!(desk.channel().await.wake_due_at, Some(now), "the wake stays due");
}

#[tokio::test]
async fn each_cause_of_refusals_is_one_alarm_a_day() {
    let desk = Desk::new().await;
    let refused = |note: &str| WakeOutcome::Rejected { note: note.into() };
    desk.waker(vec![refused("strange channel"), refused("secret"), refused("secret")]);
    desk.report_uri().await;
    for (alarms, _) in [(1, "channel"), (2, "secret"), (2, "secret again")] {
        let after = desk.wake().await;
        assert!(after.wake_due_at.is_some() && !after.push_dead);
        assert_eq!(desk.alarms().await, alarms);
    }
}
