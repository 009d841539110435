//! The SOAP 1.2 envelope with WS-Addressing and WS-Security headers, both ways.

use uuid::Uuid;

use super::time::Timestamp;
use super::xml::{Document, Element, Limits, Writing};
use super::{Error, Opaque, bytes, names, time};

/// The longest value of an addressing header, in bytes.
const MAX_HEADER: usize = 2_048;
/// The longest user name or password, in bytes.
const MAX_NAME: usize = 1_024;
/// The longest token, in bytes.
const MAX_TOKEN: usize = 64 * 1024;

/// The three exchanges of enrollment (MS-MDE2 3.1, 3.3 and 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// `Discovery.svc`.
    Discover,
    /// `Policy.svc` (MS-XCEP).
    GetPolicies,
    /// `Enrollment.svc` (MS-WSTEP).
    RequestSecurityToken,
}

impl Exchange {
    /// The `Action` of the request.
    #[must_use]
    pub fn request_action(self) -> &'static str {
        match self {
            Self::Discover => {
                "http://schemas.microsoft.com/windows/management/2012/01/enrollment/IDiscoveryService/Discover"
            }
            Self::GetPolicies => {
                "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy/IPolicy/GetPolicies"
            }
            Self::RequestSecurityToken => {
                "http://schemas.microsoft.com/windows/pki/2009/01/enrollment/RST/wstep"
            }
        }
    }

    /// The `Action` of the reply, a fault included.
    #[must_use]
    pub fn response_action(self) -> &'static str {
        match self {
            Self::Discover => {
                "http://schemas.microsoft.com/windows/management/2012/01/enrollment/IDiscoveryService/DiscoverResponse"
            }
            Self::GetPolicies => {
                "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy/IPolicy/GetPoliciesResponse"
            }
            Self::RequestSecurityToken => {
                "http://schemas.microsoft.com/windows/pki/2009/01/enrollment/RSTRC/wstep"
            }
        }
    }
}

/// The addressing headers of a message. All are optional when reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// `a:Action`.
    pub action: Option<String>,
    /// `a:MessageID`, as it stands: a constant of the client, to be echoed.
    pub message_id: Option<String>,
    /// `a:To`.
    pub to: Option<String>,
    /// `a:RelatesTo`, in replies.
    pub relates_to: Option<String>,
    /// `ActivityId`, in replies.
    pub activity_id: Option<String>,
}

/// What the security header presents (MS-MDE2 3.3.1 and 3.4.1; WS-Security). A claim until it is checked.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// `OnPremise`: a user name with a password or one-time code. A renewal may bring one with an empty password.
    UsernameToken {
        /// `wsse:Username`: an e-mail address, `domain\user`, or whatever a provisioning package says.
        username: String,
        /// `wsse:Password`.
        password: Opaque,
    },
    /// `Federated`: the security token that our own sign-in page handed out, or that a program passed to
    /// `RegisterDeviceWithManagement`.
    UserToken(Opaque),
    /// `Federated` through Entra: a JWT, not looked into.
    Jwt(Opaque),
    /// `Certificate`: the DER of an X.509 certificate. It proves nothing without the XML signature beside it, which
    /// this crate does not check.
    Certificate(Vec<u8>),
}

