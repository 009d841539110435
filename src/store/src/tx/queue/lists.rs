//! Looking at commands.

use super::{CommandRow, PartRow, command_row};
use crate::StoreError;
use crate::backend::native;
use crate::cell::{Cell, records};
use crate::records::{Command, CommandFilter, Page, Part, QueueStats};
use crate::schema::{commands, deliveries, parts};
use crate::tx::{Tx, before, limit};
use bellwether_model::{ChannelId, CommandId, CommandState, PartId, Timestamp};
use diesel::prelude::*;

impl Tx<'_> {
    /// Site.
    pub fn command(&mut self, id: CommandId) -> Result<Option<Command>, StoreError> {
        self.in_site("command", |conn, site| {
            command_row(conn, site, &id.raw())?.map(CommandRow::record).transpose()
        })
    }

    /// Site. A command's parts in order.
    pub fn parts(&mut self, command: CommandId) -> Result<Vec<Part>, StoreError> {
        self.in_site("parts", |conn, site| {
            let rows: Vec<PartRow> = parts::table
                .filter(parts::site_id.eq(site))
                .filter(parts::command_id.eq(command.raw()))
                .order(parts::ordinal)
                .select(PartRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site.
    pub fn part(&mut self, id: PartId) -> Result<Option<Part>, StoreError> {
        self.in_site("part", |conn, site| {
            let row = native!(conn => parts::table
                .filter(parts::site_id.eq(site))
                .filter(parts::id.eq(id.raw()))
                .select(PartRow::as_select())
                .get_result(conn))
            .optional()?;
            row.map(PartRow::record).transpose()
        })
    }

    /// Site. Parts that the device accepted and whose outcome is awaited, of the first 200 commands of a channel that
    /// were sent and are not over, in the queue's order.
    pub fn accepted_parts(&mut self, channel: ChannelId) -> Result<Vec<(Command, Part)>, StoreError> {
        self.in_site("accepted_parts", |conn, site| {
            // Two plain queries, so that the index of pending commands serves (Q15).
            let waiting: Vec<CommandRow> = native!(conn => commands::table
                .filter(commands::site_id.eq(site))
                .filter(commands::channel_id.eq(channel.raw()))
                .filter(commands::pending_lane.is_not_null())
                .filter(commands::first_sent_at.is_not_null())
                .order((commands::pending_lane, commands::seq))
                .limit(200)
                .select(CommandRow::as_select())
                .load(conn))?;
            if waiting.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<&[u8]> = waiting.iter().map(|command| command.id.as_slice()).collect();
            let rows: Vec<PartRow> = native!(conn => parts::table
                .filter(parts::site_id.eq(site))
                .filter(parts::command_id.eq_any(&ids))
                .filter(parts::state.eq("accepted"))
                .order(parts::ordinal)
                .select(PartRow::as_select())
                .load(conn))?;
            let accepted = rows.into_iter().map(PartRow::record).collect::<Result<Vec<Part>, _>>()?;
            let mut found = Vec::new();
            for command in waiting {
                let command = command.record()?;
                let own = accepted.iter().filter(|part| part.command_id == command.id);
                found.extend(own.map(|part| (command.clone(), part.clone())));
            }
            Ok(found)
        })
    }

    /// Site. Newest first; `after` is the last id of the page before.
    pub fn commands(&mut self, filter: &CommandFilter, page: &Page) -> Result<Vec<Command>, StoreError> {
        self.in_site("commands", |conn, site| {
            let mut query = commands::table
                .filter(commands::site_id.eq(site))
                .filter(commands::id.lt(before(page)))
                .order(commands::id.desc())
                .limit(limit(page))
                .select(CommandRow::as_select())
                .into_boxed();
            if let Some(device) = filter.device_id {
                query = query.filter(commands::device_id.eq(device.raw()));
            }
            if let Some(state) = filter.state {
                query = query.filter(commands::state.eq(state.raw()));
            }
            if let Some(job) = filter.job_id {
                query = query.filter(commands::job_id.eq(job.raw()));
            }
            let rows: Vec<CommandRow> = query.load(conn)?;
            records!(rows)
        })
    }

    /// Site. Commands of a channel that are not over, held and accepted ones too.
    pub fn pending_count(&mut self, channel: ChannelId) -> Result<i64, StoreError> {
        self.in_site("pending_count", |conn, site| {
            Ok(native!(conn => commands::table
                .filter(commands::site_id.eq(site))
                .filter(commands::channel_id.eq(channel.raw()))
                .filter(commands::pending_lane.is_not_null())
                .count()
                .get_result(conn))?)
        })
    }

    /// System. How the queues of all sites stand; counts waiting commands, so its cost grows with them.
    pub fn queue_stats(&mut self) -> Result<QueueStats, StoreError> {
        self.in_system("queue_stats", |conn| {
            let states: Vec<(String, i64)> = commands::table
                .filter(commands::pending_lane.is_not_null())
                .group_by(commands::state)
                .select((commands::state, diesel::dsl::count_star()))
                .load(conn)?;
            let oldest: Option<i64> = commands::table
                .filter(commands::pending_lane.is_not_null())
                .select(diesel::dsl::min(commands::created_at))
                .get_result(conn)?;
            let open_deliveries: i64 =
                deliveries::table.filter(deliveries::closed_at.is_null()).count().get_result(conn)?;
            let mut waiting = states
                .into_iter()
                .map(|(state, count)| Ok((CommandState::cooked(state)?, count)))
                .collect::<Result<Vec<_>, StoreError>>()?;
            waiting.sort();
            Ok(QueueStats { waiting, oldest_at: oldest.map(Timestamp), open_deliveries })
        })
    }
}
