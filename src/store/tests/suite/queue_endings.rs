//! The queue's promises about how commands end.

use crate::world::*;
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, StoreError};
use diesel::prelude::*;

on_every_backend! {
    fn q03_every_command_ends_in_time(bed: &mut Bed) {
        let world = World::new(bed);
        let expiring = |held: bool| NewCommand {
            expires_at: at(1_000),
            held_reason: held.then(|| "waits for an approval".to_owned()),
            ..world.command()
        };
        let (accepted, sent, queued, held) = (expiring(false), expiring(false), expiring(false), expiring(true));
        for command in [&accepted, &sent, &queued, &held] {
            world.insert(bed, command);
        }
        world.poll(bed, at(1));
        world.answer(bed, first(&accepted), Outcome::Accepted, at(2));
        assert_eq!(world.poll(bed, at(3)), Some(first(&sent)));
        assert!(bed.system(|tx| tx.expire_due(at(999), 100)).is_empty());
        assert_eq!(world.poll(bed, at(1_000)), None, "what is past its time is not offered, sweeper or not");
        let ended = bed.system(|tx| tx.expire_due(at(1_000), 100));
        assert_eq!(ended.len(), 3);
        assert!(ended.contains(&(world.site, queued.id)));
        for (command, words) in [(&sent, "outcome unknown"), (&queued, "never sent"), (&held, "never sent")] {
            let end = world.get(bed, command);
            assert_eq!(end.state, CommandState::Expired);
            assert!(end.note.expect("says how it ended").contains(words));
        }
        assert_eq!(world.answer(bed, first(&sent), Outcome::Acknowledged, at(1_001)).verdict, AnswerVerdict::Conflict);
        assert_eq!(world.get(bed, &accepted).state, CommandState::Accepted, "its deadline is another");
        assert_eq!(bed.system(|tx| tx.expire_due(at(600_002), 100)), [(world.site, accepted.id)]);
        assert_eq!(bed.system(|tx| tx.queue_stats()), QueueStats::default(), "nothing waits, no delivery is open");
    }

    fn q03_a_finished_command_moves_no_more(bed: &mut Bed) {
        let world = World::new(bed);
        let command = world.command();
        world.insert(bed, &command);
        let cancelled = command.id;
        assert_eq!(bed.write(world.site, move |tx| tx.command_cancel(cancelled, at(1))), Cancelled::Done);
        assert_eq!(world.answer(bed, first(&command), Outcome::Failed, at(2)).verdict, AnswerVerdict::Conflict);
        assert!(!bed.write(world.site, move |tx| tx.command_release(cancelled)));
        assert!(bed.system(|tx| tx.expire_due(at(100_000_000), 10)).is_empty());
        assert_eq!(
            bed.write(world.site, move |tx| tx.supersede_commands(world.enrollment, at(3), "over", 100)),
            0
        );
        assert_eq!(world.get(bed, &command).state, CommandState::Cancelled);
    }

    fn q06_the_database_allows_one_open_delivery(bed: &mut Bed) {
        let world = World::new(bed);
        world.insert(bed, &world.command());
        world.poll(bed, at(1));
        let refused = raw_delivery(bed, &world).expect_err("a second open delivery");
        assert!(
            matches!(&refused, diesel::result::Error::DatabaseError(diesel::result::DatabaseErrorKind::UniqueViolation, _)),
            "{refused:?}"
        );
    }

    fn q09_the_database_allows_one_waiting_wish(bed: &mut Bed) {
        let world = World::new(bed);
        let wish = NewCommand { coalesce_key: Some("inventory".into()), ..world.command() };
        let other = world.command();
        world.insert(bed, &wish);
        world.insert(bed, &other);
        let refused = raw_wish(bed, &world, other.id, "inventory").expect_err("the same wish twice");
        assert!(
            matches!(&refused, diesel::result::Error::DatabaseError(diesel::result::DatabaseErrorKind::UniqueViolation, _)),
            "{refused:?}"
        );
        assert_eq!(raw_wish(bed, &world, other.id, "another"), Ok(1));
    }

    fn q10_nothing_crosses_epochs(bed: &mut Bed) {
        let world = World::new(bed);
        let (sent, queued) = (world.command(), NewCommand { lane: Lane::Emergency, ..world.command() });
        world.insert(bed, &sent);
        world.poll(bed, at(1));
        world.insert(bed, &queued);
        world.end(bed, at(2));
        assert_eq!(world.poll(bed, at(3)), None);
        assert_eq!(world.answer(bed, first(&sent), Outcome::Acknowledged, at(3)).verdict, AnswerVerdict::Unknown);
        let late = world.command();
        let refused = bed.try_write(Scope::Site(world.site), move |tx| tx.command_insert(&late));
        assert_eq!(refused, Err(StoreError::Conflict("enrollment_over".into())));
        let next = |limit| bed.write(world.site, move |tx| tx.supersede_commands(world.enrollment, at(4), "re-enrolled", limit));
        assert_eq!((next(1), next(500), next(500)), (1, 1, 0));
        for command in [&sent, &queued] {
            assert_eq!(world.get(bed, command).state, CommandState::Superseded);
        }
        assert_eq!(bed.system(|tx| tx.queue_stats()), QueueStats::default());
    }

    fn q11_only_an_active_enrollment_is_offered_commands(bed: &mut Bed) {
        let world = World::new(bed);
        world.insert(bed, &world.command());
        for state in [EnrollmentState::Pending, EnrollmentState::Unproven] {
            bed.write(world.site, move |tx| {
                tx.enrollment_update(&Enrollment { state, ..enrollment(&world) })
            });
            assert_eq!(world.peek(bed, at(1)), None, "{state}");
        }
        bed.write(world.site, move |tx| tx.enrollment_update(&enrollment(&world)));
        bed.write(world.site, move |tx| tx.channel_update(&Channel { enabled: false, ..channel(&world, world.channel) }));
        assert_eq!(world.peek(bed, at(1)), None);
    }

    fn q12_cancel_wins_until_it_was_sent(bed: &mut Bed) {
        let world = World::new(bed);
        let (one, two) = (world.command(), world.command());
        world.insert(bed, &one);
        world.insert(bed, &two);
        let cancel = |id| bed.write(world.site, move |tx| tx.command_cancel(id, at(5)));
        world.poll(bed, at(1));
        assert_eq!(cancel(one.id), Cancelled::AlreadySent(CommandState::Sent));
        assert_eq!(cancel(two.id), Cancelled::Done);
        assert_eq!(cancel(two.id), Cancelled::AlreadyOver(CommandState::Cancelled));
        assert_eq!(cancel(id()), Cancelled::NotFound);
        world.answer(bed, first(&one), Outcome::NotNow, at(6));
        assert_eq!(cancel(one.id), Cancelled::AlreadySent(CommandState::NotNow));
    }

    fn what_the_device_has_need_not_be_sent(bed: &mut Bed) {
        let world = World::new(bed);
        let mut command = world.command();
        command.parts.push((id(), "Second".into()));
        let (one, two) = (command.parts[0].0, command.parts[1].0);
        let other = world.command();
        world.insert(bed, &command);
        world.insert(bed, &other);
        let spare = |command, part, now| {
            bed.write(world.site, move |tx| tx.parts_spare(command, &[part], now, "it has it"))
        };
        assert_eq!(spare(other.id, one, at(1)).0, 0, "a part of another command");
        let (rows, now) = spare(command.id, one, at(1));
        assert_eq!((rows, now.map(|c| c.state)), (1, Some(CommandState::Queued)));
        assert_eq!(world.poll(bed, at(2)), Some(two), "the rest is sent");
        assert_eq!(spare(command.id, two, at(3)).0, 0, "it was handed over: only the device's word counts");
        world.answer(bed, two, Outcome::Acknowledged, at(4));
        assert_eq!(world.get(bed, &command).state, CommandState::Acknowledged);
        let (rows, now) = spare(other.id, first(&other), at(5));
        let now = now.expect("there");
        assert_eq!((rows, now.state, now.finished_at), (1, CommandState::Acknowledged, Some(at(5))));
        assert_eq!((now.first_sent_at, world.part(bed, first(&other)).sends), (None, 0));
        assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 0);
        assert_eq!(spare(id(), two, at(6)), (0, None));
    }

    fn q13_all_or_nothing(bed: &mut Bed) {
        let world = World::new(bed);
        let (command, entry, event) = (world.command(), audit_entry(), event());
        let outcome = bed.try_write(Scope::Site(world.site), move |tx| {
            tx.command_insert(&command)?;
            tx.audit_append(&entry)?;
            tx.event_append(&event)?;
            Err::<(), _>(StoreError::Misuse("changed its mind"))
        });
        assert_eq!(outcome, Err(StoreError::Misuse("changed its mind")));
        assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 0);
        assert!(bed.read(world.site, |tx| tx.unsealed_audit(10)).is_empty());
        assert!(bed.read(world.site, |tx| tx.unsealed_events(10)).is_empty());
        assert_eq!(world.insert(bed, &world.command()), Inserted::New(1), "not even a number was used up");
    }

    fn q15_finished_commands_leave_with_all_that_hangs_on_them(bed: &mut Bed) {
        let world = World::new(bed);
        let commands: Vec<_> = (0..6).map(|_| world.command()).collect();
        for command in &commands {
            world.insert(bed, command);
        }
        for n in 0..4 {
            let part = world.poll(bed, at(n * 10)).expect("offered");
            world.answer(bed, part, Outcome::Acknowledged, at(n * 10 + 1));
        }
        assert_eq!(bed.system(|tx| tx.purge_finished(at(30), 2)), 2);
        assert_eq!(bed.system(|tx| tx.purge_finished(at(30), 500)), 1);
        assert_eq!(bed.system(|tx| tx.purge_finished(at(30), 500)), 0);
        let left = bed.read(world.site, |tx| tx.commands(&CommandFilter::default(), &Page { after: None, limit: 100 }));
        assert_eq!(left.len(), 3);
        assert_eq!(bed.read(world.site, |tx| tx.part(first(&commands[0]))), None);
        assert_eq!(raw_delivery_count(bed, &world), 1, "a delivery goes with its last part");
        assert_eq!(world.answer(bed, first(&commands[0]), Outcome::Acknowledged, at(99)).verdict, AnswerVerdict::Unknown);
    }

    fn held_commands_wait_for_their_release(bed: &mut Bed) {
        let world = World::new(bed);
        let held = NewCommand { held_reason: Some("waits for a second admin".into()), ..world.command() };
        world.insert(bed, &held);
        let later = NewCommand { not_before: Some(at(100)), ..world.command() };
        world.insert(bed, &later);
        assert_eq!(world.get(bed, &held).note.as_deref(), Some("waits for a second admin"));
        assert_eq!(world.peek(bed, at(1)), None);
        assert_eq!(world.peek(bed, at(100)).expect("its time has come").command.id, later.id);
        let id = held.id;
        assert!(bed.write(world.site, move |tx| tx.command_release(id)));
        assert_eq!(world.peek(bed, at(100)).expect("released").command.id, held.id);
    }

    fn lists_of_commands_are_pages_with_filters(bed: &mut Bed) {
        let world = World::new(bed);
        let other = world.another(bed);
        let mut ids: Vec<CommandId> = Vec::new();
        for n in 0..5 {
            let of = if n < 3 { &world } else { &other };
            let command = of.command();
            ids.push(command.id);
            of.insert(bed, &command);
        }
        ids.reverse();
        let list = |filter: CommandFilter, after: Option<CommandId>, limit| -> Vec<CommandId> {
            let page = Page { after: after.map(|id| id.as_bytes().to_vec()), limit };
            bed.read(world.site, |tx| tx.commands(&filter, &page)).into_iter().map(|c| c.id).collect()
        };
        assert_eq!(list(CommandFilter::default(), None, 2), ids[..2]);
        assert_eq!(list(CommandFilter::default(), Some(ids[1]), 10), ids[2..]);
        let of_device = CommandFilter { device_id: Some(world.device), ..CommandFilter::default() };
        assert_eq!(list(of_device, None, 10), ids[2..]);
        let sent = CommandFilter { state: Some(CommandState::Sent), ..CommandFilter::default() };
        assert_eq!(list(sent.clone(), None, 10), []);
        world.poll(bed, at(1));
        assert_eq!(list(sent, None, 10).len(), 1);
    }
}

