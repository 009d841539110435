//! Offering the next part, and handing it over.

use super::choice::{Choice, Open, choose, part_id};
use super::{CommandRow, PartRow, close_delivery, settle};
use crate::StoreError;
use crate::backend::{Conn, Run as _};
use crate::cell::Cell;
use crate::records::{Candidate, HandOver, Peek, QueueRules, Sealed};
use crate::schema::{channels, deliveries, delivery_parts, parts};
use crate::tx::Tx;
use bellwether_model::{ChannelId, CommandState, DeliveryId, Guarantee, PartId, PartState, Timestamp};
use diesel::prelude::*;

impl Tx<'_> {
    /// Site. What to offer the channel next; reads only.
    pub fn peek(
        &mut self,
        channel: ChannelId,
        peek: &Peek,
        rules: &QueueRules,
    ) -> Result<Option<Candidate>, StoreError> {
        Ok(self.peek_many(channel, peek, rules, 1)?.pop())
    }

    /// Site. Up to `limit` parts for one delivery; reads only. All of them are sent again, or none.
    pub fn peek_many(
        &mut self,
        channel: ChannelId,
        peek: &Peek,
        rules: &QueueRules,
        limit: i64,
    ) -> Result<Vec<Candidate>, StoreError> {
        self.in_site("peek", |conn, site| {
            let choice = choose(conn, site, channel, peek, rules, limit)?;
            let resend_of = match (&choice.open, choice.resend) {
                (Some(open), true) => Some(DeliveryId::cooked(open.id.clone())?),
                _ => None,
            };
            choice
                .offer
                .into_iter()
                .map(|(command, part)| {
                    Ok(Candidate { command: command.record()?, part: part.record()?, resend_of })
                })
                .collect()
        })
    }

    /// Site. Hands over exactly what [`Tx::peek_many`] offers for the same `peek`; the poll's answer must be recorded
    /// before, in the same transaction. `Moved`: something else is to be offered by now; peek again.
    ///
    /// Wire bytes are stored at the first hand-over and frozen. The open delivery, when other parts go out, is closed:
    /// overtaken by an emergency, parked (Q8), or given up (at most once). Its parts stay sent, and a late answer to
    /// them still counts (Q4).
    pub fn hand_over(
        &mut self,
        channel: ChannelId,
        delivery: DeliveryId,
        handed: &[(PartId, Option<Sealed>)],
        peek: &Peek,
        rules: &QueueRules,
    ) -> Result<HandOver, StoreError> {
        self.in_site("hand_over", |conn, site| {
            let limit = i64::try_from(handed.len()).unwrap_or(i64::MAX);
            let choice = choose(conn, site, channel, peek, rules, limit)?;
            let offered: Result<Vec<PartId>, StoreError> =
                choice.offer.iter().map(|(_, part)| part_id(part)).collect();
            if handed.is_empty() || !offered?.iter().eq(handed.iter().map(|(id, _)| id)) {
                return Ok(HandOver::Moved);
            }
            hand_over(conn, site, channel, delivery, handed, choice, peek.now, rules)
        })
    }

    /// Site. A part that the device accepted is to be handed over again: it said yes and then showed that it did not do
    /// it. Whether it was accepted.
    pub fn part_reopen(&mut self, id: PartId, note: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.in_site("part_reopen", |conn, site| {
            let target = parts::table
                .filter(parts::site_id.eq(site))
                .filter(parts::id.eq(id.raw()))
                .filter(parts::state.eq(PartState::Accepted.raw()));
            let rows = diesel::update(target).set(parts::state.eq(PartState::Sent.raw())).run(conn)?;
            if rows == 0 {
                return Ok(false);
            }
            let command: Vec<u8> = parts::table
                .filter(parts::site_id.eq(site))
                .filter(parts::id.eq(id.raw()))
                .select(parts::command_id)
                .get_result(conn)?;
            if let Some(mut command) = super::command_row(conn, site, &command)? {
                settle(conn, site, &mut command, CommandState::Sent, Some(note), now)?;
            }
            Ok(true)
        })
    }

    /// Site. Remembers whether the device's last word was NotNow: then it calls by itself and needs no wake (Q7).
    pub fn session_word(&mut self, channel: ChannelId, was_not_now: bool) -> Result<(), StoreError> {
        self.in_site("session_word", |conn, site| {
            let target = channels::table
                .filter(channels::site_id.eq(site))
                .filter(channels::id.eq(channel.raw()))
                .filter(channels::last_was_not_now.ne(was_not_now));
            diesel::update(target).set(channels::last_was_not_now.eq(was_not_now)).run(conn)?;
            Ok(())
        })
    }
}

