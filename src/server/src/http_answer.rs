//! What the clients of push services and of Entra ID have in common: reading answers within bounds.

use bellwether_model::Timestamp;
use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::error::Error;

/// `Retry-After`, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Milliseconds from now.
    In(i64),
    /// A date.
    At(Timestamp),
}

impl RetryAfter {
    /// Milliseconds from `now`; nothing for a date that is over.
    pub fn millis(self, now: Timestamp) -> Option<i64> {
        match self {
            Self::In(millis) => Some(millis),
            Self::At(date) => Some(date.since(now)).filter(|millis| *millis > 0),
        }
    }
}

/// RFC 9110 10.2.3: seconds, or a date.
pub fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds: i64 = text.parse().unwrap_or(i64::MAX);
        return Some(RetryAfter::In(seconds.saturating_mul(1000)));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(RetryAfter::At(Timestamp(date.as_millisecond())))
}

/// The beginning of an answer whose status has decided already: what cannot be read is left out.
pub async fn beginning(mut response: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < most
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend(chunk.iter().take(most.saturating_sub(body.len())));
    }
    body
}

/// Why an answer could not be read to its end.
#[derive(Debug)]
pub enum Unread {
    /// It is longer than it may be.
    TooLong,
    /// Without its URL.
    Lost(reqwest::Error),
}

/// A whole answer, if it is no longer than `most`.
pub async fn whole(mut response: Response, most: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Unread::Lost(e.without_url()))? {
        if body.len().saturating_add(chunk.len()) > most {
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many repeat what they wrap.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("120"), Some(RetryAfter::In(120_000)));
        assert_eq!(of("99999999999999999999999"), Some(RetryAfter::In(i64::MAX)));
        let date = Timestamp(784_111_777_000);
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(RetryAfter::At(date)));
        assert_eq!(RetryAfter::At(date).millis(date.plus(-5000)), Some(5000));
        assert_eq!(RetryAfter::At(date).millis(date.plus(5000)), None);
        for wrong in ["", "-1", "soon", "1.5"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
