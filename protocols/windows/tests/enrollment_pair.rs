//! A machine and a server in memory: what one writes the other reads.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod enrollment_common;

use bellwether_windows::enrollment::client::{self, Answer, Renewal};
use bellwether_windows::enrollment::provisioning::{
    Encoding, KeyStore, Nonce, Poll, ProviderId, Retry, Scheme, Secret, Stage, Subject, SubjectAttribute,
};
use bellwether_windows::enrollment::{
    AuthPolicy, Authentication, Context, Credential, DiscoverRequest, DiscoverResponse, EnrollmentPolicy,
    Envelope, Error, IssuedToken, KeyProvider, Limits, Message, Opaque, Pkcs7, Provisioning, ReplyHeader,
    RequestSecurityToken, Timestamp, TokenRequest, Version,
};
use enrollment_common::{account, context, enrollment, renewed, request};
use proptest::prelude::*;

const SERVER: &str = "https://mdm.example/EnrollmentServer/Enrollment.svc";

fn server(bytes: &[u8]) -> Envelope {
    Envelope::read(bytes, &Limits::REQUEST).ok().unwrap()
}

fn code() -> Credential {
    Credential::UsernameToken { username: "user@contoso.com".into(), password: Opaque::from("K7-<&\"'>") }
}

#[test]
fn a_whole_enrollment() {
    // Discover.
    let asked = DiscoverRequest {
        email_address: Some("user@contoso.com".into()),
        request_version: Version { major: 9, minor: 0 },
        device_type: Some("CIMClient_Windows".into()),
        application_version: Some("10.0.26200.9278".into()),
        os_version: None,
        os_edition: Some(48),
        auth_policies: Some(vec![AuthPolicy::OnPremise, AuthPolicy::Federated]),
    };
    let received = server(&client::discover(SERVER, &asked).unwrap());
    assert_eq!(received.header().to.as_deref(), Some(SERVER));
    assert_eq!(received.message(), Ok(Message::Discover(asked.clone())));
    let response = DiscoverResponse {
        authentication: Authentication::OnPremise,
        enrollment_version: asked.request_version.negotiate(Version::V4),
        policy_url: Some("https://mdm.example/EnrollmentServer/Policy.svc".into()),
        enrollment_url: SERVER.into(),
    };
    let written = response.encode(&ReplyHeader::to(received.header())).unwrap();
    let (header, answer) = client::read(&written).ok().unwrap();
    assert_eq!(header.relates_to.as_deref(), Some(client::DISCOVER_ID));
    assert!(answer == Answer::Discover(response));

    // GetPolicies.
    let received = server(&client::get_policies(SERVER, &code()).unwrap());
    assert!(received.credential().ok() == Some(Some(code())));
    assert!(matches!(received.message(), Ok(Message::GetPolicies(_))));
    let policy = EnrollmentPolicy::new(31_536_000, 3_888_000)
        .unwrap()
        .with_key_length(3072)
        .unwrap()
        .with_providers(&[KeyProvider::Platform]);
    let written = policy.encode(&ReplyHeader::to(received.header())).unwrap();
    let Answer::Policy(policy) = client::read(&written).ok().unwrap().1 else { panic!() };
    assert!(policy.is_sha256());
    assert_eq!((policy.minimal_key_length, policy.providers.len()), (3072, 1));

    // RequestSecurityToken.
    let received = server(&client::issue(SERVER, &code(), request(), context()).unwrap());
    assert!(received.credential().ok() == Some(Some(code())));
    let wanted = RequestSecurityToken { request: TokenRequest::Issue(request()), context: context() };
    assert_eq!(received.message(), Ok(Message::RequestSecurityToken(wanted)));
    let document = Provisioning::Enrollment(Box::new(enrollment()));
    let header =
        ReplyHeader::to(received.header()).with_timestamp(Timestamp::five_minutes(1_795_319_169_001));
    let written = IssuedToken::new(document.encode().ok().unwrap()).encode(&header).unwrap();
    let Answer::Token(token) = client::read(&written).ok().unwrap().1 else { panic!() };
    assert!(Provisioning::decode(token.document.expose()).ok() == Some(document));
}

