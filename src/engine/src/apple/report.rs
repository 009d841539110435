//! Command reports: an answer in, the next command out, in one transaction.

use super::answers::{Incoming, WIPED, outcome, take_answer};
use super::checkin::{UNLOCK_TOKEN, channel_key};
use super::identify::{Authenticated, Proven};
use super::render::{Material, render};
use super::{AppleReply, Refused, plan};
use crate::commands::RECOVERY_LOCK;
use crate::error::Error;
use crate::vault::new_uuid;
use crate::{Engine, audit};
use bellwether_apple::Opaque;
use bellwether_apple::checkin::{Report, Status};
use bellwether_model::time::{DAY, HOUR, MINUTE};
use bellwether_model::{ChannelId, DeliveryId, EnrollmentId, EventKind, Intent, PartId, Timestamp};
use bellwether_store::records::{Candidate, Challenge, Channel, Event, HandOver, Peek, QueueRules, Sealed};
use bellwether_store::{Scope, Tx};
use secrecy::ExposeSecret as _;

/// How often a poll looks for another command when the queue moved under it.
const MAX_MOVES: usize = 6;
/// The same, with commands that turned out to be impossible and were dropped on the way.
const MAX_LOOKS: usize = 64;
/// When to wake a device whose session ended because its queue would not hold still.
const MOVED_WAKE: i64 = MINUTE;
/// When to wake a device again that said NotNow but not as its last word.
const NOT_NOW_WAKE: i64 = 30 * MINUTE;
/// When to wake a device for a command that was parked for longer than that.
const PARKED_WAKE: i64 = 2 * HOUR;

impl Engine {
    pub(super) async fn report(&self, proven: Proven, report: Report) -> Result<AppleReply, Refused> {
        let caller = self.authenticated(proven, &report.ids).await?;
        if caller.was_wiped() && report.status != Status::Idle {
            // Its last word again, because our answer to it was lost: it erases itself now.
            return Ok(AppleReply::empty());
        }
        let caller = self.revive_unwiped(caller).await?;
        let caller = self.revive_kept(caller).await?;
        let caller = self.commandable(caller).await?;
        let (kind, user_key) = channel_key(&report.ids);
        let (site, enrollment) = (caller.site, caller.enrollment.id);
        let now = self.now();
        let answered = outcome(report.status);
        let part = report.command_uuid.as_deref().and_then(|u| u.trim().parse::<PartId>().ok());
        let answering = answered.zip(part).map(|(outcome, part)| (part, outcome));
        let skip_not_now = report.status == Status::NotNow;
        let rules = self.rules;
        let peek =
            Peek { now, answering: part.filter(|_| answered.is_some()).into_iter().collect(), skip_not_now };
        let looked = peek.clone();
        let seen = self
            .store
            .read(Scope::Site(site), move |tx| {
                let Some(channel) = tx.channel_find(enrollment, kind, &user_key)? else {
                    return Ok::<_, Error>(None);
                };
                let candidate = if channel.enabled { tx.peek(channel.id, &looked, &rules)? } else { None };
                let part = match answering {
                    Some((id, _)) => tx.part(id)?,
                    None => None,
                };
                Ok(Some((channel, candidate, part)))
            })
            .await?;
        let Some((channel, mut candidate, answered_part)) = seen else {
            // A user who never sent a TokenUpdate has no queue; the poll is answered and forgotten.
            return Ok(AppleReply::empty());
        };
        let mut incoming = match answering {
            Some((id, outcome)) => {
                let request = answered_part.as_ref().map(|p| p.request.as_str());
                Some(self.incoming(&caller, &report, id, outcome, request, now).await?)
            }
            None => None,
        };
        if answered.is_some() && answering.is_none() {
            tracing::info!(enrollment = %enrollment, "a report names no command of this server");
        }
        let word = Word { answered: report.status != Status::Idle, not_now: skip_not_now };
        if incoming.is_none() && candidate.is_none() && quiet(&channel, word) {
            return Ok(AppleReply::empty());
        }
        let mut moves = 0;
        for _ in 0..MAX_LOOKS {
            let ready = match &candidate {
                // None: it can no longer be done; it was ended with a reason. Look again.
                Some(candidate) => self.bytes_for(&caller, candidate).await?,
                None => None,
            };
            let dropped = candidate.is_some() && ready.is_none();
            moves += usize::from(!dropped);
            let turn = self.turn(&caller, &channel, incoming.take(), ready, word, &peek, dropped).await?;
            match turn {
                Turn::Send(bytes) => return Ok(AppleReply::plist(bytes)),
                Turn::Done => return Ok(AppleReply::empty()),
                Turn::Moved(next) => candidate = *next,
            }
            if moves >= MAX_MOVES {
                break;
            }
        }
        // Somebody edits this queue faster than we look: the device is woken again.
        if !caller.enrollment.test_only {
            let (channel, due) = (channel.id, now.plus(MOVED_WAKE));
            self.store
                .write(Scope::Site(site), move |tx| tx.wake_request(channel, due).map_err(Error::from))
                .await?;
        }
        Ok(AppleReply::empty())
    }

