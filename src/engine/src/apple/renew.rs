//! Renewing identities in time: the enrollment profile again, with a fresh challenge that is bound to the enrollment
//! (re-enrollment rule b). The old identity stays good until the new one has proven itself.

use super::plan::family;
use crate::Engine;
use crate::error::Error;
use bellwether_model::device::ChallengePurpose;
use bellwether_model::time::DAY;
use bellwether_model::{EnrollmentId, Intent, SiteId, Timestamp};
use bellwether_store::Scope;
use bellwether_store::records::{Challenge, Device, Enrollment};
use std::sync::PoisonError;

/// Leaves live a year; at two thirds they are renewed.
const BEFORE_END: i64 = 122 * DAY;
/// The device may answer NotNow before it installs; the frozen bytes carry the challenge.
const CHALLENGE_LIFE: i64 = 7 * DAY;
/// One try per enrollment in so long, whatever becomes of it.
const TRY_EVERY: i64 = DAY;
/// Enrollments looked at in one pass, and asked in one pass. Silent devices stay at the head of the list, so many more
/// are looked at than asked.
const LOOK: i64 = 10_000;
const ASK: usize = 200;

impl Engine {
    /// Queues the renewals that are due; how many.
    pub async fn renew_due_once(&self) -> Result<usize, Error> {
        let now = self.now();
        let due = self
            .store
            .read(Scope::System, move |tx| tx.renewals_due(now.plus(BEFORE_END), LOOK).map_err(Error::from))
            .await?;
        let fresh: Vec<(SiteId, EnrollmentId)> = {
            let mut tried = self.renewal_tries.lock().unwrap_or_else(PoisonError::into_inner);
            tried.retain(|_, at| now.since(*at) < TRY_EVERY);
            let fresh: Vec<_> = due.into_iter().filter(|(_, id)| !tried.contains_key(id)).take(ASK).collect();
            tried.extend(fresh.iter().map(|(_, id)| (*id, now)));
            fresh
        };
        let mut queued = 0;
        for (site, enrollment) in fresh {
            // Another node, or this one before a restart, may have tried today.
            if self.first_try(site, enrollment, now).await? {
                match self.queue_for_enrollment(site, enrollment, Intent::RenewIdentity, None).await {
                    Ok(()) => queued += 1,
                    Err(error) => tracing::warn!(%error, %enrollment, "a renewal could not be queued"),
                }
            }
        }
        Ok(queued)
    }

    async fn first_try(&self, site: SiteId, enrollment: EnrollmentId, now: Timestamp) -> Result<bool, Error> {
        let bucket = format!("renew:{enrollment}");
        let tries = self
            .store
            .write(Scope::Site(site), move |tx| tx.rate_bump(&bucket, now, TRY_EVERY).map_err(Error::from))
            .await?;
        Ok(tries == 1)
    }

    /// The enrollment profile for a renewal, signed, with the challenge to store beside its first send.
    pub(super) async fn renewal(
        &self,
        site: SiteId,
        enrollment: &Enrollment,
        device: &Device,
    ) -> Result<(Vec<u8>, Challenge), Error> {
        let now = self.now();
        let topic = enrollment
            .topic
            .as_deref()
            .ok_or_else(|| Error::CannotDo("this enrollment has no topic; it must enroll again".into()))?;
        let minted = self.new_challenge(
            ChallengePurpose::Renew,
            None,
            Some(enrollment.id),
            now,
            now.plus(CHALLENGE_LIFE),
        )?;
        let profile = self.enrollment_profile(site, &minted, topic, family(device)).await?;
        Ok((self.sign_profile(&profile)?, minted.row))
    }
}
