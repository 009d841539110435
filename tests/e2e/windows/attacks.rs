//! The attack list against the Windows endpoints.

use super::{msi, upload};
use crate::harness::House;
use bellwether_certs::cert::CertInfo;
use bellwether_sim::{SessionOptions, WindowsPc};
use reqwest::Method;
use serde_json::json;

const SYNCML: (&str, &str) = ("content-type", "application/vnd.syncml.dm+xml");
const SOAP: (&str, &str) = ("content-type", "application/soap+xml; charset=utf-8");

#[tokio::test(flavor = "multi_thread")]
async fn at_01_windows_no_key_no_commands_over_tls() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let other = house.enrolled_pc().await;
    let scan = house.tell(&pc, json!({ "type": "defender", "action": "quick-scan" })).await;
    for options in [
        SessionOptions { no_certificate: true, sign: Some(false), ..SessionOptions::default() },
        SessionOptions { presented: other.identity(), ..SessionOptions::default() },
        SessionOptions { signer: other.identity(), sign: Some(true), ..SessionOptions::default() },
    ] {
        let refused = pc.session_with(options).await.unwrap_err();
        assert!(format!("{refused:?}").contains("403"), "{refused:?}");
    }
    assert_eq!(house.state(&scan).await, "queued");
    house.audited("device.refused", 3).await;
}

