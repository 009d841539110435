//! Apple's dialect: one entry, [`Engine::apple_request`].
//!
//! The order is the house's main road: prove the identity, decode, then one transaction, then the answer. Every answer
//! is in Apple's own terms; none is 401, because a 401 makes a device leave management (spec/apple.md 2.2).

mod answers;
mod authenticate;
mod checkin;
mod identify;
mod plan;
mod render;
mod renew;
mod report;

pub(crate) use plan::{Plan, plan, raw_is_destructive};

use crate::Engine;
use crate::error::Error;
use bellwether_apple::checkin::{Inbound, decode};
use bellwether_apple::reply::PLIST_CONTENT_TYPE;
use bellwether_model::SiteId;
use secrecy::SecretString;

/// A request to `/apple/mdm`, as the edge received it.
pub struct AppleRequest {
    /// The `Mdm-Signature` header. Whoever has it can replay the body it signs.
    pub signature: Option<SecretString>,
    /// The TLS client certificate, DER. The handshake refused nobody.
    pub tls_certificate: Option<Vec<u8>>,
    /// The body, already within the edge's size limit.
    pub body: Vec<u8>,
    /// The `Content-Type` header: a hint.
    pub content_type: Option<String>,
    /// Where from.
    pub source: Option<String>,
}

/// The answer. An empty body means exactly `Content-Length: 0`.
#[derive(PartialEq, Eq)]
pub struct AppleReply {
    /// HTTP status: 200, 400, 403, 404, 410, 413, 500 or 503. Never 401.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// A plist, or nothing.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for AppleReply {
    /// The body can hold PINs and tokens: its length only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppleReply({}, {} bytes)", self.status, self.body.len())
    }
}

impl AppleReply {
    pub(crate) fn empty() -> Self {
        Self::status(200)
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, content_type: PLIST_CONTENT_TYPE, body: Vec::new() }
    }

    pub(crate) fn plist(body: Vec<u8>) -> Self {
        Self { status: 200, content_type: PLIST_CONTENT_TYPE, body }
    }
}

/// Why a request was not served. Maps to a bare status.
#[derive(Debug)]
pub(crate) enum Refused {
    /// 400: no or broken proof of identity, or an undecodable body.
    Malformed(String),
    /// 403: a proven identity that may not do this.
    Forbidden(String),
    /// 404, 410: as the message's own page says.
    Status(u16, String),
    /// 5xx: our fault; the device tries again.
    Fault(Error),
}

impl From<Error> for Refused {
    fn from(value: Error) -> Self {
        Self::Fault(value)
    }
}

impl From<bellwether_store::StoreError> for Refused {
    fn from(value: bellwether_store::StoreError) -> Self {
        Self::Fault(value.into())
    }
}

impl Engine {
    /// Serves one check-in message or command report. Infallible: every error is already an answer.
    pub async fn apple_request(&self, request: AppleRequest) -> AppleReply {
        let source = request.source.clone();
        // Refusals are audited where the identity belongs; of strangers, in the default site.
        let mut site = self.default_site;
        match self.apple_served(request, &mut site).await {
            Ok(reply) => reply,
            Err(Refused::Malformed(reason)) => {
                self.note_device_refusal("apple", site, 400, &reason, source.as_deref()).await;
                AppleReply::status(400)
            }
            Err(Refused::Forbidden(reason)) => {
                self.note_device_refusal("apple", site, 403, &reason, source.as_deref()).await;
                AppleReply::status(403)
            }
            Err(Refused::Status(status, reason)) => {
                tracing::info!(status, reason, "apple request declined");
                AppleReply::status(status)
            }
            Err(Refused::Fault(error)) => {
                tracing::error!(%error, "apple request failed");
                AppleReply::status(match error {
                    Error::Store(_) => 503,
                    _ => 500,
                })
            }
        }
    }

    async fn apple_served(&self, request: AppleRequest, site: &mut SiteId) -> Result<AppleReply, Refused> {
        let proven = self.identify(&request, site).await?;
        let inbound = decode(&request.body, request.content_type.as_deref()).map_err(|e| {
            if matches!(e, bellwether_apple::Error::TooLarge { .. }) {
                Refused::Status(413, e.to_string())
            } else {
                Refused::Malformed(e.to_string())
            }
        })?;
        for problem in inbound.problems() {
            // One bad optional field never stops a device (AT-70); it is dropped and said.
            tracing::info!(identity = %proven.identity.id, problem, "a field of a device's message was dropped");
        }
        match inbound {
            Inbound::CheckIn(message) => self.check_in(proven, message, request.source.as_deref()).await,
            Inbound::Report(report) => self.report(proven, report).await,
        }
    }
}
