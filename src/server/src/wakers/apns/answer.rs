//! What an answer of APNs means. The status decides; the reason only names the cause (apple-pitfalls.md §8).

use crate::http_answer::chain;
use bellwether_engine::WakeOutcome;
use bellwether_model::Timestamp;
use reqwest::StatusCode;
use serde::Deserialize;
use std::error::Error;
use std::io;

const RENEW: &str = "see at identity.apple.com/pushcert whether it was revoked or expired, renew it there with the same Apple Account and import it";

/// The outcome for an answer.
pub fn outcome(status: StatusCode, body: &[u8], retry_after: impl FnOnce() -> Option<i64>) -> WakeOutcome {
    let said = Said::parse(body);
    let reason = said.reason.as_deref();
    let named = reason.map_or_else(|| status.as_u16().to_string(), |r| format!("{} {r}", status.as_u16()));
    match status.as_u16() {
        200 => WakeOutcome::Sent,
        410 => WakeOutcome::Dead { note: dead(&named, said.timestamp) },
        429 | 500..=599 => WakeOutcome::Transient {
            retry_after: retry_after(),
            note: format!("the push service asks to try later ({named})"),
        },
        400 if reason == Some("IdleTimeout") => WakeOutcome::Transient {
            retry_after: retry_after(),
            note: format!("the push service closed an idle connection ({named})"),
        },
        code => WakeOutcome::Rejected {
            note: format!("the push service refuses ({named}): {}", advice(code, reason)),
        },
    }
}

/// The outcome for a request without an answer. `error` must have lost its URL. `answered`: whether the wake before got
/// an answer.
pub fn failure(error: &reqwest::Error, answered: bool) -> WakeOutcome {
    if let Some(alert) = certificate_alert(error) {
        return WakeOutcome::Rejected {
            note: format!("the push service does not accept the push certificate (TLS: {alert}); {RENEW}"),
        };
    }
    let mut note = format!("the push service cannot be reached: {}", chain(error));
    // With TLS 1.3 a client certificate is refused after the handshake, and all that is seen is the connection's end.
    if !answered && !error.is_connect() && !error.is_timeout() {
        note.push_str("; if this goes on, it may not accept the push certificate: ");
        note.push_str(RENEW);
    }
    WakeOutcome::Transient { retry_after: None, note }
}

/// What APNs puts into a refusal. All of it may be missing.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    reason: Option<String>,
    /// Milliseconds: since when a token is known to be dead.
    #[serde(default)]
    timestamp: Option<i64>,
}

impl Said {
    fn parse(body: &[u8]) -> Self {
        let mut said: Self = serde_json::from_slice(body).unwrap_or_default();
        // It goes into notes and events: a word, or nothing.
        said.reason = said.reason.filter(|r| {
            !r.is_empty() && r.len() <= 64 && r.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        said
    }
}

fn dead(named: &str, since: Option<i64>) -> String {
    let since =
        since.map_or_else(String::new, |at| format!(" since {}", crate::clock::rfc3339(Timestamp(at))));
    format!(
        "the push service says that the device's token is dead{since} ({named}): the device was erased, or its management profile removed; a device that is still managed sends a new token by itself"
    )
}

/// What the operator can do. From Apple's table "Handling notification responses from APNs".
fn advice(status: u16, reason: Option<&str>) -> &'static str {
    match (status, reason.unwrap_or_default()) {
        (_, "BadDeviceToken") => {
            "the token does not belong to this push service. If every device is refused, the address of the push service is that of the other environment (sandbox instead of production); if only this one, it sends a new token by itself"
        }
        (_, "DeviceTokenNotForTopic") => {
            "the device was enrolled with another topic than that of the push certificate; import the renewal of the certificate that it was enrolled with"
        }
        (_, "BadTopic" | "MissingTopic" | "TopicDisallowed") => {
            "the push certificate does not allow this topic; import the push certificate of the topic again, renewed at identity.apple.com/pushcert and not created anew"
        }
        (_, "BadCertificate") => {
            "the push certificate is not accepted; see at identity.apple.com/pushcert whether it was revoked or expired, renew it there with the same Apple Account and import it"
        }
        (_, "BadCertificateEnvironment") => {
            "the push certificate is for the other environment; the address of the push service must be that of production, for which every MDM push certificate is made"
        }
        (_, "MissingProviderToken" | "InvalidProviderToken" | "ExpiredProviderToken") => {
            "the push service has seen no push certificate; something between this server and Apple opens the TLS connection and must let it pass untouched"
        }
        (_, "BadExpirationDate") => "the expiry is not accepted; check the clock of this server",
        (_, "PayloadTooLarge" | "PayloadEmpty" | "BadPayload") | (413, _) => {
            "the device's PushMagic makes a payload that the push service does not take; the device must enroll again"
        }
        (403, _) => {
            "the push certificate is not allowed to do this; see at identity.apple.com/pushcert whether it was revoked, renew it there with the same Apple Account and import it"
        }
        (_, "BadPath" | "MethodNotAllowed" | "MissingDeviceToken") | (404 | 405, _) => {
            "the address of the push service leads to something that is not APNs; check it in the configuration"
        }
        (400, _) => "this server's request is not understood; please report this as a fault of the server",
        _ => {
            "no answer that APNs gives; check the address of the push service, and what stands between this server and Apple"
        }
    }
}

/// The peer's TLS alert, if it is about our certificate.
fn certificate_alert(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(stack) = cause.downcast_ref::<openssl::error::ErrorStack>() {
            return stack.errors().iter().find_map(|e| alert_name(e.reason_code()));
        }
        // An io::Error skips what it wraps.
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => cause.source(),
        };
    }
    None
}

