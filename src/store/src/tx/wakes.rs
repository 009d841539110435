//! Which channels should be told to call home, and what came of it.

use super::channels::{ChannelRow, channel_row};
use super::{Tx, found};
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::Cell;
use crate::records::{DueWake, WakeResult};
use crate::schema::{channels, enrollments};
use bellwether_model::{ChannelId, Platform, Timestamp};
use diesel::prelude::*;

impl Tx<'_> {
    /// Site. Asks for a wake; an earlier one that is due already stays. Whether a wake is due now: a disabled channel
    /// or one whose token the push service has retired gets none.
    pub fn wake_request(&mut self, channel: ChannelId, due_at: Timestamp) -> Result<bool, StoreError> {
        self.in_site("wake_request", |conn, site| {
            let row = channel_row(conn, site, channel)?;
            if !row.enabled || row.push_dead {
                return Ok(false);
            }
            let earliest = row.wake_due_at.map_or(due_at.0, |at| at.min(due_at.0));
            if row.wake_due_at != Some(earliest) {
                let target =
                    channels::table.filter(channels::site_id.eq(site)).filter(channels::id.eq(channel.raw()));
                diesel::update(target).set(channels::wake_due_at.eq(earliest)).run(conn)?;
            }
            Ok(true)
        })
    }

    /// System. Due wakes of active enrollments, the longest due first.
    pub fn wakes_due(&mut self, now: Timestamp, limit: i64) -> Result<Vec<DueWake>, StoreError> {
        self.in_system("wakes_due", |conn| {
            let rows: Vec<(ChannelRow, String, Option<String>, bool)> = channels::table
                .inner_join(
                    enrollments::table.on(enrollments::site_id
                        .eq(channels::site_id)
                        .and(enrollments::id.eq(channels::enrollment_id))),
                )
                .filter(channels::wake_due_at.is_not_null())
                .filter(channels::wake_due_at.le(now.0))
                .filter(channels::enabled.eq(true))
                .filter(channels::push_dead.eq(false))
                .filter(enrollments::state.eq("active"))
                .order((channels::wake_due_at, channels::id))
                .limit(limit)
                .select((
                    ChannelRow::as_select(),
                    enrollments::platform,
                    enrollments::topic,
                    enrollments::test_only,
                ))
                .load(conn)?;
            rows.into_iter()
                .map(|(channel, platform, topic, test_only)| {
                    let (site_id, channel) = channel.with_site()?;
                    Ok(DueWake { site_id, channel, platform: Platform::cooked(platform)?, topic, test_only })
                })
                .collect()
        })
    }

    /// Site. What a wake brought.
    pub fn wake_result(&mut self, channel: ChannelId, result: &WakeResult) -> Result<(), StoreError> {
        self.in_site("wake_result", |conn, site| {
            let row = channel_row(conn, site, channel)?;
            let dead = row.push_dead || result.dead;
            let next = if dead { None } else { result.next_due };
            let target =
                channels::table.filter(channels::site_id.eq(site)).filter(channels::id.eq(channel.raw()));
            let rows = diesel::update(target)
                .set((
                    channels::wake_due_at.eq(next.raw()),
                    channels::wake_attempts.eq(result.attempts),
                    channels::woken_at.eq(result.woken_at.raw().or(row.woken_at)),
                    channels::wake_note.eq(&result.note),
                    channels::push_dead.eq(dead),
                ))
                .run(conn)?;
            found(rows, "channel")
        })
    }
}
