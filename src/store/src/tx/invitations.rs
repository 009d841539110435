//! Invitations and the challenges they mint.

use super::{Tx, before, found, limit};
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::{Cell, records, row};
use crate::records::{Challenge, Invitation, Page};
use crate::schema::{challenges, invitations};
use bellwether_model::device::{ChallengePurpose, ChallengeState};
use bellwether_model::{
    ChallengeId, DeviceId, EnrollmentId, IdentityId, InvitationId, InvitationState, Ownership, PersonId,
    Platform, SiteId, Timestamp,
};
use diesel::prelude::*;

row!(InvitationRow: Invitation in invitations key (id) {
    id: InvitationId,
    platform: Platform,
    person_id: Option<PersonId>,
    device_id: Option<DeviceId>,
    code_hash: Vec<u8>,
    short_hash: Option<Vec<u8>>,
    attempts: i32,
    attempt_cap: i32,
    test_only: bool,
    unsigned: bool,
    ownership: Ownership,
    state: InvitationState,
    created_at: Timestamp,
    created_by: String,
    expires_at: Timestamp,
    closed_at: Option<Timestamp>,
    enrollment_id: Option<EnrollmentId>,
});

row!(ChallengeRow: Challenge in challenges key (id) {
    id: ChallengeId,
    secret_hash: Vec<u8>,
    purpose: ChallengePurpose,
    invitation_id: Option<InvitationId>,
    enrollment_id: Option<EnrollmentId>,
    state: ChallengeState,
    csr_hash: Option<Vec<u8>>,
    identity_id: Option<IdentityId>,
    created_at: Timestamp,
    expires_at: Timestamp,
    requested: Option<String>,
});

