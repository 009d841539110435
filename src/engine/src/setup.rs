//! The first start and every later one: master key, default site, authorities, setup token.

use crate::authorities::{LoadedAuthority, ProfileSigner};
use crate::error::Error;
use crate::ports::Clock;
use crate::uploads::UploadRules;
use crate::vault::{Vault, new_uuid, random_hex};
use crate::{Engine, StoreConfig, audit};
use bellwether_certs::ca::{DeviceCa, TlsCa};
use bellwether_certs::cert::CertInfo;
use bellwether_certs::hash::{ct_eq, random_bytes, sha256};
use bellwether_certs::keys::KeyPair;
use bellwether_certs::seal::{MasterKey, SealContext};
use bellwether_model::time::{DAY, HOUR, MINUTE};
use bellwether_model::{Actor, AuthorityId, EventKind, Platform, SiteId, Timestamp};
use bellwether_store::records::{Authority, QueueRules, Site};
use bellwether_store::{Scope, Store};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::Notify;

/// What the engine must be told.
pub struct EngineConfig {
    /// Where rows live.
    pub store: StoreConfig,
    /// Where files live: the master key and the setup token.
    pub data_dir: PathBuf,
    /// The master key, when it comes from outside; otherwise `<data_dir>/master.key` is read or made.
    pub master_key: Option<SecretString>,
    /// `https://mdm.example.com` without a slash at the end: console, enrollment, Apple.
    pub public_url: String,
    /// `https://devices.example.com`: where a client certificate is asked for.
    pub device_url: String,
    /// Shown to people who enroll.
    pub organization: String,
    /// Apple requests must come with a TLS client certificate (on the device listener).
    pub apple_require_client_certificate: bool,
    /// An admin has typed how many enrolled devices may be lost by changing the URLs; 0: none.
    pub lose_devices: i64,
    /// Profiles carry our TLS CA, because the server's certificate stands under it.
    pub own_tls_ca: bool,
    /// Windows.
    pub windows: WindowsConfig,
    /// What devices may send.
    pub uploads: UploadRules,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// What the Windows dialect must be told.
#[derive(Clone, Debug, Default)]
pub struct WindowsConfig {
    /// `PROVIDER-ID` of this installation; fixed by the first enrollment.
    pub provider_id: Option<String>,
    /// PCs that can do both are sent to the sign-in page instead of asking for user name and password.
    pub sign_in_page: bool,
    /// The package family name whose push channel PCs open.
    pub push_package: Option<String>,
}

/// The part of the configuration that use cases read.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub public_url: String,
    pub device_url: String,
    pub organization: String,
    pub apple_require_client_certificate: bool,
    pub own_tls_ca: bool,
    pub windows: WindowsConfig,
    pub uploads: UploadRules,
}

/// The certificate of the server's own TLS CA.
#[derive(Clone, Debug)]
pub struct TlsCaHandle {
    /// DER.
    pub cert_der: Vec<u8>,
}

const MASTER_KEY_FILE: &str = "master.key";
/// The certificate that signs profiles lasts so long and is replaced so long before its end, at a start.
const SIGNER_DAYS: u16 = 825;
const SIGNER_RENEWAL: i64 = 120 * DAY;
const SETUP_TOKEN_LIFE: i64 = 24 * HOUR;
/// Sealed under the master key at the first start; opening it proves that the key is still the same.
const MASTER_CHECK: &str = "master-check";
const DEFAULT_SITE: &str = "default-site";
const TLS_CA: &str = "tls-ca";
const PROFILE_SIGNER: &str = "profile-signer";
const SETUP_HASH: &str = "setup-token";
pub(crate) const PROVIDER_ID: &str = "windows-provider-id";
pub(crate) const TEST_TOPIC: &str = "apple-test-topic";

