//! `/uploads/{token}`: where PCs PUT the archive of `collect-diagnostics` (DiagnosticLog CSP, `SasUrl`). The token in the
//! path is the right to send one file; a client certificate, if a trusted proxy saw one, must be the device's own
//! (AT-37).
//!
//! It is what a PC needs of Azure's *Put Blob* and no more. The address that Microsoft's page shows is a container's, in
//! which a client names its blob itself: one more segment after the token is taken, and means nothing.

use super::windows;
use crate::body::{self, BodyError};
use crate::edge::Edge;
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bellwether_engine::{Arriving, Error, Opening, UPLOAD_PIECE};
use futures_util::StreamExt as _;

/// PUT. Every refusal of a token is the same empty 404, before a byte of the body is read.
pub async fn receive(edge: web::Data<Edge>, req: HttpRequest, payload: web::Payload) -> HttpResponse {
    // A task of its own: when the client goes away this handler is dropped, and what came must still be cleared up.
    let task = actix_web::rt::spawn(async move { put(&edge, &req, payload).await });
    let status = task.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "30"));
    }
    if status != StatusCode::CREATED {
        // What is left of the body is not worth reading.
        response.force_close();
    }
    response.finish()
}

async fn put(edge: &Edge, req: &HttpRequest, mut payload: web::Payload) -> StatusCode {
    // `comp=block` and `comp=blocklist` would send the file in parts of their own. Nothing says that Windows does.
    if url::form_urlencoded::parse(req.query_string().as_bytes()).any(|(name, _)| name == "comp") {
        return StatusCode::BAD_REQUEST;
    }
    let announced = match body::announced(req) {
        Ok(announced) => announced,
        Err(error) => return refusal(error),
    };
    let Ok(proxied) = windows::proxied_certificate(edge, req) else { return StatusCode::NOT_FOUND };
    let token = req.match_info().get("token").unwrap_or_default();
    let mut arriving = match edge.engine.open_upload(token, proxied.as_deref(), announced).await {
        Ok(Opening::Open(arriving)) => arriving,
        Ok(Opening::Refused) => return StatusCode::NOT_FOUND,
        Ok(Opening::TooLarge) => return StatusCode::PAYLOAD_TOO_LARGE,
        Ok(Opening::Full) => return StatusCode::INSUFFICIENT_STORAGE,
        Err(error) => return fault(&error),
    };
    let stored = body::in_time(edge, store(edge, &mut arriving, &mut payload))
        .await
        .unwrap_or_else(|late| Err(refusal(late)));
    let received = match stored {
        Ok(()) => {
            let source = edge.source(req);
            edge.engine.receive_upload(&arriving, source.as_deref()).await.map_err(|error| fault(&error))
        }
        Err(status) => Err(status),
    };
    let Err(status) = received else { return StatusCode::CREATED };
    if let Err(error) = edge.engine.abandon_upload(&arriving).await {
        // It is swept up when the token's time is over.
        tracing::warn!(cause = %error, "what came of a broken upload could not be cleared away");
    }
    status
}

/// Takes the body in pieces: one is in memory, and the client waits while it is stored.
async fn store(edge: &Edge, arriving: &mut Arriving, payload: &mut web::Payload) -> Result<(), StatusCode> {
    let mut memory = edge.reserve_piece();
    // As it came, and sealed.
    if !memory.grow(2 * UPLOAD_PIECE) {
        return Err(refusal(BodyError::Busy));
    }
    let mut left = arriving.most();
    let mut piece = Vec::with_capacity(UPLOAD_PIECE);
    while let Some(chunk) = payload.next().await {
        let mut chunk = chunk.map_err(|_| refusal(BodyError::Broken))?;
        left = left.checked_sub(chunk.len() as u64).ok_or(StatusCode::PAYLOAD_TOO_LARGE)?;
        while !chunk.is_empty() {
            let fits = UPLOAD_PIECE.saturating_sub(piece.len()).min(chunk.len());
            piece.extend_from_slice(&chunk.split_to(fits));
            if piece.len() == UPLOAD_PIECE {
                let whole = std::mem::replace(&mut piece, Vec::with_capacity(UPLOAD_PIECE));
                edge.engine.upload_piece(arriving, whole).await.map_err(|error| fault(&error))?;
            }
        }
    }
    if piece.is_empty() {
        return Ok(());
    }
    edge.engine.upload_piece(arriving, piece).await.map_err(|error| fault(&error))
}

fn refusal(error: BodyError) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST)
}

fn fault(error: &Error) -> StatusCode {
    match error {
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::Invalid(_) => StatusCode::BAD_REQUEST,
        _ => {
            tracing::error!(cause = %error, "an upload could not be stored");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
