//! The reference model: plain lists in memory, written from the product's words (specification 5.2, ARCHITECTURE "The
//! command model"). It shares no code with the store or the engine; only names of states and ids are common.

use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use bellwether_store::records::QueueRules;
use std::collections::{BTreeMap, BTreeSet};

/// One call, with every id and time in it, so that it can be run, run again and put into any order.
#[derive(Clone, Debug)]
pub struct Act {
    /// The first id of the audit entry and the events that it writes when it changes something.
    pub mark: u128,
    pub now: i64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// Accepts a command, under an idempotency key or without.
    Insert {
        wish: Wish,
        key: Option<u8>,
    },
    /// Looks what a channel would be offered; reads only.
    Peek {
        channel: ChannelId,
        answering: Vec<PartId>,
        skip: bool,
        limit: usize,
    },
    /// A poll's transaction: answers in, what was planned out.
    Exchange {
        channel: ChannelId,
        delivery: DeliveryId,
        answers: Vec<(PartId, Outcome)>,
        hand: Vec<PartId>,
        skip: bool,
    },
    Cancel(CommandId),
    GiveUp(CommandId),
    Spare(CommandId, PartId),
    Release(CommandId),
    /// A part that the device accepted is to be sent again.
    Again(PartId),
    /// An admin looks; reads only.
    Look {
        command: CommandId,
        channel: ChannelId,
    },
    Expire,
    Purge {
        before: i64,
    },
    Supersede(EnrollmentId),
    /// The enrollment is over (a wipe, a check-out); its queue is swept at once or later.
    End {
        enrollment: EnrollmentId,
        sweep: bool,
    },
    /// Rule (c): a new epoch that ends the old one. With a claimant, rule (d): an unproven one beside it.
    Enroll {
        device: DeviceId,
        claimant: Option<DeviceId>,
        enrollment: EnrollmentId,
        identity: IdentityId,
        channels: [ChannelId; 2],
    },
    /// An admin approves an unproven enrollment.
    Approve(EnrollmentId),
    /// The device kept an enrollment that was over.
    Revive(EnrollmentId),
    /// Rule (a): the same certificate again.
    Retry(EnrollmentId),
    /// Rule (b): a renewal is staged, and with the next call it is the one.
    Renew {
        enrollment: EnrollmentId,
        identity: IdentityId,
    },
    Enable {
        channel: ChannelId,
        on: bool,
    },
    JobStart {
        job: JobId,
        targets: Vec<ChannelId>,
    },
    /// The next chunk of a job, if nobody else has done it.
    JobChunk {
        job: JobId,
        expected: usize,
        wishes: Vec<Wish>,
        last: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub id: CommandId,
    pub enrollment: EnrollmentId,
    pub channel: ChannelId,
    pub lane: Lane,
    pub guarantee: Guarantee,
    pub coalesce: Option<u8>,
    pub held: bool,
    pub not_before: Option<i64>,
    pub expires: i64,
    pub parts: Vec<PartId>,
    pub job: Option<JobId>,
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    New(i64),
    Same(CommandId),
    Replayed(CommandId),
    /// The enrollment takes no commands any more.
    Over,
    /// Parts in order, and whether they are sent again.
    Offer(Vec<PartId>, bool),
    Exchanged(Vec<AnswerVerdict>, Option<Handed>),
    Cancel(CancelWord),
    Flag(bool),
    Count(usize),
    Ended(BTreeSet<CommandId>),
    Seen(Option<CommandState>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    Done { parts: usize, again: bool },
    Moved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelWord {
    Done,
    Sent,
    Over,
    Nothing,
}

impl Told {
    /// How many events such an answer stands for: one for each transition.
    pub fn events(&self) -> usize {
        match self {
            Self::New(_) | Self::Cancel(CancelWord::Done) | Self::Flag(true) => 1,
            Self::Exchanged(verdicts, handed) => {
                let applied = verdicts.iter().filter(|v| **v == AnswerVerdict::Applied).count();
                applied + if let Some(Handed::Done { parts, .. }) = handed { *parts } else { 0 }
            }
            Self::Ended(ended) => ended.len(),
            Self::Count(count) => (*count).min(1),
            _ => 0,
        }
    }
}

/// Which rules of the model decided something.
pub type Hits = Vec<&'static str>;

#[derive(Clone, Debug, Hash)]
pub struct MPart {
    pub id: PartId,
    pub state: PartState,
    pub sends: i32,
    pub last: Option<i64>,
    pub not_now: i32,
    pub not_before: Option<i64>,
    pub answer: Option<Outcome>,
    pub finished: Option<i64>,
}

#[derive(Clone, Debug, Hash)]
pub struct MCommand {
    pub channel: ChannelId,
    pub enrollment: EnrollmentId,
    pub seq: i64,
    pub lane: Lane,
    pub guarantee: Guarantee,
    pub coalesce: Option<u8>,
    pub held: bool,
    pub not_before: Option<i64>,
    pub expires: i64,
    /// Its time runs out then: the expiry, or the deadline of an accepted part.
    pub ends: i64,
    pub first_sent: Option<i64>,
    pub finished: Option<i64>,
    pub job: Option<JobId>,
    pub parts: Vec<MPart>,
}

#[derive(Clone, Debug, Hash)]
pub struct MDelivery {
    pub channel: ChannelId,
    pub open: bool,
    /// Parts, and whether they were answered.
    pub parts: Vec<(PartId, bool)>,
}

#[derive(Clone, Debug, Hash)]
pub struct MChannel {
    pub enrollment: EnrollmentId,
    pub enabled: bool,
    pub last_seq: i64,
    pub not_now: bool,
}

#[derive(Clone, Debug, Hash)]
pub struct MEnrollment {
    pub device: DeviceId,
    pub claims: Option<DeviceId>,
    pub state: EnrollmentState,
    pub epoch: i32,
    pub identity: IdentityId,
    pub staged: Option<IdentityId>,
}

#[derive(Clone, Debug, Hash)]
pub struct MJob {
    pub targets: Vec<ChannelId>,
    pub done: usize,
    pub refused: usize,
    pub finished: Option<i64>,
}

#[derive(Clone, Debug, Hash)]
pub struct Model {
    pub rules: Rules,
    pub channels: BTreeMap<ChannelId, MChannel>,
    pub enrollments: BTreeMap<EnrollmentId, MEnrollment>,
    pub commands: BTreeMap<CommandId, MCommand>,
    pub deliveries: BTreeMap<DeliveryId, MDelivery>,
    pub jobs: BTreeMap<JobId, MJob>,
    pub keys: BTreeMap<u8, CommandId>,
    pub audit: BTreeSet<u128>,
    pub events: BTreeSet<u128>,
}

/// The queue's rules, as numbers.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Rules {
    pub max_sends: i32,
    pub park_for: i64,
    pub not_now_pause: i64,
    pub silent_pause: i64,
    pub accepted_for: i64,
}

impl Rules {
    pub fn store(&self) -> QueueRules {
        QueueRules {
            max_sends: self.max_sends,
            park_for: self.park_for,
            not_now_pause: self.not_now_pause,
            silent_pause: self.silent_pause,
            accepted_for: self.accepted_for,
        }
    }
}

pub fn over(state: PartState) -> bool {
    use PartState::*;
    match state {
        Acknowledged | Failed | Expired | Cancelled | Superseded => true,
        Queued | Sent | NotNow | Accepted => false,
    }
}

impl MCommand {
    pub fn over(&self) -> bool {
        self.parts.iter().all(|p| over(p.state))
    }

    /// Where it stands: over when all parts are, by the worst word; before that by the most active part.
    pub fn state(&self) -> CommandState {
        let any = |s: PartState| self.parts.iter().any(|p| p.state == s);
        let all = |s: PartState| self.parts.iter().all(|p| p.state == s);
        if self.over() {
            return if any(PartState::Failed) {
                CommandState::Failed
            } else if any(PartState::Expired) {
                CommandState::Expired
            } else if any(PartState::Superseded) {
                CommandState::Superseded
            } else if any(PartState::Cancelled) {
                CommandState::Cancelled
            } else {
                CommandState::Acknowledged
            };
        }
        if self.held {
            CommandState::Held
        } else if any(PartState::Sent) {
            CommandState::Sent
        } else if any(PartState::NotNow) {
            CommandState::NotNow
        } else if all(PartState::Queued) || (any(PartState::Queued) && self.first_sent.is_none()) {
            CommandState::Queued
        } else if any(PartState::Queued) {
            CommandState::Sent
        } else {
            CommandState::Accepted
        }
    }
}

/// What a channel is offered, and what stands in its way.
struct Choice {
    offer: Vec<PartId>,
    again: bool,
    open: Option<DeliveryId>,
    stuck: Vec<PartId>,
}

impl Model {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            channels: BTreeMap::new(),
            enrollments: BTreeMap::new(),
            commands: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            jobs: BTreeMap::new(),
            keys: BTreeMap::new(),
            audit: BTreeSet::new(),
            events: BTreeSet::new(),
        }
    }

