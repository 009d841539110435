//! Commands that bring apps.

use plist::{Dictionary, Value};

use crate::Error;
use crate::xml::Keys;

/// Where an app comes from (`application.install.yaml`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppSource {
    /// `iTunesStoreID`.
    StoreId(u64),
    /// `Identifier`: the bundle identifier of an App Store app.
    BundleIdentifier(String),
    /// `ManifestURL`: an https manifest (`other/manifesturl.yaml`).
    ManifestUrl(String),
}

/// `application.install.yaml`. The configuration can hold secrets.
#[derive(Clone, PartialEq)]
pub struct InstallApplication {
    /// Where the app comes from.
    pub source: AppSource,
    /// Use a licence that belongs to the organisation (`Options.PurchaseMethod` 1).
    pub device_licence: bool,
    /// Bits: 1 remove with the enrollment, 4 keep out of backups.
    pub management_flags: u32,
    /// Managed app configuration.
    pub configuration: Option<Dictionary>,
    /// App attributes such as `VPNUUID` or `Removable`.
    pub attributes: Option<Dictionary>,
    /// Take over an app that the user installed.
    pub take_management: bool,
    /// macOS 11: install as a managed app.
    pub install_as_managed: bool,
    /// macOS 11: an iOS app for Apple silicon.
    pub ios_app: bool,
}

impl InstallApplication {
    /// An app from a source, with nothing else said.
    #[must_use]
    pub fn new(source: AppSource) -> Self {
        Self {
            source,
            device_licence: false,
            management_flags: 0,
            configuration: None,
            attributes: None,
            take_management: false,
            install_as_managed: false,
            ios_app: false,
        }
    }

    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        if !matches!(self.management_flags, 0 | 1 | 4 | 5) {
            return Err(Error::BadCommand("management flags are 1, 4 or both"));
        }
        let (key, value) = match &self.source {
            AppSource::StoreId(id) => ("iTunesStoreID", Value::Integer((*id).into())),
            AppSource::BundleIdentifier(id) => ("Identifier", Value::String(id.clone())),
            AppSource::ManifestUrl(url) => ("ManifestURL", Value::String(https(url)?)),
        };
        let options = self.device_licence.then(|| Keys::new().with("PurchaseMethod", 1_u64).done());
        let flags = (self.management_flags != 0).then_some(u64::from(self.management_flags));
        Ok(Keys::new()
            .with(key, value)
            .maybe("Options", options)
            .maybe("ManagementFlags", flags)
            .maybe("Configuration", self.configuration.clone())
            .maybe("Attributes", self.attributes.clone())
            .maybe("ChangeManagementState", self.take_management.then_some("Managed"))
            .flag("InstallAsManaged", self.install_as_managed)
            .flag("iOSApp", self.ios_app)
            .done())
    }
}

/// `application.install.enterprise.yaml` (macOS): a signed package from our own server.
#[derive(Clone, PartialEq, Default)]
pub struct InstallEnterpriseApplication {
    /// The manifest's https address. Either this or `manifest`.
    pub manifest_url: Option<String>,
    /// The manifest itself (macOS 10.15). Either this or `manifest_url`.
    pub manifest: Option<Dictionary>,
    /// DER certificates that the host of the manifest must show.
    pub pinning_certificates: Vec<Vec<u8>>,
    /// Refuse when revocation cannot be checked.
    pub pinning_revocation_check_required: bool,
    /// Install as a managed app (macOS 11).
    pub install_as_managed: bool,
    /// Remove with the enrollment (macOS 11).
    pub remove_with_enrollment: bool,
    /// Managed app configuration (macOS 11).
    pub configuration: Option<Dictionary>,
    /// Take over an app that the user installed (macOS 11).
    pub take_management: bool,
    /// An iOS app for Apple silicon.
    pub ios_app: bool,
}

impl InstallEnterpriseApplication {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        if self.manifest_url.is_some() == self.manifest.is_some() {
            return Err(Error::BadCommand("an enterprise app needs a manifest or its address"));
        }
        let url = self.manifest_url.as_deref().map(https).transpose()?;
        let pins = (!self.pinning_certificates.is_empty())
            .then(|| self.pinning_certificates.iter().cloned().map(Value::Data).collect());
        Ok(Keys::new()
            .maybe("Manifest", self.manifest.clone())
            .maybe("ManifestURL", url)
            .maybe("ManifestURLPinningCerts", pins.map(Value::Array))
            .flag("PinningRevocationCheckRequired", self.pinning_revocation_check_required)
            .flag("InstallAsManaged", self.install_as_managed)
            .maybe("ManagementFlags", self.remove_with_enrollment.then_some(1_u64))
            .maybe("Configuration", self.configuration.clone())
            .maybe("ChangeManagementState", self.take_management.then_some("Managed"))
            .flag("iOSApp", self.ios_app)
            .done())
    }
}

/// Devices fetch manifests over https only.
fn https(url: &str) -> Result<String, Error> {
    if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        Ok(url.to_owned())
    } else {
        Err(Error::BadCommand("a manifest is fetched over https only"))
    }
}
