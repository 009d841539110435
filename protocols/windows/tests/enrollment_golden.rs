//! Documented messages with their mistakes are accepted; what we write stays as it is.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod enrollment_common;

use bellwether_windows::enrollment::client::{self, Answer};
use bellwether_windows::enrollment::provisioning::KeyStore;
use bellwether_windows::enrollment::{
    AuthPolicy, Authentication, Credential, DiscoverResponse, EnrollmentPolicy, EnrollmentType, Envelope,
    Error, ErrorType, Exchange, Fault, IssuedToken, KeyProvider, Limits, Message, Opaque, Provisioning,
    ReplyHeader, Subcode, Timestamp, TokenRequest, Version,
};
use enrollment_common::{enrollment, golden, message, renewed};
use uuid::Uuid;

fn envelope(name: &str) -> Envelope {
    Envelope::read(&golden(name), &Limits::REQUEST).ok().unwrap()
}

#[test]
fn discover_of_the_federated_page() {
    let envelope = envelope("discover-federated.xml");
    let id = envelope.header().message_id.clone().unwrap();
    assert_eq!(id, "urn:uuid: 748132ec-a575-4329-b01b-6171a9cf8478");
    assert!(envelope.credential().unwrap_or(None).is_none());
    let Message::Discover(request) = envelope.message().unwrap() else { panic!() };
    assert_eq!(request.email_address.as_deref(), Some("user@contoso.com"));
    assert_eq!(request.request_version, Version { major: 3, minor: 0 });
    assert_eq!(request.os_edition, Some(3));
    assert_eq!(request.auth_policies, Some(vec![AuthPolicy::OnPremise, AuthPolicy::Federated]));
    assert_eq!(request.choose(&[AuthPolicy::Federated, AuthPolicy::OnPremise]), Some(AuthPolicy::Federated));
    assert_eq!(request.choose(&[AuthPolicy::Certificate]), None);
}

#[test]
fn discover_of_the_certificate_page() {
    let Message::Discover(request) = envelope("discover-certificate.xml").message().unwrap() else {
        panic!()
    };
    assert_eq!(request.auth_policies, Some(vec![AuthPolicy::Certificate]));
    assert_eq!(request.os_version.as_deref(), Some("10.0.0.0"));
    assert_eq!(request.device_type, None);
}

#[test]
fn discover_of_25h2() {
    let Message::Discover(request) = envelope("discover-25h2.xml").message().unwrap() else { panic!() };
    assert_eq!(request.email_address.as_deref(), Some("contoso\\user"));
    assert_eq!(request.request_version, Version { major: 9, minor: 0 });
    assert_eq!(request.request_version.negotiate(Version::V4), Some(Version::V4));
    assert_eq!(request.application_version.as_deref(), Some("10.0.26200.9278"));
}

#[test]
fn policy_requests() {
    let on_premise = envelope("getpolicies-onpremise.xml");
    assert!(matches!(on_premise.message(), Ok(Message::GetPolicies(_))));
    let Ok(Some(Credential::UsernameToken { username, password })) = on_premise.credential() else {
        panic!()
    };
    assert_eq!((username.as_str(), password.expose_str()), ("user@contoso.com", Some("mypassword")));

    let federated = envelope("getpolicies-federated.xml");
    let Ok(Some(Credential::UserToken(token))) = federated.credential() else { panic!() };
    assert_eq!(token.expose_str(), Some("the token of the page"));

    let certificate = envelope("getpolicies-certificate.xml");
    let Ok(Some(Credential::Certificate(der))) = certificate.credential() else { panic!() };
    assert_eq!(der, [0x30, 3, 2, 1, 1]);
    let Ok(Message::GetPolicies(request)) = certificate.message() else { panic!() };
    let names: Vec<_> = request.context.iter().collect();
    assert_eq!(
        names,
        [
            ("OSPlatform", "WindowsMobile"),
            ("OSEdition", "Core"),
            ("DeviceName", "MY_WINDOWS_DEVICE"),
            ("EnrollmentType", "Lite"),
            ("DeviceType", "WindowsPhone"),
            ("DeviceID", "7BA748C8-703E-4DF2-A74A-92984117346A"),
        ]
    );
    assert!(request.context.enrollment_type().is_err());
}

