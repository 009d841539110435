//! Apple Push Notification service, for MDM wake-ups only (apple.md §2.8).
//!
//! One client, and so one HTTP/2 connection, per topic. It is kept until the push certificate changes or the connection
//! stops answering. A device's token is part of the URL's path: nothing here logs a URL or puts one into an error.

mod answer;

use crate::clock::SystemClock;
use crate::http_answer as http;
use async_trait::async_trait;
use bellwether_certs::cert::{ders_to_pem, pem_to_ders};
use bellwether_certs::hash::{hex, sha256};
use bellwether_certs::keys::KeyPair;
use bellwether_certs::push::PushCert;
use bellwether_engine::{PushIdentity, WakeOutcome, WakeTarget, Waker};
use bellwether_model::Timestamp;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Identity, Response, StatusCode, Url, redirect, retry};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const PRODUCTION: &str = "https://api.push.apple.com";
/// For connecting, and for each wait of an answer.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Apple takes frequent connecting for an attack, and asks to keep a connection open and to PING it.
const IDLE: Duration = Duration::from_secs(3600);
const PING: Duration = Duration::from_secs(60);
/// Longer answers are not read to the end. Apple's have less than a hundred bytes.
const MAX_ANSWER: usize = 4096;

/// How to reach APNs.
#[derive(Clone, Debug)]
pub struct ApnsConfig {
    /// Scheme, host and port. Production is `https://api.push.apple.com`; port 2197 is open there as well.
    pub endpoint: Url,
    /// CAs (PEM) to trust instead of the system's.
    pub trust_pem: Option<Vec<u8>>,
    /// For connecting, and for each wait of an answer.
    pub timeout: Duration,
}

impl Default for ApnsConfig {
    #[expect(clippy::expect_used, reason = "a literal, parsed by every test")]
    fn default() -> Self {
        Self { endpoint: PRODUCTION.parse().expect("a URL"), trust_pem: None, timeout: TIMEOUT }
    }
}

/// A configuration that cannot be used: the operator's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApnsError {
    /// The push certificate must not be shown, nor a token sent, in the clear.
    #[error("the address of the push service must begin with https://")]
    NotHttps,
    /// The CAs to trust.
    #[error("the certificates to trust for the push service cannot be read: {0}")]
    Trust(#[source] reqwest::Error),
}

/// The APNs client.
pub struct Apns {
    endpoint: Url,
    trust: Option<Vec<Certificate>>,
    timeout: Duration,
    /// By topic.
    clients: Mutex<HashMap<String, Arc<Opened>>>,
}

/// A push certificate in use.
struct Opened {
    version: i32,
    /// SHA-256 of the certificate: two sites may own the same topic, and a version counts per site.
    certificate: [u8; 32],
    not_after: Timestamp,
    topic: HeaderValue,
    client: Client,
    /// Whether the last wake was answered.
    answered: AtomicBool,
}

/// Exactly this, without `aps`.
#[derive(Serialize)]
struct Payload<'a> {
    mdm: &'a str,
}

impl Apns {
    /// A client without connections: the first wake of a topic opens one.
    ///
    /// # Errors
    /// [`ApnsError`].
    pub fn new(config: ApnsConfig) -> Result<Self, ApnsError> {
        if config.endpoint.scheme() != "https" {
            return Err(ApnsError::NotHttps);
        }
        let trust = config.trust_pem.map(|pem| Certificate::from_pem_bundle(&pem)).transpose();
        Ok(Self {
            endpoint: config.endpoint,
            trust: trust.map_err(ApnsError::Trust)?,
            timeout: config.timeout,
            clients: Mutex::default(),
        })
    }

    /// The client for a certificate; a new one if the certificate is another than before. The error is for admins.
    fn open(&self, identity: &PushIdentity) -> Result<Arc<Opened>, String> {
        let now = SystemClock::read();
        let certificate = sha256(identity.certificate_pem.as_bytes());
        let mut clients = self.clients();
        let entry = clients.entry(identity.topic.clone());
        let opened = match entry {
            Entry::Occupied(known)
                if known.get().version == identity.version && known.get().certificate == certificate =>
            {
                Arc::clone(known.get())
            }
            Entry::Occupied(mut old) => {
                let opened = Arc::new(self.connectable(identity, certificate, now)?);
                old.insert(Arc::clone(&opened));
                opened
            }
            Entry::Vacant(place) => {
                let opened = Arc::new(self.connectable(identity, certificate, now)?);
                place.insert(Arc::clone(&opened));
                opened
            }
        };
        if opened.not_after < now {
            return Err(unusable(
                "it has expired; renew it at identity.apple.com/pushcert with the same Apple Account",
            ));
        }
        Ok(opened)
    }

