//! Uploads: one attempt counts, a token is used once, what is over goes, and no other site sees it.

use crate::harness::Bed;
use crate::world::*;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, StoreError};
use diesel::prelude::*;

fn upload(world: &World, command: &NewCommand) -> Upload {
    Upload {
        part_id: first(command),
        command_id: command.id,
        enrollment_id: world.enrollment,
        token_hash: bytes(),
        created_at: T0,
        expires_at: at(1_000),
        attempt: None,
        size: 0,
        sha256: None,
        received_at: None,
    }
}

/// A command whose device may send something.
fn told(bed: &Bed, world: &World) -> Upload {
    let command = NewCommand { coalesce_key: None, ..world.command() };
    world.insert(bed, &command);
    let row = upload(world, &command);
    let inserted = row.clone();
    bed.write(world.site, move |tx| tx.upload_insert(&inserted));
    row
}

/// One piece, received.
fn received(bed: &Bed, site: SiteId, part: PartId, now: Timestamp) {
    assert!(bed.system(move |tx| tx.upload_begin(site, part, b"one", 9, now)));
    assert!(bed.write(site, move |tx| tx.upload_piece_put(part, b"one", 0, b"abc")));
    assert!(bed.write(site, move |tx| tx.upload_receive(part, b"one", 1, 3, &[7; 32], now)));
}

