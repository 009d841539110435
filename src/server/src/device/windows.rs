//! What Windows machines call: three SOAP services to enroll (spec/windows.md 2.1) and the address of their OMA-DM
//! sessions (3.1).
//!
//! Every answer is one message with a `Content-Length`: never in chunks, compressed or redirected. Query strings are
//! ignored, because Windows appends its own.

use crate::body::{self, BodyError};
use crate::edge::Edge;
use crate::problem::REQUEST_ID;
use crate::tls::Peer;
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_engine::{SessionRequest, SoapRequest, WindowsService};
use bellwether_windows::enrollment::{CONTENT_TYPE, ErrorType, Exchange, Fault, ReplyHeader, Subcode};
use secrecy::SecretString;

/// A request with attestation claims has less than 16 KB.
const MAX_SOAP: usize = 1024 * 1024;
/// What is read from a machine that shows no identity, so that it gets to read the refusal.
const MAX_ANONYMOUS: usize = 64 * 1024;
/// The least that a machine may send that shows an identity, not judged yet: results can be large. Smaller values of
/// `limits.device_body` are for the other dialects.
const MIN_SESSION: usize = 16 * 1024 * 1024;
/// A detached CMS in base64, or a certificate.
const MAX_HEADER: usize = 16 * 1024;

/// GET and HEAD of `Discovery.svc`: Windows looks whether there is a server at all (2.2).
pub async fn probe() -> HttpResponse {
    empty(StatusCode::OK)
}

/// `POST /EnrollmentServer/Discovery.svc`.
pub async fn discovery(edge: web::Data<Edge>, req: HttpRequest, payload: web::Payload) -> HttpResponse {
    soap(WindowsService::Discovery, &edge, &req, payload).await
}

/// `POST /EnrollmentServer/Policy.svc`.
pub async fn policy(edge: web::Data<Edge>, req: HttpRequest, payload: web::Payload) -> HttpResponse {
    soap(WindowsService::Policy, &edge, &req, payload).await
}

/// `POST /EnrollmentServer/Enrollment.svc`. On the device listener too: a renewal shows the old certificate in TLS.
pub async fn enrollment(edge: web::Data<Edge>, req: HttpRequest, payload: web::Payload) -> HttpResponse {
    soap(WindowsService::Enrollment, &edge, &req, payload).await
}

/// `POST /ManagementServer/MDM.svc`: one message of a session. Who shows no identity is refused unread.
pub async fn session(edge: web::Data<Edge>, req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let identity = match Identity::of(&edge, &req) {
        Ok(identity) => identity,
        Err(status) => return empty(status),
    };
    if identity.is_none() {
        let read = body::read(&edge, &req, &mut payload, MAX_ANONYMOUS).await;
        // Whatever it said is not looked at; that somebody tried is written down.
        let nobody = SessionRequest {
            body: Vec::new(),
            content_type: None,
            tls_certificate: None,
            signature: None,
            mode: None,
            proxy_certificate: None,
            source: edge.source(&req),
        };
        let reply = edge.engine.windows_session(nobody).await;
        let response = answer(reply.status, reply.content_type, reply.body);
        return if read.is_ok() { response } else { closing(response) };
    }
    let limit = edge.config.limits.device_body.max(MIN_SESSION);
    let body = match body::read(&edge, &req, &mut payload, limit).await {
        Ok(body) => body,
        Err(error) => return closing(empty(status(error.status()))),
    };
    let content_type = req.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let reply = edge
        .engine
        .windows_session(SessionRequest {
            body: body.bytes,
            content_type: content_type.map(|text| text.chars().take(200).collect()),
            tls_certificate: identity.tls,
            signature: identity.signature,
            mode: mode(req.query_string()),
            proxy_certificate: identity.proxy,
            source: edge.source(&req),
        })
        .await;
    answer(reply.status, reply.content_type, reply.body)
}

/// `mode` of the query that Windows appends.
fn mode(query: &str) -> Option<String> {
    let word = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "mode")?.1;
    (word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| word.into_owned())
}

/// What a machine shows of itself, unjudged.
struct Identity {
    tls: Option<Vec<u8>>,
    signature: Option<SecretString>,
    proxy: Option<Vec<u8>>,
}

