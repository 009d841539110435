//! The machine's side of a session, for simulators and tests: what a Windows PC sends, with its odd habits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::auth::{self, Md5, Scheme, Secret};
use super::{
    Alert, Command, Data, Format, Group, GroupKind, Header, Item, Location, Message, Meta, Request, Results,
    Status, Verb,
};

/// How a machine differs from the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// The first `CmdID` of package 1; native clients begin at 2.
    pub first_cmd_id: u32,
    /// `SessionID` in hexadecimal, as with SyncApplicationVersion 2.0.
    pub hex_session_id: bool,
    /// Every message has `MsgID` 1.
    pub constant_msg_id: bool,
    /// The credential goes into every message, not only where it was asked for.
    pub always_cred: bool,
    /// `Results` have no `MsgRef`.
    pub no_msg_ref: bool,
    /// Every command of package 1 has the same `CmdID`, as in a documented sample.
    pub same_cmd_id: bool,
    /// Challenges after which the machine gives up.
    pub patience: u8,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            first_cmd_id: 2,
            hex_session_id: false,
            constant_msg_id: false,
            always_cred: true,
            no_msg_ref: false,
            same_cmd_id: false,
            patience: 2,
        }
    }
}

/// What a machine has from its enrollment.
#[derive(Debug, Clone)]
pub struct Identity {
    /// 32 hexadecimal digits: `Source` of every message and `./DevInfo/DevId`.
    pub device_id: String,
    /// `ADDR`.
    pub server: String,
    /// `AAUTHNAME` of the `APPSRV` block.
    pub name: String,
    /// What proves the machine.
    pub secret: Secret,
    /// The nonce of its next session.
    pub nonce: Vec<u8>,
}

/// What a machine answers to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// `msft:originalerror`.
    pub original_error: Option<String>,
    /// For `Get`: format and data.
    pub result: Option<(Format, Data)>,
}

impl Answer {
    /// A status without anything else.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self { code, original_error: None, result: None }
    }

    /// 200 and a value.
    #[must_use]
    pub fn value(format: Format, data: impl Into<String>) -> Self {
        Self { code: 200, original_error: None, result: Some((format, Data::text(data))) }
    }
}

/// Who does what the server says. A closure that answers one command will do when nothing has to be undone.
pub trait Obey {
    /// Does one command.
    fn obey(&mut self, request: &Request) -> Answer;
    /// An `Atomic` begins.
    fn begin(&mut self) {}
    /// The `Atomic` is over; when it failed, everything since it began has to be undone.
    fn end(&mut self, _failed: bool) {}
}

impl<F: FnMut(&Request) -> Answer> Obey for F {
    fn obey(&mut self, request: &Request) -> Answer {
        self(request)
    }
}

/// A session as the machine sees it.
#[derive(Debug, Clone)]
pub struct Client {
    habits: Habits,
    /// The machine's identity; its nonce changes as the server says.
    pub identity: Identity,
    session_id: String,
    msg_id: u32,
    package: Vec<Command>,
    with_cred: bool,
    challenges: u8,
    md5: Md5,
    /// The node of an object that comes in pieces, and what has come.
    pieces: Option<(String, String)>,
}

/// What becomes of one command of a group.
struct Fate<'c> {
    cmd_id: &'c str,
    name: &'c str,
    request: Option<&'c Request>,
    answer: Answer,
}

impl Client {
    /// A session with a number.
    #[must_use]
    pub fn new(identity: Identity, habits: Habits, number: u32, md5: Md5) -> Self {
        let session_id = if habits.hex_session_id { hex(number) } else { number.to_string() };
        let with_cred = habits.always_cred;
        Self {
            habits,
            identity,
            session_id,
            msg_id: 0,
            package: Vec::new(),
            with_cred,
            challenges: 0,
            md5,
            pieces: None,
        }
    }

