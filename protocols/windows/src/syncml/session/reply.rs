//! What the server answers.

use super::super::auth::{self, Md5, Scheme, Secret};
use super::super::{
    Alert, Command, Data, Error, Header, Item, Location, Message, Meta, Request, Status, writer,
};
use super::{Bounds, LastReply, Login, Offer, Phase, Sending, Sent, Session};

/// Groups in groups that a caller may send; Windows answers 500 to an Atomic in an Atomic anyway.
const MAX_NESTING: usize = 4;
/// Room for the end tags of a message.
const RESERVE: usize = 128;

/// With what the server proves itself when a device asks.
#[derive(Debug)]
pub struct ServerProof<'a> {
    /// The secret of the `CLIENT` block of the provisioning document.
    pub secret: &'a Secret,
    /// The server's name for the device: PROVIDER-ID.
    pub name: &'a str,
    /// The caller's MD5.
    pub md5: Md5,
}

/// A reply, and what became of the offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What to send.
    pub message: Message,
    /// Parts that it carries whole, or the last piece of.
    pub handed: Vec<String>,
    /// Parts that must wait, and why.
    pub held: Vec<(String, Held)>,
    /// Whether the device has nothing to do any more, and will end the session.
    pub ended: bool,
}

/// Why an offer is not in the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// This message is full, or none may carry commands now: offer it again with the next one.
    Later,
    /// It was sent in this session already.
    Sent,
    /// It is about `./User` nodes, and the enrolled user is not signed in.
    NoUser,
    /// It is larger than what the device takes, and cannot be cut.
    TooLarge,
}

impl Session {
    /// Builds the reply to the message that [`Session::receive`] took. Offers are taken in their order.
    ///
    /// # Errors
    /// [`Error::NotWritable`] and [`Error::BadCommand`] for a command that cannot be sent at all; the session is
    /// unchanged then, so the caller can drop the offer and build the reply again.
    pub fn reply(
        &mut self,
        offers: &[Offer],
        proof: Option<&ServerProof<'_>>,
        bounds: &Bounds,
    ) -> Result<Reply, Error> {
        for offer in offers {
            check(&offer.commands, 0)?;
        }
        let mut next = self.clone();
        let reply = Builder::new(&mut next, bounds, proof)?.build(offers)?;
        *self = next;
        Ok(reply)
    }
}

fn check(commands: &[Command], depth: usize) -> Result<(), Error> {
    if commands.is_empty() || depth > MAX_NESTING {
        return Err(Error::BadCommand("a group is empty or nested too deeply"));
    }
    for command in commands {
        match command {
            Command::Request(request) if request.items.len() == 1 => {}
            Command::Request(_) => return Err(Error::BadCommand("a command needs exactly one item")),
            Command::Group(group) => check(&group.commands, depth + 1)?,
            _ => {
                return Err(Error::BadCommand(
                    "only Get, Add, Replace, Delete, Exec and groups of them are sent",
                ));
            }
        }
    }
    Ok(())
}

struct Builder<'s> {
    session: &'s mut Session,
    bounds: &'s Bounds,
    message: Message,
    /// Bytes that are left.
    left: usize,
    /// The device said how large a message may be.
    strict: bool,
    cmd: u32,
    commands: usize,
    handed: Vec<String>,
    held: Vec<(String, Held)>,
}

impl<'s> Builder<'s> {
    fn new(
        session: &'s mut Session,
        bounds: &'s Bounds,
        proof: Option<&ServerProof<'_>>,
    ) -> Result<Self, Error> {
        session.our_msg = session.our_msg.saturating_add(1);
        let mut source = Location::new(&*session.server);
        let cred = match (session.prove.take(), proof) {
            (Some((scheme, nonce)), Some(proof)) => match (scheme, proof.secret) {
                (Scheme::Md5, Secret::Md5(secret)) => {
                    source.name = Some(proof.name.to_owned());
                    Some(auth::md5_cred(secret, &nonce, proof.md5))
                }
                (Scheme::Basic, Secret::Basic(data)) => {
                    source.name = Some(proof.name.to_owned());
                    Some(auth::basic_cred(&**data))
                }
                _ => None,
            },
            _ => None,
        };
        let header = Header {
            ver_dtd: "1.2".to_owned(),
            ver_proto: "DM/1.2".to_owned(),
            session_id: session.session_id.clone(),
            msg_id: session.our_msg,
            target: Location::new(&*session.device),
            source,
            resp_uri: None,
            no_resp: false,
            cred,
            meta: Meta::default(),
        };
        let message = Message { header, commands: Vec::new(), last: true };
        let announced = session.max_message.and_then(|size| usize::try_from(size).ok());
        let whole = announced.map_or(bounds.max_message, |size| size.min(bounds.max_message));
        let left = whole.saturating_sub(writer::write(&message)?.len() + RESERVE);
        let strict = announced.is_some_and(|size| size <= bounds.max_message);
        Ok(Self {
            session,
            bounds,
            message,
            left,
            strict,
            cmd: 0,
            commands: 0,
            handed: Vec::new(),
            held: Vec::new(),
        })
    }

