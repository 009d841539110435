//! Software and certificates, which come between sessions.

use bellwether_certs::hash::{Digest, hex, sha256};
use bellwether_windows::csp::{self, Msi, Scep, Scope};
use bellwether_windows::syncml::session::Event;

use super::server::CHALLENGE;
use super::*;

const PRODUCT: &str = "{6F7CB29F-1319-4816-B345-0856916EB801}";
const FAMILY: &str = "Example.App_8wekyb3d8bbwe";

fn msi(server: &Server, content: &[u8]) -> Msi {
    Msi {
        product: PRODUCT.to_owned(),
        version: "1.2.3".to_owned(),
        url: server.at("/packages/a.msi"),
        sha256: hex(&sha256(content)),
        arguments: "/quiet".to_owned(),
        timeout: 5,
        retries: 3,
        interval: 5,
    }
}

/// What the install alerts said.
fn alerts(server: &Server) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Alert { code: 1226, item: Some(item), .. } => {
            assert_eq!(
                item.meta.kind.as_deref(),
                Some("Reversed-Domain-Name:com.microsoft.mdm.win32csp_install")
            );
            assert!(item.source.as_ref().unwrap().uri.contains("/MSI/%7B6F7CB29F"));
            item.data.as_ref().and_then(|data| data.as_str()).map(str::to_owned)
        }
        _ => None,
    };
    server.state().events.iter().filter_map(text).collect()
}

#[tokio::test]
async fn an_msi_is_downloaded_checked_and_reported() {
    let (server, mut pc) = enrolled().await;
    server.state().packages.insert("/packages/a.msi".to_owned(), b"an installer".to_vec());
    pc.hold_jobs(true);
    let part = server.push(&csp::install_msi(&msi(&server, b"an installer")).unwrap());
    pc.session().await.unwrap();
    assert_eq!(server.codes(&part), [200, 202]);
    assert_eq!(pc.inventory().msis[PRODUCT].status, 10);
    pc.hold_jobs(false);
    pc.settle().await.unwrap();
    let package = pc.inventory().msis[PRODUCT].clone();
    assert_eq!((package.status, package.last_error, package.version.as_str()), (70, 0, "1.2.3"));
    let part = server.push(&csp::msi_status(PRODUCT).unwrap());
    let list = server.push(&csp::gets(&["./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI"]));
    pc.session().await.unwrap();
    assert_eq!(alerts(&server), ["0"]);
    assert_eq!(server.results(&part), ["70", "0"]);
    assert_eq!(server.results(&list), ["%7B6F7CB29F-1319-4816-B345-0856916EB801%7D"]);
    pc.session().await.unwrap();
    assert_eq!(alerts(&server).len(), 1, "said once");

    // A second Add is refused, and what it would set off fails with it or not: the job is not run again.
    let part = server.push(&csp::install_msi(&msi(&server, b"an installer")).unwrap()[..1]);
    pc.session().await.unwrap();
    assert_eq!(server.codes(&part), [418]);
    let part = server.push(&[csp::uninstall_msi(PRODUCT).unwrap()]);
    pc.session().await.unwrap();
    assert_eq!((server.codes(&part), pc.inventory().msis.len()), (vec![200], 0));
}

#[tokio::test]
async fn an_msi_that_is_another_fails() {
    let (server, mut pc) = enrolled().await;
    let job = csp::install_msi(&msi(&server, b"an installer")).unwrap();
    let part = server.push(&job[1..]);
    pc.session().await.unwrap();
    assert_eq!(server.codes(&part), [404], "Exec before Add");
    server.push(&job);
    pc.session().await.unwrap();
    let package = pc.inventory().msis[PRODUCT].clone();
    assert_eq!((package.status, package.last_error), (30, 0x8019_0194));
    server.state().packages.insert("/packages/a.msi".to_owned(), b"another".to_vec());
    let part = server.push(&job[1..]);
    pc.session().await.unwrap();
    assert_eq!(server.codes(&part), [202]);
    pc.session().await.unwrap();
    assert_eq!(pc.inventory().msis[PRODUCT].last_error, 0x8007_0570);
    assert_eq!(alerts(&server), ["2149122452", "2147943792"]);
}

