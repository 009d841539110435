//! `GetPolicies` (MS-XCEP): what certificate request the machine is to make.

use super::soap::{self, Exchange, ReplyHeader};
use super::xml::{Element, Writing};
use super::{Context, Error, names};

const RESPONSE: &str = "GetPoliciesResponse";
/// SHA-256, RFC 5754. Microsoft's sample names SHA-1, which is also what a machine uses without a policy.
const SHA256: &str = "2.16.840.1.101.3.4.2.1";
const SHA256_NAME: &str = "szOID_NIST_sha256";
/// The longest value of a request, in bytes.
const MAX_VALUE: usize = 512;

/// A `GetPolicies` request (MS-XCEP 3.1.4.1.1.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetPolicies {
    /// `lastUpdate`: nil in every request seen.
    pub last_update: Option<String>,
    /// `preferredLanguage`.
    pub preferred_language: Option<String>,
    /// What a machine says about itself beside the request (seen in Microsoft's sample for certificates).
    pub context: Context,
}

impl GetPolicies {
    pub(super) fn decode(request: &Element<'_>, body: &Element<'_>) -> Result<Self, Error> {
        let client = request.child("client")?;
        let value = |field: &'static str| -> Result<Option<String>, Error> {
            match client.map(|client| client.value(field)).transpose()?.flatten() {
                Some(text) if text.len() > MAX_VALUE => Err(Error::ValueTooLarge { field, limit: MAX_VALUE }),
                text => Ok(text.map(str::to_owned)),
            }
        };
        Ok(Self {
            last_update: value("lastUpdate")?,
            preferred_language: value("preferredLanguage")?,
            context: Context::decode(body)?,
        })
    }

    pub(super) fn write(&self, xml: &mut Writing) {
        xml.open("GetPolicies", &[("xmlns", names::POLICY)]).open("client", &[]);
        for (name, value) in
            [("lastUpdate", &self.last_update), ("preferredLanguage", &self.preferred_language)]
        {
            match value {
                Some(value) => xml.leaf(name, value),
                None => xml.empty(name, NIL),
            };
        }
        xml.close().empty("requestFilter", NIL).close();
        if self.context != Context::default() {
            self.context.write(xml);
        }
    }
}

/// Where the machine keeps the private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyProvider {
    /// The TPM.
    Platform,
    /// Software.
    Software,
}

impl KeyProvider {
    /// The name of the provider.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "Microsoft Platform Crypto Provider",
            Self::Software => "Microsoft Software Key Storage Provider",
        }
    }
}

/// The one policy of an answer (MS-XCEP 3.1.4.1.3.22). Machines use the key length, the hash algorithm (always
/// SHA-256 here) and the providers; the key is RSA, their default, and the schema is 3, the first with hash
/// algorithms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentPolicy {
    validity_seconds: u64,
    renewal_seconds: u64,
    minimal_key_length: u32,
    providers: Vec<KeyProvider>,
}

impl EnrollmentPolicy {
    /// A policy for certificates of that validity, renewed that long before the end; RSA keys of 2048 bits.
    ///
    /// # Errors
    /// [`Error::Bad`] unless `0 < renewal < validity`.
    pub fn new(validity_seconds: u64, renewal_seconds: u64) -> Result<Self, Error> {
        if renewal_seconds == 0 || renewal_seconds >= validity_seconds {
            return Err(Error::Bad { message: RESPONSE, field: "renewalPeriodSeconds" });
        }
        Ok(Self { validity_seconds, renewal_seconds, minimal_key_length: 2048, providers: Vec::new() })
    }

    /// With another length of the RSA key.
    ///
    /// # Errors
    /// [`Error::Bad`] unless it is 2048, 3072 or 4096 bits.
    pub fn with_key_length(mut self, bits: u32) -> Result<Self, Error> {
        if !matches!(bits, 2048 | 3072 | 4096) {
            return Err(Error::Bad { message: RESPONSE, field: "minimalKeyLength" });
        }
        self.minimal_key_length = bits;
        Ok(self)
    }

    /// With providers to try, the first one first. Without any the machine chooses.
    #[must_use]
    pub fn with_providers(mut self, providers: &[KeyProvider]) -> Self {
        self.providers = providers.to_vec();
        self
    }

