//! Writes inputs to begin with, for the targets whose wire form has no file in the repository: certificates, requests,
//! signatures, SCEP messages, tokens, sealed blobs, and SyncML in WBXML. `run --seeds FOLDER` runs it.
//!
//! Instrumented code needs libFuzzer to be linked, so this is a target that stops before the first input.

#![no_main]

use std::path::{Path, PathBuf};

use bellwether_certs::ca::TlsCa;
use bellwether_certs::cert::ders_to_pem;
use bellwether_certs::cms::{self, Shape};
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::jwt;
use bellwether_fuzz::keys::{NOW, WORLD};
use bellwether_fuzz::sealed;
use bellwether_fuzz::session::Drive;
use bellwether_scep::client::{self, Style, Transaction};
use bellwether_windows::syncml::auth::{self, Secret};
use bellwether_windows::syncml::client::{Answer, Client, Habits, Identity};
use bellwether_windows::syncml::reader::{self, Limits};
use bellwether_windows::syncml::{Format, Request, Verb, wbxml, writer};

libfuzzer_sys::fuzz_target!(init: write_all(), |_bytes: &[u8]| {});

fn write_all() {
    let folder = PathBuf::from(std::env::var_os("BELLWETHER_FUZZ_SEEDS").expect("a folder to write to"));
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let to = folder.join(target);
        std::fs::create_dir_all(&to).expect("the folder");
        std::fs::write(to.join(name), bytes).expect("a seed");
    };
    let world = &*WORLD;
    let tls = TlsCa::create(NOW, [6; 16]).expect("a CA");
    for (name, der) in [
        ("ca", world.ca.cert_der()),
        ("identity", world.identity.as_slice()),
        ("self-signed", world.self_signed.as_slice()),
        ("tls-ca", tls.cert_der()),
    ] {
        write("certificate", name, der);
        write("asn1", name, der);
    }
    write(
        "certificate",
        "chain.pem",
        ders_to_pem(&[world.identity.as_slice(), world.ca.cert_der()]).as_bytes(),
    );

    let wishes = Wishes { ca: true, server_auth: true, dns_name: Some("intranet.example") };
    write("csr", "plain", &world.csr);
    write("csr", "wishes", &csr::build(&world.p256, "device", None, wishes).expect("a request"));
    for (name, shape) in [("device", Shape::DEVICE), ("modern", Shape::MODERN)] {
        let body = b"<plist version=\"1.0\"><dict><key>Status</key><string>Idle</string></dict></plist>";
        let signature =
            cms::sign_detached(body, &world.self_signed, &world.device, shape).expect("a signature");
        write("cms", name, &signature);
        write("asn1", name, &signature);
    }
    let profile = cms::sign_attached(b"<plist/>", &world.p256_cert, &world.p256, &[]).expect("a signature");
    write("cms", "profile", &profile);
    for (name, style) in [("standard", Style::STANDARD), ("macos", Style::MACOS), ("old", Style::OLD)] {
        let transaction = Transaction {
            ca_cert_der: world.ca.cert_der(),
            cert_der: &world.self_signed,
            key: &world.device,
            id: "tx-1",
            nonce: [7; 16],
            style,
        };
        let message = client::pkcs_req(&transaction, &world.csr).expect("a message");
        write("scep", name, &message);
        write("asn1", name, &message);
    }
    write("scep", "inside", &[&[2], world.csr.as_slice()].concat());
    write("scep", "query", b"\x07operation=PKIOperation&message=MIIB%2B+/w%3D%3D");
    write("scep", "caps", b"\x07operation=GetCACaps&message=ca");

    let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"});
    let token = jwt::sign_rs256(&header, &bellwether_fuzz::tokens::claims(), &world.device).expect("a token");
    write("token", "signed", token.as_bytes());
    write(
        "token",
        "claims",
        [b"!", bellwether_fuzz::tokens::claims().to_string().as_bytes()].concat().as_slice(),
    );
    write(
        "token",
        "keys",
        [b"#", bellwether_fuzz::tokens::key_set().to_string().as_bytes()].concat().as_slice(),
    );
    write("sealed", "blob", &sealed::seed());

    let syncml = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocols/windows/testdata/syncml");
    for file in std::fs::read_dir(syncml).expect("the test data").flatten() {
        let xml = std::fs::read(file.path()).expect("a file");
        if let Ok(message) = reader::read(&xml, &Limits::SESSION)
            && let Ok(bytes) = wbxml::write(&message)
        {
            write("windows_wbxml", &file.file_name().to_string_lossy(), &bytes);
        }
    }
    write("windows_session", "session", &session());
    std::process::exit(0);
}

/// The messages of a machine that obeys, from the beginning to the end of a session.
fn session() -> Vec<u8> {
    let identity = Identity {
        device_id: "B5B954E81FBCB94EB79BD08BE625F4EE".to_owned(),
        server: "https://mdm.example/ManagementServer/MDM.svc".to_owned(),
        name: "pc".to_owned(),
        secret: Secret::Basic(auth::basic("pc", "pw")),
        nonce: b"first".to_vec(),
    };
    let mut client = Client::new(identity, Habits::default(), 93, bellwether_certs::hash::md5);
    let mut drive = Drive::new();
    let mut messages = Vec::new();
    let mut next = Some(client.open(false, "user", Vec::new()));
    while let Some(message) = next.take().filter(|_| messages.len() < 6) {
        messages.push(writer::write(&message).expect("a message"));
        let reply = drive.exchange(&message, true, messages.len() - 1).expect("a reply");
        next = client.answer(&reply.message, &mut |request: &Request| match request.verb {
            Verb::Get => Answer::value(Format::Chr, "10.0.26200"),
            _ => Answer::status(200),
        });
    }
    messages.join(&0)
}
