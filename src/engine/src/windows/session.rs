//! One message of an OMA-DM session: answers in, the next commands out, in one transaction.

mod answers;
mod commit;

use self::commit::Commit;
use super::account::{ACCOUNT, Account, Going, Open, Read, session_key};
use super::applied::{Setting, written};
use super::dispatch::{Grant, Pc, Prepared};
use super::identify::Proven;
use super::{Refused, SessionReply, SessionRequest};
use crate::error::Error;
use crate::{Engine, audit, enrolling};
use bellwether_certs::hash::{md5, random_bytes};
use bellwether_model::device::IdentityState;
use bellwether_model::time::{DAY, HOUR, MINUTE};
use bellwether_model::{
    ChannelId, ChannelKind, CommandId, EnrollmentState, EventKind, Guarantee, PartId, SiteId,
};
use bellwether_store::records::{Candidate, Channel, Device, Peek, ProtocolState, Sealed};
use bellwether_store::{Scope, StoreError};
use bellwether_windows::csp;
use bellwether_windows::syncml::auth::Secret;
use bellwether_windows::syncml::session::{
    Bounds, Event, Held, Login, Offer, Outcome, Proof, ServerProof, Session,
};
use bellwether_windows::syncml::{Message, reader, wbxml, writer};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;

/// How often a message is served anew because somebody else was faster, or a command could not be done.
const TURNS: usize = 64;
/// A session side by side with this one keeps what it was given for so long: a PC answers when all is done.
const ALIVE: i64 = 15 * MINUTE;
/// A session that was silent for so long is forgotten.
const FORGOTTEN: i64 = HOUR;
/// Sessions that are kept for one PC.
const SESSIONS: usize = 8;
/// Values that are kept of one part.
const KEPT_VALUES: usize = 500;
/// Parts that are looked at for one reply and channel.
const PARTS: i64 = 60;
/// `./DevInfo` that has not changed is written again after so long.
const SAME_INFO: i64 = DAY;
/// A larger answer is not kept whole; its facts are.
const KEPT_ANSWER: usize = 1024 * 1024;
/// Offers that are no commands of the queue.
const SIGNING: &str = "setup:signing";
const PUSH: &str = "setup:push";
const WATCH: &str = "watch:";
/// Why an enrollment ended when the PC said so.
const LEFT: &str = "left management";

/// In which form a message came, and its answer goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Xml,
    Wbxml,
}

enum Turn {
    Reply(Box<Message>),
    /// Nothing to say: the device aborted.
    Empty,
    /// Something changed meanwhile: from the beginning.
    Again,
}

/// Why a turn's transaction did not happen.
enum Stopped {
    Moved,
    Fault(Error),
}

impl From<StoreError> for Stopped {
    fn from(value: StoreError) -> Self {
        Self::Fault(value.into())
    }
}

impl From<Error> for Stopped {
    fn from(value: Error) -> Self {
        Self::Fault(value)
    }
}

impl Engine {
    pub(super) async fn session_message(
        &self,
        request: SessionRequest,
        site: &mut SiteId,
    ) -> Result<SessionReply, Refused> {
        let mut proven = self.identify_pc(&request, site).await?;
        let kind = request.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
        let form = if kind.contains("wbxml") { Form::Wbxml } else { Form::Xml };
        let (source, mode) = (request.source, request.mode);
        let body = request.body;
        let message = tokio::task::spawn_blocking(move || decode(form, &body))
            .await
            .map_err(|e| Error::Internal(format!("reading SyncML: {e}")))?
            .map_err(|e| Refused::Malformed(e.http_status(), e.to_string()))?;
        for _ in 0..TURNS {
            if let Some(enrollment) = &proven.enrollment {
                if enrollment.state == EnrollmentState::Ended {
                    return Err(Refused::Forbidden(format!("enrollment {} is over", enrollment.id)));
                }
                self.note_seen(proven.site, enrollment.id);
            }
            match self.session_turn(&proven, &message, mode.as_deref(), source.as_deref()).await? {
                Turn::Reply(reply) => return encode(form, &reply),
                Turn::Empty => return Ok(SessionReply::status(200)),
                Turn::Again => {
                    let fingerprint = proven.identity.fingerprint.clone();
                    let known = self
                        .store
                        .read(Scope::System, move |tx| tx.known_identity(&fingerprint).map_err(Error::from))
                        .await?
                        .ok_or_else(|| Refused::Forbidden("the certificate is gone".into()))?;
                    if matches!(known.identity.state, IdentityState::Revoked | IdentityState::Replaced) {
                        return Err(Refused::Forbidden(format!(
                            "identity {} is {}",
                            known.identity.id, known.identity.state
                        )));
                    }
                    proven = Proven {
                        site: known.site_id,
                        identity: known.identity,
                        enrollment: known.enrollment,
                    };
                }
            }
        }
        Err(Refused::Fault(Error::Store(StoreError::Busy("the queue does not hold still".into()))))
    }

