//! A machine and the server's session in memory, message by message.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use bellwether_windows::csp;
use bellwether_windows::syncml::auth::{self, Nonces, Scheme, Secret};
use bellwether_windows::syncml::client::{self, Answer, Client, Habits, Identity};
use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::session::{
    Bounds, Event, Held, Login, Offer, Outcome, Proof, Received, Reply, ServerProof, Session,
};
use bellwether_windows::syncml::{
    Alert, Command, Data, Error, Format, Item, Location, Message, Meta, Request, Results, Status, Verb,
    writer,
};
use proptest::prelude::*;

const DEVICE: &str = "B5B954E81FBCB94EB79BD08BE625F4EE";
const SERVER: &str = "https://mdm.example/ManagementServer/MDM.svc";

/// No MD5, but a function of all its input: enough for both sides to agree or not.
fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut out = [7_u8; 16];
    for (index, byte) in bytes.iter().enumerate() {
        let slot = out.get_mut(index % 16).unwrap();
        *slot = slot.rotate_left(3) ^ byte ^ u8::try_from(index % 251).unwrap();
    }
    out
}

struct Pair {
    client: Client,
    session: Session,
    secret: Option<Secret>,
    nonces: Nonces,
    bounds: Bounds,
    transport: bool,
    fresh: u8,
}

impl Pair {
    fn new(habits: Habits) -> Self {
        let secret = Secret::Md5(auth::secret_md5("pc", "pw", hash));
        let identity = Identity {
            device_id: DEVICE.into(),
            server: SERVER.into(),
            name: "pc".into(),
            secret: secret.clone(),
            nonce: b"first".to_vec(),
        };
        Self {
            client: Client::new(identity, habits, 93, hash),
            session: Session::new(if habits.hex_session_id { "5D" } else { "93" }, DEVICE, SERVER),
            secret: Some(secret),
            nonces: Nonces::new(*b"first"),
            bounds: Bounds::default(),
            transport: true,
            fresh: 0,
        }
    }

    /// Over the wire, with the session stored and loaded as if the server had started anew before it.
    fn receive(&mut self, message: &Message) -> Received {
        let message = reader::read(&writer::write(message).unwrap(), &Limits::SESSION).unwrap();
        self.session = serde_json::from_str(&serde_json::to_string(&self.session).unwrap()).unwrap();
        self.fresh += 1;
        let fresh = [self.fresh; 16];
        let proof = Proof {
            transport: self.transport,
            secret: self.secret.as_ref(),
            nonces: &mut self.nonces,
            fresh: &fresh,
            md5: hash,
        };
        self.session.receive(&message, proof, &self.bounds, 5).unwrap()
    }

    fn reply(&mut self, offers: &[Offer]) -> Reply {
        let mut reply = self.session.reply(offers, None, &self.bounds).unwrap();
        reply.message = reader::read(&writer::write(&reply.message).unwrap(), &Limits::SESSION).unwrap();
        reply
    }

    fn open(&mut self) -> (Received, Message) {
        let message = self.client.open(false, "user", vec![]);
        (self.receive(&message), message)
    }
}

fn offer(part: &str, steps: &[csp::Step]) -> Offer {
    Offer { part: part.into(), commands: steps.iter().map(csp::Step::to_command).collect() }
}

fn codes(message: &Message) -> Vec<u16> {
    let code = |command: &Command| match command {
        Command::Status(status) => Some(status.code),
        _ => None,
    };
    message.commands.iter().filter_map(code).collect()
}

fn obey(request: &Request) -> Answer {
    match request.verb {
        Verb::Get => Answer::value(Format::Chr, "10.0.26200"),
        Verb::Exec => Answer { code: 405, original_error: Some("0x86000002".into()), result: None },
        _ => Answer::status(200),
    }
}

