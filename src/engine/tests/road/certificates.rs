//! Certificates that a PC fetches by SCEP and uses elsewhere: never an identity.

use crate::pc::{Pc, uris};
use crate::support::{House, house, scep_csr};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::cert::CertInfo;
use bellwether_certs::cms;
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::{Digest, hex};
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{CertificateView, NewPackage, SessionRequest, WindowsService, may};
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{AuthorityId, CommandId, CommandState, DeviceId, Intent, PackageKind};
use bellwether_scep::FailInfo;
use bellwether_scep::client::Reply;
use bellwether_windows::enrollment::client::Renewal;
use bellwether_windows::enrollment::{Credential, Subcode};
use bellwether_windows::syncml::client::Answer;
use bellwether_windows::syncml::{Format, Request, Verb, writer};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;

const WIFI: &str = "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi";

/// What a PC was told about a certificate.
#[derive(Clone)]
struct Told {
    authority: AuthorityId,
    challenge: String,
    common_name: String,
    /// Nodes and values, as they were set.
    set: BTreeMap<String, String>,
    verbs: Vec<(Verb, String)>,
}

fn wifi() -> Intent {
    Intent::RequestCertificate { id: "wifi".into() }
}

/// A session in which the PC is told to fetch a certificate.
async fn told(house: &House, pc: &mut Pc) -> Told {
    let mut set = BTreeMap::new();
    let verbs = pc
        .session_with(house, "user", Vec::new(), &mut |request| {
            let item = request.items.first()?;
            let value = item.data.as_ref().and_then(|data| data.as_str()).unwrap_or_default();
            set.insert(item.uri()?.to_owned(), value.to_owned());
            None
        })
        .await;
    let leaf = |name: &str| set.get(&format!("{WIFI}/Install/{name}")).cloned().unwrap_or_default();
    Told {
        authority: leaf("ServerURL").rsplit('/').next().unwrap().parse().unwrap(),
        challenge: String::from_utf8(STANDARD.decode(leaf("Challenge")).unwrap()).unwrap(),
        common_name: leaf("SubjectName").strip_prefix("CN=").unwrap().to_owned(),
        set,
        verbs,
    }
}

impl Told {
    fn csr(&self, key: &KeyPair, cn: &str, wishes: Wishes<'_>) -> Vec<u8> {
        csr::build(key, cn, Some(&SecretString::from(self.challenge.clone())), wishes).unwrap()
    }

    async fn fetch(&self, house: &House, key: &KeyPair) -> Reply {
        let request = self.csr(key, &self.common_name, Wishes::default());
        scep_csr(house, self.authority, key, &request, None).await
    }

    async fn fetched(&self, house: &House, key: &KeyPair) -> Vec<u8> {
        match self.fetch(house, key).await {
            Reply::Success(der) => der,
            other => panic!("no certificate: {other:?}"),
        }
    }
}

/// A session in which the PC says how it went.
async fn says(house: &House, pc: &mut Pc, status: &str, error: &str) -> Vec<(Verb, String)> {
    pc.session_with(house, "user", Vec::new(), &mut |request: &Request| {
        let uri = request.items.first()?.uri()?;
        match (request.verb, uri.strip_prefix(WIFI)?) {
            (Verb::Get, "/Status") => Some(Answer::value(Format::Int, status)),
            (Verb::Get, "/ErrorCode") => Some(Answer::value(Format::Int, error)),
            _ => None,
        }
    })
    .await
}

/// An enrolled PC that was told to fetch a certificate.
async fn asked(house: &House) -> (Pc, DeviceId, CommandId, Told) {
    let (mut pc, id) = house.enrolled_pc("P1").await;
    let command = house.send(id, wifi()).await.unwrap();
    let told = told(house, &mut pc).await;
    (pc, id, command.id, told)
}

async fn listed(house: &House, id: DeviceId) -> Vec<CertificateView> {
    let permit = house.admin.permit::<may::ReadDevices>(house.site()).unwrap();
    house.engine.certificates_of_device(&permit, id, None, 50).await.unwrap().items
}

fn key() -> KeyPair {
    KeyPair::generate_rsa2048().unwrap()
}

