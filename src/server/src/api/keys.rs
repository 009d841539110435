//! `/setup` and `/keys`.

use super::views::{Key, NewKey};
use super::{Answer, Auth, Input, Nothing, Query, SiteQuery, created, done, ok};
use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::{HttpRequest, web};
use bellwether_engine::may;
use bellwether_model::ApiKeyId;
use bellwether_model::permit::Grants;
use bellwether_model::time::DAY;
use serde::Deserialize;
use utoipa::ToSchema;

const DEFAULT_DAYS: i64 = 90;
const MAX_DAYS: i64 = 366;

/// What the first caller sends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The one-time token that the server printed.
    token: String,
    /// A name for the first key.
    name: String,
}

/// A wish for a key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyWish {
    /// A name, so that people can tell keys apart.
    name: String,
    /// `ACTION@server` or `ACTION@SITE-ID`; nothing that the caller's own key does not have.
    #[schema(value_type = Vec<String>)]
    grants: Grants,
    /// 1 to 366; 90 without it.
    expires_in_days: Option<i64>,
}

/// Spends the setup token for the first API key, which may do everything.
#[utoipa::path(post, path = "/api/v1/setup", operation_id = "setUp", tag = "keys", security(()), request_body = Setup,
    responses((status = 201, description = "The first key", body = NewKey)))]
pub async fn setup(edge: web::Data<Edge>, req: HttpRequest, input: Input<Setup>) -> Answer {
    let Input(setup) = input;
    let source = edge.source(&req);
    created(&NewKey::from(edge.engine.redeem_setup_token(&setup.token, &setup.name, source).await?))
}

/// All keys, without their secrets.
#[utoipa::path(get, path = "/api/v1/keys", operation_id = "listKeys", tag = "keys", params(SiteQuery),
    responses((status = 200, description = "Keys", body = Vec<Key>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<SiteQuery>) -> Answer {
    let permit = auth.permit::<may::WriteKeys>(&edge, query.0.site)?;
    ok(&edge.engine.keys(&permit).await?.into_iter().map(Key::from).collect::<Vec<_>>())
}

/// Mints a key. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/keys", operation_id = "createKey", tag = "keys", params(SiteQuery), request_body = KeyWish,
    responses((status = 201, description = "The key", body = NewKey)))]
pub async fn create(
    edge: web::Data<Edge>,
    auth: Auth,
    query: Query<SiteQuery>,
    input: Input<KeyWish>,
) -> Answer {
    let permit = auth.permit::<may::WriteKeys>(&edge, query.0.site)?;
    let Input(wish) = input;
    let days = wish.expires_in_days.unwrap_or(DEFAULT_DAYS);
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(Problem::invalid(format!("expires_in_days is between 1 and {MAX_DAYS}")));
    }
    let key = edge.engine.create_key(&permit, &auth.0, &wish.name, wish.grants, days * DAY).await?;
    created(&NewKey::from(key))
}

/// Takes a key back, at once.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", operation_id = "revokeKey", tag = "keys",
    params(("id" = uuid::Uuid, Path, description = "The key"), SiteQuery), responses((status = 204, description = "Revoked")))]
pub async fn revoke(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<ApiKeyId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let permit = auth.permit::<may::WriteKeys>(&edge, query.0.site)?;
    edge.engine.revoke_key(&permit, id.into_inner()).await?;
    done()
}