    /// Does what is asked, and says what the store must answer.
    pub fn apply(&mut self, act: &Act, hits: &mut Hits) -> Told {
        let now = act.now;
        let told = match &act.what {
            What::Insert { wish, key } => self.insert(wish, *key, hits),
            What::Peek { channel, answering, skip, limit } => {
                let choice = self.choose(*channel, now, answering, *skip, *limit, hits);
                Told::Offer(choice.offer, choice.again)
            }
            What::Exchange { channel, delivery, answers, hand, skip } => {
                let answering: Vec<PartId> = answers.iter().map(|(part, _)| *part).collect();
                let verdicts = answers
                    .iter()
                    .map(|(part, outcome)| self.answer(*channel, *part, *outcome, now, hits))
                    .collect();
                if let (Some(channel), false) = (self.channels.get_mut(channel), answers.is_empty()) {
                    channel.not_now = *skip;
                }
                let handed = (!hand.is_empty())
                    .then(|| self.hand_over(*channel, *delivery, hand, &answering, *skip, now, hits));
                Told::Exchanged(verdicts, handed)
            }
            What::Cancel(command) => Told::Cancel(match self.commands.get(command) {
                None => CancelWord::Nothing,
                Some(c) if c.over() => CancelWord::Over,
                Some(c) if c.first_sent.is_some() => CancelWord::Sent,
                Some(_) => {
                    self.end(*command, PartState::Cancelled, now);
                    CancelWord::Done
                }
            }),
            What::GiveUp(command) => {
                let lives = self.commands.get(command).is_some_and(|c| !c.over());
                if lives {
                    self.end(*command, PartState::Cancelled, now);
                }
                Told::Flag(lives)
            }
            What::Spare(command, part) => Told::Count(self.spare(*command, *part, now)),
            What::Release(command) => Told::Flag(match self.commands.get_mut(command) {
                Some(c) if c.held && !c.over() => {
                    c.held = false;
                    true
                }
                _ => false,
            }),
            What::Again(part) => Told::Flag(match self.part(*part) {
                Some(p) if p.state == PartState::Accepted => {
                    p.state = PartState::Sent;
                    true
                }
                _ => false,
            }),
            What::Look { command, channel } => {
                let waiting = self.commands.values().filter(|c| c.channel == *channel && !c.over()).count();
                Told::Seen(self.commands.get(command).map(MCommand::state), waiting)
            }
            What::Expire => {
                let due: BTreeSet<CommandId> = self
                    .commands
                    .iter()
                    .filter(|(_, c)| !c.over() && c.ends <= now)
                    .map(|(id, _)| *id)
                    .collect();
                for id in &due {
                    let c = &self.commands[id];
                    if c.ends > c.expires {
                        hits.push("Q3 an accepted part's deadline ran out");
                    }
                    self.end(*id, PartState::Expired, now);
                }
                Told::Ended(due)
            }
            What::Purge { before } => Told::Count(self.purge(*before)),
            What::Supersede(enrollment) => Told::Count(self.supersede(*enrollment, now)),
            What::End { enrollment, sweep } => {
                let lives =
                    self.enrollments.get(enrollment).is_some_and(|e| e.state != EnrollmentState::Ended);
                if lives {
                    self.end_enrollment(*enrollment, *sweep, now);
                }
                Told::Flag(lives)
            }
            What::Enroll { device, claimant, enrollment, identity, channels } => {
                self.enroll(*device, *claimant, *enrollment, *identity, *channels, now);
                Told::Flag(true)
            }
            What::Approve(enrollment) => Told::Flag(self.approve(*enrollment, now)),
            What::Revive(enrollment) => self.revive(*enrollment, now),
            What::Retry(enrollment) => Told::Flag(
                self.enrollments.get(enrollment).is_some_and(|e| e.state != EnrollmentState::Ended),
            ),
            What::Renew { enrollment, identity } => Told::Flag(match self.enrollments.get_mut(enrollment) {
                Some(e) if e.state != EnrollmentState::Ended => {
                    match e.staged.take() {
                        None => e.staged = Some(*identity),
                        Some(staged) => e.identity = staged,
                    }
                    true
                }
                _ => false,
            }),
            What::Enable { channel, on } => Told::Flag(self.enable(*channel, *on)),
            What::JobStart { job, targets } => {
                let job_row = MJob { targets: targets.clone(), done: 0, refused: 0, finished: None };
                self.jobs.insert(*job, job_row);
                Told::Flag(true)
            }
            What::JobChunk { job, expected, wishes, last } => {
                self.job_chunk(*job, *expected, wishes, *last, now, hits)
            }
        };
        let events = told.events() as u128;
        self.events.extend((0..events).map(|n| act.mark + n));
        if events > 0 {
            self.audit.insert(act.mark);
        }
        told
    }

