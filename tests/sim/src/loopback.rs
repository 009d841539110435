//! What servers in unit tests share: TLS and HTTP on the loopback, and a certificate authority that speaks SCEP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bellwether_certs::KeyPair;
use bellwether_certs::ca::{DeviceCa, TlsCa};
use bellwether_certs::cert::issued_by;
use bellwether_certs::cms;
use bellwether_certs::hash::random_bytes;
use bellwether_scep::server::{self, SignedBy};
use bellwether_scep::{FailInfo, MessageType, Operation};
use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::X509;
use secrecy::ExposeSecret as _;

use crate::clock;

pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Status, content type, body.
pub struct Answer(pub u16, pub &'static str, pub Vec<u8>);

/// One thread for each connection.
pub fn accept(
    listener: TcpListener,
    acceptor: SslAcceptor,
    connected: impl Fn(SslStream<TcpStream>) + Clone + Send + 'static,
) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (connected, acceptor, stream) = (connected.clone(), acceptor.clone(), stream.unwrap());
            std::thread::spawn(move || {
                if let Ok(stream) = acceptor.accept(stream) {
                    connected(stream);
                }
            });
        }
    });
}

/// Answers the requests of one connection.
pub fn serve(mut stream: impl Read + Write, answer: impl Fn(&Request) -> Answer) {
    while let Some(request) = read(&mut stream) {
        let Answer(status, content_type, body) = answer(&request);
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// What the CA was asked: message type, cipher, common name.
pub type Asked = (MessageType, cms::ContentCipher, String);

/// Answers SCEP: a first certificate for the challenge, a renewal for a certificate of this CA.
pub fn scep(ca: &DeviceCa, secret: &str, query: &str, body: &[u8]) -> (Answer, Option<Asked>) {
    let message = match bellwether_scep::parse_query(query).unwrap() {
        Operation::GetCaCaps => return (Answer(200, "text/plain", bellwether_scep::CAPS.into()), None),
        Operation::GetCaCert => {
            return (Answer(200, "application/x-x509-ca-cert", ca.cert_der().to_vec()), None);
        }
        Operation::PkiOperation(message) => message.unwrap_or_else(|| body.to_vec()),
    };
    let nonce = random_bytes().unwrap();
    let (ca_der, key) = (ca.cert_der(), ca.key());
    let refuse = |context: &server::RequestContext, why| {
        let answer = server::failure(context, why, ca_der, key, nonce).unwrap();
        Answer(200, bellwether_scep::MESSAGE_CONTENT_TYPE, answer)
    };
    let request = match server::decode(&message, ca_der, key) {
        Ok(request) => request,
        Err(server::Undecodable::WithContext { context, fail_info, .. }) => {
            return (refuse(&context, fail_info), None);
        }
        Err(_) => return (Answer(400, "text/plain", Vec::new()), None),
    };
    let cn = request.csr.subject_cn.clone().unwrap_or_default();
    let asked = Some((request.message_type, request.cipher, cn));
    let challenge = request.csr.challenge_password.as_ref().map(|given| given.expose_secret() == secret);
    let authorised = match request.signed_by {
        SignedBy::RequestKey => challenge == Some(true),
        SignedBy::Identity => issued_by(&request.signer.der, ca_der),
    };
    if !authorised || request.csr.wants_ca {
        return (refuse(&request.context, FailInfo::BadRequest), asked);
    }
    let cert = ca
        .issue_device(&request.csr.spki_der, "Bellwether test", random_bytes().unwrap(), clock::now_ms())
        .unwrap();
    let answer = server::success(&request, &cert, ca_der, key, nonce).unwrap();
    (Answer(200, bellwether_scep::MESSAGE_CONTENT_TYPE, answer), asked)
}

pub fn acceptor(tls: &TlsCa, now: i64) -> SslAcceptor {
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
