//! The profile that enrolls a device: roots, a SCEP identity, and the MDM payload.

use plist::{Dictionary, Value};
use uuid::Uuid;

use super::Scope;
use crate::xml::{self, Keys};
use crate::{Error, Opaque};

/// The capabilities a server states; `per-user-connections` can never be added later.
const SERVER_CAPABILITIES: &[&str] =
    &["com.apple.mdm.per-user-connections", "com.apple.mdm.bootstraptoken", "com.apple.mdm.token"];
/// The signing and encryption bits of `Key Usage` in `com.apple.security.scep.yaml`.
const KEY_USAGE_SIGN_AND_ENCRYPT: u64 = 5;

/// The bits of `AccessRights` (`mdm/profiles/com.apple.mdm.yaml`). Rights can never be added later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccessRights(pub u32);

impl AccessRights {
    /// Everything.
    pub const ALL: Self = Self(8191);
}

/// An enrollment profile. [`EnrollmentProfile::encode`] gives the unsigned property list.
#[derive(Debug, Clone, PartialEq)]
pub struct EnrollmentProfile {
    /// The customer's name, shown to the person who installs the profile.
    pub organization: String,
    /// The title, shown likewise.
    pub display_name: String,
    /// What the profile is for, shown likewise.
    pub description: Option<String>,
    /// The top-level `PayloadIdentifier`; the payloads' identifiers begin with it. Never changes.
    pub identifier_base: String,
    /// The payloads' UUIDs; see [`PayloadUuids::derive`].
    pub uuids: PayloadUuids,
    /// How the device gets its identity.
    pub scep: ScepSettings,
    /// Who manages the device.
    pub mdm: MdmSettings,
    /// Certificates to trust, usually the one above the server's TLS certificate.
    pub roots: Vec<RootCertificate>,
    /// `User` for profiles that a person installs on a Mac (else there is no user channel), `System`
    /// or none elsewhere.
    pub scope: Option<Scope>,
}

/// One `com.apple.security.root` payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootCertificate {
    /// The title of the payload.
    pub name: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

/// `com.apple.security.scep.yaml`. The key is never extractable and no app may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScepSettings {
    /// The SCEP server.
    pub url: String,
    /// `Name`: which CA, for servers that have several.
    pub name: Option<String>,
    /// The challenge password.
    pub challenge: Opaque,
    /// The subject's common name. macOS cuts it at 64 bytes, so at most 46 are accepted.
    pub common_name: String,
    /// RSA key size: 2048 or 4096.
    pub key_size: u16,
    /// A digest of the CA certificate, by which the device checks it.
    pub ca_fingerprint: Option<Vec<u8>>,
    /// How often to ask again while the answer is pending.
    pub retries: u32,
    /// Seconds between two tries.
    pub retry_delay: u32,
}

impl ScepSettings {
    /// The usual: 2048 bits, three tries, ten seconds apart.
    #[must_use]
    pub fn new(url: impl Into<String>, challenge: Opaque, common_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: None,
            challenge,
            common_name: common_name.into(),
            key_size: 2048,
            ca_fingerprint: None,
            retries: 3,
            retry_delay: 10,
        }
    }
}

/// `com.apple.mdm.yaml`. Topic and URLs can never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdmSettings {
    /// `ServerURL`.
    pub server_url: String,
    /// `CheckInURL`; none means the server's.
    pub check_in_url: Option<String>,
    /// The topic of the push certificate, `com.apple.mgmt.…`.
    pub topic: String,
    /// Sign every request in a header. Keep it true unless TLS client certificates are required.
    pub sign_message: bool,
    /// What the server may do. Must be none for user enrollment.
    pub access_rights: Option<AccessRights>,
    /// Tell the server when the enrollment is removed.
    pub check_out_when_removed: bool,
    /// Push through Apple's development service.
    pub use_development_apns: bool,
    /// The account of an account-driven enrollment.
    pub assigned_managed_apple_id: Option<String>,
    /// `BYOD` or `ADDE` in an account-driven enrollment.
    pub enrollment_mode: Option<String>,
}

