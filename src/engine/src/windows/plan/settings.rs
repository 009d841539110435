//! Settings: policies, updates, encryption, accounts, networks.

use super::{Context, Draft, one, part};
use crate::error::Error;
use bellwether_model::Intent;
use bellwether_model::intent::{Setting, SettingScope, SettingValue};
use bellwether_windows::csp::{self, PolicyValue, Scope, Step};
use bellwether_windows::syncml::reader::{self, Limits};

/// The first build of Windows 11.
const WINDOWS_11: u32 = 22000;
const MAX_SETTINGS: usize = 500;
const DOCUMENT: Limits =
    Limits { max_bytes: 1024 * 1024, max_depth: 48, max_nodes: 50_000, max_attributes: 32 };

pub(super) fn parts(intent: &Intent, scope: Scope, cx: &Context<'_>) -> Result<Vec<Draft>, Error> {
    Ok(match intent {
        Intent::OsUpdate { version } => vec![part(os_update(version.as_deref(), cx)?)],
        Intent::Configure { settings, .. } => {
            if settings.is_empty() || settings.len() > MAX_SETTINGS {
                return Err(Error::Invalid(format!("settings are 1 to {MAX_SETTINGS} policies")));
            }
            // One part each, so that everybody sees which policy was refused.
            settings.iter().map(|one| Ok(part(vec![setting(one)?]))).collect::<Result<_, Error>>()?
        }
        Intent::IngestAdmx { app, file_id, admx } => {
            well_formed("admx", admx, "policyDefinitions")?;
            vec![part(csp::ingest_admx(app, file_id, admx)?)]
        }
        Intent::EncryptDisk => vec![part(csp::bitlocker())],
        Intent::SetLaps(laps) => one(csp::laps(&csp::Laps {
            directory: laps.directory,
            age: laps.age_days,
            length: laps.length,
            account: laps.account.clone(),
        })?),
        Intent::SetLocalAdmin { name } => {
            let password = cx.material.password.as_deref();
            let password = password.ok_or_else(|| Error::Internal("no password was made".into()))?;
            vec![part(csp::local_administrator(name, password)?)]
        }
        Intent::SetWifi { ssid, passphrase, hidden, profile } => {
            let document = match (profile, passphrase) {
                (Some(_), Some(_)) => {
                    return Err(Error::Invalid("give a passphrase or a profile, not both".into()));
                }
                (Some(profile), None) => {
                    well_formed("profile", profile, "WLANProfile")?;
                    profile.clone()
                }
                (None, passphrase) => csp::wlan_profile(ssid, passphrase.as_deref(), *hidden)?,
            };
            one(csp::wifi(ssid, &document)?)
        }
        Intent::RemoveWifi { ssid } => one(csp::remove_wifi(ssid)?),
        Intent::SetVpn { name, profile } => {
            well_formed("profile", profile, "VPNProfile")?;
            one(csp::vpn(scope, name, profile)?)
        }
        Intent::RemoveVpn { name } => one(csp::remove_vpn(scope, name)?),
        Intent::SetFirewallRule(rule) => one(csp::firewall_rule(&csp::FirewallRule {
            id: rule.id.clone(),
            name: rule.name.clone(),
            program: rule.program.clone(),
            protocol: rule.protocol,
            local_ports: rule.local_ports.clone(),
            remote_ports: rule.remote_ports.clone(),
            remote_addresses: rule.remote_addresses.clone(),
            inbound: rule.inbound,
            allow: rule.allow,
            profiles: rule.profiles,
        })?),
        Intent::RemoveFirewallRule { id } => one(csp::remove_firewall_rule(id)?),
        _ => return Err(Error::Internal(format!("\"{}\" is no setting", intent.kind()))),
    })
}

fn setting(setting: &Setting) -> Result<Step, Error> {
    let scope = match setting.scope {
        SettingScope::Device => Scope::Device,
        SettingScope::User => Scope::User,
    };
    let value = match &setting.value {
        SettingValue::Int(number) => PolicyValue::Int(*number),
        SettingValue::Text(text) => PolicyValue::Text(text.clone()),
        SettingValue::Enabled(elements) => PolicyValue::Enabled(elements.clone()),
        SettingValue::Disabled => PolicyValue::Disabled,
        SettingValue::Remove => return Ok(csp::remove_policy(scope, &setting.area, &setting.name)?),
    };
    Ok(csp::policy(scope, &setting.area, &setting.name, &value)?)
}

/// Holds the machine at a release (Policy CSP, Update): `24H2`, or `Windows 11 24H2`.
fn os_update(version: Option<&str>, cx: &Context<'_>) -> Result<Vec<Step>, Error> {
    let version = version.map(str::trim).unwrap_or_default();
    let (product, release) = match version.rsplit_once(' ') {
        Some((product, release)) => (Some(product.trim()), release),
        None => (None, version),
    };
    let number: Option<u32> = release.get(..2).and_then(|year| year.parse().ok());
    let half = release.get(2..).unwrap_or_default();
    let number = number.filter(|_| matches!(half, "H1" | "H2"));
    let (Some(year), None | Some("Windows 10" | "Windows 11")) = (number, product) else {
        return Err(Error::Invalid(
            "version is a release of Windows such as \"24H2\" or \"Windows 11 24H2\"".into(),
        ));
    };
    // 22H2 is the last release of Windows 10, 21H2 the first of Windows 11; between them the machine decides.
    let product = match (product, cx.machine.build) {
        (Some(product), _) => product,
        (None, _) if year > 22 => "Windows 11",
        (None, _) if year < 21 || release == "21H1" => "Windows 10",
        (None, Some((build, _))) if build >= WINDOWS_11 => "Windows 11",
        (None, Some(_)) => "Windows 10",
        (None, None) => {
            return Err(Error::Invalid(format!(
                "{release} is a release of two systems; say \"Windows 10 {release}\" or \"Windows 11 {release}\""
            )));
        }
    };
    let exists = if product == "Windows 10" { year <= 22 } else { year > 21 || release == "21H2" };
    if !exists {
        return Err(Error::Invalid(format!("there is no {product} {release}")));
    }
    if product == "Windows 10" && cx.machine.build.is_some_and(|(build, _)| build >= WINDOWS_11) {
        return Err(Error::CannotDo("this machine runs Windows 11, and no update goes back".into()));
    }
    Ok(csp::updates(&csp::Updates {
        product: Some(product.to_owned()),
        release: Some(release.to_owned()),
        ..csp::Updates::default()
    })?)
}

fn well_formed(what: &str, document: &str, root: &str) -> Result<(), Error> {
    let name = reader::root_name(document, &DOCUMENT)
        .map_err(|e| Error::Invalid(format!("{what} is no XML that this server takes: {e}")))?;
    if name != root {
        return Err(Error::Invalid(format!("{what} is a document whose root is {root}")));
    }
    Ok(())
}
