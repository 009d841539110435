//! Settings: Policy CSP, ADMX files, Windows Update, BitLocker, LAPS and the local administrator.

use super::document::{Xml, fragments};
use super::{Error, NodeCommand, Scope, Step, device, segment, unusable};
use crate::syncml::Format;

/// A value of a policy. Its type is the area's, never guessed from the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyValue {
    /// `int`.
    Int(i64),
    /// `chr`.
    Text(String),
    /// ADMX-backed: `<enabled/>` with its elements' ids and values.
    Enabled(Vec<(String, String)>),
    /// ADMX-backed: `<disabled/>`.
    Disabled,
}

/// Sets a policy; a `Config` node takes `Replace` whether it was there or not.
///
/// # Errors
/// For names that cannot stand in a LocURI.
pub fn policy(scope: Scope, area: &str, name: &str, value: &PolicyValue) -> Result<Step, Error> {
    let uri = policy_node(scope, area, name)?;
    Ok(match value {
        PolicyValue::Int(number) => NodeCommand::replace(uri, Format::Int, number.to_string()),
        PolicyValue::Text(text) => NodeCommand::replace(uri, Format::Chr, &**text),
        PolicyValue::Enabled(elements) => NodeCommand::replace(uri, Format::Chr, enabled(elements)?),
        PolicyValue::Disabled => NodeCommand::replace(uri, Format::Chr, Xml::empty("disabled", &[]).write()?),
    }
    .into())
}

/// Makes a policy "not configured".
///
/// # Errors
/// For names that cannot stand in a LocURI.
pub fn remove_policy(scope: Scope, area: &str, name: &str) -> Result<Step, Error> {
    Ok(NodeCommand::delete(policy_node(scope, area, name)?).into())
}

fn policy_node(scope: Scope, area: &str, name: &str) -> Result<String, Error> {
    Ok([scope.prefix(), "Policy/Config/", &segment("area", area)?, "/", &segment("policy", name)?].concat())
}

fn enabled(elements: &[(String, String)]) -> Result<String, Error> {
    let attributes: Vec<[(&str, &str); 2]> =
        elements.iter().map(|(id, value)| [("id", id.as_str()), ("value", value.as_str())]).collect();
    let mut parts = vec![Xml::empty("enabled", &[])];
    parts.extend(attributes.iter().map(|attributes| Xml::empty("data", attributes)));
    fragments(&parts)
}

/// Brings an ADMX file to the machine; its policies are then areas of [`admx_area`]. A file that is there already
/// answers the `Add` with 418 and is replaced.
///
/// # Errors
/// For names that cannot stand in a LocURI.
pub fn ingest_admx(app: &str, file_id: &str, admx: &str) -> Result<Vec<Step>, Error> {
    let (app, file_id) = (segment("app", app)?, segment("file_id", file_id)?);
    let uri = device(&["Policy/ConfigOperations/ADMXInstall/", &app, "/Policy/", &file_id].concat());
    Ok(add_and_replace(&uri, Format::Chr, admx))
}

fn add_and_replace(uri: &str, format: Format, data: &str) -> Vec<Step> {
    let add = NodeCommand::add(uri, format.clone(), data);
    vec![add.into(), NodeCommand::replace(uri, format, data).into()]
}

/// The area of an ingested file's policies: the app and its categories from the root to the leaf.
#[must_use]
pub fn admx_area(app: &str, categories: &[&str]) -> String {
    [&[app, "Policy"], categories].concat().join("~")
}

/// Windows Update for Business (Policy CSP, Update). What is `None` is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Updates {
    /// Days, 0 to 30.
    pub defer_quality: Option<u32>,
    /// Days, 0 to 365.
    pub defer_feature: Option<u32>,
    /// Days, 0 to 30.
    pub deadline_quality: Option<u32>,
    /// Days, 0 to 30.
    pub deadline_feature: Option<u32>,
    /// Days, 0 to 7.
    pub grace: Option<u32>,
    /// Hours of the day without restarts.
    pub active_hours: Option<(u32, u32)>,
    /// 0 to 5.
    pub automatic: Option<u32>,
    /// `Windows 11`.
    pub product: Option<String>,
    /// `24H2`.
    pub release: Option<String>,
}

