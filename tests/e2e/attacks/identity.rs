//! Who is who: AT-01, 02, 04, 06, 09.

use super::{idle, refused, speak_as};
use crate::harness::House;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::csr;
use bellwether_certs::keys::KeyPair;
use bellwether_sim::{
    AppleDevice, Error, Family, Identity, KeyPool, ProfileOptions, ScepCipher, ScepOptions, ScepTransport,
    Shape, Status,
};
use futures_util::future::join_all;
use plist::{Dictionary, Value};
use serde_json::json;
use std::collections::HashSet;

/// A self-signed identity with a key that nobody certified.
fn self_made() -> Identity {
    let key = KeyPair::generate_rsa2048().unwrap();
    let cert_der = csr::self_signed(&key, "Bellwether x", [7; 16], bellwether_sim::clock::now_ms()).unwrap();
    Identity { key, cert_der }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_01_who_cannot_prove_an_identity_gets_nothing() {
    let house = House::new().await;
    let other_house = House::new().await;
    let mut ann = house.enrolled(Family::Mac).await;
    let bob = house.enrolled(Family::Mac).await;
    let gone = house.enrolled(Family::Mac).await;
    let foreign = other_house.enrolled(Family::Mac).await;
    let mut old = house.enrolled(Family::Mac).await;
    let lock = house.send(&ann, json!({ "type": "lock" })).await;
    let body = idle(ann.udid());

    let bare = ann.raw_request(body.clone(), &[]).await.unwrap();
    refused("no signature", &bare, &[400]);
    let good = ann.signature(&body).unwrap();
    for (what, header, body) in [
        ("nonsense", "bm9uc2Vuc2U=".to_owned(), body.clone()),
        ("no base64", "*** no ***".to_owned(), body.clone()),
        ("empty", String::new(), body.clone()),
        ("cut off", STANDARD.encode(&STANDARD.decode(&good).unwrap()[..200]), body.clone()),
        ("of another body", ann.signature(b"other").unwrap(), body.clone()),
        ("of a body that grew", good.clone(), [body.as_slice(), b" "].concat()),
    ] {
        let reply = ann.raw_request(body, &[("mdm-signature", &header)]).await.unwrap();
        refused(what, &reply, &[400, 403]);
    }
    for (what, identity) in [
        ("self-signed", self_made()),
        ("another server's CA", foreign.identity().unwrap().clone()),
        ("another device's certificate", bob.identity().unwrap().clone()),
        // The right certificate, and a key that does not belong to it.
        (
            "a stolen certificate",
            Identity { key: self_made().key, cert_der: ann.identity().unwrap().cert_der.clone() },
        ),
    ] {
        refused(what, &speak_as(&mut ann, identity, body.clone()).await, &[400, 403]);
    }
    // Revoked: the enrollment was ended by the admin.
    house.delete(&format!("/devices/{}/enrollment", gone.serial())).await.good();
    let revoked = gone.identity().unwrap().clone();
    refused("revoked", &speak_as(&mut ann, revoked.clone(), idle(gone.udid())).await, &[403]);
    refused("revoked, in another's name", &speak_as(&mut ann, revoked, body.clone()).await, &[403]);
    // Expired, longer ago than a device may lie in a drawer.
    assert_eq!(old.idle().await.unwrap().status, 200);
    super::sql(
        &house,
        "UPDATE identities SET not_after = 1000000000000 WHERE enrollment_id = (SELECT id FROM enrollments ORDER BY id DESC LIMIT 1)",
    );
    refused("expired", &old.idle().await.unwrap(), &[403]);

    let refusals = house.audited("device.refused", 10).await;
    assert!(!serde_json::to_string(&refusals).unwrap().contains(&good), "a signature is a secret");
    // In all that the lock stayed where it was.
    assert_eq!(house.state(&lock).await, "queued");
    assert_eq!(ann.poll().await.unwrap()[0].request_type, "DeviceLock");
    for shape in [Shape::DEVICE, Shape::MODERN] {
        ann.set_shape(shape);
        assert_eq!(ann.idle().await.unwrap().status, 200, "{shape:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_01_on_the_device_listener_the_certificates_must_be_the_same() {
    let house = House::new().await;
    let ann = house.enrolled(Family::Mac).await;
    let bob = house.enrolled(Family::Mac).await;
    let body = idle(ann.udid());
    let put = |identity: Identity, signature: Option<String>| {
        let http = house.http.with_client_certificate(&identity.cert_der, &identity.key).unwrap();
        let (url, body) = (format!("{}/apple/mdm", house.device_url), body.clone());
        async move {
            let mut request = http.request(reqwest::Method::PUT, &url).body(body);
            if let Some(signature) = signature {
                request = request.header("mdm-signature", signature);
            }
            http.send("MDM", request).await.unwrap()
        }
    };
    let (a, b) = (ann.identity().unwrap().clone(), bob.identity().unwrap().clone());
    let signature = ann.signature(&body).unwrap();
    assert_eq!(put(a.clone(), Some(signature.clone())).await.status, 200);
    assert_eq!(put(a, None).await.status, 200, "the handshake is a proof as well");
    refused("another's TLS certificate", &put(b.clone(), Some(signature.clone())).await, &[403]);
    refused("only another's TLS certificate", &put(b, None).await, &[403]);
    // The handshake refuses nobody, the handler does.
    refused("a foreign TLS certificate", &put(self_made(), Some(signature)).await, &[403]);
    refused("only a foreign TLS certificate", &put(self_made(), None).await, &[403]);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_02_a_certificate_speaks_for_its_own_device_only() {
    let house = House::new().await;
    let mut ann = house.enrolled(Family::Mac).await;
    let mut eve = house.enrolled(Family::Mac).await;
    ann.set_bootstrap_token(Some(b"ann's secret")).await.unwrap().ok("token").unwrap();
    ann.set_script(bellwether_sim::Script::new().on("RestartDevice", 1, bellwether_sim::Behaviour::Silence));
    let restart = house.send(&ann, json!({ "type": "restart" })).await;
    let told = ann.poll().await.unwrap();
    let uuid = told[0].command_uuid.clone();
    assert_eq!(house.state(&restart).await, "sent");

    // Eve in Ann's name: every message that there is.
    let own = eve.udid().to_owned();
    eve.set_udid(ann.udid());
    refused("Idle", &eve.idle().await.unwrap(), &[403]);
    refused("Authenticate", &eve.authenticate().await.unwrap(), &[403]);
    refused("TokenUpdate", &eve.token_update().await.unwrap(), &[403]);
    refused("SetBootstrapToken", &eve.set_bootstrap_token(Some(b"eve's")).await.unwrap(), &[403]);
    assert_eq!(eve.get_bootstrap_token().await.unwrap_err().status(), Some(403));
    refused("CheckOut", &eve.checkout().await.unwrap(), &[403]);
    for status in [Status::Acknowledged, Status::Error, Status::NotNow] {
        refused("a report", &eve.report(status, &uuid, &[], Dictionary::new()).await.unwrap(), &[403]);
    }
    // Eve in her own name about Ann's command: heard, and of no effect.
    eve.set_udid(own);
    let reply = eve.report(Status::Acknowledged, &uuid, &[], Dictionary::new()).await.unwrap();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(house.state(&restart).await, "sent");
    assert_eq!(ann.get_bootstrap_token().await.unwrap().as_deref(), Some(&b"ann's secret"[..]));
    ann.poll().await.unwrap();
    assert_eq!(house.state(&restart).await, "acknowledged");
    assert_eq!(house.show(&ann).await["device"]["enrollment"]["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_04_another_person_with_the_same_udid_is_unproven() {
    let house = House::new().await;
    let mut ann = house.device(Family::Mac).await;
    ann.enroll(&house.invite_for("ann@example.org").await).await.unwrap();
    ann.poll().await.unwrap();
    ann.set_bootstrap_token(Some(b"ann's secret")).await.unwrap().ok("token").unwrap();
    let lock = house.send(&ann, json!({ "type": "lock" })).await;

    let mut bob = AppleDevice::builder(Family::Mac, house.http.clone())
        .keys(crate::harness::keys().await)
        .udid(ann.udid())
        .serial(ann.serial())
        .build()
        .unwrap();
    bob.enroll(&house.invite_for("bob@example.org").await).await.unwrap();
    assert!(bob.poll().await.unwrap().is_empty(), "no commands for a claim");
    assert_eq!(bob.get_bootstrap_token().await.unwrap(), None, "no secrets for a claim");
    let devices = house.get("/devices").await;
    let claim =
        devices["items"].as_array().unwrap().iter().find(|d| !d["claims_device_id"].is_null()).unwrap();
    assert_eq!(claim["enrollment"]["state"], "unproven");
    let path = format!("/devices/{}/commands", claim["id"].as_str().unwrap());
    assert_eq!(house.post(&path, json!({ "intent": { "type": "lock" } })).await.refusal().0, 409);
    // Ann notices nothing.
    assert_eq!(house.state(&lock).await, "queued");
    assert_eq!(ann.poll().await.unwrap()[0].request_type, "DeviceLock");
    assert_eq!(ann.get_bootstrap_token().await.unwrap().as_deref(), Some(&b"ann's secret"[..]));
    // An admin decides.
    let enrollment = claim["enrollment"]["id"].as_str().unwrap();
    house.post(&format!("/enrollments/{enrollment}/approve"), json!({})).await.good();
    assert_eq!(ann.idle().await.unwrap().status, 403);
    assert_eq!(bob.get_bootstrap_token().await.unwrap(), None, "escrow does not cross");
    assert_eq!(bob.idle().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_04_without_an_invitation_nothing_moves() {
    let house = House::new().await;
    let mut ann = house.enrolled(Family::Mac).await;
    let mut eve = house.enrolled(Family::Mac).await;
    ann.set_bootstrap_token(Some(b"ann's secret")).await.unwrap().ok("token").unwrap();
    let lock = house.send(&ann, json!({ "type": "lock" })).await;
    let before = house.show(&ann).await;
    eve.set_udid(ann.udid());
    refused("Authenticate", &eve.authenticate().await.unwrap(), &[403]);
    // A renewal of Eve's identity stays Eve's.
    eve.scep_renew().await.unwrap();
    refused("Authenticate with a renewed identity", &eve.authenticate().await.unwrap(), &[403]);
    refused("TokenUpdate with a renewed identity", &eve.token_update().await.unwrap(), &[403]);
    let after = house.show(&ann).await;
    assert_eq!(after["enrollments"].as_array().unwrap().len(), 1);
    assert_eq!(after["device"]["enrollment"]["id"], before["device"]["enrollment"]["id"]);
    assert_eq!(house.state(&lock).await, "queued");
    assert_eq!(ann.get_bootstrap_token().await.unwrap().as_deref(), Some(&b"ann's secret"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_06_a_hundred_redemptions_make_one_identity() {
    let house = House::new().await;
    let link = house.invite().await;
    let device = house.device(Family::Mac).await;
    let profile = device.fetch_profile(&link, &ProfileOptions::default()).await.unwrap();
    // Twenty keys, five equal requests of each: rivals and network retries at the same time.
    let keys = KeyPool::distinct();
    keys.prepare(20).await.unwrap();
    let mut attempts = Vec::new();
    for _ in 0..20 {
        let options = ScepOptions { key: Some(keys.take().await.unwrap()), ..ScepOptions::default() };
        let attempt = device.scep_attempt(&profile.details, &options).await.unwrap();
        attempts.extend(std::iter::repeat_n(attempt, 5));
    }
    let http = house.http.clone();
    let results = join_all(attempts.iter().map(|attempt| {
        let (attempt, http) = (attempt.clone(), http.clone());
        tokio::spawn(async move { attempt.send(&http).await })
    }))
    .await;
    let mut certificates = HashSet::new();
    let mut winners = HashSet::new();
    for (attempt, result) in attempts.iter().zip(results) {
        match result.unwrap() {
            Ok(identity) => {
                certificates.insert(identity.cert_der);
                winners.insert(attempt.key().public_key_der().unwrap());
            }
            Err(Error::Scep(why)) => assert!(why.contains("BadRequest"), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((certificates.len(), winners.len()), (1, 1));
    assert_eq!(house.audited("identity.issued", 1).await.len(), 1);
    // After the race: the winner's key works again, another's does not.
    for attempt in attempts.iter().step_by(5) {
        let mine = winners.contains(&attempt.key().public_key_der().unwrap());
        assert_eq!(attempt.send(&house.http).await.is_ok(), mine);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_09_a_challenge_buys_exactly_its_identity() {
    let house = House::new().await;
    let link = house.invite().await;
    let mut mac = house.device(Family::Mac).await;
    let profile = mac.fetch_profile(&link, &ProfileOptions::default()).await.unwrap();
    let key = KeyPair::generate_rsa2048().unwrap();
    let base = || ScepOptions { key: Some(key.clone()), ..ScepOptions::default() };
    let named = |name: &str| Some(name.to_owned());
    let mut bad = vec![
        ("CA:TRUE", ScepOptions { ask_for_ca: true, ..base() }),
        ("serverAuth", ScepOptions { ask_for_server_auth: true, ..base() }),
        ("a DNS name", ScepOptions { dns_name: named("mdm.example.org"), ..base() }),
        ("another subject", ScepOptions { common_name: named("admin"), ..base() }),
        ("another challenge", ScepOptions { challenge: named("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ..base() }),
        ("an empty challenge", ScepOptions { challenge: named(""), ..base() }),
        ("no challenge", ScepOptions { no_challenge: true, ..base() }),
    ];
    for message_type in ["0", "3", "17", "18", "20", "21", "22", "99", "-1", "019", "abc", "4294967315"] {
        bad.push((message_type, ScepOptions { message_type: named(message_type), ..base() }));
    }
    for (what, options) in bad {
        for transport in [ScepTransport::Post, ScepTransport::Get] {
            let attempt = mac
                .scep_attempt(&profile.details, &ScepOptions { transport, ..options.clone() })
                .await
                .unwrap();
            match attempt.send(&house.http).await {
                // A signed CertRep that says no, or not a SCEP message at all.
                Err(Error::Scep(why)) => assert!(why.starts_with("refused"), "{what}: {why}"),
                Err(error) => assert_eq!(error.status(), Some(400), "{what}: {error}"),
                Ok(_) => panic!("{what} was granted"),
            }
        }
    }
    assert!(house.audited("identity.issued", 0).await.is_empty());
    // None of that spent the challenge. Old algorithms and BER are no reason to refuse.
    let options = ScepOptions {
        cipher: ScepCipher::TripleDes,
        ber_indefinite: true,
        transport: ScepTransport::Get,
        ..base()
    };
    mac.scep_enroll_with(&profile.details, &options).await.unwrap();
    let cert = bellwether_certs::cert::CertInfo::parse(&mac.identity().unwrap().cert_der).unwrap();
    assert_eq!(cert.subject_cn.as_deref(), Some(profile.details.scep.common_name.as_str()));
    assert!(cert.subject_cn.unwrap().len() <= 46);
    // Spent: another key gets nothing.
    let again = mac.scep_attempt(&profile.details, &ScepOptions::default()).await.unwrap();
    assert!(again.send(&house.http).await.is_err());
    // The same request of the same key is a network retry.
    mac.enroll_by_profile(profile, &base()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_09_only_a_living_identity_renews_itself() {
    let house = House::new().await;
    let mut ann = house.enrolled(Family::Mac).await;
    let bob = house.enrolled(Family::Mac).await;
    let ended = house.enrolled(Family::Mac).await;
    let dead = ended.identity().unwrap().clone();
    house.delete(&format!("/devices/{}/enrollment", ended.serial())).await.good();
    let mine = ann.identity().unwrap().clone();
    for (what, identity, options) in [
        ("revoked", dead, ScepOptions::default()),
        ("self-signed", self_made(), ScepOptions::default()),
        // Bob's certificate asks for Ann's subject.
        ("another's subject", bob.identity().unwrap().clone(), ScepOptions::default()),
        ("CA:TRUE", mine.clone(), ScepOptions { ask_for_ca: true, ..ScepOptions::default() }),
        (
            "a DNS name",
            mine.clone(),
            ScepOptions { dns_name: Some("localhost".into()), ..ScepOptions::default() },
        ),
        (
            "another subject",
            mine.clone(),
            ScepOptions { common_name: Some("admin".into()), ..ScepOptions::default() },
        ),
        (
            "UpdateReq",
            mine.clone(),
            ScepOptions { message_type: Some("18".into()), ..ScepOptions::default() },
        ),
        ("PKCSReq", mine.clone(), ScepOptions { message_type: Some("19".into()), ..ScepOptions::default() }),
    ] {
        ann.set_identity(identity).unwrap();
        let attempt = ann.scep_renewal_attempt(&options).await.unwrap();
        let error = attempt.send(&house.http).await.err().unwrap_or_else(|| panic!("{what} was granted"));
        assert!(error.to_string().contains("refused") || error.status() == Some(400), "{what}: {error}");
    }
    ann.set_identity(mine).unwrap();
    ann.scep_renew().await.unwrap();
    assert_eq!(ann.idle().await.unwrap().status, 200);
}

/// A body that no field of which is believed before the signature is.
#[tokio::test(flavor = "multi_thread")]
async fn never_401_on_apple_mdm() {
    let house = House::new().await;
    let mut mac = house.enrolled(Family::Mac).await;
    let eve = house.enrolled(Family::Mac).await;
    let udid = mac.udid().to_owned();
    let body = idle(&udid);
    let good = mac.signature(&body).unwrap();
    let long = "A".repeat(17 * 1024);
    let mut seen: Vec<(String, u16)> = Vec::new();

    // Every method, on both listeners, with and without things that other endpoints would judge.
    for base in [&house.url, &house.device_url] {
        for method in ["PUT", "POST", "GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"] {
            for headers in [
                &[][..],
                &[("mdm-signature", "AAAA")],
                &[("mdm-signature", good.as_str())],
                &[("mdm-signature", long.as_str())],
                &[("authorization", "Bearer bw_wrong")],
                &[("authorization", "Basic YWRtaW46YWRtaW4=")],
                &[("content-encoding", "gzip")],
                &[("content-type", "text/html")],
                &[("expect", "200-ok")],
                &[("mdm-signature", good.as_str()), ("mdm-signature", good.as_str())],
            ] {
                let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
                let mut request =
                    house.http.request(method.clone(), &format!("{base}/apple/mdm")).body(body.clone());
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let reply = house.http.send("MDM", request).await.unwrap();
                seen.push((format!("{method} {headers:?}"), reply.status));
            }
        }
    }
    // Every message, whole and broken, from a known, an unknown and another device.
    let message = |kind: &str, fields: &[(&str, Value)]| {
        let mut all = Dictionary::new();
        all.insert("MessageType".into(), kind.into());
        all.insert("UDID".into(), udid.as_str().into());
        for (name, value) in fields {
            all.insert((*name).into(), value.clone());
        }
        super::xml(&Value::Dictionary(all))
    };
    let topic = mac.enrollment().unwrap().mdm.topic.clone();
    let mut bodies = vec![
        body.clone(),
        Vec::new(),
        b"hello".to_vec(),
        b"<plist></plist>".to_vec(),
        b"bplist00".to_vec(),
        vec![0; 1000],
    ];
    for kind in [
        "Authenticate",
        "TokenUpdate",
        "UserAuthenticate",
        "SetBootstrapToken",
        "GetBootstrapToken",
        "DeclarativeManagement",
        "GetToken",
        "ReturnToService",
        "Nonsense",
        "",
        "authenticate",
        // Last: afterwards everything is refused.
        "CheckOut",
    ] {
        bodies.push(message(kind, &[]));
        bodies.push(message(
            kind,
            &[
                ("Topic", "com.apple.mgmt.External.other".into()),
                ("Token", Value::Data(vec![1])),
                ("PushMagic", "x".into()),
            ],
        ));
        bodies.push(message(kind, &[("UserID", "not-a-guid".into()), ("Topic", topic.as_str().into())]));
        bodies.push(message(kind, &[("UserID", "8D6C1F0B-8B5A-4B29-9C35-1B7D6F1C9E11".into())]));
        bodies.push(message(kind, &[("UDID", Value::Integer(5.into()))]));
        bodies.push(message(kind, &[("Endpoint", "tokens".into()), ("Data", Value::Data(b"{".to_vec()))]));
        bodies.push(message(kind, &[("TokenServiceType", "com.apple.maid".into())]));
    }
    let identities = [mac.identity().unwrap().clone(), eve.identity().unwrap().clone(), self_made()];
    for identity in &identities {
        for body in &bodies {
            for content_type in ["application/x-apple-aspen-mdm-checkin", "application/x-apple-aspen-mdm", ""]
            {
                mac.set_identity(identity.clone()).unwrap();
                let reply = mac.signed_request(body.clone(), content_type).await.unwrap();
                seen.push((format!("{content_type} {}", String::from_utf8_lossy(body)), reply.status));
            }
        }
    }
    // After the end of the enrollment.
    mac.set_identity(identities[0].clone()).unwrap();
    seen.push(("CheckOut".into(), mac.checkout().await.unwrap().status));
    for body in &bodies {
        seen.push(("after CheckOut".into(), mac.signed_request(body.clone(), "").await.unwrap().status));
    }
    // Other spellings of the path are no endpoint at all.
    for path in [
        "/apple/mdm/",
        "//apple/mdm",
        "/apple/MDM",
        "/apple/mdm;x",
        "/apple/mdm%00",
        "/apple",
        "/apple/",
        "/apple/checkin",
    ] {
        let reply = house.raw(reqwest::Method::PUT, path, &[("mdm-signature", &good)], body.clone()).await;
        seen.push((path.into(), reply.status));
        assert!(reply.status >= 400, "{path}");
    }
    let statuses: HashSet<u16> = seen.iter().map(|(_, status)| *status).collect();
    for (what, status) in &seen {
        assert!(*status != 401 && (*status < 500 || *status == 501), "{status}: {what}");
    }
    for expected in [200, 400, 403, 404, 405, 410, 415, 431] {
        assert!(statuses.contains(&expected), "the walk missed the path to {expected}: {statuses:?}");
    }
}
