//! Sessions: challenge, bad behaviour, Atomic, leaving.

use bellwether_windows::csp::{self, NodeCommand, Step as NodeStep};
use bellwether_windows::syncml::client::Habits;
use bellwether_windows::syncml::session::{Event, Login, Outcome};
use bellwether_windows::syncml::{Command, Format, Group, GroupKind, Meta, Verb};

use super::server::{CODE, Manner, USER};
use super::*;
use crate::Error;

fn command(verb: Verb, uri: &str, value: Option<&str>) -> NodeCommand {
    let format = value.map(|_| Format::Chr);
    NodeCommand { verb, uri: uri.to_owned(), format, data: value.map(str::to_owned) }
}

fn one(verb: Verb, uri: &str, value: Option<&str>) -> NodeStep {
    command(verb, uri, value).into()
}

#[tokio::test]
async fn a_challenge_then_the_package_again() {
    let (server, mut pc) = enrolled().await;
    let part = server.push(&csp::gets(csp::DEVICE_INFORMATION));
    assert_eq!(pc.session().await.unwrap().len(), csp::DEVICE_INFORMATION.len());
    assert_eq!(server.state().outcomes, [Outcome::Challenge, Outcome::Ready, Outcome::Ready]);
    assert!(server.state().events.contains(&Event::Login(Login::User)));
    assert_eq!(server.codes(&part), vec![200; csp::DEVICE_INFORMATION.len()]);
    assert!(server.results(&part).contains(&pc.serial()));

    // What it keeps of the nonces is enough for the next session, and for one without a challenge.
    pc.session().await.unwrap();
    pc.set_habits(Habits::default());
    server.state().outcomes.clear();
    pc.session().await.unwrap();
    assert_eq!(server.state().outcomes, [Outcome::Ready]);
}

#[tokio::test]
async fn every_inventory_node_has_a_value() {
    let (server, mut pc) = enrolled().await;
    let mut steps = csp::gets(csp::DEVICE_INFORMATION);
    steps.extend(csp::gets(csp::POSTURE));
    steps.extend(csp::software().unwrap());
    steps.push(csp::hardware_hash());
    steps.push(csp::push_package("Bellwether", "Example.App_8wekyb3d8bbwe").unwrap());
    steps.extend(csp::enrollment_information("Bellwether").unwrap());
    let part = server.push(&steps);
    let told = pc.session().await.unwrap();
    let bad: Vec<_> = told.iter().filter(|told| told.code() != 200).map(|told| told.uri.as_str()).collect();
    // Only a machine that is joined to Entra has that one.
    assert_eq!(bad, ["./Device/Vendor/MSFT/DMClient/Provider/Bellwether/AADDeviceID"]);
    let results = server.results(&part);
    let channel = pc.inventory().channel_uri.unwrap();
    assert!(channel.starts_with("https://") && results.contains(&channel));
    assert!(results.contains(&"<Inventory><nonStore></nonStore></Inventory>".to_owned()));
}

#[tokio::test]
async fn an_atomic_happens_whole_or_not_at_all() {
    let (server, mut pc) = enrolled().await;
    let base = "./Device/Vendor/MSFT/Policy/Config/Camera/";
    let allow = [base, "AllowCamera"].concat();
    let atomic = |commands| NodeStep::Atomic(commands);
    let add = |value| command(Verb::Add, &allow, Some(value));
    let first =
        server.push(&[atomic(vec![add("0"), command(Verb::Add, &[base, "Other"].concat(), Some("1"))])]);
    let again = server.push(&[atomic(vec![
        command(Verb::Replace, &allow, Some("changed")),
        csp_lock(),
        add("2"),
        command(Verb::Delete, &allow, None),
    ])]);
    let told = pc.session().await.unwrap();
    assert_eq!(server.codes(&first), [200, 200, 200]);
    assert_eq!(server.codes(&again), [507, 216, 216, 418, 215]);
    assert_eq!(
        short(&told)[2..],
        [("Replace", "AllowCamera", 216), ("Exec", "Lock", 216), ("Add", "AllowCamera", 418)]
    );
    assert_eq!(pc.node(&allow).as_deref(), Some("0"));
    assert_eq!(pc.inventory().policies.len(), 2);
    assert_eq!(pc.inventory().locks, 0, "undone");

    let sequence = Group {
        kind: GroupKind::Sequence,
        cmd_id: String::new(),
        no_resp: false,
        meta: Meta::default(),
        commands: vec![
            add("2").to_command(),
            command(Verb::Get, base.trim_end_matches('/'), None).to_command(),
        ],
    };
    let part = server.push_commands(vec![Command::Group(sequence)]);
    pc.session().await.unwrap();
    assert_eq!(
        (server.codes(&part), server.results(&part)),
        (vec![200, 418, 200], vec!["AllowCamera/Other".to_owned()])
    );
}

