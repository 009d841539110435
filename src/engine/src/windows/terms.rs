//! The terms of use that a person accepts before a PC enrolls by Entra ID (spec/windows.md 2.11).
//!
//! Entra opens our page with the person's token, and the page's form comes without one. So the form carries a ticket, and
//! Windows carries a blob from the form's answer to the request for a certificate. Both are sealed by this server and
//! end; nothing is stored for whoever only looks.

use super::credential::refused;
use super::entra::{EntraRefusal, EntraUser};
use super::fault;
use crate::Engine;
use crate::audit;
use crate::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bellwether_certs::hash::{hex, sha256};
use bellwether_model::time::{HOUR, MINUTE};
use bellwether_model::{Actor, EventKind, Timestamp};
use bellwether_store::Scope;
use bellwether_windows::enrollment::{ErrorType, Fault, Subcode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A person may read for so long.
const TICKET_LIFE: i64 = HOUR;
/// The certificate must be asked for within that time. Windows does so at once.
const BLOB_LIFE: i64 = HOUR;
/// Answers of one person in a minute: each is an audit entry.
const ANSWERS: i32 = 20;
/// What the vault seals them as.
const KIND: &str = "entra-terms";

/// The terms of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntraTerms {
    /// What the page shows besides who will manage the PC.
    pub text: Option<String>,
    /// Without an acceptance of this text no PC enrolls by Entra ID.
    pub required: bool,
}

impl EntraTerms {
    /// The digest of what is accepted: also of no text of ours.
    fn digest(&self) -> String {
        hex(&sha256(self.text.as_deref().unwrap_or_default().as_bytes()))
    }
}

/// A request for the page.
pub struct TermsRequest {
    /// The token of Entra ID: the JWT itself.
    pub token: SecretString,
    /// Where the answer goes, checked by the caller.
    pub redirect_uri: String,
    /// `client-request-id`, for the audit.
    pub request_id: Option<String>,
    /// Where from.
    pub source: Option<String>,
}

/// What the page shows, and what its form brings back.
pub struct TermsPage {
    /// Who is asked.
    pub account: String,
    /// The organisation's text.
    pub text: Option<String>,
    /// Says whose form it is.
    pub ticket: SecretString,
}

/// Why there is no page; Entra knows two kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TermsRefusal {
    /// The token is not good here.
    Unauthorized,
    /// Our fault, or Microsoft cannot be reached: it may be tried again.
    Server,
}

