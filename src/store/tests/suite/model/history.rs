//! One random history: steps become calls, the store and the model do each of them, and their answers are compared.

use super::act::{self, Fate, Stop};
use super::calls::{Act, CancelWord, Handed, Told, What, Wish};
use super::picture::same;
use super::place::{Ids, Place};
use super::reference::{Hits, Model, Rules};
use super::steps::{Kind, Step};
use super::tally::{FATE, MOVE, PART, PROMISE, STATE, STEP, Tally};
use crate::world::{self, T0, World};
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use bellwether_store::StoreError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a device knows.
#[derive(Clone, Default)]
struct Sim {
    /// Handed over with the last reply that arrived.
    held: Vec<PartId>,
    /// Its last words, repeated when the reply to them was lost.
    said: Vec<(PartId, Outcome)>,
    lost: bool,
}

struct History<'a> {
    place: &'a mut Place,
    world: World,
    model: Model,
    ids: Ids,
    now: i64,
    devices: Vec<DeviceId>,
    sims: BTreeMap<ChannelId, Sim>,
    /// Every part ever made.
    made: Vec<(PartId, ChannelId, CommandId)>,
    jobs: Vec<(JobId, Vec<Wish>)>,
    tally: &'a mut Tally,
}

pub fn run(place: &mut Place, steps: &[Step], tally: &mut Tally) {
    let first = steps.first().map_or(0, |s| s.r[3]);
    let rules = Rules {
        max_sends: 3,
        park_for: 60_000,
        not_now_pause: if first.is_multiple_of(2) { 0 } else { 4_000 },
        silent_pause: 30_000,
        accepted_for: 120_000,
    };
    let world = World {
        site: world::id(),
        authority: world::id(),
        device: world::id(),
        identity: world::id(),
        enrollment: world::id(),
        channel: world::id(),
    };
    act::found_site(place.node(false), &world);
    let mut history = History {
        place,
        world,
        model: Model::new(rules),
        ids: Ids::new(),
        now: T0.0,
        devices: Vec::new(),
        sims: BTreeMap::new(),
        made: Vec::new(),
        jobs: Vec::new(),
        tally,
    };
    for _ in 0..2 {
        let device = history.ids.next();
        history.devices.push(device);
        history.enroll(device, None, (200, false));
    }
    for step in steps {
        history.step(step);
    }
    history.finish();
}