impl MdmSettings {
    /// The usual: one URL, signed messages, all rights, a check-out at the end.
    #[must_use]
    pub fn new(server_url: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            server_url: server_url.into(),
            check_in_url: None,
            topic: topic.into(),
            sign_message: true,
            access_rights: Some(AccessRights::ALL),
            check_out_when_removed: true,
            use_development_apns: false,
            assigned_managed_apple_id: None,
            enrollment_mode: None,
        }
    }
}

/// `PayloadUUID`s that stay the same as long as the identifiers do: were they made from the content,
/// an update would look like new payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadUuids {
    /// Of the profile.
    pub profile: Uuid,
    /// Of the SCEP payload.
    pub scep: Uuid,
    /// Of the MDM payload.
    pub mdm: Uuid,
    namespace: Uuid,
    identifier_base: String,
}

impl PayloadUuids {
    /// UUIDs of version 5 from the installation's namespace and the identifiers.
    #[must_use]
    pub fn derive(namespace: Uuid, identifier_base: &str) -> Self {
        let uuid = |suffix: &str| Uuid::new_v5(&namespace, format!("{identifier_base}{suffix}").as_bytes());
        Self {
            profile: uuid(""),
            scep: uuid(".scep"),
            mdm: uuid(".mdm"),
            namespace,
            identifier_base: identifier_base.to_owned(),
        }
    }

    /// Of the root certificate with this number, counted from 1.
    #[must_use]
    pub fn root(&self, number: usize) -> Uuid {
        let name = format!("{}.root.{number}", self.identifier_base);
        Uuid::new_v5(&self.namespace, name.as_bytes())
    }
}

