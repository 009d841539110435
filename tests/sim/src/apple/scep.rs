//! SCEP from the device's end (RFC 8894; `com.apple.security.scep.yaml`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_apple::profile::EnrollmentDetails;
use bellwether_certs::KeyPair;
use bellwether_certs::csr::{self, Wishes};
use bellwether_certs::hash::random_bytes;
use bellwether_scep::client::{self, Style, Transaction};
use openssl::hash::MessageDigest;
use reqwest::Method;
use secrecy::SecretString;

use super::{AppleDevice, Identity};
use crate::{Error, Http, Result, clock};

/// How `PKIOperation` travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScepTransport {
    /// In the body of a POST.
    #[default]
    Post,
    /// In the query, as macOS writes it: `+` and `/` as they are, only `=` escaped.
    Get,
}

/// The content cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScepCipher {
    /// AES-128-CBC and SHA-256.
    #[default]
    Aes,
    /// Triple DES and SHA-1, as old clients use.
    TripleDes,
}

/// How to ask for the identity. The default is a well-behaved device.
#[derive(Debug, Clone, Default)]
pub struct ScepOptions {
    /// GET or POST.
    pub transport: ScepTransport,
    /// AES or triple DES.
    pub cipher: ScepCipher,
    /// Write BER with indefinite lengths in both layers, as macOS does.
    pub ber_indefinite: bool,
    /// Another common name than the profile's.
    pub common_name: Option<String>,
    /// Another challenge than the profile's; `Some("")` sends an empty one.
    pub challenge: Option<String>,
    /// Send no challenge at all.
    pub no_challenge: bool,
    /// Ask for CA:TRUE.
    pub ask_for_ca: bool,
    /// Ask for the serverAuth usage.
    pub ask_for_server_auth: bool,
    /// Ask for a DNS name.
    pub dns_name: Option<String>,
    /// This key instead of a new one. SCEP needs RSA.
    pub key: Option<KeyPair>,
    /// Another message type than 19 (`PKCSReq`), to see that it is refused.
    pub message_type: Option<String>,
}

/// A request that is ready to be sent, once or more often: sending it again is an exact network retry.
#[derive(Debug, Clone)]
pub struct ScepAttempt {
    url: String,
    transport: ScepTransport,
    ca_cert_der: Vec<u8>,
    signer_der: Vec<u8>,
    signer_key: KeyPair,
    key: KeyPair,
    transaction_id: String,
    nonce: [u8; 16],
    style: Style,
    message: Vec<u8>,
}

impl ScepOptions {
    fn style(&self) -> Style {
        let style = match self.cipher {
            ScepCipher::Aes => Style::STANDARD,
            ScepCipher::TripleDes => Style::OLD,
        };
        Style { ber_indefinite: self.ber_indefinite, ..style }
    }

    fn wishes(&self) -> Wishes<'_> {
        Wishes {
            ca: self.ask_for_ca,
            server_auth: self.ask_for_server_auth,
            dns_name: self.dns_name.as_deref(),
        }
    }
}

impl ScepAttempt {
    /// The key that will be certified.
    #[must_use]
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The `PKIOperation` message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Sends the request and reads the answer.
    ///
    /// # Errors
    /// [`Error::Scep`] when the CA refuses, [`Error::Refused`] when HTTP does, else when the answer
    /// cannot be verified.
    pub async fn send(&self, http: &Http) -> Result<Identity> {
        let reply = match self.transport {
            ScepTransport::Post => {
                let url = with_query(&self.url, "operation=PKIOperation");
                let request = http
                    .request(Method::POST, &url)
                    .header("content-type", "application/x-pki-message")
                    .body(self.message.clone());
                http.send("SCEP PKIOperation", request).await?
            }
            ScepTransport::Get => {
                let message = STANDARD.encode(&self.message).replace('=', "%3D");
                let url = with_query(&self.url, &format!("operation=PKIOperation&message={message}"));
                http.send("SCEP PKIOperation", http.request(Method::GET, &url)).await?
            }
        };
        let reply = reply.ok("SCEP PKIOperation")?;
        let content_type = reply.header("content-type").unwrap_or_default();
        if !content_type.starts_with("application/x-pki-message") {
            return Err(Error::Scep(format!("the answer came as {content_type:?}")));
        }
        self.read(&reply.body)
    }

