//! The configuration as the server uses it.

use super::{ConfigError, EntraConfig, Layers, WnsSettings, entra};
use actix_web::http::header::HeaderName;
use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use url::Url;

/// Checked values. `Default` is what an empty configuration gives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Folder for everything.
    pub data_dir: PathBuf,
    /// PostgreSQL; `None`: SQLite in the data folder.
    pub database: Option<SecretString>,
    /// `None`: the file in the data folder.
    pub master_key: Option<SecretString>,
    /// Shown on devices.
    pub organization: String,
    /// Public base URL; `None`: localhost with the real port.
    pub public_url: Option<Url>,
    /// Device base URL; `None`: localhost with the real port.
    pub device_url: Option<Url>,
    /// How many enrolled devices an admin is ready to lose by changing the URLs.
    pub lose_devices: i64,
    /// Where the public listener listens.
    pub public_listen: SocketAddr,
    /// Where the device listener listens.
    pub device_listen: SocketAddr,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// PEM chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whose forwarded headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// The Apple option.
    pub apple_require_client_certificate: bool,
    /// The header in which a trusted proxy hands on the client certificate; `None`: no header is believed.
    pub client_certificate_header: Option<HeaderName>,
    /// Further names for the certificate of our own TLS CA, in lower case.
    pub windows_discovery_names: Vec<String>,
    /// PROVIDER-ID; `None`: the engine's own.
    pub windows_provider_id: Option<String>,
    /// Windows signs people in on our page instead of asking for the code as a password.
    pub windows_sign_in_page: bool,
    /// Push service.
    pub apns_endpoint: Url,
    /// PEM roots for it.
    pub apns_trust: Option<PathBuf>,
    /// Push service for Windows; `None`: PCs call on their schedule.
    pub wns: Option<WnsSettings>,
    /// Entra ID; `None`: its tokens are not accepted.
    pub entra: Option<EntraConfig>,
    /// A file for the signed heads of the audit; `None`: they stand in the database only.
    pub audit_witness: Option<PathBuf>,
    /// Where backups go.
    pub backup_folder: PathBuf,
    /// Hours between two; 0: none by itself.
    pub backup_every_hours: u32,
    /// Days that they are kept.
    pub backup_keep_days: u32,
    /// Days that devices' uploads are kept.
    pub uploads_keep_days: u16,
    /// Bytes of all of them.
    pub uploads_total_bytes: u64,
    /// Bytes of the data folder's disk that are kept for administrators.
    pub disk_reserve_bytes: u64,
    /// How to log.
    pub log_format: LogFormat,
    /// What to log.
    pub log_level: String,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what a client may cost.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a device message.
    pub device_body: usize,
    /// Bytes of an API request.
    pub api_body: usize,
    /// Bytes of an uploaded package, and of all that are uploaded at the same time.
    pub package_body: usize,
    /// Bytes of one file that a device uploads.
    pub upload_body: u64,
    /// Connections of one listener.
    pub connections: usize,
    /// Seconds for one body.
    pub request_seconds: u64,
    /// Seconds to finish at shutdown.
    pub drain_seconds: u64,
    /// Threads; 0: one for each processor.
    pub workers: usize,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// An IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Config {
    /// The defaults with another data folder and ports chosen by the system: what tests and trials want.
    pub fn ephemeral(data_dir: PathBuf) -> Result<Self, ConfigError> {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let flags = vec![
            set("data_dir", &data_dir.display().to_string()),
            set("public.listen", "127.0.0.1:0"),
            set("device.listen", "127.0.0.1:0"),
            set("limits.workers", "2"),
        ];
        Self::from_layers(&super::Sources { flags, ..super::Sources::default() }.load()?)
    }

    /// Checks every value.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let read = Reader { layers };
        let tls = match (read.path("tls.certificate"), read.path("tls.key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(ConfigError::Contradiction(
                    "tls.certificate and tls.key go together: set both".to_owned(),
                ));
            }
        };
        let data_dir = read.path("data_dir").unwrap_or_else(|| PathBuf::from("data"));
        let config = Self {
            data_dir: data_dir.clone(),
            database: read.secret("database"),
            master_key: read.secret("master_key"),
            organization: read.text("organization"),
            public_url: read.url("public_url")?,
            device_url: read.url("device_url")?,
            lose_devices: read.parse("lose_devices", "the number of devices is wanted")?,
            public_listen: read.listen("public.listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8443))),
            device_listen: read.listen("device.listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8444))),
            metrics_listen: read.listen("metrics.listen")?,
            tls,
            trusted_proxies: read.networks("trusted_proxies")?,
            apple_require_client_certificate: read
                .parse("apple.require_client_certificate", "true or false is wanted")?,
            client_certificate_header: read.header("device.client_certificate_header")?,
            windows_discovery_names: read.names("windows.discovery_names")?,
            windows_provider_id: read.provider_id("windows.provider_id")?,
            windows_sign_in_page: match read.text("windows.sign_in").as_str() {
                "code" => false,
                "page" => true,
                _ => return Err(read.wrong("windows.sign_in", "code or page is wanted")),
            },
            apns_endpoint: read.parse("apns.endpoint", "an absolute URL is wanted")?,
            apns_trust: read.path("apns.trust"),
            wns: WnsSettings::read(&read)?,
            entra: entra::read(&read)?,
            audit_witness: read.path("audit.witness"),
            backup_folder: read.path("backup.folder").unwrap_or_else(|| data_dir.join("backups")),
            backup_every_hours: read.parse("backup.every_hours", "a number of hours is wanted")?,
            backup_keep_days: read.parse("backup.keep_days", "a number of days is wanted")?,
            uploads_keep_days: read.parse("uploads.keep_days", "a number of days is wanted")?,
            uploads_total_bytes: read.parse("uploads.total_bytes", WHOLE)?,
            disk_reserve_bytes: read.parse("disk.reserve_bytes", WHOLE)?,
            log_format: match read.text("log.format").as_str() {
                "auto" => LogFormat::Auto,
                "json" => LogFormat::Json,
                "text" => LogFormat::Text,
                _ => return Err(read.wrong("log.format", "auto, json or text is wanted")),
            },
            log_level: read.text("log.level"),
            limits: Limits {
                device_body: read.parse("limits.device_body", WHOLE)?,
                api_body: read.parse("limits.api_body", WHOLE)?,
                package_body: read.parse("limits.package_body", WHOLE)?,
                upload_body: read.parse("limits.upload_body", WHOLE)?,
                connections: read.parse("limits.connections", WHOLE)?,
                request_seconds: read.parse("limits.request_seconds", WHOLE)?,
                drain_seconds: read.parse("limits.drain_seconds", WHOLE)?,
                workers: read.parse("limits.workers", WHOLE)?,
            },
        };
        if config.organization.trim().is_empty() || config.organization.chars().count() > 100 {
            return Err(read.wrong("organization", "1 to 100 characters are wanted"));
        }
        if config.limits.connections == 0 || config.limits.request_seconds == 0 {
            return Err(ConfigError::Contradiction(
                "limits.connections and limits.request_seconds cannot be 0".into(),
            ));
        }
        if !(1..=3650).contains(&config.backup_keep_days) {
            return Err(read.wrong("backup.keep_days", "1 to 3650 days are wanted"));
        }
        if !(1..=365).contains(&config.uploads_keep_days) {
            return Err(read.wrong("uploads.keep_days", "1 to 365 days are wanted"));
        }
        if let Some(url) = &config.database
            && !is_postgres(url)
        {
            return Err(
                read.wrong("database", "a postgres:// URL is wanted; leave it out for SQLite in data_dir")
            );
        }
        Ok(config)
    }

    /// Whether people gave the server names of its own, so that a foreign `Host` can be told.
    pub fn names_configured(&self) -> bool {
        self.public_url.is_some() && self.device_url.is_some()
    }
}

