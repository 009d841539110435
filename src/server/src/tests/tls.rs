//! The two listeners' handshakes.

use super::World;
use crate::tls::{Contexts, Material};
use bellwether_certs::ca::DeviceCa;
use bellwether_certs::keys::KeyPair;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const NOW: i64 = 1_800_000_000_000;

pub struct Identity {
    pub cert: Vec<u8>,
    pub key: KeyPair,
}

/// A certificate of a CA that the server has never heard of.
pub fn foreign(now: i64) -> Identity {
    let ca = DeviceCa::create(now, [3; 16]).unwrap();
    let key = KeyPair::generate_p256().unwrap();
    let cert = ca.issue_device(&key.public_key_der().unwrap(), "stranger", [5; 16], now).unwrap();
    Identity { cert, key }
}

fn context(identity: Option<&Identity>) -> SslContext {
    let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    if let Some(identity) = identity {
        builder.set_certificate(&X509::from_der(&identity.cert).unwrap()).unwrap();
        let key = identity.key.pkey().private_key_to_pkcs8().unwrap();
        builder.set_private_key(&openssl::pkey::PKey::private_key_from_pkcs8(&key).unwrap()).unwrap();
    }
    builder.build()
}

pub fn connect(addr: SocketAddr, identity: Option<&Identity>) -> Result<SslStream<TcpStream>, String> {
    let tcp = TcpStream::connect(addr).map_err(|e| e.to_string())?;
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut ssl = Ssl::new(&context(identity)).unwrap();
    ssl.set_hostname("localhost").unwrap();
    ssl.connect(tcp).map_err(|e| e.to_string())
}

