//! PCs: enrollment by SOAP, OMA-DM sessions, the queue as they meet it, renewal and leaving.

use crate::pc::{code, lock, pc, uris};
use crate::support::{House, house};
use bellwether_certs::hash::md5;
use bellwether_certs::keys::KeyPair;
use bellwether_certs::{cms, csr};
use bellwether_engine::{SendOptions, SessionRequest, WindowsService, may};
use bellwether_model::intent::{DefenderAction, WipeOptions};
use bellwether_model::time::{DAY, MINUTE};
use bellwether_model::{CommandState, EnrollmentState, Intent, Platform};
use bellwether_windows::enrollment::client::{self, Answer as SoapAnswer, Renewal};
use bellwether_windows::enrollment::{
    AuthPolicy, Credential, DiscoverRequest, ErrorType, Provisioning, Subcode, Version,
};
use bellwether_windows::syncml::client::{Answer, Client, Habits, unenrollment};
use bellwether_windows::syncml::{Cred, Message, Request, Verb, writer};

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

/// One request with everything that can carry a proof.
async fn shown(
    house: &House,
    body: &[u8],
    signature: Option<&[u8]>,
    certificates: [Option<&[u8]>; 2],
) -> u16 {
    use base64::Engine as _;
    let [tls_certificate, proxy_certificate] = certificates.map(|der| der.map(<[u8]>::to_vec));
    let signature = signature.map(|cms| base64::engine::general_purpose::STANDARD.encode(cms).into());
    let request = SessionRequest {
        body: body.to_vec(),
        content_type: Some(writer::CONTENT_TYPE.into()),
        tls_certificate,
        signature,
        mode: None,
        proxy_certificate,
        source: None,
    };
    house.engine.windows_session(request).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn at_01_windows_carriers_must_agree_and_signatures_must_hold() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let (other, _) = house.enrolled_pc("P2").await;
    let command = house.send(id, lock()).await.unwrap();
    let (mine, theirs) = (pc.cert.clone(), other.cert.clone());
    let body = writer::write(&pc.client().open(false, "user", Vec::new())).unwrap();
    let signed = |body: &[u8], key| cms::sign_detached(body, &mine, key, cms::Shape::MODERN).unwrap();
    let good = signed(&body, &pc.key);
    for (what, signature, certificates) in [
        ("two certificates, the right one last", None, [Some(&theirs[..]), Some(&mine[..])]),
        ("two certificates, the right one first", None, [Some(&mine[..]), Some(&theirs[..])]),
        ("another certificate than the signer's", Some(good.clone()), [Some(&theirs[..]), None]),
        ("a signature with another key", Some(signed(&body, &other.key)), [None, None]),
        ("and the right certificate in TLS", Some(signed(&body, &other.key)), [Some(&mine[..]), None]),
        ("a signature over another body", Some(signed(b"<SyncML/>", &pc.key)), [None, None]),
        ("no signature at all", Some(b"0".to_vec()), [Some(&mine[..]), None]),
    ] {
        assert_eq!(shown(&house, &body, signature.as_deref(), certificates).await, 403, "{what}");
    }
    assert_eq!(house.state(command.id).await, CommandState::Queued);
    assert_eq!(
        shown(&house, &body, Some(&good), [None, None]).await,
        200,
        "the signature alone proves the key"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_01_windows_a_certificate_long_expired_or_of_a_mac_is_nobodys() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let mut mac = crate::support::mac("UDID-1");
    mac.enroll(&house, &house.invite(None).await).await;
    let body = writer::write(&pc.client().open(false, "user", Vec::new())).unwrap();
    assert_eq!(pc.post(&house, body, Some(mac.cert.clone())).await, (403, None));
    house.later(394 * DAY);
    let command = house.send(id, lock()).await.unwrap();
    assert_eq!(pc.open(&house).await.0, 200, "for a month it can still be told to renew");
    house.later(2 * DAY);
    assert_eq!(pc.open(&house).await, (403, None));
    let _ = command;
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
    let requests = |reply: Option<Message>| {
        let commands = reply.unwrap().commands;
        commands.iter().filter(|c| matches!(c, bellwether_windows::syncml::Command::Request(_))).count()
    };
    assert_eq!(requests(reply), 0, "challenged again, and told nothing");
    // Nor with the certificate alone, or with a digest that is wrong.
    for data in [None, Some("AAAAAAAAAAAAAAAAAAAAAA=="), Some("")] {
        let mut message = pc.client().open(false, "user", Vec::new());
        message.header.cred =
            message.header.cred.zip(data).map(|(cred, data)| Cred { data: data.into(), ..cred });
        let (status, reply) = pc.send(&house, &message).await;
        assert_eq!((status, requests(reply)), (200, 0), "{data:?}");
    }
    assert_ne!(house.state(command.id).await, CommandState::Acknowledged);
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
        max_devices_per_person: 15,
        known_people_only: false,
        terms: bellwether_engine::EntraTerms::default(),
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

/// A proxy ends TLS and hands the certificate on; without it the PC is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_come_through_a_proxy_that_is_trusted() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let cert = pc.cert.clone();
    let command = house.send(id, lock()).await.unwrap();
    pc.proxied = true;
    let told = pc.session(&house).await;
    assert_eq!(told, [(Verb::Exec, "./Device/Vendor/MSFT/RemoteLock/Lock".to_owned())]);
    assert_eq!(house.state(command.id).await, CommandState::Acknowledged);
    assert_eq!(pc.cert, cert, "the same certificate, by another way");
}

/// An attempt that was not finished gives its place back, and does not take another's later.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_enrolls_as_many_pcs_as_it_may_and_no_more() {
    use bellwether_engine::NewEnrollmentAccount;
    use secrecy::ExposeSecret as _;
    let house = house().await;
    let permit = house.admin.permit::<may::WriteInvitations>(house.site()).unwrap();
    let made = NewEnrollmentAccount {
        platform: Platform::Windows,
        name: "kiosks".into(),
        account: None,
        cap: 1,
        expires_in: 30 * DAY,
        ownership: bellwether_model::Ownership::Company,
    };
    let account = house.engine.create_enrollment_account(&permit, made).await.unwrap();
    let login = code("kiosks", account.password.expose_secret());
    let (mut slow, mut quick) = (pc("P1"), pc("P2"));
    slow.enroll(&house, &login).await.unwrap();
    let refused = quick.enroll(&house, &login).await.unwrap_err();
    assert_eq!(refused.error_type, Some(ErrorType::DeviceCapReached));
    assert_eq!(house.audited("device.refused").await, 1);
    house.later(61 * MINUTE);
    quick.enroll(&house, &login).await.unwrap();
    let (status, _) = slow.open(&house).await;
    assert_eq!(status, 403, "its place was given to another");
    quick.session(&house).await;
    assert_eq!(slow.open(&house).await.0, 403);
    assert_eq!(house.devices().await.len(), 1);
}
