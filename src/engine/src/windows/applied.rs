//! What a PC has by its own word, so that what is set already is not sent again.
//!
//! Only policies of the machine are remembered: what one user has, another has not. A policy is forgotten when anything
//! that writes to it, above it or below it is handed over, and remembered when the PC has confirmed it. So a lost
//! answer, a failure and an administrator's own SyncML all end in "not known", and what is not known is sent.

use super::raw::{node, requests, segments};
use crate::error::Error;
use crate::vault::Vault;
use crate::{Engine, audit};
use bellwether_model::{CommandId, CommandState, EnrollmentId, EventKind, PartId, SiteId, Timestamp};
use bellwether_store::{Scope, Tx};
use bellwether_windows::syncml::{Command, Verb};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes that are kept of a digest.
const KEPT_DIGEST: usize = 16;
/// Why a part was not sent.
const NOTE: &str = "the PC has confirmed these settings before; nothing was sent";
/// Below these nodes nothing stays as it was: an ADMX file gives policies another meaning, a wipe takes all away.
const UPHEAVALS: [&str; 3] = ["configoperations", "remotewipe", "automaticredeployment"];

/// A policy of the machine, and what a part makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// `vendor/msft/policy/config/<area>/<name>`, lower case.
    node: String,
    /// Keyed: a value may be a secret.
    digest: Vec<u8>,
}

impl Setting {
    /// The setting of a part that sets one and nothing else.
    pub(crate) fn of(vault: &Vault, commands: &[Command]) -> Option<Self> {
        let [Command::Request(request)] = commands else { return None };
        let [item] = request.items.as_slice() else { return None };
        if !matches!(request.verb, Verb::Add | Verb::Replace | Verb::Delete) {
            return None;
        }
        let node = canonical(node(request));
        let mut names = node.strip_prefix("vendor/msft/policy/config/")?.split('/');
        if names.next().is_none() || names.next().is_none() || names.next().is_some() {
            return None;
        }
        let format = item.meta.format.as_ref().or(request.meta.format.as_ref());
        let format = format.map(|format| format.as_str()).unwrap_or_default();
        let data = match &item.data {
            Some(data) => data.as_str()?,
            None => "",
        };
        let value = [request.verb.as_str(), "\n", format, "\n", data].concat();
        let mut digest = vault.code_hash("setting", &value);
        digest.truncate(KEPT_DIGEST);
        Some(Self { node, digest })
    }

    /// Whether it is among what an enrollment has.
    pub(super) fn is_among(&self, applied: &[(String, Vec<u8>)]) -> bool {
        applied.iter().any(|(node, digest)| *node == self.node && *digest == self.digest)
    }

    /// Whether one of these nodes is written to, above it or below it.
    pub(super) fn is_touched_by(&self, written: &[String]) -> bool {
        written.iter().any(|other| touches(other, &self.node))
    }
}

/// The nodes that commands write to, as [`Setting`] spells them.
pub(super) fn written(commands: &[Command]) -> Vec<String> {
    requests(commands)
        .into_iter()
        .filter(|request| request.verb != Verb::Get)
        .map(|request| canonical(node(request)))
        .collect()
}

/// `./Device/Vendor/…` and `./Vendor/…` are one node.
fn canonical(uri: &str) -> String {
    let names = segments(uri);
    let names = names.strip_prefix([".".to_owned()].as_slice()).unwrap_or(&names);
    names.strip_prefix(["device".to_owned()].as_slice()).unwrap_or(names).join("/")
}

fn touches(written: &str, node: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // A node without a name is the tree itself.
    written.is_empty()
        || below(written, node)
        || below(node, written)
        || written.split('/').any(|name| UPHEAVALS.contains(&name))
}

