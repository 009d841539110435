//! Calls that really happen at once: threads on two servers of one PostgreSQL, and on the one server of SQLite.
//!
//! Every call's answer and its time are written down. Afterwards there must be one order of all calls, in which none
//! stands before another that was answered before it began, that the reference model explains: every answer the same,
//! and in the end every row. On PostgreSQL connections are cut meanwhile; a call whose COMMIT got no answer may have
//! happened or not, and one that was refused may not.
//!
//! Reads are left out of the order on PostgreSQL: they see a snapshot, and between two writers who did not see each other
//! a snapshot may show the later one only. A plan made on it is tried again by the write that carries it out.
//!
//! `BELLWETHER_MODEL_ROUNDS` says how many rounds each backend plays; `BELLWETHER_MODEL_SEED` repeats the choices, not
//! the race.

use super::act::{self, Fate, Stop};
use super::calls::{Act, Handed, Told, What, Wish};
use super::picture::{Picture, same};
use super::place::{Ids, Place};
use super::reference::{Hits, Model, Rules};
use super::tally::Tally;
use super::{clock_seed, number, say, silence_planned_panics};
use crate::harness::Bed;
use crate::world::{self, T0, World};
use bellwether_model::*;
use bellwether_store::{Store, StoreError};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const THREADS: usize = 4;
/// Calls of one thread in one round; a poll is two.
const CALLS: usize = 4;
/// Rounds on one site.
const ROUNDS: u64 = 12;
/// Orders that are tried before a round counts as unexplained.
const TRIED: usize = 400_000;

#[test]
fn what_happens_at_once_on_two_servers_of_one_postgres_has_an_order() {
    silence_planned_panics();
    if let Some(bed) = Bed::postgres() {
        play(bed, "two servers on one PostgreSQL", 180);
    }
}

#[test]
fn what_happens_at_once_on_sqlite_has_an_order() {
    silence_planned_panics();
    play(Bed::sqlite_in_memory(), "one server on SQLite", 180);
}

/// A call as it was seen from outside.
struct Seen {
    act: Act,
    /// `None`: COMMIT was not answered.
    told: Option<Told>,
    begun: u64,
    ended: u64,
}

fn play(bed: Bed, title: &str, default: u64) {
    let rounds = number("BELLWETHER_MODEL_ROUNDS").unwrap_or(default);
    let seed = number("BELLWETHER_MODEL_SEED").unwrap_or_else(clock_seed);
    say(&format!("{title}: seed {seed}"));
    let mut dice = Dice(seed);
    let mut place = Place::new(bed);
    let mut tally = Tally::default();
    let mut round = 0;
    while round < rounds {
        let (world, mut model) = begin(&mut place, &mut dice);
        for _ in 0..ROUNDS.min(rounds - round) {
            // Now and then time passes, so that there is something to expire and to send again.
            let now = T0.0 + (round as i64) * 9_000;
            let cuts = place.second.is_some() && round % 3 == 2;
            model = one_round(&mut place, &world, model, now, &mut dice, cuts, &mut tally);
            round += 1;
        }
        clear(&mut place, &world, model, T0.0 + (round as i64) * 9_000);
    }
    tally.print(&format!("{title}, {THREADS} threads, {rounds} rounds"));
    assert!(tally.of("call", "beside another") * 2 > tally.sum("answer"), "most calls met others");
}

fn begin(place: &mut Place, dice: &mut Dice) -> (World, Model) {
    let world = World {
        site: world::id(),
        authority: world::id(),
        device: world::id(),
        identity: world::id(),
        enrollment: world::id(),
        channel: world::id(),
    };
    act::found_site(place.node(false), &world);
    let not_now_pause = if dice.below(2) == 0 { 0 } else { 4_000 };
    let rules =
        Rules { max_sends: 3, park_for: 30_000, not_now_pause, silent_pause: 15_000, accepted_for: 60_000 };
    let (mut model, mut ids) = (Model::new(rules), Ids::new());
    for _ in 0..2 {
        let device = ids.next();
        one(place, &world, &mut model, &mut ids, T0.0, enrolls(&mut Ids::new(), device));
    }
    let channels: Vec<ChannelId> = model.channels.keys().copied().collect();
    for n in 0..3 {
        let targets = (0..8).map(|i| channels[(n + i) % channels.len()]).collect();
        let job = ids.next();
        one(place, &world, &mut model, &mut ids, T0.0, What::JobStart { job, targets });
    }
    (world, model)
}

