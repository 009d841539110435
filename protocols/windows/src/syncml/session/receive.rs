//! What a message from the device means.

use super::super::auth::{self, Scheme, Verdict};
use super::super::{Alert, Command, Data, Error, Item, Message, Request, Results, Status, Verb, tags};
use super::collect::Collected;
use super::{
    Bounds, Event, HeaderStatus, LastReply, Login, Outcome, Owed, Phase, Proof, Received, Sent, Session,
};

/// The code of the header's status, and the challenge unless there were enough of them.
type Failure = (u16, Option<(Scheme, Vec<u8>)>);

/// Server-side credentials that the device may refuse before we stop.
const MAX_SERVER_CHALLENGES: u8 = 2;

impl Session {
    /// Takes one message; `now` is kept as [`Session::last_seen`].
    ///
    /// # Errors
    /// [`Error::OtherSession`] when the message has another `SessionID` or comes from another device. Nothing is
    /// changed then.
    pub fn receive(
        &mut self,
        message: &Message,
        proof: Proof<'_>,
        bounds: &Bounds,
        now: i64,
    ) -> Result<Received, Error> {
        let header = &message.header;
        if header.session_id != self.session_id || !header.source.uri.eq_ignore_ascii_case(&self.device) {
            return Err(Error::OtherSession);
        }
        self.last_seen = now;
        let mut events = Vec::new();
        if self.repeated(message) {
            if !proof.transport {
                return Ok(self.refuse(header.msg_id, 403, events));
            }
            self.roll_back();
            return Ok(Received { outcome: Outcome::Repeated, events });
        }
        if header.msg_id == 1
            && self.peer_msg >= 1
            && self.phase != Phase::Challenged
            && self.answers_us(message) == 0
        {
            self.restart(&mut events);
        }
        if let Err((code, challenge)) = self.authenticate(message, proof, bounds) {
            let Some(challenge) = challenge else { return Ok(self.refuse(header.msg_id, code, events)) };
            self.begin_reply(header.msg_id);
            self.phase = Phase::Challenged;
            self.header = HeaderStatus { code, challenge: Some(challenge) };
            return Ok(Received { outcome: Outcome::Challenge, events });
        }
        self.phase = Phase::Open;
        self.begin_reply(header.msg_id);
        self.max_message = header.meta.max_msg_size.or(self.max_message);
        self.max_object = header.meta.max_obj_size.or(self.max_object);
        let outcome = self.process(message, bounds, &mut events);
        Ok(Received { outcome, events })
    }

    /// The newest message of ours that this one answers.
    fn answers_us(&self, message: &Message) -> u32 {
        let refs = message.commands.iter().filter_map(|command| match command {
            Command::Status(status) => status.msg_ref,
            _ => None,
        });
        refs.max().unwrap_or(0)
    }

    /// The same message again, because our reply was lost: it does not answer our last one.
    fn repeated(&self, message: &Message) -> bool {
        self.phase == Phase::Open
            && message.header.msg_id == self.peer_msg
            && self.our_msg > 0
            && self.answers_us(message) < self.our_msg
    }

    fn roll_back(&mut self) {
        let lost = self.our_msg;
        self.sent.retain(|sent| sent.msg != lost);
        if let Some(sending) = &mut self.sending {
            sending.pending = 0;
        }
        self.our_msg = self.our_msg.saturating_sub(1);
        self.owed.clone_from(&self.last.owed);
        self.alerts.clone_from(&self.last.alerts);
        self.ready = self.last.ready;
    }

    fn restart(&mut self, events: &mut Vec<Event>) {
        events.push(Event::Restarted { unanswered: self.unanswered() });
        *self =
            Self { last_seen: self.last_seen, ..Self::new(&*self.session_id, &*self.device, &*self.server) };
    }

    fn begin_reply(&mut self, msg_id: u32) {
        self.peer_msg = msg_id;
        self.alerts.clear();
        self.ready = false;
        self.last = LastReply::default();
    }

    fn refuse(&mut self, msg_id: u32, code: u16, events: Vec<Event>) -> Received {
        self.begin_reply(msg_id);
        self.phase = Phase::Ended;
        self.header = HeaderStatus { code, challenge: None };
        self.owed.clear();
        Received { outcome: Outcome::Refused, events }
    }

