//! The other party: a server of a few lines, on the loopback, made of the protocol crate's server half. It checks
//! every proof and believes nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};

use bellwether_certs::ca::{DeviceCa, TlsCa};
use bellwether_certs::cert::{self, CertInfo, issued_by};
use bellwether_certs::hash::{Digest, random_bytes};
use bellwether_certs::{cms, csr};
use bellwether_windows::csp::Step;
use bellwether_windows::enrollment::provisioning::{
    Account, Certificate, ClientCredential, DmClient, Encoding, Enrollment, KeyStore, Nonce, Poll,
    ProviderId, RenewalSchedule, RenewedIdentity, Retry, Scheme, Secret as Password, ServerCredential,
    Subject,
};
use bellwether_windows::enrollment::{
    AuthPolicy, Authentication, CONTENT_TYPE, Credential, DiscoverResponse, EnrollmentPolicy, Envelope,
    Exchange, Fault, IssuedToken, Limits, Message, Opaque, Provisioning, ReplyHeader, RequestSecurityToken,
    Subcode, Timestamp, TokenRequest, Version, address,
};
use bellwether_windows::syncml::auth::{self, Nonces, Secret};
use bellwether_windows::syncml::reader::{self, Limits as SessionLimits};
use bellwether_windows::syncml::session::{Bounds, Event, Offer, Outcome, Proof, ServerProof, Session};
use bellwether_windows::syncml::{Command, wbxml, writer};

use super::super::machine::md5;
use crate::clock;
use crate::loopback::{self, Answer, Asked, Request};

pub const USER: &str = "ann@example.org";
pub const CODE: &str = "K7PQ-3XWD";
pub const CHALLENGE: &str = "correct-horse-battery-staple";
const PROVIDER: &str = "Bellwether";

/// What the server does otherwise than usual.
#[derive(Default, Clone)]
pub struct Manner {
    pub federated: bool,
    pub wbxml: bool,
    pub basic: bool,
    pub sync_2: bool,
    pub signing: bool,
    pub no_policy: bool,
    /// Spoils the provisioning document.
    pub spoil: Option<fn(&mut Enrollment)>,
}

pub struct State {
    pub ca: DeviceCa,
    tls_ca_der: Vec<u8>,
    pub manner: Manner,
    /// How often the code or token was presented.
    pub presented: u32,
    pub requests: Vec<RequestSecurityToken>,
    pub enrolled: HashMap<String, Enrolled>,
    sessions: HashMap<(String, String), Session>,
    pub queue: VecDeque<Offer>,
    pub events: Vec<Event>,
    pub outcomes: Vec<Outcome>,
    /// Messages whose `MDM-Signature` was right.
    pub signed: usize,
    pub packages: BTreeMap<String, Vec<u8>>,
    pub scep_requests: Vec<Asked>,
    parts: u32,
}

/// What the server keeps of a machine.
pub struct Enrolled {
    secret: Secret,
    nonces: Nonces,
    server_secret: Secret,
    store: KeyStore,
    /// The identities that count, the newest last.
    pub certs: Vec<Vec<u8>>,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let now = clock::now_ms();
        let tls = TlsCa::create(now, random_bytes().unwrap()).unwrap();
        let state = State {
            ca: DeviceCa::create(now, random_bytes().unwrap()).unwrap(),
            tls_ca_der: tls.cert_der().to_vec(),
            manner: Manner::default(),
            presented: 0,
            requests: Vec::new(),
            enrolled: HashMap::new(),
            sessions: HashMap::new(),
            queue: VecDeque::new(),
            events: Vec::new(),
            outcomes: Vec::new(),
            signed: 0,
            packages: BTreeMap::new(),
            scep_requests: Vec::new(),
            parts: 0,
        };
        let server = Self { url, state: Arc::new(Mutex::new(state)) };
        let accepting = server.clone();
        loopback::accept(listener, loopback::acceptor(&tls, now), move |stream| {
            let shown = stream.ssl().peer_certificate().map(|cert| cert.to_der().unwrap());
            loopback::serve(stream, |request| accepting.answer(request, shown.as_deref()));
        });
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn ca_pem(&self) -> Vec<u8> {
        cert::ders_to_pem(&[&self.state().tls_ca_der]).into_bytes()
    }

    pub fn http(&self) -> crate::Http {
        crate::Http::new(&self.ca_pem()).unwrap()
    }

    pub fn discovery(&self) -> String {
        self.at(address::DISCOVERY_PATH)
    }