impl Tx<'_> {
    /// Site. Both hashes are unique over the server.
    pub fn invitation_insert(&mut self, invitation: &Invitation) -> Result<(), StoreError> {
        self.in_site("invitation_insert", |conn, site| {
            diesel::insert_into(invitations::table).values(InvitationRow::of(site, invitation)).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn invitation(&mut self, id: InvitationId) -> Result<Option<Invitation>, StoreError> {
        self.in_site("invitation", |conn, site| {
            let row = invitations::table
                .filter(invitations::site_id.eq(site))
                .filter(invitations::id.eq(id.raw()))
                .select(InvitationRow::as_select())
                .first(conn)
                .optional()?;
            row.map(InvitationRow::record).transpose()
        })
    }

    /// Site. Newest first; `after` is the last id of the page before.
    pub fn invitations(&mut self, page: &Page) -> Result<Vec<Invitation>, StoreError> {
        self.in_site("invitations", |conn, site| {
            let rows: Vec<InvitationRow> = invitations::table
                .filter(invitations::site_id.eq(site))
                .filter(invitations::id.lt(before(page)))
                .order(invitations::id.desc())
                .limit(limit(page))
                .select(InvitationRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Its state, attempts, closing time and enrollment; the rest of an invitation never changes.
    pub fn invitation_update(&mut self, invitation: &Invitation) -> Result<(), StoreError> {
        self.in_site("invitation_update", |conn, site| {
            let target = invitations::table
                .filter(invitations::site_id.eq(site))
                .filter(invitations::id.eq(invitation.id.raw()));
            let rows = diesel::update(target)
                .set((
                    invitations::state.eq(invitation.state.raw()),
                    invitations::attempts.eq(invitation.attempts),
                    invitations::closed_at.eq(invitation.closed_at.raw()),
                    invitations::enrollment_id.eq(invitation.enrollment_id.raw()),
                ))
                .run(conn)?;
            found(rows, "invitation")
        })
    }

    /// System. Whoever holds a link has no site yet.
    pub fn invitation_by_code_hash(
        &mut self,
        hash: &[u8],
    ) -> Result<Option<(SiteId, Invitation)>, StoreError> {
        self.in_system("invitation_by_code_hash", |conn| {
            let row = invitations::table
                .filter(invitations::code_hash.eq(hash))
                .select(InvitationRow::as_select())
                .first(conn)
                .optional()?;
            row.map(InvitationRow::with_site).transpose()
        })
    }

    /// Site. The site's own invitation with this hash.
    pub fn invitation_of_code_hash(&mut self, hash: &[u8]) -> Result<Option<Invitation>, StoreError> {
        self.in_site("invitation_of_code_hash", |conn, site| {
            let row = invitations::table
                .filter(invitations::site_id.eq(site))
                .filter(invitations::code_hash.eq(hash))
                .select(InvitationRow::as_select())
                .first(conn)
                .optional()?;
            row.map(InvitationRow::record).transpose()
        })
    }

    /// Site. How many of a person's invitations may still become an enrollment, of those whose `created_by` begins
    /// so.
    pub fn person_invitations(
        &mut self,
        person: PersonId,
        created_by: &str,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        self.in_site("person_invitations", |conn, site| {
            Ok(invitations::table
                .filter(invitations::site_id.eq(site))
                .filter(invitations::person_id.eq(person.raw()))
                .filter(invitations::created_by.like(format!("{created_by}%")))
                .filter(invitations::state.eq("open"))
                .filter(invitations::expires_at.gt(now.0))
                .count()
                .get_result(conn)?)
        })
    }

    /// System. Whoever types a short code has no site yet.
    pub fn invitation_by_short_hash(
        &mut self,
        hash: &[u8],
    ) -> Result<Option<(SiteId, Invitation)>, StoreError> {
        self.in_system("invitation_by_short_hash", |conn| {
            let row = invitations::table
                .filter(invitations::short_hash.eq(hash))
                .select(InvitationRow::as_select())
                .first(conn)
                .optional()?;
            row.map(InvitationRow::with_site).transpose()
        })
    }

    /// Site. Counts one use of the short code and answers the new count; two at once are counted twice.
    pub fn invitation_attempt(&mut self, id: InvitationId) -> Result<i32, StoreError> {
        self.in_site("invitation_attempt", |conn, site| {
            let target =
                invitations::table.filter(invitations::site_id.eq(site)).filter(invitations::id.eq(id.raw()));
            let rows =
                diesel::update(target).set(invitations::attempts.eq(invitations::attempts + 1)).run(conn)?;
            found(rows, "invitation")?;
            let target =
                invitations::table.filter(invitations::site_id.eq(site)).filter(invitations::id.eq(id.raw()));
            Ok(target.select(invitations::attempts).first(conn)?)
        })
    }

    /// Site. The secret's hash is unique over the server.
    pub fn challenge_insert(&mut self, challenge: &Challenge) -> Result<(), StoreError> {
        self.in_site("challenge_insert", |conn, site| {
            diesel::insert_into(challenges::table).values(ChallengeRow::of(site, challenge)).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn challenge(&mut self, id: ChallengeId) -> Result<Option<Challenge>, StoreError> {
        self.in_site("challenge", |conn, site| {
            let row = challenges::table
                .filter(challenges::site_id.eq(site))
                .filter(challenges::id.eq(id.raw()))
                .select(ChallengeRow::as_select())
                .first(conn)
                .optional()?;
            row.map(ChallengeRow::record).transpose()
        })
    }

    /// Site.
    pub fn challenge_update(&mut self, challenge: &Challenge) -> Result<(), StoreError> {
        self.in_site("challenge_update", |conn, site| {
            let target = challenges::table
                .filter(challenges::site_id.eq(site))
                .filter(challenges::id.eq(challenge.id.raw()));
            let rows = diesel::update(target)
                .set((
                    challenges::state.eq(challenge.state.raw()),
                    challenges::csr_hash.eq(&challenge.csr_hash),
                    challenges::identity_id.eq(challenge.identity_id.raw()),
                    challenges::enrollment_id.eq(challenge.enrollment_id.raw()),
                    challenges::expires_at.eq(challenge.expires_at.0),
                ))
                .run(conn)?;
            found(rows, "challenge")
        })
    }

    /// Site. Oldest first.
    pub fn challenges_of_invitation(&mut self, id: InvitationId) -> Result<Vec<Challenge>, StoreError> {
        self.in_site("challenges_of_invitation", |conn, site| {
            let rows: Vec<ChallengeRow> = challenges::table
                .filter(challenges::site_id.eq(site))
                .filter(challenges::invitation_id.eq(id.raw()))
                .order(challenges::id)
                .select(ChallengeRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// System. A certificate request carries nothing but the secret.
    pub fn challenge_by_hash(&mut self, hash: &[u8]) -> Result<Option<(SiteId, Challenge)>, StoreError> {
        self.in_system("challenge_by_hash", |conn| {
            let row = challenges::table
                .filter(challenges::secret_hash.eq(hash))
                .select(ChallengeRow::as_select())
                .first(conn)
                .optional()?;
            row.map(ChallengeRow::with_site).transpose()
        })
    }
}
