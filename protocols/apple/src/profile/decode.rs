//! The enrollment profile as the device reads it.

use plist::{Dictionary, Value};

use super::enrollment::{AccessRights, MdmSettings, RootCertificate, ScepSettings};
use super::inspect::{optional, required};
use super::{ProfileSummary, inspect};
use crate::guard::{self, Limits};
use crate::{Error, Opaque};

/// What a device needs from an enrollment profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentDetails {
    /// The profile's head and payloads.
    pub summary: ProfileSummary,
    /// How to get an identity.
    pub scep: ScepSettings,
    /// The subject to ask for: pairs such as `("CN", "…")` in order.
    pub subject: Vec<(String, String)>,
    /// The server, and what to tell it.
    pub mdm: MdmSettings,
    /// `ServerCapabilities`.
    pub server_capabilities: Vec<String>,
    /// Certificates to trust.
    pub roots: Vec<RootCertificate>,
}

/// Reads an enrollment profile, without its signature.
///
/// # Errors
/// When the guard refuses it, when it has no SCEP or no MDM payload, or when the MDM payload does
/// not name the SCEP payload as its identity.
pub fn decode_enrollment_profile(bytes: &[u8]) -> Result<EnrollmentDetails, Error> {
    let summary = inspect(bytes)?;
    let Value::Dictionary(mut profile) = guard::parse(bytes, &Limits::PROFILE)? else {
        return Err(Error::NotADictionary);
    };
    let Some(Value::Array(items)) = profile.remove("PayloadContent") else {
        return Err(missing("PayloadContent"));
    };
    let mut scep = None;
    let mut mdm = None;
    let mut roots = Vec::new();
    for item in items {
        let Value::Dictionary(payload) = item else { continue };
        match payload.get("PayloadType").and_then(Value::as_string) {
            Some("com.apple.security.scep") => scep = Some(payload),
            Some("com.apple.mdm") => mdm = Some(payload),
            Some("com.apple.security.root") => roots.push(root(&payload)?),
            _ => {}
        }
    }
    let scep = scep.ok_or_else(|| missing("com.apple.security.scep"))?;
    let mdm = mdm.ok_or_else(|| missing("com.apple.mdm"))?;
    if required(&mdm, "IdentityCertificateUUID")? != required(&scep, "PayloadUUID")? {
        return Err(bad("IdentityCertificateUUID"));
    }
    let Some(Value::Dictionary(content)) = scep.get("PayloadContent") else {
        return Err(missing("PayloadContent"));
    };
    let subject = subject(content);
    Ok(EnrollmentDetails {
        summary,
        scep: scep_settings(content, &subject)?,
        subject,
        server_capabilities: texts(mdm.get("ServerCapabilities")),
        mdm: mdm_settings(&mdm)?,
        roots,
    })
}

fn missing(field: &'static str) -> Error {
    Error::MissingField { message: "the enrollment profile", field }
}

fn bad(field: &'static str) -> Error {
    Error::BadField { message: "the enrollment profile", field }
}

fn root(payload: &Dictionary) -> Result<RootCertificate, Error> {
    match payload.get("PayloadContent") {
        Some(Value::Data(der)) => Ok(RootCertificate {
            name: optional(payload, "PayloadDisplayName").unwrap_or_default(),
            der: der.clone(),
        }),
        _ => Err(bad("PayloadContent")),
    }
}

fn scep_settings(content: &Dictionary, subject: &[(String, String)]) -> Result<ScepSettings, Error> {
    let common_name = subject.iter().find(|(key, _)| key == "CN").map(|(_, value)| value.clone());
    let number = |key: &str, default: u32| {
        let value = content.get(key).and_then(Value::as_unsigned_integer);
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
    };
    Ok(ScepSettings {
        url: required(content, "URL")?,
        name: optional(content, "Name"),
        challenge: Opaque::from(optional(content, "Challenge").unwrap_or_default()),
        common_name: common_name.unwrap_or_default(),
        key_size: u16::try_from(number("Keysize", 1024)).map_err(|_| bad("Keysize"))?,
        ca_fingerprint: content.get("CAFingerprint").and_then(Value::as_data).map(<[u8]>::to_vec),
        retries: number("Retries", 3),
        retry_delay: number("RetryDelay", 10),
    })
}

fn mdm_settings(payload: &Dictionary) -> Result<MdmSettings, Error> {
    let flag = |key: &str| payload.get(key).and_then(Value::as_boolean).unwrap_or(false);
    let rights = match payload.get("AccessRights") {
        None => None,
        Some(value) => {
            let bits = value.as_unsigned_integer().and_then(|bits| u32::try_from(bits).ok());
            Some(AccessRights(bits.ok_or_else(|| bad("AccessRights"))?))
        }
    };
    Ok(MdmSettings {
        server_url: required(payload, "ServerURL")?,
        check_in_url: optional(payload, "CheckInURL"),
        topic: required(payload, "Topic")?,
        sign_message: flag("SignMessage"),
        access_rights: rights,
        check_out_when_removed: flag("CheckOutWhenRemoved"),
        use_development_apns: flag("UseDevelopmentAPNS"),
        assigned_managed_apple_id: optional(payload, "AssignedManagedAppleID"),
        enrollment_mode: optional(payload, "EnrollmentMode"),
    })
}

/// `[[["O", "Example"]], [["CN", "name"]]]` as pairs.
fn subject(content: &Dictionary) -> Vec<(String, String)> {
    let sets = content.get("Subject").and_then(Value::as_array);
    let pairs = sets.into_iter().flatten().filter_map(Value::as_array).flatten();
    pairs
        .filter_map(|pair| match pair.as_array()?.as_slice() {
            [Value::String(key), Value::String(value)] => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_string().map(str::to_owned)).collect()
}
