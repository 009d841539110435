//! The other party: a server of a few lines, on the loopback, made of the protocol crates' server
//! halves. It checks every signature and believes nothing.

use std::collections::VecDeque;
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
use uuid::Uuid;

use crate::clock;
use crate::loopback::{self, Answer, Asked, Request};

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
    pub scep_requests: Vec<Asked>,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Listens on the loopback with TLS, one thread for each connection.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let now = clock::now_ms();
        let tls = TlsCa::create(now, random_bytes().unwrap()).unwrap();
        let acceptor = loopback::acceptor(&tls, now);
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
        loopback::accept(listener, acceptor, move |stream| {
            let presented = stream.ssl().peer_certificate().map(|cert| cert.to_der().unwrap());
            accepting.state().presented.extend(presented);
            loopback::serve(stream, |request| accepting.answer(request));
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
        let (answer, asked) = loopback::scep(&state.ca, CHALLENGE, query, body);
        state.scep_requests.extend(asked);
        answer
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