    fn connectable(
        &self,
        identity: &PushIdentity,
        certificate: [u8; 32],
        now: Timestamp,
    ) -> Result<Opened, String> {
        let checked = pem_to_ders(identity.certificate_pem.as_bytes())
            .and_then(|ders| {
                let key = KeyPair::from_pkcs8_der(identity.key.expose_secret())?;
                let checked = PushCert::check(&ders, key, now.0)?;
                checked.may_replace(&identity.topic)?;
                Ok(checked)
            })
            .map_err(unusable)?;
        let key = checked.key.to_pkcs8_pem().map_err(unusable)?;
        // The leaf first, whatever the order in the file.
        let chain: Vec<&[u8]> =
            std::iter::once(&checked.leaf.der).chain(&checked.chain).map(Vec::as_slice).collect();
        let tls = Identity::from_pkcs8_pem(ders_to_pem(&chain).as_bytes(), key.expose_secret())
            .map_err(|e| unusable(http::chain(&e.without_url())))?;
        let topic = HeaderValue::from_str(&identity.topic).map_err(unusable)?;
        let mut builder = Client::builder()
            .identity(tls)
            .https_only(true)
            // Only h2 in ALPN; and many wakes at once wait for the one connection instead of each opening its own.
            .http2_prior_knowledge()
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(self.timeout)
            .http2_keep_alive_while_idle(true)
            .pool_idle_timeout(IDLE)
            .connect_timeout(self.timeout)
            .read_timeout(self.timeout)
            .timeout(self.timeout.saturating_mul(2))
            .redirect(redirect::Policy::none())
            // The engine decides when to try again.
            .retry(retry::never())
            .no_proxy();
        if let Some(trust) = &self.trust {
            builder = builder.tls_certs_only(trust.iter().cloned());
        }
        let client = builder.build().map_err(|e| unusable(http::chain(&e.without_url())))?;
        Ok(Opened {
            version: identity.version,
            certificate,
            not_after: Timestamp(checked.not_after_ms),
            topic,
            client,
            answered: AtomicBool::new(false),
        })
    }

    /// A peer that went silent would take every wake until TCP gives up: the next wake opens a new connection.
    fn forget(&self, topic: &str, opened: &Arc<Opened>) {
        let mut clients = self.clients();
        if clients.get(topic).is_some_and(|known| Arc::ptr_eq(known, opened)) {
            clients.remove(topic);
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, Arc<Opened>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, token: &[u8]) -> Option<Url> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(["3", "device", &hex(token)]);
        Some(url)
    }

    async fn send(&self, opened: &Opened, target: &WakeTarget) -> Result<Response, Failure> {
        let token = target.token.expose_secret();
        if token.is_empty() {
            return Err(Failure::Local(
                "the device has sent an empty push token; it sends a new one by itself",
            ));
        }
        let magic = target.magic.as_ref().ok_or(Failure::Local(
            "the device has sent no PushMagic; it sends one with its next push token",
        ))?;
        let url = self.url(token).ok_or(Failure::Local("the address of the push service has no host"))?;
        let body = serde_json::to_vec(&Payload { mdm: magic.expose_secret() })
            .map_err(|_| Failure::Local("the device's PushMagic cannot be sent"))?;
        opened
            .client
            .post(url)
            .header("apns-push-type", "mdm")
            .header("apns-topic", opened.topic.clone())
            .header("apns-priority", "10")
            .header("apns-expiration", (target.expires_at.0 / 1000).max(0))
            .body(body)
            .send()
            .await
            .map_err(|e| Failure::Transport(e.without_url()))
    }
}

#[async_trait]
impl Waker for Apns {
    async fn wake(&self, identity: Option<&PushIdentity>, target: &WakeTarget) -> WakeOutcome {
        let Some(identity) = identity else {
            return WakeOutcome::Rejected {
                note: "APNs takes no wake without a push certificate".to_owned(),
            };
        };
        let opened = match self.open(identity) {
            Ok(opened) => opened,
            Err(note) => return WakeOutcome::Rejected { note },
        };
        match self.send(&opened, target).await {
            Ok(response) => {
                opened.answered.store(true, Ordering::Relaxed);
                let (status, retry_after) = (response.status(), http::retry_after(response.headers()));
                let body = if status == StatusCode::OK {
                    Vec::new()
                } else {
                    http::beginning(response, MAX_ANSWER).await
                };
                answer::outcome(status, &body, || retry_after.and_then(|r| r.millis(SystemClock::read())))
            }
            Err(Failure::Local(note)) => WakeOutcome::Rejected { note: note.to_owned() },
            Err(Failure::Transport(error)) => {
                if error.is_timeout() {
                    self.forget(&identity.topic, &opened);
                }
                answer::failure(&error, opened.answered.swap(false, Ordering::Relaxed))
            }
        }
    }
}

impl fmt::Debug for Apns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apns").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

/// Why no answer came.
enum Failure {
    /// Nothing was sent.
    Local(&'static str),
    /// Without its URL.
    Transport(reqwest::Error),
}

fn unusable(reason: impl fmt::Display) -> String {
    format!("the push certificate of this topic cannot be used: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_lower_case_hex_of_any_length() {
        let apns = Apns::new(ApnsConfig::default()).unwrap();
        let url = |token: &[u8]| apns.url(token).unwrap().to_string();
        assert_eq!(url(&[0xAB, 0x01, 0xFF]), "https://api.push.apple.com/3/device/ab01ff");
        assert!(url(&[7; 100]).ends_with(&"07".repeat(100)));
        assert!(!format!("{apns:?}").contains("device"));
    }

    #[test]
    fn plain_http_and_broken_cas_are_refused() {
        let plain = ApnsConfig { endpoint: "http://localhost/".parse().unwrap(), ..ApnsConfig::default() };
        assert!(matches!(Apns::new(plain), Err(ApnsError::NotHttps)));
        let pem = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n".to_vec();
        let broken = ApnsConfig { trust_pem: Some(pem), ..ApnsConfig::default() };
        assert!(matches!(Apns::new(broken), Err(ApnsError::Trust(_))));
    }
}
