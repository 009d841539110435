//! `/packages`.

use super::views::{Package, Page};
use super::{Answer, Auth, Input, Nothing, PageQuery, Query, SiteQuery, created, ok};
use crate::body;
use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bellwether_engine::{self as engine, may};
use bellwether_model::{PackageId, PackageKind, SiteId};
use serde::Deserialize;

/// What is said about a file that is uploaded.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// The site's id; without it the default site.
    #[param(value_type = Option<uuid::Uuid>)]
    site: Option<SiteId>,
    /// `msi`, `msix`.
    #[param(value_type = String)]
    kind: PackageKind,
    /// A name for people; also the base of the file name that devices see.
    name: String,
    /// Product code of an MSI (`{XXXXXXXX-…}`), package family name of an MSIX.
    product: String,
    /// One to four numbers with dots.
    version: String,
}

/// Packages, newest first.
#[utoipa::path(get, path = "/api/v1/packages", operation_id = "listPackages", tag = "packages", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<Package>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<PageQuery>) -> Answer {
    let permit = auth.permit::<may::ReadPackages>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    ok(&Page::<Package>::of(edge.engine.packages(&permit, cursor, limit).await?))
}

/// Uploads a file: the body is the file as it is, at most `limits.package_body` bytes.
#[utoipa::path(post, path = "/api/v1/packages", operation_id = "uploadPackage", tag = "packages", params(UploadQuery),
    request_body(content = String, content_type = "application/octet-stream", description = "The file's bytes"),
    responses((status = 201, description = "The package", body = Package)))]
pub async fn upload(
    edge: web::Data<Edge>,
    auth: Auth,
    query: Query<UploadQuery>,
    req: HttpRequest,
    mut payload: web::Payload,
) -> Answer {
    let Query(UploadQuery { site, kind, name, product, version }) = query;
    let permit = auth.permit::<may::WritePackages>(&edge, site)?;
    let content_type = req.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/octet-stream")) {
        return Err(Problem::unsupported(
            "send the file as it is, with Content-Type: application/octet-stream",
        ));
    }
    // Held until the file is stored: it counts against the memory for uploads.
    let mut body = body::read_package(&edge, &req, &mut payload).await?;
    let new = engine::NewPackage { kind, name, product, version };
    let bytes = std::mem::take(&mut body.bytes);
    created(&Package::from(edge.engine.upload_package(&permit, new, bytes).await?))
}

/// One package.
#[utoipa::path(get, path = "/api/v1/packages/{id}", operation_id = "getPackage", tag = "packages",
    params(("id" = uuid::Uuid, Path, description = "The package"), SiteQuery),
    responses((status = 200, description = "The package", body = Package)))]
pub async fn show(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<PackageId>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::ReadPackages>(&edge, query.0.site)?;
    ok(&Package::from(edge.engine.package(&permit, id.into_inner()).await?))
}

/// Deletes a package. No device can fetch it any more.
#[utoipa::path(delete, path = "/api/v1/packages/{id}", operation_id = "deletePackage", tag = "packages",
    params(("id" = uuid::Uuid, Path, description = "The package"), SiteQuery),
    responses((status = 200, description = "The package that was", body = Package)))]
pub async fn delete(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<PackageId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let permit = auth.permit::<may::WritePackages>(&edge, query.0.site)?;
    ok(&Package::from(edge.engine.delete_package(&permit, id.into_inner()).await?))
}