    pub fn part(&mut self, id: PartId) -> Option<&mut MPart> {
        self.commands.values_mut().flat_map(|c| c.parts.iter_mut()).find(|p| p.id == id)
    }

    pub fn command_of(&self, part: PartId) -> Option<CommandId> {
        self.commands.iter().find(|(_, c)| c.parts.iter().any(|p| p.id == part)).map(|(id, _)| *id)
    }

    pub fn open(&self, channel: ChannelId) -> Option<DeliveryId> {
        self.deliveries.iter().find(|(_, d)| d.open && d.channel == channel).map(|(id, _)| *id)
    }

    pub fn living(&self, device: DeviceId) -> Option<EnrollmentId> {
        use EnrollmentState::{Active, Pending};
        let lives = |e: &MEnrollment| e.device == device && matches!(e.state, Active | Pending);
        self.enrollments.iter().find(|(_, e)| lives(e)).map(|(id, _)| *id)
    }

    fn state_of(&self, channel: ChannelId) -> EnrollmentState {
        self.enrollments[&self.channels[&channel].enrollment].state
    }

    fn insert(&mut self, wish: &Wish, key: Option<u8>, hits: &mut Hits) -> Told {
        if let Some(first) = key.and_then(|key| self.keys.get(&key)) {
            hits.push("Q2 the same key is answered with the first command");
            return Told::Replayed(*first);
        }
        if self.state_of(wish.channel) == EnrollmentState::Ended {
            hits.push("Q10 an enrollment that is over takes no command");
            return Told::Over;
        }
        let told = self.accept(wish, hits);
        if let Some(key) = key {
            self.keys.insert(key, if let Told::Same(same) = told { same } else { wish.id });
        }
        told
    }

