//! One admin action on many devices, worked off in chunks.

use super::{Tx, before, found, limit};
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::{Cell, records, row};
use crate::records::{Job, Page};
use crate::schema::jobs;
use bellwether_model::{JobId, SiteId, Timestamp};
use diesel::prelude::*;
use std::collections::BTreeMap;

/// So many unfinished jobs are looked at; what is beyond waits until some of them are done.
const MOST_OPEN: i64 = 4_096;

row!(JobRow: Job in jobs key (id) {
    id: JobId,
    kind: String,
    intent: Vec<u8>,
    targets: Vec<u8>,
    done: i32,
    refused: i32,
    created_at: Timestamp,
    created_by: String,
    finished_at: Option<Timestamp>,
});

impl Tx<'_> {
    /// Site.
    pub fn job_insert(&mut self, job: &Job) -> Result<(), StoreError> {
        self.in_site("job_insert", |conn, site| {
            diesel::insert_into(jobs::table).values(JobRow::of(site, job)).run(conn)?;
            Ok(())
        })
    }

    /// Site.
    pub fn job(&mut self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.in_site("job", |conn, site| {
            let row = jobs::table
                .filter(jobs::site_id.eq(site))
                .filter(jobs::id.eq(id.raw()))
                .select(JobRow::as_select())
                .first(conn)
                .optional()?;
            row.map(JobRow::record).transpose()
        })
    }

    /// Site. Newest first; `after` is the last id of the page before.
    pub fn jobs(&mut self, page: &Page) -> Result<Vec<Job>, StoreError> {
        self.in_site("jobs", |conn, site| {
            let rows: Vec<JobRow> = jobs::table
                .filter(jobs::site_id.eq(site))
                .filter(jobs::id.lt(before(page)))
                .order(jobs::id.desc())
                .limit(limit(page))
                .select(JobRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site. Moves a job's counters, in the transaction that made the commands they count.
    pub fn job_progress(
        &mut self,
        id: JobId,
        done: i32,
        refused: i32,
        finished_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.in_site("job_progress", |conn, site| {
            let target = jobs::table.filter(jobs::site_id.eq(site)).filter(jobs::id.eq(id.raw()));
            let rows = diesel::update(target)
                .set((
                    jobs::done.eq(done),
                    jobs::refused.eq(refused),
                    jobs::finished_at.eq(finished_at.raw()),
                ))
                .run(conn)?;
            found(rows, "job")
        })
    }

    /// System. Unfinished jobs whose turn is next. One of each site comes before anybody's second, and the job that got
    /// least so far before one that got more: neither a site with many jobs nor a large job keeps others waiting (Q16).
    pub fn jobs_open(&mut self, limit: i64) -> Result<Vec<(SiteId, Job)>, StoreError> {
        self.in_system("jobs_open", |conn| {
            let open: Vec<(Vec<u8>, Vec<u8>)> = jobs::table
                .filter(jobs::finished_at.is_null())
                .order((jobs::done, jobs::id))
                .limit(MOST_OPEN)
                .select((jobs::site_id, jobs::id))
                .load(conn)?;
            let mut turns: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            let mut line: Vec<(usize, Vec<u8>, Vec<u8>)> = Vec::new();
            for (site, id) in open {
                let turn = turns.entry(site.clone()).or_default();
                line.push((*turn, site, id));
                *turn += 1;
            }
            // Stable: within one turn the order stays.
            line.sort_by_key(|(turn, _, _)| *turn);
            let mut next = Vec::new();
            for (_, site, id) in line.into_iter().take(usize::try_from(limit).unwrap_or_default()) {
                // By key, one by one: a job may name a hundred thousand devices.
                let row: Option<JobRow> = jobs::table
                    .filter(jobs::site_id.eq(&site))
                    .filter(jobs::id.eq(&id))
                    .select(JobRow::as_select())
                    .first(conn)
                    .optional()?;
                next.extend(row.map(JobRow::with_site).transpose()?);
            }
            Ok(next)
        })
    }
}
