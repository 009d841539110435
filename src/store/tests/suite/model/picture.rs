//! All rows of a site's queue as lines of text: as the model has them, and as they stand in the database, read behind
//! the store's back. Equal pictures mean equal rows, one by one.

use super::act::key_hash;
use super::reference::Model;
use crate::harness::Bed;
use bellwether_model::*;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use std::collections::BTreeSet;
use uuid::Uuid;

pub type Picture = BTreeSet<String>;

diesel::define_sql_function!(fn set_config(name: Text, value: Text, is_local: Bool) -> Text);

/// Runs one query on whichever database it is.
macro_rules! load {
    ($eyes:expr, $query:expr, $how:ident) => {
        match $eyes {
            Eyes::Sqlite(conn) => $query.$how(conn),
            Eyes::Postgres(conn) => $query.$how(conn),
        }
        .expect("the rows are read")
    };
}
/// A look at the database that does not go through the store.
pub enum Eyes {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Eyes {
    pub fn of(bed: &Bed) -> Self {
        let url = bed.raw_url();
        if bed.is_postgres() {
            let mut pg = PgConnection::establish(&url).expect("the role connects");
            diesel::select((
                set_config("bellwether.site", "", false),
                set_config("bellwether.system", "on", false),
            ))
            .execute(&mut pg)
            .expect("sees all sites");
            Self::Postgres(pg)
        } else {
            Self::Sqlite(SqliteConnection::establish(&url).expect("the file opens"))
        }
    }

    /// The site's rows.
    pub fn look(&mut self, site: SiteId) -> Picture {
        let mut lines = Picture::new();
        channels_and_enrollments(self, site, &mut lines);
        queue(self, site, &mut lines);
        notes(self, site, &mut lines);
        lines
    }

