//! PCs: enrollment by SOAP, OMA-DM sessions, the queue as they meet it, renewal and leaving.

use crate::support::{House, house, wish};
use bellwether_certs::cms;
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::md5;
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{SendOptions, SessionRequest, SoapRequest, WindowsService, may};
use bellwether_model::intent::{DefenderAction, WipeOptions};
use bellwether_model::time::{DAY, MINUTE};
use bellwether_model::{CommandState, DeviceId, EnrollmentState, Intent, Platform};
use bellwether_windows::enrollment::client::{self, Answer as SoapAnswer, Renewal};
use bellwether_windows::enrollment::{
    AuthPolicy, Context, Credential, DiscoverRequest, ErrorType, Fault, Pkcs7, Pkcs10, Provisioning, Subcode,
    Version,
};
use bellwether_windows::syncml::auth::{Secret, secret_md5};
use bellwether_windows::syncml::client::{Answer, Client, Habits, Identity, unenrollment};
use bellwether_windows::syncml::{Alert, Format, Message, Request, Verb, reader, writer};

const TO: &str = "https://mdm.example.org/EnrollmentServer/Enrollment.svc";

/// A simulated PC.
struct Pc {
    device_id: String,
    hw: String,
    serial: String,
    key: KeyPair,
    cert: Vec<u8>,
    identity: Option<Identity>,
    sessions: u32,
    provider: String,
    /// What it was told: verb and LocURI.
    told: Vec<(Verb, String)>,
}

fn pc(name: &str) -> Pc {
    Pc {
        device_id: format!("{name:A<32}"),
        hw: format!("{name:B<64}"),
        serial: format!("SN-{name}"),
        key: KeyPair::generate_rsa2048().unwrap(),
        cert: Vec::new(),
        identity: None,
        sessions: 0,
        provider: String::new(),
        told: Vec::new(),
    }
}

fn code(account: &str, code: &str) -> Credential {
    Credential::UsernameToken { username: account.into(), password: code.into() }
}

impl House {
    async fn soap(
        &self,
        service: WindowsService,
        body: Vec<u8>,
        tls: Option<&[u8]>,
    ) -> Result<SoapAnswer, Fault> {
        let request = SoapRequest {
            service,
            body,
            tls_certificate: tls.map(<[u8]>::to_vec),
            source: Some("192.0.2.1".into()),
            trace_id: "trace-1".into(),
        };
        let reply = self.engine.windows_enrollment(request).await;
        match client::read(&reply.body).unwrap().1 {
            SoapAnswer::Fault(fault) => {
                assert_eq!(reply.status, 500);
                assert_eq!(fault.trace_id, "trace-1", "the person can tell us which request it was");
                Err(fault)
            }
            answer => {
                assert_eq!(reply.status, 200);
                Ok(answer)
            }
        }
    }

    async fn invite_pc(&self, account: Option<&str>) -> String {
        let permit = self.admin.permit::<may::WriteInvitations>(self.site()).unwrap();
        let mut wish = wish(account);
        wish.platform = Platform::Windows;
        let made = self.engine.create_invitation(&permit, wish).await.unwrap();
        use secrecy::ExposeSecret as _;
        made.link.expose_secret().rsplit('/').next().unwrap().to_owned()
    }

    async fn enrolled_pc(&self, name: &str) -> (Pc, DeviceId) {
        let mut pc = pc(name);
        let invitation = self.invite_pc(Some("ann@example.org")).await;
        pc.enroll(self, &code("ann@example.org", &invitation)).await.unwrap();
        pc.session(self).await;
        let id = self.device_id(&pc.serial.clone()).await;
        (pc, id)
    }

    async fn state(&self, id: bellwether_model::CommandId) -> CommandState {
        self.command(id).await.command.state
    }
}

impl Pc {
    fn context(&self) -> Context {
        let mut context = Context::default();
        for (name, value) in [
            ("DeviceType", "CIMClient_Windows"),
            ("OSVersion", "10.0.26100.2033"),
            ("OSEdition", "48"),
            ("EnrollmentType", "Full"),
            ("DeviceName", "PC-1"),
            ("Manufacturer", "Example"),
            ("DeviceModel", "Book 3"),
            ("DeviceID", &self.device_id),
            ("HWDevID", &self.hw),
            ("SerialNumber", &self.serial),
        ] {
            context.add(name, value).unwrap();
        }
        context
    }

