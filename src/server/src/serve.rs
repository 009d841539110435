//! Starting and stopping a whole server.

use crate::background::Background;
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, WnsSettings};
use crate::edge::Edge;
use crate::entra_keys::EntraKeys;
use crate::listen::{self, ListenError};
use crate::tls::{self, Contexts, Material, Side, TlsError};
use crate::wakers::{Apns, ApnsConfig, ApnsError, Wns, WnsConfig, WnsError};
use crate::witness::WitnessFile;
use actix_web::dev::ServerHandle;
use actix_web::web;
use bellwether_certs::cert::ders_to_pem;
use bellwether_engine::{
    BackupSettings, Engine, EngineConfig, Entra, StoreConfig, UploadRules, WindowsConfig,
};
use bellwether_model::Platform;
use bellwether_model::time::DAY;
use bellwether_store::PostgresUrl;
use secrecy::{ExposeSecret as _, SecretString};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Readers beside SQLite's one writer.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;

/// For so long kept connections are served once more before they are closed. Whoever calls again and again hears in an
/// answer that the connection ends; closed without a word, his next request would be on its way already.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often it is asked whether the disk failed.
const FAILED: Duration = Duration::from_millis(200);

/// Why a server does not start. In words for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address.
    #[error("cannot listen on {addr}: {reason}")]
    Bind {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A file or folder.
    #[error("cannot write {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] bellwether_engine::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Entra ID.
    #[error("windows.entra: {0}")]
    Entra(String),
    /// The push service.
    #[error(transparent)]
    Apns(#[from] ApnsError),
    /// The push service for Windows.
    #[error(transparent)]
    Wns(#[from] WnsError),
}

/// A server that runs. Dropping it does not stop it; [`RunningServer::stop`] does.
pub struct RunningServer {
    /// Where the public listener really listens.
    pub public_addr: SocketAddr,
    /// Where the device listener really listens.
    pub device_addr: SocketAddr,
    /// Where metrics are.
    pub metrics_addr: Option<SocketAddr>,
    /// `https://…` without a slash at the end.
    pub public_url: String,
    /// The same for the device listener.
    pub device_url: String,
    /// Our own TLS CA, PEM; empty when a certificate is configured.
    pub tls_ca_pem: String,
    /// Where the same stands as a file.
    pub tls_ca_path: Option<PathBuf>,
    /// The one-time setup token, if this start minted one.
    pub setup_token: Option<SecretString>,
    /// The use cases, for tests and for the process that started the server.
    pub engine: Arc<Engine>,
    tls: Arc<TlsState>,
    edge: web::Data<Edge>,
    handles: Vec<ServerHandle>,
    tasks: Vec<JoinHandle<std::io::Result<()>>>,
    background: Background,
}

/// What it takes to give the listeners another certificate.
pub struct TlsState {
    config: Config,
    engine: Arc<Engine>,
    names: Vec<String>,
    contexts: Arc<Contexts>,
}

impl TlsState {
    /// Whether the certificate should be renewed.
    pub fn is_due(&self) -> bool {
        self.contexts.is_due(SystemClock::read())
    }

    /// Reads the files again, or issues a new certificate under our own CA.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.contexts.replace(&Material::of(&self.config, &self.engine, &self.names)?)?;
        tracing::info!("new connections use the new TLS certificate");
        Ok(())
    }
}

/// Opens the data, starts listeners and background work.
pub async fn start(config: Config) -> Result<RunningServer, StartError> {
    make_folder(&config.data_dir)?;
    // Sockets first: a taken port must not cost a start, and a port chosen by the system belongs into the URLs.
    let (public, public_addr) = bind(config.public_listen)?;
    let (device, device_addr) = bind(config.device_listen)?;
    let metrics = config.metrics_listen.map(bind).transpose()?;
    let public_url = base_url(config.public_url.as_ref(), public_addr);
    let device_url = base_url(config.device_url.as_ref(), device_addr);

    let own_ca = config.tls.is_none();
    let engine = Engine::open(EngineConfig {
        store: store(&config),
        data_dir: config.data_dir.clone(),
        master_key: config.master_key.clone(),
        public_url: public_url.clone(),
        device_url: device_url.clone(),
        organization: config.organization.clone(),
        apple_require_client_certificate: config.apple_require_client_certificate,
        own_tls_ca: own_ca,
        lose_devices: config.lose_devices,
        windows: WindowsConfig {
            provider_id: config.windows_provider_id.clone(),
            sign_in_page: config.windows_sign_in_page,
            push_package: config.wns.as_ref().map(|wns| wns.package_family_name.clone()),
        },
        uploads: UploadRules {
            largest: config.limits.upload_body,
            total: config.uploads_total_bytes,
            keep: i64::from(config.uploads_keep_days).saturating_mul(DAY),
        },
        clock: Arc::new(SystemClock),
    })
    .await?;
    engine.keep_reserve(config.disk_reserve_bytes);
    engine.set_waker(Platform::Apple, Arc::new(apns(&config)?));
    if let Some(settings) = &config.wns {
        engine.set_waker(Platform::Windows, Arc::new(wns(settings)?));
    }
    if let Some(entra) = &config.entra {
        let keys = EntraKeys::new(entra).map_err(|e| StartError::Entra(e.to_string()))?;
        engine.set_entra(Arc::new(Entra::new(entra.settings()?, Arc::new(keys))?));
    }
    engine.set_backups(backups(&config));
    if let Some(path) = &config.audit_witness {
        engine.set_witness(WitnessFile::shared(path.clone()));
    }
    let setup_token = engine.setup_token();
    let tls_ca = own_ca.then(|| engine.tls_ca().cert_der);
    let tls_ca_pem = tls_ca.as_ref().map(|der| ders_to_pem(&[der])).unwrap_or_default();
    let tls_ca_path = match &tls_ca {
        Some(_) => Some(write(&config.data_dir, "tls-ca.pem", &tls_ca_pem, 0o644)?),
        None => None,
    };

    let urls = [&config.public_url, &config.device_url].into_iter().flatten().filter_map(|u| u.host_str());
    let hosts: Vec<&str> = urls.chain(config.windows_discovery_names.iter().map(String::as_str)).collect();
    let names = tls::names(&hosts, &[public_addr.ip(), device_addr.ip()]);
    let material = Material::of(&config, &engine, &names)?;
    let contexts = Contexts::new(&material)?;
    let tls = Arc::new(TlsState {
        config: config.clone(),
        engine: Arc::clone(&engine),
        names,
        contexts: Arc::clone(&contexts),
    });

    let edge = Edge::new(Arc::clone(&engine), config, public_url.clone(), device_url.clone(), tls_ca);
    let edge = web::Data::new(edge);
    let mut servers = vec![
        listen::server(&edge, Side::Public, public, &contexts, &material)?,
        listen::server(&edge, Side::Device, device, &contexts, &material)?,
    ];
    let metrics_addr = match metrics {
        Some((listener, addr)) => {
            servers.push(listen::metrics_server(&edge, listener).map_err(ListenError::from)?);
            Some(addr)
        }
        None => None,
    };
    let handles = servers.iter().map(actix_web::dev::Server::handle).collect();
    let tasks = servers.into_iter().map(tokio::spawn).collect();
    let background = Background::start(&engine, &tls);
    tracing::info!(public = %public_addr, device = %device_addr, %public_url, %device_url, "bellwether serves");
    Ok(RunningServer {
        public_addr,
        device_addr,
        metrics_addr,
        public_url,
        device_url,
        tls_ca_pem,
        tls_ca_path,
        setup_token,
        engine,
        tls,
        edge,
        handles,
        tasks,
        background,
    })
}

impl RunningServer {
    /// Reads certificates again; the old ones stay when that fails.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        self.tls.reload()
    }

    /// Ends when the disk has failed and nothing can be written any more. Then the process has to end too.
    pub async fn failed(&self) {
        while !self.engine.has_failed() {
            tokio::time::sleep(FAILED).await;
        }
    }

    /// Accepts nothing new, lets requests finish, ends background work.
    pub async fn stop(self) {
        self.edge.say_farewell();
        futures_util::future::join_all(self.handles.iter().map(ServerHandle::pause)).await;
        tokio::time::sleep(FAREWELL.min(Duration::from_secs(self.edge.config.limits.drain_seconds))).await;
        futures_util::future::join_all(self.handles.iter().map(|handle| handle.stop(true))).await;
        for task in self.tasks {
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(cause = %error, "a listener ended with an error"),
                Err(error) => tracing::error!(cause = %error, "a listener died"),
            }
        }
        self.background.stop().await;
        tracing::info!("stopped");
    }
}

