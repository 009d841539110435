//! What handlers take: bounded, complete, and with unknown fields refused.

use crate::body;
use crate::edge::Edge;
use crate::problem::Problem;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwether_model::SiteId;
use futures_util::future::LocalBoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::future::{Ready, ready};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;

/// A JSON body. An empty body counts as `{}`.
pub struct Input<T>(pub T);

/// The body of a call that has nothing to say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The query string.
pub struct Query<T>(pub T);

/// The header `Idempotency-Key`, if it was sent.
pub struct IdempotencyKey(pub Option<String>);

/// Which site.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SiteQuery {
    /// The site's id; without it the default site.
    #[param(value_type = Option<uuid::Uuid>)]
    pub site: Option<SiteId>,
}

/// A page of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The site's id; without it the default site.
    #[param(value_type = Option<uuid::Uuid>)]
    pub site: Option<SiteId>,
    /// Rows of a page: 1 to 500, 50 without it.
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// Key of the page and rows of a page.
    pub fn page(&self) -> Result<(Option<Vec<u8>>, i64), Problem> {
        page(self.cursor.as_deref(), self.limit)
    }
}

/// Reads a cursor and a limit.
pub fn page(cursor: Option<&str>, limit: Option<i64>) -> Result<(Option<Vec<u8>>, i64), Problem> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::invalid(format!("limit is between 1 and {MAX_LIMIT}")));
    }
    let wrong =
        || Problem::invalid("this cursor is not one of ours; take \"next\" of the page before as it is");
    let key = cursor.map(|text| {
        if text.len() > 400 { Err(wrong()) } else { URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong()) }
    });
    Ok((key.transpose()?, limit))
}

/// The other direction.
pub fn cursor(next: Option<Vec<u8>>) -> Option<String> {
    next.map(|key| URL_SAFE_NO_PAD.encode(key))
}

impl<T: DeserializeOwned + 'static> FromRequest for Input<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let req = req.clone();
        let mut payload = web::Payload::from_request(&req, payload);
        Box::pin(async move {
            let edge = req.app_data::<web::Data<Edge>>().ok_or_else(|| Problem::internal(&"no edge"))?;
            // A handler's other arguments may have refused already; this one reads nothing for strangers either.
            let payload = (&mut payload).await.map_err(|e| Problem::internal(&e))?;
            let mut payload = payload;
            let body = body::read(edge, &req, &mut payload, edge.config.limits.api_body).await?;
            if body.bytes.is_empty() {
                return parse(b"{}").map(Self);
            }
            let content_type = req.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/json") {
                return Err(Problem::unsupported("send JSON, with Content-Type: application/json"));
            }
            parse(&body.bytes).map(Self)
        })
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // JSON can say NUL only as an escape; the second reading is for the few bodies that may have one.
    if bytes.windows(6).any(|six| six == b"\\u0000")
        && serde_json::from_slice(bytes).is_ok_and(|value: serde_json::Value| has_nul(&value))
    {
        return Err(Problem::invalid(NUL));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| Problem::invalid(format!("the body does not fit: {}", without_value(&e.to_string()))))
}

/// What serde says, without the value that did not fit: a password in the wrong field would be repeated. The names of
/// unknown fields stay.
fn without_value(said: &str) -> String {
    const VALUES: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];
    let Some(start) = VALUES.iter().find(|start| said.starts_with(**start)) else { return said.to_owned() };
    // What is expected is ours and stands last.
    let (value, expected) = said.rsplit_once(", expected ").unwrap_or((said, "something else"));
    let kind = value.split(['"', '`']).next().unwrap_or(start).trim_end();
    format!("{kind}, expected {expected}")
}

/// No name, code or text of ours holds one, and PostgreSQL stores none.
const NUL: &str = "a text holds the character NUL";

fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(all) => all.iter().any(has_nul),
        serde_json::Value::Object(all) => all.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        if url::form_urlencoded::parse(req.query_string().as_bytes()).any(|(_, value)| value.contains('\0')) {
            return ready(Err(Problem::invalid(NUL)));
        }
        let query = web::Query::<T>::from_query(req.query_string());
        ready(
            query
                .map(|q| Self(q.into_inner()))
                .map_err(|e| Problem::invalid(format!("the query does not fit: {e}"))),
        )
    }
}

impl FromRequest for IdempotencyKey {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut all = req.headers().get_all("idempotency-key");
        let key = match (all.next(), all.next()) {
            (None, _) => Ok(Self(None)),
            (Some(only), None) => match only.to_str() {
                Ok(text) if (1..=200).contains(&text.len()) => Ok(Self(Some(text.to_owned()))),
                _ => Err(Problem::invalid("an Idempotency-Key has 1 to 200 plain characters")),
            },
            _ => Err(Problem::invalid("send one Idempotency-Key")),
        };
        ready(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_52_a_nul_is_refused_wherever_it_stands() {
        type Any = std::collections::BTreeMap<String, serde_json::Value>;
        for body in
            [r#"{"a":"\u0000"}"#, r#"{"a":"x\u0000y"}"#, r#"{"a":[{"b":"\u0000"}]}"#, r#"{"\u0000":1}"#]
        {
            let refused = parse::<Any>(body.as_bytes()).unwrap_err();
            assert!(refused.to_string().contains(NUL), "{body}: {refused}");
        }
        assert!(parse::<Any>(br#"{"a":"\\u0000"}"#).is_ok(), "a backslash and five characters");
        for (query, fits) in [("a=b", true), ("a=%00", false), ("b=c&a=x%00y", false)] {
            let req = actix_web::test::TestRequest::with_uri(&format!("/?{query}")).to_http_request();
            let read = Query::<Any>::from_request(&req, &mut Payload::None).into_inner();
            assert_eq!(read.is_ok(), fits, "{query}");
        }
    }

    #[test]
    fn at_16_a_value_that_does_not_fit_is_not_repeated() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only refusals are looked at")]
        struct Wish {
            hidden: bool,
            count: u8,
            kind: Kind,
        }
        #[derive(Debug, Deserialize)]
        enum Kind {
            One,
        }
        for (body, said) in [
            (r#"{"hidden":"hunter2"}"#, "invalid type: string, expected a boolean at line 1"),
            (r#"{"hidden":"hunter2, expected `x"}"#, "invalid type: string, expected a boolean"),
            (r#"{"count":483271}"#, "invalid value: integer, expected u8"),
            (r#"{"kind":"hunter2"}"#, "unknown variant, expected `One`"),
            (r#"{"hunter3":1}"#, "unknown field `hunter3`, expected one of `hidden`"),
            (r#""hunter2""#, "invalid type: string, expected struct Wish"),
        ] {
            let refused = parse::<Wish>(body.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(said), "{body}: {refused}");
            assert!(!refused.contains("hunter2") && !refused.contains("483271"), "{refused}");
        }
    }

    #[test]
    fn cursors_round_trip_and_nonsense_is_refused() {
        let text = cursor(Some(vec![0, 255, 7])).unwrap();
        assert_eq!(page(Some(&text), Some(500)).unwrap(), (Some(vec![0, 255, 7]), 500));
        assert_eq!(page(None, None).unwrap(), (None, 50));
        assert!(page(Some("not base64!"), None).is_err());
        assert!(page(Some(&"A".repeat(500)), None).is_err());
        assert!(page(None, Some(0)).is_err() && page(None, Some(501)).is_err());
    }
}