fn csp_lock() -> NodeCommand {
    command(Verb::Exec, "./Device/Vendor/MSFT/RemoteLock/Lock", None)
}

#[tokio::test]
async fn statuses_as_windows_gives_them() {
    let (server, mut pc) = enrolled().await;
    let steps = [
        one(Verb::Get, "./Device/Vendor/MSFT/Nothing/Here", None),
        one(Verb::Get, "./DevDetail/Nothing", None),
        one(Verb::Delete, "./Device/Vendor/MSFT/Policy/Config/A/B", None),
        one(Verb::Replace, "./DevDetail/SwV", Some("1")),
        one(Verb::Exec, "./DevDetail/SwV", None),
        one(Verb::Get, "./DevDetail/SwV?prop=Type", None),
        one(Verb::Get, "/DevDetail/SwV", None),
        one(Verb::Get, "./Device/Vendor/MSFT/Policy/Config", None),
        one(Verb::Get, "./Vendor/MSFT/Policy/Config", None),
    ];
    let parts: Vec<String> = steps.iter().map(|step| server.push(std::slice::from_ref(step))).collect();
    let told = pc.session().await.unwrap();
    let codes: Vec<_> = parts.iter().flat_map(|part| server.codes(part)).collect();
    assert_eq!(codes, [404, 404, 404, 405, 405, 406, 404, 200, 200]);
    let error = |told: &Told| told.answer.as_ref().unwrap().original_error.clone();
    assert_eq!(error(&told[0]).as_deref(), Some("0x86000002"));

    // A user's node while nobody is signed in, an old build, a Home edition, a machine without a PIN.
    let old = WindowsPc::builder(server.http())
        .os_version("10.0.17134.1")
        .edition(101)
        .pin(false)
        .user_signed_in(false);
    let mut old = old.build().unwrap();
    old.enroll(&server.discovery(), USER, CODE).await.unwrap();
    let parts = [
        server.push(&[one(Verb::Exec, "./Device/Vendor/MSFT/RemoteWipe/doWipeCloud", None)]),
        server.push(&[one(Verb::Get, "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI", None)]),
        server.push(&[csp::lock()]),
        server.push(&[one(Verb::Get, "./User/Vendor/MSFT/Policy/Config", None)]),
    ];
    let claims = SessionOptions { login: Some("user".to_owned()), ..SessionOptions::default() };
    old.session_with(claims).await.unwrap();
    old.session().await.unwrap();
    let codes: Vec<_> = parts.iter().flat_map(|part| server.codes(part)).collect();
    assert_eq!(codes, [404, 404, 405, 405]);
    assert!(server.state().events.contains(&Event::Login(Login::Nobody)));
}