    pub fn link(&self) -> String {
        self.at(&format!("/enroll/{CODE}"))
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Queues steps that travel together; the name of the part.
    pub fn push(&self, steps: &[Step]) -> String {
        self.push_commands(steps.iter().map(Step::to_command).collect())
    }

    pub fn push_commands(&self, commands: Vec<Command>) -> String {
        let mut state = self.state();
        state.parts += 1;
        let part = state.parts.to_string();
        state.queue.push_back(Offer { part: part.clone(), commands });
        part
    }

    /// The codes of the statuses of a part, in order.
    pub fn codes(&self, wanted: &str) -> Vec<u16> {
        let code = |event: &Event| match event {
            Event::Status { part, code, .. } if part == wanted => Some(*code),
            _ => None,
        };
        self.state().events.iter().filter_map(code).collect()
    }

    /// The texts of the results of a part, in order.
    pub fn results(&self, wanted: &str) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Results { part, item, .. } if part == wanted => {
                item.data.as_ref().and_then(|data| data.as_str()).map(str::to_owned)
            }
            _ => None,
        };
        self.state().events.iter().filter_map(text).collect()
    }

    fn answer(&self, request: &Request, shown: Option<&[u8]>) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match (request.method.as_str(), path) {
            ("GET", "/enroll/K7PQ-3XWD") => {
                let link = address::deep_link(USER, &self.discovery(), None).unwrap();
                let page = format!("<p><a href=\"{}\">Enroll</a>", link.replace('&', "&amp;"));
                Answer(200, "text/html", page.into_bytes())
            }
            ("GET", address::DISCOVERY_PATH) => Answer(200, "text/html", Vec::new()),
            ("POST", path) if path.starts_with("/EnrollmentServer/") && path.ends_with(".svc") => {
                self.soap(&request.body, shown)
            }
            (_, "/EnrollmentServer/Auth") => auth_page(&request.method, query, &request.body),
            ("POST", "/ManagementServer/MDM.svc") => self.session(request, shown),
            (_, "/scep/1") => {
                let mut state = self.state();
                let (answer, asked) = loopback::scep(&state.ca, CHALLENGE, query, &request.body);
                state.scep_requests.extend(asked);
                answer
            }
            ("GET", path) => match self.state().packages.get(path) {
                Some(package) => Answer(200, "application/octet-stream", package.clone()),
                None => Answer(404, "text/plain", Vec::new()),
            },
            _ => Answer(404, "text/plain", Vec::new()),
        }
    }

    fn soap(&self, body: &[u8], shown: Option<&[u8]>) -> Answer {
        let envelope = Envelope::read(body, &Limits::REQUEST).ok().unwrap();
        let header = ReplyHeader::to(envelope.header());
        let message = envelope.message().unwrap();
        let exchange = message.exchange();
        match self.reply(&envelope, &message, &header, shown) {
            Ok(body) => Answer(200, CONTENT_TYPE, body),
            Err(fault) => Answer(Fault::HTTP_STATUS, CONTENT_TYPE, fault.encode(exchange, &header).unwrap()),
        }
    }

    fn reply(
        &self,
        envelope: &Envelope,
        message: &Message,
        header: &ReplyHeader,
        shown: Option<&[u8]>,
    ) -> Result<Vec<u8>, Fault> {
        assert_eq!(
            message.exchange() == Exchange::Discover,
            envelope.credential().unwrap_or(None).is_none()
                && !matches!(message, Message::RequestSecurityToken(_))
        );
        let mut state = self.state();
        match message {
            Message::Discover(request) => {
                let federated = state.manner.federated;
                let preference = if federated {
                    [AuthPolicy::Federated, AuthPolicy::OnPremise]
                } else {
                    [AuthPolicy::OnPremise, AuthPolicy::Federated]
                };
                let authentication = match request.choose(&preference) {
                    Some(AuthPolicy::OnPremise) => Authentication::OnPremise,
                    Some(AuthPolicy::Federated) => {
                        Authentication::Federated { service_url: self.at("/EnrollmentServer/Auth") }
                    }
                    _ => return Err(Fault::no_common_policy("1")),
                };
                let response = DiscoverResponse {
                    authentication,
                    enrollment_version: request.request_version.negotiate(Version::V4),
                    policy_url: (!state.manner.no_policy).then(|| self.at("/EnrollmentServer/Policy.svc")),
                    enrollment_url: self.at("/EnrollmentServer/Enrollment.svc"),
                };
                Ok(response.encode(header).unwrap())
            }
            Message::GetPolicies(_) => {
                state.authenticate(envelope)?;
                Ok(EnrollmentPolicy::new(31_536_000, 3_888_000).unwrap().encode(header).unwrap())
            }
            Message::RequestSecurityToken(request) => {
                let document = match &request.request {
                    TokenRequest::Issue(pkcs10) => {
                        state.authenticate(envelope)?;
                        Provisioning::Enrollment(Box::new(state.issue(
                            request,
                            pkcs10.as_der(),
                            &self.url,
                        )?))
                    }
                    TokenRequest::Renew(pkcs7) => Provisioning::Renewal(state.renew(pkcs7.as_der(), shown)?),
                };
                state.requests.push(request.clone());
                let now = u64::try_from(clock::now_ms()).unwrap();
                let header = header.clone().with_timestamp(Timestamp::five_minutes(now));
                Ok(IssuedToken::new(document.encode().ok().unwrap()).encode(&header).unwrap())
            }
            _ => Err(Fault::new(Subcode::MessageFormat, "unknown", "1")),
        }
    }

    fn session(&self, request: &Request, shown: Option<&[u8]>) -> Answer {
        let mut guard = self.state();
        let state = &mut *guard;
        let is_wbxml = request.header("content-type") == Some("application/vnd.syncml.dm+wbxml");
        let message = if is_wbxml {
            wbxml::read(&request.body, &SessionLimits::SESSION)
        } else {
            reader::read(&request.body, &SessionLimits::SESSION)
        };
        let Ok(message) = message else { return Answer(400, "text/plain", Vec::new()) };
        let device = message.header.source.uri.clone();
        let Some(enrolled) = state.enrolled.get_mut(&device) else {
            return Answer(403, "text/plain", Vec::new());
        };
        let signer = request.header("mdm-signature").map(|header| {
            let signature = cms::decode_mdm_signature_header(header).unwrap();
            let signer = cms::verify_detached(&signature, &request.body).unwrap();
            assert!(signer.signing_time_ms.is_some());
            signer.cert_der
        });
        state.signed += usize::from(signer.is_some());
        let known = |cert: &[u8]| enrolled.certs.iter().any(|known| known == cert);
        let transport = signer.as_deref().is_some_and(known) || shown.is_some_and(known);
        let key = (device.clone(), message.header.session_id.clone());
        let address = self.at("/ManagementServer/MDM.svc");
        let session = state
            .sessions
            .entry(key)
            .or_insert_with(|| Session::new(&*message.header.session_id, device, address));
        let fresh: [u8; 16] = random_bytes().unwrap();
        let proof = Proof {
            transport,
            secret: Some(&enrolled.secret),
            nonces: &mut enrolled.nonces,
            fresh: &fresh,
            md5,
        };
        let received = session.receive(&message, proof, &Bounds::default(), 0).unwrap();
        state.events.extend(received.events);
        state.outcomes.push(received.outcome);
        if received.outcome == Outcome::Aborted {
            return Answer(200, writer::CONTENT_TYPE, Vec::new());
        }
        let proof = ServerProof { secret: &enrolled.server_secret, name: PROVIDER, md5 };
        // A part that is out stays in the queue until its status comes.
        let done: Vec<String> = state.events.iter().filter_map(finished).collect();
        state.queue.retain(|offer| !done.contains(&offer.part));
        let offers: Vec<Offer> = state.queue.iter().cloned().collect();
        let reply = session.reply(&offers, Some(&proof), &Bounds::default()).unwrap();
        if is_wbxml {
            return Answer(200, "application/vnd.syncml.dm+wbxml", wbxml::write(&reply.message).unwrap());
        }
        Answer(200, writer::CONTENT_TYPE, writer::write(&reply.message).unwrap())
    }
}

