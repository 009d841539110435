//! PCs that enroll with tokens of Entra ID: who the person is, and what a token is good for.

use crate::backends::Database;
use crate::pc::{Pc, code, pc};
use crate::support::{House, house_on, open_on};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::jwt::{public_jwk, sign_rs256};
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{
    Entra, EntraSettings, EntraTerms, InvitationView, TermsPage, TermsRefusal, TermsRequest, may,
};
use bellwether_model::time::MINUTE;
use bellwether_model::{EnrollmentState, Timestamp};
use bellwether_windows::enrollment::{Credential, ErrorType, Subcode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const OURS: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const ANN: &str = "00000000-0000-4000-8000-000000000001";
const BOB: &str = "00000000-0000-4000-8000-000000000002";
const NAME: &str = "ann@example.org";
/// Where the answer to the terms of use goes.
const APP: &str = "ms-appx-web://Microsoft.AAD.BrokerPlugin/x";
/// What everybody is told whose credential is not good.
const UNIFORM: &str = "the user name or the one-time code is wrong, used or expired";

/// A tenant of Entra ID: what it publishes, and what it signs.
struct Directory {
    key: KeyPair,
    tokens: AtomicU32,
}

struct Published(Value);

#[async_trait::async_trait]
impl bellwether_engine::SigningKeys for Published {
    async fn fetch(&self, _: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.to_string().into_bytes())
    }
}

impl Directory {
    /// A tenant whose tokens the house accepts.
    fn of(house: &House) -> Self {
        Self::with(house, settings())
    }

    fn with(house: &House, settings: EntraSettings) -> Self {
        let new = Self { key: KeyPair::generate_rsa2048().unwrap(), tokens: AtomicU32::new(0) };
        new.admit(house, settings);
        new
    }

    fn admit(&self, house: &House, settings: EntraSettings) {
        let keys = Published(json!({ "keys": [public_jwk("one", &self.key).unwrap()] }));
        house.engine.set_entra(Arc::new(Entra::new(settings, Arc::new(keys)).unwrap()));
    }

    /// A fresh token for somebody.
    fn token(&self, house: &House, object_id: &str, upn: &str) -> String {
        use bellwether_engine::Clock as _;
        let Timestamp(now) = house.clock.now();
        let claims = json!({
            "iss": format!("https://sts.windows.net/{OURS}/"), "aud": "https://mdm.example.org", "tid": OURS,
            "scp": "mdm_delegation", "upn": upn, "oid": object_id, "nbf": now / 1000 - 60, "iat": now / 1000 - 60,
            "exp": now / 1000 + 24 * 3600, "uti": self.tokens.fetch_add(1, Ordering::SeqCst).to_string(),
        });
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "one" });
        sign_rs256(&header, &claims, &self.key).unwrap()
    }

    fn credential(&self, house: &House, object_id: &str, upn: &str) -> Credential {
        jwt(&self.token(house, object_id, upn))
    }

    /// A PC of this name enrolls for somebody and opens its first session.
    async fn enrolled(&self, house: &House, name: &str, object_id: &str, upn: &str) -> Pc {
        let mut pc = pc(name);
        pc.enroll(house, &self.credential(house, object_id, upn)).await.unwrap();
        pc.session(house).await;
        pc
    }
}

fn settings() -> EntraSettings {
    EntraSettings {
        tenants: vec![OURS.into()],
        audiences: vec!["https://mdm.example.org".into()],
        authority: "https://login.microsoftonline.com".into(),
        max_devices_per_person: 15,
        known_people_only: false,
        terms: EntraTerms::default(),
    }
}

fn jwt(token: &str) -> Credential {
    Credential::Jwt(token.into())
}

/// Whose PC this is, and how it stands, by its serial number; the newest first when several claim to be it.
async fn stands(house: &House, pc: &Pc) -> Vec<(String, EnrollmentState)> {
    let devices = house.devices().await;
    let mine = devices.iter().filter(|device| device.serial.as_ref() == Some(&pc.serial));
    let said = |device: &bellwether_engine::DeviceView| {
        let enrollment = device.enrollment.clone().unwrap();
        (enrollment.account.unwrap_or_default(), enrollment.state)
    };
    mine.rev().map(said).collect()
}