#[test]
fn renewals() {
    let signed = Pkcs7::new([&[0x30, 0x82, 1, 0][..], &[7; 256]].concat()).unwrap();
    for (credential, renewal) in [(None, Renewal::Automatic), (Some(code()), Renewal::Manual)] {
        let written =
            client::renew(SERVER, credential.as_ref(), signed.clone(), renewal, Context::default()).unwrap();
        let received = server(&written);
        assert!(received.credential().ok() == Some(credential));
        let Ok(Message::RequestSecurityToken(message)) = received.message() else { panic!("{renewal:?}") };
        assert_eq!(message.request, TokenRequest::Renew(signed.clone()));
    }
    let document = Provisioning::Renewal(renewed());
    assert!(Provisioning::decode(document.encode().ok().unwrap().expose()).ok() == Some(document));
}

#[test]
fn credentials() {
    for credential in [
        code(),
        Credential::UsernameToken { username: String::new(), password: Opaque::default() },
        Credential::UserToken(Opaque::new(vec![0, 255, 1])),
        Credential::Jwt(Opaque::from("e30.e30.")),
        Credential::Certificate(vec![0x30, 0]),
    ] {
        let received = server(&client::get_policies(SERVER, &credential).unwrap());
        assert!(received.credential().ok() == Some(Some(credential)));
    }
}

