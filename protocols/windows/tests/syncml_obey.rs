//! What a simulated machine does with groups and with objects in pieces.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use bellwether_windows::syncml::auth::Secret;
use bellwether_windows::syncml::client::{Answer, Client, Habits, Identity, Obey};
use bellwether_windows::syncml::{
    Command, Data, Format, Group, GroupKind, Header, Item, Location, Message, Meta, Request, Verb,
};

/// Remembers what it was told; a node `bad` fails.
#[derive(Default)]
struct Machine {
    told: Vec<String>,
    ends: Vec<bool>,
    begun: u32,
}

impl Obey for Machine {
    fn obey(&mut self, request: &Request) -> Answer {
        let item = request.items.first().unwrap();
        let uri = &item.target.as_ref().unwrap().uri;
        self.told.push(item.data.as_ref().and_then(Data::as_str).map_or(uri.clone(), str::to_owned));
        match (uri.as_str(), request.verb) {
            ("bad", _) => Answer::status(404),
            (_, Verb::Get) => Answer::value(Format::Chr, "value"),
            _ => Answer::status(202),
        }
    }

    fn begin(&mut self) {
        self.begun += 1;
    }

    fn end(&mut self, failed: bool) {
        self.ends.push(failed);
    }
}

fn request(verb: Verb, cmd_id: &str, uri: &str) -> Command {
    let item = Item { target: Some(Location::new(uri)), ..Item::default() };
    Command::Request(Request { cmd_id: cmd_id.into(), ..Request::new(verb, item) })
}

fn group(kind: GroupKind, cmd_id: &str, commands: Vec<Command>) -> Command {
    let cmd_id = cmd_id.to_owned();
    Command::Group(Group { kind, cmd_id, no_resp: false, meta: Meta::default(), commands })
}

fn client() -> Client {
    let identity = Identity {
        device_id: "PC".into(),
        server: "https://mdm.example/".into(),
        name: "pc".into(),
        secret: Secret::Basic("YTpi".into()),
        nonce: Vec::new(),
    };
    Client::new(identity, Habits::default(), 1, |_| [0; 16])
}

fn reply(commands: Vec<Command>, last: bool) -> Message {
    let header = Header {
        ver_dtd: "1.2".into(),
        ver_proto: "DM/1.2".into(),
        session_id: "1".into(),
        msg_id: 7,
        target: Location::new("PC"),
        source: Location::new("https://mdm.example/"),
        resp_uri: None,
        no_resp: false,
        cred: None,
        meta: Meta::default(),
    };
    Message { header, commands, last }
}

/// (`CmdRef`, code) of every status after the header's.
fn statuses(message: &Message) -> Vec<(String, u16)> {
    let status = |command: &Command| match command {
        Command::Status(status) => Some((status.cmd_ref.clone(), status.code)),
        _ => None,
    };
    message.commands.iter().filter_map(status).skip(1).collect()
}

fn run(commands: Vec<Command>) -> (Vec<(String, u16)>, Machine) {
    let mut machine = Machine::default();
    let answer = client().answer(&reply(commands, true), &mut machine).unwrap();
    (statuses(&answer), machine)
}

fn expected(list: &[(&str, u16)]) -> Vec<(String, u16)> {
    list.iter().map(|(cmd_ref, code)| ((*cmd_ref).to_owned(), *code)).collect()
}

#[test]
fn an_atomic_is_kept_or_undone() {
    let good = vec![request(Verb::Add, "2", "a"), request(Verb::Exec, "3", "b")];
    let (codes, machine) = run(vec![group(GroupKind::Atomic, "1", good)]);
    assert_eq!(codes, expected(&[("1", 200), ("2", 202), ("3", 202)]));
    assert_eq!((machine.begun, machine.ends), (1, vec![false]));

    let bad = ["2", "3", "4"].iter().zip(["a", "bad", "c"]).map(|(id, uri)| request(Verb::Add, id, uri));
    let (codes, machine) = run(vec![group(GroupKind::Atomic, "1", bad.collect())]);
    assert_eq!(codes, expected(&[("1", 507), ("2", 216), ("3", 404), ("4", 215)]));
    assert_eq!((machine.told, machine.ends), (vec!["a".to_owned(), "bad".to_owned()], vec![true]));
}

#[test]
fn neither_get_nor_atomic_belongs_into_an_atomic() {
    let (codes, machine) = run(vec![group(GroupKind::Atomic, "1", vec![request(Verb::Get, "2", "a")])]);
    assert_eq!(codes, expected(&[("1", 507), ("2", 500)]));
    assert!(machine.told.is_empty());

    let inner = group(GroupKind::Atomic, "3", vec![request(Verb::Add, "4", "b")]);
    let (codes, machine) = run(vec![group(
        GroupKind::Atomic,
        "1",
        vec![request(Verb::Add, "2", "a"), inner, request(Verb::Add, "5", "c")],
    )]);
    assert_eq!(codes, expected(&[("1", 507), ("2", 216), ("3", 500), ("5", 215)]));
    assert_eq!((machine.begun, machine.ends), (1, vec![true]));
}

#[test]
fn a_sequence_goes_on_after_a_failure_and_may_hold_an_atomic() {
    let atomic = group(GroupKind::Atomic, "4", vec![request(Verb::Add, "5", "bad")]);
    let (codes, machine) = run(vec![group(
        GroupKind::Sequence,
        "1",
        vec![
            request(Verb::Add, "2", "bad"),
            request(Verb::Get, "3", "a"),
            atomic,
            request(Verb::Add, "6", "b"),
        ],
    )]);
    assert_eq!(codes, expected(&[("1", 200), ("2", 404), ("3", 200), ("4", 507), ("5", 404), ("6", 202)]));
    assert_eq!(machine.ends, [true]);

    let sequence = group(GroupKind::Sequence, "2", vec![request(Verb::Add, "3", "bad")]);
    let (codes, _) = run(vec![group(GroupKind::Atomic, "1", vec![sequence, request(Verb::Add, "4", "a")])]);
    assert_eq!(codes, expected(&[("1", 507), ("2", 216), ("3", 404), ("4", 215)]));
}

#[test]
fn an_object_in_pieces_arrives_whole() {
    let (mut client, mut machine) = (client(), Machine::default());
    for (text, more) in [("one ", true), ("two ", true), ("three", false)] {
        let Command::Request(mut piece) = request(Verb::Replace, "1", "a") else { panic!() };
        piece.items[0].data = Some(Data::text(text));
        piece.items[0].more = more;
        let answer = client.answer(&reply(vec![Command::Request(piece)], !more), &mut machine).unwrap();
        assert_eq!(statuses(&answer), expected(&[("1", if more { 213 } else { 202 })]));
    }
    assert_eq!(machine.told, ["one two three"]);
}