fn get(stream: &mut SslStream<TcpStream>, path: &str) -> String {
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Whether a handshake asked for a client certificate. TLS 1.2 does so in the clear.
fn asks(addr: SocketAddr) -> bool {
    let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let tcp = TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ssl = Ssl::new(&builder.build()).unwrap();
    ssl.connect(Tap { tcp, seen: seen.clone() }).unwrap();
    let bytes = seen.lock().unwrap().clone();
    // Handshake records in the clear: CertificateRequest is type 13, and its list of CAs must be empty.
    let mut at = 0;
    let mut messages = Vec::new();
    while let Some([22, _, _, a, b]) = bytes.get(at..at + 5).and_then(|h| <[u8; 5]>::try_from(h).ok()) {
        let length = usize::from(u16::from_be_bytes([a, b]));
        messages.extend_from_slice(&bytes[at + 5..at + 5 + length]);
        at += 5 + length;
    }
    let mut at = 0;
    while at + 4 <= messages.len() {
        let length = usize::from(messages[at + 1]) << 16
            | usize::from(messages[at + 2]) << 8
            | usize::from(messages[at + 3]);
        if messages[at] == 13 {
            let body = &messages[at + 4..at + 4 + length];
            assert_eq!(&body[body.len() - 2..], [0, 0], "no CA names");
            return true;
        }
        if messages[at] == 14 {
            break;
        }
        at += 4 + length;
    }
    false
}

#[derive(Debug)]
struct Tap {
    tcp: TcpStream,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl std::io::Read for Tap {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.tcp.read(buf)?;
        self.seen.lock().unwrap().extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

impl std::io::Write for Tap {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.tcp.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_never_asks_and_device_asks_without_names() {
    let world = World::new().await;
    let (public, device) = (world.server.public_addr, world.server.device_addr);
    assert!(!blocking(move || asks(public)).await);
    assert!(blocking(move || asks(device)).await);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_refuses_no_certificate() {
    let world = World::new().await;
    for addr in [world.server.public_addr, world.server.device_addr] {
        // None, one of a foreign CA, and one that expired long ago.
        for identity in [None, Some(foreign(NOW)), Some(foreign(1_000_000_000_000))] {
            let answer =
                blocking(move || get(&mut connect(addr, identity.as_ref()).unwrap(), "/livez")).await;
            assert_eq!(super::status(&answer), 200, "{answer}");
        }
    }
    // What the handshake lets in, the handler refuses, in Apple's terms and never with 401.
    let addr = world.server.device_addr;
    let answer = blocking(move || {
        let mut stream = connect(addr, Some(&foreign(NOW))).unwrap();
        let body = "<plist><dict><key>Status</key><string>Idle</string></dict></plist>";
        let head = format!("PUT /apple/mdm HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    })
    .await;
    assert!([400, 403].contains(&super::status(&answer)), "{answer}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_with_a_client_certificate_resume() {
    let world = World::new().await;
    let folder = world.folder.path().to_owned();
    let identity = foreign(NOW);
    let pem = |name: &str, bytes: Vec<u8>| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cert = pem("client.pem", X509::from_der(&identity.cert).unwrap().to_pem().unwrap());
    let key = pem("client.key", identity.key.pkey().private_key_to_pem_pkcs8().unwrap());
    for (addr, version) in [
        (world.server.device_addr, "-tls1_2"),
        (world.server.device_addr, "-tls1_3"),
        (world.server.public_addr, "-tls1_3"),
    ] {
        let session = folder.join(format!("session{version}-{}", addr.port()));
        // OpenSSL's own client is the judge: our binding cannot offer a session without unsafe code.
        let run = |way: &str| {
            let mut command = std::process::Command::new("openssl");
            command.args(["s_client", "-ign_eof", "-quiet", "-no_ign_eof", version, way]).arg(&session);
            command.arg("-cert").arg(&cert).arg("-key").arg(&key).args(["-connect", &addr.to_string()]);
            command
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn()
        };
        let talk = |way: &'static str| {
            let mut child = match run(way) {
                Ok(child) => child,
                Err(e) if std::env::var_os("CI").is_none() => {
                    println!("skipped: no openssl program ({e})");
                    return None;
                }
                Err(e) => panic!("no openssl program: {e}"),
            };
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
            drop(stdin);
            let _ = child.wait();
            Some(answer)
        };
        let Some(first) = tokio::task::block_in_place(|| talk("-sess_out")) else { return };
        assert_eq!(super::status(&first), 200, "{version}: {first}");
        let second = tokio::task::block_in_place(|| talk("-sess_in")).unwrap();
        assert_eq!(super::status(&second), 200, "{version}: {second}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_protocols_are_refused() {
    let world = World::new().await;
    let addr = world.server.public_addr;
    let refused = blocking(move || {
        let mut builder = SslContext::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_security_level(0);
        builder.set_min_proto_version(Some(SslVersion::TLS1)).unwrap();
        builder.set_max_proto_version(Some(SslVersion::TLS1_1)).unwrap();
        Ssl::new(&builder.build()).unwrap().connect(TcpStream::connect(addr).unwrap()).is_err()
    })
    .await;
    assert!(refused);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_without_a_restart() {
    let world = World::new().await;
    let addr = world.server.public_addr;
    let serial = move || {
        let stream = connect(addr, None).unwrap();
        let cert = stream.ssl().peer_certificate().unwrap();
        (cert.serial_number().to_bn().unwrap().to_hex_str().unwrap().to_string(), stream)
    };
    let (before, mut open) = blocking(serial).await;
    world.server.reload_tls().unwrap();
    let (after, _) = blocking(serial).await;
    assert_ne!(before, after);
    let answer = blocking(move || get(&mut open, "/livez")).await;
    assert_eq!(super::status(&answer), 200, "the open connection carries on");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_files_are_served_and_a_wrong_key_keeps_the_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let write = |seed: u8, with: Option<&KeyPair>| {
        use secrecy::ExposeSecret as _;
        let ca =
            bellwether_certs::ca::TlsCa::create(crate::clock::SystemClock::read().0, [seed; 16]).unwrap();
        let own = KeyPair::generate_p256().unwrap();
        let now = crate::clock::SystemClock::read().0;
        let leaf = ca
            .issue_server(&["localhost".into()], &own.public_key_der().unwrap(), [seed; 16], now, 90)
            .unwrap();
        std::fs::write(&cert, bellwether_certs::cert::ders_to_pem(&[&leaf[..], ca.cert_der()])).unwrap();
        std::fs::write(&key, with.unwrap_or(&own).to_pkcs8_pem().unwrap().expose_secret()).unwrap();
        leaf
    };
    let first = write(1, None);
    let flags = [("tls.certificate", cert.to_str().unwrap()), ("tls.key", key.to_str().unwrap())];
    let server = crate::serve::start(super::config(&folder.path().join("data"), &flags)).await.unwrap();
    let addr = server.public_addr;
    let shown = move || connect(addr, None).unwrap().ssl().peer_certificate().unwrap().to_der().unwrap();
    assert_eq!(blocking(shown).await, first);
    assert!(server.tls_ca_pem.is_empty(), "not our CA");
    write(2, Some(&KeyPair::generate_p256().unwrap()));
    assert!(server.reload_tls().is_err());
    assert_eq!(blocking(shown).await, first);
    let third = write(3, None);
    server.reload_tls().unwrap();
    assert_eq!(blocking(shown).await, third);
    server.stop().await;
}

#[test]
fn a_certificate_is_due_after_two_thirds() {
    let ca = bellwether_certs::ca::TlsCa::create(NOW, [1; 16]).unwrap();
    let key = KeyPair::generate_p256().unwrap();
    let leaf =
        ca.issue_server(&["localhost".into()], &key.public_key_der().unwrap(), [1; 16], NOW, 90).unwrap();
    let contexts = Contexts::new(&Material { chain: vec![leaf], key }).unwrap();
    let day = 86_400_000;
    assert!(!contexts.is_due(bellwether_model::Timestamp(NOW + 59 * day)));
    assert!(contexts.is_due(bellwether_model::Timestamp(NOW + 61 * day)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_than_the_tls_name_is_misdirected() {
    let flags =
        [("public_url", "https://localhost:8443"), ("device_url", "https://devices.example.org:8444")];
    let world = World::with(&flags).await;
    let addr = world.server.public_addr;
    let ask = |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        tokio::task::spawn_blocking(move || super::raw(addr, request.as_bytes()))
    };
    for (host, path, status) in [
        ("localhost", "/livez", 200),
        ("LOCALHOST:8443", "/livez", 200),
        ("devices.example.org", "/livez", 421),
        ("devices.example.org", "/api/v1/devices", 421),
        ("evil.example", "/livez", 421),
    ] {
        let answer = ask(host, path).await.unwrap();
        assert_eq!(super::status(&answer), status, "{host} {path}: {answer}");
    }
    let answer = ask("localhost", "/livez").await.unwrap();
    assert!(answer.to_ascii_lowercase().contains("strict-transport-security: max-age=31536000"), "{answer}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_addresses_count_behind_trusted_proxies_only() {
    for (trusted, seen) in [("", "127.0.0.1"), ("127.0.0.0/8,10.0.0.0/8", "203.0.113.9")] {
        let mut world = World::with(&[("trusted_proxies", trusted)]).await;
        let key = world.key().await;
        let invitation = serde_json::json!({ "platform": "apple", "test_only": true });
        let made = world
            .http
            .post(world.at("/api/v1/invitations"))
            .bearer_auth(&key)
            .header("x-forwarded-for", "198.51.100.1, 203.0.113.9, 10.1.2.3")
            .json(&invitation)
            .send()
            .await
            .unwrap();
        assert_eq!(made.status(), 201);
        world.server.engine.seal_once().await.unwrap();
        let audit: serde_json::Value = world
            .http
            .get(world.at("/api/v1/audit"))
            .bearer_auth(&key)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let sources: Vec<&str> =
            audit["items"].as_array().unwrap().iter().filter_map(|row| row["source"].as_str()).collect();
        assert!(sources.contains(&seen), "{sources:?}");
        assert!(!sources.contains(&"198.51.100.1"), "{sources:?}");
        world.server.stop().await;
    }
}
