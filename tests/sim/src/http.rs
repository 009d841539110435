//! HTTP as a device does it: one root of trust, no redirects followed, nothing compressed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_certs::KeyPair;
use bellwether_certs::cert;
use secrecy::ExposeSecret as _;

use crate::{Error, Result};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client for one server. Cloning shares the connections, so thousands of devices can use one.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    roots: Vec<reqwest::Certificate>,
    fresh: bool,
    record: Option<Record>,
}

/// What was said, in the order in which answers came. Clones write into the same one.
pub type Record = Arc<Mutex<Vec<Exchange>>>;

/// One request and its answer, as bytes that can be searched.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Method and URL.
    pub called: String,
    /// Method, URL, headers and body.
    pub request: Vec<u8>,
    /// The answer.
    pub reply: Reply,
}

/// What a server answered, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers; names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Http {
    /// A client that trusts the certificates of a PEM bundle, and nothing else.
    ///
    /// # Errors
    /// When the bundle holds no certificate or TLS cannot be set up.
    pub fn new(ca_pem: &[u8]) -> Result<Self> {
        let roots = reqwest::Certificate::from_pem_bundle(ca_pem)
            .map_err(|source| Error::Http { what: "CA file", source })?;
        if roots.is_empty() {
            return Err(Error::Usage("the CA file holds no certificate".to_owned()));
        }
        Self::build(roots, None, false, None)
    }

    /// The same trust, but every request makes a new connection: a TLS handshake each.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn with_new_connections(&self) -> Result<Self> {
        Self::build(self.roots.clone(), None, true, self.record.clone())
    }

    /// The same trust, and a client certificate for servers that ask for one. Connections are not
    /// shared with `self`.
    ///
    /// # Errors
    /// When key and certificate do not fit each other or TLS cannot be set up.
    pub fn with_client_certificate(&self, cert_der: &[u8], key: &KeyPair) -> Result<Self> {
        let pem = cert::ders_to_pem(&[cert_der]);
        let identity = reqwest::Identity::from_pkcs8_pem(pem.as_bytes(), key.to_pkcs8_pem()?.expose_secret())
            .map_err(|source| Error::Http { what: "client certificate", source })?;
        Self::build(self.roots.clone(), Some(identity), self.fresh, self.record.clone())
    }

    fn build(
        roots: Vec<reqwest::Certificate>,
        identity: Option<reqwest::Identity>,
        fresh: bool,
        record: Option<Record>,
    ) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .tls_certs_only(roots.clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .tcp_nodelay(true);
        if fresh {
            builder = builder.pool_max_idle_per_host(0);
        }
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        let client = builder.build().map_err(|source| Error::Http { what: "TLS set-up", source })?;
        Ok(Self { client, roots, fresh, record })
    }

    /// The same client; everything that it and its clones say from now on is kept.
    #[must_use]
    pub fn recording(&self, record: Record) -> Self {
        Self { record: Some(record), ..self.clone() }
    }

    /// A request to be filled and given to [`Self::send`].
    pub fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends a request and reads the answer whole. Every status is an answer, not an error.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn send(&self, what: &'static str, request: reqwest::RequestBuilder) -> Result<Reply> {
        let failed = |source| Error::Http { what, source };
        let (client, request) = request.build_split();
        let request = request.map_err(failed)?;
        let called = self.record.as_ref().map(|record| (record, describe(&request)));
        let response = client.execute(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let headers = texts(response.headers());
        let body = response.bytes().await.map_err(failed)?.to_vec();
        let reply = Reply { status, headers, body };
        if let Some((record, (called, request))) = called {
            let exchange = Exchange { called, request, reply: reply.clone() };
            record.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
        }
        Ok(reply)
    }
}

/// A request for the record. Bodies that are streamed are not kept.
fn describe(request: &reqwest::Request) -> (String, Vec<u8>) {
    let called = [request.method().as_str(), " ", request.url().as_str()].concat();
    let mut bytes = called.clone().into_bytes();
    for (name, value) in request.headers() {
        bytes.extend_from_slice(b"\n");
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(b"\n\n");
    bytes.extend_from_slice(request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default());
    (called, bytes)
}

impl Reply {
    /// A header by its lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reply itself when its status is 200.
    ///
    /// # Errors
    /// [`Error::Refused`] for every other status.
    pub fn ok(self, what: &'static str) -> Result<Self> {
        self.with_status(200, what)
    }

    /// The reply itself when its status is 201.
    ///
    /// # Errors
    /// [`Error::Refused`] for every other status.
    pub fn created(self, what: &'static str) -> Result<Self> {
        self.with_status(201, what)
    }

    fn with_status(self, wanted: u16, what: &'static str) -> Result<Self> {
        if self.status == wanted {
            return Ok(self);
        }
        let body = self.text().chars().take(500).collect();
        Err(Error::Refused { what, status: self.status, body })
    }
}

/// Headers as text; names come in lower case.
pub(crate) fn texts(headers: &reqwest::header::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}
