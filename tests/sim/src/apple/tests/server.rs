//! The other party: a server of a few lines, on the loopback, made of the protocol crates' server
//! halves. It checks every signature and believes nothing.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};

use bellwether_apple::checkin::{self, Inbound, Message, Status};
use bellwether_apple::profile::{EnrollmentProfile, MdmSettings, PayloadUuids, ScepSettings};
use bellwether_apple::{Opaque, reply};
use bellwether_certs::KeyPair;
use bellwether_certs::ca::{DeviceCa, TlsCa};
use bellwether_certs::cert::{self, issued_by};
use bellwether_certs::cms;
use bellwether_certs::hash::random_bytes;
use bellwether_scep::server::{self, SignedBy};
use bellwether_scep::{FailInfo, MessageType, Operation};
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::clock;

pub const CHALLENGE: &str = "correct-horse-battery-staple";
pub const TOPIC: &str = "com.apple.mgmt.External.test";

pub struct State {
    pub ca: DeviceCa,
    pub signer: (Vec<u8>, KeyPair),
    /// Commands that wait: UUID and body.
    pub queue: VecDeque<(String, Vec<u8>)>,
    /// Every message whose signature was right, with the certificate that made it.
    pub seen: Vec<(Inbound, Vec<u8>)>,
    pub bootstrap: Option<Vec<u8>>,
    pub fingerprint: Option<Vec<u8>>,
    /// The client certificates that were presented in TLS handshakes.
    pub presented: Vec<Vec<u8>>,
    /// What the CA was asked: message type, cipher, common name.
    pub scep_requests: Vec<(MessageType, cms::ContentCipher, String)>,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Answer(u16, &'static str, Vec<u8>);

impl Server {
    /// Listens on the loopback with TLS, one thread for each connection.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let now = clock::now_ms();
        let tls = TlsCa::create(now, random_bytes().unwrap()).unwrap();
        let acceptor = acceptor(&tls, now);
        let state = State {
            ca: DeviceCa::create(now, random_bytes().unwrap()).unwrap(),
            signer: (tls.cert_der().to_vec(), tls.key().clone()),
            queue: VecDeque::new(),
            seen: Vec::new(),
            bootstrap: None,
            fingerprint: None,
            presented: Vec::new(),
            scep_requests: Vec::new(),
        };
        let server = Self { url, state: Arc::new(Mutex::new(state)) };
        let accepting = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (server, acceptor, stream) = (accepting.clone(), acceptor.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    if let Ok(stream) = acceptor.accept(stream) {
                        let presented = stream.ssl().peer_certificate().map(|cert| cert.to_der().unwrap());
                        server.state().presented.extend(presented);
                        server.serve(stream);
                    }
                });
            }
        });
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn link(&self) -> String {
        format!("{}/enroll/abc", self.url)
    }

    pub fn http(&self) -> crate::Http {
        let pem = cert::ders_to_pem(&[&self.state().signer.0]);
        crate::Http::new(pem.as_bytes()).unwrap()
    }

    pub fn push(&self, uuid: &str, command: &bellwether_apple::command::Command) {
        self.state().queue.push_back((uuid.to_owned(), command.encode(uuid).unwrap()));
    }

    /// The reports so far as (UUID, status).
    pub fn reports(&self) -> Vec<(String, Status)> {
        let state = self.state();
        let reports = state.seen.iter().filter_map(|(inbound, _)| match inbound {
            Inbound::Report(report) => Some((report.command_uuid.clone()?, report.status)),
            Inbound::CheckIn(_) => None,
        });
        reports.collect()
    }

    /// The types of the check-in messages so far.
    pub fn check_ins(&self) -> Vec<&'static str> {
        let state = self.state();
        let messages = state.seen.iter().filter_map(|(inbound, _)| match inbound {
            Inbound::CheckIn(message) => Some(message.message.message_type()),
            Inbound::Report(_) => None,
        });
        messages.collect()
    }

    pub fn profile(&self) -> Vec<u8> {
        let mut scep =
            ScepSettings::new(format!("{}/scep/1", self.url), Opaque::from(CHALLENGE), "Bellwether test");
        let state = self.state();
        let ca = bellwether_certs::hash::sha256(state.ca.cert_der()).to_vec();
        scep.ca_fingerprint = Some(state.fingerprint.clone().unwrap_or(ca));
        EnrollmentProfile {
            organization: "Test".to_owned(),
            display_name: "Test".to_owned(),
            description: None,
            identifier_base: "test.enrollment".to_owned(),
            uuids: PayloadUuids::derive(Uuid::nil(), "test.enrollment"),
            scep,
            mdm: MdmSettings::new(format!("{}/apple/mdm", self.url), TOPIC),
            roots: Vec::new(),
            scope: None,
        }
        .encode()
        .unwrap()
    }

    fn serve(&self, mut stream: impl Read + Write) {
        while let Some(request) = read(&mut stream) {
            let Answer(status, content_type, body) = self.answer(&request);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match (request.method.as_str(), path) {
            ("GET", "/enroll/abc") => Answer(200, "text/html", b"<form method=post>".to_vec()),
            ("POST", "/enroll/abc") => {
                let profile = self.profile();
                if query == "format=unsigned" {
                    return Answer(200, "application/x-apple-aspen-config", profile);
                }
                let (cert_der, key) = self.state().signer.clone();
                let signed = cms::sign_attached(&profile, &cert_der, &key, &[]).unwrap();
                Answer(200, "application/x-apple-aspen-config", signed)
            }
            (_, "/scep/1") => self.scep(query, &request.body),
            ("PUT", "/apple/mdm") => self.mdm(request),
            _ => Answer(404, "text/plain", Vec::new()),
        }
    }

    fn scep(&self, query: &str, body: &[u8]) -> Answer {
        let mut state = self.state();
        let message = match bellwether_scep::parse_query(query).unwrap() {
            Operation::GetCaCaps => return Answer(200, "text/plain", bellwether_scep::CAPS.into()),
            Operation::GetCaCert => {
                return Answer(200, "application/x-x509-ca-cert", state.ca.cert_der().to_vec());
            }
            Operation::PkiOperation(message) => message.unwrap_or_else(|| body.to_vec()),
        };
        let nonce = random_bytes().unwrap();
        let (ca, key) = (state.ca.cert_der().to_vec(), state.ca.key().clone());
        let refuse = |context: &server::RequestContext, why| {
            let answer = server::failure(context, why, &ca, &key, nonce).unwrap();
            Answer(200, bellwether_scep::MESSAGE_CONTENT_TYPE, answer)
        };
        let request = match server::decode(&message, &ca, &key) {
            Ok(request) => request,
            Err(server::Undecodable::WithContext { context, fail_info, .. }) => {
                return refuse(&context, fail_info);
            }
            Err(_) => return Answer(400, "text/plain", Vec::new()),
        };
        let cn = request.csr.subject_cn.clone().unwrap_or_default();
        state.scep_requests.push((request.message_type, request.cipher, cn));
        let challenge =
            request.csr.challenge_password.as_ref().map(|secret| secret.expose_secret() == CHALLENGE);
        let authorised = match request.signed_by {
            SignedBy::RequestKey => challenge == Some(true),
            SignedBy::Identity => issued_by(&request.signer.der, &ca),
        };
        if !authorised || request.csr.wants_ca {
            return refuse(&request.context, FailInfo::BadRequest);
        }
        let cert = state
            .ca
            .issue_device(&request.csr.spki_der, "Bellwether test", random_bytes().unwrap(), clock::now_ms())
            .unwrap();
        let answer = server::success(&request, &cert, &ca, &key, nonce).unwrap();
        Answer(200, bellwether_scep::MESSAGE_CONTENT_TYPE, answer)
    }

    fn mdm(&self, request: &Request) -> Answer {
        let refused = || Answer(400, "text/plain", Vec::new());
        let Some(header) = request.header("mdm-signature") else { return refused() };
        let Ok(signature) = cms::decode_mdm_signature_header(header) else { return refused() };
        let Ok(signer) = cms::verify_detached(&signature, &request.body) else { return refused() };
        let mut state = self.state();
        if !issued_by(&signer.cert_der, state.ca.cert_der()) {
            return Answer(403, "text/plain", Vec::new());
        }
        let Ok(inbound) = checkin::decode(&request.body, request.header("content-type")) else {
            return refused();
        };
        let mut body = Vec::new();
        match &inbound {
            Inbound::CheckIn(check_in) => match &check_in.message {
                Message::SetBootstrapToken(message) => {
                    state.bootstrap = message.token.as_ref().map(|token| token.expose().to_vec());
                }
                Message::GetBootstrapToken(_) => {
                    body = reply::bootstrap_token(state.bootstrap.as_deref()).unwrap();
                }
                _ => {}
            },
            Inbound::Report(report) => {
                if report.status != Status::NotNow
                    && let Some(uuid) = &report.command_uuid
                {
                    state.queue.retain(|(waiting, _)| waiting != uuid);
                }
                if report.status != Status::NotNow {
                    body = state.queue.front().map(|(_, body)| body.clone()).unwrap_or_default();
                }
            }
        }
        state.seen.push((inbound, signer.cert_der));
        Answer(200, "application/xml", body)
    }
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn acceptor(tls: &TlsCa, now: i64) -> SslAcceptor {
    let key = KeyPair::generate_p256().unwrap();
    let spki = key.public_key_der().unwrap();
    let cert = tls.issue_server(&["localhost".to_owned()], &spki, random_bytes().unwrap(), now, 30).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let pkey = PKey::private_key_from_pkcs8(key.to_pkcs8_der().unwrap().expose_secret()).unwrap();
    acceptor.set_private_key(&pkey).unwrap();
    acceptor.set_certificate(&X509::from_der(&cert).unwrap()).unwrap();
    // Asks for a certificate and judges none, as the device listener does.
    acceptor.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    acceptor.set_session_id_context(b"test").unwrap();
    acceptor.build()
}

fn read(stream: &mut impl Read) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&chunk[..count]);
    }
    Some(Request { method, target, headers, body })
}