fn clear(place: &mut Place, world: &World, mut model: Model, now: i64) {
    let mut ids = Ids::new();
    let enrollments: Vec<EnrollmentId> = model.enrollments.keys().copied().collect();
    for id in enrollments {
        one(place, world, &mut model, &mut ids, now, What::Supersede(id));
    }
    one(place, world, &mut model, &mut ids, now, What::Purge { before: i64::MAX });
    assert_eq!(place.eyes().left(), [0; 4], "nothing is left behind");
}

/// One call while nobody else calls.
fn one(place: &Place, world: &World, model: &mut Model, ids: &mut Ids, now: i64, what: What) {
    let act = Act { mark: ids.mark(), now, what };
    let told = act::run(place.node(false), world, model.rules, &act, Fate::Lives).expect("an answer");
    assert_eq!(told, model.apply(&act, &mut Hits::new()));
}

fn one_round(
    place: &mut Place,
    world: &World,
    model: Model,
    now: i64,
    dice: &mut Dice,
    cuts: bool,
    tally: &mut Tally,
) -> Model {
    let (clock, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Barrier::new(THREADS);
    let mut seen: Vec<Vec<Seen>> = Vec::new();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|n| {
                let mut caller = Caller {
                    store: place.node(n % 2 == 1).clone(),
                    world: *world,
                    model: model.clone(),
                    now,
                    dice: Dice(dice.next()),
                    ids: Ids::new(),
                    clock: &clock,
                    seen: Vec::new(),
                    errors: Tally::default(),
                };
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    while caller.seen.len() < CALLS && caller.errors.sum("call") < 8 {
                        caller.acts();
                    }
                    (caller.seen, caller.errors)
                })
            })
            .collect();
        if cuts {
            let (kill, over) = (place.bed.any_backend_killer(), &over);
            let pause = Duration::from_millis(2 + dice.next() % 12);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(pause);
                    kill();
                }
            });
        }
        let ended: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        over.store(true, Ordering::Relaxed);
        for outcome in ended {
            let (calls, errors) = outcome.expect("the caller lives");
            tally.merge(&errors);
            seen.push(calls);
        }
    });
    count(&seen, tally);
    if place.second.is_some() {
        let reads = |seen: &Seen| matches!(seen.act.what, What::Peek { .. } | What::Look { .. });
        seen.iter_mut().for_each(|calls| calls.retain(|call| !reads(call)));
    }
    let got = place.eyes().look(world.site);
    let mut search =
        Search { seen: &seen, want: &got, site: world.site, met: HashSet::new(), nearest: None, deepest: 0 };
    let found = search.explain(&model, &mut [0; THREADS]);
    tally.add("round", if cuts { "explained, with connections cut" } else { "explained" });
    found.unwrap_or_else(|| {
        for (n, calls) in seen.iter().enumerate() {
            for call in calls {
                say(&format!(
                    "thread {n} [{}-{}] {:?}\n    told {:?}",
                    call.begun, call.ended, call.act, call.told
                ));
            }
        }
        if let Some(nearest) = &search.nearest {
            same(nearest, &got, "every answer can be explained, the rows cannot");
        }
        panic!(
            "no order of {} calls explains the answers; {} fit at most",
            seen.iter().map(Vec::len).sum::<usize>(),
            search.deepest
        );
    })
}

fn count(seen: &[Vec<Seen>], tally: &mut Tally) {
    for (n, calls) in seen.iter().enumerate() {
        for call in calls {
            let meets = |other: &Seen| other.begun < call.ended && call.begun < other.ended;
            if seen.iter().enumerate().any(|(m, others)| m != n && others.iter().any(meets)) {
                tally.add("call", "beside another");
            }
            let what = format!("{:?}", call.act.what);
            let name: String = what.chars().take_while(|c| c.is_alphanumeric()).collect();
            let name = match &call.told {
                None => format!("{name}: COMMIT without an answer"),
                Some(Told::Exchanged(_, Some(Handed::Moved))) => format!("{name}: the plan was overtaken"),
                Some(Told::Same(_)) => format!("{name}: waits already"),
                Some(Told::Replayed(_)) => format!("{name}: the key was used"),
                Some(Told::Flag(false)) => format!("{name}: too late"),
                Some(_) => name,
            };
            tally.add("answer", name);
        }
    }
}

