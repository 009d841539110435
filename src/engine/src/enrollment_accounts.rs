//! Accounts with which several devices may enroll: a name and a password, for provisioning packages.

use crate::error::Error;
use crate::invitations::{clean_account, ensure_person};
use crate::permit::{Permit, may};
use crate::vault::new_uuid;
use crate::views::{
    CreatedEnrollmentAccount, EnrollmentAccountView, Listed, NewEnrollmentAccount, next_page,
};
use crate::{Engine, audit};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwether_certs::hash::random_bytes;
use bellwether_model::time::{DAY, MINUTE};
use bellwether_model::{EnrollmentAccountId, EventKind, PersonId, Platform, Timestamp};
use bellwether_store::records::{EnrollmentAccount, Page, Person};
use bellwether_store::{Scope, Tx};
use secrecy::SecretString;

/// How passwords begin.
pub(crate) const PASSWORD_PREFIX: &str = "bwe_";
/// What they are hashed for.
pub(crate) const PASSWORD_PURPOSE: &str = "enrollment-account";
const MAX_CAP: i32 = 10_000;

impl Engine {
    /// Makes an account. Its password is in the answer and nowhere else.
    pub async fn create_enrollment_account(
        &self,
        permit: &Permit<may::WriteInvitations>,
        wish: NewEnrollmentAccount,
    ) -> Result<CreatedEnrollmentAccount, Error> {
        let now = self.now();
        let name = checked(&wish)?;
        let password = format!("{PASSWORD_PREFIX}{}", URL_SAFE_NO_PAD.encode(random_bytes::<20>()?));
        let account = wish.account.as_deref().map(clean_account).transpose()?;
        let person = match &account {
            Some(account) => Some(Person {
                id: PersonId(new_uuid(now)?),
                account: account.clone(),
                name: None,
                created_at: now,
                directory_id: None,
            }),
            None => None,
        };
        let row = EnrollmentAccount {
            id: EnrollmentAccountId(new_uuid(now)?),
            platform: wish.platform,
            name,
            secret_hash: self.vault.code_hash(PASSWORD_PURPOSE, &password),
            person_id: None,
            cap: wish.cap,
            ownership: wish.ownership,
            created_at: now,
            created_by: permit.actor.to_string(),
            expires_at: now.plus(wish.expires_in),
            revoked_at: None,
        };
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::EnrollmentAccountCreated,
            &format!("enrollment-account:{}", row.id),
            permit.source.as_deref(),
            Some(serde_json::json!({
                "platform": row.platform, "name": row.name, "account": account, "cap": row.cap,
                "expires_at": row.expires_at,
            })),
        )?;
        let account = self
            .store
            .write(Scope::Site(permit.site), move |tx| {
                let mut row = row.clone();
                if let Some(person) = &person {
                    row.person_id = Some(ensure_person(tx, person)?);
                }
                tx.enrollment_account_insert(&row)?;
                tx.audit_append(&entry)?;
                view(tx, row, now)
            })
            .await?;
        Ok(CreatedEnrollmentAccount { account, password: SecretString::from(password) })
    }

    /// A page of accounts, newest first.
    pub async fn enrollment_accounts(
        &self,
        permit: &Permit<may::ReadInvitations>,
        cursor: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Listed<EnrollmentAccountView>, Error> {
        let now = self.now();
        self.store
            .read(Scope::Site(permit.site), move |tx| {
                let rows = tx.enrollment_accounts(&Page { after: cursor.clone(), limit })?;
                let next = next_page(&rows, limit, |row| row.id.as_bytes());
                let items = rows.into_iter().map(|row| view(tx, row, now)).collect::<Result<_, _>>()?;
                Ok(Listed { items, next })
            })
            .await
    }

    /// Takes an account back. No further device enrolls with it; devices that did stay.
    pub async fn revoke_enrollment_account(
        &self,
        permit: &Permit<may::WriteInvitations>,
        id: EnrollmentAccountId,
    ) -> Result<EnrollmentAccountView, Error> {
        let now = self.now();
        let entry = audit::entry(
            now,
            &permit.actor,
            EventKind::EnrollmentAccountRevoked,
            &format!("enrollment-account:{id}"),
            permit.source.as_deref(),
            None,
        )?;
        self.store
            .write(Scope::Site(permit.site), move |tx| {
                let mut row = tx.enrollment_account(id)?.ok_or(Error::NotFound("enrollment account"))?;
                if row.revoked_at.is_none() {
                    tx.enrollment_account_revoke(id, now)?;
                    tx.audit_append(&entry)?;
                    row.revoked_at = Some(now);
                }
                view(tx, row, now)
            })
            .await
    }
}

/// The name, or what is wrong with the wish.
fn checked(wish: &NewEnrollmentAccount) -> Result<String, Error> {
    if wish.platform != Platform::Windows {
        return Err(Error::CannotDo(format!(
            "{} devices cannot enroll with an account for many devices; make invitations",
            wish.platform
        )));
    }
    let name = wish.name.trim();
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(Error::Invalid("an account needs a name of 1 to 64 printable characters".into()));
    }
    if !(1..=MAX_CAP).contains(&wish.cap) {
        return Err(Error::Invalid(format!("an account is for 1 to {MAX_CAP} devices")));
    }
    if !(5 * MINUTE..=365 * DAY).contains(&wish.expires_in) {
        return Err(Error::Invalid("an account lives between 5 minutes and 365 days".into()));
    }
    Ok(name.to_owned())
}

fn view(tx: &mut Tx<'_>, row: EnrollmentAccount, now: Timestamp) -> Result<EnrollmentAccountView, Error> {
    let account = match row.person_id {
        Some(id) => tx.person(id)?.map(|p| p.account),
        None => None,
    };
    Ok(EnrollmentAccountView {
        used: tx.enrollment_account_used(row.id, now)?,
        id: row.id,
        platform: row.platform,
        name: row.name,
        account,
        cap: row.cap,
        ownership: row.ownership,
        created_at: row.created_at,
        created_by: row.created_by,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    })
}
