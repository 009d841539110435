//! People whom a directory names, inside a transaction.
//!
//! A directory gives an account name to somebody else once its owner has left, and gives its owner another. Who a person
//! is says the directory's id, which is nobody else's ever; the account is what the person is called today.

use crate::audit;
use crate::error::Error;
use crate::invitations::MAX_ACCOUNT;
use crate::vault::new_uuid;
use bellwether_model::{Actor, EventKind, PersonId, Timestamp};
use bellwether_store::Tx;
use bellwether_store::records::{AuditEntry, Person};

/// Whom a directory named. Everything the transaction needs, made before it.
pub(crate) struct Named {
    /// Who is inserted when nobody has this directory id or this account.
    person: Person,
    directory_id: String,
    /// For this person; target and details are known in the transaction.
    changed: AuditEntry,
    /// For who had the account before.
    given_away: AuditEntry,
}

impl Named {
    /// `account` is clean already.
    pub(crate) fn new(
        directory_id: String,
        account: String,
        name: Option<String>,
        now: Timestamp,
        source: Option<&str>,
    ) -> Result<Self, Error> {
        let actor = Actor::Server("directory".into());
        let entry = || audit::entry(now, &actor, EventKind::PersonChanged, "", source, None);
        let person = Person {
            id: PersonId(new_uuid(now)?),
            account,
            name,
            created_at: now,
            directory_id: Some(directory_id.clone()),
        };
        Ok(Self { person, directory_id, changed: entry()?, given_away: entry()? })
    }

    /// The person with this directory id, by today's account; made or adopted when there is none.
    ///
    /// A person without a directory id, whom an admin named, is adopted: that is whom the admin meant. One with another
    /// directory id had the account before: its devices and its history stay with it, under a name that says so.
    pub(crate) fn person(&self, tx: &mut Tx<'_>) -> Result<PersonId, Error> {
        let known = tx.person_by_directory(&self.directory_id)?;
        if let Some(known) = &known
            && known.account == self.person.account
        {
            return Ok(known.id);
        }
        let holder = tx.person_by_account(&self.person.account)?;
        match (known, holder) {
            // Two people for us, and no way to tell whether they are one: each keeps what it has.
            (Some(known), Some(holder)) if holder.directory_id.is_none() => Ok(known.id),
            (None, Some(holder)) if holder.directory_id.is_none() => self.adopt(tx, holder),
            (known, holder) => {
                if let Some(holder) = holder {
                    self.take_account(tx, holder)?;
                }
                match known {
                    Some(known) => self.rename(tx, known),
                    None => self.insert(tx),
                }
            }
        }
    }

    /// Whether somebody here has named this person before, by this directory id or, without one, by this account.
    pub(crate) fn is_known(&self, tx: &mut Tx<'_>) -> Result<bool, Error> {
        if tx.person_by_directory(&self.directory_id)?.is_some() {
            return Ok(true);
        }
        let holder = tx.person_by_account(&self.person.account)?;
        Ok(holder.is_some_and(|holder| holder.directory_id.is_none()))
    }

    fn insert(&self, tx: &mut Tx<'_>) -> Result<PersonId, Error> {
        tx.person_insert(&self.person)?;
        self.note(tx, self.person.id, "added", None)
    }

    fn adopt(&self, tx: &mut Tx<'_>, holder: Person) -> Result<PersonId, Error> {
        let name = holder.name.clone().or_else(|| self.person.name.clone());
        let adopted = Person { name, directory_id: Some(self.directory_id.clone()), ..holder };
        tx.person_update(&adopted)?;
        self.note(tx, adopted.id, "adopted", None)
    }

    fn rename(&self, tx: &mut Tx<'_>, known: Person) -> Result<PersonId, Error> {
        let before = known.account.clone();
        let renamed = Person { account: self.person.account.clone(), ..known };
        tx.person_update(&renamed)?;
        self.note(tx, renamed.id, "renamed", Some(&before))
    }

    /// The directory says that the account is somebody else's now.
    fn take_account(&self, tx: &mut Tx<'_>, holder: Person) -> Result<(), Error> {
        let former = Person { account: former_account(&holder.account, holder.id), ..holder };
        tx.person_update(&former)?;
        let details = serde_json::json!({
            "change": "account-given-away", "account": former.account, "before": self.person.account,
            "given_to": self.directory_id,
        });
        append(tx, &self.given_away, former.id, &details)
    }

    fn note(
        &self,
        tx: &mut Tx<'_>,
        person: PersonId,
        change: &str,
        before: Option<&str>,
    ) -> Result<PersonId, Error> {
        let details = serde_json::json!({
            "change": change, "account": self.person.account, "before": before,
            "directory_id": self.directory_id,
        });
        append(tx, &self.changed, person, &details).map(|()| person)
    }
}

fn append(
    tx: &mut Tx<'_>,
    entry: &AuditEntry,
    person: PersonId,
    details: &serde_json::Value,
) -> Result<(), Error> {
    let entry = AuditEntry { target: format!("person:{person}"), ..entry.clone() };
    tx.audit_append(&audit::with_details(entry, details)).map_err(Error::from)
}

/// What somebody is called whose account was given to somebody else. The id keeps it unique.
fn former_account(account: &str, id: PersonId) -> String {
    let note = format!(" (former, {id})");
    let mut room = MAX_ACCOUNT.saturating_sub(note.len()).min(account.len());
    while !account.is_char_boundary(room) {
        room -= 1;
    }
    [account.get(..room).unwrap_or_default(), &note].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_accounts_stay_readable_and_fit() {
        let id = PersonId(uuid::Uuid::from_u128(7));
        let short = former_account("ann@example.org", id);
        assert_eq!(short, "ann@example.org (former, 00000000-0000-0000-0000-000000000007)");
        let long = former_account(&"ä".repeat(MAX_ACCOUNT / 2), id);
        assert!(long.len() <= MAX_ACCOUNT && long.len() >= MAX_ACCOUNT - 1, "{}", long.len());
        assert!(long.starts_with("ää") && long.ends_with("000007)"));
    }
}