#[expect(clippy::too_many_arguments, reason = "the body of one method, split off for reading")]
fn hand_over(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    delivery: DeliveryId,
    handed: &[(PartId, Option<Sealed>)],
    choice: Choice,
    now: Timestamp,
    rules: &QueueRules,
) -> Result<HandOver, StoreError> {
    let (delivery, resent) = match (choice.open, choice.resend) {
        (Some(open), true) => (DeliveryId::cooked(open.id)?, true),
        (open, _) => {
            if let Some(open) = open {
                give_way(conn, site, open, now, rules)?;
            }
            diesel::insert_into(deliveries::table)
                .values((
                    deliveries::site_id.eq(site),
                    deliveries::id.eq(delivery.raw()),
                    deliveries::channel_id.eq(channel.raw()),
                    deliveries::opened_at.eq(now.0),
                ))
                .run(conn)?;
            for (id, _) in handed {
                diesel::insert_into(delivery_parts::table)
                    .values((
                        delivery_parts::site_id.eq(site),
                        delivery_parts::delivery_id.eq(delivery.raw()),
                        delivery_parts::part_id.eq(id.raw()),
                    ))
                    .run(conn)?;
            }
            (delivery, false)
        }
    };
    for ((command, part), (_, wire)) in choice.offer.into_iter().zip(handed) {
        send_part(conn, site, command, part, wire.as_ref(), now, rules)?;
    }
    Ok(HandOver::Done { delivery, resent })
}

/// Q12: from here on the command counts as sent.
fn send_part(
    conn: &mut Conn,
    site: &[u8],
    mut command: CommandRow,
    part: PartRow,
    wire: Option<&Sealed>,
    now: Timestamp,
    rules: &QueueRules,
) -> Result<(), StoreError> {
    let Some(wire) = part.wire.as_ref().or(wire) else {
        return Err(StoreError::Misuse("a first hand-over without wire bytes"));
    };
    let sends = part.sends.saturating_add(1);
    let target = parts::table.filter(parts::site_id.eq(site)).filter(parts::id.eq(&part.id));
    let moved = (
        parts::state.eq(PartState::Sent.raw()),
        parts::sends.eq(sends),
        parts::last_sent_at.eq(now.0),
        parts::not_before.eq(None::<i64>),
    );
    if part.wire.is_none() {
        diesel::update(target).set((moved, parts::wire.eq(wire))).run(conn)?;
    } else {
        diesel::update(target).set(moved).run(conn)?;
    }
    command.first_sent_at = command.first_sent_at.or(Some(now.0));
    let note = sent_note(&command, sends, rules)?;
    settle(conn, site, &mut command, CommandState::Sent, Some(&note), now)?;
    Ok(())
}

fn sent_note(command: &CommandRow, sends: i32, rules: &QueueRules) -> Result<String, StoreError> {
    Ok(match Guarantee::cooked(command.guarantee.clone())? {
        Guarantee::AtMostOnce => "handed over once; waits for the answer and is not sent again".to_owned(),
        Guarantee::UntilAnswered if sends >= rules.max_sends => {
            format!("handed over {sends} times without an answer; parked while others go on")
        }
        _ if sends > 1 => format!("handed over {sends} times; waits for the answer"),
        _ => "handed over; waits for the answer".to_owned(),
    })
}

/// The open delivery makes room for another one.
fn give_way(
    conn: &mut Conn,
    site: &[u8],
    open: Open,
    now: Timestamp,
    rules: &QueueRules,
) -> Result<(), StoreError> {
    let mut reason = if open.resendable { "overtaken" } else { "unanswered" };
    for (command, part) in open.stuck {
        let exhausted = Guarantee::cooked(command.guarantee)? == Guarantee::UntilAnswered
            && part.sends >= rules.max_sends
            && part.not_before.is_none();
        if exhausted {
            reason = "parked";
            let until = part.last_sent_at.unwrap_or(now.0).saturating_add(rules.park_for);
            let target = parts::table.filter(parts::site_id.eq(site)).filter(parts::id.eq(part.id));
            diesel::update(target).set(parts::not_before.eq(until)).run(conn)?;
        }
    }
    close_delivery(conn, site, &open.id, reason, now)
}