#[test]
fn first_requests() {
    let federated = envelope("rst-federated.xml");
    assert!(matches!(federated.credential(), Ok(Some(Credential::UserToken(_)))));
    let Ok(Message::RequestSecurityToken(request)) = federated.message() else { panic!() };
    let TokenRequest::Issue(csr) = &request.request else { panic!() };
    assert_eq!(csr.as_der(), b"\x30\x0a\x02\x01\x00\x30\x05\x06\x03\x55\x04\x03\x0c\x00");
    let context = &request.context;
    assert_eq!(context.os_edition(), Some(4));
    assert_eq!(context.macs().collect::<Vec<_>>(), ["FF:FF:FF:FF:FF:FF", "CC:CC:CC:CC:CC:CC"]);
    assert_eq!(context.imeis().count(), 2);
    assert_eq!(context.enrollment_type(), Ok(EnrollmentType::Full));
    assert_eq!(context.targeted_user_logged_in(), Some(true));
    assert_eq!(context.device_id().unwrap().unwrap().as_str(), "7BA748C8-703E-4DF2-A74A-92984117346A");

    let Ok(Message::RequestSecurityToken(request)) = message(&golden("rst-onpremise-26200.xml")) else {
        panic!()
    };
    let context = &request.context;
    assert_eq!(context.enrollment_type(), Ok(EnrollmentType::Device));
    assert_eq!(context.not_in_oobe(), Some(false));
    assert_eq!(context.ux_initiated(), Some(true));
    assert_eq!(context.model(), Some("Model \"9\" <x>"));
    assert_eq!(context.serial_number(), Some("1234-5678"));
    assert_eq!(context.hw_dev_id().unwrap().unwrap().as_str().len(), 64);
    assert_eq!((context.locale(), context.manufacturer()), (Some("en-US"), Some("Contoso")));
    assert_eq!(context.get("AIKPub"), Some("UFVCTElD"));
}

#[test]
fn renewal_requests() {
    for name in ["rst-renew.xml", "rst-renew-twice.xml"] {
        let envelope = envelope(name);
        let Ok(Some(Credential::UsernameToken { password, .. })) = envelope.credential() else {
            panic!("{name}")
        };
        assert!(password.is_empty());
        let Ok(Message::RequestSecurityToken(request)) = envelope.message() else { panic!("{name}") };
        let TokenRequest::Renew(signed) = &request.request else { panic!("{name}") };
        // Indefinite length: BER passes, openssl makes DER of it.
        assert!(signed.as_der().starts_with(b"\x30\x80\x06\x09"), "{name}");
        assert_eq!(request.context.application_version(), Some("5.0.7616.0"));
        assert_eq!(request.context.enrollment_type(), Ok(EnrollmentType::Full));
    }
}

#[test]
fn answers_of_the_pages() {
    let (header, answer) = client::read(&golden("discover-response-federated.xml")).ok().unwrap();
    assert_eq!(header.activity_id.as_deref(), Some("d9eb2fdd-e38a-46ee-bd93-aea9dc86a3b8"));
    let Answer::Discover(response) = answer else { panic!() };
    assert_eq!(response.enrollment_version, Some(Version::V3));
    let service_url = "https://portal.manage.contoso.com/LoginRedirect.aspx".into();
    assert_eq!(response.authentication, Authentication::Federated { service_url });

    let Answer::Policy(policy) = client::read(&golden("getpolicies-response.xml")).ok().unwrap().1 else {
        panic!()
    };
    assert_eq!((policy.minimal_key_length, policy.hash_oid.as_str()), (2048, "1.3.14.3.2.29"));
    assert!(!policy.is_sha256() && policy.providers.is_empty());

    let Answer::Token(token) = client::read(&golden("rstr.xml")).ok().unwrap().1 else { panic!() };
    assert_eq!(token.document.expose_str(), Some("<wap-provisioningdoc/>"));

    let Answer::Fault(fault) = client::read(&golden("fault-devicecapreached.xml")).ok().unwrap().1 else {
        panic!()
    };
    assert_eq!(
        (fault.subcode, fault.error_type),
        (Subcode::Authorization, Some(ErrorType::DeviceCapReached))
    );
    assert_eq!(fault.trace_id, "2493ee37-beeb-4cb9-833c-cadde9067645");
    assert_eq!(fault.client_error(), 0x8018_0013);

    let Ok(Provisioning::Renewal(renewal)) = Provisioning::decode(&golden("provisioning-renewal.xml")) else {
        panic!()
    };
    assert_eq!(renewal.store, KeyStore::User);
    assert_eq!(renewal.identity.thumbprint(), &[255; 20]);
    assert_eq!(renewal.root.unwrap().thumbprint_hex(), "0102030405060708090A0B0C0D0E0F1011121314");
    assert_eq!(renewal.provider_id.as_str(), "TestMDMServer");
}

/// Compares with a file; to accept a change on purpose, set `BELLWETHER_BLESS` and read the difference.
fn expect(name: &str, written: &[u8]) {
    let text = std::str::from_utf8(written).unwrap().replace("><", ">\n<") + "\n";
    if std::env::var_os("BELLWETHER_BLESS").is_some() {
        let path = [env!("CARGO_MANIFEST_DIR"), "/testdata/enrollment/", name].concat();
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, String::from_utf8(golden(name)).unwrap(), "{name}");
}

