//! What a server that was restored from a backup does not do before an admin says so (Q14).
//!
//! A backup is old. A command that waits in it may have been done since, taken back since, or given to a device that
//! has another owner by now. What can be undone is sent all the same; what cannot waits.

use crate::Intent;

impl Intent {
    /// Whether it waits while a restored server is in quarantine: what destroys, locks somebody out, takes something
    /// away, or cannot be told from that.
    pub fn waits_in_quarantine(&self) -> bool {
        match self {
            // Data or management is gone.
            Self::Wipe(_) | Self::Unenroll => true,
            // Somebody may be locked out, or let in: by a PIN, a mode or a secret that is not of today.
            Self::Lock { .. }
            | Self::ClearPasscode
            | Self::LostModeOn { .. }
            | Self::LostModeOff
            | Self::RotateSecret { .. }
            | Self::SetLocalAdmin { .. }
            | Self::ShutDown => true,
            // What is taken away may be needed by now, the way back to this server included.
            Self::RemoveProfile { .. }
            | Self::RemoveApp { .. }
            | Self::RemoveWifi { .. }
            | Self::RemoveVpn { .. }
            | Self::RemoveFirewallRule { .. }
            | Self::RemoveCertificate { .. } => true,
            // It may be any of these.
            Self::Raw { .. } => true,
            Self::Restart { .. }
            | Self::RefreshInventory { .. }
            | Self::InstallProfile { .. }
            | Self::InstallApp { .. }
            | Self::InstallCertificate { .. }
            | Self::Locate
            | Self::PlaySound
            | Self::Rename { .. }
            | Self::Message { .. }
            | Self::OsUpdate { .. }
            | Self::RenewIdentity
            | Self::Defender { .. }
            | Self::Configure { .. }
            | Self::IngestAdmx { .. }
            | Self::EncryptDisk
            | Self::SetLaps(_)
            | Self::SetWifi { .. }
            | Self::SetVpn { .. }
            | Self::SetFirewallRule(_)
            | Self::RequestCertificate { .. }
            | Self::InstallIdentity { .. }
            | Self::CollectDiagnostics { .. }
            | Self::CallOften => false,
        }
    }
}

/// The kinds of which [`Intent::waits_in_quarantine`] is true: a queue knows kinds only, intents are sealed.
pub const QUARANTINED: &[&str] = &[
    "wipe",
    "unenroll",
    "lock",
    "clear-passcode",
    "lost-mode-on",
    "lost-mode-off",
    "rotate-secret",
    "set-local-admin",
    "shut-down",
    "remove-profile",
    "remove-app",
    "remove-wifi",
    "remove-vpn",
    "remove-firewall-rule",
    "remove-certificate",
    "raw",
];

/// Whether a command of this kind waits in quarantine. So does a kind that nobody knows.
pub fn kind_waits_in_quarantine(kind: &str) -> bool {
    QUARANTINED.contains(&kind) || !Intent::KINDS.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    /// One intent of every kind.
    fn every_intent() -> Vec<Intent> {
        [
            json!({ "type": "lock" }),
            json!({ "type": "clear-passcode" }),
            json!({ "type": "wipe" }),
            json!({ "type": "restart" }),
            json!({ "type": "shut-down" }),
            json!({ "type": "refresh-inventory" }),
            json!({ "type": "install-profile", "profile": "" }),
            json!({ "type": "remove-profile", "identifier": "x" }),
            json!({ "type": "install-app", "app": { "source": "app-store", "id": 1 } }),
            json!({ "type": "remove-app", "identifier": "x" }),
            json!({ "type": "install-certificate", "certificate": "" }),
            json!({ "type": "lost-mode-on" }),
            json!({ "type": "lost-mode-off" }),
            json!({ "type": "locate" }),
            json!({ "type": "play-sound" }),
            json!({ "type": "rename", "name": "x" }),
            json!({ "type": "message", "text": "x" }),
            json!({ "type": "os-update" }),
            json!({ "type": "rotate-secret", "secret": "recovery-lock" }),
            json!({ "type": "renew-identity" }),
            json!({ "type": "unenroll" }),
            json!({ "type": "defender", "action": "quick-scan" }),
            json!({ "type": "configure", "settings": [] }),
            json!({ "type": "ingest-admx", "app": "x", "file_id": "x", "admx": "x" }),
            json!({ "type": "encrypt-disk" }),
            json!({ "type": "set-laps", "directory": 0, "age_days": 1, "length": 8 }),
            json!({ "type": "set-local-admin", "name": "x" }),
            json!({ "type": "set-wifi", "ssid": "x" }),
            json!({ "type": "remove-wifi", "ssid": "x" }),
            json!({ "type": "set-vpn", "name": "x", "profile": "x" }),
            json!({ "type": "remove-vpn", "name": "x" }),
            json!({ "type": "set-firewall-rule", "id": "x", "name": "x" }),
            json!({ "type": "remove-firewall-rule", "id": "x" }),
            json!({ "type": "remove-certificate", "thumbprint": "x" }),
            json!({ "type": "request-certificate", "id": "x" }),
            json!({ "type": "install-identity", "id": "x", "pkcs12": "", "password": "x" }),
            json!({ "type": "collect-diagnostics" }),
            json!({ "type": "call-often" }),
            json!({ "type": "raw", "payload": "" }),
        ]
        .into_iter()
        .map(|text| serde_json::from_value(text.clone()).unwrap_or_else(|e| panic!("{text}: {e}")))
        .collect()
    }

    #[test]
    fn q14_kinds_say_the_same_as_intents() {
        let all = every_intent();
        let kinds: BTreeSet<&str> = all.iter().map(Intent::kind).collect();
        assert_eq!(kinds, Intent::KINDS.iter().copied().collect(), "one intent of every kind");
        for intent in &all {
            assert_eq!(
                intent.waits_in_quarantine(),
                kind_waits_in_quarantine(intent.kind()),
                "{}",
                intent.kind()
            );
            assert!(!intent.is_destructive() || intent.waits_in_quarantine(), "{}", intent.kind());
        }
        assert!(kind_waits_in_quarantine("of-a-later-version"));
    }
}
