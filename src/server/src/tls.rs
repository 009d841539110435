//! TLS: certificates, the two listeners' contexts, and what a connection showed.
//!
//! The handshake refuses nobody for a client certificate: the verify callback accepts, the handler judges, so that an
//! expired, foreign or revoked certificate gets the protocol's own answer and an audit entry.

use crate::config::Config;
use actix_tls::accept::openssl::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;
use bellwether_certs::cert::{CertInfo, pem_to_ders};
use bellwether_certs::keys::KeyPair;
use bellwether_engine::Engine;
use bellwether_model::Timestamp;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{NameType, SslAcceptor, SslAcceptorBuilder, SslContext, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Never asks for a client certificate.
    Public,
    /// Asks for one, and accepts none.
    Device,
}

/// What a connection showed. Kept in the connection's data by [`on_connect`].
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client certificate, unjudged. A resumed session carries the one of the first handshake, so that
    /// revocation must be read for every request.
    pub certificate_der: Option<Vec<u8>>,
    /// The other end.
    pub addr: Option<SocketAddr>,
    /// The name the client asked for.
    pub sni: Option<String>,
}

/// A certificate chain with its key.
pub struct Material {
    /// Leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key.
    pub key: KeyPair,
}

/// TLS that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file.
    #[error("cannot read {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// What is in the files.
    #[error("{0}")]
    Material(#[from] bellwether_certs::Error),
    /// Certificate and key do not belong together, or the like.
    #[error("{0}")]
    Mismatch(&'static str),
    /// The library.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
    /// Our own CA.
    #[error("own TLS CA: {0}")]
    Engine(#[from] bellwether_engine::Error),
}

/// The contexts that new connections use. Replaced as a whole.
pub struct Contexts {
    public: ArcSwap<SslContext>,
    device: ArcSwap<SslContext>,
    renew_after: ArcSwap<Timestamp>,
}

impl Contexts {
    /// From certificate and key.
    pub fn new(material: &Material) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            public: ArcSwap::from_pointee(context(Side::Public, material)?),
            device: ArcSwap::from_pointee(context(Side::Device, material)?),
            renew_after: ArcSwap::from_pointee(renew_after(material)?),
        }))
    }

    /// New connections get the new certificate; open ones carry on.
    pub fn replace(&self, material: &Material) -> Result<(), TlsError> {
        let (public, device) = (context(Side::Public, material)?, context(Side::Device, material)?);
        self.renew_after.store(Arc::new(renew_after(material)?));
        self.public.store(Arc::new(public));
        self.device.store(Arc::new(device));
        Ok(())
    }

    /// Whether two thirds of the certificate's life are over.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= **self.renew_after.load()
    }

    /// What a listener accepts with. The certificate is chosen anew for every connection.
    pub fn acceptor(
        self: &Arc<Self>,
        side: Side,
        material: &Material,
    ) -> Result<SslAcceptorBuilder, TlsError> {
        let mut builder = builder(side, material)?;
        let contexts = Arc::clone(self);
        // Called for clients without SNI too. The verify mode stays the one of the listener: it belongs to the
        // connection, and OpenSSL does not take it over from the new context.
        builder.set_servername_callback(move |ssl, _| {
            let current = match side {
                Side::Public => contexts.public.load(),
                Side::Device => contexts.device.load(),
            };
            ssl.set_ssl_context(&current).map_err(|_| openssl::ssl::SniError::ALERT_FATAL)
        });
        Ok(builder)
    }
}

impl Material {
    /// The configured files, or a certificate of our own TLS CA for the given names.
    pub fn of(config: &Config, engine: &Engine, names: &[String]) -> Result<Self, TlsError> {
        let Some((certificate, key)) = &config.tls else {
            let (chain, key) = engine.issue_tls_certificate(names)?;
            return Ok(Self { chain, key });
        };
        let read = |path: &std::path::Path| {
            std::fs::read(path)
                .map_err(|e| TlsError::File { path: path.display().to_string(), reason: e.to_string() })
        };
        let material =
            Self { chain: pem_to_ders(&read(certificate)?)?, key: KeyPair::from_pem(&read(key)?)? };
        let leaf =
            material.chain.first().ok_or(TlsError::Mismatch("tls.certificate holds no certificate"))?;
        if CertInfo::parse(leaf)?.spki_der != material.key.public_key_der()? {
            return Err(TlsError::Mismatch(
                "tls.key does not belong to the first certificate of tls.certificate",
            ));
        }
        Ok(material)
    }
}

/// The names that a certificate of our own CA must carry.
pub fn names(hosts: &[&str], listen: &[IpAddr]) -> Vec<String> {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let bound = listen.iter().filter(|ip| !ip.is_unspecified()).map(ToString::to_string);
    let mut out: Vec<String> = Vec::new();
    for name in hosts.iter().map(|host| bare(host)).chain(local).chain(bound) {
        if !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

/// For `HttpServer::on_connect`.
pub fn on_connect(io: &dyn Any, data: &mut Extensions) {
    if let Some(tls) = io.downcast_ref::<TlsStream<TcpStream>>() {
        let ssl = tls.ssl();
        data.insert(Peer {
            certificate_der: ssl.peer_certificate().and_then(|cert| cert.to_der().ok()),
            addr: tls.get_ref().peer_addr().ok(),
            sni: ssl.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase),
        });
    }
}

/// An IPv6 literal without its brackets, lower case.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

fn renew_after(material: &Material) -> Result<Timestamp, TlsError> {
    let leaf = material.chain.first().ok_or(TlsError::Mismatch("no certificate"))?;
    let info = CertInfo::parse(leaf)?;
    let third = info.not_after_ms.saturating_sub(info.not_before_ms) / 3;
    Ok(Timestamp(info.not_after_ms).plus(-third))
}

fn context(side: Side, material: &Material) -> Result<SslContext, TlsError> {
    Ok(builder(side, material)?.build().into_context())
}

fn builder(side: Side, material: &Material) -> Result<SslAcceptorBuilder, TlsError> {
    // TLS 1.2 and 1.3; every cipher of this list is an AEAD.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    let key: PKey<Private> =
        PKey::private_key_from_pkcs8(secrecy::ExposeSecret::expose_secret(&material.key.to_pkcs8_der()?))?;
    let mut chain = material.chain.iter();
    let leaf = chain.next().ok_or(TlsError::Mismatch("no certificate"))?;
    builder.set_certificate(X509::from_der(leaf)?.as_ref())?;
    builder.set_private_key(&key)?;
    for issuer in chain {
        builder.add_extra_chain_cert(X509::from_der(issuer)?)?;
    }
    builder.check_private_key()?;
    // The callback must be on every context that can be swapped in, or ALPN is dropped.
    builder.set_alpn_select_callback(|_, offered| {
        openssl::ssl::select_next_proto(b"\x08http/1.1", offered).ok_or(openssl::ssl::AlpnError::NOACK)
    });
    // Without one, resumption with a client certificate dies with internal_error.
    match side {
        Side::Public => {
            builder.set_session_id_context(b"bellwether-public")?;
            builder.set_verify(SslVerifyMode::NONE);
        }
        Side::Device => {
            builder.set_session_id_context(b"bellwether-device")?;
            builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        }
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_complete_and_unique() {
        let any: IpAddr = "0.0.0.0".parse().unwrap();
        let lan: IpAddr = "192.0.2.7".parse().unwrap();
        let names = names(&["MDM.example.org", "[2001:db8::1]", "localhost"], &[any, lan]);
        assert_eq!(names, ["mdm.example.org", "2001:db8::1", "localhost", "127.0.0.1", "::1", "192.0.2.7"]);
    }
}