#[tokio::test]
async fn answers_can_be_set_by_hand() {
    let (server, mut pc) = enrolled().await;
    pc.answer_times("./Vendor/MSFT/RemoteLock/Lock", Some(Verb::Exec), 1, Answer::status(503));
    pc.answer_with("./DevDetail/SwV", Answer::value(Format::Chr, "10.0.1.1"));
    let parts = [server.push(&[csp::lock()]), server.push(&csp::gets(&["./DevDetail/SwV"]))];
    pc.session().await.unwrap();
    let again = server.push(&[csp::lock()]);
    pc.session().await.unwrap();
    assert_eq!(
        (server.codes(&parts[0]), server.results(&parts[1])),
        (vec![503], vec!["10.0.1.1".to_owned()])
    );
    assert_eq!((server.codes(&again), pc.inventory().locks), (vec![200], 1));
    pc.clear_answers();
}

#[tokio::test]
async fn bad_behaviour() {
    let (server, mut pc) = enrolled().await;
    // The answer with the command is lost: nothing happens twice.
    server.push(&[csp::lock()]);
    pc.session_with(SessionOptions { drop_reply_at: Some(2), ..SessionOptions::default() }).await.unwrap();
    assert_eq!(pc.inventory().locks, 1);
    assert!(server.state().outcomes.contains(&Outcome::Repeated));

    // The answer that confirms the machine's status is lost.
    server.push(&[csp::lock()]);
    pc.session_with(SessionOptions { drop_reply_at: Some(3), ..SessionOptions::default() }).await.unwrap();
    assert_eq!(pc.inventory().locks, 2);

    let part = server.push(&[csp::lock()]);
    pc.session_with(SessionOptions { abort_at: Some(3), ..SessionOptions::default() }).await.unwrap();
    assert!(server.state().events.contains(&Event::Aborted { unanswered: vec![part.clone()] }));
    let told =
        pc.session_with(SessionOptions { stop_at: Some(2), ..SessionOptions::default() }).await.unwrap();
    assert_eq!((told.len(), server.codes(&part).len()), (1, 0));
    pc.session_with(SessionOptions { restart_at: Some(2), ..SessionOptions::default() }).await.unwrap();
    let restarted =
        |event: &Event| matches!(event, Event::Restarted { unanswered } if unanswered.contains(&part));
    assert!(server.state().events.iter().any(restarted));
    assert_eq!(server.codes(&part), [200]);

    // Two at once, message by message.
    let part = server.push(&[csp::reboot()]);
    let (mut one, mut two) = (pc.open_session().unwrap(), pc.open_session().unwrap());
    assert!(one.step().await.unwrap().challenged && two.step().await.unwrap().challenged);
    assert_eq!(two.step().await.unwrap().told.len(), 1);
    two.step().await.unwrap();
    one.run().await.unwrap();
    assert!(one.is_over() && two.is_over() && two.told().len() == 1);
    assert_eq!((server.codes(&part), pc.inventory().reboots), (vec![200], 1));

    let refused = SessionOptions { no_certificate: true, ..SessionOptions::default() };
    assert!(matches!(pc.session_with(refused).await, Err(Error::Channel(_))));
    pc.set_device_id("ANOTHER");
    assert_eq!(pc.session().await.unwrap_err().status(), Some(403));
    assert_eq!(pc.raw_session_post(b"<x/>".to_vec(), &[]).await.unwrap().status, 400);
}

#[tokio::test]
async fn every_dialect() {
    let server = Server::start();
    let keys = KeyPool::shared(1).await.unwrap();
    let plain = Habits { always_cred: false, ..Habits::default() };
    let cases = [
        (Manner { wbxml: true, ..Manner::default() }, plain),
        (Manner { basic: true, ..Manner::default() }, plain),
        (
            Manner { sync_2: true, ..Manner::default() },
            Habits { no_msg_ref: true, same_cmd_id: true, ..plain },
        ),
        (
            Manner { signing: true, ..Manner::default() },
            Habits { constant_msg_id: true, ..Habits::default() },
        ),
    ];
    for (manner, habits) in cases {
        server.state().manner = manner.clone();
        let mut pc = WindowsPc::builder(server.http()).keys(keys.clone()).habits(habits).build().unwrap();
        pc.enroll(&server.discovery(), USER, CODE).await.unwrap();
        let part = server.push(&csp::gets(&["./DevDetail/SwV"]));
        let options = SessionOptions { number: Some(93), demand_server: true, ..SessionOptions::default() };
        pc.session_with(options).await.unwrap();
        assert_eq!(server.results(&part), ["10.0.26100.2033"]);
        let mut session =
            pc.open_session_with(SessionOptions { number: Some(93), ..Default::default() }).unwrap();
        let id = session.message_mut().unwrap().header.session_id.clone();
        assert_eq!(id, if manner.sync_2 { "5D" } else { "93" });
    }
    assert!(server.state().signed >= 3);
}

