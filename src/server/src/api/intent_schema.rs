//! The OpenAPI schema of [`bellwether_model::Intent`], which knows nothing of OpenAPI.

use bellwether_model::intent::{DefenderAction, SettingScope, WindowsWipe};
use serde_json::{Value, json};
use std::borrow::Cow;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Stands for the intent in the document.
pub struct IntentSchema;

impl ToSchema for IntentSchema {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Intent")
    }
}

impl PartialSchema for IntentSchema {
    fn schema() -> RefOr<Schema> {
        let variants: Vec<Value> =
            variants().into_iter().map(|(kind, fields, required)| variant(kind, fields, &required)).collect();
        let schema = json!({
            "description": "What somebody wants done once. A platform or device that cannot do it says so before anything is queued.",
            "oneOf": variants,
        });
        serde_json::from_value(schema).unwrap_or_else(|_| RefOr::T(Schema::default()))
    }
}

fn variant(kind: &str, fields: Value, required: &[&str]) -> Value {
    let mut properties = json!({ "type": { "type": "string", "enum": [kind] } });
    if let (Some(all), Value::Object(fields)) = (properties.as_object_mut(), fields) {
        all.extend(fields);
    }
    let required: Vec<&str> = std::iter::once("type").chain(required.iter().copied()).collect();
    json!({ "type": "object", "title": kind, "properties": properties, "required": required, "additionalProperties": false })
}

fn variants() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let text = || json!({ "type": "string" });
    let yes = || json!({ "type": "boolean" });
    let bytes = || json!({ "type": "string", "contentEncoding": "base64" });
    vec![
        ("lock", json!({ "message": text(), "phone_number": text() }), vec![]),
        ("clear-passcode", json!({}), vec![]),
        (
            "wipe",
            json!({
                "scope": { "type": "string", "enum": ["everything", "work-data"] },
                "preserve_data_plan": yes(),
                "disallow_proximity_setup": yes(),
                "obliteration_behavior": {
                    "type": "string",
                    "enum": ["Default", "DoNotObliterate", "ObliterateWithWarning", "Always"],
                },
                "return_to_service": yes(),
                "windows": words(WindowsWipe::ALL.iter().map(|w| w.as_str())),
            }),
            vec![],
        ),
        ("restart", json!({ "notify_user": yes() }), vec![]),
        ("shut-down", json!({}), vec![]),
        (
            "refresh-inventory",
            json!({ "kinds": { "type": "array", "items": {
                "type": "string",
                "enum": ["device", "security", "apps", "certificates", "profiles"],
            } } }),
            vec![],
        ),
        ("install-profile", json!({ "profile": bytes() }), vec!["profile"]),
        ("remove-profile", json!({ "identifier": text() }), vec!["identifier"]),
        ("install-app", json!({ "app": app() }), vec!["app"]),
        ("remove-app", json!({ "identifier": text() }), vec!["identifier"]),
        ("install-certificate", json!({ "certificate": bytes(), "name": text() }), vec!["certificate"]),
        ("lost-mode-on", json!({ "message": text(), "phone_number": text(), "footnote": text() }), vec![]),
        ("lost-mode-off", json!({}), vec![]),
        ("locate", json!({}), vec![]),
        ("play-sound", json!({}), vec![]),
        ("rename", json!({ "name": text() }), vec!["name"]),
        ("message", json!({ "text": text() }), vec!["text"]),
        ("os-update", json!({ "version": text() }), vec![]),
        (
            "rotate-secret",
            json!({ "secret": {
                "type": "string",
                "enum": ["recovery-lock", "disk-recovery-key", "local-admin-password"],
            } }),
            vec!["secret"],
        ),
        ("renew-identity", json!({}), vec![]),
        ("unenroll", json!({}), vec![]),
        (
            "defender",
            json!({ "action": words(DefenderAction::ALL.iter().map(|w| w.as_str())) }),
            vec!["action"],
        ),
        (
            "configure",
            json!({ "settings": { "type": "array", "items": setting() }, "force": { "type": "boolean" } }),
            vec!["settings"],
        ),
        (
            "ingest-admx",
            json!({ "app": text(), "file_id": text(), "admx": text() }),
            vec!["app", "file_id", "admx"],
        ),
        ("encrypt-disk", json!({}), vec![]),
        (
            "set-laps",
            json!({
                "directory": number(0, 2), "age_days": number(1, 365), "length": number(8, 64), "account": text(),
            }),
            vec!["directory", "age_days", "length"],
        ),
        ("set-local-admin", json!({ "name": text() }), vec!["name"]),
        (
            "set-wifi",
            json!({ "ssid": text(), "passphrase": text(), "hidden": yes(), "profile": text() }),
            vec!["ssid"],
        ),
        ("remove-wifi", json!({ "ssid": text() }), vec!["ssid"]),
        ("set-vpn", json!({ "name": text(), "profile": text() }), vec!["name", "profile"]),
        ("remove-vpn", json!({ "name": text() }), vec!["name"]),
        (
            "set-firewall-rule",
            json!({
                "id": text(), "name": text(), "program": text(), "protocol": number(0, 255), "local_ports": text(),
                "remote_ports": text(), "remote_addresses": text(), "inbound": yes(), "allow": yes(),
                "profiles": number(1, 7),
            }),
            vec!["id", "name"],
        ),
        ("remove-firewall-rule", json!({ "id": text() }), vec!["id"]),
        ("remove-certificate", json!({ "thumbprint": text() }), vec!["thumbprint"]),
        ("request-certificate", json!({ "id": text() }), vec!["id"]),
        (
            "install-identity",
            json!({ "id": text(), "pkcs12": bytes(), "password": text() }),
            vec!["id", "pkcs12", "password"],
        ),
        ("collect-diagnostics", json!({ "upload_url": text() }), vec![]),
        ("call-often", json!({}), vec![]),
        ("raw", json!({ "payload": bytes() }), vec!["payload"]),
    ]
}