/// What was handed over may change these nodes, and whether it did is not known yet.
pub(super) fn forget(tx: &mut Tx<'_>, enrollment: EnrollmentId, written: &[String]) -> Result<(), Error> {
    for (node, _) in tx.applied_settings(enrollment)? {
        if written.iter().any(|other| touches(other, &node)) {
            tx.applied_setting_forget(enrollment, &node)?;
        }
    }
    Ok(())
}

/// The PC confirmed it. An answer that differs from what it confirmed meanwhile came late: which of both holds is not
/// known.
pub(super) fn confirm(
    tx: &mut Tx<'_>,
    enrollment: EnrollmentId,
    setting: &Setting,
    now: Timestamp,
) -> Result<(), Error> {
    let applied = tx.applied_settings(enrollment)?;
    if setting.is_among(&applied) {
        return Ok(());
    }
    if applied.iter().any(|(node, _)| *node == setting.node) {
        return Ok(tx.applied_setting_forget(enrollment, &setting.node)?);
    }
    Ok(tx.applied_setting_put(enrollment, &setting.node, &setting.digest, now)?)
}

/// Parts of a command that wait and would bring what the PC has: they count as done. How many.
pub(crate) fn spare(
    tx: &mut Tx<'_>,
    enrollment: EnrollmentId,
    command: CommandId,
    parts: &[(PartId, Setting)],
    now: Timestamp,
) -> Result<usize, Error> {
    let applied = tx.applied_settings(enrollment)?;
    let spared: Vec<PartId> =
        parts.iter().filter(|(_, setting)| setting.is_among(&applied)).map(|(part, _)| *part).collect();
    if spared.is_empty() {
        return Ok(0);
    }
    let (spared, command) = tx.parts_spare(command, &spared, now, NOTE)?;
    if let Some(command) = command.filter(|command| spared > 0 && command.state.is_terminal()) {
        let target = format!("command:{}", command.id);
        let data = serde_json::json!({
            "device": command.device_id, "enrollment": enrollment, "state": command.state,
            "before": CommandState::Queued,
        });
        tx.event_append(&audit::event(now, EventKind::CommandChanged, &target, &data)?)?;
    }
    Ok(spared)
}

impl Engine {
    /// What an enrollment has.
    pub(super) async fn applied(
        &self,
        site: SiteId,
        enrollment: EnrollmentId,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.store
            .read(Scope::Site(site), move |tx| tx.applied_settings(enrollment).map_err(Error::from))
            .await
    }

    /// Takes parts out of the queue whose settings the PC has.
    pub(super) async fn spare(
        &self,
        site: SiteId,
        enrollment: EnrollmentId,
        commands: BTreeMap<CommandId, Vec<(PartId, Setting)>>,
    ) -> Result<(), Error> {
        let now = self.now();
        self.store
            .write(Scope::Site(site), move |tx| {
                for (command, parts) in &commands {
                    spare(tx, enrollment, *command, parts, now)?;
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_touches_what_is_at_above_and_below_it() {
        let node = "vendor/msft/policy/config/camera/allowcamera";
        for (uri, expected) in [
            ("./Device/Vendor/MSFT/Policy/Config/Camera/AllowCamera", true),
            ("./Vendor/MSFT/Policy/Config/camera", true),
            ("./Vendor/MSFT/Policy", true),
            ("./Vendor/MSFT/Policy/Config/Camera/AllowCamera/x", true),
            ("./Vendor/MSFT/Policy/Config/%43amera/AllowCamera", true),
            ("./Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/App/Policy/File", true),
            ("./Device/Vendor/MSFT/RemoteWipe/doWipe", true),
            (".", true),
            ("./Vendor/MSFT/Policy/Config/Camera/AllowCamera2", false),
            ("./Vendor/MSFT/Policy/Config/Cam", false),
            ("./User/Vendor/MSFT/Policy/Config/Camera/AllowCamera", false),
            ("./Vendor/MSFT/Reboot/RebootNow", false),
        ] {
            assert_eq!(touches(&canonical(uri), node), expected, "{uri}");
        }
    }
}