diesel::table! {
    deliveries (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        channel_id -> Binary,
        opened_at -> BigInt,
    }
}

diesel::table! {
    commands (site_id, id) {
        site_id -> Binary,
        id -> Binary,
        waiting_key -> Nullable<Text>,
    }
}

/// Says behind the store's back what a command wishes for.
fn raw_wish(bed: &crate::harness::Bed, world: &World, command: CommandId, key: &str) -> QueryResult<usize> {
    let target = commands::table
        .filter(commands::site_id.eq(world.site.as_bytes().to_vec()))
        .filter(commands::id.eq(command.as_bytes().to_vec()));
    let update = diesel::update(target).set(commands::waiting_key.eq(key));
    if bed.is_postgres() {
        crate::walls::walled(&bed.raw_url(), Scope::System, |pg| update.execute(pg))
    } else {
        let mut raw = SqliteConnection::establish(&bed.raw_url()).expect("the file opens");
        update.execute(&mut raw)
    }
}

/// Inserts an open delivery behind the store's back.
fn raw_delivery(bed: &crate::harness::Bed, world: &World) -> QueryResult<usize> {
    let row = (
        deliveries::site_id.eq(world.site.as_bytes().to_vec()),
        deliveries::id.eq(bytes()),
        deliveries::channel_id.eq(world.channel.as_bytes().to_vec()),
        deliveries::opened_at.eq(1),
    );
    let insert = diesel::insert_into(deliveries::table).values(row);
    if bed.is_postgres() {
        crate::walls::walled(&bed.raw_url(), Scope::System, |pg| insert.execute(pg))
    } else {
        let mut raw = SqliteConnection::establish(&bed.raw_url()).expect("the file opens");
        insert.execute(&mut raw)
    }
}

fn raw_delivery_count(bed: &crate::harness::Bed, world: &World) -> i64 {
    let count = deliveries::table.filter(deliveries::site_id.eq(world.site.as_bytes().to_vec())).count();
    if bed.is_postgres() {
        crate::walls::walled(&bed.raw_url(), Scope::System, |pg| count.get_result(pg)).expect("counted")
    } else {
        let mut raw = SqliteConnection::establish(&bed.raw_url()).expect("the file opens");
        count.get_result(&mut raw).expect("counted")
    }
}
