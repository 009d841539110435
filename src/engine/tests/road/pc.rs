//! A simulated PC without a network.

use crate::support::{House, wish};
use bellwether_certs::cms;
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::md5;
use bellwether_certs::keys::KeyPair;
use bellwether_engine::{SessionRequest, SoapRequest, WindowsService, may};
use bellwether_model::{CommandState, DeviceId, Intent, Platform};
use bellwether_windows::enrollment::client::{self, Answer as SoapAnswer, Renewal};
use bellwether_windows::enrollment::{Context, Credential, Fault, Pkcs7, Pkcs10, Provisioning};
use bellwether_windows::syncml::auth::{Secret, secret_md5};
use bellwether_windows::syncml::client::{Answer, Client, Habits, Identity};
use bellwether_windows::syncml::{Alert, Format, Message, Request, Verb, reader, writer};

pub const TO: &str = "https://mdm.example.org/EnrollmentServer/Enrollment.svc";

/// A simulated PC.
pub struct Pc {
    pub device_id: String,
    pub hw: String,
    pub serial: String,
    pub key: KeyPair,
    pub cert: Vec<u8>,
    pub identity: Option<Identity>,
    pub sessions: u32,
    pub provider: String,
    /// What it was told: verb and LocURI.
    pub told: Vec<(Verb, String)>,
    /// A proxy hands its certificate on.
    pub proxied: bool,
    /// What the terms-of-use page gave it.
    pub enrollment_data: Option<String>,
}

pub fn pc(name: &str) -> Pc {
    Pc {
        device_id: format!("{name:A<32}"),
        hw: format!("{name:B<64}"),
        serial: format!("SN-{name}"),
        key: KeyPair::generate_rsa2048().unwrap(),
        cert: Vec::new(),
        identity: None,
        sessions: 0,
        provider: String::new(),
        told: Vec::new(),
        proxied: false,
        enrollment_data: None,
    }
}

pub fn code(account: &str, code: &str) -> Credential {
    Credential::UsernameToken { username: account.into(), password: code.into() }
}

impl House {
    pub async fn soap(
        &self,
        service: WindowsService,
        body: Vec<u8>,
        tls: Option<&[u8]>,
    ) -> Result<SoapAnswer, Fault> {
        let request = SoapRequest {
            service,
            body,
            tls_certificate: tls.map(<[u8]>::to_vec),
            source: Some("192.0.2.1".into()),
            trace_id: "trace-1".into(),
        };
        let reply = self.engine.windows_enrollment(request).await;
        match client::read(&reply.body).unwrap().1 {
            SoapAnswer::Fault(fault) => {
                assert_eq!(reply.status, 500);
                assert_eq!(fault.trace_id, "trace-1", "the person can tell us which request it was");
                Err(fault)
            }
            answer => {
                assert_eq!(reply.status, 200);
                Ok(answer)
            }
        }
    }

    pub async fn invite_pc(&self, account: Option<&str>) -> String {
        let permit = self.admin.permit::<may::WriteInvitations>(self.site()).unwrap();
        let mut wish = wish(account);
        wish.platform = Platform::Windows;
        let made = self.engine.create_invitation(&permit, wish).await.unwrap();
        use secrecy::ExposeSecret as _;
        made.link.expose_secret().rsplit('/').next().unwrap().to_owned()
    }

    pub async fn enrolled_pc(&self, name: &str) -> (Pc, DeviceId) {
        let mut pc = pc(name);
        let invitation = self.invite_pc(Some("ann@example.org")).await;
        pc.enroll(self, &code("ann@example.org", &invitation)).await.unwrap();
        pc.session(self).await;
        let id = self.device_id(&pc.serial.clone()).await;
        (pc, id)
    }

    pub async fn state(&self, id: bellwether_model::CommandId) -> CommandState {
        self.command(id).await.command.state
    }
}

impl Pc {
    pub fn context(&self) -> Context {
        let mut context = Context::default();
        for (name, value) in [
            ("DeviceType", "CIMClient_Windows"),
            ("OSVersion", "10.0.26100.2033"),
            ("OSEdition", "48"),
            ("EnrollmentType", "Full"),
            ("DeviceName", "PC-1"),
            ("Manufacturer", "Example"),
            ("DeviceModel", "Book 3"),
            ("DeviceID", &self.device_id),
            ("HWDevID", &self.hw),
            ("SerialNumber", &self.serial),
        ] {
            context.add(name, value).unwrap();
        }
        if let Some(blob) = &self.enrollment_data {
            context.add("EnrollmentData", blob).unwrap();
        }
        context
    }

    pub async fn policies(&self, house: &House, credential: &Credential) -> Result<(), Fault> {
        let body = client::get_policies("https://x/", credential).unwrap();
        house.soap(WindowsService::Policy, body, None).await.map(|_| ())
    }