impl Engine {
    /// Opens the store, brings it up to date, and makes what a first start must make.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>, Error> {
        let now = config.clock.now();
        let store = Store::open(config.store)?;
        let master = load_master_key(&config.data_dir, config.master_key, &store).await?;
        check_master_key(&store, &master).await?;
        let vault = Vault::new(master);
        let default_site = ensure_default_site(&store, &vault, now).await?;
        for site in store.read(Scope::System, |tx| tx.sites().map_err(Error::from)).await? {
            vault.add_site(site.id, &site.wrapped_key)?;
        }
        let settings = Settings {
            public_url: config.public_url.trim_end_matches('/').to_owned(),
            device_url: config.device_url.trim_end_matches('/').to_owned(),
            organization: config.organization,
            apple_require_client_certificate: config.apple_require_client_certificate,
            own_tls_ca: config.own_tls_ca,
            windows: config.windows,
            uploads: config.uploads,
        };
        let tls_ca = ensure_tls_ca(&store, &vault, now).await?;
        let signer = ensure_profile_signer(&store, &vault, &tls_ca, now).await?;
        ensure_test_topic(&store).await?;
        let engine = Arc::new(Self {
            store,
            vault,
            clock: config.clock,
            settings,
            default_site,
            rules: queue_rules(),
            authorities: RwLock::new(HashMap::new()),
            tls_ca,
            signer,
            wakers: RwLock::new(HashMap::new()),
            entra: RwLock::new(None),
            witness: RwLock::new(None),
            backups: RwLock::new(None),
            backing_up: tokio::sync::Mutex::new(()),
            seen: Mutex::new(HashMap::new()),
            renewal_tries: Mutex::new(HashMap::new()),
            used_keys: Mutex::new(HashMap::new()),
            work: Notify::new(),
            node: random_hex::<8>()?,
            setup_token: Mutex::new(None),
        });
        engine.ensure_device_ca(default_site, now).await?;
        engine.guard_urls(config.lose_devices).await?;
        engine.guard_provider_id().await?;
        engine.offer_setup_token(now).await?;
        engine.announce_quarantine().await?;
        engine
            .record(default_site, Actor::Server("start".into()), EventKind::ServerStarted, "server", None)
            .await?;
        Ok(engine)
    }

    /// The setup token, if this start minted one. Whoever asks takes it: the second call gives `None`.
    pub fn setup_token(&self) -> Option<SecretString> {
        self.setup_token.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// The certificate that browsers and devices must trust when no other TLS certificate is configured.
    pub fn tls_ca(&self) -> TlsCaHandle {
        TlsCaHandle { cert_der: self.tls_ca.cert_der().to_vec() }
    }

    /// A server certificate under our own TLS CA, with a fresh key: leaf first, then the CA.
    pub fn issue_tls_certificate(&self, names: &[String]) -> Result<(Vec<Vec<u8>>, KeyPair), Error> {
        let key = KeyPair::generate_p256()?;
        let leaf = self.tls_ca.issue_server(
            names,
            &key.public_key_der()?,
            random_bytes::<16>()?,
            self.now().0,
            397,
        )?;
        Ok((vec![leaf, self.tls_ca.cert_der().to_vec()], key))
    }

    /// Mints the token that makes the first API key, while there is no key and no unspent token.
    async fn offer_setup_token(&self, now: Timestamp) -> Result<(), Error> {
        let token = format!("bws_{}", random_hex::<32>()?);
        let row = setup_row(&token, now.plus(SETUP_TOKEN_LIFE));
        let minted = self
            .store
            .write(Scope::System, move |tx| {
                if !tx.api_keys()?.is_empty() {
                    return Ok::<_, Error>(false);
                }
                // A restart before anybody used the token replaces it: the old one was shown to a terminal that may
                // be gone.
                tx.server_setting_put(SETUP_HASH, &row)?;
                Ok(true)
            })
            .await?;
        if minted {
            *self.setup_token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                Some(SecretString::from(token));
        }
        Ok(())
    }

    /// Whether this is the unspent setup token. Constant-time.
    pub(crate) fn is_setup_token(stored: Option<&[u8]>, token: &str, now: Timestamp) -> bool {
        let Some((expires, hash)) = stored.and_then(|row| row.split_at_checked(8)) else { return false };
        let expires = i64::from_be_bytes(expires.try_into().unwrap_or_default());
        ct_eq(hash, &sha256(token.as_bytes())) && now.0 < expires
    }

    pub(crate) const SETUP_HASH: &'static str = SETUP_HASH;

    /// Changing the URLs that devices were given would lose them: refused while any device is enrolled.
    async fn guard_urls(&self, confirmed: i64) -> Result<(), Error> {
        let urls = format!("{}\n{}", self.settings.public_url, self.settings.device_url);
        self.store
            .write(Scope::System, move |tx| {
                let stored = tx.server_setting("urls")?;
                let living: i64 = tx.topic_counts_everywhere()?.iter().map(|(_, n)| n).sum::<i64>()
                    + tx.living_everywhere(Platform::Windows)?;
                match stored {
                    Some(old) if old == urls.as_bytes() => Ok(()),
                    Some(old) if living > 0 && living != confirmed => {
                        let old = String::from_utf8_lossy(&old).replace('\n', " and ");
                        Err(Error::Conflict(format!(
                            "public_url or device_url changed from {old}, but {living} enrolled devices know only \
                             the old ones and would be lost. Restore the old values, or start once with \
                             BELLWETHER_LOSE_DEVICES={living} to change them anyway."
                        )))
                    }
                    _ => Ok(tx.server_setting_put("urls", urls.as_bytes())?),
                }
            })
            .await
    }

    /// PCs keep `PROVIDER-ID` for good: another one is refused once the first PC has it.
    async fn guard_provider_id(&self) -> Result<(), Error> {
        let Some(wanted) = self.settings.windows.provider_id.clone() else { return Ok(()) };
        let stored =
            self.store.read(Scope::System, |tx| tx.server_setting(PROVIDER_ID).map_err(Error::from)).await?;
        match stored {
            Some(stored) if stored != wanted.as_bytes() => Err(Error::Conflict(format!(
                "windows.provider_id was fixed as {} by the first PC that enrolled and cannot become {wanted}",
                String::from_utf8_lossy(&stored)
            ))),
            _ => Ok(()),
        }
    }

    /// Makes the device CA of a site that has none.
    pub(crate) async fn ensure_device_ca(&self, site: SiteId, now: Timestamp) -> Result<(), Error> {
        let existing = self.store.read(Scope::Site(site), |tx| tx.authorities().map_err(Error::from)).await?;
        if existing.iter().any(|a| a.retired_at.is_none()) {
            return Ok(());
        }
        let id = AuthorityId(uuid::Builder::from_random_bytes(random_bytes::<16>()?).into_uuid());
        let ca = DeviceCa::create(now.0, random_bytes::<16>()?)?;
        let key = ca.key().to_pkcs8_der()?;
        let sealed = self.vault.seal(site, "authority", id.as_bytes(), "key", key.expose_secret())?;
        let row = Authority {
            id,
            certificate: ca.cert_der().to_vec(),
            key: sealed,
            created_at: now,
            retired_at: None,
        };
        // Nodes may start together: the first one's CA is everybody's.
        let first = self
            .store
            .write(Scope::Site(site), move |tx| {
                if tx.authorities()?.iter().any(|a| a.retired_at.is_none()) {
                    return Ok::<_, Error>(false);
                }
                tx.authority_insert(site, &row)?;
                Ok(true)
            })
            .await?;
        if first {
            let loaded = LoadedAuthority::new(site, id, ca);
            self.authorities
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .insert(id, Arc::new(loaded));
        }
        Ok(())
    }

    /// Writes one audit entry by itself.
    pub(crate) async fn record(
        &self,
        site: SiteId,
        actor: Actor,
        kind: EventKind,
        target: &str,
        details: Option<serde_json::Value>,
    ) -> Result<(), Error> {
        let entry = audit::entry(self.now(), &actor, kind, target, None, details)?;
        self.store.write(Scope::Site(site), move |tx| tx.audit_append(&entry).map_err(Error::from)).await
    }
}

