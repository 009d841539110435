//! Audit entries and outbox events: inserted unsequenced with the business change (Q13), sequenced by the sealer.

use super::Tx;
use crate::StoreError;
use crate::backend::{Conn, Run as _};
use crate::cell::{Cell, records, row};
use crate::records::{AuditEntry, Checkpoint, Event};
use crate::schema::{audit, audit_checkpoints, events};
use bellwether_model::{AuditId, EventId, EventKind, SiteId, Timestamp};
use diesel::prelude::*;
use std::collections::BTreeSet;

row!(AuditRow: AuditEntry in audit key (id) {
    id: AuditId,
    at: Timestamp,
    actor: String,
    kind: EventKind,
    target: String,
    source: Option<String>,
    details_digest: Vec<u8>,
    details: Option<String>,
    position: Option<i64>,
    chain: Option<Vec<u8>>,
});

row!(CheckpointRow: Checkpoint in audit_checkpoints key (position) {
    position: i64,
    chain: Vec<u8>,
    at: Timestamp,
    signature: Vec<u8>,
});

row!(EventRow: Event in events key (id) {
    id: EventId,
    at: Timestamp,
    kind: EventKind,
    subject: String,
    data: String,
    position: Option<i64>,
});

impl Tx<'_> {
    /// Site. Takes no lock; the sealer gives it a position.
    pub fn audit_append(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.in_site("audit_append", |conn, site| append_audit(conn, site, entry))
    }

    /// System, or the same site. Entries about the whole server stand in the default site's chain.
    pub fn audit_append_in(&mut self, site: SiteId, entry: &AuditEntry) -> Result<(), StoreError> {
        self.in_named_site("audit_append_in", site, |conn, site| append_audit(conn, site, entry))
    }

    /// Site. Takes no lock; the sealer gives it a position.
    pub fn event_append(&mut self, event: &Event) -> Result<(), StoreError> {
        self.in_site("event_append", |conn, site| append_event(conn, site, event))
    }

    /// System, or the same site.
    pub fn event_append_in(&mut self, site: SiteId, event: &Event) -> Result<(), StoreError> {
        self.in_named_site("event_append_in", site, |conn, site| append_event(conn, site, event))
    }

    /// System. Sites where the sealer has work.
    pub fn unsealed_sites(&mut self) -> Result<Vec<SiteId>, StoreError> {
        self.in_system("unsealed_sites", |conn| {
            let mut sites: BTreeSet<Vec<u8>> = BTreeSet::new();
            let of_audit = audit::table.filter(audit::position.is_null()).select(audit::site_id).distinct();
            let of_events =
                events::table.filter(events::position.is_null()).select(events::site_id).distinct();
            sites.extend(of_audit.load::<Vec<u8>>(conn)?);
            sites.extend(of_events.load::<Vec<u8>>(conn)?);
            sites.into_iter().map(SiteId::cooked).collect()
        })
    }

    /// Site. Entries without a position, by id.
    pub fn unsealed_audit(&mut self, limit: i64) -> Result<Vec<AuditEntry>, StoreError> {
        self.in_site("unsealed_audit", |conn, site| {
            let rows: Vec<AuditRow> = audit::table
                .filter(audit::site_id.eq(site))
                .filter(audit::position.is_null())
                .order(audit::id)
                .limit(limit)
                .select(AuditRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. For the offline verifier: how many entries no chain covers yet.
    pub fn unsealed_audit_count(&mut self) -> Result<i64, StoreError> {
        self.in_site("unsealed_audit_count", |conn, site| {
            let unsealed = audit::table.filter(audit::site_id.eq(site)).filter(audit::position.is_null());
            Ok(unsealed.count().get_result(conn)?)
        })
    }

    /// Site. The last position and its chain value; `None` for an empty chain.
    pub fn audit_head(&mut self) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
        self.in_site("audit_head", audit_head)
    }

    /// Site. Gives entries their positions. `false`: the chain's head (0 when empty) is not the expected one, another
    /// sealer was here; nothing is changed.
    pub fn audit_seal(
        &mut self,
        expected_head: i64,
        sealed: &[(AuditId, i64, Vec<u8>)],
    ) -> Result<bool, StoreError> {
        self.in_site("audit_seal", |conn, site| {
            if audit_head(conn, site)?.map_or(0, |(position, _)| position) != expected_head {
                return Ok(false);
            }
            for (id, position, chain) in sealed {
                let target = audit::table
                    .filter(audit::site_id.eq(site))
                    .filter(audit::id.eq(id.raw()))
                    .filter(audit::position.is_null());
                let rows = diesel::update(target)
                    .set((audit::position.eq(*position), audit::chain.eq(chain)))
                    .run(conn)?;
                if rows != 1 {
                    return Err(StoreError::Conflict("audit_sealed_once".to_owned()));
                }
            }
            Ok(true)
        })
    }

    /// Site. Events without a position, by id.
    pub fn unsealed_events(&mut self, limit: i64) -> Result<Vec<Event>, StoreError> {
        self.in_site("unsealed_events", |conn, site| {
            let rows: Vec<EventRow> = events::table
                .filter(events::site_id.eq(site))
                .filter(events::position.is_null())
                .order(events::id)
                .limit(limit)
                .select(EventRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. The last position; 0 when nothing is sealed.
    pub fn event_head(&mut self) -> Result<i64, StoreError> {
        self.in_site("event_head", event_head)
    }

    /// Site. As [`Tx::audit_seal`], without a chain.
    pub fn event_seal(&mut self, expected_head: i64, sealed: &[(EventId, i64)]) -> Result<bool, StoreError> {
        self.in_site("event_seal", |conn, site| {
            if event_head(conn, site)? != expected_head {
                return Ok(false);
            }
            for (id, position) in sealed {
                let target = events::table
                    .filter(events::site_id.eq(site))
                    .filter(events::id.eq(id.raw()))
                    .filter(events::position.is_null());
                if diesel::update(target).set(events::position.eq(*position)).run(conn)? != 1 {
                    return Err(StoreError::Conflict("events_sealed_once".to_owned()));
                }
            }
            Ok(true)
        })
    }

    /// Site. A signed statement about the head.
    pub fn checkpoint_insert(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.in_site("checkpoint_insert", |conn, site| {
            diesel::insert_into(audit_checkpoints::table)
                .values(CheckpointRow::of(site, checkpoint))
                .run(conn)?;
            Ok(())
        })
    }

    /// Site. By position.
    pub fn checkpoints(&mut self) -> Result<Vec<Checkpoint>, StoreError> {
        self.in_site("checkpoints", |conn, site| {
            let rows: Vec<CheckpointRow> = audit_checkpoints::table
                .filter(audit_checkpoints::site_id.eq(site))
                .order(audit_checkpoints::position)
                .select(CheckpointRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Sealed entries after a position (0: from the first), ascending.
    pub fn audit(&mut self, after: i64, limit: i64) -> Result<Vec<AuditEntry>, StoreError> {
        self.in_site("audit", |conn, site| {
            let rows: Vec<AuditRow> = audit::table
                .filter(audit::site_id.eq(site))
                .filter(audit::position.gt(after))
                .order(audit::position)
                .limit(limit.clamp(1, 1_000))
                .select(AuditRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Sealed entries before a position (`None`: from the newest), descending.
    pub fn audit_newest(&mut self, before: Option<i64>, limit: i64) -> Result<Vec<AuditEntry>, StoreError> {
        self.in_site("audit_newest", |conn, site| {
            let rows: Vec<AuditRow> = audit::table
                .filter(audit::site_id.eq(site))
                .filter(audit::position.lt(before.unwrap_or(i64::MAX)))
                .order(audit::position.desc())
                .limit(limit.clamp(1, 1_000))
                .select(AuditRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Sealed events after a position (0: from the first), ascending.
    pub fn events(&mut self, after: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
        self.in_site("events", |conn, site| {
            let rows: Vec<EventRow> = events::table
                .filter(events::site_id.eq(site))
                .filter(events::position.gt(after))
                .order(events::position)
                .limit(limit.clamp(1, 1_000))
                .select(EventRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }
}

fn append_audit(conn: &mut Conn, site: &[u8], entry: &AuditEntry) -> Result<(), StoreError> {
    if entry.position.is_some() || entry.chain.is_some() {
        return Err(StoreError::Misuse("only the sealer gives audit entries a position"));
    }
    diesel::insert_into(audit::table).values(AuditRow::of(site, entry)).run(conn)?;
    Ok(())
}

fn append_event(conn: &mut Conn, site: &[u8], event: &Event) -> Result<(), StoreError> {
    if event.position.is_some() {
        return Err(StoreError::Misuse("only the sealer gives events a position"));
    }
    diesel::insert_into(events::table).values(EventRow::of(site, event)).run(conn)?;
    Ok(())
}

fn audit_head(conn: &mut Conn, site: &[u8]) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let head: Option<(Option<i64>, Option<Vec<u8>>)> = audit::table
        .filter(audit::site_id.eq(site))
        .filter(audit::position.is_not_null())
        .order(audit::position.desc())
        .select((audit::position, audit::chain))
        .first(conn)
        .optional()?;
    Ok(head.and_then(|(position, chain)| Some((position?, chain?))))
}

fn event_head(conn: &mut Conn, site: &[u8]) -> Result<i64, StoreError> {
    let head: Option<Option<i64>> = events::table
        .filter(events::site_id.eq(site))
        .filter(events::position.is_not_null())
        .order(events::position.desc())
        .select(events::position)
        .first(conn)
        .optional()?;
    Ok(head.flatten().unwrap_or(0))
}
