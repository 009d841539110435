//! The walls between sites: scopes, composite keys and PostgreSQL's row-level security.

use crate::world::*;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, StoreError, Tx};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

diesel::define_sql_function!(fn set_config(name: Text, value: Text, is_local: Bool) -> Text);

/// Runs `f` on PostgreSQL as the store's role, in a transaction of this scope.
pub fn walled<T>(
    url: &str,
    scope: Scope,
    f: impl FnOnce(&mut PgConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    let mut pg = PgConnection::establish(url).expect("the role connects");
    pg.transaction(|pg| {
        let (site, system) = match scope {
            Scope::Site(site) => (site.0.simple().to_string(), "off"),
            Scope::System => (String::new(), "on"),
        };
        diesel::select((
            set_config("bellwether.site", site, true),
            set_config("bellwether.system", system, true),
        ))
        .execute(pg)?;
        f(pg)
    })
}

on_every_backend! {
    fn a_site_sees_nothing_of_another(bed: &mut Bed) {
        let (a, b) = (World::new(bed), World::new(bed));
        let command = a.command();
        a.insert(bed, &command);
        let page = Page { after: None, limit: 10 };
        let found = bed.read(b.site, |tx| {
            Ok([
                tx.device(a.device)?.is_some(),
                tx.enrollment(a.enrollment)?.is_some(),
                tx.identity(a.identity)?.is_some(),
                tx.channel(a.channel)?.is_some(),
                tx.command(command.id)?.is_some(),
                tx.part(first(&command))?.is_some(),
                tx.peek(a.channel, &Peek { now: at(1), answering: Vec::new(), skip_not_now: false }, &RULES)?.is_some(),
                tx.pending_count(a.channel)? != 0,
                !tx.parts(command.id)?.is_empty(),
                tx.devices(&DeviceFilter::default(), &page)?.iter().any(|(d, _)| d.id == a.device),
                tx.living_enrollment(a.device)?.is_some(),
            ])
        });
        assert_eq!(found, [false; 11]);
        assert_eq!(bed.write(b.site, move |tx| tx.command_cancel(command.id, at(1))), Cancelled::NotFound);
        let device = device(a.device, "stolen");
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.device_update(&device));
        assert_eq!(refused, Err(StoreError::NotFound("device")));
    }

    fn keys_of_another_site_are_refused_by_the_database(bed: &mut Bed) {
        let (a, b) = (World::new(bed), World::new(bed));
        let crossing = Enrollment { id: id(), device_id: a.device, epoch: 9, ..enrollment(&b) };
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.enrollment_insert(&crossing));
        assert_eq!(refused, Err(StoreError::Conflict("foreign_key".into())));
        let challenge = certificate_challenge(&a);
        let crossing = certificate(&b, challenge.id);
        bed.write(a.site, move |tx| tx.challenge_insert(&challenge));
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.certificate_insert(&crossing));
        assert_eq!(refused, Err(StoreError::Conflict("foreign_key".into())));
        let crossing = NewCommand { enrollment_id: a.enrollment, ..b.command() };
        let refused = bed.try_write(Scope::Site(b.site), move |tx| tx.command_insert(&crossing));
        assert!(matches!(refused, Err(StoreError::Misuse(_))), "{refused:?}");
    }

    fn a_method_of_the_wrong_scope_is_refused(bed: &mut Bed) {
        let world = World::new(bed);
        let site = Scope::Site(world.site);
        assert_eq!(bed.try_write(site, |tx| tx.sites()), Err(StoreError::WrongScope("sites")));
        assert_eq!(bed.try_write(site, |tx| tx.known_identity(&[1])), Err(StoreError::WrongScope("known_identity")));
        assert_eq!(bed.try_write(site, |tx| tx.expire_due(T0, 1)), Err(StoreError::WrongScope("expire_due")));
        assert_eq!(
            bed.try_write(Scope::System, move |tx| tx.device(world.device)),
            Err(StoreError::WrongScope("device"))
        );
        let other: SiteId = id();
        let entry = audit_entry();
        assert_eq!(
            bed.try_write(site, move |tx| tx.audit_append_in(other, &entry)),
            Err(StoreError::WrongScope("audit_append_in"))
        );
    }

    fn one_living_enrollment_per_device(bed: &mut Bed) {
        let world = World::new(bed);
        let second = Enrollment { id: id(), epoch: 2, state: EnrollmentState::Pending, ..enrollment(&world) };
        let refused = bed.try_write(Scope::Site(world.site), move |tx| tx.enrollment_insert(&second));
        assert_eq!(refused, Err(StoreError::Conflict("enrollments_one_living".into())));
        let twin = device(id(), "UDID-1");
        let claim = Device { id: id(), claims_device_id: Some(world.device), ..device(id(), "UDID-1") };
        let refused = bed.try_write(Scope::Site(world.site), move |tx| tx.device_insert(&twin));
        assert_eq!(refused, Err(StoreError::Conflict("devices_proven_hardware".into())));
        bed.write(world.site, move |tx| tx.device_insert(&claim));
        let proven = bed.read(world.site, |tx| tx.device_by_hardware(Platform::Apple, "UDID-1"));
        assert_eq!(proven.expect("found").id, world.device);
    }

    fn secrets_and_fingerprints_are_unique_over_the_server(bed: &mut Bed) {
        let (a, b) = (World::new(bed), World::new(bed));
        let one = invitation(None);
        let two = Invitation { id: id(), short_hash: None, ..one.clone() };
        let three = Invitation { id: id(), code_hash: bytes(), ..one.clone() };
        bed.write(a.site, move |tx| tx.invitation_insert(&one));
        let scope = Scope::Site(b.site);
        let refused = |rule: &str| Err(StoreError::Conflict(rule.to_owned()));
        assert_eq!(bed.try_write(scope, move |tx| tx.invitation_insert(&two)), refused("invitations_code"));
        assert_eq!(bed.try_write(scope, move |tx| tx.invitation_insert(&three)), refused("invitations_short"));
        let copy = Identity { fingerprint: a.identity.as_bytes().repeat(2), ..identity(&b, id()) };
        assert_eq!(bed.try_write(scope, move |tx| tx.identity_insert(&copy)), refused("identities_fingerprint"));
    }

    fn a_reader_cannot_write(bed: &mut Bed) {
        let world = World::new(bed);
        let refused = bed.store().read_blocking(Scope::Site(world.site), |tx: &mut Tx<'_>| {
            tx.command_insert(&world.command())
        });
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(bed.read(world.site, |tx| tx.pending_count(world.channel)), 0);
    }
}

