//! Hostile enrollment messages cost an error and nothing else.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod enrollment_common;

use std::time::{Duration, Instant};

use bellwether_windows::enrollment::address::{AppRu, discovery_domain, discovery_host};
use bellwether_windows::enrollment::{Envelope, Error, Limits, Message, Provisioning, Subcode, client};
use enrollment_common::{golden, message};
use proptest::prelude::*;

const CORPUS: &[&str] = &[
    "discover-25h2.xml",
    "discover-certificate.xml",
    "discover-federated.xml",
    "getpolicies-certificate.xml",
    "getpolicies-federated.xml",
    "getpolicies-onpremise.xml",
    "rst-federated.xml",
    "rst-onpremise-26200.xml",
    "rst-renew.xml",
    "rst-renew-twice.xml",
];
const ANSWERS: &[&str] = &[
    "discover-response-federated.xml",
    "expected-fault.xml",
    "expected-getpolicies-response.xml",
    "expected-rstr.xml",
    "expected-provisioning.xml",
    "expected-provisioning-renewal.xml",
];

/// Everything that can be read, read; true when it was a message with a sound credential.
fn read(bytes: &[u8]) -> Result<Message, Error> {
    let begin = Instant::now();
    let result = Envelope::read(bytes, &Limits::REQUEST).and_then(|envelope| {
        envelope.credential()?;
        let message = envelope.message()?;
        if let Message::RequestSecurityToken(request) = &message {
            let _ =
                (request.context.device_id(), request.context.hw_dev_id(), request.context.enrollment_type());
        }
        Ok(message)
    });
    let _ = (client::read(bytes).is_ok(), Provisioning::decode(bytes).is_ok());
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
    result
}

fn text(name: &str) -> String {
    String::from_utf8(golden(name)).unwrap()
}

fn changed(name: &str, from: &str, to: &str) -> Result<Message, Error> {
    let text = text(name);
    assert!(text.contains(from), "{name}: {from}");
    read(text.replacen(from, to, 1).as_bytes())
}

fn wrapped(body: &str) -> Vec<u8> {
    [
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\"><s:Body>",
        body,
        "</s:Body></s:Envelope>",
    ]
    .concat()
    .into_bytes()
}

#[test]
fn at_50_windows_enrollment_bombs() {
    let deep = wrapped(&["<a>".repeat(5_000), "</a>".repeat(5_000)].concat());
    assert_eq!(read(&deep), Err(Error::TooDeep { limit: 32 }));
    assert_eq!(read(&wrapped(&"<a>".repeat(80_000))), Err(Error::TooDeep { limit: 32 }));
    assert_eq!(read(&wrapped(&"<a/>".repeat(30_000))), Err(Error::TooManyNodes { limit: 2_000 }));
    let attributes: String = (0..20_000).map(|number| format!(" a{number}='x'")).collect();
    assert_eq!(
        read(&wrapped(&["<a", &attributes, "/>"].concat())),
        Err(Error::TooManyAttributes { limit: 32 })
    );
    let namespaces: String = (0..10_000).map(|number| format!(" xmlns:a{number}='x'")).collect();
    assert_eq!(
        read(&wrapped(&["<a", &namespaces, "/>"].concat())),
        Err(Error::TooManyAttributes { limit: 32 })
    );
    let large = vec![b' '; 10 * 1024 * 1024];
    assert_eq!(read(&large), Err(Error::TooLarge { limit: Limits::REQUEST.max_bytes }));
    let large = wrapped(&"x".repeat(10 * 1024 * 1024));
    assert_eq!(read(&large), Err(Error::TooLarge { limit: Limits::REQUEST.max_bytes }));
    let open = wrapped(&"<ac:ContextItem>".repeat(10_000));
    assert_eq!(read(&open), Err(Error::TooDeep { limit: 32 }));
}

#[test]
fn at_50_windows_enrollment_entities_and_document_types() {
    let laughs = "<!DOCTYPE a [<!ENTITY l 'lol'><!ENTITY m '&l;&l;&l;&l;'>]>";
    assert_eq!(read(&[laughs.as_bytes(), &wrapped("<a>&m;</a>")].concat()), Err(Error::Doctype));
    let external = "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>";
    assert_eq!(read(&[external.as_bytes(), &wrapped("<a/>")].concat()), Err(Error::Doctype));
    assert_eq!(read(&wrapped("<!DOCTYPE a><a/>")), Err(Error::Doctype));
    assert_eq!(read(&wrapped("<a>&x;</a>")), Err(Error::Entity));
    assert_eq!(read(&wrapped("<a b='&x;'/>")), Err(Error::Entity));
    assert_eq!(read(&wrapped("<?php x?>")), Err(Error::ProcessingInstruction));
    assert_eq!(read(&wrapped("<?xml version='1.0'?><a/>")), Err(Error::ProcessingInstruction));
    for control in ["&#0;", "&#1;", "&#x1F;", "&#xFFFF;", "&#xD800;", "&#x110000;", "\0", "\u{8}"] {
        assert!(
            matches!(read(&wrapped(&["<a>", control, "</a>"].concat())), Err(Error::Xml(_))),
            "{control:?}"
        );
        let attribute = wrapped(&["<a b='", control, "'/>"].concat());
        assert!(read(&attribute).is_err_and(|error| error != Error::UnknownMessage), "{control:?}");
    }
}

