//! What a channel should be offered: the one rule behind peeking and handing over.

use super::{CommandRow, PartRow, open_delivery, unanswered};
use crate::StoreError;
use crate::backend::{AtMost as _, Conn, native};
use crate::cell::Cell;
use crate::records::{Peek, QueueRules};
use crate::schema::{channels, commands, enrollments, parts, site_settings};
use crate::tx::quarantine::QUARANTINE;
use bellwether_model::quarantine::kind_waits_in_quarantine;
use bellwether_model::time::MINUTE;
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
/// After a restore nothing that destroys is offered before an admin ends the quarantine (Q14); it is asked here, in the
/// transaction that sends (Q11).
pub(super) fn choose(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    peek: &Peek,
    rules: &QueueRules,
    limit: i64,
) -> Result<Choice, StoreError> {
    let nothing = Choice { open: None, offer: Vec::new(), resend: false };
    let Some(quarantine) = takes_commands(conn, site, channel)? else { return Ok(nothing) };
    let answered: Vec<Vec<u8>> = peek.answering.iter().map(Cell::raw).collect();
    let open = load_open(conn, site, channel, peek, rules, &answered, quarantine)?;
    let Some((open, again)) = open else {
        let offer = next(conn, site, channel, peek, rules, &answered, quarantine, limit)?;
        return Ok(Choice { offer, ..nothing });
    };
    if again.is_empty() || !again.iter().any(|(command, _)| is_emergency(command)) {
        let offer = next(conn, site, channel, peek, rules, &answered, quarantine, limit)?;
        let overtakes = offer.first().is_some_and(|(command, _)| is_emergency(command));
        if again.is_empty() || overtakes {
            return Ok(Choice { open: Some(open), offer, resend: false });
        }
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Choice { open: Some(open), offer: again.into_iter().take(most).collect(), resend: true })
}

/// Whether a sent part without an answer may be sent again (the same rule stands in [`offerable`], in SQL).
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

/// Q10, Q11: only an enabled channel of an active enrollment is offered anything. Then: whether the site is in
/// quarantine.
fn takes_commands(conn: &mut Conn, site: &[u8], channel: ChannelId) -> Result<Option<bool>, StoreError> {
    let row: Option<(bool, String, bool)> = native!(conn => channels::table
            .inner_join(enrollments::table.on(
                enrollments::site_id.eq(channels::site_id).and(enrollments::id.eq(channels::enrollment_id)),
            ))
            .filter(channels::site_id.eq(site))
            .filter(channels::id.eq(channel.raw()))
            .select((channels::enabled, enrollments::state, diesel::dsl::exists(quarantine(site.to_vec(), QUARANTINE))))
            .get_result(conn))
    .optional()?;
    Ok(row.filter(|(enabled, state, _)| *enabled && state == "active").map(|(.., quarantine)| quarantine))
}

/// A row while the site is in quarantine. One look with the channel's own: a poll costs no query more.
#[diesel::dsl::auto_type(no_type_alias)]
fn quarantine(site: Vec<u8>, key: &'static str) -> _ {
    site_settings::table.filter(site_settings::site_id.eq(site)).filter(site_settings::key.eq(key))
}

type Sent = Vec<(CommandRow, PartRow)>;

/// The open delivery as it will be once the poll's answer is recorded, and what of it may be sent again.
fn load_open(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    peek: &Peek,
    rules: &QueueRules,
    answered: &[Vec<u8>],
    quarantine: bool,
) -> Result<Option<(Open, Sent)>, StoreError> {
    let Some(id) = open_delivery(conn, site, &channel.raw())? else { return Ok(None) };
    let mut waiting = unanswered(conn, site, &id)?;
    waiting.retain(|(_, part)| !answered.contains(&part.id));
    let mut open = Open { id, stuck: Vec::new(), resendable: false };
    let mut again = Vec::new();
    for (command, part) in waiting {
        let withheld = quarantine && kind_waits_in_quarantine(&command.kind);
        if !withheld && may_resend(&command, &part, peek, rules)? {
            again.push((command, part));
        } else {
            open.stuck.push((command, part));
        }
    }
    open.resendable = !again.is_empty();
    Ok(Some((open, again)))
}