    fn build(mut self, offers: &[Offer]) -> Result<Reply, Error> {
        self.header_status()?;
        let ready = self.session.ready && self.session.phase == Phase::Open;
        let complete = self.statuses()?;
        if ready && complete {
            self.offers(offers)?;
        } else {
            self.held.extend(offers.iter().map(|offer| (offer.part.clone(), Held::Later)));
        }
        let sending = self.session.sending.is_some();
        self.message.last = complete && !sending;
        let ended = match self.session.phase {
            Phase::Open => ready && complete && self.commands == 0 && self.session.prove.is_none(),
            Phase::Ended => true,
            Phase::Fresh | Phase::Challenged => false,
        };
        Ok(Reply { message: self.message, handed: self.handed, held: self.held, ended })
    }

    fn next_id(&mut self) -> String {
        self.cmd += 1;
        self.cmd.to_string()
    }

    fn header_status(&mut self) -> Result<(), Error> {
        let status = Status {
            cmd_id: self.next_id(),
            msg_ref: Some(self.session.peer_msg),
            cmd_ref: "0".to_owned(),
            cmd: "SyncHdr".to_owned(),
            chal: self
                .session
                .header
                .challenge
                .as_ref()
                .map(|(scheme, nonce)| auth::challenge(*scheme, nonce)),
            code: self.session.header.code,
            ..Status::default()
        };
        self.push(Command::Status(status))
    }

    /// What we owe; whether all of it is in this message. Alerts come last.
    fn statuses(&mut self) -> Result<bool, Error> {
        if self.session.phase != Phase::Open {
            return Ok(true);
        }
        let owed = std::mem::take(&mut self.session.owed);
        let mut count = 0;
        for status in &owed {
            let command = Command::Status(Status {
                cmd_id: self.next_id(),
                msg_ref: Some(status.msg_ref),
                cmd_ref: status.cmd_ref.clone(),
                cmd: status.cmd.clone(),
                code: status.code,
                ..Status::default()
            });
            // At least one goes out, however little room the device leaves.
            if count > 0 && writer::size(&command)? > self.left {
                self.cmd -= 1;
                break;
            }
            self.push(command)?;
            count += 1;
        }
        let alerts = self.session.alerts.clone();
        let (done, rest) = owed.split_at_checked(count).unwrap_or((&owed, &[]));
        self.session.last =
            LastReply { owed: done.to_vec(), alerts: alerts.clone(), ready: self.session.ready };
        self.session.owed = rest.to_vec();
        for code in alerts {
            let cmd_id = self.next_id();
            self.push(Command::Alert(Alert { cmd_id, code, ..Alert::default() }))?;
        }
        Ok(self.session.owed.is_empty())
    }

    fn push(&mut self, command: Command) -> Result<(), Error> {
        self.left = self.left.saturating_sub(writer::size(&command)?);
        self.message.commands.push(command);
        Ok(())
    }

    fn offers(&mut self, offers: &[Offer]) -> Result<(), Error> {
        // An object that is on its way goes on before anything else.
        if let Some(sending) = self.session.sending.clone() {
            match offers.iter().find(|offer| offer.part == sending.part) {
                Some(offer) => self.piece(offer)?,
                None => self.session.sending = None,
            }
        }
        let mut full = self.session.sending.is_some();
        for offer in offers {
            if self.handed.contains(&offer.part) {
                continue;
            }
            let held = if self.session.sent.iter().any(|sent| sent.part == offer.part) {
                Some(Held::Sent)
            } else if self.session.login != Login::User && offer.commands.iter().any(is_user_scope) {
                Some(Held::NoUser)
            } else if full {
                Some(Held::Later)
            } else {
                self.offer(offer)?
            };
            if let Some(held) = held {
                full |= held == Held::Later;
                self.held.push((offer.part.clone(), held));
            }
            full |= self.session.sending.is_some();
        }
        Ok(())
    }