    /// How many commands, parts, deliveries and carried parts the whole database has.
    pub fn left(&mut self) -> [i64; 4] {
        [
            load!(self, commands::table.count(), get_result),
            load!(self, parts::table.count(), get_result),
            load!(self, deliveries::table.count(), get_result),
            load!(self, delivery_parts::table.count(), get_result),
        ]
    }
}

impl Model {
    /// The rows as they should be.
    pub fn picture(&self, site: SiteId) -> Picture {
        let mut lines = Picture::new();
        for (id, c) in &self.channels {
            lines.insert(channel_line(&id.0, c.last_seq, c.enabled, c.not_now));
        }
        for (id, e) in &self.enrollments {
            let staged = e.staged.map(|id| id.0);
            lines.insert(enrollment_line(
                &id.0,
                &e.device.0,
                e.state.as_str(),
                e.epoch,
                &e.identity.0,
                staged.as_ref(),
            ));
        }
        for (id, c) in &self.commands {
            let pending = !c.over();
            let waiting =
                c.coalesce.filter(|_| pending && c.first_sent.is_none()).map(|key| format!("wish {key}"));
            let times = (c.not_before, c.ends, c.first_sent, c.finished);
            lines.insert(command_line(
                &id.0,
                &c.channel.0,
                c.seq,
                c.state().as_str(),
                pending,
                waiting.as_deref(),
                times,
            ));
            for (n, p) in c.parts.iter().enumerate() {
                let answer = p.answer.map(|outcome| outcome.as_str());
                let counts = (p.sends, p.not_now);
                lines.insert(part_line(
                    &p.id.0,
                    &id.0,
                    n as i32,
                    p.state.as_str(),
                    counts,
                    p.sends > 0,
                    answer,
                    (p.last, p.not_before, p.finished),
                ));
            }
        }
        for (id, d) in &self.deliveries {
            lines.insert(format!("delivery {} channel={} open={}", id.0, d.channel.0, d.open));
            for (part, answered) in &d.parts {
                lines.insert(format!("carried {} by={} answered={answered}", part.0, id.0));
            }
        }
        for (id, j) in &self.jobs {
            let finished = j.finished;
            lines.insert(format!("job {} done={} refused={} finished={finished:?}", id.0, j.done, j.refused));
        }
        for (key, command) in &self.keys {
            lines.insert(format!("key {:?} -> {}", key_hash(site, *key), command.0));
        }
        lines.extend(self.audit.iter().map(|id| format!("audit {}", Uuid::from_u128(*id))));
        lines.extend(self.events.iter().map(|id| format!("event {}", Uuid::from_u128(*id))));
        lines
    }
}

/// Fails with the lines that only one side has.
pub fn same(want: &Picture, got: &Picture, when: &str) {
    let missing: Vec<_> = want.difference(got).take(8).collect();
    let extra: Vec<_> = got.difference(want).take(8).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{when}: only in the model: {missing:#?}\nonly in the store: {extra:#?}"
    );
}

fn channel_line(id: &Uuid, last_seq: i64, enabled: bool, not_now: bool) -> String {
    format!("channel {id} last_seq={last_seq} enabled={enabled} not_now={not_now}")
}

fn enrollment_line(
    id: &Uuid,
    device: &Uuid,
    state: &str,
    epoch: i32,
    identity: &Uuid,
    staged: Option<&Uuid>,
) -> String {
    format!(
        "enrollment {id} device={device} state={state} epoch={epoch} identity={identity} staged={staged:?}"
    )
}

fn command_line(
    id: &Uuid,
    channel: &Uuid,
    seq: i64,
    state: &str,
    pending: bool,
    waiting: Option<&str>,
    times: (Option<i64>, i64, Option<i64>, Option<i64>),
) -> String {
    let (not_before, ends, first_sent, finished) = times;
    format!(
        "command {id} channel={channel} seq={seq} state={state} pending={pending} waiting={waiting:?} \
         not_before={not_before:?} ends={ends} first_sent={first_sent:?} finished={finished:?}"
    )
}

#[expect(clippy::too_many_arguments, reason = "the columns of one row")]
fn part_line(
    id: &Uuid,
    command: &Uuid,
    ordinal: i32,
    state: &str,
    (sends, not_now): (i32, i32),
    wire: bool,
    answer: Option<&str>,
    (last, not_before, finished): (Option<i64>, Option<i64>, Option<i64>),
) -> String {
    format!(
        "part {id} of={command} ordinal={ordinal} state={state} sends={sends} not_now={not_now} wire={wire} \
         answer={answer:?} last={last:?} not_before={not_before:?} finished={finished:?}"
    )
}

fn uuid(bytes: &[u8]) -> Uuid {
    Uuid::from_slice(bytes).expect("sixteen bytes")
}

fn channels_and_enrollments(eyes: &mut Eyes, site: SiteId, lines: &mut Picture) {
    let site = site.as_bytes().to_vec();
    let rows: Vec<(Vec<u8>, i64, bool, bool)> = load!(
        eyes,
        channels::table.filter(channels::site_id.eq(&site)).select((
            channels::id,
            channels::last_seq,
            channels::enabled,
            channels::last_was_not_now
        )),
        load
    );
    lines.extend(
        rows.into_iter().map(|(id, seq, enabled, not_now)| channel_line(&uuid(&id), seq, enabled, not_now)),
    );
    type Enrolled = (Vec<u8>, Vec<u8>, String, i32, Vec<u8>, Option<Vec<u8>>);
    let rows: Vec<Enrolled> = load!(
        eyes,
        enrollments::table.filter(enrollments::site_id.eq(&site)).select((
            enrollments::id,
            enrollments::device_id,
            enrollments::state,
            enrollments::epoch,
            enrollments::identity_id,
            enrollments::staged_identity_id
        )),
        load
    );
    for (id, device, state, epoch, identity, staged) in rows {
        let staged = staged.map(|id| uuid(&id));
        lines.insert(enrollment_line(
            &uuid(&id),
            &uuid(&device),
            &state,
            epoch,
            &uuid(&identity),
            staged.as_ref(),
        ));
    }
}

fn queue(eyes: &mut Eyes, site: SiteId, lines: &mut Picture) {
    let site = site.as_bytes().to_vec();
    type Row = (
        Vec<u8>,
        Vec<u8>,
        i64,
        String,
        Option<i32>,
        Option<String>,
        Option<i64>,
        i64,
        Option<i64>,
        Option<i64>,
        Option<String>,
    );
    let rows: Vec<Row> = load!(
        eyes,
        commands::table.filter(commands::site_id.eq(&site)).select((
            commands::id,
            commands::channel_id,
            commands::seq,
            commands::state,
            commands::pending_lane,
            commands::waiting_key,
            commands::not_before,
            commands::ends_at,
            commands::first_sent_at,
            commands::finished_at,
            commands::note
        )),
        load
    );
    for (id, channel, seq, state, lane, waiting, not_before, ends, first_sent, finished, note) in rows {
        assert!(note.is_some(), "a command can always say why it waits or how it ended");
        let times = (not_before, ends, first_sent, finished);
        lines.insert(command_line(
            &uuid(&id),
            &uuid(&channel),
            seq,
            &state,
            lane.is_some(),
            waiting.as_deref(),
            times,
        ));
    }
    type PartRow = (
        Vec<u8>,
        Vec<u8>,
        i32,
        String,
        i32,
        i32,
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
    );
    let rows: Vec<PartRow> = load!(
        eyes,
        parts::table.filter(parts::site_id.eq(&site)).select((
            parts::id,
            parts::command_id,
            parts::ordinal,
            parts::state,
            parts::sends,
            parts::not_now,
            parts::wire,
            parts::answer,
            parts::last_sent_at,
            parts::not_before,
            parts::finished_at
        )),
        load
    );
    for (id, command, ordinal, state, sends, not_now, wire, answer, last, not_before, finished) in rows {
        let id = uuid(&id);
        assert!(wire.iter().all(|bytes| *bytes == crate::world::wire(PartId(id))), "frozen bytes (Q4)");
        let answer = answer.map(|bytes| String::from_utf8(bytes).expect("a word"));
        let times = (last, not_before, finished);
        lines.insert(part_line(
            &id,
            &uuid(&command),
            ordinal,
            &state,
            (sends, not_now),
            wire.is_some(),
            answer.as_deref(),
            times,
        ));
    }
    let rows: Vec<(Vec<u8>, Vec<u8>, Option<i64>)> = load!(
        eyes,
        deliveries::table.filter(deliveries::site_id.eq(&site)).select((
            deliveries::id,
            deliveries::channel_id,
            deliveries::closed_at
        )),
        load
    );
    for (id, channel, closed) in rows {
        lines.insert(format!("delivery {} channel={} open={}", uuid(&id), uuid(&channel), closed.is_none()));
    }
    let rows: Vec<(Vec<u8>, Vec<u8>, Option<i64>)> = load!(
        eyes,
        delivery_parts::table.filter(delivery_parts::site_id.eq(&site)).select((
            delivery_parts::part_id,
            delivery_parts::delivery_id,
            delivery_parts::answered_at
        )),
        load
    );
    for (part, delivery, answered) in rows {
        lines.insert(format!(
            "carried {} by={} answered={}",
            uuid(&part),
            uuid(&delivery),
            answered.is_some()
        ));
    }
}

fn notes(eyes: &mut Eyes, site: SiteId, lines: &mut Picture) {
    let bytes = site.as_bytes().to_vec();
    let rows: Vec<(Vec<u8>, i32, i32, Option<i64>)> = load!(
        eyes,
        jobs::table.filter(jobs::site_id.eq(&bytes)).select((
            jobs::id,
            jobs::done,
            jobs::refused,
            jobs::finished_at
        )),
        load
    );
    for (id, done, refused, finished) in rows {
        lines.insert(format!("job {} done={done} refused={refused} finished={finished:?}", uuid(&id)));
    }
    let ours = key_hash(site, 0);
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        load!(eyes, idempotency::table.select((idempotency::key_hash, idempotency::body)), load);
    for (hash, body) in rows {
        if hash[..32] == ours[..32] {
            lines.insert(format!("key {hash:?} -> {}", uuid(&body)));
        }
    }
    let ids: Vec<Vec<u8>> =
        load!(eyes, audit::table.filter(audit::site_id.eq(&bytes)).select(audit::id), load);
    lines.extend(ids.iter().map(|id| format!("audit {}", uuid(id))));
    let ids: Vec<Vec<u8>> =
        load!(eyes, events::table.filter(events::site_id.eq(&bytes)).select(events::id), load);
    lines.extend(ids.iter().map(|id| format!("event {}", uuid(id))));
}

diesel::table! { channels (site_id, id) { site_id -> Binary, id -> Binary, last_seq -> BigInt, enabled -> Bool, last_was_not_now -> Bool, } }
diesel::table! { enrollments (site_id, id) { site_id -> Binary, id -> Binary, device_id -> Binary, state -> Text, epoch -> Integer, identity_id -> Binary, staged_identity_id -> Nullable<Binary>, } }
diesel::table! { commands (site_id, id) { site_id -> Binary, id -> Binary, channel_id -> Binary, seq -> BigInt, state -> Text, pending_lane -> Nullable<Integer>, waiting_key -> Nullable<Text>, note -> Nullable<Text>, not_before -> Nullable<BigInt>, ends_at -> BigInt, first_sent_at -> Nullable<BigInt>, finished_at -> Nullable<BigInt>, } }
diesel::table! { parts (site_id, id) { site_id -> Binary, id -> Binary, command_id -> Binary, ordinal -> Integer, state -> Text, wire -> Nullable<Binary>, sends -> Integer, last_sent_at -> Nullable<BigInt>, not_now -> Integer, not_before -> Nullable<BigInt>, answer -> Nullable<Binary>, finished_at -> Nullable<BigInt>, } }
diesel::table! { deliveries (site_id, id) { site_id -> Binary, id -> Binary, channel_id -> Binary, closed_at -> Nullable<BigInt>, } }
diesel::table! { delivery_parts (site_id, delivery_id, part_id) { site_id -> Binary, delivery_id -> Binary, part_id -> Binary, answered_at -> Nullable<BigInt>, } }
diesel::table! { jobs (site_id, id) { site_id -> Binary, id -> Binary, done -> Integer, refused -> Integer, finished_at -> Nullable<BigInt>, } }
diesel::table! { idempotency (key_hash) { key_hash -> Binary, body -> Binary, } }
diesel::table! { audit (site_id, id) { site_id -> Binary, id -> Binary, } }
diesel::table! { events (site_id, id) { site_id -> Binary, id -> Binary, } }
