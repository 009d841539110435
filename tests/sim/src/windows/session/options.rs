//! How a session goes, and the signature of its messages.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::{Oid, asn1, cms};
use bellwether_windows::syncml::Alert;

use crate::{Identity, Result, clock};

const SIGNING_TIME: Oid = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05];

/// How a session goes. The default is a well-behaved machine that calls at its usual time.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Answer to a push: alert 1200.
    pub pushed: bool,
    /// `user`, `others` or `none`, instead of what the machine says.
    pub login: Option<String>,
    /// More alerts for package 1.
    pub alerts: Vec<Alert>,
    /// Lose the nth answer (the first is 1) and send the same message again.
    pub drop_reply_at: Option<usize>,
    /// Send an abort (alert 1223) instead of the nth message.
    pub abort_at: Option<usize>,
    /// Fall silent after the nth answer.
    pub stop_at: Option<usize>,
    /// Begin anew under the same `SessionID` after the nth answer, once.
    pub restart_at: Option<usize>,
    /// This `SessionID` instead of the next one.
    pub number: Option<u32>,
    /// An Entra token for `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// Sign messages or not, whatever the server asked for.
    pub sign: Option<bool>,
    /// Sign with this identity.
    pub signer: Option<Identity>,
    /// Present no client certificate.
    pub no_certificate: bool,
    /// Present this identity instead.
    pub presented: Option<Identity>,
    /// Ask the server for its own credential, and end the session when it has none.
    pub demand_server: bool,
    /// Wait so long before every message.
    pub pause: Option<Duration>,
}

/// `MDM-Signature`: a detached CMS message over the body with the time of signing, base64.
pub(super) fn sign(body: &[u8], signer: &Identity) -> Result<String> {
    let time = cms::Attribute { oid: SIGNING_TIME, value: asn1::time(clock::now_ms())? };
    let message = cms::Builder {
        detached: true,
        attributes: Some(vec![time]),
        ..cms::Builder::new(body, &signer.cert_der, &signer.key)
    };
    Ok(STANDARD.encode(message.build()?))
}
