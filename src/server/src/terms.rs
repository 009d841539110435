//! `/EnrollmentServer/TermsOfUse`: the page that Entra ID opens before a PC enrolls (spec/windows.md 2.11).
//!
//! The request proves the person by a token in `Authorization`, as enrollment does. The form is sent without one: it
//! carries a ticket of ours, and where the answer goes is in the ticket. Only an application of the machine itself
//! (`ms-appx-web`) is ever redirected to; a refused address is not shown again.

use crate::edge::Edge;
use crate::enroll::{self, STYLE, field, pairs};
use crate::problem::Problem;
use crate::sign_in;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use bellwether_engine::{Error, TermsPage, TermsRefusal, TermsRequest};
use bellwether_windows::enrollment::address::TermsRedirect;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

/// The page's path. Its prefix belongs to machines, the page to people.
pub const PATH: &str = "/EnrollmentServer/TermsOfUse";
/// The one version of the question.
const API_VERSION: &str = "1.0";
/// An Entra join cannot be declined here: the person closes the window (2.11).
const JOIN: &str = "azureadjoin";
const REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");
/// Tokens of Entra ID have 1 to 4 KiB.
const MAX_TOKEN: usize = 16 * 1024;

#[derive(Template)]
#[template(path = "terms.html")]
struct Terms<'a> {
    style: &'static str,
    organization: &'a str,
    account: &'a str,
    /// What stands between blank lines.
    paragraphs: Vec<&'a str>,
    ticket: &'a str,
    may_decline: bool,
}

/// `GET /EnrollmentServer/TermsOfUse?redirect_uri=…&client-request-id=…&api-version=1.0[&mode=azureadjoin]`.
pub async fn page(edge: web::Data<Edge>, req: HttpRequest) -> HttpResponse {
    let query = pairs(req.query_string().as_bytes());
    let id = field(&query, "client-request-id").and_then(request_id);
    let Some(redirect) = field(&query, "redirect_uri").and_then(|uri| TermsRedirect::parse(uri).ok()) else {
        return echoed(foreign(), id);
    };
    if field(&query, "api-version").is_some_and(|version| version != API_VERSION) {
        return echoed(away(&redirect.failed("invalid_request", "unsupported version")), id);
    }
    let Some(token) = bearer(req.headers()) else {
        return echoed(away(&redirect.failed("invalid_request", "the request has no bearer token")), id);
    };
    let request = TermsRequest {
        token,
        redirect_uri: redirect.as_str().to_owned(),
        request_id: id.clone(),
        source: edge.source(&req),
    };
    let response = match edge.engine.windows_terms(request).await {
        Ok(terms) => shown(&edge.config.organization, &terms, field(&query, "mode") != Some(JOIN)),
        Err(TermsRefusal::Server) => away(&redirect.failed("server_error", "internal service error")),
        Err(_) => away(&redirect.failed("unauthorized_client", "unauthorized user or tenant")),
    };
    echoed(response, id)
}

/// `POST /EnrollmentServer/TermsOfUse` with `ticket` and `answer`.
pub async fn answer(edge: web::Data<Edge>, req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let sent = match sign_in::own_fields(&edge, &req, &mut payload, refusal).await {
        Ok(sent) => sent,
        Err(response) => return response,
    };
    let accepted = match field(&sent, "answer") {
        Some("accept") => true,
        Some("decline") => false,
        _ => return foreign(),
    };
    let ticket = field(&sent, "ticket").unwrap_or_default();
    match edge.engine.windows_terms_answered(ticket, accepted, edge.source(&req).as_deref()).await {
        Ok(answer) => {
            let Ok(redirect) = TermsRedirect::parse(&answer.redirect_uri) else { return foreign() };
            let target = match &answer.blob {
                Some(blob) => redirect.accepted(blob),
                None => redirect.declined(),
            };
            echoed(away(&target), answer.request_id)
        }
        Err(error) => not_now(error),
    }
}

fn shown(organization: &str, terms: &TermsPage, may_decline: bool) -> HttpResponse {
    let text = terms.text.as_deref().unwrap_or_default();
    let page = Terms {
        style: STYLE,
        organization,
        account: &terms.account,
        paragraphs: paragraphs(text),
        ticket: terms.ticket.expose_secret(),
        may_decline,
    };
    // A browser judges the redirect after the form by the same rule.
    let policy = enroll::policy("form-action 'self' ms-appx-web:");
    enroll::html_with(StatusCode::OK, page.render(), &policy)
}