diesel::table! {
    devices (site_id, id) {
        site_id -> Binary,
        id -> Binary,
    }
}

diesel::table! {
    certificates (site_id, id) {
        site_id -> Binary,
        id -> Binary,
    }
}

#[test]
fn row_level_security_hides_other_sites_from_a_query_without_a_filter() {
    let Some(bed) = crate::harness::Bed::postgres() else { return };
    let (a, b) = (World::new(&bed), World::new(&bed));
    let seen = |scope| {
        walled(&bed.raw_url(), scope, |pg| devices::table.select(devices::site_id).load::<Vec<u8>>(pg))
            .expect("read")
    };
    assert_eq!(seen(Scope::Site(a.site)), [a.site.as_bytes().to_vec()]);
    assert_eq!(seen(Scope::Site(b.site)), [b.site.as_bytes().to_vec()]);
    assert_eq!(seen(Scope::System).len(), 2);
    let challenge = certificate_challenge(&a);
    let kept = certificate(&a, challenge.id);
    bed.write(a.site, move |tx| {
        tx.challenge_insert(&challenge)?;
        tx.certificate_insert(&kept)
    });
    let certificates = |scope| {
        walled(&bed.raw_url(), scope, |pg| certificates::table.count().get_result::<i64>(pg)).expect("read")
    };
    assert_eq!((certificates(Scope::Site(a.site)), certificates(Scope::Site(b.site))), (1, 0));
    // Nobody set a scope: nobody sees anything.
    let mut pg = PgConnection::establish(&bed.raw_url()).expect("connects");
    assert_eq!(devices::table.count().get_result::<i64>(&mut pg), Ok(0));
    // And one site cannot delete, or write into, another.
    let deleted = walled(&bed.raw_url(), Scope::Site(a.site), |pg| {
        diesel::delete(devices::table.filter(devices::site_id.eq(b.site.as_bytes().to_vec()))).execute(pg)
    });
    assert_eq!(deleted, Ok(0));
}
