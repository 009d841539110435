//! The provisioning document (MS-MDE2 2.2.9.1; OMA Client Provisioning; the CertificateStore, w7 APPLICATION and
//! DMClient configuration service providers): the identity, the account of the OMA-DM server, and when to call it.
//!
//! Only what real machines accept can be said here: no top-level characteristic but those three (another one is
//! refused with 0x83750005), nonces for both credentials (without them enrollment fails with 0x80180023), one root
//! and one intermediate certificate at most, and one provider, store and subject throughout.

mod decode;
mod encode;
mod values;

pub use values::{Certificate, Nonce, Poll, ProviderId, Secret, Stage, Subject, SubjectAttribute};

use super::xml::{Document, Limits};
use super::{EnrollmentType, Error, Opaque, Version};

/// A provisioning document.
#[derive(Clone, PartialEq, Eq)]
pub enum Provisioning {
    /// After `Issue`.
    Enrollment(Box<Enrollment>),
    /// After `Renew`: the new certificate and little else.
    Renewal(RenewedIdentity),
}

impl Provisioning {
    /// Writes the document; it holds the account's passwords.
    ///
    /// # Errors
    /// [`Error::Provisioning`] for what a machine would refuse, [`Error::Address`] for a server that is not HTTPS,
    /// [`Error::NotWritable`] for control characters.
    pub fn encode(&self) -> Result<Opaque, Error> {
        match self {
            Self::Enrollment(enrollment) => encode::enrollment(enrollment),
            Self::Renewal(renewal) => encode::renewal(renewal),
        }
        .map(Opaque::new)
    }

    /// Reads a document as a machine does, refusing what machines refuse. Parameters that the types here do not
    /// have are skipped.
    ///
    /// # Errors
    /// [`Error::Provisioning`] says what a machine would object to.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode::document(&Document::parse(bytes, &Limits::REPLY)?)
    }
}

/// What a machine gets when it enrolls.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// The root of the device CA, for `Root/System`.
    pub root: Option<Certificate>,
    /// An intermediate certificate, for `CA/System`.
    pub intermediate: Option<Certificate>,
    /// The identity just issued.
    pub identity: Certificate,
    /// Where the identity goes.
    pub store: KeyStore,
    /// When the machine renews the identity by itself; never without.
    pub renewal: Option<RenewalSchedule>,
    /// The OMA-DM account.
    pub account: Account,
    /// The DMClient provider.
    pub client: DmClient,
}

/// What a machine gets when it renews.
#[derive(Clone, PartialEq, Eq)]
pub struct RenewedIdentity {
    /// The root of the device CA, when it has changed.
    pub root: Option<Certificate>,
    /// The new identity.
    pub identity: Certificate,
    /// Where the identity goes: where the old one was.
    pub store: KeyStore,
    /// The provider that the machine enrolled with.
    pub provider_id: ProviderId,
}

/// Where the identity goes, and where TLS looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStore {
    /// `My/User`.
    User,
    /// `My/System`.
    System,
}

impl KeyStore {
    /// As it stands in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::System => "System",
        }
    }
}

impl From<EnrollmentType> for KeyStore {
    fn from(kind: EnrollmentType) -> Self {
        match kind {
            EnrollmentType::Full => Self::User,
            EnrollmentType::Device => Self::System,
        }
    }
}

/// `CertificateStore/My/WSTEP/Renew`: renewal without a person (ROBO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalSchedule {
    /// `RenewPeriod`: days before the end of validity, 1 to 1000. Microsoft recommends 40 to 60.
    pub period_days: u16,
    /// `RetryInterval`: days, 1 to 1000. Microsoft recommends 4 or 5, so that the day of the week moves.
    pub retry_days: u16,
}

/// How syncs are written by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/vnd.syncml.dm+xml`.
    #[default]
    Xml,
    /// `application/vnd.syncml.dm+wbxml`.
    Wbxml,
}

impl Encoding {
    /// As it stands in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xml => "application/vnd.syncml.dm+xml",
            Self::Wbxml => "application/vnd.syncml.dm+wbxml",
        }
    }
}

/// `APPLICATION` with `APPID` w7: the account of the OMA-DM server.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// `PROVIDER-ID`, the name of the DMClient provider too.
    pub provider_id: ProviderId,
    /// `NAME`: shown to people.
    pub name: String,
    /// `ADDR`: the URL of the OMA-DM server.
    pub address: String,
    /// How often and how fast a failed connection is tried again.
    pub retry: Retry,
    /// `DEFAULTENCODING`.
    pub encoding: Encoding,
    /// The subject of the identity exactly as issued; without a match the machine sends no certificate at all.
    pub subject: Subject,
    /// `ROLE`; best left out.
    pub role: Option<u32>,
    /// What the server proves itself with (`APPAUTH` CLIENT, always DIGEST).
    pub server: ServerCredential,
    /// What the machine proves itself with (`APPAUTH` APPSRV).
    pub client: ClientCredential,
}

/// `CONNRETRYFREQ`, `INITIALBACKOFFTIME` and `MAXBACKOFFTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts.
    pub attempts: u32,
    /// The first pause, in milliseconds.
    pub initial_milliseconds: u32,
    /// The longest pause, in milliseconds.
    pub longest_milliseconds: u32,
}

impl Default for Retry {
    /// The values of Microsoft's sample.
    fn default() -> Self {
        Self { attempts: 6, initial_milliseconds: 30_000, longest_milliseconds: 120_000 }
    }
}

/// The server's password towards the machine.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCredential {
    /// `AAUTHSECRET`.
    pub secret: Secret,
    /// `AAUTHDATA`.
    pub nonce: Nonce,
}

/// The machine's password towards the server.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCredential {
    /// `AAUTHTYPE`.
    pub scheme: Scheme,
    /// `AAUTHNAME`.
    pub name: String,
    /// `AAUTHSECRET`.
    pub secret: Secret,
    /// `AAUTHDATA`.
    pub nonce: Nonce,
}

/// `AAUTHTYPE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `syncml:auth-md5`.
    #[default]
    Digest,
    /// `syncml:auth-basic`.
    Basic,
}

impl Scheme {
    /// As it stands in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "DIGEST",
            Self::Basic => "BASIC",
        }
    }
}

/// `DMClient/Provider/{ProviderID}`. `Push` cannot be set here: it goes into the first session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmClient {
    /// `EntDMID`: our id of the enrollment. Renewal needs it.
    pub ent_dm_id: String,
    /// `UPN`: whose enrollment this is.
    pub upn: Option<String>,
    /// `EntDeviceName`: the name that people see.
    pub ent_device_name: Option<String>,
    /// `SyncApplicationVersion`; the machine's default is 1.0, the highest is 2.0. It changes the form of SessionID.
    pub sync_application_version: Option<Version>,
    /// `RequireMessageSigning`: sign each message, for servers behind a proxy that ends TLS.
    pub require_message_signing: bool,
    /// `Poll`.
    pub poll: Poll,
}
