//! A profile that makes a device trust one certificate (`com.apple.security.root.yaml`).

use plist::{Dictionary, Value};
use uuid::Uuid;

use crate::Error;
use crate::xml::{self, Keys};

/// A profile with one root certificate, DER. Its identifiers are made from the certificate, so that the same
/// certificate replaces itself and two certificates never collide.
///
/// # Errors
/// [`Error::NotWritable`] when the name holds what XML cannot carry.
pub fn certificate_profile(
    organization: &str,
    namespace: Uuid,
    name: Option<&str>,
    der: &[u8],
) -> Result<Vec<u8>, Error> {
    let uuid = Uuid::new_v5(&namespace, der);
    let identifier = format!("bellwether.certificate.{}", uuid.simple());
    let title = name.unwrap_or("Certificate");
    let payload =
        common("com.apple.security.root", &format!("{identifier}.root"), Uuid::new_v5(&uuid, b"root"))
            .with("PayloadDisplayName", title)
            .with("PayloadContent", Value::Data(der.to_vec()))
            .done();
    let profile: Dictionary = common("Configuration", &identifier, uuid)
        .with("PayloadDisplayName", title)
        .with("PayloadOrganization", organization)
        .with("PayloadContent", Value::Array(vec![Value::Dictionary(payload)]))
        .done();
    xml::encode(profile)
}

fn common(kind: &str, identifier: &str, uuid: Uuid) -> Keys {
    Keys::new()
        .with("PayloadType", kind)
        .with("PayloadVersion", Value::Integer(1.into()))
        .with("PayloadIdentifier", identifier)
        .with("PayloadUUID", uuid.hyphenated().to_string().to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{inspect, refuse_upload};

    #[test]
    fn the_same_certificate_is_the_same_profile() {
        let namespace = Uuid::from_u128(7);
        let one = certificate_profile("Example", namespace, Some("Root & Co"), b"der").unwrap();
        assert_eq!(one, certificate_profile("Example", namespace, Some("Root & Co"), b"der").unwrap());
        let summary = inspect(&one).unwrap();
        assert!(refuse_upload(&summary).is_ok());
        assert_eq!(summary.payloads.len(), 1);
        let other = inspect(&certificate_profile("Example", namespace, None, b"other").unwrap()).unwrap();
        assert_ne!(summary.identifier, other.identifier);
    }
}