impl EnrollmentProfile {
    /// The profile as an XML property list, unsigned. Equal profiles give equal bytes.
    ///
    /// # Errors
    /// [`Error::BadField`] when a value would make an enrollment that cannot work or cannot be kept
    /// secure, [`Error::NotWritable`] when a text contains a control character.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let mut payloads = Vec::new();
        for (number, root) in (1_usize..).zip(&self.roots) {
            payloads.push(Value::Dictionary(self.root_payload(number, root)));
        }
        payloads.push(Value::Dictionary(self.scep_payload()?));
        payloads.push(Value::Dictionary(self.mdm_payload()));
        let profile = self
            .common("Configuration", &self.identifier_base, self.uuids.profile, &self.display_name)
            .maybe("PayloadDescription", self.description.clone())
            .maybe("PayloadScope", self.scope.map(Scope::as_str))
            .with("PayloadContent", Value::Array(payloads))
            .done();
        xml::encode(profile)
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |field| Err(Error::BadField { message: "the enrollment profile", field });
        let https = |url: &str| url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if self.identifier_base.is_empty() || !self.identifier_base.bytes().all(is_identifier_byte) {
            return bad("PayloadIdentifier");
        }
        if !https(&self.mdm.server_url) {
            return bad("ServerURL");
        }
        if self.mdm.check_in_url.as_deref().is_some_and(|url| !https(url)) {
            return bad("CheckInURL");
        }
        if !(https(&self.scep.url) || self.scep.url.starts_with("http://")) {
            return bad("URL");
        }
        if self.mdm.topic.trim().is_empty() {
            return bad("Topic");
        }
        if self.scep.challenge.is_empty() {
            return bad("Challenge");
        }
        if !matches!(self.scep.key_size, 2048 | 4096) {
            return bad("Keysize");
        }
        if self.scep.common_name.is_empty() || self.scep.common_name.len() > 46 {
            return bad("Subject");
        }
        let byod = self.mdm.enrollment_mode.as_deref() == Some("BYOD");
        match self.mdm.access_rights {
            Some(AccessRights(bits)) if byod || bits == 0 || bits > AccessRights::ALL.0 => {
                return bad("AccessRights");
            }
            // Rights 2 and 128 presuppose 1 and 64.
            Some(AccessRights(bits)) if bits & 3 == 2 || bits & 192 == 128 => {
                return bad("AccessRights");
            }
            _ => {}
        }
        let account = self.mdm.assigned_managed_apple_id.as_deref();
        match self.mdm.enrollment_mode.as_deref() {
            None => {}
            Some("BYOD" | "ADDE") if account.is_some_and(|id| !id.is_empty()) => {}
            Some("BYOD" | "ADDE") => return bad("AssignedManagedAppleID"),
            Some(_) => return bad("EnrollmentMode"),
        }
        if self.roots.iter().any(|root| root.der.is_empty()) {
            return bad("PayloadContent");
        }
        Ok(())
    }

    fn root_payload(&self, number: usize, root: &RootCertificate) -> Dictionary {
        let identifier = format!("{}.root.{number}", self.identifier_base);
        self.common("com.apple.security.root", &identifier, self.uuids.root(number), &root.name)
            .with("PayloadContent", Value::Data(root.der.clone()))
            .done()
    }

    fn scep_payload(&self) -> Result<Dictionary, Error> {
        let scep = &self.scep;
        let pair = |key: &str, value: &str| Value::Array(vec![xml::strings(&[key, value])]);
        let subject = vec![pair("O", &self.organization), pair("CN", &scep.common_name)];
        let content = Keys::new()
            .with("URL", scep.url.clone())
            .maybe("Name", scep.name.clone())
            .with("Subject", Value::Array(subject))
            .with("Challenge", xml::text(&scep.challenge)?)
            .with("Keysize", u64::from(scep.key_size))
            .with("Key Type", "RSA")
            .with("Key Usage", KEY_USAGE_SIGN_AND_ENCRYPT)
            .maybe("CAFingerprint", scep.ca_fingerprint.clone().map(Value::Data))
            .with("Retries", u64::from(scep.retries))
            .with("RetryDelay", u64::from(scep.retry_delay))
            .with("KeyIsExtractable", false)
            .with("AllowAllAppsAccess", false)
            .done();
        let identifier = format!("{}.scep", self.identifier_base);
        let title = "Device identity";
        Ok(self
            .common("com.apple.security.scep", &identifier, self.uuids.scep, title)
            .with("PayloadContent", content)
            .done())
    }

    fn mdm_payload(&self) -> Dictionary {
        let mdm = &self.mdm;
        let identifier = format!("{}.mdm", self.identifier_base);
        self.common("com.apple.mdm", &identifier, self.uuids.mdm, "Device management")
            .with("IdentityCertificateUUID", upper(self.uuids.scep))
            .with("Topic", mdm.topic.clone())
            .with("ServerURL", mdm.server_url.clone())
            .maybe("CheckInURL", mdm.check_in_url.clone())
            .with("SignMessage", mdm.sign_message)
            .maybe("AccessRights", mdm.access_rights.map(|rights| u64::from(rights.0)))
            .with("UseDevelopmentAPNS", mdm.use_development_apns)
            .maybe("AssignedManagedAppleID", mdm.assigned_managed_apple_id.clone())
            .maybe("EnrollmentMode", mdm.enrollment_mode.clone())
            .with("ServerCapabilities", xml::strings(SERVER_CAPABILITIES))
            .with("CheckOutWhenRemoved", mdm.check_out_when_removed)
            .done()
    }

    /// `CommonPayloadKeys.yaml`.
    fn common(&self, payload_type: &str, identifier: &str, uuid: Uuid, title: &str) -> Keys {
        Keys::new()
            .with("PayloadType", payload_type)
            .with("PayloadVersion", 1_u64)
            .with("PayloadIdentifier", identifier)
            .with("PayloadUUID", upper(uuid))
            .with("PayloadDisplayName", title)
            .with("PayloadOrganization", self.organization.clone())
    }
}

/// Apple writes UUIDs in capitals and compares them as texts.
fn upper(uuid: Uuid) -> String {
    uuid.hyphenated().to_string().to_ascii_uppercase()
}

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}