fn refused(reply: &Reply, info: FailInfo) {
    assert!(matches!(reply, Reply::Failure(why) if *why == info), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_fetches_a_certificate_and_says_so() {
    let house = house().await;
    let (mut pc, id, command, told) = asked(&house).await;
    assert_eq!(house.state(command).await, CommandState::Accepted, "begun, not done");
    assert_eq!(told.verbs[0], (Verb::Delete, WIFI.to_owned()), "what an earlier try left goes first");
    assert_eq!(told.verbs.last().unwrap(), &(Verb::Exec, format!("{WIFI}/Install/Enroll")));
    assert_eq!(told.common_name, id.to_string(), "a network's administrator finds the device by it");
    assert!(told.set[&format!("{WIFI}/Install/ServerURL")].starts_with("https://mdm.example.org/scep/"));
    let ca = house.engine.scep_ca_certificate(told.authority).await.unwrap();
    assert_eq!(told.set[&format!("{WIFI}/Install/CAThumbprint")], hex(&Digest::Sha1.of(&ca)).to_uppercase());
    says(&house, &mut pc, "2", "0").await;
    assert_eq!(house.state(command).await, CommandState::Accepted, "pending");
    let der = told.fetched(&house, &key()).await;
    let info = CertInfo::parse(&der).unwrap();
    assert_eq!(info.subject_cn.as_deref(), Some(id.to_string().as_str()));
    let told = says(&house, &mut pc, "1", "0").await;
    assert_eq!(uris(&told), [format!("{WIFI}/ErrorCode"), format!("{WIFI}/Status")]);
    assert_eq!(house.state(command).await, CommandState::Acknowledged);
    assert_eq!(house.audited("certificate.issued").await, 1);
    let listed = listed(&house, id).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].requested.as_str(), &listed[0].serial), ("wifi", &info.serial));
    assert!(listed[0].revoked_at.is_none());
    let permit = house.admin.permit::<may::ReadDevices>(house.site()).unwrap();
    assert_eq!(house.engine.device(&permit, id).await.unwrap().certificates.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_that_failed_says_why() {
    let house = house().await;
    let (mut pc, _, command, _) = asked(&house).await;
    says(&house, &mut pc, "32", "0").await;
    assert_eq!(house.state(command).await, CommandState::Accepted, "unknown is no outcome");
    says(&house, &mut pc, "16", "-2146885629").await;
    assert_eq!(house.state(command).await, CommandState::Failed);
    let error = house.command(command).await.parts[0].error.clone().unwrap();
    assert_eq!((&error["value"], &error["error_code"]), (&"16".into(), &"-2146885629".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_06_windows_a_challenge_buys_one_certificate() {
    let house = house().await;
    let (_, _, _, told) = asked(&house).await;
    let mine = key();
    let request = told.csr(&mine, &told.common_name, Wishes::default());
    let Reply::Success(first) = scep_csr(&house, told.authority, &mine, &request, None).await else {
        panic!("no certificate")
    };
    let again = scep_csr(&house, told.authority, &mine, &request, None).await;
    assert!(
        matches!(again, Reply::Success(der) if der == first),
        "the answer was lost: the same certificate"
    );
    refused(&told.fetch(&house, &key()).await, FailInfo::BadRequest);
    assert_eq!(house.audited("certificate.issued").await, 1);
    assert_eq!(house.audited("identity.refused").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_06_windows_many_requests_at_once_make_one_certificate() {
    let house = house().await;
    let (_, _, _, told) = asked(&house).await;
    let keys: Vec<KeyPair> = (0..4).map(|_| key()).collect();
    let mut issued = 0;
    for reply in futures_util::future::join_all(keys.iter().map(|key| told.fetch(&house, key))).await {
        issued += i32::from(matches!(reply, Reply::Success(_)));
    }
    assert_eq!(issued, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_09_windows_a_request_for_more_than_its_certificate_is_refused() {
    let house = house().await;
    let (pc, _, _, told) = asked(&house).await;
    let mine = key();
    let more = [
        Wishes { ca: true, ..Wishes::default() },
        Wishes { server_auth: true, ..Wishes::default() },
        Wishes { dns_name: Some("radius.example.org"), ..Wishes::default() },
    ];
    for wishes in more {
        let request = told.csr(&mine, &told.common_name, wishes);
        refused(&scep_csr(&house, told.authority, &mine, &request, None).await, FailInfo::BadRequest);
    }
    let identity = CertInfo::parse(&pc.cert).unwrap().subject_cn.unwrap();
    for other in ["admin", identity.as_str(), &DeviceId(uuid::Uuid::nil()).to_string()] {
        let request = told.csr(&mine, other, Wishes::default());
        refused(&scep_csr(&house, told.authority, &mine, &request, None).await, FailInfo::BadRequest);
    }
    assert_eq!(house.audited("certificate.issued").await, 0);
    told.fetched(&house, &mine).await;
}

/// A package that the one PC may fetch; the token.
async fn package(house: &House) -> String {
    let permit = house.admin.permit::<may::WritePackages>(house.site()).unwrap();
    let tool = NewPackage {
        kind: PackageKind::Msi,
        name: "Tool".into(),
        product: "{0190A5D0-0000-7000-8000-00000000ABCD}".into(),
        version: "1.2.3".into(),
    };
    let bytes = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    let package = house.engine.upload_package(&permit, tool, bytes).await.unwrap();
    let enrollment = house.devices().await.first().unwrap().enrollment.as_ref().unwrap().id;
    let token = house.engine.grant_package(&permit, package.id, enrollment).await.unwrap();
    token.expose_secret().to_owned()
}

/// The same CA, and still nobody: it opens no session, renews nothing, fetches nothing, enrolls nothing.
#[tokio::test(flavor = "multi_thread")]
async fn at_01_windows_a_certificate_for_elsewhere_proves_no_identity() {
    let house = house().await;
    let (mut pc, id, _, told) = asked(&house).await;
    let mine = key();
    let der = told.fetched(&house, &mine).await;
    let queued = house.send(id, crate::pc::lock()).await.unwrap();
    // By TLS, by a proxy's header, by signature.
    let body = |pc: &mut Pc| writer::write(&pc.client().open(false, "user", Vec::new())).unwrap();
    let opening = body(&mut pc);
    assert_eq!(pc.post(&house, opening, Some(der.clone())).await, (403, None));
    pc.proxied = true;
    let opening = body(&mut pc);
    assert_eq!(pc.post(&house, opening, Some(der.clone())).await, (403, None));
    pc.proxied = false;
    let opening = body(&mut pc);
    let signature = cms::sign_detached(&opening, &der, &mine, cms::Shape::DEVICE).unwrap();
    let signed = SessionRequest {
        body: opening,
        content_type: Some(writer::CONTENT_TYPE.into()),
        tls_certificate: None,
        mode: None,
        signature: Some(STANDARD.encode(signature).into()),
        proxy_certificate: None,
        source: None,
    };
    assert_eq!(house.engine.windows_session(signed).await.status, 403);
    assert_eq!(house.state(queued.id).await, CommandState::Queued);
    // As the old key of a renewal, over WSTEP and over SCEP; with its own name and with the identity's.
    let new = key();
    let renewal = pc.renewal(&new, &mine, &der, Renewal::Automatic);
    let fault = house.soap(WindowsService::Enrollment, renewal, Some(&der)).await.err().unwrap();
    assert_eq!(fault.subcode, Subcode::MessageFormat, "not one of ours that is too early: none of ours");
    let identity = CertInfo::parse(&pc.cert).unwrap().subject_cn.unwrap();
    for name in [told.common_name.as_str(), &identity] {
        let request = csr::build(&new, name, None, Wishes::default()).unwrap();
        let reply = scep_csr(&house, told.authority, &new, &request, Some((&der, &mine))).await;
        refused(&reply, FailInfo::BadMessageCheck);
    }
    // A package of its own device stays shut for it, and opens for nobody's certificate and for the identity.
    let token = package(&house).await;
    for (certificate, opens) in [(Some(&der), false), (None, true), (Some(&pc.cert), true)] {
        let found = house.engine.package_by_token(&token, certificate.map(Vec::as_slice)).await.unwrap();
        assert_eq!(found.is_some(), opens);
    }
    // The challenge, still unused, is no code and no token: it buys no identity over WSTEP.
    house.send(id, wifi()).await.unwrap();
    let unused = self::told(&house, &mut pc).await.challenge;
    let token = Credential::UserToken(unused.as_str().into());
    for credential in [crate::pc::code("ann@example.org", &unused), token] {
        let fault = crate::pc::pc("P9").enroll(&house, &credential).await.unwrap_err();
        assert_eq!(fault.subcode, Subcode::Authentication);
    }
    assert_eq!(house.state(queued.id).await, CommandState::Acknowledged, "the PC itself goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_good_for_a_day_from_the_hand_over_on() {
    let house = house().await;
    let (mut pc, id) = house.enrolled_pc("P1").await;
    house.send(id, wifi()).await.unwrap();
    let mut client = pc.client();
    let (_, reply) = pc.send(&house, &client.open(false, "user", Vec::new())).await;
    let frozen = String::from_utf8(writer::write(&reply.unwrap()).unwrap()).unwrap();
    // The reply was lost. Two days later the same bytes go out again, and the challenge in them is good anew.
    house.later(2 * DAY);
    pc.identity.as_mut().unwrap().nonce = client.identity.nonce.clone();
    let again = told(&house, &mut pc).await;
    assert!(frozen.contains(&STANDARD.encode(&again.challenge)), "frozen with the first hand-over");
    house.later(DAY - HOUR);
    again.fetched(&house, &key()).await;
    house.send(id, wifi()).await.unwrap();
    let late = told(&house, &mut pc).await;
    house.later(DAY + HOUR);
    refused(&late.fetch(&house, &key()).await, FailInfo::BadTime);
    assert_eq!(house.audited("certificate.issued").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_again_renews_and_another_does_not() {
    let house = house().await;
    let (mut pc, id, command, first) = asked(&house).await;
    // It failed before anything was issued: the next try begins anew.
    says(&house, &mut pc, "16", "0").await;
    assert_eq!(house.state(command).await, CommandState::Failed);
    house.send(id, wifi()).await.unwrap();
    let second = told(&house, &mut pc).await;
    assert_eq!(second.verbs[0], (Verb::Delete, WIFI.to_owned()));
    assert_ne!(second.challenge, first.challenge);
    second.fetched(&house, &key()).await;
    says(&house, &mut pc, "1", "0").await;
    house.send(id, wifi()).await.unwrap();
    let third = told(&house, &mut pc).await;
    let verbs: Vec<Verb> = third.verbs.iter().map(|(verb, _)| *verb).collect();
    assert!(!verbs.contains(&Verb::Delete) && !verbs.contains(&Verb::Add), "the one in use stays: {verbs:?}");
    third.fetched(&house, &key()).await;
    let listed = listed(&house, id).await;
    assert!(listed.len() == 2 && listed[0].issued_at >= listed[1].issued_at, "newest first");
    assert!(
        listed.iter().all(|certificate| certificate.revoked_at.is_none()),
        "the old one is good to its end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_issued_ends_with_the_enrollment() {
    let house = house().await;
    let (mut pc, id, _, told) = asked(&house).await;
    let mine = key();
    let request = told.csr(&mine, &told.common_name, Wishes::default());
    let Reply::Success(der) = scep_csr(&house, told.authority, &mine, &request, None).await else {
        panic!("no certificate")
    };
    let serial = CertInfo::parse(&der).unwrap().serial;
    house.send(id, wifi()).await.unwrap();
    let unused = self::told(&house, &mut pc).await;
    let before = house.engine.crl(told.authority).await.unwrap();
    let permit = house.admin.permit::<may::WriteDevices>(house.site()).unwrap();
    let enrollment = house.devices().await[0].enrollment.as_ref().unwrap().id;
    house.engine.end_enrollment(&permit, enrollment, "stolen").await.unwrap();
    let listed = listed(&house, id).await;
    assert_eq!((listed.len(), listed[0].revoked_reason.as_deref()), (1, Some("stolen")));
    let crl = house.engine.crl(told.authority).await.unwrap();
    let number = bellwether_certs::hash::unhex(&serial).unwrap();
    let lists = |crl: &[u8]| crl.windows(number.len()).any(|bytes| bytes == number);
    assert!(!lists(&before) && lists(&crl), "it is on the CA's list");
    // An exact retry gets nothing any more, and neither does what was not used yet.
    refused(&scep_csr(&house, told.authority, &mine, &request, None).await, FailInfo::BadCertId);
    refused(&unused.fetch(&house, &key()).await, FailInfo::BadCertId);
    assert_eq!(house.audited("certificate.issued").await, 1);
}