/// What a PC fetched for its Wi-Fi, with its key, from the CA that issues identities: it opens nothing here.
#[tokio::test(flavor = "multi_thread")]
async fn at_01_windows_a_certificate_for_elsewhere_opens_nothing_over_tls() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let package = upload(&house, msi(50_000)).await;
    house.tell(&pc, json!({ "type": "request-certificate", "id": "wifi" })).await;
    pc.session().await.unwrap();
    let elsewhere = pc.scep_identity().unwrap();
    let issuer = |der: &[u8]| CertInfo::parse(der).unwrap().issuer_der;
    assert_eq!(issuer(&elsewhere.cert_der), issuer(&pc.identity().unwrap().cert_der));
    let scan = house.tell(&pc, json!({ "type": "defender", "action": "quick-scan" })).await;
    let signer = Some(elsewhere.clone());
    for options in [
        SessionOptions { presented: signer.clone(), sign: Some(false), ..SessionOptions::default() },
        SessionOptions {
            presented: signer.clone(),
            signer: signer.clone(),
            sign: Some(true),
            ..SessionOptions::default()
        },
        SessionOptions { signer: signer.clone(), sign: Some(true), ..SessionOptions::default() },
        SessionOptions { no_certificate: true, signer, sign: Some(true), ..SessionOptions::default() },
    ] {
        let refused = pc.session_with(options).await.unwrap_err();
        assert!(format!("{refused:?}").contains("403"), "{refused:?}");
    }
    assert_eq!(house.state(&scan).await, "queued");
    house.audited("device.refused", 4).await;
    // Of a package that the PC may fetch, nothing; with the identity, all of it.
    pc.hold_jobs(true);
    house.tell(&pc, json!({ "type": "install-app", "app": { "source": "package", "id": package } })).await;
    let told = pc.session().await.unwrap();
    let job = told.iter().find_map(|t| t.data.clone().filter(|d| d.contains("MsiInstallJob"))).unwrap();
    let url = job.split("<ContentURL>").nth(1).unwrap().split('<').next().unwrap();
    let path = url.strip_prefix(&house.url).unwrap();
    for (identity, status) in [(elsewhere.clone(), 404), (pc.identity().unwrap(), 200)] {
        let http = house.http.with_client_certificate(&identity.cert_der, &identity.key).unwrap();
        let request = http.request(Method::GET, &format!("{}{path}", house.device_url));
        assert_eq!(http.send("package", request).await.unwrap().status, status);
    }
    // And as the old certificate of a renewal.
    let identity = pc.identity().unwrap();
    pc.set_identity(elsewhere);
    assert!(pc.renew().await.is_err());
    pc.set_identity(identity);
    pc.session().await.unwrap();
    assert_eq!(house.state(&scan).await, "acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_02_windows_another_pcs_device_id_is_not_believed() {
    let house = House::new().await;
    let victim = house.enrolled_pc().await;
    let mut thief = house.enrolled_pc().await;
    let scan = house.tell(&victim, json!({ "type": "defender", "action": "quick-scan" })).await;
    thief.set_device_id(victim.device_id());
    let refused = thief.session().await.unwrap_err();
    assert!(format!("{refused:?}").contains("403"), "{refused:?}");
    assert_eq!(house.state(&scan).await, "queued");
    house.audited("device.refused", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_37_windows_package_addresses_end_with_the_enrollment() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let other = house.enrolled_pc().await;
    let id = upload(&house, msi(50_000)).await;
    pc.hold_jobs(true);
    house.tell(&pc, json!({ "type": "install-app", "app": { "source": "package", "id": id } })).await;
    let told = pc.session().await.unwrap();
    let job = told.iter().find_map(|t| t.data.clone().filter(|d| d.contains("MsiInstallJob"))).unwrap();
    let url = job.split("<ContentURL>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let path = url.strip_prefix(&house.url).unwrap().to_owned();
    let whole = house.raw(Method::GET, &path, &[], Vec::new()).await;
    assert_eq!((whole.status, whole.body.len()), (200, 50_008));
    let part = house.raw(Method::GET, &path, &[("range", "bytes=8-17")], Vec::new()).await;
    assert_eq!((part.status, part.body.len()), (206, 10));
    for guess in [format!("/packages/{id}"), format!("{path}x"), "/packages/1".to_owned()] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(house.raw(method, &guess, &[], Vec::new()).await.status, 404, "{guess}");
        }
    }
    // With another PC's certificate, on the listener that asks for one.
    let identity = other.identity().unwrap();
    let http = house.http.with_client_certificate(&identity.cert_der, &identity.key).unwrap();
    let request = http.request(Method::GET, &format!("{}{path}", house.device_url));
    assert_eq!(http.send("package", request).await.unwrap().status, 404);
    // The PC leaves: its addresses are worth nothing any more.
    let serial = pc.serial();
    house.delete(&format!("/devices/{serial}/enrollment")).await;
    assert_eq!(house.raw(Method::GET, &path, &[], Vec::new()).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_50_windows_bombs_cost_their_sender_an_error() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let bomb = br#"<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>"#
        .to_vec();
    let deep = ["<a>".repeat(100_000), "</a>".repeat(100_000)].concat().into_bytes();
    for body in [bomb, deep, b"\xff\xfe<\0a\0".to_vec(), Vec::new(), vec![0; 1000]] {
        for path in ["Discovery", "Policy", "Enrollment"] {
            let path = format!("/EnrollmentServer/{path}.svc");
            let reply = house.raw(Method::POST, &path, &[SOAP], body.clone()).await;
            assert!((400..=500).contains(&reply.status), "{path}: {}", reply.status);
            assert!(reply.text().contains("TraceId"), "a fault, with our request id: {}", reply.text());
        }
        let reply = pc.raw_session_post(body, &[SYNCML]).await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (400, 0));
    }
    pc.session().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_51_windows_large_bodies_are_refused() {
    let house = House::new().await;
    let huge = vec![b'a'; 2 * 1024 * 1024];
    let reply = house.raw(Method::POST, "/EnrollmentServer/Enrollment.svc", &[SOAP], huge.clone()).await;
    assert_eq!(reply.status, 413);
    let url = format!("{}/ManagementServer/MDM.svc", house.device_url);
    let request = house.http.request(Method::POST, &url).body(huge);
    // Without proof of a key it is refused, whatever it says, or the line is cut.
    assert!(house.http.send("session", request).await.map_or(true, |reply| reply.status == 403));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_52_windows_names_are_only_names() {
    let house = House::new().await;
    for (name, serial, shown) in [
        ("'; DROP TABLE devices; --", "SN'1", "'; DROP TABLE devices; --"),
        ("<script>alert(1)</script>", "SN\"<2>", "<script>alert(1)</script>"),
        ("a\u{85}b", "SN;3", "ab"),
        (&"x".repeat(5_000), "SN4", &"x".repeat(200)),
    ] {
        let mut pc: WindowsPc = house.pc_builder().await.name(name).serial(serial).build().unwrap();
        pc.enroll_by_link(&house.invite_pc("ann@example.org").await).await.unwrap();
        pc.session().await.unwrap();
        let devices = house.get("/devices").await;
        let mut names = devices["items"].as_array().unwrap().iter().map(|device| &device["name"]);
        assert!(names.any(|name| name == shown), "{devices:#}");
    }
    for id in ["A'B", "a\"b", "../../etc", &"A".repeat(2_000)] {
        let mut pc = house.pc_builder().await.device_id(id).build().unwrap();
        let refused = pc.enroll_by_link(&house.invite_pc("ann@example.org").await).await;
        assert!(refused.is_err(), "{id:.20}");
    }
    assert_eq!(house.get("/devices").await["items"].as_array().unwrap().len(), 4);
    let mut pc = house.enrolled_pc().await;
    pc.session().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_enrollment_are_one_plain_message() {
    let house = House::new().await;
    let gzip = ("accept-encoding", "gzip, deflate, br");
    let probe = house.raw(Method::GET, "/EnrollmentServer/Discovery.svc", &[gzip], Vec::new()).await;
    assert_eq!((probe.status, probe.header("content-length")), (200, Some("0")));
    let fault =
        house.raw(Method::POST, "/EnrollmentServer/Policy.svc", &[SOAP, gzip], b"<a/>".to_vec()).await;
    let length: usize = fault.header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, fault.body.len());
    for name in ["transfer-encoding", "content-encoding", "location"] {
        assert_eq!(fault.header(name), None, "{name}");
    }
}
