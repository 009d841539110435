//! The machine's end of enrollment, for simulated machines: requests out, answers in.
//!
//! The MessageIDs are the constants that Windows sends.

pub use super::policy::ReceivedPolicy;

use super::soap::{self, Credential, Exchange, Header};
use super::{
    Context, DiscoverRequest, DiscoverResponse, Envelope, Error, Fault, GetPolicies, IssuedToken, Limits,
    Pkcs7, Pkcs10, RequestSecurityToken, TokenRequest, names,
};

/// The MessageID of every `Discover`.
pub const DISCOVER_ID: &str = "urn:uuid:748132ec-a575-4329-b01b-6171a9cf8478";
/// The MessageID of every `GetPolicies`.
pub const GET_POLICIES_ID: &str = "urn:uuid:72048B64-0F19-448F-8C2E-B4C661860AA0";
/// The MessageID of every `RequestSecurityToken`.
pub const REQUEST_SECURITY_TOKEN_ID: &str = "urn:uuid:0d5a1441-5891-453b-becf-a2e5f6ea3749";

/// Writes a `Discover` request.
///
/// # Errors
/// [`Error::NotWritable`] for control characters.
pub fn discover(to: &str, request: &DiscoverRequest) -> Result<Vec<u8>, Error> {
    soap::request(Exchange::Discover, DISCOVER_ID, to, None, |xml| request.write(xml))
}

/// Writes a `GetPolicies` request.
///
/// # Errors
/// [`Error::NotWritable`] for control characters.
pub fn get_policies(to: &str, credential: &Credential) -> Result<Vec<u8>, Error> {
    let request = GetPolicies::default();
    soap::request(Exchange::GetPolicies, GET_POLICIES_ID, to, Some(credential), |xml| request.write(xml))
}

/// Writes a `RequestSecurityToken` for a first certificate.
///
/// # Errors
/// [`Error::NotWritable`] for control characters.
pub fn issue(to: &str, credential: &Credential, request: Pkcs10, context: Context) -> Result<Vec<u8>, Error> {
    let message = RequestSecurityToken { request: TokenRequest::Issue(request), context };
    security_token(to, Some(credential), &message, false)
}

/// How a renewal came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Renewal {
    /// By itself (ROBO): Base64 once, no credential.
    Automatic,
    /// A person started it: Base64 twice.
    Manual,
}

/// Writes a `RequestSecurityToken` for a renewal.
///
/// # Errors
/// [`Error::NotWritable`] for control characters.
pub fn renew(
    to: &str,
    credential: Option<&Credential>,
    request: Pkcs7,
    renewal: Renewal,
    context: Context,
) -> Result<Vec<u8>, Error> {
    let message = RequestSecurityToken { request: TokenRequest::Renew(request), context };
    security_token(to, credential, &message, renewal == Renewal::Manual)
}

fn security_token(
    to: &str,
    credential: Option<&Credential>,
    message: &RequestSecurityToken,
    twice: bool,
) -> Result<Vec<u8>, Error> {
    soap::request(Exchange::RequestSecurityToken, REQUEST_SECURITY_TOKEN_ID, to, credential, |xml| {
        message.write(xml, twice);
    })
}

/// What a server answered.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// To `Discover`.
    Discover(DiscoverResponse),
    /// To `GetPolicies`.
    Policy(ReceivedPolicy),
    /// To `RequestSecurityToken`; read its document with [`Provisioning::decode`](super::Provisioning::decode).
    Token(IssuedToken),
    /// No.
    Fault(Fault),
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<(Header, Answer), Error> {
    let envelope = Envelope::read(bytes, &Limits::REPLY)?;
    let content = envelope.content()?;
    let answer = if let Some(fault) = Fault::of(&envelope)? {
        Answer::Fault(fault)
    } else if content.is("DiscoverResponse", &[names::DISCOVERY]) {
        Answer::Discover(DiscoverResponse::decode(&content)?)
    } else if content.is("GetPoliciesResponse", &[names::POLICY]) {
        Answer::Policy(ReceivedPolicy::decode(&content)?)
    } else if content.is("RequestSecurityTokenResponseCollection", &[names::TRUST]) {
        Answer::Token(IssuedToken::decode(&content)?)
    } else {
        return Err(Error::UnknownMessage);
    };
    Ok((envelope.header().clone(), answer))
}
