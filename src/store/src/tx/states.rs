//! What protocols remember between two requests, accounts for many devices, and settings that are set already.

use super::{Tx, before, found, limit};
use crate::StoreError;
use crate::backend::{Run as _, native};
use crate::cell::{Cell, records, row};
use crate::records::{EnrollmentAccount, Page, ProtocolState, Sealed};
use crate::schema::{
    applied_settings, enrollment_account_uses, enrollment_accounts, invitations, protocol_states,
};
use bellwether_model::{
    EnrollmentAccountId, EnrollmentId, IdentityId, InvitationId, Ownership, PersonId, Platform, SiteId,
    Timestamp,
};
use diesel::prelude::*;

row!(StateRow: ProtocolState in protocol_states key (identity_id, key) {
    identity_id: IdentityId,
    key: String,
    value: Vec<u8>,
    version: i64,
    touched_at: Timestamp,
});

row!(AccountRow: EnrollmentAccount in enrollment_accounts key (id) {
    id: EnrollmentAccountId,
    platform: Platform,
    name: String,
    secret_hash: Vec<u8>,
    person_id: Option<PersonId>,
    cap: i32,
    ownership: Ownership,
    created_at: Timestamp,
    created_by: String,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
});

impl Tx<'_> {
    /// Site. Everything that a protocol remembers for an identity, by key.
    pub fn protocol_states(&mut self, identity: IdentityId) -> Result<Vec<ProtocolState>, StoreError> {
        self.in_site("protocol_states", |conn, site| {
            let rows: Vec<StateRow> = native!(conn => protocol_states::table
                .filter(protocol_states::site_id.eq(site))
                .filter(protocol_states::identity_id.eq(identity.raw()))
                .order(protocol_states::key)
                .select(StateRow::as_select())
                .load(conn))?;
            records!(rows)
        })
    }

    /// Site. Writes one, if it is still at the version that was read (`None`: not there); whether it was.
    pub fn protocol_state_put(
        &mut self,
        identity: IdentityId,
        key: &str,
        value: &Sealed,
        read: Option<i64>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.in_site("protocol_state_put", |conn, site| {
            let target = || {
                protocol_states::table
                    .filter(protocol_states::site_id.eq(site))
                    .filter(protocol_states::identity_id.eq(identity.raw()))
                    .filter(protocol_states::key.eq(key))
            };
            let Some(read) = read else {
                let there: i64 = target().count().get_result(conn)?;
                if there > 0 {
                    return Ok(false);
                }
                let row = ProtocolState {
                    identity_id: identity,
                    key: key.to_owned(),
                    value: value.clone(),
                    version: 1,
                    touched_at: now,
                };
                diesel::insert_into(protocol_states::table).values(StateRow::of(site, &row)).run(conn)?;
                return Ok(true);
            };
            let rows = diesel::update(target().filter(protocol_states::version.eq(read)))
                .set((
                    protocol_states::value.eq(value),
                    protocol_states::version.eq(read + 1),
                    protocol_states::touched_at.eq(now.0),
                ))
                .run(conn)?;
            Ok(rows == 1)
        })
    }

    /// Site. Forgets one.
    pub fn protocol_state_delete(&mut self, identity: IdentityId, key: &str) -> Result<(), StoreError> {
        self.in_site("protocol_state_delete", |conn, site| {
            let target = protocol_states::table
                .filter(protocol_states::site_id.eq(site))
                .filter(protocol_states::identity_id.eq(identity.raw()))
                .filter(protocol_states::key.eq(key));
            diesel::delete(target).run(conn)?;
            Ok(())
        })
    }

    /// System. Forgets up to `limit` (at most 500) states whose key begins with `prefix` and that were last written
    /// before; how many.
    pub fn protocol_states_purge(
        &mut self,
        prefix: &str,
        before: Timestamp,
        limit: i64,
    ) -> Result<i64, StoreError> {
        self.in_system("protocol_states_purge", |conn| {
            let pattern = format!("{prefix}%");
            let old: Vec<(Vec<u8>, Vec<u8>, String)> = protocol_states::table
                .filter(protocol_states::touched_at.lt(before.0))
                .filter(protocol_states::key.like(&pattern))
                .order(protocol_states::touched_at)
                .limit(limit.clamp(1, 500))
                .select((protocol_states::site_id, protocol_states::identity_id, protocol_states::key))
                .load(conn)?;
            for (site, identity, key) in &old {
                let target = protocol_states::table
                    .filter(protocol_states::site_id.eq(site))
                    .filter(protocol_states::identity_id.eq(identity))
                    .filter(protocol_states::key.eq(key));
                diesel::delete(target).run(conn)?;
            }
            Ok(i64::try_from(old.len()).unwrap_or(i64::MAX))
        })
    }

    /// Site. The password's hash is unique over the server.
    pub fn enrollment_account_insert(&mut self, account: &EnrollmentAccount) -> Result<(), StoreError> {
        self.in_site("enrollment_account_insert", |conn, site| {
            diesel::insert_into(enrollment_accounts::table)
                .values(AccountRow::of(site, account))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn enrollment_account(
        &mut self,
        id: EnrollmentAccountId,
    ) -> Result<Option<EnrollmentAccount>, StoreError> {
        self.in_site("enrollment_account", |conn, site| {
            let row = enrollment_accounts::table
                .filter(enrollment_accounts::site_id.eq(site))
                .filter(enrollment_accounts::id.eq(id.raw()))
                .select(AccountRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(AccountRow::record).transpose()
        })
    }

    /// Site. Newest first.
    pub fn enrollment_accounts(&mut self, page: &Page) -> Result<Vec<EnrollmentAccount>, StoreError> {
        self.in_site("enrollment_accounts", |conn, site| {
            let rows: Vec<AccountRow> = enrollment_accounts::table
                .filter(enrollment_accounts::site_id.eq(site))
                .filter(enrollment_accounts::id.lt(before(page)))
                .order(enrollment_accounts::id.desc())
                .limit(limit(page))
                .select(AccountRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Refused from now on.
    pub fn enrollment_account_revoke(
        &mut self,
        id: EnrollmentAccountId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.in_site("enrollment_account_revoke", |conn, site| {
            let target = enrollment_accounts::table
                .filter(enrollment_accounts::site_id.eq(site))
                .filter(enrollment_accounts::id.eq(id.raw()));
            let rows = diesel::update(target).set(enrollment_accounts::revoked_at.eq(now.0)).run(conn)?;
            found(rows, "enrollment account")
        })
    }

    /// System. Whoever has a password has no site yet.
    pub fn enrollment_account_by_hash(
        &mut self,
        hash: &[u8],
    ) -> Result<Option<(SiteId, EnrollmentAccount)>, StoreError> {
        self.in_system("enrollment_account_by_hash", |conn| {
            let row = enrollment_accounts::table
                .filter(enrollment_accounts::secret_hash.eq(hash))
                .select(AccountRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(AccountRow::with_site).transpose()
        })
    }

    /// Site. An account made this invitation for a device that claims to be `claim`.
    pub fn enrollment_account_use(
        &mut self,
        account: EnrollmentAccountId,
        invitation: InvitationId,
        claim: &str,
    ) -> Result<(), StoreError> {
        self.in_site("enrollment_account_use", |conn, site| {
            diesel::insert_into(enrollment_account_uses::table)
                .values((
                    enrollment_account_uses::site_id.eq(site),
                    enrollment_account_uses::account_id.eq(account.raw()),
                    enrollment_account_uses::invitation_id.eq(invitation.raw()),
                    enrollment_account_uses::claim.eq(claim),
                ))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. The newest invitation that an account made for a claim.
    pub fn enrollment_account_invitation(
        &mut self,
        account: EnrollmentAccountId,
        claim: &str,
    ) -> Result<Option<InvitationId>, StoreError> {
        self.in_site("enrollment_account_invitation", |conn, site| {
            let id: Option<Vec<u8>> = enrollment_account_uses::table
                .filter(enrollment_account_uses::site_id.eq(site))
                .filter(enrollment_account_uses::account_id.eq(account.raw()))
                .filter(enrollment_account_uses::claim.eq(claim))
                .order(enrollment_account_uses::invitation_id.desc())
                .select(enrollment_account_uses::invitation_id)
                .first(conn)
                .optional()?;
            id.map(InvitationId::cooked).transpose()
        })
    }

    /// Site. How many devices count against an account's cap: those that enrolled, and those that may still finish.
    pub fn enrollment_account_used(
        &mut self,
        account: EnrollmentAccountId,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        self.in_site("enrollment_account_used", |conn, site| {
            Ok(enrollment_account_uses::table
                .inner_join(
                    invitations::table.on(invitations::site_id
                        .eq(enrollment_account_uses::site_id)
                        .and(invitations::id.eq(enrollment_account_uses::invitation_id))),
                )
                .filter(enrollment_account_uses::site_id.eq(site))
                .filter(enrollment_account_uses::account_id.eq(account.raw()))
                .filter(
                    invitations::state
                        .eq("activated")
                        .or(invitations::state.eq("open").and(invitations::expires_at.gt(now.0))),
                )
                .count()
                .get_result(conn)?)
        })
    }

    /// Site. What an enrollment confirmed last: setting and digest of its value.
    pub fn applied_settings(
        &mut self,
        enrollment: EnrollmentId,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.in_site("applied_settings", |conn, site| {
            Ok(applied_settings::table
                .filter(applied_settings::site_id.eq(site))
                .filter(applied_settings::enrollment_id.eq(enrollment.raw()))
                .order(applied_settings::setting)
                .select((applied_settings::setting, applied_settings::digest))
                .load(conn)?)
        })
    }

    /// Site. What the device has of this setting now, by its own word.
    pub fn applied_setting_put(
        &mut self,
        enrollment: EnrollmentId,
        setting: &str,
        digest: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.in_site("applied_setting_put", |conn, site| {
            diesel::delete(applied(site.to_vec(), enrollment.raw(), setting)).run(conn)?;
            diesel::insert_into(applied_settings::table)
                .values((
                    applied_settings::site_id.eq(site),
                    applied_settings::enrollment_id.eq(enrollment.raw()),
                    applied_settings::setting.eq(setting),
                    applied_settings::digest.eq(digest),
                    applied_settings::applied_at.eq(now.0),
                ))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. It is not known any more what the device has of this setting.
    pub fn applied_setting_forget(
        &mut self,
        enrollment: EnrollmentId,
        setting: &str,
    ) -> Result<(), StoreError> {
        self.in_site("applied_setting_forget", |conn, site| {
            diesel::delete(applied(site.to_vec(), enrollment.raw(), setting)).run(conn)?;
            Ok(())
        })
    }

    /// Site. It is not known any more what the device has of any setting.
    pub fn applied_settings_forget(&mut self, enrollment: EnrollmentId) -> Result<(), StoreError> {
        self.in_site("applied_settings_forget", |conn, site| {
            let target = applied_settings::table
                .filter(applied_settings::site_id.eq(site))
                .filter(applied_settings::enrollment_id.eq(enrollment.raw()));
            diesel::delete(target).run(conn)?;
            Ok(())
        })
    }
}

/// One row.
#[diesel::dsl::auto_type(no_type_alias)]
fn applied<'a>(site: Vec<u8>, enrollment: Vec<u8>, setting: &'a str) -> _ {
    applied_settings::table
        .filter(applied_settings::site_id.eq(site))
        .filter(applied_settings::enrollment_id.eq(enrollment))
        .filter(applied_settings::setting.eq(setting))
}