fn setup_row(token: &str, expires: Timestamp) -> Vec<u8> {
    let mut row = expires.0.to_be_bytes().to_vec();
    row.extend_from_slice(&sha256(token.as_bytes()));
    row
}

/// How patient the queue is. Figures from spec/apple.md 9 and 10: what other servers learnt.
fn queue_rules() -> QueueRules {
    QueueRules { max_sends: 4, park_for: HOUR, not_now_pause: 0, silent_pause: 2 * MINUTE, accepted_for: DAY }
}

async fn load_master_key(
    data_dir: &Path,
    given: Option<SecretString>,
    store: &Store,
) -> Result<MasterKey, Error> {
    if let Some(text) = given {
        return Ok(MasterKey::from_text(text.expose_secret())?);
    }
    let path = data_dir.join(MASTER_KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(MasterKey::from_text(&text)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let used =
                store.read(Scope::System, |tx| tx.server_setting(MASTER_CHECK).map_err(Error::from)).await?;
            if used.is_some() {
                return Err(Error::Conflict(format!(
                    "{} is missing, but this database was sealed with a master key. Put the key file back: without \
                     it no stored secret can be opened.",
                    path.display()
                )));
            }
            let key = MasterKey::generate()?;
            write_private(&path, key.to_text().expose_secret())?;
            Ok(key)
        }
        Err(e) => Err(Error::Conflict(format!("cannot read {}: {e}", path.display()))),
    }
}