fn finished(event: &Event) -> Option<String> {
    match event {
        Event::Status { part, remaining: 0, .. } => Some(part.clone()),
        _ => None,
    }
}

impl State {
    fn authenticate(&mut self, envelope: &Envelope) -> Result<(), Fault> {
        self.presented += 1;
        let right = match envelope.credential() {
            Ok(Some(Credential::UsernameToken { username, password })) => {
                username == USER && password == Opaque::from(CODE)
            }
            Ok(Some(Credential::UserToken(token))) => token == Opaque::from("the <\"token\">"),
            Ok(Some(Credential::Jwt(token))) => token == Opaque::from("e30.e30."),
            _ => false,
        };
        if right { Ok(()) } else { Err(Fault::new(Subcode::Authentication, "wrong", "1")) }
    }

    fn certify(&self, pkcs10: &[u8]) -> Result<Vec<u8>, Fault> {
        let refused = |_| Fault::new(Subcode::CertificateRequest, "wrong request", "1");
        let request = csr::parse(pkcs10).map_err(refused)?;
        let (random, now) = (random_bytes().unwrap(), clock::now_ms());
        Ok(self.ca.issue_device(&request.spki_der, "Bellwether PC", random, now).unwrap())
    }

    fn issue(
        &mut self,
        request: &RequestSecurityToken,
        pkcs10: &[u8],
        url: &str,
    ) -> Result<Enrollment, Fault> {
        let cert = self.certify(pkcs10)?;
        let store = KeyStore::from(request.context.enrollment_type().unwrap());
        let device = request.context.device_id().unwrap().unwrap().as_str().to_owned();
        let (nonce, other): ([u8; 16], [u8; 16]) = (random_bytes().unwrap(), random_bytes().unwrap());
        let scheme = if self.manner.basic { Scheme::Basic } else { Scheme::Digest };
        let secret = if self.manner.basic {
            Secret::Basic(auth::basic(&device, "machine-password"))
        } else {
            Secret::Md5(auth::secret_md5(&device, "machine-password", md5))
        };
        let enrolled = Enrolled {
            secret,
            nonces: Nonces::new(nonce),
            server_secret: Secret::Md5(auth::secret_md5(PROVIDER, "server-password", md5)),
            store,
            certs: vec![cert.clone()],
        };
        self.enrolled.insert(device.clone(), enrolled);
        self.sessions.retain(|(of, _), _| *of != device);
        let mut enrollment = Enrollment {
            root: Some(certificate(self.ca.cert_der())),
            intermediate: None,
            identity: certificate(&cert),
            store,
            renewal: Some(RenewalSchedule { period_days: 42, retry_days: 4 }),
            account: Account {
                provider_id: ProviderId::parse(PROVIDER).unwrap(),
                name: "Bellwether of Example".into(),
                address: format!("{url}/ManagementServer/MDM.svc"),
                retry: Retry::default(),
                encoding: if self.manner.wbxml { Encoding::Wbxml } else { Encoding::Xml },
                subject: Subject::common_name("Bellwether PC").unwrap(),
                role: None,
                server: ServerCredential {
                    secret: Password::new("server-password").unwrap(),
                    nonce: Nonce::new(&other[..]).unwrap(),
                },
                client: ClientCredential {
                    scheme,
                    name: device,
                    secret: Password::new("machine-password").unwrap(),
                    nonce: Nonce::new(&nonce[..]).unwrap(),
                },
            },
            client: DmClient {
                ent_dm_id: "0193b3c0-0000-7000-8000-000000000001".into(),
                upn: Some(USER.into()),
                ent_device_name: None,
                sync_application_version: self.manner.sync_2.then_some(Version { major: 2, minor: 0 }),
                require_message_signing: self.manner.signing,
                poll: Poll::AFTER_ENROLLMENT,
            },
        };
        if let Some(spoil) = self.manner.spoil {
            spoil(&mut enrollment);
        }
        Ok(enrollment)
    }