    /// A number is taken even when the wish is found to wait already: numbers only grow.
    fn accept(&mut self, wish: &Wish, hits: &mut Hits) -> Told {
        let waits = |c: &MCommand| {
            c.channel == wish.channel && c.coalesce == wish.coalesce && c.first_sent.is_none() && !c.over()
        };
        let same =
            wish.coalesce.and_then(|_| self.commands.iter().find(|(_, c)| waits(c)).map(|(id, _)| *id));
        let channel = self.channels.get_mut(&wish.channel).expect("a channel of the model");
        channel.last_seq += 1;
        if let Some(same) = same {
            hits.push("Q9 the same wish waits once");
            return Told::Same(same);
        }
        let seq = channel.last_seq;
        let part = |id: &PartId| MPart {
            id: *id,
            state: PartState::Queued,
            sends: 0,
            last: None,
            not_now: 0,
            not_before: None,
            answer: None,
            finished: None,
        };
        let command = MCommand {
            channel: wish.channel,
            enrollment: wish.enrollment,
            seq,
            lane: wish.lane,
            guarantee: wish.guarantee,
            coalesce: wish.coalesce,
            held: wish.held,
            not_before: wish.not_before,
            expires: wish.expires,
            ends: wish.expires,
            first_sent: None,
            finished: None,
            job: wish.job,
            parts: wish.parts.iter().map(part).collect(),
        };
        self.commands.insert(wish.id, command);
        Told::New(seq)
    }

