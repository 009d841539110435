//! The reference model: plain lists in memory, written from the product's words (specification 5.2, ARCHITECTURE "The
//! command model"). It shares no code with the store or the engine; only names of states and ids are common.

use super::calls::{Act, CancelWord, Told, What, Wish};
use bellwether_model::*;
use bellwether_store::records::QueueRules;
use std::collections::{BTreeMap, BTreeSet};

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

    pub(super) fn state_of(&self, channel: ChannelId) -> EnrollmentState {
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

    pub(super) fn end(&mut self, command: CommandId, how: PartState, now: i64) {
        let c = self.commands.get_mut(&command).expect("there");
        for p in c.parts.iter_mut().filter(|p| !over(p.state)) {
            p.state = how;
            p.finished = Some(now);
            p.not_before = None;
        }
        self.settle(command, now);
    }

    /// After parts moved: is the command over, is its channel free?
    pub(super) fn settle(&mut self, command: CommandId, now: i64) {
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