    /// The wire bytes of a candidate: frozen ones, or rendered now. `None`: it can no longer be done (Q11) and was
    /// cancelled with the reason.
    async fn bytes_for(&self, caller: &Authenticated, candidate: &Candidate) -> Result<Option<Ready>, Error> {
        let site = caller.site;
        let part = candidate.part.id;
        if let Some(wire) = &candidate.part.wire {
            let opened = match self.vault.open(site, "part", part.as_bytes(), "wire", wire) {
                Ok(opened) => opened,
                Err(fault) => {
                    self.drop_unpreparable(caller, candidate, &fault).await?;
                    return Ok(None);
                }
            };
            return Ok(Some(Ready {
                part,
                wire: opened.expose_secret().clone(),
                sealed: None,
                first: false,
                challenge: None,
            }));
        }
        let rendered = self.rendered(caller, candidate).await;
        match rendered {
            Ok((wire, challenge)) => {
                let sealed = self.vault.seal(site, "part", part.as_bytes(), "wire", &wire)?;
                let first = candidate.part.sends == 0;
                Ok(Some(Ready { part, wire, sealed: Some(sealed), first, challenge }))
            }
            Err(Error::CannotDo(reason) | Error::Invalid(reason)) => {
                self.drop_command(caller, candidate, &reason).await?;
                Ok(None)
            }
            // The database may be back for the next request.
            Err(fault @ Error::Store(_)) => Err(fault),
            Err(fault) => {
                self.drop_unpreparable(caller, candidate, &fault).await?;
                Ok(None)
            }
        }
    }

    /// A fault of ours that stays: this command is given up, so that the channel's answers and its other commands are
    /// not lost with it.
    async fn drop_unpreparable(
        &self,
        caller: &Authenticated,
        candidate: &Candidate,
        fault: &Error,
    ) -> Result<(), Error> {
        tracing::error!(command = %candidate.command.id, %fault, "a command could not be prepared");
        let reason = "the server could not prepare it; its log says why";
        self.drop_command(caller, candidate, reason).await
    }

    async fn rendered(
        &self,
        caller: &Authenticated,
        candidate: &Candidate,
    ) -> Result<(Vec<u8>, Option<Challenge>), Error> {
        let site = caller.site;
        let (stored, intent) = self.open_intent(site, &candidate.command).await?;
        let kind = {
            let id = candidate.command.channel_id;
            self.store
                .read(Scope::Site(site), move |tx| tx.channel(id).map_err(Error::from))
                .await?
                .map(|c| c.kind)
                .unwrap_or(bellwether_model::ChannelKind::Device)
        };
        plan(&intent, &caller.device, &caller.enrollment, kind)?;
        let id = caller.enrollment.id;
        let unlock_token = match intent {
            Intent::ClearPasscode => self.escrowed(site, id, UNLOCK_TOKEN).await?,
            _ => None,
        };
        let current_recovery_lock = match intent {
            Intent::RotateSecret { .. } => self.escrowed(site, id, RECOVERY_LOCK).await?,
            _ => None,
        };
        let (renewal_profile, challenge) = match intent {
            Intent::RenewIdentity => {
                let (profile, challenge) = self.renewal(site, &caller.enrollment, &caller.device).await?;
                (Some(Opaque::from(profile)), Some(challenge))
            }
            _ => (None, None),
        };
        let wire = render(
            &stored,
            &intent,
            &candidate.part.request,
            candidate.part.id,
            Material {
                site,
                organization: &self.settings.organization,
                device: &caller.device,
                unlock_token,
                current_recovery_lock,
                renewal_profile,
            },
        )?;
        Ok((wire, challenge))
    }