/// What the store is opened with. Offline verbs use the same.
pub fn store(config: &Config) -> StoreConfig {
    match &config.database {
        Some(url) => StoreConfig::Postgres {
            url: PostgresUrl::new(url.expose_secret()),
            max_connections: POSTGRES_CONNECTIONS,
            allow_rls_bypass: false,
        },
        None => StoreConfig::Sqlite { folder: config.data_dir.clone(), readers: SQLITE_READERS },
    }
}

/// Where backups go. Offline verbs use the same.
pub fn backups(config: &Config) -> BackupSettings {
    BackupSettings {
        folder: config.backup_folder.clone(),
        every_hours: config.backup_every_hours,
        keep_days: config.backup_keep_days,
        server: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Writes a file of the data folder with exactly this mode.
pub fn write(folder: &Path, name: &str, text: &str, mode: u32) -> Result<PathBuf, StartError> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let path = folder.join(name);
    let fail =
        |e: std::io::Error| StartError::File { path: path.display().to_string(), reason: e.to_string() };
    // A new file and a rename: nobody ever reads half of it, and an old file's wider mode does not stay.
    let fresh = folder.join(format!(".{name}.new"));
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).map_err(fail)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    std::fs::rename(&fresh, &path).map_err(fail)?;
    Ok(path)
}