/// MD5 of the two inputs of the documented example, computed elsewhere.
fn md5_of_the_example(bytes: &[u8]) -> [u8; 16] {
    match bytes {
        b"Bruce2:OhBehave" => {
            [0x3E, 0xD1, 0x1D, 0xAF, 0xC9, 0x41, 0x43, 0x8E, 0x48, 0x6D, 0x3D, 0x5B, 0x64, 0x89, 0x2B, 0x39]
        }
        b"PtEdr8lBQ45IbT1bZIkrOQ==:Nonce" => {
            [0x67, 0x3E, 0x84, 0x8A, 0xF4, 0x77, 0xC9, 0xE6, 0x9A, 0x10, 0xD7, 0x11, 0x37, 0xA9, 0x69, 0x01]
        }
        _ => [0; 16],
    }
}

#[test]
fn documented_digest() {
    let secret = auth::secret_md5("Bruce2", "OhBehave", md5_of_the_example);
    assert_eq!(auth::digest(&secret, b"Nonce", md5_of_the_example), "Zz6EivR3yeaaENcRN6lpAQ==");
    assert_eq!(auth::basic("a", "b"), "YTpi");
}

#[test]
fn a_challenge_looks_as_documented() {
    let mut pair = Pair::new(Habits::default());
    pair.session = Session::new("1", DEVICE, SERVER);
    let message =
        reader::read(include_bytes!("../testdata/syncml/first-package.xml"), &Limits::SESSION).unwrap();
    assert_eq!(pair.receive(&message).outcome, Outcome::Challenge);
    let reply = pair.session.reply(&[], None, &pair.bounds).unwrap();
    let written = String::from_utf8(writer::write(&reply.message).unwrap()).unwrap();
    assert_eq!(written, include_str!("../testdata/syncml/challenge.xml"));
}

proptest! {
    #[test]
    fn a_session_survives_any_message(cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..8), rounds in 1..4_usize) {
        let mut pair = Pair::new(Habits::default());
        pair.secret = None;
        pair.open();
        let offers = [offer("get", &csp::gets(csp::DEVICE_INFORMATION)), offer("lock", &[csp::lock()])];
        let reply = pair.reply(&offers);
        let answer = pair.client.answer(&reply.message, &mut obey).unwrap();
        let mut bytes = writer::write(&answer).unwrap();
        for (at, value, kind) in &cuts {
            let at = at.index(bytes.len());
            match kind { 0 => bytes[at] = *value, 1 => { bytes.remove(at); } _ => bytes.insert(at, *value) }
        }
        if let Ok(message) = reader::read(&bytes, &Limits::SESSION) {
            for _ in 0..rounds {
                let proof = Proof { transport: true, secret: None, nonces: &mut pair.nonces, fresh: b"x", md5: hash };
                let _ = pair.session.receive(&message, proof, &pair.bounds, 5);
                let _ = pair.session.reply(&offers, None, &pair.bounds);
            }
        }
    }
}

#[test]
fn a_whole_session_with_every_habit() {
    for (hex, constant, always, no_ref, same) in [
        (false, false, true, false, false),
        (true, false, false, true, true),
        (false, true, true, true, false),
    ] {
        let habits = Habits {
            hex_session_id: hex,
            constant_msg_id: constant,
            always_cred: always,
            no_msg_ref: no_ref,
            same_cmd_id: same,
            ..Habits::default()
        };
        let mut pair = Pair::new(habits);
        let (mut received, _) = pair.open();
        if !always {
            assert_eq!((received.outcome, received.events.len()), (Outcome::Challenge, 0));
            let reply = pair.reply(&[offer("1", &[csp::reboot()])]);
            assert_eq!((codes(&reply.message), reply.message.commands.len()), (vec![407], 1));
            assert_eq!(reply.held, [("1".into(), Held::Later)]);
            let again = pair.client.answer(&reply.message, &mut obey).unwrap();
            received = pair.receive(&again);
        }
        assert_eq!(received.outcome, Outcome::Ready);
        assert_eq!(received.events[..2], [Event::Started { pushed: false }, Event::Login(Login::User)]);
        assert!(matches!(&received.events[2], Event::DeviceInfo(nodes) if nodes[0].1 == DEVICE));
        let offers = [
            offer("get", &csp::gets(&["./DevDetail/SwV"])),
            offer("lock", &[csp::lock()]),
            offer(
                "laps",
                &[csp::laps(&csp::Laps { directory: 1, age: 9, length: 9, account: None }).unwrap()],
            ),
        ];
        let reply = pair.reply(&offers);
        assert_eq!(codes(&reply.message), [212, 200, 200, 200]);
        assert_eq!(reply.handed, ["get", "lock", "laps"]);
        assert!(reply.message.last && !reply.ended);
        let message = pair.client.answer(&reply.message, &mut obey).unwrap();
        let received = pair.receive(&message);
        let part = |event: &Event| match event {
            Event::Status { part, code, remaining, original_error, .. } => {
                Some((part.clone(), *code, *remaining, original_error.is_some()))
            }
            _ => None,
        };
        let parts: Vec<_> = received.events.iter().filter_map(part).collect();
        assert_eq!(parts[..2], [("get".into(), 200, 0, false), ("lock".into(), 405, 0, true)]);
        assert_eq!(parts.last().unwrap(), &("laps".into(), 200, 0, false));
        let value = |event: &Event| matches!(event, Event::Results { part, item, .. } if part == "get" && item.data == Some(Data::text("10.0.26200")));
        assert!(received.events.iter().any(value));
        let reply = pair.reply(&[]);
        assert!(reply.ended && pair.session.unanswered().is_empty());
        assert!(pair.client.answer(&reply.message, &mut obey).is_none());
    }
}