/// OpenSSL gives alerts of the peer as reason 1000 + the alert's number (RFC 8446 6.2).
fn alert_name(reason: i32) -> Option<&'static str> {
    match reason - 1000 {
        42 => Some("bad certificate"),
        43 => Some("unsupported certificate"),
        44 => Some("certificate revoked"),
        45 => Some("certificate expired"),
        46 => Some("certificate unknown"),
        48 => Some("unknown CA"),
        49 => Some("access denied"),
        116 => Some("certificate required"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> WakeOutcome {
        outcome(StatusCode::from_u16(status).unwrap(), body.as_bytes(), || Some(7000))
    }

    fn class(outcome: &WakeOutcome) -> &'static str {
        match outcome {
            WakeOutcome::Sent => "sent",
            WakeOutcome::Transient { .. } => "transient",
            WakeOutcome::Rejected { .. } => "rejected",
            WakeOutcome::Dead { .. } => "dead",
        }
    }

    #[test]
    fn only_410_kills_a_token() {
        for body in
            ["", "{}", "null", "<html>", r#"{"reason":"Unregistered"}"#, r#"{"reason":"ExpiredToken"}"#]
        {
            for status in 201..600 {
                assert_eq!(
                    matches!(of(status, body), WakeOutcome::Dead { .. }),
                    status == 410,
                    "{status} {body}"
                );
            }
            assert_eq!(of(200, body), WakeOutcome::Sent);
        }
    }

    #[test]
    fn the_status_decides_with_or_without_a_reason() {
        for (status, wanted) in [
            (400, "rejected"),
            (403, "rejected"),
            (404, "rejected"),
            (405, "rejected"),
            (413, "rejected"),
            (302, "rejected"),
            (418, "rejected"),
            (429, "transient"),
            (500, "transient"),
            (502, "transient"),
            (503, "transient"),
        ] {
            for body in
                ["", "not JSON", r#"{"reason":7}"#, r#"{"reason":"SomethingNew"}"#, r#"{"reason":null}"#]
            {
                assert_eq!(class(&of(status, body)), wanted, "{status} {body}");
            }
        }
        assert_eq!(class(&of(400, r#"{"reason":"IdleTimeout"}"#)), "transient");
        assert_eq!(class(&of(403, r#"{"reason":"IdleTimeout"}"#)), "rejected");
    }

    #[test]
    fn notes_name_the_reason_and_never_text_from_outside() {
        let WakeOutcome::Rejected { note } = of(400, r#"{"reason":"DeviceTokenNotForTopic"}"#) else {
            panic!()
        };
        assert!(note.contains("400 DeviceTokenNotForTopic") && note.contains("enrolled with"), "{note}");
        let WakeOutcome::Rejected { note } = of(400, r#"{"reason":"<b>\nclick</b>"}"#) else { panic!() };
        assert!(note.contains("(400)") && !note.contains("click"), "{note}");
        let WakeOutcome::Dead { note } = of(410, r#"{"reason":"Unregistered","timestamp":1800000000000}"#)
        else {
            panic!()
        };
        assert!(note.contains("since 2027-01-15T08:00:00Z"), "{note}");
    }
}
