//! `/devices` and `/enrollments`.

use super::input::page;
use super::views::{Certificate, Device, DeviceDetail, Page};
use super::{Answer, Auth, Input, Nothing, PageQuery, Query, SiteQuery, done, ok};
use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::web;
use bellwether_engine::may;
use bellwether_model::{DeviceId, EnrollmentId, EnrollmentState, Platform, SiteId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// Which devices.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DevicesQuery {
    /// The site's id; without it the default site.
    #[param(value_type = Option<uuid::Uuid>)]
    site: Option<SiteId>,
    /// Part of a name, serial number or hardware id.
    search: Option<String>,
    /// `apple`, `windows`, `android`.
    #[param(value_type = Option<String>)]
    platform: Option<Platform>,
    /// State of the newest enrollment: `pending`, `active`, `unproven`, `ended`.
    #[param(value_type = Option<String>)]
    state: Option<EnrollmentState>,
    /// Rows of a page: 1 to 500, 50 without it.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Why an enrollment is ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndWish {
    /// For the audit.
    reason: Option<String>,
}

/// The device that somebody wants to do something to: exactly its id, serial number or hardware id. A part of a name
/// is good enough for looking, not for wiping.
pub async fn find(edge: &Edge, auth: &Auth, site: Option<SiteId>, name: &str) -> Result<DeviceId, Problem> {
    let permit = match auth.permit::<may::ReadDevices>(edge, site) {
        Ok(permit) => permit,
        // Who may not look devices up can still name one by its id.
        Err(denied) => return name.parse().map_err(|_| denied),
    };
    let id = edge.engine.find_device(&permit, name).await?;
    let device = edge.engine.device(&permit, id).await?.device;
    let same = |text: &str| text.eq_ignore_ascii_case(name);
    if same(&id.to_string()) || same(&device.hardware_id) || device.serial.as_deref().is_some_and(same) {
        return Ok(id);
    }
    Err(Problem::not_found("no device has exactly this id, serial number or hardware id"))
}

/// Devices.
#[utoipa::path(get, path = "/api/v1/devices", operation_id = "listDevices", tag = "devices", params(DevicesQuery),
    responses((status = 200, description = "A page", body = Page<Device>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<DevicesQuery>) -> Answer {
    let Query(query) = query;
    let permit = auth.permit::<may::ReadDevices>(&edge, query.site)?;
    let (cursor, limit) = page(query.cursor.as_deref(), query.limit)?;
    let found =
        edge.engine.devices(&permit, query.search, query.platform, query.state, cursor, limit).await?;
    ok(&Page::<Device>::of(found))
}

/// A device with enrollments, channels and facts.
#[utoipa::path(get, path = "/api/v1/devices/{device}", operation_id = "getDevice", tag = "devices",
    params(("device" = String, Path, description = "Id, serial number or hardware id"), SiteQuery),
    responses((status = 200, description = "The device", body = DeviceDetail)))]
pub async fn show(
    edge: web::Data<Edge>,
    auth: Auth,
    device: web::Path<String>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    let device = edge.engine.find_device(&permit, &device).await?;
    ok(&DeviceDetail::from(edge.engine.device(&permit, device).await?))
}

/// Certificates that a device got for use elsewhere, in all its enrollments, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{device}/certificates", operation_id = "listDeviceCertificates",
    tag = "devices",
    params(("device" = String, Path, description = "Id, serial number or hardware id"), PageQuery),
    responses((status = 200, description = "A page", body = Page<Certificate>)))]
pub async fn certificates(
    edge: web::Data<Edge>,
    auth: Auth,
    device: web::Path<String>,
    query: Query<PageQuery>,
) -> Answer {
    let permit = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    let device = edge.engine.find_device(&permit, &device).await?;
    ok(&Page::<Certificate>::of(edge.engine.certificates_of_device(&permit, device, cursor, limit).await?))
}

/// Ends the newest enrollment of a device without telling the device: from now on it is refused.
#[utoipa::path(delete, path = "/api/v1/devices/{device}/enrollment", operation_id = "endEnrollment", tag = "devices",
    params(("device" = String, Path, description = "Id, serial number or hardware id"), SiteQuery),
    request_body(content = EndWish, description = "Optional"), responses((status = 204, description = "Ended")))]
pub async fn end(
    edge: web::Data<Edge>,
    auth: Auth,
    device: web::Path<String>,
    query: Query<SiteQuery>,
    input: Input<EndWish>,
) -> Answer {
    let write = auth.permit::<may::WriteDevices>(&edge, query.0.site)?;
    let read = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    let device = find(&edge, &auth, query.0.site, &device).await?;
    let newest = edge.engine.device(&read, device).await?.device.enrollment;
    let enrollment = newest.ok_or_else(|| Problem::conflict("this device has no enrollment"))?;
    let reason = input.0.reason.unwrap_or_else(|| "ended by an administrator".to_owned());
    if reason.chars().count() > 500 {
        return Err(Problem::invalid("a reason has at most 500 characters"));
    }
    edge.engine.end_enrollment(&write, enrollment.id, &reason).await?;
    done()
}

/// Lets an unproven enrollment in: the person is known, the device is the one it claims to be.
#[utoipa::path(post, path = "/api/v1/enrollments/{id}/approve", operation_id = "approveEnrollment", tag = "devices",
    params(("id" = uuid::Uuid, Path, description = "The enrollment"), SiteQuery),
    responses((status = 204, description = "Approved")))]
pub async fn approve(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<EnrollmentId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let permit = auth.permit::<may::WriteDevices>(&edge, query.0.site)?;
    edge.engine.approve_enrollment(&permit, id.into_inner()).await?;
    done()
}
