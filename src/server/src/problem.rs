//! RFC 9457: what the API says when it does not do what was asked.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpResponse, ResponseError};
use bellwether_certs::Error as CertsError;
use bellwether_engine::Error;
use bellwether_store::StoreError;
use serde::{Deserialize, Serialize};
use std::fmt;

tokio::task_local! {
    /// The id of the request that this task works on.
    pub static REQUEST_ID: String;
}

/// `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:bellwether:problem:<name>`; stable, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// Finds the request in the server's log.
    pub request_id: Option<String>,
    /// When to come back (429, 503), seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    fn new(status: u16, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:bellwether:problem:{name}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            request_id: REQUEST_ID.try_with(Clone::clone).ok(),
            retry_after: None,
        }
    }

    /// 400.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid-request", "The request makes no sense", detail)
    }

    /// 401.
    pub fn unauthenticated() -> Self {
        Self::new(401, "unauthenticated", "No valid API key", Error::Unauthenticated.to_string())
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "There is nothing here", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "method-not-allowed",
            "Not with this method",
            "this path exists, but not for this method",
        )
    }

    /// 408.
    pub fn too_slow() -> Self {
        Self::new(408, "too-slow", "The request took too long", "the body did not arrive in time")
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, "conflict", "The request contradicts the present state", detail)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "too-large",
            "The request is too large",
            format!("at most {limit} bytes are accepted here"),
        )
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(415, "unsupported-media-type", "Not in this form", detail)
    }

    /// 421.
    pub fn misdirected() -> Self {
        Self::new(
            421,
            "misdirected",
            "Another server was meant",
            "the Host header names another server than TLS did",
        )
    }

    /// 500; the cause goes to the log only.
    pub fn internal(cause: &dyn fmt::Display) -> Self {
        let problem = Self::new(
            500,
            "internal",
            "The server failed",
            "the cause is in the server's log, under this request id",
        );
        tracing::error!(request_id = problem.request_id, cause = %cause, "request failed");
        problem
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let retry_after = Some(5);
        Self { retry_after, ..Self::new(503, "unavailable", "Not at the moment", detail) }
    }

    /// 507.
    pub fn disk_full() -> Self {
        let detail = "the database's disk is full; nothing was changed. Reading still works, and with the built-in \
                      database and its reserve so does cancelling, revoking, deleting and making keys; the rest does \
                      again as soon as there is space";
        let retry_after = Some(60);
        Self { retry_after, ..Self::new(507, "disk-full", "The server's disk is full", detail) }
    }

    /// The same, with the id of a request whose task is gone.
    pub fn of_request(self, id: &str) -> Self {
        Self { request_id: Some(id.to_owned()), ..self }
    }

    /// The status as a type.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Unauthenticated => Self::unauthenticated(),
            Error::Denied(_) => Self::new(403, "denied", "The key does not allow this", text),
            Error::NotFound(_) => Self::not_found(text),
            Error::Invalid(_) => Self::invalid(text),
            Error::Conflict(_) => Self::conflict(text),
            Error::CannotDo(_) => {
                Self::new(422, "cannot-do", "The device or its platform cannot do this", text)
            }
            Error::TooMany { retry_after_seconds } => {
                let retry_after = Some(retry_after_seconds);
                Self { retry_after, ..Self::new(429, "too-many", "Too many attempts", text) }
            }
            Error::Store(store) => of_store(&store),
            Error::Certs(certs) => of_certs(&certs),
            other => Self::internal(&other),
        }
    }
}

fn of_store(error: &StoreError) -> Problem {
    match error {
        StoreError::Unknown => Problem::unavailable(
            "the database's answer was lost: the change may or may not have happened. \
             Send the same request with the same Idempotency-Key again",
        ),
        StoreError::Busy(_) => Problem::unavailable("the database is busy; nothing was changed, try again"),
        StoreError::Full(_) => {
            tracing::error!(cause = %error, "the disk is full");
            Problem::disk_full()
        }
        StoreError::DiskFailed(_) => {
            tracing::error!(cause = %error, "the disk failed");
            Problem::unavailable(
                "the server's disk failed: the change may or may not have happened. Send the same request with the same \
                 Idempotency-Key again when the server is back",
            )
        }
        StoreError::Unavailable(_) => {
            tracing::error!(cause = %error, "the database is not available");
            Problem::unavailable("the database is not available; nothing was changed")
        }
        StoreError::Conflict(_) => Problem::conflict(error.to_string()),
        StoreError::NotFound(_) => Problem::not_found(error.to_string()),
        _ => Problem::internal(error),
    }
}

fn of_certs(error: &CertsError) -> Problem {
    match error {
        CertsError::OpenSsl(_) | CertsError::WrongKey { .. } | CertsError::Unsealable => {
            Problem::internal(error)
        }
        _ => Problem::new(
            422,
            "certificate-refused",
            "A certificate, key or signature was refused",
            error.to_string(),
        ),
    }
}

impl From<bellwether_engine::Denied> for Problem {
    fn from(denied: bellwether_engine::Denied) -> Self {
        Error::from(denied).into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.code());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if self.status == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"bellwether\""));
        }
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        response.body(serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_error_has_its_status() {
        let status = |e: Error| Problem::from(e).status;
        assert_eq!(status(Error::Unauthenticated), 401);
        assert_eq!(status(Error::NotFound("device")), 404);
        assert_eq!(status(Error::Invalid("x".into())), 400);
        assert_eq!(status(Error::Conflict("x".into())), 409);
        assert_eq!(status(Error::CannotDo("x".into())), 422);
        assert_eq!(status(Error::TooMany { retry_after_seconds: 9 }), 429);
        assert_eq!(status(Error::Store(StoreError::Unknown)), 503);
        assert_eq!(status(Error::Store(StoreError::Unavailable("down".into()))), 503);
        assert_eq!(status(Error::Store(StoreError::Full("disk".into()))), 507);
        let failed = Problem::from(Error::Store(StoreError::DiskFailed("disk".into())));
        assert!(failed.status == 503 && failed.detail.contains("may or may not"), "nobody knows: {failed}");
        assert_eq!(status(Error::Store(StoreError::Conflict("one-live".into()))), 409);
        assert_eq!(status(Error::Store(StoreError::Corrupt("row".into()))), 500);
        assert_eq!(status(Error::Certs(CertsError::Malformed { what: "certificate" })), 422);
        assert_eq!(status(Error::Certs(CertsError::Unsealable)), 500);
        assert_eq!(status(Error::Internal("secret detail".into())), 500);
    }

    #[test]
    fn internal_causes_stay_inside() {
        for error in [
            Error::Internal("hunter2".into()),
            Error::Store(StoreError::Unavailable("postgres://u:hunter2@db".into())),
            Error::Store(StoreError::Corrupt("hunter2".into())),
        ] {
            let body = serde_json::to_string(&Problem::from(error)).unwrap();
            assert!(!body.contains("hunter2"), "{body}");
        }
    }

    #[actix_web::test]
    async fn a_problem_knows_its_request_and_when_to_come_back() {
        let problem = REQUEST_ID
            .scope("r-1".into(), async { Problem::from(Error::TooMany { retry_after_seconds: 7 }) })
            .await;
        assert_eq!(problem.request_id.as_deref(), Some("r-1"));
        let response = problem.error_response();
        assert_eq!(response.headers().get("retry-after").unwrap(), "7");
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        assert!(Problem::unauthenticated().error_response().headers().contains_key("www-authenticate"));
    }
}