#[tokio::test]
async fn messages_are_signed_from_the_moment_that_the_server_asks() {
    let (server, mut pc) = enrolled().await;
    server.push(&[csp::require_message_signing("Bellwether").unwrap()]);
    pc.session().await.unwrap();
    assert_eq!(server.state().signed, 1);
    assert_eq!(server.state().outcomes.len(), 3);
    // Behind a proxy that ends TLS, the signature alone has to do.
    let options = || SessionOptions { no_certificate: true, ..SessionOptions::default() };
    pc.session_with(options()).await.unwrap();
    let unsigned = SessionOptions { sign: Some(false), ..options() };
    assert!(pc.session_with(unsigned).await.is_err());
}

#[tokio::test]
async fn a_wipe_has_four_ends() {
    for (fate, codes, wiped) in [
        (WipeFate::Done, vec![200], true),
        (WipeFate::AnswerLost, vec![], true),
        (WipeFate::Fails, vec![500], false),
        (WipeFate::OnlySaid, vec![200], false),
    ] {
        let (server, mut pc) = enrolled().await;
        pc.set_wipe_fate(fate);
        let part = server.push(&[csp::wipe(csp::Wipe::Reset)]);
        let told = pc.session().await.unwrap();
        assert_eq!(server.codes(&part), codes, "{fate:?}");
        assert_eq!((pc.is_enrolled(), pc.inventory().wipes), (!wiped, u32::from(wiped)));
        assert_eq!(told[0].answer.is_none(), fate == WipeFate::AnswerLost);
        assert_eq!(pc.told().len(), 1, "what it was told is remembered");
    }
}

#[tokio::test]
async fn a_machine_leaves_by_order_or_by_itself() {
    let (server, mut pc) = enrolled().await;
    let part = server.push(&[csp::unenroll("Bellwether").unwrap(), csp::lock()]);
    let told = pc.session().await.unwrap();
    assert_eq!(short(&told), [("Exec", "Unenroll", 0)]);
    assert!(pc.is_leaving() && pc.is_enrolled() && server.codes(&part).is_empty());
    assert_eq!(pc.inventory().locks, 0);
    server.state().queue.clear();
    pc.session().await.unwrap();
    assert!(server.state().events.contains(&Event::Unenrolled));
    assert!(!pc.is_enrolled() && !pc.is_leaving());

    pc.enroll(&server.discovery(), USER, CODE).await.unwrap();
    server.state().events.clear();
    pc.unenroll_by_user().await.unwrap();
    assert!(server.state().events.contains(&Event::Unenrolled) && !pc.is_enrolled());
}

#[tokio::test]
async fn a_new_name_waits_for_the_restart() {
    let (server, mut pc) = enrolled().await;
    server.push(&[csp::rename("NEW-NAME").unwrap()]);
    pc.session().await.unwrap();
    assert_eq!(pc.inventory().next_name.as_deref(), Some("NEW-NAME"));
    assert_ne!(pc.inventory().name, "NEW-NAME");
    server.push(&[csp::reboot()]);
    pc.session().await.unwrap();
    assert_eq!(pc.inventory().name, "NEW-NAME");
    assert_eq!(pc.node("./DevDetail/Ext/Microsoft/DNSComputerName").as_deref(), Some("NEW-NAME"));
}
