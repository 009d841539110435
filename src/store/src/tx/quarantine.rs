//! A restored server: what waits until an admin has looked (Q14), and what a backup cannot know.

use super::Tx;
use super::sites::put_setting;
use crate::StoreError;
use crate::backend::{Conn, Run as _};
use crate::cell::Cell;
use crate::records::Withheld;
use crate::schema::{api_keys, challenges, commands, invitations, leases, site_settings};
use bellwether_model::device::ChallengeState;
use bellwether_model::quarantine::QUARANTINED;
use bellwether_model::{CommandId, InvitationState, SiteId, Timestamp};
use diesel::prelude::*;

/// The site's setting that is there during a quarantine. What stands in it is the engine's.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The site's setting that says from when its data is; stays after the quarantine.
const RESTORED_FROM: &str = "restored-from";

type WithheldRow = (Vec<u8>, Vec<u8>, Vec<u8>, String, i64, String);

impl Tx<'_> {
    /// System. The site's data is a backup's of that time: in quarantine from now on, with the engine's words about
    /// it. Invitations and challenges that were open may have been used since, so they end. How many of each.
    pub fn quarantine_begin(
        &mut self,
        site: SiteId,
        words: &[u8],
        restored_from: Timestamp,
        now: Timestamp,
    ) -> Result<(usize, usize), StoreError> {
        self.in_named_site("quarantine_begin", site, |conn, site| {
            put_setting(conn, site, QUARANTINE, words)?;
            put_setting(conn, site, RESTORED_FROM, &restored_from.0.to_be_bytes())?;
            let open = invitations::table
                .filter(invitations::site_id.eq(site))
                .filter(invitations::state.eq(InvitationState::Open.raw()));
            let closed = diesel::update(open)
                .set((
                    invitations::state.eq(InvitationState::Revoked.raw()),
                    invitations::closed_at.eq(now.0),
                ))
                .run(conn)?;
            let open = challenges::table
                .filter(challenges::site_id.eq(site))
                .filter(challenges::state.eq(ChallengeState::Open.raw()));
            let dead =
                diesel::update(open).set(challenges::state.eq(ChallengeState::Dead.raw())).run(conn)?;
            Ok((closed, dead))
        })
    }

    /// System. Leases of processes that are no more, and with `keys` every API key: one that was revoked after the
    /// backup would be good again.
    pub fn restored_clear(&mut self, keys: bool) -> Result<usize, StoreError> {
        self.in_system("restored_clear", |conn| {
            diesel::delete(leases::table).run(conn)?;
            if keys { Ok(diesel::delete(api_keys::table).run(conn)?) } else { Ok(0) }
        })
    }

    /// System, or the same site. The words about the quarantine that the site is in.
    pub fn quarantine(&mut self, site: SiteId) -> Result<Option<Vec<u8>>, StoreError> {
        self.in_named_site("quarantine", site, |conn, site| {
            let found = site_settings::table
                .filter(site_settings::site_id.eq(site))
                .filter(site_settings::key.eq(QUARANTINE));
            Ok(found.select(site_settings::value).first(conn).optional()?)
        })
    }

    /// System. Ends a site's quarantine; whether it was in one.
    pub fn quarantine_end(&mut self, site: SiteId) -> Result<bool, StoreError> {
        self.in_named_site("quarantine_end", site, |conn, site| {
            let found = site_settings::table
                .filter(site_settings::site_id.eq(site))
                .filter(site_settings::key.eq(QUARANTINE));
            Ok(diesel::delete(found).run(conn)? > 0)
        })
    }

    /// Site. Commands that wait and that a quarantine withholds, after an id, oldest first.
    pub fn withheld(&mut self, after: Option<CommandId>, limit: i64) -> Result<Vec<Withheld>, StoreError> {
        self.in_site("withheld", |conn, site| {
            let rows: Vec<WithheldRow> = commands::table
                .filter(commands::site_id.eq(site))
                .filter(commands::pending_lane.is_not_null())
                .filter(commands::kind.eq_any(QUARANTINED))
                .filter(commands::id.gt(after.map_or_else(Vec::new, |id| id.raw())))
                .order(commands::id)
                .limit(limit.clamp(1, 500))
                .select((
                    commands::id,
                    commands::device_id,
                    commands::channel_id,
                    commands::kind,
                    commands::created_at,
                    commands::created_by,
                ))
                .load(conn)?;
            rows.into_iter()
                .map(|(id, device, channel, kind, created_at, created_by)| {
                    Ok(Withheld {
                        id: Cell::cooked(id)?,
                        device_id: Cell::cooked(device)?,
                        channel_id: Cell::cooked(channel)?,
                        kind,
                        created_at: Timestamp(created_at),
                        created_by,
                    })
                })
                .collect()
        })
    }
}

/// Whether a command that waits here may have been handed over all the same: it is older than the backup that this
/// site was restored from. A device that answers it then tells the truth (Q14).
pub(super) fn was_handed_over_since(
    conn: &mut Conn,
    site: &[u8],
    created_at: i64,
) -> Result<bool, StoreError> {
    let found = site_settings::table
        .filter(site_settings::site_id.eq(site))
        .filter(site_settings::key.eq(RESTORED_FROM));
    let from: Option<Vec<u8>> = found.select(site_settings::value).first(conn).optional()?;
    let from = from.and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
    Ok(from.is_some_and(|from| created_at <= from))
}