on_every_backend! {
    fn an_upload_is_received_once(bed: &mut Bed) {
        let world = World::new(bed);
        let (site, row) = (world.site, told(bed, &world));
        let (part, hash) = (row.part_id, row.token_hash.clone());
        assert_eq!(bed.system(move |tx| tx.upload_by_hash(&hash)), Some((site, row.clone())));
        assert_eq!(bed.system(|tx| tx.upload_by_hash(&[1])), None);
        assert!(!bed.write(site, move |tx| tx.upload_piece_put(part, b"one", 0, b"abc")), "not begun");
        assert!(bed.system(move |tx| tx.upload_begin(site, part, b"one", 9, at(1))));
        assert!(bed.write(site, move |tx| tx.upload_piece_put(part, b"one", 0, b"abc")));
        assert_eq!(bed.system(|tx| tx.uploads_held(id())), 9);
        assert_eq!(bed.system(move |tx| tx.uploads_held(part)), 0);
        // Tried again: only the second attempt counts, and the first can neither go on nor end.
        assert!(bed.system(move |tx| tx.upload_begin(site, part, b"two", 6, at(2))));
        assert!(!bed.write(site, move |tx| tx.upload_piece_put(part, b"one", 1, b"def")));
        assert!(!bed.write(site, move |tx| tx.upload_receive(part, b"one", 1, 3, &[7; 32], at(3))));
        bed.write(site, move |tx| tx.upload_abandon(part, b"one"));
        assert!(bed.write(site, move |tx| tx.upload_piece_put(part, b"two", 0, b"abcdef")));
        assert!(!bed.write(site, move |tx| tx.upload_receive(part, b"two", 2, 6, &[8; 32], at(3))), "a piece is missing");
        assert!(bed.write(site, move |tx| tx.upload_receive(part, b"two", 1, 6, &[8; 32], at(3))));
        assert_eq!(bed.write(site, move |tx| tx.upload_pieces_drop(part)), 1);
        assert_eq!(bed.read(site, move |tx| tx.upload_piece(part, b"one", 0)), None);
        assert_eq!(bed.read(site, move |tx| tx.upload_piece(part, b"two", 0)).as_deref(), Some(&b"abcdef"[..]));
        let kept = bed.read(site, move |tx| tx.upload_of_command(row.command_id));
        let whole = Upload {
            attempt: Some(b"two".to_vec()), size: 6, sha256: Some(vec![8; 32]), received_at: Some(at(3)), ..row
        };
        assert_eq!(kept, Some(whole.clone()));
        // Used: nothing begins, nothing is added, nothing is taken away.
        bed.write(site, move |tx| tx.upload_prolong(part, at(9_000)));
        assert!(!bed.system(move |tx| tx.upload_begin(site, part, b"six", 9, at(4))));
        assert!(!bed.write(site, move |tx| tx.upload_piece_put(part, b"two", 1, b"ghi")));
        bed.write(site, move |tx| tx.upload_abandon(part, b"two"));
        assert_eq!(bed.read(site, move |tx| tx.upload_of_command(whole.command_id)), Some(whole));
    }

    fn a_token_ends_and_can_be_prolonged_until_it_is_used(bed: &mut Bed) {
        let world = World::new(bed);
        let (site, part) = (world.site, told(bed, &world).part_id);
        assert!(!bed.system(move |tx| tx.upload_begin(site, part, b"one", 9, at(1_000))));
        bed.write(site, move |tx| tx.upload_prolong(part, at(2_000)));
        bed.write(site, move |tx| tx.upload_prolong(part, at(500)));
        assert!(bed.system(move |tx| tx.upload_begin(site, part, b"one", 9, at(1_999))));
    }

    fn what_is_over_goes_with_its_pieces(bed: &mut Bed) {
        let world = World::new(bed);
        let site = world.site;
        let parts = [(); 3].map(|()| told(bed, &world).part_id);
        let [old, new, half] = parts;
        received(bed, site, old, at(10));
        received(bed, site, new, at(20));
        assert!(bed.system(move |tx| tx.upload_begin(site, half, b"one", 9, at(30))));
        assert!(bed.write(site, move |tx| tx.upload_piece_put(half, b"one", 0, b"abc")));
        assert_eq!(bed.system(|tx| tx.uploads_expire(at(10), at(1_000))), 0);
        assert_eq!(bed.system(|tx| tx.upload_pieces_purge()), 0);
        assert_eq!(bed.system(|tx| tx.uploads_expire(at(11), at(1_001))), 2);
        assert_eq!(bed.system(|tx| tx.upload_pieces_purge()), 2);
        assert_eq!(bed.system(|tx| tx.uploads_held(id())), 3);
        let pieces = parts.map(|part| bed.read(site, move |tx| tx.upload_piece(part, b"one", 0)).is_some());
        assert_eq!(pieces, [false, true, false]);
        assert!(!bed.system(move |tx| tx.upload_begin(site, old, b"two", 9, at(40))), "used is used");
    }

    fn an_enrollment_keeps_its_newest(bed: &mut Bed) {
        let world = World::new(bed);
        let (site, enrollment) = (world.site, world.enrollment);
        let parts = [(); 3].map(|()| told(bed, &world).part_id);
        for (n, part) in (0..).zip(parts) {
            received(bed, site, part, at(n));
        }
        let [first, ..] = parts;
        assert_eq!(bed.write(site, move |tx| tx.uploads_keep_newest(enrollment, 2)), [first]);
        assert_eq!(bed.write(site, move |tx| tx.uploads_keep_newest(enrollment, 2)), []);
        assert_eq!(bed.system(|tx| tx.upload_pieces_purge()), 1);
        assert_eq!(bed.read(site, move |tx| tx.upload_piece(first, b"one", 0)), None);
    }

    fn an_upload_goes_with_its_command(bed: &mut Bed) {
        let world = World::new(bed);
        let (site, row) = (world.site, told(bed, &world));
        received(bed, site, row.part_id, at(1));
        let command = row.command_id;
        bed.write(site, move |tx| tx.command_cancel(command, at(2)));
        assert_eq!(bed.system(|tx| tx.purge_finished(at(3), 10)), 1);
        assert_eq!(bed.read(site, move |tx| tx.upload_of_command(command)), None);
        assert_eq!(bed.read(site, move |tx| tx.upload_piece(row.part_id, b"one", 0)), None);
        assert_eq!(bed.system(move |tx| tx.upload_by_hash(&row.token_hash)), None);
    }

    fn uploads_of_another_site_are_not_there(bed: &mut Bed) {
        let (a, b) = (World::new(bed), World::new(bed));
        let row = told(bed, &a);
        let (part, command) = (row.part_id, row.command_id);
        received(bed, a.site, part, at(1));
        assert_eq!(bed.read(b.site, move |tx| tx.upload_of_command(command)), None);
        assert_eq!(bed.read(b.site, move |tx| tx.upload_piece(part, b"one", 0)), None);
        let (mine, other) = (told(bed, &a).part_id, b.site);
        assert!(!bed.system(move |tx| tx.upload_begin(other, mine, b"one", 9, at(2))));
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.upload_begin(a.site, mine, b"one", 9, at(2)));
        assert_eq!(refused, Err(StoreError::WrongScope("upload_begin")));
        assert_eq!(bed.write(b.site, move |tx| tx.upload_pieces_drop(part)), 0);
        // Neither another site's command nor another site's enrollment can be told to send, and no token stands twice.
        let crossing = Upload { enrollment_id: b.enrollment, ..row.clone() };
        let foreign = Upload { token_hash: bytes(), enrollment_id: b.enrollment, ..row.clone() };
        for (site, row) in [(b.site, crossing), (b.site, foreign)] {
            let refused = bed.try_write(Scope::Site(site), move |tx| tx.upload_insert(&row));
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        }
        let command = b.command();
        b.insert(bed, &command);
        let twin = Upload { token_hash: row.token_hash, ..upload(&b, &command) };
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.upload_insert(&twin));
        assert_eq!(refused, Err(StoreError::Conflict("uploads_token".into())));
    }
}

diesel::table! {
    upload_pieces (site_id, part_id, attempt, ordinal) {
        site_id -> Binary,
        part_id -> Binary,
        attempt -> Binary,
        ordinal -> Integer,
    }
}

diesel::table! {
    uploads (site_id, part_id) {
        site_id -> Binary,
        part_id -> Binary,
    }
}

#[test]
fn row_level_security_hides_uploads_of_other_sites() {
    let Some(bed) = crate::harness::Bed::postgres() else { return };
    let (a, b) = (World::new(&bed), World::new(&bed));
    let row = told(&bed, &a);
    received(&bed, a.site, row.part_id, at(1));
    let count = |scope| {
        crate::walls::walled(&bed.raw_url(), scope, |pg| {
            let rows: i64 = uploads::table.count().get_result(pg)?;
            Ok((rows, upload_pieces::table.count().get_result::<i64>(pg)?))
        })
    };
    assert_eq!(count(Scope::Site(a.site)), Ok((1, 1)));
    assert_eq!(count(Scope::Site(b.site)), Ok((0, 0)));
    let deleted = crate::walls::walled(&bed.raw_url(), Scope::Site(b.site), |pg| {
        diesel::delete(upload_pieces::table).execute(pg)
    });
    assert_eq!(deleted, Ok(0));
}
