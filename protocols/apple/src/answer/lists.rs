//! Answers that are lists: apps, profiles, certificates, users, updates.

use plist::{Dictionary, Value};
use serde_json::{Map, Value as Json};

use super::Fact;
use super::value::{self, Kind};

/// The most entries of a list.
const MAX_ENTRIES: usize = 20_000;

/// Key of the device, key in the fact, kind of the value.
type Columns = &'static [(&'static str, &'static str, Kind)];

const APPS: Columns = &[
    ("Name", "name", Kind::Text),
    ("Identifier", "identifier", Kind::Text),
    ("Version", "version", Kind::Text),
    ("ShortVersion", "short-version", Kind::Text),
    ("BundleSize", "size", Kind::Int),
    ("DynamicSize", "data-size", Kind::Int),
    ("ExternalVersionIdentifier", "store-version", Kind::Int),
    ("DistributorIdentifier", "distributor", Kind::Text),
    ("IsValidated", "validated", Kind::Bool),
    ("Installing", "installing", Kind::Bool),
    ("AppStoreVendable", "app-store", Kind::Bool),
    ("DeviceBasedVPP", "device-licence", Kind::Bool),
    ("BetaApp", "beta", Kind::Bool),
    ("AdHocCodeSigned", "ad-hoc", Kind::Bool),
    ("HasUpdateAvailable", "update-available", Kind::Bool),
    ("IsAppClip", "app-clip", Kind::Bool),
    ("DownloadFailed", "download-failed", Kind::Bool),
    ("Source", "source", Kind::Text),
];

const PROFILES: Columns = &[
    ("PayloadIdentifier", "identifier", Kind::Text),
    ("PayloadUUID", "uuid", Kind::Text),
    ("PayloadVersion", "version", Kind::Int),
    ("PayloadDisplayName", "name", Kind::Text),
    ("PayloadOrganization", "organization", Kind::Text),
    ("PayloadDescription", "description", Kind::Text),
    ("PayloadRemovalDisallowed", "removal-disallowed", Kind::Bool),
    ("HasRemovalPasscode", "removal-passcode", Kind::Bool),
    ("IsEncrypted", "encrypted", Kind::Bool),
    ("IsManaged", "managed", Kind::Bool),
    ("Source", "source", Kind::Text),
];

const PAYLOADS: Columns = &[
    ("PayloadType", "type", Kind::Text),
    ("PayloadIdentifier", "identifier", Kind::Text),
    ("PayloadUUID", "uuid", Kind::Text),
    ("PayloadDisplayName", "name", Kind::Text),
];

const CERTIFICATES: Columns = &[
    ("Data", "der", Kind::Data),
    ("CommonName", "common-name", Kind::Text),
    ("IsIdentity", "identity", Kind::Bool),
];

const MANAGED_APPS: Columns = &[
    ("Status", "status", Kind::Text),
    ("ManagementFlags", "management-flags", Kind::Int),
    ("HasConfiguration", "configured", Kind::Bool),
    ("HasFeedback", "feedback", Kind::Bool),
    ("IsValidated", "validated", Kind::Bool),
    ("ExternalVersionIdentifier", "store-version", Kind::Int),
];

const USERS: Columns = &[
    ("UserName", "name", Kind::Text),
    ("FullName", "full-name", Kind::Text),
    ("UserGUID", "guid", Kind::Text),
    ("UID", "uid", Kind::Int),
    ("IsLoggedIn", "logged-in", Kind::Bool),
    ("HasSecureToken", "secure-token", Kind::Bool),
    ("MobileAccount", "mobile-account", Kind::Bool),
    ("HasDataToSync", "data-to-sync", Kind::Bool),
    ("DataQuota", "quota", Kind::Int),
    ("DataUsed", "used", Kind::Int),
];

const OS_UPDATES: Columns = &[
    ("ProductKey", "product-key", Kind::Text),
    ("HumanReadableName", "name", Kind::Text),
    ("Version", "version", Kind::Text),
    ("Build", "build", Kind::Text),
    ("DownloadSize", "download-size", Kind::Amount),
    ("InstallSize", "install-size", Kind::Amount),
    ("IsCritical", "critical", Kind::Bool),
    ("IsConfigDataUpdate", "configuration-data", Kind::Bool),
    ("IsFirmwareUpdate", "firmware", Kind::Bool),
    ("IsMajorOSUpdate", "major", Kind::Bool),
    ("IsSecurityResponse", "security-response", Kind::Bool),
    ("RestartRequired", "restart-required", Kind::Bool),
];

const OS_UPDATE_STATUS: Columns = &[
    ("ProductKey", "product-key", Kind::Text),
    ("Status", "status", Kind::Text),
    ("DeferralsRemaining", "deferrals-remaining", Kind::Int),
    ("NextScheduledInstall", "next-install", Kind::Date),
    ("IsDownloaded", "downloaded", Kind::Bool),
    ("DownloadPercentComplete", "download-fraction", Kind::Amount),
];