    /// Fails with the code of the header's status, and the challenge unless there were enough of them.
    fn authenticate(&mut self, message: &Message, proof: Proof<'_>, bounds: &Bounds) -> Result<(), Failure> {
        if !proof.transport {
            return Err((403, None));
        }
        let Some(secret) = proof.secret else {
            self.header = HeaderStatus { code: 200, challenge: None };
            return Ok(());
        };
        if self.proved {
            // 212 holds for the session, and from here on the transport alone says who speaks. Native clients send
            // the credential of the beginning all the same; side by side with another session that digest may be
            // older than the two nonces that are remembered.
            self.header = HeaderStatus { code: 212, challenge: None };
            return Ok(());
        }
        let verdict = auth::verify(message.header.cred.as_ref(), secret, proof.nonces, proof.md5);
        let scheme = secret.scheme();
        match verdict {
            Verdict::Accepted => {
                self.proved = true;
                self.challenges = 0;
                let next = (scheme == Scheme::Md5).then(|| {
                    proof.nonces.rotate(proof.fresh);
                    (scheme, proof.fresh.to_vec())
                });
                self.header = HeaderStatus { code: 212, challenge: next };
                Ok(())
            }
            Verdict::Stale | Verdict::Absent | Verdict::Wrong => {
                let code = if verdict == Verdict::Absent { 407 } else { 401 };
                self.proved = false;
                if self.challenges >= bounds.max_challenges {
                    return Err((code, None));
                }
                self.challenges += 1;
                if scheme == Scheme::Md5 {
                    proof.nonces.rotate(proof.fresh);
                }
                Err((code, Some((scheme, proof.fresh.to_vec()))))
            }
        }
    }

    fn process(&mut self, message: &Message, bounds: &Bounds, events: &mut Vec<Event>) -> Outcome {
        let waiting = self.sent.iter().any(|sent| !sent.answered);
        let mut answered = false;
        let mut busy = false;
        for command in &message.commands {
            match command {
                Command::Alert(alert) if alert.code == 1223 => {
                    events.push(Event::Aborted { unanswered: self.unanswered() });
                    self.sent.clear();
                    self.partial = None;
                    self.sending = None;
                    self.phase = Phase::Ended;
                    return Outcome::Aborted;
                }
                Command::Alert(alert) => {
                    busy |= alert.code == 1224;
                    self.take_alert(alert, events);
                    self.owe(command, 200);
                }
                Command::Status(status) => answered |= self.take_status(status, events),
                Command::Results(results) => {
                    answered = true;
                    let code = self.take_results(results, bounds, events);
                    self.owe(command, code);
                }
                Command::Request(request) if request.verb == Verb::Replace => {
                    let code = self.take_replace(request, bounds, events);
                    self.owe(command, code);
                }
                // A device asks nothing of a server: optional feature not supported.
                Command::Request(_) | Command::Group(_) => self.owe(command, 406),
                Command::Unknown { name, .. } if name == "Status" => {}
                Command::Unknown { name, .. } => {
                    let code = if tags::known(name).is_some() { 400 } else { 406 };
                    self.owe(command, code);
                }
            }
        }
        if message.last {
            self.sent.retain(|sent| !sent.answered);
        } else {
            self.alert(1222);
        }
        if !message.last || (waiting && !answered && busy) {
            return Outcome::Hold;
        }
        self.ready = true;
        Outcome::Ready
    }

    fn owe(&mut self, command: &Command, code: u16) {
        if !command.no_resp() {
            self.owed.push(Owed {
                msg_ref: self.peer_msg,
                cmd_ref: command.cmd_id().to_owned(),
                cmd: command.name().to_owned(),
                code,
            });
        }
    }

    fn take_alert(&mut self, alert: &Alert, events: &mut Vec<Event>) {
        match alert.code {
            1200 => events.push(Event::Started { pushed: true }),
            1201 => events.push(Event::Started { pushed: false }),
            1222 => {}
            // The rest of our object did not arrive: from its beginning.
            1225 => {
                if let Some(sending) = &mut self.sending {
                    sending.offset = 0;
                    sending.pending = 0;
                }
            }
            code if alert.items.is_empty() => {
                events.push(Event::Alert { code, correlator: alert.correlator.clone(), item: None });
            }
            code => {
                for item in &alert.items {
                    let event = self.alert_item(code, alert, item);
                    events.push(event);
                }
            }
        }
    }

    fn alert_item(&mut self, code: u16, alert: &Alert, item: &Item) -> Event {
        let data = || item.data.as_ref().and_then(Data::as_str).unwrap_or_default();
        match (code, item.meta.kind.as_deref()) {
            (1224, Some("com.microsoft/MDM/LoginStatus")) => {
                self.login = match data().trim() {
                    "user" => Login::User,
                    "others" => Login::Others,
                    "none" => Login::Nobody,
                    _ => Login::Unknown,
                };
                Event::Login(self.login)
            }
            (1224, Some("com.microsoft/MDM/AADUserToken")) => Event::UserToken(data().trim().to_owned()),
            (1224, Some("com.microsoft.mdm.declaredconfigurationdocuments")) => {
                Event::DeclaredConfiguration(data().to_owned())
            }
            (1226, Some("com.microsoft:mdm.unenrollment.userrequest")) => Event::Unenrolled,
            _ => Event::Alert { code, correlator: alert.correlator.clone(), item: Some(item.clone()) },
        }
    }