    /// Package 1: alert 1201 (1200 when `pushed`), who is signed in, further alerts, and `./DevInfo`.
    pub fn open(&mut self, pushed: bool, login: &str, alerts: Vec<Alert>) -> Message {
        let mut commands = vec![
            Command::Alert(Alert { code: if pushed { 1200 } else { 1201 }, ..Alert::default() }),
            Command::Alert(alert(1224, "com.microsoft/MDM/LoginStatus", login)),
        ];
        commands.extend(alerts.into_iter().map(Command::Alert));
        let node = |name: &str, value: &str| Item {
            source: Some(Location::new(["./DevInfo/", name].concat())),
            data: Some(Data::text(value)),
            ..Item::default()
        };
        let items = vec![
            node("DevId", &self.identity.device_id),
            node("Man", "Example, Inc."),
            node("Mod", "PC 7,1"),
            node("DmV", "1.3"),
            node("Lang", "en-US"),
        ];
        let verb = Verb::Replace;
        let replace = Request { verb, cmd_id: String::new(), no_resp: false, meta: Meta::default(), items };
        commands.push(Command::Request(replace));
        self.package = commands.clone();
        self.message(commands, true)
    }

    /// The machine's next message, or `None` when the session is over. `obey` is asked for every command in order.
    pub fn answer(&mut self, reply: &Message, obey: &mut dyn Obey) -> Option<Message> {
        let header = reply.commands.iter().find_map(|command| match command {
            Command::Status(status) if status.cmd_ref == "0" => Some(status),
            _ => None,
        });
        let code = header.map_or(200, |status| status.code);
        if let Some(nonce) = header.and_then(|status| status.chal.as_ref()).and_then(auth::next_nonce) {
            self.identity.nonce = nonce;
        }
        let mut commands = vec![self.status(reply, "0", "SyncHdr", Answer::status(200), &[])];
        if matches!(code, 401 | 407) {
            self.challenges = self.challenges.saturating_add(1);
            self.with_cred = true;
            if self.challenges > self.habits.patience || header.is_none_or(|status| status.chal.is_none()) {
                return None;
            }
            commands.extend(self.package.clone());
            return Some(self.message(commands, true));
        }
        if code >= 400 {
            return None;
        }
        let fixed = commands.len();
        let mut go_on = !reply.last;
        for command in &reply.commands {
            match command {
                Command::Status(_) | Command::Results(_) => {}
                Command::Alert(alert) => {
                    go_on |= alert.code == 1222;
                    commands.push(self.status(reply, &alert.cmd_id, "Alert", Answer::status(200), &[]));
                }
                Command::Request(request) => self.obey(reply, request, obey, &mut commands),
                Command::Group(group) => self.group(reply, group, obey, &mut commands),
                Command::Unknown { name, cmd_id } => {
                    commands.push(self.status(reply, cmd_id, name, Answer::status(406), &[]));
                }
            }
        }
        if commands.len() == fixed && !go_on {
            return None;
        }
        if !reply.last {
            commands.push(Command::Alert(Alert { code: 1222, ..Alert::default() }));
        }
        Some(self.message(commands, true))
    }

    /// A piece of an object is kept until the last one comes.
    fn obey(&mut self, reply: &Message, request: &Request, obey: &mut dyn Obey, out: &mut Vec<Command>) {
        let (uri, text) = match request.items.as_slice() {
            [Item { target: Some(target), data, .. }] => {
                (target.uri.as_str(), data.as_ref().and_then(Data::as_str).unwrap_or_default())
            }
            _ => ("", ""),
        };
        let before = match self.pieces.take() {
            Some((begun, text)) if begun == uri => text,
            _ => String::new(),
        };
        if request.items.iter().any(|item| item.more) {
            self.pieces = Some((uri.to_owned(), before + text));
            return self.respond(reply, request, Answer::status(213), out);
        }
        let answer = if before.is_empty() {
            obey.obey(request)
        } else {
            let mut whole = request.clone();
            let data = Data::text(before + text);
            whole.items.iter_mut().for_each(|item| item.data = Some(data.clone()));
            obey.obey(&whole)
        };
        self.respond(reply, request, answer, out);
    }