impl History<'_> {
    fn step(&mut self, step: &Step) {
        let [a, b, c, d] = step.r.map(usize::from);
        let how = (step.fate, step.other_node);
        let now = self.now;
        let command = pick(&self.made, a).map(|(_, _, command)| *command);
        let enrollment = pick(&self.model.enrollments.keys().copied().collect::<Vec<_>>(), a).copied();
        self.tally.add(STEP, format!("{:?}", step.kind));
        match step.kind {
            Kind::Insert | Kind::InsertUnderKey => {
                let wish = self.wish(a, b, c, d);
                let key = (step.kind == Kind::InsertUnderKey).then_some((d % 7) as u8);
                self.note_parts(&wish);
                self.call(What::Insert { wish, key }, how);
                if let (Some(key), true) = (key, c.is_multiple_of(2)) {
                    // The admin did not hear the answer and asks again; what is made anew for it is not kept.
                    let wish = self.wish(a, b, c, d);
                    let told = self.call(What::Insert { wish, key: Some(key) }, (200, d.is_multiple_of(2)));
                    assert!(matches!(told, Told::Replayed(_) | Told::Over), "{told:?}");
                }
            }
            Kind::Poll | Kind::PollThatIsOvertaken | Kind::PollWhoseReplyIsLost => self.poll(step),
            Kind::StrayAnswer => {
                let Some((part, own, _)) = pick(&self.made, a).copied() else { return };
                let others: Vec<ChannelId> = self.model.channels.keys().copied().collect();
                let channel = if b.is_multiple_of(5) { *pick(&others, c).expect("a channel") } else { own };
                let part = if b % 23 == 1 { self.ids.next() } else { part };
                let answers = vec![(part, outcome(d))];
                let (delivery, hand) = (self.ids.next(), Vec::new());
                self.call(
                    What::Exchange { channel, delivery, answers, hand, skip: d.is_multiple_of(7) },
                    how,
                );
            }
            Kind::Cancel => {
                // Mostly what was queued a moment ago.
                let recent = self.made.len().saturating_sub(6);
                let at = if b.is_multiple_of(3) { 0 } else { recent };
                let Some((_, _, command)) = pick(&self.made[at..], a).copied() else { return };
                let told = self.call(What::Cancel(command), how);
                match told {
                    Told::Cancel(CancelWord::Done) => {
                        self.tally.add(PROMISE, "Q12 cancelled before it was sent")
                    }
                    Told::Cancel(CancelWord::Sent) => self.tally.add(PROMISE, "Q12 too late to cancel"),
                    _ => {}
                }
            }
            Kind::GiveUp => command.into_iter().for_each(|id| drop(self.call(What::GiveUp(id), how))),
            Kind::Spare => {
                let Some((part, _, command)) = pick(&self.made, a).copied() else { return };
                self.call(What::Spare(command, part), how);
            }
            Kind::Release => {
                let held: Vec<CommandId> =
                    self.model.commands.iter().filter(|(_, c)| c.held).map(|(id, _)| *id).collect();
                let one = if b.is_multiple_of(4) { command } else { pick(&held, a).copied() };
                one.into_iter().for_each(|id| drop(self.call(What::Release(id), how)));
            }
            Kind::SendAgain => {
                let accepted = |p: &PartId| {
                    self.model
                        .commands
                        .values()
                        .any(|c| c.parts.iter().any(|q| q.id == *p && q.state == PartState::Accepted))
                };
                let some: Vec<PartId> = self
                    .made
                    .iter()
                    .map(|(p, _, _)| *p)
                    .filter(|p| b.is_multiple_of(4) || accepted(p))
                    .collect();
                pick(&some, a).into_iter().for_each(|part| drop(self.call(What::Again(*part), how)));
            }
            Kind::Look => {
                let Some((_, channel, command)) = pick(&self.made, a).copied() else { return };
                self.call(What::Look { command, channel }, how);
            }
            Kind::Wait => {
                self.now += 1 + (a as i64 * 7 + b as i64) % if c.is_multiple_of(4) { 130_000 } else { 9_000 }
            }
            Kind::Expire => drop(self.call(What::Expire, how)),
            Kind::Purge => {
                let before = now - (a % 60_000) as i64;
                if let Told::Count(1..) = self.call(What::Purge { before }, how) {
                    self.tally.add(PROMISE, "Q15 finished commands leave with all that hangs on them");
                }
            }
            Kind::Supersede => {
                enrollment.into_iter().for_each(|id| drop(self.call(What::Supersede(id), how)))
            }
            Kind::Wipe => enrollment
                .into_iter()
                .for_each(|enrollment| drop(self.call(What::End { enrollment, sweep: true }, how))),
            Kind::EndWithoutSweep => {
                enrollment
                    .into_iter()
                    .for_each(|enrollment| drop(self.call(What::End { enrollment, sweep: false }, how)));
            }
            Kind::ReEnroll => {
                let device = self.devices[a % self.devices.len()];
                self.enroll(device, None, how);
            }
            Kind::EnrollUnproven => {
                let (device, claimant) = (self.devices[a % self.devices.len()], self.ids.next());
                self.enroll(device, Some(claimant), how);
            }
            Kind::Approve => {
                let unproven = self.in_state(EnrollmentState::Unproven);
                let one = if b.is_multiple_of(4) { enrollment } else { pick(&unproven, a).copied() };
                one.into_iter().for_each(|id| drop(self.call(What::Approve(id), how)));
            }
            Kind::Revive => {
                let ended = self.in_state(EnrollmentState::Ended);
                let one = if b.is_multiple_of(4) { enrollment } else { pick(&ended, a).copied() };
                one.into_iter().for_each(|id| drop(self.call(What::Revive(id), how)));
            }
            Kind::RetryOfTheSameIdentity => {
                enrollment.into_iter().for_each(|id| drop(self.call(What::Retry(id), how)))
            }
            Kind::Renew => {
                let identity = self.ids.next();
                enrollment
                    .into_iter()
                    .for_each(|enrollment| drop(self.call(What::Renew { enrollment, identity }, how)));
            }
            Kind::Disable | Kind::Enable => {
                let on = step.kind == Kind::Enable;
                let some: Vec<ChannelId> =
                    self.model.channels.iter().filter(|(_, c)| c.enabled != on).map(|(id, _)| *id).collect();
                pick(&some, a)
                    .into_iter()
                    .for_each(|channel| drop(self.call(What::Enable { channel: *channel, on }, how)));
            }
            Kind::StartJob => {
                let channels: Vec<ChannelId> = self.model.channels.keys().copied().collect();
                let targets: Vec<ChannelId> =
                    (0..2 + a % 6).map(|n| channels[(b + n) % channels.len()]).collect();
                let job = self.ids.next();
                let wish = |(n, channel): (usize, &ChannelId)| {
                    let mut wish = self.wish(a, b, c + n, d);
                    (wish.channel, wish.enrollment) = (*channel, self.model.channels[channel].enrollment);
                    (wish.job, wish.held, wish.parts) = (Some(job), false, vec![self.ids.next()]);
                    wish
                };
                let wishes: Vec<Wish> = targets.iter().enumerate().map(wish).collect();
                self.call(What::JobStart { job, targets }, how);
                self.jobs.push((job, wishes));
            }
            Kind::ChunkOfJob | Kind::ChunkOfJobTwice => {
                let Some((job, wishes)) = pick(&self.jobs, a).cloned() else { return };
                let expected = self.model.jobs[&job].done;
                let chunk: Vec<Wish> = wishes.iter().skip(expected).take(2).cloned().collect();
                let last = expected + chunk.len() >= wishes.len();
                chunk.iter().for_each(|wish| self.note_parts(wish));
                let what = What::JobChunk { job, expected, wishes: chunk, last };
                self.call(what.clone(), how);
                if step.kind == Kind::ChunkOfJobTwice {
                    // The other server had read the job before.
                    self.call(what, (200, !step.other_node));
                }
            }
            Kind::Reopen => {
                self.place.reopen();
                self.same("after closing and opening again");
                self.tally.add(PROMISE, "Q1 after closing and opening again every row is as it was");
            }
        }
    }

    /// A device calls: planned, then carried out in one transaction, as the engine does.
    fn poll(&mut self, step: &Step) {
        let [a, b, c, d] = step.r.map(usize::from);
        let busy: Vec<ChannelId> = self
            .model
            .channels
            .iter()
            .filter(|(id, c)| {
                c.enabled && self.model.commands.values().any(|m| m.channel == **id && !m.over())
            })
            .map(|(id, _)| *id)
            .collect();
        let all: Vec<ChannelId> = self.model.channels.keys().copied().collect();
        let channel = *(if a.is_multiple_of(8) { pick(&all, b) } else { pick(&busy, b).or(pick(&all, b)) })
            .expect("a channel");
        let mut sim = self.sims.remove(&channel).unwrap_or_default();
        let answers: Vec<(PartId, Outcome)> = if sim.lost && c.is_multiple_of(2) {
            sim.said.clone()
        } else if c % 10 < 7 {
            // Windows answers all of its batch, or a part of it.
            let some = if c.is_multiple_of(3) { sim.held.len().min(1) } else { sim.held.len() };
            sim.held.iter().take(some).enumerate().map(|(n, part)| (*part, outcome(d + n * 3))).collect()
        } else {
            Vec::new()
        };
        let answering: Vec<PartId> = answers.iter().map(|(part, _)| *part).collect();
        let skip = answers.iter().any(|(_, o)| *o == Outcome::NotNow);
        let limit = if a.is_multiple_of(3) { 1 + b % 4 } else { 1 };
        let quiet = (200, step.other_node);
        let Told::Offer(hand, _) = self.call(What::Peek { channel, answering, skip, limit }, quiet) else {
            panic!("a peek")
        };
        if step.kind == Kind::PollThatIsOvertaken {
            // Between the plan and the transaction somebody else moves the queue, on the other server.
            let other = (200, !step.other_node);
            match hand.first().and_then(|part| self.model.command_of(*part)) {
                Some(command) if b.is_multiple_of(2) => drop(self.call(What::GiveUp(command), other)),
                _ => {
                    let mut wish = self.wish(a, b, c, d);
                    (wish.channel, wish.enrollment, wish.lane, wish.coalesce) =
                        (channel, self.model.channels[&channel].enrollment, Lane::Emergency, None);
                    self.note_parts(&wish);
                    self.call(What::Insert { wish, key: None }, other);
                }
            }
        }
        let delivery = self.ids.next();
        let what = What::Exchange { channel, delivery, answers: answers.clone(), hand: hand.clone(), skip };
        let told = self.call(what, (step.fate, step.other_node));
        sim.said = answers;
        sim.lost = step.kind == Kind::PollWhoseReplyIsLost;
        if !sim.lost {
            sim.held = match told {
                Told::Exchanged(_, Some(Handed::Done { .. })) => hand,
                _ => Vec::new(),
            };
        }
        self.sims.insert(channel, sim);
    }

    /// One call, on the store and on the model. `how`: its fate, and through which server.
    fn call(&mut self, what: What, (fate, other): (u8, bool)) -> Told {
        let act = Act { mark: self.ids.mark(), now: self.now, what };
        let reads = matches!(act.what, What::Peek { .. } | What::Look { .. });
        if !reads
            && fate < 9
            && let Some(told) = self.dies(&act, fate, other)
        {
            return told;
        }
        let told = act::run(self.place.node(other), &self.world, self.model.rules, &act, Fate::Lives);
        let told = told.unwrap_or_else(|why| panic!("{act:?}: {why:?}"));
        self.tally.add(FATE, if reads { "read" } else { "committed" });
        if other && self.place.second.is_some() {
            self.tally.add(FATE, "through the second server");
        }
        self.expect(&act, told)
    }

    /// The same call before, in a transaction that does everything and never commits. An answer, if it did after all.
    fn dies(&mut self, act: &Act, fate: u8, other: bool) -> Option<Told> {
        let (name, fate) = match fate {
            0..3 => ("refused by its closure", Fate::Refuses),
            3..6 => ("panicked", Fate::Panics),
            _ if self.place.bed.is_postgres() => {
                ("its connection was cut before COMMIT", Fate::Cut(once(self.place.bed.backend_killer())))
            }
            _ => ("the server crashed before COMMIT", Fate::CutAndGone(once(self.place.bed.file_keeper()))),
        };
        let plug = matches!(fate, Fate::CutAndGone(_));
        let outcome = act::run(self.place.node(other), &self.world, self.model.rules, act, fate);
        // A closure that is refused halfway never comes to the plug.
        let crash = plug && self.place.bed.has_kept_files();
        if crash {
            // Files as they were in the moment of the crash; the old process' locks and caches are gone.
            self.place.eyes = None;
            self.place.bed.back_to_kept_files();
        }
        self.tally.add(FATE, name);
        match outcome {
            // The store saw that the connection was gone and ran the closure again.
            Ok(told @ (Told::Over | Told::Replayed(_))) => drop(self.expect(act, told)),
            Ok(told) => return Some(self.expect(act, told)),
            Err(
                Stop::Refused
                | Stop::Store(
                    StoreError::Panicked(_)
                    | StoreError::Unknown
                    | StoreError::Unavailable(_)
                    | StoreError::Busy(_),
                ),
            ) => {}
            Err(why) => panic!("{name}: {why:?}"),
        }
        self.same(name);
        self.tally.add(PROMISE, "Q13 a transaction that did not commit leaves no trace");
        if crash || name.starts_with("its connection") {
            self.tally.add(PROMISE, "Q1 a crash before COMMIT leaves every row as it was");
        }
        None
    }

    /// The model does it too, and must be told the same.
    fn expect(&mut self, act: &Act, told: Told) -> Told {
        let before: BTreeMap<CommandId, CommandState> =
            self.model.commands.iter().map(|(id, c)| (*id, c.state())).collect();
        let mut hits = Hits::new();
        let want = self.model.apply(act, &mut hits);
        assert_eq!(told, want, "the store's answer, and the model's, to {act:?}");
        hits.sort_unstable();
        hits.dedup();
        hits.into_iter().for_each(|hit| self.tally.add(PROMISE, hit));
        for (id, c) in &self.model.commands {
            let (old, new) = (before.get(id), c.state());
            if old != Some(&new) {
                assert!(old.is_none_or(|old| !over(*old)), "a terminal state was left: {old:?} -> {new:?}");
                self.tally.add(STATE, new.as_str());
                self.tally.add(MOVE, format!("{} -> {new}", old.map_or("(new)", |s| s.as_str())));
                c.parts.iter().for_each(|p| self.tally.add(PART, p.state.as_str()));
            }
        }
        if let Told::Exchanged(verdicts, _) = &told {
            for verdict in verdicts {
                let name: &str = match verdict {
                    AnswerVerdict::Applied => "answer applied",
                    AnswerVerdict::Duplicate => "answer again",
                    AnswerVerdict::Conflict => "answer in conflict",
                    AnswerVerdict::Unknown => "answer to nobody",
                };
                self.tally.add("answer", name);
            }
        }
        told
    }

    fn same(&mut self, when: &str) {
        let site = self.world.site;
        let want = self.model.picture(site);
        same(&want, &self.place.eyes().look(site), when);
    }

    /// Every row is compared, everything is ended, and nothing is left behind.
    fn finish(&mut self) {
        self.same("at the end of the history");
        self.tally.add(PROMISE, "Q13 all rows equal the model's, entries and events too");
        let enrollments: Vec<EnrollmentId> = self.model.enrollments.keys().copied().collect();
        for id in enrollments {
            self.call(What::Supersede(id), (200, false));
        }
        self.same("when everything is over");
        assert!(self.model.commands.values().all(|c| c.over()));
        assert!(self.model.deliveries.values().all(|d| !d.open), "nothing waits, so no delivery is open");
        self.tally.add(PROMISE, "Q3 every command of a history is over in the end");
        while !self.model.commands.is_empty() {
            self.call(What::Purge { before: i64::MAX }, (200, true));
        }
        assert_eq!(self.place.eyes().left(), [0; 4], "a history leaves nothing in the queue's tables");
    }

    fn enroll(&mut self, device: DeviceId, claimant: Option<DeviceId>, how: (u8, bool)) {
        let what = What::Enroll {
            device,
            claimant,
            enrollment: self.ids.next(),
            identity: self.ids.next(),
            channels: [self.ids.next(), self.ids.next()],
        };
        self.call(what, how);
    }

    fn in_state(&self, state: EnrollmentState) -> Vec<EnrollmentId> {
        self.model.enrollments.iter().filter(|(_, e)| e.state == state).map(|(id, _)| *id).collect()
    }

    fn wish(&mut self, a: usize, b: usize, c: usize, d: usize) -> Wish {
        let living: Vec<ChannelId> =
            self.model.channels.iter().filter(|(_, c)| c.enabled).map(|(id, _)| *id).collect();
        let all: Vec<ChannelId> = self.model.channels.keys().copied().collect();
        let channel =
            *(if a.is_multiple_of(10) { pick(&all, b) } else { pick(&living, b).or(pick(&all, b)) })
                .expect("a channel");
        let lanes = [Lane::Emergency, Lane::Interactive, Lane::Interactive, Lane::Policy, Lane::Inventory];
        let guarantees = [
            Guarantee::AtMostOnce,
            Guarantee::UntilSilent,
            Guarantee::UntilAnswered,
            Guarantee::UntilAnswered,
            Guarantee::UntilAnswered,
        ];
        Wish {
            id: self.ids.next(),
            enrollment: self.model.channels[&channel].enrollment,
            channel,
            lane: lanes[c % 5],
            guarantee: guarantees[d % 5],
            coalesce: (c % 11 < 4).then_some((c % 2) as u8),
            held: d.is_multiple_of(13),
            not_before: (d.is_multiple_of(17)).then_some(self.now + (b % 20_000) as i64),
            expires: self.now + 1 + ((a * 3 + d) % 200_000) as i64,
            parts: (0..[1, 1, 1, 2, 3][(a + d) % 5]).map(|_| self.ids.next()).collect(),
            job: None,
        }
    }

    fn note_parts(&mut self, wish: &Wish) {
        self.made.extend(wish.parts.iter().map(|part| (*part, wish.channel, wish.id)));
    }
}

fn pick<T>(some: &[T], at: usize) -> Option<&T> {
    at.checked_rem(some.len()).and_then(|at| some.get(at))
}

/// Mostly done; the rest evenly.
fn outcome(n: usize) -> Outcome {
    match n % 10 {
        0..5 => Outcome::Acknowledged,
        5 | 6 => Outcome::Failed,
        7 => Outcome::Accepted,
        _ => Outcome::NotNow,
    }
}

fn over(state: CommandState) -> bool {
    use CommandState::*;
    match state {
        Acknowledged | Failed | Expired | Cancelled | Superseded => true,
        Held | Queued | Sent | NotNow | Accepted => false,
    }
}

/// A closure may be run again; the plug is pulled once.
fn once(cut: impl Fn() + Send + Sync + 'static) -> Arc<dyn Fn() + Send + Sync> {
    let done = AtomicBool::new(false);
    Arc::new(move || {
        if !done.swap(true, Ordering::SeqCst) {
            cut();
        }
    })
}
