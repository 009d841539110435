//! The access token: one for all wakes, asked for by one request at a time, and not asked for again at once when it was
//! refused.

use super::answer::{self, Fault};
use crate::clock::SystemClock;
use crate::http_answer::{self as http, Unread};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::form_urlencoded::Serializer;

/// A token has less than two thousand bytes.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_TOKEN: usize = 16 * 1024;
/// When the endpoint does not say how long a token lives. WNS answers 401 to one that is over.
const UNSAID_LIFE: Duration = Duration::from_secs(3600);
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// A token is renewed so long before its end, or when nine tenths of its life are over.
const EARLY: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// No word of the endpoint silences us longer.
const LONGEST_ASKED: Duration = Duration::from_secs(86_400);

/// Where tokens come from.
pub struct Tokens {
    endpoint: Url,
    package_sid: String,
    client_secret: SecretString,
    /// After the first failure; it doubles with each.
    pause: Duration,
    state: Mutex<State>,
}

/// A token in use. No `Debug`.
pub struct Token {
    /// Which one: what a 401 was about.
    number: u64,
    bearer: SecretString,
    renew_at: Instant,
    over_at: Instant,
}

#[derive(Default)]
struct State {
    held: Option<Arc<Token>>,
    issued: u64,
    /// In a row.
    failures: u32,
    /// Until when nothing is asked, and what is said meanwhile.
    silent: Option<(Instant, Fault)>,
}

impl Tokens {
    pub fn new(endpoint: Url, package_sid: String, client_secret: SecretString, pause: Duration) -> Self {
        Self { endpoint, package_sid, client_secret, pause, state: Mutex::default() }
    }

    /// The token to use; a new one if there is none, if it ends soon, or if it is `spent`: one that WNS has refused.
    pub async fn token(&self, client: &Client, spent: Option<&Token>) -> Result<Arc<Token>, Fault> {
        // Held while asking: whoever comes meanwhile waits for the answer instead of asking as well.
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let held = state.held.clone().filter(|held| spent.is_none_or(|spent| spent.number != held.number));
        if let Some(held) = &held
            && now < held.renew_at
        {
            return Ok(Arc::clone(held));
        }
        let fault = match &state.silent {
            Some((until, fault)) if now < *until => fault.clone(),
            _ => match self.ask(client).await {
                Ok((bearer, life)) => {
                    if spent.is_none() {
                        state.failures = 0;
                    }
                    state.silent = None;
                    return Ok(state.hold(bearer, life));
                }
                Err(fault) => {
                    state.fail(self.pause, &fault);
                    fault
                }
            },
        };
        // An old token is good until its end, even if no new one can be had.
        held.filter(|held| Instant::now() < held.over_at).ok_or(fault)
    }

    /// WNS has refused a token that replaced a refused one. Further tokens are not asked for in a hurry.
    pub async fn refused(&self, token: &Token) -> Fault {
        let fault = Fault::fresh_token_refused();
        let mut state = self.state.lock().await;
        let newest = state.held.as_ref().is_some_and(|held| held.number == token.number);
        let silent = state.silent.as_ref().is_some_and(|(until, _)| Instant::now() < *until);
        if newest && !silent {
            state.fail(self.pause, &fault);
        }
        fault
    }

    /// WNS has taken a token that replaced a refused one.
    pub async fn accepted(&self) {
        let mut state = self.state.lock().await;
        state.failures = 0;
        state.silent = None;
    }

    /// One request (spec/windows.md 3.12, point 3).
    async fn ask(&self, client: &Client) -> Result<(SecretString, Duration), Fault> {
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.package_sid)
            .append_pair("client_secret", self.client_secret.expose_secret())
            .append_pair("scope", "notify.windows.com")
            .finish();
        let response = client
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form)
            .send()
            .await
            .map_err(|e| answer::token_unreachable(&e.without_url()))?;
        let status = response.status();
        let retry_after = http::retry_after(response.headers()).and_then(|r| r.millis(SystemClock::read()));
        if status != StatusCode::OK {
            let body = http::beginning(response, MAX_ANSWER).await;
            return Err(answer::token_refused(status, &body, retry_after));
        }
        match http::whole(response, MAX_ANSWER).await {
            Ok(body) => parse(&body).map_err(answer::not_an_endpoint),
            Err(Unread::TooLong) => Err(answer::not_an_endpoint("its answer is too long")),
            Err(Unread::Lost(error)) => Err(answer::token_unreachable(&error)),
        }
    }
}

impl Token {
    /// `Authorization`.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.bearer.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl State {
    fn hold(&mut self, bearer: SecretString, life: Duration) -> Arc<Token> {
        self.issued = self.issued.wrapping_add(1);
        let now = Instant::now();
        let token = Arc::new(Token {
            number: self.issued,
            bearer,
            renew_at: now + life.saturating_sub(EARLY.min(life / 10)),
            over_at: now + life,
        });
        self.held = Some(Arc::clone(&token));
        token
    }

    fn fail(&mut self, first: Duration, fault: &Fault) {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let asked = match fault {
            Fault::Passing { retry_after: Some(millis), .. } => u64::try_from(*millis).unwrap_or_default(),
            _ => 0,
        };
        let pause = first.saturating_mul(doubled).min(LONGEST_PAUSE);
        let pause = pause.max(Duration::from_millis(asked).min(LONGEST_ASKED));
        self.silent = Some((Instant::now() + pause, fault.clone()));
    }
}

