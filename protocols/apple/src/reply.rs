//! Bodies of replies other than commands (`mdm/checkin/*.yaml` response keys, `mdm/errors/*.yaml`).
//!
//! A message without a reply of its own is answered by 200 with an empty body.

use plist::{Dictionary, Value};

use crate::command::ReturnToService;
use crate::xml::{self, Keys};
use crate::{Error, Opaque};

/// The `Content-Type` of every property list that goes to a device as a reply.
pub const PLIST_CONTENT_TYPE: &str = "application/xml";
/// The `Content-Type` of an enrollment profile.
pub const PROFILE_CONTENT_TYPE: &str = "application/x-apple-aspen-config";

/// Answers `GetBootstrapToken` (`getbootstraptoken.yaml`); without a token the dictionary is empty.
///
/// # Errors
/// None in practice; writing reports an error type.
pub fn bootstrap_token(token: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let token = token.filter(|token| !token.is_empty()).map(|token| Value::Data(token.to_vec()));
    xml::encode(Keys::new().maybe("BootstrapToken", token).done())
}

/// Answers the first `UserAuthenticate`: a digest challenge, or the empty text for "no token needed".
/// Decline the user with HTTP 410 instead.
///
/// # Errors
/// [`Error::NotWritable`] when the challenge contains a control character.
pub fn user_authenticate_challenge(digest_challenge: &str) -> Result<Vec<u8>, Error> {
    xml::encode(Keys::new().with("DigestChallenge", digest_challenge).done())
}

/// Answers the second `UserAuthenticate`: the token of the user's session, or the empty text when
/// the digest was wrong.
///
/// # Errors
/// [`Error::NotWritable`] when the token is not text.
pub fn user_authenticate_token(auth_token: &Opaque) -> Result<Vec<u8>, Error> {
    xml::encode(Keys::new().with("AuthToken", xml::text(auth_token)?).done())
}

/// Answers `GetToken` (`gettoken.yaml`). An unknown service is answered by HTTP 400.
///
/// # Errors
/// None in practice; writing reports an error type.
pub fn token_data(token: &[u8]) -> Result<Vec<u8>, Error> {
    xml::encode(Keys::new().with("TokenData", Value::Data(token.to_vec())).done())
}

/// Answers the check-in message `ReturnToService`; the default of [`ReturnToService`] says no.
///
/// # Errors
/// None in practice; writing reports an error type.
pub fn return_to_service(answer: &ReturnToService) -> Result<Vec<u8>, Error> {
    xml::encode(Keys::new().with("ReturnToService", answer.keys()).done())
}

/// A body of HTTP status 403 that tells the device what to do (`mdm/errors/*.yaml`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorDocument {
    /// `unrecognized.device.yaml`: the device removes its enrollment (iOS 17, macOS 14, tvOS 17,
    /// watchOS 10). Only ever an administrator's decision.
    UnrecognizedDevice,
    /// `softwareupdate.required.yaml`: update before enrolling (iOS 17, macOS 14).
    SoftwareUpdateRequired {
        /// `OSVersion`, such as `17.2` or `16.1 (a)`.
        os_version: String,
        /// `BuildVersion`.
        build_version: Option<String>,
        /// A beta program to join first: description and seeding token.
        beta_program: Option<(String, Opaque)>,
    },
    /// `watch.pairing.token.missing.yaml`: the watch must bring a pairing token with this UUID.
    WatchPairingTokenMissing {
        /// `security-token`.
        security_token: String,
    },
    /// `well-known.failed.yaml`: no enrollment for this account (17.5).
    WellKnownFailed,
}

impl ErrorDocument {
    /// The HTTP status of every one of these documents.
    pub const HTTP_STATUS: u16 = 403;

