//! `Discover` (MS-MDE2 3.1.4.1): which services to talk to, and how to sign in.

use super::soap::{self, Exchange, ReplyHeader};
use super::xml::{Element, Writing};
use super::{Error, address, names};

const REQUEST: &str = "Discover";
const RESPONSE: &str = "DiscoverResponse";
/// The longest value of a request, in bytes.
const MAX_VALUE: usize = 512;

/// A version of the enrollment protocol. Windows 11 25H2 sends 9.0; higher ones are ranges too, never a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Before the dot.
    pub major: u16,
    /// After the dot.
    pub minor: u16,
}

impl Version {
    /// The first version; what a request without one means.
    pub const V1: Self = Self { major: 1, minor: 0 };
    /// The first version whose replies carry `EnrollmentVersion`.
    pub const V3: Self = Self { major: 3, minor: 0 };
    /// What the server offers unless configured otherwise: no attestation is asked for.
    pub const V4: Self = Self { major: 4, minor: 0 };

    /// Reads `9.0`, also `9`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            (digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
        };
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let version = Self { major: number(major)?, minor: number(minor)? };
        (version >= Self::V1).then_some(version)
    }

    /// The version to answer with: the lower of both sides', and nothing at all below 3.0.
    #[must_use]
    pub fn negotiate(self, server: Self) -> Option<Self> {
        (self >= Self::V3).then(|| self.min(server))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How a machine can authenticate (MS-MDE2 3.1.4.1.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthPolicy {
    /// User name and password, or one-time code.
    OnPremise,
    /// A token from a sign-in page.
    Federated,
    /// A certificate that a provisioning package brought.
    Certificate,
}

impl AuthPolicy {
    const ALL: [Self; 3] = [Self::OnPremise, Self::Federated, Self::Certificate];

    /// As it stands in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnPremise => "OnPremise",
            Self::Federated => "Federated",
            Self::Certificate => "Certificate",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// A `Discover` request. Everything in it is a claim of a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverRequest {
    /// `EmailAddress`: an address, `domain\user`, or an odd text from a provisioning package.
    pub email_address: Option<String>,
    /// `RequestVersion`.
    pub request_version: Version,
    /// `DeviceType`, such as `CIMClient_Windows`.
    pub device_type: Option<String>,
    /// `ApplicationVersion`: Windows' version, such as `10.0.26200.9278`.
    pub application_version: Option<String>,
    /// `OSVersion`, from clients that send it.
    pub os_version: Option<String>,
    /// `OSEdition`: the number of the edition (SKU); `None` when it is absent or no number.
    pub os_edition: Option<u32>,
    /// `AuthPolicies` that we know, in the machine's order; `None` when the machine sent no list.
    pub auth_policies: Option<Vec<AuthPolicy>>,
}

impl DiscoverRequest {
    pub(super) fn decode(discover: &Element<'_>) -> Result<Self, Error> {
        let request = discover.required_child(REQUEST, "request")?;
        let text = |field: &'static str| match request.value(field)? {
            Some(text) if text.len() > MAX_VALUE => Err(Error::ValueTooLarge { field, limit: MAX_VALUE }),
            text => Ok(text.map(str::to_owned)),
        };
        let request_version = match request.value("RequestVersion")? {
            None => Version::V1,
            Some(text) => {
                Version::parse(text).ok_or(Error::Bad { message: REQUEST, field: "RequestVersion" })?
            }
        };
        Ok(Self {
            email_address: text("EmailAddress")?,
            request_version,
            device_type: text("DeviceType")?,
            application_version: text("ApplicationVersion")?,
            os_version: text("OSVersion")?,
            os_edition: request.value("OSEdition")?.and_then(|text| text.parse().ok()),
            auth_policies: request.child("AuthPolicies")?.map(|list| auth_policies(&list)),
        })
    }

    pub(super) fn write(&self, xml: &mut Writing) {
        xml.open("Discover", &[("xmlns", names::DISCOVERY)]);
        xml.open("request", &[("xmlns:i", names::XSI)]);
        xml.leaf("EmailAddress", self.email_address.as_deref().unwrap_or_default());
        xml.leaf("RequestVersion", &self.request_version.to_string());
        xml.maybe("DeviceType", self.device_type.as_deref());
        xml.maybe("ApplicationVersion", self.application_version.as_deref());
        xml.maybe("OSVersion", self.os_version.as_deref());
        xml.maybe("OSEdition", self.os_edition.map(|edition| edition.to_string()).as_deref());
        if let Some(policies) = &self.auth_policies {
            xml.open("AuthPolicies", &[]);
            for policy in policies {
                xml.leaf("AuthPolicy", policy.as_str());
            }
            xml.close();
        }
        xml.close().close();
    }

    /// The first policy in the server's order of preference that the machine knows. A machine that sends no list
    /// is one from before version 3.0, which knows `OnPremise` and `Federated`.
    ///
    /// `None` is answered by [`Fault::no_common_policy`](super::Fault::no_common_policy).
    #[must_use]
    pub fn choose(&self, preference: &[AuthPolicy]) -> Option<AuthPolicy> {
        const BEFORE_LISTS: &[AuthPolicy] = &[AuthPolicy::OnPremise, AuthPolicy::Federated];
        let known = self.auth_policies.as_deref().unwrap_or(BEFORE_LISTS);
        preference.iter().copied().find(|policy| known.contains(policy))
    }
}

/// Microsoft's sample for certificates puts the text straight into the list.
fn auth_policies(list: &Element<'_>) -> Vec<AuthPolicy> {
    let mut policies = Vec::new();
    let children = list.children().filter(|child| child.name() == "AuthPolicy").map(|child| child.text());
    for text in children.chain(list.text().split_ascii_whitespace()) {
        if let Some(policy) = AuthPolicy::parse(text)
            && !policies.contains(&policy)
        {
            policies.push(policy);
        }
    }
    policies
}

/// The policy chosen, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// [`AuthPolicy::OnPremise`].
    OnPremise,
    /// [`AuthPolicy::Federated`].
    Federated {
        /// `AuthenticationServiceUrl`: where the sign-in page begins.
        service_url: String,
    },
    /// [`AuthPolicy::Certificate`].
    Certificate,
}