/// A message in its envelope; header first, so that a fault can be related to it whatever the rest holds.
pub struct Envelope {
    header: Header,
    document: Document,
    security: Option<usize>,
    body: usize,
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    /// What the limits, the XML or the envelope's structure refused.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        const SOAPS: &[&str] = &[names::SOAP, names::SOAP_11];
        let document = Document::parse(bytes, limits)?;
        let root = document.root()?;
        if !root.is("Envelope", SOAPS) {
            return Err(Error::NotAnEnvelope("the root element is another one"));
        }
        let body = root.child("Body")?.filter(|body| body.is("Body", SOAPS));
        let body = body.ok_or(Error::NotAnEnvelope("it has no body"))?.index();
        let (mut header, mut security) = (Header::default(), None);
        if let Some(element) = root.child("Header")? {
            header = Header {
                action: header_value(&element, "Action")?,
                message_id: header_value(&element, "MessageID")?,
                to: header_value(&element, "To")?,
                relates_to: header_value(&element, "RelatesTo")?,
                activity_id: header_value(&element, "ActivityId")?,
            };
            security = element.child("Security")?.map(|element| element.index());
        }
        Ok(Self { header, document, security, body })
    }

    /// The addressing headers.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the security header presents; `None` when there is nothing (`Discover`, automatic renewal).
    ///
    /// # Errors
    /// [`Error::Security`] for an unknown token, Base64 that is wrong, or more than one credential.
    pub fn credential(&self) -> Result<Option<Credential>, Error> {
        let Some(security) = self.security.and_then(|index| self.document.at(index)) else {
            return Ok(None);
        };
        let twice = |_| Error::Security("it has more than one token of a kind");
        let username = security.child("UsernameToken").map_err(twice)?;
        let token = security.child("BinarySecurityToken").map_err(twice)?;
        match (username, token) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Error::Security("it has a user name and a token")),
            (Some(username), None) => username_token(&username).map(Some),
            (None, Some(token)) => security_token(&token).map(Some),
        }
    }

    /// The element in the body, and what stands beside it.
    pub(super) fn body(&self) -> Result<Element<'_>, Error> {
        self.document.at(self.body).ok_or(Error::NotAnEnvelope("it has no body"))
    }

    /// The first element in the body.
    pub(super) fn content(&self) -> Result<Element<'_>, Error> {
        self.body()?.children().next().ok_or(Error::UnknownMessage)
    }
}

fn header_value(header: &Element<'_>, name: &'static str) -> Result<Option<String>, Error> {
    match header.value(name)? {
        Some(text) if text.len() > MAX_HEADER => Err(Error::ValueTooLarge { field: name, limit: MAX_HEADER }),
        text => Ok(text.map(str::to_owned)),
    }
}

fn username_token(token: &Element<'_>) -> Result<Credential, Error> {
    let twice = |_| Error::Security("a user name token says something twice");
    let username = token.value("Username").map_err(twice)?.unwrap_or_default();
    let password = token.value("Password").map_err(twice)?.unwrap_or_default();
    if username.len() > MAX_NAME || password.len() > MAX_NAME {
        return Err(Error::Security("a user name or password is too long"));
    }
    Ok(Credential::UsernameToken { username: username.to_owned(), password: password.into() })
}

fn security_token(token: &Element<'_>) -> Result<Credential, Error> {
    let kind = token.attribute("ValueType").ok_or(Error::Security("a token does not say what it is"))?;
    if token.text().len() > MAX_TOKEN {
        return Err(Error::Security("a token is too long"));
    }
    let value = bytes::decode(token.text()).filter(|value| !value.is_empty());
    let value = value.ok_or(Error::Security("a token is not Base64"))?;
    match kind {
        names::USER_TOKEN => Ok(Credential::UserToken(value.into())),
        names::JWT => Ok(Credential::Jwt(value.into())),
        // Microsoft's sample shortens the value type to "X509v3".
        names::X509 | "X509v3" => Ok(Credential::Certificate(value)),
        _ => Err(Error::Security("a token is of an unknown type")),
    }
}

/// The headers of a reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's `MessageID`, echoed.
    pub relates_to: Option<String>,
    /// `ActivityId`: appears in the machine's event log.
    pub activity_id: Option<Uuid>,
    /// A window in the security header: only the reply to `RequestSecurityToken` has one.
    pub timestamp: Option<Timestamp>,
}

impl ReplyHeader {
    /// The header of a reply to a message.
    #[must_use]
    pub fn to(request: &Header) -> Self {
        Self { relates_to: request.message_id.clone(), ..Self::default() }
    }

    /// With an `ActivityId`.
    #[must_use]
    pub fn with_activity(mut self, id: Uuid) -> Self {
        self.activity_id = Some(id);
        self
    }

