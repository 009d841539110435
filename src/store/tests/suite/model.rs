//! The queue against a reference model that shares no code with it: a list of commands in memory.
//!
//! `BELLWETHER_MODEL_CASES` says how many random histories are run on each backend (default 60 on SQLite, 6 on
//! PostgreSQL), of up to 80 steps each.

use crate::harness::Bed;
use crate::world::*;
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use bellwether_store::records::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        lane: usize,
        guarantee: usize,
        parts: usize,
        key: Option<u8>,
        life: i64,
        held: bool,
    },
    /// The device calls; with an answer to what it holds, when it holds something.
    Poll {
        answer: Option<usize>,
    },
    /// An answer about any part ever made: late, early or twice.
    Stray {
        which: usize,
        outcome: usize,
    },
    Cancel(usize),
    /// The device has what a part would bring.
    Spare(usize),
    Release(usize),
    Wait(i64),
    Expire,
    Supersede,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_usize, 0..6_usize, 1..4_usize, prop::option::weighted(0.3, 0..3_u8), 1..200_i64, prop::bool::weighted(0.1))
            .prop_map(|(lane, guarantee, parts, key, life, held)| Step::Insert { lane, guarantee, parts, key, life: life * 1_000, held }),
        12 => prop::option::weighted(0.7, 0..4_usize).prop_map(|answer| Step::Poll { answer }),
        2 => (any::<usize>(), 0..4_usize).prop_map(|(which, outcome)| Step::Stray { which, outcome }),
        2 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Spare),
        1 => any::<usize>().prop_map(Step::Release),
        4 => (1..90_000_i64).prop_map(Step::Wait),
        2 => Just(Step::Expire),
        1 => Just(Step::Supersede),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

/// A part in the reference model.
#[derive(Clone, Debug)]
struct MPart {
    id: PartId,
    state: PartState,
    sends: i32,
    last: i64,
    parked_until: i64,
}

/// A command in the reference model.
#[derive(Clone, Debug)]
struct MCommand {
    id: CommandId,
    lane: i32,
    guarantee: Guarantee,
    key: Option<u8>,
    held: bool,
    cancelled_or_over: bool,
    expires: i64,
    deadline: i64,
    sent: bool,
    parts: Vec<MPart>,
}

impl MCommand {
    fn over(&self) -> bool {
        self.cancelled_or_over || self.parts.iter().all(|p| is_over(p.state))
    }
}

fn is_over(state: PartState) -> bool {
    use PartState::*;
    match state {
        Acknowledged | Failed | Expired | Cancelled | Superseded => true,
        Queued | Sent | NotNow | Accepted => false,
    }
}

#[derive(Default)]
struct Model {
    commands: Vec<MCommand>,
    /// Index of command and part in the open delivery.
    open: Option<(usize, usize)>,
    now: i64,
}

impl Model {
    /// Whether a part may go out now, written from the product's words, not from the store's query.
    fn offerable(&self, c: &MCommand, p: &MPart, skip: bool) -> bool {
        if c.over() || c.held || c.expires <= self.now || p.parked_until > self.now {
            return false;
        }
        match p.state {
            PartState::Queued => true,
            PartState::NotNow => !skip,
            PartState::Sent => match c.guarantee {
                Guarantee::AtMostOnce => false,
                Guarantee::UntilSilent => p.last + RULES.silent_pause <= self.now,
                Guarantee::UntilAnswered => p.sends < RULES.max_sends || p.last + RULES.park_for <= self.now,
            },
            _ => false,
        }
    }

    fn next(&self, skip: bool, not_this: Option<PartId>) -> Option<(usize, usize)> {
        let mut best: Option<(i32, usize, usize)> = None;
        for (ci, c) in self.commands.iter().enumerate() {
            for (pi, p) in c.parts.iter().enumerate() {
                if Some(p.id) != not_this && self.offerable(c, p, skip) {
                    let rank = (c.lane, ci, pi);
                    if best.is_none_or(|b| rank < b) {
                        best = Some(rank);
                    }
                }
            }
        }
        let best = best.map(|(_, ci, pi)| (ci, pi));
        let Some((oc, op)) = self.open else { return best };
        let again = self.offerable(&self.commands[oc], &self.commands[oc].parts[op], false)
            && Some(self.commands[oc].parts[op].id) != not_this;
        if !again {
            return best;
        }
        match best {
            Some((ci, _)) if self.commands[ci].lane == 0 && self.commands[oc].lane > 0 => best,
            _ => Some((oc, op)),
        }
    }

