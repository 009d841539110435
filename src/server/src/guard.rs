//! What happens to every request before and after its handler: identity, path and host checks, panics, logs, headers.

use crate::edge::Edge;
use crate::problem::{Problem, REQUEST_ID};
use crate::tls::Peer;
use crate::{enroll, sign_in, terms};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpResponse, ResponseError as _, web};
use futures_util::{FutureExt as _, Stream as _};
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Answers that are given before the body has arrived.
const LEAVES_A_BODY: [u16; 5] = [400, 408, 413, 415, 431];

/// The outermost middleware of both listeners.
pub async fn watch(
    mut req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = new_id();
    let edge = req.app_data::<web::Data<Edge>>().cloned();
    let source = edge.as_ref().and_then(|edge| edge.source(req.request()));
    let method = req.method().clone();
    let unread = keep_unread(&mut req);
    let response =
        REQUEST_ID.scope(id.clone(), answer(req, next, edge.as_ref().map(|edge| edge.as_ref()), &id)).await;
    let (route, status) = match &response {
        Ok(response) => (response.request().match_pattern(), response.status().as_u16()),
        Err(error) => (None, error.as_response_error().status_code().as_u16()),
    };
    // The route's pattern and never the path: paths of /enroll, /packages and /uploads are secrets.
    let route = route.unwrap_or_else(|| "none".to_owned());
    let took = started.elapsed();
    if let Some(edge) = &edge {
        edge.metrics.request(&route, method.as_str(), status, took);
    }
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let method = method.as_str().chars().take(16).collect::<String>();
    if status >= 500 {
        tracing::warn!(request_id = %id, %method, %route, status, millis, source, "request");
    } else {
        tracing::info!(request_id = %id, %method, %route, status, millis, source, "request");
    }
    let mut response = response?;
    if status == 503 && !response.headers().contains_key(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    }
    let names = edge.as_ref().is_some_and(|edge| edge.config.names_configured());
    finish(response.headers_mut(), &id, names);
    let farewell = edge.as_ref().is_some_and(|edge| edge.says_farewell());
    if farewell || LEAVES_A_BODY.contains(&status) {
        // The server stops, or the rest of the body is not worth reading.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(match unread {
        Some(unread) => response.map_body(|_, body| BoxBody::new(Held { body, _unread: unread })),
        None => response,
    })
}

/// A body without an announced length has no end that could be waited for. When a handler drops it unread, actix takes
/// and discards whatever the client sends, without a limit of bytes or time; while it is still held at the end of the
/// answer, actix closes the connection. So it is held.
fn keep_unread(req: &mut ServiceRequest) -> Option<Rc<RefCell<Payload>>> {
    if !req.headers().contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let unread = Rc::new(RefCell::new(req.take_payload()));
    let reader = Rc::clone(&unread);
    let stream = futures_util::stream::poll_fn(move |cx| Pin::new(&mut *reader.borrow_mut()).poll_next(cx));
    req.set_payload(Payload::Stream { payload: Box::pin(stream) });
    Some(unread)
}