#[test]
fn at_50_windows_enrollment_values_that_are_too_long() {
    let closing = "</ac:AdditionalContext>";
    let name =
        ["<ac:ContextItem Name='", &"x".repeat(129), "'><ac:Value>x</ac:Value></ac:ContextItem>", closing];
    let field = "the name of a context item";
    assert_eq!(
        changed("rst-onpremise-26200.xml", closing, &name.concat()),
        Err(Error::ValueTooLarge { field, limit: 128 })
    );
    let long = Err(Error::Security("a user name or password is too long"));
    for value in ["user@contoso.com", "mypassword"] {
        assert!(changed("getpolicies-onpremise.xml", value, &"x".repeat(1_024)).is_ok());
        assert_eq!(changed("getpolicies-onpremise.xml", value, &"x".repeat(1_025)), long, "{value}");
    }
    let token = changed("getpolicies-federated.xml", "dGhlIHRva2VuIG9m", &"QUJD".repeat(20_000));
    assert_eq!(token, Err(Error::Security("a token is too long")));
}

#[test]
fn encodings() {
    let utf16: Vec<u8> = text("discover-25h2.xml").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(&[&[0xFF, 0xFE][..], &utf16].concat()), Err(Error::Encoding));
    assert!(read(&utf16).is_err());
    let declared = "<?xml version=\"1.0\" encoding=\"utf-16\"?>";
    assert_eq!(read(&[declared.as_bytes(), &wrapped("<a/>")].concat()), Err(Error::Encoding));
    assert_eq!(
        read(&wrapped("<a>\u{e9}</a>").iter().map(|b| b | 0x80).collect::<Vec<_>>()),
        Err(Error::Encoding)
    );
    let marked = ["\u{FEFF}<?xml version=\"1.0\" encoding=\"utf-8\"?>", &text("discover-25h2.xml")].concat();
    assert!(read(marked.as_bytes()).is_ok());
    assert_eq!(read(b""), Err(Error::Empty));
    assert_eq!(read(b" \r\n"), Err(Error::Empty));
}

#[test]
fn malformed_documents() {
    for body in ["<a>", "<a></b>", "</a>", "<a b=c/>", "<a b='1' b='2'/>", "<a <b/>", "<a", "<:/>", "<a:/>"] {
        assert!(matches!(read(&wrapped(body)), Err(Error::Xml(_))), "{body}");
    }
    for document in ["<a/>", "x", "<s:Envelope/>", "<Envelope xmlns='urn:x'><Body/></Envelope>"] {
        assert!(
            matches!(read(document.as_bytes()), Err(Error::NotAnEnvelope(_) | Error::Xml(_))),
            "{document}"
        );
    }
    assert_eq!(read(&wrapped("")), Err(Error::UnknownMessage));
    assert_eq!(read(&wrapped("<Discover xmlns='urn:other'/>")), Err(Error::UnknownMessage));
    assert!(matches!(read(&[wrapped("<a/>"), b"<b/>".to_vec()].concat()), Err(Error::Xml(_))));
    assert!(matches!(read(&[wrapped("<a/>"), b"text".to_vec()].concat()), Err(Error::Xml(_))));
    // Only context items may be left open.
    let item = "<AdditionalContext><ContextItem Name='a'></AdditionalContext>";
    assert_eq!(read(&wrapped(item)), Err(Error::UnknownMessage));
    assert!(matches!(read(&wrapped("<AdditionalContext><Item></AdditionalContext>")), Err(Error::Xml(_))));
}

