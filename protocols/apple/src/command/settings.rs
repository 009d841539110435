//! Items of the `Settings` command, and OS updates.

use plist::{Dictionary, Value};

use crate::Error;
use crate::xml::Keys;

/// One item of `settings.yaml`.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Setting {
    /// The device's name. Supervised iPhones and iPads, and Macs.
    DeviceName(String),
    /// A Mac's host name.
    HostName(String),
    /// Bluetooth on or off.
    Bluetooth(bool),
    /// Data roaming on or off.
    DataRoaming(bool),
    /// Personal hotspot on or off.
    PersonalHotspot(bool),
    /// Diagnostic submission on a Shared iPad.
    DiagnosticSubmission(bool),
    /// App analytics on a Shared iPad.
    AppAnalytics(bool),
    /// An IANA time zone name.
    TimeZone(String),
    /// Who manages the device.
    OrganizationInfo(OrganizationInfo),
    /// Options of the enrollment.
    MdmOptions(MdmOptions),
    /// A picture for the screens: 1 lock, 2 home, 3 both.
    Wallpaper {
        /// PNG or JPEG.
        image: Vec<u8>,
        /// 1, 2 or 3.
        place: u8,
    },
    /// Managed app configuration; none removes it.
    ApplicationConfiguration {
        /// The bundle identifier.
        identifier: String,
        /// What the app reads; can hold secrets.
        configuration: Option<Dictionary>,
    },
    /// Managed app attributes; none removes them.
    ApplicationAttributes {
        /// The bundle identifier.
        identifier: String,
        /// Attributes such as `VPNUUID`.
        attributes: Option<Dictionary>,
    },
    /// Any other item; it must have the key `Item`.
    Other(Dictionary),
}

/// `OrganizationInfo` of `settings.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrganizationInfo {
    /// The name.
    pub name: String,
    /// A short name.
    pub short_name: Option<String>,
    /// The address; lines are separated by line feeds.
    pub address: Option<String>,
    /// The support phone number.
    pub phone: Option<String>,
    /// The support address.
    pub email: Option<String>,
    /// An identifier of ours.
    pub magic: Option<String>,
}

/// `MDMOptions` of `settings.yaml`. What is not said stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MdmOptions {
    /// Lets users turn Activation Lock on although the device is supervised.
    pub activation_lock_allowed_while_supervised: Option<bool>,
    /// Asks the user before the bootstrap token authorises something (macOS 11).
    pub prompt_user_to_allow_bootstrap_token_for_authentication: Option<bool>,
}

impl Setting {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        let item = |name: &str| Keys::new().with("Item", name);
        let switch = |name: &str, enabled: bool| item(name).with("Enabled", enabled).done();
        Ok(match self {
            Self::DeviceName(name) => item("DeviceName").with("DeviceName", filled(name)?).done(),
            Self::HostName(name) => item("HostName").with("HostName", filled(name)?).done(),
            Self::Bluetooth(enabled) => switch("Bluetooth", *enabled),
            Self::DataRoaming(enabled) => switch("DataRoaming", *enabled),
            Self::PersonalHotspot(enabled) => switch("PersonalHotspot", *enabled),
            Self::DiagnosticSubmission(enabled) => switch("DiagnosticSubmission", *enabled),
            Self::AppAnalytics(enabled) => switch("AppAnalytics", *enabled),
            Self::TimeZone(zone) => item("TimeZone").with("TimeZone", filled(zone)?).done(),
            Self::OrganizationInfo(info) => {
                item("OrganizationInfo").with("OrganizationInfo", info.keys()?).done()
            }
            Self::MdmOptions(options) => item("MDMOptions").with("MDMOptions", options.keys()).done(),
            Self::Wallpaper { image, place } => {
                if !(1..=3).contains(place) {
                    return Err(Error::BadCommand("a wallpaper goes to place 1, 2 or 3"));
                }
                item("Wallpaper")
                    .with("Image", Value::Data(image.clone()))
                    .with("Where", u64::from(*place))
                    .done()
            }
            Self::ApplicationConfiguration { identifier, configuration } => item("ApplicationConfiguration")
                .with("Identifier", filled(identifier)?)
                .maybe("Configuration", configuration.clone())
                .done(),
            Self::ApplicationAttributes { identifier, attributes } => item("ApplicationAttributes")
                .with("Identifier", filled(identifier)?)
                .maybe("Attributes", attributes.clone())
                .done(),
            Self::Other(keys) => {
                if !matches!(keys.get("Item"), Some(Value::String(name)) if !name.is_empty()) {
                    return Err(Error::BadCommand("a setting needs the key Item"));
                }
                keys.clone()
            }
        })
    }
}

impl OrganizationInfo {
    fn keys(&self) -> Result<Dictionary, Error> {
        Ok(Keys::new()
            .with("OrganizationName", filled(&self.name)?)
            .maybe("OrganizationShortName", self.short_name.clone())
            .maybe("OrganizationAddress", self.address.clone())
            .maybe("OrganizationPhone", self.phone.clone())
            .maybe("OrganizationEmail", self.email.clone())
            .maybe("OrganizationMagic", self.magic.clone())
            .done())
    }
}

impl MdmOptions {
    fn keys(self) -> Dictionary {
        Keys::new()
            .maybe("ActivationLockAllowedWhileSupervised", self.activation_lock_allowed_while_supervised)
            .maybe(
                "PromptUserToAllowBootstrapTokenForAuthentication",
                self.prompt_user_to_allow_bootstrap_token_for_authentication,
            )
            .done()
    }
}

fn filled(text: &str) -> Result<String, Error> {
    if text.trim().is_empty() {
        Err(Error::BadCommand("a setting's value is empty"))
    } else {
        Ok(text.to_owned())
    }
}

/// One entry of `Updates` in `system.update.schedule.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsUpdate {
    /// `ProductKey`, from `AvailableOSUpdates`.
    pub product_key: Option<String>,
    /// `ProductVersion`, such as `14.2.1`.
    pub product_version: Option<String>,
    /// What to do.
    pub action: InstallAction,
    /// How often the user may put it off; with [`InstallAction::InstallLater`] on a Mac.
    pub max_user_deferrals: Option<u32>,
    /// macOS 12.3: download and prepare with high priority.
    pub high_priority: bool,
}

/// `InstallAction` of `system.update.schedule.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstallAction {
    /// Download or install, whatever comes next.
    Default,
    /// Download only.
    DownloadOnly,
    /// Install what was downloaded.
    InstallAsap,
    /// Download and tell the user.
    NotifyOnly,
    /// Download and install later.
    InstallLater,
    /// Restart without asking: unsaved work is lost.
    InstallForceRestart,
}

impl OsUpdate {
    pub(super) fn keys(&self) -> Result<Dictionary, Error> {
        if self.product_key.is_none() && self.product_version.is_none() {
            return Err(Error::BadCommand("an OS update needs a product key or a version"));
        }
        let action = match self.action {
            InstallAction::Default => "Default",
            InstallAction::DownloadOnly => "DownloadOnly",
            InstallAction::InstallAsap => "InstallASAP",
            InstallAction::NotifyOnly => "NotifyOnly",
            InstallAction::InstallLater => "InstallLater",
            InstallAction::InstallForceRestart => "InstallForceRestart",
        };
        Ok(Keys::new()
            .maybe("ProductKey", self.product_key.clone())
            .maybe("ProductVersion", self.product_version.clone())
            .with("InstallAction", action)
            .maybe("MaxUserDeferrals", self.max_user_deferrals.map(u64::from))
            .maybe("Priority", self.high_priority.then_some("High"))
            .done())
    }
}