/// Where the browser goes after the form.
#[derive(Debug)]
pub struct TermsAnswer {
    /// `redirect_uri` of the page.
    pub redirect_uri: String,
    /// `client-request-id` of the page.
    pub request_id: Option<String>,
    /// What the PC must bring when it asks for its certificate; none when the terms were declined.
    pub blob: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Ticket {
    directory_id: String,
    account: String,
    /// Of the text that was shown.
    text: String,
    redirect_uri: String,
    request_id: Option<String>,
    until: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Acceptance {
    text: String,
    until: Timestamp,
}

impl Engine {
    /// The page for whoever a token speaks for.
    ///
    /// # Errors
    /// [`TermsRefusal`]; the reason is in the audit.
    pub async fn windows_terms(&self, request: TermsRequest) -> Result<TermsPage, TermsRefusal> {
        let source = request.source.clone();
        let refused = match self.opened_terms(request).await {
            Ok(page) => return Ok(page),
            Err(refused) => refused,
        };
        let (refusal, reason) = match refused {
            NoPage::Token(EntraRefusal::NoKeys(why)) => (TermsRefusal::Server, why),
            NoPage::Token(why) => (TermsRefusal::Unauthorized, why.to_string()),
            NoPage::Off => (TermsRefusal::Unauthorized, "tokens of Entra ID are not accepted".to_owned()),
            NoPage::Fault(error) => {
                tracing::error!(%error, "no page of the terms of use");
                (TermsRefusal::Server, error.to_string())
            }
        };
        let reason = format!("no terms of use were shown: {reason}");
        self.note_device_refusal("windows", self.default_site, 302, &reason, source.as_deref()).await;
        Err(refusal)
    }

    async fn opened_terms(&self, request: TermsRequest) -> Result<TermsPage, NoPage> {
        let entra = self.entra().ok_or(NoPage::Off)?;
        let now = self.now();
        let user = entra.verify(request.token.expose_secret().as_bytes(), now).await?;
        let ticket = Ticket {
            directory_id: user.directory_id(),
            account: user.upn.clone(),
            text: entra.terms().digest(),
            redirect_uri: request.redirect_uri,
            request_id: request.request_id,
            until: now.plus(TICKET_LIFE),
        };
        let sealed = self.seal_terms(b"ticket", &ticket)?;
        Ok(TermsPage {
            account: user.upn,
            text: entra.terms().text.clone(),
            ticket: SecretString::from(URL_SAFE_NO_PAD.encode(sealed)),
        })
    }

    /// The form's answer. Written down before Windows gets it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a ticket that is not ours or has ended, [`Error::TooMany`].
    pub async fn windows_terms_answered(
        &self,
        ticket: &str,
        accepted: bool,
        source: Option<&str>,
    ) -> Result<TermsAnswer, Error> {
        let now = self.now();
        let sealed = URL_SAFE_NO_PAD.decode(ticket).unwrap_or_default();
        let ticket: Option<Ticket> = self.open_terms(b"ticket", &sealed);
        let ticket = ticket.filter(|ticket| ticket.until > now).ok_or(Error::NotFound("ticket"))?;
        let blob = if accepted {
            let acceptance = Acceptance { text: ticket.text.clone(), until: now.plus(BLOB_LIFE) };
            Some(self.seal_terms(ticket.directory_id.as_bytes(), &acceptance)?)
        } else {
            None
        };
        self.note_answer(&ticket, accepted, now, source).await?;
        Ok(TermsAnswer { redirect_uri: ticket.redirect_uri, request_id: ticket.request_id, blob })
    }

    async fn note_answer(
        &self,
        ticket: &Ticket,
        accepted: bool,
        now: Timestamp,
        source: Option<&str>,
    ) -> Result<(), Error> {
        let kind = if accepted { EventKind::TermsAccepted } else { EventKind::TermsDeclined };
        let details = serde_json::json!({
            "account": ticket.account, "text_sha256": ticket.text, "client_request_id": ticket.request_id,
        });
        let target = ticket.directory_id.clone();
        let entry = audit::entry(now, &Actor::Anonymous, kind, &target, source, Some(details))?;
        let bucket = format!("terms:{target}");
        self.store
            .write(Scope::Site(self.default_site), move |tx| {
                if tx.rate_bump(&bucket, now, MINUTE)? > ANSWERS {
                    return Err(Error::TooMany { retry_after_seconds: 60 });
                }
                tx.audit_append(&entry).map_err(Error::from)
            })
            .await
    }

    /// Whether this person may have a certificate, as far as the terms of use go. `brought` is the request's
    /// `EnrollmentData`.
    pub(super) fn check_terms(&self, user: &EntraUser, brought: Option<&str>) -> Result<(), Fault> {
        let entra = self.entra().ok_or_else(|| refused(Error::NotFound("Entra")))?;
        let terms = entra.terms();
        if !terms.required {
            return Ok(());
        }
        let no = |why: &str| {
            let reason = format!("the terms of use were not accepted: {why}; begin again and accept them");
            Err(fault(Subcode::Authorization, reason).with_type(ErrorType::InvalidEnrollmentData))
        };
        let Some(brought) = brought else { return no("the request brings no EnrollmentData") };
        let sealed = STANDARD.decode(brought.trim()).unwrap_or_default();
        match self.open_terms::<Acceptance>(user.directory_id().as_bytes(), &sealed) {
            None => no("what the request brings was not made for this person"),
            Some(acceptance) if acceptance.until <= self.now() => no("it was too long ago"),
            Some(acceptance) if acceptance.text != terms.digest() => no("the text has changed since"),
            Some(_) => Ok(()),
        }
    }

    fn seal_terms<T: Serialize>(&self, id: &[u8], value: &T) -> Result<Vec<u8>, Error> {
        let plain = serde_json::to_vec(value).map_err(|e| Error::Internal(format!("terms of use: {e}")))?;
        self.vault.seal(self.default_site, KIND, id, "value", &plain)
    }

    /// `None`: not sealed by us, or for something or somebody else.
    fn open_terms<T: DeserializeOwned>(&self, id: &[u8], sealed: &[u8]) -> Option<T> {
        let opened = self.vault.open(self.default_site, KIND, id, "value", sealed).ok()?;
        serde_json::from_slice(opened.expose_secret()).ok()
    }
}

enum NoPage {
    Off,
    Token(EntraRefusal),
    Fault(Error),
}

impl From<EntraRefusal> for NoPage {
    fn from(refusal: EntraRefusal) -> Self {
        Self::Token(refusal)
    }
}

impl From<Error> for NoPage {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}
