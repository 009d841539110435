//! `/commands` and `/jobs`.

use super::devices::find;
use super::input::page;
use super::intent_schema::IntentSchema;
use super::views::{Command, CommandDetail, Job, Page, PartAnswer, Secret};
use super::{
    Answer, Auth, IdempotencyKey, Input, Nothing, PageQuery, Query, SiteQuery, created, json, ok,
    site_or_default,
};
use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::body::SizedStream;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use bellwether_engine::{SendOptions, StoredUpload, UPLOAD_PIECE, may};
use bellwether_model::time::SECOND;
use bellwether_model::{CommandId, CommandState, Intent, JobId, SiteId};
use futures_util::Stream;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// Most devices of one job.
const MAX_DEVICES: usize = 10_000;

/// A wish for a command.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandWish {
    /// What to do.
    #[schema(value_type = IntentSchema)]
    intent: Intent,
    /// Seconds until nobody wants it any more.
    expires_in_seconds: Option<i64>,
    /// To a user's channel instead of the device's.
    user: Option<String>,
}

/// A wish for the same command on many devices.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobWish {
    /// Ids, serial numbers or hardware ids; at most 10000.
    devices: Vec<String>,
    /// What to do.
    #[schema(value_type = IntentSchema)]
    intent: Intent,
    /// Seconds until nobody wants it any more.
    expires_in_seconds: Option<i64>,
    /// To a user's channel instead of the device's.
    user: Option<String>,
}

/// Which commands.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CommandsQuery {
    /// The site's id; without it the default site.
    #[param(value_type = Option<uuid::Uuid>)]
    site: Option<SiteId>,
    /// Only of this device: id, serial number or hardware id.
    device: Option<String>,
    /// Only in this state.
    #[param(value_type = Option<String>)]
    state: Option<CommandState>,
    /// Only of this job.
    #[param(value_type = Option<uuid::Uuid>)]
    job: Option<JobId>,
    /// Rows of a page: 1 to 500, 50 without it.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

fn options(
    expires_in_seconds: Option<i64>,
    user: Option<String>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
) -> Result<SendOptions, Problem> {
    if expires_in_seconds.is_some_and(|seconds| seconds <= 0) {
        return Err(Problem::invalid("expires_in_seconds is more than 0"));
    }
    Ok(SendOptions {
        expires_in: expires_in_seconds.map(|seconds| seconds.saturating_mul(SECOND)),
        user,
        idempotency_key,
    })
}

/// Commands, newest first.
#[utoipa::path(get, path = "/api/v1/commands", operation_id = "listCommands", tag = "commands", params(CommandsQuery),
    responses((status = 200, description = "A page", body = Page<Command>)))]
pub async fn list(edge: web::Data<Edge>, auth: Auth, query: Query<CommandsQuery>) -> Answer {
    let Query(query) = query;
    let permit = auth.permit::<may::ReadDevices>(&edge, query.site)?;
    let (cursor, limit) = page(query.cursor.as_deref(), query.limit)?;
    let device = match query.device {
        Some(name) => Some(edge.engine.find_device(&permit, &name).await?),
        None => None,
    };
    let found = edge.engine.commands(&permit, device, query.state, query.job, cursor, limit).await?;
    ok(&Page::<Command>::of(found))
}

/// Commands of one device, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{device}/commands", operation_id = "listDeviceCommands", tag = "commands",
    params(("device" = String, Path, description = "Id, serial number or hardware id"), PageQuery),
    responses((status = 200, description = "A page", body = Page<Command>)))]
pub async fn of_device(
    edge: web::Data<Edge>,
    auth: Auth,
    device: web::Path<String>,
    query: Query<PageQuery>,
) -> Answer {
    let permit = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    let device = edge.engine.find_device(&permit, &device).await?;
    ok(&Page::<Command>::of(edge.engine.commands(&permit, Some(device), None, None, cursor, limit).await?))
}

/// Queues a command for one device.
#[utoipa::path(post, path = "/api/v1/devices/{device}/commands", operation_id = "sendCommand", tag = "commands",
    params(("device" = String, Path, description = "Id, serial number or hardware id"), SiteQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The same key never sends a second one")),
    request_body = CommandWish, responses((status = 201, description = "The command", body = Command)))]
pub async fn send(
    edge: web::Data<Edge>,
    auth: Auth,
    device: web::Path<String>,
    query: Query<SiteQuery>,
    key: IdempotencyKey,
    input: Input<CommandWish>,
) -> Answer {
    let Input(wish) = input;
    let options = options(wish.expires_in_seconds, wish.user, key)?;
    let site = site_or_default(&edge, query.0.site);
    let device = find(&edge, &auth, query.0.site, &device).await?;
    let command = edge.engine.send_command(&auth.0, site, device, wish.intent, options).await?;
    created(&Command::from(command))
}

/// Queues the same command for many devices: one job, one audit entry.
#[utoipa::path(post, path = "/api/v1/commands", operation_id = "sendToMany", tag = "commands",
    params(SiteQuery, ("Idempotency-Key" = Option<String>, Header, description = "The same key never starts a second job")),
    request_body = JobWish, responses((status = 202, description = "The job", body = Job)))]