    /// Whether a part may go out now, whatever else waits.
    fn may_go(&self, c: &MCommand, p: &MPart, now: i64, skip: bool, hits: &mut Hits) -> bool {
        if c.over() || c.held || c.expires <= now || c.not_before.is_some_and(|at| at > now) {
            return false;
        }
        if p.not_before.is_some_and(|at| at > now) {
            hits.push(if p.state == PartState::NotNow {
                "Q7 a pause after NotNow"
            } else {
                "Q8 parked parts wait"
            });
            return false;
        }
        let long_ago = |pause: i64| p.last.is_none_or(|last| last + pause <= now);
        match p.state {
            PartState::Queued => true,
            PartState::NotNow if skip => {
                hits.push("Q7 not again in the session of its NotNow");
                false
            }
            PartState::NotNow => {
                hits.push("Q7 offered again on the next call");
                true
            }
            PartState::Sent => match c.guarantee {
                Guarantee::AtMostOnce => {
                    hits.push("Q4 at most once is not sent again");
                    false
                }
                Guarantee::UntilSilent => long_ago(self.rules.silent_pause),
                Guarantee::UntilAnswered => p.sends < self.rules.max_sends || long_ago(self.rules.park_for),
            },
            _ => false,
        }
    }

    /// Everything that may go out on a channel, in order: lane, then number, then place in its command.
    fn line(
        &self,
        channel: ChannelId,
        now: i64,
        answering: &[PartId],
        skip: bool,
        hits: &mut Hits,
    ) -> Vec<(Lane, PartId)> {
        let mut line = Vec::new();
        for c in self.commands.values().filter(|c| c.channel == channel) {
            for (place, p) in c.parts.iter().enumerate() {
                if !answering.contains(&p.id) && self.may_go(c, p, now, skip, hits) {
                    line.push((rank(c.lane), c.seq, place, c.lane, p.id));
                }
            }
        }
        line.sort();
        line.into_iter().map(|(_, _, _, lane, id)| (lane, id)).collect()
    }

    fn choose(
        &self,
        channel: ChannelId,
        now: i64,
        answering: &[PartId],
        skip: bool,
        limit: usize,
        hits: &mut Hits,
    ) -> Choice {
        let nothing = Choice { offer: Vec::new(), again: false, open: None, stuck: Vec::new() };
        let Some(row) = self.channels.get(&channel) else { return nothing };
        if !row.enabled || self.state_of(channel) != EnrollmentState::Active {
            if self.commands.values().any(|c| c.channel == channel && !c.over()) {
                hits.push("Q11 only an enabled channel of an active enrollment is offered commands");
            }
            return nothing;
        }
        let line = self.line(channel, now, answering, skip, hits);
        if line.len() > 1 {
            hits.push("Q5 the first of several");
        }
        let first = |line: &[(Lane, PartId)]| line.iter().take(limit).map(|(_, id)| *id).collect::<Vec<_>>();
        let Some(open) = self.open(channel) else { return Choice { offer: first(&line), ..nothing } };
        // What of the open delivery has no answer, once this poll's answers are in.
        let mut again = Vec::new();
        let mut stuck = Vec::new();
        for (id, answered) in &self.deliveries[&open].parts {
            let Some(command) = self.command_of(*id) else { continue };
            let c = &self.commands[&command];
            let (place, p) = c.parts.iter().enumerate().find(|(_, p)| p.id == *id).expect("its part");
            if *answered || p.state != PartState::Sent || answering.contains(id) {
                continue;
            }
            if self.may_go(c, p, now, false, hits) {
                again.push((rank(c.lane), c.seq, place, c.lane, *id));
            } else {
                stuck.push(*id);
            }
        }
        again.sort();
        let again: Vec<(Lane, PartId)> = again.into_iter().map(|(_, _, _, lane, id)| (lane, id)).collect();
        let urgent = |line: &[(Lane, PartId)]| line.iter().any(|(lane, _)| *lane == Lane::Emergency);
        let overtakes = !again.is_empty()
            && !urgent(&again)
            && line.first().is_some_and(|(lane, _)| *lane == Lane::Emergency);
        if overtakes {
            hits.push("Q5 an emergency overtakes an open delivery");
        }
        if again.is_empty() && !line.is_empty() && !stuck.is_empty() {
            hits.push("Q8 the queue moves past what is not answered");
        }
        if again.is_empty() || overtakes {
            return Choice { offer: first(&line), again: false, open: Some(open), stuck };
        }
        hits.push("Q6 an open delivery goes again before anything else");
        Choice { offer: first(&again), again: true, open: Some(open), stuck }
    }