    async fn policies(&self, house: &House, credential: &Credential) -> Result<(), Fault> {
        let body = client::get_policies("https://x/", credential).unwrap();
        house.soap(WindowsService::Policy, body, None).await.map(|_| ())
    }

    fn request(&self) -> Pkcs10 {
        Pkcs10::new(csr::build(&self.key, "ignored", None, Wishes::default()).unwrap()).unwrap()
    }

    async fn token(&mut self, house: &House, credential: &Credential) -> Result<(), Fault> {
        let body = client::issue(TO, credential, self.request(), self.context()).unwrap();
        let answer = house.soap(WindowsService::Enrollment, body, None).await?;
        let SoapAnswer::Token(token) = answer else { panic!("no token") };
        let Ok(Provisioning::Enrollment(document)) = Provisioning::decode(token.document.expose()) else {
            panic!("no provisioning document")
        };
        self.cert = document.identity.as_der().to_vec();
        let account = document.account;
        self.provider = account.provider_id.as_str().to_owned();
        self.identity = Some(Identity {
            device_id: self.device_id.clone(),
            server: account.address,
            name: account.client.name.clone(),
            secret: Secret::Md5(secret_md5(&account.client.name, account.client.secret.expose_str(), md5)),
            nonce: account.client.nonce.expose().to_vec(),
        });
        Ok(())
    }

    async fn enroll(&mut self, house: &House, credential: &Credential) -> Result<(), Fault> {
        self.policies(house, credential).await?;
        self.token(house, credential).await
    }

    async fn send(&self, house: &House, message: &Message) -> (u16, Option<Message>) {
        let body = writer::write(message).unwrap();
        self.post(house, body, Some(self.cert.clone())).await
    }

    async fn post(&self, house: &House, body: Vec<u8>, tls: Option<Vec<u8>>) -> (u16, Option<Message>) {
        let reply = house
            .engine
            .windows_session(SessionRequest {
                body,
                content_type: Some(writer::CONTENT_TYPE.into()),
                tls_certificate: tls,
                mode: None,
                signature: None,
                proxy_certificate: None,
                source: Some("192.0.2.1".into()),
            })
            .await;
        let message =
            (!reply.body.is_empty()).then(|| reader::read(&reply.body, &reader::Limits::SESSION).unwrap());
        (reply.status, message)
    }

    fn client(&mut self) -> Client {
        self.sessions += 1;
        Client::new(self.identity.clone().unwrap(), Habits::default(), self.sessions, md5)
    }

    async fn session(&mut self, house: &House) -> Vec<(Verb, String)> {
        self.session_with(house, "user", Vec::new(), &mut |_| None).await
    }

    /// A whole session; what it was told.
    async fn session_with(
        &mut self,
        house: &House,
        login: &str,
        alerts: Vec<Alert>,
        special: &mut dyn FnMut(&Request) -> Option<Answer>,
    ) -> Vec<(Verb, String)> {
        let mut client = self.client();
        let mut next = Some(client.open(false, login, alerts));
        let mut told = Vec::new();
        while let Some(message) = next {
            let (status, reply) = self.send(house, &message).await;
            assert_eq!(status, 200);
            let reply = reply.unwrap();
            let first = told.len();
            let challenged = reply.commands.iter().any(
                |c| matches!(c, bellwether_windows::syncml::Command::Status(s) if s.cmd_ref == "0" && s.code >= 400),
            );
            let mut obey = |request: &Request| {
                let uri = request.items.first().and_then(|item| item.uri()).unwrap_or_default().to_owned();
                told.push((request.verb, uri.clone()));
                special(request).unwrap_or_else(|| match request.verb {
                    Verb::Get if uri.ends_with("SwV") => Answer::value(Format::Chr, "10.0.26100.2033"),
                    Verb::Get => Answer::status(404),
                    _ => Answer::status(200),
                })
            };
            next = client.answer(&reply, &mut obey);
            if challenged {
                assert_eq!(told.len(), first, "a challenge carries no command");
            }
        }
        self.identity = Some(client.identity.clone());
        self.told.extend(told.clone());
        told
    }

