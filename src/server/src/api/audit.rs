//! `/audit` and `/events`.

use super::views::{AuditEntry, AuditReport, Event, Page};
use super::{Answer, Auth, PageQuery, Query, SiteQuery, ok};
use crate::edge::Edge;
use actix_web::web;
use bellwether_engine::may;

/// Sealed audit entries.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "listAudit", tag = "audit", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<AuditEntry>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<PageQuery>) -> Answer {
    let permit = auth.permit::<may::ReadAudit>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    ok(&Page::<AuditEntry>::of(edge.engine.audit(&permit, cursor, limit).await?))
}

/// Recomputes the chain and checks every checkpoint. A server that was taken over can lie here: `bellwether audit
/// verify` does the same on the data folder.
#[utoipa::path(get, path = "/api/v1/audit/verify", operation_id = "verifyAudit", tag = "audit", params(SiteQuery),
    responses((status = 200, description = "The finding", body = AuditReport)))]
pub async fn verify(edge: web::Data<Edge>, auth: Auth, query: Query<SiteQuery>) -> Answer {
    let permit = auth.permit::<may::ReadAudit>(&edge, query.0.site)?;
    ok(&AuditReport::from(edge.engine.audit_verify(&permit).await?))
}

/// Events of the outbox, oldest first.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "listEvents", tag = "audit", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<Event>)))]
pub async fn events(edge: web::Data<Edge>, auth: Auth, query: Query<PageQuery>) -> Answer {
    let permit = auth.permit::<may::ReadAudit>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    ok(&Page::<Event>::of(edge.engine.events(&permit, cursor, limit).await?))
}
