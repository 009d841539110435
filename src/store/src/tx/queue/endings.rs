//! How commands end without the device's word, and how old ones leave (Q3, Q10, Q12, Q15).

use super::{CommandRow, close_if_done, command_row, settle};
use crate::StoreError;
use crate::backend::{Conn, Run as _};
use crate::cell::Cell;
use crate::records::{Cancelled, Command};
use crate::schema::{channels, commands, deliveries, delivery_parts, parts};
use crate::tx::Tx;
use bellwether_model::{CommandId, CommandState, EnrollmentId, PartId, PartState, SiteId, Timestamp};
use diesel::prelude::*;

impl Tx<'_> {
    /// Site. Cancels if and only if nothing of it was handed over (Q12).
    pub fn command_cancel(&mut self, id: CommandId, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.in_site("command_cancel", |conn, site| {
            let Some(mut command) = command_row(conn, site, &id.raw())? else {
                return Ok(Cancelled::NotFound);
            };
            let state = CommandState::cooked(command.state.clone())?;
            if state.is_terminal() {
                return Ok(Cancelled::AlreadyOver(state));
            }
            if command.first_sent_at.is_some() {
                return Ok(Cancelled::AlreadySent(state));
            }
            end(conn, site, &mut command, PartState::Cancelled, "cancelled before it was sent", now)?;
            Ok(Cancelled::Done)
        })
    }

    /// Site. Ends what is left of a command that can no longer be done for this device (Q11), with the reason; what its
    /// parts already answered stays.
    pub fn command_give_up(&mut self, id: CommandId, now: Timestamp, note: &str) -> Result<bool, StoreError> {
        self.in_site("command_give_up", |conn, site| {
            let Some(mut command) = command_row(conn, site, &id.raw())? else { return Ok(false) };
            if CommandState::cooked(command.state.clone())?.is_terminal() {
                return Ok(false);
            }
            end(conn, site, &mut command, PartState::Cancelled, note, now)?;
            Ok(true)
        })
    }

    /// Site. Parts of a command that wait and were never handed over need not be: the device confirmed the same before.
    /// They count as acknowledged. How many waited, and the command as it stands then; what is held stays held.
    pub fn parts_spare(
        &mut self,
        id: CommandId,
        spared: &[PartId],
        now: Timestamp,
        note: &str,
    ) -> Result<(usize, Option<Command>), StoreError> {
        self.in_site("parts_spare", |conn, site| {
            let Some(mut command) = command_row(conn, site, &id.raw())? else { return Ok((0, None)) };
            let before = CommandState::cooked(command.state.clone())?;
            let mut rows = 0;
            if before != CommandState::Held {
                // By key, one by one: an id list of any length would be another statement each time.
                for part in spared {
                    let target = parts::table
                        .filter(parts::site_id.eq(site))
                        .filter(parts::id.eq(part.raw()))
                        .filter(parts::command_id.eq(id.raw()))
                        .filter(parts::state.eq(PartState::Queued.raw()));
                    let done = PartState::Acknowledged.raw();
                    rows += diesel::update(target)
                        .set((parts::state.eq(done), parts::finished_at.eq(now.0)))
                        .run(conn)?;
                }
            }
            if rows > 0 {
                settle(conn, site, &mut command, before, Some(note), now)?;
            }
            Ok((rows, Some(command.record()?)))
        })
    }

    /// Site. A held command is queued from now on; whether it was held.
    pub fn command_release(&mut self, id: CommandId) -> Result<bool, StoreError> {
        self.in_site("command_release", |conn, site| {
            let target = commands::table
                .filter(commands::site_id.eq(site))
                .filter(commands::id.eq(id.raw()))
                .filter(commands::state.eq(CommandState::Held.raw()));
            let rows = diesel::update(target)
                .set((
                    commands::state.eq(CommandState::Queued.raw()),
                    commands::note.eq("waits for the device to call"),
                ))
                .run(conn)?;
            Ok(rows == 1)
        })
    }

    /// Site. Ends up to `limit` (at most 500) commands that wait in an enrollment that is over (Q10); how many. Call
    /// again until 0.
    pub fn supersede_commands(
        &mut self,
        enrollment: EnrollmentId,
        now: Timestamp,
        note: &str,
        limit: i64,
    ) -> Result<i64, StoreError> {
        self.in_site("supersede_commands", |conn, site| {
            // Channel by channel, so that the index of pending commands serves.
            let of_enrollment: Vec<Vec<u8>> = channels::table
                .filter(channels::site_id.eq(site))
                .filter(channels::enrollment_id.eq(enrollment.raw()))
                .select(channels::id)
                .load(conn)?;
            let mut left = limit.clamp(1, 500);
            let mut ended = 0;
            for channel in of_enrollment {
                let mut rows: Vec<CommandRow> = commands::table
                    .filter(commands::site_id.eq(site))
                    .filter(commands::channel_id.eq(&channel))
                    .filter(commands::pending_lane.is_not_null())
                    .order((commands::pending_lane, commands::seq))
                    .limit(left)
                    .select(CommandRow::as_select())
                    .load(conn)?;
                for command in &mut rows {
                    end(conn, site, command, PartState::Superseded, note, now)?;
                    left -= 1;
                    ended += 1;
                }
                if left <= 0 {
                    break;
                }
            }
            Ok(ended)
        })
    }

    /// System. Ends up to `limit` (at most 500) commands that are past their time, over all sites: never answered ends
    /// as expired, *outcome unknown*, never as acknowledged (Q3). Held ones too.
    pub fn expire_due(&mut self, now: Timestamp, limit: i64) -> Result<Vec<(SiteId, CommandId)>, StoreError> {
        self.in_system("expire_due", |conn| {
            let rows: Vec<CommandRow> = commands::table
                .filter(commands::pending_lane.is_not_null())
                .filter(commands::ends_at.le(now.0))
                .order(commands::ends_at)
                .limit(limit.clamp(1, 500))
                .select(CommandRow::as_select())
                .load(conn)?;
            let mut ended = Vec::new();
            for mut command in rows {
                let note = if command.first_sent_at.is_none() {
                    "its time ran out before the device called; it was never sent"
                } else if command.state == CommandState::Accepted.as_str() {
                    "the device accepted it and never reported the outcome: outcome unknown"
                } else {
                    "sent, and not answered in time: outcome unknown"
                };
                let site = command.site_id.clone();
                end(conn, &site, &mut command, PartState::Expired, note, now)?;
                ended.push((SiteId::cooked(site)?, CommandId::cooked(command.id)?));
            }
            Ok(ended)
        })
    }

    /// System. Deletes up to `limit` (at most 500) commands that finished before, with their parts and deliveries;
    /// how many.
    pub fn purge_finished(&mut self, before: Timestamp, limit: i64) -> Result<i64, StoreError> {
        self.in_system("purge_finished", |conn| {
            let old: Vec<(Vec<u8>, Vec<u8>)> = commands::table
                .filter(commands::finished_at.is_not_null())
                .filter(commands::finished_at.lt(before.0))
                .order(commands::finished_at)
                .limit(limit.clamp(1, 500))
                .select((commands::site_id, commands::id))
                .load(conn)?;
            for (site, id) in &old {
                purge(conn, site, id)?;
            }
            Ok(i64::try_from(old.len()).unwrap_or(i64::MAX))
        })
    }
}

