//! The use cases: enroll, check in, dispatch, command, audit, wake.
//!
//! Floor 3. The edge (`server`) calls [`Engine`]; the engine decodes with the protocol crates and does all
//! cryptography before a transaction, then makes one `store.write`, and only after its COMMIT gives the answer back.
//! Time, push services and the like come in through the ports of [`ports`].

mod apple;
mod audit;
mod authorities;
mod background;
mod backup;
mod commands;
mod devices;
mod directory;
mod enrolling;
mod enrollment_accounts;
mod error;
mod idempotency;
mod invitations;
mod jobs;
mod keys;
mod links;
mod offline;
mod packages;
mod permit;
pub mod ports;
mod push;
mod quarantine;
mod reveal;
mod scep;
mod setup;
mod sites;
mod uploads;
mod vault;
mod views;
mod wake;
mod windows;
mod witness;

pub use apple::{AppleReply, AppleRequest};
pub use backup::{
    BackupSettings, BackupStatus, Backups, Drill, Header as BackupHeader, Listed as BackupFile,
    Made as BackupMade, OfflineBackups, RestoreWish, Restored, Verified, restore,
};
pub use bellwether_store::StoreConfig;
pub use error::Error;
pub use offline::{OfflineReport, verify_offline};
pub use packages::{NewPackage, PackageFile};
pub use permit::{Allows, Caller, Denied, Permit, ServerPermit, may};
pub use ports::{Clock, PushIdentity, SigningKeys, WakeOutcome, WakeTarget, Waker};
pub use quarantine::{QuarantineEnded, QuarantineView, WithheldFate, WithheldView};
pub use setup::{EngineConfig, TlsCaHandle, WindowsConfig};
pub use uploads::{Arriving, Opening, StoredUpload, UPLOAD_PIECE, UploadRules};
pub use views::*;
pub use windows::{
    Entra, EntraRefusal, EntraSettings, EntraTerms, EntraUser, SessionReply, SessionRequest, SoapReply,
    SoapRequest, TermsAnswer, TermsPage, TermsRefusal, TermsRequest, WindowsService,
};
pub use witness::Witness;

use bellwether_model::{Platform, SiteId};
use bellwether_store::Store;
use bellwether_store::records::QueueRules;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::Notify;

/// The house's engine. One per process; cheap to share.
pub struct Engine {
    store: Store,
    vault: vault::Vault,
    clock: Arc<dyn Clock>,
    settings: setup::Settings,
    default_site: SiteId,
    rules: QueueRules,
    /// Authorities by id: certificate and opened key, made once.
    authorities: RwLock<HashMap<bellwether_model::AuthorityId, Arc<authorities::LoadedAuthority>>>,
    tls_ca: bellwether_certs::ca::TlsCa,
    /// Key and certificate that sign what the server hands out (profiles).
    signer: authorities::ProfileSigner,
    wakers: RwLock<HashMap<Platform, Arc<dyn Waker>>>,
    /// Who judges tokens of Entra ID, when tenants are configured.
    entra: RwLock<Option<Arc<windows::Entra>>>,
    /// Keeps signed heads of the audit, when there is one.
    witness: RwLock<Option<Arc<dyn Witness>>>,
    /// Where backups go, when there is a place.
    backups: RwLock<Option<Arc<BackupSettings>>>,
    /// Held while this process makes a backup.
    backing_up: tokio::sync::Mutex<()>,
    /// Enrollments that called, with the time; written in batches.
    seen: Mutex<HashMap<(SiteId, bellwether_model::EnrollmentId), bellwether_model::Timestamp>>,
    /// Renewals that were tried, with the time: a pass over silent devices costs no write.
    renewal_tries: Mutex<HashMap<bellwether_model::EnrollmentId, bellwether_model::Timestamp>>,
    /// API keys that were used.
    used_keys: Mutex<HashMap<bellwether_model::ApiKeyId, bellwether_model::Timestamp>>,
    work: Notify,
    /// This process's name in leases.
    node: String,
    setup_token: Mutex<Option<secrecy::SecretString>>,
}

impl Engine {
    /// The site that exists from the first start.
    pub fn default_site(&self) -> SiteId {
        self.default_site
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> Result<(), Error> {
        let site = self.default_site;
        self.store
            .read(bellwether_store::Scope::System, move |tx| tx.site(site).map_err(Error::from))
            .await?
            .map(|_| ())
            .ok_or_else(|| Error::Internal("the default site is gone".into()))
    }

    /// Whether the disk failed and the store writes no more: the process should end, and not as if all were well.
    pub fn has_failed(&self) -> bool {
        self.store.has_failed()
    }

    /// Whether the disk is full: what only adds data is to wait, so that administrators can work on what is reserved.
    pub fn is_disk_full(&self) -> bool {
        self.store.is_tight()
    }

    /// Keeps so many bytes of the data folder's disk free for administrators; 0: none.
    pub fn keep_reserve(&self, bytes: u64) {
        self.store.keep_reserve(bytes);
    }

    /// Makes that reserve, also again when there is space. To be called every few seconds.
    pub async fn tend_reserve(&self) -> Result<(), Error> {
        Ok(self.store.tend().await?)
    }

    fn now(&self) -> bellwether_model::Timestamp {
        self.clock.now()
    }
}
