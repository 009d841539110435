//! Windows' dialect: enrollment by SOAP ([`Engine::windows_enrollment`]) and OMA-DM sessions
//! ([`Engine::windows_session`]).
//!
//! The order is the house's main road: prove the identity, decode, then one transaction, then the answer.

mod account;
pub(crate) mod applied;
mod arrive;
mod credential;
mod dispatch;
mod enroll;
mod entra;
pub(crate) mod facts;
mod identify;
mod judge;
pub(crate) mod plan;
mod raw;
mod renew;
mod session;
mod terms;

pub(crate) use dispatch::build;
pub use entra::{Entra, EntraRefusal, EntraSettings, EntraUser};
pub use terms::{EntraTerms, TermsAnswer, TermsPage, TermsRefusal, TermsRequest};

use crate::Engine;
use crate::error::Error;
use crate::setup::PROVIDER_ID;
use bellwether_store::Scope;
use bellwether_windows::enrollment::{Exchange, Fault, ReplyHeader, Subcode};
use secrecy::SecretString;

/// Which of the three endpoints of enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowsService {
    /// `Discovery.svc`.
    Discovery,
    /// `Policy.svc`.
    Policy,
    /// `Enrollment.svc`.
    Enrollment,
}

/// A SOAP request, as the edge received it.
pub struct SoapRequest {
    /// Where it came to.
    pub service: WindowsService,
    /// The body, already within the edge's size limit.
    pub body: Vec<u8>,
    /// The TLS client certificate, DER, when a renewal came to the device listener.
    pub tls_certificate: Option<Vec<u8>>,
    /// Where from.
    pub source: Option<String>,
    /// Our request id: the person sees it when something goes wrong.
    pub trace_id: String,
}

/// The answer: SOAP with [`bellwether_windows::enrollment::CONTENT_TYPE`].
pub struct SoapReply {
    /// 200, or 500 with a fault.
    pub status: u16,
    /// The envelope.
    pub body: Vec<u8>,
}

/// A message of an OMA-DM session, as the edge received it.
pub struct SessionRequest {
    /// The body, already within the edge's size limit.
    pub body: Vec<u8>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The TLS client certificate, DER. The handshake refused nobody.
    pub tls_certificate: Option<Vec<u8>>,
    /// `MDM-Signature` or `MS-Signature`.
    pub signature: Option<SecretString>,
    /// `mode` of the query, when it is a short word: `Maintenance`, `Machine`.
    pub mode: Option<String>,
    /// The certificate that a trusted proxy vouches for.
    pub proxy_certificate: Option<Vec<u8>>,
    /// Where from.
    pub source: Option<String>,
}

/// The answer of a session.
pub struct SessionReply {
    /// HTTP status.
    pub status: u16,
    /// Of the body; empty without one.
    pub content_type: &'static str,
    /// SyncML in the form that was asked in, or nothing.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for SessionReply {
    /// The body can hold passwords: its length only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionReply({}, {} bytes)", self.status, self.body.len())
    }
}

impl SessionReply {
    fn status(status: u16) -> Self {
        Self { status, content_type: "", body: Vec::new() }
    }
}

/// Why a session's message was not served.
#[derive(Debug)]
pub(crate) enum Refused {
    /// 400 or 413: not SyncML.
    Malformed(u16, String),
    /// 403: no proof of identity, or one that may not do this.
    Forbidden(String),
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
    /// One message of a session. Infallible: every error is already an answer.
    pub async fn windows_session(&self, request: SessionRequest) -> SessionReply {
        let source = request.source.clone();
        let mut site = self.default_site;
        match self.session_message(request, &mut site).await {
            Ok(reply) => reply,
            Err(Refused::Malformed(status, reason)) => {
                self.note_device_refusal("windows", site, status, &reason, source.as_deref()).await;
                SessionReply::status(status)
            }
            Err(Refused::Forbidden(reason)) => {
                self.note_device_refusal("windows", site, 403, &reason, source.as_deref()).await;
                SessionReply::status(403)
            }
            Err(Refused::Fault(error)) => {
                tracing::error!(%error, "a windows session failed");
                SessionReply::status(match error {
                    Error::Store(_) => 503,
                    _ => 500,
                })
            }
        }
    }

    /// One request of enrollment. Infallible: every error is already a fault.
    pub async fn windows_enrollment(&self, request: SoapRequest) -> SoapReply {
        let (trace_id, source) = (request.trace_id.clone(), request.source.clone());
        let mut header = ReplyHeader::default();
        let exchange = exchange_of(request.service);
        match self.enrollment_message(request, &mut header).await {
            Ok(body) => SoapReply { status: 200, body },
            Err(fault) => {
                let fault = Fault { trace_id, ..fault };
                tracing::info!(reason = %fault.reason, code = fault.client_error(), "enrollment refused");
                let (site, status) = (self.default_site, Fault::HTTP_STATUS);
                self.note_device_refusal("windows", site, status, &fault.reason, source.as_deref()).await;
                let header = ReplyHeader { timestamp: None, ..header };
                let body = fault.encode(exchange, &header).unwrap_or_default();
                SoapReply { status: Fault::HTTP_STATUS, body }
            }
        }
    }

    /// Where PCs find this server when nobody set up a name for it.
    pub fn windows_discovery_url(&self) -> String {
        format!("{}/EnrollmentServer/Discovery.svc", self.settings.public_url)
    }

    /// `PROVIDER-ID`, fixed for good by the first enrollment.
    async fn provider_id(&self) -> Result<String, Error> {
        let wanted = self.settings.windows.provider_id.clone().unwrap_or_else(|| "Bellwether".to_owned());
        let stored = self
            .store
            .write(Scope::System, move |tx| {
                tx.server_setting_insert_if_absent(PROVIDER_ID, wanted.as_bytes())?;
                tx.server_setting(PROVIDER_ID).map_err(Error::from)
            })
            .await?;
        let stored = stored.and_then(|bytes| String::from_utf8(bytes).ok());
        stored.ok_or_else(|| Error::Internal("the stored PROVIDER-ID is damaged".into()))
    }
}

fn exchange_of(service: WindowsService) -> Exchange {
    match service {
        WindowsService::Discovery => Exchange::Discover,
        WindowsService::Policy => Exchange::GetPolicies,
        WindowsService::Enrollment => Exchange::RequestSecurityToken,
    }
}

/// A fault; the request id is put in at the end.
fn fault(subcode: Subcode, reason: impl Into<String>) -> Fault {
    Fault::new(subcode, reason, "")
}