    /// With a window in the security header.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// Writes a reply; `body` writes what stands inside of `s:Body`.
pub(super) fn reply(
    exchange: Exchange,
    header: &ReplyHeader,
    body: impl FnOnce(&mut Writing),
) -> Result<Vec<u8>, Error> {
    let mut xml = Writing::new();
    xml.open("s:Envelope", &[("xmlns:s", names::SOAP), ("xmlns:a", names::ADDRESSING)]);
    xml.open("s:Header", &[]);
    xml.leaf_with("a:Action", &[("s:mustUnderstand", "1")], exchange.response_action());
    if let Some(id) = header.activity_id {
        let id = id.to_string();
        xml.leaf_with("ActivityId", &[("CorrelationId", &id), ("xmlns", names::DIAGNOSTICS)], &id);
    }
    xml.maybe("a:RelatesTo", header.relates_to.as_deref());
    if let Some(timestamp) = &header.timestamp {
        let (created, expires) = (time::format(timestamp.created)?, time::format(timestamp.expires)?);
        xml.open(
            "o:Security",
            &[("s:mustUnderstand", "1"), ("xmlns:o", names::SECURITY), ("xmlns:u", names::UTILITY)],
        );
        xml.open("u:Timestamp", &[("u:Id", "_0")]);
        xml.leaf("u:Created", &created).leaf("u:Expires", &expires);
        xml.close().close();
    }
    xml.close();
    xml.open("s:Body", &[("xmlns:xsi", names::XSI), ("xmlns:xsd", names::XSD)]);
    body(&mut xml);
    xml.close().close();
    xml.finish()
}

/// Writes a request as a machine does.
pub(super) fn request(
    exchange: Exchange,
    message_id: &str,
    to: &str,
    credential: Option<&Credential>,
    body: impl FnOnce(&mut Writing),
) -> Result<Vec<u8>, Error> {
    let mut xml = Writing::new();
    xml.open(
        "s:Envelope",
        &[
            ("xmlns:s", names::SOAP),
            ("xmlns:a", names::ADDRESSING),
            ("xmlns:u", names::UTILITY),
            ("xmlns:wsse", names::SECURITY),
            ("xmlns:wst", names::TRUST),
            ("xmlns:ac", names::AUTHORIZATION),
        ],
    );
    xml.open("s:Header", &[]);
    xml.leaf_with("a:Action", &[("s:mustUnderstand", "1")], exchange.request_action());
    xml.leaf("a:MessageID", message_id);
    xml.open("a:ReplyTo", &[]).leaf("a:Address", names::ANONYMOUS).close();
    xml.leaf_with("a:To", &[("s:mustUnderstand", "1")], to);
    if let Some(credential) = credential {
        xml.open("wsse:Security", &[("s:mustUnderstand", "1")]);
        write_credential(&mut xml, credential)?;
        xml.close();
    }
    xml.close();
    xml.open("s:Body", &[("xmlns:xsi", names::XSI), ("xmlns:xsd", names::XSD)]);
    body(&mut xml);
    xml.close().close();
    xml.finish()
}

fn write_credential(xml: &mut Writing, credential: &Credential) -> Result<(), Error> {
    let (kind, value) = match credential {
        Credential::UsernameToken { username, password } => {
            let password = password.expose_str().ok_or(Error::NotWritable("a password is not text"))?;
            xml.open("wsse:UsernameToken", &[("u:Id", "uuid-cc1ccc1f-2fba-4bcf-b063-ffc0cac77917-4")]);
            xml.leaf("wsse:Username", username);
            xml.leaf_with("wsse:Password", &[("wsse:Type", names::PASSWORD_TEXT)], password);
            xml.close();
            return Ok(());
        }
        Credential::UserToken(token) => (names::USER_TOKEN, token.expose()),
        Credential::Jwt(token) => (names::JWT, token.expose()),
        Credential::Certificate(der) => (names::X509, der.as_slice()),
    };
    let value = bytes::encode(value);
    xml.leaf_with(
        "wsse:BinarySecurityToken",
        &[("wsse:ValueType", kind), ("wsse:EncodingType", names::BASE64_BINARY)],
        &value,
    );
    Ok(())
}