#[test]
fn a_stale_nonce_is_challenged_once_and_a_wrong_secret_thrice_refused() {
    let mut pair = Pair::new(Habits::default());
    pair.nonces.rotate(b"lost with an answer");
    assert_eq!(pair.open().0.outcome, Outcome::Challenge);
    let reply = pair.reply(&[]);
    assert_eq!(codes(&reply.message), [401]);
    let again = pair.client.answer(&reply.message, &mut obey).unwrap();
    assert_eq!(pair.receive(&again).outcome, Outcome::Ready);

    let mut pair = Pair::new(Habits { patience: 9, ..Habits::default() });
    pair.client.identity.secret = Secret::Md5("wrong".into());
    let mut message = pair.client.open(false, "user", vec![]);
    for expected in [Outcome::Challenge, Outcome::Challenge, Outcome::Refused] {
        assert_eq!(pair.receive(&message).outcome, expected);
        let reply = pair.reply(&[offer("1", &[csp::reboot()])]);
        assert_eq!((codes(&reply.message), reply.handed.len()), (vec![401], 0));
        match pair.client.answer(&reply.message, &mut obey) {
            Some(next) => message = next,
            None => assert_eq!(expected, Outcome::Refused),
        }
    }
}

#[test]
fn a_digest_alone_never_suffices() {
    let mut pair = Pair::new(Habits::default());
    pair.transport = false;
    assert_eq!(pair.open().0, Received { outcome: Outcome::Refused, events: vec![] });
    let reply = pair.reply(&[offer("1", &[csp::reboot()])]);
    assert_eq!((codes(&reply.message), reply.handed.len()), (vec![403], 0));
    let mut foreign = Pair::new(Habits::default()).client.open(false, "user", vec![]);
    foreign.header.source.uri = "OTHER".into();
    let proof = Proof { transport: true, secret: None, nonces: &mut pair.nonces, fresh: b"x", md5: hash };
    assert_eq!(pair.session.receive(&foreign, proof, &pair.bounds, 5), Err(Error::OtherSession));
}

#[test]
fn a_lost_reply_is_answered_again_and_not_processed_twice() {
    let mut pair = Pair::new(Habits::default());
    let (_, first) = pair.open();
    let offers = [offer("1", &[csp::reboot()])];
    let lost = pair.reply(&offers);
    let received = pair.receive(&first);
    assert_eq!(received, Received { outcome: Outcome::Repeated, events: vec![] });
    assert_eq!(pair.reply(&offers).message, lost.message);
}