/// Ends what is not over yet of a command, and frees the channel when its delivery waits for nothing else.
fn end(
    conn: &mut Conn,
    site: &[u8],
    command: &mut CommandRow,
    how: PartState,
    note: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let target = parts::table
        .filter(parts::site_id.eq(site))
        .filter(parts::command_id.eq(&command.id))
        .filter(parts::finished_at.is_null());
    diesel::update(target)
        .set((parts::state.eq(how.raw()), parts::finished_at.eq(now.0), parts::not_before.eq(None::<i64>)))
        .run(conn)?;
    let fallback = match how {
        PartState::Cancelled => CommandState::Cancelled,
        PartState::Superseded => CommandState::Superseded,
        _ => CommandState::Expired,
    };
    settle(conn, site, command, fallback, Some(note), now)?;
    close_if_done(conn, site, &command.channel_id, how.as_str(), now)
}

/// A command with everything that hangs on it. A delivery goes when its last part goes.
fn purge(conn: &mut Conn, site: &[u8], command: &[u8]) -> Result<(), StoreError> {
    let carried: Vec<Vec<u8>> = delivery_parts::table
        .inner_join(
            parts::table
                .on(parts::site_id.eq(delivery_parts::site_id).and(parts::id.eq(delivery_parts::part_id))),
        )
        .filter(parts::site_id.eq(site))
        .filter(parts::command_id.eq(command))
        .select(delivery_parts::delivery_id)
        .distinct()
        .load(conn)?;
    let target = commands::table.filter(commands::site_id.eq(site)).filter(commands::id.eq(command));
    diesel::delete(target).run(conn)?;
    for delivery in carried {
        let others: i64 = delivery_parts::table
            .filter(delivery_parts::site_id.eq(site))
            .filter(delivery_parts::delivery_id.eq(&delivery))
            .count()
            .get_result(conn)?;
        if others == 0 {
            let target =
                deliveries::table.filter(deliveries::site_id.eq(site)).filter(deliveries::id.eq(&delivery));
            diesel::delete(target).run(conn)?;
        }
    }
    Ok(())
}