    /// The signer must be the machine's current identity, and what TLS showed must be the same.
    fn renew(&mut self, pkcs7: &[u8], shown: Option<&[u8]>) -> Result<RenewedIdentity, Fault> {
        let wrong = || Fault::new(Subcode::MessageFormat, "wrong signature", "1");
        let (pkcs10, signer) = cms::verify_attached(pkcs7).map_err(|_| wrong())?;
        if shown.is_some_and(|shown| shown != signer.cert_der)
            || !issued_by(&signer.cert_der, self.ca.cert_der())
        {
            return Err(wrong());
        }
        let cert = self.certify(&pkcs10)?;
        let mut all = self.enrolled.values_mut();
        let enrolled = all.find(|one| one.certs.contains(&signer.cert_der)).ok_or_else(wrong)?;
        enrolled.certs.push(cert.clone());
        assert_ne!(
            CertInfo::parse(&cert).unwrap().spki_der,
            CertInfo::parse(&signer.cert_der).unwrap().spki_der
        );
        Ok(RenewedIdentity {
            root: None,
            identity: certificate(&cert),
            store: enrolled.store,
            provider_id: ProviderId::parse(PROVIDER).unwrap(),
        })
    }
}

pub fn certificate(der: &[u8]) -> Certificate {
    Certificate::new(der, Digest::Sha1.of(der).try_into().unwrap()).unwrap()
}

/// A page that asks for the code, and the form that posts the token to the application.
fn auth_page(method: &str, query: &str, body: &[u8]) -> Answer {
    let fields: HashMap<String, String> =
        url::form_urlencoded::parse(if method == "GET" { query.as_bytes() } else { body })
            .into_owned()
            .collect();
    let page = if method == "GET" {
        assert_eq!(fields["login_hint"], USER);
        format!(
            "<form method=post action=\"\"><input type=hidden name=appru value=\"{}\"><input name=username type=email>\
             <input name=code type=password><button>Go</button></form>",
            fields["appru"]
        )
    } else if (fields["username"].as_str(), fields["code"].as_str()) == (USER, CODE) {
        format!(
            "<form method=post action=\"{}\"><input type=hidden name=wresult value=\"the &lt;&quot;token&quot;&gt;\">\
             </form><script>document.forms[0].submit()</script>",
            fields["appru"]
        )
    } else {
        "<form method=post><input name=username><input name=code type=password></form>".to_owned()
    };
    Answer(200, "text/html", page.into_bytes())
}