#[test]
fn namespaces_off_by_a_slash() {
    for name in CORPUS {
        let text = text(name);
        for namespace in [
            "http://schemas.microsoft.com/windows/management/2012/01/enrollment",
            "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy",
            "http://docs.oasis-open.org/ws-sx/ws-trust/200512",
            "http://www.w3.org/2003/05/soap-envelope",
        ] {
            let (bare, slashed) = ([namespace, "\""].concat(), [namespace, "/\""].concat());
            let off = text.replace(&slashed, &bare);
            assert!(read(off.as_bytes()).is_ok(), "{name} without {namespace}/");
            assert!(read(off.replace(&bare, &slashed).as_bytes()).is_ok(), "{name} with {namespace}/");
        }
    }
}

#[test]
fn nothing_stands_twice() {
    let twice = "<EmailAddress>a@b.c</EmailAddress><EmailAddress>d@e.f</EmailAddress>";
    let one = "<EmailAddress>contoso\\user</EmailAddress>";
    assert_eq!(changed("discover-25h2.xml", one, twice), Err(Error::Repeated { field: "EmailAddress" }));
    let token = "<wsse:BinarySecurityToken ValueType='urn:ietf:params:oauth:token-type:jwt'>eA==</wsse:BinarySecurityToken>";
    let closing = "</wsse:Security>";
    for name in ["getpolicies-onpremise.xml", "getpolicies-federated.xml"] {
        let result = changed(name, closing, &[token, closing].concat());
        assert!(matches!(result, Err(Error::Security(_))), "{name}");
    }
    let context = "</ac:AdditionalContext>";
    for (item, field) in
        [("DeviceID", "DeviceID"), ("EnrollmentType", "EnrollmentType"), ("HWDevID", "HWDevID")]
    {
        let other =
            format!("<ac:ContextItem Name='{item}'><ac:Value>Full2</ac:Value></ac:ContextItem>{context}");
        let Ok(Message::RequestSecurityToken(request)) = changed("rst-onpremise-26200.xml", context, &other)
        else {
            panic!("{item}")
        };
        let error = match item {
            "DeviceID" => request.context.device_id().err(),
            "HWDevID" => request.context.hw_dev_id().err(),
            _ => request.context.enrollment_type().err(),
        };
        assert_eq!(error, Some(Error::Repeated { field }));
    }
    let two = ["</Discover>", "<a/>"].concat();
    let result = changed("discover-25h2.xml", "</Discover>", &two);
    assert_eq!(result, Err(Error::Repeated { field: "the message in the body" }));
    let body = "<s:Body><a/></s:Body><s:Body>";
    assert!(matches!(changed("discover-25h2.xml", "<s:Body>", body), Err(Error::Repeated { field: "Body" })));
}

#[test]
fn at_52_windows_enrollment_identifiers_with_quotes_and_nuls() {
    const ID: &str = "00112233445566778899AABBCCDDEEFF";
    for bad in ["a\"b", "a'b", "a/b", "a\\b", "a b", "a&lt;b", "é", "a%00", "a;b", "../x", &"x".repeat(129)]
    {
        let Ok(Message::RequestSecurityToken(request)) = changed("rst-onpremise-26200.xml", ID, bad) else {
            panic!("{bad}")
        };
        assert!(matches!(request.context.device_id(), Err(Error::BadIdentifier { .. })), "{bad}");
    }
    for control in ["a&#0;b", "a\0b", "a&#x1;b"] {
        assert!(matches!(changed("rst-onpremise-26200.xml", ID, control), Err(Error::Xml(_))), "{control:?}");
    }
    let Ok(Message::RequestSecurityToken(request)) = changed("rst-onpremise-26200.xml", ID, "") else {
        panic!()
    };
    assert_eq!(request.context.device_id(), Ok(None));
}

#[test]
fn certificate_requests_that_are_none() {
    const REQUEST: &str = "MAoCAQAwBQYDVQQDDAA=";
    let long = "MAAA".repeat(30_000);
    for bad in ["", "!", "AAAA", "TUlB!", "QUFBQQ==", "/////w==", "MA==", &long] {
        let result = changed("rst-onpremise-26200.xml", REQUEST, bad);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::CertificateRequest(_)), "{bad}: {error}");
        assert_eq!(error.subcode(), Subcode::CertificateRequest);
    }
    // A renewal must be signed, and a first request cannot be.
    let signed = Error::Bad { message: "RequestSecurityToken", field: "signed request" };
    assert_eq!(changed("rst-renew.xml", "MIAGCSqGSIb3DQEHAgAA", "AAAA"), Err(signed.clone()));
    let issue = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Issue";
    let renew = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Renew";
    assert_eq!(changed("rst-onpremise-26200.xml", issue, renew), Err(signed));
    let error = changed("rst-renew.xml", renew, issue).unwrap_err();
    assert!(matches!(error, Error::CertificateRequest(_)));
    let cancel = "http://docs.oasis-open.org/ws-sx/ws-trust/200512/Cancel";
    let bad = Error::Bad { message: "RequestSecurityToken", field: "RequestType" };
    assert_eq!(changed("rst-onpremise-26200.xml", issue, cancel), Err(bad));
}

