//! `/backups` and `/quarantine`: the whole server's, so a grant for one site is not enough.

use super::views::{Backups, MadeBackup, Quarantine, QuarantineEnded};
use super::{Answer, Auth, Input, Nothing, created, ok};
use crate::edge::Edge;
use actix_web::web;
use bellwether_engine::{WithheldFate, may};
use serde::Deserialize;
use utoipa::ToSchema;

/// The backups in the server's folder, newest first, and how the last ones and the last drill went. Whether a file is
/// whole is known after `bellwether backup verify` only.
#[utoipa::path(get, path = "/api/v1/backups", operation_id = "listBackups", tag = "backups",
    responses((status = 200, description = "Backups", body = Backups)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth) -> Answer {
    let permit = auth.0.server_permit::<may::ReadBackups>()?;
    ok(&Backups::from(edge.engine.backups(&permit).await?))
}

/// Makes a backup now and answers when it is whole. It is finished also if nobody waits for the answer.
#[utoipa::path(post, path = "/api/v1/backups", operation_id = "createBackup", tag = "backups",
    responses((status = 201, description = "The backup", body = MadeBackup)))]
pub async fn create(edge: web::Data<Edge>, auth: Auth, _: Input<Nothing>) -> Answer {
    let permit = auth.0.server_permit::<may::WriteBackups>()?;
    created(&MadeBackup::from(edge.engine.backup_now(&permit).await?))
}

/// Whether the server is in quarantine after a restore, and what waits because of it.
#[utoipa::path(get, path = "/api/v1/quarantine", operation_id = "getQuarantine", tag = "backups",
    responses((status = 200, description = "The quarantine", body = Quarantine)))]
pub async fn quarantine(edge: web::Data<Edge>, auth: Auth) -> Answer {
    let permit = auth.0.server_permit::<may::ReadDevices>()?;
    ok(&Quarantine::from(edge.engine.quarantine(&permit).await?))
}

/// How a quarantine is to end.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineEnd {
    /// `cancel` or `send`: what becomes of the commands that wait. Must be said while any waits.
    #[schema(value_type = Option<String>)]
    withheld: Option<WithheldFate>,
}

/// Ends the quarantine. Every device is then asked again for what it reports.
#[utoipa::path(post, path = "/api/v1/quarantine/end", operation_id = "endQuarantine", tag = "backups", request_body = QuarantineEnd,
    responses((status = 200, description = "It ended", body = QuarantineEnded)))]
pub async fn end_quarantine(edge: web::Data<Edge>, auth: Auth, input: Input<QuarantineEnd>) -> Answer {
    let permit = auth.0.server_permit::<may::WriteSettings>()?;
    ok(&QuarantineEnded::from(edge.engine.end_quarantine(&permit, input.0.withheld).await?))
}
