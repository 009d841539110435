//! `/api/v1`: what programs, the console and our own command line call.
//!
//! [`authenticate`] stands before every route; a handler that needs an answer from the engine needs the [`Auth`] that
//! it leaves behind, and of that a `Permit` for one action in one site.

pub mod audit;
pub mod backups;
pub mod commands;
pub mod devices;
pub mod enrollment_accounts;
mod input;
mod intent_schema;
pub mod invitations;
pub mod keys;
pub mod openapi;
pub mod packages;
pub mod push;
pub mod views;

pub use input::{IdempotencyKey, Input, Nothing, PageQuery, Query, SiteQuery};

use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _, web};
use bellwether_engine::{Allows, Caller, Permit};
use bellwether_model::SiteId;
use serde::Serialize;
use std::future::{Ready, ready};

/// The root of the API.
pub const ROOT: &str = "/api/v1";
/// The one call that nobody can have a key for.
const SETUP: (&str, &str) = ("POST", "/api/v1/setup");
/// Where keys are made.
const KEYS: &str = "/api/v1/keys";

/// What handlers return.
pub type Answer = Result<HttpResponse, Problem>;

/// Who calls. Exists only behind [`authenticate`].
#[derive(Clone)]
pub struct Auth(pub Caller);

impl Auth {
    /// Leave to do `A` in the site that the query names, or in the default site.
    pub fn permit<A: Allows>(&self, edge: &Edge, site: Option<SiteId>) -> Result<Permit<A>, Problem> {
        Ok(self.0.permit::<A>(site_or_default(edge, site))?)
    }
}

/// The site that a query names, or the default one.
pub fn site_or_default(edge: &Edge, site: Option<SiteId>) -> SiteId {
    site.unwrap_or_else(|| edge.engine.default_site())
}

impl FromRequest for Auth {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(req.extensions().get::<Self>().cloned().ok_or_else(Problem::unauthenticated))
    }
}

/// Refuses everybody without a valid key before routing and before a body is read.
pub async fn authenticate(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if has_key_in_query(req.query_string()) {
        let problem = Problem::invalid(
            "a key in the URL ends up in logs and histories; send it as Authorization: Bearer",
        );
        return Ok(req.into_response(problem.error_response()));
    }
    if (req.method().as_str(), req.path()) != SETUP {
        match caller(&req).await {
            Ok(caller) => {
                req.extensions_mut().insert(Auth(caller));
            }
            Err(problem) => return Ok(req.into_response(problem.error_response())),
        }
        if adds_data(req.method(), req.path()) && edge(&req)?.engine.is_disk_full() {
            return Ok(req.into_response(Problem::disk_full().error_response()));
        }
    }
    next.call(req).await.map(ServiceResponse::map_into_boxed_body)
}

/// What has to wait while the disk is full. Keys are how administrators sign in.
fn adds_data(method: &Method, path: &str) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE].contains(method) && path != KEYS
}

fn edge(req: &ServiceRequest) -> Result<&Edge, Problem> {
    req.app_data::<web::Data<Edge>>().map(|edge| edge.get_ref()).ok_or_else(|| Problem::internal(&"no edge"))
}

async fn caller(req: &ServiceRequest) -> Result<Caller, Problem> {
    let edge = edge(req)?;
    let bearer = bearer(req.headers()).ok_or_else(Problem::unauthenticated)?;
    Ok(edge.engine.caller(bearer, edge.source(req.request())).await?)
}

/// The key of exactly one `Authorization: Bearer bw_…`.
fn bearer(headers: &header::HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION);
    let (only, None) = (all.next()?, all.next()) else { return None };
    let (scheme, key) = only.to_str().ok()?.split_once(' ')?;
    let fits = scheme.eq_ignore_ascii_case("bearer") && key.starts_with("bw_") && key.len() <= 200;
    fits.then_some(key)
}

fn has_key_in_query(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        value.starts_with("bw_") || matches!(&*name, "access_token" | "api_key" | "apikey")
    })
}

/// For paths of the API that exist, but not with this method; and for those that do not exist.
pub async fn no_such_method() -> Answer {
    Err(Problem::method_not_allowed())
}

/// For paths that do not exist.
pub async fn no_such_path() -> Answer {
    Err(Problem::not_found("there is no such path in the API; see /api/v1/openapi.json"))
}

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|e| Problem::internal(&e))?;
    Ok(HttpResponse::build(status).insert_header((header::CONTENT_TYPE, "application/json")).body(body))
}

/// 200 with JSON.
pub fn ok<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::OK, value)
}

/// 201 with JSON.
pub fn created<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::CREATED, value)
}

/// 204.
pub fn done() -> Answer {
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_full_disk_stops_what_adds_data_and_no_administrator() {
        for (method, path) in
            [("GET", "/commands"), ("HEAD", "/devices"), ("DELETE", "/commands/1"), ("POST", "/keys")]
        {
            let method = method.parse().unwrap();
            assert!(!adds_data(&method, &format!("{ROOT}{path}")), "{method} {path}");
        }
        for path in ["/invitations", "/commands", "/packages", "/devices/1/commands", "/keys/1"] {
            assert!(adds_data(&Method::POST, &format!("{ROOT}{path}")), "{path}");
        }
    }

    #[test]
    fn keys_travel_in_one_place_only() {
        let of = |values: &[&str]| {
            let mut req = TestRequest::default();
            for value in values {
                req = req.append_header(("Authorization", *value));
            }
            bearer(req.to_http_request().headers()).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer bw_abc"]).as_deref(), Some("bw_abc"));
        assert_eq!(of(&["bearer bw_abc"]).as_deref(), Some("bw_abc"));
        for wrong in
            [&[][..], &["bw_abc"], &["Basic bw_abc"], &["Bearer abc"], &["Bearer bw_a", "Bearer bw_b"]]
        {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        assert!(
            has_key_in_query("x=1&token=bw_abc")
                && has_key_in_query("x=%62w_abc")
                && has_key_in_query("access_token=x")
        );
        assert!(!has_key_in_query("search=ab_w&limit=3"));
    }
}