/// Creates a file that only its owner can read, and syncs it: it must not be lost after the first secret was sealed.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let attempt = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        if let Some(parent) = path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    attempt().map_err(|e| Error::Conflict(format!("cannot write {}: {e}", path.display())))
}

async fn check_master_key(store: &Store, master: &MasterKey) -> Result<(), Error> {
    let context = SealContext { kind: "server", id: b"", field: MASTER_CHECK };
    let fresh = master.seal(&context, b"bellwether")?;
    let stored = store
        .write(Scope::System, move |tx| {
            tx.server_setting_insert_if_absent(MASTER_CHECK, &fresh)?;
            tx.server_setting(MASTER_CHECK).map_err(Error::from)
        })
        .await?;
    let opened = stored.as_deref().map(|blob| master.open(&context, blob));
    match opened {
        Some(Ok(_)) => Ok(()),
        _ => Err(Error::Conflict(
            "this master key is not the one that sealed this database; every node needs the same key. Nothing was \
             changed."
                .into(),
        )),
    }
}

/// Whether a database was sealed with this master key; changes nothing.
pub(crate) async fn opens_master_check(store: &Store, master: &MasterKey) -> Result<bool, Error> {
    let context = SealContext { kind: "server", id: b"", field: MASTER_CHECK };
    let stored = store.read(Scope::System, |tx| tx.server_setting(MASTER_CHECK).map_err(Error::from)).await?;
    Ok(stored.is_some_and(|blob| master.open(&context, &blob).is_ok()))
}

async fn ensure_default_site(store: &Store, vault: &Vault, now: Timestamp) -> Result<SiteId, Error> {
    let id = SiteId(new_uuid(now)?);
    let site = Site { id, name: "Default".into(), wrapped_key: vault.new_site_key(id)?, created_at: now };
    let stored = store
        .write(Scope::System, move |tx| {
            if let Some(found) = tx.server_setting(DEFAULT_SITE)? {
                return Ok(found);
            }
            tx.site_insert(&site)?;
            tx.server_setting_put(DEFAULT_SITE, site.id.as_bytes())?;
            Ok::<_, Error>(site.id.as_bytes().to_vec())
        })
        .await?;
    SiteId::from_slice(&stored).ok_or_else(|| Error::Internal("the default site's id is damaged".into()))
}