    #[expect(clippy::too_many_arguments, reason = "one poll")]
    fn hand_over(
        &mut self,
        channel: ChannelId,
        delivery: DeliveryId,
        hand: &[PartId],
        answering: &[PartId],
        skip: bool,
        now: i64,
        hits: &mut Hits,
    ) -> Handed {
        let choice = self.choose(channel, now, answering, skip, hand.len(), hits);
        if choice.offer != hand {
            hits.push("Q11 a plan that was overtaken is refused");
            return Handed::Moved;
        }
        if !choice.again {
            if let Some(open) = choice.open {
                for id in choice.stuck {
                    let command = self.command_of(id).expect("its command");
                    let (answered, most, pause) = (
                        self.commands[&command].guarantee == Guarantee::UntilAnswered,
                        self.rules.max_sends,
                        self.rules.park_for,
                    );
                    let p = self.part(id).expect("its part");
                    if answered && p.sends >= most && p.not_before.is_none() {
                        hits.push("Q8 parked after too many sends");
                        p.not_before = Some(p.last.unwrap_or(now) + pause);
                    }
                }
                self.deliveries.get_mut(&open).expect("there").open = false;
            }
            let parts = hand.iter().map(|id| (*id, false)).collect();
            self.deliveries.insert(delivery, MDelivery { channel, open: true, parts });
        }
        for id in hand {
            let command = self.command_of(*id).expect("its command");
            let c = self.commands.get_mut(&command).expect("there");
            c.first_sent = c.first_sent.or(Some(now));
            let p = self.part(*id).expect("its part");
            if p.sends > 0 {
                hits.push("Q4 sent again with the same bytes");
            }
            p.state = PartState::Sent;
            p.sends += 1;
            p.last = Some(now);
            p.not_before = None;
        }
        Handed::Done { parts: hand.len(), again: choice.again }
    }

