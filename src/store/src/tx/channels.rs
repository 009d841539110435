//! Channels and the secrets kept for an enrollment.

use super::{Tx, found};
use crate::StoreError;
use crate::backend::{Conn, Run as _, native};
use crate::cell::{Cell, records, row};
use crate::records::{Channel, Escrow};
use crate::schema::{channels, escrow};
use bellwether_model::{ChannelId, ChannelKind, EnrollmentId, Timestamp};
use diesel::prelude::*;

row!(ChannelRow: Channel in channels key (id) {
    id: ChannelId,
    enrollment_id: EnrollmentId,
    kind: ChannelKind,
    user_key: String,
    user_name: Option<String>,
    enabled: bool,
    push_token: Option<Vec<u8>>,
    push_magic: Option<Vec<u8>>,
    push_dead: bool,
    last_seq: i64,
    token_updates: i32,
    last_was_not_now: bool,
    wake_due_at: Option<Timestamp>,
    wake_attempts: i32,
    woken_at: Option<Timestamp>,
    wake_note: Option<String>,
});

row!(EscrowRow: Escrow in escrow key (enrollment_id, field) {
    enrollment_id: EnrollmentId,
    field: String,
    value: Vec<u8>,
    stored_at: Timestamp,
});

impl Tx<'_> {
    /// Site.
    pub fn channel_insert(&mut self, channel: &Channel) -> Result<(), StoreError> {
        self.in_site("channel_insert", |conn, site| {
            diesel::insert_into(channels::table).values(ChannelRow::of(site, channel)).run(conn)?;
            Ok(())
        })
    }

    /// Site. All but `last_seq`: a number once given out is never given out again (Q5).
    pub fn channel_update(&mut self, channel: &Channel) -> Result<(), StoreError> {
        self.in_site("channel_update", |conn, site| {
            let current = channel_row(conn, site, channel.id)?;
            let mut row = ChannelRow::of(site, channel);
            row.last_seq = current.last_seq;
            let target =
                channels::table.filter(channels::site_id.eq(site)).filter(channels::id.eq(channel.id.raw()));
            found(diesel::update(target).set(row).run(conn)?, "channel")
        })
    }

    /// Site.
    pub fn channel(&mut self, id: ChannelId) -> Result<Option<Channel>, StoreError> {
        self.in_site("channel", |conn, site| match channel_row(conn, site, id) {
            Ok(row) => row.record().map(Some),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(why) => Err(why),
        })
    }

    /// Site. `user_key` is empty for the device channel.
    pub fn channel_find(
        &mut self,
        enrollment: EnrollmentId,
        kind: ChannelKind,
        user_key: &str,
    ) -> Result<Option<Channel>, StoreError> {
        self.in_site("channel_find", |conn, site| {
            let row = native!(conn => channels::table
                .filter(channels::site_id.eq(site))
                .filter(channels::enrollment_id.eq(enrollment.raw()))
                .filter(channels::kind.eq(kind.raw()))
                .filter(channels::user_key.eq(user_key))
                .select(ChannelRow::as_select())
                .get_result(conn))
            .optional()?;
            row.map(ChannelRow::record).transpose()
        })
    }

    /// Site. The device channel first.
    pub fn channels(&mut self, enrollment: EnrollmentId) -> Result<Vec<Channel>, StoreError> {
        self.in_site("channels", |conn, site| {
            let rows: Vec<ChannelRow> = channels::table
                .filter(channels::site_id.eq(site))
                .filter(channels::enrollment_id.eq(enrollment.raw()))
                .order((channels::kind, channels::user_key))
                .select(ChannelRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Replaces the field's older value.
    pub fn escrow_put(&mut self, new: &Escrow) -> Result<(), StoreError> {
        self.in_site("escrow_put", |conn, site| {
            let target = escrow::table
                .filter(escrow::site_id.eq(site))
                .filter(escrow::enrollment_id.eq(new.enrollment_id.raw()))
                .filter(escrow::field.eq(&new.field));
            let rows = diesel::update(target)
                .set((escrow::value.eq(&new.value), escrow::stored_at.eq(new.stored_at.0)))
                .run(conn)?;
            if rows == 0 {
                diesel::insert_into(escrow::table).values(EscrowRow::of(site, new)).run(conn)?;
            }
            Ok(())
        })
    }

    /// Site.
    pub fn escrow(&mut self, enrollment: EnrollmentId, field: &str) -> Result<Option<Escrow>, StoreError> {
        self.in_site("escrow", |conn, site| {
            let row = escrow::table
                .filter(escrow::site_id.eq(site))
                .filter(escrow::enrollment_id.eq(enrollment.raw()))
                .filter(escrow::field.eq(field))
                .select(EscrowRow::as_select())
                .get_result(conn)
                .optional()?;
            row.map(EscrowRow::record).transpose()
        })
    }

    /// Site. By field.
    pub fn escrow_list(&mut self, enrollment: EnrollmentId) -> Result<Vec<Escrow>, StoreError> {
        self.in_site("escrow_list", |conn, site| {
            let rows: Vec<EscrowRow> = escrow::table
                .filter(escrow::site_id.eq(site))
                .filter(escrow::enrollment_id.eq(enrollment.raw()))
                .order(escrow::field)
                .select(EscrowRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Erases all; how many there were.
    pub fn escrow_clear(&mut self, enrollment: EnrollmentId) -> Result<i64, StoreError> {
        self.in_site("escrow_clear", |conn, site| {
            let target = escrow::table
                .filter(escrow::site_id.eq(site))
                .filter(escrow::enrollment_id.eq(enrollment.raw()));
            Ok(i64::try_from(diesel::delete(target).run(conn)?).unwrap_or(i64::MAX))
        })
    }
}

/// A channel that must exist.
pub(super) fn channel_row(conn: &mut Conn, site: &[u8], id: ChannelId) -> Result<ChannelRow, StoreError> {
    native!(conn => channels::table
        .filter(channels::site_id.eq(site))
        .filter(channels::id.eq(id.raw()))
        .select(ChannelRow::as_select())
        .get_result(conn))
    .optional()?
    .ok_or(StoreError::NotFound("channel"))
}
