//! SOAP faults (MS-MDE2 2.2.10): what the machine shows to the person who enrolls.

use super::soap::{self, Exchange, ReplyHeader};
use super::xml::Element;
use super::{Envelope, Error, names};

/// The subcode of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subcode {
    /// `s:MessageFormat`: the message is wrong.
    MessageFormat,
    /// `s:Authentication`: user name, code or token were not accepted.
    Authentication,
    /// `s:Authorization`: known, but not allowed to.
    Authorization,
    /// `s:CertificateRequest`: the certificate request is wrong.
    CertificateRequest,
    /// `s:EnrollmentServer`: the server could not issue.
    EnrollmentServer,
    /// `a:InternalServiceFault`: the server failed.
    InternalServiceFault,
    /// `a:InvalidSecurity`: the security header is wrong.
    InvalidSecurity,
}

impl Subcode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MessageFormat,
        Self::Authentication,
        Self::Authorization,
        Self::CertificateRequest,
        Self::EnrollmentServer,
        Self::InternalServiceFault,
        Self::InvalidSecurity,
    ];

    /// As it stands in the fault.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageFormat => "s:MessageFormat",
            Self::Authentication => "s:Authentication",
            Self::Authorization => "s:Authorization",
            Self::CertificateRequest => "s:CertificateRequest",
            Self::EnrollmentServer => "s:EnrollmentServer",
            Self::InternalServiceFault => "a:InternalServiceFault",
            Self::InvalidSecurity => "a:InvalidSecurity",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let local = text.rsplit(':').next()?;
        Self::ALL.into_iter().find(|code| code.as_str().ends_with(&[":", local].concat()))
    }

    /// What the machine makes of it.
    #[must_use]
    pub fn client_error(self) -> u32 {
        match self {
            Self::MessageFormat => 0x8018_0001,
            Self::Authentication => 0x8018_0002,
            Self::Authorization => 0x8018_0003,
            Self::CertificateRequest => 0x8018_0004,
            Self::EnrollmentServer => 0x8018_0005,
            Self::InternalServiceFault => 0x8018_0006,
            Self::InvalidSecurity => 0x8018_0007,
        }
    }
}

/// `ErrorType` of `DeviceEnrollmentServiceError`: the finer reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The account may not enroll more machines.
    DeviceCapReached,
    /// This kind of machine is not supported.
    DeviceNotSupported,
    /// What was asked for is not supported.
    NotSupported,
    /// The certificate is not in its renewal window, or may not be renewed.
    NotEligibleToRenew,
    /// Come back later.
    InMaintenance,
    /// The person's licence does not cover this.
    UserLicense,
    /// The server did not accept the enrollment data.
    InvalidEnrollmentData,
    /// Anything else; the message is shown.
    CustomServerError,
}

impl ErrorType {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::DeviceCapReached,
        Self::DeviceNotSupported,
        Self::NotSupported,
        Self::NotEligibleToRenew,
        Self::InMaintenance,
        Self::UserLicense,
        Self::InvalidEnrollmentData,
        Self::CustomServerError,
    ];

    /// As it stands in the fault.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceCapReached => "DeviceCapReached",
            Self::DeviceNotSupported => "DeviceNotSupported",
            Self::NotSupported => "NotSupported",
            Self::NotEligibleToRenew => "NotEligibleToRenew",
            Self::InMaintenance => "InMaintenance",
            Self::UserLicense => "UserLicense",
            Self::InvalidEnrollmentData => "InvalidEnrollmentData",
            Self::CustomServerError => "CustomServerError",
        }
    }

    /// What the machine makes of it.
    #[must_use]
    pub fn client_error(self) -> u32 {
        match self {
            Self::DeviceCapReached => 0x8018_0013,
            Self::DeviceNotSupported => 0x8018_0014,
            Self::NotSupported => 0x8018_0015,
            Self::NotEligibleToRenew => 0x8018_0016,
            Self::InMaintenance => 0x8018_0017,
            Self::UserLicense => 0x8018_0018,
            Self::InvalidEnrollmentData => 0x8018_0019,
            Self::CustomServerError => 0x8018_0032,
        }
    }
}

/// A fault. [`Fault::HTTP_STATUS`] goes with it (SOAP 1.2); machines show it with 200 as well, but never with 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The subcode.
    pub subcode: Subcode,
    /// The reason: shown in the machine's event log, so it must hold no secret.
    pub reason: String,
    /// The finer reason, when there is one.
    pub error_type: Option<ErrorType>,
    /// Our request id: shown to the person and in the event log.
    pub trace_id: String,
}

