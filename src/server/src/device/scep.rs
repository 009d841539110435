//! `/scep/{ca}` (RFC 8894 §4.1) and `/crl/{ca}`.

use crate::body;
use crate::edge::Edge;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bellwether_engine::Error;
use bellwether_model::AuthorityId;
use bellwether_scep as scep;
use bellwether_scep::Operation;

/// GET and POST. Refusals inside the protocol are signed answers with status 200; only what is no SCEP message at
/// all gets 400, and an unknown CA 404.
pub async fn operation(
    edge: web::Data<Edge>,
    req: HttpRequest,
    ca: web::Path<String>,
    mut payload: web::Payload,
) -> HttpResponse {
    let Some(ca) = authority(&ca) else { return empty(404) };
    // The raw query: a decoded one has lost the plus signs of macOS's base64.
    let Ok(operation) = scep::parse_query(req.query_string()) else { return empty(400) };
    let message = match operation {
        Operation::GetCaCaps => {
            return match edge.engine.scep_ca_certificate(ca).await {
                Ok(_) => bytes(scep::CAPS_CONTENT_TYPE, scep::CAPS.as_bytes().to_vec()),
                Err(error) => empty(status(&error)),
            };
        }
        Operation::GetCaCert => {
            return match edge.engine.scep_ca_certificate(ca).await {
                Ok(der) => bytes(scep::CA_CERT_CONTENT_TYPE, scep::ca_cert_reply(&der)),
                Err(error) => empty(status(&error)),
            };
        }
        Operation::PkiOperation(Some(message)) => message,
        Operation::PkiOperation(None) => match body::read(&edge, &req, &mut payload, scep::MAX_MESSAGE).await
        {
            // Old macOS sends an empty POST first and goes on after the error.
            Ok(body) if body.bytes.is_empty() => return empty(400),
            Ok(body) => body.bytes,
            Err(error) => return empty(error.status()),
        },
    };
    if message.len() > scep::MAX_MESSAGE {
        return empty(413);
    }
    match edge.engine.scep_operation(ca, message, edge.source(&req)).await {
        Ok(reply) => bytes(scep::MESSAGE_CONTENT_TYPE, reply),
        Err(error) => empty(status(&error)),
    }
}

/// The revocation list of a CA.
pub async fn crl(edge: web::Data<Edge>, ca: web::Path<String>) -> HttpResponse {
    let Some(ca) = authority(&ca) else { return empty(404) };
    match edge.engine.crl(ca).await {
        Ok(der) => bytes("application/pkix-crl", der),
        Err(error) => empty(status(&error)),
    }
}

fn authority(text: &str) -> Option<AuthorityId> {
    text.parse().ok()
}

fn bytes(content_type: &str, body: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, content_type)).body(body)
}

fn empty(status: u16) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "30"));
    }
    response.finish()
}

fn status(error: &Error) -> u16 {
    match error {
        Error::Invalid(_) => 400,
        Error::NotFound(_) => 404,
        Error::TooMany { .. } => 429,
        Error::Store(_) => 503,
        other => {
            tracing::error!(cause = %other, "a SCEP request failed");
            500
        }
    }
}
