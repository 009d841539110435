//! What a device said about a part.

use super::{CommandRow, PartRow, close_if_done, settle};
use crate::StoreError;
use crate::backend::{Conn, Run as _, native};
use crate::cell::Cell;
use crate::records::{Answered, QueueRules, Reply};
use crate::schema::{commands, delivery_parts, enrollments, parts};
use crate::tx::Tx;
use crate::tx::quarantine::was_handed_over_since;
use bellwether_model::lifecycle::{AnswerVerdict, judge};
use bellwether_model::{ChannelId, CommandState, Outcome, PartId, PartState, Timestamp};
use diesel::prelude::*;

diesel::alias!(const CARRIERS: Alias<Carriers> = delivery_parts as carriers);

/// What is answered about a part that nobody knows here.
const UNKNOWN: Answered =
    Answered { verdict: AnswerVerdict::Unknown, command: None, before: None, request: None };

impl Tx<'_> {
    /// Site. Records an answer (Q4). A part that nobody knows, of another channel or of an enrollment that is over, is
    /// [`AnswerVerdict::Unknown`], never an error (Q10, Q17).
    pub fn answer(
        &mut self,
        channel: ChannelId,
        part: PartId,
        reply: &Reply,
        now: Timestamp,
        rules: &QueueRules,
    ) -> Result<Answered, StoreError> {
        self.in_site("answer", |conn, site| {
            let Some((part, mut command, enrollment)) = addressed(conn, site, part)? else {
                return Ok(UNKNOWN);
            };
            if command.channel_id != channel.raw() || enrollment == "ended" {
                return Ok(UNKNOWN);
            }
            let before = CommandState::cooked(command.state.clone())?;
            let mut state = PartState::cooked(part.state.clone())?;
            if state == PartState::Queued && was_handed_over_since(conn, site, command.created_at)? {
                state = PartState::Sent;
            }
            let verdict = judge(state, reply.outcome);
            let request = Some(part.request.clone());
            if verdict != AnswerVerdict::Applied {
                let command = Some(command.record()?);
                return Ok(Answered { verdict, command, before: Some(before), request });
            }
            let not_now = move_part(conn, site, &part, reply, now, rules)?;
            if reply.outcome == Outcome::Accepted {
                await_outcome(conn, site, &part.command_id, now.plus(rules.accepted_for))?;
            }
            let note = note(reply, not_now);
            settle(conn, site, &mut command, before, Some(&note), now)?;
            close_if_done(conn, site, &channel.raw(), "answered", now)?;
            Ok(Answered { verdict, command: Some(command.record()?), before: Some(before), request })
        })
    }
}

/// A part with its command and the state of their enrollment.
fn addressed(
    conn: &mut Conn,
    site: &[u8],
    part: PartId,
) -> Result<Option<(PartRow, CommandRow, String)>, StoreError> {
    Ok(native!(conn => parts::table
        .inner_join(
            commands::table.on(commands::site_id.eq(parts::site_id).and(commands::id.eq(parts::command_id))),
        )
        .inner_join(
            enrollments::table.on(enrollments::site_id
                .eq(commands::site_id)
                .and(enrollments::id.eq(commands::enrollment_id))),
        )
        .filter(parts::site_id.eq(site))
        .filter(parts::id.eq(part.raw()))
        .select((PartRow::as_select(), CommandRow::as_select(), enrollments::state))
        .get_result(conn))
    .optional()?)
}

/// Writes the answer to the part and its delivery; how often it has said NotNow.
fn move_part(
    conn: &mut Conn,
    site: &[u8],
    part: &PartRow,
    reply: &Reply,
    now: Timestamp,
    rules: &QueueRules,
) -> Result<i32, StoreError> {
    let state = reply.outcome.part_state();
    let (not_now, not_before) = match reply.outcome {
        Outcome::NotNow => {
            let count = part.not_now.saturating_add(1);
            let pause = rules.not_now_pause.saturating_mul(i64::from(count.min(8)));
            (count, (pause > 0).then(|| now.plus(pause).0))
        }
        _ => (part.not_now, None),
    };
    let target = parts::table.filter(parts::site_id.eq(site)).filter(parts::id.eq(&part.id));
    diesel::update(target)
        .set((
            parts::state.eq(state.raw()),
            parts::not_now.eq(not_now),
            parts::not_before.eq(not_before),
            parts::answer.eq(reply.answer.as_ref().or(part.answer.as_ref())),
            parts::error.eq(&reply.error),
            parts::finished_at.eq(state.is_terminal().then_some(now.0)),
        ))
        .run(conn)?;
    // Every delivery that carried it, the overtaken ones too.
    let target = delivery_parts::table
        .filter(delivery_parts::site_id.eq(site))
        .filter(delivery_parts::part_id.eq(&part.id))
        .filter(delivery_parts::delivery_id.eq_any(carriers(site.to_vec(), part.id.clone())))
        .filter(delivery_parts::answered_at.is_null());
    diesel::update(target).set(delivery_parts::answered_at.eq(now.0)).run(conn)?;
    Ok(not_now)
}

/// The deliveries that carried a part. Named, because by the part alone SQLite would look through every delivery of the
/// site, and the cost of an answer would grow with history (Q15).
#[diesel::dsl::auto_type(no_type_alias)]
fn carriers(site: Vec<u8>, part: Vec<u8>) -> _ {
    CARRIERS
        .filter(CARRIERS.field(delivery_parts::site_id).eq(site))
        .filter(CARRIERS.field(delivery_parts::part_id).eq(part))
        .select(CARRIERS.field(delivery_parts::delivery_id))
}

/// An accepted part has until its deadline to report, whatever becomes of the command's other parts.
fn await_outcome(
    conn: &mut Conn,
    site: &[u8],
    command: &[u8],
    deadline: Timestamp,
) -> Result<(), StoreError> {
    let target = commands::table
        .filter(commands::site_id.eq(site))
        .filter(commands::id.eq(command))
        .filter(commands::ends_at.lt(deadline.0));
    diesel::update(target).set(commands::ends_at.eq(deadline.0)).run(conn)?;
    Ok(())
}

fn note(reply: &Reply, not_now: i32) -> String {
    match reply.outcome {
        Outcome::Acknowledged => "the device confirmed it".to_owned(),
        Outcome::Failed => "the device refused it or failed".to_owned(),
        Outcome::Accepted => "the device accepted it; its outcome is awaited".to_owned(),
        Outcome::NotNow => {
            format!("the device said \"not now\" ({not_now} times so far); it is offered again")
        }
    }
}