    fn answer(
        &mut self,
        channel: ChannelId,
        part: PartId,
        outcome: Outcome,
        now: i64,
        hits: &mut Hits,
    ) -> AnswerVerdict {
        let Some(command) = self.command_of(part) else {
            hits.push("Q17 an answer to nothing");
            return AnswerVerdict::Unknown;
        };
        let c = &self.commands[&command];
        if c.channel != channel {
            hits.push("Q17 an answer on another's channel");
            return AnswerVerdict::Unknown;
        }
        if self.state_of(channel) == EnrollmentState::Ended {
            hits.push("Q10 an answer from an enrollment that is over");
            return AnswerVerdict::Unknown;
        }
        let rules = self.rules;
        let p = self.part(part).expect("its part");
        let said = match outcome {
            Outcome::Acknowledged => PartState::Acknowledged,
            Outcome::Failed => PartState::Failed,
            Outcome::NotNow => PartState::NotNow,
            Outcome::Accepted => PartState::Accepted,
        };
        if over(p.state) {
            hits.push(if p.state == said {
                "Q4 the same last word again"
            } else {
                "Q4 a contradicting last word is not applied"
            });
            return if p.state == said { AnswerVerdict::Duplicate } else { AnswerVerdict::Conflict };
        }
        match (p.state, outcome) {
            (PartState::Queued, _) => {
                hits.push("Q17 an answer to what was not sent");
                return AnswerVerdict::Unknown;
            }
            (PartState::Accepted, Outcome::Accepted) => return AnswerVerdict::Duplicate,
            (PartState::Accepted, Outcome::NotNow) => return AnswerVerdict::Conflict,
            _ => {}
        }
        p.state = said;
        p.answer = Some(outcome);
        p.not_before = None;
        p.finished = over(said).then_some(now);
        if outcome == Outcome::NotNow {
            p.not_now += 1;
            let pause = rules.not_now_pause * i64::from(p.not_now.min(8));
            p.not_before = (pause > 0).then_some(now + pause);
        }
        let mut late = true;
        for d in self.deliveries.values_mut() {
            for (id, answered) in &mut d.parts {
                if *id == part && !*answered {
                    *answered = true;
                    late &= !d.open;
                }
            }
        }
        if late {
            hits.push("Q4 a late answer to an earlier delivery counts");
        }
        let c = self.commands.get_mut(&command).expect("there");
        if outcome == Outcome::Accepted {
            c.ends = c.ends.max(now + rules.accepted_for);
        }
        self.settle(command, now);
        AnswerVerdict::Applied
    }

    fn spare(&mut self, command: CommandId, part: PartId, now: i64) -> usize {
        let Some(c) = self.commands.get_mut(&command) else { return 0 };
        if c.held {
            return 0;
        }
        let Some(p) = c.parts.iter_mut().find(|p| p.id == part && p.state == PartState::Queued) else {
            return 0;
        };
        p.state = PartState::Acknowledged;
        p.finished = Some(now);
        self.settle(command, now);
        1
    }

    fn end(&mut self, command: CommandId, how: PartState, now: i64) {
        let c = self.commands.get_mut(&command).expect("there");
        for p in c.parts.iter_mut().filter(|p| !over(p.state)) {
            p.state = how;
            p.finished = Some(now);
            p.not_before = None;
        }
        self.settle(command, now);
    }

    /// After parts moved: is the command over, is its channel free?
    fn settle(&mut self, command: CommandId, now: i64) {
        let c = self.commands.get_mut(&command).expect("there");
        if c.over() && c.finished.is_none() {
            c.finished = Some(now);
        }
        let channel = c.channel;
        let Some(open) = self.open(channel) else { return };
        let waits = self.deliveries[&open].parts.iter().any(|(id, answered)| {
            let c = self.command_of(*id).map(|c| &self.commands[&c]);
            !answered && c.is_some_and(|c| c.parts.iter().any(|p| p.id == *id && p.state == PartState::Sent))
        });
        if !waits {
            self.deliveries.get_mut(&open).expect("there").open = false;
        }
    }

    fn purge(&mut self, before: i64) -> usize {
        let old: Vec<CommandId> = self
            .commands
            .iter()
            .filter(|(_, c)| c.finished.is_some_and(|at| at < before))
            .map(|(id, _)| *id)
            .collect();
        for id in &old {
            let command = self.commands.remove(id).expect("there");
            for d in self.deliveries.values_mut() {
                d.parts.retain(|(part, _)| !command.parts.iter().any(|p| p.id == *part));
            }
        }
        self.deliveries.retain(|_, d| !d.parts.is_empty());
        old.len()
    }

    fn supersede(&mut self, enrollment: EnrollmentId, now: i64) -> usize {
        let waiting: Vec<CommandId> = self
            .commands
            .iter()
            .filter(|(_, c)| c.enrollment == enrollment && !c.over())
            .map(|(id, _)| *id)
            .collect();
        for id in &waiting {
            self.end(*id, PartState::Superseded, now);
        }
        waiting.len()
    }

