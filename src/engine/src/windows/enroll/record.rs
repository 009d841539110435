//! The one transaction in which what a PC presented becomes a certificate.

use crate::directory::Named;
use crate::error::Error;
use crate::scep::{Claim, claim};
use crate::windows::account::ACCOUNT;
use crate::windows::arrive::{BY_ACCOUNT, entra_devices};
use bellwether_model::device::{ChallengeState, IdentityState};
use bellwether_model::{Actor, InvitationId, InvitationState, Timestamp};
use bellwether_store::Tx;
use bellwether_store::records::{AuditEntry, Challenge, EnrollmentAccount, Identity, Invitation, Sealed};

/// Everything that the transaction needs, made before it.
pub(super) struct Attempt {
    pub challenge: Challenge,
    /// The challenge was made for this request and is not stored yet.
    pub fresh: bool,
    pub csr_hash: [u8; 32],
    pub account_row: Option<(EnrollmentAccount, Invitation)>,
    /// Whom Entra ID named, with the invitation that the token's first use makes.
    pub person: Option<(Named, Invitation)>,
    /// How many PCs a person of Entra ID may have.
    pub person_cap: i64,
    /// Whether the directory's word alone is not enough.
    pub known_people_only: bool,
    pub claim: String,
    pub now: Timestamp,
    pub entry: AuditEntry,
    pub sealed: Sealed,
    pub identity: Identity,
}

pub(super) enum Recorded {
    New(Box<Identity>),
    /// The very same request came before: its certificate.
    Again(Box<Identity>),
    Refused(&'static str),
    CapReached(&'static str),
    /// The directory vouches for somebody whom nobody here knows, and that is not enough.
    Unknown,
}

/// Judges the attempt against what is stored, and writes down what becomes of it.
pub(super) fn record_attempt(tx: &mut Tx<'_>, attempt: &Attempt) -> Result<Recorded, Error> {
    let mut challenge = attempt.challenge.clone();
    let mut entry = attempt.entry.clone();
    if let Some((account, blank)) = &attempt.account_row {
        match invited_by_account(tx, account, blank, &attempt.claim, &attempt.csr_hash, attempt.now)? {
            Some(invitation) => challenge.invitation_id = Some(invitation),
            None => return Ok(Recorded::CapReached("this account has enrolled all its devices")),
        }
    }
    if let Some((named, blank)) = &attempt.person {
        match invited_by_entra(tx, named, blank, attempt)? {
            Ok(invitation) => challenge.invitation_id = Some(invitation),
            Err(refusal) => return Ok(refusal),
        }
    }
    if let Some(id) = challenge.invitation_id {
        entry.actor = Actor::Invitation(id.to_string()).to_string();
    }
    if attempt.fresh {
        let Some(invitation) = challenge.invitation_id else { return Err(Error::NotFound("invitation")) };
        let earlier = tx.challenges_of_invitation(invitation)?;
        // The answer to the very same request was lost.
        let same = earlier.iter().find(|row| {
            row.state == ChallengeState::Bound && row.csr_hash.as_deref() == Some(&attempt.csr_hash[..])
        });
        if let Some(id) = same.and_then(|row| row.identity_id)
            && let Some(identity) = tx.identity(id)?
            && identity.state == IdentityState::Issued
        {
            return Ok(Recorded::Again(Box::new(identity)));
        }
        if earlier.len() >= crate::invitations::MAX_CHALLENGES {
            return Ok(Recorded::Refused("this invitation was tried too often; ask for a new one"));
        }
        tx.challenge_insert(&challenge)?;
    }
    match claim(tx, challenge.id, &attempt.csr_hash, &attempt.identity, &entry, attempt.now)? {
        Claim::Issued(der) if der == attempt.identity.certificate => {
            let id = attempt.identity.id;
            tx.protocol_state_put(id, ACCOUNT, &attempt.sealed, None, attempt.now)?;
            Ok(Recorded::New(Box::new(attempt.identity.clone())))
        }
        Claim::Issued(_) => {
            // A token that comes again with the same request.
            let row = tx.challenge(challenge.id)?.and_then(|row| row.identity_id);
            let identity = match row {
                Some(id) => tx.identity(id)?,
                None => None,
            };
            Ok(match identity {
                Some(identity) if identity.state == IdentityState::Issued => {
                    Recorded::Again(Box::new(identity))
                }
                _ => Recorded::Refused("this token was used"),
            })
        }
        Claim::Refused(_, reason) => Ok(Recorded::Refused(reason)),
    }
}

/// The open invitation of an account for a claim, or a new one; `None` when its cap is reached.
fn invited_by_account(
    tx: &mut Tx<'_>,
    account: &EnrollmentAccount,
    blank: &Invitation,
    claim: &str,
    csr_hash: &[u8; 32],
    now: Timestamp,
) -> Result<Option<InvitationId>, Error> {
    let current = tx.enrollment_account(account.id)?.ok_or(Error::NotFound("enrollment account"))?;
    if current.revoked_at.is_some() || current.expires_at <= now {
        return Err(Error::NotFound("enrollment account"));
    }
    if let Some(id) = tx.enrollment_account_invitation(account.id, claim)?
        && let Some(row) = tx.invitation(id)?
        && row.state == InvitationState::Open
        && row.expires_at > now
        && tx.challenges_of_invitation(id)?.iter().any(|c| c.csr_hash.as_deref() == Some(&csr_hash[..]))
    {
        // The very same request. Another one may be of another machine: cloned ones claim the same.
        return Ok(Some(id));
    }
    if tx.enrollment_account_used(account.id, now)? >= i64::from(current.cap) {
        return Ok(None);
    }
    let row = Invitation {
        person_id: current.person_id,
        ownership: current.ownership,
        created_by: format!("{}{}", BY_ACCOUNT, current.id),
        ..blank.clone()
    };
    tx.invitation_insert(&row)?;
    tx.enrollment_account_use(account.id, row.id, claim)?;
    Ok(Some(row.id))
}

/// The invitation of a token of Entra ID: its first use makes it, every later one finds it, so that a token is good for
/// one living certificate, as a one-time code is. `code_hash` is unique: of two first uses at once one finds the
/// other's. A refusal when nobody here knows the person and that is wanted, or the person has as many devices as they
/// may.
fn invited_by_entra(
    tx: &mut Tx<'_>,
    named: &Named,
    blank: &Invitation,
    attempt: &Attempt,
) -> Result<Result<InvitationId, Recorded>, Error> {
    let now = attempt.now;
    if let Some(row) = tx.invitation_of_code_hash(&blank.code_hash)? {
        let open = row.state == InvitationState::Open && row.expires_at > now;
        return if open { Ok(Ok(row.id)) } else { Err(Error::NotFound("invitation")) };
    }
    if attempt.known_people_only && !named.is_known(tx)? {
        return Ok(Err(Recorded::Unknown));
    }
    let person = named.person(tx)?;
    if entra_devices(tx, person, now)? >= attempt.person_cap {
        return Ok(Err(Recorded::CapReached("you have enrolled as many devices as you may")));
    }
    let row = Invitation { person_id: Some(person), ..blank.clone() };
    tx.invitation_insert(&row)?;
    Ok(Ok(row.id))
}