    async fn session_turn(
        &self,
        proven: &Proven,
        message: &Message,
        mode: Option<&str>,
        source: Option<&str>,
    ) -> Result<Turn, Refused> {
        let now = self.now();
        let seen = self.seen_of(proven).await?;
        let (site, identity) = (proven.site, proven.identity.id);
        let mut account = self.account_of(site, identity, &seen.states, &seen.before)?;
        if !message.header.source.uri.eq_ignore_ascii_case(&account.value.device_id) {
            // AT-02: the queue is found by the identity; a body that names another device is not believed.
            return Err(Refused::Forbidden(format!(
                "identity {identity} was used in the name of another device"
            )));
        }
        let session_id = &message.header.session_id;
        let (open, others) = self.sessions_of(site, identity, &seen.states, session_id, now.plus(-ALIVE))?;
        let mut open = open.unwrap_or_else(|| Read {
            value: Open {
                session: Session::new(
                    session_id.as_str(),
                    account.value.device_id.as_str(),
                    account.value.address.as_str(),
                ),
                parts: BTreeMap::new(),
                watched: false,
                settled: false,
                mode: mode.map(str::to_owned),
            },
            version: None,
        });
        let secret = Secret::Md5(account.value.client_secret.clone());
        let fresh = random_bytes::<16>().map_err(Error::from)?;
        let proof = Proof {
            transport: true,
            secret: Some(&secret),
            nonces: &mut account.value.nonces,
            fresh: &fresh,
            md5,
        };
        let bounds = Bounds::default();
        let received = open
            .value
            .session
            .receive(message, proof, &bounds, now.0)
            .map_err(|e| Refused::Forbidden(e.to_string()))?;
        let authenticated = !matches!(received.outcome, Outcome::Challenge | Outcome::Refused);
        if authenticated && proven.enrollment.is_none() {
            self.arrive(proven, &account.value, source).await?;
            return Ok(Turn::Again);
        }
        if authenticated && matches!(proven.identity.state, IdentityState::Issued | IdentityState::Staged) {
            self.adopt_pc(proven, account.value.clone()).await?;
            return Ok(Turn::Again);
        }
        let mut commit = Commit::new(proven, &seen, now)?;
        if !authenticated {
            if received.events.iter().any(|event| matches!(event, Event::Restarted { .. })) {
                (open.value.watched, open.value.settled) = (false, false);
            }
            if received.outcome == Outcome::Refused {
                tracing::info!(%identity, "a PC did not prove itself in SyncML");
            }
            let reply = reply(&mut open.value.session, &[], None, &bounds)?;
            return self.committed(commit, account, open, Turn::Reply(Box::new(reply.message))).await;
        }
        let ended = self.take_events(received.events, &mut account.value, &mut open.value, &mut commit)?;
        if received.outcome == Outcome::Aborted {
            return self.committed(commit, account, open, Turn::Empty).await;
        }
        let before: Vec<String> = open.value.session.unanswered();
        let offers = if ended || received.outcome == Outcome::Hold {
            Offers::default()
        } else {
            match self.offers(proven, &seen, &account.value, &mut open.value, &others, &mut commit).await? {
                Some(offers) => offers,
                None => return Ok(Turn::Again),
            }
        };
        let server_secret = Secret::Md5(account.value.server_secret.clone());
        let provider = account.value.provider.clone();
        let server = ServerProof { secret: &server_secret, name: &provider, md5 };
        let reply = reply(&mut open.value.session, &offers.all, Some(&server), &bounds)?;
        let too_large = reply.held.iter().find(|(_, held)| *held == Held::TooLarge);
        if let Some(candidate) = too_large.and_then(|(part, _)| offers.candidate(part)) {
            let reason = "it is larger than what this PC takes, and cannot be sent in pieces";
            self.drop_part(site, candidate, reason).await?;
            return Ok(Turn::Again);
        }
        let after = open.value.session.unanswered();
        offers.hand_over(&before, &after, &mut open.value, &mut commit)?;
        self.committed(commit, account, open, Turn::Reply(Box::new(reply.message))).await
    }

