//! What a PC has confirmed is not sent to it again, and what is not known for sure is.

use crate::pc::{Pc, code, lock, pc, uris};
use crate::support::{House, house, wish};
use bellwether_engine::{CommandView, NewInvitation, PushIdentity, WakeOutcome, WakeTarget, Waker, may};
use bellwether_model::{CommandState, DeviceId, Intent, Platform};
use bellwether_windows::syncml::client::Answer;
use bellwether_windows::syncml::{Format, Request, Verb};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const CAMERA: &str = "./Device/Vendor/MSFT/Policy/Config/Camera/AllowCamera";

fn configure(camera: i64, others: &[&str], force: bool) -> Intent {
    let setting =
        |area: &str, name: &str, value: i64| json!({ "area": area, "name": name, "value": { "int": value } });
    let mut settings = vec![setting("Camera", "AllowCamera", camera)];
    settings.extend(others.iter().map(|name| setting("Experience", name, 0)));
    serde_json::from_value(json!({ "type": "configure", "settings": settings, "force": force })).unwrap()
}

/// Queues an intent, lets the PC call, and says which policies it was told.
async fn told(house: &House, pc: &mut Pc, id: DeviceId, intent: Intent) -> (CommandView, Vec<String>) {
    let command = house.send(id, intent).await.unwrap();
    let told = policies(&pc.session(house).await);
    (command, told)
}

fn policies(told: &[(Verb, String)]) -> Vec<String> {
    uris(told).into_iter().filter(|uri| uri.contains("/Policy/")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pc_has_is_not_sent_again() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let others = ["AllowCortana", "AllowWindowsSpotlight"];
    let (_, first) = told(&house, &mut pc, id, configure(0, &others, false)).await;
    assert_eq!(first.len(), 3);

    let (command, again) = told(&house, &mut pc, id, configure(0, &others, false)).await;
    assert_eq!(again, [""; 0]);
    assert_eq!(command.state, CommandState::Acknowledged, "at once: nobody has to be woken for it");
    assert!(command.note.unwrap().contains("nothing was sent"));
    let detail = house.command(command.id).await;
    assert!(detail.parts.iter().all(|part| part.sends == 0 && part.finished_at.is_some()));

    let (command, changed) = told(&house, &mut pc, id, configure(1, &others, false)).await;
    assert_eq!(changed, [CAMERA], "only what changed");
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);

    let (_, forced) = told(&house, &mut pc, id, configure(1, &others, true)).await;
    assert_eq!(forced.len(), 3, "everything, when somebody says so");
}

/// Counts wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

