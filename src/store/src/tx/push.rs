//! Push certificates, by topic.

use super::Tx;
use crate::StoreError;
use crate::backend::Run as _;
use crate::cell::{records, row};
use crate::records::PushCert;
use crate::schema::push_certs;
use bellwether_model::{SiteId, Timestamp};
use diesel::prelude::*;

row!(PushCertRow: PushCert in push_certs key (topic) {
    topic: String,
    certificate: String,
    key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    imported_at: Timestamp,
    version: i32,
});

impl Tx<'_> {
    /// Site. Stores or replaces the topic's certificate; `version` is counted here, the given one is ignored. The new
    /// version.
    pub fn push_cert_put(&mut self, cert: &PushCert) -> Result<i32, StoreError> {
        self.in_site("push_cert_put", |conn, site| {
            let target = || {
                push_certs::table
                    .filter(push_certs::site_id.eq(site))
                    .filter(push_certs::topic.eq(&cert.topic))
            };
            let known: Option<i32> = target().select(push_certs::version).get_result(conn).optional()?;
            let mut row = PushCertRow::of(site, cert);
            row.version = known.unwrap_or(0).saturating_add(1);
            let version = row.version;
            match known {
                Some(_) => diesel::update(target()).set(row).run(conn)?,
                None => diesel::insert_into(push_certs::table).values(row).run(conn)?,
            };
            Ok(version)
        })
    }

    /// Site. By topic.
    pub fn push_certs(&mut self) -> Result<Vec<PushCert>, StoreError> {
        self.in_site("push_certs", |conn, site| {
            let rows: Vec<PushCertRow> = push_certs::table
                .filter(push_certs::site_id.eq(site))
                .order(push_certs::topic)
                .select(PushCertRow::as_select())
                .load(conn)?;
            records!(rows)
        })
    }

    /// Site.
    pub fn push_cert(&mut self, topic: &str) -> Result<Option<PushCert>, StoreError> {
        self.in_site("push_cert", |conn, site| {
            let row = push_certs::table
                .filter(push_certs::site_id.eq(site))
                .filter(push_certs::topic.eq(topic))
                .select(PushCertRow::as_select())
                .first(conn)
                .optional()?;
            row.map(PushCertRow::record).transpose()
        })
    }

    /// System. Of all sites.
    pub fn all_push_certs(&mut self) -> Result<Vec<(SiteId, PushCert)>, StoreError> {
        self.in_system("all_push_certs", |conn| {
            let rows: Vec<PushCertRow> = push_certs::table
                .order((push_certs::site_id, push_certs::topic))
                .select(PushCertRow::as_select())
                .load(conn)?;
            rows.into_iter().map(PushCertRow::with_site).collect()
        })
    }
}