#[test]
fn a_new_session_under_the_same_id_and_an_abort_give_back_what_was_sent() {
    let mut pair = Pair::new(Habits::default());
    pair.secret = None;
    pair.open();
    let reply = pair.reply(&[]);
    let second = pair.client.message(vec![Client::demand(&reply.message, Scheme::Md5, b"n")], true);
    pair.receive(&second);
    pair.reply(&[offer("wipe", &[csp::wipe(csp::Wipe::Reset)])]);
    let mut client = Pair::new(Habits::default()).client;
    let received = pair.receive(&client.open(true, "none", vec![client::unenrollment()]));
    assert_eq!(received.events[0], Event::Restarted { unanswered: vec!["wipe".into()] });
    assert!(received.events.contains(&Event::Unenrolled));
    let user = csp::vpn(csp::Scope::User, "a", "<x/>").unwrap();
    let reply = pair.reply(&[offer("vpn", &[user]), offer("2", &[csp::reboot()])]);
    assert_eq!((reply.held, reply.handed), (vec![("vpn".into(), Held::NoUser)], vec!["2".to_owned()]));
    let abort = client.message(vec![Command::Alert(Alert { code: 1223, ..Alert::default() })], true);
    let received = pair.receive(&abort);
    assert_eq!(received.outcome, Outcome::Aborted);
    assert_eq!(received.events, [Event::Aborted { unanswered: vec!["2".into()] }]);
}

#[test]
fn the_server_proves_itself_when_asked() {
    let mut pair = Pair::new(Habits::default());
    pair.open();
    let reply = pair.reply(&[offer("1", &[csp::reboot()])]);
    let demand =
        pair.client.message(vec![Client::demand(&reply.message, Scheme::Md5, b"server nonce")], true);
    assert_eq!(pair.receive(&demand).events, [Event::Unprocessed { parts: vec!["1".into()] }]);
    let secret = Secret::Md5(auth::secret_md5("Bellwether", "server pw", hash));
    let proof = ServerProof { secret: &secret, name: "Bellwether", md5: hash };
    let reply = pair.session.reply(&[offer("1", &[csp::reboot()])], Some(&proof), &pair.bounds).unwrap();
    assert!(pair.client.is_server(&reply.message, &secret, b"server nonce"));
    assert_eq!(reply.handed, ["1"]);
}

#[test]
fn large_objects_go_out_in_pieces() {
    let mut pair = Pair::new(Habits::default());
    pair.secret = None;
    let mut message = pair.client.open(false, "user", vec![]);
    message.header.meta.max_msg_size = Some(3000);
    pair.receive(&message);
    let text = "ä<&>".repeat(2500);
    let offers = [offer("big", &[csp::wifi("net", &text).unwrap()]), offer("2", &[csp::reboot()])];
    let mut arrived = String::new();
    let mut handed = Vec::new();
    for _ in 0..200 {
        let open: Vec<Offer> = offers.iter().filter(|offer| !handed.contains(&offer.part)).cloned().collect();
        let reply = pair.reply(&open);
        assert!(writer::write(&reply.message).unwrap().len() <= 3000);
        handed.extend(reply.handed.clone());
        for command in &reply.message.commands {
            let Command::Request(request) = command else { continue };
            if request.verb != Verb::Replace {
                continue;
            }
            let item = &request.items[0];
            assert_eq!(item.meta.size.is_some(), arrived.is_empty());
            assert!(!item.more || !reply.message.last);
            arrived.push_str(item.data.as_ref().unwrap().as_str().unwrap());
        }
        let Some(next) = pair.client.answer(&reply.message, &mut obey) else { break };
        pair.receive(&next);
    }
    assert_eq!(handed, ["big", "2"]);
    assert!(arrived == text && pair.session.unanswered().is_empty());
}

fn chunk(data: &str, size: Option<u64>, more: bool) -> Command {
    let meta = Meta { size, ..Meta::default() };
    let source = Some(Location::new("./DevDetail/SwV"));
    let item = Item { source, meta, data: Some(Data::text(data)), more, ..Item::default() };
    Command::Results(Results {
        msg_ref: Some(1),
        cmd_ref: "5".into(),
        items: vec![item],
        ..Results::default()
    })
}

