//! Renewal: the old key signs the request for the new one (MS-MDE2 3.5; ROBO).

use bellwether_certs::cert::issued_by;
use bellwether_certs::{KeyPair, cms};
use bellwether_windows::enrollment::client::{self, Answer, Renewal};
use bellwether_windows::enrollment::{Context, Credential, Opaque, Pkcs7, Provisioning};
use bellwether_windows::syncml::Format;

use super::enroll::check_identity;
use super::soap::SoapReply;
use super::{TokenOptions, WindowsPc};
use crate::{Error, Identity, Result};

const RENEW: &str = "./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/";

/// How to renew. The default is what Windows does by itself.
#[derive(Debug, Clone)]
pub struct RenewOptions {
    /// By itself, or begun by a person: base64 once or twice.
    pub renewal: Renewal,
    /// Present the old identity in the TLS handshake.
    pub client_certificate: bool,
    /// Send a user name with an empty password along.
    pub empty_password: bool,
    /// Another service than the enrollment's.
    pub url: Option<String>,
    /// Sign with this identity instead of the machine's own.
    pub signer: Option<Identity>,
    /// Present this identity in the TLS handshake instead of the signer's.
    pub presented: Option<Identity>,
    /// The certificate request.
    pub token: TokenOptions,
    /// Say all that an enrollment says about the machine; Windows does.
    pub context: bool,
}

impl Default for RenewOptions {
    fn default() -> Self {
        Self {
            renewal: Renewal::Automatic,
            client_certificate: true,
            empty_password: false,
            url: None,
            signer: None,
            presented: None,
            token: TokenOptions::default(),
            context: true,
        }
    }
}

impl WindowsPc {
    /// Renews the identity. The machine uses the new one from then on and keeps the old one for
    /// [`Self::use_old_identity`].
    ///
    /// # Errors
    /// [`Error::Fault`] when the server refuses, [`Error::Enrollment`] when Windows would not take the answer.
    pub async fn renew(&mut self) -> Result<()> {
        self.renew_with(&RenewOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub async fn renew_with(&mut self, options: &RenewOptions) -> Result<()> {
        let (reply, key) = self.ask_renewal(options).await?;
        self.install_renewal(reply, &key)
    }

    /// Asks for a new identity and does not use the answer: to look at it, or to lose it.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn ask_renewal(&self, options: &RenewOptions) -> Result<(SoapReply, KeyPair)> {
        let (url, old) = {
            let machine = self.shared.lock();
            let url = options.url.clone().unwrap_or(machine.account()?.enrollment_url.clone());
            (url, options.signer.clone().map_or_else(|| machine.need_identity().cloned(), Ok)?)
        };
        let request = self.token_request(&options.token).await?;
        let signed = cms::sign_attached(request.pkcs10.as_der(), &old.cert_der, &old.key, &[])?;
        let credential = options
            .empty_password
            .then(|| Credential::UsernameToken { username: String::new(), password: Opaque::default() });
        let context = if options.context { request.context } else { Context::default() };
        let body = client::renew(&url, credential.as_ref(), Pkcs7::new(signed)?, options.renewal, context)?;
        let http = match options.presented.as_ref().unwrap_or(&old) {
            identity if options.client_certificate => {
                self.http.with_client_certificate(&identity.cert_der, &identity.key)?
            }
            _ => self.http.clone(),
        };
        Ok((self.soap_over(&http, &url, body).await?, request.key))
    }

    /// Uses the answer to [`Self::ask_renewal`].
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn install_renewal(&mut self, reply: SoapReply, key: &KeyPair) -> Result<()> {
        let refuse = |reason: &str| Err(Error::Enrollment(format!("renewal: {reason}")));
        let answer = reply.good("renewal", client::REQUEST_SECURITY_TOKEN_ID)?;
        let Answer::Token(token) = answer else { return refuse("the answer is another message's") };
        let Provisioning::Renewal(renewed) = Provisioning::decode(token.document.expose())? else {
            return refuse("the document is one of an enrollment");
        };
        let cert_der = renewed.identity.as_der().to_vec();
        check_identity(&cert_der, key)?;
        self.managed = None;
        let machine = &mut *self.shared.lock();
        let account = machine.enrollment.as_mut().ok_or(Error::Missing("enrollment"))?;
        if renewed.provider_id.as_str() != account.provider_id || renewed.store != account.store {
            return refuse("the document is for another provider or store");
        }
        if let Some(root) = &renewed.root {
            account.root = Some(root.as_der().to_vec());
        }
        if !account.root.as_ref().is_some_and(|root| issued_by(&cert_der, root)) {
            return refuse("the identity does not chain to the root");
        }
        machine.old_identity = machine.identity.replace(Identity { key: key.clone(), cert_der });
        machine.state.renewal_wanted = false;
        machine.state.tree.set(&[RENEW, "ErrorCode"].concat(), Format::Int, "0");
        Ok(())
    }

    /// What `RenewNow` set off: a refusal is kept in the node `ErrorCode`, as Windows does.
    pub(super) async fn renew_if_wanted(&mut self) {
        if !std::mem::take(&mut self.shared.lock().state.renewal_wanted) {
            return;
        }
        if let Err(error) = self.renew().await {
            let code = error.fault().map_or(0x8018_0006, bellwether_windows::enrollment::Fault::client_error);
            let tree = &mut self.shared.lock().state.tree;
            tree.set(&[RENEW, "ErrorCode"].concat(), Format::Int, code.to_string());
        }
    }
}