    async fn seen_of(&self, proven: &Proven) -> Result<Seen, Error> {
        let identity = proven.identity.id;
        let pinned = proven.enrollment.as_ref().map(|e| (e.id, e.identity_id, e.device_id));
        self.store
            .read(Scope::Site(proven.site), move |tx| {
                let states = tx.protocol_states(identity)?;
                let Some((enrollment, pinned, device)) = pinned else {
                    return Ok(Seen { states, before: Vec::new(), channels: Vec::new(), device: None });
                };
                let before = if pinned == identity { Vec::new() } else { tx.protocol_states(pinned)? };
                Ok::<_, Error>(Seen {
                    states,
                    before,
                    channels: tx.channels(enrollment)?,
                    device: tx.device(device)?,
                })
            })
            .await
    }

    /// A renewed identity authenticated: it is the live one from now on, and the account goes with it.
    async fn adopt_pc(&self, proven: &Proven, account: Account) -> Result<(), Error> {
        let now = self.now();
        let Some(enrollment) = proven.enrollment.as_ref().map(|e| e.id) else { return Ok(()) };
        let identity = proven.identity.id;
        let sealed = self.seal_state(proven.site, identity, ACCOUNT, &account)?;
        let entry = audit::entry(
            now,
            &Self::device_actor(enrollment),
            EventKind::IdentityRenewed,
            &format!("identity:{identity}"),
            None,
            None,
        )?;
        self.store
            .write(Scope::Site(proven.site), move |tx| {
                let mut row = tx.enrollment(enrollment)?.ok_or(Error::NotFound("enrollment"))?;
                let mut new = tx.identity(identity)?.ok_or(Error::NotFound("identity"))?;
                if matches!(new.state, IdentityState::Issued | IdentityState::Staged)
                    && row.state != EnrollmentState::Ended
                {
                    enrolling::replace_identity(tx, &mut row, &mut new)?;
                    tx.protocol_state_put(identity, ACCOUNT, &sealed, None, now)?;
                    tx.audit_append(&entry)?;
                }
                Ok(())
            })
            .await
    }

    /// What to offer. `None`: the queue changed on the way; from the beginning.
    async fn offers(
        &self,
        proven: &Proven,
        seen: &Seen,
        account: &Account,
        open: &mut Open,
        others: &[Open],
        commit: &mut Commit,
    ) -> Result<Option<Offers>, Refused> {
        let mut offers = Offers::default();
        let Some((enrollment, device)) = seen.enrolled(proven) else { return Ok(Some(offers)) };
        if enrollment.state != EnrollmentState::Active {
            return Ok(Some(offers));
        }
        let user_signed_in = open.session.login() == Login::User;
        let pc = Pc { site: proven.site, enrollment, device, account, user_signed_in };
        if !open.watched {
            if self.look_after_accepted(&pc, seen, open, &mut offers).await? {
                return Ok(None);
            }
            open.watched = true;
        }
        if !open.settled {
            self.settling(account, &mut offers)?;
            open.settled = true;
        }
        let mine = open.session.unanswered();
        // A PC holds one session for itself and one for its user. One of the same kind took the place of the earlier,
        // whose answers were lost: what it had is handed over again.
        let kind = (open.session.login(), open.mode.clone());
        let beside: Vec<&Open> =
            others.iter().filter(|other| (other.session.login(), other.mode.clone()) != kind).collect();
        let mut applied: Option<Vec<(String, Vec<u8>)>> = None;
        let mut spared: BTreeMap<CommandId, Vec<(PartId, Setting)>> = BTreeMap::new();
        for channel in &seen.channels {
            if channel.kind == ChannelKind::User && !user_signed_in {
                continue;
            }
            let answering = commit.answers.iter().filter(|(c, ..)| *c == channel.id).map(|(_, id, _)| *id);
            let peek = Peek { now: commit.now, answering: answering.collect(), skip_not_now: false };
            let (id, rules) = (channel.id, self.rules);
            let candidates = self
                .store
                .read(Scope::Site(proven.site), move |tx| {
                    tx.peek_many(id, &peek, &rules, PARTS).map_err(Error::from)
                })
                .await?;
            for candidate in candidates {
                let name = candidate.part.id.to_string();
                let on_its_way = open.session.in_pieces() == Some(name.as_str());
                if !on_its_way && mine.contains(&name) {
                    // It went out in this session and its answer is awaited: nothing overtakes it here.
                    break;
                }
                if beside.iter().any(|other| other.session.unanswered().contains(&name)) {
                    // The session of the machine or of its user, side by side with this one, has it.
                    break;
                }
                let Some(prepared) = self.prepared(&pc, channel.kind, &candidate).await? else {
                    return Ok(None);
                };
                if let Some(setting) = prepared.unless_set() {
                    if applied.is_none() {
                        applied = Some(self.applied(pc.site, pc.enrollment.id).await?);
                    }
                    if applied.as_ref().is_some_and(|applied| setting.is_among(applied))
                        && !offers.queued.iter().any(|earlier| setting.is_touched_by(&earlier.written))
                    {
                        let parts = spared.entry(candidate.command.id).or_default();
                        parts.push((candidate.part.id, setting.clone()));
                        continue;
                    }
                }
                offers.push(channel.id, candidate, prepared, on_its_way);
            }
        }
        if !spared.is_empty() {
            self.spare(pc.site, pc.enrollment.id, spared).await?;
            return Ok(None);
        }
        Ok(Some(offers))
    }