    /// Whether it was an answer to a command, and not only to a header.
    fn take_status(&mut self, status: &Status, events: &mut Vec<Event>) -> bool {
        if status.cmd_ref == "0" || status.cmd == "SyncHdr" {
            self.take_header_status(status, events);
            return false;
        }
        let msg = status.msg_ref.unwrap_or(self.our_msg);
        let awaited = |sent: &Sent| !sent.answered && sent.msg == msg && sent.cmd == status.cmd_ref;
        let Some(index) = self.sent.iter().position(awaited) else {
            // Statuses of alerts that we sent have no part.
            if status.cmd != "Alert" {
                events.push(Event::Unmatched { cmd_ref: status.cmd_ref.clone() });
            }
            return false;
        };
        if self.sent.get(index).is_some_and(|sent| sent.piece) {
            let accepted = status.code == 213 || status.code == 200;
            self.sent.remove(index);
            if accepted {
                if let Some(sending) = &mut self.sending {
                    sending.offset = sending.offset.saturating_add(std::mem::take(&mut sending.pending));
                }
            } else if let Some(sending) = self.sending.take() {
                events.push(Event::Status {
                    part: sending.part,
                    path: vec![0],
                    uri: status.target_refs.first().cloned().unwrap_or_default(),
                    code: status.code,
                    original_error: status.original_error.clone(),
                    remaining: 0,
                });
            }
            return true;
        }
        let Some(sent) = self.sent.get_mut(index) else { return true };
        sent.answered = true;
        let sent = sent.clone();
        let remaining = self.sent.iter().filter(|other| other.part == sent.part && !other.answered).count();
        events.push(Event::Status {
            part: sent.part,
            path: sent.path,
            uri: sent.uri,
            code: status.code,
            original_error: status.original_error.clone(),
            remaining,
        });
        true
    }

    fn take_header_status(&mut self, status: &Status, events: &mut Vec<Event>) {
        let asked = status.chal.as_ref().and_then(|chal| {
            let scheme = match chal.meta.kind.as_deref() {
                Some(auth::AUTH_BASIC) => Scheme::Basic,
                _ => Scheme::Md5,
            };
            Some((scheme, auth::next_nonce(chal).or_else(|| (scheme == Scheme::Basic).then(Vec::new))?))
        });
        match status.code {
            401 | 407 => {
                let parts = self.unanswered();
                self.sent.clear();
                self.sending = None;
                if !parts.is_empty() {
                    events.push(Event::Unprocessed { parts });
                }
                self.server_challenges = self.server_challenges.saturating_add(1);
                if self.server_challenges > MAX_SERVER_CHALLENGES {
                    events.push(Event::ServerRejected);
                } else {
                    self.prove = asked;
                }
            }
            // 200 asks for a credential in every message; 212 keeps the nonce for the next session.
            200 => self.prove = asked.filter(|_| self.server_challenges > 0),
            212 => {
                if let Some((Scheme::Md5, nonce)) = asked {
                    events.push(Event::ServerNonce(nonce));
                }
            }
            _ => {}
        }
    }

    fn take_results(&mut self, results: &Results, bounds: &Bounds, events: &mut Vec<Event>) -> u16 {
        let find = |msg: Option<u32>| {
            self.sent
                .iter()
                .rfind(|sent| sent.cmd == results.cmd_ref && msg.is_none_or(|msg| sent.msg == msg))
                .cloned()
        };
        let Some(sent) = find(results.msg_ref) else {
            events.push(Event::Unmatched { cmd_ref: results.cmd_ref.clone() });
            return 200;
        };
        let mut answer = 200;
        for item in &results.items {
            let mut item = item.clone();
            item.meta.format = item.meta.format.or_else(|| results.meta.format.clone());
            item.meta.kind = item.meta.kind.or_else(|| results.meta.kind.clone());
            item.meta.size = item.meta.size.or(results.meta.size);
            let key = [sent.part.as_str(), item.uri().unwrap_or_default()].join("\n");
            match self.collect(&key, item, bounds) {
                Collected::Whole(item) => {
                    events.push(Event::Results {
                        part: sent.part.clone(),
                        path: sent.path.clone(),
                        item: *item,
                    });
                }
                Collected::Piece => {
                    answer = 213;
                    self.alert(1222);
                }
                Collected::Refused(code, again) => {
                    answer = code;
                    if again {
                        self.alert(1225);
                    }
                }
            }
        }
        answer
    }

    fn take_replace(&mut self, request: &Request, bounds: &Bounds, events: &mut Vec<Event>) -> u16 {
        let mut nodes = Vec::new();
        let mut answer = 200;
        for item in &request.items {
            let uri = item.uri().unwrap_or_default().to_owned();
            match self.collect(&uri, item.clone(), bounds) {
                Collected::Whole(item) => {
                    let text = item.data.as_ref().and_then(Data::as_str).unwrap_or_default();
                    nodes.push((uri, text.to_owned()));
                }
                Collected::Piece => {
                    answer = 213;
                    self.alert(1222);
                }
                Collected::Refused(code, again) => {
                    answer = code;
                    if again {
                        self.alert(1225);
                    }
                }
            }
        }
        if !nodes.is_empty() {
            events.push(Event::DeviceInfo(nodes));
        }
        answer
    }
}
