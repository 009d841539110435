//! Idempotency, rate limits and leases: small server-wide tables.

use super::Tx;
use crate::StoreError;
use crate::backend::Run as _;
use crate::backend::{Conn, postgres};
use crate::records::Idempotent;
use crate::schema::{idempotency, leases, rates};
use bellwether_model::Timestamp;
use diesel::prelude::*;

type Row = (Vec<u8>, Vec<u8>, i32, Vec<u8>, i64);

impl Tx<'_> {
    /// Any scope. The stored answer to a request (Q2). The key's hash covers the actor, so a site cannot ask for
    /// another's.
    pub fn idempotent(&mut self, key_hash: &[u8]) -> Result<Option<Idempotent>, StoreError> {
        self.run(|conn| stored_answer(conn, key_hash))
    }

    /// Any scope, since it belongs into the business transaction (Q2). `Some`: an answer was stored already, this one
    /// was not; whoever gets it rolls back.
    pub fn idempotent_put(&mut self, row: &Idempotent) -> Result<Option<Idempotent>, StoreError> {
        self.run(|conn| {
            if let Some(known) = stored_answer(conn, &row.key_hash)? {
                return Ok(Some(known));
            }
            diesel::insert_into(idempotency::table)
                .values((
                    idempotency::key_hash.eq(&row.key_hash),
                    idempotency::request_hash.eq(&row.request_hash),
                    idempotency::status.eq(row.status),
                    idempotency::body.eq(&row.body),
                    idempotency::created_at.eq(row.created_at.0),
                ))
                .run(conn)?;
            Ok(None)
        })
    }

    /// System. Forgets answers stored before; how many.
    pub fn idempotent_purge(&mut self, before: Timestamp) -> Result<i64, StoreError> {
        self.in_system("idempotent_purge", |conn| {
            let rows =
                diesel::delete(idempotency::table.filter(idempotency::created_at.lt(before.0))).run(conn)?;
            Ok(i64::try_from(rows).unwrap_or(i64::MAX))
        })
    }

    /// Any scope. Counts one use in a fixed window; the count within it, this use included.
    pub fn rate_bump(&mut self, bucket: &str, now: Timestamp, window_ms: i64) -> Result<i32, StoreError> {
        self.run(|conn| {
            let target = || rates::table.filter(rates::bucket.eq(bucket));
            let known: Option<(i64, i32)> =
                target().select((rates::window_start, rates::count)).get_result(conn).optional()?;
            match known {
                Some((start, count)) if is_open(start, now, window_ms) => {
                    let count = count.saturating_add(1);
                    diesel::update(target()).set(rates::count.eq(count)).run(conn)?;
                    Ok(count)
                }
                Some(_) => {
                    diesel::update(target())
                        .set((rates::window_start.eq(now.0), rates::count.eq(1)))
                        .run(conn)?;
                    Ok(1)
                }
                None => {
                    diesel::insert_into(rates::table)
                        .values((rates::bucket.eq(bucket), rates::window_start.eq(now.0), rates::count.eq(1)))
                        .run(conn)?;
                    Ok(1)
                }
            }
        })
    }

    /// Any scope. How often a bucket was counted in the window that runs now; counts nothing itself.
    pub fn rate_count(&mut self, bucket: &str, now: Timestamp, window_ms: i64) -> Result<i32, StoreError> {
        self.run(|conn| {
            let known: Option<(i64, i32)> = rates::table
                .filter(rates::bucket.eq(bucket))
                .select((rates::window_start, rates::count))
                .get_result(conn)
                .optional()?;
            Ok(match known {
                Some((start, count)) if is_open(start, now, window_ms) => count,
                _ => 0,
            })
        })
    }

    /// System. Forgets windows that began before; how many.
    pub fn rate_purge(&mut self, before: Timestamp) -> Result<i64, StoreError> {
        self.in_system("rate_purge", |conn| {
            let rows = diesel::delete(rates::table.filter(rates::window_start.lt(before.0))).run(conn)?;
            Ok(i64::try_from(rows).unwrap_or(i64::MAX))
        })
    }

    /// System. Whether the holder has the lease from now on; asking again prolongs it. On PostgreSQL, where several
    /// processes ask, the database's clock counts and `now` is ignored.
    pub fn lease_acquire(
        &mut self,
        name: &str,
        holder: &str,
        ttl_ms: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.in_system("lease_acquire", |conn| {
            let now = match conn {
                Conn::Postgres(pg) => postgres::database_time(pg)?,
                Conn::Sqlite(_) => now,
            };
            let until = now.plus(ttl_ms).0;
            let target = || leases::table.filter(leases::name.eq(name));
            let known: Option<(String, i64)> =
                target().select((leases::holder, leases::expires_at)).get_result(conn).optional()?;
            match known {
                // A lease that ends later than one of now would was taken before the clock was set back: it is over.
                Some((owner, expires_at)) if owner != holder && expires_at > now.0 && expires_at <= until => {
                    Ok(false)
                }
                Some(_) => {
                    diesel::update(target())
                        .set((leases::holder.eq(holder), leases::expires_at.eq(until)))
                        .run(conn)?;
                    Ok(true)
                }
                None => {
                    diesel::insert_into(leases::table)
                        .values((
                            leases::name.eq(name),
                            leases::holder.eq(holder),
                            leases::expires_at.eq(until),
                        ))
                        .run(conn)?;
                    Ok(true)
                }
            }
        })
    }

    /// System. Gives a lease back; somebody else's stays.
    pub fn lease_release(&mut self, name: &str, holder: &str) -> Result<(), StoreError> {
        self.in_system("lease_release", |conn| {
            let target = leases::table.filter(leases::name.eq(name)).filter(leases::holder.eq(holder));
            diesel::delete(target).run(conn)?;
            Ok(())
        })
    }
}

/// Whether a counter's window runs. One that begins in the future was opened by a node whose clock is ahead of ours, and
/// counts: else whoever asks two nodes by turns would begin anew each time. One that begins further ahead than it lasts
/// was opened before the clock was set back, and is over.
fn is_open(start: i64, now: Timestamp, window_ms: i64) -> bool {
    now.0.saturating_sub(start).saturating_abs() < window_ms
}

fn stored_answer(conn: &mut Conn, key_hash: &[u8]) -> Result<Option<Idempotent>, StoreError> {
    let row: Option<Row> =
        idempotency::table.filter(idempotency::key_hash.eq(key_hash)).get_result(conn).optional()?;
    Ok(row.map(|(key_hash, request_hash, status, body, created_at)| Idempotent {
        key_hash,
        request_hash,
        status,
        body,
        created_at: Timestamp(created_at),
    }))
}