    fn respond(&self, reply: &Message, request: &Request, answer: Answer, out: &mut Vec<Command>) {
        let targets: Vec<String> = request
            .items
            .iter()
            .filter_map(|item| item.target.as_ref())
            .map(|target| target.uri.clone())
            .collect();
        let result = answer.result.clone();
        out.push(self.status(reply, &request.cmd_id, request.verb.as_str(), answer, &targets));
        if let Some((format, data)) = result {
            let item = Item {
                source: targets.first().map(Location::new),
                meta: Meta::format(format),
                data: Some(data),
                ..Item::default()
            };
            out.push(Command::Results(Results {
                msg_ref: (!self.habits.no_msg_ref).then_some(reply.header.msg_id),
                cmd_ref: request.cmd_id.clone(),
                cmd: Some("Get".to_owned()),
                items: vec![item],
                ..Results::default()
            }));
        }
    }

    fn group(&self, reply: &Message, group: &Group, obey: &mut dyn Obey, out: &mut Vec<Command>) {
        let mut fates = Vec::new();
        run(group, None, obey, &mut fates);
        for fate in fates {
            match fate.request {
                Some(request) => self.respond(reply, request, fate.answer, out),
                None => out.push(self.status(reply, fate.cmd_id, fate.name, fate.answer, &[])),
            }
        }
    }

    fn status(
        &self,
        reply: &Message,
        cmd_ref: &str,
        cmd: &str,
        answer: Answer,
        targets: &[String],
    ) -> Command {
        Command::Status(Status {
            msg_ref: Some(reply.header.msg_id),
            cmd_ref: cmd_ref.to_owned(),
            cmd: cmd.to_owned(),
            target_refs: targets.to_vec(),
            code: answer.code,
            original_error: answer.original_error,
            ..Status::default()
        })
    }

    /// A message with these commands, numbered; for everything that [`Client::open`] and [`Client::answer`] do not say.
    pub fn message(&mut self, mut commands: Vec<Command>, last: bool) -> Message {
        self.msg_id = if self.habits.constant_msg_id { 1 } else { self.msg_id.saturating_add(1) };
        let mut id = if self.msg_id == 1 { self.habits.first_cmd_id } else { 1 };
        for command in &mut commands {
            command.set_cmd_id(id.to_string());
            id = if self.habits.same_cmd_id { id } else { id.saturating_add(1) };
        }
        let cred = self.with_cred.then(|| match &self.identity.secret {
            Secret::Md5(secret) => auth::md5_cred(secret, &self.identity.nonce, self.md5),
            Secret::Basic(data) => auth::basic_cred(&**data),
        });
        let name = cred.is_some().then(|| self.identity.name.clone());
        let header = Header {
            ver_dtd: "1.2".to_owned(),
            ver_proto: "DM/1.2".to_owned(),
            session_id: self.session_id.clone(),
            msg_id: self.msg_id,
            target: Location::new(&*self.identity.server),
            source: Location { uri: self.identity.device_id.clone(), name },
            resp_uri: None,
            no_resp: false,
            cred,
            meta: Meta::default(),
        };
        Message { header, commands, last }
    }

    /// Asks the server for its credential: what a strict client puts into its status of the server's header.
    #[must_use]
    pub fn demand(reply: &Message, scheme: Scheme, nonce: &[u8]) -> Command {
        Command::Status(Status {
            msg_ref: Some(reply.header.msg_id),
            cmd_ref: "0".to_owned(),
            cmd: "SyncHdr".to_owned(),
            chal: Some(auth::challenge(scheme, nonce)),
            code: 407,
            ..Status::default()
        })
    }

