//! The queue's promises about order, delivery and answers (product specification 5.2).

use crate::world::*;
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, StoreError};

on_every_backend! {
    fn q01_an_accepted_command_survives_a_restart(bed: &mut Bed) {
        let world = World::new(bed);
        let command = world.command();
        assert_eq!(world.insert(bed, &command), Inserted::New(1));
        bed.reopen();
        assert_eq!(world.get(bed, &command).state, CommandState::Queued);
        assert_eq!(world.poll(bed, at(1)), Some(first(&command)));
    }

    fn q02_the_same_idempotency_key_makes_no_second_command(bed: &mut Bed) {
        let world = World::new(bed);
        let stored = Idempotent { key_hash: vec![1; 32], request_hash: vec![2; 32], status: 202, body: vec![3], created_at: T0 };
        for round in 0..2 {
            let (command, row) = (world.command(), stored.clone());
            let outcome = bed.try_write(Scope::Site(world.site), move |tx| {
                tx.command_insert(&command)?;
                match tx.idempotent_put(&row)? {
                    None => Ok(()),
                    Some(_) => Err(StoreError::Misuse("seen before")),
                }
            });
            let told = if round == 0 { Ok(()) } else { Err(StoreError::Misuse("seen before")) };
            assert_eq!(outcome, told, "the stored answer, and no error of the database");
        }
        assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 1);
        assert_eq!(bed.read(world.site, |tx| tx.idempotent(&[1; 32])), Some(stored));
    }

    fn q04_an_unanswered_part_is_sent_again_with_the_same_bytes(bed: &mut Bed) {
        let world = World::new(bed);
        let command = world.command();
        world.insert(bed, &command);
        let part = world.poll(bed, at(1)).expect("offered");
        let again = world.peek(bed, at(2)).expect("offered again");
        assert_eq!((again.part.id, again.part.wire), (part, Some(wire(part))));
        let delivery = again.resend_of.expect("a resend");
        let peek = Peek { now: at(2), answering: Vec::new(), skip_not_now: false };
        let handed = bed.write(world.site, move |tx| {
            tx.hand_over(world.channel, id(), &[(part, Some(b"other bytes".to_vec()))], &peek, &RULES)
        });
        assert_eq!(handed, HandOver::Done { delivery, resent: true });
        let part = world.part(bed, part);
        assert_eq!((part.sends, part.wire), (2, Some(wire(part.id))));
    }

    fn q04_exactly_one_result_is_accepted(bed: &mut Bed) {
        let world = World::new(bed);
        let command = world.command();
        world.insert(bed, &command);
        let part = world.poll(bed, at(1)).expect("offered");
        let first = world.answer(bed, part, Outcome::Acknowledged, at(2));
        assert_eq!((first.verdict, first.before), (AnswerVerdict::Applied, Some(CommandState::Sent)));
        assert_eq!(first.command.expect("known").state, CommandState::Acknowledged);
        assert_eq!(world.answer(bed, part, Outcome::Acknowledged, at(3)).verdict, AnswerVerdict::Duplicate);
        assert_eq!(world.answer(bed, part, Outcome::Failed, at(4)).verdict, AnswerVerdict::Conflict);
        let end = world.get(bed, &command);
        assert_eq!((end.state, end.finished_at), (CommandState::Acknowledged, Some(at(2))));
        assert_eq!(world.part(bed, part).answer, Some(b"acknowledged".to_vec()));
        assert_eq!(world.poll(bed, at(5)), None);
    }

    fn q05_lanes_first_then_first_in_first_out(bed: &mut Bed) {
        let world = World::new(bed);
        let lanes = [Lane::Inventory, Lane::Policy, Lane::Interactive, Lane::Emergency];
        let commands: Vec<_> = (0..8).map(|n| NewCommand { lane: lanes[n % 4], ..world.command() }).collect();
        for (n, command) in commands.iter().enumerate() {
            assert_eq!(world.insert(bed, command), Inserted::New(n as i64 + 1));
        }
        let mut got = Vec::new();
        while let Some(part) = world.poll(bed, at(1)) {
            world.answer(bed, part, Outcome::Acknowledged, at(1));
            got.push(part);
        }
        let want: Vec<_> = [3, 7, 2, 6, 1, 5, 0, 4].iter().map(|n| first(&commands[*n])).collect();
        assert_eq!(got, want);
    }

    fn q07_not_now_is_kept_while_others_go_on(bed: &mut Bed) {
        let world = World::new(bed);
        let (slow, quick) = (world.command(), world.command());
        world.insert(bed, &slow);
        world.insert(bed, &quick);
        assert_eq!(world.poll(bed, at(1)), Some(first(&slow)));
        // The poll that carries the NotNow is offered the next one, and the plan made before the answer is recorded
        // holds after it.
        let peek = Peek { now: at(2), answering: vec![first(&slow)], skip_not_now: true };
        let plan = bed.read(world.site, |tx| tx.peek(world.channel, &peek, &RULES)).expect("offered");
        assert_eq!(plan.part.id, first(&quick));
        let (slow_part, quick_part) = (first(&slow), first(&quick));
        let handed = bed.write(world.site, move |tx| {
            tx.answer(world.channel, slow_part, &reply(Outcome::NotNow), at(2), &RULES)?;
            tx.session_word(world.channel, true)?;
            tx.hand_over(world.channel, id(), &[(quick_part, Some(vec![1]))], &peek, &RULES)
        });
        assert!(matches!(handed, HandOver::Done { resent: false, .. }));
        assert!(bed.read(world.site, |tx| tx.channel(world.channel)).expect("there").last_was_not_now);
        let waiting = world.get(bed, &slow);
        assert_eq!(waiting.state, CommandState::NotNow);
        assert!(waiting.note.expect("says why").contains("not now"));
        world.answer(bed, first(&quick), Outcome::Acknowledged, at(3));
        // Skipped in this session, offered on the next call.
        let same = Peek { now: at(3), answering: Vec::new(), skip_not_now: true };
        assert_eq!(bed.read(world.site, |tx| tx.peek(world.channel, &same, &RULES)), None);
        assert_eq!(world.poll(bed, at(4)), Some(first(&slow)));
        assert_eq!(world.answer(bed, first(&slow), Outcome::Acknowledged, at(5)).verdict, AnswerVerdict::Applied);
    }

    fn q07_a_command_that_always_says_not_now_hides_no_other(bed: &mut Bed) {
        let world = World::new(bed);
        let commands: Vec<_> = (0..3).map(|_| NewCommand { expires_at: at(1_000_000_000), ..world.command() }).collect();
        for command in &commands {
            world.insert(bed, command);
        }
        for day in 0..3 {
            let mut now = day * 86_400_000;
            let mut asked = vec![world.poll(bed, at(now)).expect("offered")];
            loop {
                let last = *asked.last().expect("one");
                world.answer(bed, last, Outcome::NotNow, at(now));
                now += 1_000;
                let after = Peek { now: at(now), answering: vec![last], skip_not_now: true };
                let Some(next) = bed.read(world.site, |tx| tx.peek(world.channel, &after, &RULES)) else { break };
                let handed = [(next.part.id, Some(wire(next.part.id)))];
                let delivery = id();
                let handed = bed.write(world.site, move |tx| tx.hand_over(world.channel, delivery, &handed, &after, &RULES));
                assert!(matches!(handed, HandOver::Done { .. }), "day {day}");
                asked.push(next.part.id);
            }
            assert_eq!(asked, commands.iter().map(first).collect::<Vec<_>>(), "day {day}: each once, in order");
        }
    }

    fn q07_a_pause_after_not_now_grows_with_its_count(bed: &mut Bed) {
        let world = World::new(bed);
        let command = world.command();
        world.insert(bed, &command);
        let part = world.poll(bed, at(1)).expect("offered");
        let rules = QueueRules { not_now_pause: 100, ..RULES };
        bed.write(world.site, move |tx| tx.answer(world.channel, part, &reply(Outcome::NotNow), at(2), &rules));
        assert_eq!(world.poll(bed, at(101)), None);
        assert_eq!(world.poll(bed, at(102)), Some(part));
        bed.write(world.site, move |tx| tx.answer(world.channel, part, &reply(Outcome::NotNow), at(103), &rules));
        assert_eq!(world.part(bed, part).not_before, Some(at(303)));
    }

    fn q08_a_part_that_is_never_answered_is_parked(bed: &mut Bed) {
        let world = World::new(bed);
        let (deaf, other) = (world.command(), world.command());
        world.insert(bed, &deaf);
        for n in 1..=3 {
            assert_eq!(world.poll(bed, at(n)), Some(first(&deaf)), "hand-over {n}");
        }
        assert_eq!(world.poll(bed, at(4)), None, "parked, and nothing else waits");
        assert!(world.get(bed, &deaf).note.expect("says why").contains("parked"));
        world.insert(bed, &other);
        assert_eq!(world.poll(bed, at(5)), Some(first(&other)), "the queue moves on");
        assert_eq!(world.part(bed, first(&deaf)).not_before, Some(at(3 + 60_000)), "shown as parked until then");
        world.answer(bed, first(&other), Outcome::Acknowledged, at(6));
        assert_eq!(world.poll(bed, at(7)), None);
        assert_eq!(world.poll(bed, at(3 + 60_000)), Some(first(&deaf)), "and tries again later");
        assert_eq!(world.poll(bed, at(4 + 60_000)), None, "once per pause");
        assert_eq!(world.answer(bed, first(&deaf), Outcome::Acknowledged, at(5 + 60_000)).verdict, AnswerVerdict::Applied);
    }

    fn q09_the_same_wish_waits_once(bed: &mut Bed) {
        let world = World::new(bed);
        let make = || NewCommand { coalesce_key: Some("inventory".into()), ..world.command() };
        let one = make();
        assert_eq!(world.insert(bed, &one), Inserted::New(1));
        for _ in 0..20 {
            assert_eq!(world.insert(bed, &make()), Inserted::Coalesced(one.id));
        }
        assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 1);
        world.poll(bed, at(1));
        let two = make();
        assert!(matches!(world.insert(bed, &two), Inserted::New(_)), "what is on its way may be stale already");
        bed.write(world.site, move |tx| tx.command_cancel(two.id, at(2)));
        assert!(matches!(world.insert(bed, &make()), Inserted::New(_)), "a cancelled one waits no more");
    }

    fn q17_answers_that_nobody_knows_are_never_errors(bed: &mut Bed) {
        let world = World::new(bed);
        let other = world.another(bed);
        let command = world.command();
        world.insert(bed, &command);
        let unknown = |answered: Answered| assert_eq!((answered.verdict, answered.command), (AnswerVerdict::Unknown, None));
        unknown(world.answer(bed, id(), Outcome::Acknowledged, at(1)));
        world.poll(bed, at(1));
        unknown(other.answer(bed, first(&command), Outcome::Acknowledged, at(2)));
        assert_eq!(world.get(bed, &command).state, CommandState::Sent);
        let queued = world.command();
        world.insert(bed, &queued);
        let early = world.answer(bed, first(&queued), Outcome::Acknowledged, at(2));
        assert_eq!(early.verdict, AnswerVerdict::Unknown, "nobody can answer what was not sent");
        assert_eq!(world.get(bed, &queued).state, CommandState::Queued);
    }

    fn an_emergency_overtakes_an_unanswered_delivery(bed: &mut Bed) {
        let world = World::new(bed);
        let slow = world.command();
        world.insert(bed, &slow);
        world.poll(bed, at(1));
        let wipe = NewCommand { lane: Lane::Emergency, guarantee: Guarantee::UntilSilent, ..world.command() };
        world.insert(bed, &wipe);
        assert_eq!(world.poll(bed, at(2)), Some(first(&wipe)));
        assert_eq!(world.answer(bed, first(&slow), Outcome::Acknowledged, at(3)).verdict, AnswerVerdict::Applied);
        // The wipe is not sent again within its pause, and then it is.
        assert_eq!(world.poll(bed, at(4)), None);
        assert_eq!(world.poll(bed, at(2 + 30_000)), Some(first(&wipe)));
        for n in 2..12 {
            assert_eq!(world.poll(bed, at(2 + n * 30_000)), Some(first(&wipe)), "never parked");
        }
    }

    fn an_overtaken_part_is_offered_again(bed: &mut Bed) {
        let world = World::new(bed);
        let slow = world.command();
        world.insert(bed, &slow);
        world.poll(bed, at(1));
        let lock = NewCommand { lane: Lane::Emergency, ..world.command() };
        world.insert(bed, &lock);
        assert_eq!(world.poll(bed, at(2)), Some(first(&lock)));
        assert_eq!(world.poll(bed, at(3)), Some(first(&lock)), "an emergency does not give way to a lower lane");
        world.answer(bed, first(&lock), Outcome::Acknowledged, at(4));
        assert_eq!(world.poll(bed, at(5)), Some(first(&slow)));
    }

    fn at_most_once_is_handed_over_once(bed: &mut Bed) {
        let world = World::new(bed);
        let once = NewCommand { guarantee: Guarantee::AtMostOnce, ..world.command() };
        let other = world.command();
        world.insert(bed, &once);
        world.insert(bed, &other);
        assert_eq!(world.poll(bed, at(1)), Some(first(&once)));
        assert_eq!(world.poll(bed, at(2)), Some(first(&other)));
        world.answer(bed, first(&other), Outcome::Acknowledged, at(3));
        assert_eq!(world.poll(bed, at(90_000)), None);
        assert_eq!(world.answer(bed, first(&once), Outcome::Acknowledged, at(90_001)).verdict, AnswerVerdict::Applied);
    }

    fn a_delivery_may_carry_several_parts(bed: &mut Bed) {
        let world = World::new(bed);
        let two = NewCommand { parts: vec![(id(), "Add".into()), (id(), "Exec".into())], ..world.command() };
        let one = world.command();
        world.insert(bed, &two);
        world.insert(bed, &one);
        let peek = Peek { now: at(1), answering: Vec::new(), skip_not_now: false };
        let offered = bed.read(world.site, |tx| tx.peek_many(world.channel, &peek, &RULES, 10));
        let parts: Vec<_> = offered.iter().map(|c| c.part.id).collect();
        assert_eq!(parts, [two.parts[0].0, two.parts[1].0, first(&one)]);
        assert!(matches!(world.hand_over(bed, &parts, at(1)), HandOver::Done { resent: false, .. }));
        assert_eq!(world.hand_over(bed, &parts[1..], at(1)), HandOver::Moved, "not what is to be sent");
        world.answer(bed, parts[0], Outcome::Acknowledged, at(2));
        assert_eq!(world.get(bed, &two).state, CommandState::Sent);
        let again = bed.read(world.site, |tx| tx.peek_many(world.channel, &peek, &RULES, 10));
        assert_eq!(again.iter().map(|c| c.part.id).collect::<Vec<_>>(), parts[1..]);
        assert!(again.iter().all(|c| c.resend_of.is_some()));
        world.answer(bed, parts[1], Outcome::Failed, at(3));
        assert_eq!(world.get(bed, &two).state, CommandState::Failed);
        assert_eq!(world.answer(bed, parts[2], Outcome::Acknowledged, at(3)).verdict, AnswerVerdict::Applied);
        assert_eq!(bed.system(|tx| tx.queue_stats()), QueueStats::default());
    }

    fn accepted_frees_the_channel_and_waits_for_its_outcome(bed: &mut Bed) {
        let world = World::new(bed);
        let (install, next) = (world.command(), world.command());
        world.insert(bed, &install);
        world.insert(bed, &next);
        world.poll(bed, at(1));
        world.answer(bed, first(&install), Outcome::Accepted, at(2));
        assert_eq!(world.get(bed, &install).state, CommandState::Accepted);
        assert_eq!(world.poll(bed, at(3)), Some(first(&next)));
        assert_eq!(world.answer(bed, first(&install), Outcome::NotNow, at(4)).verdict, AnswerVerdict::Conflict);
        assert_eq!(world.answer(bed, first(&install), Outcome::Acknowledged, at(5)).verdict, AnswerVerdict::Applied);
    }

    fn a_plan_that_was_overtaken_is_refused(bed: &mut Bed) {
        let world = World::new(bed);
        let (one, two) = (world.command(), world.command());
        world.insert(bed, &one);
        world.insert(bed, &two);
        let plan = world.peek(bed, at(1)).expect("offered").part.id;
        let cancelled = one.id;
        bed.write(world.site, move |tx| tx.command_cancel(cancelled, at(1)));
        assert_eq!(world.hand_over(bed, &[plan], at(1)), HandOver::Moved);
        assert_eq!(world.poll(bed, at(1)), Some(first(&two)));
    }
}
