//! A machine's way to its server that makes a new connection for each session and resumes the TLS session of the one
//! before.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri};
use hyper_openssl::client::legacy::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::runtime::Handle;
use tower_service::Service as _;
use url::Url;

use super::wire::{MAX_ANSWER, TIMEOUT, builder};
use crate::http::texts;
use crate::windows::Outgoing;
use crate::{Error, Identity, Reply, Result};

/// The way, with the TLS session that it kept.
pub(super) struct Resuming {
    connector: HttpsConnector<HttpConnector>,
    runtime: Handle,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// TLS handshakes so far.
    pub(super) handshakes: u64,
    /// How many of them resumed a session.
    pub(super) resumed: u64,
}

impl Resuming {
    /// Trusts the certificates of a PEM bundle and presents the identity.
    pub(super) fn new(ca_pem: &[u8], identity: &Identity, runtime: Handle) -> Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let connector = builder(ca_pem, identity).and_then(|ssl| HttpsConnector::with_connector(http, ssl));
        let connector =
            connector.map_err(|error| Error::Usage(format!("TLS set-up for a machine: {error}")))?;
        Ok(Self { connector, runtime, sender: None, handshakes: 0, resumed: 0 })
    }

    /// Posts a message.
    pub(super) fn post(&mut self, target: &Url, outgoing: &Outgoing) -> Result<Reply> {
        let runtime = self.runtime.clone();
        let answer = runtime.block_on(async {
            let answered = tokio::time::timeout(TIMEOUT, self.exchange(target, outgoing)).await;
            answered.unwrap_or_else(|_| Err("no answer in time".into()))
        });
        answer.map_err(|reason| {
            self.sender = None;
            Error::Channel(format!("session: {reason}"))
        })
    }

    /// Ends the connection.
    pub(super) fn close(&mut self) {
        self.sender = None;
    }

    async fn exchange(&mut self, target: &Url, outgoing: &Outgoing) -> Result<Reply, Broken> {
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            // The server closed it after its last answer.
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(target).await?,
        };
        let query = target.query().map(|query| ["?", query].concat()).unwrap_or_default();
        let mut request = Request::post([target.path(), &query].concat()).header("host", target.authority());
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.body(Full::from(outgoing.body.clone()))?).await?;
        let status = response.status().as_u16();
        let headers = texts(response.headers());
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes().to_vec();
        self.sender = Some(sender);
        Ok(Reply { status, headers, body })
    }

    async fn connect(&mut self, target: &Url) -> Result<SendRequest<Full<Bytes>>, Broken> {
        let uri: Uri = format!("https://{}", target.authority()).parse()?;
        let stream = self.connector.call(uri).await?;
        self.handshakes += 1;
        if let MaybeHttpsStream::Https(tls) = &stream
            && tls.ssl().session_reused()
        {
            self.resumed += 1;
        }
        let (sender, connection) = handshake(stream).await?;
        // It ends with its sender; how, the sender has said.
        self.runtime.spawn(async { drop(connection.await) });
        Ok(sender)
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;
