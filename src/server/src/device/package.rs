//! `/packages/{token}`: what devices fetch (RFC 9110 §14). The token in the path is the right to fetch; a client
//! certificate, if there is one in TLS or from a trusted proxy, must be the device's own (AT-37).

use super::windows;
use crate::edge::Edge;
use crate::tls::Peer;
use actix_web::body::{BodySize, BoxBody, MessageBody, SizedStream};
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use bellwether_engine::PackageFile;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// GET and HEAD. Every refusal is the same empty 404.
pub async fn fetch(edge: web::Data<Edge>, req: HttpRequest, token: web::Path<String>) -> HttpResponse {
    let Ok(proxied) = windows::proxied_certificate(&edge, &req) else {
        return HttpResponse::NotFound().finish();
    };
    let own = req.conn_data::<Peer>().and_then(|peer| peer.certificate_der.as_deref());
    let file = match edge.engine.package_by_token(&token, proxied.as_deref().or(own)).await {
        Ok(Some(file)) => file,
        Ok(None) => return HttpResponse::NotFound().finish(),
        Err(error) => {
            tracing::error!(cause = %error, "a package could not be looked up");
            return HttpResponse::ServiceUnavailable().insert_header((header::RETRY_AFTER, "30")).finish();
        }
    };
    let etag = format!("\"{}\"", hex(&file.sha256));
    if is_known(req.headers(), &etag) {
        return HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish();
    }
    let head = req.method() == Method::HEAD;
    // A range has a meaning for GET only (RFC 9110 §14.2).
    let range = if head { Range::Whole } else { wanted(req.headers(), &etag, file.size) };
    let (start, end) = match range {
        Range::Whole => (0, file.size),
        Range::Part(start, end) => (start, end),
        Range::Outside => {
            return HttpResponse::RangeNotSatisfiable()
                .insert_header((header::CONTENT_RANGE, format!("bytes */{}", file.size)))
                .insert_header((header::ACCEPT_RANGES, "bytes"))
                .finish();
        }
    };
    let partial = matches!(range, Range::Part(..));
    let mut response =
        HttpResponse::build(if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    response
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::ETAG, etag))
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}\"", file_name(&file.name, file.kind.as_str())),
        ));
    if partial {
        let last = end.saturating_sub(1);
        response.insert_header((header::CONTENT_RANGE, format!("bytes {start}-{last}/{}", file.size)));
    }
    if head {
        return response.body(BoxBody::new(Announced(end)));
    }
    response.body(SizedStream::new(end - start, pieces(edge, file, start, end)))
}

/// The bytes, piece by piece. A package that is deleted meanwhile breaks the transfer off.
fn pieces(
    edge: web::Data<Edge>,
    file: PackageFile,
    start: u64,
    end: u64,
) -> impl futures_util::Stream<Item = Result<Bytes, actix_web::Error>> + 'static {
    futures_util::stream::try_unfold(start, move |at| {
        let (edge, file) = (edge.clone(), file.clone());
        async move {
            if at >= end {
                return Ok(None);
            }
            let piece = edge.engine.package_piece(&file, at, end).await.map_err(|error| {
                tracing::warn!(cause = %error, "a transfer of a package was broken off");
                actix_web::error::ErrorInternalServerError("broken off")
            })?;
            let next = at.saturating_add(piece.len() as u64);
            Ok::<_, actix_web::Error>(Some((Bytes::from(piece), next)))
        }
    })
}

/// The answer to HEAD: a length, and no byte read.
struct Announced(u64);

impl MessageBody for Announced {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

/// What of a file is wanted: from, and up to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part(u64, u64),
    Outside,
}

/// One range is given as asked; several, or what is no range, get the whole file (RFC 9110 §14.2 allows both).
fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Range {
    let mut all = headers.get_all(header::RANGE);
    let (Some(only), None) = (all.next(), all.next()) else { return Range::Whole };
    // Only the same strong tag continues a transfer; a date never does, since we give none.
    if headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes()) {
        return Range::Whole;
    }
    only.to_str().map_or(Range::Whole, |text| range(text, size))
}

fn range(text: &str, size: u64) -> Range {
    let Some((unit, set)) = text.split_once('=') else { return Range::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Range::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Range::Whole;
    }
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // More than fits is more than any file has.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first, last, number(first), number(last)) {
        ("", _, _, Some(suffix)) if suffix > 0 && size > 0 => Range::Part(size.saturating_sub(suffix), size),
        ("", _, _, Some(_)) => Range::Outside,
        (_, "", Some(start), _) if start < size => Range::Part(start, size),
        (_, "", Some(_), _) => Range::Outside,
        (_, _, Some(start), Some(last)) if start <= last => {
            if start < size {
                Range::Part(start, last.saturating_add(1).min(size))
            } else {
                Range::Outside
            }
        }
        _ => Range::Whole,
    }
}

/// Whether the client has the file already (`If-None-Match`).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// A file name that says the same to every client: ASCII, no path, no quote, with the ending of its kind.
fn file_name(name: &str, ending: &str) -> String {
    let base: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' })
        .take(80)
        .collect();
    let base = base.trim_matches('.');
    let base = base.strip_suffix(&format!(".{ending}")).unwrap_or(base);
    format!("{}.{ending}", if base.is_empty() { "package" } else { base })
}

fn hex(bytes: &[u8]) -> String {
    bellwether_certs::hash::hex(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (text, expected) in [
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=0-99", Range::Part(0, 10)),
            ("bytes=3-", Range::Part(3, 10)),
            ("BYTES=3-5", Range::Part(3, 6)),
            ("bytes=-4", Range::Part(6, 10)),
            ("bytes=-40", Range::Part(0, 10)),
            ("bytes=9-18446744073709551616", Range::Part(9, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=10-11", Range::Outside),
            ("bytes=99999999999999999999-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-3", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("items=0-1", Range::Whole),
            ("0-1", Range::Whole),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
        assert_eq!(range("bytes=-5", 0), Range::Outside);
        assert_eq!(range("bytes=0-", 0), Range::Outside);
    }

    #[test]
    fn at_56_names_are_never_paths() {
        for (name, expected) in [
            ("Tool", "Tool.msi"),
            ("Tool.msi", "Tool.msi"),
            ("../../etc/passwd", "_.._etc_passwd.msi"),
            ("a\"; filename=\"b.exe", "a___filename__b.exe.msi"),
            ("Grüße", "Gr__e.msi"),
            ("...", "package.msi"),
            ("a\\b\r\nX: y", "a_b__X__y.msi"),
            (&"x".repeat(300), &format!("{}.msi", "x".repeat(80))),
        ] {
            assert_eq!(file_name(name, "msi"), expected, "{name}");
        }
    }
}
