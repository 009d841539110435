//! What a channel should be offered: the one rule behind peeking and handing over.

use super::{CommandRow, PartRow, open_delivery, unanswered};
use crate::StoreError;
use crate::backend::Conn;
use crate::cell::Cell;
use crate::records::{Peek, QueueRules};
use crate::schema::{channels, commands, enrollments, parts};
use bellwether_model::{ChannelId, Guarantee, Lane, PartId};
use diesel::prelude::*;

/// What to offer, and what becomes of the open delivery.
pub(super) struct Choice {
    /// The channel's delivery with unanswered parts, if any.
    pub open: Option<Open>,
    /// The parts to offer, in order.
    pub offer: Vec<(CommandRow, PartRow)>,
    /// They are in the open delivery already: the same bytes go out again.
    pub resend: bool,
}

/// An open delivery without (all) answers.
pub(super) struct Open {
    /// Its id.
    pub id: Vec<u8>,
    /// Sent, not answered, and not to be sent again now.
    pub stuck: Vec<(CommandRow, PartRow)>,
    /// Others of it could be sent again right now.
    pub resendable: bool,
}

/// Chooses. An unanswered delivery goes first, unless an emergency command waits and it is none itself, or its parts
/// may not be sent again now: parked after too many sends (Q8), in the pause of an until-silent command, at most once.
pub(super) fn choose(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    peek: &Peek,
    rules: &QueueRules,
    limit: i64,
) -> Result<Choice, StoreError> {
    let nothing = Choice { open: None, offer: Vec::new(), resend: false };
    if !takes_commands(conn, site, channel)? {
        return Ok(nothing);
    }
    let answered = peek.answering.map(|(part, _)| part.raw());
    let open = load_open(conn, site, channel, peek, rules, answered.as_deref())?;
    let Some((open, again)) = open else {
        let offer = next(conn, site, channel, peek, rules, answered, limit)?;
        return Ok(Choice { offer, ..nothing });
    };
    if again.is_empty() || !again.iter().any(|(command, _)| is_emergency(command)) {
        let offer = next(conn, site, channel, peek, rules, answered, limit)?;
        let overtakes = offer.first().is_some_and(|(command, _)| is_emergency(command));
        if again.is_empty() || overtakes {
            return Ok(Choice { open: Some(open), offer, resend: false });
        }
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Choice { open: Some(open), offer: again.into_iter().take(most).collect(), resend: true })
}

/// Whether a sent part without an answer may be sent again (the same rule stands in [`next`], in SQL).
fn may_resend(
    command: &CommandRow,
    part: &PartRow,
    peek: &Peek,
    rules: &QueueRules,
) -> Result<bool, StoreError> {
    let now = peek.now.0;
    let last = part.last_sent_at.unwrap_or(i64::MIN);
    if command.expires_at <= now || part.not_before.is_some_and(|at| at > now) {
        return Ok(false);
    }
    Ok(match Guarantee::cooked(command.guarantee.clone())? {
        Guarantee::AtMostOnce => false,
        Guarantee::UntilSilent => last <= now.saturating_sub(rules.silent_pause),
        Guarantee::UntilAnswered => {
            part.sends < rules.max_sends || last <= now.saturating_sub(rules.park_for)
        }
    })
}

fn is_emergency(command: &CommandRow) -> bool {
    command.lane == Lane::Emergency.as_str()
}

/// Q10, Q11: only an enabled channel of an active enrollment is offered anything.
fn takes_commands(conn: &mut Conn, site: &[u8], channel: ChannelId) -> Result<bool, StoreError> {
    let row: Option<(bool, String)> =
        channels::table
            .inner_join(enrollments::table.on(
                enrollments::site_id.eq(channels::site_id).and(enrollments::id.eq(channels::enrollment_id)),
            ))
            .filter(channels::site_id.eq(site))
            .filter(channels::id.eq(channel.raw()))
            .select((channels::enabled, enrollments::state))
            .first(conn)
            .optional()?;
    Ok(row.is_some_and(|(enabled, state)| enabled && state == "active"))
}

type Sent = Vec<(CommandRow, PartRow)>;

/// The open delivery as it will be once the poll's answer is recorded, and what of it may be sent again.
fn load_open(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    peek: &Peek,
    rules: &QueueRules,
    answered: Option<&[u8]>,
) -> Result<Option<(Open, Sent)>, StoreError> {
    let Some(id) = open_delivery(conn, site, &channel.raw())? else { return Ok(None) };
    let mut waiting = unanswered(conn, site, &id)?;
    waiting.retain(|(_, part)| Some(part.id.as_slice()) != answered);
    let mut open = Open { id, stuck: Vec::new(), resendable: false };
    let mut again = Vec::new();
    for (command, part) in waiting {
        if may_resend(&command, &part, peek, rules)? {
            again.push((command, part));
        } else {
            open.stuck.push((command, part));
        }
    }
    open.resendable = !again.is_empty();
    Ok(Some((open, again)))
}

/// The first parts in queue order that may be offered now (Q5, Q7). Walks the index of pending commands only (Q15).
fn next(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    peek: &Peek,
    rules: &QueueRules,
    answered: Option<Vec<u8>>,
    limit: i64,
) -> Result<Sent, StoreError> {
    Ok(offerable(
        site.to_vec(),
        channel.raw(),
        peek.now.0,
        if peek.skip_not_now { "queued" } else { "not-now" }.to_owned(),
        rules.max_sends,
        peek.now.0.saturating_sub(rules.park_for),
        peek.now.0.saturating_sub(rules.silent_pause),
        // No part has an empty id.
        answered.unwrap_or_default(),
    )
    .order((commands::pending_lane, commands::seq, parts::ordinal))
    .limit(limit)
    .select((CommandRow::as_select(), PartRow::as_select()))
    .load(conn)?)
}

/// The query behind [`next`]; a test asks the database how it would run it.
#[expect(clippy::too_many_arguments, reason = "they are the query's parameters, one each")]
#[diesel::dsl::auto_type(no_type_alias)]
pub(super) fn offerable(
    site: Vec<u8>,
    channel: Vec<u8>,
    now: i64,
    also: String,
    max_sends: i32,
    parked_since: i64,
    paused_since: i64,
    not_this: Vec<u8>,
) -> _ {
    commands::table
        .inner_join(
            parts::table.on(parts::site_id.eq(commands::site_id).and(parts::command_id.eq(commands::id))),
        )
        .filter(commands::site_id.eq(site))
        .filter(commands::channel_id.eq(channel))
        .filter(commands::pending_lane.is_not_null())
        .filter(commands::state.ne("held"))
        .filter(commands::expires_at.gt(now))
        .filter(commands::not_before.is_null().or(commands::not_before.le(now)))
        .filter(parts::not_before.is_null().or(parts::not_before.le(now)))
        .filter(parts::id.ne(not_this))
        .filter(
            parts::state.eq("queued").or(parts::state.eq(also)).nullable().or(parts::state
                .eq("sent")
                .nullable()
                .and(
                    commands::guarantee
                        .eq("until-answered")
                        .nullable()
                        .and(parts::sends.lt(max_sends).nullable().or(parts::last_sent_at.le(parked_since)))
                        .or(commands::guarantee
                            .eq("until-silent")
                            .nullable()
                            .and(parts::last_sent_at.le(paused_since))),
                )),
        )
}

/// A part's id.
pub(super) fn part_id(part: &PartRow) -> Result<PartId, StoreError> {
    PartId::cooked(part.id.clone())
}