#[test]
fn versions_are_a_range() {
    for (text, answer) in [
        ("1.0", None),
        ("2.0", None),
        ("3.0", Some("3.0")),
        ("4.0", Some("4.0")),
        ("5.0", Some("4.0")),
        ("6.0", Some("4.0")),
        ("7.0", Some("4.0")),
        ("8.0", Some("4.0")),
        ("9.0", Some("4.0")),
        ("10.1", Some("4.0")),
        ("3.5", Some("3.5")),
        ("65535.65535", Some("4.0")),
        ("9", Some("4.0")),
    ] {
        let version = Version::parse(text).unwrap();
        assert_eq!(version.negotiate(Version::V4).map(|v| v.to_string()).as_deref(), answer, "{text}");
    }
    for wrong in ["", ".", "0.0", "-1.0", "+4.0", "4.", "4.0.0", "x", "99999.0", " 4.0", "4,0", "0x4"] {
        assert_eq!(Version::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_machine_without_a_list_of_policies() {
    let mut request = DiscoverRequest {
        email_address: None,
        request_version: Version::V1,
        device_type: None,
        application_version: None,
        os_version: None,
        os_edition: None,
        auth_policies: None,
    };
    assert_eq!(
        request.choose(&[AuthPolicy::Certificate, AuthPolicy::Federated]),
        Some(AuthPolicy::Federated)
    );
    request.auth_policies = Some(Vec::new());
    assert_eq!(request.choose(&[AuthPolicy::OnPremise]), None);
}

#[test]
fn unusable_urls_are_not_written() {
    let good = DiscoverResponse {
        authentication: Authentication::OnPremise,
        enrollment_version: None,
        policy_url: Some("https://MDM.example:443/p".into()),
        enrollment_url: SERVER.into(),
    };
    assert!(good.encode(&ReplyHeader::default()).is_ok());
    let elsewhere = DiscoverResponse { policy_url: Some("https://other.example/p".into()), ..good.clone() };
    assert!(matches!(elsewhere.encode(&ReplyHeader::default()), Err(Error::Address(_))));
    let plain = DiscoverResponse { enrollment_url: "http://mdm.example/e".into(), ..good.clone() };
    assert!(matches!(plain.encode(&ReplyHeader::default()), Err(Error::Address(_))));
    let service_url = "http://mdm.example/a".into();
    let plain = DiscoverResponse { authentication: Authentication::Federated { service_url }, ..good };
    assert!(matches!(plain.encode(&ReplyHeader::default()), Err(Error::Address(_))));
}

#[test]
fn policies_have_sound_periods() {
    assert!(EnrollmentPolicy::new(10, 0).is_err());
    assert!(EnrollmentPolicy::new(10, 10).is_err());
    for bits in [0, 1024, 2047, 8192] {
        assert!(EnrollmentPolicy::new(10, 5).unwrap().with_key_length(bits).is_err());
    }
}

#[test]
fn documents_that_machines_refuse_are_not_written() {
    let refused = |change: &dyn Fn(&mut bellwether_windows::enrollment::provisioning::Enrollment)| {
        let mut document = enrollment();
        change(&mut document);
        Provisioning::Enrollment(Box::new(document)).encode().is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|d| d.account.address = "http://mdm.example/".into()));
    assert!(refused(&|d| d.account.name = String::new()));
    assert!(refused(&|d| d.account.name = "a\0b".into()));
    assert!(refused(&|d| d.account.name = "a\nb".into()));
    assert!(refused(&|d| d.account.client.name = " a".into()));
    assert!(refused(&|d| d.account.retry.attempts = 0));
    assert!(refused(&|d| d.account.retry.initial_milliseconds = u32::MAX));
    assert!(refused(&|d| d.client.ent_dm_id = String::new()));
    assert!(refused(&|d| d.client.upn = Some("x".repeat(300))));
    assert!(refused(&|d| d.client.sync_application_version = Some(Version::V3)));
    assert!(refused(&|d| d.renewal.as_mut().unwrap().period_days = 0));
    assert!(refused(&|d| d.renewal.as_mut().unwrap().retry_days = 1001));
}

#[test]
fn values_that_machines_refuse_do_not_exist() {
    for wrong in ["", "a b", "a/b", "ä", "a\"", "a\0", &"x".repeat(65)] {
        assert!(ProviderId::parse(wrong).is_err(), "{wrong:?}");
    }
    assert!(Nonce::new(&[0; 7][..]).is_err() && Nonce::new(&[0; 65][..]).is_err());
    for wrong in ["", "a b", "ä", "a\0", &"x".repeat(257)] {
        assert!(Secret::new(wrong).is_err(), "{wrong:?}");
    }
    for wrong in ["", "a\0", "a\nb", "ä", &"x".repeat(65)] {
        assert!(Subject::common_name(wrong).is_err(), "{wrong:?}");
    }
    assert!(Subject::new(&[]).is_err());
    let stage = |times, minutes| Stage { times, minutes };
    let (on, endless) = (stage(5, 3), stage(0, 480));
    assert!(Poll::new([on, on, endless], true, true).is_ok());
    assert!(Poll::new([on, endless, Stage::OFF], true, true).is_ok());
    for wrong in [
        [endless, Stage::OFF, Stage::OFF],
        [Stage::OFF, on, endless],
        [on, endless, endless],
        [on, endless, on],
        [on, on, on],
        [on, on, Stage::OFF],
        [on, on, stage(0, u32::MAX)],
    ] {
        assert!(Poll::new(wrong, true, true).is_err(), "{wrong:?}");
    }
}

#[test]
fn documents_that_machines_refuse_are_not_read() {
    let encoded = Provisioning::Enrollment(Box::new(enrollment())).encode().ok().unwrap();
    let text = encoded.expose_str().unwrap();
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Provisioning::decode(text.replacen(from, to, 1).as_bytes()).is_err()
    };
    let extra = "<characteristic type=\"RootCATrustedCertificates\"/></wap-provisioningdoc>";
    assert!(refused("</wap-provisioningdoc>", extra));
    assert!(refused("<characteristic type=\"PrivateKeyContainer\"/>", ""));
    assert!(refused("name=\"AAUTHDATA\"", "name=\"X\""));
    assert!(refused("value=\"APPSRV\"", "value=\"CLIENT\""));
    assert!(refused("My%5CUser", "My%5CSystem"));
    assert!(refused("type=\"Bellwether\"", "type=\"Other\""));
    assert!(refused("<parm name=\"BACKCOMPATRETRYDISABLED\"/>", ""));
    assert!(refused("version=\"1.1\"", "version=\"1.0\""));
    assert!(refused("name=\"EntDMID\"", "name=\"X\""));
    assert!(refused("type=\"User\"", "type=\"Machine\""));
    assert!(!refused("name=\"UPN\"", "name=\"HelpPhoneNumber\""));
}

#[test]
fn subjects_are_quoted() {
    use SubjectAttribute::{CommonName, DomainComponent, Organization, OrganizationalUnit};
    let subject = Subject::new(&[
        (CommonName, "a, \"b\" = c"),
        (OrganizationalUnit, "plain"),
        (Organization, " edge"),
        (DomainComponent, "com"),
    ])
    .unwrap();
    assert_eq!(subject.to_x500(), "CN=\"a, \"\"b\"\" = c\",OU=plain,O=\" edge\",DC=com");
    let mut document = enrollment();
    document.account.subject = subject;
    let document = Provisioning::Enrollment(Box::new(document));
    assert!(Provisioning::decode(document.encode().ok().unwrap().expose()).ok() == Some(document));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_context_survives(items in prop::collection::vec(("[A-Za-z]{1,20}", "[ -~é\u{10000}]{0,40}"), 0..20)) {
        let mut context = Context::default();
        for (name, value) in &items {
            context.add(name, value.trim()).unwrap();
        }
        let received = server(&client::issue(SERVER, &code(), request(), context.clone()).unwrap());
        let wanted = RequestSecurityToken { request: TokenRequest::Issue(request()), context };
        prop_assert_eq!(received.message(), Ok(Message::RequestSecurityToken(wanted)));
    }

    #[test]
    fn any_document_survives(
        subject in "[ -~]{1,64}",
        name in "[!-~]([ -~é]{0,40}[!-~])?",
        secret in "[!-~]{1,64}",
        nonce in prop::collection::vec(any::<u8>(), 8..=64),
        device in any::<bool>(),
        basic in any::<bool>(),
        wbxml in any::<bool>(),
        role in any::<Option<u32>>(),
        retry in (1_u32.., 0_u32..1000, 1000_u32..),
    ) {
        let mut document = enrollment();
        document.store = if device { KeyStore::System } else { KeyStore::User };
        document.account.subject = Subject::common_name(&subject).unwrap();
        document.account.name = name.clone();
        document.account.client.name = name;
        document.account.client.scheme = if basic { Scheme::Basic } else { Scheme::Digest };
        document.account.client.secret = Secret::new(secret.clone()).unwrap();
        document.account.server.secret = Secret::new(secret).unwrap();
        document.account.client.nonce = Nonce::new(nonce).unwrap();
        document.account.encoding = if wbxml { Encoding::Wbxml } else { Encoding::Xml };
        document.account.role = role;
        let (attempts, initial_milliseconds, longest_milliseconds) = retry;
        document.account.retry = Retry { attempts, initial_milliseconds, longest_milliseconds };
        let document = Provisioning::Enrollment(Box::new(document));
        prop_assert!(Provisioning::decode(document.encode().ok().unwrap().expose()).ok() == Some(document));
    }

    #[test]
    fn any_token_survives(token in prop::collection::vec(any::<u8>(), 1..200), wanted in any::<bool>()) {
        let credential = if wanted { Credential::Jwt(token.into()) } else { Credential::UserToken(token.into()) };
        let received = server(&client::get_policies(SERVER, &credential).unwrap());
        prop_assert!(received.credential().ok() == Some(Some(credential)));
    }
}

#[test]
fn accounts_keep_their_secrets() {
    // The search criteria, the address and the name may be shown; the passwords stand in no other place.
    let encoded = Provisioning::Enrollment(Box::new(enrollment())).encode().ok().unwrap();
    let text = encoded.expose_str().unwrap();
    assert_eq!(text.matches(account().server.secret.expose_str()).count(), 1);
    assert_eq!(text.matches("AAUTHDATA").count(), 2);
}
