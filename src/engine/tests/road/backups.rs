//! Backups, and what a server does that was restored from one while its devices moved on (Q14, RT-22 to RT-24).

use crate::backends::Database;
use crate::pc::uris;
use crate::support::{House, TestClock, house_on, mac, open_on};
use bellwether_engine::{
    BackupSettings, Error, OfflineBackups, RestoreWish, Restored, StoreConfig, WithheldFate, Witness, may,
    restore,
};
use bellwether_model::intent::WipeOptions;
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{CommandState, DeviceId, Intent, Timestamp};
use plist::Dictionary;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server's data without the server.
struct Data {
    store: StoreConfig,
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    admin: bellwether_engine::Caller,
}

fn sqlite() -> (tempfile::TempDir, StoreConfig) {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreConfig::Sqlite { folder: folder.path().to_owned(), readers: 2 };
    (folder, store)
}

fn with_backups(house: &House) {
    house.engine.set_backups(BackupSettings {
        folder: house.folder.path().join("backups"),
        every_hours: 24,
        keep_days: 90,
        server: "0.1.0".into(),
    });
}

async fn made_house(store: &StoreConfig, folder: tempfile::TempDir) -> House {
    let house = house_on(store.clone(), folder).await;
    with_backups(&house);
    house
}

async fn backup(house: &House) -> PathBuf {
    let permit = house.admin.server_permit::<may::WriteBackups>().unwrap();
    let made = house.engine.backup_now(&permit).await.unwrap();
    house.folder.path().join("backups").join(made.name)
}

/// Stops the server.
fn stop(house: House, store: &StoreConfig) -> Data {
    let House { engine, clock, admin, folder } = house;
    assert_eq!(Arc::strong_count(&engine), 1, "nothing works on it any more");
    drop(engine);
    Data { store: store.clone(), folder, clock, admin }
}

fn wish(data: &Data, file: &Path) -> RestoreWish {
    RestoreWish {
        file: file.to_owned(),
        store: data.store.clone(),
        data_dir: data.folder.path().to_owned(),
        master_key: None,
        replace: true,
        revoke_keys: false,
        actor: "test".into(),
        now: Timestamp(data.clock.0.load(Ordering::SeqCst)),
    }
}

