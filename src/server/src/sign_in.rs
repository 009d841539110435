//! `/EnrollmentServer/Auth`: the page that Windows opens in its own browser when a person signs in to enroll
//! (spec/windows.md 2.5, Federated).
//!
//! Windows says where the token goes (`appru`). Only an application of the machine itself or our own origin gets it,
//! and a refused address is not shown again. There are no cookies: who sends the form has the code or has nothing.

use crate::edge::Edge;
use crate::enroll::{self, Fields, MAX_CODE, STYLE, field, fields, pairs};
use crate::problem::Problem;
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_engine::Error;
use bellwether_windows::enrollment::address::AppRu;
use secrecy::{ExposeSecret as _, SecretString};

/// The page's path. Its prefix belongs to machines, the page to people.
pub const PATH: &str = "/EnrollmentServer/Auth";
/// The longest account.
const MAX_ACCOUNT: usize = 254;
/// Where the last form may go: what [`AppRu`] allows.
const TARGETS: &str = "ms-app: ms-appx-web: ms-aad-brokerplugin: 'self'";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Form<'a> {
    style: &'static str,
    organization: &'a str,
    appru: &'a str,
    account: &'a str,
    problem: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "sign_in_done.html")]
struct Done<'a> {
    style: &'static str,
    appru: &'a str,
    token: &'a str,
    nonce: &'a str,
}

/// `GET /EnrollmentServer/Auth?appru=…&login_hint=…`.
pub async fn form(edge: web::Data<Edge>, req: HttpRequest) -> HttpResponse {
    let query = pairs(req.query_string().as_bytes());
    let Some(appru) = return_address(&edge, field(&query, "appru")) else { return foreign() };
    let account = shortened(field(&query, "login_hint").unwrap_or_default());
    page(StatusCode::OK, &edge.config.organization, &appru, account, None)
}

/// `POST /EnrollmentServer/Auth` with `appru`, `account` and `code`: hands the token to Windows.
pub async fn submit(edge: web::Data<Edge>, req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let sent = match own_fields(&edge, &req, &mut payload, refusal).await {
        Ok(sent) => sent,
        Err(response) => return response,
    };
    let Some(appru) = return_address(&edge, field(&sent, "appru")) else { return foreign() };
    let account = field(&sent, "account").unwrap_or_default().trim();
    let code = field(&sent, "code").unwrap_or_default().trim();
    let found = if account.is_empty() || account.len() > MAX_ACCOUNT || code.len() > MAX_CODE {
        Err(Error::NotFound("invitation"))
    } else {
        edge.engine.windows_sign_in(account, code, edge.source(&req).as_deref()).await
    };
    match found {
        Ok(token) => done(&appru, &token),
        Err(error) => again(error, &edge.config.organization, &appru, account),
    }
}

fn return_address(edge: &Edge, given: Option<&str>) -> Option<AppRu> {
    AppRu::parse(given?, &edge.public_url).ok()
}

/// The fields of a form that our own page sent, or what to answer instead.
pub async fn own_fields(
    edge: &Edge,
    req: &HttpRequest,
    payload: &mut web::Payload,
    refusal: fn(StatusCode, &'static str) -> HttpResponse,
) -> Result<Fields, HttpResponse> {
    if !is_own_form(req.headers(), &edge.public_url) {
        let mut response = refusal(StatusCode::FORBIDDEN, "This form was sent by another site");
        response.head_mut().set_connection_type(ConnectionType::Close);
        return Err(response);
    }
    fields(edge, req, payload).await
}

/// Whether our own page sent the form, as far as a browser says. `Origin: null` is what a browser sends for a page
/// with `Referrer-Policy: no-referrer` (Fetch 3.2), so ours; a newer one says beside it where the form stood. Nothing
/// rides on an older one's silence: there is no cookie that a foreign form could use.
fn is_own_form(headers: &HeaderMap, own_origin: &str) -> bool {
    let only = |name| {
        let mut all = headers.get_all(name);
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
            _ => Err(()),
        }
    };
    let (Ok(site), Ok(origin)) = (only("sec-fetch-site"), only("origin")) else { return false };
    site.is_none_or(|site| site == "same-origin" || site == "none")
        && origin.is_none_or(|origin| origin == "null" || origin.eq_ignore_ascii_case(own_origin))
}

