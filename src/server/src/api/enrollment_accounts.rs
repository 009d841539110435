//! `/enrollment-accounts`.

use super::views::{EnrollmentAccount, NewEnrollmentAccount, Page};
use super::{Answer, Auth, Input, Nothing, PageQuery, Query, SiteQuery, created, ok};
use crate::edge::Edge;
use actix_web::web;
use bellwether_engine::{self as engine, may};
use bellwether_model::time::SECOND;
use bellwether_model::{EnrollmentAccountId, Ownership, Platform};
use serde::Deserialize;
use utoipa::ToSchema;

/// A wish for an account with which several devices may enroll.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollmentAccountWish {
    /// `windows`.
    #[schema(value_type = String)]
    platform: Platform,
    /// What is typed as the user's name: 1 to 64 printable characters.
    name: String,
    /// E-mail address or login name of the person whose devices they will be.
    account: Option<String>,
    /// Most devices that may enroll, 1 to 10000.
    cap: i32,
    /// 300 (5 minutes) to 31536000 (365 days).
    expires_in_seconds: i64,
    /// `company`, `personal`, `unknown`.
    #[schema(value_type = Option<String>)]
    ownership: Option<Ownership>,
}

/// Accounts, newest first.
#[utoipa::path(get, path = "/api/v1/enrollment-accounts", operation_id = "listEnrollmentAccounts",
    tag = "enrollment-accounts", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<EnrollmentAccount>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<PageQuery>) -> Answer {
    let permit = auth.permit::<may::ReadInvitations>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    ok(&Page::<EnrollmentAccount>::of(edge.engine.enrollment_accounts(&permit, cursor, limit).await?))
}

/// Makes an account. Its password is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/enrollment-accounts", operation_id = "createEnrollmentAccount",
    tag = "enrollment-accounts", params(SiteQuery), request_body = EnrollmentAccountWish,
    responses((status = 201, description = "The account", body = NewEnrollmentAccount)))]
pub async fn create(
    edge: web::Data<Edge>,
    auth: Auth,
    query: Query<SiteQuery>,
    input: Input<EnrollmentAccountWish>,
) -> Answer {
    let permit = auth.permit::<may::WriteInvitations>(&edge, query.0.site)?;
    let Input(wish) = input;
    let wish = engine::NewEnrollmentAccount {
        platform: wish.platform,
        name: wish.name,
        account: wish.account,
        cap: wish.cap,
        expires_in: wish.expires_in_seconds.saturating_mul(SECOND),
        ownership: wish.ownership.unwrap_or(Ownership::Company),
    };
    created(&NewEnrollmentAccount::from(edge.engine.create_enrollment_account(&permit, wish).await?))
}

/// Takes an account back. No further device enrolls with it; devices that did stay.
#[utoipa::path(delete, path = "/api/v1/enrollment-accounts/{id}", operation_id = "revokeEnrollmentAccount",
    tag = "enrollment-accounts", params(("id" = uuid::Uuid, Path, description = "The account"), SiteQuery),
    responses((status = 200, description = "The account, revoked", body = EnrollmentAccount)))]
pub async fn revoke(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<EnrollmentAccountId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let permit = auth.permit::<may::WriteInvitations>(&edge, query.0.site)?;
    ok(&EnrollmentAccount::from(edge.engine.revoke_enrollment_account(&permit, id.into_inner()).await?))
}