pub async fn send_to_many(
    edge: web::Data<Edge>,
    auth: Auth,
    query: Query<SiteQuery>,
    key: IdempotencyKey,
    input: Input<JobWish>,
) -> Answer {
    let Input(wish) = input;
    if wish.devices.is_empty() || wish.devices.len() > MAX_DEVICES {
        return Err(Problem::invalid(format!("name 1 to {MAX_DEVICES} devices")));
    }
    let options = options(wish.expires_in_seconds, wish.user, key)?;
    let site = site_or_default(&edge, query.0.site);
    let mut devices = Vec::with_capacity(wish.devices.len());
    for name in &wish.devices {
        let device = match name.parse() {
            Ok(id) => id,
            Err(_) => find(&edge, &auth, query.0.site, name).await?,
        };
        devices.push(device);
    }
    devices.sort_unstable();
    devices.dedup();
    let job = edge.engine.send_to_many(&auth.0, site, devices, wish.intent, options).await?;
    json(StatusCode::ACCEPTED, &Job::from(job))
}

/// A command with its parts.
#[utoipa::path(get, path = "/api/v1/commands/{id}", operation_id = "getCommand", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command"), SiteQuery),
    responses((status = 200, description = "The command", body = CommandDetail)))]
pub async fn show(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<CommandId>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    ok(&CommandDetail::from(edge.engine.command(&permit, id.into_inner()).await?))
}

/// Takes a command back that was not handed over yet; 409 when it was.
#[utoipa::path(delete, path = "/api/v1/commands/{id}", operation_id = "cancelCommand", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command"), SiteQuery),
    responses((status = 200, description = "The command, cancelled", body = Command)))]
pub async fn cancel(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<CommandId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let permit = auth.permit::<may::SendCommands>(&edge, query.0.site)?;
    ok(&Command::from(edge.engine.cancel_command(&permit, id.into_inner()).await?))
}

/// Queues a finished command again, as a new one.
#[utoipa::path(post, path = "/api/v1/commands/{id}/retry", operation_id = "retryCommand", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command"), SiteQuery),
    responses((status = 201, description = "The new command", body = Command)))]
pub async fn retry(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<CommandId>,
    query: Query<SiteQuery>,
    _: Input<Nothing>,
) -> Answer {
    let site = site_or_default(&edge, query.0.site);
    created(&Command::from(edge.engine.retry_command(&auth.0, site, id.into_inner()).await?))
}

/// What the device answered, as it is. It can hold secrets, hence `secret:reveal`.
#[utoipa::path(get, path = "/api/v1/commands/{id}/result", operation_id = "getCommandResult", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command"), SiteQuery),
    responses((status = 200, description = "Answers by part", body = Vec<PartAnswer>)))]
pub async fn result(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<CommandId>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::RevealSecrets>(&edge, query.0.site)?;
    let parts = edge.engine.command_result(&permit, id.into_inner()).await?;
    let answers = parts.into_iter().map(|(part, text)| PartAnswer {
        part_id: part.0,
        answer: serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
    });
    ok(&answers.collect::<Vec<_>>())
}

/// The secret that a command made (the PIN of a locked or wiped Mac). Every look is audited.
#[utoipa::path(get, path = "/api/v1/commands/{id}/secret", operation_id = "revealCommandSecret", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command"), SiteQuery),
    responses((status = 200, description = "The secret", body = Secret)))]
pub async fn secret(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<CommandId>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::RevealSecrets>(&edge, query.0.site)?;
    ok(&Secret::from(edge.engine.reveal_command_secret(&permit, id.into_inner()).await?))
}

/// What the device uploaded, as it is: nobody looked into it. It can hold secrets, hence `secret:reveal`, and every
/// download is audited.
#[utoipa::path(get, path = "/api/v1/commands/{id}/upload", operation_id = "downloadCommandUpload", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command"), SiteQuery),
    responses((status = 200, description = "The file's bytes", body = String,
        content_type = "application/octet-stream")))]
pub async fn upload(
    edge: web::Data<Edge>,
    auth: Auth,
    id: web::Path<CommandId>,
    query: Query<SiteQuery>,
) -> Answer {
    let permit = auth.permit::<may::RevealSecrets>(&edge, query.0.site)?;
    let stored = edge.engine.stored_upload(&permit, *id).await?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        // As it is: what is packed already is not packed again.
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"diagnostics-{id}.zip\""),
        ));
    Ok(response.body(SizedStream::new(stored.size, pieces(edge, stored))))
}

/// The bytes, piece by piece. What is deleted meanwhile breaks the transfer off.
fn pieces(
    edge: web::Data<Edge>,
    stored: StoredUpload,
) -> impl Stream<Item = Result<web::Bytes, actix_web::Error>> + 'static {
    futures_util::stream::try_unfold(0, move |at| {
        let (edge, stored) = (edge.clone(), stored.clone());
        async move {
            if at >= stored.size {
                return Ok(None);
            }
            let piece = edge.engine.stored_piece(&stored, at).await.map_err(|error| {
                tracing::warn!(cause = %error, "a download of an upload was broken off");
                actix_web::error::ErrorInternalServerError("broken off")
            })?;
            let next = at.saturating_add(UPLOAD_PIECE as u64);
            Ok::<_, actix_web::Error>(Some((web::Bytes::from(piece), next)))
        }
    })
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "listJobs", tag = "commands", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<Job>)))]
pub async fn jobs(edge: web::Data<Edge>, auth: Auth, query: Query<PageQuery>) -> Answer {
    let permit = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    let (cursor, limit) = query.0.page()?;
    ok(&Page::<Job>::of(edge.engine.jobs(&permit, cursor, limit).await?))
}

/// One job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", operation_id = "getJob", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The job"), SiteQuery),
    responses((status = 200, description = "The job", body = Job)))]
pub async fn job(edge: web::Data<Edge>, auth: Auth, id: web::Path<JobId>, query: Query<SiteQuery>) -> Answer {
    let permit = auth.permit::<may::ReadDevices>(&edge, query.0.site)?;
    ok(&Job::from(edge.engine.job(&permit, id.into_inner()).await?))
}
