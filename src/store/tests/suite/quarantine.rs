//! Q14: what a restored server hands over, and what it takes.

use crate::harness::Bed;
use crate::world::*;
use bellwether_model::lifecycle::AnswerVerdict;
use bellwether_model::*;
use bellwether_store::records::*;

fn begin(bed: &Bed, world: &World, from: Timestamp) -> (usize, usize) {
    let site = world.site;
    bed.system(move |tx| tx.quarantine_begin(site, b"{}", from, at(1)))
}

fn end(bed: &Bed, world: &World) -> bool {
    let site = world.site;
    bed.system(move |tx| tx.quarantine_end(site))
}

fn command(world: &World, kind: &str, guarantee: Guarantee) -> NewCommand {
    NewCommand { kind: kind.into(), guarantee, ..world.command() }
}

on_every_backend! {
    fn q14_nothing_destructive_is_offered_until_the_quarantine_ends(bed: &mut Bed) {
        let world = World::new(bed);
        let wipe = command(&world, "wipe", Guarantee::UntilSilent);
        let lock = command(&world, "lock", Guarantee::UntilAnswered);
        let later = command(&world, "of-a-later-version", Guarantee::UntilAnswered);
        let restart = command(&world, "restart", Guarantee::UntilAnswered);
        for new in [&wipe, &lock, &later, &restart] {
            world.insert(bed, new);
        }
        begin(bed, &world, T0);
        assert_eq!(world.poll(bed, at(5)), Some(first(&restart)), "the rest goes on");
        assert_eq!(world.answer(bed, first(&restart), Outcome::Acknowledged, at(10)).verdict, AnswerVerdict::Applied);
        assert_eq!(world.peek(bed, at(6)), None);
        // Nor to one who knows what waits and hands it over without asking.
        assert_eq!(world.hand_over(bed, &[first(&wipe)], at(6)), HandOver::Moved);
        let withheld = bed.read(world.site, |tx| tx.withheld(None, 10));
        assert_eq!(withheld.iter().map(|w| w.kind.as_str()).collect::<Vec<_>>(), ["wipe", "lock"]);
        assert!(end(bed, &world) && !end(bed, &world));
        assert_eq!(world.poll(bed, at(7)), Some(first(&wipe)));
    }

    fn q14_what_was_sent_already_is_not_sent_again(bed: &mut Bed) {
        let world = World::new(bed);
        let wipe = command(&world, "wipe", Guarantee::UntilSilent);
        world.insert(bed, &wipe);
        assert_eq!(world.poll(bed, at(0)), Some(first(&wipe)));
        begin(bed, &world, at(1));
        // After its pause it would be due again.
        assert_eq!(world.peek(bed, at(100_000)), None);
        let restart = command(&world, "restart", Guarantee::UntilAnswered);
        world.insert(bed, &restart);
        assert_eq!(world.poll(bed, at(100_001)), Some(first(&restart)), "it blocks nothing");
        // Its late answer counts.
        assert_eq!(world.answer(bed, first(&wipe), Outcome::Acknowledged, at(10)).verdict, AnswerVerdict::Applied);
        end(bed, &world);
        assert_eq!(world.answer(bed, first(&restart), Outcome::Acknowledged, at(10)).verdict, AnswerVerdict::Applied);
        assert_eq!(world.peek(bed, at(200_000)), None);
    }

    fn q14_a_device_that_answers_what_the_backup_has_not_sent_tells_the_truth(bed: &mut Bed) {
        let world = World::new(bed);
        let lock = command(&world, "lock", Guarantee::UntilAnswered);
        world.insert(bed, &lock);
        // Without a restore it cannot have been handed over.
        assert_eq!(world.answer(bed, first(&lock), Outcome::Acknowledged, at(10)).verdict, AnswerVerdict::Unknown);
        begin(bed, &world, at(1));
        // What was queued after the restore was not.
        let newer = NewCommand { created_at: at(2), ..command(&world, "lock", Guarantee::UntilAnswered) };
        world.insert(bed, &newer);
        assert_eq!(world.answer(bed, first(&newer), Outcome::Acknowledged, at(10)).verdict, AnswerVerdict::Unknown);
        // Also when the device comes late.
        end(bed, &world);
        let answered = world.answer(bed, first(&lock), Outcome::Acknowledged, at(10));
        assert_eq!(answered.verdict, AnswerVerdict::Applied);
        assert_eq!(answered.command.map(|c| c.state), Some(CommandState::Acknowledged));
        assert_eq!(world.peek(bed, at(20)).map(|c| c.part.id), Some(first(&newer)));
    }

    fn q14_invitations_that_were_open_are_closed(bed: &mut Bed) {
        let world = World::new(bed);
        let invitation = invitation(None);
        let id = invitation.id;
        bed.write(world.site, move |tx| tx.invitation_insert(&invitation));
        assert_eq!(begin(bed, &world, at(1)), (1, 0));
        let closed = bed.read(world.site, |tx| tx.invitation(id)).expect("there");
        assert_eq!(closed.state, InvitationState::Revoked);
    }

    fn q14_a_quarantine_is_its_own_sites(bed: &mut Bed) {
        let world = World::new(bed);
        let other = World::new(bed);
        begin(bed, &world, at(1));
        let wipe = command(&other, "wipe", Guarantee::UntilSilent);
        other.insert(bed, &wipe);
        assert_eq!(other.poll(bed, at(5)), Some(first(&wipe)));
    }
}
