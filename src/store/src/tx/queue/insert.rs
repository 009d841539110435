//! Accepting commands.

use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::Cell;
use crate::records::{Command, Inserted, NewCommand, Part};
use crate::schema::{channels, commands, enrollments, parts};
use crate::tx::channels::channel_row;
use crate::tx::queue::{CommandRow, PartRow};
use crate::tx::{Tx, found};
use bellwether_model::{CommandId, CommandState, DeviceId, EnrollmentState, PartId, PartState};
use diesel::prelude::*;

impl Tx<'_> {
    /// Site. Queues a command with its parts and gives it the channel's next sequence number (Q5), or says which
    /// waiting command is the same (Q9). An enrollment that is over takes none (Q10):
    /// [`StoreError::Conflict`] `"enrollment_over"`.
    pub fn command_insert(&mut self, new: &NewCommand) -> Result<Inserted, StoreError> {
        self.in_site("command_insert", |conn, site| {
            let channel = channels::table
                .filter(channels::site_id.eq(site))
                .filter(channels::id.eq(new.channel_id.raw()));
            // The update locks the channel's row on PostgreSQL: sequence numbers follow the order of commits.
            let rows =
                diesel::update(channel).set(channels::last_seq.eq(channels::last_seq + 1)).run(conn)?;
            found(rows, "channel")?;
            let channel = channel_row(conn, site, new.channel_id)?;
            if channel.enrollment_id != new.enrollment_id.raw() {
                return Err(StoreError::Misuse("the channel belongs to another enrollment"));
            }
            let (device, state): (Vec<u8>, String) = enrollments::table
                .filter(enrollments::site_id.eq(site))
                .filter(enrollments::id.eq(new.enrollment_id.raw()))
                .select((enrollments::device_id, enrollments::state))
                .get_result(conn)?;
            if EnrollmentState::cooked(state)? == EnrollmentState::Ended {
                return Err(StoreError::Conflict("enrollment_over".to_owned()));
            }
            if let Some(key) = &new.coalesce_key {
                let same: Option<Vec<u8>> = commands::table
                    .filter(commands::site_id.eq(site))
                    .filter(commands::channel_id.eq(new.channel_id.raw()))
                    .filter(commands::waiting_key.eq(key))
                    .select(commands::id)
                    .get_result(conn)
                    .optional()?;
                if let Some(same) = same {
                    return Ok(Inserted::Coalesced(CommandId::cooked(same)?));
                }
            }
            let seq = channel.last_seq;
            let command = stored(new, DeviceId::cooked(device)?, seq);
            diesel::insert_into(commands::table)
                .values((
                    CommandRow::of(site, &command),
                    commands::waiting_key.eq(&new.coalesce_key),
                    commands::pending_lane.eq(Some(new.lane.rank())),
                    commands::ends_at.eq(new.expires_at.0),
                ))
                .run(conn)?;
            for (ordinal, (id, request)) in (0_i32..).zip(&new.parts) {
                let part = planned(new.id, *id, ordinal, request);
                diesel::insert_into(parts::table).values(PartRow::of(site, &part)).run(conn)?;
            }
            Ok(Inserted::New(seq))
        })
    }
}

fn stored(new: &NewCommand, device_id: DeviceId, seq: i64) -> Command {
    let (state, note) = match &new.held_reason {
        Some(reason) => (CommandState::Held, reason.clone()),
        None if new.not_before.is_some() => (CommandState::Queued, "waits for its time".to_owned()),
        None => (CommandState::Queued, "waits for the device to call".to_owned()),
    };
    Command {
        id: new.id,
        enrollment_id: new.enrollment_id,
        device_id,
        channel_id: new.channel_id,
        seq,
        kind: new.kind.clone(),
        lane: new.lane,
        guarantee: new.guarantee,
        intent: new.intent.clone(),
        job_id: new.job_id,
        state,
        note: Some(note),
        not_before: new.not_before,
        expires_at: new.expires_at,
        created_at: new.created_at,
        created_by: new.created_by.clone(),
        first_sent_at: None,
        finished_at: None,
    }
}

fn planned(command_id: CommandId, id: PartId, ordinal: i32, request: &str) -> Part {
    Part {
        id,
        command_id,
        ordinal,
        request: request.to_owned(),
        state: PartState::Queued,
        wire: None,
        sends: 0,
        last_sent_at: None,
        not_now: 0,
        not_before: None,
        answer: None,
        error: None,
        finished_at: None,
    }
}
