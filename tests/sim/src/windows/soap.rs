//! The three SOAP exchanges of enrollment (MS-MDE2), as strictly as Windows takes them.

use bellwether_windows::enrollment::client::{self, Answer};
use bellwether_windows::enrollment::{CONTENT_TYPE, Fault, Header};
use reqwest::Method;

use super::WindowsPc;
use crate::{Error, Reply, Result};

/// What an enrollment service answered: as it came, and what it means.
pub struct SoapReply {
    /// HTTP status, headers and body.
    pub reply: Reply,
    /// The addressing headers, when there was an envelope.
    pub header: Option<Header>,
    /// The message; what is wrong with the answer otherwise.
    pub answer: Result<Answer, String>,
}

impl std::fmt::Debug for SoapReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The answer can hold the passwords of an account.
        let kind = match &self.answer {
            Ok(Answer::Discover(_)) => "Discover",
            Ok(Answer::Policy(_)) => "Policy",
            Ok(Answer::Token(_)) => "Token",
            Ok(Answer::Fault(_)) => "Fault",
            Ok(_) => "other",
            Err(problem) => problem,
        };
        f.debug_struct("SoapReply")
            .field("status", &self.reply.status)
            .field("answer", &kind)
            .finish_non_exhaustive()
    }
}

impl SoapReply {
    /// The fault, when it is one.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match &self.answer {
            Ok(Answer::Fault(fault)) => Some(fault),
            _ => None,
        }
    }

    /// The answer of the right kind: Windows takes it only as one message with a length, and only when it relates to
    /// the request (MS-MDE2; "must not set Transfer-Encoding to Chunked").
    ///
    /// # Errors
    /// [`Error::Fault`], [`Error::Refused`], or [`Error::Enrollment`] for an answer that Windows would not take.
    pub fn good(self, what: &'static str, message_id: &str) -> Result<Answer> {
        let error = |problem: &str| Error::Enrollment(format!("{what}: {problem}"));
        let problem = |problem: &str| Err(error(problem));
        match self.answer {
            Ok(Answer::Fault(fault)) => return Err(Error::Fault { what, fault: Box::new(fault) }),
            _ if self.reply.status != 200 => {
                return match self.reply.ok(what) {
                    Err(error) => Err(error),
                    Ok(_) => problem("no answer"),
                };
            }
            _ => {}
        }
        one_message(&self.reply).map_err(error)?;
        let content_type = self.reply.header("content-type").unwrap_or_default().to_ascii_lowercase();
        if content_type.split(';').next() != Some("application/soap+xml") {
            return problem("it is not application/soap+xml");
        }
        let relates_to = self.header.and_then(|header| header.relates_to);
        if !relates_to.is_some_and(|id| id.eq_ignore_ascii_case(message_id)) {
            return problem("it relates to another message");
        }
        self.answer.or_else(|reason| problem(&reason))
    }
}

/// Neither in chunks nor compressed nor without a length.
pub(super) fn one_message(reply: &Reply) -> Result<(), &'static str> {
    if reply.header("transfer-encoding").is_some() {
        return Err("it came in chunks");
    }
    if reply.header("content-encoding").is_some() {
        return Err("it came compressed");
    }
    match reply.header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length == reply.body.len() => Ok(()),
        _ => Err("it has no Content-Length"),
    }
}

impl WindowsPc {
    /// Posts any body to an enrollment service, without a client certificate. Every answer is one.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn soap(&self, url: &str, body: Vec<u8>) -> Result<SoapReply> {
        self.soap_over(&self.http, url, body).await
    }

    pub(super) async fn soap_over(&self, http: &crate::Http, url: &str, body: Vec<u8>) -> Result<SoapReply> {
        let request = http
            .request(Method::POST, url)
            .header("content-type", CONTENT_TYPE)
            .header("user-agent", "ENROLLClient")
            .header("accept", "*/*")
            .body(body);
        let reply = http.send("enrollment", request).await?;
        let (header, answer) = match client::read(&reply.body) {
            Ok((header, answer)) => (Some(header), Ok(answer)),
            Err(error) => (None, Err(error.to_string())),
        };
        Ok(SoapReply { reply, header, answer })
    }
}