fn words(all: impl Iterator<Item = &'static str>) -> Value {
    json!({ "type": "string", "enum": all.collect::<Vec<_>>() })
}

fn number(least: u32, most: u32) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

/// A policy: its value says in one key what form it has.
fn setting() -> Value {
    let pair = json!({ "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2 });
    let one = |form: &str, value: Value| {
        json!({
            "type": "object",
            "properties": { form: value },
            "required": [form],
            "additionalProperties": false,
        })
    };
    json!({
        "type": "object",
        "properties": {
            "scope": words(SettingScope::ALL.iter().map(|w| w.as_str())),
            "area": { "type": "string" },
            "name": { "type": "string" },
            "value": { "oneOf": [
                one("int", json!({ "type": "integer" })),
                one("text", json!({ "type": "string" })),
                one("enabled", json!({ "type": "array", "items": pair })),
                words(["disabled", "remove"].into_iter()),
            ] },
        },
        "required": ["area", "name", "value"],
        "additionalProperties": false,
    })
}

fn app() -> Value {
    let package = json!({
        "type": "object",
        "properties": {
            "source": { "type": "string", "enum": ["package"] },
            "id": { "type": "string", "format": "uuid" },
            "arguments": { "type": "string" },
        },
        "required": ["source", "id"],
        "additionalProperties": false,
    });
    let one = |source: &str, name: &str, value: Value| {
        json!({
            "type": "object",
            "properties": { "source": { "type": "string", "enum": [source] }, name: value },
            "required": ["source", name],
            "additionalProperties": false,
        })
    };
    json!({ "oneOf": [
        one("app-store", "id", json!({ "type": "integer", "minimum": 0 })),
        one("store-identifier", "identifier", json!({ "type": "string" })),
        one("url", "url", json!({ "type": "string", "format": "uri" })),
        package,
    ] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_model::Intent;

    #[test]
    fn the_schema_knows_every_intent_and_its_fields() {
        let kinds: Vec<&str> = variants().iter().map(|(kind, _, _)| *kind).collect();
        assert_eq!(kinds, Intent::KINDS);
        for (kind, fields, _) in variants() {
            // Every documented field is known to the type: an unknown one would be refused by name.
            for field in fields.as_object().unwrap().keys() {
                let body = json!({ "type": kind, field: null }).to_string();
                let error =
                    serde_json::from_str::<Intent>(&body).err().map(|e| e.to_string()).unwrap_or_default();
                assert!(!error.contains("unknown field"), "{kind}.{field}: {error}");
            }
        }
        let RefOr::T(Schema::OneOf(all)) = IntentSchema::schema() else { panic!("not read back") };
        assert_eq!(all.items.len(), Intent::KINDS.len());
    }
}