impl Fault {
    /// The HTTP status of a fault.
    pub const HTTP_STATUS: u16 = 500;

    /// A fault without a finer reason.
    #[must_use]
    pub fn new(subcode: Subcode, reason: impl Into<String>, trace_id: impl Into<String>) -> Self {
        Self { subcode, reason: reason.into(), error_type: None, trace_id: trace_id.into() }
    }

    /// With a finer reason.
    #[must_use]
    pub fn with_type(mut self, error_type: ErrorType) -> Self {
        self.error_type = Some(error_type);
        self
    }

    /// No authentication policy that both sides know: `s:Authorization` with `NotSupported`.
    #[must_use]
    pub fn no_common_policy(trace_id: impl Into<String>) -> Self {
        Self::new(Subcode::Authorization, "no authentication policy in common", trace_id)
            .with_type(ErrorType::NotSupported)
    }

    /// Outside of the renewal window: `a:InternalServiceFault` with `NotEligibleToRenew`.
    #[must_use]
    pub fn not_eligible_to_renew(trace_id: impl Into<String>) -> Self {
        Self::new(Subcode::InternalServiceFault, "the certificate is not to be renewed now", trace_id)
            .with_type(ErrorType::NotEligibleToRenew)
    }

    /// The code that the machine reports: the finer reason's when there is one.
    #[must_use]
    pub fn client_error(&self) -> u32 {
        self.error_type.map_or(self.subcode.client_error(), ErrorType::client_error)
    }

    /// Writes the fault as the answer to a message of that exchange. Characters that XML cannot carry are
    /// replaced: a fault must always reach the machine.
    ///
    /// # Errors
    /// None in practice; writing reports an error type.
    pub fn encode(&self, exchange: Exchange, header: &ReplyHeader) -> Result<Vec<u8>, Error> {
        let (reason, trace_id) = (writable(&self.reason), writable(&self.trace_id));
        soap::reply(exchange, header, |xml| {
            xml.open("s:Fault", &[]);
            xml.open("s:Code", &[]).leaf("s:Value", "s:Receiver");
            xml.open("s:Subcode", &[]).leaf("s:Value", self.subcode.as_str()).close().close();
            xml.open("s:Reason", &[]).leaf_with("s:Text", &[("xml:lang", "en-us")], &reason).close();
            xml.open("s:Detail", &[]);
            xml.open("DeviceEnrollmentServiceError", &[("xmlns", names::ENROLLMENT)]);
            xml.maybe("ErrorType", self.error_type.map(ErrorType::as_str));
            xml.leaf("Message", &reason).leaf("TraceId", &trace_id);
            xml.close().close().close();
        })
    }

    /// Reads the fault in an answer; `None` when the body holds something else.
    pub(super) fn of(envelope: &Envelope) -> Result<Option<Self>, Error> {
        const MESSAGE: &str = "Fault";
        let fault = envelope.content()?;
        if !fault.is("Fault", &[names::SOAP, names::SOAP_11]) {
            return Ok(None);
        }
        let subcode = fault.required_child(MESSAGE, "Code")?.required_child(MESSAGE, "Subcode")?;
        let subcode = Subcode::parse(subcode.required(MESSAGE, "Value")?);
        let reason = fault.child("Reason")?.map(|reason| reason.value("Text")).transpose()?.flatten();
        let mut read = Self::new(
            subcode.ok_or(Error::Bad { message: MESSAGE, field: "Subcode" })?,
            reason.unwrap_or_default(),
            "",
        );
        if let Some(detail) = fault.child("Detail")?
            && let Some(detail) = detail.child("DeviceEnrollmentServiceError")?
        {
            read.error_type = error_type(&detail)?;
            read.trace_id = detail.value("TraceId")?.unwrap_or_default().to_owned();
        }
        Ok(Some(read))
    }
}

fn error_type(detail: &Element<'_>) -> Result<Option<ErrorType>, Error> {
    let Some(text) = detail.value("ErrorType")? else {
        return Ok(None);
    };
    let known = ErrorType::ALL.into_iter().find(|known| known.as_str() == text);
    known.map(Some).ok_or(Error::Bad { message: "Fault", field: "ErrorType" })
}

fn writable(text: &str) -> String {
    text.chars().map(|c| if super::xml::is_xml_char(c) { c } else { '\u{FFFD}' }).collect()
}
