//! Device certificates, and the one look-up that every device request makes.

use super::devices::{DeviceRow, EnrollmentRow};
use super::{Tx, found};
use crate::StoreError;
use crate::backend::{Run as _, native};
use crate::cell::{Cell, records, row};
use crate::records::{Identity, KnownIdentity};
use crate::schema::{devices, enrollments, identities};
use bellwether_model::device::IdentityState;
use bellwether_model::{
    AuthorityId, ChallengeId, EnrollmentId, EnrollmentState, IdentityId, InvitationId, SiteId, Timestamp,
};
use diesel::prelude::*;

row!(IdentityRow: Identity in identities key (id) {
    id: IdentityId,
    authority_id: AuthorityId,
    serial: String,
    fingerprint: Vec<u8>,
    key_hash: Vec<u8>,
    certificate: Vec<u8>,
    common_name: String,
    not_before: Timestamp,
    not_after: Timestamp,
    state: IdentityState,
    challenge_id: Option<ChallengeId>,
    invitation_id: Option<InvitationId>,
    enrollment_id: Option<EnrollmentId>,
    issued_at: Timestamp,
    revoked_at: Option<Timestamp>,
    revoked_reason: Option<String>,
});

impl Tx<'_> {
    /// Site. Recorded before the certificate leaves. The fingerprint is unique over the server.
    pub fn identity_insert(&mut self, identity: &Identity) -> Result<(), StoreError> {
        self.in_site("identity_insert", |conn, site| {
            diesel::insert_into(identities::table).values(IdentityRow::of(site, identity)).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn identity(&mut self, id: IdentityId) -> Result<Option<Identity>, StoreError> {
        self.in_site("identity", |conn, site| {
            let row = identities::table
                .filter(identities::site_id.eq(site))
                .filter(identities::id.eq(id.raw()))
                .select(IdentityRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(IdentityRow::record).transpose()
        })
    }

    /// Site. State, enrollment and revocation; what is in the certificate never changes.
    pub fn identity_update(&mut self, identity: &Identity) -> Result<(), StoreError> {
        self.in_site("identity_update", |conn, site| {
            let target = identities::table
                .filter(identities::site_id.eq(site))
                .filter(identities::id.eq(identity.id.raw()));
            let rows = diesel::update(target)
                .set((
                    identities::state.eq(identity.state.raw()),
                    identities::enrollment_id.eq(identity.enrollment_id.raw()),
                    identities::revoked_at.eq(identity.revoked_at.raw()),
                    identities::revoked_reason.eq(&identity.revoked_reason),
                ))
                .run(conn)?;
            found(rows, "identity")
        })
    }

    /// Site. Oldest first.
    pub fn identities_of_invitation(&mut self, id: InvitationId) -> Result<Vec<Identity>, StoreError> {
        self.in_site("identities_of_invitation", |conn, site| {
            let mut rows: Vec<IdentityRow> = identities::table
                .filter(identities::site_id.eq(site))
                .filter(identities::invitation_id.eq(id.raw()))
                .select(IdentityRow::as_select())
                .load(conn)?;
            // Sorted here: asked for an order, SQLite walks the site's primary key instead of the owner's index.
            rows.sort_by(|a, b| a.id.cmp(&b.id));
            records!(rows)
        })
    }

    /// Site. Oldest first.
    pub fn identities_of_enrollment(&mut self, id: EnrollmentId) -> Result<Vec<Identity>, StoreError> {
        self.in_site("identities_of_enrollment", |conn, site| {
            let mut rows: Vec<IdentityRow> = identities::table
                .filter(identities::site_id.eq(site))
                .filter(identities::enrollment_id.eq(id.raw()))
                .select(IdentityRow::as_select())
                .load(conn)?;
            // Sorted here: asked for an order, SQLite walks the site's primary key instead of the owner's index.
            rows.sort_by(|a, b| a.id.cmp(&b.id));
            records!(rows)
        })
    }

    /// Site. For the authority's revocation list.
    pub fn revoked_identities(&mut self, authority: AuthorityId) -> Result<Vec<Identity>, StoreError> {
        self.in_site("revoked_identities", |conn, site| {
            let mut rows: Vec<IdentityRow> = identities::table
                .filter(identities::site_id.eq(site))
                .filter(identities::authority_id.eq(authority.raw()))
                .filter(identities::revoked_at.is_not_null())
                .select(IdentityRow::as_select())
                .load(conn)?;
            // Sorted here: asked for an order, SQLite walks the site's primary key instead of the owner's index.
            rows.sort_by(|a, b| a.id.cmp(&b.id));
            records!(rows)
        })
    }

    /// System. Everything the device edge must know about a certificate: three unique look-ups in one query.
    pub fn known_identity(&mut self, fingerprint: &[u8]) -> Result<Option<KnownIdentity>, StoreError> {
        self.in_system("known_identity", |conn| {
            let row: Option<(IdentityRow, Option<EnrollmentRow>, Option<DeviceRow>)> =
                native!(conn => identities::table
                .left_join(
                    enrollments::table.on(enrollments::site_id
                        .nullable()
                        .eq(identities::site_id.nullable())
                        .and(enrollments::id.nullable().eq(identities::enrollment_id))),
                )
                .left_join(
                    devices::table.on(devices::site_id
                        .nullable()
                        .eq(enrollments::site_id.nullable())
                        .and(devices::id.nullable().eq(enrollments::device_id.nullable()))),
                )
                .filter(identities::fingerprint.eq(fingerprint))
                .select((
                    IdentityRow::as_select(),
                    Option::<EnrollmentRow>::as_select(),
                    Option::<DeviceRow>::as_select(),
                ))
                .get_result(conn))
                .optional()?;
            row.map(|(identity, enrollment, device)| {
                Ok(KnownIdentity {
                    site_id: SiteId::cooked(identity.site_id.clone())?,
                    identity: identity.record()?,
                    enrollment: enrollment.map(EnrollmentRow::record).transpose()?,
                    device: device.map(DeviceRow::record).transpose()?,
                })
            })
            .transpose()
        })
    }

    /// System. Active enrollments whose pinned identity ends before `ends_before`, the most urgent first.
    pub fn renewals_due(
        &mut self,
        ends_before: Timestamp,
        limit: i64,
    ) -> Result<Vec<(SiteId, EnrollmentId)>, StoreError> {
        self.in_system("renewals_due", |conn| {
            let rows: Vec<(Vec<u8>, Vec<u8>)> = identities::table
                .inner_join(
                    enrollments::table.on(enrollments::site_id
                        .eq(identities::site_id)
                        .and(enrollments::identity_id.eq(identities::id))),
                )
                .filter(identities::state.eq(IdentityState::Live.raw()))
                .filter(identities::not_after.lt(ends_before.0))
                .filter(enrollments::state.eq(EnrollmentState::Active.raw()))
                .order((identities::not_after, identities::id))
                .limit(limit)
                .select((enrollments::site_id, enrollments::id))
                .load(conn)?;
            rows.into_iter()
                .map(|(site, id)| Ok((SiteId::cooked(site)?, EnrollmentId::cooked(id)?)))
                .collect()
        })
    }
}
