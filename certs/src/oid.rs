//! Object identifiers, as the content octets of their DER encoding.

/// An object identifier: the content octets of its DER encoding.
pub type Oid = &'static [u8];

pub(crate) const DATA: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
pub(crate) const SIGNED_DATA: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
pub(crate) const ENVELOPED_DATA: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];

pub(crate) const CONTENT_TYPE: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
pub(crate) const MESSAGE_DIGEST: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
pub(crate) const SIGNING_TIME: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05];
pub(crate) const CHALLENGE_PASSWORD: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];
pub(crate) const EXTENSION_REQUEST: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// Microsoft's name for the extension request (MS-WCCE 2.2.2.7.7.2).
pub(crate) const MS_CERT_EXTENSIONS: Oid = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0e];

pub(crate) const SHA1: Oid = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
pub(crate) const SHA256: Oid = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
pub(crate) const SHA384: Oid = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
pub(crate) const SHA512: Oid = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];

pub(crate) const RSA_ENCRYPTION: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(crate) const RSA_SHA1: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
pub(crate) const RSA_SHA256: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
pub(crate) const RSA_SHA384: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c];
pub(crate) const RSA_SHA512: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d];
/// OIW's sha1WithRSASignature, still written by old Apple code.
pub(crate) const OIW_RSA_SHA1: Oid = &[0x2b, 0x0e, 0x03, 0x02, 0x1d];

pub(crate) const EC_PUBLIC_KEY: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(crate) const P256: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384: Oid = &[0x2b, 0x81, 0x04, 0x00, 0x22];
pub(crate) const ECDSA_SHA1: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
pub(crate) const ECDSA_SHA256: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
pub(crate) const ECDSA_SHA384: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
pub(crate) const ECDSA_SHA512: Oid = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];

pub(crate) const AES128_CBC: Oid = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02];
pub(crate) const AES192_CBC: Oid = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x16];
pub(crate) const AES256_CBC: Oid = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
pub(crate) const DES_EDE3_CBC: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07];

pub(crate) const COMMON_NAME: Oid = &[0x55, 0x04, 0x03];

pub(crate) const SUBJECT_KEY_ID: Oid = &[0x55, 0x1d, 0x0e];
pub(crate) const KEY_USAGE: Oid = &[0x55, 0x1d, 0x0f];
pub(crate) const SUBJECT_ALT_NAME: Oid = &[0x55, 0x1d, 0x11];
pub(crate) const BASIC_CONSTRAINTS: Oid = &[0x55, 0x1d, 0x13];
pub(crate) const CRL_NUMBER: Oid = &[0x55, 0x1d, 0x14];
pub(crate) const NAME_CONSTRAINTS: Oid = &[0x55, 0x1d, 0x1e];
pub(crate) const AUTHORITY_KEY_ID: Oid = &[0x55, 0x1d, 0x23];
pub(crate) const EXT_KEY_USAGE: Oid = &[0x55, 0x1d, 0x25];

pub(crate) const SERVER_AUTH: Oid = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
pub(crate) const CLIENT_AUTH: Oid = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Writes an identifier in dotted form; `None` if the octets are no identifier.
pub(crate) fn dotted(content: &[u8]) -> Option<String> {
    let (_, ends) = content.split_last().map(|(last, rest)| (rest, last & 0x80 == 0))?;
    if !ends || content.len() > 64 {
        return None;
    }
    let mut out = String::new();
    let mut value: u64 = 0;
    let mut first = true;
    for byte in content {
        value = value.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let top = (value / 40).min(2);
            out.push_str(&format!("{top}.{}", value - top * 40));
            first = false;
        } else {
            out.push_str(&format!(".{value}"));
        }
        value = 0;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_what_their_names_say() {
        for (oid, text) in [
            (DATA, "1.2.840.113549.1.7.1"),
            (SIGNED_DATA, "1.2.840.113549.1.7.2"),
            (ENVELOPED_DATA, "1.2.840.113549.1.7.3"),
            (CONTENT_TYPE, "1.2.840.113549.1.9.3"),
            (MESSAGE_DIGEST, "1.2.840.113549.1.9.4"),
            (SIGNING_TIME, "1.2.840.113549.1.9.5"),
            (CHALLENGE_PASSWORD, "1.2.840.113549.1.9.7"),
            (EXTENSION_REQUEST, "1.2.840.113549.1.9.14"),
            (MS_CERT_EXTENSIONS, "1.3.6.1.4.1.311.2.1.14"),
            (SHA1, "1.3.14.3.2.26"),
            (SHA256, "2.16.840.1.101.3.4.2.1"),
            (SHA384, "2.16.840.1.101.3.4.2.2"),
            (SHA512, "2.16.840.1.101.3.4.2.3"),
            (RSA_ENCRYPTION, "1.2.840.113549.1.1.1"),
            (RSA_SHA1, "1.2.840.113549.1.1.5"),
            (RSA_SHA256, "1.2.840.113549.1.1.11"),
            (RSA_SHA384, "1.2.840.113549.1.1.12"),
            (RSA_SHA512, "1.2.840.113549.1.1.13"),
            (OIW_RSA_SHA1, "1.3.14.3.2.29"),
            (EC_PUBLIC_KEY, "1.2.840.10045.2.1"),
            (P256, "1.2.840.10045.3.1.7"),
            (P384, "1.3.132.0.34"),
            (ECDSA_SHA1, "1.2.840.10045.4.1"),
            (ECDSA_SHA256, "1.2.840.10045.4.3.2"),
            (ECDSA_SHA384, "1.2.840.10045.4.3.3"),
            (ECDSA_SHA512, "1.2.840.10045.4.3.4"),
            (AES128_CBC, "2.16.840.1.101.3.4.1.2"),
            (AES192_CBC, "2.16.840.1.101.3.4.1.22"),
            (AES256_CBC, "2.16.840.1.101.3.4.1.42"),
            (DES_EDE3_CBC, "1.2.840.113549.3.7"),
            (COMMON_NAME, "2.5.4.3"),
            (SUBJECT_KEY_ID, "2.5.29.14"),
            (KEY_USAGE, "2.5.29.15"),
            (SUBJECT_ALT_NAME, "2.5.29.17"),
            (BASIC_CONSTRAINTS, "2.5.29.19"),
            (CRL_NUMBER, "2.5.29.20"),
            (NAME_CONSTRAINTS, "2.5.29.30"),
            (AUTHORITY_KEY_ID, "2.5.29.35"),
            (EXT_KEY_USAGE, "2.5.29.37"),
            (SERVER_AUTH, "1.3.6.1.5.5.7.3.1"),
            (CLIENT_AUTH, "1.3.6.1.5.5.7.3.2"),
        ] {
            assert_eq!(dotted(oid).as_deref(), Some(text));
        }
    }

    #[test]
    fn an_unfinished_identifier_has_no_name() {
        assert_eq!(dotted(&[]), None);
        assert_eq!(dotted(&[0x2a, 0x86]), None);
        assert_eq!(dotted(&[0xff; 63]), None);
    }
}
