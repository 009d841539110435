//! Apps: listed, installed, removed.

use plist::{Dictionary, Value};

use super::answers::{Answer, dictionary, text};
use super::{AppleDevice, InstalledApp};

impl AppleDevice {
    pub(super) fn application_list(&self, request_type: &str, command: &Dictionary) -> Answer {
        let wanted: Vec<&str> = command
            .get("Identifiers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_string)
            .collect();
        let managed_only = command
            .get("ManagedAppsOnly")
            .and_then(Value::as_boolean)
            .unwrap_or(request_type == "ManagedApplicationList");
        let chosen = |app: &&InstalledApp| {
            (wanted.is_empty() || wanted.contains(&app.identifier.as_str())) && (app.managed || !managed_only)
        };
        if request_type == "ManagedApplicationList" {
            let status = |status: &str| {
                Value::Dictionary(dictionary([
                    ("Status", text(status)),
                    ("ManagementFlags", Value::Integer(1.into())),
                    ("HasConfiguration", Value::Boolean(false)),
                    ("HasFeedback", Value::Boolean(false)),
                ]))
            };
            let there = self.inventory.apps.values().filter(chosen).map(|app| (app, "Managed"));
            let coming = self.inventory.pending_apps.values().filter(chosen).map(|app| (app, "Installing"));
            let list: Dictionary =
                there.chain(coming).map(|(app, word)| (app.identifier.clone(), status(word))).collect();
            return Answer::with(dictionary([("ManagedApplicationList", Value::Dictionary(list))]));
        }
        let entries = self.inventory.apps.values().filter(chosen).map(|app| {
            Value::Dictionary(dictionary([
                ("Identifier", text(&app.identifier)),
                ("Name", text(&app.name)),
                ("Version", text(&app.version)),
                ("ShortVersion", text(&app.version)),
                ("BundleSize", Value::Integer(52_428_800_u64.into())),
                ("Installing", Value::Boolean(false)),
            ]))
        });
        Answer::with(dictionary([("InstalledApplicationList", Value::Array(entries.collect()))]))
    }

    pub(super) fn install_application(&mut self, command: &Dictionary) -> Answer {
        let identifier = command.get("Identifier").and_then(Value::as_string).map(str::to_owned);
        let store_id = command.get("iTunesStoreID").and_then(Value::as_unsigned_integer);
        let manifest = command
            .get("ManifestURL")
            .and_then(Value::as_string)
            .or_else(|| command.get("Manifest").map(|_| "manifest"));
        let identifier = match (identifier, store_id, manifest) {
            (Some(identifier), _, _) => identifier,
            (None, Some(id), _) => format!("com.example.store.{id}"),
            (None, None, Some(_)) => "com.example.enterprise".to_owned(),
            (None, None, None) => {
                return Answer::mdm_error(12022, "The command names no app.");
            }
        };
        if self.inventory.apps.get(&identifier).is_some_and(|app| app.managed) {
            return Answer::mdm_error(12025, "The app is already installed.");
        }
        if !self.inventory.apps_never_arrive {
            let app = InstalledApp {
                identifier: identifier.clone(),
                name: identifier.rsplit('.').next().unwrap_or_default().to_owned(),
                version: "1.0".to_owned(),
                managed: true,
            };
            self.inventory.pending_apps.insert(identifier.clone(), app);
        }
        Answer::with(dictionary([("Identifier", text(identifier)), ("State", text("Installing"))]))
    }

    pub(super) fn remove_application(&mut self, identifier: &str) -> Answer {
        let managed = self.inventory.apps.get(identifier).is_some_and(|app| app.managed);
        if managed || self.inventory.pending_apps.contains_key(identifier) {
            self.inventory.apps.remove(identifier);
            self.inventory.pending_apps.remove(identifier);
            return Answer::with(dictionary([("Identifier", text(identifier))]));
        }
        Answer::mdm_error(12040, "The app is not managed.")
    }
}
