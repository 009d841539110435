//! Certificates that devices use elsewhere. Nothing here tells who a device is: no look-up by certificate exists.

use super::{Tx, before, limit};
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::{Cell, records, row};
use crate::records::{Certificate, Page};
use crate::schema::{certificates, enrollments};
use bellwether_model::device::CertificateState;
use bellwether_model::{AuthorityId, CertificateId, ChallengeId, DeviceId, EnrollmentId, Timestamp};
use diesel::prelude::*;

row!(CertificateRow: Certificate in certificates key (id) {
    id: CertificateId,
    authority_id: AuthorityId,
    serial: String,
    fingerprint: Vec<u8>,
    certificate: Vec<u8>,
    enrollment_id: EnrollmentId,
    challenge_id: ChallengeId,
    requested: String,
    common_name: String,
    not_before: Timestamp,
    not_after: Timestamp,
    state: CertificateState,
    issued_at: Timestamp,
    revoked_at: Option<Timestamp>,
    revoked_reason: Option<String>,
});

impl Tx<'_> {
    /// Site. Recorded before the certificate leaves. One for each challenge: a database rule.
    pub fn certificate_insert(&mut self, certificate: &Certificate) -> Result<(), StoreError> {
        self.in_site("certificate_insert", |conn, site| {
            diesel::insert_into(certificates::table)
                .values(CertificateRow::of(site, certificate))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. What a challenge bought.
    pub fn certificate_of_challenge(&mut self, id: ChallengeId) -> Result<Option<Certificate>, StoreError> {
        self.in_site("certificate_of_challenge", |conn, site| {
            let row = certificates::table
                .filter(certificates::site_id.eq(site))
                .filter(certificates::challenge_id.eq(id.raw()))
                .select(CertificateRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(CertificateRow::record).transpose()
        })
    }

    /// Site. Newest first.
    pub fn certificates_of_enrollment(&mut self, id: EnrollmentId) -> Result<Vec<Certificate>, StoreError> {
        self.in_site("certificates_of_enrollment", |conn, site| {
            let rows: Vec<CertificateRow> = certificates::table
                .filter(certificates::site_id.eq(site))
                .filter(certificates::enrollment_id.eq(id.raw()))
                .order(certificates::id.desc())
                .select(CertificateRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Over all enrollments of a device, newest first; `after` is the last id of the page before.
    pub fn certificates_of_device(
        &mut self,
        id: DeviceId,
        page: &Page,
    ) -> Result<Vec<Certificate>, StoreError> {
        self.in_site("certificates_of_device", |conn, site| {
            let rows: Vec<CertificateRow> = certificates::table
                .inner_join(
                    enrollments::table.on(enrollments::site_id
                        .eq(certificates::site_id)
                        .and(enrollments::id.eq(certificates::enrollment_id))),
                )
                .filter(certificates::site_id.eq(site))
                .filter(enrollments::device_id.eq(id.raw()))
                .filter(certificates::id.lt(before(page)))
                .order(certificates::id.desc())
                .limit(limit(page))
                .select(CertificateRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. All of an enrollment; what was revoked before keeps its reason. How many.
    pub fn certificates_revoke(
        &mut self,
        enrollment: EnrollmentId,
        now: Timestamp,
        why: &str,
    ) -> Result<i64, StoreError> {
        self.in_site("certificates_revoke", |conn, site| {
            let target = certificates::table
                .filter(certificates::site_id.eq(site))
                .filter(certificates::enrollment_id.eq(enrollment.raw()))
                .filter(certificates::state.eq(CertificateState::Issued.raw()));
            let rows = diesel::update(target)
                .set((
                    certificates::state.eq(CertificateState::Revoked.raw()),
                    certificates::revoked_at.eq(Some(now.0)),
                    certificates::revoked_reason.eq(Some(why)),
                ))
                .run(conn)?;
            Ok(i64::try_from(rows).unwrap_or(i64::MAX))
        })
    }

    /// Site. For the authority's revocation list.
    pub fn revoked_certificates(&mut self, authority: AuthorityId) -> Result<Vec<Certificate>, StoreError> {
        self.in_site("revoked_certificates", |conn, site| {
            let rows: Vec<CertificateRow> = certificates::table
                .filter(certificates::site_id.eq(site))
                .filter(certificates::authority_id.eq(authority.raw()))
                .filter(certificates::revoked_at.is_not_null())
                .order(certificates::id)
                .select(CertificateRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }
}