const WHOLE: &str = "a whole number is wanted";

fn is_postgres(url: &SecretString) -> bool {
    use secrecy::ExposeSecret as _;
    let url = url.expose_secret();
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Looks values up.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.layers.get(name).map(|v| v.text.as_str())
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).filter(|text| !text.is_empty()).map(SecretString::from)
    }

    pub(super) fn wrong(&self, name: &str, reason: &str) -> ConfigError {
        let place = self.layers.get(name).map_or_else(|| "not set".to_owned(), |v| v.origin.to_string());
        ConfigError::Invalid { key: name.to_owned(), place, reason: reason.to_owned() }
    }

    pub(super) fn parse<T: std::str::FromStr>(&self, name: &str, reason: &str) -> Result<T, ConfigError> {
        self.get(name).unwrap_or_default().trim().parse().map_err(|_| self.wrong(name, reason))
    }

    fn listen(&self, name: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
        found.map(Some).ok_or_else(|| self.wrong(name, "address:port is wanted, such as 0.0.0.0:8443"))
    }

    /// `None` when the value is the default: then the real port decides.
    pub(super) fn url(&self, name: &str) -> Result<Option<Url>, ConfigError> {
        if self.layers.get(name).is_none_or(|v| v.origin == super::Origin::Default) {
            return Ok(None);
        }
        let url: Url = self.parse(name, "an absolute https URL is wanted")?;
        let plain = url.scheme() == "https"
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if plain {
            Ok(Some(url))
        } else {
            Err(self.wrong(name, "https://name or https://name:port is wanted, without path"))
        }
    }

    /// Credentials and names of ours cannot stand for a certificate.
    fn header(&self, name: &str) -> Result<Option<HeaderName>, ConfigError> {
        const TAKEN: [&str; 6] =
            ["authorization", "cookie", "host", "mdm-signature", "ms-signature", "x-forwarded-for"];
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        HeaderName::from_bytes(text.as_bytes())
            .ok()
            .filter(|header| !TAKEN.contains(&header.as_str()))
            .map(Some)
            .ok_or_else(|| self.wrong(name, "a header's name is wanted, such as Client-Cert"))
    }

    fn names(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let parts = self.list(name).into_iter().map(|part| part.to_ascii_lowercase());
        parts
            .map(|part| {
                if is_host_name(&part) {
                    Ok(part)
                } else {
                    Err(self.wrong(name, "host names are wanted, such as enterpriseenrollment.contoso.com"))
                }
            })
            .collect()
    }

    /// It becomes part of LocURIs and of a path in Windows' registry (spec/windows.md 10.2).
    fn provider_id(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let text = self.text(name);
        let sound = text.len() <= 64
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !sound {
            return Err(self.wrong(name, "at most 64 letters, digits, '-', '_' and '.' are wanted"));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// What stands between commas.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let parts = self.get(name).unwrap_or_default().split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn networks(&self, name: &str) -> Result<Vec<Network>, ConfigError> {
        let wrong = || self.wrong(name, "networks such as 10.0.0.0/8 are wanted");
        self.list(name).iter().map(|part| Network::parse(part).ok_or_else(wrong)).collect()
    }
}

