//! `/backups` and `/quarantine`: the whole server's, so a grant for one site is not enough.

use super::views::{time, view};
use super::{Answer, Auth, Input, Nothing, created, ok};
use crate::clock::rfc3339;
use crate::edge::Edge;
use actix_web::web;
use bellwether_engine::{self as engine, WithheldFate, may};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

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

view!(
    /// A file of the folder of backups. What it says of itself is null when it was not signed with this master key.
    Backup from engine::BackupFile {
        /// The file's name.
        name: String = v.name,
        /// Bytes.
        bytes: u64 = v.bytes,
        /// From when its rows are, RFC 3339.
        at: Option<String> = v.header.as_ref().ok().map(|h| rfc3339(h.at)),
        /// `sqlite` or `postgres`.
        backend: Option<String> = v.header.as_ref().ok().map(|h| h.backend.clone()),
        /// The schema that it has.
        schema: Option<String> = v.header.as_ref().ok().map(|h| h.schema.clone()),
        /// Version of the server that made it.
        server: Option<String> = v.header.as_ref().ok().map(|h| h.server.clone()),
        /// Why it cannot be used here.
        problem: Option<String> = v.header.err(),
    } |v|
);

view!(
    /// How the last drill went: the newest backup brought into a scratch database and looked at.
    BackupDrill from engine::Drill {
        /// When.
        at: String = rfc3339(v.at),
        /// Which file.
        backup: String = v.backup,
        /// Whether all was good.
        good: bool = v.problem.is_none(),
        /// What was wrong.
        problem: Option<String> = v.problem,
    } |v|
);

view!(
    /// The backups of the server.
    Backups from engine::Backups {
        /// Where they are, on the server.
        folder: String = v.folder.display().to_string(),
        /// From when the newest is that any process of this server made.
        last_good_at: Option<String> = time(v.status.last_good),
        /// Its file.
        last_good: Option<String> = v.status.last_file,
        /// When one last failed.
        last_failed_at: Option<String> = time(v.status.last_failed),
        /// Why the last one failed; null when it did not.
        failure: Option<String> = v.status.failure,
        /// The last drill.
        drill: Option<BackupDrill> = v.drill.map(Into::into),
        /// Newest first.
        items: Vec<Backup> = v.files.into_iter().map(Into::into).collect(),
    } |v|
);

view!(
    /// A backup that was just made, and read back.
    MadeBackup from engine::BackupMade {
        /// The file's name.
        name: String = v.name,
        /// From when its rows are, RFC 3339.
        at: String = rfc3339(v.at),
        /// Bytes.
        bytes: u64 = v.bytes,
        /// Tables in it.
        tables: u64 = v.tables,
        /// Rows in it.
        rows: u64 = v.rows,
    } |v|
);

view!(
    /// A command that waits because of the quarantine.
    WithheldCommand from engine::WithheldView {
        /// Site.
        site: Uuid = v.site.0,
        /// Id.
        id: Uuid = v.id.0,
        /// Device.
        device_id: Uuid = v.device_id.0,
        /// Intent kind.
        kind: String = v.kind,
        /// When accepted.
        created_at: String = rfc3339(v.created_at),
        /// By whom.
        created_by: String = v.created_by,
    } |v|
);

view!(
    /// The quarantine after a restore.
    Quarantine from Option<engine::QuarantineView> {
        /// Whether the server is in one.
        active: bool = v.is_some(),
        /// When the backup was restored.
        since: Option<String> = v.as_ref().map(|q| rfc3339(q.since)),
        /// From when the data is. What happened between this and the restore is not known.
        data_from: Option<String> = v.as_ref().map(|q| rfc3339(q.from)),
        /// The backup's file.
        backup: Option<String> = v.as_ref().map(|q| q.backup.clone()),
        /// How many commands wait because of it.
        withheld_total: u64 = v.as_ref().map_or(0, |q| q.total),
        /// The first hundred of them, oldest first.
        withheld: Vec<WithheldCommand> = v.map(|q| q.withheld.into_iter().map(Into::into).collect()).unwrap_or_default(),
    } |v|
);

view!(
    /// How a quarantine ended.
    QuarantineEnded from engine::QuarantineEnded {
        /// Commands that were cancelled.
        cancelled: u64 = v.cancelled,
        /// Commands that go out now.
        sent: u64 = v.sent,
        /// Devices that are asked again for what they report.
        asked_again: u64 = v.asked,
    } |v|
);