    /// Reads the answer of the CA.
    ///
    /// # Errors
    /// [`Error::Scep`] when the CA refuses or the answer cannot be verified.
    pub fn read(&self, answer: &[u8]) -> Result<Identity> {
        let transaction = Transaction {
            ca_cert_der: &self.ca_cert_der,
            cert_der: &self.signer_der,
            key: &self.signer_key,
            id: &self.transaction_id,
            nonce: self.nonce,
            style: self.style,
        };
        match client::parse_cert_rep(&transaction, answer, &self.key.public_key_der()?).map_err(scep)? {
            client::Reply::Success(cert_der) => Ok(Identity { key: self.key.clone(), cert_der }),
            client::Reply::Failure(why) => Err(Error::Scep(format!("refused: {why:?}"))),
            client::Reply::Pending => Err(Error::Scep("pending".to_owned())),
        }
    }
}

impl AppleDevice {
    /// Gets an identity as the profile says: `GetCACaps`, `GetCACert` with the fingerprint check, then
    /// `PKCSReq` with a new key.
    ///
    /// # Errors
    /// [`Error::Scep`] when the CA refuses or is not the one that the profile names.
    pub async fn scep_enroll(&mut self, profile: &EnrollmentDetails) -> Result<()> {
        self.scep_enroll_with(profile, &ScepOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::scep_enroll`].
    pub async fn scep_enroll_with(
        &mut self,
        profile: &EnrollmentDetails,
        options: &ScepOptions,
    ) -> Result<()> {
        let attempt = self.scep_attempt(profile, options).await?;
        let identity = attempt.send(&self.http).await?;
        self.set_identity(identity)
    }

    /// Prepares a `PKCSReq` without sending it, so that a test can lose the answer and send it again.
    ///
    /// # Errors
    /// As [`Self::scep_enroll`].
    pub async fn scep_attempt(
        &self,
        profile: &EnrollmentDetails,
        options: &ScepOptions,
    ) -> Result<ScepAttempt> {
        let scep = &profile.scep;
        let ca_cert_der = self.scep_ca(profile).await?;
        let key = match &options.key {
            Some(key) => key.clone(),
            None => self.keys.take().await?,
        };
        // Like the installer of macOS, which cuts longer names (RFC 5280, ub-common-name).
        let wanted = options.common_name.as_deref().unwrap_or(&scep.common_name);
        let common_name: String = wanted.chars().take(64).collect();
        let challenge = match (&options.challenge, options.no_challenge) {
            (_, true) => None,
            (Some(challenge), _) => Some(challenge.clone()),
            (None, _) => scep.challenge.expose_str().map(str::to_owned),
        };
        let challenge = challenge.map(SecretString::from);
        let csr = csr::build(&key, &common_name, challenge.as_ref(), options.wishes())?;
        first_request(&scep.url, ca_cert_der, &common_name, key, options, &csr)
    }

    /// Renews the identity with a `RenewalReq`: a new key, signed with the old one, no challenge. The
    /// device uses the new identity from then on.
    ///
    /// # Errors
    /// [`Error::Scep`] when the CA refuses.
    pub async fn scep_renew(&mut self) -> Result<()> {
        let attempt = self.scep_renewal_attempt(&ScepOptions::default()).await?;
        let identity = attempt.send(&self.http).await?;
        self.set_identity(identity)
    }

    /// Prepares a `RenewalReq` without sending it.
    ///
    /// # Errors
    /// When the device is not enrolled or the CA is not the one that the profile names.
    pub async fn scep_renewal_attempt(&self, options: &ScepOptions) -> Result<ScepAttempt> {
        let profile = self.need_enrollment()?;
        let ca_cert_der = self.scep_ca(profile).await?;
        let old = self.need_identity()?.clone();
        let key = match &options.key {
            Some(key) => key.clone(),
            None => self.keys.take().await?,
        };
        let common_name = options.common_name.as_deref().unwrap_or(&profile.scep.common_name);
        let challenge = options.challenge.clone().map(SecretString::from);
        let csr = csr::build(&key, common_name, challenge.as_ref(), options.wishes())?;
        let message_type = options.message_type.as_deref().unwrap_or("17");
        attempt(&profile.scep.url, ca_cert_der, &old, key, options, message_type, &csr)
    }

    /// Sends a prepared request over this device's connections and uses the identity.
    ///
    /// # Errors
    /// As [`ScepAttempt::send`].
    pub async fn scep_finish(&mut self, attempt: &ScepAttempt) -> Result<()> {
        let identity = attempt.send(&self.http).await?;
        self.set_identity(identity)
    }

    /// Sends a prepared request and loses the answer on the way back.
    ///
    /// # Errors
    /// When there was no answer to lose.
    pub async fn scep_lose_answer(&self, attempt: &ScepAttempt) -> Result<()> {
        attempt.send(&self.http).await.map(|_| ())
    }

    /// `GetCACaps` and `GetCACert`; the certificate must be the one that the profile names.
    async fn scep_ca(&self, profile: &EnrollmentDetails) -> Result<Vec<u8>> {
        let scep = &profile.scep;
        let ca_cert_der = ca(&self.http, &scep.url).await?;
        if let Some(fingerprint) = &scep.ca_fingerprint {
            let digest = match fingerprint.len() {
                16 => MessageDigest::md5(),
                20 => MessageDigest::sha1(),
                32 => MessageDigest::sha256(),
                64 => MessageDigest::sha512(),
                length => return Err(Error::Scep(format!("a CA fingerprint of {length} bytes"))),
            };
            let got = openssl::hash::hash(digest, &ca_cert_der)
                .map_err(|error| Error::Scep(format!("CA fingerprint: {error}")))?;
            if got.as_ref() != fingerprint.as_slice() {
                return Err(Error::Scep("the CA is not the one that the profile names".to_owned()));
            }
        }
        Ok(ca_cert_der)
    }
}

/// `GetCACaps` and `GetCACert`: the certificate of the CA, not checked.
pub(crate) async fn ca(http: &Http, url: &str) -> Result<Vec<u8>> {
    let request = http.request(Method::GET, &with_query(url, "operation=GetCACaps"));
    let caps = http.send("SCEP GetCACaps", request).await?.ok("SCEP GetCACaps")?.text();
    if !client::caps_suffice(&caps) {
        return Err(Error::Scep(format!("GetCACaps offers too little: {caps:?}")));
    }
    let request = http.request(Method::GET, &with_query(url, "operation=GetCACert"));
    Ok(http.send("SCEP GetCACert", request).await?.ok("SCEP GetCACert")?.body)
}

/// A `PKCSReq` for a certificate request, signed by a certificate that the key made for itself.
pub(crate) fn first_request(
    url: &str,
    ca_cert_der: Vec<u8>,
    common_name: &str,
    key: KeyPair,
    options: &ScepOptions,
    csr: &[u8],
) -> Result<ScepAttempt> {
    let signer_der = csr::self_signed(&key, common_name, random_bytes()?, clock::now_ms())?;
    let signer = Identity { key: key.clone(), cert_der: signer_der };
    let message_type = options.message_type.as_deref().unwrap_or("19");
    attempt(url, ca_cert_der, &signer, key, options, message_type, csr)
}

fn attempt(
    url: &str,
    ca_cert_der: Vec<u8>,
    signer: &Identity,
    key: KeyPair,
    options: &ScepOptions,
    message_type: &str,
    csr: &[u8],
) -> Result<ScepAttempt> {
    let transaction_id = client::transaction_id(&key.public_key_der()?);
    let nonce = random_bytes()?;
    let style = options.style();
    let transaction = Transaction {
        ca_cert_der: &ca_cert_der,
        cert_der: &signer.cert_der,
        key: &signer.key,
        id: &transaction_id,
        nonce,
        style,
    };
    let message = client::request(&transaction, message_type, csr).map_err(scep)?;
    Ok(ScepAttempt {
        url: url.to_owned(),
        transport: options.transport,
        signer_der: signer.cert_der.clone(),
        signer_key: signer.key.clone(),
        ca_cert_der,
        key,
        transaction_id,
        nonce,
        style,
        message,
    })
}

fn with_query(url: &str, query: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{query}")
}

fn scep(error: bellwether_scep::Error) -> Error {
    Error::Scep(error.to_string())
}
