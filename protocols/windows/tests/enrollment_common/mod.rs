//! What the tests of enrollment share.
#![allow(dead_code, reason = "each test file uses a part")]

use bellwether_windows::enrollment::provisioning::{
    Account, Certificate, ClientCredential, DmClient, Encoding, Enrollment, KeyStore, Nonce, Poll,
    ProviderId, RenewalSchedule, RenewedIdentity, Retry, Scheme, Secret, ServerCredential, Subject,
};
use bellwether_windows::enrollment::{Context, Envelope, Error, Limits, Message, Pkcs10};

pub fn golden(name: &str) -> Vec<u8> {
    let path = [env!("CARGO_MANIFEST_DIR"), "/testdata/enrollment/", name].concat();
    std::fs::read(path).unwrap()
}

pub fn message(bytes: &[u8]) -> Result<Message, Error> {
    Envelope::read(bytes, &Limits::REQUEST)?.message()
}

/// A stand-in with the habit that strict parsers stumble over: `!` and NUL in a `PrintableString`.
pub fn request() -> Pkcs10 {
    Pkcs10::new(b"\x30\x0b\x06\x03\x55\x04\x03\x13\x04a!b\0".to_vec()).unwrap()
}

pub fn context() -> Context {
    [
        ("EnrollmentType", "Full"),
        ("DeviceID", "00112233445566778899AABBCCDDEEFF"),
        ("HWDevID", "ABCDEF"),
        ("DeviceName", "Pat's \"PC\" <1> & more"),
        ("MAC", "02-00-00-00-00-01"),
        ("MAC", "02-00-00-00-00-02"),
        ("TargetedUserLoggedIn", "True"),
        ("SomethingNew", "kept"),
    ]
    .into_iter()
    .fold(Context::default(), |context, (name, value)| context.with(name, value).unwrap())
}

pub fn certificate(number: u8) -> Certificate {
    Certificate::new(vec![0x30, 0x03, 0x02, 0x01, number], [number; 20]).unwrap()
}

pub fn account() -> Account {
    Account {
        provider_id: ProviderId::parse("Bellwether").unwrap(),
        name: "Bellwether \"of\" <Contoso> & Sons".into(),
        address: "https://mdm.example:8444/ManagementServer/MDM.svc".into(),
        retry: Retry::default(),
        encoding: Encoding::Xml,
        subject: Subject::common_name("a1b2c3d4").unwrap(),
        role: None,
        server: ServerCredential {
            secret: Secret::new("server-password").unwrap(),
            nonce: Nonce::new(&b"0123456789abcdef"[..]).unwrap(),
        },
        client: ClientCredential {
            scheme: Scheme::Digest,
            name: "a1b2c3d4".into(),
            secret: Secret::new("client&<password>\"'").unwrap(),
            nonce: Nonce::new(&b"fedcba9876543210"[..]).unwrap(),
        },
    }
}

pub fn enrollment() -> Enrollment {
    Enrollment {
        root: Some(certificate(1)),
        intermediate: None,
        identity: certificate(2),
        store: KeyStore::User,
        renewal: Some(RenewalSchedule { period_days: 42, retry_days: 4 }),
        account: account(),
        client: DmClient {
            ent_dm_id: "0193b3c0-0000-7000-8000-000000000001".into(),
            upn: Some("user@contoso.com".into()),
            ent_device_name: Some("PC-1".into()),
            sync_application_version: None,
            require_message_signing: false,
            poll: Poll::AFTER_ENROLLMENT,
        },
    }
}

pub fn renewed() -> RenewedIdentity {
    RenewedIdentity {
        root: None,
        identity: certificate(3),
        store: KeyStore::System,
        provider_id: ProviderId::parse("Bellwether").unwrap(),
    }
}
