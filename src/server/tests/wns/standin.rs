//! Token endpoint and WNS: raw HTTP/1.1 over TLS, so that it can also be silent, hang up, or answer nonsense.

use super::{CHANNEL, SECRET, SID, target};
use bellwether::clock::SystemClock;
use bellwether::wakers::{Wns, WnsConfig};
use bellwether_certs::ca::TlsCa;
use bellwether_certs::cert::ders_to_pem;
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{WakeOutcome, WakeTarget, Waker as _};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::X509;
use secrecy::SecretString;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Answer::Http(status, headers, body.to_owned())
}

/// As login.live.com gives them: base64.
pub fn token(number: usize, life: u64) -> Answer {
    let body = format!(r#"{{"access_token":"T{number}+/=","token_type":"bearer","expires_in":{life}}}"#);
    http(200, &[("Content-Type", "application/json")], &body)
}

#[derive(Clone, Debug)]
pub enum Answer {
    Http(u16, Vec<(String, String)>, String),
    Late(Duration, Box<Answer>),
    /// Exactly this, and the end of the connection.
    Raw(&'static [u8]),
    /// The end of the connection.
    Close,
    /// For ten seconds.
    Silence,
    /// 200 and a body that never ends.
    Endless,
    EndlessAfter(u16),
}

#[derive(Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn is_token(&self) -> bool {
        self.path == "/accesstoken.srf"
    }
}

/// Token endpoint and WNS in one.
pub struct Standin {
    pub port: u16,
    pub ca: TlsCa,
    shared: Arc<Shared>,
}

#[derive(Default)]
pub struct Shared {
    seen: Mutex<Vec<Arc<Seen>>>,
    for_tokens: Mutex<VecDeque<Answer>>,
    for_pushes: Mutex<VecDeque<Answer>>,
    /// `Authorization` that gets 401.
    pub spent: Mutex<Vec<String>>,
    pub connections: AtomicUsize,
}

impl std::ops::Deref for Standin {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Standin {
    pub fn start() -> Self {
        let now = SystemClock::read().0;
        let ca = TlsCa::create(now, bellwether_certs::hash::random_bytes().unwrap()).unwrap();
        let key = KeyPair::generate_p256().unwrap();
        let names = ["127.0.0.1".into(), "localhost".into()];
        let leaf = ca.issue_server(&names, &key.public_key_der().unwrap(), [2; 16], now, 30).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_private_key(key.pkey()).unwrap();
        acceptor.set_certificate(&X509::from_der(&leaf).unwrap()).unwrap();
        let acceptor = acceptor.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                served.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    if let Ok(mut stream) = acceptor.accept(stream.unwrap()) {
                        while served.request(&mut stream).is_some() {}
                    }
                });
            }
        });
        Self { port, ca, shared }
    }

    pub fn waker(&self) -> Wns {
        self.waker_with(|_| ())
    }

    pub fn waker_with(&self, change: impl FnOnce(&mut WnsConfig)) -> Wns {
        let mut config = WnsConfig::new(SID.to_owned(), SecretString::from(SECRET));
        config.token_endpoint = self.token_endpoint().parse().unwrap();
        config.hosts = vec![format!("127.0.0.1:{}", self.port)];
        config.trust_pem = Some(ders_to_pem(&[self.ca.cert_der()]).into_bytes());
        change(&mut config);
        Wns::new(config).unwrap()
    }

    pub fn token_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}/accesstoken.srf", self.port)
    }

    pub fn target(&self) -> WakeTarget {
        target(&format!("https://127.0.0.1:{}{CHANNEL}", self.port))
    }

    /// Many at once.
    pub async fn crowd(&self, waker: &Arc<Wns>, count: usize) -> Vec<WakeOutcome> {
        let mut wakes = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (waker, target) = (Arc::clone(waker), self.target());
            wakes.spawn(async move { waker.wake(None, &target).await });
        }
        wakes.join_all().await
    }
}

impl Shared {
    pub fn token_answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.for_tokens.lock().unwrap().extend(answers);
    }

    pub fn push_answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.for_pushes.lock().unwrap().extend(answers);
    }

    pub fn seen(&self) -> Vec<Arc<Seen>> {
        self.seen.lock().unwrap().clone()
    }

    pub fn tokens(&self) -> usize {
        self.seen().iter().filter(|seen| seen.is_token()).count()
    }

    pub fn pushes(&self) -> usize {
        self.seen().iter().filter(|seen| !seen.is_token()).count()
    }

    /// One request; nothing: the connection is over.
    fn request(&self, stream: &mut SslStream<TcpStream>) -> Option<()> {
        let seen = Arc::new(read(stream)?);
        let answer = {
            let mut all = self.seen.lock().unwrap();
            all.push(Arc::clone(&seen));
            let tokens = all.iter().filter(|seen| seen.is_token()).count();
            let script = if seen.is_token() { &self.for_tokens } else { &self.for_pushes };
            let spent = self.spent.lock().unwrap();
            let refused = seen.header("authorization").is_some_and(|a| spent.iter().any(|s| s == a));
            match script.lock().unwrap().pop_front() {
                Some(answer) => answer,
                None if refused => http(401, &[], ""),
                None if seen.is_token() => token(tokens, 86_400),
                None => http(200, &[("X-WNS-Status", "received"), ("X-WNS-Msg-Id", "1")], ""),
            }
        };
        write(stream, answer)
    }
}

fn read(stream: &mut SslStream<TcpStream>) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap().split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    assert_eq!(words.next(), Some("HTTP/1.1"));
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let mut seen = Seen { method, path, headers: lines.map(header).collect(), body: Vec::new() };
    // WNS wants it.
    seen.body = vec![0; seen.header("content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut seen.body).unwrap();
    Some(seen)
}

fn write(stream: &mut SslStream<TcpStream>, answer: Answer) -> Option<()> {
    match answer {
        Answer::Http(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            if status == 204 {
                text = "HTTP/1.1 204 X\r\n".to_owned();
            }
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            stream.write_all(format!("{text}\r\n{body}").as_bytes()).ok()
        }
        Answer::Late(pause, answer) => {
            std::thread::sleep(pause);
            write(stream, *answer)
        }
        Answer::Raw(bytes) => {
            stream.write_all(bytes).ok();
            let _ = stream.shutdown();
            None
        }
        Answer::Close => None,
        Answer::Silence => {
            std::thread::sleep(Duration::from_secs(10));
            None
        }
        Answer::Endless => write(stream, Answer::EndlessAfter(200)),
        Answer::EndlessAfter(status) => {
            let head = format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).ok()?;
            loop {
                stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()).ok()?;
            }
        }
    }
}