    /// Whether a reply proves the server with this secret and nonce.
    #[must_use]
    pub fn is_server(&self, reply: &Message, secret: &Secret, nonce: &[u8]) -> bool {
        let nonces = auth::Nonces::new(nonce);
        auth::verify(reply.header.cred.as_ref(), secret, &nonces, self.md5) == auth::Verdict::Accepted
    }

    /// The nonce of the next session in base64, as `AAUTHDATA` has it.
    #[must_use]
    pub fn nonce(&self) -> String {
        STANDARD.encode(&self.identity.nonce)
    }
}

/// Runs a group. An `Atomic` of which one command fails is undone: 507, and 216 for what had succeeded, 215 for the
/// rest. Neither a `Get` nor another `Atomic` belongs inside: 500. `failed` is that of the `Atomic` around this group.
fn run<'c>(group: &'c Group, failed: Option<&mut bool>, obey: &mut dyn Obey, fates: &mut Vec<Fate<'c>>) {
    let nested = failed.is_some();
    let atomic = group.kind == GroupKind::Atomic;
    let first = fates.len();
    let fate = |cmd_id, name, code| Fate { cmd_id, name, request: None, answer: Answer::status(code) };
    fates.push(fate(&group.cmd_id, group.kind.as_str(), 200));
    let mut own = false;
    let failed = failed.unwrap_or(&mut own);
    let undoes = atomic || nested;
    if atomic && !nested {
        obey.begin();
    }
    for command in &group.commands {
        let skipped = *failed && undoes;
        match command {
            Command::Request(request) => {
                let answer = match request.verb {
                    _ if skipped => Answer::status(215),
                    Verb::Get if undoes => Answer::status(500),
                    _ => obey.obey(request),
                };
                *failed |= answer.code >= 300;
                let name = request.verb.as_str();
                fates.push(Fate { cmd_id: &request.cmd_id, name, request: Some(request), answer });
            }
            Command::Group(inner) if undoes && (skipped || inner.kind == GroupKind::Atomic) => {
                let code = if skipped { 215 } else { 500 };
                fates.push(fate(&inner.cmd_id, inner.kind.as_str(), code));
                *failed = true;
            }
            Command::Group(inner) => run(inner, undoes.then_some(&mut *failed), obey, fates),
            Command::Unknown { name, cmd_id } => {
                fates.push(fate(cmd_id, name, if skipped { 215 } else { 406 }));
                *failed = true;
            }
            Command::Alert(_) | Command::Status(_) | Command::Results(_) => {}
        }
    }
    if !atomic || nested {
        return;
    }
    obey.end(*failed);
    if *failed {
        for (at, fate) in fates.iter_mut().skip(first).enumerate() {
            match fate.answer.code {
                _ if at == 0 => fate.answer = Answer::status(507),
                200..=214 => fate.answer = Answer::status(216),
                _ => {}
            }
        }
    }
}

/// An alert with one item that has a type and text.
#[must_use]
pub fn alert(code: u16, kind: &str, data: &str) -> Alert {
    let meta = Meta { kind: Some(kind.to_owned()), ..Meta::default() };
    let item = Item { meta, data: Some(Data::text(data)), ..Item::default() };
    Alert { code, items: vec![item], ..Alert::default() }
}

/// Alert 1226 of a user who disconnects the machine (MS-MDM; "disconnecting from MDM").
#[must_use]
pub fn unenrollment() -> Alert {
    let mut alert = alert(1226, "com.microsoft:mdm.unenrollment.userrequest", "1");
    for item in &mut alert.items {
        item.meta.format = Some(Format::Int);
    }
    alert
}

fn hex(number: u32) -> String {
    let mut digits = Vec::new();
    let mut rest = number;
    while rest > 0 || digits.is_empty() {
        digits.extend(char::from_digit(rest % 16, 16).map(|digit| digit.to_ascii_uppercase()));
        rest /= 16;
    }
    digits.into_iter().rev().collect()
}