struct Search<'a> {
    seen: &'a [Vec<Seen>],
    want: &'a Picture,
    site: SiteId,
    /// Places and states where the search was before.
    met: HashSet<([usize; THREADS], u64)>,
    /// Rows of an order that explains every answer.
    nearest: Option<Picture>,
    deepest: usize,
}

impl Search<'_> {
    /// The state after an order that explains everything.
    fn explain(&mut self, model: &Model, at: &mut [usize; THREADS]) -> Option<Model> {
        self.deepest = self.deepest.max(at.iter().sum());
        if at.iter().zip(self.seen).all(|(at, calls)| *at == calls.len()) {
            let picture = model.picture(self.site);
            if picture == *self.want {
                return Some(model.clone());
            }
            self.nearest = Some(picture);
            return None;
        }
        let mut hasher = DefaultHasher::new();
        model.hash(&mut hasher);
        if self.met.len() > TRIED || !self.met.insert((*at, hasher.finish())) {
            return None;
        }
        let seen = self.seen;
        for thread in 0..seen.len() {
            let Some(call) = seen[thread].get(at[thread]) else { continue };
            let next = |n: usize| seen[n].get(at[n]);
            // Somebody's call was answered before this one began: that one goes first.
            if (0..seen.len()).any(|n| n != thread && next(n).is_some_and(|other| other.ended < call.begun)) {
                continue;
            }
            let mut after = model.clone();
            let told = after.apply(&call.act, &mut Hits::new());
            at[thread] += 1;
            if call.told.as_ref().is_none_or(|heard| *heard == told)
                && let Some(found) = self.explain(&after, at)
            {
                return Some(found);
            }
            if call.told.is_none()
                && let Some(found) = self.explain(model, at)
            {
                return Some(found);
            }
            at[thread] -= 1;
        }
        None
    }
}

/// One thread of one round.
struct Caller<'a> {
    store: Store,
    world: World,
    /// How everything stood before the round, and what this thread did since.
    model: Model,
    now: i64,
    dice: Dice,
    ids: Ids,
    clock: &'a AtomicU64,
    seen: Vec<Seen>,
    errors: Tally,
}

