//! Every record comes back as it was stored, and the small rules of each table hold.

use crate::world::*;
use bellwether_model::device::{CertificateState, ChallengeState, IdentityState};
use bellwether_model::permit::Grants;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{Scope, StoreError};

on_every_backend! {
    fn invitations_and_challenges(bed: &mut Bed) {
        let world = World::new(bed);
        let person = Person { id: id(), account: "Ada@Example.org".into(), name: Some("Ada".into()), created_at: T0, directory_id: None };
        let mut invitation = Invitation { device_id: Some(world.device), ..invitation(Some(person.id)) };
        let mut challenge = challenge(invitation.id);
        let (p, i, c) = (person.clone(), invitation.clone(), challenge.clone());
        bed.write(world.site, move |tx| {
            tx.person_insert(&p)?;
            tx.invitation_insert(&i)?;
            tx.challenge_insert(&c)
        });
        let stored = bed.read(world.site, |tx| tx.person_by_account("ADA@example.ORG")).expect("found");
        assert_eq!((stored.id, stored.account.as_str()), (person.id, "ada@example.org"));
        assert_eq!(bed.system({ let h = invitation.code_hash.clone(); move |tx| tx.invitation_by_code_hash(&h) }), Some((world.site, invitation.clone())));
        assert_eq!(bed.system({ let h = invitation.short_hash.clone(); move |tx| tx.invitation_by_short_hash(h.as_deref().unwrap_or_default()) }), Some((world.site, invitation.clone())));
        assert_eq!(bed.system({ let h = challenge.secret_hash.clone(); move |tx| tx.challenge_by_hash(&h) }), Some((world.site, challenge.clone())));
        let target = invitation.id;
        assert_eq!(bed.write(world.site, move |tx| { tx.invitation_attempt(target)?; tx.invitation_attempt(target) }), 2);
        invitation.attempts = 2;
        invitation.state = InvitationState::Activated;
        invitation.closed_at = Some(at(5));
        invitation.enrollment_id = Some(world.enrollment);
        challenge.state = ChallengeState::Bound;
        challenge.csr_hash = Some(vec![4; 32]);
        challenge.identity_id = Some(world.identity);
        let (i, c) = (invitation.clone(), challenge.clone());
        bed.write(world.site, move |tx| { tx.invitation_update(&i)?; tx.challenge_update(&c) });
        assert_eq!(bed.read(world.site, |tx| tx.invitation(invitation.id)), Some(invitation.clone()));
        assert_eq!(bed.read(world.site, |tx| tx.challenges_of_invitation(invitation.id)), [challenge.clone()]);
        assert_eq!(bed.read(world.site, |tx| tx.challenge(challenge.id)), Some(challenge));
        assert_eq!(bed.read(world.site, |tx| tx.invitations(&Page { after: None, limit: 5 })), [invitation]);
        assert_eq!(bed.read(world.site, |tx| tx.people(&Page { after: None, limit: 5 })).len(), 1);
    }

    fn what_a_device_confirmed_is_remembered_for_its_enrollment(bed: &mut Bed) {
        let (world, other) = (World::new(bed), World::new(bed));
        let enrollment = world.enrollment;
        let put = |setting: &'static str, digest: u8| {
            bed.write(world.site, move |tx| tx.applied_setting_put(enrollment, setting, &[digest], T0));
        };
        put("b", 1);
        put("a", 2);
        put("a", 3);
        let kept = || bed.read(world.site, |tx| tx.applied_settings(enrollment));
        assert_eq!(kept(), [("a".to_owned(), vec![3]), ("b".to_owned(), vec![1])]);
        assert_eq!(bed.read(other.site, |tx| tx.applied_settings(enrollment)), []);
        bed.write(other.site, move |tx| tx.applied_settings_forget(enrollment));
        bed.write(world.site, move |tx| tx.applied_setting_forget(enrollment, "b"));
        assert_eq!(kept(), [("a".to_owned(), vec![3])]);
        bed.write(world.site, move |tx| tx.applied_settings_forget(enrollment));
        assert_eq!(kept(), []);
    }

    fn people_are_found_by_their_directory_id(bed: &mut Bed) {
        let world = World::new(bed);
        let person = |account: &str, directory_id: Option<&str>| Person {
            id: id(), account: account.into(), name: None, created_at: T0, directory_id: directory_id.map(Into::into),
        };
        let mut ada = person("ada@example.org", Some("entra:t:1"));
        let rows = [ada.clone(), person("bob@example.org", None), person("eve@example.org", None)];
        bed.write(world.site, move |tx| rows.iter().try_for_each(|row| tx.person_insert(row)));
        assert_eq!(bed.read(world.site, |tx| tx.person_by_directory("entra:t:1")), Some(ada.clone()));
        assert_eq!(bed.read(world.site, |tx| tx.person_by_directory("entra:t:2")), None);
        for (twin, rule) in [(person("x@example.org", Some("entra:t:1")), "people_directory"), (person("Ada@example.org", None), "people_account")] {
            let refused = bed.try_write(Scope::Site(world.site), move |tx| tx.person_insert(&twin));
            assert_eq!(refused, Err(StoreError::Conflict(rule.into())));
        }
        ada.account = "Ada.Lovelace@example.org".into();
        ada.name = Some("Ada".into());
        ada.directory_id = Some("entra:t:2".into());
        let row = ada.clone();
        bed.write(world.site, move |tx| tx.person_update(&row));
        ada.account = ada.account.to_lowercase();
        assert_eq!(bed.read(world.site, |tx| tx.person(ada.id)), Some(ada));
        let nobody = person("nobody@example.org", None);
        let refused = bed.try_write(Scope::Site(world.site), move |tx| tx.person_update(&nobody));
        assert_eq!(refused, Err(StoreError::NotFound("person")));
    }

    fn what_a_person_has_is_counted(bed: &mut Bed) {
        let world = World::new(bed);
        let person = Person { id: id(), account: "ada".into(), name: None, created_at: T0, directory_id: None };
        let whose = person.id;
        let mut enrollment = bed.read(world.site, |tx| tx.enrollment(world.enrollment)).expect("there");
        enrollment.person_id = Some(whose);
        let mine = |created_by: &str, expires: i64, state| Invitation {
            created_by: created_by.into(), expires_at: at(expires), state, short_hash: None, ..invitation(Some(whose))
        };
        let rows = [
            mine("entra:t", 10, InvitationState::Open),
            mine("entra:u", 10, InvitationState::Open),
            mine("entra:t", 5, InvitationState::Open),
            mine("entra:t", 10, InvitationState::Revoked),
            mine("entra:t", 10, InvitationState::Activated),
            mine("key:entra:", 10, InvitationState::Open),
        ];
        let hash = rows[1].code_hash.clone();
        let (second, other) = (rows[1].clone(), hash.clone());
        bed.write(world.site, move |tx| {
            tx.person_insert(&person)?;
            rows.iter().try_for_each(|row| tx.invitation_insert(row))
        });
        assert_eq!(bed.read(world.site, |tx| tx.person_invitations(whose, "entra:", at(5))), 2);
        assert_eq!(bed.read(world.site, |tx| tx.invitation_of_code_hash(&hash)), Some(second));
        assert_eq!(bed.read(World::new(bed).site, |tx| tx.invitation_of_code_hash(&other)), None);
        assert_eq!(bed.read(world.site, |tx| tx.person_enrollments(whose)), 0);
        for (state, living) in [(EnrollmentState::Active, 1), (EnrollmentState::Unproven, 1), (EnrollmentState::Ended, 0)] {
            let row = Enrollment { state, ..enrollment.clone() };
            bed.write(world.site, move |tx| tx.enrollment_update(&row));
            assert_eq!(bed.read(world.site, |tx| tx.person_enrollments(whose)), living, "{state}");
        }
    }

    fn identities_are_known_by_their_fingerprint(bed: &mut Bed) {
        let world = World::new(bed);
        let mut identity = bed.read(world.site, |tx| tx.identity(world.identity)).expect("there");
        let print = identity.fingerprint.clone();
        let look = |print: Vec<u8>| bed.system(move |tx| tx.known_identity(&print));
        let known = look(print.clone()).expect("known");
        assert_eq!((known.site_id, known.enrollment.is_none()), (world.site, true));
        identity.enrollment_id = Some(world.enrollment);
        identity.state = IdentityState::Revoked;
        identity.revoked_at = Some(at(9));
        identity.revoked_reason = Some("lost".into());
        let row = identity.clone();
        bed.write(world.site, move |tx| tx.identity_update(&row));
        let known = look(print).expect("known");
        assert_eq!(known.identity, identity);
        assert_eq!(known.enrollment.expect("joined").id, world.enrollment);
        assert_eq!(look(vec![0; 32]), None);
        assert_eq!(bed.read(world.site, |tx| tx.identities_of_enrollment(world.enrollment)), [identity.clone()]);
        assert_eq!(bed.read(world.site, |tx| tx.revoked_identities(world.authority)), [identity]);
        assert_eq!(bed.system(move |tx| tx.authority_find(world.authority)).expect("found").0, world.site);
        assert_eq!(bed.read(world.site, |tx| tx.authorities()).len(), 1);
    }

    fn certificates_are_kept_apart_from_identities(bed: &mut Bed) {
        let world = World::new(bed);
        let other = world.another(bed);
        let challenges = [certificate_challenge(&world), certificate_challenge(&world), certificate_challenge(&other)];
        let mut kept = [
            certificate(&world, challenges[0].id),
            certificate(&world, challenges[1].id),
            certificate(&other, challenges[2].id),
        ];
        let (c, k) = (challenges.clone(), kept.clone());
        bed.write(world.site, move |tx| {
            c.iter().try_for_each(|row| tx.challenge_insert(row))?;
            k.iter().try_for_each(|row| tx.certificate_insert(row))
        });
        let challenge = challenges[0].clone();
        assert_eq!(bed.read(world.site, |tx| tx.challenge(challenge.id)), Some(challenge.clone()));
        assert_eq!(bed.read(world.site, |tx| tx.certificate_of_challenge(challenge.id)), Some(kept[0].clone()));
        // The one look-up that tells who a device is does not know them.
        for print in kept.iter().map(|row| row.fingerprint.clone()) {
            assert_eq!(bed.system(move |tx| tx.known_identity(&print)), None);
        }
        assert_eq!(bed.read(world.site, |tx| tx.revoked_certificates(world.authority)), []);
        let (first, second) = (world.enrollment, other.enrollment);
        assert_eq!(bed.write(world.site, move |tx| tx.certificates_revoke(first, at(7), "gone")), 2);
        assert_eq!(bed.write(world.site, move |tx| tx.certificates_revoke(first, at(9), "again")), 0);
        for row in kept.iter_mut().take(2) {
            row.state = CertificateState::Revoked;
            row.revoked_at = Some(at(7));
            row.revoked_reason = Some("gone".into());
        }
        let [one, two, three] = kept;
        assert_eq!(bed.read(world.site, |tx| tx.certificates_of_enrollment(first)), [two.clone(), one.clone()]);
        let ids = |rows: Vec<Certificate>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(bed.read(world.site, |tx| tx.certificates_of_enrollment(second))), [three.id]);
        let page = |after: Option<CertificateId>| Page { after: after.map(|id| id.as_bytes().to_vec()), limit: 1 };
        let of_device = |device, after| ids(bed.read(world.site, move |tx| tx.certificates_of_device(device, &page(after))));
        assert_eq!(of_device(world.device, None), [two.id]);
        assert_eq!(of_device(world.device, Some(two.id)), [one.id]);
        assert_eq!(of_device(world.device, Some(one.id)), []);
        assert_eq!(of_device(other.device, None), [three.id]);
        assert_eq!(bed.read(world.site, |tx| tx.revoked_certificates(world.authority)), [one, two]);
    }

    fn a_challenge_buys_one_certificate(bed: &mut Bed) {
        let world = World::new(bed);
        let challenge = certificate_challenge(&world);
        let (first, second) = (certificate(&world, challenge.id), certificate(&world, challenge.id));
        bed.write(world.site, move |tx| { tx.challenge_insert(&challenge)?; tx.certificate_insert(&first) });
        let refused = bed.try_write(bellwether_store::Scope::Site(world.site), move |tx| tx.certificate_insert(&second));
        assert_eq!(refused, Err(bellwether_store::StoreError::Conflict("certificates_challenge".into())));
    }

    fn devices_are_listed_with_their_newest_enrollment(bed: &mut Bed) {
        let world = World::new(bed);
        let other = world.another(bed);
        world.end(bed, at(1));
        let renewed = Enrollment { id: id(), epoch: 2, state: EnrollmentState::Pending, ..enrollment(&world) };
        let row = renewed.clone();
        let epoch = bed.write(world.site, move |tx| { let epoch = tx.next_epoch(world.device)?; tx.enrollment_insert(&row)?; Ok(epoch) });
        assert_eq!(epoch, 2);
        assert_eq!(bed.read(world.site, |tx| tx.living_enrollment(world.device)), Some(renewed.clone()));
        assert_eq!(bed.read(world.site, |tx| tx.enrollments_of_device(world.device)).iter().map(|e| e.epoch).collect::<Vec<_>>(), [2, 1]);
        let list = |filter: DeviceFilter, after: Option<DeviceId>| {
            let page = Page { after: after.map(|d| d.as_bytes().to_vec()), limit: 10 };
            bed.read(world.site, |tx| tx.devices(&filter, &page)).into_iter().map(|(d, e)| (d.id, e.map(|e| e.id))).collect::<Vec<_>>()
        };
        let (first, second) = ((world.device, Some(renewed.id)), (other.device, Some(other.enrollment)));
        assert_eq!(list(DeviceFilter::default(), None), [first, second]);
        assert_eq!(list(DeviceFilter::default(), Some(world.device)), [second]);
        let by = |search: &str| list(DeviceFilter { search: Some(search.into()), ..DeviceFilter::default() }, None);
        assert_eq!(by("udid-1"), [first]);
        assert_eq!(by("ADA'S").len(), 2);
        assert_eq!(by("c02abc").len(), 2);
        assert_eq!(by("%").len(), 0, "a wildcard is a letter like others");
        assert_eq!(list(DeviceFilter { state: Some(EnrollmentState::Pending), ..DeviceFilter::default() }, None), [first]);
        assert_eq!(list(DeviceFilter { platform: Some(Platform::Windows), ..DeviceFilter::default() }, None), []);
        assert_eq!(bed.read(world.site, |tx| tx.device_count()), 2);
        assert_eq!(bed.read(world.site, |tx| tx.topic_counts()), [("com.apple.mgmt.External.1".to_owned(), 2)]);
        assert_eq!(bed.system(|tx| tx.topic_counts_everywhere()), [("com.apple.mgmt.External.1".to_owned(), 2)]);
    }

    fn last_seen_only_moves_forward(bed: &mut Bed) {
        let world = World::new(bed);
        let touch = |ms| bed.system(move |tx| tx.touch_enrollments(&[(world.site, world.enrollment, at(ms))]));
        touch(50);
        touch(40);
        bed.write(world.site, move |tx| tx.enrollment_update(&Enrollment { last_seen_at: None, ..enrollment(&world) }));
        assert_eq!(bed.read(world.site, |tx| tx.enrollment(world.enrollment)).expect("there").last_seen_at, Some(at(50)));
    }

    fn an_older_report_replaces_no_newer_fact(bed: &mut Bed) {
        let world = World::new(bed);
        let fact = |key: &str, value: i32, ms| Fact { key: key.into(), value: value.into(), reported_at: at(ms) };
        let (new, old) = (vec![fact("battery.level", 80, 10), fact("a", 1, 10)], vec![fact("battery.level", 10, 9), fact("a", 2, 11)]);
        bed.write(world.site, move |tx| { tx.facts_put(world.device, &new)?; tx.facts_put(world.device, &old) });
        assert_eq!(bed.read(world.site, |tx| tx.facts(world.device)), [fact("a", 2, 11), fact("battery.level", 80, 10)]);
    }

    fn escrow_is_replaced_and_erased(bed: &mut Bed) {
        let world = World::new(bed);
        let put = |field: &str, value: u8| {
            let row = Escrow { enrollment_id: world.enrollment, field: field.into(), value: vec![value], stored_at: T0 };
            bed.write(world.site, move |tx| tx.escrow_put(&row));
        };
        put("unlock-token", 1);
        put("unlock-token", 2);
        put("bootstrap-token", 3);
        assert_eq!(bed.read(world.site, |tx| tx.escrow(world.enrollment, "unlock-token")).expect("kept").value, [2]);
        assert_eq!(bed.read(world.site, |tx| tx.escrow_list(world.enrollment)).len(), 2);
        assert_eq!(bed.write(world.site, move |tx| tx.escrow_clear(world.enrollment)), 2);
    }

    fn channels_keep_their_sequence(bed: &mut Bed) {
        let world = World::new(bed);
        world.insert(bed, &world.command());
        bed.write(world.site, move |tx| tx.channel_update(&channel(&world, world.channel)));
        assert_eq!(world.insert(bed, &world.command()), Inserted::New(2));
        let user = Channel { kind: ChannelKind::User, user_key: "S-1".into(), ..channel(&world, id()) };
        let row = user.clone();
        bed.write(world.site, move |tx| tx.channel_insert(&row));
        assert_eq!(bed.read(world.site, |tx| tx.channel_find(world.enrollment, ChannelKind::User, "S-1")), Some(user));
        assert_eq!(bed.read(world.site, |tx| tx.channels(world.enrollment)).len(), 2);
    }

    fn wakes_are_due_once_and_dead_tokens_never(bed: &mut Bed) {
        let world = World::new(bed);
        let ask = |ms| bed.write(world.site, move |tx| tx.wake_request(world.channel, at(ms)));
        let due = |ms| bed.system(move |tx| tx.wakes_due(at(ms), 10));
        let result = |result: WakeResult| bed.write(world.site, move |tx| tx.wake_result(world.channel, &result));
        assert!(ask(50));
        assert!(ask(90));
        assert!(due(49).is_empty());
        let wake = due(50).pop().expect("the earlier of both");
        assert_eq!((wake.channel.id, wake.platform, wake.test_only), (world.channel, Platform::Apple, false));
        result(WakeResult { next_due: Some(at(500)), attempts: 1, woken_at: Some(at(51)), note: None, dead: false });
        assert!(due(499).is_empty());
        assert_eq!(due(500).len(), 1);
        result(WakeResult { next_due: Some(at(600)), attempts: 2, woken_at: None, note: Some("410 Unregistered".into()), dead: true });
        let after = bed.read(world.site, |tx| tx.channel(world.channel)).expect("there");
        assert_eq!((after.push_dead, after.woken_at, after.wake_due_at), (true, Some(at(51)), None));
        assert!(!ask(700));
        assert!(due(10_000).is_empty());
    }

    fn jobs_are_worked_off(bed: &mut Bed) {
        let world = World::new(bed);
        let job = Job { id: id(), kind: "lock".into(), intent: vec![1], targets: vec![2; 32], done: 0, refused: 0, created_at: T0, created_by: "key:test".into(), finished_at: None };
        let row = job.clone();
        bed.write(world.site, move |tx| tx.job_insert(&row));
        assert_eq!(bed.system(|tx| tx.jobs_open(5)), [(world.site, job.clone())]);
        let target = job.id;
        bed.write(world.site, move |tx| tx.job_progress(target, 2, 1, Some(at(3))));
        assert!(bed.system(|tx| tx.jobs_open(5)).is_empty());
        let done = Job { done: 2, refused: 1, finished_at: Some(at(3)), ..job };
        assert_eq!(bed.read(world.site, |tx| tx.job(done.id)), Some(done.clone()));
        assert_eq!(bed.read(world.site, |tx| tx.jobs(&Page { after: None, limit: 3 })), [done]);
    }

    fn keys_settings_and_push_certificates(bed: &mut Bed) {
        let world = World::new(bed);
        let key = ApiKey { id: id(), name: "ci".into(), prefix: "bw_1".into(), hash: vec![5; 32], grants: Grants::everything(), created_at: T0, created_by: "setup-token".into(), expires_at: at(9), revoked_at: None, last_used_at: None };
        let row = key.clone();
        bed.system(move |tx| tx.api_key_insert(&row));
        assert_eq!(bed.system(|tx| tx.api_key_by_hash(&[5; 32])), Some(key.clone()));
        bed.system({ let id = key.id; move |tx| tx.api_key_touch(id, at(2)) });
        assert!(bed.system({ let id = key.id; move |tx| tx.api_key_revoke(id, at(3)) }));
        assert!(!bed.system({ let id = key.id; move |tx| tx.api_key_revoke(id, at(4)) }));
        assert_eq!(bed.system(|tx| tx.api_keys()), [ApiKey { revoked_at: Some(at(3)), last_used_at: Some(at(2)), ..key }]);

        assert!(bed.system(|tx| tx.server_setting_insert_if_absent("url", b"one")));
        assert!(!bed.system(|tx| tx.server_setting_insert_if_absent("url", b"two")));
        assert_eq!(bed.system(|tx| tx.server_setting("url")), Some(b"one".to_vec()));
        bed.system(|tx| tx.server_setting_put("url", b"three"));
        assert_eq!(bed.system(|tx| tx.server_setting("url")), Some(b"three".to_vec()));
        bed.write(world.site, |tx| { tx.site_setting_put("a", b"1")?; tx.site_setting_put("a", b"2") });
        assert_eq!(bed.read(world.site, |tx| tx.site_setting("a")), Some(b"2".to_vec()));

        let cert = PushCert { topic: "t".into(), certificate: "PEM".into(), key: vec![1], not_before: T0, not_after: at(9), imported_at: T0, version: 0 };
        let row = cert.clone();
        assert_eq!(bed.write(world.site, move |tx| { tx.push_cert_put(&row)?; tx.push_cert_put(&row) }), 2);
        let kept = PushCert { version: 2, ..cert };
        assert_eq!(bed.read(world.site, |tx| tx.push_cert("t")), Some(kept.clone()));
        assert_eq!(bed.read(world.site, |tx| tx.push_certs()), std::slice::from_ref(&kept));
        assert_eq!(bed.system(|tx| tx.all_push_certs()), [(world.site, kept)]);
        assert_eq!(bed.system(|tx| tx.sites()).len(), 1);
        assert_eq!(bed.read(world.site, |tx| tx.site(world.site)).expect("itself").name, "Acme");
    }

    fn limits_leases_and_old_answers(bed: &mut Bed) {
        let bump = |ms| bed.system(move |tx| tx.rate_bump("code:1.2.3.4", at(ms), 1_000));
        assert_eq!((bump(0), bump(999), bump(1_000), bump(1_001)), (1, 2, 1, 2));
        assert_eq!(bump(-50_000), 1, "a clock that was set back opens a new window");
        // Two nodes by turns, one of which is 400 ms behind: together they count as one.
        let turns: Vec<i32> = (0..8).map(|turn| bump(100_000 + turn * 60 - (turn % 2) * 400)).collect();
        assert_eq!(turns, [1, 2, 3, 4, 5, 6, 7, 8], "who asks two nodes by turns begins anew");
        let seen = |ms| bed.system(move |tx| tx.rate_count("code:1.2.3.4", at(ms), 1_000));
        assert_eq!((seen(99_600), seen(100_500), seen(101_000)), (8, 8, 0));
        let lease = |who: &'static str, ttl, ms| bed.system(move |tx| tx.lease_acquire("sealer", who, ttl, at(ms)));
        assert!(lease("one", 60_000, 0));
        assert!(!lease("two", 60_000, 1));
        assert!(lease("one", 60_000, 2));
        bed.system(|tx| tx.lease_release("sealer", "two"));
        assert!(!lease("two", 60_000, 3));
        bed.system(|tx| tx.lease_release("sealer", "one"));
        assert!(lease("two", 0, 4));
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(lease("one", 1_000, 5), "an expired lease is anybody's");
        let row = Idempotent { key_hash: vec![1], request_hash: vec![2], status: 200, body: vec![], created_at: T0 };
        let again = Idempotent { status: 500, ..row.clone() };
        assert_eq!(bed.system({ let row = row.clone(); move |tx| tx.idempotent_put(&row) }), None);
        assert_eq!(bed.system(move |tx| tx.idempotent_put(&again)), Some(row));
        assert_eq!(bed.system(|tx| tx.idempotent_purge(at(1))), 1);
    }
}