/// A DNS name in ASCII with at least two labels.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

impl Network {
    /// `10.0.0.0/8`, `::1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    /// Whether an address lies inside. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32_u32.saturating_sub(u32::from(self.bits));
                (u64::from(a.to_bits()) >> shift) == (u64::from(b.to_bits()) >> shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128_u32.saturating_sub(u32::from(self.bits));
                a.to_bits().checked_shr(shift).unwrap_or(0) == b.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn with(flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags = flags.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Config::from_layers(&Sources { flags, ..Sources::default() }.load()?)
    }

    #[test]
    fn nothing_configured_is_safe() {
        let config = with(&[]).unwrap();
        assert!(config.public_listen.ip().is_loopback() && config.device_listen.ip().is_loopback());
        assert!(config.trusted_proxies.is_empty() && !config.names_configured());
        assert!(config.client_certificate_header.is_none() && config.windows_discovery_names.is_empty());
        assert!(config.windows_provider_id.is_none() && !config.windows_sign_in_page);
        assert!(config.metrics_listen.is_none() && config.database.is_none() && config.wns.is_none());
    }

    #[test]
    fn wrong_values_name_key_and_place() {
        for (key, value) in [
            ("public.listen", "8443"),
            ("public_url", "http://mdm.example.org"),
            ("public_url", "https://mdm.example.org/path"),
            ("public_url", "https://user:pw@mdm.example.org"),
            ("apple.require_client_certificate", "maybe"),
            ("limits.api_body", "-1"),
            ("uploads.keep_days", "0"),
            ("uploads.keep_days", "366"),
            ("trusted_proxies", "10.0.0.0/33"),
            ("log.format", "yaml"),
            ("organization", ""),
            ("database", "mysql://x"),
            ("device.client_certificate_header", "Client Cert"),
            ("device.client_certificate_header", "Authorization"),
            ("windows.discovery_names", "https://enterpriseenrollment.contoso.com"),
            ("windows.discovery_names", "enterpriseenrollment"),
            ("windows.discovery_names", "a.example,*.example"),
            ("windows.provider_id", "Example MDM"),
            ("windows.provider_id", "Example/MDM"),
            ("windows.provider_id", "B\u{fc}cher"),
            ("windows.sign_in", "password"),
        ] {
            let error = with(&[(key, value)]).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{key} (flag): ")), "{error}");
        }
        assert!(with(&[("tls.certificate", "a.pem")]).is_err());
    }

    #[test]
    fn windows_values_are_read() {
        let names = "EnterpriseEnrollment.Contoso.com, enterpriseenrollment.fabrikam.example,";
        let config = with(&[
            ("device.client_certificate_header", "Client-Cert"),
            ("windows.discovery_names", names),
            ("windows.provider_id", "Example_MDM-1.0"),
            ("windows.sign_in", "page"),
        ])
        .unwrap();
        assert_eq!(config.client_certificate_header.unwrap().as_str(), "client-cert");
        assert_eq!(
            config.windows_discovery_names,
            ["enterpriseenrollment.contoso.com", "enterpriseenrollment.fabrikam.example"]
        );
        assert_eq!(config.windows_provider_id.as_deref(), Some("Example_MDM-1.0"));
        assert!(config.windows_sign_in_page);
        let long = "x".repeat(65);
        assert!(with(&[("windows.provider_id", long.as_str())]).is_err());
    }

    #[test]
    fn networks_hold_their_addresses() {
        let inside = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(inside("10.0.0.0/8", "10.1.2.3") && !inside("10.0.0.0/8", "11.1.2.3"));
        assert!(inside("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "::1"));
        assert!(inside("::/0", "::1") && inside("fd00::/8", "fd12::1") && !inside("fd00::/8", "fe80::1"));
        assert!(inside("192.0.2.7", "192.0.2.7") && !inside("192.0.2.7", "192.0.2.8"));
        assert!(Network::parse("x/8").is_none() && Network::parse("::/129").is_none());
    }
}
