//! Enrollment and renewal.

use bellwether_certs::KeyPair;
use bellwether_certs::ca::DeviceCa;
use bellwether_certs::hash::random_bytes;
use bellwether_windows::csp;
use bellwether_windows::enrollment::client::{Answer as SoapAnswer, Renewal};
use bellwether_windows::enrollment::provisioning::{Enrollment, KeyStore, Subject};
use bellwether_windows::enrollment::{EnrollmentType, ErrorType, Subcode};

use super::server::{CODE, Manner, USER, certificate};
use super::*;
use crate::windows::enroll::on_premise;
use crate::{Error, clock};

#[tokio::test]
async fn every_road_leads_to_an_enrolled_machine() {
    let server = Server::start();
    let keys = KeyPool::shared(1).await.unwrap();
    for kind in [EnrollmentType::Full, EnrollmentType::Device] {
        for federated in [false, true] {
            server.state().manner = Manner { federated, ..Manner::default() };
            let pc = || {
                WindowsPc::builder(server.http()).keys(keys.clone()).enrollment_type(kind).build().unwrap()
            };
            let mut pcs = [pc(), pc(), pc(), pc()];
            let discovery = server.discovery();
            pcs[0].enroll(&discovery, USER, CODE).await.unwrap();
            pcs[1].enroll_federated(&discovery, USER, CODE).await.unwrap();
            pcs[2].enroll_jwt(&discovery, USER, "e30.e30.").await.unwrap();
            pcs[3].enroll_by_link(&server.link()).await.unwrap();
            for pc in &mut pcs {
                assert!(pc.is_enrolled());
                let account = pc.account().unwrap();
                assert_eq!(account.provider_id, "Bellwether");
                assert_eq!(account.store, KeyStore::from(kind));
                assert!(pc.session().await.unwrap().is_empty());
            }
        }
    }
    assert_eq!(server.state().presented, 32, "each credential twice");
    let state = server.state();
    let context = &state.requests[0].context;
    assert_eq!(context.os_edition(), Some(48));
    assert!(context.serial_number().unwrap().starts_with("BW-") && context.hw_dev_id().unwrap().is_some());
}

#[tokio::test]
async fn without_a_policy_the_request_is_signed_with_sha1() {
    let server = Server::start();
    server.state().manner.no_policy = true;
    let mut pc = WindowsPc::builder(server.http()).build().unwrap();
    pc.enroll(&server.discovery(), USER, CODE).await.unwrap();
    assert_eq!(server.state().presented, 1);
}

#[tokio::test]
async fn refusals_are_faults() {
    let server = Server::start();
    let mut pc = WindowsPc::builder(server.http()).build().unwrap();
    let refused = pc.enroll(&server.discovery(), USER, "wrong").await.unwrap_err();
    assert_eq!(refused.fault().unwrap().subcode, Subcode::Authentication);
    let refused = pc.enroll_jwt(&server.discovery(), USER, "e30").await.unwrap_err();
    assert!(refused.to_string().contains("0x80180002"), "{refused}");
    assert!(matches!(
        pc.enroll_federated(&server.discovery(), USER, "wrong").await,
        Err(Error::Enrollment(_))
    ));
    let refused = pc.discover_with(&server.discovery(), USER, &[AuthPolicy::Certificate]).await.unwrap_err();
    assert_eq!(refused.fault().unwrap().error_type, Some(ErrorType::NotSupported));
    assert!(!pc.is_enrolled() && matches!(pc.session().await, Err(Error::Missing(_))));

    let response = pc.discover(&server.discovery(), USER).await.unwrap();
    let options = TokenOptions { bad_signature: true, ..TokenOptions::default() };
    let request = pc.token_request(&options).await.unwrap();
    let reply = pc.request_token(&response.enrollment_url, &on_premise(USER, CODE), &request).await.unwrap();
    assert_eq!(reply.fault().unwrap().subcode, Subcode::CertificateRequest);
    assert_eq!(reply.reply.status, 500);
}

#[tokio::test]
async fn the_same_request_twice_is_two_certificates_for_one_key() {
    let server = Server::start();
    let mut pc = WindowsPc::builder(server.http()).build().unwrap();
    let response = pc.discover(&server.discovery(), USER).await.unwrap();
    let changes = [("SerialNumber", None), ("DeviceName", Some("CLONE")), ("Odd", Some("kept"))];
    let context =
        changes.map(|(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned)));
    let options = TokenOptions { context: context.to_vec(), ..TokenOptions::default() };
    let request = pc.token_request(&options).await.unwrap();
    for _ in 0..2 {
        let reply =
            pc.request_token(&response.enrollment_url, &on_premise(USER, CODE), &request).await.unwrap();
        assert!(matches!(reply.answer, Ok(SoapAnswer::Token(_))));
        pc.install(reply, &response.enrollment_url, &request.key).unwrap();
    }
    let state = server.state();
    assert_eq!(state.requests[0].context.device_name(), Some("CLONE"));
    assert_eq!(
        (state.requests[1].context.serial_number(), state.requests[1].context.get("Odd")),
        (None, Some("kept"))
    );
}