    async fn escrowed(
        &self,
        site: bellwether_model::SiteId,
        enrollment: EnrollmentId,
        field: &'static str,
    ) -> Result<Option<Opaque>, Error> {
        let row = self
            .store
            .read(Scope::Site(site), move |tx| tx.escrow(enrollment, field).map_err(Error::from))
            .await?;
        let Some(row) = row else { return Ok(None) };
        let opened = self.vault.open(site, "enrollment", enrollment.as_bytes(), field, &row.value)?;
        Ok((!opened.expose_secret().is_empty()).then(|| Opaque::from(opened.expose_secret().as_slice())))
    }

    async fn drop_command(
        &self,
        caller: &Authenticated,
        candidate: &Candidate,
        reason: &str,
    ) -> Result<(), Error> {
        let (id, now) = (candidate.command.id, self.now());
        let details = serde_json::json!({ "kind": candidate.command.kind, "reason": reason });
        let entry = audit::entry(
            now,
            &bellwether_model::Actor::Server("dispatch".into()),
            EventKind::CommandCancelled,
            &format!("command:{id}"),
            None,
            Some(details),
        )?;
        let reason = reason.to_owned();
        self.store
            .write(Scope::Site(caller.site), move |tx| {
                tx.command_give_up(id, now, &reason)?;
                tx.audit_append(&entry).map_err(Error::from)
            })
            .await
    }

    /// The one transaction of a poll.
    #[expect(clippy::too_many_arguments, reason = "they are the poll; a struct would only rename them")]
    async fn turn(
        &self,
        caller: &Authenticated,
        channel: &Channel,
        incoming: Option<Incoming>,
        ready: Option<Ready>,
        word: Word,
        peek: &Peek,
        dropped: bool,
    ) -> Result<Turn, Error> {
        let rules = self.rules;
        let delivery = DeliveryId(new_uuid(peek.now)?);
        let turn = Poll {
            now: peek.now,
            enrollment: caller.enrollment.id,
            device: caller.device.id,
            channel: channel.id,
            event: audit::event(peek.now, EventKind::CommandChanged, "", &serde_json::json!({}))?,
            sent: audit::event(peek.now, EventKind::CommandSent, "", &serde_json::json!({}))?,
            wiped: audit::entry(
                peek.now,
                &Self::device_actor(caller.enrollment.id),
                EventKind::EnrollmentEnded,
                &format!("enrollment:{}", caller.enrollment.id),
                None,
                Some(serde_json::json!({ "reason": WIPED })),
            )?,
        };
        let offer = ready.as_ref().map(|r| (r.part, r.sealed.clone()));
        let challenge = ready.as_ref().and_then(|r| r.challenge.clone());
        let test_only = caller.enrollment.test_only;
        let first = ready.as_ref().is_some_and(|r| r.first);
        let fresh = ready.as_ref().is_some_and(|r| r.sealed.is_some());
        let peek = peek.clone();
        let outcome = self
            .store
            .write(Scope::Site(caller.site), move |tx| {
                if let Some(incoming) = &incoming
                    && take_answer(tx, &turn, incoming, &rules)?
                {
                    // Erased: nothing more is said to this enrollment.
                    return Ok::<_, Error>(Next::Done);
                }
                tx.session_word(turn.channel, word.not_now)?;
                // After the answer the queue is as it is: nothing is being answered any more.
                let after = Peek { answering: Vec::new(), ..peek.clone() };
                let Some((part, sealed)) = &offer else {
                    let next = tx.peek(turn.channel, &after, &rules)?;
                    if let Some(next) = next
                        && !dropped_again(dropped, &next)
                    {
                        return Ok(Next::Moved(Box::new(Some(next))));
                    }
                    settle_wake(tx, &turn, word, test_only, &rules)?;
                    return Ok(Next::Done);
                };
                if fresh && tx.part(*part)?.is_some_and(|p| p.wire.is_some()) {
                    // Another poll was faster: its bytes are the ones of this UUID.
                    let next = tx.peek(turn.channel, &after, &rules)?;
                    return Ok(Next::Moved(Box::new(next)));
                }
                match tx.hand_over(turn.channel, delivery, &[(*part, sealed.clone())], &after, &rules)? {
                    HandOver::Done { .. } => {
                        if let Some(challenge) = &challenge {
                            tx.challenge_insert(challenge)?;
                        }
                        if first {
                            note_sent(tx, &turn, *part)?;
                        }
                        Ok(Next::Send)
                    }
                    HandOver::Moved => {
                        let next = tx.peek(turn.channel, &after, &rules)?;
                        if next.is_none() {
                            settle_wake(tx, &turn, word, test_only, &rules)?;
                            return Ok(Next::Done);
                        }
                        Ok(Next::Moved(Box::new(next)))
                    }
                }
            })
            .await?;
        Ok(match outcome {
            Next::Done => Turn::Done,
            Next::Moved(next) => Turn::Moved(next),
            Next::Send => Turn::Send(ready.map(|r| r.wire).unwrap_or_default()),
        })
    }
}