    fn hand_over(&mut self, ci: usize, pi: usize) {
        if let Some((oc, op)) = self.open
            && (oc, op) != (ci, pi)
        {
            let c = &mut self.commands[oc];
            let p = &mut c.parts[op];
            if c.guarantee == Guarantee::UntilAnswered && p.sends >= RULES.max_sends {
                p.parked_until = p.parked_until.max(p.last + RULES.park_for);
            }
        }
        self.open = Some((ci, pi));
        let now = self.now;
        let c = &mut self.commands[ci];
        c.sent = true;
        let p = &mut c.parts[pi];
        p.state = PartState::Sent;
        p.sends += 1;
        p.last = now;
        p.parked_until = i64::MIN;
    }

    fn answer(&mut self, part: PartId, outcome: Outcome) -> AnswerVerdict {
        let now = self.now;
        let Some((ci, pi)) = self.find(part) else { return AnswerVerdict::Unknown };
        let c = &mut self.commands[ci];
        let p = &mut c.parts[pi];
        let new = outcome.part_state();
        let verdict = match (p.state, outcome) {
            (state, _) if is_over(state) && state == new => AnswerVerdict::Duplicate,
            (state, _) if is_over(state) => AnswerVerdict::Conflict,
            (PartState::Queued, _) => AnswerVerdict::Unknown,
            (PartState::Accepted, Outcome::Accepted) => AnswerVerdict::Duplicate,
            (PartState::Accepted, Outcome::NotNow) => AnswerVerdict::Conflict,
            _ => AnswerVerdict::Applied,
        };
        if verdict == AnswerVerdict::Applied {
            p.state = new;
            p.parked_until = i64::MIN;
            if outcome == Outcome::Accepted {
                c.deadline = c.deadline.max(now + RULES.accepted_for);
            }
            if self.open == Some((ci, pi)) {
                self.open = None;
            }
        }
        verdict
    }

    fn spare(&mut self, part: PartId) -> bool {
        let Some((ci, pi)) = self.find(part) else { return false };
        let held = self.commands[ci].held;
        let p = &mut self.commands[ci].parts[pi];
        let waits = p.state == PartState::Queued && !held;
        if waits {
            p.state = PartState::Acknowledged;
        }
        waits
    }

    fn find(&self, part: PartId) -> Option<(usize, usize)> {
        self.commands
            .iter()
            .enumerate()
            .find_map(|(ci, c)| c.parts.iter().position(|p| p.id == part).map(|pi| (ci, pi)))
    }

    fn end(&mut self, ci: usize, how: PartState) {
        let c = &mut self.commands[ci];
        for p in c.parts.iter_mut().filter(|p| !is_over(p.state)) {
            p.state = how;
        }
        c.cancelled_or_over = true;
        if self.open.is_some_and(|(oc, _)| oc == ci) {
            self.open = None;
        }
    }
}

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static HANDED: Cell<u64> = const { Cell::new(0) };
}