    /// Parts that were accepted: a wipe after which the PC still calls is handed over again; of the others the outcome
    /// is asked for. Whether the queue was changed.
    async fn look_after_accepted(
        &self,
        pc: &Pc<'_>,
        seen: &Seen,
        open: &mut Open,
        offers: &mut Offers,
    ) -> Result<bool, Error> {
        let (now, pause) = (self.now(), self.rules.silent_pause);
        let mut reopened = false;
        for channel in &seen.channels {
            let id = channel.id;
            let accepted = self
                .store
                .read(Scope::Site(pc.site), move |tx| tx.accepted_parts(id).map_err(Error::from))
                .await?;
            for (command, part) in accepted {
                if command.guarantee == Guarantee::UntilSilent {
                    if part.last_sent_at.is_some_and(|at| now.since(at) >= pause) {
                        let note = "the PC accepted it and still calls; it is handed over again";
                        self.store
                            .write(Scope::Site(pc.site), move |tx| {
                                tx.part_reopen(part.id, note, now).map_err(Error::from)
                            })
                            .await?;
                        reopened = true;
                    }
                    continue;
                }
                let nodes = self.watched(pc.site, &part);
                if nodes.is_empty() {
                    continue;
                }
                let name = format!("{WATCH}{}", part.id);
                let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
                let commands = csp::gets(&names).iter().map(csp::Step::to_command).collect();
                open.parts.insert(
                    name.clone(),
                    Going {
                        channel: id,
                        kind: command.kind,
                        until_silent: false,
                        request: part.request,
                        awaits: false,
                        verbs: Vec::new(),
                        statuses: Vec::new(),
                        results: Vec::new(),
                        setting: None,
                    },
                );
                offers.all.push(Offer { part: name, commands });
            }
        }
        Ok(reopened)
    }

    /// What every PC is told once: sign messages, open a push channel.
    fn settling(&self, account: &Account, offers: &mut Offers) -> Result<(), Error> {
        let wrong = |e: csp::Error| Error::Internal(e.to_string());
        if !account.signs {
            let step = csp::require_message_signing(&account.provider).map_err(wrong)?;
            offers.all.push(Offer { part: SIGNING.to_owned(), commands: vec![step.to_command()] });
        }
        if let Some(package) = &self.settings.windows.push_package
            && account.push_package.as_ref() != Some(package)
        {
            let step = csp::push_package(&account.provider, package).map_err(wrong)?;
            offers.all.push(Offer { part: PUSH.to_owned(), commands: vec![step.to_command()] });
        }
        Ok(())
    }