    fn offer(&mut self, offer: &Offer) -> Result<Option<Held>, Error> {
        let mut size = 0_usize;
        for command in &offer.commands {
            size = size.saturating_add(writer::size(command)?).saturating_add(count(command) * 4);
        }
        let number: usize = offer.commands.iter().map(count).sum();
        let too_many = self.commands > 0 && self.commands + number > self.bounds.max_commands;
        if too_many || (size > self.left && self.commands > 0) {
            return Ok(Some(Held::Later));
        }
        let longest = offer.commands.iter().filter_map(data_of).map(Data::len).max().unwrap_or(0);
        if self.session.max_object.is_some_and(|max| longest as u64 > max) {
            return Ok(Some(Held::TooLarge));
        }
        if size > self.left && self.strict {
            if !matches!(offer.commands.as_slice(), [command] if data_of(command).is_some())
                || self.left < 512
            {
                return Ok(Some(Held::TooLarge));
            }
            self.session.sending = Some(Sending { part: offer.part.clone(), offset: 0, pending: 0 });
            self.piece(offer)?;
            return Ok(None);
        }
        for (index, command) in offer.commands.iter().enumerate() {
            let mut command = command.clone();
            self.number(&mut command, &offer.part, &mut vec![small(index)]);
            self.push(command)?;
        }
        self.commands += number;
        self.handed.push(offer.part.clone());
        Ok(None)
    }

    /// Gives the command and what is inside it their `CmdID`s, and remembers them.
    fn number(&mut self, command: &mut Command, part: &str, path: &mut Vec<u16>) {
        let id = self.next_id();
        let uri = match &*command {
            Command::Request(request) => {
                request.items.first().and_then(Item::uri).unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        self.session.sent.push(Sent {
            msg: self.session.our_msg,
            cmd: id.clone(),
            part: part.to_owned(),
            path: path.clone(),
            uri,
            answered: false,
            piece: false,
        });
        command.set_cmd_id(id);
        if let Command::Group(group) = command {
            for (index, child) in group.commands.iter_mut().enumerate() {
                path.push(small(index));
                self.number(child, part, path);
                path.pop();
            }
        }
    }

    /// The next piece of an object (OMA-TS-DM_Protocol 9): `Meta/Size` in the first, `MoreData` in all but the last.
    fn piece(&mut self, offer: &Offer) -> Result<(), Error> {
        let Some(mut sending) = self.session.sending.take() else { return Ok(()) };
        let Some(Command::Request(request)) = offer.commands.first() else {
            return Err(Error::BadCommand("only a single command can be cut"));
        };
        let Some(text) = offer.commands.first().and_then(data_of).and_then(Data::as_str) else {
            return Err(Error::BadCommand("only text can be cut"));
        };
        let rest =
            text.get(sending.offset..).ok_or(Error::BadCommand("an object changed while it was sent"))?;
        let mut length = rest.len();
        let mut command = cut(request, text.len(), sending.offset, rest, length);
        let mut size = writer::size(&command)?.saturating_add(8);
        while size > self.left && length > 1 {
            // Escaping makes text longer than its bytes: shrink in proportion, at least by one eighth.
            length = (length.saturating_mul(self.left) / size.max(1)).min(length - length.div_ceil(8));
            while length > 0 && !rest.is_char_boundary(length) {
                length -= 1;
            }
            length = length.max(rest.chars().next().map_or(1, char::len_utf8));
            command = cut(request, text.len(), sending.offset, rest, length);
            let now = writer::size(&command)?.saturating_add(8);
            if now >= size {
                break;
            }
            size = now;
        }
        let piece = length < rest.len();
        self.number(&mut command, &offer.part, &mut vec![0]);
        if let Some(sent) = self.session.sent.last_mut() {
            sent.piece = piece;
        }
        self.push(command)?;
        self.commands += 1;
        if piece {
            sending.pending = length;
            self.session.sending = Some(sending);
            self.held.push((offer.part.clone(), Held::Sent));
        } else {
            self.handed.push(offer.part.clone());
        }
        Ok(())
    }
}

fn cut(request: &Request, total: usize, offset: usize, rest: &str, length: usize) -> Command {
    let mut request = request.clone();
    for item in &mut request.items {
        item.meta.size = (offset == 0).then_some(total as u64);
        item.data = rest.get(..length).map(Data::text);
        item.more = length < rest.len();
    }
    Command::Request(request)
}

fn data_of(command: &Command) -> Option<&Data> {
    match command {
        Command::Request(request) => request.items.first()?.data.as_ref(),
        _ => None,
    }
}

fn count(command: &Command) -> usize {
    match command {
        Command::Group(group) => 1 + group.commands.iter().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn is_user_scope(command: &Command) -> bool {
    match command {
        Command::Request(request) => request.items.iter().any(|item| {
            let uri = item.target.as_ref().map_or("", |target| target.uri.as_str());
            uri.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("./User/"))
        }),
        Command::Group(group) => group.commands.iter().any(is_user_scope),
        _ => false,
    }
}

fn small(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