/// Connections of a server that has just stopped may linger for a moment.
async fn restored(data: &Data, file: &Path) -> Restored {
    for _ in 0..50 {
        match restore(wish(data, file)).await {
            Ok(restored) => return restored,
            Err(why) if why.to_string().contains("stop every server") => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the old connections stay")
}

async fn start(data: Data) -> House {
    let engine = open_on(data.store.clone(), data.folder.path(), data.clock.clone()).await.unwrap();
    let house = House { engine, clock: data.clock, admin: data.admin, folder: data.folder };
    with_backups(&house);
    house
}

fn wipe() -> Intent {
    Intent::Wipe(WipeOptions::default())
}

async fn cancel(house: &House, id: bellwether_model::CommandId) {
    let permit = house.admin.permit::<may::SendCommands>(house.site()).unwrap();
    house.engine.cancel_command(&permit, id).await.unwrap();
}

async fn intact(house: &House) -> Vec<String> {
    house.engine.seal_once().await.unwrap();
    let permit = house.admin.permit::<may::ReadAudit>(house.site()).unwrap();
    let report = house.engine.audit_verify(&permit).await.unwrap();
    assert_eq!(report.broken, None);
    report.restored
}

async fn withheld(house: &House) -> Option<u64> {
    let permit = house.admin.server_permit::<may::ReadDevices>().unwrap();
    house.engine.quarantine(&permit).await.unwrap().map(|view| view.total)
}

async fn end(house: &House, fate: Option<WithheldFate>) -> Result<bellwether_engine::QuarantineEnded, Error> {
    let permit = house.admin.server_permit::<may::WriteSettings>().unwrap();
    house.engine.end_quarantine(&permit, fate).await
}

/// RT-24: devices went on after the backup. None is lost, and none is wiped.
async fn devices_moved_on(store: StoreConfig, folder: tempfile::TempDir, fate: WithheldFate) {
    let house = made_house(&store, folder).await;
    let mut a = mac("A");
    let mut b = mac("B");
    for mac in [&mut a, &mut b] {
        let code = house.invite(None).await;
        mac.enroll(&house, &code).await;
        mac.drain(&house).await;
    }
    let (mut pc, pc_id) = house.enrolled_pc("P").await;
    let (a_id, b_id): (DeviceId, DeviceId) = (house.device_id("A").await, house.device_id("B").await);
    let wipe_a = house.send(a_id, wipe()).await.unwrap().id;
    let wipe_pc = house.send(pc_id, wipe()).await.unwrap().id;
    let lock_b = house.send(b_id, Intent::Lock { message: None, phone_number: None }).await.unwrap().id;
    let open = house.invite(None).await;
    house.engine.seal_once().await.unwrap();
    let file = backup(&house).await;

    // The world goes on: the wipes are taken back, the lock is on its way, sessions and commands come and go.
    house.later(HOUR);
    cancel(&house, wipe_a).await;
    cancel(&house, wipe_pc).await;
    assert!(a.idle(&house).await.is_none());
    let told_b = b.idle(&house).await.expect("the lock").command_uuid;
    assert_eq!(pc.session(&house).await, []);
    house.send(a_id, Intent::Restart { notify_user: false }).await.unwrap();
    assert_eq!(a.drain(&house).await, ["RestartDevice"]);
    let mut late = mac("LATE");
    late.enroll(&house, &open).await;
    house.engine.seal_once().await.unwrap();

    let data = stop(house, &store);
    let report = restored(&data, &file).await;
    assert!(report.aside.is_some(), "the old data is still there");
    assert_eq!(report.invitations, 1, "the invitation was open in the backup and is used by now");
    let house = start(data).await;

    // Nobody is wiped.
    assert!(a.idle(&house).await.is_none());
    let told = pc.session(&house).await;
    assert!(!uris(&told).iter().any(|uri| uri.contains("RemoteWipe")), "{told:?}");
    for id in [wipe_a, wipe_pc] {
        let command = house.command(id).await.command;
        assert_eq!(command.state, CommandState::Queued);
        assert!(command.note.unwrap().contains("quarantine after restore"));
    }
    // The answer to what the backup has not sent is taken.
    assert!(b.ack(&house, &told_b, Dictionary::new()).await.is_none());
    assert_eq!(house.command(lock_b).await.command.state, CommandState::Acknowledged);
    // An answer to what it does not know is taken too (Q17).
    assert!(a.ack(&house, "11111111-2222-4333-8444-555555555555", Dictionary::new()).await.is_none());
    // Nobody is lost: everything else works.
    for id in [a_id, pc_id] {
        house.send(id, Intent::Restart { notify_user: false }).await.unwrap();
    }
    assert_eq!(a.drain(&house).await, ["RestartDevice"]);
    let told = pc.session(&house).await;
    assert!(uris(&told).iter().any(|uri| uri.contains("Reboot")), "{told:?}");
    assert_eq!(a.token_update(&house).await.status, 200);
    // Who enrolled after the backup is not known, and is not sent away from management.
    assert_eq!(late.token_update(&house).await.status, 403);
    let again = house.engine.mint_profile(&open, bellwether_apple::family::Family::Mac, false, None).await;
    assert!(again.is_err(), "a used invitation cannot be used again");
    // Also what is queued now waits.
    let new = house.send(b_id, wipe()).await.unwrap();
    assert!(new.note.unwrap().contains("quarantine"), "it says so at once");
    assert!(b.idle(&house).await.is_none());

    assert_eq!(withheld(&house).await, Some(3));
    let refused = end(&house, None).await.unwrap_err();
    assert!(refused.to_string().contains("cancelled or sent"), "{refused}");
    assert_eq!(withheld(&house).await, Some(3));
    let ended = end(&house, Some(fate)).await.unwrap();
    assert_eq!(ended.asked, 3, "every device is asked again for what it reports");
    assert!(end(&house, None).await.is_err(), "it is over");
    assert_eq!(withheld(&house).await, None);
    while house.engine.run_jobs_once().await.unwrap() {}
    match fate {
        WithheldFate::Cancel => {
            assert_eq!((ended.cancelled, ended.sent), (3, 0));
            assert!(a.drain(&house).await.contains(&"DeviceInformation".to_owned()), "it is asked again");
            assert!(!b.drain(&house).await.contains(&"EraseDevice".to_owned()));
            assert!(!uris(&pc.session(&house).await).iter().any(|uri| uri.contains("RemoteWipe")));
            assert_eq!(house.command(wipe_a).await.command.state, CommandState::Cancelled);
        }
        WithheldFate::Send => {
            assert_eq!((ended.cancelled, ended.sent), (0, 3));
            assert_eq!(a.idle(&house).await.expect("the wipe").request_type, "EraseDevice");
            assert!(uris(&pc.session(&house).await).iter().any(|uri| uri.contains("RemoteWipe")));
        }
    }
    assert_eq!((house.audited("server.restored").await, house.audited("quarantine.ended").await), (1, 1));
    assert_eq!(intact(&house).await.len(), 1, "the audit tells of the restore");
}

#[tokio::test(flavor = "multi_thread")]
async fn q14_rt_24_an_old_backup_wipes_and_loses_nobody_on_sqlite() {
    let (folder, store) = sqlite();
    devices_moved_on(store, folder, WithheldFate::Cancel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn q14_rt_24_an_old_backup_wipes_and_loses_nobody_on_postgres() {
    let Some(database) = Database::fresh() else { return };
    devices_moved_on(database.store(), tempfile::tempdir().unwrap(), WithheldFate::Send).await;
}

/// RT-22: a backup under load is one moment, and whole.
async fn under_load(store: StoreConfig, folder: tempfile::TempDir) {
    let house = made_house(&store, folder).await;
    let mut one = mac("ONE");
    let code = house.invite(None).await;
    one.enroll(&house, &code).await;
    one.drain(&house).await;
    let device = house.device_id("ONE").await;
    let stop_load = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let slowest = Arc::new(AtomicI64::new(0));
    let load = {
        let (engine, admin, site) = (house.engine.clone(), house.admin.clone(), house.site());
        let (stop_load, slowest) = (stop_load.clone(), slowest.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while !stop_load.load(Ordering::SeqCst) {
                let began = std::time::Instant::now();
                let intent = Intent::Rename { name: format!("name {count}") };
                engine.send_command(&admin, site, device, intent, Default::default()).await.unwrap();
                slowest.fetch_max(began.elapsed().as_millis() as i64, Ordering::SeqCst);
                count += 1;
            }
            count
        })
    };
    let sealing = {
        let (engine, stop_load) = (house.engine.clone(), stop_load.clone());
        tokio::spawn(async move {
            while !stop_load.load(Ordering::SeqCst) {
                engine.seal_once().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut files = Vec::new();
    for _ in 0..4 {
        files.push(backup(&house).await);
    }
    stop_load.store(true, Ordering::SeqCst);
    let accepted = load.await.unwrap();
    sealing.await.unwrap();
    assert!(accepted > 10, "there was load: {accepted}");
    assert!(slowest.load(Ordering::SeqCst) < 5_000, "a command waited {slowest:?} ms for a backup");
    let data = house.folder.path();
    let backups = OfflineBackups::new(data.join("backups"), data, None).unwrap();
    let mut rows = Vec::new();
    for file in &files {
        let verified = backups.verify(file).await.unwrap();
        assert!(verified.audit.iter().all(|site| site.report.broken.is_none()));
        rows.push(verified.rows);
    }
    assert!(rows.is_sorted() && rows.first() < rows.last(), "each has more than the one before: {rows:?}");
    let (drill, _) = backups.drill(Timestamp(5)).await.unwrap();
    assert_eq!(drill.problem, None);
    let permit = house.admin.server_permit::<may::ReadBackups>().unwrap();
    let seen = house.engine.backups(&permit).await.unwrap();
    assert_eq!((seen.files.len(), seen.drill), (4, Some(drill)));
    assert_eq!(house.audited("backup.made").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_22_a_backup_under_load_is_consistent_on_sqlite() {
    let (folder, store) = sqlite();
    under_load(store, folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_22_a_backup_under_load_is_consistent_on_postgres() {
    let Some(database) = Database::fresh() else { return };
    under_load(database.store(), tempfile::tempdir().unwrap()).await;
}

/// Every file below a folder, with its bytes.
fn picture(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            all.extend(picture(&entry.path()));
        } else {
            all.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_23_without_the_right_master_key_nothing_is_changed() {
    let (folder, store) = sqlite();
    let house = made_house(&store, folder).await;
    let file = backup(&house).await;
    let data = stop(house, &store);
    let before = picture(data.folder.path());
    // Another one.
    let stranger = "0".repeat(64);
    let mut with = wish(&data, &file);
    with.master_key = Some(stranger.into());
    let why = restore(with).await.err().unwrap().to_string();
    assert!(why.contains("master key") && why.contains("Nothing was changed"), "{why}");
    // Without --replace what is there stays.
    let with = RestoreWish { replace: false, ..wish(&data, &file) };
    let why = restore(with).await.err().unwrap().to_string();
    assert!(why.contains("--replace"), "{why}");
    // A damaged file changes nothing, however late the damage is.
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = data.folder.path().join("damaged.bwb");
    std::fs::write(&damaged, bytes).unwrap();
    let why = restore(wish(&data, &damaged)).await.err().unwrap().to_string();
    assert!(why.contains("damaged"), "{why}");
    std::fs::remove_file(&damaged).unwrap();
    assert_eq!(picture(data.folder.path()), before);
    // On a new machine without the key.
    let (empty, store) = sqlite();
    let lost = RestoreWish { store, data_dir: empty.path().to_owned(), ..wish(&data, &file) };
    let why = restore(lost).await.err().unwrap().to_string();
    assert!(why.contains("no master key") && why.contains("Nothing was changed"), "{why}");
    assert!(picture(empty.path()).is_empty());
    // With the key that was kept apart it works there.
    let key = std::fs::read_to_string(data.folder.path().join("master.key")).unwrap();
    let (fresh, store) = sqlite();
    let there = RestoreWish {
        store: store.clone(),
        data_dir: fresh.path().to_owned(),
        master_key: Some(key.clone().into()),
        replace: false,
        revoke_keys: true,
        ..wish(&data, &file)
    };
    let restored = restore(there).await.unwrap();
    assert_eq!((restored.keys, restored.aside), (1, None));
    std::fs::write(fresh.path().join("master.key"), key).unwrap();
    let engine = open_on(store, fresh.path(), data.clock.clone()).await.unwrap();
    assert!(engine.setup_token().is_some(), "with all keys gone there is a way in");
}

#[derive(Default)]
struct Memory(Mutex<Vec<String>>);

impl Witness for Memory {
    fn append(&self, line: &str) -> Result<(), String> {
        self.0.lock().unwrap().push(line.to_owned());
        Ok(())
    }

    fn lines(&self) -> Result<Vec<String>, String> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_explains_what_the_witness_saw_and_a_copied_database_does_not() {
    let (folder, store) = sqlite();
    let house = made_house(&store, folder).await;
    let witness = Arc::new(Memory::default());
    house.engine.set_witness(witness.clone());
    house.invite(None).await;
    house.engine.seal_once().await.unwrap();
    let file = backup(&house).await;
    let database = house.folder.path().join("bellwether.db");
    house.later(1_000);
    for _ in 0..3 {
        house.invite(None).await;
        house.engine.seal_once().await.unwrap();
    }
    assert!(intact(&house).await.is_empty());
    let data = stop(house, &store);
    house_later(&data, 1_000);
    restored(&data, &file).await;
    let copy = std::fs::read(&database).unwrap();
    let house = start(data).await;
    house.engine.set_witness(witness.clone());
    house.later(1_000);
    let told = intact(&house).await;
    assert!(told[0].contains("restored from bellwether-"), "{told:?}");
    // What comes after the restore is witnessed as before: who puts the file back by hand is named.
    house.invite(None).await;
    house.engine.seal_once().await.unwrap();
    let data = stop(house, &store);
    std::fs::write(&database, copy).unwrap();
    let house = start(data).await;
    house.engine.set_witness(witness.clone());
    house.later(1_000);
    house.engine.seal_once().await.unwrap();
    let permit = house.admin.permit::<may::ReadAudit>(house.site()).unwrap();
    let broken = house.engine.audit_verify(&permit).await.unwrap().broken.expect("named");
    assert!(broken.contains("witness saw"), "{broken}");
}

fn house_later(data: &Data, millis: i64) {
    data.clock.0.fetch_add(millis, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_when_it_is_due_by_one_process_only_and_a_failure_is_told() {
    let (folder, store) = sqlite();
    let house = made_house(&store, folder).await;
    let files =
        || std::fs::read_dir(house.folder.path().join("backups")).map_or(0, |all| all.flatten().count());
    house.engine.backup_if_due().await.unwrap();
    house.engine.backup_if_due().await.unwrap();
    assert_eq!(files(), 1, "the second was not due");
    house.later(DAY);
    house.engine.backup_if_due().await.unwrap();
    assert_eq!(files(), 2);
    // A folder that is a file: it is audited and told, and the server goes on.
    house.engine.set_backups(BackupSettings {
        folder: house.folder.path().join("master.key"),
        every_hours: 24,
        keep_days: 90,
        server: "0.1.0".into(),
    });
    house.later(DAY);
    house.engine.backup_if_due().await.unwrap();
    assert_eq!(house.audited("backup.failed").await, 1);
    house.engine.ready().await.unwrap();
    let (status, _) = house.engine.backup_health().await.unwrap();
    assert!(status.failure.is_some() && status.last_good.is_some(), "{status:?}");
    with_backups(&house);
    house.engine.backup_if_due().await.unwrap();
    assert_eq!(files(), 2, "not at once again");
    house.later(DAY);
    house.engine.backup_if_due().await.unwrap();
    assert_eq!(files(), 3);
    assert_eq!(house.engine.backup_health().await.unwrap().0.failure, None);
    // 90 days later the three newest are left.
    for _ in 0..3 {
        house.later(100 * DAY);
        house.engine.backup_if_due().await.unwrap();
    }
    assert_eq!(files(), 3);
    assert_eq!(house.audited("backup.pruned").await, 3);
    // Two at once: one of them.
    let permit = house.admin.server_permit::<may::WriteBackups>().unwrap();
    let (one, two) = tokio::join!(house.engine.backup_now(&permit), house.engine.backup_now(&permit));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
}