impl Identity {
    fn of(edge: &Edge, req: &HttpRequest) -> Result<Self, StatusCode> {
        let proxy = proxied_certificate(edge, req)?;
        Ok(Self { tls: tls_certificate(req), signature: signature(req.headers())?, proxy })
    }

    fn is_none(&self) -> bool {
        self.tls.is_none() && self.signature.is_none() && self.proxy.is_none()
    }
}

/// The certificate that a trusted proxy saw and hands on, where one is configured (RFC 9440).
pub(super) fn proxied_certificate(edge: &Edge, req: &HttpRequest) -> Result<Option<Vec<u8>>, StatusCode> {
    match &edge.config.client_certificate_header {
        Some(name) if edge.is_behind_proxy(req) => {
            single(req.headers(), name.as_str())?.map(proxy_certificate).transpose()
        }
        _ => Ok(None),
    }
}

async fn soap(
    service: WindowsService,
    edge: &Edge,
    req: &HttpRequest,
    mut payload: web::Payload,
) -> HttpResponse {
    let trace_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
    if edge.engine.is_disk_full() {
        return unread(BodyError::Busy, service, trace_id);
    }
    let body = match body::read(edge, req, &mut payload, MAX_SOAP).await {
        Ok(body) => body,
        Err(error) => return unread(error, service, trace_id),
    };
    let request = SoapRequest {
        service,
        body: body.bytes,
        tls_certificate: tls_certificate(req),
        source: edge.source(req),
        trace_id,
    };
    let reply = edge.engine.windows_enrollment(request).await;
    answer(reply.status, CONTENT_TYPE, reply.body)
}

/// A body that did not arrive whole, with the status that says so and the fault that Windows can show. What was not
/// read cannot be related to.
fn unread(error: BodyError, service: WindowsService, trace_id: String) -> HttpResponse {
    let exchange = match service {
        WindowsService::Discovery => Exchange::Discover,
        WindowsService::Policy => Exchange::GetPolicies,
        WindowsService::Enrollment => Exchange::RequestSecurityToken,
    };
    let (subcode, words) = match error {
        BodyError::TooLarge(_) => (Subcode::MessageFormat, "the message is too large"),
        BodyError::TooSlow => (Subcode::MessageFormat, "the message took too long"),
        BodyError::Broken => (Subcode::MessageFormat, "the message did not arrive whole"),
        BodyError::Encoded => (Subcode::MessageFormat, "compressed messages are not accepted"),
        BodyError::Busy => (Subcode::InternalServiceFault, "the server is busy; try again later"),
    };
    let fault = Fault::new(subcode, words, trace_id);
    let fault = if error == BodyError::Busy { fault.with_type(ErrorType::InMaintenance) } else { fault };
    let bytes = fault.encode(exchange, &ReplyHeader::default()).unwrap_or_default();
    closing(answer(error.status(), CONTENT_TYPE, bytes))
}

fn tls_certificate(req: &HttpRequest) -> Option<Vec<u8>> {
    req.conn_data::<Peer>().and_then(|peer| peer.certificate_der.clone())
}

/// `MDM-Signature` or `MS-Signature`, depending on the build: one of them, once (3.1).
fn signature(headers: &HeaderMap) -> Result<Option<SecretString>, StatusCode> {
    let found = match (single(headers, "mdm-signature")?, single(headers, "ms-signature")?) {
        (Some(_), Some(_)) => return Err(StatusCode::BAD_REQUEST),
        (one, other) => one.or(other),
    };
    Ok(found.map(SecretString::from))
}

/// RFC 9440 2.2: a structured field of bytes, `:base64:`. It comes from a proxy of ours, so that anything else is a
/// misconfiguration and never passed over in silence.
fn proxy_certificate(value: &str) -> Result<Vec<u8>, StatusCode> {
    let bytes = value.trim().strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    bytes
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|der| !der.is_empty())
        .ok_or(StatusCode::BAD_REQUEST)
}

