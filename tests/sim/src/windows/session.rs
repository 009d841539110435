//! OMA-DM sessions: package 1, and answers until the server has nothing more (MS-MDM 3.1).

mod obeying;
mod options;

use bellwether_certs::hash::random_bytes;
use bellwether_windows::syncml::auth::{Scheme, Secret};
use bellwether_windows::syncml::client::{self, Client, Habits};
use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{Alert, Command, Message, Status, wbxml, writer};
use reqwest::Method;

use super::WindowsPc;
use super::csp::{After, DM_PROVIDER};
use super::machine::{Machine, Shared, md5};
use super::soap::one_message;
use crate::{Error, Http, Identity, Reply, Result};
use obeying::{Obeying, unanswered};
use options::sign;

pub use obeying::Told;
pub use options::SessionOptions;

/// No server has that many messages for one session.
const MAX_MESSAGES: usize = 2_000;
const WBXML: &str = "application/vnd.syncml.dm+wbxml";
const ACCEPT: &str =
    "application/vnd.syncml.dm+xml, application/vnd.syncml.dm+wbxml, application/octet-stream";

/// A message as it goes over the wire.
pub(crate) struct Outgoing {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What one exchange brought.
#[derive(Debug, Clone)]
pub struct Step {
    /// The server's message; none when its body was empty or the machine is gone.
    pub reply: Option<Message>,
    /// What the machine was told.
    pub told: Vec<Told>,
    /// The server wants a credential first.
    pub challenged: bool,
    /// Nothing more will be sent.
    pub over: bool,
}

/// A session in progress, message by message. Several of one machine can overlap.
#[derive(Debug)]
pub struct Session {
    shared: Shared,
    http: Http,
    client: Client,
    habits: Habits,
    number: u32,
    options: SessionOptions,
    url: String,
    signer: Identity,
    sign: bool,
    wbxml: bool,
    next: Option<Message>,
    /// Messages that were answered.
    answers: usize,
    /// Alerts of the machine that package 1 carries.
    alerts: usize,
    accepted: bool,
    leaving: bool,
    wiped: bool,
    over: bool,
    proof: Proof,
    told: Vec<Told>,
}

impl WindowsPc {
    /// One whole session over a new connection, then whatever it set off. Returns what the machine was told.
    ///
    /// # Errors
    /// When the server answers with another status than 200, with something that is no message, or not.
    pub async fn session(&mut self) -> Result<Vec<Told>> {
        self.session_with(SessionOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub async fn session_with(&mut self, options: SessionOptions) -> Result<Vec<Told>> {
        let mut session = self.open_session_with(options)?;
        let result = session.run().await;
        if !self.is_enrolled() {
            self.managed = None;
        }
        let told = result?;
        self.settle().await?;
        Ok(told)
    }

    /// Begins a session that is driven by hand.
    ///
    /// # Errors
    /// When the machine is not enrolled.
    pub fn open_session(&mut self) -> Result<Session> {
        self.open_session_with(SessionOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::open_session`].
    pub fn open_session_with(&mut self, options: SessionOptions) -> Result<Session> {
        let http = match (&options.presented, options.no_certificate) {
            (_, true) => self.http.clone(),
            (Some(identity), _) => self.http.with_client_certificate(&identity.cert_der, &identity.key)?,
            (None, _) => self.managed_http()?,
        };
        self.open_session_over(http, options)
    }

    /// A session over these connections, or over somebody else's that only ask for [`Session::outgoing`].
    pub(crate) fn open_session_over(&self, http: Http, options: SessionOptions) -> Result<Session> {
        let machine = &mut *self.shared.lock();
        let number = options.number.unwrap_or(machine.sessions.saturating_add(1));
        machine.sessions = number;
        let signer = match &options.signer {
            Some(identity) => identity.clone(),
            None => machine.need_identity()?.clone(),
        };
        let account = machine.account()?;
        let habits =
            Habits { hex_session_id: self.habits.hex_session_id || account.hex_session_id, ..self.habits };
        let client = Client::new(account.identity(&machine.hardware.device_id), habits, number, md5);
        let mode = if options.pushed { "Machine" } else { "Maintenance" };
        let joint = if account.address.contains('?') { "&" } else { "?" };
        let url = [&account.address, joint, "mode=", mode, "&Platform=WoA"].concat();
        let mut session = Session {
            http,
            client,
            habits,
            number,
            url,
            signer,
            sign: self.sign,
            wbxml: self.wbxml || account.wbxml,
            next: None,
            answers: 0,
            alerts: machine.alerts.len(),
            accepted: false,
            leaving: machine.leaving,
            wiped: false,
            over: false,
            proof: Proof::Nothing,
            told: Vec::new(),
            shared: self.shared.clone(),
            options,
        };
        session.open(machine);
        Ok(session)
    }

    /// Posts any body to the session address, with the client certificate. Every answer is one.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn raw_session_post(&mut self, body: Vec<u8>, headers: &[(&str, &str)]) -> Result<Reply> {
        let url = self.shared.lock().account()?.address.clone();
        let http = self.managed_http()?;
        let mut request = http.request(Method::POST, &url);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", writer::CONTENT_TYPE);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        http.send("session", request.body(body)).await
    }

    /// Disconnects, as a person in Settings would: a session says so (alert 1226), then everything is forgotten.
    ///
    /// # Errors
    /// When the session fails; the machine stays enrolled then.
    pub async fn unenroll_by_user(&mut self) -> Result<Vec<Told>> {
        self.shared.lock().leaving = true;
        let told = self.session().await;
        match &told {
            Ok(_) => self.forget_enrollment(),
            Err(_) => self.shared.lock().leaving = false,
        }
        told
    }
}

impl Session {
    /// Whether nothing more will be sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The message that will be sent next.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        self.next.as_ref()
    }

    /// The same to be changed, as a forger would.
    pub fn message_mut(&mut self) -> Option<&mut Message> {
        self.next.as_mut()
    }

    /// What the machine was told so far.
    #[must_use]
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Sends the next message and takes the answer.
    ///
    /// # Errors
    /// As [`WindowsPc::session`].
    pub async fn step(&mut self) -> Result<Step> {
        let reply = self.send().await?;
        self.take(reply)
    }

    /// Sends the next message. The answer is not looked at: give it to [`Self::take`], or lose it and send again.
    ///
    /// # Errors
    /// When there was no answer, or the session is over.
    pub async fn send(&mut self) -> Result<Reply> {
        let outgoing = self.outgoing()?;
        if let Some(pause) = self.options.pause {
            tokio::time::sleep(pause).await;
        }
        let reply = self.post(outgoing).await?;
        if self.wiped {
            self.shared.lock().wipe();
            self.end();
        }
        Ok(reply)
    }

    /// The next message as it goes over the wire.
    pub(crate) fn outgoing(&self) -> Result<Outgoing> {
        let message = self.next.as_ref().ok_or(Error::Missing("message to send"))?;
        let body = if self.wbxml { wbxml::write(message)? } else { writer::write(message)? };
        let content_type = if self.wbxml { WBXML } else { writer::CONTENT_TYPE };
        let mut headers: Vec<(String, String)> = [
            ("content-type", content_type),
            ("accept", ACCEPT),
            ("accept-charset", "UTF-8"),
            ("user-agent", "MSFT OMA DM Client/1.2.0.1"),
            ("client-request-id", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        if self.signs() {
            headers.push(("mdm-signature".to_owned(), sign(&body, &self.signer)?));
        }
        if let Some(token) = &self.options.bearer {
            headers.push(("authorization".to_owned(), ["Bearer ", token].concat()));
        }
        headers.extend(self.options.headers.iter().cloned());
        Ok(Outgoing { headers, body })
    }

    /// Answers the last message with nothing but its status, although the server gave no command: a session with
    /// one message more.
    pub(crate) fn acknowledge(&mut self, reply: &Message) {
        let status = Command::Status(Status {
            msg_ref: Some(reply.header.msg_id),
            cmd_ref: "0".to_owned(),
            cmd: "SyncHdr".to_owned(),
            code: 200,
            ..Status::default()
        });
        self.next = Some(self.client.message(vec![status], true));
        self.over = false;
    }

    /// The address of the server, with what the machine appends to it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Takes an answer: does what it says and prepares the next message.
    ///
    /// # Errors
    /// [`Error::Refused`] for another status than 200, else when the answer is no message of this session.
    pub fn take(&mut self, reply: Reply) -> Result<Step> {
        let reply = reply.ok("session")?;
        self.answers += 1;
        if self.over || reply.body.is_empty() {
            self.end();
            return Ok(Step { reply: None, told: Vec::new(), challenged: false, over: true });
        }
        one_message(&reply).map_err(|problem| Error::Channel(format!("the server's answer: {problem}")))?;
        let message = self.read(&reply)?;
        let code = header_code(&message);
        let challenged = matches!(code, 401 | 407);
        let shared = self.shared.clone();
        let machine = &mut *shared.lock();
        if code < 400 && !self.accepted {
            self.accepted = true;
            machine.alerts.drain(..self.alerts.min(machine.alerts.len()));
        }
        let mut told = Vec::new();
        let demand = match &machine.enrollment {
            Some(account) if code < 400 => self.judge_server(&message, &account.server_secret)?,
            _ => None,
        };
        let mut next = match demand {
            None => self.client.answer(&message, &mut Obeying::new(machine, &mut told)),
            Some(demand) => Some(self.client.message(vec![demand], true)),
        };
        if next.is_none() && code >= 400 {
            self.next = None;
            self.over = true;
            return Err(Error::Channel(format!("the server refused the session with {code}")));
        }
        if let Some(account) = &mut machine.enrollment {
            account.nonce.clone_from(&self.client.identity.nonce);
        }
        match std::mem::take(&mut machine.state.after) {
            After::Nothing => {}
            After::Wipe => self.wiped = true,
            After::WipeUnanswered => {
                unanswered(&mut told);
                machine.wipe();
                next = None;
            }
            After::Unenroll => {
                unanswered(&mut told);
                machine.leaving = true;
                next = None;
            }
        }
        machine.told.extend(told.iter().cloned());
        self.told.extend(told.iter().cloned());
        self.next = next;
        if self.next.is_none() {
            self.over = true;
            if self.leaving && self.accepted {
                machine.forget();
            }
        }
        Ok(Step { reply: Some(message), told, challenged, over: self.over })
    }

    /// Aborts: alert 1223. The session is over.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn abort(&mut self) -> Result<Reply> {
        let alert = Command::Alert(Alert { code: 1223, ..Alert::default() });
        self.next = Some(self.client.message(vec![alert], true));
        let reply = self.send().await;
        self.end();
        reply
    }

    /// Begins anew under the same `SessionID`, with package 1 as message 1.
    pub fn restart(&mut self) {
        let shared = self.shared.clone();
        let machine = &*shared.lock();
        let mut identity = self.client.identity.clone();
        if let Some(account) = &machine.enrollment {
            identity.nonce.clone_from(&account.nonce);
        }
        self.client = Client::new(identity, self.habits, self.number, md5);
        (self.over, self.wiped, self.accepted, self.proof) = (false, false, false, Proof::Nothing);
        self.alerts = machine.alerts.len();
        self.open(machine);
    }

    /// Steps to the end, misbehaving as the options say.
    ///
    /// # Errors
    /// As [`WindowsPc::session`].
    pub async fn run(&mut self) -> Result<Vec<Told>> {
        for number in 1..=MAX_MESSAGES {
            if self.options.abort_at == Some(number) {
                self.abort().await?;
                break;
            }
            if self.options.drop_reply_at == Some(number) {
                self.send().await?;
            }
            // A machine that is gone cannot send its last message again.
            if self.over {
                break;
            }
            let step = self.step().await?;
            if step.over || self.options.stop_at == Some(number) {
                break;
            }
            if self.options.restart_at == Some(number) {
                self.restart();
            }
            if number == MAX_MESSAGES {
                return Err(Error::Channel(format!("more than {MAX_MESSAGES} messages in one session")));
            }
        }
        Ok(self.told.clone())
    }

    fn open(&mut self, machine: &Machine) {
        let login = match &self.options.login {
            Some(login) => login.as_str(),
            None if machine.state.user_signed_in => "user",
            None => "none",
        };
        let mut alerts: Vec<Alert> = machine.alerts.iter().take(self.alerts).cloned().collect();
        alerts.extend(self.options.alerts.iter().cloned());
        if self.leaving {
            alerts.push(client::unenrollment());
        }
        self.next = Some(self.client.open(self.options.pushed, login, alerts));
    }

    fn end(&mut self) {
        self.next = None;
        self.over = true;
        if self.leaving && self.accepted {
            self.shared.lock().forget();
        }
    }

    async fn post(&self, outgoing: Outgoing) -> Result<Reply> {
        let mut request = self.http.request(Method::POST, &self.url);
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        self.http.send("session", request.body(outgoing.body)).await
    }

    /// The server can ask for signatures in the middle of a session.
    fn signs(&self) -> bool {
        let machine = self.shared.lock();
        let asked = || {
            let account = machine.enrollment.as_ref()?;
            let node = [DM_PROVIDER, &account.provider_id, "/RequireMessageSigning"].concat();
            machine.state.tree.value(&node).map(|value| matches!(value, "true" | "1"))
        };
        self.options.sign.unwrap_or_else(|| self.sign || asked() == Some(true))
    }

    fn read(&self, reply: &Reply) -> Result<Message> {
        let content_type = reply.header("content-type").unwrap_or_default();
        let message = match content_type.split(';').next().unwrap_or_default().trim() {
            WBXML => wbxml::read(&reply.body, &Limits::SESSION)?,
            writer::CONTENT_TYPE => reader::read(&reply.body, &Limits::SESSION)?,
            other => return Err(Error::Channel(format!("the answer came as {other:?}"))),
        };
        let ours = self.next.as_ref().map(|message| &message.header);
        let theirs = &message.header;
        let belongs = ours.is_some_and(|ours| {
            ours.session_id == theirs.session_id
                && ours.source.uri.eq_ignore_ascii_case(&theirs.target.uri)
                && self.client.identity.server == theirs.source.uri
        });
        if belongs {
            Ok(message)
        } else {
            Err(Error::Channel("the answer is for another session".to_owned()))
        }
    }

    /// A strict machine takes no command from a server that has not proved itself: it asks once, then it gives up.
    /// `None` when the message may be obeyed.
    fn judge_server(&mut self, message: &Message, secret: &Secret) -> Result<Option<Command>> {
        match self.proof {
            _ if !self.options.demand_server => Ok(None),
            Proof::Given => Ok(None),
            Proof::Asked(nonce) if self.client.is_server(message, secret, &nonce) => {
                self.proof = Proof::Given;
                Ok(None)
            }
            Proof::Asked(_) => Err(Error::Channel("the server does not prove itself".to_owned())),
            Proof::Nothing => {
                let nonce: [u8; 16] = random_bytes()?;
                self.proof = Proof::Asked(nonce);
                Ok(Some(Client::demand(message, Scheme::Md5, &nonce)))
            }
        }
    }
}

/// How far the server has proved itself.
#[derive(Debug, Clone, Copy)]
enum Proof {
    Nothing,
    Asked([u8; 16]),
    Given,
}

/// The code of the status of our header; 200 when there is none.
fn header_code(message: &Message) -> u16 {
    let code = |command: &Command| match command {
        Command::Status(status) if status.cmd_ref == "0" => Some(status.code),
        _ => None,
    };
    message.commands.iter().find_map(code).unwrap_or(200)
}