    fn renewal(&self, new: &KeyPair, signer: &KeyPair, cert: &[u8], kind: Renewal) -> Vec<u8> {
        let request = csr::build(new, "ignored", None, Wishes::default()).unwrap();
        let signed = cms::sign_attached(&request, cert, signer, &[]).unwrap();
        client::renew(TO, None, Pkcs7::new(signed).unwrap(), kind, Context::default()).unwrap()
    }
}

fn uris(told: &[(Verb, String)]) -> Vec<&str> {
    told.iter().map(|(_, uri)| uri.as_str()).collect()
}

fn lock() -> Intent {
    Intent::Lock { message: None, phone_number: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_enrolls_is_asked_and_locked_and_seen() {
    let house = house().await;
    let discover = DiscoverRequest {
        email_address: Some("ann@example.org".into()),
        request_version: Version::parse("9.0").unwrap(),
        device_type: Some("CIMClient_Windows".into()),
        application_version: None,
        os_version: None,
        os_edition: None,
        auth_policies: Some(vec![AuthPolicy::OnPremise, AuthPolicy::Federated]),
    };
    let body = client::discover("https://x/", &discover).unwrap();
    let Ok(SoapAnswer::Discover(found)) = house.soap(WindowsService::Discovery, body, None).await else {
        panic!("no discovery")
    };
    assert_eq!(found.authentication.policy(), AuthPolicy::OnPremise);
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let told = pc.told.clone();
    assert!(uris(&told).iter().any(|uri| uri.ends_with("SMBIOSSerialNumber")), "{told:?}");
    assert!(uris(&told).iter().any(|uri| uri.ends_with("RequireMessageSigning")), "{told:?}");
    let command = house.send(id, lock()).await.unwrap();
    let told = pc.session(&house).await;
    assert_eq!(told, [(Verb::Exec, "./Device/Vendor/MSFT/RemoteLock/Lock".to_owned())]);
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
    assert_eq!(pc.session(&house).await, [], "what was confirmed is not sent again");
    let shown = house.devices().await;
    let enrollment = shown[0].enrollment.as_ref().unwrap();
    assert_eq!((shown[0].platform, enrollment.state), (Platform::Windows, EnrollmentState::Active));
    assert_eq!(enrollment.account.as_deref(), Some("ann@example.org"));
    assert_eq!(shown[0].os_version.as_deref(), Some("10.0.26100.2033"));
    assert_eq!(house.audited("enrollment.activated").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_come_back_as_they_are() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let locked = house.send(id, lock()).await.unwrap();
    let scan = house.send(id, Intent::Defender { action: DefenderAction::QuickScan }).await.unwrap();
    pc.session_with(&house, "user", Vec::new(), &mut |request| {
        request.items[0]
            .uri()
            .unwrap_or_default()
            .ends_with("Lock")
            .then(|| Answer { original_error: Some("0x86000002".into()), ..Answer::status(405) })
    })
    .await;
    assert_eq!(house.state(locked.id).await, CommandState::Failed);
    let error = house.command(locked.id).await.parts[0].error.clone().unwrap();
    assert_eq!(error["steps"][0]["code"], 405);
    assert_eq!(error["steps"][0]["original_error"], "0x86000002");
    assert_eq!(house.state(scan.id).await, CommandState::Acknowledged, "one refusal spoils nothing else");
    assert!(house.send(id, Intent::ShutDown).await.unwrap_err().to_string().contains("Windows"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_is_good_until_the_pc_has_called() {
    let house = house().await;
    let invitation = house.invite_pc(Some("ann@example.org")).await;
    let credential = code("Ann@Example.org", &invitation);
    let mut pc = pc("P1");
    pc.enroll(&house, &credential).await.unwrap();
    let first = pc.cert.clone();
    // The answer was lost: the very same request gets the same certificate.
    pc.token(&house, &credential).await.unwrap();
    assert_eq!(pc.cert, first);
    // And with another key another one; the first is dead.
    pc.key = KeyPair::generate_rsa2048().unwrap();
    pc.enroll(&house, &credential).await.unwrap();
    assert_ne!(pc.cert, first);
    let message = pc.client().open(false, "user", Vec::new());
    let (status, _) = pc.post(&house, writer::write(&message).unwrap(), Some(first)).await;
    assert_eq!(status, 403);
    pc.session(&house).await;
    let fault = pc.enroll(&house, &credential).await.unwrap_err();
    assert_eq!(fault.subcode, Subcode::Authentication, "activated: the code is used");
    for wrong in [code("bob@example.org", &invitation), code("ann@example.org", "nonsense")] {
        let fault = pc.policies(&house, &wrong).await.unwrap_err();
        assert_eq!((fault.subcode, fault.client_error()), (Subcode::Authentication, 0x8018_0002));
    }
    let fault = pc.policies(&house, &Credential::Jwt("e30.e30.".into())).await.unwrap_err();
    assert_eq!(fault.subcode, Subcode::Authorization);
    let fault = pc.policies(&house, &Credential::Certificate(vec![0x30, 0])).await.unwrap_err();
    assert_eq!(fault.error_type, Some(ErrorType::NotSupported));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_sign_in_page_is_good_for_one_certificate() {
    use secrecy::ExposeSecret as _;
    let house = house().await;
    let invitation = house.invite_pc(Some("ann@example.org")).await;
    let token = house.engine.windows_sign_in("ann@example.org", &invitation, None).await.unwrap();
    assert!(house.engine.windows_sign_in("bob@example.org", &invitation, None).await.is_err());
    let credential = Credential::UserToken(token.expose_secret().into());
    let mut pc = pc("P1");
    pc.enroll(&house, &credential).await.unwrap();
    let first = pc.cert.clone();
    pc.token(&house, &credential).await.unwrap();
    assert_eq!(pc.cert, first, "the very same request again");
    pc.key = KeyPair::generate_rsa2048().unwrap();
    assert_eq!(pc.token(&house, &credential).await.unwrap_err().subcode, Subcode::Authentication);
    house.later(11 * MINUTE);
    assert!(pc.policies(&house, &credential).await.is_err(), "tokens end");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_01_windows_without_proof_of_the_key_nothing_is_told() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let (other, _) = house.enrolled_pc("P2").await;
    let command = house.send(id, lock()).await.unwrap();
    let stranger = KeyPair::generate_rsa2048().unwrap();
    let foreign = csr::self_signed(&stranger, "Bellwether", [7; 16], crate::support::START).unwrap();
    for certificate in [None, Some(foreign), Some(other.cert.clone())] {
        let message = pc.client().open(false, "user", Vec::new());
        let (status, reply) = pc.post(&house, writer::write(&message).unwrap(), certificate).await;
        assert_eq!((status, reply), (403, None));
    }
    assert_eq!(house.state(command.id).await, CommandState::Queued);
    assert!(house.audited("device.refused").await >= 3);
    let permit = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
    let enrollment = house.devices().await.iter().find(|d| d.id == id).unwrap().enrollment.clone().unwrap();
    house.engine.end_enrollment(&permit, enrollment.id, "lost").await.unwrap();
    let message = pc.client().open(false, "user", Vec::new());
    assert_eq!(pc.send(&house, &message).await.0, 403, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_02_windows_a_certificate_speaks_for_its_own_device_id_only() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let (mut other, _) = house.enrolled_pc("P2").await;
    let command = house.send(id, lock()).await.unwrap();
    other.identity = pc.identity.clone();
    let message = other.client().open(false, "user", Vec::new());
    assert_eq!(other.send(&house, &message).await, (403, None));
    assert_eq!(house.state(command.id).await, CommandState::Queued);
    pc.session(&house).await;
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_69_windows_a_digest_is_good_once_and_alone_for_nothing() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let command = house.send(id, lock()).await.unwrap();
    let mut client = pc.client();
    let recorded = writer::write(&client.open(false, "user", Vec::new())).unwrap();
    let (status, _) = pc.post(&house, recorded.clone(), None).await;
    assert_eq!(status, 403, "a right digest without a certificate");
    let (_, reply) = pc.post(&house, recorded.clone(), Some(pc.cert.clone())).await;
    assert!(reply.unwrap().commands.len() > 1);
    // The same bytes under another session: the nonce was used.
    let replayed = String::from_utf8(recorded).unwrap().replace("<SessionID>2<", "<SessionID>99<");
    let (_, reply) = pc.post(&house, replayed.into_bytes(), Some(pc.cert.clone())).await;
    let reply = reply.unwrap();
    let requests =
        reply.commands.iter().filter(|c| matches!(c, bellwether_windows::syncml::Command::Request(_)));
    assert_eq!(requests.count(), 0, "challenged again, and told nothing");
    let _ = command;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_answered_again_and_nothing_runs_twice() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let command = house.send(id, lock()).await.unwrap();
    let mut client = pc.client();
    let message = client.open(false, "user", Vec::new());
    let (_, lost) = pc.send(&house, &message).await;
    let (_, reply) = pc.send(&house, &message).await;
    assert_eq!(lost, reply, "the same message, the same answer");
    let part = house.command(command.id).await.parts[0].clone();
    assert_eq!(part.sends, 2);
    let mut locks = 0;
    let mut next = client.answer(&reply.unwrap(), &mut |_: &Request| {
        locks += 1;
        Answer::status(200)
    });
    while let Some(message) = next {
        let (_, reply) = pc.send(&house, &message).await;
        next = client.answer(&reply.unwrap(), &mut |_: &Request| Answer::status(200));
    }
    assert_eq!(locks, 1);
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_side_by_side_share_no_command() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let command = house.send(id, lock()).await.unwrap();
    let mut first = pc.client();
    let (_, reply) = pc.send(&house, &first.open(false, "user", Vec::new())).await;
    pc.identity.as_mut().unwrap().nonce = first.identity.nonce.clone();
    // The second opens before the first has answered. Its digest is made with what the first got.
    let mut told = Vec::new();
    let mut next = first.answer(&reply.unwrap(), &mut |r: &Request| {
        told.push(r.items[0].uri().unwrap_or_default().to_owned());
        Answer::status(200)
    });
    let identity = first.identity.clone();
    pc.identity = Some(identity);
    let second = pc.session_with(&house, "none", Vec::new(), &mut |_| None).await;
    assert_eq!(second, [], "the first session has it");
    while let Some(message) = next {
        let (_, reply) = pc.send(&house, &message).await;
        next = first.answer(&reply.unwrap(), &mut |_: &Request| Answer::status(200));
    }
    assert_eq!(told.len(), 1);
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_is_sent_again_while_the_pc_still_calls() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let wipe = house.send(id, Intent::Wipe(WipeOptions::default())).await.unwrap();
    let told = pc.session(&house).await;
    assert_eq!(uris(&told), ["./Device/Vendor/MSFT/RemoteWipe/doWipe"]);
    assert_eq!(house.state(wipe.id).await, CommandState::Accepted, "its word is no proof");
    assert_eq!(pc.session(&house).await, [], "not at once");
    house.later(3 * MINUTE);
    let told = pc.session(&house).await;
    assert_eq!(uris(&told), ["./Device/Vendor/MSFT/RemoteWipe/doWipe"]);
    house.later(31 * DAY);
    house.engine.housekeep_once().await.unwrap();
    assert_eq!(house.state(wipe.id).await, CommandState::Expired, "it fell silent: outcome unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_leaves_when_asked_and_by_itself() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let leave = house.send(id, Intent::Unenroll).await.unwrap();
    let mut client = pc.client();
    let (_, reply) = pc.send(&house, &client.open(false, "user", Vec::new())).await;
    let reply = writer::write(&reply.unwrap()).unwrap();
    assert!(String::from_utf8(reply).unwrap().contains("/Unenroll"));
    // No status comes; a new session says goodbye.
    let mut farewell = Client::new(client.identity.clone(), Habits::default(), 7, md5);
    let mut next = Some(farewell.open(false, "user", vec![unenrollment()]));
    while let Some(message) = next {
        let (status, reply) = pc.send(&house, &message).await;
        assert_eq!(status, 200);
        next = farewell.answer(&reply.unwrap(), &mut |_: &Request| panic!("told something at its farewell"));
        if house.devices().await[0].enrollment.as_ref().unwrap().state == EnrollmentState::Ended {
            break;
        }
    }
    assert_eq!(house.state(leave.id).await, CommandState::Acknowledged);
    assert_eq!(
        house.devices().await[0].enrollment.as_ref().unwrap().end_reason.as_deref(),
        Some("left management")
    );
    let message = pc.client().open(false, "user", Vec::new());
    assert_eq!(pc.send(&house, &message).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_is_proven_by_the_old_key_and_both_are_good_until_the_new_is_seen() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let new = KeyPair::generate_rsa2048().unwrap();
    let early = pc.renewal(&new, &pc.key, &pc.cert, Renewal::Automatic);
    let fault = house.soap(WindowsService::Enrollment, early, None).await.err().unwrap();
    assert_eq!(fault.error_type, Some(ErrorType::NotEligibleToRenew));
    house.send(id, Intent::RenewIdentity).await.unwrap();
    let told = pc.session(&house).await;
    assert!(uris(&told)[0].ends_with("RenewNow"));
    // Refusals.
    let foreign = csr::self_signed(&new, "Bellwether", [7; 16], crate::support::START).unwrap();
    let forged = pc.renewal(&new, &new, &foreign, Renewal::Automatic);
    let fault = house.soap(WindowsService::Enrollment, forged, None).await.err().unwrap();
    assert_eq!(fault.subcode, Subcode::MessageFormat);
    let (other, _) = house.enrolled_pc("P2").await;
    let mixed = pc.renewal(&new, &pc.key, &pc.cert, Renewal::Automatic);
    let fault = house.soap(WindowsService::Enrollment, mixed, Some(&other.cert)).await.err().unwrap();
    assert_eq!(fault.subcode, Subcode::Authentication);
    // Twice the same key: the same certificate; once and twice wrapped.
    let mut issued = Vec::new();
    for (kind, tls) in [(Renewal::Automatic, None), (Renewal::Manual, Some(pc.cert.as_slice()))] {
        let body = pc.renewal(&new, &pc.key, &pc.cert, kind);
        let Ok(SoapAnswer::Token(token)) = house.soap(WindowsService::Enrollment, body, tls).await else {
            panic!("{kind:?}")
        };
        let Ok(Provisioning::Renewal(document)) = Provisioning::decode(token.document.expose()) else {
            panic!("no renewal")
        };
        assert_eq!(document.provider_id.as_str(), pc.provider);
        issued.push(document.identity.as_der().to_vec());
    }
    assert_eq!(issued[0], issued[1]);
    pc.session(&house).await;
    let old = std::mem::replace(&mut pc.cert, issued.remove(0));
    pc.session(&house).await;
    let command = house.send(id, lock()).await.unwrap();
    let message = pc.client().open(false, "user", Vec::new());
    let (status, _) = pc.post(&house, writer::write(&message).unwrap(), Some(old)).await;
    assert_eq!(status, 403, "the new one was seen");
    pc.session(&house).await;
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
    assert_eq!(house.audited("identity.renewed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_enrolls_again_replaces_and_who_only_claims_to_be_waits() {
    let house = house().await;
    let (mut old, id) = house.enrolled_pc("P1").await;
    house.engine.flush_last_seen().await.unwrap();
    let waiting = house.send(id, lock()).await.unwrap();
    house.later(MINUTE);
    // The same person: the new enrollment replaces the old one, when it has called and not before.
    let mut again = pc("P1");
    let invitation = house.invite_pc(Some("ann@example.org")).await;
    again.enroll(&house, &code("ann@example.org", &invitation)).await.unwrap();
    assert_eq!(house.devices().await[0].enrollment.as_ref().unwrap().epoch, 1);
    again.session(&house).await;
    let shown = house.devices().await;
    assert_eq!((shown.len(), shown[0].enrollment.as_ref().unwrap().epoch), (1, 2));
    assert_eq!(house.state(waiting.id).await, CommandState::Superseded, "Q10");
    let message = old.client().open(false, "user", Vec::new());
    assert_eq!(old.send(&house, &message).await.0, 403);
    // A cloned machine with the same hardware hash and serial, of the same person, while the first still calls.
    house.later(MINUTE);
    let mut clone = pc("P1");
    let invitation = house.invite_pc(Some("ann@example.org")).await;
    clone.enroll(&house, &code("ann@example.org", &invitation)).await.unwrap();
    house.later(MINUTE);
    again.session(&house).await;
    house.engine.flush_last_seen().await.unwrap();
    assert_eq!(clone.session(&house).await.len(), 0, "unproven: it is told nothing");
    let shown = house.devices().await;
    let states: Vec<_> = shown.iter().map(|d| d.enrollment.as_ref().unwrap().state).collect();
    assert_eq!(states, [EnrollmentState::Active, EnrollmentState::Unproven]);
    again.session(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_settings_wait_for_the_user() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let setting = |scope: &str| -> Intent {
        serde_json::from_value(serde_json::json!({ "type": "configure", "settings": [{
            "scope": scope, "area": "Experience", "name": "AllowWindowsSpotlight", "value": { "int": 0 } }] }))
        .unwrap()
    };
    assert!(house.send(id, setting("user")).await.is_err(), "not on the device's channel");
    let user = SendOptions { user: Some("ann@example.org".into()), ..SendOptions::default() };
    let site = house.site();
    let command = house.engine.send_command(&house.admin, site, id, setting("user"), user).await.unwrap();
    let told = pc.session_with(&house, "none", Vec::new(), &mut |_| None).await;
    assert_eq!(told, []);
    assert_eq!(house.state(command.id).await, CommandState::Queued);
    let told = pc.session(&house).await;
    assert!(uris(&told)[0].starts_with("./User/"));
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
}

/// What Entra ID publishes.
struct Published(serde_json::Value);

#[async_trait::async_trait]
impl bellwether_engine::SigningKeys for Published {
    async fn fetch(&self, _: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.to_string().into_bytes())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_18_windows_a_token_of_an_allowed_tenant_enrolls_and_no_other() {
    use bellwether_certs::jwt::{public_jwk, sign_rs256};
    use bellwether_engine::{Entra, EntraSettings};
    use serde_json::json;
    const OURS: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const THEIRS: &str = "bbbbbbbb-0000-4000-8000-00000000000b";
    let house = house().await;
    let key = KeyPair::generate_rsa2048().unwrap();
    let token = |tenant: &str, audience: &str, scope: &str| {
        let now = crate::support::START / 1000;
        let claims = json!({
            "iss": format!("https://sts.windows.net/{tenant}/"), "aud": audience, "tid": tenant, "scp": scope,
            "upn": "Ann@Example.org", "oid": "00000000-0000-4000-8000-000000000001",
            "nbf": now - 60, "iat": now - 60, "exp": now + 3600,
        });
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "one" });
        Credential::Jwt(sign_rs256(&header, &claims, &key).unwrap().as_str().into())
    };
    let good = token(OURS, "https://mdm.example.org", "mdm_delegation");
    let mut pc = pc("P1");
    assert!(pc.enroll(&house, &good).await.is_err(), "no tenant is configured");
    let settings = EntraSettings {
        tenants: vec![OURS.into()],
        audiences: vec!["https://mdm.example.org".into()],
        authority: "https://login.microsoftonline.com".into(),
    };
    let keys = Published(json!({ "keys": [public_jwk("one", &key).unwrap()] }));
    house.engine.set_entra(std::sync::Arc::new(Entra::new(settings, std::sync::Arc::new(keys)).unwrap()));
    for bad in [
        token(THEIRS, "https://mdm.example.org", "mdm_delegation"),
        token(OURS, "https://other.example.org", "mdm_delegation"),
        token(OURS, "https://mdm.example.org", "openid"),
        Credential::Jwt("e30.e30.".into()),
    ] {
        assert_eq!(pc.enroll(&house, &bad).await.unwrap_err().subcode, Subcode::Authentication);
    }
    pc.enroll(&house, &good).await.unwrap();
    pc.session(&house).await;
    let shown = house.devices().await;
    assert_eq!(shown[0].enrollment.as_ref().unwrap().account.as_deref(), Some("ann@example.org"));
}
