//! Accounts with which several devices may enroll.

use crate::support::*;
use bellwether_engine::{Error, NewEnrollmentAccount, may};
use bellwether_model::time::{DAY, MINUTE};
use bellwether_model::{EnrollmentAccountId, Ownership, Platform};
use secrecy::ExposeSecret as _;

fn kiosks() -> NewEnrollmentAccount {
    NewEnrollmentAccount {
        platform: Platform::Windows,
        name: " kiosks ".into(),
        account: Some("Ann@Example.org".into()),
        cap: 25,
        expires_in: 30 * DAY,
        ownership: Ownership::Company,
    }
}

#[tokio::test]
async fn an_account_shows_its_password_once_and_can_be_taken_back() {
    let house = house().await;
    let write = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let read = house.admin.permit::<may::ReadInvitations>(house.site()).unwrap();
    let one = house.engine.create_enrollment_account(&write, kiosks()).await.unwrap();
    house.later(1);
    let two = house.engine.create_enrollment_account(&write, kiosks()).await.unwrap();
    let password = one.password.expose_secret();
    assert!(password.starts_with("bwe_") && password.len() == 31, "160 random bits");
    assert_ne!(password, two.password.expose_secret());
    assert!(!format!("{one:?}").contains(password), "no secret in Debug");
    assert_eq!((one.account.name.as_str(), one.account.used, one.account.cap), ("kiosks", 0, 25));
    assert_eq!(one.account.account.as_deref(), Some("ann@example.org"));
    let page = house.engine.enrollment_accounts(&read, None, 1).await.unwrap();
    assert_eq!(page.items[0].id, two.account.id, "newest first");
    let rest = house.engine.enrollment_accounts(&read, page.next, 10).await.unwrap();
    assert_eq!(rest.items.iter().map(|a| a.id).collect::<Vec<_>>(), [one.account.id]);

    house.later(MINUTE);
    let gone = house.engine.revoke_enrollment_account(&write, one.account.id).await.unwrap();
    house.later(MINUTE);
    let again = house.engine.revoke_enrollment_account(&write, one.account.id).await.unwrap();
    assert!(gone.revoked_at.is_some() && gone.revoked_at == again.revoked_at);
    let nobody = EnrollmentAccountId(uuid::Uuid::from_u128(7));
    let missing = house.engine.revoke_enrollment_account(&write, nobody).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    assert_eq!(house.audited("enrollment-account.created").await, 2);
    assert_eq!(house.audited("enrollment-account.revoked").await, 1);
}

#[tokio::test]
async fn an_account_without_bounds_is_refused() {
    let house = house().await;
    let write = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let create = |wish| house.engine.create_enrollment_account(&write, wish);
    for wish in [
        NewEnrollmentAccount { name: " ".into(), ..kiosks() },
        NewEnrollmentAccount { name: "x".repeat(65), ..kiosks() },
        NewEnrollmentAccount { name: "a\0b".into(), ..kiosks() },
        NewEnrollmentAccount { cap: 0, ..kiosks() },
        NewEnrollmentAccount { cap: 10_001, ..kiosks() },
        NewEnrollmentAccount { expires_in: 5 * MINUTE - 1, ..kiosks() },
        NewEnrollmentAccount { expires_in: 365 * DAY + 1, ..kiosks() },
        NewEnrollmentAccount { account: Some("\n".into()), ..kiosks() },
    ] {
        let refused = create(wish.clone()).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{wish:?}: {refused:?}");
    }
    for platform in [Platform::Apple, Platform::Android] {
        let refused = create(NewEnrollmentAccount { platform, ..kiosks() }).await;
        assert!(matches!(refused, Err(Error::CannotDo(_))), "{refused:?}");
    }
}
