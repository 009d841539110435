//! What the answers of WNS and of its token endpoint mean (spec/windows.md 3.12).
//!
//! Only 404 and 410 retire a channel. 403 does not: it says that the channel is another app's than the credentials',
//! and that is more often a wrong secret or package family name on the server than a fault of the PC. Retiring channels
//! for it would make the whole fleet deaf until every PC has called again.

use crate::http_answer::chain;
use bellwether_engine::WakeOutcome;
use reqwest::StatusCode;
use serde::Deserialize;

/// What counts in an answer to a wake.
pub struct Answer {
    pub status: StatusCode,
    /// `X-WNS-Status`.
    pub word: Option<String>,
    /// Milliseconds.
    pub retry_after: Option<i64>,
}

/// No access token. Everyone who waits for one gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An operator must mend it.
    Refused(String),
    /// It passes.
    Passing {
        /// Milliseconds, if the endpoint named them.
        retry_after: Option<i64>,
        /// For admins.
        note: String,
    },
}

impl From<Fault> for WakeOutcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(note) => Self::Rejected { note },
            Fault::Passing { retry_after, note } => Self::Transient { retry_after, note },
        }
    }
}

impl Fault {
    /// A token that was made a moment ago is worth nothing.
    pub fn fresh_token_refused() -> Self {
        Self::Refused(
            "the push service refuses (401) even a fresh access token; compare wns.package_sid and wns.client_secret with the app's page in Partner Center"
                .to_owned(),
        )
    }
}

/// The outcome of a wake that was answered, and not with 401.
pub fn outcome(answer: &Answer) -> WakeOutcome {
    let code = answer.status.as_u16();
    match code {
        200 => accepted(answer),
        404 | 410 => WakeOutcome::Dead {
            note: format!(
                "the push service says that the PC's channel is gone ({code}): it has expired or was replaced; the PC reports its new one when it calls"
            ),
        },
        406 | 408 | 429 | 500..=599 => WakeOutcome::Transient {
            retry_after: answer.retry_after,
            note: format!("the push service asks to try later ({code})"),
        },
        _ => WakeOutcome::Rejected { note: format!("the push service refuses ({code}): {}", advice(code)) },
    }
}

/// The outcome of a wake without an answer. `error` must have lost its URL.
pub fn unreachable(error: &reqwest::Error) -> WakeOutcome {
    WakeOutcome::Transient {
        retry_after: None,
        note: format!("the push service cannot be reached: {}", chain(error)),
    }
}

/// The same for the token endpoint.
pub fn token_unreachable(error: &reqwest::Error) -> Fault {
    Fault::Passing {
        retry_after: None,
        note: format!("the push service's token endpoint cannot be reached: {}", chain(error)),
    }
}

/// An answer of the token endpoint that is not 200.
pub fn token_refused(status: StatusCode, body: &[u8], retry_after: Option<i64>) -> Fault {
    let error = error_word(body);
    let error = error.as_deref();
    let code = status.as_u16();
    let named = error.map_or_else(|| code.to_string(), |word| format!("{code} {word}"));
    match code {
        408 | 429 | 500..=599 => Fault::Passing {
            retry_after,
            note: format!("the push service's token endpoint asks to try later ({named})"),
        },
        400 | 401 | 403 if matches!(error, Some("server_error" | "temporarily_unavailable")) => {
            Fault::Passing {
                retry_after,
                note: format!("the push service's token endpoint asks to try later ({named})"),
            }
        }
        400 | 401 | 403 if error == Some("invalid_client") => Fault::Refused(format!(
            "the push service does not accept wns.package_sid and wns.client_secret ({named}); compare both with the app's page in Partner Center, and make a new secret there if this one has expired"
        )),
        400 | 401 | 403 => Fault::Refused(format!(
            "the push service gives this app no access token ({named}); compare wns.package_sid and wns.client_secret with the app's page in Partner Center. Microsoft refuses this way to apps that are new; PCs call on their schedule without it"
        )),
        _ => not_an_endpoint(&named),
    }
}