fn history(bed: &mut Bed, steps: &[Step]) {
    let first = World::new(bed);
    let world = first;
    let mut model = Model { now: T0.0, ..Model::default() };
    let mut held_by_device: Option<PartId> = None;
    let lanes = [Lane::Emergency, Lane::Interactive, Lane::Policy, Lane::Inventory];
    for step in steps {
        STEPS.set(STEPS.get() + 1);
        let now = Timestamp(model.now);
        match step {
            Step::Insert { lane, guarantee, parts, key, life, held } => {
                let guarantee = match guarantee {
                    0 => Guarantee::AtMostOnce,
                    1 => Guarantee::UntilSilent,
                    _ => Guarantee::UntilAnswered,
                };
                let command = NewCommand {
                    lane: lanes[*lane],
                    guarantee,
                    coalesce_key: key.map(|k| k.to_string()),
                    held_reason: held.then(|| "held".to_owned()),
                    expires_at: Timestamp(model.now + life),
                    parts: (0..*parts).map(|_| (id(), "Request".to_owned())).collect(),
                    ..world.command()
                };
                let same = key.and_then(|k| {
                    model.commands.iter().find(|c| c.key == Some(k) && !c.sent && !c.over()).map(|c| c.id)
                });
                match (world.insert(bed, &command), same) {
                    (Inserted::Coalesced(got), Some(want)) => assert_eq!(got, want),
                    (Inserted::New(_), None) => model.commands.push(MCommand {
                        id: command.id,
                        lane: i32::try_from(*lane).unwrap(),
                        guarantee,
                        key: *key,
                        held: *held,
                        cancelled_or_over: false,
                        expires: model.now + life,
                        deadline: model.now + life,
                        sent: false,
                        parts: command
                            .parts
                            .iter()
                            .map(|(id, _)| MPart {
                                id: *id,
                                state: PartState::Queued,
                                sends: 0,
                                last: i64::MIN / 2,
                                parked_until: i64::MIN,
                            })
                            .collect(),
                    }),
                    (got, want) => panic!("insert: {got:?}, the model says {want:?}"),
                }
            }
            Step::Poll { answer } => {
                let answering = answer.zip(held_by_device).map(|(o, part)| (part, Outcome::ALL[o]));
                let skip = matches!(answering, Some((_, Outcome::NotNow)));
                let peek = Peek {
                    now,
                    answering: held_by_device.filter(|_| answering.is_some()).into_iter().collect(),
                    skip_not_now: skip,
                };
                // Planned before the answer is recorded, as the engine does …
                let plan = bed.read(world.site, |tx| tx.peek(world.channel, &peek, &RULES));
                let plan = plan.map(|c| c.part.id);
                // … and carried out with it in one transaction.
                let delivery = id();
                let (verdict, handed) = bed.write(world.site, move |tx| {
                    let verdict = match answering {
                        Some((part, outcome)) => {
                            Some(tx.answer(world.channel, part, &reply(outcome), now, &RULES)?.verdict)
                        }
                        None => None,
                    };
                    let handed = match plan {
                        Some(part) => {
                            let parts = [(part, Some(wire(part)))];
                            Some(tx.hand_over(world.channel, delivery, &parts, &peek, &RULES)?)
                        }
                        None => None,
                    };
                    Ok((verdict, handed))
                });
                if let Some((part, outcome)) = answering {
                    assert_eq!(verdict, Some(model.answer(part, outcome)));
                }
                let want = model.next(skip, answering.map(|(part, _)| part));
                let want_id = want.map(|(ci, pi)| model.commands[ci].parts[pi].id);
                assert_eq!(plan, want_id, "what is offered");
                if let Some((ci, pi)) = want {
                    assert!(matches!(handed, Some(HandOver::Done { .. })), "{handed:?}");
                    model.hand_over(ci, pi);
                    HANDED.set(HANDED.get() + 1);
                }
                held_by_device = want_id;
            }
            Step::Stray { which, outcome } => {
                let all: Vec<PartId> =
                    model.commands.iter().flat_map(|c| c.parts.iter().map(|p| p.id)).collect();
                if let Some(part) = all.get(which % all.len().max(1)) {
                    let outcome = Outcome::ALL[*outcome];
                    let got = world.answer(bed, *part, outcome, now).verdict;
                    assert_eq!(got, model.answer(*part, outcome));
                }
            }
            Step::Cancel(which) => {
                if let Some(ci) = which.checked_rem(model.commands.len()) {
                    let command = model.commands[ci].id;
                    let got = bed.write(world.site, move |tx| tx.command_cancel(command, now));
                    let c = &model.commands[ci];
                    match (c.over(), c.sent) {
                        (true, _) => assert!(matches!(got, Cancelled::AlreadyOver(_)), "{got:?}"),
                        (false, true) => assert!(matches!(got, Cancelled::AlreadySent(_)), "{got:?}"),
                        (false, false) => {
                            assert_eq!(got, Cancelled::Done);
                            model.end(ci, PartState::Cancelled);
                        }
                    }
                }
            }
            Step::Spare(which) => {
                let all: Vec<(CommandId, PartId)> =
                    model.commands.iter().flat_map(|c| c.parts.iter().map(|p| (c.id, p.id))).collect();
                if let Some((command, part)) =
                    which.checked_rem(all.len()).and_then(|at| all.get(at)).copied()
                {
                    let (spared, _) =
                        bed.write(world.site, move |tx| tx.parts_spare(command, &[part], now, "it has it"));
                    assert_eq!(spared == 1, model.spare(part));
                }
            }
            Step::Release(which) => {
                if let Some(ci) = which.checked_rem(model.commands.len()) {
                    let c = &mut model.commands[ci];
                    let (command, want) = (c.id, c.held && !c.over());
                    assert_eq!(bed.write(world.site, move |tx| tx.command_release(command)), want);
                    c.held = false;
                }
            }
            Step::Wait(millis) => model.now += millis,
            Step::Expire => {
                let mut got: Vec<_> =
                    bed.system(move |tx| tx.expire_due(now, 500)).into_iter().map(|(_, id)| id).collect();
                let due: Vec<usize> = (0..model.commands.len())
                    .filter(|ci| !model.commands[*ci].over() && model.commands[*ci].deadline <= model.now)
                    .collect();
                let mut want: Vec<_> = due.iter().map(|ci| model.commands[*ci].id).collect();
                got.sort();
                want.sort();
                assert_eq!(got, want, "what expires");
                due.into_iter().for_each(|ci| model.end(ci, PartState::Expired));
            }
            Step::Supersede => {
                let waiting: Vec<usize> =
                    (0..model.commands.len()).filter(|ci| !model.commands[*ci].over()).collect();
                let got = bed
                    .write(world.site, move |tx| tx.supersede_commands(world.enrollment, now, "over", 500));
                assert_eq!(got, i64::try_from(waiting.len()).unwrap());
                waiting.into_iter().for_each(|ci| model.end(ci, PartState::Superseded));
            }
            Step::Reopen => bed.reopen(),
        }
    }
    compare(bed, &world, &model);
}

