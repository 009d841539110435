//! `/livez` and `/readyz`.

use crate::edge::Edge;
use actix_web::{HttpResponse, web};

/// The process runs. Never looks at the database.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// The server can work. Why not stands in the log only.
pub async fn ready(edge: web::Data<Edge>) -> HttpResponse {
    if edge.engine.has_failed() {
        return HttpResponse::ServiceUnavailable()
            .content_type("text/plain; charset=utf-8")
            .body("not ready\n");
    }
    match edge.engine.ready().await {
        // Still "ready": a load balancer must not take the administrators' way in.
        Ok(()) if edge.engine.is_disk_full() => {
            HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ready, disk full\n")
        }
        Ok(()) => HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ready\n"),
        Err(error) => {
            tracing::error!(cause = %error, "not ready");
            HttpResponse::ServiceUnavailable().content_type("text/plain; charset=utf-8").body("not ready\n")
        }
    }
}