fn apns(config: &Config) -> Result<Apns, StartError> {
    let trust_pem = config.apns_trust.as_deref().map(read).transpose()?;
    let endpoint = config.apns_endpoint.clone();
    Ok(Apns::new(ApnsConfig { endpoint, trust_pem, ..ApnsConfig::default() })?)
}

fn wns(settings: &WnsSettings) -> Result<Wns, StartError> {
    let config = WnsConfig::new(settings.package_sid.clone(), settings.client_secret.clone());
    Ok(Wns::new(WnsConfig {
        token_endpoint: settings.token_endpoint.clone(),
        hosts: settings.hosts.clone(),
        trust_pem: settings.trust.as_deref().map(read).transpose()?,
        ..config
    })?)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path)
        .map_err(|e| ConfigError::File { path: path.display().to_string(), reason: e.to_string() })
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| StartError::File { path: path.display().to_string(), reason: e.to_string() })
}

fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let fail = |e: std::io::Error| StartError::Bind { addr, reason: e.to_string() };
    let listener = listen::bind(addr).map_err(fail)?;
    let real = listener.local_addr().map_err(fail)?;
    Ok((listener, real))
}

fn base_url(configured: Option<&url::Url>, addr: SocketAddr) -> String {
    match configured {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("https://localhost:{}", addr.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secret_files_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "old").unwrap();
        std::fs::set_permissions(dir.path().join("token"), std::fs::Permissions::from_mode(0o666)).unwrap();
        let path = write(dir.path(), "token", "new", 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn urls_have_the_real_port() {
        let addr = "127.0.0.1:4711".parse().unwrap();
        assert_eq!(base_url(None, addr), "https://localhost:4711");
        let url = "https://mdm.example.org".parse().unwrap();
        assert_eq!(base_url(Some(&url), addr), "https://mdm.example.org");
    }
}