/// The same page with what was wrong. Windows takes a status of an error for the end of the dialogue, so that a
/// mistyped code is answered with 200.
fn again(error: Error, organization: &str, appru: &AppRu, account: &str) -> HttpResponse {
    let (status, problem, retry_after) = match error {
        Error::TooMany { retry_after_seconds } => (
            StatusCode::TOO_MANY_REQUESTS,
            "There were too many attempts. Wait some minutes and try again.",
            Some(retry_after_seconds),
        ),
        Error::Unauthenticated
        | Error::Denied(_)
        | Error::NotFound(_)
        | Error::Invalid(_)
        | Error::Conflict(_)
        | Error::CannotDo(_) => {
            (StatusCode::OK, "That did not work. Check account and code, or ask for a new invitation.", None)
        }
        other => {
            let problem = Problem::from(other);
            (problem.code(), "The server has a problem. Try again in a few minutes.", problem.retry_after)
        }
    };
    let mut response = page(status, organization, appru, shortened(account), Some(problem));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn page(
    status: StatusCode,
    organization: &str,
    appru: &AppRu,
    account: &str,
    problem: Option<&'static str>,
) -> HttpResponse {
    let form = Form { style: STYLE, organization, appru: appru.as_str(), account, problem };
    enroll::html(status, form.render())
}

/// Sends itself to the return address. The script runs by a nonce of this answer alone.
fn done(appru: &AppRu, token: &SecretString) -> HttpResponse {
    let mut random = [0_u8; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        tracing::error!(cause = %error, "no randomness for a page");
        return HttpResponse::InternalServerError().finish();
    }
    let nonce = STANDARD.encode(random);
    let page = Done { style: STYLE, appru: appru.as_str(), token: token.expose_secret(), nonce: &nonce };
    let policy = enroll::policy(&format!("script-src 'nonce-{nonce}'; form-action {TARGETS}"));
    enroll::html_with(StatusCode::OK, page.render(), &policy)
}

fn foreign() -> HttpResponse {
    refusal(StatusCode::BAD_REQUEST, "Windows did not open this page")
}

fn refusal(status: StatusCode, title: &'static str) -> HttpResponse {
    enroll::refusal(status, title, "Begin again in Settings › Accounts › Access work or school.")
}

fn shortened(account: &str) -> &str {
    if account.len() > MAX_ACCOUNT { "" } else { account }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;

    const OWN: &str = "https://mdm.example.org";
    const SETTINGS: &str = "ms-app://windows.immersivecontrolpanel";

    fn appru(text: &str) -> AppRu {
        AppRu::parse(text, OWN).unwrap()
    }

    async fn text(response: HttpResponse) -> String {
        String::from_utf8(to_bytes(response.into_body()).await.unwrap().to_vec()).unwrap()
    }

    fn header(response: &HttpResponse, name: &str) -> String {
        response.headers().get(name).unwrap().to_str().unwrap().to_owned()
    }

    fn nonce(policy: &str) -> &str {
        policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap()
    }

    #[actix_web::test]
    async fn the_token_goes_to_windows_by_a_script_of_this_answer_alone() {
        let token = SecretString::from("t0ken\"><script>alert(1)</script>");
        let (first, second) = (done(&appru(SETTINGS), &token), done(&appru(SETTINGS), &token));
        let policy = header(&first, "content-security-policy");
        assert_ne!(nonce(&policy), nonce(&header(&second, "content-security-policy")), "a fresh nonce each");
        assert_eq!(STANDARD.decode(nonce(&policy)).unwrap().len(), 16);
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("form-action ms-app: ms-appx-web: ms-aad-brokerplugin: 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&first, "cache-control"), "no-store");
        assert_eq!(header(&first, "referrer-policy"), "no-referrer");
        assert_eq!(header(&first, "x-frame-options"), "DENY");
        let nonce = nonce(&policy);
        let page = text(first).await;
        assert!(page.contains(&format!("action=\"{SETTINGS}\"")), "{page}");
        assert!(page.contains(&format!("<script nonce=\"{nonce}\">")), "{page}");
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        assert!(page.contains("name=\"wresult\"") && page.contains("t0ken") && page.contains("<button"));
    }

    #[actix_web::test]
    async fn hostile_accounts_stay_text() {
        for polyglot in
            ["\"><script>alert(1)</script>", "'-alert(1)-'", "</title><img src=x onerror=alert(1)>"]
        {
            let response = page(StatusCode::OK, polyglot, &appru(SETTINGS), polyglot, None);
            assert!(!header(&response, "content-security-policy").contains("script-src"));
            let page = text(response).await.to_ascii_lowercase();
            assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("\"><"), "{page}");
        }
    }

    #[actix_web::test]
    async fn pages_are_accessible_and_say_what_was_wrong() {
        let wrong = again(Error::NotFound("invitation"), "Example", &appru(SETTINGS), "ada@example.org");
        assert_eq!(wrong.status(), 200, "an error's status would end the dialogue");
        let page = text(wrong).await;
        assert!(page.contains("role=\"alert\"") && page.contains("value=\"ada@example.org\""), "{page}");
        assert!(page.contains("<label for=\"account\"") && page.contains("<label for=\"code\""));
        assert!(page.contains(SETTINGS) && !page.contains("style=\""));
        let many = again(Error::TooMany { retry_after_seconds: 9 }, "Example", &appru(SETTINGS), "ada");
        assert_eq!((many.status().as_u16(), header(&many, "retry-after")), (429, "9".to_owned()));
        let broken = again(Error::Internal("hunter2".into()), "Example", &appru(SETTINGS), "ada");
        assert_eq!(broken.status(), 500);
        assert!(!text(broken).await.contains("hunter2"));
    }

    #[test]
    fn only_our_own_page_sends_the_form() {
        let own = |headers: &[(&'static str, &'static str)]| {
            let mut request = TestRequest::default();
            for header in headers {
                request = request.append_header(*header);
            }
            is_own_form(request.to_http_request().headers(), OWN)
        };
        for good in [
            &[][..],
            &[("origin", OWN)],
            &[("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("origin", OWN), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(own(good), "{good:?}");
        }
        for bad in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "https://mdm.example.org.evil.example")],
            &[("origin", "http://mdm.example.org")],
            &[("origin", "https://mdm.example.org:8443")],
            &[("origin", "null"), ("sec-fetch-site", "cross-site")],
            &[("origin", OWN), ("sec-fetch-site", "same-site")],
            &[("origin", OWN), ("origin", "https://evil.example")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert!(!own(bad), "{bad:?}");
        }
    }
}
