//! The server's side of an OMA-DM session, judged after every message.

use std::collections::BTreeSet;

use bellwether_windows::csp;
use bellwether_windows::syncml::auth::{self, Nonces, Secret};
use bellwether_windows::syncml::session::{Bounds, Event, Offer, Outcome, Proof, Received, Reply, Session};
use bellwether_windows::syncml::{Command, Message, writer};

/// The device of the session.
pub const DEVICE: &str = "B5B954E81FBCB94EB79BD08BE625F4EE";
const BOUNDS: Bounds =
    Bounds { max_challenges: 2, max_object: 4096, max_chunks: 8, max_commands: 6, max_message: 4096 };
/// What the server keeps of a session, at most: one object in pieces, and what it sent and owes in one exchange.
const MAX_STATE: usize = 512 * 1024;

/// One session, and what its device may still answer.
pub struct Drive {
    session: Session,
    nonces: Nonces,
    secret: Secret,
    /// What was handed to the device and has not been answered: part and path.
    open: BTreeSet<(String, Vec<u16>)>,
}

impl Default for Drive {
    fn default() -> Self {
        Self::new()
    }
}

impl Drive {
    /// A session that begins.
    #[must_use]
    pub fn new() -> Self {
        Self {
            session: Session::new("93", DEVICE, "https://mdm.example/ManagementServer/MDM.svc"),
            nonces: Nonces::new(*b"first"),
            secret: Secret::Basic(auth::basic("pc", "pw")),
            open: BTreeSet::new(),
        }
    }

    /// Takes a message, judges what the session made of it, and answers; none after an abort.
    pub fn exchange(&mut self, message: &Message, proved: bool, number: usize) -> Option<Reply> {
        let fresh = [u8::try_from(number).expect("few messages"); 16];
        let proof = Proof {
            transport: proved,
            secret: Some(&self.secret).filter(|_| message.header.cred.is_some()),
            nonces: &mut self.nonces,
            fresh: &fresh,
            md5: bellwether_certs::hash::md5,
        };
        let received = self.session.receive(message, proof, &BOUNDS, 5).expect("our session");
        self.events(&received);
        let stored = serde_json::to_vec(&self.session).expect("state");
        assert!(stored.len() <= MAX_STATE, "the state grew to {}", stored.len());
        self.session = serde_json::from_slice(&stored).expect("state of ours");
        if received.outcome == Outcome::Aborted {
            return None;
        }
        let reply = self.session.reply(&offers(number), None, &BOUNDS).expect("a reply");
        self.judge(message, proved, &received, &reply);
        Some(reply)
    }

    fn events(&mut self, received: &Received) {
        for event in &received.events {
            match event {
                Event::Status { part, path, .. } => {
                    let known = self.open.remove(&(part.clone(), path.clone()));
                    assert!(known, "{part} {path:?} is answered and was not sent, or was answered before");
                }
                Event::Results { part, .. } => {
                    assert!(part.starts_with("part"), "{part} was never sent");
                }
                _ => {}
            }
        }
    }

    fn judge(&mut self, message: &Message, proved: bool, received: &Received, reply: &Reply) {
        let written = writer::write(&reply.message).expect("a reply can be written");
        let statuses: Vec<(Option<u32>, &str)> = reply.message.commands.iter().filter_map(status).collect();
        let of =
            |id: &str| statuses.iter().filter(|(m, c)| *m == Some(message.header.msg_id) && *c == id).count();
        // A machine may call a command of its own 0, as the header is called.
        let header = |command: &&Command| matches!(command, Command::Status(s) if s.cmd == "SyncHdr" && s.cmd_ref == "0");
        assert_eq!(reply.message.commands.iter().filter(header).count(), 1, "the header is answered once");
        if matches!(received.outcome, Outcome::Ready | Outcome::Hold) {
            let mut seen = BTreeSet::new();
            let unique = message.commands.iter().all(|command| seen.insert(command.cmd_id()));
            for command in message.commands.iter().filter(|command| unique && command.cmd_id() != "0") {
                let wanted = !matches!(command, Command::Status(_)) && !command.no_resp();
                let answered = of(command.cmd_id());
                assert!(answered <= 1, "{} answered {answered} times", command.cmd_id());
                if wanted && command.name() != "Status" && !command.cmd_id().is_empty() {
                    assert_eq!(answered, 1, "{} {} was not answered", command.name(), command.cmd_id());
                }
            }
        }
        let requests =
            reply.message.commands.iter().filter(|c| matches!(c, Command::Request(_) | Command::Group(_)));
        let sent = requests.count();
        assert!(proved || sent == 0, "a command for somebody who proved nothing");
        assert!(received.outcome != Outcome::Challenge && received.outcome != Outcome::Refused || sent == 0);
        assert!(sent <= 1 || written.len() <= BOUNDS.max_message + 256, "{} bytes", written.len());
        for part in &reply.handed {
            for index in 0..4 {
                self.open.insert((part.clone(), vec![index]));
                self.open.insert((part.clone(), vec![0, index]));
            }
        }
    }
}

fn status(command: &Command) -> Option<(Option<u32>, &str)> {
    match command {
        Command::Status(status) => Some((status.msg_ref, status.cmd_ref.as_str())),
        _ => None,
    }
}

/// A few parts, always new ones and always the one that may be on its way in pieces.
fn offers(number: usize) -> Vec<Offer> {
    let offer = |name: String, steps: Vec<csp::Step>| Offer {
        part: name,
        commands: steps.iter().map(csp::Step::to_command).collect(),
    };
    let long = "x".repeat(6000);
    vec![
        offer(
            "part-long".to_owned(),
            vec![csp::policy(csp::Scope::Device, "A", "B", &csp::PolicyValue::Text(long)).expect("a policy")],
        ),
        offer(format!("part-{number}-reboot"), vec![csp::reboot()]),
        offer(format!("part-{number}-roots"), vec![csp::trusted_roots(), csp::renew_certificate()]),
        offer(
            format!("part-{number}-user"),
            vec![csp::vpn(csp::Scope::User, "v", "<a/>").expect("a profile")],
        ),
    ]
}