/// A header that stands at most once, is text and has a sane size.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, StatusCode> {
    let mut all = headers.get_all(name);
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    if first.len() > MAX_HEADER {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    first.to_str().map(Some).map_err(|_| StatusCode::BAD_REQUEST)
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn empty(status: StatusCode) -> HttpResponse {
    answer(status.as_u16(), "", Vec::new())
}

fn answer(code: u16, content_type: &'static str, body: Vec<u8>) -> HttpResponse {
    let status = status(code);
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "30"));
    }
    let refused = status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN;
    if body.is_empty() || refused {
        // With a Content-Length of 0; a refusal has nothing to say.
        return response.finish();
    }
    response.insert_header((header::CONTENT_TYPE, content_type)).body(body)
}

/// The rest of the request is not worth reading.
fn closing(mut response: HttpResponse) -> HttpResponse {
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::{BodySize, MessageBody as _, to_bytes};
    use actix_web::test::TestRequest;
    use secrecy::ExposeSecret as _;

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        let found = signature(request.to_http_request().headers());
        found.map(|text| text.map(|text| text.expose_secret().to_owned())).map_err(|status| status.as_u16())
    }

    #[test]
    fn one_signature_of_either_name() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("MDM-Signature", "AAAA")]), Ok(Some("AAAA".into())));
        assert_eq!(read(&[("MS-Signature", "BBBB")]), Ok(Some("BBBB".into())));
        assert_eq!(read(&[("MDM-Signature", "AAAA"), ("MS-Signature", "AAAA")]), Err(400));
        assert_eq!(read(&[("MS-Signature", "AAAA"), ("ms-signature", "AAAA")]), Err(400));
        assert_eq!(read(&[("MDM-Signature", "caf\u{e9}")]), Err(400));
        assert_eq!(read(&[("MDM-Signature", &"A".repeat(MAX_HEADER))]).map(|_| ()), Ok(()));
        assert_eq!(read(&[("MDM-Signature", &"A".repeat(MAX_HEADER + 1))]), Err(431));
    }

    #[test]
    fn a_proxys_certificate_is_bytes_between_colons() {
        assert_eq!(proxy_certificate(":MAA=:"), Ok(vec![0x30, 0]));
        assert_eq!(proxy_certificate(" :MAA=: "), Ok(vec![0x30, 0]));
        for wrong in
            ["", ":", "::", "MAA=", ":MAA=", "MAA=:", ":M A A=:", ":MAA=:;a=1", ":MAA=:, :MAA=:", ":*:"]
        {
            assert_eq!(proxy_certificate(wrong), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
    }

    #[test]
    fn refusals_are_empty() {
        for code in [401, 403] {
            let response = answer(code, CONTENT_TYPE, b"why".to_vec());
            assert_eq!(response.status().as_u16(), code);
            assert_eq!(response.body().size(), BodySize::Sized(0));
            assert!(response.headers().get(header::CONTENT_TYPE).is_none());
        }
        let response = answer(200, CONTENT_TYPE, b"<x/>".to_vec());
        assert_eq!(response.body().size(), BodySize::Sized(4));
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), CONTENT_TYPE);
        assert_eq!(answer(503, "", Vec::new()).headers().get("retry-after").unwrap(), "30");
        assert_eq!(answer(9999, "", Vec::new()).status(), 500);
    }

    #[actix_web::test]
    async fn what_was_not_read_is_answered_in_soap() {
        for (error, code, words) in [
            (BodyError::TooLarge(1), 413, "s:MessageFormat"),
            (BodyError::TooSlow, 408, "s:MessageFormat"),
            (BodyError::Broken, 400, "s:MessageFormat"),
            (BodyError::Encoded, 415, "s:MessageFormat"),
            (BodyError::Busy, 503, "InMaintenance"),
        ] {
            let response = unread(error, WindowsService::Policy, "trace-1".into());
            assert_eq!(response.status().as_u16(), code);
            assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), CONTENT_TYPE);
            assert_eq!(response.head().connection_type(), ConnectionType::Close);
            let text = to_bytes(response.into_body()).await.unwrap();
            let text = std::str::from_utf8(&text).unwrap();
            assert!(text.contains(words) && text.contains("trace-1"), "{text}");
            assert!(text.contains("GetPoliciesResponse"), "{text}");
        }
    }
}