#[test]
fn large_objects_come_in_pieces_and_floods_are_bounded() {
    let mut pair = Pair::new(Habits::default());
    pair.secret = None;
    pair.bounds = Bounds { max_object: 100, max_chunks: 5, ..Bounds::default() };
    pair.open();
    let reply = pair.reply(&[offer("get", &csp::gets(&["./DevDetail/SwV"]))]);
    assert_eq!(reply.message.commands.last().unwrap().cmd_id(), "5");
    let mut send = |data: &str, size: Option<u64>, more: bool| {
        let our = pair.client.message(vec![chunk(data, size, more)], !more);
        let received = pair.receive(&our);
        let reply = pair.reply(&[]);
        let alerts: Vec<u16> = reply
            .message
            .commands
            .iter()
            .filter_map(|command| match command {
                Command::Alert(alert) => Some(alert.code),
                _ => None,
            })
            .collect();
        (codes(&reply.message)[1], alerts, received.events)
    };
    assert_eq!(send("x", None, true).1, [1225, 1222]);
    assert_eq!(send("x", Some(1000), true).0, 413);
    assert_eq!(send("hello ", Some(11), true).0, 213);
    let (code, alerts, events) = send("world", None, false);
    assert_eq!((code, alerts.len()), (200, 0));
    assert!(
        matches!(&events[0], Event::Results { item, .. } if item.data == Some(Data::text("hello world")))
    );
    assert_eq!(send("abc", Some(5), true).0, 213);
    assert_eq!(send("defgh", None, true).0, 424);
    assert_eq!(send("", Some(90), true).0, 213);
    let flood: Vec<u16> = (0..5).map(|_| send("", None, true).0).collect();
    assert_eq!(flood, [213, 213, 213, 213, 413]);
}

#[test]
fn unknown_commands_get_one_status_and_a_package_without_end_no_commands() {
    let mut pair = Pair::new(Habits::default());
    pair.secret = None;
    let unknown = Command::Unknown { name: "Frobnicate".into(), cmd_id: String::new() };
    let get = Command::Request(Request::new(Verb::Get, Item::default()));
    let message = pair.client.message(vec![unknown, get], false);
    assert_eq!(pair.receive(&message).outcome, Outcome::Hold);
    let reply = pair.reply(&[offer("1", &[csp::reboot()])]);
    assert_eq!((codes(&reply.message), reply.handed.len()), (vec![200, 406, 406], 0));
    assert!(matches!(reply.message.commands.last(), Some(Command::Alert(alert)) if alert.code == 1222));
    let status = Status { cmd_ref: "77".into(), cmd: "Get".into(), code: 200, ..Status::default() };
    let message = pair.client.message(vec![Command::Status(status)], true);
    assert_eq!(pair.receive(&message).events, [Event::Unmatched { cmd_ref: "77".into() }]);
}

/// A machine that repeats itself must not make one command's record grow, nor contradict its first word.
#[test]
fn a_command_is_answered_once() {
    let mut pair = Pair::new(Habits::default());
    pair.open();
    let reply = pair.reply(&[offer("part", &[csp::reboot(), csp::lock()])]);
    let first = reply.message.commands.iter().find(|command| command.name() == "Exec").unwrap();
    let status = |code| {
        let cmd_ref = first.cmd_id().to_owned();
        let msg_ref = Some(reply.message.header.msg_id);
        Command::Status(Status { msg_ref, cmd_ref, cmd: "Exec".into(), code, ..Status::default() })
    };
    let message = pair.client.message(vec![status(200), status(500)], false);
    let mut events = pair.receive(&message).events;
    pair.reply(&[]);
    let message = pair.client.message(vec![status(500)], true);
    events.extend(pair.receive(&message).events);
    assert!(matches!(&events[0], Event::Status { code: 200, remaining: 1, .. }), "{events:?}");
    let unmatched = Event::Unmatched { cmd_ref: first.cmd_id().to_owned() };
    assert_eq!(events[1..], [unmatched.clone(), unmatched]);
}

#[test]
fn many_parts_are_spread_over_messages() {
    let mut pair = Pair::new(Habits::default());
    pair.open();
    let mut offers: Vec<Offer> = (0..150).map(|n| offer(&n.to_string(), &[csp::reboot()])).collect();
    let mut sizes = Vec::new();
    loop {
        let reply = pair.reply(&offers);
        sizes.push(reply.handed.len());
        offers.retain(|offer| !reply.handed.contains(&offer.part));
        let Some(next) = pair.client.answer(&reply.message, &mut obey) else { break };
        pair.receive(&next);
    }
    assert_eq!(sizes, [60, 60, 30, 0]);
}