fn paragraphs(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            all.push((start, at));
            start = at + line.len();
        }
        at += line.len();
    }
    all.push((start, at));
    let texts = all.into_iter().filter_map(|(start, end)| text.get(start..end));
    texts.map(str::trim).filter(|paragraph| !paragraph.is_empty()).collect()
}

/// The token of exactly one `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let mut all = headers.get_all(header::AUTHORIZATION);
    let (only, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN;
    fits.then(|| SecretString::from(token))
}

/// A GUID, in the one form that we write it in.
fn request_id(text: &str) -> Option<String> {
    Uuid::try_parse(text).ok().map(|id| id.to_string())
}

/// `target` is of [`TermsRedirect`], which knows no line breaks.
fn away(target: &str) -> HttpResponse {
    HttpResponse::Found()
        .insert_header((header::LOCATION, target))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

fn echoed(mut response: HttpResponse, id: Option<String>) -> HttpResponse {
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn not_now(error: Error) -> HttpResponse {
    match error {
        Error::NotFound(_) => refusal(StatusCode::BAD_REQUEST, "This page is too old"),
        Error::TooMany { retry_after_seconds } => {
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "Please wait some minutes");
            response.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
            response
        }
        other => refusal(Problem::from(other).code(), "The server has a problem"),
    }
}

fn foreign() -> HttpResponse {
    refusal(StatusCode::BAD_REQUEST, "Windows did not open this page")
}

fn refusal(status: StatusCode, title: &'static str) -> HttpResponse {
    enroll::refusal(
        status,
        title,
        "Begin again: set up this computer, or add the account in Settings, once more.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;

    async fn text(response: HttpResponse) -> String {
        String::from_utf8(to_bytes(response.into_body()).await.unwrap().to_vec()).unwrap()
    }

    fn terms(text: Option<&str>) -> TermsPage {
        let (account, ticket) = ("ann@example.org\"><script>".to_owned(), SecretString::from("t1cket"));
        TermsPage { account, text: text.map(str::to_owned), ticket }
    }

    #[actix_web::test]
    async fn the_page_shows_the_text_and_nothing_runs() {
        let hostile = "First <script>alert(1)</script>\r\nline\r\n\r\n  \n\nSecond & last";
        let response = shown("Example <Sons>", &terms(Some(hostile)), true);
        let headers = response.headers();
        let policy = headers.get("content-security-policy").unwrap().to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("form-action 'self' ms-appx-web:;") && !policy.contains("script-src"));
        assert_eq!(headers.get("cache-control").unwrap(), "no-store");
        assert_eq!(headers.get("x-frame-options").unwrap(), "DENY");
        let page = text(response).await;
        assert!(!page.contains("<script") && page.contains("alert(1)") && page.contains("t1cket"), "{page}");
        assert!(page.contains("value=\"accept\"") && page.contains("value=\"decline\""), "{page}");
        let join = text(shown("Example", &terms(None), false)).await;
        assert!(join.contains("value=\"accept\"") && !join.contains("decline"), "{join}");
        assert!(join.contains("Example will manage this computer"), "{join}");
    }

    #[test]
    fn blank_lines_part_paragraphs() {
        assert_eq!(paragraphs("\r\n a\r\nb \r\n \r\n\n c\n"), ["a\r\nb", "c"]);
        assert_eq!(paragraphs(" \n\n"), [""; 0]);
        assert_eq!(paragraphs("ä"), ["ä"]);
    }

    #[test]
    fn one_bearer_token_is_taken() {
        let of = |values: &[&str]| {
            let mut request = TestRequest::default();
            for value in values {
                request = request.append_header(("authorization", *value));
            }
            bearer(request.to_http_request().headers()).map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(of(&["Bearer a.b.c"]).as_deref(), Some("a.b.c"));
        assert_eq!(of(&["bearer a.b.c"]).as_deref(), Some("a.b.c"));
        for bad in [&[][..], &["Bearer "], &["Basic a"], &["a.b.c"], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(of(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))]), None);
    }

    #[test]
    fn only_guids_are_echoed() {
        let id = "0190A5D0-0000-4000-8000-00000000000F";
        assert_eq!(request_id(id), Some(id.to_lowercase()));
        for bad in ["", "x", "0190a5d0\r\nset-cookie: a=b"] {
            assert_eq!(request_id(bad), None);
        }
        let response = echoed(foreign(), Some("x\r\ny".into()));
        assert!(response.headers().get(REQUEST_ID).is_none());
    }
}