#[tokio::test]
async fn an_msix_comes_and_goes() {
    let (server, mut pc) = enrolled().await;
    server.push(&csp::install_msix(FAMILY, &server.at("/packages/a.msix")).unwrap());
    pc.session().await.unwrap();
    assert_eq!(pc.inventory().msix[FAMILY].status, 2);
    server.state().packages.insert("/packages/a.msix".to_owned(), b"an app".to_vec());
    let part = server.push(&csp::install_msix(FAMILY, &server.at("/packages/a.msix")).unwrap());
    pc.session().await.unwrap();
    assert_eq!((server.codes(&part), pc.inventory().msix[FAMILY].status), (vec![418, 202], 3));
    let part = server.push(&csp::software().unwrap());
    pc.session().await.unwrap();
    assert!(server.results(&part)[1].contains(FAMILY));
    server.push(&[csp::uninstall_msix(FAMILY).unwrap()]);
    pc.session().await.unwrap();
    assert!(pc.inventory().msix.is_empty());
}

#[tokio::test]
async fn a_certificate_comes_by_scep() {
    let (server, mut pc) = enrolled().await;
    let ca_sha1 = hex(&Digest::Sha1.of(server.state().ca.cert_der()));
    let scep = |challenge: &str| Scep {
        id: "wifi".to_owned(),
        scope: Scope::Device,
        urls: vec![server.at("/scep/1")],
        challenge: challenge.to_owned(),
        eku: vec!["1.3.6.1.5.5.7.3.2".to_owned()],
        key_usage: 0xA0,
        subject: "CN=pc-1,O=Example".to_owned(),
        alternative_names: vec![(11, "ann@example.org".to_owned())],
        key_protection: 3,
        key_length: 2048,
        ca_sha1: ca_sha1.clone(),
        renews: false,
    };
    let part = server.push(&csp::scep(&scep(CHALLENGE)).unwrap());
    pc.session().await.unwrap();
    let codes = server.codes(&part);
    assert!(codes[0] == 404 && codes[1..].iter().all(|code| *code == 200), "{codes:?}");
    let base = "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/wifi";
    let leaf = |pc: &WindowsPc, name: &str| pc.node(&[base, "/", name].concat()).unwrap();
    assert_eq!(leaf(&pc, "Status"), "1");
    let cert = pc.inventory().certificates[0].clone();
    assert_eq!((cert.kind, cert.id.as_str()), ("SCEP", "wifi"));
    assert_eq!(leaf(&pc, "CertThumbprint"), hex(&Digest::Sha1.of(&cert.cert_der)).to_uppercase());
    assert_eq!(server.state().scep_requests.last().unwrap().2, "pc-1");

    // Nothing is added where something is.
    let part = server.push(&csp::scep(&scep("wrong")).unwrap()[1..2]);
    pc.session().await.unwrap();
    assert_eq!(server.codes(&part)[..2], [507, 418]);
    // A renewal that fails leaves what there was.
    server.push(&csp::scep(&Scep { renews: true, ..scep("wrong") }).unwrap());
    pc.session().await.unwrap();
    assert_eq!(leaf(&pc, "Status"), "16");
    assert_eq!(pc.inventory().certificates[0].cert_der, cert.cert_der);
    server.push(&csp::scep(&Scep { renews: true, ..scep(CHALLENGE) }).unwrap());
    pc.session().await.unwrap();
    assert_eq!(leaf(&pc, "Status"), "1");
    let second = pc.inventory().certificates[0].cert_der.clone();
    assert_ne!(second, cert.cert_der);
    // And anew after a failure, as for a machine that never had one.
    let part = server.push(&csp::scep(&scep(CHALLENGE)).unwrap());
    pc.session().await.unwrap();
    assert!(server.codes(&part).iter().all(|code| *code == 200), "{:?}", server.codes(&part));
    assert_ne!(pc.inventory().certificates[0].cert_der, second);
}

#[tokio::test]
async fn roots_are_named_by_their_thumbprints() {
    let (server, mut pc) = enrolled().await;
    let der = server.state().ca.cert_der().to_vec();
    let sha1 = hex(&Digest::Sha1.of(&der));
    let parts = [
        server.push(&[csp::trust_root(&"0".repeat(40), &der).unwrap()]),
        server.push(&[csp::trust_root(&sha1, &der).unwrap()]),
    ];
    pc.session().await.unwrap();
    assert_eq!((server.codes(&parts[0]), server.codes(&parts[1])), (vec![500], vec![200]));
    assert_eq!(pc.inventory().certificates[0].cert_der, der);
    server.push(&[csp::distrust_root(&sha1).unwrap()]);
    pc.session().await.unwrap();
    assert!(pc.inventory().certificates.is_empty());
}