/// A key and a certificate as one sealed server setting.
async fn sealed_pair(
    store: &Store,
    vault: &Vault,
    name: &'static str,
    make: impl FnOnce() -> Result<(Vec<u8>, KeyPair), Error>,
) -> Result<(Vec<u8>, KeyPair), Error> {
    let context = SealContext { kind: "server", id: b"", field: name };
    let read = move |stored: &[u8]| -> Result<(Vec<u8>, KeyPair), Error> {
        let damaged = || Error::Internal(format!("the stored {name} is damaged"));
        let (length, rest) = stored.split_at_checked(4).ok_or_else(damaged)?;
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
        let (certificate, sealed) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let key = vault.master().open(&context, sealed)?;
        Ok((certificate.to_vec(), KeyPair::from_pkcs8_der(key.expose_secret())?))
    };
    let stored = store.read(Scope::System, move |tx| tx.server_setting(name).map_err(Error::from)).await?;
    if let Some(stored) = stored.filter(|row| !row.is_empty()) {
        return read(&stored);
    }
    let (certificate, key) = make()?;
    let sealed = vault.master().seal(&context, key.to_pkcs8_der()?.expose_secret())?;
    let length = u32::try_from(certificate.len()).unwrap_or_default();
    let mut row = length.to_be_bytes().to_vec();
    row.extend_from_slice(&certificate);
    row.extend_from_slice(&sealed);
    // Two nodes may start together: the first row wins and both use it.
    let stored = store
        .write(Scope::System, move |tx| {
            // An empty row stands for "make a new one".
            if !tx.server_setting_insert_if_absent(name, &row)?
                && tx.server_setting(name)?.is_some_and(|old| old.is_empty())
            {
                tx.server_setting_put(name, &row)?;
            }
            tx.server_setting(name).map_err(Error::from)
        })
        .await?
        .ok_or_else(|| Error::Internal(format!("the {name} was not stored")))?;
    read(&stored)
}

async fn ensure_tls_ca(store: &Store, vault: &Vault, now: Timestamp) -> Result<TlsCa, Error> {
    let (certificate, key) = sealed_pair(store, vault, TLS_CA, || {
        let ca = TlsCa::create(now.0, random_bytes::<16>()?)?;
        let key = KeyPair::from_pkcs8_der(ca.key().to_pkcs8_der()?.expose_secret())?;
        Ok((ca.cert_der().to_vec(), key))
    })
    .await?;
    Ok(TlsCa::load(&certificate, key)?)
}

async fn ensure_profile_signer(
    store: &Store,
    vault: &Vault,
    tls_ca: &TlsCa,
    now: Timestamp,
) -> Result<ProfileSigner, Error> {
    let make = || {
        let key = KeyPair::generate_p256()?;
        let names = ["profiles.bellwether.invalid".to_owned()];
        let random = random_bytes::<16>()?;
        let leaf = tls_ca.issue_server(&names, &key.public_key_der()?, random, now.0, SIGNER_DAYS)?;
        Ok((leaf, key))
    };
    let (mut certificate, mut key) = sealed_pair(store, vault, PROFILE_SIGNER, make).await?;
    if CertInfo::parse(&certificate)?.not_after_ms < now.plus(SIGNER_RENEWAL).0 {
        store
            .write(Scope::System, |tx| tx.server_setting_put(PROFILE_SIGNER, b"").map_err(Error::from))
            .await?;
        (certificate, key) = sealed_pair(store, vault, PROFILE_SIGNER, make).await?;
    }
    Ok(ProfileSigner { certificate, key, chain: vec![tls_ca.cert_der().to_vec()] })
}

async fn ensure_test_topic(store: &Store) -> Result<(), Error> {
    let topic = format!(
        "com.apple.mgmt.External.{}",
        uuid::Builder::from_random_bytes(random_bytes::<16>()?).into_uuid()
    );
    store
        .write(Scope::System, move |tx| {
            tx.server_setting_insert_if_absent(TEST_TOPIC, topic.as_bytes()).map_err(Error::from)
        })
        .await?;
    Ok(())
}
