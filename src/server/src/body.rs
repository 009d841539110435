//! Request bodies: size, time and memory are bounded before anybody parses.

use crate::edge::{Edge, Reservation};
use crate::problem::Problem;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use futures_util::StreamExt as _;
use std::time::Duration;

/// A package may take so many times longer than other bodies: half a gigabyte at 7 Mbit/s.
const PACKAGE_PATIENCE: u64 = 10;

/// A whole body. Its memory is accounted for until it is dropped.
pub struct Body {
    /// The bytes.
    pub bytes: Vec<u8>,
    _reservation: Reservation,
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More than so many bytes.
    TooLarge(usize),
    /// Not in time.
    TooSlow,
    /// The connection broke, or the framing is wrong.
    Broken,
    /// Compressed: not accepted, so that nothing can unfold.
    Encoded,
    /// Too many large bodies at the same time.
    Busy,
}

/// Reads a body of at most `limit` bytes.
pub async fn read(
    edge: &Edge,
    req: &HttpRequest,
    payload: &mut web::Payload,
    limit: usize,
) -> Result<Body, BodyError> {
    let patience = Duration::from_secs(edge.config.limits.request_seconds);
    read_into(edge.reserve(), req, payload, limit, patience).await
}

/// Reads a package of at most `limits.package_body` bytes.
pub async fn read_package(
    edge: &Edge,
    req: &HttpRequest,
    payload: &mut web::Payload,
) -> Result<Body, BodyError> {
    read_into(edge.reserve_upload(), req, payload, edge.config.limits.package_body, patience(edge)).await
}

/// The length that the client announced, of a body that is sent as it is.
pub fn announced(req: &HttpRequest) -> Result<Option<u64>, BodyError> {
    let header = |name| req.headers().get(name).and_then(|value| value.to_str().ok());
    if header(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity"))
    {
        return Err(BodyError::Encoded);
    }
    Ok(header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()))
}

/// Gives whoever takes a file as long as a package may take.
pub async fn in_time<T>(edge: &Edge, work: impl Future<Output = T>) -> Result<T, BodyError> {
    tokio::time::timeout(patience(edge), work).await.map_err(|_| BodyError::TooSlow)
}

/// How long a file may take.
fn patience(edge: &Edge) -> Duration {
    Duration::from_secs(edge.config.limits.request_seconds.saturating_mul(PACKAGE_PATIENCE))
}

async fn read_into(
    mut reservation: Reservation,
    req: &HttpRequest,
    payload: &mut web::Payload,
    limit: usize,
    patience: Duration,
) -> Result<Body, BodyError> {
    let announced = announced(req)?;
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(BodyError::TooLarge(limit));
    }
    let all = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| BodyError::Broken)?;
            if bytes.len().saturating_add(chunk.len()) > limit {
                return Err(BodyError::TooLarge(limit));
            }
            if !reservation.grow(chunk.len()) {
                return Err(BodyError::Busy);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Body { bytes, _reservation: reservation })
    };
    tokio::time::timeout(patience, all).await.unwrap_or(Err(BodyError::TooSlow))
}

impl BodyError {
    /// For endpoints that answer with a status alone.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge(_) => 413,
            Self::TooSlow => 408,
            Self::Broken => 400,
            Self::Encoded => 415,
            Self::Busy => 503,
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit) => Self::too_large(limit),
            BodyError::TooSlow => Self::too_slow(),
            BodyError::Broken => Self::invalid("the body did not arrive whole"),
            BodyError::Encoded => Self::unsupported("compressed bodies are not accepted; send it as it is"),
            BodyError::Busy => Self::unavailable("too many large requests at the moment"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::FromRequest as _;
    use actix_web::test::TestRequest;

    /// What comes of a body when there is memory for `most` bytes.
    async fn read_with(most: usize, body: &str) -> Result<usize, BodyError> {
        let (req, mut raw) = TestRequest::default().set_payload(body.to_owned()).to_http_parts();
        let mut payload = web::Payload::from_request(&req, &mut raw).await.unwrap();
        let patience = Duration::from_secs(10);
        read_into(Reservation::of(most), &req, &mut payload, 100, patience).await.map(|body| body.bytes.len())
    }

    #[actix_web::test]
    async fn at_51_bodies_take_no_more_memory_than_there_is() {
        assert_eq!(read_with(20, &"x".repeat(20)).await, Ok(20));
        assert_eq!(read_with(20, &"x".repeat(21)).await, Err(BodyError::Busy));
        assert_eq!(read_with(200, &"x".repeat(101)).await, Err(BodyError::TooLarge(100)));
    }
}