    fn end_enrollment(&mut self, enrollment: EnrollmentId, sweep: bool, now: i64) {
        self.enrollments.get_mut(&enrollment).expect("there").state = EnrollmentState::Ended;
        self.channels.values_mut().filter(|c| c.enrollment == enrollment).for_each(|c| c.enabled = false);
        if sweep {
            self.supersede(enrollment, now);
        }
    }

    fn next_epoch(&self, device: DeviceId) -> i32 {
        self.enrollments.values().filter(|e| e.device == device).map(|e| e.epoch).max().unwrap_or(0) + 1
    }

    fn enroll(
        &mut self,
        device: DeviceId,
        claimant: Option<DeviceId>,
        id: EnrollmentId,
        identity: IdentityId,
        channels: [ChannelId; 2],
        now: i64,
    ) {
        let (device, claims, state) = match claimant {
            None => (device, None, EnrollmentState::Active),
            Some(claimant) => (claimant, Some(device), EnrollmentState::Unproven),
        };
        if let Some(old) = self.living(device) {
            self.end_enrollment(old, true, now);
        }
        let epoch = self.next_epoch(device);
        self.enrollments.insert(id, MEnrollment { device, claims, state, epoch, identity, staged: None });
        for channel in channels {
            self.channels
                .insert(channel, MChannel { enrollment: id, enabled: true, last_seq: 0, not_now: false });
        }
    }

    fn approve(&mut self, id: EnrollmentId, now: i64) -> bool {
        let Some(e) = self.enrollments.get(&id) else { return false };
        let (EnrollmentState::Unproven, Some(real)) = (e.state, e.claims) else { return false };
        if let Some(old) = self.living(real) {
            self.end_enrollment(old, true, now);
        }
        let epoch = self.next_epoch(real);
        let e = self.enrollments.get_mut(&id).expect("there");
        (e.device, e.claims, e.epoch, e.state) = (real, None, epoch, EnrollmentState::Active);
        self.channels.values_mut().filter(|c| c.enrollment == id).for_each(|c| c.enabled = true);
        true
    }

    fn revive(&mut self, id: EnrollmentId, now: i64) -> Told {
        let Some(e) = self.enrollments.get(&id) else { return Told::Flag(false) };
        if e.state != EnrollmentState::Ended || e.claims.is_some() || self.living(e.device).is_some() {
            return Told::Flag(false);
        }
        let swept = self.supersede(id, now);
        if swept > 0 {
            return Told::Count(swept);
        }
        self.enrollments.get_mut(&id).expect("there").state = EnrollmentState::Active;
        self.channels.values_mut().filter(|c| c.enrollment == id).for_each(|c| c.enabled = true);
        Told::Flag(true)
    }

    fn enable(&mut self, channel: ChannelId, on: bool) -> bool {
        let lives = self.channels.contains_key(&channel) && self.state_of(channel) != EnrollmentState::Ended;
        if lives {
            self.channels.get_mut(&channel).expect("there").enabled = on;
        }
        lives
    }

    fn job_chunk(
        &mut self,
        id: JobId,
        expected: usize,
        wishes: &[Wish],
        last: bool,
        now: i64,
        hits: &mut Hits,
    ) -> Told {
        let Some(job) = self.jobs.get(&id) else { return Told::Flag(false) };
        if job.done != expected || job.finished.is_some() {
            hits.push("Q2 a chunk of a job is worked off once");
            return Told::Flag(false);
        }
        let mut refused = 0;
        for wish in wishes {
            if self.state_of(wish.channel) == EnrollmentState::Ended {
                refused += 1;
            } else {
                self.accept(wish, hits);
            }
        }
        let job = self.jobs.get_mut(&id).expect("there");
        job.done += wishes.len();
        job.refused += refused;
        job.finished = last.then_some(now);
        Told::Flag(true)
    }
}

/// Lanes in the order in which they are served.
fn rank(lane: Lane) -> u8 {
    match lane {
        Lane::Emergency => 0,
        Lane::Interactive => 1,
        Lane::Policy => 2,
        Lane::Inventory => 3,
    }
}