#[test]
fn tokens_that_are_none() {
    const KIND: &str =
        "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentUserToken";
    const TOKEN: &str = "dGhlIHRva2VuIG9m";
    let (kind, value) = ("urn:other", "not~base64");
    for result in [
        changed("getpolicies-federated.xml", KIND, kind),
        changed("getpolicies-federated.xml", TOKEN, value),
        changed("getpolicies-federated.xml", "wsse:ValueType", "wsse:OtherType"),
        changed("getpolicies-federated.xml", TOKEN, &"QUJD".repeat(20_000)),
    ] {
        assert_eq!(result.unwrap_err().subcode(), Subcode::InvalidSecurity);
    }
}

#[test]
fn actions_must_fit() {
    let (own, other) = ("IDiscoveryService/Discover<", "IDiscoveryService/Other<");
    assert_eq!(changed("discover-25h2.xml", own, other), Err(Error::ActionMismatch));
    assert!(changed("discover-25h2.xml", own, "IDiscoveryService/Discover/<").is_ok());
    let id = "urn:uuid:748132ec-a575-4329-b01b-6171a9cf8478";
    let result = changed("discover-25h2.xml", id, &"x".repeat(3_000));
    assert!(matches!(result, Err(Error::ValueTooLarge { field: "MessageID", .. })));
    assert!(matches!(changed("discover-25h2.xml", ">9.0<", ">nine<"), Err(Error::Bad { .. })));
}

#[test]
fn too_many_context_items() {
    let closing = "</ac:AdditionalContext>";
    let item = "<ac:ContextItem Name='MAC'><ac:Value>x</ac:Value></ac:ContextItem>";
    let many = [&item.repeat(300), closing].concat();
    assert!(matches!(changed("rst-onpremise-26200.xml", closing, &many), Err(Error::Bad { .. })));
    let large =
        ["<ac:ContextItem Name='A'><ac:Value>", &"x".repeat(40_000), "</ac:Value></ac:ContextItem>", closing]
            .concat();
    assert!(matches!(changed("rst-onpremise-26200.xml", closing, &large), Err(Error::ValueTooLarge { .. })));
}

#[test]
fn every_prefix_of_a_message_is_refused() {
    for name in CORPUS {
        let bytes = golden(name);
        let whole = bytes.iter().rposition(|byte| *byte == b'>').unwrap();
        for length in (0..=whole).step_by(7).chain([whole]) {
            assert!(message(&bytes[..length]).is_err(), "{name} {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let _ = read(&bytes);
    }

    #[test]
    fn random_markup_never_panics(text in "[<>/a-c:'\"=& ;#x0-9!\\[\\]?-]{0,200}") {
        let _ = read(&wrapped(&text));
        let _ = Provisioning::decode(text.as_bytes()).is_ok();
    }

    #[test]
    fn mutations_never_panic(
        file in prop::sample::select([CORPUS, ANSWERS].concat()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..8),
    ) {
        let mut bytes = golden(file);
        for (place, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let _ = read(&bytes);
    }

    #[test]
    fn spliced_messages_never_panic(
        files in (prop::sample::select(CORPUS), prop::sample::select(ANSWERS)),
        cut in any::<prop::sample::Index>(),
        resume in any::<prop::sample::Index>(),
    ) {
        let (first, second) = (golden(files.0), golden(files.1));
        let _ = read(&[&first[..cut.index(first.len())], &second[resume.index(second.len())..]].concat());
    }

    #[test]
    fn return_addresses_stay_harmless(text in "(ms-app|https|javascript|MS-APPX-WEB)?:?/{0,3}[ -~]{0,40}") {
        const OWN: &str = "https://mdm.example";
        if let Ok(address) = AppRu::parse(&text, OWN) {
            let address = address.as_str().to_ascii_lowercase();
            prop_assert!(!address.contains(['<', '>', '"', '\'', ' ', '\\', '@', '#']));
            let own = address == OWN || address.starts_with("https://mdm.example/");
            prop_assert!(own || address.starts_with("ms-app://") || address.starts_with("ms-appx-web://"));
        }
    }

    #[test]
    fn host_names_stay_host_names(text in "[ -~]{0,20}@?[ -~é]{0,30}") {
        if let Ok(host) = discovery_host(&text) {
            let domain = discovery_domain(&host).unwrap();
            prop_assert!(domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
        }
    }
}