#[tokio::test]
async fn a_document_that_windows_would_refuse_is_refused() {
    let server = Server::start();
    let spoils: [fn(&mut Enrollment); 6] = [
        |document| document.root = None,
        |document| document.account.subject = Subject::common_name("Another").unwrap(),
        |document| document.store = KeyStore::System,
        |document| {
            let other = DeviceCa::create(clock::now_ms(), random_bytes().unwrap()).unwrap();
            document.root = Some(certificate(other.cert_der()));
        },
        |document| {
            let other = DeviceCa::create(clock::now_ms(), random_bytes().unwrap()).unwrap();
            let key = KeyPair::generate_p256().unwrap().public_key_der().unwrap();
            let cert =
                other.issue_device(&key, "Bellwether PC", random_bytes().unwrap(), clock::now_ms()).unwrap();
            document.identity = certificate(&cert);
        },
        |document| {
            let identity = document.identity.as_der().to_vec();
            document.identity =
                bellwether_windows::enrollment::provisioning::Certificate::new(identity, [7; 20]).unwrap();
        },
    ];
    let mut pc = WindowsPc::builder(server.http()).keys(KeyPool::shared(1).await.unwrap()).build().unwrap();
    for spoil in spoils {
        server.state().manner.spoil = Some(spoil);
        let refused = pc.enroll(&server.discovery(), USER, CODE).await;
        assert!(matches!(refused, Err(Error::Enrollment(_))), "{refused:?}");
        assert!(!pc.is_enrolled());
    }
}

#[tokio::test]
async fn an_identity_is_renewed_by_every_road() {
    let (server, mut pc) = enrolled().await;
    let key = KeyPair::generate_rsa2048().unwrap();
    for renewal in [Renewal::Automatic, Renewal::Manual] {
        for (client_certificate, empty_password) in [(true, false), (false, true)] {
            let before = pc.identity().unwrap().cert_der;
            let options =
                RenewOptions { renewal, client_certificate, empty_password, ..RenewOptions::default() };
            pc.renew_with(&options).await.unwrap();
            assert_eq!(pc.old_identity().unwrap().cert_der, before);
            assert_ne!(pc.identity().unwrap().cert_der, before);
            pc.session().await.unwrap();
            pc.use_old_identity();
            assert_eq!(pc.identity().unwrap().cert_der, before);
            pc.session().await.unwrap();
            pc.use_old_identity();
        }
    }
    // A foreign signature, and another identity in the handshake.
    let cert_der =
        bellwether_certs::csr::self_signed(&key, "x", random_bytes().unwrap(), clock::now_ms()).unwrap();
    let foreign = Identity { key, cert_der };
    for options in [
        RenewOptions { signer: Some(foreign.clone()), ..RenewOptions::default() },
        RenewOptions { presented: Some(foreign), ..RenewOptions::default() },
    ] {
        let refused = pc.renew_with(&options).await.unwrap_err();
        assert_eq!(refused.fault().unwrap().subcode, Subcode::MessageFormat);
    }
    // On the server's order.
    let before = pc.identity().unwrap().cert_der;
    let part = server.push(&[csp::renew_certificate()]);
    pc.session().await.unwrap();
    assert_eq!(server.codes(&part), [200]);
    assert_ne!(pc.identity().unwrap().cert_der, before);
    pc.session().await.unwrap();
}

#[tokio::test]
async fn a_machine_survives_in_a_file() {
    let (server, mut pc) = enrolled().await;
    let root = server.state().ca.cert_der().to_vec();
    let sha1 = bellwether_certs::hash::hex(&bellwether_certs::hash::Digest::Sha1.of(&root));
    server.push(&[csp::lock(), csp::rename("NEW-NAME").unwrap(), csp::trust_root(&sha1, &root).unwrap()]);
    pc.session().await.unwrap();
    pc.renew().await.unwrap();
    pc.add_alert(bellwether_windows::syncml::client::alert(1226, "test", "1"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pc.json");
    pc.save(&path).unwrap();
    pc.save(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(WindowsPc::is_saved_in(&path));
    let mut again = WindowsPc::load(&path, server.http()).unwrap();
    assert_eq!((again.hardware(), again.inventory()), (pc.hardware(), pc.inventory()));
    assert_eq!(again.identity().unwrap().cert_der, pc.identity().unwrap().cert_der);
    again.session().await.unwrap();
    again.use_old_identity();
    again.session().await.unwrap();
    assert!(again.shared.lock().alerts.is_empty());
    again.unenroll_by_user().await.unwrap();
    again.save(&path).unwrap();
    assert!(!WindowsPc::load(&path, server.http()).unwrap().is_enrolled());

    std::fs::write(&path, b"{\"family\": \"pc\"}").unwrap();
    assert!(matches!(WindowsPc::load(&path, server.http()), Err(Error::File { .. })));
    assert!(!WindowsPc::is_saved_in(&folder.path().join("none")));
}
