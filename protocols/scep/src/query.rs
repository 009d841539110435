//! The HTTP side of RFC 8894 §4.1, as far as it is about bytes.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::MAX_MESSAGE;
use crate::error::{Error, Result};

/// What the query string of a SCEP URL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `GetCACaps`: answer [`crate::CAPS`].
    GetCaCaps,
    /// `GetCACert`: answer [`ca_cert_reply`].
    GetCaCert,
    /// `PKIOperation`; the message if it came in the query (GET), `None` if it is the body (POST).
    PkiOperation(Option<Vec<u8>>),
}

/// Reads the raw query string (still percent-encoded, without `?`).
///
/// Frameworks turn `+` into a space, which destroys the base64 of macOS's GET requests; hence the raw form.
///
/// # Errors
/// [`Error::Query`] for a missing or unknown operation (`GetNextCACert` included) or a broken message.
pub fn parse_query(raw_query: &str) -> Result<Operation> {
    let value = |name: &str| {
        raw_query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    };
    match value("operation") {
        Some("GetCACaps") => Ok(Operation::GetCaCaps),
        Some("GetCACert") => Ok(Operation::GetCaCert),
        Some("PKIOperation") => {
            let message = value("message").filter(|m| !m.is_empty()).map(parse_get_message);
            Ok(Operation::PkiOperation(message.transpose()?))
        }
        Some(_) => Err(Error::Query { reason: "unknown operation" }),
        None => Err(Error::Query { reason: "no operation" }),
    }
}

/// Decodes the `message` of a GET request: base64 in which any character may be percent-encoded or not.
/// macOS leaves `+` and `/` as they are and escapes only `=`. A `+` stays a `+`; a space, which some proxy
/// made of it, becomes one again.
///
/// # Errors
/// [`Error::Query`] if it is too long, not base64 or badly escaped.
pub fn parse_get_message(raw_value: &str) -> Result<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
    const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);
    // Three characters for each of four base64 digits per three bytes.
    if raw_value.len() > MAX_MESSAGE * 4 {
        return Err(Error::Query { reason: "the message is too long" });
    }
    let mut text = percent_decode(raw_value).ok_or(Error::Query { reason: "a bad percent escape" })?;
    text.iter_mut().filter(|c| **c == b' ').for_each(|c| *c = b'+');
    text.retain(|c| !matches!(c, b'\r' | b'\n'));
    PLAIN.decode(&text).or_else(|_| URL.decode(&text)).map_err(|_| Error::Query { reason: "not base64" })
}

/// The body of the answer to `GetCACert` for a CA that is its own RA: the one certificate, as it is
/// (RFC 8894 §4.2.1.1). Content type [`crate::CA_CERT_CONTENT_TYPE`].
#[must_use]
pub fn ca_cert_reply(ca_cert_der: &[u8]) -> Vec<u8> {
    ca_cert_der.to_vec()
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut value = 0;
        for _ in 0..2 {
            value = value * 16 + char::from(bytes.next()?).to_digit(16)?;
        }
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn macos_and_tidy_clients_are_read_alike() {
        // These bytes encode to "+/+/+w==".
        let bytes = [0xfb, 0xff, 0xbf, 0xfb];
        for form in [
            "+/+/+w==",
            "+/+/+w%3D%3D",
            "%2B%2F%2b%2f%2Bw%3D%3D",
            " / / w==",
            "+/+/+w",
            "-_-_-w",
            "+/+/\n+w==",
        ] {
            assert_eq!(parse_get_message(form).unwrap(), bytes, "{form}");
        }
        for bad in ["%", "%2", "%zz", "a+b*", "é"] {
            assert!(parse_get_message(bad).is_err(), "{bad}");
        }
        assert!(parse_get_message(&"A".repeat(MAX_MESSAGE * 4 + 1)).is_err());
    }

    #[test]
    fn operations() {
        assert_eq!(parse_query("operation=GetCACaps").unwrap(), Operation::GetCaCaps);
        assert_eq!(parse_query("operation=GetCACert&message=any").unwrap(), Operation::GetCaCert);
        assert_eq!(parse_query("operation=PKIOperation").unwrap(), Operation::PkiOperation(None));
        assert_eq!(parse_query("operation=PKIOperation&message=").unwrap(), Operation::PkiOperation(None));
        let sent = parse_query("operation=PKIOperation&message=+/+/").unwrap();
        assert_eq!(sent, Operation::PkiOperation(Some(vec![0xfb, 0xff, 0xbf])));
        for bad in ["", "operation", "operation=GetNextCACert", "operation=getcacert", "x=y"] {
            assert!(parse_query(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_message_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(parse_get_message(&text).unwrap(), bytes);
        }

        #[test]
        fn rubbish_never_panics(text in "\\PC{0,80}") {
            let _ = (parse_get_message(&text), parse_query(&text));
        }
    }
}