impl Authentication {
    /// The policy without its particulars.
    #[must_use]
    pub fn policy(&self) -> AuthPolicy {
        match self {
            Self::OnPremise => AuthPolicy::OnPremise,
            Self::Federated { .. } => AuthPolicy::Federated,
            Self::Certificate => AuthPolicy::Certificate,
        }
    }
}

/// The answer to a `Discover` request (MS-MDE2 3.1.4.1.3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverResponse {
    /// `AuthPolicy` and what belongs to it.
    pub authentication: Authentication,
    /// `EnrollmentVersion`, see [`Version::negotiate`].
    pub enrollment_version: Option<Version>,
    /// `EnrollmentPolicyServiceUrl`. Without it the machine asks for SHA-1.
    pub policy_url: Option<String>,
    /// `EnrollmentServiceUrl`.
    pub enrollment_url: String,
}

impl DiscoverResponse {
    /// Writes the answer.
    ///
    /// # Errors
    /// [`Error::Address`] for a URL that is not HTTPS, and for policy and enrollment services on different hosts
    /// (which the client does not support).
    pub fn encode(&self, header: &ReplyHeader) -> Result<Vec<u8>, Error> {
        let host = address::https_host(&self.enrollment_url)?;
        if let Some(url) = &self.policy_url
            && address::https_host(url)? != host
        {
            return Err(Error::Address("policy and enrollment service have different hosts"));
        }
        let service_url = match &self.authentication {
            Authentication::Federated { service_url } => {
                address::https_host(service_url)?;
                Some(service_url.as_str())
            }
            Authentication::OnPremise | Authentication::Certificate => None,
        };
        soap::reply(Exchange::Discover, header, |xml| {
            xml.open("DiscoverResponse", &[("xmlns", names::DISCOVERY)]).open("DiscoverResult", &[]);
            xml.leaf("AuthPolicy", self.authentication.policy().as_str());
            xml.maybe("EnrollmentVersion", self.enrollment_version.map(|v| v.to_string()).as_deref());
            xml.maybe("EnrollmentPolicyServiceUrl", self.policy_url.as_deref());
            xml.leaf("EnrollmentServiceUrl", &self.enrollment_url);
            xml.maybe("AuthenticationServiceUrl", service_url);
            xml.close().close();
        })
    }

    pub(super) fn decode(response: &Element<'_>) -> Result<Self, Error> {
        let result = response.required_child(RESPONSE, "DiscoverResult")?;
        let policy = AuthPolicy::parse(result.required(RESPONSE, "AuthPolicy")?)
            .ok_or(Error::Bad { message: RESPONSE, field: "AuthPolicy" })?;
        let url = |field: &'static str| -> Result<Option<String>, Error> {
            let Some(text) = result.value(field)? else { return Ok(None) };
            address::https_host(text)?;
            Ok(Some(text.to_owned()))
        };
        let missing = |field| Error::Missing { message: RESPONSE, field };
        let authentication = match policy {
            AuthPolicy::OnPremise => Authentication::OnPremise,
            AuthPolicy::Certificate => Authentication::Certificate,
            AuthPolicy::Federated => Authentication::Federated {
                service_url: url("AuthenticationServiceUrl")?
                    .ok_or_else(|| missing("AuthenticationServiceUrl"))?,
            },
        };
        let enrollment_version = match result.value("EnrollmentVersion")? {
            None => None,
            Some(text) => Some(
                Version::parse(text).ok_or(Error::Bad { message: RESPONSE, field: "EnrollmentVersion" })?,
            ),
        };
        Ok(Self {
            authentication,
            enrollment_version,
            policy_url: url("EnrollmentPolicyServiceUrl")?,
            enrollment_url: url("EnrollmentServiceUrl")?.ok_or_else(|| missing("EnrollmentServiceUrl"))?,
        })
    }
}
