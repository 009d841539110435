//! `/enroll`: what a person with an invitation sees. GET and HEAD neither consume nor mint; the profile is a POST.

use crate::body;
use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_apple::family::{Family, Guess};
use bellwether_engine::{Error, OpenInvitation};
use bellwether_model::Platform;
use bellwether_windows::enrollment::address::deep_link;
use std::sync::LazyLock;

/// The longest code that is looked at. Links have 27 characters.
pub const MAX_CODE: usize = 100;
/// A form has one or two short fields.
const MAX_FORM: usize = 16 * 1024;
/// The one style sheet of every page.
pub const STYLE: &str = include_str!("../templates/enroll.css");

/// No script, no other origin, no frame; the one style sheet by its hash.
static POLICY: LazyLock<String> = LazyLock::new(|| policy("form-action 'self'"));

#[derive(Template)]
#[template(path = "enroll.html")]
struct Page<'a> {
    style: &'static str,
    organization: &'a str,
    person: Option<&'a str>,
    until: String,
    test_only: bool,
    own_ca: bool,
    /// The devices to offer a profile to: form value and words.
    offers: &'a [(&'static str, &'static str)],
    ios: bool,
    mac: bool,
    code: &'a str,
    link: &'a str,
    qr: String,
}

#[derive(Template)]
#[template(path = "enroll_windows.html")]
struct WindowsPage<'a> {
    style: &'static str,
    organization: &'a str,
    person: Option<&'a str>,
    until: String,
    test_only: bool,
    own_ca: bool,
    /// Whether the browser runs on Windows.
    here: bool,
    /// The user name that Windows asks for.
    account: Option<&'a str>,
    /// The server that Windows asks for.
    server: &'a str,
    /// The password that Windows asks for.
    code: &'a str,
    /// Opens Windows' own dialogue; empty elsewhere.
    deep_link: String,
    link: &'a str,
    qr: String,
}

#[derive(Template)]
#[template(path = "enroll_code.html")]
struct CodeForm {
    style: &'static str,
}

#[derive(Template)]
#[template(path = "enroll_refused.html")]
struct Refused {
    style: &'static str,
    title: &'static str,
    text: &'static str,
}

/// `GET /enroll/{code}`.
pub async fn page(edge: web::Data<Edge>, req: HttpRequest, code: web::Path<String>) -> HttpResponse {
    show(&edge, &req, &code).await
}

/// `GET /enroll`: where a code is typed.
pub async fn form() -> HttpResponse {
    html(StatusCode::OK, CodeForm { style: STYLE }.render())
}

/// `POST /enroll` with the field `code`: the page of that code.
pub async fn typed(edge: web::Data<Edge>, req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let fields = match fields(&edge, &req, &mut payload).await {
        Ok(fields) => fields,
        Err(response) => return response,
    };
    let code = field(&fields, "code").unwrap_or_default();
    show(&edge, &req, code.trim()).await
}

/// `POST /enroll/{code}`: mints a challenge and answers the profile.
pub async fn download(
    edge: web::Data<Edge>,
    req: HttpRequest,
    code: web::Path<String>,
    mut payload: web::Payload,
) -> HttpResponse {
    let fields = match fields(&edge, &req, &mut payload).await {
        Ok(fields) => fields,
        Err(response) => return response,
    };
    if code.len() > MAX_CODE {
        return refused();
    }
    let query = pairs(req.query_string().as_bytes());
    let unsigned = field(&query, "format") == Some("unsigned");
    let family = match field(&fields, "family").or(field(&query, "family")) {
        Some("iphone") => Family::Iphone,
        Some("ipad") => Family::Ipad,
        Some("mac") => Family::Mac,
        Some("appletv") => Family::AppleTv,
        Some("vision") => Family::Vision,
        Some("watch") => Family::Watch,
        _ => match Family::from_user_agent(user_agent(&req), None) {
            Guess::Known(family) => family,
            // Without the page's choice a "Macintosh" is taken for what it says.
            Guess::MacOrIpad => Family::Mac,
            Guess::NotApple => Family::Unknown,
        },
    };
    let source = edge.source(&req);
    match edge.engine.mint_profile(&code, family, unsigned, source.as_deref()).await {
        Ok(file) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, file.content_type))
            .insert_header((
                header::CONTENT_DISPOSITION,
                format!("attachment; filename=\"{}\"", file.file_name),
            ))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(file.bytes),
        Err(error) => not_today(error),
    }
}

