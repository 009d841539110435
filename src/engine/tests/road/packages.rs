//! AT-37 below the edge: who may fetch a package, and until when.

use crate::support::*;
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::{hex, sha256};
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{Error, NewPackage, PackageView, may};
use bellwether_model::time::{DAY, HOUR};
use bellwether_model::{EnrollmentId, PackageKind};
use bellwether_scep::client::Reply;
use secrecy::ExposeSecret as _;

const MIB: usize = 1024 * 1024;

fn msi(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    bytes.extend((0..length).map(|n| (n / 251) as u8 ^ (n as u8) ^ seed));
    bytes.truncate(length);
    bytes
}

fn tool() -> NewPackage {
    NewPackage {
        kind: PackageKind::Msi,
        name: "Tool".into(),
        product: "{0190A5D0-0000-7000-8000-00000000ABCD}".into(),
        version: "1.2.3".into(),
    }
}

async fn upload(house: &House, bytes: Vec<u8>) -> Result<PackageView, Error> {
    let permit = house.admin.permit::<may::WritePackages>(house.site()).unwrap();
    house.engine.upload_package(&permit, tool(), bytes).await
}

async fn grant(house: &House, package: &PackageView, enrollment: EnrollmentId) -> String {
    let permit = house.admin.permit::<may::WritePackages>(house.site()).unwrap();
    let token = house.engine.grant_package(&permit, package.id, enrollment).await.unwrap();
    token.expose_secret().to_owned()
}

/// A Mac with its enrollment.
async fn enrolled(house: &House, udid: &str) -> (Mac, EnrollmentId) {
    let code = house.invite(None).await;
    let mut mac = mac(udid);
    mac.enroll(house, &code).await;
    let device = house.devices().await.into_iter().find(|d| d.hardware_id == udid).unwrap();
    (mac, device.enrollment.unwrap().id)
}

async fn opens(house: &House, token: &str, certificate: Option<&[u8]>) -> bool {
    house.engine.package_by_token(token, certificate).await.unwrap().is_some()
}

async fn fetch(house: &House, token: &str) -> Vec<u8> {
    let file = house.engine.package_by_token(token, None).await.unwrap().unwrap();
    let mut all = Vec::new();
    while (all.len() as u64) < file.size {
        let piece = house.engine.package_piece(&file, all.len() as u64, file.size).await.unwrap();
        assert!(piece.len() <= MIB, "never the whole file in memory");
        all.extend(piece);
    }
    assert_eq!(sha256(&all).to_vec(), file.sha256);
    all
}

#[tokio::test]
async fn a_package_is_stored_in_pieces_and_comes_back_whole() {
    let house = house().await;
    let (_, enrollment) = enrolled(&house, "UDID-1").await;
    for length in [8, MIB - 1, MIB, MIB + 1, 18 * MIB + 77] {
        let bytes = msi(length, 1);
        let package = upload(&house, bytes.clone()).await.unwrap();
        assert_eq!((package.size, package.sha256.as_str()), (length as i64, hex(&sha256(&bytes)).as_str()));
        let token = grant(&house, &package, enrollment).await;
        assert!(fetch(&house, &token).await == bytes, "{length}");
        // Any part, also across the border of two pieces: what is asked for and no more.
        let file = house.engine.package_by_token(&token, None).await.unwrap().unwrap();
        for (from, to) in [(0, 1), (3, 8), (MIB - 2, MIB + 1), (length - 1, length)] {
            if to <= length {
                let part = house.engine.package_piece(&file, from as u64, to as u64).await.unwrap();
                assert!(!part.is_empty() && bytes[from..to].starts_with(&part), "{length} {from} {to}");
            }
        }
    }
    assert_eq!(house.audited("package.uploaded").await, 5);
}

#[tokio::test]
async fn a_file_that_is_not_what_it_says_is_refused() {
    let house = house().await;
    for bytes in [Vec::new(), b"MZ\x90\0".to_vec(), b"PK\x03\x04".to_vec(), msi(7, 0)] {
        assert!(matches!(upload(&house, bytes).await, Err(Error::Invalid(_))));
    }
    assert_eq!(house.audited("package.uploaded").await, 0);
}