/// An answer that holds the rest of its request until it was sent.
struct Held {
    body: BoxBody,
    _unread: Rc<RefCell<Payload>>,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

async fn answer(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    edge: Option<&Edge>,
    id: &str,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !is_canonical(req.uri().path()) {
        return Ok(refuse(req, &Problem::not_found("no such page")));
    }
    if edge.is_some_and(|edge| edge.config.names_configured()) && is_misdirected(&req) {
        return Ok(refuse(req, &Problem::misdirected()));
    }
    let device = speaks_to_devices(req.path());
    if has_to_wait(&req) && edge.is_some_and(|edge| edge.engine.is_disk_full()) {
        return Ok(req.into_response(if device { unserved() } else { not_at_the_moment() }));
    }
    match AssertUnwindSafe(next.call(req)).catch_unwind().await {
        Ok(response) => Ok(response?.map_into_boxed_body()),
        // The request went down with its handler: the answer is made from nothing.
        Err(_) if device => Err(actix_web::error::InternalError::from_response(
            "a handler panicked",
            HttpResponse::InternalServerError().finish(),
        )
        .into()),
        Err(_) => Err(Problem::internal(&"a handler panicked").of_request(id).into()),
    }
}

/// No way to say the same path in another way: exactly one spelling reaches a handler.
fn is_canonical(path: &str) -> bool {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._~/@+=:".contains(c));
    path.starts_with('/')
        && path.len() <= 2048
        && !path.contains(odd)
        && !path.contains("//")
        && !path.split('/').any(|part| part == "." || part == "..")
}

/// TLS was opened for one name and the request is for another.
fn is_misdirected(req: &ServiceRequest) -> bool {
    let Some(sni) = req.conn_data::<Peer>().and_then(|peer| peer.sni.clone()) else { return false };
    let host = req.head().headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    !name.trim_end_matches('.').eq_ignore_ascii_case(sni.trim_end_matches('.'))
}

/// Device endpoints answer with a status and no prose.
fn speaks_to_devices(path: &str) -> bool {
    const PREFIXES: [&str; 7] =
        ["/apple/", "/scep/", "/crl/", "/packages/", "/uploads/", "/EnrollmentServer/", "/ManagementServer/"];
    // These pages are read by a person, although Windows opens them.
    ![sign_in::PATH, terms::PATH].contains(&path) && PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// What devices and people send adds data. The API and the SOAP endpoints have words of their own for a full disk; to
/// fetch something adds nothing.
fn has_to_wait(req: &ServiceRequest) -> bool {
    let path = req.path();
    let own_words =
        path.starts_with("/api/") || path.starts_with("/EnrollmentServer/") && path.ends_with(".svc");
    !own_words && ![Method::GET, Method::HEAD, Method::OPTIONS].contains(req.method())
}

/// A device comes back by itself.
fn unserved() -> HttpResponse {
    // The rest of the body is not worth reading.
    HttpResponse::ServiceUnavailable().insert_header((header::RETRY_AFTER, "60")).force_close().finish()
}

fn not_at_the_moment() -> HttpResponse {
    let text = "The server has no space left. Its administrators know; try again later.";
    let mut response = enroll::refusal(StatusCode::SERVICE_UNAVAILABLE, "Not at the moment", text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

fn refuse(req: ServiceRequest, problem: &Problem) -> ServiceResponse<BoxBody> {
    let response = if speaks_to_devices(req.path()) {
        HttpResponse::build(problem.code()).finish()
    } else {
        problem.error_response()
    };
    req.into_response(response)
}

fn finish(headers: &mut HeaderMap, id: &str, names: bool) {
    let mut default = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    default(header::CACHE_CONTROL, "no-store");
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::REFERRER_POLICY, "no-referrer");
    default(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if names {
        default(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
}

fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    // An id only has to tell requests apart; without randomness the rest of the server stops anyway.
    let _ = getrandom::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::{TestRequest, init_service, try_call_service};
    use actix_web::{App, middleware::from_fn};

    async fn panics() -> HttpResponse {
        panic!("in a handler");
    }

    #[actix_web::test]
    async fn a_panic_costs_one_request() {
        let app = App::new()
            .route("/page", web::get().to(panics))
            .route("/apple/mdm", web::put().to(panics))
            .route("/livez", web::get().to(HttpResponse::Ok))
            .wrap(from_fn(watch));
        let app = init_service(app).await;
        let error = try_call_service(&app, TestRequest::get().uri("/page").to_request()).await.unwrap_err();
        let response = error.error_response();
        assert_eq!(response.status(), 500);
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert!(problem.request_id.is_some() && !problem.detail.contains("in a handler"));
        let error =
            try_call_service(&app, TestRequest::put().uri("/apple/mdm").to_request()).await.unwrap_err();
        let response = error.error_response();
        assert_eq!(response.status(), 500);
        assert!(
            actix_web::body::to_bytes(response.into_body()).await.unwrap().is_empty(),
            "no prose for devices"
        );
        assert_eq!(
            try_call_service(&app, TestRequest::get().uri("/livez").to_request()).await.unwrap().status(),
            200
        );
    }

    #[test]
    fn devices_get_no_prose() {
        for path in ["/apple/mdm", "/EnrollmentServer/Policy.svc", "/ManagementServer/MDM.svc"] {
            assert!(speaks_to_devices(path), "{path}");
        }
        for path in [sign_in::PATH, terms::PATH, "/enroll/x", "/api/v1/devices", "/"] {
            assert!(!speaks_to_devices(path), "{path}");
        }
    }

    #[test]
    fn one_spelling_of_a_path() {
        for good in [
            "/",
            "/api/v1/devices",
            "/enroll/ABCD-EFGH-J",
            "/apple/mdm",
            "/.well-known/com.apple.remotemanagement",
        ] {
            assert!(is_canonical(good), "{good}");
        }
        for bad in [
            "//api/v1/devices",
            "/api//v1",
            "/./api",
            "/api/../api/v1",
            "/api/%2e/v1",
            "/api/v1/%64evices",
            "/api;x/v1",
            "/api\\v1",
            "/api/v1/..",
            "",
            "*",
            "/api/v1/devices/\u{0}",
        ] {
            assert!(!is_canonical(bad), "{bad}");
        }
    }
}