/// `GET /tls-ca.pem`: our own TLS CA, for the step before enrollment.
pub async fn tls_ca_pem(edge: web::Data<Edge>) -> HttpResponse {
    match &edge.tls_ca {
        Some(der) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "application/x-pem-file"))
            .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"tls-ca.pem\""))
            .body(bellwether_certs::cert::ders_to_pem(&[der])),
        None => refused(),
    }
}

/// `GET /tls-ca.crt`: the same as DER, which iPhones and Macs install by opening it.
pub async fn tls_ca_der(edge: web::Data<Edge>) -> HttpResponse {
    match &edge.tls_ca {
        Some(der) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "application/x-x509-ca-cert"))
            .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"tls-ca.crt\""))
            .body(der.clone()),
        None => refused(),
    }
}

async fn show(edge: &Edge, req: &HttpRequest, code: &str) -> HttpResponse {
    if code.is_empty() || code.len() > MAX_CODE {
        return refused();
    }
    let source = edge.source(req);
    match edge.engine.open_invitation(code, source.as_deref()).await {
        Ok(invitation) => {
            let link = format!("{}/enroll/{code}", edge.public_url);
            let (agent, own_ca) = (user_agent(req), edge.tls_ca.is_some());
            let page = match invitation.platform {
                Platform::Windows => {
                    let server = edge.engine.windows_discovery_url();
                    render_windows(&invitation, agent, code, &link, &server, own_ca)
                }
                Platform::Apple | Platform::Android => render(&invitation, agent, code, &link, own_ca),
            };
            html(StatusCode::OK, page)
        }
        Err(error) => not_today(error),
    }
}

fn render(
    invitation: &OpenInvitation,
    user_agent: &str,
    code: &str,
    link: &str,
    own_ca: bool,
) -> Result<String, askama::Error> {
    const IPHONE: (&str, &str) = ("iphone", "this iPhone");
    const IPAD: (&str, &str) = ("ipad", "this iPad");
    const MAC: (&str, &str) = ("mac", "this Mac");
    let guess = match invitation.platform {
        Platform::Apple => Family::from_user_agent(user_agent, None),
        Platform::Windows | Platform::Android => Guess::NotApple,
    };
    let offers: &[(&str, &str)] = match guess {
        Guess::Known(Family::Iphone | Family::Ipod) => &[IPHONE],
        Guess::Known(Family::Ipad) => &[IPAD],
        Guess::Known(Family::Mac) => &[MAC],
        Guess::Known(Family::AppleTv) => &[("appletv", "this Apple TV")],
        Guess::Known(Family::Vision) => &[("vision", "this Apple Vision")],
        Guess::Known(Family::Watch) => &[("watch", "this Apple Watch")],
        // iPadOS calls itself a Macintosh: the person knows better than we do.
        Guess::MacOrIpad => &[MAC, IPAD],
        Guess::Known(Family::Unknown) | Guess::NotApple => &[],
    };
    let has = |name: &str| offers.iter().any(|(value, _)| *value == name);
    Page {
        style: STYLE,
        organization: &invitation.organization,
        person: invitation.person.as_deref(),
        until: crate::clock::for_people(invitation.expires_at),
        test_only: invitation.test_only,
        own_ca,
        offers,
        ios: offers.is_empty() || offers.iter().any(|(value, _)| *value != "mac"),
        mac: offers.is_empty() || has("mac"),
        code,
        link,
        qr: if offers.is_empty() { qr_svg(link) } else { String::new() },
    }
    .render()
}

/// Windows downloads nothing: it is told three values, by the person or by a link (spec/windows.md 2.2).
fn render_windows(
    invitation: &OpenInvitation,
    user_agent: &str,
    code: &str,
    link: &str,
    server: &str,
    own_ca: bool,
) -> Result<String, askama::Error> {
    // Windows Phone says so in other words.
    let here = user_agent.contains("Windows NT ");
    let account = invitation.account.as_deref();
    let deep_link = account.filter(|_| here).and_then(|account| deep_link(account, server, None).ok());
    WindowsPage {
        style: STYLE,
        organization: &invitation.organization,
        person: invitation.person.as_deref(),
        until: crate::clock::for_people(invitation.expires_at),
        test_only: invitation.test_only,
        own_ca,
        here,
        account,
        server,
        code,
        deep_link: deep_link.unwrap_or_default(),
        link,
        qr: if here { String::new() } else { qr_svg(link) },
    }
    .render()
}

/// Unknown, expired, revoked, used: the same page, so that nobody learns which.
fn refused() -> HttpResponse {
    let text = "It may be mistyped, used, expired or withdrawn. Ask the person who sent it for a new one.";
    refusal(StatusCode::NOT_FOUND, "This link does not work", text)
}