/// Something that is not a token endpoint.
pub fn not_an_endpoint(named: &str) -> Fault {
    Fault::Refused(format!(
        "wns.token_endpoint leads to something that gives no access tokens ({named}); check it in the configuration, and what stands between this server and Microsoft"
    ))
}

/// 200 says that the request was good; the word says what became of it.
fn accepted(answer: &Answer) -> WakeOutcome {
    let later =
        |note: &str| WakeOutcome::Transient { retry_after: answer.retry_after, note: note.to_owned() };
    match answer.word.as_deref().unwrap_or_default().to_ascii_lowercase().as_str() {
        "dropped" => {
            later("the push service took the wake and dropped it; the PC may have been offline for long")
        }
        "channelthrottled" => later("the push service takes no more wakes for this PC now"),
        _ => WakeOutcome::Sent,
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        403 => {
            "the PC's channel belongs to another app than wns.package_sid. If every PC is refused, wns.package_family_name is not that of wns.package_sid; if only this one, it reports a new channel when it has taken over the package family name"
        }
        413 => "the wake is too large; please report this as a fault of the server",
        400 | 405 => "this server's request is not understood; please report this as a fault of the server",
        _ => "no answer that WNS gives; check what stands between this server and Microsoft",
    }
}

/// RFC 6749 5.2: it goes into notes and events: a word, or nothing.
fn error_word(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    let said: Said = serde_json::from_slice(body).ok()?;
    let word = said.error;
    let plain =
        (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    plain.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, word: Option<&str>) -> WakeOutcome {
        let status = StatusCode::from_u16(status).unwrap();
        outcome(&Answer { status, word: word.map(str::to_owned), retry_after: Some(7000) })
    }

    #[test]
    fn only_404_and_410_retire_a_channel() {
        for word in [None, Some("received"), Some("dropped"), Some("nonsense")] {
            for status in 201..600 {
                let dead = matches!(of(status, word), WakeOutcome::Dead { .. });
                assert_eq!(dead, status == 404 || status == 410, "{status}");
            }
        }
    }

    #[test]
    fn the_status_decides_and_only_then_the_word() {
        for status in [406, 408, 429, 500, 502, 503, 504, 599] {
            let WakeOutcome::Transient { retry_after: Some(7000), note } = of(status, Some("received"))
            else {
                panic!("{status}")
            };
            assert!(note.contains(&status.to_string()), "{note}");
        }
        for status in [201, 204, 301, 302, 307, 308, 400, 403, 405, 413, 418] {
            assert!(matches!(of(status, Some("received")), WakeOutcome::Rejected { .. }), "{status}");
        }
        for word in [None, Some("received"), Some("Received"), Some("something new")] {
            assert_eq!(of(200, word), WakeOutcome::Sent);
        }
        for word in ["dropped", "Dropped", "channelthrottled", "channelThrottled"] {
            assert!(matches!(of(200, Some(word)), WakeOutcome::Transient { retry_after: Some(7000), .. }));
        }
    }

    #[test]
    fn a_refused_token_names_the_word_and_never_other_text() {
        let of = |status: u16, body: &str| {
            token_refused(StatusCode::from_u16(status).unwrap(), body.as_bytes(), Some(5000))
        };
        let note = |fault: Fault| match fault {
            Fault::Refused(note) | Fault::Passing { note, .. } => note,
        };
        let said = note(of(400, r#"{"error":"invalid_client","error_description":"secret hunter2"}"#));
        assert!(said.contains("400 invalid_client") && !said.contains("hunter2"), "{said}");
        for body in ["", "<html>", "[]", r#"{"error":7}"#, r#"{"error":"<b>\nclick</b>"}"#] {
            for status in [400, 401, 403] {
                let said = note(of(status, body));
                assert!(said.contains(&format!("({status})")) && !said.contains("click"), "{said}");
            }
        }
        for (status, body) in
            [(429, ""), (408, ""), (500, ""), (503, ""), (400, r#"{"error":"server_error"}"#)]
        {
            assert!(matches!(of(status, body), Fault::Passing { retry_after: Some(5000), .. }), "{status}");
        }
        for status in [201, 204, 301, 302, 307, 404, 410] {
            assert!(note(of(status, "")).contains("wns.token_endpoint"), "{status}");
        }
    }
}