const SUBSCRIPTIONS: Columns = &[
    ("Slot", "slot", Kind::Text),
    ("Label", "label", Kind::Text),
    ("PhoneNumber", "phone-number", Kind::Text),
    ("IMEI", "imei", Kind::Text),
    ("MEID", "meid", Kind::Text),
    ("ICCID", "iccid", Kind::Text),
    ("EID", "eid", Kind::Text),
    ("CurrentCarrierNetwork", "carrier", Kind::Text),
    ("SubscriberCarrierNetwork", "home-carrier", Kind::Text),
    ("IsRoaming", "roaming", Kind::Bool),
    ("IsDataPreferred", "data-preferred", Kind::Bool),
    ("IsVoicePreferred", "voice-preferred", Kind::Bool),
];

const ADMIN_ACCOUNTS: Columns = &[("GUID", "guid", Kind::Text), ("shortName", "short-name", Kind::Text)];

const LOCATION: Columns = &[
    ("HorizontalAccuracy", "horizontal-accuracy", Kind::Amount),
    ("VerticalAccuracy", "vertical-accuracy", Kind::Amount),
    ("Speed", "speed", Kind::Amount),
    ("Course", "course", Kind::Amount),
    ("Timestamp", "timestamp", Kind::Text),
];

/// The one fact of a list answer.
pub(super) fn read(request_type: &str, body: &Dictionary) -> Option<Fact> {
    let list = |key: &str, fact: &str, columns| Some(Fact::new(fact, rows(body.get(key)?, columns)?));
    match request_type {
        "InstalledApplicationList" => list("InstalledApplicationList", "apps", APPS),
        "CertificateList" => list("CertificateList", "certificates", CERTIFICATES),
        "UserList" => list("Users", "users", USERS),
        "AvailableOSUpdates" => list("AvailableOSUpdates", "os.available-updates", OS_UPDATES),
        "OSUpdateStatus" => list("OSUpdateStatus", "os.update-status", OS_UPDATE_STATUS),
        "ProfileList" => profiles(body.get("ProfileList")?),
        "ManagedApplicationList" => managed_apps(body.get("ManagedApplicationList")?),
        _ => None,
    }
}

/// The lists inside the answers to `DeviceInformation`.
pub(super) fn device_information(answers: &Dictionary) -> Vec<Fact> {
    [
        ("ServiceSubscriptions", "cellular.subscriptions", SUBSCRIPTIONS),
        ("AutoSetupAdminAccounts", "users.auto-admin", ADMIN_ACCOUNTS),
    ]
    .into_iter()
    .filter_map(|(theirs, ours, columns)| Some(Fact::new(ours, rows(answers.get(theirs)?, columns)?)))
    .collect()
}

/// `device.lostmode.location.yaml`: latitude and longitude in degrees, or nothing.
pub(super) fn location(body: &Dictionary) -> Option<Fact> {
    let degrees = |key: &str, limit: f64| match body.get(key)? {
        Value::Real(value) if value.abs() <= limit => serde_json::Number::from_f64(*value),
        Value::Integer(value) => {
            let value = i32::try_from(value.as_signed()?).ok().map(f64::from)?;
            (value.abs() <= limit).then(|| serde_json::Number::from_f64(value)).flatten()
        }
        _ => None,
    };
    let latitude = degrees("Latitude", 90.0)?;
    let longitude = degrees("Longitude", 180.0)?;
    let mut place = row(body, LOCATION);
    place.insert("latitude".to_owned(), Json::Number(latitude));
    place.insert("longitude".to_owned(), Json::Number(longitude));
    if let Some(Value::Real(altitude)) = body.get("Altitude")
        && let Some(altitude) = serde_json::Number::from_f64(*altitude)
    {
        place.insert("altitude".to_owned(), Json::Number(altitude));
    }
    Some(Fact::new("location", Json::Object(place)))
}

fn profiles(list: &Value) -> Option<Fact> {
    let entries = list.as_array()?.iter().take(MAX_ENTRIES).filter_map(|entry| {
        let entry = entry.as_dictionary()?;
        let mut profile = row(entry, PROFILES);
        profile.contains_key("identifier").then_some(())?;
        if let Some(payloads) = entry.get("PayloadContent").and_then(|list| rows(list, PAYLOADS)) {
            profile.insert("payloads".to_owned(), payloads);
        }
        Some(Json::Object(profile))
    });
    Some(Fact::new("profiles", Json::Array(entries.collect())))
}

/// A dictionary from bundle identifiers to states.
fn managed_apps(list: &Value) -> Option<Fact> {
    let entries = list.as_dictionary()?.iter().take(MAX_ENTRIES).filter_map(|(identifier, app)| {
        let identifier = value::read(&Value::String(identifier.clone()), Kind::Text)?;
        let mut app = row(app.as_dictionary()?, MANAGED_APPS);
        app.insert("identifier".to_owned(), identifier);
        Some(Json::Object(app))
    });
    Some(Fact::new("managed-apps", Json::Array(entries.collect())))
}

/// Entries that are no dictionaries, or of which nothing can be read, are left out.
fn rows(list: &Value, columns: Columns) -> Option<Json> {
    let entries = list.as_array()?.iter().take(MAX_ENTRIES).filter_map(|entry| {
        let row = row(entry.as_dictionary()?, columns);
        (!row.is_empty()).then_some(Json::Object(row))
    });
    Some(Json::Array(entries.collect()))
}

fn row(entry: &Dictionary, columns: Columns) -> Map<String, Json> {
    columns
        .iter()
        .filter_map(|(theirs, ours, kind)| {
            Some(((*ours).to_owned(), value::read(entry.get(theirs)?, *kind)?))
        })
        .collect()
}
