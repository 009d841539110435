//! `RequestSecurityToken` (MS-WSTEP 3.1.4.1, MS-MDE2 3.4): the certificate request, and the answer that wraps the
//! provisioning document.

use super::bytes::{self, Pkcs7, Pkcs10};
use super::soap::{self, Exchange, ReplyHeader};
use super::xml::{Element, Writing};
use super::{Context, Error, Opaque, names};

const REQUEST: &str = "RequestSecurityToken";
const RESPONSE: &str = "RequestSecurityTokenResponse";

/// What is to be certified. A renewal is always signed by the old key: a bare PKCS#10 request proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRequest {
    /// `…/Issue` with a PKCS#10 request.
    Issue(Pkcs10),
    /// `…/Renew` with a CMS message around a PKCS#10 request.
    Renew(Pkcs7),
}

/// A `RequestSecurityToken`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSecurityToken {
    /// The request proper.
    pub request: TokenRequest,
    /// `AdditionalContext`.
    pub context: Context,
}

impl RequestSecurityToken {
    pub(super) fn decode(message: &Element<'_>) -> Result<Self, Error> {
        let token_type = message.value("TokenType")?;
        if token_type.is_some_and(|kind| kind != names::ENROLLMENT_TOKEN) {
            return Err(Error::Bad { message: REQUEST, field: "TokenType" });
        }
        let kind = message.required(REQUEST, "RequestType")?.trim_end_matches('/');
        let token = message.required_child(REQUEST, "BinarySecurityToken")?;
        let value_type = token
            .attribute("ValueType")
            .ok_or(Error::Missing { message: REQUEST, field: "BinarySecurityToken/@ValueType" })?;
        let request = match kind {
            names::ISSUE if value_type == names::PKCS10 => {
                TokenRequest::Issue(Pkcs10::new(bytes::decode_der(token.text())?)?)
            }
            names::ISSUE => {
                return Err(Error::CertificateRequest("its value type does not fit the request type"));
            }
            names::RENEW => TokenRequest::Renew(signed_request(value_type, token.text())?),
            _ => return Err(Error::Bad { message: REQUEST, field: "RequestType" }),
        };
        Ok(Self { request, context: Context::decode(message)? })
    }

    /// `twice` wraps the request in Base64 twice, as a renewal that a person started is.
    pub(super) fn write(&self, xml: &mut Writing, twice: bool) {
        let (kind, value_type, der) = match &self.request {
            TokenRequest::Issue(request) => (names::ISSUE, names::PKCS10, request.as_der()),
            TokenRequest::Renew(request) => (names::RENEW, names::PKCS7, request.as_der()),
        };
        let wrapped = wrapped_lines(der);
        let wrapped = if twice { wrapped_lines(wrapped.as_bytes()) } else { wrapped };
        xml.open("wst:RequestSecurityToken", &[]);
        xml.leaf("wst:TokenType", names::ENROLLMENT_TOKEN);
        xml.leaf("wst:RequestType", kind);
        xml.leaf_with(
            "wsse:BinarySecurityToken",
            &[("ValueType", value_type), ("EncodingType", names::BASE64_BINARY)],
            &wrapped,
        );
        self.context.write(xml);
        xml.close();
    }
}

/// What is wrong with a renewal's signed request is a wrong message, not a wrong certificate request.
fn signed_request(value_type: &str, text: &str) -> Result<Pkcs7, Error> {
    const BAD: Error = Error::Bad { message: REQUEST, field: "signed request" };
    match value_type {
        names::PKCS7 | names::PKCS7_SAMPLE => bytes::decode_der(text).and_then(Pkcs7::new).map_err(|_| BAD),
        _ => Err(BAD),
    }
}

/// Base64 in lines of 64 characters, as machines send it.
fn wrapped_lines(value: &[u8]) -> String {
    const BYTES_A_LINE: usize = 48;
    value.chunks(BYTES_A_LINE).map(bytes::encode).collect::<Vec<_>>().join("\n")
}

/// The answer: a `RequestSecurityTokenResponseCollection` with one token, the provisioning document
/// (MS-WSTEP 3.1.4.1.3.4, MS-MDE2 3.4.4.1.2).
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The encoded [`Provisioning`](super::Provisioning): it holds the passwords of the account.
    pub document: Opaque,
}

impl IssuedToken {
    /// Wraps an encoded provisioning document.
    #[must_use]
    pub fn new(document: Opaque) -> Self {
        Self { document }
    }

    /// Writes the answer. It holds secrets: send it, do not log it.
    ///
    /// # Errors
    /// [`Error::NotWritable`] for a timestamp after the year 9999.
    pub fn encode(&self, header: &ReplyHeader) -> Result<Vec<u8>, Error> {
        let wrapped = bytes::encode(self.document.expose());
        soap::reply(Exchange::RequestSecurityToken, header, |xml| {
            xml.open("RequestSecurityTokenResponseCollection", &[("xmlns", names::TRUST)]);
            xml.open(RESPONSE, &[]);
            xml.leaf("TokenType", names::ENROLLMENT_TOKEN);
            xml.empty("DispositionMessage", &[("xmlns", names::ENROLLMENT)]);
            xml.open("RequestedSecurityToken", &[]);
            xml.leaf_with(
                "BinarySecurityToken",
                &[
                    ("ValueType", names::PROVISION_DOC),
                    ("EncodingType", names::BASE64_BINARY),
                    ("xmlns", names::SECURITY),
                ],
                &wrapped,
            );
            xml.close();
            xml.leaf_with("RequestID", &[("xmlns", names::ENROLLMENT)], "0");
            xml.close().close();
        })
    }

    pub(super) fn decode(collection: &Element<'_>) -> Result<Self, Error> {
        let token = collection
            .required_child(RESPONSE, RESPONSE)?
            .required_child(RESPONSE, "RequestedSecurityToken")?
            .required_child(RESPONSE, "BinarySecurityToken")?;
        match token.attribute("ValueType") {
            Some(names::PROVISION_DOC | names::PROVISION_DOC_PROSE) => {}
            _ => return Err(Error::Bad { message: RESPONSE, field: "ValueType" }),
        }
        let document = bytes::decode(token.text()).filter(|document| !document.is_empty());
        let document = document.ok_or(Error::Bad { message: RESPONSE, field: "BinarySecurityToken" })?;
        Ok(Self::new(document.into()))
    }
}
