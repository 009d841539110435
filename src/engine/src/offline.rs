//! Verbs that work on the data without a running server.

use crate::StoreConfig;
use crate::audit::{verify_site, witnessed};
use crate::error::Error;
use crate::vault::Vault;
use crate::views::AuditReport;
use crate::witness::Witness;
use bellwether_certs::seal::MasterKey;
use bellwether_store::{Scope, Store};
use secrecy::{ExposeSecret as _, SecretString};
use std::path::Path;
use std::sync::Arc;

/// What the offline verifier found in one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineReport {
    /// The site's name.
    pub site: String,
    /// What was found.
    pub report: AuditReport,
}

/// Verifies the audit of every site. Takes the data folder's lock, so the server must be stopped (SQLite).
pub async fn verify_offline(
    store: StoreConfig,
    data_dir: &Path,
    master_key: Option<SecretString>,
    witness: Option<Arc<dyn Witness>>,
) -> Result<Vec<OfflineReport>, Error> {
    let lines = witnessed(witness).await?;
    let text = match master_key {
        Some(text) => text,
        None => {
            let path = data_dir.join("master.key");
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::Conflict(format!("cannot read {}: {e}", path.display())))?;
            SecretString::from(text)
        }
    };
    let vault = Vault::new(MasterKey::from_text(text.expose_secret())?);
    let store = Store::open(store)?;
    let sites = store.read(Scope::System, |tx| tx.sites().map_err(Error::from)).await?;
    let mut reports = Vec::with_capacity(sites.len());
    for site in sites {
        vault.add_site(site.id, &site.wrapped_key)?;
        let report = verify_site(&store, &vault, site.id, &lines).await?;
        reports.push(OfflineReport { site: site.name, report });
    }
    Ok(reports)
}