/// In the end both must tell the same story about every part and every command.
fn compare(bed: &Bed, world: &World, model: &Model) {
    for c in &model.commands {
        let command = bed.read(world.site, |tx| tx.command(c.id)).expect("no command is lost (Q3)");
        assert_eq!(command.state.is_terminal(), c.over(), "{command:?}");
        assert_eq!(command.finished_at.is_some(), c.over());
        assert_eq!(command.first_sent_at.is_some(), c.sent);
        assert!(command.note.is_some(), "a command can always say why it waits");
        for p in &c.parts {
            let part = world.part(bed, p.id);
            assert_eq!((part.state, part.sends), (p.state, p.sends), "{part:?}");
            assert_eq!(part.wire.is_some(), p.sends > 0);
        }
    }
    let waiting = model.commands.iter().filter(|c| !c.over()).count();
    let count = bed.read(world.site, |tx| tx.pending_count(world.channel));
    assert_eq!(count, i64::try_from(waiting).unwrap());
    let open = bed.system(|tx| tx.queue_stats()).open_deliveries;
    assert_eq!(open, i64::from(model.open.is_some()));
}

fn run(bed: &dyn Fn() -> Bed, default: u32) {
    let cases = std::env::var("BELLWETHER_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        history(&mut bed(), &steps);
        Ok(())
    });
    println!("{cases} histories, {} steps, {} hand-overs compared", STEPS.get(), HANDED.get());
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

#[test]
fn the_queue_equals_its_model_on_sqlite() {
    run(&Bed::sqlite, 60);
}

#[test]
fn the_queue_equals_its_model_on_postgres() {
    if Bed::postgres().is_some() {
        run(&|| Bed::postgres().expect("it was there a moment ago"), 6);
    }
}