/// What the audit says of people, by what changed: entries of one moment have no order.
async fn changes(house: &House) -> Vec<Value> {
    let entries = house.entries("person.changed").await;
    let mut changes: Vec<Value> = entries.into_iter().map(|entry| entry.details.unwrap()).collect();
    changes.sort_by_key(|details| [&details["change"], &details["before"]].map(Value::to_string));
    changes
}

fn words(changes: &[Value]) -> Vec<&str> {
    changes.iter().map(|details| details["change"].as_str().unwrap()).collect()
}

on_every_backend! {
    /// A name that was given to somebody else opens nothing that was its owner's.
    async fn at_18_a_name_given_to_somebody_else_is_another_person(house: House) {
        let directory = Directory::of(&house);
        let mut first = directory.enrolled(&house, "P1", ANN, "Ann@Example.org").await;
        assert_eq!(stands(&house, &first).await, [(NAME.to_owned(), EnrollmentState::Active)]);
        let other = directory.enrolled(&house, "P2", BOB, NAME).await;
        assert_eq!(stands(&house, &other).await, [(NAME.to_owned(), EnrollmentState::Active)]);
        let kept = stands(&house, &first).await;
        assert!(kept[0].0.starts_with("ann@example.org (former, "), "{kept:?}");
        assert_eq!(kept[0].1, EnrollmentState::Active, "the former keeps its device");
        // Whoever has the name now does not take the place of the former's PC.
        house.later(60_000);
        let mut thief = pc("P1");
        thief.enroll(&house, &directory.credential(&house, BOB, NAME)).await.unwrap();
        assert_eq!(thief.session(&house).await, [], "it is told nothing");
        let now = stands(&house, &first).await;
        assert_eq!(now[0], (NAME.to_owned(), EnrollmentState::Unproven));
        assert_eq!(now[1], kept[0]);
        first.session(&house).await;
        let changes = changes(&house).await;
        assert_eq!(words(&changes), ["account-given-away", "added", "added"]);
        assert_eq!(changes[0]["account"], kept[0].0.as_str());
        assert_eq!(changes[0]["given_to"], format!("entra:{OURS}:{BOB}"));
    }

    async fn a_person_whom_an_admin_invited_by_name_is_adopted(house: House) {
        let directory = Directory::of(&house);
        let mut invited = pc("P1");
        let invitation = house.invite_pc(Some(NAME)).await;
        invited.enroll(&house, &code(NAME, &invitation)).await.unwrap();
        invited.session(&house).await;
        directory.enrolled(&house, "P2", ANN, "ANN@example.org").await;
        directory.enrolled(&house, "P3", ANN, NAME).await;
        let accounts: Vec<_> = house.devices().await.into_iter().map(|d| d.enrollment.unwrap().account).collect();
        assert_eq!(accounts, [Some(NAME.to_owned()), Some(NAME.to_owned()), Some(NAME.to_owned())]);
        let changes = changes(&house).await;
        assert_eq!(words(&changes), ["adopted"], "once");
        assert_eq!(changes[0]["directory_id"], format!("entra:{OURS}:{ANN}"));
    }

    async fn a_person_with_a_new_name_stays_the_same(house: House) {
        let directory = Directory::of(&house);
        let first = directory.enrolled(&house, "P1", ANN, NAME).await;
        directory.enrolled(&house, "P2", ANN, "Ann.Married@example.org").await;
        let renamed = ("ann.married@example.org".to_owned(), EnrollmentState::Active);
        assert_eq!(stands(&house, &first).await, std::slice::from_ref(&renamed));
        // The name that is wanted is of somebody whom an admin named: it is not taken from them.
        house.invite_pc(Some("boss@example.org")).await;
        let third = directory.enrolled(&house, "P3", ANN, "boss@example.org").await;
        assert_eq!(stands(&house, &third).await, [renamed]);
        // Two people exchange their names.
        let bobs = directory.enrolled(&house, "P4", BOB, "bob@example.org").await;
        directory.enrolled(&house, "P5", ANN, "bob@example.org").await;
        assert!(stands(&house, &bobs).await[0].0.starts_with("bob@example.org (former, "));
        directory.enrolled(&house, "P6", BOB, "ann.married@example.org").await;
        assert_eq!(stands(&house, &first).await[0].0, "bob@example.org");
        assert_eq!(stands(&house, &bobs).await[0].0, "ann.married@example.org");
        let changes = changes(&house).await;
        assert_eq!(words(&changes), ["account-given-away", "added", "added", "renamed", "renamed", "renamed"]);
        assert_eq!((changes[4]["before"].as_str(), changes[4]["account"].as_str()), (Some(NAME), Some("ann.married@example.org")));
    }

    /// One token, one living certificate: as a one-time code.
    async fn at_18_a_token_is_good_for_one_certificate(house: House) {
        let directory = Directory::of(&house);
        let token = directory.token(&house, ANN, NAME);
        let (mut first, mut second) = (pc("P1"), pc("P2"));
        first.enroll(&house, &jwt(&token)).await.unwrap();
        let lost = first.cert.clone();
        first.token(&house, &jwt(&token)).await.unwrap();
        assert_eq!(first.cert, lost, "the very same request again");
        second.enroll(&house, &jwt(&token)).await.unwrap();
        assert_eq!(first.open(&house).await.0, 403, "the second attempt ended the first");
        second.session(&house).await;
        assert_eq!(invitations(&house).await.len(), 1);
        for used in [&token, &respelled(&token)[0]] {
            let fault = first.token(&house, &jwt(used)).await.unwrap_err();
            assert_eq!((fault.subcode, fault.reason.as_str()), (Subcode::Authentication, UNIFORM));
        }
        assert_eq!(house.devices().await.len(), 1);
        assert_eq!(changes(&house).await.len(), 1);
    }

    /// Another spelling of a token is no other token.
    async fn at_18_a_token_has_one_spelling(house: House) {
        let directory = Directory::of(&house);
        let token = directory.token(&house, ANN, NAME);
        let mut pc = pc("P1");
        pc.enroll(&house, &jwt(&token)).await.unwrap();
        for other in respelled(&token) {
            pc.key = KeyPair::generate_rsa2048().unwrap();
            let fault = pc.token(&house, &jwt(&other)).await.unwrap_err();
            assert_eq!((fault.subcode, fault.reason.as_str()), (Subcode::Authentication, UNIFORM), "{other:.20}");
        }
        assert_eq!(invitations(&house).await.len(), 1);
        pc.key = KeyPair::generate_rsa2048().unwrap();
        pc.token(&house, &jwt(&token)).await.unwrap();
        assert_eq!(invitations(&house).await.len(), 1);
    }

    async fn at_18_a_token_ends_with_its_invitation(house: House) {
        let directory = Directory::of(&house);
        let (revoked, expired) = (directory.token(&house, ANN, NAME), directory.token(&house, ANN, NAME));
        let mut pc = pc("P1");
        pc.enroll(&house, &jwt(&revoked)).await.unwrap();
        let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
        house.engine.revoke_invitation(&permit, invitations(&house).await[0].id).await.unwrap();
        assert_eq!(pc.open(&house).await.0, 403);
        assert_eq!(pc.token(&house, &jwt(&revoked)).await.unwrap_err().reason, UNIFORM);
        pc.enroll(&house, &jwt(&expired)).await.unwrap();
        house.later(61 * MINUTE);
        assert_eq!(pc.token(&house, &jwt(&expired)).await.unwrap_err().reason, UNIFORM, "the same request too");
        pc.key = KeyPair::generate_rsa2048().unwrap();
        assert_eq!(pc.token(&house, &jwt(&expired)).await.unwrap_err().reason, UNIFORM);
    }

    async fn a_person_of_the_directory_enrolls_their_pc_again(house: House) {
        let directory = Directory::of(&house);
        let mut old = directory.enrolled(&house, "P1", ANN, NAME).await;
        house.engine.flush_last_seen().await.unwrap();
        house.later(MINUTE);
        let mut again = directory.enrolled(&house, "P1", ANN, "ann.married@example.org").await;
        let renamed = ("ann.married@example.org".to_owned(), EnrollmentState::Active);
        assert_eq!(stands(&house, &again).await, [renamed]);
        assert_eq!(house.devices().await[0].enrollment.as_ref().unwrap().epoch, 2);
        assert_eq!(old.open(&house).await.0, 403);
        // By name alone it would be the same person, too: the directory says otherwise.
        house.later(MINUTE);
        let next = directory.enrolled(&house, "P1", BOB, "ann.married@example.org").await;
        assert_eq!(stands(&house, &next).await[0].1, EnrollmentState::Unproven);
        again.session(&house).await;
    }

    /// Who was adopted because of a name does not take what somebody enrolled by a code for that name.
    async fn at_18_a_name_alone_takes_no_pc(house: House) {
        let directory = Directory::of(&house);
        let mut owner = pc("P1");
        let invitation = house.invite_pc(Some(NAME)).await;
        owner.enroll(&house, &code(NAME, &invitation)).await.unwrap();
        owner.session(&house).await;
        house.engine.flush_last_seen().await.unwrap();
        // Now, and when the adoption is long ago.
        for _ in 0..2 {
            house.later(MINUTE);
            let claimant = directory.enrolled(&house, "P1", ANN, NAME).await;
            assert_eq!(claimant.told, [], "it is told nothing");
            assert_eq!(stands(&house, &claimant).await[0], (NAME.to_owned(), EnrollmentState::Unproven));
        }
        assert_eq!(words(&changes(&house).await), ["adopted"]);
        let stands = stands(&house, &owner).await;
        assert_eq!(stands.last(), Some(&(NAME.to_owned(), EnrollmentState::Active)));
        owner.session(&house).await;
    }

    /// Where terms must be accepted, a certificate costs the acceptance of this text by this person, not long ago.
    async fn at_18_required_terms_are_accepted_by_the_person_who_enrolls(house: House) {
        let terms = |text: &str, required| EntraTerms { text: Some(text.into()), required };
        let be_kind = EntraSettings { terms: terms("Be kind.", true), ..settings() };
        let directory = Directory::with(&house, be_kind.clone());
        let (anns, bobs) = (directory.token(&house, ANN, NAME), directory.token(&house, BOB, "bob@example.org"));
        let mut pc = pc("P1");
        let refused = async |pc: &mut Pc, why: &str| {
            let fault = pc.token(&house, &jwt(&anns)).await.unwrap_err();
            assert_eq!(fault.error_type, Some(ErrorType::InvalidEnrollmentData));
            let newest = house.entries("device.refused").await.swap_remove(0);
            let reason = newest.details.unwrap()["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains("terms of use") && reason.contains(why), "{reason}");
            house.later(1);
        };
        refused(&mut pc, "brings no EnrollmentData").await;
        let page = terms_page(&house, &anns).await.unwrap();
        assert_eq!((page.account.as_str(), page.text.as_deref()), (NAME, Some("Be kind.")));
        let bobs_page = terms_page(&house, &bobs).await.unwrap();
        let bobs_blob = accept(&house, &bobs_page).await;
        for wrong in [bobs_blob.as_str(), "AAAA", "nonsense", page.ticket.expose_secret()] {
            pc.enrollment_data = Some(wrong.to_owned());
            refused(&mut pc, "not made for this person").await;
        }
        let declined = house.engine.windows_terms_answered(page.ticket.expose_secret(), false, None).await.unwrap();
        assert_eq!((declined.redirect_uri.as_str(), declined.blob), (APP, None));
        pc.enrollment_data = Some(accept(&house, &page).await);
        directory.admit(&house, EntraSettings { terms: terms("Be very kind.", true), ..settings() });
        refused(&mut pc, "the text has changed").await;
        directory.admit(&house, be_kind);
        house.later(61 * MINUTE);
        refused(&mut pc, "too long ago").await;
        let late = house.engine.windows_terms_answered(page.ticket.expose_secret(), true, None).await;
        assert!(late.is_err(), "the page is too old as well");
        for forged in ["", "AAAA", bobs_blob.as_str()] {
            assert!(house.engine.windows_terms_answered(forged, true, None).await.is_err());
        }
        let page = terms_page(&house, &anns).await.unwrap();
        pc.enrollment_data = Some(accept(&house, &page).await);
        pc.enroll(&house, &jwt(&anns)).await.unwrap();
        pc.session(&house).await;
        let accepted = house.entries("terms.accepted").await.swap_remove(0);
        assert_eq!(accepted.target, format!("entra:{OURS}:{ANN}"));
        assert_eq!(accepted.details.unwrap()["account"], NAME);
        assert_eq!((house.audited("terms.accepted").await, house.audited("terms.declined").await), (3, 1));
    }

    async fn at_18_terms_are_shown_to_whoever_may_enroll(house: House) {
        let stranger = KeyPair::generate_rsa2048().unwrap();
        assert_eq!(terms_page(&house, "e30.e30.").await.err(), Some(TermsRefusal::Unauthorized), "it is off");
        let directory = Directory::of(&house);
        let good = directory.token(&house, ANN, NAME);
        let forged = Directory { key: stranger, tokens: AtomicU32::new(0) }.token(&house, ANN, NAME);
        for bad in [forged.as_str(), "e30.e30.", ""] {
            assert_eq!(terms_page(&house, bad).await.err(), Some(TermsRefusal::Unauthorized));
        }
        assert_eq!(house.audited("device.refused").await, 4);
        let page = terms_page(&house, &good).await.unwrap();
        assert_eq!(page.text, None);
        // A flood of answers is not a flood of entries.
        for _ in 0..20 {
            accept(&house, &page).await;
        }
        let more = house.engine.windows_terms_answered(page.ticket.expose_secret(), true, None).await;
        assert!(matches!(more, Err(bellwether_engine::Error::TooMany { .. })), "{more:?}");
        assert_eq!(house.audited("terms.accepted").await, 20);
        // Where they are not required, nobody asks for them.
        let mut pc = pc("P1");
        pc.enrollment_data = Some("AAAA".into());
        pc.enroll(&house, &jwt(&good)).await.unwrap();
    }

    /// Whoever has a person's account makes no fleet of it.
    async fn at_18_a_person_enrolls_no_more_pcs_than_allowed(house: House) {
        let directory = Directory::with(&house, EntraSettings { max_devices_per_person: 2, ..settings() });
        let invitation = house.invite_pc(Some(NAME)).await;
        let mut by_code = pc("P1");
        by_code.enroll(&house, &code(NAME, &invitation)).await.unwrap();
        by_code.session(&house).await;
        let mut slow = pc("P2");
        let slows = directory.credential(&house, ANN, NAME);
        slow.enroll(&house, &slows).await.unwrap();
        let mut third = pc("P3");
        let thirds = directory.credential(&house, ANN, NAME);
        let fault = third.token(&house, &thirds).await.unwrap_err();
        assert_eq!((fault.error_type, fault.client_error()), (Some(ErrorType::DeviceCapReached), 0x8018_0013));
        slow.token(&house, &slows).await.unwrap();
        directory.enrolled(&house, "P4", BOB, "bob@example.org").await;
        // What was not finished gives its place to another, and does not take one later.
        house.later(61 * MINUTE);
        third.enroll(&house, &thirds).await.unwrap();
        assert_eq!(slow.open(&house).await.0, 403, "its place is taken");
        third.session(&house).await;
        assert_eq!(slow.open(&house).await.0, 403);
        let fourth = directory.credential(&house, ANN, NAME);
        assert!(pc("P5").token(&house, &fourth).await.is_err());
        let ended = house.devices().await.into_iter().find(|d| d.serial.as_deref() == Some("SN-P1"));
        let permit = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
        house.engine.end_enrollment(&permit, ended.unwrap().enrollment.unwrap().id, "sold").await.unwrap();
        pc("P5").token(&house, &fourth).await.unwrap();
    }

    /// Where an account in the tenant is not enough, an admin has to have named the person.
    async fn at_18_only_people_whom_somebody_named_enroll_where_that_is_wanted(house: House) {
        let directory = Directory::with(&house, EntraSettings { known_people_only: true, ..settings() });
        let stranger = directory.credential(&house, ANN, NAME);
        let fault = pc("P1").token(&house, &stranger).await.unwrap_err();
        assert_eq!((fault.error_type, fault.client_error()), (Some(ErrorType::UserLicense), 0x8018_0018));
        house.invite_pc(Some(NAME)).await;
        // The same token: it bought nothing.
        let mut first = pc("P1");
        first.enroll(&house, &stranger).await.unwrap();
        first.session(&house).await;
        // By the directory's id from now on, whatever she is called; and her former name is nobody's.
        directory.enrolled(&house, "P2", ANN, "ann.lee@example.org").await;
        let namesake = directory.credential(&house, BOB, "ann.lee@example.org");
        let fault = pc("P3").token(&house, &namesake).await.unwrap_err();
        assert_eq!(fault.error_type, Some(ErrorType::UserLicense));
    }

    async fn at_18_uses_of_a_token_at_the_same_time_end_with_one_pc(house: House) {
        let directory = Directory::of(&house);
        let token = jwt(&directory.token(&house, ANN, NAME));
        rush(&[&house], &token).await;
    }
}

/// Two processes on one database.
#[tokio::test(flavor = "multi_thread")]
async fn at_18_uses_of_a_token_at_two_servers_end_with_one_pc() {
    let Some(database) = Database::fresh() else { return };
    let house = house_on(database.store(), tempfile::tempdir().unwrap()).await;
    let engine = open_on(database.store(), house.folder.path(), house.clock.clone()).await.unwrap();
    let (clock, admin) = (house.clock.clone(), house.admin.clone());
    let other = House { engine, clock, admin, folder: tempfile::tempdir().unwrap() };
    let directory = Directory::of(&house);
    directory.admit(&other, settings());
    let token = jwt(&directory.token(&house, ANN, NAME));
    rush(&[&house, &other], &token).await;
}

/// Six PCs come with one token at once. One of them can open a session.
async fn rush(houses: &[&House], token: &Credential) {
    let mut pcs: Vec<Pc> = (0..6).map(|n| pc(&format!("P{n}"))).collect();
    let uses = pcs.iter_mut().enumerate().map(async |(n, pc)| {
        // Who meets others too often may be told to come again.
        pc.token(houses[n % houses.len()], token).await.is_ok()
    });
    let served = futures_util::future::join_all(uses).await;
    assert!(served.contains(&true));
    let mut opened = 0;
    for (pc, _) in pcs.iter_mut().zip(served).filter(|(_, served)| *served) {
        let (status, _) = pc.open(houses[0]).await;
        assert!(status == 200 || status == 403, "{status}");
        opened += usize::from(status == 200);
    }
    assert_eq!(opened, 1);
    assert_eq!((invitations(houses[0]).await.len(), houses[0].devices().await.len()), (1, 1));
}

async fn terms_page(house: &House, token: &str) -> Result<TermsPage, TermsRefusal> {
    let request = TermsRequest {
        token: token.into(),
        redirect_uri: APP.into(),
        request_id: None,
        source: Some("192.0.2.1".into()),
    };
    house.engine.windows_terms(request).await
}

/// Accepts, and gives what Windows brings back.
async fn accept(house: &House, page: &TermsPage) -> String {
    let answer = house.engine.windows_terms_answered(page.ticket.expose_secret(), true, None).await.unwrap();
    STANDARD.encode(answer.blob.unwrap())
}

async fn invitations(house: &House) -> Vec<InvitationView> {
    let permit = house.admin.permit::<may::ReadInvitations>(house.site()).unwrap();
    house.engine.invitations(&permit, None, 100).await.unwrap().items
}

/// The same token in other letters: padding, blanks, and bits of the last letter that mean nothing. The signature has
/// 256 bytes, so that four bits of its last letter are left over.
fn respelled(token: &str) -> Vec<String> {
    let (rest, last) = token.split_at(token.len() - 1);
    let unused = match last {
        "A" => "B",
        "Q" => "R",
        "g" => "h",
        _ => "x",
    };
    let (signed, signature) = token.rsplit_once('.').unwrap();
    vec![
        format!("{rest}{unused}"),
        format!("{token}=="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{signed}=.{signature}"),
        format!("{signed}. {signature}"),
        token.replacen('.', "..", 1),
    ]
}
