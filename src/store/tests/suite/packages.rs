//! Packages: content is shared by hash, leaves with its last package, and no other site sees it.

use crate::world::*;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, StoreError};

fn package(sha256: &[u8]) -> Package {
    Package {
        id: id(),
        kind: PackageKind::Msi,
        name: "Tool".into(),
        product: "{11111111-2222-3333-4444-555555555555}".into(),
        version: "1.2.3".into(),
        sha256: sha256.to_vec(),
        size: 3,
        created_at: T0,
        created_by: "key:test".into(),
    }
}

fn grant(world: &World, package: &Package) -> PackageGrant {
    PackageGrant {
        token_hash: bytes(),
        package_id: package.id,
        enrollment_id: world.enrollment,
        created_at: T0,
        expires_at: at(1_000),
    }
}

on_every_backend! {
    fn content_leaves_with_its_last_package(bed: &mut Bed) {
        let world = World::new(bed);
        let (one, two) = (package(&[7; 32]), package(&[7; 32]));
        let grant = grant(&world, &one);
        let (first, second, granted) = (one.clone(), two.clone(), grant.clone());
        bed.write(world.site, move |tx| {
            tx.package_chunk_put(&[7; 32], 0, b"abc", T0)?;
            // The same piece again is the same piece.
            tx.package_chunk_put(&[7; 32], 0, b"xyz", at(1))?;
            tx.package_insert(&first)?;
            tx.package_insert(&second)?;
            tx.package_grant_insert(&granted)
        });
        assert_eq!(bed.read(world.site, |tx| tx.package(one.id)).as_ref(), Some(&one));
        assert_eq!(bed.read(world.site, |tx| tx.package_chunk_count(&[7; 32])), 1);
        let list = bed.read(world.site, |tx| tx.packages(&Page { after: None, limit: 10 }));
        assert_eq!(list, [two.clone(), one.clone()]);
        let hash = grant.token_hash.clone();
        let by_hash = bed.system(move |tx| tx.package_grant_by_hash(&hash));
        assert_eq!(by_hash, Some((world.site, grant.clone())));

        bed.write(world.site, move |tx| tx.package_delete(one.id));
        // Another package has the same content.
        assert_eq!(bed.write(world.site, |tx| tx.package_content_drop(&[7; 32])), 0);
        assert_eq!(bed.read(world.site, |tx| tx.package_chunk(&[7; 32], 0)).as_deref(), Some(&b"abc"[..]));
        assert_eq!(bed.system(move |tx| tx.package_grant_by_hash(&grant.token_hash)), None);
        bed.write(world.site, move |tx| tx.package_delete(two.id));
        assert_eq!(bed.write(world.site, |tx| tx.package_content_drop(&[7; 32])), 1);
        assert_eq!(bed.read(world.site, |tx| tx.package_chunk(&[7; 32], 0)), None);
        let again = bed.try_write(Scope::Site(world.site), move |tx| tx.package_delete(two.id));
        assert_eq!(again, Err(StoreError::NotFound("package")));
    }

    fn packages_of_another_site_are_not_there(bed: &mut Bed) {
        let (a, b) = (World::new(bed), World::new(bed));
        let one = package(&[8; 32]);
        let stored = one.clone();
        bed.write(a.site, move |tx| {
            tx.package_chunk_put(&[8; 32], 0, b"abc", T0)?;
            tx.package_insert(&stored)
        });
        let seen = bed.read(b.site, |tx| {
            Ok([
                tx.package(one.id)?.is_some(),
                tx.package_chunk(&[8; 32], 0)?.is_some(),
                tx.package_chunk_count(&[8; 32])? != 0,
                !tx.packages(&Page { after: None, limit: 10 })?.is_empty(),
            ])
        });
        assert_eq!(seen, [false; 4]);
        let gone = bed.try_write(Scope::Site(b.site), move |tx| tx.package_delete(one.id));
        assert_eq!(gone, Err(StoreError::NotFound("package")));
        // Neither another site's package nor another site's enrollment can be granted.
        let crossing = grant(&b, &one);
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.package_grant_insert(&crossing));
        assert_eq!(refused, Err(StoreError::Conflict("foreign_key".into())));
        let crossing = grant(&b, &one);
        let refused = bed.try_write(Scope::Site(a.site), move |tx| tx.package_grant_insert(&crossing));
        assert_eq!(refused, Err(StoreError::Conflict("foreign_key".into())));
        let twin = grant(&a, &one);
        let copy = twin.clone();
        bed.write(a.site, move |tx| tx.package_grant_insert(&twin));
        let refused = bed.try_write(Scope::Site(a.site), move |tx| tx.package_grant_insert(&copy));
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }

    fn what_is_over_and_what_never_ended_is_swept_up(bed: &mut Bed) {
        let world = World::new(bed);
        let one = package(&[9; 32]);
        let grant = grant(&world, &one);
        let hash = grant.token_hash.clone();
        bed.write(world.site, move |tx| {
            tx.package_chunk_put(&[9; 32], 0, b"abc", T0)?;
            tx.package_chunk_put(&[1; 32], 0, b"half", T0)?;
            tx.package_chunk_put(&[2; 32], 0, b"running", at(9))?;
            tx.package_insert(&one)?;
            tx.package_grant_insert(&grant)
        });
        assert_eq!(bed.system(|tx| tx.package_chunks_purge(at(5))), 1);
        assert_eq!(bed.read(world.site, |tx| tx.package_chunk_count(&[1; 32])), 0);
        assert_eq!(bed.read(world.site, |tx| tx.package_chunk_count(&[2; 32])), 1);
        assert_eq!(bed.read(world.site, |tx| tx.package_chunk_count(&[9; 32])), 1);
        assert_eq!(bed.system(|tx| tx.package_grants_purge(at(1_000))), 0);
        assert_eq!(bed.system(|tx| tx.package_grants_purge(at(1_001))), 1);
        assert_eq!(bed.system(move |tx| tx.package_grant_by_hash(&hash)), None);
    }
}
