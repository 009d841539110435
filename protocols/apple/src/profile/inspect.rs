//! What is in a profile that somebody uploads.

use plist::{Dictionary, Value};

use crate::Error;
use crate::guard::{self, Limits};

/// `PayloadScope` of `TopLevel.yaml`: which channel of a Mac a profile belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The computer.
    System,
    /// The user.
    User,
}

impl Scope {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::User => "User",
        }
    }
}

/// A profile's head and the list of its payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileSummary {
    /// `PayloadIdentifier`: a profile with the same one replaces this.
    pub identifier: String,
    /// `PayloadUUID`.
    pub uuid: String,
    /// `PayloadType`: `Configuration`, or `Profile Service` in over-the-air enrollment.
    pub payload_type: String,
    /// `PayloadVersion`.
    pub version: Option<i64>,
    /// `PayloadDisplayName`.
    pub display_name: Option<String>,
    /// `PayloadOrganization`.
    pub organization: Option<String>,
    /// `PayloadDescription`.
    pub description: Option<String>,
    /// `PayloadScope`; none means the user's.
    pub scope: Option<Scope>,
    /// `PayloadRemovalDisallowed`.
    pub removal_disallowed: bool,
    /// The payloads are encrypted for one device, so nothing is known about them.
    pub encrypted: bool,
    /// The payloads in order.
    pub payloads: Vec<PayloadSummary>,
}

/// One payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadSummary {
    /// `PayloadType`, such as `com.apple.wifi.managed`.
    pub payload_type: String,
    /// `PayloadIdentifier`; empty when it has none.
    pub identifier: String,
    /// `PayloadUUID`; empty when it has none.
    pub uuid: String,
    /// `PayloadDisplayName`.
    pub display_name: Option<String>,
}

/// Looks into a profile, XML or binary, without its signature.
///
/// # Errors
/// When the guard refuses it, or the keys that `TopLevel.yaml` requires are missing or wrong.
pub fn inspect(bytes: &[u8]) -> Result<ProfileSummary, Error> {
    let Value::Dictionary(profile) = guard::parse(bytes, &Limits::PROFILE)? else {
        return Err(Error::NotADictionary);
    };
    let encrypted = matches!(profile.get("IsEncrypted"), Some(Value::Boolean(true)))
        || profile.contains_key("EncryptedPayloadContent");
    let payload_type = required(&profile, "PayloadType")?;
    let payloads = match profile.get("PayloadContent") {
        Some(Value::Array(items)) => items.iter().map(payload).collect::<Result<_, _>>()?,
        // Over-the-air enrollment has one dictionary here; see `refuse_upload`.
        Some(Value::Dictionary(_)) if payload_type != "Configuration" => Vec::new(),
        None if encrypted => Vec::new(),
        None => return Err(Error::MissingField { message: "the profile", field: "PayloadContent" }),
        Some(_) => return Err(Error::BadField { message: "the profile", field: "PayloadContent" }),
    };
    let scope = match profile.get("PayloadScope") {
        None => None,
        Some(Value::String(word)) if word == "System" => Some(Scope::System),
        Some(Value::String(word)) if word == "User" => Some(Scope::User),
        Some(_) => return Err(Error::BadField { message: "the profile", field: "PayloadScope" }),
    };
    Ok(ProfileSummary {
        identifier: required(&profile, "PayloadIdentifier")?,
        uuid: required(&profile, "PayloadUUID")?,
        payload_type,
        version: profile.get("PayloadVersion").and_then(Value::as_signed_integer),
        display_name: optional(&profile, "PayloadDisplayName"),
        organization: optional(&profile, "PayloadOrganization"),
        description: optional(&profile, "PayloadDescription"),
        scope,
        removal_disallowed: profile.get("PayloadRemovalDisallowed").and_then(Value::as_boolean) == Some(true),
        encrypted,
        payloads,
    })
}

/// Refuses a profile that would enroll the device elsewhere: one with an MDM payload, or one that
/// starts over-the-air enrollment.
///
/// # Errors
/// [`Error::EnrollmentPayload`] names the payload.
pub fn refuse_upload(summary: &ProfileSummary) -> Result<(), Error> {
    let types = std::iter::once(summary.payload_type.as_str())
        .chain(summary.payloads.iter().map(|payload| payload.payload_type.as_str()));
    for payload_type in types {
        let plain = payload_type.trim().to_ascii_lowercase();
        if plain == "com.apple.mdm" || plain == "profile service" {
            return Err(Error::EnrollmentPayload { payload_type: payload_type.to_owned() });
        }
    }
    if summary.payload_type != "Configuration" {
        return Err(Error::BadField { message: "the profile", field: "PayloadType" });
    }
    Ok(())
}

/// Refuses a profile whose identifier is one that the server itself uses: installing it would
/// replace the enrollment. An identifier below a reserved one counts as well.
///
/// # Errors
/// [`Error::ReservedIdentifier`].
pub fn refuse_reserved(summary: &ProfileSummary, reserved: &[&str]) -> Result<(), Error> {
    let taken = reserved.iter().any(|prefix| {
        summary.identifier.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    if taken { Err(Error::ReservedIdentifier) } else { Ok(()) }
}

fn payload(item: &Value) -> Result<PayloadSummary, Error> {
    let Value::Dictionary(payload) = item else {
        return Err(Error::BadField { message: "the profile", field: "PayloadContent" });
    };
    Ok(PayloadSummary {
        payload_type: required(payload, "PayloadType")?,
        identifier: optional(payload, "PayloadIdentifier").unwrap_or_default(),
        uuid: optional(payload, "PayloadUUID").unwrap_or_default(),
        display_name: optional(payload, "PayloadDisplayName"),
    })
}

pub(super) fn required(keys: &Dictionary, field: &'static str) -> Result<String, Error> {
    match keys.get(field) {
        None => Err(Error::MissingField { message: "the profile", field }),
        Some(Value::String(text)) if !text.is_empty() && !text.chars().any(char::is_control) => {
            Ok(text.clone())
        }
        Some(_) => Err(Error::BadField { message: "the profile", field }),
    }
}

/// Text for people; line breaks are fine, NUL and the like are not.
pub(super) fn optional(keys: &Dictionary, field: &str) -> Option<String> {
    match keys.get(field) {
        Some(Value::String(text)) if text.chars().all(crate::xml::is_xml_char) => Some(text.clone()),
        _ => None,
    }
}
