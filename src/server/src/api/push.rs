//! `/push/apple`.

use super::views::PushCert;
use super::{Answer, Auth, Input, Query, SiteQuery, created, ok};
use crate::edge::Edge;
use actix_web::web;
use bellwether_engine::may;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

/// A push certificate to import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushCertWish {
    /// PEM, as Apple hands it out.
    certificate: String,
    /// PEM private key, not encrypted. Stored sealed, never shown again.
    key: String,
    /// Only for another topic than today's: how many enrolled devices will be lost.
    confirm_loss: Option<i64>,
}

/// Push certificates.
#[utoipa::path(get, path = "/api/v1/push/apple", operation_id = "listPushCertificates", tag = "push", params(SiteQuery),
    responses((status = 200, description = "Certificates", body = Vec<PushCert>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<SiteQuery>) -> Answer {
    let permit = auth.permit::<may::ReadPush>(&edge, query.0.site)?;
    ok(&edge.engine.push_certs(&permit).await?.into_iter().map(PushCert::from).collect::<Vec<_>>())
}

/// Imports a push certificate with its key. Another topic than the present one needs `confirm_loss`.
#[utoipa::path(post, path = "/api/v1/push/apple", operation_id = "importPushCertificate", tag = "push", params(SiteQuery),
    request_body = PushCertWish, responses((status = 201, description = "The certificate", body = PushCert)))]
pub async fn import(
    edge: web::Data<Edge>,
    auth: Auth,
    query: Query<SiteQuery>,
    input: Input<PushCertWish>,
) -> Answer {
    let permit = auth.permit::<may::WritePush>(&edge, query.0.site)?;
    let Input(PushCertWish { certificate, key, confirm_loss }) = input;
    let key = SecretString::from(key);
    created(&PushCert::from(edge.engine.import_push_cert(&permit, &certificate, key, confirm_loss).await?))
}