    /// Writes the answer. The order of the elements and the empty ones matter.
    ///
    /// # Errors
    /// None in practice; writing reports an error type.
    pub fn encode(&self, header: &ReplyHeader) -> Result<Vec<u8>, Error> {
        soap::reply(Exchange::GetPolicies, header, |xml| {
            xml.open("GetPoliciesResponse", &[("xmlns", names::POLICY)]).open("response", &[]);
            xml.empty("policyID", &[]);
            nil(xml, &["policyFriendlyName", "nextUpdateHours", "policiesNotChanged"]);
            xml.open("policies", &[]).open("policy", &[]).leaf("policyOIDReference", "0");
            nil(xml, &["cAs"]);
            self.attributes(xml);
            xml.close().close().close();
            nil(xml, &["cAs"]);
            xml.open("oIDs", &[]).open("oID", &[]);
            xml.leaf("value", SHA256).leaf("group", "4");
            xml.leaf("oIDReferenceID", "0").leaf("defaultName", SHA256_NAME);
            xml.close().close().close();
        })
    }

    fn attributes(&self, xml: &mut Writing) {
        xml.open("attributes", &[]).leaf("commonName", "MDMEnrollment").leaf("policySchema", "3");
        xml.open("certificateValidity", &[])
            .leaf("validityPeriodSeconds", &self.validity_seconds.to_string())
            .leaf("renewalPeriodSeconds", &self.renewal_seconds.to_string())
            .close();
        xml.open("permission", &[]).leaf("enroll", "true").leaf("autoEnroll", "false").close();
        xml.open("privateKeyAttributes", &[]);
        xml.leaf("minimalKeyLength", &self.minimal_key_length.to_string());
        nil(xml, &["keySpec", "keyUsageProperty", "permissions", "algorithmOIDReference"]);
        if self.providers.is_empty() {
            nil(xml, &["cryptoProviders"]);
        } else {
            xml.open("cryptoProviders", &[]);
            for provider in &self.providers {
                xml.leaf("provider", provider.as_str());
            }
            xml.close();
        }
        xml.close();
        xml.open("revision", &[]).leaf("majorRevision", "101").leaf("minorRevision", "0").close();
        nil(
            xml,
            &["supersededPolicies", "privateKeyFlags", "subjectNameFlags", "enrollmentFlags", "generalFlags"],
        );
        xml.leaf("hashAlgorithmOIDReference", "0");
        nil(xml, &["rARequirements", "keyArchivalAttributes", "extensions"]);
        xml.close();
    }
}

const NIL: &[(&str, &str)] = &[("xsi:nil", "true")];

fn nil(xml: &mut Writing, names: &[&'static str]) {
    for name in names {
        xml.empty(name, NIL);
    }
}

/// What a machine takes from an answer to `GetPolicies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedPolicy {
    /// `minimalKeyLength`, in bits.
    pub minimal_key_length: u32,
    /// The OID that `hashAlgorithmOIDReference` points to.
    pub hash_oid: String,
    /// Names in `cryptoProviders`.
    pub providers: Vec<String>,
}

impl ReceivedPolicy {
    /// Whether the request is to be signed with SHA-256.
    #[must_use]
    pub fn is_sha256(&self) -> bool {
        self.hash_oid == SHA256
    }

    pub(super) fn decode(answer: &Element<'_>) -> Result<Self, Error> {
        let bad = |field| Error::Bad { message: RESPONSE, field };
        let attributes = answer
            .required_child(RESPONSE, "response")?
            .required_child(RESPONSE, "policies")?
            .required_child(RESPONSE, "policy")?
            .required_child(RESPONSE, "attributes")?;
        let key = attributes.required_child(RESPONSE, "privateKeyAttributes")?;
        let bits = key.required(RESPONSE, "minimalKeyLength")?;
        let reference = attributes.required(RESPONSE, "hashAlgorithmOIDReference")?;
        let mut hash_oid = None;
        for oid in answer.required_child(RESPONSE, "oIDs")?.children() {
            if oid.required(RESPONSE, "oIDReferenceID")? == reference {
                hash_oid = Some(oid.required(RESPONSE, "value")?.to_owned());
            }
        }
        let providers = key.child("cryptoProviders")?.into_iter().flat_map(|list| list.children());
        Ok(Self {
            minimal_key_length: bits.parse().map_err(|_| bad("minimalKeyLength"))?,
            hash_oid: hash_oid.ok_or_else(|| bad("hashAlgorithmOIDReference"))?,
            providers: providers.map(|provider| provider.text().to_owned()).collect(),
        })
    }
}
