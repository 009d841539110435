//! `/apple/mdm`: check-in and command channel of Apple devices (spec/apple.md 2.1).

use crate::body;
use crate::edge::Edge;
use crate::tls::Peer;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bellwether_engine::AppleRequest;
use secrecy::SecretString;

/// A detached CMS with a chain, base64, has 2 to 4 KB; this leaves room for long chains.
const MAX_SIGNATURE: usize = 16 * 1024;

/// PUT (and POST, which a test client uses). The body says what it is; the content type is only a hint.
///
/// Never answers 401: it makes devices leave management.
pub async fn mdm(edge: web::Data<Edge>, req: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let signature = match signature(&req) {
        Ok(signature) => signature,
        Err(status) => return empty(status),
    };
    let body = match body::read(&edge, &req, &mut payload, edge.config.limits.device_body).await {
        Ok(body) => body,
        Err(error) => return empty(error.status()),
    };
    let content_type = req.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let reply = edge
        .engine
        .apple_request(AppleRequest {
            signature,
            tls_certificate: req.conn_data::<Peer>().and_then(|peer| peer.certificate_der.clone()),
            content_type: content_type.map(|text| text.chars().take(200).collect()),
            source: edge.source(&req),
            body: body.bytes,
        })
        .await;
    answer(reply.status, reply.content_type, reply.body)
}

/// The header `Mdm-Signature`: one, and of a sane size.
fn signature(req: &HttpRequest) -> Result<Option<SecretString>, u16> {
    let mut all = req.headers().get_all("mdm-signature");
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(400);
    }
    if first.len() > MAX_SIGNATURE {
        return Err(431);
    }
    let text = first.to_str().map_err(|_| 400_u16)?;
    Ok(Some(SecretString::from(text)))
}

fn empty(status: u16) -> HttpResponse {
    answer(status, "", Vec::new())
}

fn answer(status: u16, content_type: &str, body: Vec<u8>) -> HttpResponse {
    let mut status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::UNAUTHORIZED {
        // The last line of defence: whatever went wrong, a device must not leave management for it.
        tracing::error!("a 401 for /apple/mdm was turned into 403");
        status = StatusCode::FORBIDDEN;
    }
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "30"));
    }
    if body.is_empty() {
        // Clients take a Content-Length of exactly 0 for "no command".
        return response.finish();
    }
    if !content_type.is_empty() {
        response.insert_header((header::CONTENT_TYPE, content_type));
    }
    response.body(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::{BodySize, MessageBody as _};
    use actix_web::test::TestRequest;

    #[test]
    fn no_body_means_length_zero_and_401_never_leaves() {
        let response = answer(200, "application/xml", Vec::new());
        assert_eq!(response.body().size(), BodySize::Sized(0));
        assert!(response.headers().get(header::CONTENT_TYPE).is_none());
        assert_eq!(answer(401, "", Vec::new()).status(), 403);
        assert_eq!(answer(503, "", Vec::new()).headers().get("retry-after").unwrap(), "30");
    }

    #[test]
    fn signatures_are_single_and_bounded() {
        let plain = TestRequest::default().to_http_request();
        assert!(signature(&plain).unwrap().is_none());
        let one = TestRequest::default().insert_header(("Mdm-Signature", "AAAA")).to_http_request();
        assert!(signature(&one).unwrap().is_some());
        let two = TestRequest::default()
            .append_header(("Mdm-Signature", "AAAA"))
            .append_header(("mdm-signature", "BBBB"))
            .to_http_request();
        assert_eq!(signature(&two).err(), Some(400));
        let long =
            TestRequest::default().insert_header(("Mdm-Signature", "A".repeat(20_000))).to_http_request();
        assert_eq!(signature(&long).err(), Some(431));
    }
}