/// `Bearer` and the token, and how long it lives. The error is for admins.
fn parse(body: &[u8]) -> Result<(SecretString, Duration), &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
        token_type: Option<String>,
        expires_in: Option<serde_json::Value>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is no token")?;
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("its token is not of the type bearer");
    }
    // Only what can stand in a header (RFC 6750 2.1).
    let token = answer.access_token;
    if !(1..=MAX_TOKEN).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("its token cannot be sent");
    }
    let seconds = answer.expires_in.and_then(|said| match said {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    });
    let life = seconds.filter(|seconds| *seconds > 0).map_or(UNSAID_LIFE, Duration::from_secs);
    Ok((SecretString::from(format!("Bearer {token}")), life.min(LONGEST_LIFE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_leniently_and_only_if_they_can_be_sent() {
        let of =
            |body: &str| parse(body.as_bytes()).map(|(token, life)| (token.expose_secret().to_owned(), life));
        let day = Duration::from_secs(86_400);
        let bearer = |life| Ok(("Bearer EgAc+/=".to_owned(), life));
        assert_eq!(of(r#"{"access_token":"EgAc+/=","token_type":"bearer","expires_in":86400}"#), bearer(day));
        assert_eq!(
            of(r#"{"access_token":"EgAc+/=","token_type":"Bearer","expires_in":"86400"}"#),
            bearer(day)
        );
        assert_eq!(of(r#"{"access_token":"EgAc+/=","x":[]}"#), bearer(UNSAID_LIFE));
        for odd in ["0", "-5", "1.5", "null", r#""soon""#, "{}", "1e400"] {
            let body = format!(r#"{{"access_token":"EgAc+/=","expires_in":{odd}}}"#);
            assert!(of(&body).is_err() || of(&body) == bearer(UNSAID_LIFE), "{odd}");
        }
        assert_eq!(
            of(r#"{"access_token":"EgAc+/=","expires_in":18446744073709551615}"#),
            bearer(LONGEST_LIFE)
        );
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(MAX_TOKEN + 1));
        for wrong in [
            "",
            "{}",
            "null",
            "[]",
            "<html>",
            r#"{"access_token":null}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"a b"}"#,
            r#"{"access_token":"a\r\nX-Evil: 1"}"#,
            r#"{"access_token":"ä"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            &long,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_a_named_one_counts() {
        let mut state = State::default();
        let refused = Fault::Refused(String::new());
        let mut paused = |fault: &Fault| {
            let before = Instant::now();
            state.fail(Duration::from_secs(30), fault);
            let (until, said) = state.silent.clone().unwrap();
            assert_eq!(said, *fault);
            let margin = Duration::from_secs(5);
            (until - before, margin)
        };
        for seconds in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let (pause, margin) = paused(&refused);
            assert!((Duration::ZERO..margin).contains(&(pause - Duration::from_secs(seconds))), "{pause:?}");
        }
        for _ in 0..100 {
            paused(&refused);
        }
        for (millis, seconds) in [(1000, 3600), (7_200_000, 7200), (i64::MAX, 86_400), (-5, 3600)] {
            let named = Fault::Passing { retry_after: Some(millis), note: String::new() };
            let (pause, margin) = paused(&named);
            assert!((Duration::ZERO..margin).contains(&(pause - Duration::from_secs(seconds))), "{pause:?}");
        }
    }

    #[tokio::test]
    async fn an_old_token_is_used_to_its_end_if_no_new_one_can_be_had() {
        // Nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let endpoint: Url = format!("https://127.0.0.1:{port}/").parse().unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let tokens =
            Tokens::new(endpoint, "sid".into(), SecretString::from("hunter2"), Duration::from_secs(30));
        let now = Instant::now();
        let held =
            |over_at| Token { number: 7, bearer: SecretString::from("Bearer x"), renew_at: now, over_at };
        tokens.state.lock().await.held = Some(Arc::new(held(now + Duration::from_secs(60))));
        for failures in [1, 1] {
            // The second time without a request: it would count.
            assert_eq!(tokens.token(&client, None).await.ok().unwrap().number, 7);
            assert_eq!(tokens.state.lock().await.failures, failures);
        }
        let refused = Arc::clone(tokens.state.lock().await.held.as_ref().unwrap());
        assert!(matches!(tokens.token(&client, Some(&refused)).await, Err(Fault::Passing { .. })));
        tokens.state.lock().await.held = Some(Arc::new(held(now)));
        assert!(matches!(tokens.token(&client, None).await, Err(Fault::Passing { .. })));
    }

    #[test]
    fn a_token_is_renewed_before_its_end_and_never_shown() {
        let mut state = State::default();
        let token = state.hold(SecretString::from("Bearer hunter2"), Duration::from_secs(86_400));
        assert_eq!(token.over_at - token.renew_at, EARLY);
        let short = state.hold(SecretString::from("Bearer hunter2"), Duration::from_secs(10));
        assert_eq!(short.over_at - short.renew_at, Duration::from_secs(1));
        assert_ne!(token.number, short.number);
        let header = token.header().unwrap();
        assert!(header.is_sensitive() && !format!("{header:?}").contains("hunter2"));
    }
}