#[async_trait::async_trait]
impl Waker for Bell {
    async fn wake(&self, _: Option<&PushIdentity>, _: &WakeTarget) -> WakeOutcome {
        self.0.fetch_add(1, Ordering::SeqCst);
        WakeOutcome::Sent
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_woken_for_what_is_not_sent() {
    let house = house().await;
    let bell = Arc::new(Bell::default());
    house.engine.set_waker(Platform::Windows, bell.clone());
    // Not only for a test: those are never woken.
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let wish =
        NewInvitation { platform: Platform::Windows, test_only: false, ..wish(Some("ann@example.org")) };
    let made = house.engine.create_invitation(&permit, wish).await.unwrap();
    let link = made.link.expose_secret().rsplit('/').next().unwrap().to_owned();
    let mut pc = pc("P1");
    pc.enroll(&house, &code("ann@example.org", &link)).await.unwrap();
    pc.session(&house).await;
    let id = house.device_id(&pc.serial.clone()).await;
    let channel = "./Vendor/MSFT/DMClient/Provider/X/Push/ChannelURI";
    let syncml =
        format!("<Get><CmdID>1</CmdID><Item><Target><LocURI>{channel}</LocURI></Target></Item></Get>");
    house.send(id, Intent::Raw { payload: syncml.into_bytes() }).await.unwrap();
    let mut told = |request: &Request| {
        (request.verb == Verb::Get)
            .then(|| Answer::value(Format::Chr, "https://db5.notify.windows.com/?token=x"))
    };
    pc.session_with(&house, "user", Vec::new(), &mut told).await;
    let woken = async || {
        house.later(60_000);
        house.engine.wake_once().await.unwrap();
        bell.0.swap(0, Ordering::SeqCst)
    };
    woken().await;
    house.send(id, configure(0, &[], false)).await.unwrap();
    assert_eq!(woken().await, 1, "there is something to fetch");
    pc.session(&house).await;
    house.send(id, configure(0, &[], false)).await.unwrap();
    assert_eq!(woken().await, 0);
    house.send(id, configure(1, &[], false)).await.unwrap();
    assert_eq!(woken().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_something_else_is_judged_when_the_pc_calls() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    told(&house, &mut pc, id, configure(0, &[], false)).await;
    house.send(id, lock()).await.unwrap();
    let waits = house.send(id, configure(0, &[], false)).await.unwrap();
    assert_eq!(waits.state, CommandState::Queued);
    let said = pc.session(&house).await;
    assert!(uris(&said).iter().any(|uri| uri.ends_with("RemoteLock/Lock")));
    assert_eq!(policies(&said), [""; 0]);
    assert_eq!(house.state(waits.id).await, CommandState::Acknowledged);

    // There and back again: the second is not spared because of what holds now.
    house.send(id, configure(1, &[], false)).await.unwrap();
    let back = house.send(id, configure(0, &[], false)).await.unwrap();
    assert_eq!(policies(&pc.session(&house).await), [CAMERA, CAMERA]);
    assert_eq!(house.state(back.id).await, CommandState::Acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_sent() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let mut refuse = |request: &Request| (request.verb == Verb::Replace).then(|| Answer::status(500));
    let refused = house.send(id, configure(0, &[], false)).await.unwrap();
    pc.session_with(&house, "user", Vec::new(), &mut refuse).await;
    assert_eq!(house.state(refused.id).await, CommandState::Failed);
    let (_, after_refusal) = told(&house, &mut pc, id, configure(0, &[], false)).await;
    assert_eq!(after_refusal, [CAMERA]);

    // A change that the PC refused may have been made in half.
    house.send(id, configure(1, &[], false)).await.unwrap();
    pc.session_with(&house, "user", Vec::new(), &mut refuse).await;
    let (_, after_refusal) = told(&house, &mut pc, id, configure(0, &[], false)).await;
    assert_eq!(after_refusal, [CAMERA]);

    for uri in [
        "./Vendor/MSFT/Policy/Config/camera/allowcamera",
        "./Vendor/MSFT/Policy/Config/Camera",
        "./Device/Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/App/Policy/File",
    ] {
        let syncml =
            format!("<Delete><CmdID>1</CmdID><Item><Target><LocURI>{uri}</LocURI></Target></Item></Delete>");
        let raw = Intent::Raw { payload: syncml.into_bytes() };
        told(&house, &mut pc, id, raw).await;
        let (_, after_raw) = told(&house, &mut pc, id, configure(0, &[], false)).await;
        assert_eq!(after_raw, [CAMERA], "somebody wrote to {uri}");
    }
    let (_, settled) = told(&house, &mut pc, id, configure(0, &[], false)).await;
    assert_eq!(settled, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_confirms_nothing() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    told(&house, &mut pc, id, configure(0, &[], false)).await;
    let lost = house.send(id, configure(1, &[], false)).await.unwrap();
    // The reply has the command, and is lost on its way.
    pc.open(&house).await;
    assert_eq!(house.state(lost.id).await, CommandState::Sent);
    let back = house.send(id, configure(0, &[], false)).await.unwrap();
    assert_eq!(back.state, CommandState::Queued, "the PC may have the other value by now");
    assert_eq!(policies(&pc.session(&house).await), [CAMERA, CAMERA]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_enrollment_knows_nothing_of_the_old() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    told(&house, &mut pc, id, configure(0, &[], false)).await;
    house.later(bellwether_model::time::DAY);
    let invitation = house.invite_pc(Some("ann@example.org")).await;
    pc.enroll(&house, &crate::pc::code("ann@example.org", &invitation)).await.unwrap();
    pc.session(&house).await;
    assert_eq!(house.device_id(&pc.serial.clone()).await, id);
    let (_, again) = told(&house, &mut pc, id, configure(0, &[], false)).await;
    assert_eq!(again, [CAMERA]);
}