/// A page that only says no.
pub fn refusal(status: StatusCode, title: &'static str, text: &'static str) -> HttpResponse {
    html(status, Refused { style: STYLE, title, text }.render())
}

fn not_today(error: Error) -> HttpResponse {
    match error {
        Error::TooMany { retry_after_seconds } => {
            let text = "There were too many attempts from here. Wait some minutes and try again.";
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "Please wait", text);
            response.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
            response
        }
        Error::NotFound(_) | Error::Invalid(_) | Error::Conflict(_) | Error::CannotDo(_) => refused(),
        other => {
            let text = "The server has a problem. Try again in a few minutes.";
            refusal(Problem::from(other).code(), "Not at the moment", text)
        }
    }
}

/// A page of ours without any script.
pub fn html(status: StatusCode, page: Result<String, askama::Error>) -> HttpResponse {
    html_with(status, page, &POLICY)
}

/// A page with a policy of its own, made by [`policy`].
pub fn html_with(status: StatusCode, page: Result<String, askama::Error>, policy: &str) -> HttpResponse {
    match page {
        Ok(page) => HttpResponse::build(status)
            .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
            .insert_header((header::CONTENT_SECURITY_POLICY, policy))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .insert_header((header::X_FRAME_OPTIONS, "DENY"))
            .body(page),
        Err(error) => {
            tracing::error!(cause = %error, "a page could not be rendered");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Nothing but the one style sheet and what is added; `added` must name a `form-action`.
pub fn policy(added: &str) -> String {
    let hash = STANDARD.encode(bellwether_certs::hash::sha256(STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; {added}; frame-ancestors 'none'; base-uri 'none'")
}

/// A QR code as one path; own drawing, so that no style attribute is needed.
fn qr_svg(text: &str) -> String {
    use std::fmt::Write as _;
    let Ok(code) = fast_qr::QRBuilder::new(text).build() else { return String::new() };
    let side = code.size;
    let mut path = String::new();
    for (y, row) in code.data.chunks(side).take(side).enumerate() {
        for (x, module) in row.iter().enumerate().filter(|(_, module)| module.value()) {
            let _ = write!(path, "M{} {}h1v1h-1z", x + 4, y + 4);
            let _ = module;
        }
    }
    let size = side + 8;
    format!(
        "<svg class=\"qr\" viewBox=\"0 0 {size} {size}\" role=\"img\" aria-label=\"QR code of the link below\">\
         <path class=\"paper\" d=\"M0 0h{size}v{size}h-{size}z\"/><path class=\"ink\" d=\"{path}\"/></svg>"
    )
}

fn user_agent(req: &HttpRequest) -> &str {
    let text = req.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    text.filter(|text| text.len() <= 1024).unwrap_or_default()
}

/// The fields of a form or query.
pub type Fields = Vec<(String, String)>;

/// Reads a short form.
pub async fn fields(
    edge: &Edge,
    req: &HttpRequest,
    payload: &mut web::Payload,
) -> Result<Fields, HttpResponse> {
    match body::read(edge, req, payload, MAX_FORM).await {
        Ok(body) => Ok(pairs(&body.bytes)),
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            Err(HttpResponse::build(status).finish())
        }
    }
}

/// The first few fields of a form or query.
pub fn pairs(text: &[u8]) -> Fields {
    url::form_urlencoded::parse(text).take(16).map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
}

/// The first of that name.
pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_model::Timestamp;

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15";
    const SAFARI: &str =
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari/605.1.15";
    const LINUX: &str = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/133.0";

    const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Edg/131.0.0.0";

    fn invitation(person: &str) -> OpenInvitation {
        OpenInvitation {
            platform: Platform::Apple,
            organization: "Ex & Ample <GmbH>".into(),
            person: Some(person.into()),
            account: Some("ada@example.org".into()),
            expires_at: Timestamp(1_800_000_000_000),
            test_only: false,
        }
    }

    fn shown(user_agent: &str) -> String {
        render(&invitation("Ada"), user_agent, "CODE", "https://mdm.example.org/enroll/CODE", true).unwrap()
    }

    #[test]
    fn each_device_is_offered_its_own_profile() {
        let iphone = shown(IPHONE);
        assert!(
            iphone.contains("value=\"iphone\"")
                && !iphone.contains("value=\"mac\"")
                && !iphone.contains("<svg")
        );
        let mac = shown(SAFARI);
        assert!(mac.contains("value=\"mac\"") && mac.contains("value=\"ipad\""), "iPadOS claims to be a Mac");
        let other = shown(LINUX);
        assert!(other.contains("<svg") && other.contains("https://mdm.example.org/enroll/CODE"));
        assert!(!other.contains("<form"), "nothing to download for a device that cannot use it");
    }

    fn windows(person: &str, account: Option<&str>, user_agent: &str, own_ca: bool) -> String {
        let account = account.map(str::to_owned);
        let invitation = OpenInvitation { platform: Platform::Windows, account, ..invitation(person) };
        let (link, server) = ("https://mdm.example.org/enroll/CODE", "https://mdm.example.org/d?a=b");
        render_windows(&invitation, user_agent, "CODE", link, server, own_ca).unwrap()
    }

    #[test]
    fn windows_is_told_its_three_values() {
        let page = windows("Ada", Some("ada@example.org"), WINDOWS, true);
        for value in
            ["Enroll only in device management", "ada@example.org", "https://mdm.example.org/d?a=b", "CODE"]
        {
            assert!(page.contains(value), "{value}: {page}");
        }
        let begin = "ms-device-enrollment:?mode=mdm";
        assert!(page.contains(begin) && page.contains("ada%40example.org"), "{page}");
        assert!(page.contains("/tls-ca.crt") && page.contains("Trusted Root Certification Authorities"));
        assert!(!page.contains("<form") && !page.contains("Safari") && !page.contains("<svg"));
        // Without an account there is nothing to begin with, and a certificate of a known CA needs no step.
        let page = windows("Ada", None, WINDOWS, false);
        assert!(!page.contains(begin) && !page.contains("tls-ca"), "{page}");
        // Elsewhere the link leads to the computer.
        for other in [LINUX, IPHONE, SAFARI] {
            let page = windows("Ada", Some("ada@example.org"), other, true);
            assert!(page.contains("<svg") && page.contains("https://mdm.example.org/enroll/CODE"));
            assert!(!page.contains("<form") && !page.contains(begin) && !page.contains("value=\"iphone\""));
        }
    }

    #[test]
    fn hostile_names_stay_text() {
        for polyglot in [
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "'-alert(1)-'",
            "jaVasCript:/*-/*`/*\\`/*'/*\"/**/(/* */oNcliCk=alert() )//%0D%0A</stYle/</titLe/</teXtarEa/</scRipt/--!>\\x3csVg/<sVg/oNloAd=alert()//>\\x3e",
            "</style><svg onload=alert(1)>",
        ] {
            let page = render(&invitation(polyglot), LINUX, polyglot, polyglot, true).unwrap();
            let rest = page.replace(STYLE, "").replace(&qr_svg(polyglot), "");
            for tag in ["<script", "<img", "<svg onload", "<svg/", "</style><svg"] {
                assert!(!rest.to_ascii_lowercase().contains(tag), "{tag} of {polyglot}");
            }
            assert!(!rest.contains("\"><img") && !rest.contains("onerror=alert(1)>"));
            let page = windows(polyglot, Some(polyglot), WINDOWS, true);
            let rest = page.replace(STYLE, "").to_ascii_lowercase();
            for part in ["<script", "<img", "<svg", "\"><", "href=\"javascript"] {
                assert!(!rest.contains(part), "{part} of {polyglot}");
            }
        }
    }

    #[test]
    fn pages_are_accessible_and_self_contained() {
        let form = CodeForm { style: STYLE }.render().unwrap();
        let ours = windows("Ada", Some("ada"), WINDOWS, true);
        for page in [shown(IPHONE), shown(SAFARI), shown(LINUX), form, ours] {
            assert!(page.contains("<html lang=\"en\"") && page.contains("<h1") && page.contains("<title>"));
            assert!(page.contains("name=\"viewport\"") && page.contains("<main"));
            assert!(!page.contains("style=\"") && !page.contains("<script") && !page.contains("http-equiv"));
            assert!(!page.contains("src=\"http") && !page.contains("url("));
        }
        assert!(STYLE.contains("prefers-color-scheme: dark"));
        assert!(!STYLE.contains('<'));
    }

    #[test]
    fn refusals_are_one_page() {
        let page = |error| {
            let response = not_today(error);
            (response.status(), response.headers().get("content-security-policy").cloned())
        };
        assert_eq!(page(Error::NotFound("invitation")), page(Error::Conflict("used".into())));
        assert_eq!(page(Error::NotFound("invitation")).0, 404);
        assert_eq!(page(Error::TooMany { retry_after_seconds: 5 }).0, 429);
    }
}
