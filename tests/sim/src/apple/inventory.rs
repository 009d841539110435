//! The changeable part of a device: what a wipe resets.

use std::collections::BTreeMap;

use super::Hardware;

/// What is on the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// The device's name.
    pub name: String,
    /// Profiles by `PayloadIdentifier`, the enrollment profile not among them.
    pub profiles: BTreeMap<String, InstalledProfile>,
    /// Apps by bundle identifier.
    pub apps: BTreeMap<String, InstalledApp>,
    /// Managed apps that are installed when the device calls next: an acknowledged app is not yet there.
    pub(super) pending_apps: BTreeMap<String, InstalledApp>,
    /// Apps are acknowledged and then never arrive.
    pub apps_never_arrive: bool,
    /// Whether a passcode is set.
    pub passcode: bool,
    /// How often the device was locked, and the PIN of the last time (Mac).
    pub locks: u32,
    /// The PIN of the last lock (Mac).
    pub lock_pin: Option<String>,
    /// The message of lost mode, when the device is in it.
    pub lost_mode: Option<String>,
    /// How often the device restarted or shut down by command.
    pub restarts: u32,
    /// Remaining charge, 0 to 1.
    pub battery: f64,
    /// Latitude and longitude.
    pub place: (f64, f64),
}

/// A configuration profile on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledProfile {
    /// `PayloadIdentifier`.
    pub identifier: String,
    /// `PayloadUUID`.
    pub uuid: String,
    /// `PayloadDisplayName`.
    pub display_name: String,
    /// `PayloadVersion`.
    pub version: i64,
    /// Type, identifier and UUID of every payload.
    pub payloads: Vec<(String, String, String)>,
    /// Whether it came with a signature.
    pub signed: bool,
    /// The user whose channel it came through.
    pub user: Option<String>,
}

/// An app on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledApp {
    /// The bundle identifier.
    pub identifier: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// Whether MDM installed it.
    pub managed: bool,
}

impl Inventory {
    /// A device out of its box.
    pub(super) fn factory(hardware: &Hardware) -> Self {
        let apps: &[(&str, &str, &str)] = if hardware.is_mac() {
            &[
                ("com.apple.Safari", "Safari", "18.1"),
                ("com.apple.TextEdit", "TextEdit", "1.20"),
                ("org.mozilla.firefox", "Firefox", "132.0.1"),
            ]
        } else {
            &[("org.mozilla.ios.Firefox", "Firefox", "132.0"), ("com.example.notes", "Notes & Lists", "4.2")]
        };
        let app = |(identifier, name, version): &(&str, &str, &str)| {
            let app = InstalledApp {
                identifier: (*identifier).to_owned(),
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                managed: false,
            };
            (app.identifier.clone(), app)
        };
        Self {
            name: hardware.model_name.clone(),
            profiles: BTreeMap::new(),
            apps: apps.iter().map(app).collect(),
            pending_apps: BTreeMap::new(),
            apps_never_arrive: false,
            passcode: true,
            locks: 0,
            lock_pin: None,
            lost_mode: None,
            restarts: 0,
            battery: 0.82,
            place: (52.5163, 13.3777),
        }
    }
}
