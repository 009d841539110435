//! A channel's queue: what waits, what is offered, what was answered, how it ends.
//!
//! Q5: order is (lane rank, sequence). Q6: one open delivery per channel, by a database rule. `pending_lane` is NULL
//! once a command is over, so that the index that a poll walks holds waiting commands only (Q15).

mod answers;
mod choice;
mod endings;
mod insert;
mod lists;
mod offers;

use crate::StoreError;
use crate::backend::{Conn, Run as _, native};
use crate::cell::{Cell, row};
use crate::records::{Command, Part};
use crate::schema::{commands, deliveries, delivery_parts, parts};
use bellwether_model::lifecycle::command_state;
use bellwether_model::{
    ChannelId, CommandId, CommandState, DeviceId, EnrollmentId, Guarantee, JobId, Lane, PartId, PartState,
    Timestamp,
};
use diesel::prelude::*;

row!(CommandRow: Command in commands key (id) {
    id: CommandId,
    enrollment_id: EnrollmentId,
    device_id: DeviceId,
    channel_id: ChannelId,
    seq: i64,
    kind: String,
    lane: Lane,
    guarantee: Guarantee,
    intent: Vec<u8>,
    job_id: Option<JobId>,
    state: CommandState,
    note: Option<String>,
    not_before: Option<Timestamp>,
    expires_at: Timestamp,
    created_at: Timestamp,
    created_by: String,
    first_sent_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
});

row!(PartRow: Part in parts key (id) {
    id: PartId,
    command_id: CommandId,
    ordinal: i32,
    request: String,
    state: PartState,
    wire: Option<Vec<u8>>,
    sends: i32,
    last_sent_at: Option<Timestamp>,
    not_now: i32,
    not_before: Option<Timestamp>,
    answer: Option<Vec<u8>>,
    error: Option<String>,
    finished_at: Option<Timestamp>,
});

fn command_row(conn: &mut Conn, site: &[u8], id: &[u8]) -> Result<Option<CommandRow>, StoreError> {
    Ok(native!(conn => commands::table
        .filter(commands::site_id.eq(site))
        .filter(commands::id.eq(id))
        .select(CommandRow::as_select())
        .get_result(conn))
    .optional()?)
}

fn part_states(conn: &mut Conn, site: &[u8], command: &[u8]) -> Result<Vec<PartState>, StoreError> {
    let states: Vec<String> = native!(conn => parts::table
        .filter(parts::site_id.eq(site))
        .filter(parts::command_id.eq(command))
        .order(parts::ordinal)
        .select(parts::state)
        .load(conn))?;
    states.into_iter().map(PartState::cooked).collect()
}

/// Writes down where a command stands after its parts moved, in its row here too.
fn settle(
    conn: &mut Conn,
    site: &[u8],
    command: &mut CommandRow,
    fallback: CommandState,
    note: Option<&str>,
    now: Timestamp,
) -> Result<CommandState, StoreError> {
    let mut state = command_state(&part_states(conn, site, &command.id)?).unwrap_or(fallback);
    if state == CommandState::Sent && command.first_sent_at.is_none() {
        // Parts that are done need not have been sent ([`Tx::parts_spare`](crate::Tx::parts_spare)).
        state = CommandState::Queued;
    }
    let over = state.is_terminal();
    let lane = Lane::cooked(command.lane.clone())?;
    let target = commands::table.filter(commands::site_id.eq(site)).filter(commands::id.eq(&command.id));
    let finished_at = over.then_some(now.0);
    let stands = (
        commands::state.eq(state.raw()),
        commands::note.eq(note),
        commands::pending_lane.eq((!over).then_some(lane.rank())),
        commands::first_sent_at.eq(command.first_sent_at),
        commands::finished_at.eq(finished_at),
    );
    if over || command.first_sent_at.is_some() {
        diesel::update(target).set((stands, commands::waiting_key.eq(None::<String>))).run(conn)?;
    } else {
        diesel::update(target).set(stands).run(conn)?;
    }
    command.state = state.raw();
    command.note = note.map(str::to_owned);
    command.finished_at = finished_at;
    Ok(state)
}

/// The channel's open delivery.
fn open_delivery(conn: &mut Conn, site: &[u8], channel: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(native!(conn => deliveries::table
        .filter(deliveries::site_id.eq(site))
        .filter(deliveries::channel_id.eq(channel))
        .filter(deliveries::closed_at.is_null())
        .select(deliveries::id)
        .get_result(conn))
    .optional()?)
}

/// What a delivery carried that is neither answered nor over.
fn unanswered(
    conn: &mut Conn,
    site: &[u8],
    delivery: &[u8],
) -> Result<Vec<(CommandRow, PartRow)>, StoreError> {
    let mut rows: Vec<(CommandRow, PartRow)> = native!(conn => carried(site.to_vec(), delivery.to_vec())
        .select((CommandRow::as_select(), PartRow::as_select()))
        .load(conn))?;
    // A delivery is small; sorting it here keeps the plan simple.
    rows.sort_by_key(|(command, part)| (lane_rank(command), command.seq, part.ordinal));
    Ok(rows)
}

/// The query behind [`unanswered`].
#[diesel::dsl::auto_type(no_type_alias)]
fn carried(site: Vec<u8>, delivery: Vec<u8>) -> _ {
    delivery_parts::table
        .inner_join(
            parts::table
                .on(parts::site_id.eq(delivery_parts::site_id).and(parts::id.eq(delivery_parts::part_id))),
        )
        .inner_join(
            commands::table.on(commands::site_id.eq(parts::site_id).and(commands::id.eq(parts::command_id))),
        )
        .filter(delivery_parts::site_id.eq(site))
        .filter(delivery_parts::delivery_id.eq(delivery))
        .filter(delivery_parts::answered_at.is_null())
        .filter(parts::state.eq("sent"))
}

fn lane_rank(command: &CommandRow) -> i32 {
    Lane::cooked(command.lane.clone()).map_or(i32::MAX, Lane::rank)
}

fn close_delivery(
    conn: &mut Conn,
    site: &[u8],
    delivery: &[u8],
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let target = deliveries::table.filter(deliveries::site_id.eq(site)).filter(deliveries::id.eq(delivery));
    diesel::update(target)
        .set((deliveries::closed_at.eq(now.0), deliveries::close_reason.eq(reason)))
        .run(conn)?;
    Ok(())
}

/// Closes the channel's open delivery when nothing in it waits for an answer any more.
fn close_if_done(
    conn: &mut Conn,
    site: &[u8],
    channel: &[u8],
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let waits = delivery_parts::table
        .inner_join(
            parts::table
                .on(parts::site_id.eq(delivery_parts::site_id).and(parts::id.eq(delivery_parts::part_id))),
        )
        .filter(delivery_parts::site_id.eq(deliveries::site_id))
        .filter(delivery_parts::delivery_id.eq(deliveries::id))
        .filter(delivery_parts::answered_at.is_null())
        .filter(parts::state.eq("sent"));
    let target = deliveries::table
        .filter(deliveries::site_id.eq(site))
        .filter(deliveries::channel_id.eq(channel))
        .filter(deliveries::closed_at.is_null())
        .filter(diesel::dsl::not(diesel::dsl::exists(waits)));
    diesel::update(target)
        .set((deliveries::closed_at.eq(now.0), deliveries::close_reason.eq(reason)))
        .run(conn)?;
    Ok(())
}
