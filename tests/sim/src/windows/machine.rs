//! The PC itself, shared by everything that happens to it: sessions can overlap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwether_windows::enrollment::Provisioning;
use bellwether_windows::enrollment::provisioning::{self, KeyStore};
use bellwether_windows::syncml::Alert;
use bellwether_windows::syncml::auth::{self, Secret};
use bellwether_windows::syncml::client;
use openssl::hash::{MessageDigest, hash};

use super::csp::{Override, State};
use super::{Hardware, Told};
use crate::{Error, Identity, Result};

/// The machine, one owner at a time and never across an await.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Machine>>);

pub(super) struct Machine {
    pub(super) hardware: Hardware,
    /// What sessions change and a failed Atomic brings back.
    pub(super) state: State,
    pub(super) enrollment: Option<Account>,
    pub(super) identity: Option<Identity>,
    /// The identity before the last renewal.
    pub(super) old_identity: Option<Identity>,
    /// Answers that were set by hand.
    pub(super) overrides: Vec<Override>,
    /// Alerts that the next session brings.
    pub(super) alerts: Vec<Alert>,
    /// `Unenroll` was obeyed: the next session says so.
    pub(super) leaving: bool,
    /// The number of the last session.
    pub(super) sessions: u32,
    pub(super) told: Vec<Told>,
    pub(super) wipes: u32,
}

/// The OMA-DM account of an enrollment.
#[derive(Clone)]
pub struct Account {
    /// `PROVIDER-ID`.
    pub provider_id: String,
    /// `ADDR`.
    pub address: String,
    /// `AAUTHNAME`: the name with which the machine proves itself.
    pub name: String,
    /// `DEFAULTENCODING` is WBXML.
    pub wbxml: bool,
    /// Where the identity stands.
    pub store: KeyStore,
    /// The root of the device CA.
    pub root: Option<Vec<u8>>,
    /// Where certificates come from.
    pub enrollment_url: String,
    /// `EntDMID`.
    pub ent_dm_id: String,
    /// `RenewPeriod` in days, when the machine renews by itself.
    pub renew_period_days: Option<u16>,
    pub(super) secret: Secret,
    /// The nonce of the next session.
    pub(super) nonce: Vec<u8>,
    pub(super) server_secret: Secret,
    /// SyncApplicationVersion is 2.0 or higher.
    pub(super) hex_session_id: bool,
    /// The provisioning document itself.
    pub(super) document: Vec<u8>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("provider_id", &self.provider_id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(super) fn new(hardware: Hardware, state: State) -> Self {
        Self(Arc::new(Mutex::new(Machine {
            hardware,
            state,
            enrollment: None,
            identity: None,
            old_identity: None,
            overrides: Vec::new(),
            alerts: Vec::new(),
            leaving: false,
            sessions: 0,
            told: Vec::new(),
            wipes: 0,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    pub(super) fn account(&self) -> Result<&Account> {
        self.enrollment.as_ref().ok_or(Error::Missing("enrollment"))
    }

    pub(super) fn need_identity(&self) -> Result<&Identity> {
        self.identity.as_ref().ok_or(Error::Missing("identity"))
    }

    /// Forgets the enrollment and everything that came with it, as Windows does when it disconnects.
    pub(super) fn forget(&mut self) {
        self.enrollment = None;
        self.identity = None;
        self.old_identity = None;
        self.alerts.clear();
        self.leaving = false;
        self.sessions = 0;
        self.state.forget(&self.hardware);
    }

    /// Back to the state of the factory.
    pub(super) fn wipe(&mut self) {
        self.forget();
        self.wipes += 1;
        self.state.reset(&self.hardware);
    }

    /// Restarts: a new name takes effect.
    pub(super) fn restart(&mut self) {
        self.state.restart(&self.hardware);
    }
}

impl Account {
    /// Reads a provisioning document as it came.
    pub(super) fn read(
        document: &[u8],
        enrollment_url: &str,
    ) -> Result<(Self, Box<provisioning::Enrollment>)> {
        let Provisioning::Enrollment(enrollment) = Provisioning::decode(document)? else {
            return Err(Error::Enrollment("the provisioning document is one of a renewal".to_owned()));
        };
        let account = &enrollment.account;
        let client = &account.client;
        let secret = match client.scheme {
            provisioning::Scheme::Digest => {
                Secret::Md5(auth::secret_md5(&client.name, client.secret.expose_str(), md5))
            }
            provisioning::Scheme::Basic => {
                Secret::Basic(auth::basic(&client.name, client.secret.expose_str()))
            }
        };
        let provider_id = account.provider_id.as_str();
        let version = enrollment.client.sync_application_version;
        let account = Self {
            provider_id: provider_id.to_owned(),
            address: account.address.clone(),
            name: client.name.clone(),
            wbxml: account.encoding == provisioning::Encoding::Wbxml,
            store: enrollment.store,
            root: enrollment.root.as_ref().map(|root| root.as_der().to_vec()),
            enrollment_url: enrollment_url.to_owned(),
            ent_dm_id: enrollment.client.ent_dm_id.clone(),
            renew_period_days: enrollment.renewal.map(|schedule| schedule.period_days),
            secret,
            nonce: client.nonce.expose().to_vec(),
            server_secret: Secret::Md5(auth::secret_md5(
                provider_id,
                account.server.secret.expose_str(),
                md5,
            )),
            hex_session_id: version.is_some_and(|version| version.major >= 2),
            document: document.to_vec(),
        };
        Ok((account, enrollment))
    }

    /// The provisioning document as it came; it holds the passwords of the account.
    #[must_use]
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    pub(super) fn identity(&self, device_id: &str) -> client::Identity {
        client::Identity {
            device_id: device_id.to_owned(),
            server: self.address.clone(),
            name: self.name.clone(),
            secret: self.secret.clone(),
            nonce: self.nonce.clone(),
        }
    }
}

/// What can be seen on a PC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The computer's name.
    pub name: String,
    /// The name that it gets with its next restart.
    pub next_name: Option<String>,
    /// How often it was locked.
    pub locks: u32,
    /// How often it was told to restart.
    pub reboots: u32,
    /// How often it was wiped.
    pub wipes: u32,
    /// Every node that was executed, as its address was written, and how often.
    pub executed: BTreeMap<String, u32>,
    /// MSI packages by their product code.
    pub msis: BTreeMap<String, Package>,
    /// MSIX packages by their family name.
    pub msix: BTreeMap<String, Package>,
    /// `Policy/Config` nodes and their values.
    pub policies: BTreeMap<String, String>,
    /// Certificates that sessions brought.
    pub certificates: Vec<Certificate>,
    /// The push channel, once a package family name was set.
    pub channel_uri: Option<String>,
}

/// A package and how far its installation got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// The version.
    pub version: String,
    /// MSI: 10 to 70, and 70 is done. MSIX: 0 to 3, and 3 is done.
    pub status: u32,
    /// `LastError`, a HRESULT.
    pub last_error: u32,
}

/// A certificate that a session brought.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `Root`, `SCEP` or `PFX`.
    pub kind: &'static str,
    /// The name of its node: a thumbprint or a unique id.
    pub id: String,
    /// The certificate, DER.
    pub cert_der: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

/// MD5 for `syncml:auth-md5`; zeros, which no server accepts, should OpenSSL refuse it.
pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
    hash(MessageDigest::md5(), bytes)
        .ok()
        .and_then(|digest| digest.as_ref().try_into().ok())
        .unwrap_or([0; 16])
}