impl Caller<'_> {
    fn acts(&mut self) {
        let channel = self.channel();
        let enrollment = self.model.channels[&channel].enrollment;
        let command = self.command();
        match self.dice.below(40) {
            0..12 => {
                let wish = self.wish(channel);
                let key = (self.dice.below(3) == 0).then(|| self.dice.below(6) as u8);
                let what = What::Insert { wish, key };
                if self.call(what.clone()).is_none() && key.is_some() {
                    // Whether it happened or not: the same request under the same key resolves it (Q2).
                    self.call(what);
                }
            }
            12..26 => self.poll(channel),
            26..29 => drop(command.map(|id| self.call(What::Cancel(id)))),
            29 => drop(command.map(|id| self.call(What::GiveUp(id)))),
            30 => drop(command.map(|id| self.call(What::Release(id)))),
            31 => drop(command.map(|command| self.call(What::Look { command, channel }))),
            32 => drop(self.call(What::Expire)),
            33 => drop(self.call(What::Supersede(enrollment))),
            34 => drop(self.call(What::Purge { before: self.now - 9_000 })),
            35 => {
                let identity = self.ids.next();
                self.call(What::Renew { enrollment, identity });
            }
            36 => {
                let what = match self.dice.below(3) {
                    0 => What::End { enrollment, sweep: self.dice.below(2) == 0 },
                    1 => enrolls(&mut self.ids, self.model.enrollments[&enrollment].device),
                    _ => What::Revive(enrollment),
                };
                self.call(what);
            }
            37 => {
                let on = self.dice.below(3) > 0;
                self.call(What::Enable { channel, on });
            }
            _ => self.job(),
        }
    }

    /// A device's call, answering what it holds.
    fn poll(&mut self, channel: ChannelId) {
        let open =
            self.model.open(channel).map(|id| self.model.deliveries[&id].parts.clone()).unwrap_or_default();
        let held: Vec<PartId> =
            open.iter().filter(|(_, answered)| !answered).map(|(part, _)| *part).collect();
        let answers: Vec<(PartId, Outcome)> = if self.dice.below(10) < 7 {
            held.iter()
                .map(|part| (*part, Outcome::ALL[self.dice.below(Outcome::ALL.len() as u64) as usize]))
                .collect()
        } else {
            Vec::new()
        };
        let answering = answers.iter().map(|(part, _)| *part).collect();
        let skip = answers.iter().any(|(_, outcome)| *outcome == Outcome::NotNow);
        let limit = 1 + self.dice.below(3) as usize;
        let Some(Told::Offer(hand, _)) = self.call(What::Peek { channel, answering, skip, limit }) else {
            return;
        };
        let delivery = self.ids.next();
        self.call(What::Exchange { channel, delivery, answers, hand, skip });
    }

    fn job(&mut self) {
        let jobs: Vec<JobId> = self.model.jobs.keys().copied().collect();
        let job = jobs[self.dice.below(jobs.len() as u64) as usize];
        let (expected, targets) = (self.model.jobs[&job].done, self.model.jobs[&job].targets.clone());
        let chunk: Vec<ChannelId> = targets.iter().skip(expected).take(2).copied().collect();
        let last = expected + chunk.len() >= targets.len();
        let mut wishes = Vec::new();
        for channel in chunk {
            let mut wish = self.wish(channel);
            (wish.job, wish.coalesce) = (Some(job), None);
            wishes.push(wish);
        }
        self.call(What::JobChunk { job, expected, wishes, last });
    }

    fn call(&mut self, what: What) -> Option<Told> {
        let act = Act { mark: self.ids.mark(), now: self.now, what };
        let begun = self.clock.fetch_add(1, Ordering::SeqCst);
        let outcome = act::run(&self.store, &self.world, self.model.rules, &act, Fate::Lives);
        let ended = self.clock.fetch_add(1, Ordering::SeqCst);
        let told = match outcome {
            Ok(told) => Some(told),
            Err(Stop::Store(StoreError::Unknown)) => None,
            Err(Stop::Store(why @ (StoreError::Busy(_) | StoreError::Unavailable(_)))) => {
                self.errors.add(
                    "call",
                    if matches!(why, StoreError::Busy(_)) {
                        "told to try again: busy"
                    } else {
                        "told to try again: no database"
                    },
                );
                return None;
            }
            Err(why) => panic!("{act:?}: {why:?}"),
        };
        // What this thread believes; others may have been quicker.
        if told.is_some() {
            self.model.apply(&act, &mut Hits::new());
        }
        self.seen.push(Seen { act, told: told.clone(), begun, ended });
        told
    }

    fn channel(&mut self) -> ChannelId {
        let living: Vec<ChannelId> =
            self.model.channels.iter().filter(|(_, c)| c.enabled).map(|(id, _)| *id).collect();
        let all: Vec<ChannelId> = self.model.channels.keys().copied().collect();
        let from = if living.is_empty() || self.dice.below(12) == 0 { all } else { living };
        // Few channels, so that threads meet.
        from[self.dice.below(from.len().min(3) as u64) as usize]
    }

    fn command(&mut self) -> Option<CommandId> {
        let all: Vec<CommandId> =
            self.model.commands.iter().filter(|(_, c)| !c.over()).map(|(id, _)| *id).collect();
        (!all.is_empty()).then(|| all[self.dice.below(all.len() as u64) as usize])
    }

    fn wish(&mut self, channel: ChannelId) -> Wish {
        let d = &mut self.dice;
        let lane = [Lane::Emergency, Lane::Interactive, Lane::Policy, Lane::Inventory][d.below(4) as usize];
        let guarantee = [
            Guarantee::AtMostOnce,
            Guarantee::UntilSilent,
            Guarantee::UntilAnswered,
            Guarantee::UntilAnswered,
        ][d.below(4) as usize];
        let coalesce = (d.below(3) == 0).then(|| d.below(2) as u8);
        let (held, life, parts) = (d.below(12) == 0, 5_000 + d.below(100_000) as i64, 1 + d.below(2));
        Wish {
            id: self.ids.next(),
            enrollment: self.model.channels[&channel].enrollment,
            channel,
            lane,
            guarantee,
            coalesce,
            held,
            not_before: None,
            expires: self.now + life,
            parts: (0..parts).map(|_| self.ids.next()).collect(),
            job: None,
        }
    }
}

fn enrolls(ids: &mut Ids, device: DeviceId) -> What {
    What::Enroll {
        device,
        claimant: None,
        enrollment: ids.next(),
        identity: ids.next(),
        channels: [ids.next(), ids.next()],
    }
}

/// Numbers that look random and can be had again (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}