/// Sets Windows Update.
///
/// # Errors
/// For a number outside its range.
pub fn updates(updates: &Updates) -> Result<Vec<Step>, Error> {
    let (start, end) = updates.active_hours.unzip();
    let numbers = [
        ("DeferQualityUpdatesPeriodInDays", updates.defer_quality, 30),
        ("DeferFeatureUpdatesPeriodInDays", updates.defer_feature, 365),
        ("ConfigureDeadlineForQualityUpdates", updates.deadline_quality, 30),
        ("ConfigureDeadlineForFeatureUpdates", updates.deadline_feature, 30),
        ("ConfigureDeadlineGracePeriod", updates.grace, 7),
        ("ActiveHoursStart", start, 23),
        ("ActiveHoursEnd", end, 23),
        ("AllowAutoUpdate", updates.automatic, 5),
    ];
    let mut steps = Vec::new();
    for (name, value, max) in numbers {
        if let Some(value) = value {
            if value > max {
                return Err(unusable("updates", "a number is outside its range"));
            }
            steps.push(policy(Scope::Device, "Update", name, &PolicyValue::Int(value.into()))?);
        }
    }
    for (name, value) in [("ProductVersion", &updates.product), ("TargetReleaseVersion", &updates.release)] {
        if let Some(value) = value {
            steps.push(policy(Scope::Device, "Update", name, &PolicyValue::Text(value.clone()))?);
        }
    }
    Ok(steps)
}

/// Silent BitLocker encryption. Send it only when it changed: the same settings again suspend protection.
#[must_use]
pub fn bitlocker() -> Vec<Step> {
    [
        ("RequireDeviceEncryption", "1"),
        ("AllowWarningForOtherDiskEncryption", "0"),
        ("AllowStandardUserEncryption", "1"),
    ]
    .into_iter()
    .map(|(leaf, value)| {
        NodeCommand::replace(device(&["BitLocker/", leaf].concat()), Format::Int, value).into()
    })
    .collect()
}

/// LAPS (LAPS CSP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laps {
    /// 1 Entra, 2 Active Directory: where the password goes. It never comes to us.
    pub directory: u8,
    /// Days, 1 to 365.
    pub age: u32,
    /// 8 to 64.
    pub length: u32,
    /// The account, when it is not the built-in one.
    pub account: Option<String>,
}

/// Sets LAPS: one Atomic, as its node is marked.
///
/// # Errors
/// For a number outside its range.
pub fn laps(laps: &Laps) -> Result<Step, Error> {
    if laps.directory > 2 || !(1..=365).contains(&laps.age) || !(8..=64).contains(&laps.length) {
        return Err(unusable("laps", "a number is outside its range"));
    }
    let uri = |leaf: &str| device(&["LAPS/Policies/", leaf].concat());
    let mut commands = vec![
        NodeCommand::replace(uri("BackupDirectory"), Format::Int, laps.directory.to_string()),
        NodeCommand::replace(uri("PasswordAgeDays"), Format::Int, laps.age.to_string()),
        NodeCommand::replace(uri("PasswordLength"), Format::Int, laps.length.to_string()),
    ];
    commands.extend(
        laps.account
            .as_ref()
            .map(|name| NodeCommand::replace(uri("AdministratorAccountName"), Format::Chr, &**name)),
    );
    Ok(Step::Atomic(commands))
}

/// A local administrator's account (Accounts CSP). One that is there already answers the `Add` with 418 and gets the
/// password by `Replace`.
///
/// # Errors
/// For a name that Windows does not take.
pub fn local_administrator(name: &str, password: &str) -> Result<Vec<Step>, Error> {
    if name.chars().count() > 20
        || name.contains(['"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@'])
    {
        return Err(unusable("name", "at most 20 characters, none of \"/\\[]:;|=,+*?<>@"));
    }
    let base = device(&["Accounts/Users/", &segment("name", name)?].concat());
    let mut steps = add_and_replace(&[&base, "/Password"].concat(), Format::Chr, password);
    // 2 is the group of administrators.
    steps.extend(add_and_replace(&[&base, "/LocalUserGroup"].concat(), Format::Int, "2"));
    Ok(steps)
}