    pub fn request(&self) -> Pkcs10 {
        Pkcs10::new(csr::build(&self.key, "ignored", None, Wishes::default()).unwrap()).unwrap()
    }

    pub async fn token(&mut self, house: &House, credential: &Credential) -> Result<(), Fault> {
        let body = client::issue(TO, credential, self.request(), self.context()).unwrap();
        let answer = house.soap(WindowsService::Enrollment, body, None).await?;
        let SoapAnswer::Token(token) = answer else { panic!("no token") };
        let Ok(Provisioning::Enrollment(document)) = Provisioning::decode(token.document.expose()) else {
            panic!("no provisioning document")
        };
        self.cert = document.identity.as_der().to_vec();
        let account = document.account;
        self.provider = account.provider_id.as_str().to_owned();
        self.identity = Some(Identity {
            device_id: self.device_id.clone(),
            server: account.address,
            name: account.client.name.clone(),
            secret: Secret::Md5(secret_md5(&account.client.name, account.client.secret.expose_str(), md5)),
            nonce: account.client.nonce.expose().to_vec(),
        });
        Ok(())
    }

    pub async fn enroll(&mut self, house: &House, credential: &Credential) -> Result<(), Fault> {
        self.policies(house, credential).await?;
        self.token(house, credential).await
    }

    pub async fn send(&self, house: &House, message: &Message) -> (u16, Option<Message>) {
        let body = writer::write(message).unwrap();
        self.post(house, body, Some(self.cert.clone())).await
    }

    pub async fn post(&self, house: &House, body: Vec<u8>, tls: Option<Vec<u8>>) -> (u16, Option<Message>) {
        let reply = house
            .engine
            .windows_session(SessionRequest {
                body,
                content_type: Some(writer::CONTENT_TYPE.into()),
                tls_certificate: tls.clone().filter(|_| !self.proxied),
                mode: None,
                signature: None,
                proxy_certificate: tls.filter(|_| self.proxied),
                source: Some("192.0.2.1".into()),
            })
            .await;
        let message =
            (!reply.body.is_empty()).then(|| reader::read(&reply.body, &reader::Limits::SESSION).unwrap());
        (reply.status, message)
    }

    pub fn client(&mut self) -> Client {
        self.sessions += 1;
        Client::new(self.identity.clone().unwrap(), Habits::default(), self.sessions, md5)
    }

    /// The first message of a session: the status, and what came back.
    pub async fn open(&mut self, house: &House) -> (u16, Option<Message>) {
        let message = self.client().open(false, "user", Vec::new());
        self.send(house, &message).await
    }

    pub async fn session(&mut self, house: &House) -> Vec<(Verb, String)> {
        self.session_with(house, "user", Vec::new(), &mut |_| None).await
    }

    /// A whole session; what it was told.
    pub async fn session_with(
        &mut self,
        house: &House,
        login: &str,
        alerts: Vec<Alert>,
        special: &mut dyn FnMut(&Request) -> Option<Answer>,
    ) -> Vec<(Verb, String)> {
        let mut client = self.client();
        let mut next = Some(client.open(false, login, alerts));
        let mut told = Vec::new();
        while let Some(message) = next {
            let (status, reply) = self.send(house, &message).await;
            assert_eq!(status, 200);
            let reply = reply.unwrap();
            let first = told.len();
            let challenged = reply.commands.iter().any(
                |c| matches!(c, bellwether_windows::syncml::Command::Status(s) if s.cmd_ref == "0" && s.code >= 400),
            );
            let mut obey = |request: &Request| {
                let uri = request.items.first().and_then(|item| item.uri()).unwrap_or_default().to_owned();
                told.push((request.verb, uri.clone()));
                special(request).unwrap_or_else(|| match request.verb {
                    Verb::Get if uri.ends_with("SwV") => Answer::value(Format::Chr, "10.0.26100.2033"),
                    Verb::Get => Answer::status(404),
                    _ => Answer::status(200),
                })
            };
            next = client.answer(&reply, &mut obey);
            if challenged {
                assert_eq!(told.len(), first, "a challenge carries no command");
            }
        }
        self.identity = Some(client.identity.clone());
        self.told.extend(told.clone());
        told
    }

    pub fn renewal(&self, new: &KeyPair, signer: &KeyPair, cert: &[u8], kind: Renewal) -> Vec<u8> {
        let request = csr::build(new, "ignored", None, Wishes::default()).unwrap();
        let signed = cms::sign_attached(&request, cert, signer, &[]).unwrap();
        client::renew(TO, None, Pkcs7::new(signed).unwrap(), kind, Context::default()).unwrap()
    }
}

pub fn uris(told: &[(Verb, String)]) -> Vec<&str> {
    told.iter().map(|(_, uri)| uri.as_str()).collect()
}

pub fn lock() -> Intent {
    Intent::Lock { message: None, phone_number: None }
}