/// A candidate with its bytes.
struct Ready {
    part: PartId,
    wire: Vec<u8>,
    /// To be frozen with the first send.
    sealed: Option<Sealed>,
    first: bool,
    /// Minted for these bytes, stored with their first send.
    challenge: Option<Challenge>,
}

/// What a poll came to.
enum Turn {
    Send(Vec<u8>),
    Moved(Box<Option<Candidate>>),
    Done,
}

enum Next {
    Send,
    Moved(Box<Option<Candidate>>),
    Done,
}

#[derive(Clone, Copy)]
struct Word {
    answered: bool,
    not_now: bool,
}

pub(super) struct Poll {
    pub(super) now: Timestamp,
    pub(super) enrollment: EnrollmentId,
    pub(super) device: bellwether_model::DeviceId,
    pub(super) channel: ChannelId,
    pub(super) event: Event,
    pub(super) sent: Event,
    pub(super) wiped: bellwether_store::records::AuditEntry,
}

/// Whether an idle poll with an empty queue leaves nothing to write: the common case, which costs no transaction.
fn quiet(channel: &Channel, word: Word) -> bool {
    !word.answered && !channel.last_was_not_now && channel.wake_due_at.is_none() && channel.wake_attempts == 0
}

fn dropped_again(dropped: bool, next: &Candidate) -> bool {
    // A command that cannot be rendered was given up in its own transaction; seeing it again would loop.
    dropped && next.part.wire.is_none() && next.command.state.is_terminal()
}

fn note_sent(tx: &mut Tx<'_>, poll: &Poll, part: PartId) -> Result<(), Error> {
    let Some(part) = tx.part(part)? else { return Ok(()) };
    let mut event = poll.sent.clone();
    event.subject = format!("command:{}", part.command_id);
    event.data = serde_json::json!({
        "device": poll.device, "enrollment": poll.enrollment, "part": part.id, "request": part.request,
    })
    .to_string();
    Ok(tx.event_append(&event)?)
}

/// The session ends here. A device whose last word was NotNow calls again by itself; one that said NotNow earlier and
/// something else last does not, so it is woken again.
fn settle_wake(
    tx: &mut Tx<'_>,
    poll: &Poll,
    word: Word,
    test_only: bool,
    rules: &QueueRules,
) -> Result<(), Error> {
    let Some(mut channel) = tx.channel(poll.channel)? else { return Ok(()) };
    let waiting = !test_only && tx.pending_count(poll.channel)? > 0;
    let due = match (waiting, word.not_now) {
        (false, _) => None,
        // It calls by itself, unless it went away in between.
        (true, true) => Some(poll.now.plus(DAY)),
        (true, false) => worth_a_wake(tx, poll, rules)?,
    };
    if channel.wake_due_at != due || channel.wake_attempts != 0 {
        channel.wake_due_at = due;
        channel.wake_attempts = 0;
        tx.channel_update(&channel)?;
    }
    Ok(())
}

/// When there will be something to hand over. Never for what only waits for an answer or for an approval.
fn worth_a_wake(tx: &mut Tx<'_>, poll: &Poll, rules: &QueueRules) -> Result<Option<Timestamp>, Error> {
    for pause in [NOT_NOW_WAKE, PARKED_WAKE, DAY] {
        let then = Peek { now: poll.now.plus(pause), answering: Vec::new(), skip_not_now: false };
        if tx.peek(poll.channel, &then, rules)?.is_some() {
            return Ok(Some(then.now));
        }
    }
    Ok(None)
}
