//! `/invitations`.

use super::views::{Invitation, NewInvitation, Page};
use super::{Answer, Auth, IdempotencyKey, Input, Nothing, PageQuery, Query, SiteQuery, created, ok};
use crate::edge::Edge;
use actix_web::web;
use bellwether_engine::{self as engine, may};
use bellwether_model::time::SECOND;
use bellwether_model::{DeviceId, InvitationId, Ownership, Platform};
use serde::Deserialize;
use utoipa::ToSchema;

/// A wish for an invitation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationWish {
    /// `apple`, `windows`.
    #[schema(value_type = String)]
    platform: Platform,
    /// E-mail address or login name of the person.
    account: Option<String>,
    /// The person's name.
    name: Option<String>,
    /// Only this device may use it.
    #[schema(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
    /// 300 (5 minutes) to 2592000 (30 days); a day without it, an hour with a short code.
    expires_in_seconds: Option<i64>,
    /// Also make a code to type, valid for at most an hour.
    #[serde(default)]
    short_code: bool,
    /// Enroll without push: for tests only, the device can never be woken.
    #[serde(default)]
    test_only: bool,
    /// Hand out unsigned profiles.
    #[serde(default)]
    unsigned: bool,
    /// `company`, `personal`, `unknown`.
    #[schema(value_type = Option<String>)]
    ownership: Option<Ownership>,
}

/// Invitations, newest first.
#[utoipa::path(get, path = "/api/v1/invitations", operation_id = "listInvitations", tag = "invitations", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<Invitation>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<PageQuery>) -> Answer {
    let permit = auth.permit::<may::ReadInvitations>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    ok(&Page::<Invitation>::of(edge.engine.invitations(&permit, cursor, limit).await?))
}

/// Makes an invitation. Link and code are in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/invitations", operation_id = "createInvitation", tag = "invitations",
    params(SiteQuery, ("Idempotency-Key" = Option<String>, Header, description = "The same key never makes a second one")),
    request_body = InvitationWish, responses((status = 201, description = "The invitation", body = NewInvitation)))]
pub async fn create(
    edge: web::Data<Edge>,
    auth: Auth,
    query: Query<SiteQuery>,
    key: IdempotencyKey,
    input: Input<InvitationWish>,
) -> Answer {
    let permit = auth.permit::<may::WriteInvitations>(&edge, query.0.site)?;
    let Input(wish) = input;
    let wish = engine::NewInvitation {
        platform: wish.platform,
        account: wish.account,
        name: wish.name,
        device_id: wish.device_id,
        expires_in: wish.expires_in_seconds.map(|seconds| seconds.saturating_mul(SECOND)),
        short_code: wish.short_code,
        test_only: wish.test_only,
        unsigned: wish.unsigned,
        ownership: wish.ownership.unwrap_or(Ownership::Unknown),
    };
    created(&NewInvitation::from(edge.engine.create_invitation_once(&permit, wish, key.0.as_deref()).await?))
}

/// One invitation.
#[utoipa::path(get, path = "/api/v1/invitations/{id}", operation_id = "getInvitation", tag = "invitations",
    params(("id" = uuid::Uuid, Path, description = "The invitation"), SiteQuery),
    responses((status = 200, description = "The invitation", body = Invitation)))]
pub async fn show(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<InvitationId>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::ReadInvitations>(&edge, query.0.site)?;
    ok(&Invitation::from(edge.engine.invitation(&permit, id.into_inner()).await?))
}

/// Takes an invitation back. Whoever has its link is refused from now on.
#[utoipa::path(delete, path = "/api/v1/invitations/{id}", operation_id = "revokeInvitation", tag = "invitations",
    params(("id" = uuid::Uuid, Path, description = "The invitation"), SiteQuery),
    responses((status = 200, description = "The invitation, revoked", body = Invitation)))]
pub async fn revoke(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<InvitationId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let permit = auth.permit::<may::WriteInvitations>(&edge, query.0.site)?;
    ok(&Invitation::from(edge.engine.revoke_invitation(&permit, id.into_inner()).await?))
}