/// What was handed over so long ago belongs to an earlier session of the device: it answers within seconds.
const SESSION: i64 = 2 * MINUTE;

/// Id, lane, sequence, guarantee and kind of a command that waits.
type Waiting = (Vec<u8>, Option<i32>, i64, String, String);

/// How many waiting commands are looked at in one go.
const STRIDE: i64 = 16;

/// The first parts in queue order that may be offered now (Q5, Q7).
///
/// Two plain queries instead of a join: with a join SQLite may start from the parts of the whole site, and the cost
/// of a poll would grow with history (Q15).
#[expect(clippy::too_many_arguments, reason = "they are the poll; a struct would only rename them")]
fn next(
    conn: &mut Conn,
    site: &[u8],
    channel: ChannelId,
    peek: &Peek,
    rules: &QueueRules,
    answered: &[Vec<u8>],
    quarantine: bool,
    limit: i64,
) -> Result<Sent, StoreError> {
    let now = peek.now.0;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut offer: Sent = Vec::new();
    let mut place = (-1, -1);
    loop {
        let waiting: Vec<Waiting> = native!(conn => pending(site.to_vec(), channel.raw(), now, place.0, place.1)
                .order((commands::pending_lane, commands::seq))
                .select((commands::id, commands::pending_lane, commands::seq, commands::guarantee, commands::kind))
                .at_most::<STRIDE>()
                .load(conn))?;
        let Some((_, Some(lane), seq, ..)) = waiting.last() else { return Ok(offer) };
        place = (*lane, *seq);
        for (id, _, _, guarantee, kind) in waiting {
            if quarantine && kind_waits_in_quarantine(&kind) {
                continue;
            }
            // A sent part goes out again after this many hand-overs at most, or when the last one is this long ago.
            let (sends, since) = match Guarantee::cooked(guarantee)? {
                Guarantee::AtMostOnce => (0, i64::MIN),
                Guarantee::UntilSilent => (0, now.saturating_sub(rules.silent_pause)),
                Guarantee::UntilAnswered => (rules.max_sends, now.saturating_sub(rules.park_for)),
            };
            // After a NotNow: what said so in an earlier session has its turn too, or the first one that always says it
            // would hide all others that once did.
            let earlier = if peek.skip_not_now { now.saturating_sub(SESSION) } else { i64::MAX };
            let parts: Vec<PartRow> = native!(conn => offerable(site.to_vec(), id.clone(), now, earlier, sends, since)
                    .order(parts::ordinal)
                    .select(PartRow::as_select())
                    .load(conn))?;
            for part in parts {
                if answered.contains(&part.id) {
                    continue;
                }
                if let Some(command) = super::command_row(conn, site, &id)? {
                    offer.push((command, part));
                }
                if offer.len() >= wanted {
                    return Ok(offer);
                }
            }
        }
    }
}

/// A channel's waiting commands after a place in the queue. Walks the index of pending commands in its order (Q15).
#[diesel::dsl::auto_type(no_type_alias)]
fn pending(site: Vec<u8>, channel: Vec<u8>, now: i64, lane: i32, seq: i64) -> _ {
    commands::table
        .filter(commands::site_id.eq(site))
        .filter(commands::channel_id.eq(channel))
        .filter(commands::pending_lane.is_not_null())
        .filter(commands::pending_lane.ge(lane))
        .filter(commands::pending_lane.gt(lane).or(commands::seq.gt(seq).nullable()))
        .filter(commands::state.ne("held"))
        .filter(commands::state.ne("accepted"))
        .filter(commands::expires_at.gt(now))
        .filter(commands::not_before.is_null().or(commands::not_before.le(now)))
}

/// A command's parts that may go out now ([`may_resend`] says the same of sent ones).
#[diesel::dsl::auto_type(no_type_alias)]
fn offerable(site: Vec<u8>, command: Vec<u8>, now: i64, earlier: i64, max_sends: i32, since: i64) -> _ {
    parts::table
        .filter(parts::site_id.eq(site))
        .filter(parts::command_id.eq(command))
        .filter(parts::not_before.is_null().or(parts::not_before.le(now)))
        .filter(
            parts::state
                .eq("queued")
                .nullable()
                .or(parts::state.eq("not-now").nullable().and(parts::last_sent_at.le(earlier)))
                .or(parts::state
                    .eq("sent")
                    .nullable()
                    .and(parts::sends.lt(max_sends).nullable().or(parts::last_sent_at.le(since)))),
        )
}