    /// The one transaction of a message; after its COMMIT the reply may leave.
    async fn committed(
        &self,
        mut commit: Commit,
        account: Read<Account>,
        open: Read<Open>,
        turn: Turn,
    ) -> Result<Turn, Refused> {
        let (site, identity) = (commit.site, commit.identity);
        let key = session_key(open.value.session.session_id());
        commit.account = (self.seal_state(site, identity, ACCOUNT, &account.value)?, account.version);
        commit.session = (key.clone(), self.seal_state(site, identity, &key, &open.value)?, open.version);
        if let (Some(uri), Some((enrollment, channel))) = (&commit.channel_uri, &commit.device_channel) {
            let place = format!("{enrollment}/{}/", ChannelKind::Device);
            // Sealed anew it would look like another channel.
            let known = commit.known_token.as_ref().and_then(|token| {
                self.vault.open(site, "channel", place.as_bytes(), "push-token", token).ok()
            });
            let same = known.is_some_and(|known| known.expose_secret().as_slice() == uri.as_bytes());
            let sealed = self.vault.seal(site, "channel", place.as_bytes(), "push-token", uri.as_bytes())?;
            commit.push_token = (!same).then_some((*channel, sealed));
        }
        let rules = self.rules;
        let done = self.store.write(Scope::Site(site), move |tx| commit.run(tx, &rules)).await;
        match done {
            Ok(()) => Ok(turn),
            Err(Stopped::Moved) => Ok(Turn::Again),
            Err(Stopped::Fault(error)) => Err(error.into()),
        }
    }
}

/// The rows that a message is judged by.
struct Seen {
    states: Vec<ProtocolState>,
    before: Vec<ProtocolState>,
    channels: Vec<Channel>,
    device: Option<Device>,
}

impl Seen {
    fn enrolled<'a>(
        &'a self,
        proven: &'a Proven,
    ) -> Option<(&'a bellwether_store::records::Enrollment, &'a Device)> {
        Some((proven.enrollment.as_ref()?, self.device.as_ref()?))
    }
}

/// What is offered, and what of it comes from the queue.
#[derive(Default)]
struct Offers {
    all: Vec<Offer>,
    queued: Vec<Queued>,
}

struct Queued {
    channel: ChannelId,
    candidate: Candidate,
    going: Going,
    sealed: Option<Sealed>,
    grant: Option<Grant>,
    written: Vec<String>,
    /// The next piece of an object: it is handed over already.
    on_its_way: bool,
}

impl Offers {
    fn push(&mut self, channel: ChannelId, candidate: Candidate, prepared: Prepared, on_its_way: bool) {
        let Prepared { commands, going, sealed, grant, .. } = prepared;
        let written = written(&commands);
        self.all.push(Offer { part: candidate.part.id.to_string(), commands });
        self.queued.push(Queued { channel, candidate, going, sealed, grant, written, on_its_way });
    }

    fn candidate(&self, part: &str) -> Option<&Candidate> {
        self.queued.iter().map(|q| &q.candidate).find(|c| c.part.id.to_string() == part)
    }

    /// What went out is handed over: of each channel the first parts in the queue's order.
    fn hand_over(
        self,
        before: &[String],
        after: &[String],
        open: &mut Open,
        commit: &mut Commit,
    ) -> Result<(), Error> {
        let mut closed: Vec<ChannelId> = Vec::new();
        for queued in self.queued {
            let name = queued.candidate.part.id.to_string();
            let went_out = after.contains(&name) && !before.contains(&name);
            if queued.on_its_way {
                continue;
            }
            if !went_out || closed.contains(&queued.channel) {
                closed.push(queued.channel);
                continue;
            }
            open.parts.insert(name, queued.going);
            commit.hand(queued.channel, queued.candidate, queued.sealed, queued.grant, queued.written)?;
        }
        Ok(())
    }
}

fn reply(
    session: &mut Session,
    offers: &[Offer],
    server: Option<&ServerProof<'_>>,
    bounds: &Bounds,
) -> Result<bellwether_windows::syncml::session::Reply, Error> {
    session.reply(offers, server, bounds).map_err(|e| Error::Internal(format!("a SyncML reply: {e}")))
}

fn decode(form: Form, body: &[u8]) -> Result<Message, bellwether_windows::syncml::Error> {
    match form {
        Form::Xml => reader::read(body, &reader::Limits::SESSION),
        Form::Wbxml => wbxml::read(body, &reader::Limits::SESSION),
    }
}

fn encode(form: Form, message: &Message) -> Result<SessionReply, Refused> {
    let wrong = |e: bellwether_windows::syncml::Error| Error::Internal(format!("a SyncML reply: {e}"));
    Ok(match form {
        Form::Xml => SessionReply {
            status: 200,
            content_type: writer::CONTENT_TYPE,
            body: writer::write(message).map_err(wrong)?,
        },
        Form::Wbxml => SessionReply {
            status: 200,
            content_type: wbxml::CONTENT_TYPE,
            body: wbxml::write(message).map_err(wrong)?,
        },
    })
}
