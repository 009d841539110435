//! Windows Push Notification Services (spec/windows.md 3.12): a raw notification without meaning makes a PC call.
//!
//! The credentials are one app's, for the whole server. A ChannelURI is data from a device and secret besides (whoever
//! knows it and has a token can wake the PC): nothing here logs a URL or puts one into an error.

mod answer;
mod channel;
mod token;

use crate::clock::SystemClock;
use crate::http_answer as http;
use answer::Answer;
use async_trait::async_trait;
use bellwether_engine::{PushIdentity, WakeOutcome, WakeTarget, Waker};
use channel::Hosts;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Certificate, Client, StatusCode, Url, redirect, retry};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::time::Duration;
use token::{Token, Tokens};

/// Microsoft's token endpoint.
pub const TOKEN_ENDPOINT: &str = "https://login.live.com/accesstoken.srf";
/// For each request, from connecting to the last byte. A wake takes four at most.
const TIMEOUT: Duration = Duration::from_secs(8);
/// After the first failure to get a token.
const PAUSE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(90);
/// WNS says everything in headers.
const MAX_ANSWER: usize = 4096;
/// It must not be empty, and nobody reads it.
const BODY: &str = "call";

/// How to reach WNS, and as which app.
#[derive(Clone, Debug)]
pub struct WnsConfig {
    /// `ms-app://S-1-15-2-…`.
    pub package_sid: String,
    /// Of the same app.
    pub client_secret: SecretString,
    /// Where access tokens come from.
    pub token_endpoint: Url,
    /// Hosts that channels may have, `name`, `name:port` or `*.name`; empty: Microsoft's own.
    pub hosts: Vec<String>,
    /// CAs (PEM) to trust instead of the system's.
    pub trust_pem: Option<Vec<u8>>,
    /// For each request.
    pub timeout: Duration,
    /// After the first failure to get a token; it doubles with each, up to an hour.
    pub pause: Duration,
}

impl WnsConfig {
    /// Microsoft's WNS.
    #[expect(clippy::expect_used, reason = "a literal, parsed by every test")]
    pub fn new(package_sid: String, client_secret: SecretString) -> Self {
        Self {
            package_sid,
            client_secret,
            token_endpoint: TOKEN_ENDPOINT.parse().expect("a URL"),
            hosts: Vec::new(),
            trust_pem: None,
            timeout: TIMEOUT,
            pause: PAUSE,
        }
    }
}

/// A configuration that cannot be used: the operator's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WnsError {
    /// The secret must not be sent in the clear.
    #[error("wns.token_endpoint must begin with https://")]
    NotHttps,
    /// An entry.
    #[error("wns.hosts: \"{0}\" is no host; name, name:port or *.name is wanted")]
    Hosts(String),
    /// The CAs to trust.
    #[error("the certificates of wns.trust cannot be read: {0}")]
    Trust(#[source] reqwest::Error),
    /// TLS.
    #[error("no client for the push service can be made: {0}")]
    Client(#[source] reqwest::Error),
}

/// The WNS client.
pub struct Wns {
    client: Client,
    tokens: Tokens,
    hosts: Hosts,
}

impl Wns {
    /// A client without connections and without a token: the first wake asks for one.
    ///
    /// # Errors
    /// [`WnsError`].
    pub fn new(config: WnsConfig) -> Result<Self, WnsError> {
        if config.token_endpoint.scheme() != "https" {
            return Err(WnsError::NotHttps);
        }
        let hosts = Hosts::new(&config.hosts).map_err(WnsError::Hosts)?;
        let mut builder = Client::builder()
            .https_only(true)
            // What Microsoft's documents describe.
            .http1_only()
            .pool_idle_timeout(IDLE)
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            // A redirect would take the access token to a host that nobody has checked.
            .redirect(redirect::Policy::none())
            .referer(false)
            // The engine decides when to try again.
            .retry(retry::never())
            .no_proxy();
        if let Some(pem) = &config.trust_pem {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(WnsError::Trust)?);
        }
        let client = builder.build().map_err(WnsError::Client)?;
        let WnsConfig { token_endpoint, package_sid, client_secret, pause, .. } = config;
        Ok(Self { client, tokens: Tokens::new(token_endpoint, package_sid, client_secret, pause), hosts })
    }

    /// Two tries at most: the second with a new token, if the first one's was refused.
    async fn try_to_wake(&self, channel: &Url, target: &WakeTarget) -> Result<WakeOutcome, WakeOutcome> {
        let token = self.tokens.token(&self.client, None).await?;
        let answer = self.post(channel, &token, target).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer::outcome(&answer));
        }
        let token = self.tokens.token(&self.client, Some(&token)).await?;
        let answer = self.post(channel, &token, target).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(self.tokens.refused(&token).await.into());
        }
        self.tokens.accepted().await;
        Ok(answer::outcome(&answer))
    }

    async fn post(&self, channel: &Url, token: &Token, target: &WakeTarget) -> Result<Answer, WakeOutcome> {
        let Some(bearer) = token.header() else {
            return Err(answer::not_an_endpoint("its token cannot be sent").into());
        };
        let seconds = target.expires_at.since(SystemClock::read()) / 1000;
        let response = self
            .client
            .post(channel.clone())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("x-wns-type", "wns/raw")
            .header("x-wns-cache-policy", "cache")
            .header("x-wns-ttl", seconds.max(1))
            .body(BODY)
            .send()
            .await
            .map_err(|e| answer::unreachable(&e.without_url()))?;
        let headers = response.headers();
        let word = headers.get("x-wns-status").or_else(|| headers.get("x-wns-notificationstatus"));
        let answer = Answer {
            status: response.status(),
            word: word.and_then(|word| word.to_str().ok()).map(|word| word.trim().to_owned()),
            retry_after: http::retry_after(headers).and_then(|r| r.millis(SystemClock::read())),
        };
        // Read, so that the connection can be used again.
        let _ = http::beginning(response, MAX_ANSWER).await;
        Ok(answer)
    }
}

#[async_trait]
impl Waker for Wns {
    async fn wake(&self, _: Option<&PushIdentity>, target: &WakeTarget) -> WakeOutcome {
        match self.hosts.channel(target.token.expose_secret()) {
            Ok(channel) => self.try_to_wake(&channel, target).await.unwrap_or_else(|failed| failed),
            Err(reason) => WakeOutcome::Rejected {
                note: format!(
                    "the push channel that the PC has reported is not one of WNS, and nothing was sent to it: {reason}"
                ),
            },
        }
    }
}

impl fmt::Debug for Wns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wns").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> WnsConfig {
        WnsConfig::new("ms-app://S-1-15-2-1".into(), SecretString::from("hunter2"))
    }

    #[test]
    fn wrong_configurations_are_refused() {
        let plain = WnsConfig { token_endpoint: "http://localhost/".parse().unwrap(), ..config() };
        assert!(matches!(Wns::new(plain), Err(WnsError::NotHttps)));
        let pem = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n".to_vec();
        let broken = WnsConfig { trust_pem: Some(pem), ..config() };
        assert!(matches!(Wns::new(broken), Err(WnsError::Trust(_))));
        let open = WnsConfig { hosts: vec!["*".into()], ..config() };
        assert_eq!(
            Wns::new(open).err().unwrap().to_string(),
            "wns.hosts: \"*\" is no host; name, name:port or *.name is wanted"
        );
    }

    #[test]
    fn the_secret_is_not_shown() {
        let (config, wns) = (config(), Wns::new(config()).unwrap());
        assert!(!format!("{config:?} {wns:?}").contains("hunter2"));
    }
}