fn header(message_id: &str) -> ReplyHeader {
    let relates_to = Some(message_id.to_owned());
    ReplyHeader { relates_to, ..ReplyHeader::default() }.with_activity(Uuid::from_u128(7))
}

#[test]
fn what_we_write() {
    let response = DiscoverResponse {
        authentication: Authentication::Federated {
            service_url: "https://mdm.example/EnrollmentServer/Auth?a=b&c=d".into(),
        },
        enrollment_version: Some(Version::V4),
        policy_url: Some("https://mdm.example/EnrollmentServer/Policy.svc".into()),
        enrollment_url: "https://mdm.example/EnrollmentServer/Enrollment.svc".into(),
    };
    expect("expected-discover-response.xml", &response.encode(&header(client::DISCOVER_ID)).unwrap());

    let policy = EnrollmentPolicy::new(31_536_000, 3_888_000)
        .unwrap()
        .with_providers(&[KeyProvider::Platform, KeyProvider::Software]);
    expect("expected-getpolicies-response.xml", &policy.encode(&header(client::GET_POLICIES_ID)).unwrap());

    let token = IssuedToken::new(Opaque::from("<wap-provisioningdoc/>"));
    let header_rst =
        header(client::REQUEST_SECURITY_TOKEN_ID).with_timestamp(Timestamp::five_minutes(1_795_319_169_001));
    expect("expected-rstr.xml", &token.encode(&header_rst).unwrap());

    let document = Provisioning::Enrollment(Box::new(enrollment())).encode().ok().unwrap();
    expect("expected-provisioning.xml", document.expose());
    let mut device = enrollment();
    device.store = KeyStore::System;
    device.intermediate = device.root.take();
    device.renewal = None;
    device.client.require_message_signing = true;
    device.client.sync_application_version = Some(Version { major: 2, minor: 0 });
    device.client.upn = None;
    device.account.role = Some(32);
    let document = Provisioning::Enrollment(Box::new(device)).encode().ok().unwrap();
    expect("expected-provisioning-device.xml", document.expose());
    let document = Provisioning::Renewal(renewed()).encode().ok().unwrap();
    expect("expected-provisioning-renewal.xml", document.expose());

    let fault = Fault::new(Subcode::Authorization, "the account has its <10> \"devices\"", "req-1 & 2")
        .with_type(ErrorType::DeviceCapReached);
    let written = fault.encode(Exchange::RequestSecurityToken, &header(client::REQUEST_SECURITY_TOKEN_ID));
    expect("expected-fault.xml", &written.unwrap());
}

#[test]
fn every_fault_reaches_the_machine() {
    let types: Vec<_> = ErrorType::ALL.into_iter().map(Some).chain([None]).collect();
    for exchange in [Exchange::Discover, Exchange::GetPolicies, Exchange::RequestSecurityToken] {
        for subcode in Subcode::ALL {
            for error_type in &types {
                let mut fault = Fault::new(subcode, "why", "trace");
                fault.error_type = *error_type;
                let written = fault.encode(exchange, &header("urn:uuid:1")).unwrap();
                let (head, answer) = client::read(&written).ok().unwrap();
                assert_eq!(head.action.as_deref(), Some(exchange.response_action()));
                assert_eq!(head.relates_to.as_deref(), Some("urn:uuid:1"));
                assert!(answer == Answer::Fault(fault));
            }
        }
    }
    let codes: std::collections::BTreeSet<u32> = Subcode::ALL
        .into_iter()
        .map(Subcode::client_error)
        .chain(ErrorType::ALL.into_iter().map(ErrorType::client_error))
        .collect();
    assert_eq!(codes.len(), 15);
    // A reason with characters that XML cannot carry still arrives.
    let written = Fault::new(Subcode::MessageFormat, "a\0b", "c\u{1}")
        .encode(Exchange::Discover, &ReplyHeader::default());
    let Answer::Fault(fault) = client::read(&written.unwrap()).ok().unwrap().1 else { panic!() };
    assert_eq!((fault.reason.as_str(), fault.trace_id.as_str()), ("a\u{FFFD}b", "c\u{FFFD}"));
}

#[test]
fn errors_have_their_faults() {
    for (error, subcode) in [
        (Error::Doctype, Subcode::MessageFormat),
        (Error::UnknownMessage, Subcode::MessageFormat),
        (Error::Security("x"), Subcode::InvalidSecurity),
        (Error::CertificateRequest("x"), Subcode::CertificateRequest),
        (Error::NotWritable("x"), Subcode::InternalServiceFault),
    ] {
        let fault = error.fault("req-1");
        assert_eq!((fault.subcode, fault.trace_id.as_str()), (subcode, "req-1"));
    }
    assert_eq!(Fault::no_common_policy("x").client_error(), 0x8018_0015);
    assert_eq!(Fault::not_eligible_to_renew("x").client_error(), 0x8018_0016);
}
