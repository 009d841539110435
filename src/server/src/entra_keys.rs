//! Fetches the keys that Entra ID signs with: the adapter behind the engine's port [`SigningKeys`].
//!
//! What arrives here decides who may enroll. So it comes over TLS from the configured address itself: no redirect is
//! followed and no proxy asked.

use crate::config::{ConfigError, ENTRA_TENANT, EntraConfig};
use crate::http_answer::{Unread, chain, whole};
use crate::serve;
use async_trait::async_trait;
use bellwether_engine::SigningKeys;
use reqwest::{Certificate, Client, StatusCode, header, redirect, retry};
use std::time::Duration;

/// For everything, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Microsoft's document has 10 to 20 KiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// A configuration that cannot be used: the operator's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntraKeysError {
    /// The file with CAs to trust.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its content, or TLS altogether.
    #[error("the certificates to trust for Entra ID's signing keys cannot be used: {0}")]
    Trust(#[source] reqwest::Error),
}

/// The client.
#[derive(Debug)]
pub struct EntraKeys {
    /// With [`ENTRA_TENANT`] where the tenant goes.
    url: String,
    client: Client,
}

impl EntraKeys {
    /// A client without connections. Reads `windows.entra.trust`.
    ///
    /// # Errors
    /// [`EntraKeysError`].
    pub fn new(config: &EntraConfig) -> Result<Self, EntraKeysError> {
        let trust = config.trust.as_deref().map(serve::read).transpose()?;
        Self::with_timeout(&config.keys_url, trust.as_deref(), TIMEOUT)
    }

    fn with_timeout(url: &str, trust: Option<&[u8]>, timeout: Duration) -> Result<Self, EntraKeysError> {
        let mut builder = Client::builder()
            .https_only(true)
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            // The engine decides when to try again.
            .retry(retry::never())
            .no_proxy();
        if let Some(pem) = trust {
            builder =
                builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(EntraKeysError::Trust)?);
        }
        Ok(Self { url: url.to_owned(), client: builder.build().map_err(EntraKeysError::Trust)? })
    }
}

#[async_trait]
impl SigningKeys for EntraKeys {
    async fn fetch(&self, tenant: &str) -> Result<Vec<u8>, String> {
        if tenant.is_empty() || !tenant.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err("the tenant is no GUID".to_owned());
        }
        let url = self.url.replace(ENTRA_TENANT, tenant);
        let request = self.client.get(url).header(header::ACCEPT, "application/json");
        let response = request.send().await.map_err(|e| chain(&e))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the address answers with {}", response.status()));
        }
        whole(response, MAX_ANSWER).await.map_err(|e| match e {
            Unread::TooLong => "the answer is larger than 1 MiB".to_owned(),
            Unread::Lost(error) => chain(&error),
        })
    }
}

#[cfg(test)]
mod tests;
