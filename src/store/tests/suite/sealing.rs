//! Audit and outbox: unsequenced inserts, one sealer.

use crate::world::*;
use bellwether_model::*;
use bellwether_store::records::*;

on_every_backend! {
    fn readers_see_sealed_entries_only(bed: &mut Bed) {
        let world = World::new(bed);
        let entries: Vec<AuditEntry> = (0..3).map(|_| audit_entry()).collect();
        let rows = entries.clone();
        bed.write(world.site, move |tx| rows.iter().try_for_each(|row| tx.audit_append(row)));
        assert!(bed.read(world.site, |tx| tx.audit(0, 10)).is_empty());
        assert_eq!(bed.read(world.site, |tx| tx.unsealed_audit(10)), entries);
        assert_eq!(bed.read(world.site, |tx| tx.unsealed_audit_count()), 3);
        assert_eq!(bed.system(|tx| tx.unsealed_sites()), [world.site]);
        assert_eq!(bed.read(world.site, |tx| tx.audit_head()), None);
        let seal: Vec<_> = (1..).zip(&entries).map(|(n, e)| (e.id, n, vec![n as u8])).collect();
        let (late, all) = (seal.clone(), seal);
        assert!(bed.write(world.site, move |tx| tx.audit_seal(0, &all)));
        assert!(!bed.write(world.site, move |tx| tx.audit_seal(0, &late)), "the head has moved");
        assert_eq!(bed.read(world.site, |tx| tx.audit_head()), Some((3, vec![3])));
        let positions = |list: Vec<AuditEntry>| list.into_iter().map(|e| e.position).collect::<Vec<_>>();
        assert_eq!(positions(bed.read(world.site, |tx| tx.audit(1, 10))), [Some(2), Some(3)]);
        assert_eq!(positions(bed.read(world.site, |tx| tx.audit_newest(None, 2))), [Some(3), Some(2)]);
        assert_eq!(positions(bed.read(world.site, |tx| tx.audit_newest(Some(2), 2))), [Some(1)]);
        assert!(bed.system(|tx| tx.unsealed_sites()).is_empty());
        let point = Checkpoint { position: 3, chain: vec![3], at: at(1), signature: vec![8; 64] };
        let row = point.clone();
        bed.write(world.site, move |tx| tx.checkpoint_insert(&row));
        assert_eq!(bed.read(world.site, |tx| tx.checkpoints()), [point]);
    }

    fn events_get_positions_in_order(bed: &mut Bed) {
        let world = World::new(bed);
        let events: Vec<Event> = (0..3).map(|_| event()).collect();
        let rows = events.clone();
        bed.system(move |tx| rows.iter().try_for_each(|row| tx.event_append_in(world.site, row)));
        assert_eq!(bed.read(world.site, |tx| tx.event_head()), 0);
        let seal: Vec<(EventId, i64)> = events.iter().map(|e| e.id).zip(1..).collect();
        let again = vec![(events[0].id, 4)];
        assert!(bed.write(world.site, move |tx| tx.event_seal(0, &seal)));
        assert!(bed.try_write(bellwether_store::Scope::Site(world.site), move |tx| tx.event_seal(3, &again)).is_err(), "sealed once");
        assert_eq!(bed.read(world.site, |tx| tx.event_head()), 3);
        assert_eq!(bed.read(world.site, |tx| tx.events(1, 10)).len(), 2);
        assert!(bed.read(world.site, |tx| tx.unsealed_events(10)).is_empty());
    }
}