#[tokio::test]
async fn at_37_a_token_is_for_one_device_and_ends() {
    let house = house().await;
    let (mine, enrollment) = enrolled(&house, "UDID-1").await;
    let (other, _) = enrolled(&house, "UDID-2").await;
    let package = upload(&house, msi(100, 1)).await.unwrap();
    let token = grant(&house, &package, enrollment).await;
    assert_eq!(token.len(), 32, "192 random bits");
    // Two that are random have a letter in the same place once in 64.
    let more = grant(&house, &package, enrollment).await;
    assert!(token.bytes().zip(more.bytes()).filter(|(a, b)| a == b).count() < 12, "{token} {more}");
    assert!(opens(&house, &token, None).await);
    assert!(opens(&house, &token, Some(&mine.cert)).await);
    assert!(!opens(&house, &token, Some(&other.cert)).await, "another device's certificate");
    assert!(!opens(&house, &token, Some(b"no certificate at all")).await);
    // Ids, prefixes, neighbours and other spellings open nothing.
    let neighbour = if token.ends_with('A') { 'B' } else { 'A' };
    for guess in [
        String::new(),
        package.id.to_string(),
        package.sha256.clone(),
        token[..31].to_owned(),
        format!("{token}="),
        format!("{}{neighbour}", &token[..31]),
        "\u{e9}".repeat(16),
        "x".repeat(10_000),
    ] {
        assert!(!opens(&house, &guess, None).await, "{guess}");
    }
    house.later(31 * DAY - 1);
    assert!(opens(&house, &token, None).await);
    house.later(1);
    assert!(!opens(&house, &token, None).await, "expired");
    // Housekeeping forgets it, and keeps the package.
    house.engine.housekeep_once().await.unwrap();
    let fresh = grant(&house, &package, enrollment).await;
    assert!(opens(&house, &fresh, None).await);
    mine.check_out(&house).await;
    assert!(!opens(&house, &fresh, None).await, "the enrollment has ended");
}

#[tokio::test]
async fn at_37_a_certificate_that_was_replaced_fetches_nothing() {
    let house = house().await;
    let code = house.invite(None).await;
    let details = profile(&house, &code).await;
    let mut old = mac("UDID-1");
    let Reply::Success(der) = scep(&house, &details, &old.key, Wishes::default(), None).await else {
        panic!("no certificate")
    };
    old.cert = der;
    old.topic = details.mdm.topic.clone();
    assert_eq!(old.authenticate(&house).await.status, 200);
    assert_eq!(old.token_update(&house).await.status, 200);
    let enrollment = house.devices().await[0].enrollment.as_ref().unwrap().id;
    let package = upload(&house, msi(100, 1)).await.unwrap();
    let token = grant(&house, &package, enrollment).await;
    let key = KeyPair::generate_rsa2048().unwrap();
    let request = csr::build(&key, &details.scep.common_name, None, Wishes::default()).unwrap();
    let renewed = scep_csr(&house, authority(&details), &key, &request, Some((&old.cert, &old.key))).await;
    let Reply::Success(cert) = renewed else { panic!("{renewed:?}") };
    assert!(opens(&house, &token, Some(&old.cert)).await, "until the new one is seen");
    let new = Mac { ids: old.ids.clone(), key, cert, ..mac("x") };
    new.drain(&house).await;
    assert!(!opens(&house, &token, Some(&old.cert)).await);
    assert!(opens(&house, &token, Some(&new.cert)).await);
}

#[tokio::test]
async fn a_deleted_package_is_gone_and_its_twin_stays() {
    let house = house().await;
    let (_, enrollment) = enrolled(&house, "UDID-1").await;
    let (one, two) = (upload(&house, msi(100, 1)).await.unwrap(), upload(&house, msi(100, 1)).await.unwrap());
    let (first, second) = (grant(&house, &one, enrollment).await, grant(&house, &two, enrollment).await);
    let file = house.engine.package_by_token(&second, None).await.unwrap().unwrap();
    let write = house.admin.permit::<may::WritePackages>(house.site()).unwrap();
    let read = house.admin.permit::<may::ReadPackages>(house.site()).unwrap();
    house.engine.delete_package(&write, one.id).await.unwrap();
    assert!(!opens(&house, &first, None).await);
    assert!(fetch(&house, &second).await == msi(100, 1));
    assert!(matches!(house.engine.package(&read, one.id).await, Err(Error::NotFound(_))));
    assert!(matches!(house.engine.delete_package(&write, one.id).await, Err(Error::NotFound(_))));
    let refused = house.engine.grant_package(&write, one.id, enrollment).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    let listed = house.engine.packages(&read, None, 10).await.unwrap().items;
    assert_eq!(listed.iter().map(|p| p.id).collect::<Vec<_>>(), [two.id]);
    house.engine.delete_package(&write, two.id).await.unwrap();
    // A transfer that runs breaks off.
    assert!(matches!(house.engine.package_piece(&file, 0, 100).await, Err(Error::NotFound(_))));
    assert_eq!(house.audited("package.deleted").await, 2);
    // The same file can come back; housekeeping leaves it alone however old it is.
    let again = upload(&house, msi(100, 1)).await.unwrap();
    house.later(DAY + HOUR);
    house.engine.housekeep_once().await.unwrap();
    let token = grant(&house, &again, enrollment).await;
    assert!(fetch(&house, &token).await == msi(100, 1));
}