    /// `code`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnrecognizedDevice => "com.apple.unrecognized.device",
            Self::SoftwareUpdateRequired { .. } => "com.apple.softwareupdate.required",
            Self::WatchPairingTokenMissing { .. } => "com.apple.watch.pairing.token.missing",
            Self::WellKnownFailed => "com.apple.well-known.failed",
        }
    }

    /// The document as JSON (`application/json`); `message` may be shown to the user.
    #[must_use]
    pub fn to_json(&self, message: Option<&str>) -> Vec<u8> {
        json(&self.keys(message)).to_string().into_bytes()
    }

    /// The document as an XML property list; `message` may be shown to the user.
    ///
    /// # Errors
    /// [`Error::NotWritable`] when a text contains a control character.
    pub fn to_plist(&self, message: Option<&str>) -> Result<Vec<u8>, Error> {
        xml::encode(self.keys(message))
    }

    fn keys(&self, message: Option<&str>) -> Dictionary {
        let keys = Keys::new().with("code", self.code()).maybe("message", message);
        match self {
            Self::UnrecognizedDevice | Self::WellKnownFailed => keys.done(),
            Self::SoftwareUpdateRequired { os_version, build_version, beta_program } => {
                let program = beta_program.as_ref().map(|(description, token)| {
                    Keys::new()
                        .with("Description", description.clone())
                        .with("Token", token.expose_str().unwrap_or_default())
                        .done()
                });
                let details = Keys::new()
                    .with("OSVersion", os_version.clone())
                    .maybe("BuildVersion", build_version.clone())
                    .maybe("RequireBetaProgram", program);
                keys.with("details", details.done()).done()
            }
            Self::WatchPairingTokenMissing { security_token } => {
                let details = Keys::new().with("security-token", security_token.clone());
                keys.with("details", details.done()).done()
            }
        }
    }
}

/// The documents hold texts and dictionaries of texts only.
fn json(keys: &Dictionary) -> serde_json::Value {
    let entries = keys.iter().filter_map(|(key, value)| {
        let value = match value {
            Value::String(text) => serde_json::Value::from(text.as_str()),
            Value::Dictionary(inner) => json(inner),
            _ => return None,
        };
        Some((key.clone(), value))
    });
    serde_json::Value::Object(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Limits, parse};

    fn keys(bytes: &[u8]) -> plist::Dictionary {
        parse(bytes, &Limits::default()).unwrap().into_dictionary().unwrap()
    }

    #[test]
    fn bootstrap_tokens() {
        assert!(keys(&bootstrap_token(None).unwrap()).is_empty());
        assert!(keys(&bootstrap_token(Some(b"")).unwrap()).is_empty());
        let some = keys(&bootstrap_token(Some(b"abc")).unwrap());
        assert_eq!(some.get("BootstrapToken").unwrap().as_data(), Some(&b"abc"[..]));
    }

    #[test]
    fn return_to_service_is_off_unless_said() {
        let answer = keys(&return_to_service(&ReturnToService::default()).unwrap());
        let inner = answer.get("ReturnToService").unwrap().as_dictionary().unwrap();
        assert_eq!(inner.get("Enabled").unwrap().as_boolean(), Some(false));
        assert_eq!(inner.len(), 1);
    }

    #[test]
    fn error_documents_agree_in_both_forms() {
        let document = ErrorDocument::SoftwareUpdateRequired {
            os_version: "17.2".to_owned(),
            build_version: None,
            beta_program: Some(("Beta".to_owned(), Opaque::from("seed"))),
        };
        let json: serde_json::Value =
            serde_json::from_slice(&document.to_json(Some("Update first"))).unwrap();
        assert_eq!(json["code"], "com.apple.softwareupdate.required");
        assert_eq!(json["details"]["RequireBetaProgram"]["Token"], "seed");
        let plist = keys(&document.to_plist(Some("Update first")).unwrap());
        assert_eq!(plist.get("message").unwrap().as_string(), Some("Update first"));
        let details = plist.get("details").unwrap().as_dictionary().unwrap();
        assert_eq!(details.get("OSVersion").unwrap().as_string(), Some("17.2"));
        let plain = ErrorDocument::UnrecognizedDevice.to_json(None);
        assert_eq!(plain, br#"{"code":"com.apple.unrecognized.device"}"#);
    }
}
