use super::*;
use crate::clock::SystemClock;
use bellwether_certs::ca::TlsCa;
use bellwether_certs::cert::ders_to_pem;
use bellwether_certs::jwt;
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{Entra, EntraRefusal};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::X509;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

type Stream = SslStream<TcpStream>;

/// An https server on this machine. Each request is answered by `answer`, which gets the path. Dropping it waits for its
/// thread, which may be writing to a connection that the client's own tasks must close first: hence more than one thread
/// for every test.
struct Standin {
    port: u16,
    trust: Vec<u8>,
    requests: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Standin {
    fn start(answer: impl Fn(&str, &mut Stream) + Send + 'static) -> Self {
        Self::named("127.0.0.1", answer)
    }

    fn named(name: &str, answer: impl Fn(&str, &mut Stream) + Send + 'static) -> Self {
        let now = SystemClock::read().0;
        let ca = TlsCa::create(now, [1; 16]).unwrap();
        let key = KeyPair::generate_p256().unwrap();
        let leaf = ca.issue_server(&[name.into()], &key.public_key_der().unwrap(), [2; 16], now, 30).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate(&X509::from_der(&leaf).unwrap()).unwrap();
        acceptor.set_private_key(key.pkey()).unwrap();
        let acceptor = acceptor.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (requests, over) = (Arc::clone(&requests), Arc::clone(&over));
            move || {
                for tcp in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let tcp = tcp.unwrap();
                    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
                    tcp.set_write_timeout(Some(TIMEOUT)).unwrap();
                    let Ok(mut stream) = acceptor.accept(tcp) else { continue };
                    let head = head(&mut stream);
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    requests.lock().unwrap().push(head);
                    answer(&path, &mut stream);
                    let _ = stream.shutdown();
                }
            }
        });
        let trust = ders_to_pem(&[ca.cert_der()]).into_bytes();
        Self { port, trust, requests, over, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/{ENTRA_TENANT}/discovery/v2.0/keys", self.port)
    }

    fn client(&self) -> EntraKeys {
        EntraKeys::with_timeout(&self.url(), Some(&self.trust), TIMEOUT).unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn head(stream: &mut Stream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn answer(stream: &mut Stream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_of_the_tenant_arrives_as_it_is() {
    let microsoft = Standin::start(|path, stream| answer(stream, "200 OK", format!("of {path}").as_bytes()));
    let body = microsoft.client().fetch(TENANT).await.unwrap();
    assert_eq!(body, format!("of /{TENANT}/discovery/v2.0/keys").as_bytes());
    let [request] = microsoft.requests().try_into().unwrap();
    assert!(request.starts_with("GET /") && !request.to_ascii_lowercase().contains("cookie"), "{request}");
    for odd in ["", "../common", "common", "x/y", "72f988bf?"] {
        assert!(microsoft.client().fetch(odd).await.is_err(), "{odd}");
    }
    assert_eq!(microsoft.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_18_keys_come_from_the_configured_address_only() {
    // Another place, a certificate of another CA, one for another name, no TLS.
    let elsewhere = Standin::start(|_, stream| answer(stream, "200 OK", b"{}"));
    for code in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let to = elsewhere.url();
        let microsoft = Standin::start(move |_, stream| {
            let text = format!("HTTP/1.1 {code}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(text.as_bytes());
        });
        let client = microsoft.client();
        let error = client.fetch(TENANT).await.unwrap_err();
        assert!(error.contains(&code[..3]), "{error}");
    }
    assert!(elsewhere.requests().is_empty());

    let stranger = Standin::start(|_, stream| answer(stream, "200 OK", b"{}"));
    let client = EntraKeys::with_timeout(&stranger.url(), Some(&elsewhere.trust), TIMEOUT).unwrap();
    let error = client.fetch(TENANT).await.unwrap_err();
    assert!(error.contains("certificate verify failed"), "{error}");
    let client = EntraKeys::with_timeout(&stranger.url(), None, TIMEOUT).unwrap();
    assert!(client.fetch(TENANT).await.is_err(), "the system does not trust it");
    let misnamed = Standin::named("other.example.org", |_, stream| answer(stream, "200 OK", b"{}"));
    assert!(misnamed.client().fetch(TENANT).await.is_err());
    assert!(stranger.requests().is_empty() && misnamed.requests().is_empty());

    // It would answer, and hears nothing.
    let plain = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/{ENTRA_TENANT}/keys", plain.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        let heard = stream.read(&mut [0; 4096]).unwrap_or(0);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        heard
    });
    let client = EntraKeys::with_timeout(&url, None, TIMEOUT).unwrap();
    assert!(client.fetch(TENANT).await.is_err());
    drop(TcpStream::connect(url.split('/').nth(2).unwrap()));
    assert_eq!(heard.join().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_answers_than_a_document_are_failures() {
    for status in ["404 Not Found", "500 Oops", "429 Too Many", "204 No Content", "206 Partial Content"] {
        let microsoft = Standin::start(move |_, stream| answer(stream, status, b""));
        let error = microsoft.client().fetch(TENANT).await.unwrap_err();
        assert!(error.contains(&status[..3]), "{error}");
    }
    let short = Standin::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\"");
    });
    assert!(short.client().fetch(TENANT).await.is_err());
    let nobody = Standin::start(|_, _| ());
    assert!(nobody.client().fetch(TENANT).await.is_err());
    let (url, trust) = (nobody.url(), nobody.trust.clone());
    drop(nobody);
    let gone = EntraKeys::with_timeout(&url, Some(&trust), TIMEOUT).unwrap();
    assert!(gone.fetch(TENANT).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_are_not_read_to_the_end() {
    let exact = Standin::start(|_, stream| answer(stream, "200 OK", &vec![b' '; MAX_ANSWER]));
    assert_eq!(exact.client().fetch(TENANT).await.unwrap().len(), MAX_ANSWER);
    let over = Standin::start(|_, stream| answer(stream, "200 OK", &vec![b' '; MAX_ANSWER + 1]));
    assert!(over.client().fetch(TENANT).await.unwrap_err().contains("1 MiB"));
    // Without an end, and without saying how long.
    let written = Arc::new(Mutex::new(0_usize));
    let endless = Standin::start({
        let written = Arc::clone(&written);
        move |_, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            while stream.write_all(&[b' '; 65536]).is_ok() {
                *written.lock().unwrap() += 65536;
            }
        }
    });
    assert!(endless.client().fetch(TENANT).await.unwrap_err().contains("1 MiB"));
    drop(endless);
    assert!(*written.lock().unwrap() < 32 * MAX_ANSWER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_answers_end() {
    let silent = Standin::start(|_, _| std::thread::sleep(Duration::from_millis(1500)));
    let dripping = Standin::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        for _ in 0..30 {
            if stream.write_all(b" ").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for server in [silent, dripping] {
        let client =
            EntraKeys::with_timeout(&server.url(), Some(&server.trust), Duration::from_millis(300)).unwrap();
        let begun = Instant::now();
        let error = client.fetch(TENANT).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_millis(1200), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_verified_with_fetched_keys() {
    let key = KeyPair::generate_rsa2048().unwrap();
    let published = json!({ "keys": [jwt::public_jwk("one", &key).unwrap()] }).to_string();
    let microsoft = Standin::start(move |_, stream| answer(stream, "200 OK", published.as_bytes()));
    let dir = tempfile::tempdir().unwrap();
    let trust = dir.path().join("trust.pem");
    std::fs::write(&trust, &microsoft.trust).unwrap();
    let flags = [
        ("windows.entra.tenants", TENANT.to_owned()),
        ("windows.entra.audiences", "https://mdm.example.org".to_owned()),
        ("windows.entra.keys_url", microsoft.url()),
        ("windows.entra.trust", trust.display().to_string()),
    ];
    let flags = flags.map(|(name, value)| (name.to_owned(), value)).into();
    let layers = crate::config::Sources { flags, ..Default::default() }.load().unwrap();
    let config = crate::config::Config::from_layers(&layers).unwrap().entra.unwrap();
    let entra = Entra::new(config.settings().unwrap(), Arc::new(EntraKeys::new(&config).unwrap())).unwrap();

    let now = SystemClock::read();
    let claims = json!({
        "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT, "aud": "https://mdm.example.org",
        "exp": now.0 / 1000 + 600, "scp": "mdm_delegation", "upn": "ada@example.org",
        "oid": "11111111-2222-4333-8444-555555555555",
    });
    let token = jwt::sign_rs256(&json!({ "alg": "RS256", "kid": "one" }), &claims, &key).unwrap();
    assert_eq!(entra.verify(token.as_bytes(), now).await.unwrap().upn, "ada@example.org");
    assert_eq!(microsoft.requests().len(), 1);

    // An address that nobody serves leaves words for the audit.
    drop(microsoft);
    let entra = Entra::new(config.settings().unwrap(), Arc::new(EntraKeys::new(&config).unwrap())).unwrap();
    let refused = entra.verify(token.as_bytes(), now).await.unwrap_err();
    assert!(matches!(refused, EntraRefusal::NoKeys(_)), "{refused}");
    assert!(!refused.to_string().contains(&token), "{refused}");
}

#[test]
fn unusable_trust_is_said_at_the_start() {
    let broken = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let refused = EntraKeys::with_timeout("https://x.example/{tenant}", Some(broken), TIMEOUT);
    assert!(matches!(refused, Err(EntraKeysError::Trust(_))));
    let flags = [
        ("windows.entra.tenants", TENANT),
        ("windows.entra.audiences", "x"),
        ("windows.entra.trust", "/nonexistent/trust.pem"),
    ];
    let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let layers = crate::config::Sources { flags, ..Default::default() }.load().unwrap();
    let config = crate::config::Config::from_layers(&layers).unwrap().entra.unwrap();
    let error = EntraKeys::new(&config).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/trust.pem"), "{error}");
}
