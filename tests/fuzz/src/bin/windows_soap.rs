//! MS-MDE2 over SOAP: `Discover`, `GetPolicies`, `RequestSecurityToken` with its security and binary tokens, and the
//! server's answers as a machine reads them. What was read comes back equal from the machine's writer, and whatever is
//! wrong with a message can be answered by a fault that the machine reads.

#![no_main]

use bellwether_windows::enrollment::client::{self, Answer, Renewal};
use bellwether_windows::enrollment::{
    Credential, Envelope, Error, Exchange, Limits, Message, Opaque, ReplyHeader, TokenRequest,
};
use libfuzzer_sys::fuzz_target;

const TO: &str = "https://mdm.example/EnrollmentServer/Enrollment.svc";

fuzz_target!(|bytes: &[u8]| {
    let _ = client::read(bytes);
    let envelope = match Envelope::read(bytes, &Limits::REQUEST) {
        Ok(envelope) => envelope,
        Err(error) => return fault(&error, &ReplyHeader::default()),
    };
    let header = ReplyHeader::to(envelope.header());
    let credential = envelope.credential();
    if let Err(error) = &credential {
        fault(error, &header);
    }
    match envelope.message() {
        Err(error) => fault(&error, &header),
        Ok(message) => comes_back(message, credential.ok().flatten()),
    }
});

/// The echo of a message id of the sender must not break the answer.
fn fault(error: &Error, header: &ReplyHeader) {
    let fault = error.fault("0199c0de");
    let written = fault
        .encode(Exchange::RequestSecurityToken, header)
        .or_else(|_| fault.encode(Exchange::RequestSecurityToken, &ReplyHeader::default()));
    let (_, answer) =
        client::read(&written.expect("a fault can always be written")).expect("a fault of ours");
    match answer {
        Answer::Fault(read) => assert_eq!((read.subcode, &read.reason), (fault.subcode, &fault.reason)),
        _ => panic!("a fault is read as something else"),
    }
}

fn comes_back(message: Message, credential: Option<Credential>) {
    let given = credential.clone();
    let credential = credential.unwrap_or(Credential::UserToken(Opaque::new(b"token".to_vec())));
    let written = match message.clone() {
        Message::Discover(request) => client::discover(TO, &request),
        Message::GetPolicies(_) => client::get_policies(TO, &credential),
        Message::RequestSecurityToken(request) => match request.request {
            TokenRequest::Issue(pkcs10) => client::issue(TO, &credential, pkcs10, request.context),
            TokenRequest::Renew(pkcs7) => {
                client::renew(TO, Some(&credential), pkcs7, Renewal::Manual, request.context)
            }
        },
        _ => return,
    };
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            assert!(matches!(error, Error::NotWritable(_)), "{error}");
            return;
        }
    };
    let envelope = Envelope::read(&written, &Limits::REPLY).expect("an envelope of ours");
    let back = envelope.message().expect("a message of ours");
    if !matches!(message, Message::GetPolicies(_)) {
        assert_eq!(back, message);
    }
    if given.is_some() && !matches!(message, Message::Discover(_)) {
        assert!(
            envelope.credential().expect("a credential of ours") == given,
            "another credential comes back"
        );
    }
}
