//! HTTP/1.1 over TLS without anything else: one machine's connection, of which the load test knows when it is made.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslStream};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use url::Url;

use crate::windows::Outgoing;
use crate::{Error, Identity, Reply, Result};

pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// No answer of a session is longer.
pub(super) const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One machine's way to its server.
pub(super) struct Wire {
    connector: SslConnector,
    host: String,
    port: u16,
    stream: Option<SslStream<TcpStream>>,
    /// TLS handshakes so far.
    pub(super) handshakes: u64,
}

impl Wire {
    /// Trusts the certificates of a PEM bundle and presents the identity.
    pub(super) fn new(ca_pem: &[u8], identity: &Identity, url: &Url) -> Result<Self> {
        let connector = builder(ca_pem, identity)
            .map(SslConnectorBuilder::build)
            .map_err(|error| Error::Usage(format!("TLS set-up for a machine: {error}")))?;
        let host = url.host_str().ok_or_else(|| Error::Usage(format!("no host in {url}")))?;
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { connector, host: host.to_owned(), port, stream: None, handshakes: 0 })
    }

    /// Posts a message. A kept connection that the server has closed meanwhile is made anew, once.
    pub(super) fn post(&mut self, target: &Url, outgoing: &Outgoing) -> Result<Reply> {
        let kept = self.stream.is_some();
        match self.try_post(target, outgoing) {
            Err(Broken { began: false, .. }) if kept => {
                self.stream = None;
                self.try_post(target, outgoing)
            }
            other => other,
        }
        .map_err(|broken| {
            self.stream = None;
            Error::Channel(format!("session: {}", broken.reason))
        })
    }

    /// Ends the connection in order.
    pub(super) fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // The other end may have gone before.
            let _ = stream.shutdown();
        }
    }

    fn try_post(&mut self, target: &Url, outgoing: &Outgoing) -> Result<Reply, Broken> {
        if self.stream.is_none() {
            self.stream = Some(self.connect()?);
            self.handshakes += 1;
        }
        let Some(stream) = self.stream.as_mut() else { return Err(Broken::new("no connection")) };
        let query = target.query().map(|query| ["?", query].concat()).unwrap_or_default();
        let mut head =
            format!("POST {}{query} HTTP/1.1\r\nhost: {}:{}\r\n", target.path(), self.host, self.port);
        for (name, value) in &outgoing.headers {
            head.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", outgoing.body.len()));
        stream.write_all(&[head.as_bytes(), &outgoing.body].concat()).map_err(Broken::new)?;
        let (reply, closes) = read(stream)?;
        if closes {
            self.stream = None;
        }
        Ok(reply)
    }

    fn connect(&self) -> Result<SslStream<TcpStream>, Broken> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).map_err(Broken::new)?;
        tcp.set_nodelay(true).map_err(Broken::new)?;
        tcp.set_read_timeout(Some(TIMEOUT)).map_err(Broken::new)?;
        tcp.set_write_timeout(Some(TIMEOUT)).map_err(Broken::new)?;
        self.connector.connect(&self.host, tcp).map_err(Broken::new)
    }
}

/// Why there is no answer, and whether it had begun.
struct Broken {
    began: bool,
    reason: String,
}

impl Broken {
    fn new(reason: impl std::fmt::Display) -> Self {
        Self { began: false, reason: reason.to_string() }
    }
}

/// TLS as a machine sets it up.
pub(super) fn builder(ca_pem: &[u8], identity: &Identity) -> Result<SslConnectorBuilder, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for root in X509::stack_from_pem(ca_pem)? {
        store.add_cert(root)?;
    }
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_cert_store(store.build());
    builder.set_certificate(X509::from_der(&identity.cert_der)?.as_ref())?;
    builder.set_private_key(identity.key.pkey())?;
    Ok(builder)
}

/// One answer with a Content-Length, and whether the server closes the connection after it.
fn read(stream: &mut SslStream<TcpStream>) -> Result<(Reply, bool), Broken> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let mut more = |bytes: &mut Vec<u8>| -> Result<(), Broken> {
        let began = !bytes.is_empty();
        let broken = |reason: &str| Broken { began, reason: reason.to_owned() };
        match stream.read(&mut chunk) {
            Ok(0) => Err(broken("the server closed the connection")),
            Ok(_) if bytes.len() > MAX_ANSWER => Err(broken("the answer is too long")),
            Ok(count) => {
                bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) => Err(broken(&error.to_string())),
        }
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        more(&mut bytes)?;
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
    let wrong = |reason: &str| Broken { began: true, reason: reason.to_owned() };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let length = header("content-length").and_then(|value| value.parse::<usize>().ok());
    let length = length.ok_or_else(|| wrong("the answer has no Content-Length"))?;
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        more(&mut body).map_err(|broken| Broken { began: true, ..broken })?;
    }
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let status = status.ok_or_else(|| wrong("the answer has no status"))?;
    Ok((Reply { status, headers, body }, closes))
}