/// A part's id.
pub(super) fn part_id(part: &PartRow) -> Result<PartId, StoreError> {
    PartId::cooked(part.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sqlite::Sqlite;
    use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
    use diesel::sql_types::{Integer, Text};
    use diesel::sqlite::Sqlite as Db;

    /// A query that the database only plans.
    struct Explain<Q>(Q);

    impl<Q: QueryFragment<Db>> QueryFragment<Db> for Explain<Q> {
        fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Db>) -> QueryResult<()> {
            out.push_sql("EXPLAIN QUERY PLAN ");
            self.0.walk_ast(out.reborrow())
        }
    }
    impl<Q> QueryId for Explain<Q> {
        type QueryId = ();
        const HAS_STATIC_QUERY_ID: bool = false;
    }
    impl<Q> Query for Explain<Q> {
        type SqlType = (Integer, Integer, Integer, Text);
    }
    impl<Q> RunQueryDsl<SqliteConnection> for Explain<Q> {}

    fn plan<Q: QueryFragment<Db>>(conn: &mut Conn, query: Q) -> String {
        let Conn::Sqlite(sqlite) = conn else { panic!("SQLite") };
        let rows: Vec<(i32, i32, i32, String)> = Explain(query).load(sqlite).expect("planned");
        rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ")
    }

    /// Q15: a poll walks the partial index of pending commands in its order, sorts nothing and scans nothing.
    #[test]
    fn q15_a_poll_reads_the_pending_index_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Sqlite::open(folder.path(), 1).expect("opens");
        let mut conn = store.reader().expect("a reader");
        let poll = pending(vec![1], vec![2], 3, 4, 5)
            .order((commands::pending_lane, commands::seq))
            .limit(1)
            .select(commands::id);
        let plan_of_poll = plan(&mut conn, poll);
        assert!(plan_of_poll.contains("commands USING INDEX commands_pending"), "{plan_of_poll}");
        let offered = offerable(vec![1], vec![2], 3, 4, 4, 5).order(parts::ordinal).select(parts::id);
        let plan_of_parts = plan(&mut conn, offered);
        assert!(plan_of_parts.contains("parts USING INDEX parts_ordinal"), "{plan_of_parts}");
        let carried = super::super::carried(vec![1], vec![2]).select(parts::id);
        let plan_of_carried = plan(&mut conn, carried);
        assert!(plan_of_carried.contains("SEARCH delivery_parts USING PRIMARY KEY"), "{plan_of_carried}");
        assert!(plan_of_carried.contains("(site_id=? AND id=?)"), "{plan_of_carried}");
        let open = crate::schema::deliveries::table
            .filter(crate::schema::deliveries::site_id.eq(vec![1]))
            .filter(crate::schema::deliveries::channel_id.eq(vec![1]))
            .filter(crate::schema::deliveries::closed_at.is_null())
            .select(crate::schema::deliveries::id);
        let plan_of_open = plan(&mut conn, open);
        assert!(plan_of_open.contains("deliveries_one_open"), "{plan_of_open}");
        let due = commands::table
            .filter(commands::pending_lane.is_not_null())
            .filter(commands::ends_at.le(1))
            .order(commands::ends_at)
            .select(commands::id);
        let plan_of_due = plan(&mut conn, due);
        assert!(plan_of_due.contains("commands_ending"), "{plan_of_due}");
        let plan_of_quarantine = plan(&mut conn, quarantine(vec![1], QUARANTINE).select(site_settings::key));
        assert!(plan_of_quarantine.contains("SEARCH site_settings USING"), "{plan_of_quarantine}");
        for plan in
            [plan_of_poll, plan_of_parts, plan_of_carried, plan_of_open, plan_of_due, plan_of_quarantine]
        {
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}
